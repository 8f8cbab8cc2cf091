/* The files of weights in a Hugging Face directory; private to model/. */
#ifndef STAVE_MODEL_SHARDS_H
#define STAVE_MODEL_SHARDS_H

#include "base/err.h"

/* each(ctx, path, err) for model.safetensors (there or not); or, when only model.safetensors.index.json is there, once for each file that it
 * names. Ends with the first error. */
int shards_each(const char *dir, int (*each)(void *ctx, const char *path, struct stave_err *err), void *ctx, struct stave_err *err);

#endif
