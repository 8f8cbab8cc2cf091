/* What gguf.c keeps of open files and gguf_write.c copies from: private to base/. */
#ifndef STAVE_BASE_GGUF_FILE_H
#define STAVE_BASE_GGUF_FILE_H

#include "base/gguf.h"

#define GGUF_MAGIC "GGUF"
#define GGUF_VERSION 3u
#define GGUF_ALIGNMENT 32u
#define GGUF_NAME_MAX 63 /* of a tensor: what ggml holds */
#define GGUF_DIMS 4

struct gguf_key {
	const char *name;
	enum stave_gguf_type type, element; /* element: of an ARRAY */
	const char *value, *end;            /* in the mapping, after the type: scalar bytes, string with its length, array with its header */
	int64_t n;                          /* elements of an ARRAY, bytes of a STR */
	char *text;                         /* STR: the copy with its NUL; ARRAY of STR: all of them, each with its NUL */
	size_t *at;                         /* ARRAY of STR: (n + 1) where each begins in text */
};
const struct gguf_key *gguf_key_find(const struct stave_gguf *g, const char *key); /* NULL: absent */
size_t gguf_type_bytes(enum stave_gguf_type t);                                    /* 0 for STR and ARRAY */
static inline bool gguf_alignment_ok(uint64_t a) { return a && !(a & (a - 1)) && a <= (uint64_t)1 << 30; }

#endif
