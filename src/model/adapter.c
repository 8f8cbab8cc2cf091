/* Low-rank adapters (LoRA, Hu et al. 2021) from a Hugging Face directory as PEFT writes it: y += alpha / r B (A x), on the
 * matrices it names, for the rows of the sequences that use it. Kept as floats, beside the model: many may be open at once.
 *
 * Opening reads what the file says and checks it against the model; the matrices stay in the mapping until they are taken from an
 * arena, by the one function that also plans them. After that the file is closed.
 *
 * A is applied where a row's operand is made, B to each chunk of a product before anybody reads it; a chunk's outputs
 * are the same however it was cut. What a directory asks for beyond that (DoRA, trained biases or whole modules, adapted
 * embeddings, experts) is refused by name: an answer computed without it would be another model's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "base/sys.h"
#include "kernel/quant.h"
#include "model/lm.h"

/* Modules by the end of their name. A fused one hands the rows of B out to its parts. */
static const struct module {
	const char *name;
	int parts;
	enum stave_role role[3];
} modules[] = {
	{"self_attn.q_proj", 1, {STAVE_ROLE_Q}},
	{"self_attn.k_proj", 1, {STAVE_ROLE_K}},
	{"self_attn.v_proj", 1, {STAVE_ROLE_V}},
	{"self_attn.qkv_proj", 3, {STAVE_ROLE_Q, STAVE_ROLE_K, STAVE_ROLE_V}},
	{"self_attn.o_proj", 1, {STAVE_ROLE_OUT}},
	{"mlp.gate_proj", 1, {STAVE_ROLE_GATE}},
	{"mlp.up_proj", 1, {STAVE_ROLE_UP}},
	{"mlp.gate_up_proj", 2, {STAVE_ROLE_GATE, STAVE_ROLE_UP}},
	{"mlp.down_proj", 1, {STAVE_ROLE_DOWN}},
	{"attn.c_attn", 3, {STAVE_ROLE_Q, STAVE_ROLE_K, STAVE_ROLE_V}},
	{"attn.c_proj", 1, {STAVE_ROLE_OUT}},
	{"mlp.c_fc", 1, {STAVE_ROLE_UP}},
	{"mlp.c_proj", 1, {STAVE_ROLE_DOWN}},
	{"attention.self.query", 1, {STAVE_ROLE_Q}},
	{"attention.self.key", 1, {STAVE_ROLE_K}},
	{"attention.self.value", 1, {STAVE_ROLE_V}},
	{"attention.output.dense", 1, {STAVE_ROLE_OUT}},
	{"intermediate.dense", 1, {STAVE_ROLE_UP}},
	{"output.dense", 1, {STAVE_ROLE_DOWN}},
};

/* A module's two matrices in the file. */
struct pair {
	const struct module *m;
	int layer;
	const struct stave_st_tensor *a, *b; /* (r, in), (rows of all parts, r) */
};
struct stave_adapter {
	int L;
	double alpha;
	bool rank_stabilised;       /* alpha / sqrt(r): Kalajdzievski 2023 */
	struct lm_lora *lora;       /* (L, STAVE_ROLES); matrices NULL until they are taken */
	struct stave_st st;         /* until then */
	struct pair *pair;          /* (n_pairs) */
	int n_pairs;
};

/* ---- reading ---- */

static bool empty(const json_t *j) { return !j || json_is_null(j) || json_is_false(j) || (json_is_array(j) && !json_array_size(j)) || (json_is_object(j) && !json_object_size(j)); }

static int read_config(struct stave_adapter *a, const char *dir, struct stave_err *err)
{
	static const char *const refused[] = {"use_dora", "modules_to_save", "alpha_pattern", "layer_replication", "lora_bias", "use_qalora", "trainable_token_indices"};
	char path[STAVE_PATH];
	json_t *j = NULL;
	int rc = stave_path(path, dir, "adapter_config.json", err);
	if (rc || (rc = stave_json_load(&j, path, 1 << 20, err)))
		return rc;
	const char *type = stave_json_str(j, "peft_type", "LORA"), *bias = stave_json_str(j, "bias", "none");
	if (strcmp(type, "LORA"))
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: peft_type '%.40s' is not supported; LORA", path, type);
	else if (strcmp(bias, "none"))
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: bias '%.40s' is not supported; none", path, bias);
	for (size_t i = 0; !rc && i < sizeof refused / sizeof *refused; i++)
		if (!empty(json_object_get(j, refused[i])))
			rc = stave_err_set(err, STAVE_ECONFIG, "%s: %s is not supported", path, refused[i]);
	if (!rc && !(rc = stave_json_real(j, "lora_alpha", 8, &a->alpha, path, err)))
		rc = stave_json_bool(j, "use_rslora", false, &a->rank_stabilised, path, err);
	if (!rc && !isfinite(a->alpha))
		rc = stave_err_set(err, STAVE_ECONFIG, "%s: lora_alpha is not finite", path);
	json_decref(j);
	return rc;
}

/* "base_model.model.model.layers.3.mlp.up_proj.lora_A.weight": its layer and module; NULL when it is neither. */
static const struct module *parse(const char *name, const char *half, int *layer)
{
	static const char *const stems[] = {".layers.", ".h.", ".layer."};
	const char *tail = strstr(name, half), *at = NULL;
	for (size_t i = 0; i < sizeof stems / sizeof *stems && !at; i++)
		if ((at = strstr(name, stems[i])))
			at += strlen(stems[i]);
	if (!tail || !at || at > tail || *at < '0' || *at > '9')
		return NULL;
	const char *rest = tail + strlen(half);
	if (strcmp(rest, ".weight") && strcmp(rest, ".default.weight"))
		return NULL;
	char *end;
	long n = strtol(at, &end, 10);
	if (*end != '.' || n > 1 << 20)
		return NULL;
	*layer = (int)n;
	size_t length = (size_t)(tail - (end + 1));
	for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
		if (strlen(modules[i].name) == length && !memcmp(modules[i].name, end + 1, length))
			return &modules[i];
	return NULL;
}

static bool two_dims(const struct stave_st_tensor *t)
{
	return t->n_dims == 2 && t->shape[0] > 0 && t->shape[1] > 0 && (t->dtype == STAVE_F32 || t->dtype == STAVE_BF16 || t->dtype == STAVE_F16);
}

/* One pair of matrices, checked against those of the model. */
static int add(struct stave_adapter *a, const struct module *m, int layer, const struct stave_st_tensor *ta, const struct stave_st_tensor *tb,
               const struct stave_source *base, struct stave_err *err)
{
	struct stave_weight w[3];
	int64_t rows = 0;
	for (int i = 0; i < m->parts; i++) {
		if (layer >= a->L || !stave_source_weight(base, m->role[i], layer, -1, &w[i]))
			return stave_err_set(err, STAVE_ECONFIG, "adapter tensor %.80s: the model has no such matrix (it has %d layers)", ta->name, a->L);
		if (a->lora[layer * STAVE_ROLES + (int)m->role[i]].rank)
			return stave_err_set(err, STAVE_ECORRUPT, "adapter tensor %.80s: its matrix is adapted twice", ta->name);
		rows += w[i].rows;
	}
	if (!two_dims(ta) || !two_dims(tb) || ta->shape[1] != w[0].cols || tb->shape[0] != rows || ta->shape[0] != tb->shape[1])
		return stave_err_set(err, STAVE_ECORRUPT, "adapter tensor %.80s: wanted A (r, %d) and B (%lld, r) in F32, BF16 or F16", ta->name, w[0].cols,
		                     (long long)rows);
	if (ta->shape[0] > LM_RANK_MAX)
		return stave_err_set(err, STAVE_ECONFIG, "adapter tensor %.80s: rank %lld; at most %d is supported", ta->name, (long long)ta->shape[0], LM_RANK_MAX);
	int rank = (int)ta->shape[0];
	double scale = a->alpha / (a->rank_stabilised ? sqrt(rank) : rank);
	for (int i = 0; i < m->parts; i++)
		a->lora[layer * STAVE_ROLES + (int)m->role[i]] = (struct lm_lora){.rank = rank, .in = w[0].cols, .out = w[i].rows, .scale = (float)scale};
	a->pair[a->n_pairs++] = (struct pair){m, layer, ta, tb};
	return 0;
}

/* The other half of a pair: lora_A's lora_B and the reverse. */
static const struct stave_st_tensor *partner(const struct stave_st *st, const char *name, const char *half, char other)
{
	char want[512];
	if (strlen(name) >= sizeof want)
		return NULL;
	strcpy(want, name);
	want[strstr(name, half) - name + (ptrdiff_t)strlen(half) - 1] = other;
	return stave_st_find(st, want);
}

static int read_tensors(struct stave_adapter *a, const struct stave_source *base, struct stave_err *err)
{
	for (int i = 0; i < a->st.n; i++) {
		const struct stave_st_tensor *t = &a->st.t[i];
		const char *half = strstr(t->name, ".lora_A") ? ".lora_A" : ".lora_B";
		int layer, rc;
		const struct module *m = parse(t->name, half, &layer);
		if (!m)
			return stave_err_set(err, STAVE_ECONFIG, "adapter tensor %.80s is not supported: only LoRA on attention and feed-forward matrices is", t->name);
		const struct stave_st_tensor *other = partner(&a->st, t->name, half, half[6] == 'A' ? 'B' : 'A');
		if (!other)
			return stave_err_set(err, STAVE_ECORRUPT, "adapter tensor %.80s has no partner", t->name);
		if (half[6] == 'A' && (rc = add(a, m, layer, t, other, base, err)))
			return rc;
	}
	return a->st.n ? 0 : stave_err_set(err, STAVE_ECORRUPT, "the adapter holds no tensors");
}

int stave_adapter_open(struct stave_adapter **out, const char *dir, const struct stave_source *base, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_adapter *a = calloc(1, sizeof *a);
	if (!a)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory opening an adapter");
	a->L = stave_source_shape(base)->L;
	int rc = read_config(a, dir, err);
	if (rc || (rc = stave_path(path, dir, "adapter_model.safetensors", err)) || (rc = stave_st_open(&a->st, path, err)))
		goto fail;
	a->lora = calloc((size_t)a->L * STAVE_ROLES, sizeof *a->lora);
	a->pair = calloc((size_t)a->st.n + 1, sizeof *a->pair);
	if (!a->lora || !a->pair)
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory opening an adapter");
	else
		rc = read_tensors(a, base, err);
	if (rc)
		goto fail;
	*out = a;
	return 0;
fail:
	stave_adapter_close(a);
	return rc;
}

/* A matrix of floats in the arena; NULL while planning. */
static const float *matrix(struct stave_arena *arena, const struct stave_st_tensor *t)
{
	enum stave_qtype type = t->dtype == STAVE_F32 ? STAVE_Q_F32 : t->dtype == STAVE_BF16 ? STAVE_Q_BF16 : STAVE_Q_F16;
	int64_t n = stave_st_elements(t);
	float *p = stave_arena_take(arena, (size_t)n * sizeof *p);
	if (p)
		stave_dequantize(type, p, t->data, n);
	return p;
}

void stave_adapter_take(struct stave_adapter *a, struct stave_arena *arena)
{
	for (int i = 0; i < a->n_pairs; i++) {
		const struct pair *p = &a->pair[i];
		const float *pa = matrix(arena, p->a), *pb = matrix(arena, p->b);
		for (int k = 0; pb && k < p->m->parts; k++) {
			struct lm_lora *l = &a->lora[p->layer * STAVE_ROLES + (int)p->m->role[k]];
			l->a = pa, l->b = pb;
			pb += (size_t)l->out * (size_t)l->rank;
		}
	}
	if (!arena->base)
		return;
	stave_st_close(&a->st);
	a->n_pairs = 0;
}

void stave_adapter_close(struct stave_adapter *a)
{
	if (!a)
		return;
	stave_st_close(&a->st);
	free(a->pair);
	free(a->lora);
	free(a);
}

/* ---- computing ---- */

static const struct lm_lora *lora_of(const struct stave_adapter *a, int layer, enum stave_role role)
{
	const struct lm_lora *l = a ? &a->lora[layer * STAVE_ROLES + (int)role] : NULL;
	return l && l->rank ? l : NULL;
}

static float *low_of(const struct stave_lm *d, int r, int part) { return d->low + ((size_t)r * 3 + (size_t)part) * LM_RANK_MAX; }

void lm_adapter_down(struct stave_lm *d, const struct lm_product *p, int layer, int r, const float *x)
{
	const struct stave_adapter *a = d->rows[d->entry[r]].adapter;
	for (int i = 0; i < p->parts; i++) {
		const struct lm_lora *l = lora_of(a, layer, p->part[i].role);
		if (l)
			d->k->gemv(STAVE_F32, low_of(d, r, i), l->a, (size_t)l->in, x, l->rank, l->in);
	}
}

void lm_adapter_up(struct stave_lm *d, int part, enum stave_role role, int layer, int o, int n_out, float *y, size_t ldy)
{
	float *share = d->thread[stave_thread_index()].low;
	for (int r = 0; r < d->n_rows; r++) {
		const struct lm_lora *l = lora_of(d->rows[d->entry[r]].adapter, layer, role);
		if (!l)
			continue;
		d->k->gemv(STAVE_F32, share, l->b + (size_t)o * (size_t)l->rank, (size_t)l->rank, low_of(d, r, part), n_out, l->rank);
		d->k->scale(share, l->scale, (size_t)n_out);
		d->k->add(y + (size_t)r * ldy, share, (size_t)n_out);
	}
}
