/* Measured runs, made regular: the table's rows as plain structs, and the lists of predictions that are held against them.
 *
 * A document that is no JSON array (or an object holding one as "rows") is refused. A row inside may lack anything, hold nulls, text where a number
 * belongs or absurd numbers: each field is read alone and what cannot be used counts as not said, so that no row stops the others. Numbers are bounded
 * here, once; a shape is offered (has_shape) only when stave_shape_check accepts it. What a row never states (the width of a head, whether the
 * feed-forward is gated, whether the classifier is tied) is taken from the catalog's model of the same sizes, else from the count of parameters. */
#include "plan/truth/truth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "plan/truth/truth_words.h"

enum { FILE_MAX = 64 << 20 };

/* ---- fields of one object ---- */

/* A number within [low, high], else `otherwise`. */
static double number(const json_t *o, const char *key, double low, double high, double otherwise)
{
	const json_t *v = json_object_get(o, key);
	double x = json_is_number(v) ? json_number_value(v) : NAN;
	return x >= low && x <= high ? x : otherwise;
}

static int whole(const json_t *o, const char *key, int high)
{
	return (int)number(o, key, 1, high, 0);
}

static bool truth_of(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* ---- the model ---- */

/* What an architecture's name says and no row states. The widths are of the published configurations. */
struct architecture {
	const char *word;
	int head, latent, window, pattern, shared;
	bool qk_norm, four_bit; /* four_bit: released only with experts in 4 bit, whatever a table calls the precision of its products */
};
static const struct architecture architectures[] = {
	{"qwen3", 128, 0, 0, 0, 0, true, false},
	{"gpt-oss", 64, 0, 128, 2, 0, false, true},
	/* multi-head latent attention caches 512 + 64 values; one expert is shared by all tokens */
	{"deepseek-v2", 0, 576, 0, 0, 2, false, false}, {"deepseek-v3", 0, 576, 0, 0, 1, false, false}, {"deepseek v3", 0, 576, 0, 0, 1, false, false},
	{"deepseek-r1", 0, 576, 0, 0, 1, false, false}, {"kimi-k2", 0, 576, 0, 0, 1, false, false},     {"kimi k2", 0, 576, 0, 0, 1, false, false},
};

static const struct architecture *architecture_of(const char *name)
{
	for (size_t i = 0; name && i < sizeof architectures / sizeof *architectures; i++)
		if (plan_words_have(name, architectures[i].word))
			return &architectures[i];
	return NULL;
}

static void make_gpt(struct stave_shape *s)
{
	s->family = STAVE_GPT2;
	s->act = STAVE_GELU_TANH;
	s->layernorm = s->norm_bias = s->learned_pos = s->qkv_bias = s->out_bias = s->mlp_bias = true;
	s->rope_theta = 0;
}

static void make_llama(struct stave_shape *s)
{
	s->family = STAVE_LLAMA;
	s->act = STAVE_SWIGLU;
	s->layernorm = s->norm_bias = s->learned_pos = s->qkv_bias = s->out_bias = s->mlp_bias = false;
	s->rope_theta = 10000;
}

static bool name_is_gated(const char *name)
{
	static const char *const words[] = {"llama", "qwen", "mistral", "mixtral", "deepseek", "gemma", "gpt-oss", "olmo", "smollm", "phi", "kimi", "glm-4", "palm"};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (plan_words_have(name, words[i]))
			return true;
	return false;
}

/* The name says "32B": parameters, when the row does not count them. */
static double params_of_name(const char *name)
{
	for (const char *p = name; p && *p; p++) {
		char *end;
		bool starts = *p >= '0' && *p <= '9' && (p == name || (p[-1] != '.' && (p[-1] < '0' || p[-1] > '9')));
		double x = starts ? strtod(p, &end) : 0;
		if (x > 0 && x < 1e5 && (*end == 'B' || *end == 'b'))
			return x * 1e9;
		if (x > 0 && x < 1e5 && (*end == 'M' || *end == 'm'))
			return x * 1e6;
	}
	return 0;
}

/* Among gated or plain, tied or not, and the widths of a head that models use, the nearest to the count of parameters. C / H wins over other widths
 * unless they fit clearly better, since counts are rounded; a count too rough to tell whether the classifier is tied leaves that to custom. */
static void choose_by_params(struct stave_shape *s, double params, int head, bool rough)
{
	const int widths[] = {s->C / s->H, 128, 64, 96, 192, 256};
	struct stave_shape best = *s;
	double least = INFINITY;
	for (int gated = 1; gated >= 0; gated--) {
		for (int tied = 0; tied < 2; tied++) {
			for (int i = 0; i < (head ? 1 : 6); i++) {
				struct stave_shape t = *s;
				(gated ? make_llama : make_gpt)(&t);
				t.tied = rough ? !gated : tied;
				t.D = head ? head : widths[i];
				if (stave_shape_check(&t, NULL) < 0)
					continue;
				double miss = fabs(log((double)stave_shape_params(&t) / params)) + (i && !head ? 0.02 : 0);
				if (miss < least) {
					least = miss;
					best = t;
				}
			}
		}
	}
	*s = best;
}

/* The catalog's model of the same sizes knows the rest. */
static const struct plan_model *catalog_model(const struct plan_catalog *c, const struct stave_shape *s)
{
	for (int i = 0; c && i < c->models; i++) {
		const struct stave_shape *m = &c->model[i].shape;
		if (m->L == s->L && m->C == s->C && m->H == s->H && m->K == s->K && m->I == s->I && m->V == s->V && m->experts == s->experts)
			return &c->model[i];
	}
	return NULL;
}

/* moe is a text, or an object with numbers under usual names. */
static void read_moe(const json_t *moe, struct stave_shape *s, const struct architecture *a)
{
	int experts = 0, used = 0, ffn = 0;
	if (json_is_string(moe))
		plan_words_moe(json_string_value(moe), &experts, &used, &ffn);
	if (json_is_object(moe)) {
		experts = whole(moe, "experts", 1024);
		used = whole(moe, "top_k", 1024) ? whole(moe, "top_k", 1024) : whole(moe, "experts_used", 1024);
		ffn = whole(moe, "expert_ffn", 1 << 20) ? whole(moe, "expert_ffn", 1 << 20) : whole(moe, "ffn", 1 << 20);
	}
	if (experts < 2 || used < 1 || used > experts)
		return;
	s->family = STAVE_QWEN3_MOE;
	s->experts = experts;
	s->experts_used = used;
	s->experts_norm = true;
	s->I = ffn ? ffn : s->I;
	if (a && a->shared && experts + a->shared <= 1024) {
		s->experts += a->shared;
		s->experts_used += a->shared;
	}
}

/* Takes the catalog's knowledge, or else guesses from name and count of parameters. */
static void complete_shape(struct plan_truth *t, const struct plan_catalog *c, const struct architecture *a, const char *name)
{
	struct stave_shape *s = &t->shape;
	bool moe = s->experts > 0;
	const struct plan_model *m = catalog_model(c, s);
	if (m) {
		int T = s->T_max;
		*s = m->shape;
		s->T_max = T;
		return;
	}
	double params = t->params > 0 ? t->params : params_of_name(name);
	int head = a && a->head ? a->head : s->D;
	if (params > 0) {
		choose_by_params(s, params, head, !(t->params > 0) || (a && a->latent));
	} else {
		(name_is_gated(name) ? make_llama : make_gpt)(s);
		s->D = head ? head : s->C / s->H;
	}
	if (moe)
		s->family = STAVE_QWEN3_MOE;
	if (a) {
		s->window = a->window;
		s->window_pattern = a->pattern;
		s->qk_norm = a->qk_norm;
	}
}

static void read_model(struct plan_truth *t, const struct plan_catalog *c, const json_t *o)
{
	const char *name = stave_json_str(o, "name", "");
	const struct architecture *a = architecture_of(name);
	struct stave_shape *s = &t->shape;
	t->params = number(o, "params", 1, 1e16, 0);
	t->seq = whole(o, "seq", 1 << 24);
	s->L = whole(o, "layers", 1024);
	s->C = whole(o, "hidden", 65536);
	s->H = whole(o, "heads", 1024);
	s->K = whole(o, "kv_heads", 1024) ? whole(o, "kv_heads", 1024) : s->H;
	s->I = whole(o, "ffn", 1 << 20);
	s->V = whole(o, "vocab", 1 << 22);
	s->D = whole(o, "head_dim", 1024);
	s->T_max = t->seq ? t->seq : 2048;
	s->norm_eps = 1e-5f;
	read_moe(json_object_get(o, "moe"), s, a);
	if (!s->L || !s->C || !s->H || !s->I || !s->V || s->H % s->K)
		return;
	complete_shape(t, c, a, name);
	t->latent = a ? a->latent : 0;
	t->has_shape = stave_shape_check(s, NULL) == 0;
}

/* ---- the machine ---- */

/* The accelerator a text names; failing all of it, its beginning up to a bracket or comma: "RTX 3090 Ti (assumed: same page)". */
static const struct plan_accelerator *accelerator_of(const struct plan_catalog *c, const char *text)
{
	const struct plan_accelerator *a = plan_accelerator_find(c, text);
	char part[PLAN_NAME];
	size_t n = strcspn(text, "(,;");
	if (a || n == 0 || n >= sizeof part || !text[n])
		return a;
	memcpy(part, text, n);
	part[n] = 0;
	return plan_accelerator_find(c, part);
}

static void read_hardware(struct plan_truth *t, const struct plan_catalog *c, const json_t *o)
{
	t->gpu = stave_json_str(o, "gpu", "");
	t->gpus = whole(o, "gpus", 1 << 22);
	t->gpus_per_node = whole(o, "gpus_per_node", 1 << 16);
	t->threads = whole(o, "threads", 1 << 16);
	t->node_nic_bytes_s = plan_words_nic(stave_json_str(o, "inter_link", NULL), t->gpus_per_node);
	t->accelerator = c && *t->gpu ? accelerator_of(c, t->gpu) : NULL;
	if (t->accelerator) {
		t->variant = *t->accelerator;
		plan_words_variant(t->gpu, &t->variant);
	}
}

/* ---- how it was run ---- */

static int at_least_one(int n) { return n ? n : 1; }

static void read_parallel(struct plan_truth *t, const json_t *o)
{
	int tp, pp, ep;
	const char *recompute = stave_json_str(o, "recompute", NULL);
	if (json_is_boolean(json_object_get(o, "recompute")))
		recompute = truth_of(o, "recompute") ? "full" : "none";
	plan_words_layout(stave_json_str(o, "layout", NULL), &tp, &pp, &ep);
	t->tp = at_least_one(whole(o, "tp", 1 << 16) ? whole(o, "tp", 1 << 16) : tp);
	t->pp = at_least_one(whole(o, "pp", 1 << 16) ? whole(o, "pp", 1 << 16) : pp);
	t->ep = at_least_one(whole(o, "ep", 1 << 16) ? whole(o, "ep", 1 << 16) : ep);
	t->cp = at_least_one(whole(o, "cp", 1 << 16));
	t->vp = at_least_one(whole(o, "vp", 1 << 10));
	t->dp = whole(o, "dp", 1 << 22);
	t->zero = (int)number(o, "zero", 0, 3, -1);
	t->recompute = plan_words_recompute(recompute, &t->seq_parallel);
	t->seq_parallel |= truth_of(o, "sequence_parallel") || truth_of(o, "seq_parallel");
	t->async_tp = truth_of(o, "async_tp");
	t->interleaved = plan_words_have(stave_json_str(o, "schedule", NULL), "interleaved") || t->vp > 1;
	t->micro = whole(o, "microbatch", 1 << 24) ? whole(o, "microbatch", 1 << 24) : whole(o, "micro_batch", 1 << 24);
	t->global_batch = whole(o, "global_batch", 1 << 30);
	t->precision_text = stave_json_str(o, "precision", "");
	t->precision = plan_words_precision(t->precision_text);
	t->compiled = plan_words_have(t->precision_text, "compile");
	const struct architecture *a = architecture_of(stave_json_str(json_object_get(t->row, "model"), "name", NULL));
	if (a && a->four_bit && plan_words_have(t->kind, "infer"))
		t->precision = PLAN_FP4;
}

static void read_workload(struct plan_truth *t, const json_t *o)
{
	t->isl = whole(o, "isl", 1 << 24);
	t->osl = whole(o, "osl", 1 << 24);
	t->concurrency = whole(o, "concurrency", 1 << 24);
	t->engine = stave_json_str(o, "engine", "");
	t->mode = stave_json_str(o, "mode", "");
}

static void read_row(struct plan_truth *t, const struct plan_catalog *c, const json_t *row)
{
	*t = (struct plan_truth){.row = row, .tier = '?'};
	t->id = stave_json_str(row, "id", "");
	t->kind = stave_json_str(row, "kind", "");
	t->group = stave_json_str(row, "group", "");
	t->source = stave_json_str(row, "source", "");
	t->notes = stave_json_str(row, "notes", "");
	const char *tier = stave_json_str(row, "tier", "?");
	t->tier = *tier ? *tier : '?';
	t->measured = json_object_get(row, "measured");
	read_model(t, c, json_object_get(row, "model"));
	read_hardware(t, c, json_object_get(row, "hardware"));
	read_parallel(t, json_object_get(row, "parallel"));
	const json_t *workload = json_object_get(row, "workload");
	read_workload(t, workload);
	const char *const others[] = {t->group, t->source, t->notes, t->id};
	t->stack = plan_words_stack(*t->engine ? t->engine : NULL, others, 4);
}

/* ---- the document ---- */

int plan_truths_load(struct plan_truths *t, const struct plan_catalog *c, const char *path, struct stave_err *err)
{
	json_t *document;
	int rc = stave_json_load(&document, path, FILE_MAX, err);
	return rc < 0 ? rc : plan_truths_of(t, c, document, path, err);
}

int plan_truths_of(struct plan_truths *t, const struct plan_catalog *c, json_t *document, const char *path, struct stave_err *err)
{
	json_t *rows = json_is_object(document) ? json_object_get(document, "rows") : document;
	if (!json_is_array(rows)) {
		json_decref(document);
		return stave_err_set(err, STAVE_ECORRUPT, "%s: expected a JSON array of measured runs (or an object with one as \"rows\")", path);
	}
	size_t n = json_array_size(rows);
	struct plan_truth *row = calloc(n ? n : 1, sizeof *row);
	if (!row) {
		json_decref(document);
		return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for %zu measured runs", path, n);
	}
	for (size_t i = 0; i < n; i++)
		read_row(&row[i], c, json_array_get(rows, i));
	*t = (struct plan_truths){.document = document, .row = row, .n = (int)n};
	return 0;
}

void plan_truths_free(struct plan_truths *t)
{
	free(t->row);
	json_decref(t->document);
	*t = (struct plan_truths){0};
}

double plan_truth_measured(const struct plan_truth *t, const char *key)
{
	const json_t *v = json_object_get(t->measured, key);
	return json_is_number(v) && isfinite(json_number_value(v)) ? json_number_value(v) : NAN;
}

/* ---- predictions ---- */

int plan_predictions_add(struct plan_predictions *l, const struct plan_prediction *p, struct stave_err *err)
{
	if (l->n == l->room) {
		int room = l->room ? 2 * l->room : 256;
		struct plan_prediction *more = realloc(l->p, (size_t)room * sizeof *more);
		if (!more)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for %d predictions", room);
		l->p = more;
		l->room = room;
	}
	l->p[l->n++] = *p;
	return 0;
}
