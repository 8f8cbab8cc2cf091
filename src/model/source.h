/* The parts of an open model that source.c shares with source_gguf.c and source_dir.c; private to model/. A file of either format
 * becomes a list of tensors; everything after that is one code. */
#ifndef STAVE_MODEL_SOURCE_H
#define STAVE_MODEL_SOURCE_H

#include "base/safetensors.h"
#include "model/roles.h"
#include "model/shape.h"

struct source_tensor {
	const char *name;      /* in the file */
	enum stave_qtype type; /* STAVE_QTYPE_COUNT: one that holds no weights (I64 …): only to be ignored */
	int n_dims;
	int64_t ne[4];         /* innermost first, unused ones 1 */
	const char *data;
	size_t bytes;
	bool used;
};
struct stave_source {
	struct stave_shape shape;
	struct shape_factors factors;
	struct stave_gguf *gguf;  /* or */
	struct stave_st *st;      /* (n_st) */
	int n_st;
	const char *root;         /* of the names in a directory; NULL: GGUF */
	struct source_tensor *t;  /* (n) by name */
	int n;
	enum stave_pooling pooling;
	char path[STAVE_PATH];
};
/* Each fills shape, factors, root and t (in any order); what is taken is freed by stave_source_close, also on error. */
int source_open_gguf(struct stave_source *s, struct stave_err *err);
int source_open_dir(struct stave_source *s, struct stave_err *err);
/* Row r of the file's rows of an interleaved matrix of that many heads, and back: halves interleaved, halves apart. */
int source_interleave(int rows, int heads, int r);
int source_part(int rows, int heads, int r);
/* Tensors of a format that may be left alone: nothing is computed from them, or it was computed already. */
bool source_harmless(const struct stave_source *s, const char *name);
const struct source_tensor *source_find(const struct stave_source *s, const char *name); /* by binary search; NULL: absent */

#endif
