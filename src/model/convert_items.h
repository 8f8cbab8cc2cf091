/* What convert.c and convert_dir.c share: the tensors of a new file, in order, and their values from the old one; private to model/. */
#ifndef STAVE_MODEL_CONVERT_ITEMS_H
#define STAVE_MODEL_CONVERT_ITEMS_H

#include "model/convert.h"
#include "model/source.h"

struct convert_item {
	const struct stave_source *s;
	const struct role_name *r;
	bool bias, vector;
	int layer, expert;   /* expert -1: all of them, stacked */
	char name[ROLE_NAME_MAX + 8];
	int64_t rows, cols;  /* of the whole tensor; a vector has one row */
	enum stave_qtype from;
};
/* root NULL: a GGUF file's. The caller frees *items. */
int convert_items(struct convert_item **items, int *n, const struct stave_source *s, const char *root, struct stave_err *err);
/* Row r of the tensor in this program's order of rows; gemma's norms as w + 1. For stave_float_rows and several threads. */
void convert_row(const struct convert_item *it, int64_t r, float *out);
/* Kept in F32 in GGUF files, by convention of their readers. */
static inline bool convert_small(const struct convert_item *it)
{
	return it->vector || it->r->role == STAVE_ROLE_ROUTER || it->r->role == STAVE_ROLE_POSITIONS || it->r->role == STAVE_ROLE_TOKEN_TYPES;
}
/* Counts one tensor in the result. */
void convert_count(struct stave_convert_result *r, const struct convert_item *it, enum stave_qtype to);

/* convert_rope.c: Llama-3's scaling as the list of divisors that GGUF keeps, (D/2), and back. false: the list is no such scaling. */
void rope_to_factors(const struct stave_shape *s, float *divisor);
bool rope_from_factors(struct stave_shape *s, const float *divisor);

#endif
