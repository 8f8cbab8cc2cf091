/* The progress thread: it owns the transport. All collectives of a rank, waited for or not, go through one queue and are
 * carried out in order by this one thread, so every rank meets the others in the same order, MPI is only ever entered
 * from one thread, and a sum queued during backward moves on while the caller computes.
 *
 * The thread shares its core with the caller's compute, so it never spins for long: between two polls of a transport it
 * naps, from 20 microseconds up to a millisecond the longer nothing happens.
 *
 * Deadlines: while an op does not complete, the thread looks at the lifelines. A known loss ends it at once; timeout_s
 * without completion makes it ask who is missing. Either way the object is broken from then on: the op's buffers may be
 * half written, no later op starts, and every call returns the same message. */
#include "comm/progress.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/sys.h"

#define PATIENCE_S 1.0  /* for answers to "who is missing?" */
#define STUCK_S 1       /* for the thread to leave its op when the caller gives up */
#define LOOK_S 0.1      /* how often the caller looks for a loss itself, should the transport block its thread */

static const char *how_text(const struct stave_comm *c, const struct lifeline_loss *loss, char out[200])
{
	char age[32], limit[32];
	stave_duration_text(age, loss->age_s);
	stave_duration_text(limit, c->timeout_s);
	switch (loss->how) {
	case LIFELINE_ENDED: snprintf(out, 200, "its process ended"); break;
	case LIFELINE_SILENT: snprintf(out, 200, "it is stopped, or its machine or network is gone"); break;
	case LIFELINE_LATE: snprintf(out, 200, "it is alive but did not join within %s", limit); break;
	case LIFELINE_LEFT: snprintf(out, 200, "it stopped because of an error of its own, which its log names"); break;
	case LIFELINE_HOWS: break;
	}
	return out;
}

void stave_progress_loss_text(const struct stave_comm *c, const struct lifeline_loss *loss, const char *op, struct stave_err *err)
{
	char how[200] = "", where[64] = "before its first step";
	if (loss->step >= 0)
		snprintf(where, sizeof where, "at step %lld", (long long)loss->step);
	stave_err_set(err, STAVE_EPEER, "rank %d of %d was lost at step %lld in %s: last seen %.1f s ago %s in %s; %s; restart the "
	              "job to go on from its last checkpoint", loss->rank, c->size, (long long)(c->step > 0 ? c->step : 0), op,
	              loss->age_s, where, loss->op, how_text(c, loss, how));
}

/* ---- the thread ---- */

static void nap(double *s)
{
	struct timespec t = {.tv_nsec = (long)(*s * 1e9)};
	nanosleep(&t, NULL);
	*s = *s * 1.25 < 1e-3 ? *s * 1.25 : 1e-3;
}

/* Has the op to be given up? Fills err and returns true. */
static bool give_up(struct stave_comm *c, const char *name, double waited_s, struct stave_err *err)
{
	struct lifeline_loss loss;
	if (atomic_load(&c->abandoned)) {
		stave_err_set(err, STAVE_EFAIL, "abandoned");
		return true;
	}
	if (c->lifeline && stave_lifeline_lost(c->lifeline, &loss)) {
		stave_progress_loss_text(c, &loss, name, err);
		return true;
	}
	if (waited_s < c->timeout_s)
		return false;
	if (c->lifeline && stave_lifeline_blame(c->lifeline, c->finished + 1, PATIENCE_S, &loss))
		stave_progress_loss_text(c, &loss, name, err);
	else
		stave_err_set(err, STAVE_EPEER, "%s did not complete at step %lld: no progress for %.0f s on rank %d of %d, and no rank "
		              "is known to be missing: the network between the ranks may be at fault (STAVE_COMM_TIMEOUT sets the "
		              "limit)", name, (long long)(c->step > 0 ? c->step : 0), waited_s, c->rank, c->size);
	return true;
}

static int failed(const char *name, const char *why, struct stave_err *err)
{
	return stave_err_set(err, STAVE_EPEER, "%s failed in the transport: %s", name, why);
}

/* Most often a peer died, and the lifelines are about to know better than the transport. */
static int transport_failed(struct stave_comm *c, const char *name, const char *why, struct stave_err *err)
{
	struct lifeline_loss loss;
	double end_s = stave_now_s() + 0.3, pause_s = 1e-3;
	while (c->lifeline && stave_now_s() < end_s) {
		if (stave_lifeline_lost(c->lifeline, &loss)) {
			stave_progress_loss_text(c, &loss, name, err);
			return STAVE_EPEER;
		}
		nap(&pause_s);
	}
	return failed(name, why, err);
}

/* Poll the one outstanding request to its end. */
static int drive(struct stave_comm *c, const char *name, struct stave_err *err)
{
	char why[300] = "";
	double start_s = stave_now_s(), pause_s = 20e-6;
	for (int spin = 0;; spin++) {
		bool done = false;
		if (c->ops->test(&done, why, sizeof why))
			return transport_failed(c, name, why, err);
		if (done)
			return 0;
		if (spin < 50)
			continue;
		if (give_up(c, name, stave_now_s() - start_s, err))
			return STAVE_EPEER;
		nap(&pause_s);
	}
}

struct stopper {
	struct stave_comm *c;
	const char *name;
	struct stave_err *err;
};

static bool stop_shm(void *ctx, double waited_s)
{
	struct stopper *s = ctx;
	return give_up(s->c, s->name, waited_s, s->err);
}

static size_t width(const struct comm_op *op)
{
	return op->what == COMM_SUM ? sizeof(float) : op->what == COMM_BCAST ? 1 : op->kind == STAVE_COMM_FLOAT ? sizeof(float) : 8;
}

/* Carry out one op: through the window, or piece by piece through the transport. */
static int carry_out(struct stave_comm *c, const struct comm_op *op, struct stave_err *err)
{
	char why[300] = "";
	if (op->what == COMM_SUM && c->shm) {
		struct stopper s = {c, op->name, err};
		return stave_shm_sum(c->shm, op->p, op->n, stop_shm, &s) ? STAVE_EPEER : 0;
	}
	if (op->what == COMM_GATHER) {
		if (c->ops->gather_start(op->mine, op->p, op->n, why, sizeof why))
			return failed(op->name, why, err);
		return drive(c, op->name, err);
	}
	int rc = 0;
	for (size_t at = 0; !rc && at < op->n; at += c->ops->piece) {
		size_t n = op->n - at < c->ops->piece ? op->n - at : c->ops->piece;
		char *p = (char *)op->p + at * width(op);
		if (op->what == COMM_BCAST ? c->ops->bcast_start(p, n, op->root, why, sizeof why)
		                           : c->ops->reduce_start(p, n, op->kind, why, sizeof why))
			return failed(op->name, why, err);
		rc = drive(c, op->name, err);
	}
	return rc;
}

static void *progress(void *arg)
{
	struct stave_comm *c = arg;
	char why[300] = "";
	struct stave_err err = {0};
	if (c->ops->init(&c->rank, &c->size, why, sizeof why))
		failed("start", why, &err);
	pthread_mutex_lock(&c->lock);
	c->broken = err;
	c->ready = true;
	pthread_cond_broadcast(&c->done);
	for (;;) {
		while (!c->closing && (c->finished == c->queued || c->broken.code))
			pthread_cond_wait(&c->work, &c->lock);
		if (c->finished == c->queued || c->broken.code)
			break; /* closing */
		struct comm_op op = c->op[c->finished % COMM_QUEUE];
		pthread_mutex_unlock(&c->lock);
		if (c->lifeline)
			stave_lifeline_op(c->lifeline, op.name, c->finished + 1);
		int rc = carry_out(c, &op, &err);
		if (c->lifeline && !rc)
			stave_lifeline_op(c->lifeline, NULL, c->finished + 1);
		pthread_mutex_lock(&c->lock);
		if (rc)
			c->broken = err;
		else
			c->finished++;
		pthread_cond_broadcast(&c->done);
	}
	bool finish = c->finish;
	pthread_mutex_unlock(&c->lock);
	if (finish)
		c->ops->finish();
	return NULL;
}

/* ---- the caller's side ---- */

int stave_progress_open(struct stave_comm *c, struct stave_err *err)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	pthread_cond_init(&c->done, &monotonic);
	pthread_condattr_destroy(&monotonic);
	sigset_t all, old; /* signals belong to the main thread */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int e = pthread_create(&c->thread, NULL, progress, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e)
		return stave_err_set(err, STAVE_EFAIL, "no thread for collectives: %s", strerror(e));
	pthread_mutex_lock(&c->lock);
	while (!c->ready)
		pthread_cond_wait(&c->done, &c->lock);
	int rc = c->broken.code;
	if (rc && err)
		*err = c->broken;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

bool stave_progress_close(struct stave_comm *c, bool finish)
{
	struct timespec end;
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	c->finish = finish;
	if (!finish) {
		atomic_store(&c->abandoned, true);
		if (!c->broken.code)
			stave_err_set(&c->broken, STAVE_EFAIL, "abandoned");
	}
	pthread_cond_broadcast(&c->work);
	pthread_mutex_unlock(&c->lock);
	if (finish)
		return pthread_join(c->thread, NULL) == 0;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += STUCK_S;
	return pthread_timedjoin_np(c->thread, NULL, &end) == 0;
}

static int is_broken(struct stave_comm *c, struct stave_err *err)
{
	if (!c->broken.code)
		return 0;
	if (err)
		*err = c->broken;
	atomic_store(&c->told, true);
	return c->broken.code;
}

/* Under lock: sleep until the queue is no longer than `most`. A loss the thread cannot report because its transport
 * blocks is noticed here. */
static int wait_until(struct stave_comm *c, int64_t most, struct stave_err *err)
{
	double start_s = stave_now_s();
	while (!c->broken.code && c->queued - c->finished > most) {
		struct timespec t;
		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_nsec += (long)(LOOK_S * 1e9);
		t.tv_sec += t.tv_nsec / 1000000000;
		t.tv_nsec %= 1000000000;
		struct lifeline_loss loss;
		if (pthread_cond_timedwait(&c->done, &c->lock, &t) != ETIMEDOUT || c->broken.code || !c->lifeline)
			continue;
		if (stave_lifeline_lost(c->lifeline, &loss) && c->finished < c->queued)
			stave_progress_loss_text(c, &loss, c->op[c->finished % COMM_QUEUE].name, &c->broken);
	}
	c->wait_s += stave_now_s() - start_s;
	return is_broken(c, err);
}

int stave_progress_queue(struct stave_comm *c, const struct comm_op *op, struct stave_err *err)
{
	pthread_mutex_lock(&c->lock);
	int rc = wait_until(c, COMM_QUEUE - 1, err);
	if (!rc) {
		c->op[c->queued++ % COMM_QUEUE] = *op;
		pthread_cond_signal(&c->work);
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

int stave_progress_wait(struct stave_comm *c, struct stave_err *err)
{
	pthread_mutex_lock(&c->lock);
	int rc = wait_until(c, 0, err);
	pthread_mutex_unlock(&c->lock);
	return rc;
}
