/* The names of parameters in files, private to model/: what a tensor is for (enum stave_role), by family, in GGUF and in Hugging Face
 * directories. Loading looks a role up here, conversion walks it both ways; there is no other list. */
#ifndef STAVE_MODEL_ROLES_H
#define STAVE_MODEL_ROLES_H

#include "model/model.h"

#define ROLE_NAME_MAX 128

/* One tensor of a file. It holds `parts` consecutive roles, `role` first, as blocks of rows. In a name the first * is the layer, the
 * second the expert: a name of an expert's role without it is all experts' matrices in one 3-d tensor. */
struct role_name {
	enum stave_role role;
	int parts;
	unsigned families; /* bits 1 << family */
	const char *gguf;
	const char *hf;    /* below the family's root ("model."), except after a / */
};
extern const struct role_name role_names[];
extern const int role_names_n;

/* The row that holds a role of a family; NULL: the family has none. */
const struct role_name *role_find(enum stave_family f, enum stave_role role);
/* Where Hugging Face files of a family put their names: candidates, the first is what is written; NULL-terminated. */
const char *const *role_roots(enum stave_family f);
/* The name without ".weight" or ".bias". root NULL: in GGUF. */
void role_name(char out[ROLE_NAME_MAX], const struct role_name *r, const char *root, int layer, int expert);

enum role_kind { ROLE_MATRIX, ROLE_NORM, ROLE_EXPERT };
static inline enum role_kind role_kind(enum stave_role r)
{
	switch (r) {
	case STAVE_ROLE_EMBED_NORM: case STAVE_ROLE_NORM_F: case STAVE_ROLE_NORM1: case STAVE_ROLE_QNORM: case STAVE_ROLE_KNORM:
	case STAVE_ROLE_NORM1_POST: case STAVE_ROLE_NORM2: case STAVE_ROLE_NORM2_POST:
		return ROLE_NORM;
	case STAVE_ROLE_EXPERT_GATE: case STAVE_ROLE_EXPERT_UP: case STAVE_ROLE_EXPERT_DOWN:
		return ROLE_EXPERT;
	default:
		return ROLE_MATRIX;
	}
}
static inline bool role_in_layer(enum stave_role r) { return r >= STAVE_ROLE_NORM1; }
/* Does a model of this shape have it, and has it a bias? A tied head is no tensor of its own. */
bool role_present(const struct stave_shape *s, enum stave_role r);
bool role_biased(const struct stave_shape *s, enum stave_role r);
/* (out, in) of a matrix, one expert's of an expert's role; (1, n) of a norm. */
void role_shape(const struct stave_shape *s, enum stave_role r, int *rows, int *cols);
/* Gemma computes x (1 + w): Hugging Face files hold w, GGUF files w + 1. */
static inline bool role_plus_one(const struct stave_shape *s, enum stave_role r)
{
	return (s->family == STAVE_GEMMA2 || s->family == STAVE_GEMMA3) && role_kind(r) == ROLE_NORM;
}
/* Hugging Face's GPT-2 stores (in, out). */
static inline bool role_transposed(const struct stave_shape *s, enum stave_role r)
{
	return s->family == STAVE_GPT2 && role_in_layer(r) && role_kind(r) == ROLE_MATRIX;
}
/* GGUF's llama architecture interleaves the rows of q and k: heads of them, 0 = not. */
static inline int role_permuted(const struct stave_shape *s, enum stave_role r)
{
	bool llama = s->family == STAVE_LLAMA || s->family == STAVE_MISTRAL || s->family == STAVE_MIXTRAL;
	return !llama ? 0 : r == STAVE_ROLE_Q ? s->H : r == STAVE_ROLE_K ? s->K : 0;
}

#endif
