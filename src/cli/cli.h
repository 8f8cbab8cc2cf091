/* cli/: options in, one room called, a result out. One function per verb; argv[0] is the verb's name; the value returned is
 * the exit status (DESIGN 5). Only cli/ writes to stdout. */
#ifndef STAVE_CLI_H
#define STAVE_CLI_H

/*        verb     one line of help */
#define STAVE_VERBS(X)                                                                     \
	X(plan,    "how long, how much, at what power and cost; the shortest stave")       \
	X(prepare, "text in, token shards out: clean, deduplicate, tokenize, split")       \
	X(train,   "train a language model, from scratch or from a directory")             \
	X(eval,    "loss, perplexity and bits per byte of a model on prepared data")       \
	X(run,     "generate text from a prompt, or chat")                                 \
	X(serve,   "the OpenAI-style API over HTTP")                                       \
	X(convert, "a model in the other format: Hugging Face directory or GGUF file")     \
	X(quantize, "a model's matrices in fewer bits, as a GGUF file")                    \
	X(bench,   "measure this machine, and training and answering on it")               \
	X(doctor,  "what this machine has, what is missing, what to do")

#define X(verb, help) int stave_cli_##verb(int argc, char **argv);
STAVE_VERBS(X)
#undef X

#endif
