/* The network against PyTorch (shared/peers/torch_ref.py): logits, loss and every gradient of random small models of each
 * family, in f32 and bf16; against itself: recompute, accumulation and document masks; and directories both ways. The
 * PyTorch part is skipped, saying so, where the reference or python3-torch is absent. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/safetensors.h"
#include "base/sys.h"
#include "kernel/kernel.h"
#include "model/model.h"

enum { B = 2, T = 24, V = 131 };

static const char *peer(void)
{
	static char path[STAVE_PATH];
	const char *shared = getenv("STAVE_SHARED");
	snprintf(path, sizeof path, "%s/peers/torch_ref.py", shared ? shared : "../shared");
	if (!stave_exists(path) || system("/usr/bin/python3 -c 'import torch' >/dev/null 2>&1"))
		return NULL;
	return path;
}

static void must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

struct rig {
	struct stave_layout l;
	struct stave_net *net;
	struct stave_arena arena, weights;
	struct stave_net_memory plan;
	float *p, *g;
};

static void open_rig(struct rig *r, const struct stave_net_config *c)
{
	struct stave_err e = {0};
	must(stave_layout_open(&r->l, &c->shape, &e), &e);
	must(stave_net_plan(c, &r->plan, &e), &e);
	must(stave_arena_open(&r->arena, "net", r->plan.total, &e), &e);
	must(stave_arena_open(&r->weights, "weights", (size_t)r->l.n * 8 + 128, &e), &e);
	r->p = stave_arena_take(&r->weights, (size_t)r->l.n * 4);
	r->g = stave_arena_take(&r->weights, (size_t)r->l.n * 4);
	must(stave_net_open(&r->net, c, &r->l, r->p, r->g, &r->arena, &e), &e);
	assert_int_equal(r->arena.used, r->plan.total);
	assert_int_equal(r->plan.total, r->plan.weights16 + r->plan.activations + r->plan.workspace);
}

static void close_rig(struct rig *r)
{
	stave_net_close(r->net);
	stave_layout_close(&r->l);
	stave_arena_close(&r->arena);
	stave_arena_close(&r->weights);
}

/* Norm of the difference over the norm of the wanted. */
static double relative(const float *got, const float *want, int64_t n)
{
	double d = 0, w = 0;
	for (int64_t i = 0; i < n; i++) {
		d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		w += (double)want[i] * want[i];
	}
	return sqrt(d / (w > 0 ? w : 1));
}

static void tokens(int32_t *in, int32_t *target, FILE *json)
{
	if (json)
		fputs("[", json);
	for (int b = 0; b < B; b++) {
		if (json)
			fputs(b ? ",[" : "[", json);
		for (int t = 0; t <= T; t++) {
			int id = (int)(stave_random64(5, (uint64_t)(b * 100 + t)) % V);
			if (t < T)
				in[b * T + t] = id;
			if (t)
				target[b * T + t - 1] = id;
			if (json)
				fprintf(json, t ? ",%d" : "%d", id);
		}
		if (json)
			fputs("]", json);
	}
	if (json)
		fputs("]", json);
}

static const struct stave_st_tensor *want(const struct stave_st *st, const char *prefix, const char *name)
{
	char full[200];
	snprintf(full, sizeof full, "%s%s", prefix, name);
	const struct stave_st_tensor *t = stave_st_find(st, full);
	if (!t && strchr(name, '.')) {
		snprintf(full, sizeof full, "%s%s", prefix, strchr(name, '.') + 1);
		t = stave_st_find(st, full);
	}
	if (!t)
		fail_msg("the reference has no %s%s", prefix, name);
	return t;
}

/* Gradient block of param q as the file lays it out, compared to the reference's. */
static double grad_error(const struct stave_param *q, const float *g, const struct stave_st_tensor *t)
{
	int64_t n = (int64_t)q->rows * q->cols;
	float *mine = malloc((size_t)n * 4);
	for (int64_t i = 0; i < n; i++)
		mine[i] = q->transposed ? g[q->offset + i % q->rows * q->cols + i / q->rows] : g[q->offset + i];
	double e = relative(mine, t->data, n);
	free(mine);
	return e;
}

static void check_dir(const char *dir, const char *out, enum stave_dtype dtype, enum stave_recompute re, double bound)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.B = B, .T = T, .dtype = dtype, .recompute = re, .train = true};
	struct rig r;
	struct stave_st st;
	int32_t in[B * T], target[B * T];
	must(stave_shape_load(&c.shape, dir, &e), &e);
	open_rig(&r, &c);
	must(stave_weights_load(&r.l, r.p, dir, &e), &e);
	stave_net_refresh(r.net);
	must(stave_st_open(&st, out, &e), &e);
	tokens(in, target, NULL);
	struct stave_batch batch = {.inputs = in, .targets = target};
	float *logits = malloc(sizeof(float) * B * T * V);
	stave_net_logits(r.net, &batch, logits);
	double worst = relative(logits, want(&st, "", "logits")->data, B * T * V), loss;
	const char *where = "logits";
	assert_true(worst <= bound);
	int64_t n;
	stave_net_forward(r.net, &batch, true, &loss, &n);
	assert_int_equal(n, B * T);
	double ref = *(const float *)want(&st, "", "loss")->data;
	assert_true(fabs(loss / n - ref) <= bound * ref);
	stave_net_backward(r.net, &batch, true, NULL, NULL);
	for (int64_t i = 0; i < r.l.n; i++)
		r.g[i] /= B * T; /* ours are of the sum of losses, PyTorch's of the mean */
	for (int i = 0; i < r.l.n_params; i++) {
		double err = grad_error(&r.l.params[i], r.g, want(&st, "grad.", r.l.params[i].name));
		if (err > worst) {
			worst = err;
			where = r.l.params[i].name;
		}
	}
	printf("  %s recompute %d: worst relative error %.2e in %s\n", stave_dtype_name(dtype), (int)re, worst, where);
	if (worst > bound)
		fail_msg("relative error %.3e in %s exceeds %.0e", worst, where, bound);
	free(logits);
	stave_st_close(&st);
	close_rig(&r);
}

static void family_matches_torch(const char *family, const char *settings)
{
	const char *ref = peer();
	if (!ref) {
		print_message("skipped: no torch_ref.py or python3-torch\n");
		skip();
	}
	char dir[] = "/tmp/stave-net-XXXXXX", cmd[4096], path[STAVE_PATH], out[STAVE_PATH];
	assert_non_null(mkdtemp(dir));
	snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s init %s %s/m vocab_size=%d %s", ref, family, dir, V, settings);
	assert_int_equal(system(cmd), 0);
	snprintf(path, sizeof path, "%s/tokens.json", dir);
	FILE *f = fopen(path, "w");
	int32_t in[B * T], target[B * T];
	tokens(in, target, f);
	fclose(f);
	snprintf(out, sizeof out, "%s/out.safetensors", dir);
	snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s check %s/m %s %s >/dev/null", ref, dir, path, out);
	assert_int_equal(system(cmd), 0);
	snprintf(path, sizeof path, "%s/m", dir);
	for (int re = STAVE_KEEP_ALL; re <= STAVE_RECOMPUTE_LAYER; re++) {
		check_dir(path, out, STAVE_F32, (enum stave_recompute)re, 1e-4);
		if (stave_has_bf16())
			check_dir(path, out, STAVE_BF16, (enum stave_recompute)re, 2e-2);
	}
	/* and back: what stave writes, PyTorch loads, with the same logits */
	struct stave_err e = {0};
	struct stave_shape s;
	struct stave_layout l;
	must(stave_shape_load(&s, path, &e), &e);
	must(stave_layout_open(&l, &s, &e), &e);
	float *p = malloc((size_t)l.n * 4);
	must(stave_weights_load(&l, p, path, &e), &e);
	char again[STAVE_PATH];
	snprintf(again, sizeof again, "%s/again", dir);
	must(stave_weights_save(&l, p, again, STAVE_F32, -1, -1, &e), &e);
	snprintf(cmd, sizeof cmd, "/usr/bin/python3 %s check %s %s/tokens.json %s/out2.safetensors >/dev/null", ref, again, dir, dir);
	assert_int_equal(system(cmd), 0);
	struct stave_st a, b;
	must(stave_st_open(&a, out, &e), &e);
	snprintf(out, sizeof out, "%s/out2.safetensors", dir);
	must(stave_st_open(&b, out, &e), &e);
	assert_memory_equal(want(&a, "", "logits")->data, want(&b, "", "logits")->data, 4 * B * T * V);
	stave_st_close(&a);
	stave_st_close(&b);
	free(p);
	stave_layout_close(&l);
	stave_remove_tree(dir, NULL);
}

static void gpt2_matches_torch(void **state) { family_matches_torch("gpt2", "n_embd=48 n_layer=3 n_head=4 n_positions=32"); }
static void llama_matches_torch(void **state)
{
	family_matches_torch("llama", "hidden_size=48 intermediate_size=80 num_hidden_layers=3 num_attention_heads=6 num_key_value_heads=2 head_dim=8");
}
static void qwen3_matches_torch(void **state)
{
	family_matches_torch("qwen3", "hidden_size=48 intermediate_size=72 num_hidden_layers=2 num_attention_heads=4 num_key_value_heads=2 head_dim=16");
}

/* The derivative along a random direction against a central difference of the loss, for what PyTorch's reference does not
 * express: q/k/v biases, a sliding window, no biases, exact GELU. The direction lives in one tensor at a time. */
static void slope_matches(const char *preset, bool exact_gelu_without_bias)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.B = B, .T = T, .dtype = STAVE_F32, .train = true};
	struct rig r;
	int32_t in[B * T], target[B * T];
	must(stave_preset(&c.shape, preset, V, &e), &e);
	c.shape.L = 2, c.shape.C = 48, c.shape.I = 64, c.shape.T_max = 32, c.shape.H = 4, c.shape.D = 12;
	c.shape.K = c.shape.family == STAVE_GPT2 ? 4 : 2;
	if (c.shape.window)
		c.shape.window = 5;
	if (exact_gelu_without_bias) {
		c.shape.act = STAVE_GELU_EXACT;
		c.shape.qkv_bias = c.shape.out_bias = c.shape.mlp_bias = c.shape.norm_bias = false;
	}
	tokens(in, target, NULL);
	open_rig(&r, &c);
	stave_weights_init(&r.l, r.p, 21);
	for (int64_t i = 0; i < r.l.n_params; i++) /* biases away from zero, gains from one; weights large enough to bend */
		for (int64_t k = 0; k < (int64_t)r.l.params[i].rows * r.l.params[i].cols; k++)
			r.p[r.l.params[i].offset + k] += 0.1f * (float)(stave_random_unit(31 + (uint64_t)i, (uint64_t)k) - 0.5);
	struct stave_batch b = {.inputs = in, .targets = target};
	double loss, up, down;
	int64_t n;
	stave_net_forward(r.net, &b, true, &loss, &n);
	stave_net_backward(r.net, &b, true, NULL, NULL);
	for (int i = 0; i < r.l.n_params; i++) {
		const struct stave_param *q = &r.l.params[i];
		int64_t count = (int64_t)q->rows * q->cols;
		float *p = r.p + q->offset, *g = r.g + q->offset, *keep = malloc((size_t)count * 4);
		double norm = 0, slope = 0, h;
		memcpy(keep, p, (size_t)count * 4);
		for (int64_t k = 0; k < count; k++)
			norm += (double)g[k] * g[k];
		norm = sqrt(norm);
		h = 0.2 / (norm + 1e-3); /* moves the loss by some tenths of a nat: well above float's noise in a sum of 48 */
		if (h > 0.05)
			h = 0.05;
		/* along the gradient, mixed with a random direction so that a wrong sign of one element shows */
		for (int side = -1; side <= 1; side += 2) {
			for (int64_t k = 0; k < count; k++)
				p[k] = keep[k] + (float)(side * h * ((double)g[k] / (norm + 1e-12) + 0.3 * (stave_random_unit(99, (uint64_t)k) - 0.5)));
			stave_net_evaluate(r.net, &b, side < 0 ? &down : &up, &n);
		}
		for (int64_t k = 0; k < count; k++)
			slope += (double)g[k] * ((double)g[k] / (norm + 1e-12) + 0.3 * (stave_random_unit(99, (uint64_t)k) - 0.5));
		memcpy(p, keep, (size_t)count * 4);
		free(keep);
		double measured = (up - down) / (2 * h);
		if (fabs(measured - slope) > 0.02 * fabs(slope) + 2e-3)
			fail_msg("%s: slope of %s is %.5f, measured %.5f", preset, q->name, slope, measured);
	}
	close_rig(&r);
}

static void slopes_match_differences(void **state)
{
	slope_matches("qwen2-124m", false);
	slope_matches("mistral-124m", false);
	slope_matches("gpt2-124m", false);
	slope_matches("gpt2-124m", true);
}

/* Two micro-batches of one row accumulate to the gradient of one of two rows. */
static void accumulation_equals_a_big_batch(void **state)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.B = 2, .T = T, .dtype = STAVE_F32, .train = true};
	must(stave_preset(&c.shape, "mini", V, &e), &e);
	struct rig big, small;
	int32_t in[B * T], target[B * T];
	tokens(in, target, NULL);
	target[3] = target[T + 7] = -1;
	open_rig(&big, &c);
	c.B = 1;
	open_rig(&small, &c);
	stave_weights_init(&big.l, big.p, 7);
	stave_weights_init(&small.l, small.p, 7);
	double loss, one, two;
	int64_t n, n1, n2;
	struct stave_batch b = {.inputs = in, .targets = target}, b2 = {.inputs = in + T, .targets = target + T};
	stave_net_forward(big.net, &b, true, &loss, &n);
	stave_net_backward(big.net, &b, true, NULL, NULL);
	stave_net_forward(small.net, &b, true, &one, &n1);
	stave_net_backward(small.net, &b, true, NULL, NULL);
	stave_net_forward(small.net, &b2, false, &two, &n2);
	stave_net_backward(small.net, &b2, false, NULL, NULL);
	assert_int_equal(n, n1 + n2);
	assert_int_equal(n, B * T - 2);
	assert_true(fabs(loss - one - two) < 1e-3);
	double err = relative(small.g, big.g, big.l.n);
	if (err > 1e-5)
		fail_msg("accumulated gradients differ by %.2e", err);
	close_rig(&big);
	close_rig(&small);
}

/* A row of two documents under the mask has the loss of the two documents in rows of their own. */
static void documents_do_not_see_each_other(void **state)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.B = 1, .T = T, .dtype = STAVE_F32, .train = true, .doc_mask = true};
	must(stave_preset(&c.shape, "mini", V, &e), &e);
	struct rig joined, alone;
	int32_t in[B * T], target[B * T], start[T], pos[T], first[T], second[T], in2[T];
	enum { CUT = 10 };
	tokens(in, target, NULL);
	open_rig(&joined, &c);
	open_rig(&alone, &c);
	stave_weights_init(&joined.l, joined.p, 3);
	stave_weights_init(&alone.l, alone.p, 3);
	for (int t = 0; t < T; t++) {
		start[t] = t < CUT ? 0 : CUT;
		pos[t] = t - start[t];
		first[t] = t < CUT ? target[t] : -1;
		second[t] = t + CUT < T ? target[t + CUT] : -1;
		in2[t] = t + CUT < T ? in[t + CUT] : 0;
	}
	double both, a, b;
	int64_t n;
	stave_net_forward(joined.net, &(struct stave_batch){in, target, start, pos}, true, &both, &n);
	stave_net_forward(alone.net, &(struct stave_batch){in, first, NULL, NULL}, true, &a, &n);
	stave_net_forward(alone.net, &(struct stave_batch){in2, second, NULL, NULL}, true, &b, &n);
	if (fabs(both - a - b) > 1e-3)
		fail_msg("joined %.6f, apart %.6f", both, a + b);
	close_rig(&joined);
	close_rig(&alone);
}

/* The gradient does not depend on the number of threads, to rounding of the products; the loss neither. */
static void threads_do_not_matter(void **state)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.B = 2, .T = T, .dtype = STAVE_F32, .train = true};
	must(stave_preset(&c.shape, "nano", V, &e), &e);
	int32_t in[B * T], target[B * T];
	tokens(in, target, NULL);
	struct rig r[2];
	for (int i = 0; i < 2; i++) {
		stave_threads_set(i + 1);
		open_rig(&r[i], &c);
		stave_weights_init(&r[i].l, r[i].p, 11);
		double loss;
		int64_t n;
		struct stave_batch b = {.inputs = in, .targets = target};
		stave_net_forward(r[i].net, &b, true, &loss, &n);
		stave_net_backward(r[i].net, &b, true, NULL, NULL);
	}
	assert_true(relative(r[1].g, r[0].g, r[0].l.n) < 1e-5);
	close_rig(&r[0]);
	close_rig(&r[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accumulation_equals_a_big_batch),
		cmocka_unit_test(documents_do_not_see_each_other),
		cmocka_unit_test(threads_do_not_matter),
		cmocka_unit_test(slopes_match_differences),
		cmocka_unit_test(gpt2_matches_torch),
		cmocka_unit_test(llama_matches_torch),
		cmocka_unit_test(qwen3_matches_torch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
