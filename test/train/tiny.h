/* A tiny model and a synthetic corpus, for tests that run the whole loop: about 10 ms a dozen steps. The batch is a hash of
 * (step, row, position), with a pattern in it that can be learnt. */
#ifndef TEST_TINY_H
#define TEST_TINY_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/sys.h"
#include "train/train.h"

enum { TINY_V = 31 };
struct tiny {
	int kill_at, term_at;  /* steps after which to raise; 0: never */
	int fills;
	int64_t poison;        /* step whose targets are noise: a spike; 0: none */
	struct stave_train_step last, steps[512];
	struct stave_train_eval eval;
	int n_steps, n_skipped, n_evals;
	void (*init)(void *ctx, const struct stave_layout *l, float *p);
};

static __attribute__((unused)) int tiny_fill(void *ctx, enum stave_set set, int64_t step, int64_t row0, int nrows, int T, int32_t *inputs, int32_t *targets,
                     int32_t *start, int32_t *pos, struct stave_err *err)
{
	struct tiny *tiny = ctx;
	tiny->fills++;
	for (int i = 0; i < nrows; i++) {
		uint64_t row = (uint64_t)(set * 1000003 + step * 4099 + row0 + i), x = stave_random64(7, row);
		for (int t = 0; t < T; t++) {
			int32_t now = (int32_t)((x + (uint64_t)t * (1 + x % 3)) % TINY_V), next = (int32_t)((x + (uint64_t)(t + 1) * (1 + x % 3)) % TINY_V);
			if (tiny->poison && step == tiny->poison && set == STAVE_SET_TRAIN)
				next = (int32_t)(stave_random64(row, (uint64_t)t) % TINY_V);
			inputs[i * T + t] = now;
			targets[i * T + t] = stave_random64(11, row * 64 + (uint64_t)t) % 5 ? next : -1; /* uneven masks */
			start[i * T + t] = 0;
			pos[i * T + t] = t;
		}
	}
	return 0;
}

static __attribute__((unused)) void tiny_on_step(void *ctx, const struct stave_train_step *s)
{
	struct tiny *t = ctx;
	t->last = *s;
	if (t->n_steps < 512)
		t->steps[t->n_steps++] = *s;
	t->n_skipped += s->skipped;
	if (t->kill_at && s->step == t->kill_at)
		raise(SIGKILL);
	if (t->term_at && s->step == t->term_at)
		raise(SIGTERM);
}

static __attribute__((unused)) void tiny_on_eval(void *ctx, const struct stave_train_eval *e)
{
	struct tiny *t = ctx;
	t->eval = *e;
	t->n_evals++;
}

/* Run with overrides "key", "value", ..., NULL on top of a small default; out holds everything the run writes. */
static __attribute__((unused)) int tiny_run(struct tiny *t, const char *out, const char *const *overrides, struct stave_train_result *r, struct stave_err *err)
{
	char runs[STAVE_PATH];
	snprintf(runs, sizeof runs, "%s/runs", out);
	const char *const defaults[] = {
		"model", "gpt2-124m", "shape.layers", "2", "shape.heads", "2", "shape.channels", "16", "shape.context", "16", "shape.vocab", "31",
		"train.steps", "20", "train.batch", "6", "train.seq", "16", "train.lr", "1e-2", "train.dtype", "f32", "train.eval_every", "0",
		"train.eval_batches", "1", "checkpoint.every", "5", "out", out, "runs", runs, "threads", "1", "train.doc_mask", "false", NULL,
	};
	struct stave_train o;
	struct stave_config c;
	struct stave_comm *comm;
	struct stave_train_job job = {.options = &o, .config = &c, .eos = -1, .bos = -1, .hooks = {t, t->init, tiny_on_eval, tiny_on_step}};
	job.batches = (struct stave_batches){.ctx = t, .fill = tiny_fill, .has_val = true};
	memset(r, 0, sizeof *r);
	assert_int_equal(stave_config_open(&c, stave_train_keys, (size_t)stave_train_n_keys, &o, err), 0);
	for (int i = 0; defaults[i]; i += 2)
		assert_int_equal(stave_config_set(&c, defaults[i], defaults[i + 1], "test", 2, err), 0);
	for (int i = 0; overrides && overrides[i]; i += 2)
		assert_int_equal(stave_config_set(&c, overrides[i], overrides[i + 1], "test", 3, err), 0);
	assert_int_equal(stave_comm_open(&comm, err), 0);
	job.comm = comm;
	int rc = stave_train_shape(&o, TINY_V, &job.shape, err);
	if (!rc)
		rc = stave_train_run(&job, r, err);
	json_decref(r->receipt);
	r->receipt = NULL;
	stave_comm_close(comm);
	stave_config_close(&c);
	return rc;
}
#define TINY(t, out, r, err, ...) tiny_run(t, out, (const char *const[]){__VA_ARGS__, NULL}, r, err)

/* The same in a process of its own (a fresh one: OpenMP does not survive a fork), with STAVE_LOG=error. argv words after
 * "--child" are kill_at, term_at, out and overrides. Returns the wait status. */
static __attribute__((unused)) pid_t tiny_spawn(const char *const *args)
{
	char *argv[64] = {"test", "--child"};
	int n = 2;
	for (int i = 0; args[i] && n < 63; i++)
		argv[n++] = (char *)(uintptr_t)args[i];
	fflush(NULL);
	pid_t pid = fork();
	if (!pid) {
		execv("/proc/self/exe", argv);
		_exit(127);
	}
	return pid;
}
static __attribute__((unused)) int tiny_wait(pid_t pid)
{
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}
#define TINY_CHILD(...) tiny_wait(tiny_spawn((const char *const[]){__VA_ARGS__, NULL}))

static __attribute__((unused)) int tiny_child(int argc, char **argv)
{
	struct tiny t = {.kill_at = atoi(argv[2]), .term_at = atoi(argv[3])};
	struct stave_train_result r;
	struct stave_err err = {0};
	stave_signals_install();
	int rc = tiny_run(&t, argv[4], (const char *const *)(argv + 5), &r, &err);
	if (rc && rc != STAVE_EREQUEUE)
		fprintf(stderr, "child: %s\n", err.msg);
	return stave_err_exit(rc);
}

static char *tiny_dir(void)
{
	static char path[64];
	snprintf(path, sizeof path, "/tmp/stave_train.XXXXXX");
	assert_non_null(mkdtemp(path));
	return path;
}

/* FNV of a file's bytes, to compare models without trusting the program's own hashes. */
static __attribute__((unused)) uint64_t tiny_file_hash(const char *dir, const char *name)
{
	char path[2 * STAVE_PATH];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "rb");
	uint64_t h = 1469598103934665603u;
	if (!f)
		return 0;
	for (int c; (c = getc(f)) != EOF;)
		h = (h ^ (uint64_t)c) * 1099511628211u;
	fclose(f);
	return h;
}

#endif
