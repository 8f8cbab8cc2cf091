/* GGUF v3, written. Keys are collected in memory; the list of tensors fixes every offset and writes the header; the bytes
 * follow in that order. The file lies under a temporary name until it is complete and synced. A mistake in a key (twice, a
 * bad alignment) is remembered and reported by stave_gguf_tensors, so that a caller puts keys without asking each time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/gguf_file.h"

struct stave_gguf_writer {
	int fd;
	char path[STAVE_PATH], tmp[STAVE_PATH + 8];
	struct stave_buf keys;
	char **names;          /* of the keys put so far */
	size_t n_keys, names_cap;
	uint32_t alignment;
	struct stave_err wrong; /* the first mistake */
	size_t *bytes;         /* of each tensor */
	int n, current;
	size_t written;        /* of the current tensor */
};

int stave_gguf_create(struct stave_gguf_writer **out, const char *path, struct stave_err *err)
{
	struct stave_gguf_writer *w = calloc(1, sizeof *w);
	if (!w)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to write %s", path);
	w->alignment = GGUF_ALIGNMENT;
	int rc = stave_tmp_open(&w->fd, w->tmp, path, err);
	if (rc) {
		free(w);
		return rc;
	}
	snprintf(w->path, sizeof w->path, "%s", path);
	*out = w;
	return 0;
}

/* ---- keys ---- */

static void put_u32(struct stave_gguf_writer *w, uint32_t v) { stave_buf_put(&w->keys, &v, 4); }
static void put_u64(struct stave_gguf_writer *w, uint64_t v) { stave_buf_put(&w->keys, &v, 8); }
static void put_text(struct stave_gguf_writer *w, const char *s, size_t n)
{
	put_u64(w, n);
	stave_buf_put(&w->keys, s, n);
}

static void put_key(struct stave_gguf_writer *w, const char *key, enum stave_gguf_type type)
{
	for (size_t i = 0; i < w->n_keys; i++)
		if (!strcmp(w->names[i], key) && !w->wrong.code)
			stave_err_set(&w->wrong, STAVE_EFAIL, "%s: key %s is put twice", w->path, key);
	if (w->n_keys == w->names_cap) {
		w->names_cap = w->names_cap ? 2 * w->names_cap : 64;
		w->names = realloc(w->names, w->names_cap * sizeof *w->names);
	}
	char *copy = strdup(key);
	if (!w->names || !copy)
		abort(); /* as stave_buf does: keys are few and small */
	w->names[w->n_keys++] = copy;
	put_text(w, key, strlen(key));
	put_u32(w, type);
}

static void put_array(struct stave_gguf_writer *w, const char *key, enum stave_gguf_type element, int64_t n)
{
	put_key(w, key, STAVE_GGUF_ARRAY);
	put_u32(w, element);
	put_u64(w, (uint64_t)n);
}

void stave_gguf_put_u32(struct stave_gguf_writer *w, const char *key, uint32_t v)
{
	put_key(w, key, STAVE_GGUF_U32);
	put_u32(w, v);
	if (strcmp(key, "general.alignment"))
		return;
	w->alignment = v;
	if (!gguf_alignment_ok(v)) {
		w->alignment = GGUF_ALIGNMENT;
		if (!w->wrong.code)
			stave_err_set(&w->wrong, STAVE_EFAIL, "%s: an alignment of %u is no power of two", w->path, v);
	}
}

void stave_gguf_put_f32(struct stave_gguf_writer *w, const char *key, float v)
{
	put_key(w, key, STAVE_GGUF_F32);
	stave_buf_put(&w->keys, &v, sizeof v);
}

void stave_gguf_put_bool(struct stave_gguf_writer *w, const char *key, bool v)
{
	char byte = v;
	put_key(w, key, STAVE_GGUF_BOOL);
	stave_buf_put(&w->keys, &byte, 1);
}

void stave_gguf_put_str(struct stave_gguf_writer *w, const char *key, const char *v, size_t n)
{
	put_key(w, key, STAVE_GGUF_STR);
	put_text(w, v, n);
}

void stave_gguf_put_u8s(struct stave_gguf_writer *w, const char *key, const uint8_t *v, int64_t n)
{
	put_array(w, key, STAVE_GGUF_U8, n);
	stave_buf_put(&w->keys, v, (size_t)n);
}

void stave_gguf_put_i32s(struct stave_gguf_writer *w, const char *key, const int32_t *v, int64_t n)
{
	put_array(w, key, STAVE_GGUF_I32, n);
	stave_buf_put(&w->keys, v, (size_t)n * sizeof *v);
}

void stave_gguf_put_f32s(struct stave_gguf_writer *w, const char *key, const float *v, int64_t n)
{
	put_array(w, key, STAVE_GGUF_F32, n);
	stave_buf_put(&w->keys, v, (size_t)n * sizeof *v);
}

void stave_gguf_put_strs(struct stave_gguf_writer *w, const char *key, const char *const *v, const size_t *lengths, int64_t n)
{
	put_array(w, key, STAVE_GGUF_STR, n);
	for (int64_t i = 0; i < n; i++)
		put_text(w, v[i], lengths[i]);
}

void stave_gguf_put_copy(struct stave_gguf_writer *w, const struct stave_gguf *from, const char *key)
{
	const struct gguf_key *k = gguf_key_find(from, key);
	if (!k) {
		if (!w->wrong.code)
			stave_err_set(&w->wrong, STAVE_EFAIL, "%s: there is no key %s to copy", w->path, key);
		return;
	}
	if (!strcmp(key, "general.alignment")) { /* it also rules this file's offsets */
		uint32_t v;
		memcpy(&v, k->value, sizeof v);
		stave_gguf_put_u32(w, key, v);
		return;
	}
	put_key(w, key, k->type);
	stave_buf_put(&w->keys, k->value, (size_t)(k->end - k->value));
}

/* ---- tensors ---- */

static int put_bytes(struct stave_gguf_writer *w, const void *p, size_t n, struct stave_err *err)
{
	const char *at = p;
	while (n) {
		ssize_t k = write(w->fd, at, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return stave_err_errno(err, "writing %s", w->path);
		at += k;
		n -= (size_t)k;
	}
	return 0;
}

static int put_padding(struct stave_gguf_writer *w, size_t after, struct stave_err *err)
{
	static const char zeros[4096];
	int rc = 0;
	size_t n = (w->alignment - after % w->alignment) % w->alignment;
	for (; !rc && n; n -= n < sizeof zeros ? n : sizeof zeros)
		rc = put_bytes(w, zeros, n < sizeof zeros ? n : sizeof zeros, err);
	return rc;
}

/* Appends one description; *at is advanced over the tensor and its padding. */
static int describe(struct stave_gguf_writer *w, struct stave_buf *head, const struct stave_gguf_tensor *t, size_t *bytes, uint64_t *at, struct stave_err *err)
{
	uint64_t len = t->name ? strlen(t->name) : 0, offset = *at;
	if (len < 1 || len > GGUF_NAME_MAX)
		return stave_err_set(err, STAVE_ECONFIG, "%s: a tensor's name may have %d characters; '%s' does not fit GGUF", w->path, GGUF_NAME_MAX, t->name ? t->name : "");
	uint32_t n_dims = (uint32_t)t->n_dims, id = (uint32_t)stave_qtype_info(t->type).id;
	int64_t rows = 1;
	stave_buf_put(head, &len, 8);
	stave_buf_put(head, t->name, len);
	stave_buf_put(head, &n_dims, 4);
	for (int d = 0; d < t->n_dims; d++) {
		stave_buf_put(head, &t->ne[d], 8);
		rows *= d ? t->ne[d] : 1;
	}
	stave_buf_put(head, &id, 4);
	stave_buf_put(head, &offset, 8);
	if (t->n_dims < 1 || t->n_dims > GGUF_DIMS || t->ne[0] < 1 || rows < 1 || t->ne[0] % stave_qtype_info(t->type).per)
		return stave_err_set(err, STAVE_EFAIL, "%s: tensor %s: rows of %lld cannot be stored as %s", w->path, t->name, (long long)t->ne[0], stave_qtype_info(t->type).name);
	*bytes = stave_qtype_row_bytes(t->type, t->ne[0]) * (size_t)rows;
	*at = (*at + *bytes + w->alignment - 1) / w->alignment * w->alignment;
	return 0;
}

int stave_gguf_tensors(struct stave_gguf_writer *w, const struct stave_gguf_tensor *t, int n, struct stave_err *err)
{
	if (w->wrong.code)
		return stave_err_set(err, w->wrong.code, "%s", w->wrong.msg);
	w->bytes = calloc((size_t)n + 1, sizeof *w->bytes);
	if (!w->bytes)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to write %s", w->path);
	struct stave_buf head = {0};
	uint32_t version = GGUF_VERSION;
	uint64_t counts[2] = {(uint64_t)n, w->n_keys}, at = 0;
	int rc = 0;
	stave_buf_put(&head, GGUF_MAGIC, 4);
	stave_buf_put(&head, &version, 4);
	stave_buf_put(&head, counts, sizeof counts);
	stave_buf_put(&head, w->keys.p, w->keys.len);
	for (int i = 0; !rc && i < n; i++)
		rc = describe(w, &head, &t[i], &w->bytes[i], &at, err);
	w->n = n;
	if (!rc && !(rc = put_bytes(w, head.p, head.len, err)))
		rc = put_padding(w, head.len, err);
	stave_buf_free(&head);
	return rc;
}

int stave_gguf_write(struct stave_gguf_writer *w, const void *p, size_t n, struct stave_err *err)
{
	if (w->current >= w->n || n > w->bytes[w->current] - w->written)
		return stave_err_set(err, STAVE_EFAIL, "%s: more bytes than tensor %d of %d has", w->path, w->current, w->n);
	int rc = put_bytes(w, p, n, err);
	if (rc)
		return rc;
	w->written += n;
	if (w->written < w->bytes[w->current])
		return 0;
	w->written = 0;
	return put_padding(w, w->bytes[w->current++], err);
}

int stave_gguf_commit(struct stave_gguf_writer *w, struct stave_err *err)
{
	int rc = 0;
	if (!w->bytes || w->current < w->n)
		rc = stave_err_set(err, STAVE_EFAIL, "%s: %d of %d tensors written", w->path, w->current, w->n);
	else if (fsync(w->fd))
		rc = stave_err_errno(err, "syncing %s", w->path);
	else if (rename(w->tmp, w->path))
		rc = stave_err_errno(err, "finishing %s", w->path);
	if (!rc) {
		close(w->fd);
		w->fd = -1;
	}
	stave_gguf_abort(w);
	return rc;
}

void stave_gguf_abort(struct stave_gguf_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0) {
		close(w->fd);
		unlink(w->tmp);
	}
	for (size_t i = 0; i < w->n_keys; i++)
		free(w->names[i]);
	free(w->names);
	free(w->bytes);
	stave_buf_free(&w->keys);
	free(w);
}
