/* Any source as one GGUF file, and the list of tensors that both directions write. The list walks the one table of names: a row of it
 * is a tensor of the new file, its parts come from the source by role, whatever the old file had fused, stacked,
 * transposed or interleaved. Rows pass through floats, in which every plain type comes back to the same bits. */
#include "model/convert_items.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/quant.h"

/* ---- the tensors of a new file ---- */

/* The type of the parts; F32 when they differ, which holds them all. */
static enum stave_qtype stored_as(const struct convert_item *it)
{
	const struct stave_shape *s = &it->s->shape;
	bool stacked = it->expert < 0 && role_kind(it->r->role) == ROLE_EXPERT;
	enum stave_qtype type = STAVE_QTYPE_COUNT;
	for (int e = stacked ? 0 : it->expert < 0 ? 0 : it->expert; e < (stacked ? s->experts : it->expert < 0 ? 1 : it->expert + 1); e++)
		for (int p = 0; p < it->r->parts; p++) {
			struct stave_weight w;
			if (stave_source_weight(it->s, (enum stave_role)(it->r->role + p), it->layer, e, &w) != 1)
				continue;
			if (type != STAVE_QTYPE_COUNT && type != w.type)
				return STAVE_Q_F32;
			type = w.type;
		}
	return type;
}

static void fill(struct convert_item *it, const char *root)
{
	const struct stave_shape *s = &it->s->shape;
	int rows, cols = 0;
	it->vector = it->bias || role_kind(it->r->role) == ROLE_NORM;
	for (int p = 0; p < it->r->parts; p++) {
		role_shape(s, (enum stave_role)(it->r->role + p), &rows, &cols);
		it->rows += rows;
	}
	if (it->bias && role_kind(it->r->role) != ROLE_NORM)
		cols = (int)it->rows;
	it->cols = cols;
	it->rows = it->vector ? 1 : it->rows * (it->expert < 0 && role_kind(it->r->role) == ROLE_EXPERT ? s->experts : 1);
	it->from = it->vector ? STAVE_Q_F32 : stored_as(it);
	role_name(it->name, it->r, root, it->layer, it->expert);
	strcat(it->name, it->bias ? ".bias" : ".weight");
}

int convert_items(struct convert_item **items, int *n, const struct stave_source *s, const char *root, struct stave_err *err)
{
	const struct stave_shape *sh = &s->shape;
	int each = root && sh->experts ? sh->experts : 1, count = 0;
	size_t most = 32 + (size_t)sh->L * (40 + 3 * (size_t)each);
	struct convert_item *list = calloc(most, sizeof *list);
	if (!list)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the tensors of %d layers", sh->L);
	for (int place = -1; place <= sh->L; place++) /* what comes before the layers, they, what comes after */
		for (int i = 0; i < role_names_n; i++) {
			const struct role_name *r = &role_names[i];
			bool in_layer = role_in_layer(r->role), after = r->role == STAVE_ROLE_NORM_F || r->role == STAVE_ROLE_HEAD;
			bool here = in_layer ? place >= 0 && place < sh->L : place == (after ? sh->L : -1);
			int layer = in_layer ? place : -1;
			if (!here || !(r->families >> sh->family & 1) || !role_present(sh, r->role))
				continue;
			bool apart = root && role_kind(r->role) == ROLE_EXPERT;
			for (int e = apart ? 0 : -1; e < (apart ? sh->experts : 0); e++)
				for (int bias = 0; bias <= role_biased(sh, r->role); bias++) {
					list[count] = (struct convert_item){.s = s, .r = r, .bias = bias, .layer = layer, .expert = e};
					fill(&list[count++], root);
				}
		}
	*items = list;
	*n = count;
	return 0;
}

/* A bias of fused parts is their biases, one after the other. */
static void vector(const struct convert_item *it, float *out)
{
	for (int p = 0; p < it->r->parts; p++) {
		int rows, cols;
		enum stave_role role = (enum stave_role)(it->r->role + p);
		role_shape(&it->s->shape, role, &rows, &cols);
		int n = it->bias && role_kind(role) != ROLE_NORM ? rows : cols;
		stave_source_vector(it->s, role, it->bias, it->layer, out, n);
		out += n;
	}
}

void convert_row(const struct convert_item *it, int64_t r, float *out)
{
	struct stave_weight w;
	enum stave_role role = it->r->role;
	int rows, cols, expert = it->expert < 0 ? 0 : it->expert;
	if (it->vector) {
		vector(it, out);
		return;
	}
	role_shape(&it->s->shape, role, &rows, &cols);
	if (role_kind(role) == ROLE_EXPERT && it->expert < 0) {
		expert = (int)(r / rows);
		r %= rows;
	}
	while (r >= rows) {
		r -= rows;
		role = (enum stave_role)(role + 1);
		role_shape(&it->s->shape, role, &rows, &cols);
	}
	stave_source_weight(it->s, role, it->layer, expert, &w);
	void *gathered = w.transposed ? malloc((size_t)cols * sizeof *out) : NULL;
	if (w.transposed && !gathered)
		abort(); /* one row: bounded by the shape */
	stave_dequantize(w.type, out, stave_weight_row(&w, (int)r, gathered), cols);
	free(gathered);
}

void convert_count(struct stave_convert_result *r, const struct convert_item *it, enum stave_qtype to)
{
	int64_t n = it->rows * it->cols;
	r->tensors++;
	r->elements += n;
	r->bytes_in += stave_qtype_row_bytes(it->from, it->cols) * (size_t)it->rows;
	r->bytes_out += stave_qtype_row_bytes(to, it->cols) * (size_t)it->rows;
}

/* ---- to GGUF ---- */

/* Rows as GGUF orders them. */
static void gguf_row(void *ctx, int64_t r, float *out)
{
	const struct convert_item *it = ctx;
	int heads = role_permuted(&it->s->shape, it->r->role);
	if (heads && !it->vector)
		r = source_part((int)it->rows, heads, (int)r);
	convert_row(it, r, out);
	if (!heads || !it->bias)
		return;
	float *copy = malloc((size_t)it->cols * sizeof *copy);
	if (!copy)
		abort(); /* a vector of a few thousand */
	memcpy(copy, out, (size_t)it->cols * sizeof *copy);
	for (int i = 0; i < it->cols; i++)
		out[i] = copy[source_part((int)it->cols, heads, i)];
	free(copy);
}

static enum stave_qtype chosen(const struct convert_item *it, const struct stave_convert *c)
{
	enum stave_qtype to = STAVE_QTYPE_COUNT;
	int rows = (int)it->rows, cols;
	if (convert_small(it))
		return STAVE_Q_F32;
	if (role_kind(it->r->role) == ROLE_EXPERT)
		role_shape(&it->s->shape, it->r->role, &rows, &cols);
	if (c->choose)
		to = c->choose(c->ctx, it->r->role, it->layer, it->s->shape.L, rows, (int)it->cols);
	return to == STAVE_QTYPE_COUNT || it->cols % stave_qtype_info(to).per ? it->from : to;
}

/* The lists of rotary divisors, which GGUF keeps as tensors. */
struct lists {
	const char *name[2];
	float *value[2];
	int n, length;
	float llama3[512];
};

static void rope_lists(struct lists *l, const struct stave_source *s)
{
	const struct shape_factors *f = &s->factors;
	*l = (struct lists){.length = (s->shape.rope_dims ? s->shape.rope_dims : s->shape.D) / 2};
	if (s->shape.rope_factor > 0 && !s->shape.rope_linear) {
		rope_to_factors(&s->shape, l->llama3);
		l->value[0] = l->llama3;
	} else if (f->n) {
		l->value[0] = f->near;
		l->value[1] = f->far == f->near ? NULL : f->far;
	}
	l->n = l->value[1] ? 2 : l->value[0] ? 1 : 0;
	l->name[0] = l->n == 2 ? "rope_factors_short.weight" : "rope_freqs.weight";
	l->name[1] = "rope_factors_long.weight";
}

static int file_type(const struct stave_source *s, const struct stave_convert *c)
{
	enum stave_qtype t = stave_source_main_type(s);
	return c->file_type >= 0 ? c->file_type : t == STAVE_Q_F16 ? 1 : t == STAVE_Q_BF16 ? 32 : 0;
}

static int put_keys(struct stave_gguf_writer *w, const struct stave_source *s, const struct stave_convert *c, const struct stave_convert_keys *k, struct stave_err *err)
{
	char key[64];
	int rc = shape_to_gguf(&s->shape, &s->factors, w, err);
	if (rc)
		return rc;
	if (k->name)
		stave_gguf_put_str(w, "general.name", k->name, strlen(k->name));
	stave_gguf_put_u32(w, "general.file_type", (uint32_t)file_type(s, c));
	stave_gguf_put_u32(w, "general.quantization_version", 2);
	snprintf(key, sizeof key, "%s.pooling_type", shape_arch(s->shape.family));
	if (s->pooling)
		stave_gguf_put_u32(w, key, (uint32_t)s->pooling);
	if (s->shape.window && s->shape.family == STAVE_MISTRAL)
		stave_log(STAVE_LOG_WARN, "other readers ignore the sliding window of %d tokens in a file of architecture llama", s->shape.window);
	return k->put ? k->put(k->ctx, w, err) : 0;
}

static int put_tensors(struct stave_gguf_writer *w, struct convert_item *items, const struct stave_gguf_tensor *t, int n, const struct lists *l,
                       struct stave_convert_result *r, struct stave_err *err)
{
	int rc = 0;
	for (int i = 0; !rc && i < n; i++) {
		struct stave_convert_part unused = {0}, *part = items[i].bias ? &unused : &r->part[items[i].r->role];
		struct stave_float_rows m = {items[i].name, items[i].rows, items[i].cols, gguf_row, &items[i]};
		rc = stave_convert_rows(w, t[i].type, &m, part, r, err);
		convert_count(r, &items[i], t[i].type);
		stave_progress(i + 1 == n, "tensor %d of %d", i + 1, n);
	}
	for (int i = 0; !rc && i < l->n; i++)
		rc = stave_gguf_write(w, l->value[i], (size_t)l->length * sizeof(float), err);
	return rc;
}

int stave_source_to_gguf(const struct stave_source *s, const char *out, const struct stave_convert *c, const struct stave_convert_keys *k,
                         struct stave_convert_result *r, struct stave_err *err)
{
	struct convert_item *items = NULL;
	struct stave_gguf_writer *w = NULL;
	struct lists l;
	int n = 0;
	double start = stave_now_s();
	int rc = convert_items(&items, &n, s, NULL, err);
	if (rc)
		return rc;
	rope_lists(&l, s);
	struct stave_gguf_tensor *t = calloc((size_t)n + 2, sizeof *t);
	if (!t)
		rc = stave_err_set(err, STAVE_ENOMEM, "no memory for %d tensors", n);
	for (int i = 0; !rc && i < n; i++) {
		bool stacked = role_kind(items[i].r->role) == ROLE_EXPERT;
		t[i] = (struct stave_gguf_tensor){.name = items[i].name, .type = chosen(&items[i], c), .n_dims = items[i].vector ? 1 : stacked ? 3 : 2,
		                                  .ne = {items[i].cols, stacked ? items[i].rows / s->shape.experts : items[i].rows, stacked ? s->shape.experts : 1, 1}};
	}
	for (int i = 0; !rc && i < l.n; i++)
		t[n + i] = (struct stave_gguf_tensor){.name = l.name[i], .type = STAVE_Q_F32, .n_dims = 1, .ne = {l.length, 1, 1, 1}};
	r->from = stave_source_main_type(s);
	if (!rc && !(rc = stave_gguf_create(&w, out, err)) && !(rc = put_keys(w, s, c, k, err)) && !(rc = stave_gguf_tensors(w, t, n + l.n, err)))
		rc = put_tensors(w, items, t, n, &l, r, err);
	if (!rc)
		rc = stave_gguf_commit(w, err);
	else
		stave_gguf_abort(w);
	r->seconds = stave_now_s() - start;
	free(t);
	free(items);
	return rc;
}
