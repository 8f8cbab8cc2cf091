/* Weights in and out of Hugging Face directories, and fresh ones. A directory holds model.safetensors or shards (shards.h). Every
 * tensor the layout names must be there with the right shape; extra tensors are refused too, except those known to be derived (attention masks, rotary tables). */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/safetensors.h"
#include "kernel/dtype.h"
#include "model/shards.h"

/* ---- loading ---- */

static float element(enum stave_dtype t, const void *p, int64_t i)
{
	uint16_t h;
	float f;
	if (t == STAVE_F32) {
		memcpy(&f, (const char *)p + 4 * i, 4); /* data need not be aligned in the file */
		return f;
	}
	memcpy(&h, (const char *)p + 2 * i, 2);
	return t == STAVE_BF16 ? stave_bf16_to_f32(h) : stave_f16_to_f32(h);
}

static int copy_in(const struct stave_param *p, float *to, const struct stave_st_tensor *t, const char *path, struct stave_err *err)
{
	int64_t rows = p->transposed ? p->cols : p->rows, cols = p->transposed ? p->rows : p->cols;
	bool shape_ok = p->vector ? t->n_dims == 1 && t->shape[0] == p->cols : t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols;
	if (!shape_ok)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s has %lld values in %d dimensions; config.json says %lld x %lld", path, p->name,
		                     (long long)stave_st_elements(t), t->n_dims, (long long)rows, (long long)cols);
	if (t->dtype != STAVE_F32 && t->dtype != STAVE_BF16 && t->dtype != STAVE_F16)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s is %s; F32, BF16 or F16 is wanted", path, p->name, stave_dtype_name(t->dtype));
	if (!p->transposed && t->dtype == STAVE_F32) {
		memcpy(to, t->data, (size_t)rows * (size_t)cols * sizeof *to);
		return 0;
	}
#pragma omp parallel for schedule(static)
	for (int64_t r = 0; r < p->rows; r++)
		for (int64_t c = 0; c < p->cols; c++)
			to[r * p->cols + c] = element(t->dtype, t->data, p->transposed ? c * p->rows + r : r * p->cols + c);
	return 0;
}

/* Files of before transformers 5 leave the "transformer." or "model." prefix out when only the body was saved. */
static const struct stave_st_tensor *find(const struct stave_st *st, const char *name)
{
	const struct stave_st_tensor *t = stave_st_find(st, name);
	const char *dot = strchr(name, '.');
	if (!t && dot && (!strncmp(name, "transformer.", 12) || !strncmp(name, "model.", 6)))
		t = stave_st_find(st, dot + 1);
	return t;
}

static bool derived(const char *name)
{
	size_t n = strlen(name);
	return (n > 10 && !strcmp(name + n - 10, ".attn.bias")) || (n > 17 && !strcmp(name + n - 17, ".attn.masked_bias")) ||
	       (n > 9 && !strcmp(name + n - 9, ".inv_freq"));
}

struct loading {
	const struct stave_layout *l;
	float *p;
	bool *seen; /* (n_params) */
};

static int load_file(void *ctx, const char *path, struct stave_err *err)
{
	const struct loading *to = ctx;
	const struct stave_layout *l = to->l;
	struct stave_st st;
	int rc = stave_st_open(&st, path, err), used = 0, other = 0;
	if (rc)
		return rc;
	for (int i = 0; !rc && i < l->n_params; i++) {
		const struct stave_st_tensor *t = find(&st, l->params[i].name);
		if (!t)
			continue;
		rc = copy_in(&l->params[i], to->p + l->params[i].offset, t, path, err);
		to->seen[i] = true;
		used++;
	}
	for (int i = 0; !rc && i < st.n; i++)
		if (derived(st.t[i].name) || (l->shape.tied && !strcmp(st.t[i].name, "lm_head.weight")))
			other++;
	if (!rc && used + other != st.n)
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s holds %d tensors that a model of this config has no place for", path, st.n - used - other);
	stave_st_close(&st);
	return rc;
}

int stave_weights_load(const struct stave_layout *l, float *p, const char *dir, struct stave_err *err)
{
	struct loading to = {l, p, calloc((size_t)l->n_params, 1)};
	if (!to.seen)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to load %s", dir);
	memset(p, 0, (size_t)l->n * sizeof *p);
	int rc = shards_each(dir, load_file, &to, err);
	for (int i = 0; !rc && i < l->n_params; i++)
		if (!to.seen[i])
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %s is missing", dir, l->params[i].name);
	free(to.seen);
	return rc;
}

/* ---- saving ---- */

/* Rows of a tensor as the file wants them, through a bounded piece. */
/* File rows r0..r0+n of a transposed parameter, which are columns in memory. By tiles: a column walked alone touches a cache
 * line per value, and a checkpoint would spend more time here than in write(). */
static void gather_columns(const struct stave_param *p, const float *from, int64_t r0, int64_t n, enum stave_dtype dtype, void *piece)
{
	enum { TILE = 16 };
	int64_t cols = p->rows;
	for (int64_t c0 = 0; c0 < cols; c0 += TILE)
		for (int64_t t0 = 0; t0 < n; t0 += TILE)
			for (int64_t t = t0; t < n && t < t0 + TILE; t++)
				for (int64_t c = c0; c < cols && c < c0 + TILE; c++)
					stave_put(dtype, piece, (size_t)(t * cols + c), from[c * p->cols + r0 + t]);
}

/* piece_floats holds at least one row of any file: shapes are bounded (cost/shape.c). */
static int write_transposed(struct stave_st_writer *w, const struct stave_param *p, const float *from, enum stave_dtype dtype, void *piece,
                            size_t piece_floats, struct stave_err *err)
{
	int64_t cols = p->rows, step = (int64_t)piece_floats / cols;
	int rc = 0;
	for (int64_t r = 0; !rc && r < p->cols; r += step) {
		int64_t n = p->cols - r < step ? p->cols - r : step;
		gather_columns(p, from, r, n, dtype, piece);
		rc = stave_st_write(w, piece, (size_t)(n * cols) * stave_dtype_bytes(dtype), err);
	}
	return rc;
}

static int write_param(struct stave_st_writer *w, const struct stave_param *p, const float *from, enum stave_dtype dtype, void *piece,
                       size_t piece_floats, struct stave_err *err)
{
	if (p->transposed)
		return write_transposed(w, p, from, dtype, piece, piece_floats, err);
	int64_t n = (int64_t)p->rows * p->cols;
	if (dtype == STAVE_F32)
		return stave_st_write(w, from, (size_t)n * sizeof *from, err);
	for (int64_t at = 0; at < n; at += (int64_t)piece_floats) {
		int64_t end = at + (int64_t)piece_floats < n ? at + (int64_t)piece_floats : n;
		for (int64_t i = at; i < end; i++)
			stave_put(dtype, piece, (size_t)(i - at), from[i]);
		int rc = stave_st_write(w, piece, (size_t)(end - at) * stave_dtype_bytes(dtype), err);
		if (rc)
			return rc;
	}
	return 0;
}

int stave_weights_save(const struct stave_layout *l, const float *p, const char *dir, enum stave_dtype dtype, int eos, int bos, struct stave_err *err)
{
	enum { PIECE = 1 << 20 };
	char path[STAVE_PATH];
	static const char *const meta[] = {"format", "pt"};
	struct stave_st_writer w = {.fd = -1};
	struct stave_st_tensor *t = calloc((size_t)l->n_params, sizeof *t);
	void *piece = malloc(PIECE * sizeof(float));
	int rc = t && piece ? stave_mkdirs(dir, err) : stave_err_set(err, STAVE_ENOMEM, "no memory to save %s", dir);
	for (int i = 0; !rc && i < l->n_params; i++) {
		const struct stave_param *q = &l->params[i];
		t[i] = (struct stave_st_tensor){.name = q->name, .dtype = dtype, .n_dims = q->vector ? 1 : 2};
		t[i].shape[0] = q->vector ? q->cols : q->transposed ? q->cols : q->rows;
		t[i].shape[1] = q->transposed ? q->rows : q->cols;
	}
	if (!rc && !(rc = stave_path(path, dir, "model.safetensors", err)))
		rc = stave_st_create(&w, path, t, l->n_params, meta, 1, err);
	for (int i = 0; !rc && i < l->n_params; i++)
		rc = write_param(&w, &l->params[i], p + l->params[i].offset, dtype, piece, PIECE, err);
	if (!rc)
		rc = stave_st_commit(&w, err);
	else
		stave_st_abort(&w);
	free(t);
	free(piece);
	return rc ? rc : stave_shape_save(&l->shape, dir, eos, bos, err);
}

/* ---- fresh weights ---- */

/* N(0,1) by Box and Muller from two hashed uniforms; value i depends on nothing but (seed, i). */
static float normal(uint64_t seed, uint64_t i)
{
	double u1 = 1 - stave_random_unit(seed, 2 * i), u2 = stave_random_unit(seed, 2 * i + 1);
	return (float)(sqrt(-2 * log(u1)) * cos(6.283185307179586 * u2));
}

void stave_weights_init(const struct stave_layout *l, float *p, uint64_t seed)
{
	memset(p, 0, (size_t)l->n * sizeof *p);
	for (int i = 0; i < l->n_params; i++) {
		const struct stave_param *q = &l->params[i];
		float *to = p + q->offset;
		size_t len = strlen(q->name);
		bool residual = q->hidden && (strstr(q->name, "c_proj") || strstr(q->name, "o_proj") || strstr(q->name, "down_proj"));
		float std = residual ? 0.02f / sqrtf(2 * (float)l->shape.L) : 0.02f;
		uint64_t own = stave_hash64(q->name, len, seed);
		if (q->vector) {
			bool bias = len > 5 && !strcmp(q->name + len - 5, ".bias");
			for (int c = 0; c < q->cols; c++)
				to[c] = bias ? 0 : 1;
			continue;
		}
		int64_t n = (int64_t)q->rows * q->cols;
#pragma omp parallel for schedule(static)
		for (int64_t k = 0; k < n; k++)
			to[k] = std * normal(own, (uint64_t)k);
	}
}
