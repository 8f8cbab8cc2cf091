/* safetensors: u64 little-endian header length, that many bytes of JSON, then the data. The JSON maps a name to dtype,
 * shape and data_offsets, and "__metadata__" to a map of strings. What must hold before a byte of data is used: the
 * header fits the file and HEADER_MAX; shapes are sane and their product times the element size equals the span; spans
 * laid end to end cover the data exactly. JSON duplicates are refused by the parser. */
#include "base/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define HEADER_MAX ((uint64_t)100 << 20)
#define DIM_MAX ((int64_t)1 << 48)


static int dtype_of(const char *name)
{
	for (int t = 0; t < STAVE_DTYPE_COUNT; t++)
		if (!strcmp(stave_dtype_name((enum stave_dtype)t), name))
			return t;
	return -1;
}

/* Elements of a shape, -1 when it overflows what a file could hold. */
static int64_t product(const int64_t *shape, int n)
{
	int64_t p = 1;
	for (int i = 0; i < n; i++) {
		if (shape[i] < 0 || shape[i] > DIM_MAX || (shape[i] && p > DIM_MAX / shape[i]))
			return -1;
		p *= shape[i];
	}
	return p;
}

int64_t stave_st_elements(const struct stave_st_tensor *t) { return product(t->shape, t->n_dims); }

static int parse_tensor(struct stave_st_tensor *t, const char *name, const json_t *j, size_t data_size, const char *path, struct stave_err *err)
{
	const json_t *shape = json_object_get(j, "shape"), *span = json_object_get(j, "data_offsets");
	const char *dtype = stave_json_str(j, "dtype", "");
	*t = (struct stave_st_tensor){.name = name, .n_dims = (int)json_array_size(shape)};
	int type = dtype_of(dtype);
	if (type < 0)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s has element type '%.40s', which is not supported", path, name, dtype);
	if (!json_is_array(shape) || json_array_size(shape) > STAVE_DIMS)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s has no valid shape", path, name);
	t->dtype = (enum stave_dtype)type;
	for (int i = 0; i < t->n_dims; i++) {
		const json_t *d = json_array_get(shape, (size_t)i);
		t->shape[i] = json_is_integer(d) ? json_integer_value(d) : -1;
	}
	int64_t n = product(t->shape, t->n_dims);
	if (n < 0)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s has an impossible shape", path, name);
	const json_t *b = json_array_get(span, 0), *e = json_array_get(span, 1);
	if (json_array_size(span) != 2 || !json_is_integer(b) || !json_is_integer(e))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s has no valid data_offsets", path, name);
	int64_t begin = json_integer_value(b), end = json_integer_value(e);
	if (begin < 0 || end < begin || (uint64_t)end > data_size)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s lies at %lld..%lld, outside the %zu bytes of data (file cut short?)",
		                     path, name, (long long)begin, (long long)end, data_size);
	t->begin = (size_t)begin;
	t->end = (size_t)end;
	if ((uint64_t)n * stave_dtype_bytes(t->dtype) != t->end - t->begin)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s: shape and type make %lld bytes but it spans %zu", path, name,
		                     (long long)(n * (int64_t)stave_dtype_bytes(t->dtype)), t->end - t->begin);
	return 0;
}

static int parse_meta(struct stave_st *st, const json_t *meta, const char *path, struct stave_err *err)
{
	const char *key;
	json_t *v;
	if (!json_is_object(meta))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: __metadata__ is not a map", path);
	st->meta = calloc(2 * json_object_size(meta) + 1, sizeof *st->meta);
	if (!st->meta)
		return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for metadata", path);
	json_object_foreach((json_t *)(uintptr_t)meta, key, v) {
		if (!json_is_string(v))
			return stave_err_set(err, STAVE_ECORRUPT, "%s: metadata '%.100s' is not a string", path, key);
		st->meta[2 * st->n_meta] = (char *)(uintptr_t)key;
		st->meta[2 * st->n_meta + 1] = (char *)(uintptr_t)json_string_value(v);
		st->n_meta++;
	}
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct stave_st_tensor *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int parse_header(struct stave_st *st, const json_t *root, size_t header, const char *path, struct stave_err *err)
{
	const char *data = st->map.p + 8 + header, *key;
	size_t data_size = st->map.size - 8 - header, at = 0;
	json_t *v;
	int rc = 0;
	if (!json_is_object(root))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: the header is not a map", path);
	st->t = calloc(json_object_size(root) + 1, sizeof *st->t);
	if (!st->t)
		return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for %zu tensors", path, json_object_size(root));
	json_object_foreach((json_t *)(uintptr_t)root, key, v) {
		if (!strcmp(key, "__metadata__"))
			rc = parse_meta(st, v, path, err);
		else
			rc = parse_tensor(&st->t[st->n++], key, v, data_size, path, err);
		if (rc)
			return rc;
	}
	qsort(st->t, (size_t)st->n, sizeof *st->t, by_begin);
	for (int i = 0; i < st->n; i++) {
		if (st->t[i].begin != at)
			return stave_err_set(err, STAVE_ECORRUPT, "%s: tensor %.200s starts at %zu, expected %zu: tensors overlap or leave a hole",
			                     path, st->t[i].name, st->t[i].begin, at);
		at = st->t[i].end;
		st->t[i].data = data + st->t[i].begin;
	}
	if (at != data_size)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: tensors fill %zu bytes but the file holds %zu", path, at, data_size);
	return 0;
}

int stave_st_open(struct stave_st *st, const char *path, struct stave_err *err)
{
	*st = (struct stave_st){0};
	int rc = stave_map_open(&st->map, path, err);
	if (rc)
		return rc;
	uint64_t header = 0;
	if (st->map.size >= 8)
		memcpy(&header, st->map.p, 8);
	json_t *root = NULL;
	if (st->map.size < 10 || header > HEADER_MAX || header > st->map.size - 8 || header < 2)
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s is no safetensors file: %zu bytes, header length %llu", path, st->map.size, (unsigned long long)header);
	else
		rc = stave_json_parse(&root, st->map.p + 8, header, path, err);
	if (!rc) {
		st->own = root;
		rc = parse_header(st, root, header, path, err);
	}
	if (rc)
		stave_st_close(st);
	return rc;
}

void stave_st_close(struct stave_st *st)
{
	json_decref(st->own);
	free(st->t);
	free(st->meta);
	stave_map_close(&st->map);
	*st = (struct stave_st){0};
}

const struct stave_st_tensor *stave_st_find(const struct stave_st *st, const char *name)
{
	for (int i = 0; i < st->n; i++)
		if (!strcmp(st->t[i].name, name))
			return &st->t[i];
	return NULL;
}

const char *stave_st_meta(const struct stave_st *st, const char *key)
{
	for (int i = 0; i < st->n_meta; i++)
		if (!strcmp(st->meta[2 * i], key))
			return st->meta[2 * i + 1];
	return NULL;
}

/* ---- writing ---- */

static json_t *header_json(struct stave_st_tensor *t, int n, const char *const *meta, int n_meta, uint64_t *bytes)
{
	json_t *root = json_object();
	if (n_meta) {
		json_t *m = json_object();
		for (int i = 0; i < n_meta; i++)
			json_object_set_new(m, meta[2 * i], json_string(meta[2 * i + 1]));
		json_object_set_new(root, "__metadata__", m);
	}
	uint64_t at = 0;
	for (int i = 0; i < n; i++) {
		json_t *shape = json_array();
		for (int d = 0; d < t[i].n_dims; d++)
			json_array_append_new(shape, json_integer(t[i].shape[d]));
		t[i].begin = at;
		at += (uint64_t)stave_st_elements(&t[i]) * stave_dtype_bytes(t[i].dtype);
		t[i].end = at;
		json_object_set_new(root, t[i].name, json_pack("{s:s, s:o, s:[I,I]}", "dtype", stave_dtype_name(t[i].dtype), "shape", shape,
		                                               "data_offsets", (json_int_t)t[i].begin, (json_int_t)t[i].end));
	}
	*bytes = at;
	return root;
}

int stave_st_create(struct stave_st_writer *w, const char *path, struct stave_st_tensor *t, int n, const char *const *meta_pairs, int n_meta, struct stave_err *err)
{
	*w = (struct stave_st_writer){.fd = -1};
	int rc = stave_tmp_open(&w->fd, w->tmp, path, err);
	if (rc)
		return rc;
	snprintf(w->path, sizeof w->path, "%s", path);
	json_t *root = header_json(t, n, meta_pairs, n_meta, &w->expected);
	char *text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	if (!text) {
		stave_st_abort(w);
		return stave_err_set(err, STAVE_EFAIL, "%s: a tensor name or metadata is not UTF-8", path);
	}
	uint64_t len = strlen(text), padded = (len + 7) / 8 * 8;
	struct stave_buf head = {0};
	stave_buf_put(&head, &padded, 8);
	stave_buf_put(&head, text, len);
	stave_buf_put(&head, "        ", padded - len);
	free(text);
	w->expected += head.len;
	rc = stave_st_write(w, head.p, head.len, err);
	stave_buf_free(&head);
	return rc;
}

int stave_st_write(struct stave_st_writer *w, const void *p, size_t n, struct stave_err *err)
{
	const char *at = p;
	while (n) {
		ssize_t k = write(w->fd, at, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0) {
			int rc = stave_err_errno(err, "writing %s after %llu of %llu bytes", w->path, (unsigned long long)w->written, (unsigned long long)w->expected);
			stave_st_abort(w);
			return rc;
		}
		at += k;
		n -= (size_t)k;
		w->written += (uint64_t)k;
	}
	return 0;
}

int stave_st_commit(struct stave_st_writer *w, struct stave_err *err)
{
	int rc = 0;
	if (w->written != w->expected)
		rc = stave_err_set(err, STAVE_EFAIL, "%s: %llu bytes written, %llu announced", w->path, (unsigned long long)w->written, (unsigned long long)w->expected);
	else if (fsync(w->fd))
		rc = stave_err_errno(err, "syncing %s", w->path);
	if (rc) {
		stave_st_abort(w);
		return rc;
	}
	int fd = w->fd;
	w->fd = -1;
	if (close(fd) || rename(w->tmp, w->path)) {
		rc = stave_err_errno(err, "finishing %s", w->path);
		unlink(w->tmp);
	}
	return rc;
}

void stave_st_abort(struct stave_st_writer *w)
{
	if (w->fd < 0)
		return;
	close(w->fd);
	unlink(w->tmp);
	w->fd = -1;
}
