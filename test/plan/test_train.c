/* Training: closed forms against the printed formulas and against cost/'s own counts; the step and its memory on random valid specifications (parts
 * add up, all finite, more of anything never slows a fixed layout); the search against brute force; the fit of constants against rows made with known
 * ones; measured runs, when the shared table is there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "plan/train/train_case.h"
#include "plan/truth/validate.h"

static struct plan_catalog *catalog;

static int open_catalog(void **state)
{
	struct stave_err e = {0};
	int rc = plan_catalog_open(&catalog, NULL, &e);
	if (rc)
		print_error("%s\n", e.msg);
	return rc;
}

static int close_catalog(void **state)
{
	plan_catalog_close(catalog);
	return 0;
}

/* ---- shapes, machines and dice ---- */

static struct stave_shape gpt(int L, int C, int H, int V, int T)
{
	return (struct stave_shape){.family = STAVE_GPT2, .L = L, .C = C, .H = H, .K = H, .D = C / H, .I = 4 * C, .V = V, .T_max = T, .act = STAVE_GELU_TANH, .layernorm = true,
	                            .norm_bias = true, .learned_pos = true, .qkv_bias = true, .out_bias = true, .mlp_bias = true, .tied = true, .norm_eps = 1e-5f};
}

static struct stave_shape llama(int L, int C, int H, int K, int I, int V)
{
	return (struct stave_shape){.family = STAVE_LLAMA, .L = L, .C = C, .H = H, .K = K, .D = C / H, .I = I, .V = V, .T_max = 4096, .act = STAVE_SWIGLU, .norm_eps = 1e-5f,
	                            .rope_theta = 10000};
}

static struct stave_shape mixtral(void)
{
	struct stave_shape s = llama(32, 4096, 32, 8, 14336, 32000);
	s.family = STAVE_MIXTRAL;
	s.experts = 8;
	s.experts_used = 2;
	return s;
}

static struct plan_train_fit *fit_of(const char *accelerator, const char *stack)
{
	struct plan_train_fit *f;
	struct stave_err e = {0};
	const struct plan_accelerator *a = plan_accelerator_find(catalog, accelerator);
	assert_non_null(a);
	if (plan_train_fit_open(&f, catalog, a, stack, &e))
		fail_msg("%s", e.msg);
	return f;
}

static struct plan_machine machine(const char *accelerator, const struct plan_train_fit *f, int gpus)
{
	return (struct plan_machine){.accelerator = plan_accelerator_find(catalog, accelerator), .fit = f, .gpus = gpus, .gpus_per_node = gpus < 8 ? gpus : 8, .nic_bytes_s = 200e9, .sites = 1};
}

static uint64_t dice = 1;

static unsigned roll(unsigned n)
{
	dice = dice * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(dice >> 33) % n;
}

static struct stave_shape random_shape(void)
{
	int heads = 8 << roll(4), width = 64 << roll(2), L = 4 << roll(5);
	struct stave_shape s = roll(2) ? gpt(L, heads * width, heads, 50257, 2048) : llama(L, heads * width, heads, heads / (1 << roll(3)), 128 * (8 + (int)roll(100)), 32000);
	if (s.family == STAVE_LLAMA && !roll(3)) {
		s.family = STAVE_MIXTRAL;
		s.experts = 8 << roll(3);
		s.experts_used = 2;
	}
	if (!roll(4))
		s.window = 512;
	return s;
}

/* A valid job, machine and layout; false when the dice made an impossible one. */
static bool random_case(struct plan_train_job *j, struct plan_machine *m, struct plan_layout *l)
{
	*j = (struct plan_train_job){.shape = random_shape(), .seq = 1024 << roll(5), .precision = (enum plan_precision)roll(4), .lora = !roll(6), .lora_rank = 16};
	*l = (struct plan_layout){.tp = 1 << roll(4), .pp = 1 << roll(4), .dp = 1 << roll(7), .cp = 1 << roll(2), .ep = 1, .vp = 1, .zero = (int)roll(4),
	                          .recompute = (enum plan_recompute)roll(3), .seq_parallel = roll(2), .async_tp = roll(2), .micro = 1 << roll(4)};
	if (l->pp > 1 && !roll(3))
		l->vp = 2;
	if (j->shape.experts && !roll(2))
		l->ep = l->dp < 8 ? l->dp : 8;
	j->batch = l->dp * l->micro * l->pp * (1 + (int)roll(8));
	m->gpus = l->tp * l->pp * l->dp * l->cp;
	m->gpus_per_node = m->gpus < 8 ? m->gpus : 8;
	m->nic_bytes_s = 12.5e9 * (1 << roll(6));
	m->sites = 1;
	if (!roll(4)) {
		m->sites = 2;
		m->site_bytes_s = 1e10;
		m->site_latency_s = 1e-3;
	}
	m->network = (struct plan_network){0};
	if (!roll(3))
		m->network = (struct plan_network){.tiers = 2, .tier = {{.nodes = 4, .taper = 1, .latency_s = 1e-6}, {.nodes = 0, .taper = 0.25, .latency_s = 5e-6}}};
	return !plan_layout_invalid(j, m, l);
}

/* ---- closed forms ---- */

static void flops_are_those_of_the_paper(void **state)
{
	static const double sizes[][4] = {{24, 2304, 512, 2048}, {96, 12288, 1536, 2048}, {128, 25600, 3072, 2048}};
	for (int i = 0; i < 3; i++) {
		double L = sizes[i][0], h = sizes[i][1], B = sizes[i][2], s = sizes[i][3], V = 51200;
		struct stave_shape g = gpt((int)L, (int)h, (int)(h / 128), 51200, 2048);
		double full = 96 * B * L * s * h * h * (1 + s / (6 * h) + V / (16 * L * h)), none = 72 * B * L * s * h * h * (1 + s / (6 * h) + V / (12 * L * h));
		assert_true(fabs(stave_closed_step_flops(&g, B, s, 1) / full - 1) < 1e-12);
		assert_true(fabs(stave_closed_step_flops(&g, B, s, 0) / none - 1) < 1e-12);
	}
}

/* Layers and ends are stave_shape_params; 6 flops a matrix entry are stave_train_flops_per_token less what norms and biases add to N. */
static void closed_forms_agree_with_the_counts(void **state)
{
	for (int i = 0; i < 500; i++) {
		struct stave_shape s = i == 0 ? mixtral() : random_shape();
		struct stave_closed c;
		stave_closed_of(&s, &c);
		double N = s.L * c.layer_params + c.embed_params + c.head_params;
		assert_true(N == (double)stave_shape_params(&s));
		double matrices = 0;
		for (int k = 0; k < c.products; k++)
			matrices += c.product[k].k * c.product[k].n * c.product[k].blocks;
		double small = s.L * (c.layer_params - matrices) + (c.head_params - (s.tied ? 0 : (double)s.V * s.C)), seq = 2048;
		double all = stave_train_flops_per_token(&s, (int)seq) - 6 * small, unused = 0;
		for (int k = 0; k < c.products; k++)
			unused += 6 * s.L * c.product[k].k * c.product[k].n * (c.product[k].blocks - c.product[k].used);
		/* the classifier is a product where the embedding is not: N holds it once either way */
		assert_true(fabs(stave_closed_step_flops(&s, 1, seq, 0) / seq / (all - unused) - 1) < 1e-9);
	}
}

static void published_parameters(void **state)
{
	static const double want[] = {6738415616, 8030261248, 46702792704, 1557611200};
	struct stave_shape s[] = {llama(32, 4096, 32, 32, 11008, 32000), llama(32, 4096, 32, 8, 14336, 128256), mixtral(), gpt(48, 1600, 25, 50257, 1024)};
	for (int i = 0; i < 4; i++) {
		struct stave_closed c;
		stave_closed_of(&s[i], &c);
		assert_true(s[i].L * c.layer_params + c.embed_params + c.head_params == want[i]);
	}
}

/* ---- memory ---- */

/* Korthikanti et al. 2022, table 2, per layer: sbh times what is printed. */
static void activations_are_those_of_the_table(void **state)
{
	struct plan_train_fit *f = fit_of("a100", "megatron");
	double s = 2048, b = 4, h = 6144, a = 64, t = 8, L = 48, sbh = s * b * h, as = 5 * a * s / h;
	const struct {
		int tp;
		bool seq_parallel;
		enum plan_recompute re;
		double bytes;
	} rows[] = {{1, false, PLAN_KEEP, 34 + as},          {8, false, PLAN_KEEP, 10 + 24 / t + as / t}, {8, true, PLAN_KEEP, (34 + as) / t},
	            {8, false, PLAN_SELECTIVE, 10 + 24 / t}, {8, true, PLAN_SELECTIVE, 34 / t}};
	struct plan_train_job j = {.shape = gpt(48, 6144, 64, 51200, 2048), .seq = 2048, .batch = 32, .precision = PLAN_BF16};
	for (int i = 0; i < 5; i++) {
		struct plan_machine m = machine("a100", f, rows[i].tp);
		struct plan_layout l = {.tp = rows[i].tp, .pp = 1, .dp = 1, .cp = 1, .ep = 1, .vp = 1, .micro = 4, .seq_parallel = rows[i].seq_parallel, .recompute = rows[i].re};
		struct plan_memory y;
		plan_memory_evaluate(&j, &m, &l, &y);
		assert_true(fabs(y.activations / (L * sbh * rows[i].bytes) - 1) < 1e-9);
	}
	plan_train_fit_free(f);
}

static void state_shards_by_zero_stage(void **state)
{
	struct plan_train_fit *f = fit_of("a100", "megatron");
	struct plan_machine m = machine("a100", f, 64);
	struct plan_train_job j = {.shape = gpt(24, 2048, 16, 50257, 2048), .seq = 2048, .batch = 64, .precision = PLAN_BF16};
	double N = (double)stave_shape_params(&j.shape), want[] = {18, 6 + 12 / 64.0, 2 + 16 / 64.0, 16 / 64.0};
	for (int zero = 0; zero < 4; zero++) {
		struct plan_layout l = {.tp = 1, .pp = 1, .dp = 64, .cp = 1, .ep = 1, .vp = 1, .micro = 1, .zero = zero};
		struct plan_memory y;
		plan_memory_evaluate(&j, &m, &l, &y);
		assert_true(fabs((y.weights + y.gradients + y.optimizer) / (want[zero] * N) - 1) < 1e-9);
	}
	plan_train_fit_free(f);
}

/* ---- the step, for random specifications ---- */

static const char *const accelerators[] = {"a100", "h100", "b200", "mi300x", "tpu v5p", "rtx 4090", "gb200"};
static const char *const stacks[] = {"megatron", "torchtitan", "llm-foundry", "", "unheard-of"};

static bool finite_step(const struct plan_step *s)
{
	const double *x = (const double *)(const void *)s;
	for (size_t i = 0; i < sizeof *s / sizeof *x; i++)
		if (!isfinite(x[i]) || x[i] < 0)
			return false;
	return true;
}

static void parts_add_up_and_are_finite(void **state)
{
	int n = 0;
	for (int i = 0; i < 20000; i++) {
		struct plan_train_job j;
		struct plan_machine m = {0};
		struct plan_layout l;
		struct plan_step s, again;
		if (!random_case(&j, &m, &l))
			continue;
		const char *a = accelerators[roll(7)];
		struct plan_train_fit *f = fit_of(a, stacks[roll(5)]);
		m.accelerator = plan_accelerator_find(catalog, a);
		m.fit = f;
		plan_step_evaluate(&j, &m, &l, &s);
		plan_step_evaluate(&j, &m, &l, &again);
		assert_memory_equal(&s, &again, sizeof s);
		assert_true(finite_step(&s));
		assert_true(s.total_s > 0 && s.mfu > 0 && s.memory.total > 0);
		/* by convention attention is counted whole, though a window computes less */
		assert_true(s.mfu < 1 || j.shape.window);
		double sum = s.product_s + s.attention_s + s.element_s + s.recompute_s + s.launch_s + s.bubble_s + s.tp_s + s.cp_s + s.ep_s + s.pp_s + s.dp_s + s.optimizer_s;
		assert_true(fabs(sum - s.total_s) <= 1e-12 * s.total_s);
		double bytes = s.memory.weights + s.memory.gradients + s.memory.optimizer + s.memory.activations + s.memory.logits + s.memory.buffers;
		assert_true(fabs(bytes - s.memory.total) <= 1e-12 * bytes);
		plan_train_fit_free(f);
		n++;
	}
	assert_true(n > 2000);
}

static void more_never_slows(void **state)
{
	for (int i = 0; i < 20000; i++) {
		struct plan_train_job j;
		struct plan_machine m = {0};
		struct plan_layout l;
		struct plan_step before, after;
		if (!random_case(&j, &m, &l))
			continue;
		const char *name = accelerators[roll(7)];
		struct plan_train_fit *f = fit_of(name, stacks[roll(5)]);
		struct plan_accelerator a = *plan_accelerator_find(catalog, name);
		m.accelerator = &a;
		m.fit = f;
		plan_step_evaluate(&j, &m, &l, &before);
		double times = 1.01 + roll(300) / 100.0;
		unsigned what = roll(7);
		switch (what) {
		case 0: for (int p = 0; p < PLAN_PRECISIONS; p++) a.peak[p] *= times; break;
		case 1: a.memory_bytes_s *= times; break;
		case 2: a.link_bytes_s *= times; break;
		case 3: a.host_bytes_s *= times; break;
		case 4: m.nic_bytes_s *= times; break;
		case 5: m.network.tier[1].taper = fmin(1, m.network.tier[1].taper * times); break;
		default: m.site_bytes_s *= times;
		}
		plan_step_evaluate(&j, &m, &l, &after);
		if (after.total_s > before.total_s * (1 + 1e-12))
			print_error("more of %u slows %s: %.12g s to %.12g s\n", what, name, before.total_s, after.total_s);
		assert_true(after.total_s <= before.total_s * (1 + 1e-12));
		plan_train_fit_free(f);
	}
}

/* ---- collectives ---- */

static void collectives_are_alpha_beta(void **state)
{
	struct plan_train_fit *f = fit_of("a100", "llm-foundry");
	struct plan_machine m = machine("a100", f, 64);
	const struct plan_accelerator *a = m.accelerator;
	double B = 1e9, node = plan_collective_s(&m, PLAN_ALL_REDUCE, B, 8, 8), alpha = f->latency_s + 14 * f->hop_s;
	assert_true(fabs(node - (2 * 7.0 / 8 * B / (a->link_bytes_s * f->link) + alpha)) < 1e-9);
	/* a group with one rank a node has an eighth of its ports */
	double thin = plan_collective_s(&m, PLAN_ALL_REDUCE, B, 8, 1), wide = plan_collective_s(&m, PLAN_ALL_REDUCE, B, 64, 8);
	assert_true(thin > 2 * 7.0 / 8 * B / (25e9 * f->nic) && thin < 1.01 * 2 * 7.0 / 8 * B / (25e9 * f->nic));
	assert_true(wide < thin / 3);
	assert_true(plan_collective_s(&m, PLAN_ALL_REDUCE, B, 1, 1) == 0);
	assert_true(plan_collective_s(&m, PLAN_ALL_GATHER, B, 8, 8) < node);
	/* measured all-reduces of 8 A100: 1 MiB 93 us, 16 MiB 232 us, 1 GiB 8.2 ms */
	f->link = 0.765;
	assert_true(fabs(plan_collective_s(&m, PLAN_ALL_REDUCE, 1 << 20, 8, 8) / 92.8e-6 - 1) < 0.15);
	assert_true(fabs(plan_collective_s(&m, PLAN_ALL_REDUCE, 16 << 20, 8, 8) / 232.4e-6 - 1) < 0.1);
	assert_true(fabs(plan_collective_s(&m, PLAN_ALL_REDUCE, 1 << 30, 8, 8) / 8.193e-3 - 1) < 0.03);
	plan_train_fit_free(f);
}

static void an_oversubscribed_tier_slows_what_crosses_it(void **state)
{
	struct plan_train_fit *f = fit_of("h100", "torchtitan");
	struct plan_machine m = machine("h100", f, 1024), thin = m;
	thin.network = (struct plan_network){.tiers = 2, .tier = {{.nodes = 32, .taper = 1}, {.nodes = 0, .taper = 1.0 / 7}}};
	struct plan_group inside = {32, 8}, across = {2, 512};
	assert_true(plan_group_collective_s(&thin, PLAN_ALL_REDUCE, 1e9, inside, 1) == plan_group_collective_s(&m, PLAN_ALL_REDUCE, 1e9, inside, 1));
	assert_true(plan_group_collective_s(&thin, PLAN_SEND, 1e9, across, 1) > 6 * plan_group_collective_s(&m, PLAN_SEND, 1e9, across, 1));
	plan_train_fit_free(f);
}

/* ---- the search ---- */

static double brute_force(const struct plan_train_job *j, const struct plan_machine *m, double limit, double *least)
{
	double best = INFINITY;
	*least = INFINITY;
	struct plan_layout l = {0};
	for (l.tp = 1; l.tp <= 8; l.tp++)
		for (l.pp = 1; l.pp <= m->gpus; l.pp++)
			for (l.cp = 1; l.cp <= m->gpus; l.cp *= 2)
				for (l.dp = 1; l.dp <= m->gpus; l.dp++)
					for (l.ep = 1; l.ep <= (j->shape.experts ? j->shape.experts : 1); l.ep++)
						for (l.micro = 1; l.micro <= j->batch; l.micro++)
							for (l.vp = 1; l.vp <= j->shape.L + 2; l.vp++)
								for (int k = 0; k < 12; k++) {
									l.zero = k % 4;
									l.recompute = (enum plan_recompute)(k / 4);
									l.seq_parallel = l.tp > 1;
									l.async_tp = l.tp > 1 && m->fit->async_tp > 0;
									struct plan_step s;
									int chunks = l.pp * l.vp, L = j->shape.L;
									bool even = ceil((double)L / l.pp) * l.pp <= 1.25 * L && (l.vp == 1 || L % chunks == 0 || (l.pp > 1 && (L + 2) % chunks == 0));
									if (!even || (l.cp > 1 && j->seq / l.cp < 1024) || plan_layout_invalid(j, m, &l))
										continue;
									plan_step_evaluate(j, m, &l, &s);
									*least = fmin(*least, s.memory.total);
									if (s.memory.total <= limit)
										best = fmin(best, s.total_s);
								}
	return best;
}

static bool same(const struct plan_candidate *a, const struct plan_candidate *b)
{
	const struct plan_layout *x = &a->layout, *y = &b->layout;
	return a->step_s == b->step_s && a->memory_bytes == b->memory_bytes && a->energy_j == b->energy_j && x->tp == y->tp && x->pp == y->pp && x->dp == y->dp && x->cp == y->cp && x->ep == y->ep &&
	       x->vp == y->vp && x->zero == y->zero && x->recompute == y->recompute && x->seq_parallel == y->seq_parallel && x->async_tp == y->async_tp && x->micro == y->micro;
}

static void search_finds_the_best(void **state)
{
	struct stave_shape shapes[] = {gpt(12, 2048, 16, 50257, 2048), llama(10, 2048, 16, 4, 5632, 32000), mixtral()};
	shapes[2].L = 4;
	for (int i = 0; i < 3; i++) {
		struct plan_train_fit *f = fit_of("h100", i ? "torchtitan" : "megatron");
		struct plan_machine m = machine("h100", f, 16);
		struct plan_train_job j = {.shape = shapes[i], .seq = 4096, .batch = 32, .precision = PLAN_BF16};
		double least, all = brute_force(&j, &m, INFINITY, &least);
		for (double limit = least; limit < 40 * least; limit *= 3) {
			struct plan_search s, again;
			struct stave_err e = {0};
			double best = brute_force(&j, &m, limit, &least);
			assert_int_equal(plan_search_layouts(&j, &m, NULL, limit, &s, &e), 0);
			assert_int_equal(plan_search_layouts(&j, &m, NULL, limit, &again, &e), 0);
			assert_true(s.best.step_s == best && s.least_memory_bytes == least && best >= all);
			assert_int_equal(s.fronts, again.fronts);
			for (int k = 0; k < s.fronts; k++)
				assert_true(same(&s.front[k], &again.front[k]));
			assert_true(s.fronts > 0 && s.front[0].step_s == s.best.step_s);
			for (int k = 0; k < s.fronts; k++) {
				assert_true(s.front[k].memory_bytes <= limit && isfinite(s.front[k].energy_j) && s.front[k].energy_j > 0);
				assert_null(plan_layout_invalid(&j, &m, &s.front[k].layout));
				assert_true(!k || (s.front[k].step_s > s.front[k - 1].step_s && s.front[k].memory_bytes < s.front[k - 1].memory_bytes));
			}
			plan_search_free(&s);
			plan_search_free(&again);
		}
		plan_train_fit_free(f);
	}
}

static void what_is_fixed_stays(void **state)
{
	struct plan_train_fit *f = fit_of("a100", "megatron");
	struct plan_machine m = machine("a100", f, 1024);
	struct plan_train_job j = {.shape = gpt(96, 12288, 96, 51200, 2048), .seq = 2048, .batch = 1536, .precision = PLAN_BF16};
	struct plan_layout fixed = {.tp = 8, .zero = 1, .recompute = PLAN_FULL, .micro = 1};
	struct plan_search s;
	struct stave_err e = {0};
	assert_int_equal(plan_search_layouts(&j, &m, &fixed, 75e9, &s, &e), 0);
	for (int i = 0; i < s.fronts; i++) {
		const struct plan_layout *l = &s.front[i].layout;
		assert_true(l->tp == 8 && l->zero == 1 && l->recompute == PLAN_FULL && l->micro == 1);
	}
	plan_search_free(&s);
	plan_train_fit_free(f);
}

static void what_does_not_fit_says_why(void **state)
{
	struct plan_train_fit *f = fit_of("a100", "megatron");
	struct plan_machine m = machine("a100", f, 8);
	struct plan_train_job j = {.shape = gpt(96, 12288, 96, 51200, 2048), .seq = 2048, .batch = 1536, .precision = PLAN_BF16};
	struct plan_search s;
	struct stave_err e = {0};
	assert_int_equal(plan_search_layouts(&j, &m, NULL, 75e9, &s, &e), STAVE_ENOFIT);
	assert_non_null(strstr(e.msg, "memory binds"));
	assert_non_null(strstr(e.msg, "devices would do"));
	j.batch = 7;
	m.gpus = 1031; /* a prime, and no divisor of the batch */
	assert_int_equal(plan_search_layouts(&j, &m, NULL, 75e9, &s, &e), STAVE_ENOFIT);
	assert_non_null(strstr(e.msg, "batch"));
	plan_train_fit_free(f);
}

static void invalid_layouts_are_named(void **state)
{
	struct plan_train_fit *f = fit_of("a100", "megatron");
	struct plan_machine m = machine("a100", f, 16);
	struct plan_train_job j = {.shape = gpt(12, 2048, 16, 50257, 2048), .seq = 2048, .batch = 32, .precision = PLAN_BF16};
	const struct plan_layout good = {.tp = 2, .pp = 2, .dp = 4, .cp = 1, .ep = 1, .vp = 1, .micro = 1};
	assert_null(plan_layout_invalid(&j, &m, &good));
	struct plan_layout ends = good;
	ends.vp = 7;
	assert_null(plan_layout_invalid(&j, &m, &ends));
	struct plan_layout bad[] = {good, good, good, good, good, good, good};
	bad[0].dp = 3;
	bad[1].tp = 0;
	bad[2].ep = 2;
	bad[3].micro = 3;
	bad[4].zero = 4;
	bad[5].vp = 8; /* 16 stages: 12 layers, embedding and classifier fill 14 */
	bad[6].micro = 1 << 30;
	for (int i = 0; i < 7; i++)
		assert_non_null(plan_layout_invalid(&j, &m, &bad[i]));
	plan_train_fit_free(f);
}

/* ---- fits ---- */

static void unknown_pairs_take_the_nearest(void **state)
{
	struct plan_train_fit *known = fit_of("h100", "torchtitan"), *other = fit_of("b200", "torchtitan"), *stack = fit_of("h100", "fsdp"), *far = fit_of("tpu v5e", "unheard-of");
	assert_true(known->widen == 1 && other->widen > 1 && stack->widen > 1 && far->widen > other->widen);
	assert_string_equal(other->accelerator, "h100-sxm");
	assert_string_equal(stack->accelerator, "h100-sxm");
	assert_true(other->error_p90 * other->widen > known->error_p90);
	/* newer devices reach a smaller share of peak, a capped one too */
	assert_true(plan_train_power(known, plan_accelerator_find(catalog, "b200")) < 1);
	assert_true(plan_train_power(known, plan_accelerator_find(catalog, "a100")) > 1);
	plan_train_fit_free(known);
	plan_train_fit_free(other);
	plan_train_fit_free(stack);
	plan_train_fit_free(far);
	assert_int_equal(plan_train_fit_open(&known, NULL, plan_accelerator_find(catalog, "h100"), NULL, NULL), 0);
	assert_true(known->product > 0 && known->error_p50 > 0);
	plan_train_fit_free(known);
}

static void put(const char *path, const char *text)
{
	struct stave_err e = {0};
	if (stave_file_write(path, text, strlen(text), &e))
		fail_msg("%s", e.msg);
}

/* A fit written is a fit read; and what is wrong in one is an error with its line. */
static void fits_are_read_as_written(void **state)
{
	char dir[] = "/tmp/stave-fits-XXXXXX", path[64], *text = NULL;
	size_t n = 0;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/fits-train.yaml", dir);
	struct plan_train_fit *f = fit_of("a100", "megatron-deepspeed"), *back;
	FILE *to = open_memstream(&text, &n);
	fputs("fits:\n", to);
	plan_train_fit_write(f, to);
	fclose(to);
	put(path, text);
	struct plan_catalog *c;
	struct stave_err e = {0};
	if (plan_catalog_open(&c, dir, &e) || plan_train_fit_open(&back, c, plan_accelerator_find(c, "a100"), "megatron-deepspeed", &e))
		fail_msg("%s", e.msg);
	assert_true(fabs(back->product / f->product - 1) < 1e-3 && fabs(back->launch_s / f->launch_s - 1) < 1e-3 && back->rows == f->rows && back->scatter == f->scatter);
	assert_true(fabs(back->error_p90 - f->error_p90) < 1e-4);
	plan_train_fit_free(back);
	plan_catalog_close(c);
	static const char *const wrong[] = {"fits:\n  - accelerator: a100-sxm-80gb\n    stack: x\n    constants: {prodict: 0.5}\n",
	                                    "fits:\n  - accelerator: a100-sxm-80gb\n    stack: x\n    constants: {product: 7}\n",
	                                    "fits:\n  - accelerator: a100-sxm-80gb\n    stack: x\n    like: x\n"};
	for (int i = 0; i < 3; i++) {
		put(path, wrong[i]);
		assert_int_equal(plan_catalog_open(&c, dir, &e), 0);
		assert_int_equal(plan_train_fit_open(&back, c, plan_accelerator_find(c, "a100"), "x", &e), STAVE_ECONFIG);
		assert_non_null(strstr(e.msg, "fits-train.yaml"));
		plan_catalog_close(c);
	}
	free(text);
	plan_train_fit_free(f);
	stave_remove_tree(dir, &e);
}

/* ---- calibration ---- */

static void write_row(FILE *to, int i, const struct plan_train_job *j, const struct plan_machine *m, const struct plan_layout *l)
{
	struct plan_step s;
	plan_step_evaluate(j, m, l, &s);
	fprintf(to,
	        "%s{\"id\": \"r%d\", \"kind\": \"train\", \"group\": \"synthetic\", \"source\": \"megatron\", \"notes\": \"\","
	        " \"model\": {\"name\": \"GPT\", \"params\": %lld, \"layers\": %d, \"hidden\": %d, \"ffn\": %d, \"heads\": %d, \"kv_heads\": %d, \"vocab\": %d, \"seq\": %d},"
	        " \"hardware\": {\"gpu\": \"A100-SXM-80GB\", \"gpus\": %d, \"gpus_per_node\": 8, \"inter_link\": \"1600 Gb/s per node\"},"
	        " \"parallel\": {\"tp\": %d, \"pp\": %d, \"dp\": %d, \"vp\": 1, \"zero\": 0, \"recompute\": \"full\", \"microbatch\": %d, \"global_batch\": %d, \"precision\": \"fp16\"},"
	        " \"measured\": {\"step_time_s\": %.9g}}",
	        i ? ",\n" : "[", i, (long long)stave_shape_params(&j->shape), j->shape.L, j->shape.C, j->shape.I, j->shape.H, j->shape.K, j->shape.V, j->seq, m->gpus, l->tp, l->pp, l->dp,
	        l->micro, j->batch, s.total_s);
}

static void calibration_recovers_the_constants(void **state)
{
	char path[] = "/tmp/stave-rows-XXXXXX";
	FILE *to = fdopen(mkstemp(path), "w");
	struct plan_train_fit *f = fit_of("a100", "megatron"), truth = *f, found;
	truth.product = 0.66;
	truth.traffic = 0.9;
	truth.launch_s = 33e-6;
	truth.nic = 0.6;
	static const int models[][3] = {{12, 1024, 16}, {16, 2048, 16}, {24, 4096, 32}, {40, 6144, 48}, {20, 1536, 16}};
	for (int i = 0; i < 120; i++) {
		const int *s = models[i % 5];
		int tp = 1 << roll(4), pp = s[0] % 4 ? 1 : 1 << roll(3), dp = 1 << roll(4), micro = 1 << roll(3);
		struct plan_machine m = machine("a100", &truth, tp * pp * dp);
		if (m.gpus < 8)
			m.nic_bytes_s *= m.gpus / 8.0;
		struct plan_train_job j = {.shape = gpt(s[0], s[1], s[2], 51200, 2048), .seq = 2048, .batch = dp * micro * pp * 4, .precision = PLAN_BF16};
		struct plan_layout l = {.tp = tp, .pp = pp, .dp = dp, .cp = 1, .ep = 1, .vp = 1, .micro = micro, .recompute = PLAN_FULL};
		write_row(to, i, &j, &m, &l);
	}
	fputs("]\n", to);
	fclose(to);
	struct plan_truths t;
	struct stave_err e = {0};
	double *residual;
	if (plan_truths_load(&t, catalog, path, &e) || plan_train_calibrate(&t, catalog, "a100", "megatron", &found, &residual, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(found.rows, 120);
	assert_true(fabs(found.product / truth.product - 1) < 0.05 && fabs(found.launch_s / truth.launch_s - 1) < 0.05);
	assert_true(found.error_mean < 0.01 && found.error_p90 < 0.02);
	assert_true(fabs(residual[0]) < 0.05);
	free(residual);
	assert_int_equal(plan_train_calibrate(&t, catalog, "h100", "torchtitan", &found, NULL, &e), STAVE_ECONFIG);
	assert_int_equal(plan_train_calibrate(&t, catalog, "abacus", "torchtitan", &found, NULL, &e), STAVE_ECONFIG);
	plan_truths_free(&t);
	plan_train_fit_free(f);
	unlink(path);
}

/* ---- measured runs ---- */

static double mean_error(const struct plan_truths *t, const struct plan_predictions *p, const char *group, const char *metric, int least)
{
	double sum = 0;
	int n = 0;
	for (int i = 0; i < p->n; i++)
		if (!p->p[i].skipped && !strcmp(t->row[p->p[i].row].group, group) && !strcmp(p->p[i].metric, metric)) {
			sum += fabs(plan_prediction_error(&p->p[i]));
			n++;
		}
	assert_true(n >= least);
	return sum / n;
}

static void measured_runs_are_predicted(void **state)
{
	const char *shared = getenv("STAVE_SHARED");
	char path[STAVE_PATH] = "";
	if (shared)
		snprintf(path, sizeof path, "%s/truth/measured.json", shared);
	if (!shared || !stave_exists(path)) {
		print_message("skipped: needs $STAVE_SHARED with truth/measured.json\n");
		skip();
	}
	struct plan_truths t;
	struct plan_predictions p = {0};
	struct stave_err e = {0};
	if (plan_truths_load(&t, catalog, path, &e) || plan_predict_train(&t, catalog, &p, &e))
		fail_msg("%s", e.msg);
	assert_true(mean_error(&t, &p, "megatron-sc21", "step_time", 21) <= 5);
	assert_true(mean_error(&t, &p, "mosaic-mpt", "step_time", 61) <= 5);
	assert_true(mean_error(&t, &p, "vtrain-single", "step_time", 240) <= 8);
	assert_true(mean_error(&t, &p, "torchtitan", "step_time", 32) <= 8);
	assert_true(mean_error(&t, &p, "korthikanti22-mem", "activation_memory", 24) <= 5);
	assert_true(mean_error(&t, &p, "korthikanti22-mem", "weights_memory", 8) <= 5);
	assert_true(mean_error(&t, &p, "vtrain-single", "layout_choice", 30) <= 3);
	free(p.p);
	plan_truths_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flops_are_those_of_the_paper),
		cmocka_unit_test(closed_forms_agree_with_the_counts),
		cmocka_unit_test(published_parameters),
		cmocka_unit_test(activations_are_those_of_the_table),
		cmocka_unit_test(state_shards_by_zero_stage),
		cmocka_unit_test(parts_add_up_and_are_finite),
		cmocka_unit_test(more_never_slows),
		cmocka_unit_test(collectives_are_alpha_beta),
		cmocka_unit_test(an_oversubscribed_tier_slows_what_crosses_it),
		cmocka_unit_test(search_finds_the_best),
		cmocka_unit_test(what_is_fixed_stays),
		cmocka_unit_test(what_does_not_fit_says_why),
		cmocka_unit_test(invalid_layouts_are_named),
		cmocka_unit_test(unknown_pairs_take_the_nearest),
		cmocka_unit_test(fits_are_read_as_written),
		cmocka_unit_test(calibration_recovers_the_constants),
		cmocka_unit_test(measured_runs_are_predicted),
	};
	return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
