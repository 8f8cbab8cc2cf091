/* stave bench train: training steps on random tokens, timed and set beside three other numbers taken in the same run or
 * before it: the matrix peak of this machine, measured just now; the step time forecast from the machine profile alone; and,
 * if asked, what an independent PyTorch program reaches with the same model and batch. Machines are noisy, so only such
 * ratios mean anything.
 *
 * A step here is a step of train/: forward, backward, gradient norm, AdamW, with the same network and kernels; only the
 * corpus, the checkpoints and the bookkeeping are left out. The first two steps are not counted. */
#include "cli/bench.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/sys.h"
#include "kernel/kernel.h"
#include "model/model.h"

#define WARM_UP 2
#define STEPS_MAX 1000
#define CHUNK 65536 /* floats a thread updates at a time */

enum { AUTO, F32, BF16 };

struct options {
	char *model, *profile, *peer;
	int64_t vocab, batch, seq, steps;
	int dtype, recompute;
	bool predict, json;
};
#define AT(field) offsetof(struct options, field)
static const struct stave_key keys[] = {
	{"model", STAVE_KEY_STR, AT(model), "gpt2-124m", 0, 0, NULL, "preset, or Hugging Face directory (for its shape; weights are random)"},
	{"vocab", STAVE_KEY_INT, AT(vocab), "0", 0, 1 << 22, NULL, "vocabulary of a preset in tokens; 0: 50257"},
	{"batch", STAVE_KEY_INT, AT(batch), "4", 1, 65536, NULL, "rows of a step"},
	{"seq", STAVE_KEY_INT, AT(seq), "256", 1, 1 << 20, NULL, "tokens of a row"},
	{"dtype", STAVE_KEY_CHOICE, AT(dtype), "auto", 0, 0, "auto|f32|bf16", "of activations and products; auto: bf16 where the CPU has it"},
	{"recompute", STAVE_KEY_CHOICE, AT(recompute), "none", 0, 0, "none|cheap|layer", "what backward computes again instead of keeping"},
	{"steps", STAVE_KEY_INT, AT(steps), "8", 1, STEPS_MAX, NULL, "steps timed, after two that are not"},
	{"profile", STAVE_KEY_STR, AT(profile), NULL, 0, 0, NULL, "machine profile the forecast is made from (default: as written by bench machine)"},
	{"peer", STAVE_KEY_STR, AT(peer), NULL, 0, 0, NULL, "path of torch_ref.py: run its `speed` with the same batch and print the ratio"},
	{"predict", STAVE_KEY_BOOL, AT(predict), "false", 0, 0, NULL, "table of forecast and measured step time: two families, three sizes, each type"},
	{"json", STAVE_KEY_BOOL, AT(json), "false", 0, 0, NULL, "print one JSON document"},
};
#undef AT

/* Seconds of one step. */
struct times {
	double step, matmul, attention, element, loss, optimizer;
};
struct result {
	struct stave_shape shape;
	enum stave_dtype dtype;
	int B, T;
	struct times median;    /* of the step that is the median */
	double best_s, peak, first_loss, last_loss;
	bool forecast_known;
	struct stave_forecast forecast;
};

/* ---- one training run ---- */

struct rig {
	struct stave_layout layout;
	struct stave_net *net;
	struct stave_arena arena;
	float *p, *g, *m, *v;
	int32_t *tokens; /* (B, T) inputs, then targets */
};

static void take(struct rig *r, struct stave_arena *a, size_t rows)
{
	size_t bytes = (size_t)r->layout.n * 4;
	r->p = stave_arena_take(a, bytes);
	r->g = stave_arena_take(a, bytes);
	r->m = stave_arena_take(a, bytes);
	r->v = stave_arena_take(a, bytes);
	r->tokens = stave_arena_take(a, rows * 2 * sizeof *r->tokens);
}

static int rig_open(struct rig *r, const struct stave_net_config *c, struct stave_err *err)
{
	size_t rows = (size_t)c->B * (size_t)c->T;
	struct stave_net_memory net;
	struct stave_arena plan = stave_arena_plan("bench");
	*r = (struct rig){0};
	int rc = stave_net_plan(c, &net, err);
	if (rc || (rc = stave_layout_open(&r->layout, &c->shape, err)))
		return rc;
	take(r, &plan, rows);
	if ((rc = stave_arena_open(&r->arena, "bench", plan.used + net.total, err)))
		return rc;
	take(r, &r->arena, rows);
	stave_weights_init(&r->layout, r->p, 1);
	for (size_t i = 0; i < 2 * rows; i++)
		r->tokens[i] = (int32_t)(stave_random64(3, i) % (uint64_t)c->shape.V);
	return stave_net_open(&r->net, c, &r->layout, r->p, r->g, &r->arena, err);
}

static void rig_close(struct rig *r)
{
	stave_net_close(r->net);
	stave_arena_close(&r->arena);
	stave_layout_close(&r->layout);
}

/* Gradient norm, then AdamW, as a run with clipping does. */
static void update(struct rig *r, int64_t tokens, int step)
{
	const struct stave_kernels *k = stave_kernels();
	const int64_t n = r->layout.n;
	uint16_t *w16 = stave_net_weights16(r->net);
	double sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
	for (int64_t i = 0; i < n; i += CHUNK)
		sum += k->sumsq(r->g + i, (size_t)(n - i < CHUNK ? n - i : CHUNK));
	float norm = (float)(sqrt(sum) / (double)tokens), scale = fminf(1, 1 / (norm + 1e-6f)) / (float)tokens;
	float c1 = 1 - powf(0.9f, (float)step), c2 = 1 - powf(0.95f, (float)step);
#pragma omp parallel for schedule(static)
	for (int64_t i = 0; i < n; i += CHUNK)
		k->adamw(r->p + i, w16 ? w16 + i : NULL, r->m + i, r->v + i, r->g + i, (size_t)(n - i < CHUNK ? n - i : CHUNK), scale, 1e-4f, 0.9f, 0.95f,
		         1e-8f, 0.1f, c1, c2);
}

static struct times step(struct rig *r, const struct stave_batch *b, int number, double *loss)
{
	struct times t;
	int64_t tokens;
	double sum, start = stave_now_s();
	stave_net_times(r->net);
	stave_net_forward(r->net, b, true, &sum, &tokens);
	stave_net_backward(r->net, b, true, NULL, NULL);
	double computed = stave_now_s();
	update(r, tokens, number);
	t.step = stave_now_s() - start;
	t.optimizer = start + t.step - computed;
	struct stave_net_times n = stave_net_times(r->net);
	t.matmul = n.matmul_s;
	t.attention = n.attention_s;
	t.element = n.element_s;
	t.loss = n.loss_s;
	*loss = sum / (double)tokens;
	return t;
}

static int by_step(const void *a, const void *b)
{
	double x = ((const struct times *)a)->step, y = ((const struct times *)b)->step;
	return (x > y) - (x < y);
}

static int run(const struct stave_net_config *c, int steps, struct result *out, struct stave_err *err)
{
	struct rig r;
	struct times *t = calloc((size_t)steps, sizeof *t);
	int rc = t ? rig_open(&r, c, err) : stave_err_set(err, STAVE_ENOMEM, "no memory for %d timings", steps);
	if (!t)
		return rc;
	if (!rc) {
		struct stave_batch b = {.inputs = r.tokens, .targets = r.tokens + (size_t)c->B * (size_t)c->T};
		for (int i = 0; i < WARM_UP + steps && !stave_stop_requested(); i++) {
			double loss;
			struct times one = step(&r, &b, i + 1, &loss);
			if (i >= WARM_UP)
				t[i - WARM_UP] = one;
			*(i ? &out->last_loss : &out->first_loss) = loss;
			stave_progress(false, "step %d of %d: %.1f tokens/s", i + 1, WARM_UP + steps, c->B * c->T / one.step);
		}
		if (stave_stop_requested())
			rc = stave_err_set(err, STAVE_EINTERRUPTED, "interrupted");
		qsort(t, (size_t)steps, sizeof *t, by_step);
		out->median = t[steps / 2];
		out->best_s = t[0].step;
		out->shape = c->shape;
		out->dtype = c->dtype;
		out->B = c->B;
		out->T = c->T;
	}
	rig_close(&r);
	free(t);
	return rc;
}

static void forecast(struct result *r, const struct stave_machine *m, enum stave_recompute re)
{
	struct stave_op ops[STAVE_OPS_MAX];
	if (!m)
		return;
	r->forecast = stave_machine_forecast(m, ops, stave_cost_train_ops(&r->shape, r->B, r->T, 1, r->dtype, re, ops));
	r->forecast_known = true;
}

/* ---- the peer ---- */

/* What the program wrote to stdout, from fd, at most `size` - 1 bytes. */
static void read_all(int fd, char *out, size_t size)
{
	size_t at = 0;
	ssize_t n;
	while (at + 1 < size && (n = read(fd, out + at, size - 1 - at)) > 0)
		at += (size_t)n;
	out[at] = 0;
}

static int spawn(const char *path, char *const argv[], char *out, size_t size, struct stave_err *err)
{
	int fd[2], status;
	char threads[16];
	snprintf(threads, sizeof threads, "%d", stave_threads());
	if (pipe(fd))
		return stave_err_errno(err, "peer: no pipe");
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fd[1], 1);
		close(fd[0]);
		close(fd[1]);
		setenv("THREADS", threads, 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(fd[1]);
	if (pid > 0)
		read_all(fd[0], out, size);
	close(fd[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return stave_err_errno(err, "peer: could not be started");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return stave_err_set(err, STAVE_EFAIL, "peer: python3 %s failed; it needs python3-torch and python3-numpy", path);
	return 0;
}

/* Tokens per second of the peer's best and median step. Its speed test has one model per family, of 124M parameters. */
static int run_peer(const char *path, const struct result *r, int steps, double *best, double *median, struct stave_err *err)
{
	static const char *const families[STAVE_FAMILIES] = {[STAVE_GPT2] = "gpt2", [STAVE_LLAMA] = "llama", [STAVE_QWEN3] = "qwen3"};
	const struct stave_shape *s = &r->shape;
	const char *family = families[s->family];
	char B[16], T[16], n[16], text[4096];
	if (!family || s->L != 12 || s->C != 768 || s->H != 12 || s->V != 50257)
		return stave_err_set(err, STAVE_EUSAGE, "the peer only knows gpt2-124m, llama-124m and qwen3-124m with 50257 tokens");
	snprintf(B, sizeof B, "%d", r->B);
	snprintf(T, sizeof T, "%d", r->T);
	snprintf(n, sizeof n, "%d", WARM_UP + steps);
	char *argv[] = {"python3", (char *)(uintptr_t)path, "speed", (char *)(uintptr_t)family, B, T, r->dtype == STAVE_BF16 ? "bf16" : "f32", n, NULL};
	stave_progress(false, "peer: python3 %s speed %s %s %s", path, family, B, T);
	int rc = spawn(path, argv, text, sizeof text, err);
	json_t *j = NULL;
	if (rc || (rc = stave_json_parse(&j, text, strlen(text), "the peer's answer", err)))
		return rc;
	if (!(rc = stave_json_real(j, "tokens_per_s_best", 0, best, "the peer's answer", err)))
		rc = stave_json_real(j, "tokens_per_s_median", 0, median, "the peer's answer", err);
	if (!rc && (*best <= 0 || *median <= 0))
		rc = stave_err_set(err, STAVE_EFAIL, "the peer's answer has no rates: %.200s", text);
	json_decref(j);
	return rc;
}

/* ---- what is said ---- */

static double tokens(const struct result *r) { return (double)r->B * r->T; }
static double mfu(const struct result *r, double step_s)
{
	return stave_train_flops_per_token(&r->shape, r->T) * tokens(r) / step_s / r->peak;
}

static json_t *classes_json(double matmul, double attention, double element, double loss, double optimizer)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "matmul_s", matmul, "attention_s", attention, "element_s", element, "loss_s", loss, "optimizer_s", optimizer);
}

static json_t *result_json(const struct result *r, const char *model)
{
	const struct times *t = &r->median;
	const struct stave_forecast *f = &r->forecast;
	json_t *j = json_pack("{s:s, s:I, s:i, s:i, s:s, s:i}", "model", model, "parameters", (json_int_t)stave_shape_params(&r->shape), "batch", r->B, "seq",
	                      r->T, "dtype", r->dtype == STAVE_BF16 ? "bf16" : "f32", "threads", stave_threads());
	json_object_set_new(j, "tokens_per_s", json_real(tokens(r) / r->best_s));
	json_object_set_new(j, "tokens_per_s_median", json_real(tokens(r) / t->step));
	json_object_set_new(j, "step_s", json_real(t->step));
	json_object_set_new(j, "step_s_best", json_real(r->best_s));
	json_object_set_new(j, "peak_flop_s", json_real(r->peak));
	json_object_set_new(j, "mfu", json_real(mfu(r, r->best_s)));
	json_object_set_new(j, "mfu_median", json_real(mfu(r, t->step)));
	json_object_set_new(j, "loss_first", json_real(r->first_loss));
	json_object_set_new(j, "loss_last", json_real(r->last_loss));
	json_object_set_new(j, "classes", classes_json(t->matmul, t->attention, t->element, t->loss, t->optimizer));
	if (!r->forecast_known) {
		json_object_set_new(j, "predicted_step_s", json_null());
		return j;
	}
	json_object_set_new(j, "predicted_step_s", json_real(f->step_s));
	json_object_set_new(j, "predicted_over_measured", json_real(f->step_s / r->median.step));
	json_object_set_new(j, "predicted_classes", classes_json(f->matmul_s, f->attention_s, f->element_s, f->loss_s, f->optimizer_s));
	json_object_set_new(j, "shortest_stave", json_string(f->shortest));
	return j;
}

static void print_class(const struct result *r, const char *name, double measured, double predicted)
{
	printf("  %-12s %10.2f ms %5.1f %%", name, measured * 1e3, 100 * measured / r->median.step);
	if (r->forecast_known)
		printf("   forecast %10.2f ms", predicted * 1e3);
	putchar('\n');
}

static void print_result(const struct result *r, const char *model)
{
	const struct times *t = &r->median;
	const struct stave_forecast *f = &r->forecast;
	printf("%s, %d x %d tokens, %s, %d threads\n", model, r->B, r->T, r->dtype == STAVE_BF16 ? "bf16" : "f32", stave_threads());
	printf("  tokens/s     %10.1f best, %.1f median\n", tokens(r) / r->best_s, tokens(r) / t->step);
	printf("  MFU          %10.1f %% best, %.1f %% median, of %.1f GFLOP/s measured now (6N + 12LHDT per token)\n", 100 * mfu(r, r->best_s),
	       100 * mfu(r, t->step), r->peak * 1e-9);
	print_class(r, "matrices", t->matmul, f->matmul_s);
	print_class(r, "attention", t->attention, f->attention_s);
	print_class(r, "elementwise", t->element, f->element_s);
	print_class(r, "loss", t->loss, f->loss_s);
	print_class(r, "optimizer", t->optimizer, f->optimizer_s);
	print_class(r, "step", t->step, f->step_s);
	if (r->forecast_known)
		printf("  forecast is %+.1f %% off the median step; shortest stave: %s (%.0f %%)\n", 100 * (f->step_s / r->median.step - 1), f->shortest,
		       100 * f->shortest_share);
}

/* ---- the verb ---- */

static int net_config(struct stave_net_config *c, const char *model, int V, int B, int T, enum stave_dtype dtype, struct stave_err *err)
{
	*c = (struct stave_net_config){.B = B, .T = T, .dtype = dtype, .train = true};
	int rc = stave_is_dir(model) ? stave_shape_load(&c->shape, model, err) : stave_preset(&c->shape, model, V, err);
	if (!rc && c->shape.learned_pos && T > c->shape.T_max)
		return stave_err_set(err, STAVE_ECONFIG, "%s has positions for %d tokens; --seq %d is too long", model, c->shape.T_max, T);
	return rc;
}

static int bench_one(const struct options *o, const struct stave_machine *m, struct stave_err *err)
{
	struct stave_net_config c;
	struct result r = {0};
	double best = 0, median = 0;
	enum stave_dtype dtype = o->dtype == F32 || (o->dtype == AUTO && !stave_has_bf16()) ? STAVE_F32 : STAVE_BF16;
	int rc = net_config(&c, o->model, (int)o->vocab, (int)o->batch, (int)o->seq, dtype, err);
	if (rc)
		return rc;
	c.recompute = (enum stave_recompute)o->recompute;
	double before = bench_peak(dtype, 1);
	if ((rc = run(&c, (int)o->steps, &r, err)))
		return rc;
	r.peak = fmax(before, bench_peak(dtype, 1)); /* before and after: whoever disturbed one may have spared the other */
	if (o->peer && (rc = run_peer(o->peer, &r, (int)o->steps, &best, &median, err)))
		return rc;
	forecast(&r, m, c.recompute);
	stave_progress(true, "%s: %.1f tokens/s", o->model, tokens(&r) / r.best_s);
	if (!o->json) {
		print_result(&r, o->model);
		if (o->peer)
			printf("  peer         %10.1f tokens/s best, %.1f median: stave is %.2f times its best, %.2f times its median\n", best, median,
			       tokens(&r) / r.best_s / best, tokens(&r) / r.median.step / median);
		return 0;
	}
	json_t *j = result_json(&r, o->model);
	if (o->peer)
		json_object_set_new(j, "peer", json_pack("{s:f, s:f, s:f, s:f}", "tokens_per_s", best, "tokens_per_s_median", median, "ratio",
		                                         tokens(&r) / r.best_s / best, "ratio_median", tokens(&r) / r.median.step / median));
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(j);
	return 0;
}

/* Two families, three sizes each: from one that fits in the cache to one whose weights alone are a gigabyte. */
static const struct {
	const char *model;
	int V, B, T;
} table[] = {
	{"nano", 65, 12, 64}, {"gpt2-124m", 0, 4, 256}, {"gpt2-350m", 0, 2, 256}, {"mini", 4096, 8, 256}, {"small", 8192, 4, 512}, {"llama-124m", 0, 4, 256},
};

static int bench_table(const struct options *o, const struct stave_machine *m, struct stave_err *err)
{
	json_t *list = json_array();
	int rc = 0, dtypes = stave_has_bf16() ? 2 : 1;
	double worst = 0;
	if (!o->json)
		printf("  %-12s %3s %5s %-5s %12s %12s %12s %8s\n", "model", "B", "T", "type", "forecast ms", "best ms", "median ms", "ratio");
	for (size_t i = 0; i < 2 * sizeof table / sizeof *table && !rc; i++) {
		struct stave_net_config c;
		struct result r = {0};
		const char *model = table[i / 2].model;
		if ((int)(i % 2) >= dtypes)
			continue;
		if ((rc = net_config(&c, model, table[i / 2].V, table[i / 2].B, table[i / 2].T, i % 2 ? STAVE_BF16 : STAVE_F32, err)) ||
		    (rc = run(&c, (int)o->steps, &r, err)))
			break;
		forecast(&r, m, STAVE_KEEP_ALL);
		r.peak = c.dtype == STAVE_BF16 ? m->peak_bf16 : m->peak_f32;
		double ratio = r.forecast.step_s / r.median.step; /* both are of the machine as it mostly is */
		worst = fmax(worst, fabs(ratio - 1));
		json_array_append_new(list, result_json(&r, model));
		if (!o->json)
			printf("  %-12s %3d %5d %-5s %12.2f %12.2f %12.2f %8.3f\n", model, r.B, r.T, stave_dtype_name(r.dtype), r.forecast.step_s * 1e3, r.best_s * 1e3,
			       r.median.step * 1e3, ratio);
		fflush(stdout);
	}
	if (!rc && o->json) {
		json_t *j = json_pack("{s:O, s:f}", "runs", list, "worst_error", worst);
		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(j);
	}
	json_decref(list);
	if (!rc)
		stave_progress(true, "worst forecast is off by %.1f %%", 100 * worst);
	return rc;
}

static int bench(const struct options *o, struct stave_err *err)
{
	struct stave_machine *m = calloc(1, sizeof *m);
	if (!m)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a machine profile");
	struct stave_err absent = {0};
	int rc = stave_machine_load(m, o->profile, &absent);
	if (rc && (o->profile || o->predict || absent.code == STAVE_ECORRUPT)) {
		free(m);
		return stave_err_set(err, absent.code, "%s; `stave bench machine` writes a profile", absent.msg);
	}
	if (rc)
		stave_log(STAVE_LOG_WARN, "no machine profile, so no forecast; `stave bench machine` writes one");
	else if (m->threads != stave_threads() || strcmp(m->level, stave_kernels()->level))
		stave_log(STAVE_LOG_WARN, "the machine profile is of %d threads at level %s, this run has %d at %s; expect its forecast to be off", m->threads,
		          m->level, stave_threads(), stave_kernels()->level);
	rc = o->predict ? bench_table(o, m, err) : bench_one(o, rc ? NULL : m, err);
	free(m);
	return rc;
}

int bench_train(int argc, char **argv)
{
	struct options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1];
	int n = 0, status = 0;
	bool help = false;
	if (stave_config_open(&c, keys, sizeof keys / sizeof *keys, &o, &err))
		return bench_failed(&err);
	if (stave_config_args(&c, argc, argv, false, positional, 1, &n, &help, &err)) {
		status = bench_failed(&err);
	} else if (help) {
		fputs("stave bench train: time training steps on random tokens, beside the machine's peak and the forecast.\n\n"
		      "  stave bench train --model gpt2-124m --batch 4 --seq 256 --dtype bf16 --steps 8 --json\n"
		      "  stave bench train --predict --steps 4\n\n"
		      "tokens_per_s and mfu are of the best step; those of the median step are beside them, and the forecast is held against that.\n\n", stdout);
		stave_config_help(&c, stdout);
	} else {
		if (n)
			stave_err_set(&err, STAVE_EUSAGE, "'%s' is no option of bench train; 'stave bench train -h' lists them", positional[0]);
		if (n || bench(&o, &err))
			status = bench_failed(&err);
	}
	stave_config_close(&c);
	return status;
}
