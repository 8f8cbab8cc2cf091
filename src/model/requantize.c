/* GGUF to GGUF in other types. The new file has the old one's keys and tensors in the old order; what the chooser leaves alone
 * (norms, biases, whatever has no role here) is copied byte for byte, so files of families that this program does not run come
 * through whole. A matrix goes through memory a few rows at a time: read from the mapping, turned into floats and blocks by all
 * threads, measured against what it was, and written. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/quant.h"
#include "model/convert.h"
#include "model/roles.h"

#define CHUNK ((size_t)8 << 20) /* bytes of blocks between two writes: long enough for the threads and the disk */

/* ---- one matrix ---- */

struct row_error {
	double error2, value2;
};

/* Row to blocks and back, and what that lost. values: (2, cols). Returns false when a value is not finite. */
static bool store_row(const struct stave_float_rows *m, int64_t r, enum stave_qtype to, void *blocks, float *values, struct row_error *e)
{
	float *x = values, *y = values + m->cols;
	float least = 0; /* a NaN, or 0 * an infinity, stays in it */
	m->row(m->ctx, r, x);
	for (int64_t i = 0; i < m->cols; i++)
		least += 0 * x[i];
	if (least != 0)
		return false;
	stave_quantize(to, blocks, x, m->cols);
	stave_dequantize(to, y, blocks, m->cols);
	double error2 = 0, value2 = 0;
	for (int64_t i = 0; i < m->cols; i++) {
		double d = (double)x[i] - y[i];
		error2 += d * d;
		value2 += (double)x[i] * x[i];
	}
	*e = (struct row_error){error2, value2};
	return true;
}

/* Memory for one matrix: blocks and errors of a chunk of rows, floats of each thread. */
struct bench {
	char *blocks;
	struct row_error *errors;
	float *values;
	int64_t rows;  /* of a chunk */
	size_t row_bytes, thread_floats;
};

static int bench_open(struct bench *b, enum stave_qtype to, const struct stave_float_rows *m, struct stave_err *err)
{
	b->row_bytes = stave_qtype_row_bytes(to, m->cols);
	b->rows = (int64_t)(CHUNK / b->row_bytes) + 1;
	b->rows = b->rows < m->rows ? b->rows : m->rows;
	b->thread_floats = 2 * (size_t)m->cols;
	b->blocks = malloc((size_t)b->rows * b->row_bytes);
	b->errors = calloc((size_t)b->rows, sizeof *b->errors);
	b->values = malloc((size_t)stave_threads() * b->thread_floats * sizeof *b->values);
	if (b->blocks && b->errors && b->values)
		return 0;
	return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for rows of %lld", m->name, (long long)m->cols);
}

static void bench_close(struct bench *b)
{
	free(b->blocks);
	free(b->errors);
	free(b->values);
}

/* Rows first .. first + n; the number of the first damaged one, or -1. */
static int64_t store_chunk(struct bench *b, enum stave_qtype to, const struct stave_float_rows *m, int64_t first, int64_t n)
{
	int64_t damaged = INT64_MAX;
#pragma omp parallel for schedule(dynamic, 16) num_threads(stave_threads()) reduction(min : damaged)
	for (int64_t i = 0; i < n; i++) {
		float *values = b->values + (size_t)omp_get_thread_num() * b->thread_floats;
		if (!store_row(m, first + i, to, b->blocks + (size_t)i * b->row_bytes, values, &b->errors[i]))
			damaged = first + i < damaged ? first + i : damaged;
	}
	return damaged == INT64_MAX ? -1 : damaged;
}

int stave_convert_rows(struct stave_gguf_writer *w, enum stave_qtype to, const struct stave_float_rows *m, struct stave_convert_part *part,
                       struct stave_convert_result *r, struct stave_err *err)
{
	struct bench b = {0};
	int rc = bench_open(&b, to, m, err);
	for (int64_t at = 0; !rc && at < m->rows; at += b.rows) {
		int64_t n = b.rows < m->rows - at ? b.rows : m->rows - at;
		double start = stave_now_s();
		int64_t damaged = store_chunk(&b, to, m, at, n);
		double stored = stave_now_s();
		r->compute_s += stored - start;
		if (damaged >= 0)
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s has a value in row %lld that is not finite: the model is damaged", m->name, (long long)damaged);
		else if (stave_stop_requested())
			rc = stave_err_set(err, STAVE_EINTERRUPTED, "interrupted in %s", m->name);
		else
			rc = stave_gguf_write(w, b.blocks, (size_t)n * b.row_bytes, err);
		r->write_s += stave_now_s() - stored;
		for (int64_t i = 0; !rc && i < n; i++) { /* in order: the sum does not depend on the threads */
			part->error2 += b.errors[i].error2;
			part->value2 += b.errors[i].value2;
		}
		part->bytes += (size_t)n * b.row_bytes;
		part->elements += n * m->cols;
	}
	part->types |= 1u << to;
	part->tensors++;
	bench_close(&b);
	return rc;
}

/* ---- a file ---- */

/* The role and layer of a GGUF name, whatever the family: STAVE_ROLES where it has none or is a bias. */
static enum stave_role role_of(const char *name, int *layer)
{
	*layer = -1;
	size_t n = strlen(name), end = n > 7 && !strcmp(name + n - 7, ".weight") ? n - 7 : 0;
	int used = 0;
	if (sscanf(name, "blk.%9d.%n", layer, &used) != 1 || !used)
		*layer = -1;
	for (int i = 0; end && i < role_names_n; i++) {
		const char *p = role_names[i].gguf;
		if (used)
			p = strncmp(p, "blk.*.", 6) ? "" : p + 6;
		if (strlen(p) == end - (size_t)used && !strncmp(p, name + used, end - (size_t)used))
			return role_names[i].role;
	}
	return STAVE_ROLES;
}

/* A tensor of the old file with its type in the new one. */
struct plan {
	const struct stave_gguf *g;
	struct stave_gguf_tensor *t;    /* (g->n) as they will be */
	enum stave_role *role;          /* (g->n) */
};

static enum stave_qtype chosen(const struct stave_convert *c, const struct stave_gguf_tensor *t, enum stave_role role, int layer, int n_layers)
{
	if (!c->choose || role == STAVE_ROLES || t->n_dims < 2 || t->ne[0] > INT32_MAX || t->ne[1] > INT32_MAX)
		return t->type;
	enum stave_qtype to = c->choose(c->ctx, role, layer, n_layers, (int)t->ne[1], (int)t->ne[0]);
	return to == STAVE_QTYPE_COUNT ? t->type : to;
}

static int plan_open(struct plan *p, const struct stave_convert *c, struct stave_err *err)
{
	const struct stave_gguf *g = p->g;
	int64_t n_layers = 0;
	char key[256];
	const char *arch = stave_gguf_str(g, "general.architecture");
	if (!arch || snprintf(key, sizeof key, "%s.block_count", arch) >= (int)sizeof key)
		return stave_err_set(err, STAVE_ECORRUPT, "the file names no architecture");
	int rc = stave_gguf_int(g, key, &n_layers, err);
	if (rc < 0)
		return rc;
	if (rc == 0 || n_layers < 1 || n_layers > 100000)
		return stave_err_set(err, STAVE_ECORRUPT, "%s is %lld; a model has layers", key, (long long)n_layers);
	p->t = calloc((size_t)g->n + 1, sizeof *p->t);
	p->role = calloc((size_t)g->n + 1, sizeof *p->role);
	if (!p->t || !p->role)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d tensors", g->n);
	for (int i = 0; i < g->n; i++) {
		int layer;
		p->t[i] = g->t[i];
		p->role[i] = role_of(g->t[i].name, &layer);
		p->t[i].type = chosen(c, &g->t[i], p->role[i], layer, (int)n_layers);
		if (g->t[i].ne[0] % stave_qtype_info(p->t[i].type).per || !stave_can_quantize(p->t[i].type))
			p->t[i].type = g->t[i].type;
	}
	return 0;
}

static void put_keys(struct stave_gguf_writer *w, const struct stave_gguf *g, int file_type)
{
	for (int i = 0; i < stave_gguf_keys(g); i++) {
		enum stave_gguf_type type;
		const char *key = stave_gguf_key(g, i, &type);
		bool ours = !strcmp(key, "general.file_type") || !strcmp(key, "general.quantization_version");
		if ((file_type >= 0 && ours) || !strncmp(key, "split.", 6))
			continue;
		stave_gguf_put_copy(w, g, key);
	}
	if (file_type >= 0) {
		stave_gguf_put_u32(w, "general.file_type", (uint32_t)file_type);
		stave_gguf_put_u32(w, "general.quantization_version", 2);
	}
}

static void mapped_row(void *ctx, int64_t r, float *out)
{
	const struct stave_gguf_tensor *t = ctx;
	stave_dequantize(t->type, out, (const char *)t->data + (size_t)r * stave_qtype_row_bytes(t->type, t->ne[0]), t->ne[0]);
}

static int copy(struct stave_gguf_writer *w, const struct stave_gguf_tensor *t, struct stave_convert_part *part, struct stave_convert_result *r, struct stave_err *err)
{
	int rc = 0;
	double start = stave_now_s();
	for (size_t at = 0, n; !rc && at < t->bytes; at += n) {
		n = t->bytes - at < CHUNK ? t->bytes - at : CHUNK;
		rc = stave_stop_requested() ? stave_err_set(err, STAVE_EINTERRUPTED, "interrupted in %s", t->name) : stave_gguf_write(w, (const char *)t->data + at, n, err);
	}
	r->write_s += stave_now_s() - start;
	part->tensors++;
	part->bytes += t->bytes;
	part->elements += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
	part->types |= 1u << t->type;
	return rc;
}

static int put_tensors(const struct plan *p, struct stave_gguf_writer *w, size_t total, struct stave_convert_result *r, struct stave_err *err)
{
	int64_t elements[STAVE_QTYPE_COUNT] = {0};
	double start = stave_now_s();
	size_t done = 0;
	int rc = 0;
	for (int i = 0; !rc && i < p->g->n; i++) {
		struct stave_gguf_tensor *t = &p->g->t[i];
		struct stave_convert_part *part = &r->part[p->role[i]];
		struct stave_float_rows m = {t->name, t->ne[1] * t->ne[2] * t->ne[3], t->ne[0], mapped_row, t};
		if (p->t[i].type == t->type)
			rc = copy(w, t, part, r, err);
		else
			rc = stave_convert_rows(w, p->t[i].type, &m, part, r, err);
		elements[t->type] += m.rows * m.cols;
		r->elements += m.rows * m.cols;
		r->tensors++;
		done += t->bytes;
		double spent = stave_now_s() - start;
		char rate[32], left[32];
		stave_progress(false, "tensor %d of %d | %s/s read | ETA %s", i + 1, p->g->n, stave_bytes_text(rate, spent > 0 ? (double)done / spent : 0),
		               stave_duration_text(left, spent * (double)(total - done) / (double)(done ? done : 1)));
	}
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		if (elements[t] > elements[r->from])
			r->from = (enum stave_qtype)t;
	return rc;
}

int stave_requantize(const char *in, const char *out, const struct stave_convert *c, struct stave_convert_result *r, struct stave_err *err)
{
	struct stave_gguf *g;
	struct stave_gguf_writer *w = NULL;
	struct plan p = {0};
	struct stave_convert_result done = {0};
	double start = stave_now_s();
	int rc = stave_gguf_open(&g, in, err);
	if (rc)
		return rc;
	p.g = g;
	rc = plan_open(&p, c, err);
	for (int i = 0; !rc && i < g->n; i++) {
		done.bytes_in += g->t[i].bytes;
		done.bytes_out += stave_qtype_row_bytes(p.t[i].type, g->t[i].ne[0]) * (size_t)(g->t[i].ne[1] * g->t[i].ne[2] * g->t[i].ne[3]);
	}
	if (!rc && !(rc = stave_gguf_create(&w, out, err))) {
		put_keys(w, g, c->file_type);
		if (!(rc = stave_gguf_tensors(w, p.t, g->n, err)))
			rc = put_tensors(&p, w, done.bytes_in, &done, err);
		double computed = stave_now_s();
		if (!rc)
			rc = stave_gguf_commit(w, err);
		else
			stave_gguf_abort(w);
		done.write_s += stave_now_s() - computed;
	}
	done.seconds = stave_now_s() - start;
	if (!rc)
		*r = done;
	free(p.t);
	free(p.role);
	stave_gguf_close(g);
	return rc;
}
