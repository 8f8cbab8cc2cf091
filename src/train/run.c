/* A run from beginning to end: set up, loop, finish, receipt. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "train/trainer.h"

#define SAVE_TIMEOUT_S 3600

/* Keys that do not change what is learnt stay out of the fingerprint: runs of the same thing in two places must agree. */
static bool outside_fingerprint(const char *line)
{
	static const char *const keys[] = {"out:", "run:", "runs:", "resume:", "threads:", "json:", "checkpoint:"};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!strncmp(line, keys[i], strlen(keys[i])))
			return true;
	return false;
}

/* Length of a dumped line without the comment that says where its value came from. */
static size_t without_source(const char *line, size_t n)
{
	for (size_t i = n; i-- > 2;)
		if (line[i] == '\'')
			return n;
		else if (line[i] == '#' && line[i - 1] == ' ' && line[i - 2] == ' ')
			return i - 2;
	return n;
}

static uint64_t hash_config(const char *yaml)
{
	uint64_t h = 0;
	bool skip = false;
	for (const char *line = yaml; *line;) {
		size_t n = strcspn(line, "\n");
		if (line[0] != ' ')
			skip = outside_fingerprint(line);
		if (!skip)
			h = stave_hash64(line, without_source(line, n), h);
		line += n + (line[n] == '\n');
	}
	return h;
}

/* runs/NAME; NAME is the last part of `out` unless given. */
static int name_run(struct trainer *t, struct stave_err *err)
{
	char out[STAVE_PATH];
	snprintf(out, sizeof out, "%s", t->o->out);
	for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--)
		out[n - 1] = 0;
	const char *slash = strrchr(out, '/'), *name = t->o->run ? t->o->run : slash ? slash + 1 : out;
	int rc = stave_path(t->run_dir, t->o->runs ? t->o->runs : "runs", name, err);
	return rc ? rc : stave_path(t->ck.policy.root, t->o->out, "checkpoints", err);
}

static int open_run(struct trainer *t, struct stave_err *err)
{
	char *yaml = NULL;
	size_t n = 0;
	if (t->job->config) {
		FILE *f = open_memstream(&yaml, &n);
		if (!f)
			return stave_err_errno(err, "writing the configuration");
		stave_config_dump(t->job->config, f);
		fclose(f);
		t->config_hash = hash_config(yaml);
	}
	int rc = 0;
	if (t->root && !(rc = stave_run_open(&t->run, t->run_dir, t->first_step > 0, t->first_step, err))) {
		json_t *plan = report_plan_json(t);
		FILE *f = yaml ? stave_run_file(t->run, "config.yaml", err) : NULL;
		if (f) {
			fputs(yaml, f);
			fclose(f);
		}
		if ((f = stave_run_file(t->run, "plan.json", err))) {
			json_dumpf(plan, f, JSON_INDENT(2));
			fputc('\n', f);
			fclose(f);
		}
		json_decref(plan);
	}
	free(yaml);
	return rc;
}

static int set_up(struct trainer *t, struct stave_err *err)
{
	int rc;
	if (t->o->threads)
		stave_threads_set((int)t->o->threads);
	stave_threads(); /* the pool's size, settled before the first plan asks for per-thread scratch */
	t->ck.policy.keep = t->o->checkpoint_keep;
	t->ck.policy.every_keep = t->o->checkpoint_every_keep;
	t->ck.policy.tokenizer_dir = t->job->tokenizer_dir;
	t->ck.policy.eos = t->job->eos;
	t->ck.policy.bos = t->job->bos;
	t->ck.last_step = t->evaluated_at = -1;
	t->loss = t->grad_norm = t->train_loss = t->val_loss = NAN;
	if ((rc = name_run(t, err)) || (rc = setup_work(t, err)))
		return rc;
	if (t->root)
		report_plan(t);
	if ((rc = setup_memory(t, err)) || (rc = setup_weights(t, err)) || (rc = open_run(t, err)) || (rc = prefetch_start(&t->pre, err)))
		return rc;
	return t->root && t->o->checkpoint_every ? checkpointer_start(&t->ck, err) : 0;
}

static int loop(struct trainer *t, int *then, struct stave_err *err)
{
	*then = STEP_GO_ON;
	stave_net_times(t->net);
	if (t->state.step < t->o->steps)
		prefetch_request(&t->pre, t->state.step);
	while (t->state.step < t->o->steps && *then == STEP_GO_ON) {
		int rc = train_step(t, then, err);
		if (rc)
			return rc;
	}
	/* a write that failed has stopped all ranks; its message is rank 0's */
	if (t->save_failed)
		return t->root ? checkpointer_wait(&t->ck, err) : stave_err_set(err, STAVE_EFAIL, "rank 0 could not write a checkpoint");
	return 0;
}

/* The model itself, as OUT. */
static int save_model(struct trainer *t, struct stave_err *err)
{
	if (!t->root)
		return 0;
	int rc = stave_weights_save(&t->layout, t->p, t->o->out, STAVE_F32, t->job->eos, t->job->bos, err);
	return rc ? rc : checkpoint_copy_tokenizer(t->job->tokenizer_dir, t->o->out, err);
}

static int finish(struct trainer *t, int then, struct stave_err *err)
{
	int rc = 0;
	if (t->root && t->times.n)
		report_live(t, true);
	bool complete = then == STEP_GO_ON || then == STEP_TIME_LIMIT;
	/* the others wait while rank 0 writes; that it is alive they know by its heartbeat */
	stave_comm_timeout_set(t->comm, SAVE_TIMEOUT_S);
	if (complete && t->o->eval_batches && t->evaluated_at != t->state.step)
		rc = train_evaluate(t, err);
	/* already on disk when nothing was left to do */
	if (!rc && t->times.n)
		rc = train_save_now(t, err);
	return !rc && complete ? save_model(t, err) : rc;
}

static void fill_result(const struct trainer *t, int then, struct stave_train_result *r)
{
	const struct train_times *w = &t->times;
	*r = (struct stave_train_result){
		.steps_done = t->state.step,
		.first_step = t->first_step,
		.tokens = t->state.tokens,
		.loss = t->loss,
		.train_loss = t->train_loss,
		.val_loss = t->val_loss,
		.seconds = stave_now_s() - t->started_s,
		.tokens_per_s = w->steps > 0 ? (double)w->tokens / w->steps : NAN,
		.mfu = w->steps > 0 && t->peak > 0 ? (double)w->tokens / w->steps * t->flops_per_token / t->peak : NAN,
		.data_wait_share = w->steps > 0 ? w->data / w->steps : NAN,
		.checkpoint_share = w->steps > 0 ? w->checkpoint / w->steps : NAN,
		.rss_bytes = (double)stave_rss_bytes(),
		.losses_hash = t->state.losses_hash,
		.weights_hash = stave_hash64(t->p, (size_t)t->layout.n * sizeof *t->p, 0),
		.requeue = then == STEP_REQUEUE,
		.time_limit = then == STEP_TIME_LIMIT,
	};
	for (int i = 0; i < ARENAS; i++) {
		r->planned_bytes += (double)t->planned[i];
		r->allocated_bytes += (double)t->arena[i].used;
	}
}

static int report(struct trainer *t, struct stave_train_result *r, struct stave_err *err)
{
	if (!t->root)
		return 0;
	r->receipt = report_receipt(t, r);
	report_receipt_text(t, r);
	return stave_run_receipt(t->run, r->receipt, err);
}

int stave_train_run(const struct stave_train_job *job, struct stave_train_result *result, struct stave_err *err)
{
	struct trainer *t = calloc(1, sizeof *t);
	struct stave_train_result r = {0};
	struct stave_err local = {0}; /* messages are passed between functions even when the caller wants none */
	int then = STEP_GO_ON, rc = 0;
	if (!t)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a run");
	t->job = job;
	t->o = job->options;
	t->comm = job->comm;
	t->rank = stave_comm_rank(job->comm);
	t->size = stave_comm_size(job->comm);
	t->root = t->rank == 0;
	t->started_s = stave_now_s();
	if (!(rc = set_up(t, &local)) && !(rc = loop(t, &then, &local)) && !(rc = finish(t, then, &local))) {
		fill_result(t, then, &r);
		if (!(rc = report(t, &r, &local)))
			*result = r;
	}
	setup_close(t);
	if (t->run)
		stave_run_close(t->run);
	free(t);
	if (rc && err)
		*err = local;
	if (rc)
		return rc;
	if (then == STEP_REQUEUE)
		return stave_err_set(err, STAVE_EREQUEUE, "stopped by a signal at step %lld with a checkpoint; the same command continues", (long long)r.steps_done);
	if (then == STEP_STOP)
		return stave_err_set(err, STAVE_EINTERRUPTED, "interrupted at step %lld; the same command continues", (long long)r.steps_done);
	return 0;
}
