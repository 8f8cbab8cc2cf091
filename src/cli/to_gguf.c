/* A model as one GGUF file. A GGUF file's own metadata is copied; a directory's is said anew, by the shape and by the tokenizer. */
#include "cli/to_gguf.h"

#include <stdio.h>
#include <string.h>

#include "text/text.h"

struct words {
	const struct stave_tokenizer *tokenizer;
	int vocab;
};

static int put_tokenizer(void *ctx, struct stave_gguf_writer *w, struct stave_err *err)
{
	const struct words *v = ctx;
	return stave_tokenizer_to_gguf(v->tokenizer, v->vocab, w, err);
}

/* The last part of a path, without a trailing slash: what others show as the model's name. */
static const char *name_of(char out[128], const char *path)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	size_t at = n;
	while (at && path[at - 1] != '/')
		at--;
	snprintf(out, 128, "%.*s", (int)(n - at), path + at);
	return out;
}

int stave_cli_to_gguf(const struct stave_source *s, const char *in, const char *out, const struct stave_convert *c, struct stave_convert_result *r,
                      struct stave_err *err)
{
	struct stave_tokenizer *tokenizer;
	char name[128];
	if (!s || stave_source_gguf(s))
		return stave_requantize(in, out, c, r, err);
	int rc = stave_tokenizer_load(&tokenizer, in, err);
	if (rc)
		return rc;
	struct words words = {tokenizer, stave_source_shape(s)->V};
	struct stave_convert_keys keys = {put_tokenizer, &words, name_of(name, in)};
	rc = stave_source_to_gguf(s, out, c, &keys, r, err);
	stave_tokenizer_free(tokenizer);
	return rc;
}
