/* Composing tokenizer.json documents, shared by tokenizer.c and train.c. */
#ifndef STAVE_TEXT_BUILD_H
#define STAVE_TEXT_BUILD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "text/text.h"

/* The document of a BPE model. Takes over vocab, merges and pre_tokenizer; adds <|endoftext|> with id eot unless it is
 * -1. `decoder` is the type of the decoder: "ByteLevel" or "Fuse". NULL when memory is short. */
json_t *text_compose(json_t *vocab, json_t *merges, int32_t eot, json_t *pre_tokenizer, const char *decoder);
json_t *text_compose_byte_level(bool use_regex);
/* Opens a composed document (taken over), with the tokenizer_config.json that goes with it. */
int text_compose_open(struct stave_tokenizer **out, json_t *root, bool eot, const char *what, struct stave_err *err);

#endif
