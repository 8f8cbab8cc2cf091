/* How fast the planner weighs layouts: step and memory of one layout, and the whole search of GPT-3 175B on 1,024 A100 80GB.
 *   bench_plan
 * One thread; each figure is the best of five. */
#include <stdio.h>
#include <stdlib.h>

#include "base/sys.h"
#include "plan/train/train.h"

static void must(int rc, const struct stave_err *e)
{
	if (rc) {
		fprintf(stderr, "%s\n", e->msg);
		exit(1);
	}
}

static double evaluations_s(const struct plan_train_job *j, const struct plan_machine *m, double *checksum)
{
	enum { N = 200000 };
	static const int tps[] = {1, 2, 4, 8}, pps[] = {1, 2, 4, 8, 16, 32};
	double began = stave_now_s();
	for (int i = 0; i < N; i++) {
		struct plan_layout l = {.tp = tps[i % 4], .pp = pps[i / 4 % 6], .cp = 1, .ep = 1, .vp = 1, .zero = i / 24 % 4, .recompute = (enum plan_recompute)(i / 96 % 3), .micro = 1};
		l.dp = 1024 / l.tp / l.pp;
		l.seq_parallel = l.tp > 1;
		struct plan_step s;
		plan_step_evaluate(j, m, &l, &s);
		*checksum += s.total_s + s.memory.total;
	}
	return N / (stave_now_s() - began);
}

int main(void)
{
	struct stave_err e = {0};
	struct plan_catalog *c;
	struct plan_train_fit *f;
	must(plan_catalog_open(&c, NULL, &e), &e);
	const struct plan_accelerator *a = plan_accelerator_find(c, "a100-sxm-80gb");
	must(plan_train_fit_open(&f, c, a, "megatron", &e), &e);
	struct plan_machine m = {.accelerator = a, .fit = f, .gpus = 1024, .gpus_per_node = 8, .nic_bytes_s = 200e9, .sites = 1};
	struct plan_train_job j = {.seq = 2048, .batch = 1536, .precision = PLAN_BF16,
	                           .shape = {.family = STAVE_GPT2, .L = 96, .C = 12288, .H = 96, .K = 96, .D = 128, .I = 49152, .V = 51200, .T_max = 2048, .act = STAVE_GELU_TANH,
	                                     .layernorm = true, .norm_bias = true, .learned_pos = true, .qkv_bias = true, .out_bias = true, .mlp_bias = true, .tied = true, .norm_eps = 1e-5f}};
	double rate = 0, seconds = 1e9, checksum = 0;
	struct plan_search s;
	for (int i = 0; i < 5; i++) {
		double r = evaluations_s(&j, &m, &checksum);
		rate = r > rate ? r : rate;
		must(plan_search_layouts(&j, &m, NULL, 75e9, &s, &e), &e);
		seconds = s.seconds < seconds ? s.seconds : seconds;
		if (i < 4)
			plan_search_free(&s);
	}
	const struct plan_layout *l = &s.best.layout;
	printf("step and memory of a layout   %.0f thousand/s on one thread (sum %.3g)\n", rate / 1e3, checksum);
	printf("search, GPT-3 175B on 1,024   %.1f ms, %ld layouts, %ld fit; best %.2f s: tensor %d, pipeline %d, data %d, virtual %d, ZeRO %d, recompute %d, micro-batch %d\n", 1e3 * seconds,
	       s.evaluated, s.feasible, s.best.step_s, l->tp, l->pp, l->dp, l->vp, l->zero, (int)l->recompute, l->micro);
	plan_search_free(&s);
	plan_train_fit_free(f);
	plan_catalog_close(c);
	return 0;
}
