/* stave run: text from a model. One prompt (by flag or by pipe) is continued on stdout; a terminal without a prompt gets a
 * chat. Talk, receipt and prompts for input go to stderr. The engine's thread writes the text as it comes; this thread
 * waits, and turns Ctrl-C into a cancellation. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/engine.h"
#include "cost/machine.h"
#include "infer/infer.h"

#define PROMPT_MAX ((size_t)64 << 20)

struct options {
	char *prompt, *stop;
	int64_t max_tokens, top_k, seed;
	double temperature, top_p, min_p, repeat_penalty;
	bool json, echo;
	struct cli_engine engine;
};
#define AT(field) offsetof(struct options, field)
#define AT_ENGINE(field) offsetof(struct options, engine.field)
static const struct stave_key keys[] = {
	{"prompt", STAVE_KEY_STR, AT(prompt), NULL, 0, 0, NULL, "text to continue; without it stdin is read, or on a terminal a chat begins"},
	{"max_tokens", STAVE_KEY_INT, AT(max_tokens), "256", 0, 1e9, NULL, "tokens to generate at most"},
	{"temperature", STAVE_KEY_REAL, AT(temperature), "0.8", 0, 100, NULL, "0 takes the likeliest token each time"},
	{"top_k", STAVE_KEY_INT, AT(top_k), "0", 0, 1e9, NULL, "draw from the k likeliest tokens; 0 = all"},
	{"top_p", STAVE_KEY_REAL, AT(top_p), "0.95", 0, 1, NULL, "draw from the smallest set with this much probability"},
	{"min_p", STAVE_KEY_REAL, AT(min_p), "0", 0, 1, NULL, "drop tokens less likely than this share of the likeliest"},
	{"repeat_penalty", STAVE_KEY_REAL, AT(repeat_penalty), "1", 0.01, 100, NULL, "makes tokens already present less likely; 1 = off"},
	{"seed", STAVE_KEY_INT, AT(seed), "-1", -1, 9e15, NULL, "of the draws; -1 = a new one each time"},
	{"stop", STAVE_KEY_STR, AT(stop), NULL, 0, 0, NULL, "text that ends the answer"},
	{"echo", STAVE_KEY_BOOL, AT(echo), "yes", 0, 0, NULL, "print the prompt before its continuation"},
	CLI_ENGINE_KEYS(AT_ENGINE),
	{"json", STAVE_KEY_BOOL, AT(json), "no", 0, 0, NULL, "print one JSON document instead of text and receipt"},
};

static void help(const struct stave_config *c)
{
	fputs("stave run MODEL [--prompt TEXT]: generate text, or chat.\n\n"
	      "  stave run model --prompt \"Once upon a time\" --max-tokens 100\n"
	      "  echo \"Once upon a time\" | stave run model --temperature 0 --json\n\n"
	      "Text goes to stdout, the receipt to stderr. In a chat Ctrl-C stops the answer, Ctrl-D ends.\n\n", stdout);
	stave_config_help(c, stdout);
}

/* ---- one answer ---- */

struct answer {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
	bool print;               /* text to stdout as it comes */
	const char *before;       /* (n_before) printed ahead of the first text: the prompt, once it has been accepted */
	size_t n_before;
	struct stave_buf text;
	struct stave_event end;   /* its text is not valid any more */
};

static void on_event(void *ctx, const struct stave_event *v)
{
	struct answer *a = ctx;
	stave_buf_put(&a->text, v->text, v->n_text);
	if (a->print) {
		fwrite(a->before, 1, a->n_before, stdout);
		fwrite(v->text, 1, v->n_text, stdout);
		fflush(stdout);
		a->n_before = 0;
	}
	if (v->kind != STAVE_EVENT_DONE)
		return;
	pthread_mutex_lock(&a->lock);
	a->end = *v;
	a->done = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

static volatile sig_atomic_t interrupted; /* the chat's own Ctrl-C: ends an answer, not the program */
static void on_interrupt(int sig) { interrupted = 1; }

static void wait_done(struct stave_engine *e, struct answer *a, uint64_t id)
{
	pthread_mutex_lock(&a->lock);
	while (!a->done) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 50 * 1000000; /* signals do not wake a condition: look every 50 ms */
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&a->changed, &a->lock, &until);
		if (interrupted || stave_stop_requested() || stave_requeue_requested()) {
			pthread_mutex_unlock(&a->lock);
			stave_engine_cancel(e, id);
			pthread_mutex_lock(&a->lock);
		}
	}
	pthread_mutex_unlock(&a->lock);
}

static uint64_t seed_of(const struct options *o)
{
	uint64_t seed;
	if (o->seed >= 0)
		return (uint64_t)o->seed;
	if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		seed = (uint64_t)(stave_now_s() * 1e9);
	return seed >> 12; /* fits what --seed accepts, so that the run can be repeated */
}

static int generate(struct stave_engine *e, const struct options *o, uint64_t seed, const struct stave_ids *ids, const char *const *stop, int n_stop,
                    const int32_t *stop_ids, int n_stop_ids, struct answer *a, struct stave_err *err)
{
	struct stave_request r = {.ids = ids->p, .n_ids = (int)ids->n, .sampling = stave_sampling_default(), .max_tokens = (int)o->max_tokens, .stop = stop,
	                          .n_stop = n_stop, .stop_ids = stop_ids, .n_stop_ids = n_stop_ids, .logprobs = -1, .event = on_event, .ctx = a};
	r.sampling.temperature = (float)o->temperature;
	r.sampling.top_k = (int)o->top_k;
	r.sampling.top_p = (float)o->top_p;
	r.sampling.min_p = (float)o->min_p;
	r.sampling.repetition_penalty = (float)o->repeat_penalty;
	r.sampling.seed = seed;
	uint64_t id;
	int rc = stave_engine_submit(e, &r, 1, &id, err);
	if (!rc)
		wait_done(e, a, id);
	return rc;
}

static void answer_free(struct answer *a)
{
	stave_buf_free(&a->text);
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
}

/* ---- the receipt ---- */

struct speed {
	double prefill_per_s, decode_per_s, bytes_per_s, share; /* 0: unknown */
	const char *shortest;
};

/* What decoding read per second, against the machine's measured read bandwidth. */
static struct speed measure(const struct stave_engine *e, const struct stave_event *v)
{
	struct speed s = {.shortest = "unknown: 'stave bench machine' measures this machine"};
	struct stave_machine machine;
	int drawn = v->completion_tokens - 1; /* the first comes from the prompt's last row */
	if (v->prefill_s > 0)
		s.prefill_per_s = v->prompt_tokens / v->prefill_s;
	if (drawn < 1 || v->decode_s <= 0)
		return s;
	s.decode_per_s = drawn / v->decode_s;
	s.bytes_per_s = stave_engine_token_bytes(e, v->prompt_tokens + drawn / 2) * s.decode_per_s;
	if (stave_machine_load(&machine, NULL, NULL) || machine.read_bytes_s <= 0)
		return s;
	s.share = s.bytes_per_s / machine.read_bytes_s;
	s.shortest = s.share >= 0.5 ? "memory bandwidth: fewer bytes per weight, or a faster memory" : "the fixed cost of each step: batches, or a larger model, use it better";
	return s;
}

static const char *finish_name(enum stave_finish f)
{
	return f == STAVE_FINISH_STOP ? "stop" : f == STAVE_FINISH_LENGTH ? "length" : "cancelled";
}

static void print_receipt(const char *model, const struct stave_engine *e, const struct stave_event *v, uint64_t seed)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	struct speed s = measure(e, v);
	char load[32];
	fprintf(stderr, "\nran %s (%s, loaded in %s)\n", model, info->type, stave_duration_text(load, info->load_s));
	fprintf(stderr, "  prompt       %d tokens, %.0f tokens/s\n", v->prompt_tokens, s.prefill_per_s);
	fprintf(stderr, "  answer       %d tokens, %.1f tokens/s, finish %s, seed %llu\n", v->completion_tokens, s.decode_per_s, finish_name(v->finish),
	        (unsigned long long)seed);
	if (s.share > 0)
		fprintf(stderr, "  bandwidth    %.2f GB/s, %.0f %% of what this machine reads\n", s.bytes_per_s / 1e9, 100 * s.share);
	else if (s.bytes_per_s > 0)
		fprintf(stderr, "  bandwidth    %.2f GB/s\n", s.bytes_per_s / 1e9);
	fprintf(stderr, "  shortest     %s\n", s.shortest);
	fprintf(stderr, "  fingerprint  weights %s, last logits %016llx\n", info->model_hash, (unsigned long long)v->logits_hash);
	fprintf(stderr, "  next         stave serve %s\n", model);
}

static void print_json(const char *model, const struct stave_engine *e, const struct answer *a, uint64_t seed)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	struct speed s = measure(e, &a->end);
	struct stave_buf text = {0};
	char hash[17];
	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)a->end.logits_hash);
	stave_utf8_clean(a->text.p ? a->text.p : "", a->text.len, &text);
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:s, s:s}", "model", model, "type",
	                      info->type, "text", text.p ? text.p : "", "finish_reason", finish_name(a->end.finish), "prompt_tokens",
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

static int complete(struct stave_engine *e, const struct options *o, const char *model, const char *prompt, size_t n, struct stave_err *err)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	struct stave_encoder *encoder;
	struct stave_ids ids = {0};
	struct answer a = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .print = !o->json, .before = prompt, .n_before = o->echo ? n : 0};
	const char *stop[] = {o->stop};
	uint64_t seed = seed_of(o);
	int rc = stave_encoder_open(&encoder, info->tokenizer, err);
	if (rc)
		return rc;
	begin(info->tokenizer, n == 0, &ids);
	if (!(rc = stave_encode(encoder, prompt, n, false, &ids, err)))
		rc = generate(e, o, seed, &ids, stop, o->stop && *o->stop ? 1 : 0, NULL, 0, &a, err);
	if (!rc && o->json)
		print_json(model, e, &a, seed);
	if (!rc && !o->json) {
		putchar('\n');
		fflush(stdout);
		print_receipt(model, e, &a.end, seed);
	}
	if (!rc && a.end.finish == STAVE_FINISH_CANCELLED)
		rc = stave_err_set(err, STAVE_EINTERRUPTED, "interrupted after %d tokens", a.end.completion_tokens);
	answer_free(&a);
	stave_ids_free(&ids);
	stave_encoder_free(encoder);
	return rc;
}

/* ---- chat ---- */

struct chat {
	struct stave_message *m;
	int n, cap;
};

static void chat_add(struct chat *c, const char *role, const char *text)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		c->m = realloc(c->m, (size_t)c->cap * sizeof *c->m);
	}
	char *own = c->m ? strdup(text) : NULL;
	if (!own) {
		stave_log(STAVE_LOG_ERROR, "out of memory");
		exit(stave_err_exit(STAVE_ENOMEM));
	}
	c->m[c->n++] = (struct stave_message){role, own};
}

static void chat_drop_first(struct chat *c)
{
	free((void *)c->m[0].content);
	memmove(c->m, c->m + 1, (size_t)--c->n * sizeof *c->m);
}

/* Encodes the talk; the oldest turns are forgotten, aloud, when it leaves less than a quarter of the context for the answer. */
static int chat_ids(struct stave_encoder *encoder, struct chat *c, int context, struct stave_ids *ids, struct stave_err *err)
{
	for (;;) {
		ids->n = 0;
		int rc = stave_chat_encode(encoder, c->m, c->n, true, ids, err);
		if (rc || ids->n <= (size_t)context * 3 / 4 || c->n <= 1)
			return rc;
		chat_drop_first(c);
		if (c->n > 1)
			chat_drop_first(c);
		stave_log(STAVE_LOG_WARN, "the context of %d tokens is full: the oldest turn is forgotten", context);
	}
}

static int chat_turn(struct stave_engine *e, const struct options *o, struct stave_encoder *encoder, struct chat *c, struct stave_err *err)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	struct stave_ids ids = {0};
	struct answer a = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .print = true, .before = ""};
	int32_t stop_ids[8];
	int n_ids = stave_chat_stops(info->tokenizer, stop_ids, 8), n_stop = 0;
	const char *stop[2], *turn = stave_chat_stop_text(info->tokenizer);
	if (turn)
		stop[n_stop++] = turn;
	if (o->stop && *o->stop)
		stop[n_stop++] = o->stop;
	interrupted = 0;
	int rc = chat_ids(encoder, c, info->context, &ids, err);
	if (!rc)
		rc = generate(e, o, seed_of(o), &ids, stop, n_stop, stop_ids, n_ids, &a, err);
	if (!rc) {
		struct speed s = measure(e, &a.end);
		struct stave_buf clean = {0}; /* templates want UTF-8 */
		stave_utf8_clean(a.text.p ? a.text.p : "", a.text.len, &clean);
		chat_add(c, "assistant", clean.p ? clean.p : "");
		stave_buf_free(&clean);
		putchar('\n');
		fprintf(stderr, "  [%d tokens, %.1f tokens/s, %s]\n", a.end.completion_tokens, s.decode_per_s, finish_name(a.end.finish));
	}
	answer_free(&a);
	stave_ids_free(&ids);
	return rc;
}

static int chat(struct stave_engine *e, const struct options *o, struct stave_err *err)
{
	struct stave_encoder *encoder;
	struct chat c = {0};
	char *line = NULL;
	size_t cap = 0;
	int rc = stave_encoder_open(&encoder, stave_engine_info(e)->tokenizer, err);
	if (rc)
		return rc;
	struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: Ctrl-C at the prompt ends the chat */
	sigaction(SIGINT, &sa, NULL);
	fputs("Ctrl-C stops an answer, Ctrl-D ends.\n", stderr);
	while (!rc) {
		fputs("> ", stderr);
		ssize_t n = getline(&line, &cap, stdin);
		if (n <= 0)
			break;
		line[strcspn(line, "\n")] = 0;
		if (!*line)
			continue;
		chat_add(&c, "user", line);
		rc = chat_turn(e, o, encoder, &c, err);
	}
	fputc('\n', stderr);
	while (c.n)
		chat_drop_first(&c);
	free(c.m);
	free(line);
	stave_encoder_free(encoder);
	return rc;
}

/* ---- the verb ---- */

static int run(struct options *o, const char *model, struct stave_err *err)
{
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
		rc = prompt ? complete(e, o, model, prompt, n, err) : chat(e, o, err);
		stave_engine_close(e);
	}
	cli_engine_free(&o->engine);
	stave_buf_free(&in);
	return rc;
}

int stave_cli_run(int argc, char **argv)
{
	struct options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1];
	bool wants_help = false;
	int n = 0, rc = stave_config_open(&c, keys, sizeof keys / sizeof *keys, &o, &err);
	if (!rc)
		rc = stave_config_args(&c, argc, argv, false, positional, 1, &n, &wants_help, &err);
	if (!rc && wants_help)
		help(&c);
	else if (!rc && n != 1)
		rc = stave_err_set(&err, STAVE_EUSAGE, "which model? 'stave run MODEL --prompt TEXT'; 'stave run -h' shows more");
	else if (!rc)
		rc = run(&o, positional[0], &err);
	if (rc)
		stave_log(rc == STAVE_EINTERRUPTED ? STAVE_LOG_WARN : STAVE_LOG_ERROR, "%s", err.msg);
	stave_config_close(&c);
	return stave_err_exit(rc);
}
