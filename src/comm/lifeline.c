/* Lifelines: who is alive, where they are, and who is missing.
 *
 * A collective that does not return says nothing about whom it waits for, and a launcher that notices a dead rank kills
 * the others within seconds. So every rank keeps a few TCP connections of its own, watched by one thread: rank r dials
 * r+1, r+2, r+4 … (mod size) and is dialled by r-1, r-2, r-4 …. A job of 4096 ranks costs each 24 sockets, any news
 * floods to all in 12 hops, and the death of a whole machine leaves the rest connected.
 *
 * News travels in fixed frames of 64 bytes:
 *   HELLO  opens a line: the cookie of this job, who dials, whom.
 *   BEAT   four times a second: "I am rank r, at step s, in collective number seq, called op, since age".
 *   LOST   rank r was lost. Flooded once; the first loss a rank hears of is the one it names, and it passes that on
 *          before it closes anything, so nobody takes a survivor that left for the culprit.
 *   ASK    who has not joined collective seq? Flooded. LATE_ is the answer, flooded while it names somebody further
 *          behind than was known: thousands of late ranks settle on the furthest behind.
 *   BYE    this rank is done; the end of file that follows is no loss.
 *
 * A closed line without BYE is a dead process, noticed at once. A line without beats for silence_s is a stopped process
 * or a lost machine; time in which this process itself did not run (stopped, starved) does not count. A line whose bytes
 * make no sense is a lost peer. Strangers that dial in do not know the cookie and are hung up on.
 *
 * Invariant: links belong to the watching thread; everything else is under `lock`. */
#include "comm/lifeline.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"
#include "comm/dial.h"

#define BEAT_S 0.25
#define LINGER_S 0.7      /* from noticing a loss to leaving, see stave_lifeline_close */
#define PAUSE_S 1.0       /* a longer gap between two rounds of the thread: it was this process that slept */
#define QUEUE 16          /* frames waiting for a peer that does not read; more are dropped, it is gone anyway */

_Static_assert(sizeof(struct lifeline_frame) == 64, "a frame has no padding");

struct link {
	int fd; /* -1: closed */
	int rank;
	bool bye;
	double seen_s;
	struct lifeline_frame last; /* the last BEAT (or BYE) */
	char in[sizeof(struct lifeline_frame)];
	size_t n_in;
	char out[QUEUE * sizeof(struct lifeline_frame)];
	size_t n_out;
};

struct lifeline {
	int rank, size, n_links, wake;
	struct link link[LINES];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t news;
	/* under lock */
	double silence_s;
	int64_t step, seq;
	char op[LIFELINE_OP];
	double since_s;
	bool lost, told;              /* a loss is known; and flooded */
	double lost_s;
	struct lifeline_loss loss;
	int64_t asked, flooded_ask;   /* largest seq asked for, and passed on */
	struct lifeline_frame late;   /* furthest behind of those that answered; type 0: none */
	bool late_told;
	bool closing, left;
	void (*alarm)(void *, double);
	void *alarm_ctx;
};

/* ---- frames ---- */

bool stave_lifeline_frame_check(struct lifeline_frame *f, int size)
{
	if (f->magic != LIFELINE_MAGIC || f->type < LIFELINE_HELLO || f->type > LIFELINE_BYE || f->how >= LIFELINE_HOWS)
		return false;
	if (f->rank >= (uint32_t)size || f->step < -1 || f->seq < 0)
		return false;
	if (f->type == LIFELINE_HELLO)
		return true;
	f->op[LIFELINE_OP - 1] = 0;
	for (char *c = f->op; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return true;
}

static struct lifeline_frame frame(enum lifeline_type type, int rank, int64_t step, int64_t seq, const char *op, double age_s)
{
	double ms = age_s * 1000;
	struct lifeline_frame f = {.magic = LIFELINE_MAGIC, .type = (uint8_t)type, .rank = (uint32_t)rank, .step = step, .seq = seq};
	f.age_ms = ms < 0 ? 0 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
	snprintf(f.op, sizeof f.op, "%s", op);
	return f;
}

/* This rank's own place, as a frame. Under lock. */
static struct lifeline_frame myself(struct lifeline *l, enum lifeline_type type)
{
	return frame(type, l->rank, l->step, l->seq, l->op, stave_now_s() - l->since_s);
}

/* ---- losses, under lock ---- */

static void lose(struct lifeline *l, int rank, enum lifeline_how how, const struct lifeline_frame *last, double age_s)
{
	if (l->lost || l->closing)
		return;
	l->lost = true;
	l->lost_s = stave_now_s();
	l->loss = (struct lifeline_loss){.rank = rank, .how = how, .step = last->step, .age_s = age_s};
	memcpy(l->loss.op, last->op, sizeof l->loss.op);
	l->loss.op[LIFELINE_OP - 1] = 0;
	pthread_cond_broadcast(&l->news);
}

static void lose_link(struct lifeline *l, struct link *k, enum lifeline_how how)
{
	lose(l, k->rank, how, &k->last, stave_now_s() - k->seen_s);
}

/* Keep the answer that names the rank furthest behind (of those, the lowest). */
static void hear_late(struct lifeline *l, const struct lifeline_frame *f)
{
	if (l->late.type && (f->seq > l->late.seq || (f->seq == l->late.seq && f->rank >= l->late.rank)))
		return;
	l->late = *f;
	l->late_told = false;
	pthread_cond_broadcast(&l->news);
}

static void hear_ask(struct lifeline *l, int64_t seq)
{
	if (seq <= l->asked)
		return;
	l->asked = seq;
	l->late.type = 0;
	if (l->seq < seq) {
		struct lifeline_frame f = myself(l, LIFELINE_LATE_);
		hear_late(l, &f);
	}
}

/* ---- lines, on the watching thread ---- */

static void hang_up(struct link *k)
{
	close(k->fd);
	k->fd = -1;
}

/* Send what is queued; never blocks. A broken line shows itself at the next read. */
static void flush(struct link *k)
{
	while (k->fd >= 0 && k->n_out) {
		ssize_t n = send(k->fd, k->out, k->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n <= 0)
			return;
		memmove(k->out, k->out + n, k->n_out - (size_t)n);
		k->n_out -= (size_t)n;
	}
}

static void tell(struct link *k, const struct lifeline_frame *f)
{
	if (k->fd < 0 || k->n_out + sizeof *f > sizeof k->out)
		return;
	memcpy(k->out + k->n_out, f, sizeof *f);
	k->n_out += sizeof *f;
	flush(k);
}

static void tell_all(struct lifeline *l, const struct lifeline_frame *f)
{
	for (int i = 0; i < l->n_links; i++)
		tell(&l->link[i], f);
}

static void hear(struct lifeline *l, struct link *k, struct lifeline_frame *f)
{
	bool own = f->type == LIFELINE_BEAT || f->type == LIFELINE_BYE;
	if (!stave_lifeline_frame_check(f, l->size) || f->type == LIFELINE_HELLO || (own && (int)f->rank != k->rank)) {
		lose_link(l, k, LIFELINE_ENDED);
		hang_up(k);
		return;
	}
	k->seen_s = stave_now_s();
	if (own) {
		k->last = *f;
		k->bye |= f->type == LIFELINE_BYE;
	} else if (f->type == LIFELINE_LOST) {
		lose(l, (int)f->rank, (enum lifeline_how)f->how, f, f->age_ms * 1e-3);
	} else if (f->type == LIFELINE_ASK) {
		hear_ask(l, f->seq);
	} else if (f->type == LIFELINE_LATE_ && f->seq < l->asked) {
		hear_late(l, f);
	}
}

static void listen_to(struct lifeline *l, struct link *k)
{
	while (k->fd >= 0) {
		ssize_t n = recv(k->fd, k->in + k->n_in, sizeof k->in - k->n_in, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			if (!k->bye)
				lose_link(l, k, LIFELINE_ENDED);
			hang_up(k);
			return;
		}
		k->n_in += (size_t)n;
		if (k->n_in == sizeof k->in) {
			struct lifeline_frame f;
			memcpy(&f, k->in, sizeof f);
			k->n_in = 0;
			hear(l, k, &f);
		}
	}
}

/* Pass on what became known since the last round: each piece of news once. */
static void spread(struct lifeline *l)
{
	if (l->lost && !l->told) {
		struct lifeline_frame f = frame(LIFELINE_LOST, l->loss.rank, l->loss.step, 0, l->loss.op, l->loss.age_s);
		f.how = (uint8_t)l->loss.how;
		tell_all(l, &f);
		l->told = true;
	}
	if (l->asked > l->flooded_ask) {
		struct lifeline_frame f = frame(LIFELINE_ASK, l->rank, l->step, l->asked, l->op, 0);
		tell_all(l, &f);
		l->flooded_ask = l->asked;
	}
	if (l->late.type && !l->late_told) {
		tell_all(l, &l->late);
		l->late_told = true;
	}
}

/* Silence, and peers that said goodbye before a collective this rank has entered. */
static void judge(struct lifeline *l, double now)
{
	for (int i = 0; i < l->n_links; i++) {
		struct link *k = &l->link[i];
		if (k->bye ? k->last.seq < l->seq : k->fd >= 0 && now - k->seen_s > l->silence_s)
			lose_link(l, k, k->bye ? LIFELINE_LEFT : LIFELINE_SILENT);
	}
}

static void wait_for_news(struct lifeline *l, double until_s)
{
	struct pollfd p[1 + LINES];
	int at[LINES], n = 1;
	p[0] = (struct pollfd){.fd = l->wake, .events = POLLIN};
	for (int i = 0; i < l->n_links; i++)
		if (l->link[i].fd >= 0) {
			at[n - 1] = i;
			p[n++] = (struct pollfd){.fd = l->link[i].fd, .events = (short)(POLLIN | (l->link[i].n_out ? POLLOUT : 0))};
		}
	double left_s = until_s - stave_now_s();
	if (poll(p, (nfds_t)n, left_s > 0 ? (int)(left_s * 1000) + 1 : 0) <= 0)
		return;
	uint64_t x;
	if (p[0].revents && read(l->wake, &x, sizeof x) < 0)
		return;
	pthread_mutex_lock(&l->lock);
	for (int i = 1; i < n; i++) {
		struct link *k = &l->link[at[i - 1]];
		if (p[i].revents & POLLOUT)
			flush(k);
		if (p[i].revents & ~POLLOUT)
			listen_to(l, k);
	}
	pthread_mutex_unlock(&l->lock);
}

static void *watch(void *arg)
{
	struct lifeline *l = arg;
	double beat_s = 0, last_s = stave_now_s();
	for (bool closing = false; !closing;) {
		double now = stave_now_s(), slept_s = now - last_s;
		void (*alarm)(void *, double) = NULL;
		last_s = now;
		pthread_mutex_lock(&l->lock);
		for (int i = 0; slept_s > PAUSE_S && i < l->n_links; i++)
			l->link[i].seen_s += slept_s;
		judge(l, now);
		spread(l);
		if (now >= beat_s || l->closing) {
			struct lifeline_frame f = myself(l, l->closing ? LIFELINE_BYE : LIFELINE_BEAT);
			beat_s = now + BEAT_S;
			if (!l->closing || !l->left)
				tell_all(l, &f);
			if (l->lost)
				alarm = l->alarm;
		}
		closing = l->closing;
		pthread_mutex_unlock(&l->lock);
		if (alarm && !closing)
			alarm(l->alarm_ctx, now - l->lost_s);
		if (!closing)
			wait_for_news(l, beat_s);
	}
	return NULL;
}

/* ---- opening and closing ---- */

int stave_lifeline_open(struct lifeline **out, int rank, int size, uint64_t host, double silence_s, lifeline_gather *gather,
                        void *ctx, struct stave_err *err)
{
	struct lifeline *l = calloc(1, sizeof *l);
	if (!l)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the lifelines");
	*l = (struct lifeline){.rank = rank, .size = size, .step = -1, .silence_s = silence_s, .op = "start", .since_s = stave_now_s()};
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->news, &monotonic);
	pthread_condattr_destroy(&monotonic);
	l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct line line[LINES];
	int rc = l->wake < 0 ? stave_err_errno(err, "no event descriptor") : stave_dial(rank, size, host, gather, ctx, line, &l->n_links, err);
	if (rc)
		goto fail;
	for (int i = 0; i < l->n_links; i++) {
		struct link *k = &l->link[i];
		*k = (struct link){.fd = line[i].fd, .rank = line[i].rank, .seen_s = stave_now_s(), .last = {.step = -1}};
		strcpy(k->last.op, "start");
	}
	sigset_t all, old; /* signals belong to the main thread */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&l->thread, NULL, watch, l))
		rc = stave_err_set(err, STAVE_EFAIL, "no thread for the lifelines");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		goto fail;
	*out = l;
	return 0;
fail:
	for (int i = 0; i < l->n_links; i++)
		hang_up(&l->link[i]);
	if (l->wake >= 0)
		close(l->wake);
	pthread_cond_destroy(&l->news);
	pthread_mutex_destroy(&l->lock);
	free(l);
	return rc;
}

static void wake(struct lifeline *l)
{
	uint64_t one = 1;
	if (write(l->wake, &one, sizeof one) < 0)
		return; /* it is awake already */
}

/* Half-close all lines and read them to the end: closing a socket with unread beats would reset it under our last words. */
static void drain(struct lifeline *l, double patience_s)
{
	double end_s = stave_now_s() + patience_s;
	for (int i = 0; i < l->n_links; i++)
		if (l->link[i].fd >= 0)
			shutdown(l->link[i].fd, SHUT_WR);
	for (int i = 0; i < l->n_links; i++) {
		struct link *k = &l->link[i];
		for (double left_s; k->fd >= 0 && (left_s = end_s - stave_now_s()) > 0;) {
			struct pollfd p = {.fd = k->fd, .events = POLLIN};
			if (poll(&p, 1, (int)(left_s * 1000) + 1) <= 0 || recv(k->fd, k->in, sizeof k->in, 0) <= 0)
				break;
		}
		if (k->fd >= 0)
			hang_up(k);
	}
}

void stave_lifeline_close(struct lifeline *l, bool left)
{
	if (!l)
		return;
	/* mpirun gives the survivors of a lost rank a second; but once the first of them exits it kills the others at once. So
	 * they leave together, at a moment all can tell: a fixed time after the loss, of which all knew within milliseconds. */
	pthread_mutex_lock(&l->lock);
	double linger_s = l->lost ? l->lost_s + LINGER_S - stave_now_s() : 0;
	pthread_mutex_unlock(&l->lock);
	if (linger_s > 0)
		nanosleep(&(struct timespec){.tv_nsec = (long)(linger_s * 1e9)}, NULL);
	pthread_mutex_lock(&l->lock);
	if (left) {
		struct lifeline_frame f = myself(l, LIFELINE_LOST);
		lose(l, l->rank, LIFELINE_LEFT, &f, 0);
	}
	l->closing = true;
	l->left = left;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	pthread_join(l->thread, NULL);
	drain(l, left ? 0.1 : 2.0);
	close(l->wake);
	pthread_cond_destroy(&l->news);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- for the other threads ---- */

void stave_lifeline_silence_set(struct lifeline *l, double silence_s)
{
	pthread_mutex_lock(&l->lock);
	l->silence_s = silence_s;
	pthread_mutex_unlock(&l->lock);
}

void stave_lifeline_step(struct lifeline *l, int64_t step)
{
	pthread_mutex_lock(&l->lock);
	l->step = step < -1 ? -1 : step;
	l->since_s = stave_now_s();
	pthread_mutex_unlock(&l->lock);
}

void stave_lifeline_op(struct lifeline *l, const char *op, int64_t seq)
{
	pthread_mutex_lock(&l->lock);
	memset(l->op, 0, sizeof l->op);
	strncpy(l->op, op ? op : "computing", sizeof l->op - 1);
	l->seq = seq;
	l->since_s = stave_now_s();
	pthread_mutex_unlock(&l->lock);
}

bool stave_lifeline_lost(struct lifeline *l, struct lifeline_loss *loss)
{
	pthread_mutex_lock(&l->lock);
	bool lost = l->lost;
	if (lost && loss)
		*loss = l->loss;
	pthread_mutex_unlock(&l->lock);
	return lost;
}

bool stave_lifeline_blame(struct lifeline *l, int64_t seq, double patience_s, struct lifeline_loss *loss)
{
	struct timespec end;
	double end_s = stave_now_s() + patience_s;
	end.tv_sec = (time_t)end_s;
	end.tv_nsec = (long)((end_s - (double)end.tv_sec) * 1e9);
	pthread_mutex_lock(&l->lock);
	hear_ask(l, seq);
	wake(l);
	/* Answers keep coming while they name somebody further behind: hear them all out. */
	while (!l->lost && pthread_cond_timedwait(&l->news, &l->lock, &end) == 0)
		;
	if (l->late.type)
		lose(l, (int)l->late.rank, LIFELINE_LATE, &l->late, l->late.age_ms * 1e-3);
	bool lost = l->lost;
	if (lost)
		*loss = l->loss;
	pthread_mutex_unlock(&l->lock);
	wake(l);
	return lost;
}

void stave_lifeline_alarm_set(struct lifeline *l, void (*alarm)(void *ctx, double since_s), void *ctx)
{
	pthread_mutex_lock(&l->lock);
	l->alarm = alarm;
	l->alarm_ctx = ctx;
	pthread_mutex_unlock(&l->lock);
}
