/* What convert and quantize share: a model as one GGUF file, whatever it was. */
#ifndef STAVE_CLI_TO_GGUF_H
#define STAVE_CLI_TO_GGUF_H

#include "model/convert.h"

/* The model at `in` at `out`, its tokenizer and metadata with it; s: the open source, NULL for a GGUF file of any architecture. */
int stave_cli_to_gguf(const struct stave_source *s, const char *in, const char *out, const struct stave_convert *c, struct stave_convert_result *r,
                      struct stave_err *err);

#endif
