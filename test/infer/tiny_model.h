/* A random model with a byte tokenizer, in a directory of its own under /tmp: what the tests of infer/ and serve/ load. */
#ifndef TEST_TINY_MODEL_H
#define TEST_TINY_MODEL_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "model/model.h"
#include "text/text.h"

enum { TINY_CONTEXT = 256 };
static void tiny_must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}
static inline struct stave_shape tiny_shape(int context)
{
	return (struct stave_shape){.family = STAVE_LLAMA, .L = 2, .C = 64, .H = 4, .K = 2, .D = 16, .I = 96, .V = 257, .T_max = context, .act = STAVE_SWIGLU,
	                            .tied = true, .norm_eps = 1e-5f, .rope_theta = 10000};
}
/* A model of that shape; `seed` of the weights. */
static inline char *tiny_write(const struct stave_shape *s, uint64_t seed)
{
	char *dir = strdup("/tmp/stave-test-XXXXXX");
	if (!mkdtemp(dir))
		fail_msg("mkdtemp");
	struct stave_err e = {0};
	struct stave_tokenizer *t;
	tiny_must(stave_tokenizer_byte(&t, &e), &e);
	tiny_must(stave_tokenizer_save(t, dir, &e), &e);
	assert_int_equal(stave_tokenizer_vocab(t), s->V);
	struct stave_layout l;
	tiny_must(stave_layout_open(&l, s, &e), &e);
	float *p = calloc((size_t)l.n, sizeof *p);
	stave_weights_init(&l, p, seed);
	for (int64_t i = 0; i < l.n; i++) /* sharper than fresh weights, so that answers differ */
		p[i] *= 4;
	tiny_must(stave_weights_save(&l, p, dir, STAVE_F32, stave_tokenizer_eos(t), stave_tokenizer_bos(t), &e), &e);
	free(p);
	stave_layout_close(&l);
	stave_tokenizer_free(t);
	return dir;
}
static inline char *tiny_model(uint64_t seed, int context)
{
	struct stave_shape s = tiny_shape(context);
	return tiny_write(&s, seed);
}
static inline char *tiny_dir(void) { return tiny_model(3, TINY_CONTEXT); }
static void tiny_remove(char *dir)
{
	stave_remove_tree(dir, NULL);
	free(dir);
}

#endif
