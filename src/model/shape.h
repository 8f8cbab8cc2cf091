/* Shapes from files, of all families; private to model/. The public stave_shape_load refuses those that are run only. */
#ifndef STAVE_MODEL_SHAPE_H
#define STAVE_MODEL_SHAPE_H

#include <jansson.h>

#include "base/gguf.h"
#include "model/model.h"

/* Divisors of the rotary frequencies that are lists in the file (longrope; rope_freqs). One list: near is far. */
struct shape_factors {
	float *near, *far; /* (n); far: for contexts beyond `original` */
	int n, original;
};
void shape_factors_free(struct shape_factors *f);

/* config.json of a directory. Outputs are set only on success; the shape is checked. */
int shape_from_json(struct stave_shape *s, struct shape_factors *f, const char *dir, struct stave_err *err);
/* config.json of any family. f may be NULL. */
int shape_to_json(const struct stave_shape *s, const struct shape_factors *f, const char *dir, int eos, int bos, const char *dtype, struct stave_err *err);
/* GGUF keys, and what follows from which tensors are there (tied, biases). Factors come from tensors (source_gguf.c). */
int shape_from_gguf(struct stave_shape *s, const struct stave_gguf *g, struct stave_err *err);
/* general.architecture and the keys under it; STAVE_ECONFIG names what GGUF, as others read it, cannot say. */
int shape_to_gguf(const struct stave_shape *s, const struct shape_factors *f, struct stave_gguf_writer *w, struct stave_err *err);

/* GGUF's name of the architecture. */
const char *shape_arch(enum stave_family f);
/* What readers of GGUF take for gemma's scale of q·k, which no key says. */
float shape_gemma_scale(const struct stave_shape *s);

/* shape_json.c and shape_save.c share what a family is called. */
extern const char *const shape_model_types[STAVE_FAMILIES];

#endif
