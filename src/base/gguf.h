/* GGUF v2 and v3: the file most open models are shared in. Lives in base/ because text/ (tokenizer keys) and model/ (shapes,
 * tensors) both read it. Reading maps the file (all files of a split: the path of any part, or of the first) and validates
 * everything before anything is handed out: counts against the bytes that are left, string and array lengths, duplicate keys and
 * names, types, dimension products, block multiples, alignment, every tensor within its file. Nothing in a file is trusted
 * to size an allocation that the file's own length does not cover. Strings are not NUL-terminated in the file; what is handed out is. */
#ifndef STAVE_BASE_GGUF_H
#define STAVE_BASE_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/fs.h"
#include "base/qtype.h"

enum stave_gguf_type {
	STAVE_GGUF_U8, STAVE_GGUF_I8, STAVE_GGUF_U16, STAVE_GGUF_I16, STAVE_GGUF_U32, STAVE_GGUF_I32, STAVE_GGUF_F32, STAVE_GGUF_BOOL,
	STAVE_GGUF_STR, STAVE_GGUF_ARRAY, STAVE_GGUF_U64, STAVE_GGUF_I64, STAVE_GGUF_F64
};
struct stave_gguf_tensor {
	const char *name;
	enum stave_qtype type;
	int n_dims;
	int64_t ne[4];      /* ne[0] fastest: a matrix is ne[1] rows of ne[0]; unused ones are 1 */
	const void *data;   /* into the mapping; aligned to the file's alignment, which may be 1 */
	size_t bytes;
};
struct stave_gguf {
	struct stave_gguf_tensor *t; /* in file order, parts in order */
	int n;
	int n_parts;
	void *own;
};
bool stave_is_gguf(const char *path); /* a regular file that begins with the magic */
int stave_gguf_open(struct stave_gguf **out, const char *path, struct stave_err *err);
void stave_gguf_close(struct stave_gguf *g);
const struct stave_gguf_tensor *stave_gguf_find(const struct stave_gguf *g, const char *name); /* NULL: absent */

/* Scalars, any integer (or bool) type as int64, any float or integer type as double. 1: present, 0: absent, negative: STAVE_ECORRUPT,
 * present with another type or beyond int64. Outputs are set only when present. */
int stave_gguf_int(const struct stave_gguf *g, const char *key, int64_t *v, struct stave_err *err);
int stave_gguf_real(const struct stave_gguf *g, const char *key, double *v, struct stave_err *err);
int stave_gguf_bool(const struct stave_gguf *g, const char *key, bool *v, struct stave_err *err);
const char *stave_gguf_str(const struct stave_gguf *g, const char *key); /* NULL: absent or no string */
size_t stave_gguf_str_n(const struct stave_gguf *g, const char *key);    /* its length: it may hold NUL bytes */
/* An array: element type and count; false when absent or no array. Elements by the functions below, i < n. */
bool stave_gguf_array(const struct stave_gguf *g, const char *key, enum stave_gguf_type *type, int64_t *n);
int64_t stave_gguf_array_int(const struct stave_gguf *g, const char *key, int64_t i);   /* integers and bools, else 0 */
double stave_gguf_array_real(const struct stave_gguf *g, const char *key, int64_t i);   /* numbers, else 0 */
const char *stave_gguf_array_str(const struct stave_gguf *g, const char *key, int64_t i, size_t *n); /* strings, else "" */
/* Key i of n_keys, in file order: for copying metadata. */
int stave_gguf_keys(const struct stave_gguf *g);
const char *stave_gguf_key(const struct stave_gguf *g, int i, enum stave_gguf_type *type);

/* ---- writing: metadata in any order, then the list of tensors, then their bytes in that order; whole or absent as in safetensors.h ---- */
struct stave_gguf_writer;
int stave_gguf_create(struct stave_gguf_writer **out, const char *path, struct stave_err *err);
void stave_gguf_put_u32(struct stave_gguf_writer *w, const char *key, uint32_t v);
void stave_gguf_put_f32(struct stave_gguf_writer *w, const char *key, float v);
void stave_gguf_put_bool(struct stave_gguf_writer *w, const char *key, bool v);
void stave_gguf_put_str(struct stave_gguf_writer *w, const char *key, const char *v, size_t n);
void stave_gguf_put_u8s(struct stave_gguf_writer *w, const char *key, const uint8_t *v, int64_t n);
void stave_gguf_put_i32s(struct stave_gguf_writer *w, const char *key, const int32_t *v, int64_t n);
void stave_gguf_put_f32s(struct stave_gguf_writer *w, const char *key, const float *v, int64_t n);
void stave_gguf_put_strs(struct stave_gguf_writer *w, const char *key, const char *const *v, const size_t *lengths, int64_t n);
void stave_gguf_put_copy(struct stave_gguf_writer *w, const struct stave_gguf *from, const char *key); /* any value of another file, unchanged */
/* Fill name, type, n_dims, ne; the header is written here. */
int stave_gguf_tensors(struct stave_gguf_writer *w, const struct stave_gguf_tensor *t, int n, struct stave_err *err);
int stave_gguf_write(struct stave_gguf_writer *w, const void *p, size_t n, struct stave_err *err); /* bytes of the current tensor, in pieces; padding is added between tensors */
int stave_gguf_commit(struct stave_gguf_writer *w, struct stave_err *err); /* frees w in any case */
void stave_gguf_abort(struct stave_gguf_writer *w);

#endif
