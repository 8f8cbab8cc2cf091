/* A model to run, from either format. A question for a role becomes a name by the one table (roles.c), the name a tensor by binary
 * search, the tensor a view of rows: nothing is copied and no second index is kept. Opening asks every question once, so
 * that later ones cannot fail, and refuses by name what nobody asked for: a tensor without a place is arithmetic that
 * would be left out. */
#include "model/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "kernel/quant.h"

const struct source_tensor *source_find(const struct stave_source *s, const char *name)
{
	int lo = 0, hi = s->n;
	while (lo < hi) {
		int mid = lo + (hi - lo) / 2, c = strcmp(name, s->t[mid].name);
		if (!c)
			return &s->t[mid];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

static bool begins(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }
static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), k = strlen(with);
	return n >= k && !strcmp(s + n - k, with);
}

bool source_harmless(const struct stave_source *s, const char *name)
{
	if (s->gguf) /* read into the factors already, or derived */
		return !strcmp(name, "rope_freqs.weight") || !strcmp(name, "rope_factors_short.weight") || !strcmp(name, "rope_factors_long.weight") ||
		       ends(name, ".attn_rot_embd");
	if (ends(name, ".attn.bias") || ends(name, ".attn.masked_bias") || ends(name, ".inv_freq"))
		return true; /* masks and tables of older versions */
	if (s->shape.tied && ends(name, "lm_head.weight"))
		return true; /* the embedding again */
	if (s->shape.encoder)
		return ends(name, "embeddings.position_ids") || begins(name, "cls.") || strstr(name, "pooler.dense.");
	/* the image half of a model whose text half is run */
	return s->shape.family == STAVE_GEMMA3 && (strstr(name, "vision_tower.") || strstr(name, "multi_modal_projector."));
}

/* ---- one tensor of a role ---- */

/* Where a role's rows are. */
struct place {
	const struct source_tensor *t;
	bool transposed;
	int rows, cols;   /* of the role */
	int before, all;  /* rows of the tensor before the role's, and of all */
	size_t skip;      /* bytes before them: the experts before this one */
};

static void tensor_name(const struct stave_source *s, char name[ROLE_NAME_MAX + 8], const struct role_name *r, bool bias, int layer, int expert)
{
	role_name(name, r, s->root, layer, expert);
	strcat(name, bias ? ".bias" : ".weight");
}

/* 1 and *p; 0: the model has no such tensor; STAVE_ECORRUPT: it should have. */
static int find_place(const struct stave_source *s, enum stave_role role, bool bias, int layer, int expert, struct place *p, struct stave_err *err)
{
	char name[ROLE_NAME_MAX + 8];
	const struct stave_shape *sh = &s->shape;
	if (role == STAVE_ROLE_HEAD && sh->tied && !sh->encoder && !bias)
		role = STAVE_ROLE_EMBED;
	const struct role_name *r = role_find(sh->family, role);
	if (!role_present(sh, role) || (bias && !role_biased(sh, role)))
		return 0;
	if (!r)
		return stave_err_set(err, STAVE_ECONFIG, "%s: a %s model with tensors of kind %d is not supported", s->path, shape_model_types[sh->family], (int)role);
	tensor_name(s, name, r, bias, layer, expert);
	*p = (struct place){.t = source_find(s, name)};
	if (!p->t)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %s is missing", s->path, name);
	for (int i = 0; i < r->parts; i++) {
		int rows, cols;
		role_shape(sh, (enum stave_role)(r->role + i), &rows, &cols);
		if ((int)r->role + i == (int)role) {
			p->rows = rows;
			p->cols = cols;
			p->before = p->all;
		}
		p->all += rows;
	}
	p->transposed = s->root && role_transposed(sh, role);
	if (s->gguf && role_kind(role) == ROLE_EXPERT)
		p->skip = stave_qtype_row_bytes(p->t->type, p->cols) * (size_t)p->rows * (size_t)expert;
	return 1;
}

/* Does the tensor have the size and type that its role wants? */
static int check_place(const struct stave_source *s, enum stave_role role, bool bias, const struct place *p, struct stave_err *err)
{
	bool vector = bias || role_kind(role) == ROLE_NORM, stacked = s->gguf && role_kind(role) == ROLE_EXPERT;
	int64_t want[3] = {vector ? (bias && role_kind(role) != ROLE_NORM ? p->all : p->cols) : p->transposed ? p->all : p->cols, vector ? 1 : p->transposed ? p->cols : p->all, stacked ? s->shape.experts : 1};
	int n_dims = vector ? 1 : stacked ? 3 : 2;
	const struct source_tensor *t = p->t;
	if (t->n_dims != n_dims || t->ne[0] != want[0] || t->ne[1] != want[1] || t->ne[2] != want[2])
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %s is %lld x %lld x %lld in %d dimensions; the config says %lld x %lld x %lld", s->path, t->name,
		                     (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], t->n_dims, (long long)want[0], (long long)want[1], (long long)want[2]);
	if (t->type == STAVE_QTYPE_COUNT || (vector && stave_qtype_info(t->type).per != 1))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %s is stored as %s, which holds no %s", s->path, t->name,
		                     t->type == STAVE_QTYPE_COUNT ? "integers" : stave_qtype_info(t->type).name, vector ? "vector" : "weights");
	return 0;
}

/* ---- opening ---- */

static int check_role(struct stave_source *s, enum stave_role role, int layer, int expert, struct stave_err *err)
{
	for (int bias = 0; bias < 2; bias++) {
		struct place p;
		int rc = find_place(s, role, bias, layer, expert, &p, err);
		if (rc == 1)
			rc = check_place(s, role, bias, &p, err);
		if (rc < 0)
			return rc;
		if (role_present(&s->shape, role) && (!bias || role_biased(&s->shape, role)))
			s->t[p.t - s->t].used = true;
	}
	return 0;
}

static int check_all(struct stave_source *s, struct stave_err *err)
{
	int rc = 0;
	for (int role = 0; !rc && role < STAVE_ROLES; role++) {
		if (!role_in_layer((enum stave_role)role)) {
			rc = check_role(s, (enum stave_role)role, 0, 0, err);
			continue;
		}
		int experts = role_kind((enum stave_role)role) == ROLE_EXPERT ? s->shape.experts : 1;
		for (int l = 0; !rc && l < s->shape.L; l++)
			for (int e = 0; !rc && e < experts; e++)
				rc = check_role(s, (enum stave_role)role, l, e, err);
	}
	for (int i = 0; !rc && i < s->n; i++)
		if (!s->t[i].used && !source_harmless(s, s->t[i].name))
			rc = stave_err_set(err, STAVE_ECONFIG, "%s: a %s model of this config has no place for tensor %.100s", s->path, shape_model_types[s->shape.family], s->t[i].name);
	return rc;
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct source_tensor *)a)->name, ((const struct source_tensor *)b)->name); }

static int open_path(struct stave_source *s, const char *path, struct stave_err *err)
{
	if ((size_t)snprintf(s->path, sizeof s->path, "%s", path) >= sizeof s->path)
		return stave_err_set(err, STAVE_EUSAGE, "path too long: %s", path);
	int rc;
	if (stave_is_dir(path))
		rc = source_open_dir(s, err);
	else if (stave_is_gguf(path))
		rc = source_open_gguf(s, err);
	else if (stave_exists(path))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s is neither a GGUF file nor a directory", path);
	else
		rc = stave_err_set(err, STAVE_EIO, "%s does not exist; a GGUF file or a Hugging Face directory is wanted", path);
	if (rc)
		return rc;
	qsort(s->t, (size_t)s->n, sizeof *s->t, by_name);
	for (int i = 1; i < s->n; i++)
		if (!strcmp(s->t[i - 1].name, s->t[i].name))
			return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.100s is in two files", path, s->t[i].name);
	return check_all(s, err);
}

int stave_source_open(struct stave_source **out, const char *path, struct stave_err *err)
{
	struct stave_source *s = calloc(1, sizeof *s);
	if (!s)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to open %s", path);
	int rc = open_path(s, path, err);
	if (rc)
		stave_source_close(s);
	else
		*out = s;
	return rc;
}

void stave_source_close(struct stave_source *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->n_st; i++)
		stave_st_close(&s->st[i]);
	stave_gguf_close(s->gguf);
	shape_factors_free(&s->factors);
	free(s->st);
	free(s->t);
	free(s);
}

/* ---- asking ---- */

const struct stave_shape *stave_source_shape(const struct stave_source *s) { return &s->shape; }
const struct stave_gguf *stave_source_gguf(const struct stave_source *s) { return s->gguf; }
enum stave_pooling stave_source_pooling(const struct stave_source *s) { return s->pooling; }

int stave_source_weight(const struct stave_source *s, enum stave_role role, int layer, int expert, struct stave_weight *w)
{
	struct place p;
	if (role_kind(role) == ROLE_NORM || find_place(s, role, false, layer, expert, &p, NULL) != 1)
		return 0;
	size_t row = stave_qtype_row_bytes(p.t->type, p.transposed ? p.all : p.cols), before = p.transposed ? stave_qtype_row_bytes(p.t->type, p.before) : row * (size_t)p.before;
	*w = (struct stave_weight){.type = p.t->type, .rows = p.rows, .cols = p.cols, .data = p.t->data + p.skip + before, .row_bytes = row, .transposed = p.transposed,
	                           .permuted_heads = s->gguf ? role_permuted(&s->shape, role) : 0, .name = p.t->name};
	return 1;
}

int source_interleave(int rows, int heads, int r)
{
	int D = rows / heads, head = r / D, i = r % D;
	return head * D + (i < D / 2 ? 2 * i : 2 * (i - D / 2) + 1);
}

int source_part(int rows, int heads, int r)
{
	int D = rows / heads, head = r / D, i = r % D;
	return head * D + i / 2 + (i % 2 ? D / 2 : 0);
}

const void *stave_weight_row(const struct stave_weight *w, int r, void *tmp)
{
	if (!w->transposed)
		return w->data + w->row_bytes * (size_t)(w->permuted_heads ? source_interleave(w->rows, w->permuted_heads, r) : r);
	size_t each = stave_qtype_row_bytes(w->type, 1);
	for (int c = 0; c < w->cols; c++)
		memcpy((char *)tmp + each * (size_t)c, w->data + w->row_bytes * (size_t)c + each * (size_t)r, each);
	return tmp;
}

int stave_source_vector(const struct stave_source *s, enum stave_role role, bool bias, int layer, float *out, int n)
{
	struct place p;
	if ((!bias && role_kind(role) != ROLE_NORM) || find_place(s, role, bias, layer, 0, &p, NULL) != 1)
		return 0;
	int heads = bias && s->gguf ? role_permuted(&s->shape, role) : 0, own = bias ? (role_kind(role) == ROLE_NORM ? p.cols : p.rows) : p.cols;
	size_t each = stave_qtype_row_bytes(p.t->type, 1);
	float add = s->root && !bias && role_plus_one(&s->shape, role) ? 1 : 0;
	for (int i = 0; i < n && i < own; i++) {
		stave_dequantize(p.t->type, &out[i], p.t->data + each * (size_t)(p.before + (heads ? source_interleave(own, heads, i) : i)), 1);
		out[i] += add;
	}
	return 1;
}

const float *stave_source_rope_factors(const struct stave_source *s, int context) { return context > s->factors.original ? s->factors.far : s->factors.near; }

/* ---- sums ---- */

static int64_t elements(const struct source_tensor *t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }

int64_t stave_source_params(const struct stave_source *s)
{
	int64_t n = 0;
	for (int i = 0; i < s->n; i++)
		n += s->t[i].used ? elements(&s->t[i]) : 0;
	return n;
}

size_t stave_source_bytes(const struct stave_source *s)
{
	size_t n = 0;
	for (int i = 0; i < s->n; i++)
		n += s->t[i].used ? s->t[i].bytes : 0;
	return n;
}

enum stave_qtype stave_source_main_type(const struct stave_source *s)
{
	int64_t n[STAVE_QTYPE_COUNT] = {0};
	int best = 0;
	for (int i = 0; i < s->n; i++)
		if (s->t[i].used)
			n[s->t[i].type] += elements(&s->t[i]);
	for (int t = 1; t < STAVE_QTYPE_COUNT; t++)
		best = n[t] > n[best] ? t : best;
	return (enum stave_qtype)best;
}

/* Samples, not all bytes: a model of 100 GB must not be read to be named. */
uint64_t stave_source_hash(const struct stave_source *s)
{
	enum { SAMPLES = 8, BYTES = 64 };
	uint64_t h = 0;
	for (int i = 0; i < s->n; i++) {
		const struct source_tensor *t = &s->t[i];
		if (!t->used)
			continue;
		h = stave_hash64(t->name, strlen(t->name), h);
		h = stave_hash64(t->ne, sizeof t->ne, h + (uint64_t)t->type);
		for (size_t k = 0; k < SAMPLES; k++) {
			size_t n = t->bytes < BYTES ? t->bytes : BYTES;
			h = stave_hash64(t->data + (t->bytes - n) / (SAMPLES - 1) * k, n, h);
		}
	}
	return h;
}
