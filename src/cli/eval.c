/* stave eval: how well a model predicts prepared text it has not seen. Every token of a split but its first is predicted
 * exactly once, in consecutive windows of the model's context: loss in nats per token, perplexity e^loss, and bits per
 * byte of the original text, the one of the three that can be compared across tokenizers. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "data/data.h"
#include "kernel/kernel.h"
#include "model/model.h"
#include "text/text.h"

#define SEQ_MAX 1024 /* longer windows gain little and cost attention quadratically; --seq asks for them */

enum { F32, BF16 };
struct options {
	char *data, *split;
	int64_t batch, seq;
	int dtype;
	bool doc_mask, json;
};
#define AT(field) offsetof(struct options, field)
static const struct stave_key keys[] = {
	{"data", STAVE_KEY_STR, AT(data), NULL, 0, 0, NULL, "directory written by stave prepare, or a .bin file of tokens"},
	{"split", STAVE_KEY_STR, AT(split), "val", 0, 0, NULL, "train or val"},
	{"batch", STAVE_KEY_INT, AT(batch), "8", 1, 4096, NULL, "windows computed together"},
	{"seq", STAVE_KEY_INT, AT(seq), "0", 0, 1 << 20, NULL, "tokens of a window; 0: the model's context, at most 1024"},
	{"dtype", STAVE_KEY_CHOICE, AT(dtype), "f32", 0, 0, "f32|bf16", "of activations and products"},
	{"doc_mask", STAVE_KEY_BOOL, AT(doc_mask), "no", 0, 0, NULL, "a token sees its own document only, and none is predicted across a boundary"},
	{"json", STAVE_KEY_BOOL, AT(json), "no", 0, 0, NULL, "print one JSON document"},
};
#undef AT

/* What is evaluated: a model in memory and the windows of a split. */
struct subject {
	const char *model;
	struct stave_layout layout;
	struct stave_net_config c;
	struct stave_net *net;
	struct stave_arena arena;
	float *params;
	struct stave_tokens *tokens;
	int32_t *ids[4]; /* inputs, targets, start, pos: (B, T) each */
};
struct score {
	double nats, seconds;
	int64_t targets;
};

/* The same ids must mean the same text on both sides. */
static int check_tokens(const struct subject *s, struct stave_err *err)
{
	const char *theirs = stave_tokens_tokenizer_sha256(s->tokens);
	struct stave_tokenizer *t;
	char path[STAVE_PATH];
	if (stave_tokens_max_id(s->tokens) >= s->c.shape.V)
		return stave_err_set(err, STAVE_ECONFIG, "the data has token %d, %s only knows %d tokens: it was prepared for another model",
		                     (int)stave_tokens_max_id(s->tokens), s->model, s->c.shape.V);
	int rc = stave_path(path, s->model, "tokenizer.json", err);
	if (rc || !*theirs || !stave_exists(path))
		return rc;
	if ((rc = stave_tokenizer_load(&t, s->model, err)))
		return rc;
	if (strcmp(stave_tokenizer_sha256(t), theirs))
		rc = stave_err_set(err, STAVE_ECONFIG, "the data was prepared with another tokenizer than %s's; prepare it with --tokenizer %s", s->model, path);
	stave_tokenizer_free(t);
	return rc;
}

static void take(struct subject *s, struct stave_arena *a)
{
	size_t rows = (size_t)s->c.B * (size_t)s->c.T;
	s->params = stave_arena_take(a, (size_t)s->layout.n * sizeof *s->params);
	for (int i = 0; i < 4; i++)
		s->ids[i] = stave_arena_take(a, rows * sizeof *s->ids[i]);
}

static int subject_open(struct subject *s, const struct options *o, struct stave_err *err)
{
	struct stave_net_memory net;
	struct stave_arena plan = stave_arena_plan("eval");
	int rc = stave_shape_load(&s->c.shape, s->model, err);
	if (rc || (rc = stave_tokens_open(&s->tokens, o->data, o->split, err)) || (rc = check_tokens(s, err)))
		return rc;
	int context = s->c.shape.T_max < SEQ_MAX ? s->c.shape.T_max : SEQ_MAX;
	s->c.T = o->seq ? (int)o->seq : context;
	s->c.B = (int)o->batch;
	s->c.dtype = o->dtype == BF16 ? STAVE_BF16 : STAVE_F32;
	s->c.doc_mask = o->doc_mask;
	if (stave_tokens_windows(s->tokens, s->c.T) < 1)
		return stave_err_set(err, STAVE_ECONFIG, "%s: the %s split holds too few tokens to predict one", o->data, o->split);
	if ((rc = stave_layout_open(&s->layout, &s->c.shape, err)) || (rc = stave_net_plan(&s->c, &net, err)))
		return rc;
	take(s, &plan);
	if ((rc = stave_arena_open(&s->arena, "eval", plan.used + net.total, err)))
		return rc;
	take(s, &s->arena);
	if ((rc = stave_weights_load(&s->layout, s->params, s->model, err)))
		return rc;
	return stave_net_open(&s->net, &s->c, &s->layout, s->params, NULL, &s->arena, err);
}

static void subject_close(struct subject *s)
{
	stave_net_close(s->net);
	stave_arena_close(&s->arena);
	stave_layout_close(&s->layout);
	stave_tokens_close(s->tokens);
}

/* Rows beyond the last window repeat it with every target masked. */
static void fill(struct subject *s, int64_t first, int64_t windows)
{
	size_t T = (size_t)s->c.T;
	for (int r = 0; r < s->c.B; r++) {
		size_t at = (size_t)r * T;
		int64_t i = first + r < windows ? first + r : windows - 1;
		stave_tokens_window(s->tokens, i, s->c.T, s->c.doc_mask, s->ids[0] + at, s->ids[1] + at, s->ids[2] + at, s->ids[3] + at);
		if (first + r >= windows)
			memset(s->ids[1] + at, 0xff, T * sizeof(int32_t)); /* -1 */
	}
}

static int evaluate(struct subject *s, struct score *out, struct stave_err *err)
{
	int64_t windows = stave_tokens_windows(s->tokens, s->c.T);
	double start = stave_now_s();
	for (int64_t w = 0; w < windows; w += s->c.B) {
		struct stave_batch b = {.inputs = s->ids[0], .targets = s->ids[1]};
		double nats;
		int64_t targets;
		if (stave_stop_requested())
			return stave_err_set(err, STAVE_EINTERRUPTED, "interrupted after %lld of %lld windows", (long long)w, (long long)windows);
		fill(s, w, windows);
		if (s->c.doc_mask) {
			b.start = s->ids[2];
			b.pos = s->ids[3];
		}
		stave_net_evaluate(s->net, &b, &nats, &targets);
		out->nats += nats;
		out->targets += targets;
		stave_progress(false, "window %lld of %lld, %.0f tokens/s", (long long)(w + s->c.B < windows ? w + s->c.B : windows), (long long)windows,
		               (double)out->targets / (stave_now_s() - start));
	}
	out->seconds = stave_now_s() - start;
	if (out->targets < 1 || !isfinite(out->nats))
		return stave_err_set(err, STAVE_EFAIL, out->targets < 1 ? "every token of the split is masked" : "%s: the loss is not finite; its weights are damaged", s->model);
	return 0;
}

static void print(const struct subject *s, const struct options *o, const struct score *r)
{
	double loss = r->nats / (double)r->targets, bytes = (double)stave_tokens_bytes(s->tokens);
	/* masked tokens (and the first) are taken to cost what the others do */
	double bpb = bytes > 0 ? loss / log(2) * (double)stave_tokens_count(s->tokens) / bytes : NAN;
	stave_progress(true, "%lld tokens in %.1f s, %.0f tokens/s", (long long)r->targets, r->seconds, (double)r->targets / r->seconds);
	if (!o->json) {
		printf("loss %.4f\nperplexity %.4f\n", loss, exp(loss));
		if (bytes > 0)
			printf("bits_per_byte %.4f\n", bpb);
		printf("tokens %lld\n", (long long)r->targets);
		return;
	}
	json_t *j = json_pack("{s:s, s:s, s:s, s:f, s:f, s:o, s:I, s:I, s:f}", "model", s->model, "data", o->data, "split", o->split, "loss", loss, "perplexity",
	                      exp(loss), "bits_per_byte", bytes > 0 ? json_real(bpb) : json_null(), "tokens", (json_int_t)r->targets, "bytes",
	                      (json_int_t)bytes, "tokens_per_s", (double)r->targets / r->seconds);
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(j);
}

static int eval(const struct options *o, const char *model, struct stave_err *err)
{
	struct subject s = {.model = model};
	struct score r = {0};
	if (!model || !o->data)
		return stave_err_set(err, STAVE_EUSAGE, "stave eval wants a MODEL directory and --data DIR; 'stave eval -h' shows how");
	int rc = subject_open(&s, o, err);
	if (!rc)
		rc = evaluate(&s, &r, err);
	if (!rc)
		print(&s, o, &r);
	subject_close(&s);
	return rc;
}

int stave_cli_eval(int argc, char **argv)
{
	struct options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1] = {NULL};
	int n = 0, rc = stave_config_open(&c, keys, sizeof keys / sizeof *keys, &o, &err);
	bool help = false;
	if (!rc) {
		rc = stave_config_args(&c, argc, argv, false, positional, 1, &n, &help, &err);
		if (!rc && help) {
			fputs("stave eval MODEL --data DIR: loss, perplexity and bits per byte of a model on prepared text.\n\n"
			      "  stave eval model --data data\n"
			      "  stave eval model --data data --split train --json\n\n", stdout);
			stave_config_help(&c, stdout);
		} else if (!rc) {
			rc = eval(&o, positional[0], &err);
		}
		stave_config_close(&c);
	}
	if (rc)
		stave_log(STAVE_LOG_ERROR, "%s", err.msg);
	return stave_err_exit(rc);
}
