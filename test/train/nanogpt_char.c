/* nanoGPT's CPU configuration for character-level Shakespeare (README, "I only have a macbook": 4 layers, 4 heads, 128
 * channels, 64 tokens, batch 12, 2000 iterations), reproduced through stave_train_run with PyTorch's random numbers: initial
 * weights and batches are drawn in the order the Python program draws them. The losses that program prints are known to four
 * digits from many unrelated machines; this test holds every one it reaches against them and exits 1 on a miss.
 *
 *   nanogpt_char TEXT [layers heads iterations] [--dtype f32|bf16] [--recompute none|cheap|layer] [--threads N] [--micro N]
 *                [--checkpoint-dir DIR [--every N] [--resume STEP]] [--kill-at N]
 *
 * Ranks come from mpirun. --kill-at raises SIGKILL in the middle of the run, after the step N; the same command with --resume must
 * then continue at the checkpoint of STEP, which is judged too, and end in the same digits. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/sys.h"
#include "train/mt19937.h"
#include "train/train.h"

enum { BATCH = 12, BLOCK = 64, EVAL_EVERY = 250, EVAL_BATCHES = 20, DECAY = 2000 };

/* ---- what nanoGPT prints ---- */

static const struct { int step; double train, val; } evals[] = {
	{0, 4.1676, 4.1649}, {250, 2.4293, 2.4447}, {500, 2.2732, 2.3141}, {750, 2.1338, 2.1905}, {1000, 1.9714, 2.0528},
	{1250, 1.8756, 2.0089}, {1500, 1.8557, 1.9225}, {1750, 1.7790, 1.8921}, {2000, 1.7648, 1.8857},
};
static const struct { int step; double loss; } losses[] = {
	{0, 4.1828}, {1, 4.1373}, {2, 4.1347}, {3, 4.0995}, {4, 4.0387}, {5, 3.9758}, {6, 3.9126}, {7, 3.8463}, {8, 3.8169}, {9, 3.7311},
	{10, 3.7366}, {100, 2.6635}, {200, 2.5039}, {300, 2.3350}, {400, 2.3405}, {500, 2.3827}, {600, 2.1762}, {700, 2.0947},
	{800, 2.2092}, {900, 2.0011}, {1000, 2.0455}, {1100, 1.7907}, {1200, 1.9533}, {1300, 1.9599}, {1400, 1.8251}, {1500, 1.8624},
	{1600, 1.7808}, {1700, 1.7163}, {1800, 1.8415}, {1900, 1.6849}, {2000, 1.6958},
};
static const struct { int step; double norm; } norms[] = {
	{0, 4.08899}, {1, 3.60326}, {2, 3.94355}, {3, 3.50664}, {4, 3.63100}, {5, 3.32720}, {100, 0.94134}, {500, 1.24748}, {1000, 1.68664}, {2000, 2.02871},
};
#define COUNT(x) ((int)(sizeof(x) / sizeof *(x)))

/* ---- data and random numbers ---- */

struct shakespeare {
	uint8_t *ids;
	int64_t n, n_train;
	int vocab, layers;
	float *init;             /* initial weights in the order of layout */
	struct mt19937 rng, before; /* before: as it was when `drawn` was not yet drawn */
	int64_t drawn;           /* train step whose rows are in at_train */
	int64_t evaluated[2];    /* step whose evaluation rows are in at_eval */
	int64_t at_train[BATCH], at_eval[2][BATCH * EVAL_BATCHES];
	/* judging */
	bool known, bf16, root;
	int misses, checks, kill_at;
};

static int load_text(struct shakespeare *s, const char *path, struct stave_err *err)
{
	struct stave_buf text = {0};
	int rc = stave_file_read(&text, path, (size_t)1 << 28, err), id[256];
	if (rc)
		return rc;
	bool seen[256] = {false};
	for (size_t i = 0; i < text.len; i++)
		seen[(uint8_t)text.p[i]] = true;
	for (int c = 0; c < 256; c++)
		id[c] = seen[c] ? s->vocab++ : 0;
	s->ids = malloc(text.len + 1);
	for (size_t i = 0; i < text.len; i++)
		s->ids[i] = (uint8_t)id[(uint8_t)text.p[i]];
	s->n = (int64_t)text.len;
	s->n_train = s->n * 9 / 10;
	stave_buf_free(&text);
	return 0;
}

/* The constructors of torch draw one number per element and are overwritten; then _init_weights visits the modules; then the
 * residual projections are drawn again. The head is the embedding, so its draw comes last and wins. */
static void draw_weights(struct shakespeare *s)
{
	const int C = 128, L = s->layers;
	const int64_t wte = (int64_t)s->vocab * C, wpe = BLOCK * C, qkv = 3 * C * C, proj = C * C, fc = 4 * C * C, layer = qkv + proj + 2 * fc;
	float *w = s->init = malloc((size_t)(wte + wpe + L * layer) * sizeof *w), *at = w + wte + wpe;
	for (int64_t i = 0; i < 2 * wte + wpe + L * layer; i++)
		mt_next(&s->rng);
	mt_normal(&s->rng, w, wte, 0.02f);
	mt_normal(&s->rng, w + wte, wpe, 0.02f);
	for (int l = 0; l < L; l++, at += layer) {
		mt_normal(&s->rng, at, qkv, 0.02f);
		mt_normal(&s->rng, at + qkv, proj, 0.02f);
		mt_normal(&s->rng, at + qkv + proj, fc, 0.02f);
		mt_normal(&s->rng, at + qkv + proj + fc, fc, 0.02f);
	}
	mt_normal(&s->rng, w, wte, 0.02f);
	at = w + wte + wpe;
	for (int l = 0; l < L; l++, at += layer) {
		mt_normal(&s->rng, at + qkv, proj, (float)(0.02 / sqrt(2.0 * L)));
		mt_normal(&s->rng, at + qkv + proj + fc, fc, (float)(0.02 / sqrt(2.0 * L)));
	}
}

static void init(void *ctx, const struct stave_layout *l, float *p)
{
	const struct shakespeare *s = ctx;
	const float *from = s->init;
	double sum = 0, squares = 0;
	int64_t count = 0;
	memset(p, 0, (size_t)l->n * sizeof *p);
	for (int i = 0; i < l->n_params; i++) {
		const struct stave_param *q = &l->params[i];
		int64_t n = (int64_t)q->rows * q->cols;
		for (int64_t k = 0; k < n; k++) {
			float x = p[q->offset + k] = q->vector ? 1 : *from++;
			sum += x;
			squares += (double)x * x;
		}
		count += n;
	}
	printf("parameters %lld, wte %.10f %.8f %.8f, sum %.6f, squares %.6f\n", (long long)count, p[l->wte], p[l->wte + 1], p[l->wte + 2], sum, squares);
}

static void draw(struct shakespeare *s, bool val, int64_t *at, int n)
{
	int64_t from = val ? s->n_train : 0, len = (val ? s->n - s->n_train : s->n_train) - BLOCK;
	for (int i = 0; i < n; i++)
		at[i] = from + mt_below(&s->rng, len);
}

static int fill(void *ctx, enum stave_set set, int64_t step, int64_t row0, int nrows, int T, int32_t *inputs, int32_t *targets,
                int32_t *start, int32_t *pos, struct stave_err *err)
{
	struct shakespeare *s = ctx;
	const int64_t *at = s->at_train;
	if (set == STAVE_SET_TRAIN) {
		if (s->drawn != step) {
			s->before = s->rng;
			draw(s, false, s->at_train, BATCH);
			s->drawn = step;
		}
	} else {
		int which = set == STAVE_SET_VAL;
		at = s->at_eval[which];
		if (s->evaluated[which] != step)
			draw(s, which, s->at_eval[which], BATCH * EVAL_BATCHES);
		s->evaluated[which] = step;
	}
	for (int i = 0; i < nrows; i++)
		for (int t = 0; t < T; t++) {
			inputs[i * T + t] = s->ids[at[row0 + i] + t];
			targets[i * T + t] = s->ids[at[row0 + i] + t + 1];
			start[i * T + t] = 0;
			pos[i * T + t] = t;
		}
	return 0;
}

static void state_save(void *ctx, int64_t step, void *to)
{
	struct shakespeare *s = ctx;
	memcpy(to, s->drawn == step ? &s->before : &s->rng, sizeof s->rng);
}

static int state_load(void *ctx, const void *from, struct stave_err *err)
{
	struct shakespeare *s = ctx;
	memcpy(&s->rng, from, sizeof s->rng);
	if (s->rng.at < 0 || s->rng.at > 624)
		return stave_err_set(err, STAVE_ECORRUPT, "the state of the generator is not one");
	s->drawn = -1;
	return 0;
}

/* ---- judging ---- */

static void judge(struct shakespeare *s, const char *what, int64_t step, double have, double want, double tolerance)
{
	bool ok = fabs(have - want) <= tolerance;
	s->checks++;
	s->misses += !ok;
	if (s->root)
		printf("%-10s %5lld  %.5f  expected %.5f  difference %+.5f%s\n", what, (long long)step, have, want, have - want, ok ? "" : "  MISS");
}

static void on_eval(void *ctx, const struct stave_train_eval *e)
{
	struct shakespeare *s = ctx;
	double tolerance = s->bf16 ? 0.003 : e->step <= 500 ? 0.0002 : 0.0005;
	bool found = false;
	for (int i = 0; s->known && i < COUNT(evals); i++)
		if (evals[i].step == e->step) {
			judge(s, "train", e->step, e->train_loss, evals[i].train, tolerance);
			judge(s, "validation", e->step, e->val_loss, evals[i].val, tolerance);
			found = true;
		}
	if (!found && s->root)
		printf("eval       %5lld  train %.5f validation %.5f\n", (long long)e->step, e->train_loss, e->val_loss);
	fflush(stdout);
}

static void on_step(void *ctx, const struct stave_train_step *e)
{
	struct shakespeare *s = ctx;
	double tolerance = s->bf16 ? 0.006 : e->step <= 500 ? 0.0002 : 0.0005;
	for (int i = 0; s->known && i < COUNT(losses); i++)
		if (losses[i].step == e->step)
			judge(s, "loss", e->step, e->loss, losses[i].loss, tolerance);
	for (int i = 0; s->known && i < COUNT(norms); i++)
		if (norms[i].step == e->step)
			judge(s, "norm", e->step, e->grad_norm, norms[i].norm, (s->bf16 ? 0.03 : e->step <= 500 ? 0.0005 : 0.005) * norms[i].norm);
	if (s->kill_at && e->step == s->kill_at)
		raise(SIGKILL);
}

/* ---- the command line ---- */

struct arguments {
	const char *text, *checkpoints;
	int layers, heads, iterations;
	const char *dtype, *recompute, *threads, *micro, *every;
	int resume_at, kill_at;
};

static int parse(struct arguments *a, int argc, char **argv)
{
	int *numbers[] = {&a->layers, &a->heads, &a->iterations}, n = 0;
	*a = (struct arguments){.layers = 4, .heads = 4, .iterations = 2000, .dtype = "f32", .recompute = "none", .threads = "0", .micro = "0", .every = "100"};
	for (int i = 1; i < argc; i++) {
		const struct { const char *name, **to; } options[] = {{"--dtype", &a->dtype}, {"--recompute", &a->recompute}, {"--threads", &a->threads},
			{"--micro", &a->micro}, {"--every", &a->every}, {"--checkpoint-dir", &a->checkpoints}};
		bool taken = false;
		for (int k = 0; k < COUNT(options); k++)
			if (!strcmp(argv[i], options[k].name) && i + 1 < argc) {
				*options[k].to = argv[++i];
				taken = true;
				break;
			}
		if (taken)
			continue;
		if (!strcmp(argv[i], "--resume") && i + 1 < argc) {
			if ((a->resume_at = atoi(argv[++i])) < 1)
				return -1;
		} else if (!strcmp(argv[i], "--kill-at") && i + 1 < argc)
			a->kill_at = atoi(argv[++i]);
		else if (argv[i][0] == '-' || n > 3)
			return -1;
		else if (n++ == 0)
			a->text = argv[i];
		else
			*numbers[n - 2] = atoi(argv[i]);
	}
	return a->text && a->layers > 0 && a->heads > 0 && a->iterations >= 0 ? 0 : -1;
}

static int configure(struct stave_config *c, const struct arguments *a, const char *out, struct stave_err *err)
{
	char layers[16], heads[16], steps[16], runs[STAVE_PATH];
	snprintf(layers, sizeof layers, "%d", a->layers);
	snprintf(heads, sizeof heads, "%d", a->heads);
	snprintf(steps, sizeof steps, "%d", a->iterations + 1); /* nanoGPT's loop includes its last iteration */
	snprintf(runs, sizeof runs, "%s/runs", out);
	const char *const values[][2] = {
		{"model", "gpt2-124m"}, {"shape.layers", layers}, {"shape.heads", heads}, {"shape.channels", "128"}, {"shape.context", "64"},
		{"shape.act", "gelu"}, {"shape.bias", "no"}, {"shape.tied", "yes"}, {"out", out}, {"runs", runs}, {"resume", a->resume_at ? "auto" : "no"},
		{"threads", a->threads}, {"train.steps", steps}, {"train.batch", "12"}, {"train.micro_batch", a->micro}, {"train.seq", "64"},
		{"train.lr", "1e-3"}, {"train.min_lr", "1e-4"}, {"train.warmup", "100"}, {"train.decay_steps", "2000"}, {"train.beta1", "0.9"},
		{"train.beta2", "0.99"}, {"train.weight_decay", "0.1"}, {"train.clip", "1"}, {"train.dtype", a->dtype}, {"train.recompute", a->recompute},
		{"train.doc_mask", "false"}, {"train.eval_every", "250"}, {"train.eval_batches", "20"}, {"checkpoint.every", a->checkpoints ? a->every : "0"},
	};
	int rc = 0;
	for (int i = 0; !rc && i < COUNT(values); i++)
		rc = stave_config_set(c, values[i][0], values[i][1], values[i][0], 3, err);
	return rc;
}

static int run(const struct arguments *a, struct shakespeare *s, struct stave_comm *comm, const char *out, struct stave_err *err)
{
	struct stave_train o;
	struct stave_config c;
	struct stave_train_result r;
	struct stave_train_job job = {.options = &o, .comm = comm, .hooks = {s, init, on_eval, on_step}, .eos = -1, .bos = -1, .config = &c};
	int rc = stave_config_open(&c, stave_train_keys, (size_t)stave_train_n_keys, &o, err);
	if (rc)
		return rc;
	job.batches = (struct stave_batches){.ctx = s, .fill = fill, .has_val = true, .state_bytes = sizeof s->rng, .state_save = state_save, .state_load = state_load};
	if (!(rc = configure(&c, a, out, err)) && !(rc = stave_train_shape(&o, s->vocab, &job.shape, err)))
		rc = stave_train_run(&job, &r, err);
	if (!rc) {
		if (a->resume_at)
			judge(s, "resumed at", a->resume_at, (double)r.first_step, a->resume_at, 0);
		if (s->root)
			printf("%.1f s, %.0f tokens/s, losses %016llx, weights %016llx\n", r.seconds, r.tokens_per_s, (unsigned long long)r.losses_hash, (unsigned long long)r.weights_hash);
		json_decref(r.receipt);
	}
	stave_config_close(&c);
	return rc;
}

int main(int argc, char **argv)
{
	struct arguments a;
	struct stave_err err = {0};
	struct stave_comm *comm;
	static struct shakespeare s;
	char own[] = "/tmp/nanogpt_char.XXXXXX";
	if (parse(&a, argc, argv)) {
		fprintf(stderr, "usage: nanogpt_char TEXT [layers heads iterations] [--dtype f32|bf16] [--recompute none|cheap|layer] [--threads N] "
		                "[--micro N] [--checkpoint-dir DIR [--every N] [--resume STEP]] [--kill-at N]\n");
		return 2;
	}
	if (stave_comm_open(&comm, &err) || load_text(&s, a.text, &err)) {
		fprintf(stderr, "%s\n", err.msg);
		return stave_err_exit(err.code);
	}
	s.root = stave_comm_rank(comm) == 0;
	s.layers = a.layers;
	s.known = a.layers == 4 && a.heads == 4;
	s.bf16 = !strcmp(a.dtype, "bf16");
	s.kill_at = a.kill_at;
	s.drawn = s.evaluated[0] = s.evaluated[1] = -1;
	mt_seed(&s.rng, 1337);
	draw_weights(&s);
	const char *out = a.checkpoints ? a.checkpoints : mkdtemp(own);
	int rc = run(&a, &s, comm, out, &err);
	if (rc)
		fprintf(stderr, "%s\n", err.msg);
	if (rc == STAVE_EPEER)
		stave_comm_abort(comm);
	else
		stave_comm_close(comm);
	if (!a.checkpoints)
		stave_remove_tree(own, NULL);
	if (s.root && !rc)
		printf("%d of %d values within tolerance\n", s.checks - s.misses, s.checks);
	free(s.ids);
	free(s.init);
	return rc ? stave_err_exit(rc) : s.misses > 0;
}
