/* stave run: text from a model. One prompt (by flag or by pipe) is continued on stdout, or answered with --chat; a terminal
 * without a prompt gets a talk. Talk, receipt and prompts for input go to stderr. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/run.h"

#define PROMPT_MAX ((size_t)64 << 20)

#define AT(field) offsetof(struct run_options, field)
#define AT_ENGINE(field) offsetof(struct run_options, engine.field)
static const struct stave_key keys[] = {
	{"prompt", STAVE_KEY_STR, AT(prompt), NULL, 0, 0, NULL, "text to continue; without it stdin is read, or on a terminal a talk begins"},
	{"chat", STAVE_KEY_BOOL, AT(chat), "no", 0, 0, NULL, "the prompt is a user's message: answer it in the model's chat template"},
	{"system", STAVE_KEY_STR, AT(system), NULL, 0, 0, NULL, "what the model is told before a talk"},
	{"variables", STAVE_KEY_STR, AT(variables), NULL, 0, 0, NULL, "more variables for the chat template, a JSON object: {\"enable_thinking\": false}"},
	{"max_tokens", STAVE_KEY_INT, AT(max_tokens), "256", 0, 1e9, NULL, "tokens to generate at most"},
	{"temperature", STAVE_KEY_REAL, AT(temperature), "0.8", 0, 100, NULL, "0 takes the likeliest token each time"},
	{"top_k", STAVE_KEY_INT, AT(top_k), "0", 0, 1e9, NULL, "draw from the k likeliest tokens; 0 = all"},
	{"top_p", STAVE_KEY_REAL, AT(top_p), "0.95", 0, 1, NULL, "draw from the smallest set with this much probability"},
	{"min_p", STAVE_KEY_REAL, AT(min_p), "0", 0, 1, NULL, "drop tokens less likely than this share of the likeliest"},
	{"repeat_penalty", STAVE_KEY_REAL, AT(repeat_penalty), "1", 0.01, 100, NULL, "makes tokens already present less likely; 1 = off"},
	{"seed", STAVE_KEY_INT, AT(seed), "-1", -1, 9e15, NULL, "of the draws; -1 = a new one each time"},
	{"stop", STAVE_KEY_STR, AT(stop), NULL, 0, 0, NULL, "text that ends the answer"},
	{"schema", STAVE_KEY_STR, AT(schema), NULL, 0, 0, NULL, "file with a JSON schema that the answer must satisfy"},
	{"grammar", STAVE_KEY_STR, AT(grammar), NULL, 0, 0, NULL, "file with a grammar (GBNF) that the answer must follow"},
	{"regex", STAVE_KEY_STR, AT(regex), NULL, 0, 0, NULL, "expression that the whole answer must match"},
	{"adapter", STAVE_KEY_STR, AT(adapter), NULL, 0, 0, NULL, "which of --adapters to use"},
	{"echo", STAVE_KEY_BOOL, AT(echo), "yes", 0, 0, NULL, "print the prompt before its continuation"},
	CLI_ENGINE_KEYS(AT_ENGINE),
	{"json", STAVE_KEY_BOOL, AT(json), "no", 0, 0, NULL, "print one JSON document instead of text and receipt"},
};

static void help(const struct stave_config *c)
{
	fputs("stave run MODEL [--prompt TEXT]: generate text, or chat. MODEL is a .gguf file or a Hugging Face directory.\n\n"
	      "  stave run model.gguf --prompt \"Once upon a time\" --max-tokens 100\n"
	      "  echo \"Name three rivers.\" | stave run model.gguf --chat --schema rivers.json --temperature 0\n\n"
	      "Text goes to stdout, the receipt to stderr. In a talk Ctrl-C stops the answer, Ctrl-D ends.\n\n", stdout);
	stave_config_help(c, stdout);
}

/* ---- the receipt ---- */

static void print_receipt(const char *model, const struct stave_engine *e, const struct stave_event *v, uint64_t seed)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	struct run_speed s = run_measure(e, v);
	char load[32];
	fprintf(stderr, "\nran %s (%s, loaded in %s)\n", model, info->type, stave_duration_text(load, info->load_s));
	fprintf(stderr, "  prompt       %d tokens, %.0f tokens/s\n", v->prompt_tokens, s.prefill_per_s);
	if (v->proposed)
		fprintf(stderr, "  speculation  %d of %d proposed tokens were right\n", v->accepted, v->proposed);
	fprintf(stderr, "  answer       %d tokens, %.1f tokens/s, finish %s, seed %llu\n", v->completion_tokens, s.decode_per_s, run_finish_name(v->finish),
	        (unsigned long long)seed);
	if (s.share > 0)
		fprintf(stderr, "  bandwidth    %.2f GB/s, %.0f %% of what this machine reads\n", s.bytes_per_s / 1e9, 100 * s.share);
	else if (s.bytes_per_s > 0)
		fprintf(stderr, "  bandwidth    %.2f GB/s\n", s.bytes_per_s / 1e9);
	fprintf(stderr, "  shortest     %s\n", s.shortest);
	fprintf(stderr, "  fingerprint  weights %s, last logits %016llx\n", info->model_hash, (unsigned long long)v->logits_hash);
	fprintf(stderr, "  next         stave serve %s\n", model);
}

static void print_json(const char *model, const struct stave_engine *e, const struct run_answer *a, uint64_t seed)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	struct run_speed s = run_measure(e, &a->end);
	struct stave_buf text = {0};
	char hash[17];
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)a->end.logits_hash);
	stave_utf8_clean(a->text.p ? a->text.p : "", a->text.len, &text);
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:s, s:s}", "model", model, "type",
	                      info->type, "text", text.p ? text.p : "", "finish_reason", run_finish_name(a->end.finish), "prompt_tokens",
	                      a->end.prompt_tokens, "completion_tokens", a->end.completion_tokens, "seed", (json_int_t)seed, "load_s", info->load_s, "prefill_s",
	                      a->end.prefill_s, "decode_s", a->end.decode_s, "prefill_tokens_per_s", s.prefill_per_s, "decode_tokens_per_s", s.decode_per_s,
	                      "decode_bytes_per_s", s.bytes_per_s, "bandwidth_share", s.share, "shortest_stave", s.shortest, "logits_hash", hash, "weights_hash",
	                      info->model_hash);
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
	stave_buf_free(&text);
}

/* ---- one prompt ---- */

/* The model's beginning-of-text token, where it expects one; an empty prompt begins with some such token in any case. */
static void begin(const struct stave_tokenizer *t, bool empty, struct stave_ids *ids)
{
	int32_t bos = stave_tokenizer_bos(t), eos = stave_tokenizer_eos(t);
	if (bos >= 0 && (empty || stave_tokenizer_add_bos(t)))
		stave_ids_put(ids, bos);
	else if (empty && eos >= 0)
		stave_ids_put(ids, eos);
}

static int encode(const struct stave_engine *e, const struct run_options *o, const char *prompt, size_t n, struct stave_ids *ids, struct stave_err *err)
{
	const struct stave_tokenizer *t = stave_engine_info(e)->tokenizer;
	struct stave_encoder *encoder;
	struct run_talk talk;
	int rc = stave_encoder_open(&encoder, t, err);
	if (rc)
		return rc;
	if (!o->chat) {
		begin(t, n == 0, ids);
		rc = stave_encode(encoder, prompt, n, false, ids, err);
	} else if (!(rc = run_talk_open(&talk, o, err))) {
		if (!(rc = run_talk_add(&talk, "user", prompt, n, err)))
			rc = stave_chat_render(encoder, talk.data, true, ids, err);
		run_talk_close(&talk);
	}
	stave_encoder_free(encoder);
	return rc;
}

static int complete(struct stave_engine *e, const struct run_options *o, const struct run_rules *rules, const char *model, const char *prompt, size_t n, struct stave_err *err)
{
	struct stave_ids ids = {0};
	struct run_answer a;
	uint64_t seed = run_seed(o);
	run_answer_init(&a, !o->json);
	if (o->echo && !o->chat) {
		a.before = prompt;
		a.n_before = n;
	}
	int rc = encode(e, o, prompt, n, &ids, err);
	if (!rc)
		rc = run_generate(e, o, rules, seed, &ids, o->chat, &a, err);
	if (!rc && o->json)
		print_json(model, e, &a, seed);
	if (!rc && !o->json) {
		putchar('\n');
		fflush(stdout);
		print_receipt(model, e, &a.end, seed);
	}
	if (!rc && a.end.finish == STAVE_FINISH_CANCELLED)
		rc = stave_err_set(err, STAVE_EINTERRUPTED, "interrupted after %d tokens", a.end.completion_tokens);
	run_answer_free(&a);
	stave_ids_free(&ids);
	return rc;
}

/* ---- the verb ---- */

static int run(void *options, const char *model, struct stave_err *err)
{
	struct run_options *o = options;
	struct stave_engine *e;
	struct stave_buf in = {0};
	const char *prompt = o->prompt;
	size_t n = prompt ? strlen(prompt) : 0;
	int rc = 0;
	if (!prompt && !isatty(0)) {
		if ((rc = stave_file_read(&in, "/dev/stdin", PROMPT_MAX, err)))
			return rc;
		while (in.len && (in.p[in.len - 1] == '\n' || in.p[in.len - 1] == '\r')) /* echo's own newline is no part of the prompt */
			in.p[--in.len] = 0;
		prompt = in.p ? in.p : "";
		n = in.len;
	}
	struct stave_engine_config c = {.model = model, .slots = 1, .queue = 1};
	if (!(rc = cli_engine_config(&o->engine, &c, err)) && !(rc = stave_engine_open(&e, &c, err))) {
		struct run_rules rules;
		if (!(rc = run_rules_open(&rules, o, stave_engine_info(e)->tokenizer, err)))
			rc = prompt ? complete(e, o, &rules, model, prompt, n, err) : run_chat(e, o, &rules, err);
		stave_engine_close(e);
		run_rules_close(&rules);
	}
	cli_engine_free(&o->engine);
	stave_buf_free(&in);
	return rc;
}

int stave_cli_run(int argc, char **argv)
{
	struct run_options o;
	const struct cli_model_verb v = {keys, sizeof keys / sizeof *keys, &o, help, run, "'stave run MODEL --prompt TEXT'; 'stave run -h' shows more"};
	return cli_model_verb(&v, argc, argv);
}
