/* Decoding with a cache against the whole forward pass of training (itself held against PyTorch): every family and
 * feature, tokens in pieces of any size, one by one or beside other sequences; and that company changes no bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "model/model.h"

enum { T = 40, V = 131, SLOTS = 3, ROWS = 64 };

static void must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

static struct stave_shape base_shape(enum stave_family family)
{
	struct stave_shape s = {.family = family, .L = 2, .C = 64, .H = 4, .K = 2, .D = 16, .I = 96, .V = V, .T_max = 64, .act = STAVE_SWIGLU,
	                        .tied = true, .norm_eps = 1e-5f, .rope_theta = 10000};
	if (family == STAVE_GPT2) {
		s.K = 4;
		s.act = STAVE_GELU_TANH;
		s.layernorm = s.norm_bias = s.learned_pos = s.qkv_bias = s.out_bias = s.mlp_bias = true;
		s.rope_theta = 0;
	}
	return s;
}

struct rig {
	struct stave_layout l;
	struct stave_arena params, arena;
	struct stave_decoder *d;
	float *p;
	float want[T * V];
	int32_t ids[SLOTS][T];
};

/* Random weights, every vector too, and the logits of the training path in f32. */
static void open_rig(struct rig *r, const struct stave_shape *s, enum stave_dtype dtype)
{
	struct stave_err e = {0};
	struct stave_decoder_memory m;
	struct stave_decoder_config c = {*s, SLOTS, T, ROWS, dtype};
	must(stave_layout_open(&r->l, s, &e), &e);
	must(stave_arena_open(&r->params, "params", (size_t)r->l.n * 4, &e), &e);
	r->p = stave_arena_take(&r->params, (size_t)r->l.n * 4);
	stave_weights_init(&r->l, r->p, 3);
	for (int i = 0; i < r->l.n_params; i++)
		for (int64_t j = 0; j < (int64_t)r->l.params[i].rows * r->l.params[i].cols; j++)
			r->p[r->l.params[i].offset + j] += 0.1f * (float)(stave_random_unit((uint64_t)i, (uint64_t)j) - 0.5);
	must(stave_decoder_plan(&c, &m, &e), &e);
	must(stave_arena_open(&r->arena, "decoder", m.total, &e), &e);
	must(stave_decoder_open(&r->d, &c, &r->l, r->p, &r->arena, &e), &e);
	assert_int_equal(r->arena.used, m.total);
	assert_int_equal(m.total, m.weights + m.cache + m.workspace);
	for (int i = 0; i < SLOTS * T; i++)
		r->ids[i / T][i % T] = (int32_t)(stave_random64(9, (uint64_t)i) % V);
}

static void close_rig(struct rig *r)
{
	stave_decoder_close(r->d);
	stave_arena_close(&r->arena);
	stave_arena_close(&r->params);
	stave_layout_close(&r->l);
}

static void reference(struct rig *r)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.shape = r->l.shape, .B = 1, .T = T, .dtype = STAVE_F32};
	struct stave_net_memory m;
	struct stave_arena a;
	struct stave_net *net;
	int32_t targets[T] = {0};
	must(stave_net_plan(&c, &m, &e), &e);
	must(stave_arena_open(&a, "net", m.total, &e), &e);
	must(stave_net_open(&net, &c, &r->l, r->p, NULL, &a, &e), &e);
	stave_net_logits(net, &(struct stave_batch){.inputs = r->ids[0], .targets = targets}, r->want);
	stave_net_close(net);
	stave_arena_close(&a);
}

/* Sequence 0 in pieces of n (a zero ends: the last is repeated), sequences 1.. beside it if `company`: logits (T, V). */
static void decode(struct rig *r, const int *pieces, int company, float *logits)
{
	int past = 0, n = *pieces;
	while (past < T) {
		struct stave_decode s[SLOTS] = {{.slot = 1, .past = past, .n = n < T - past ? n : T - past, .ids = r->ids[0] + past}};
		for (int i = 1; i <= company; i++) /* some in runs, some alone */
			s[i] = (struct stave_decode){.slot = i == 1 ? 0 : 2, .past = past, .n = i == 1 ? s[0].n : 1, .ids = r->ids[i] + past};
		stave_decoder_run(r->d, s, 1 + company);
		const float *rows[T + SLOTS];
		for (int i = 0; i < s[0].n; i++)
			rows[i] = s[0].hidden + (size_t)i * r->l.shape.C;
		stave_decoder_logits(r->d, rows, s[0].n, logits + (size_t)past * V);
		past += s[0].n;
		if (*pieces && pieces[1])
			n = *++pieces;
	}
}

static double relative(const float *got, const float *want, int n)
{
	double d = 0, w = 0;
	for (int i = 0; i < n; i++) {
		d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		w += (double)want[i] * want[i];
	}
	return sqrt(d / w);
}

static void compare(const struct stave_shape *s, const char *what)
{
	static const int pieces[][8] = {{1}, {T}, {8, 1, 1, 16, 1}, {3, 13, 9}};
	static struct rig r;
	static float got[T * V], beside[T * V];
	for (int bf16 = 0; bf16 < 2; bf16++) {
		open_rig(&r, s, bf16 ? STAVE_BF16 : STAVE_F32);
		reference(&r);
		for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
			decode(&r, pieces[i], 0, got);
			double off = relative(got, r.want, T * V);
			if (!(off < (bf16 ? 2e-2 : 1e-5)))
				fail_msg("%s, %s, pieces %zu: relative error %g", what, bf16 ? "bf16" : "f32", i, off);
			for (int company = 1; company < SLOTS; company++) {
				decode(&r, pieces[i], company, beside);
				if (memcmp(got, beside, sizeof got))
					fail_msg("%s, %s, pieces %zu: %d neighbours change the logits", what, bf16 ? "bf16" : "f32", i, company);
			}
		}
		close_rig(&r);
	}
}

static void families(void **state)
{
	(void)state;
	struct stave_shape s = base_shape(STAVE_GPT2);
	compare(&s, "gpt2");
	s.act = STAVE_GELU_EXACT;
	s.norm_bias = s.qkv_bias = s.out_bias = s.mlp_bias = false;
	compare(&s, "gpt2 without biases");
	s = base_shape(STAVE_LLAMA);
	compare(&s, "llama");
	s.tied = false;
	s.rope_factor = 8, s.rope_low = 1, s.rope_high = 4, s.rope_original = 32;
	compare(&s, "llama 3 rope");
	s.rope_linear = true;
	compare(&s, "linear rope");
	s = base_shape(STAVE_MISTRAL);
	s.window = 7;
	compare(&s, "mistral window");
	s = base_shape(STAVE_QWEN2);
	s.qkv_bias = true;
	compare(&s, "qwen2");
	s = base_shape(STAVE_QWEN3);
	s.qk_norm = true;
	s.D = 32;
	compare(&s, "qwen3");
}

static void threads(void **state)
{
	(void)state;
	static struct rig r;
	static float one[T * V], two[T * V];
	struct stave_shape s = base_shape(STAVE_LLAMA);
	stave_threads_set(1);
	open_rig(&r, &s, STAVE_F32);
	decode(&r, (int[]){1, 0}, 0, one);
	close_rig(&r);
	stave_threads_set(2);
	open_rig(&r, &s, STAVE_F32);
	decode(&r, (int[]){1, 0}, 0, two);
	close_rig(&r);
	assert_memory_equal(one, two, sizeof one);
}

static void refusals(void **state)
{
	(void)state;
	struct stave_err e = {0};
	struct stave_decoder_memory m;
	struct stave_decoder_config c = {base_shape(STAVE_LLAMA), SLOTS, 65, ROWS, STAVE_F32};
	assert_int_equal(stave_decoder_plan(&c, &m, &e), STAVE_EUSAGE); /* more positions than the model has */
	c.context = 64;
	c.dtype = STAVE_I8;
	assert_int_equal(stave_decoder_plan(&c, &m, &e), STAVE_EUSAGE);
	c.dtype = STAVE_F32;
	c.slots = 0;
	assert_int_equal(stave_decoder_plan(&c, &m, &e), STAVE_EUSAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(families), cmocka_unit_test(threads), cmocka_unit_test(refusals)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
