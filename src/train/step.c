/* The body of the loop. Nothing here allocates (metrics and events, written once a step on rank 0, are watch's affair).
 *
 * Order within a step, which loaders with state rely on: take the batch; evaluate if it is time; let the loader prepare the
 * next batch; forward and backward; sum over ranks; agree; guard; update; checkpoint.
 *
 * Gradients in the network are sums over tokens. The step's number of unmasked tokens, over all micro-batches and ranks, is
 * only known at the end, so the mean is taken where gradients are read: every gradient is multiplied by
 * clip factor / tokens inside the optimizer. A step split into micro-batches or ranks is therefore the same step, also when
 * they hold different numbers of unmasked tokens. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "train/trainer.h"

/* ---- gradients over ranks ---- */

static void flush_bucket(struct buckets *b)
{
	if (b->end > b->begin && !b->code)
		b->code = stave_comm_sum_begin(b->comm, b->g + b->begin, (size_t)(b->end - b->begin), "gradients", b->err);
	b->begin = b->end = 0;
}

/* Ranges come from the end of the arena to its start, each next to the one before; one that is not starts a new bucket. */
static void ready(void *ctx, int64_t offset, int64_t count)
{
	struct buckets *b = ctx;
	if (b->end > b->begin && offset + count != b->begin)
		flush_bucket(b);
	if (b->end == b->begin)
		b->end = offset + count;
	b->begin = offset;
	if (b->end - b->begin >= b->floats)
		flush_bucket(b);
}

/* ---- what all ranks know after a step ---- */

struct agreed {
	double loss_sum, tokens, stop, requeue, time_limit, save_failed;
};

static int agree(struct trainer *t, struct agreed *a, struct stave_err *err)
{
	a->stop = stave_stop_requested();
	a->requeue = stave_requeue_requested();
	a->time_limit = t->root && t->o->time_limit_s > 0 && stave_now_s() - t->started_s >= t->o->time_limit_s;
	a->save_failed = t->root && checkpointer_poll(&t->ck, NULL) != 0;
	return stave_comm_sum_double(t->comm, (double *)a, sizeof *a / sizeof(double), "loss", err);
}

/* Forward and backward of this rank's rows, and the sums over ranks. */
static int compute(struct trainer *t, const struct rows *rows, struct agreed *a, struct stave_err *err)
{
	*a = (struct agreed){0};
	t->buckets.code = 0;
	t->buckets.err = err;
	for (int i = 0; i < t->n_micro; i++) {
		struct rows r = rows_at(rows, i * t->nc.B, t->T);
		struct stave_batch b = {.inputs = r.inputs, .targets = r.targets};
		double loss;
		int64_t tokens;
		if (t->o->doc_mask) {
			b.start = r.start;
			b.pos = r.pos;
		}
		stave_net_forward(t->net, &b, i == 0, &loss, &tokens);
		bool last = i + 1 == t->n_micro && t->size > 1;
		stave_net_backward(t->net, &b, i == 0, last ? ready : NULL, &t->buckets);
		a->loss_sum += loss;
		a->tokens += (double)tokens;
	}
	flush_bucket(&t->buckets);
	int rc = t->buckets.code ? t->buckets.code : stave_comm_wait_all(t->comm, err);
	return rc ? rc : agree(t, a, err);
}

/* ---- the guard ---- */

static void event(struct trainer *t, const char *kind, const char *message)
{
	if (!t->root)
		return;
	stave_log(STAVE_LOG_WARN, "step %lld: %s", (long long)t->state.step, message);
	stave_run_event(t->run, t->state.step, kind, message, NULL);
}

/* A NaN spreads through a backward pass within one step, so the first tensor in file order is only a witness; but a
 * parameter that is already lost explains everything, so parameters are searched first. */
static int nonfinite(struct trainer *t, double loss, int bad, bool *skip, struct stave_err *err)
{
	double sum;
	char what[200];
	int lost = optimizer_sumsq(&t->opt, t->p, &sum);
	const struct stave_param *params = t->layout.params;
	if (lost >= 0)
		snprintf(what, sizeof what, "parameter %s is not finite", params[lost].name);
	else if (bad >= 0)
		snprintf(what, sizeof what, "gradient of %s is not finite", params[bad].name);
	else
		snprintf(what, sizeof what, "the loss is not finite");
	if (lost < 0 && t->o->on_nonfinite == 1) {
		char message[260];
		snprintf(message, sizeof message, "%s (loss %g); update skipped", what, loss);
		event(t, "nonfinite", message);
		*skip = true;
		return 0;
	}
	event(t, "nonfinite", what);
	return stave_err_set(err, STAVE_EFAIL, "step %lld: %s (loss %g); stopped before the update, checkpoints are untouched. Try a lower "
	                     "train.lr, a longer train.warmup, or --train.on_nonfinite skip", (long long)t->state.step, what, loss);
}

static bool spike(struct trainer *t, double loss, double norm)
{
	double limit = t->o->spike_z;
	if (!(limit > 0))
		return false;
	/* asked without being added, then added unless it is a spike: one outlier must not make the next look normal */
	struct stave_zscore loss_z = t->state.loss_z, norm_z = t->state.norm_z;
	double a = stave_zscore_push(&loss_z, loss, true), b = stave_zscore_push(&norm_z, norm, true);
	if (a <= limit && b <= limit) {
		t->state.loss_z = loss_z;
		t->state.norm_z = norm_z;
		return false;
	}
	char message[160];
	snprintf(message, sizeof message, "loss %.4f lies %.1f and gradient norm %.4f %.1f deviations above the last steps; update skipped", loss, a, norm, b);
	event(t, "spike", message);
	return true;
}

/* ---- the update ---- */

static void apply(struct trainer *t, double tokens, double norm)
{
	const struct stave_train *o = t->o;
	double clip = o->clip > 0 ? fmin(1, o->clip / (norm + 1e-6)) : 1, lr = stave_schedule_lr(&t->schedule, t->state.step);
	struct optimizer_rates r = {
		.lr = lr,
		.muon_lr = o->lr > 0 ? o->muon_lr * lr / o->lr : 0, /* one schedule for both */
		.muon_momentum = o->muon_momentum,
		.beta1 = o->beta1,
		.beta2 = o->beta2,
		.eps = o->eps,
		.weight_decay = o->weight_decay,
		.g_scale = clip / tokens,
		.t = ++t->state.updates,
	};
	optimizer_step(&t->opt, t->p, stave_net_weights16(t->net), t->g, &r);
}

/* Guard, clip, update. The norm is that of the mean gradient. */
static int update(struct trainer *t, const struct agreed *a, bool *skipped, double *seconds, struct stave_err *err)
{
	double start = stave_now_s(), sum, tokens = a->tokens > 0 ? a->tokens : 1;
	int bad = optimizer_sumsq(&t->opt, t->g, &sum), rc = 0;
	t->loss = a->loss_sum / tokens;
	t->grad_norm = sqrt(sum) / tokens;
	*skipped = a->tokens <= 0; /* a step whose tokens are all masked teaches nothing */
	if (bad >= 0 || !isfinite(t->loss))
		rc = nonfinite(t, t->loss, bad, skipped, err);
	else if (!*skipped)
		*skipped = spike(t, t->loss, t->grad_norm);
	if (!rc && !*skipped)
		apply(t, tokens, t->grad_norm);
	*seconds = stave_now_s() - start;
	return rc;
}

/* ---- evaluation ---- */

static int evaluate_set(struct trainer *t, enum stave_set set, double *mean, struct stave_err *err)
{
	const struct stave_batches *b = &t->job->batches;
	int64_t all = t->o->eval_batches * t->o->batch, from = all * t->rank / t->size, to = all * (t->rank + 1) / t->size;
	double sums[2] = {0, 0};
	for (int64_t row = from; row < to; row += t->nc.B) {
		int n = (int)(to - row < t->nc.B ? to - row : t->nc.B);
		struct rows *r = &t->eval_rows;
		double loss;
		int64_t tokens;
		rows_blank(r, n, t->nc.B, t->T);
		int rc = b->fill(b->ctx, set, t->state.step, row, n, t->T, r->inputs, r->targets, r->start, r->pos, err);
		if (rc)
			return rc;
		struct stave_batch batch = {.inputs = r->inputs, .targets = r->targets};
		if (t->o->doc_mask) {
			batch.start = r->start;
			batch.pos = r->pos;
		}
		stave_net_evaluate(t->net, &batch, &loss, &tokens);
		sums[0] += loss;
		sums[1] += (double)tokens;
	}
	int rc = stave_comm_sum_double(t->comm, sums, 2, "evaluation", err);
	*mean = sums[1] > 0 ? sums[0] / sums[1] : NAN;
	return rc;
}

int train_evaluate(struct trainer *t, struct stave_err *err)
{
	prefetch_rest(&t->pre);
	int rc = evaluate_set(t, STAVE_SET_EVAL_TRAIN, &t->train_loss, err);
	t->val_loss = NAN;
	if (!rc && t->job->batches.has_val)
		rc = evaluate_set(t, STAVE_SET_VAL, &t->val_loss, err);
	stave_net_times(t->net); /* evaluation is not part of a step */
	stave_comm_wait_seconds(t->comm);
	if (rc)
		return rc;
	t->evaluated_at = t->state.step;
	struct stave_train_eval e = {.step = t->state.step, .train_loss = t->train_loss, .val_loss = t->val_loss};
	if (t->job->hooks.on_eval)
		t->job->hooks.on_eval(t->job->hooks.ctx, &e);
	if (!t->root)
		return 0;
	stave_log(STAVE_LOG_INFO, "step %lld: train loss %.4f, validation loss %.4f", (long long)e.step, e.train_loss, e.val_loss);
	struct stave_scalar s[] = {{"train_loss", e.train_loss}, {"val_loss", e.val_loss}};
	return stave_run_scalars(t->run, e.step, s, t->job->batches.has_val ? 2 : 1, err);
}

/* ---- checkpoints ---- */

static void save_batches(struct trainer *t)
{
	const struct stave_batches *b = &t->job->batches;
	prefetch_rest(&t->pre);
	if (b->state_bytes)
		b->state_save(b->ctx, t->state.step, t->batches_state);
}

int train_save_now(struct trainer *t, struct stave_err *err)
{
	if (!t->root)
		return 0;
	int rc = checkpointer_wait(&t->ck, err);
	if (rc || (t->ck.last_step == t->state.step))
		return rc;
	save_batches(t);
	struct checkpoint c = live_checkpoint(t);
	rc = checkpoint_write(&t->ck.policy, &c, err);
	if (!rc)
		t->ck.last_step = t->state.step;
	return rc;
}

static int checkpoint_if_due(struct trainer *t, struct stave_err *err)
{
	int64_t every = t->o->checkpoint_every;
	/* the last step's is written by the end of the run, without a copy */
	if (!t->root || !every || t->state.step % every || t->state.step >= t->o->steps)
		return 0;
	save_batches(t);
	struct checkpoint c = live_checkpoint(t);
	return checkpointer_submit(&t->ck, &c, err);
}

/* ---- numbers ---- */

/* Adds the step to the run's times; what it spent itself in *own. */
static void count_times(struct trainer *t, const struct stave_train_step *s, double checkpoint_s, double optimizer_s, int64_t tokens, struct train_times *own)
{
	struct stave_net_times n = stave_net_times(t->net);
	struct train_times *w = &t->times;
	*own = (struct train_times){.steps = s->step_s, .matmul = n.matmul_s, .attention = n.attention_s, .element = n.element_s, .loss = n.loss_s,
	                            .optimizer = optimizer_s, .data = s->data_wait_s, .comm = stave_comm_wait_seconds(t->comm),
	                            .checkpoint = checkpoint_s};
	w->steps += own->steps;
	w->matmul += own->matmul;
	w->attention += own->attention;
	w->element += own->element;
	w->loss += own->loss;
	w->optimizer += own->optimizer;
	w->data += own->data;
	w->comm += own->comm;
	w->checkpoint += own->checkpoint;
	w->tokens += tokens;
	w->n++;
	double now = (double)tokens / s->step_s;
	t->tokens_per_s = w->n == 1 ? now : 0.9 * t->tokens_per_s + 0.1 * now;
}

/* Rates and shares of one step, under the names of watch's table. */
static int tell(struct trainer *t, const struct stave_train_step *s, int64_t tokens, const struct train_times *spent, struct stave_err *err)
{
	if (t->job->hooks.on_step)
		t->job->hooks.on_step(t->job->hooks.ctx, s);
	if (!t->root)
		return 0;
	report_live(t, false);
	double rate = (double)tokens / s->step_s;
	struct stave_scalar m[16] = {
		{"loss", s->loss}, {"grad_norm", s->grad_norm}, {"lr", s->lr}, {"tokens", (double)tokens}, {"flops", (double)tokens * t->flops_per_token},
		{"tokens_per_s", rate}, {"step_s", s->step_s}, {"data_wait_s", spent->data}, {"optimizer_s", spent->optimizer},
		{"comm_wait_s", spent->comm}, {"checkpoint_s", spent->checkpoint}, {"skipped_steps", s->skipped},
	};
	int n = 12;
	if (t->peak > 0)
		m[n++] = (struct stave_scalar){"mfu", rate * t->flops_per_token / t->peak};
	if (t->has_machine)
		m[n++] = (struct stave_scalar){"roofline", t->forecast.step_s / s->step_s};
	return stave_run_scalars(t->run, s->step, m, n, err);
}

static bool eval_due(const struct trainer *t)
{
	return t->o->eval_batches && t->o->eval_every && t->state.step % t->o->eval_every == 0;
}

static int take_batch(struct trainer *t, struct rows *rows, double *start, double *waited, struct stave_err *err)
{
	double before = t->pre.wait_s;
	*start = stave_now_s();
	int rc = prefetch_get(&t->pre, rows, err);
	*waited = t->pre.wait_s - before;
	if (!rc && eval_due(t)) {
		rc = train_evaluate(t, err);
		*start = stave_now_s() - *waited;
	}
	if (!rc && t->state.step + 1 < t->o->steps)
		prefetch_request(&t->pre, t->state.step + 1);
	return rc;
}

int train_step(struct trainer *t, int *then, struct stave_err *err)
{
	struct rows rows;
	struct agreed a;
	struct train_times own;
	double start, waited, optimizer_s;
	bool skipped = false;
	int rc;
	stave_comm_step_set(t->comm, t->state.step);
	if ((rc = take_batch(t, &rows, &start, &waited, err)) || (rc = compute(t, &rows, &a, err)) || (rc = update(t, &a, &skipped, &optimizer_s, err)))
		return rc;
	struct stave_train_step s = {.step = t->state.step, .loss = t->loss, .grad_norm = t->grad_norm, .skipped = skipped,
	                             .lr = stave_schedule_lr(&t->schedule, t->state.step), .data_wait_s = waited};
	t->state.step++;
	t->state.tokens += (int64_t)a.tokens;
	t->state.losses_hash = stave_hash64(&t->loss, sizeof t->loss, t->state.losses_hash);
	double stalled = t->ck.stall_s;
	rc = checkpoint_if_due(t, err);
	stalled = t->ck.stall_s - stalled;
	s.step_s = stave_now_s() - start;
	count_times(t, &s, stalled, optimizer_s, (int64_t)a.tokens, &own);
	t->save_failed = rc || a.save_failed > 0;
	if (rc || (rc = tell(t, &s, (int64_t)a.tokens, &own, err)))
		return rc;
	*then = a.save_failed > 0 || a.stop > 0 ? STEP_STOP : a.requeue > 0 ? STEP_REQUEUE : a.time_limit > 0 ? STEP_TIME_LIMIT : STEP_GO_ON;
	return 0;
}
