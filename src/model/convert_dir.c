/* Any source as a Hugging Face directory: config.json and one model.safetensors. What a family's other readers expect is undone or
 * done here: norms without gemma's one, matrices of GPT-2 the other way round. Small tensors that GGUF had to keep in
 * F32 go back to the type of the matrices when that loses nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sys.h"
#include "kernel/quant.h"
#include "model/convert_items.h"

#define PIECE ((size_t)8 << 20) /* bytes between two writes */

static enum stave_dtype dtype_of(enum stave_qtype t) { return t == STAVE_Q_F32 ? STAVE_F32 : t == STAVE_Q_F16 ? STAVE_F16 : STAVE_BF16; }

static void dir_row(const struct convert_item *it, int64_t r, float *out)
{
	convert_row(it, r, out);
	if (it->vector && !it->bias && role_plus_one(&it->s->shape, it->r->role))
		for (int64_t i = 0; i < it->cols; i++)
			out[i] -= 1;
}

/* Is every value of a small tensor the same in type t? */
static bool exact_in(const struct convert_item *it, enum stave_qtype t, float *row)
{
	for (int64_t r = 0; r < it->rows; r++) {
		dir_row(it, r, row);
		for (int64_t i = 0; i < it->cols; i++) {
			char one[4];
			float back;
			stave_quantize(t, one, &row[i], 1);
			stave_dequantize(t, &back, one, 1);
			if (back != row[i])
				return false;
		}
	}
	return true;
}

/* The type of a tensor in the new file. main: of most matrices, or what was asked for. */
static int type_of(enum stave_qtype *to, const struct convert_item *it, enum stave_qtype asked, enum stave_qtype main, struct stave_err *err)
{
	*to = asked;
	if (asked != STAVE_QTYPE_COUNT)
		return 0;
	*to = it->from;
	if (convert_small(it) && main != STAVE_Q_F32 && stave_qtype_info(main).per == 1) {
		float *row = malloc((size_t)it->cols * sizeof *row);
		if (!row)
			return stave_err_set(err, STAVE_ENOMEM, "no memory for %s", it->name);
		*to = exact_in(it, main, row) ? main : STAVE_Q_F32;
		free(row);
	}
	if (stave_qtype_info(*to).per != 1)
		return stave_err_set(err, STAVE_ECONFIG, "%s is stored as %s, which a Hugging Face directory cannot hold; give a plain type (--type BF16)", it->name,
		                     stave_qtype_info(*to).name);
	return 0;
}

static int check_values(const struct convert_item *it, const float *x, int64_t n, struct stave_err *err)
{
	for (int64_t i = 0; i < n; i++)
		if (!isfinite(x[i]))
			return stave_err_set(err, STAVE_ECORRUPT, "%s has a value that is not finite: the model is damaged", it->name);
	return stave_stop_requested() ? stave_err_set(err, STAVE_EINTERRUPTED, "interrupted in %s", it->name) : 0;
}

/* Rows first .. first + n as bytes; x holds n * cols floats. */
static int write_rows(struct stave_st_writer *w, const struct convert_item *it, enum stave_qtype to, int64_t first, int64_t n, float *x, void *bytes,
                      struct stave_err *err)
{
#pragma omp parallel for schedule(static) num_threads(stave_threads())
	for (int64_t r = 0; r < n; r++)
		dir_row(it, first + r, x + r * it->cols);
	int rc = check_values(it, x, n * it->cols, err);
	if (rc)
		return rc;
	stave_quantize(to, bytes, x, n * it->cols);
	return stave_st_write(w, bytes, (size_t)(n * it->cols) * stave_qtype_row_bytes(to, 1), err);
}

/* GPT-2's matrices, (cols, rows) in the file: small enough to be turned in memory. */
static int write_transposed(struct stave_st_writer *w, const struct convert_item *it, enum stave_qtype to, float *x, void *bytes, struct stave_err *err)
{
	size_t rows = (size_t)it->rows, cols = (size_t)it->cols;
	float *turned = malloc(rows * cols * sizeof *turned);
	if (!turned)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %s", it->name);
	for (size_t r = 0; r < rows; r++) {
		dir_row(it, (int64_t)r, x);
		for (size_t c = 0; c < cols; c++)
			turned[c * rows + r] = x[c];
	}
	int rc = check_values(it, turned, it->rows * it->cols, err);
	for (size_t c = 0; !rc && c < cols; c++) {
		stave_quantize(to, bytes, turned + c * rows, it->rows);
		rc = stave_st_write(w, bytes, rows * stave_qtype_row_bytes(to, 1), err);
	}
	free(turned);
	return rc;
}

static int write_item(struct stave_st_writer *w, const struct convert_item *it, enum stave_qtype to, struct stave_err *err)
{
	bool turn = !it->vector && role_transposed(&it->s->shape, it->r->role);
	int64_t step = turn ? 1 : (int64_t)(PIECE / sizeof(float)) / it->cols + 1;
	step = step < it->rows ? step : it->rows;
	int64_t longest = step * it->cols > it->rows ? step * it->cols : it->rows;
	float *x = malloc((size_t)longest * sizeof *x);
	void *bytes = malloc((size_t)longest * sizeof(float));
	int rc = x && bytes ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory for %s", it->name);
	if (!rc && turn)
		rc = write_transposed(w, it, to, x, bytes, err);
	for (int64_t r = 0; !rc && !turn && r < it->rows; r += step)
		rc = write_rows(w, it, to, r, it->rows - r < step ? it->rows - r : step, x, bytes, err);
	free(x);
	free(bytes);
	return rc;
}

static int write_tensors(const char *path, const struct convert_item *items, const enum stave_qtype *to, int n, struct stave_convert_result *r, struct stave_err *err)
{
	static const char *const meta[] = {"format", "pt"};
	struct stave_st_writer w = {.fd = -1};
	struct stave_st_tensor *t = calloc((size_t)n + 1, sizeof *t);
	int rc = t ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory for %d tensors", n);
	for (int i = 0; !rc && i < n; i++) {
		bool turn = !items[i].vector && role_transposed(&items[i].s->shape, items[i].r->role);
		t[i] = (struct stave_st_tensor){.name = items[i].name, .dtype = dtype_of(to[i]), .n_dims = items[i].vector ? 1 : 2,
		                                .shape = {items[i].vector || turn ? items[i].cols : items[i].rows, turn ? items[i].rows : items[i].cols}};
	}
	if (!rc)
		rc = stave_st_create(&w, path, t, n, meta, 1, err);
	for (int i = 0; !rc && i < n; i++) {
		rc = write_item(&w, &items[i], to[i], err);
		convert_count(r, &items[i], to[i]);
		stave_progress(i + 1 == n, "tensor %d of %d", i + 1, n);
	}
	if (!rc)
		rc = stave_st_commit(&w, err);
	else
		stave_st_abort(&w);
	free(t);
	return rc;
}

/* sentence-transformers' word for it. */
static int save_pooling(const struct stave_source *s, const char *dir, struct stave_err *err)
{
	char sub[STAVE_PATH], path[STAVE_PATH];
	int rc;
	if (!s->pooling)
		return 0;
	if ((rc = stave_path(sub, dir, "1_Pooling", err)) || (rc = stave_mkdirs(sub, err)) || (rc = stave_path(path, sub, "config.json", err)))
		return rc;
	json_t *j = json_pack("{s:i, s:b, s:b, s:b}", "word_embedding_dimension", s->shape.C, "pooling_mode_mean_tokens", s->pooling == STAVE_POOL_MEAN,
	                      "pooling_mode_cls_token", s->pooling == STAVE_POOL_CLS, "pooling_mode_lasttoken", s->pooling == STAVE_POOL_LAST);
	rc = stave_json_save(j, path, err);
	json_decref(j);
	return rc;
}

/* The shape as config.json can say it: a list of divisors becomes Llama-3's four numbers, or stays longrope. */
static int shape_for_dir(struct stave_shape *sh, const struct stave_source *s, struct stave_err *err)
{
	const struct shape_factors *f = &s->factors;
	*sh = s->shape;
	if (f->n && f->near == f->far && !rope_from_factors(sh, f->near))
		return stave_err_set(err, STAVE_ECONFIG, "%s: rope_freqs.weight is no Llama-3 scaling; config.json has no word for it", s->path);
	return 0;
}

int stave_source_to_dir(const struct stave_source *s, const char *dir, enum stave_qtype type, int eos, int bos, struct stave_convert_result *r,
                        struct stave_err *err)
{
	static const char *const torch[] = {"float32", "float16", "bfloat16"};
	char path[STAVE_PATH];
	struct convert_item *items = NULL;
	struct stave_shape sh;
	int n = 0;
	double start = stave_now_s();
	enum stave_qtype main = type == STAVE_QTYPE_COUNT ? stave_source_main_type(s) : type, *to = NULL;
	int rc = shape_for_dir(&sh, s, err);
	if (rc || (rc = convert_items(&items, &n, s, role_roots(s->shape.family)[0], err)))
		return rc;
	to = calloc((size_t)n + 1, sizeof *to);
	if (!to)
		rc = stave_err_set(err, STAVE_ENOMEM, "no memory for %d tensors", n);
	for (int i = 0; !rc && i < n; i++)
		rc = type_of(&to[i], &items[i], type, main, err);
	r->from = stave_source_main_type(s);
	if (!rc && !(rc = stave_mkdirs(dir, err)) && !(rc = stave_path(path, dir, "model.safetensors", err)) && !(rc = write_tensors(path, items, to, n, r, err)) &&
	    !(rc = save_pooling(s, dir, err)))
		rc = shape_to_json(&sh, sh.rope_factor > 0 ? NULL : &s->factors, dir, eos, bos, torch[dtype_of(main) == STAVE_F32 ? 0 : dtype_of(main) == STAVE_F16 ? 1 : 2], err);
	r->seconds = stave_now_s() - start;
	free(to);
	free(items);
	return rc;
}
