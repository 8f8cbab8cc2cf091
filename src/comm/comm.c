/* The door of comm/: opening and closing, and the collectives as ops for the progress thread (progress.c). Opening with
 * several ranks: the plugin (plugin.c) starts the transport; then the ranks tell each other which machine they are on,
 * stretch lifelines (lifeline.c), and, when they all share one machine, map a window for sums (shm.c). One rank has none
 * of it: every collective returns at once. */
#include "comm/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/sys.h"
#include "comm/plugin.h"
#include "comm/progress.h"

#define TIMEOUT_S 60.0
#define GRACE_MAX_S 0.4 /* the other survivors leave after 0.7 s, and mpirun then kills the rest */

static int timeout_from_environment(_Atomic double *timeout_s, struct stave_err *err)
{
	const char *e = getenv("STAVE_COMM_TIMEOUT");
	char *end;
	*timeout_s = TIMEOUT_S;
	if (!e || !*e)
		return 0;
	double s = strtod(e, &end);
	if (*end || !(s >= 0.1 && s <= 1e6))
		return stave_err_set(err, STAVE_ECONFIG, "STAVE_COMM_TIMEOUT: wanted seconds from 0.1 to 1e6, found \"%s\"", e);
	*timeout_s = s;
	return 0;
}

static int open_transport(struct stave_comm *c, struct stave_err *err)
{
	const char *launcher, *wish = getenv("STAVE_COMM");
	char why[200];
	int ranks = stave_plugin_ranks(&launcher);
	if (wish && *wish && strcmp(wish, "mpi") && strcmp(wish, "self"))
		return stave_err_set(err, STAVE_ECONFIG, "STAVE_COMM: wanted mpi or self, found \"%s\"", wish);
	if (wish && !strcmp(wish, "self"))
		return 0;
	if (ranks == 1 && !(wish && *wish))
		return 0;
	if (ranks > 1)
		snprintf(why, sizeof why, "the launcher started %d ranks (%s)", ranks, launcher);
	else
		snprintf(why, sizeof why, "STAVE_COMM asks for mpi");
	const struct stave_comm_ops *ops;
	int rc = stave_plugin_open("mpi", why, &ops, &c->plugin, err);
	if (rc)
		return rc;
	c->ops = ops;
	rc = stave_progress_open(c, err);
	if (!rc && ranks > 1 && c->size != ranks)
		return stave_err_set(err, STAVE_EPEER, "%s, but %s sees %d: the launcher and this %s do not speak the same protocol (with "
		                     "Slurm: srun --mpi=pmix)", why, ops->name, c->size, ops->name);
	return rc;
}

static int gather_while_opening(void *ctx, const void *mine, void *all, size_t bytes, struct stave_err *err)
{
	return stave_comm_gather(ctx, mine, all, bytes, "start", err);
}

/* Every rank has to map the window, or none may use it; `mine` is this rank's error code. */
static int agree(struct stave_comm *c, int mine, bool *all_fine, struct stave_err *err)
{
	int64_t bad = mine != 0;
	int rc = stave_comm_max_int(c, &bad, 1, "start", err);
	*all_fine = bad == 0;
	return rc;
}

/* The name comes from rank 0, which also creates the window. Falling back to the transport is safe but slower. */
static int open_shm(struct stave_comm *c, struct stave_err *err)
{
	char name[40] = "";
	unsigned char random[16];
	struct stave_err local = {0};
	bool fine;
	int bad = 0;
	if (c->rank == 0) {
		bad = getrandom(random, sizeof random, 0) != sizeof random;
		for (size_t i = 0; i < sizeof random; i++)
			snprintf(name + 2 * i, 3, "%02x", random[i]);
		if (!bad)
			bad = stave_shm_open(&c->shm, 0, c->size, name, true, &local);
	}
	int rc = stave_comm_bcast(c, name, sizeof name, 0, "start", err);
	if (!rc)
		rc = agree(c, bad, &fine, err);
	if (!rc && fine) {
		if (c->rank)
			bad = stave_shm_open(&c->shm, c->rank, c->size, name, false, &local);
		rc = agree(c, bad, &fine, err);
	}
	if (c->rank == 0 && c->shm)
		stave_shm_unlink(name);
	if (rc || !fine) {
		stave_shm_close(c->shm);
		c->shm = NULL;
	}
	if (!rc && bad)
		stave_log(STAVE_LOG_WARN, "sums go through %s, which is slower: %s", c->ops->name, local.msg);
	return rc;
}

static int open_peers(struct stave_comm *c, struct stave_err *err)
{
	uint64_t host = stave_lifeline_host(), *hosts = malloc((size_t)c->size * sizeof *hosts);
	bool one_machine = true;
	if (!hosts)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for %d ranks", c->size);
	int rc = stave_comm_gather(c, &host, hosts, sizeof host, "start", err);
	for (int r = 0; !rc && r < c->size; r++)
		one_machine &= hosts[r] == host;
	free(hosts);
	const char *window = getenv("STAVE_COMM_WINDOW");
	if (!rc && one_machine && !(window && !strcmp(window, "off")))
		rc = open_shm(c, err);
	if (rc)
		return rc;
	struct lifeline *l = NULL;
	rc = stave_lifeline_open(&l, c->rank, c->size, host, c->timeout_s, gather_while_opening, c, err);
	if (!rc)
		rc = stave_comm_barrier(c, "start", err);
	c->lifeline = l; /* nothing is queued, so the progress thread does not look */
	return rc;
}

int stave_comm_open(struct stave_comm **out, struct stave_err *err)
{
	struct stave_comm *c = calloc(1, sizeof *c);
	if (!c)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for collectives");
	c->size = 1;
	int rc = timeout_from_environment(&c->timeout_s, err);
	if (!rc)
		rc = open_transport(c, err);
	if (!rc && c->size > 1)
		rc = open_peers(c, err);
	if (rc) {
		stave_comm_abort(c);
		return rc;
	}
	*out = c;
	return 0;
}

/* The plugin stays loaded: transports leave threads and exit handlers behind that dlclose would pull the code from under. */
static void release(struct stave_comm *c)
{
	stave_shm_close(c->shm);
	free(c);
}

void stave_comm_close(struct stave_comm *c)
{
	if (!c)
		return;
	if (c->size > 1 && stave_comm_barrier(c, "close", NULL)) {
		stave_comm_abort(c);
		return;
	}
	stave_lifeline_close(c->lifeline, false);
	c->lifeline = NULL;
	if (c->ops)
		stave_progress_close(c, true);
	release(c);
}

void stave_comm_abort(struct stave_comm *c)
{
	if (!c)
		return;
	if (c->lifeline)
		stave_lifeline_alarm_set(c->lifeline, NULL, NULL);
	/* a thread stuck in the transport keeps all it may touch until the process ends; peers see the lines close then */
	if (c->ops && !stave_progress_close(c, false))
		return;
	stave_lifeline_close(c->lifeline, true);
	release(c);
}

int stave_comm_rank(const struct stave_comm *c) { return c->rank; }
int stave_comm_size(const struct stave_comm *c) { return c->size; }

void stave_comm_timeout_set(struct stave_comm *c, double seconds)
{
	c->timeout_s = seconds;
	if (c->lifeline)
		stave_lifeline_silence_set(c->lifeline, seconds);
}

void stave_comm_step_set(struct stave_comm *c, int64_t step)
{
	c->step = step;
	if (c->lifeline)
		stave_lifeline_step(c->lifeline, step);
}

/* On the lifeline's thread, every heartbeat after a loss. */
static void alarm_rings(void *ctx, double since_s)
{
	struct stave_comm *c = ctx;
	struct lifeline_loss loss;
	struct stave_err err;
	if (since_s < c->lost_grace_s || atomic_exchange(&c->told, true) || !stave_lifeline_lost(c->lifeline, &loss))
		return;
	stave_progress_loss_text(c, &loss, "computing", &err);
	c->lost(c->lost_arg, err.msg);
}

void stave_comm_lost_set(struct stave_comm *c, void (*lost)(void *arg, const char *message), void *arg, double grace_s)
{
	if (!c->lifeline)
		return;
	stave_lifeline_alarm_set(c->lifeline, NULL, NULL);
	c->lost = lost;
	c->lost_arg = arg;
	c->lost_grace_s = fmin(grace_s, GRACE_MAX_S);
	if (lost)
		stave_lifeline_alarm_set(c->lifeline, alarm_rings, c);
}

/* ---- collectives ---- */

static int submit(struct stave_comm *c, struct comm_op op, bool wait, struct stave_err *err)
{
	if (!c->ops)
		return 0;
	int rc = stave_progress_queue(c, &op, err);
	return rc || !wait ? rc : stave_progress_wait(c, err);
}

int stave_comm_sum(struct stave_comm *c, float *x, size_t n, const char *op, struct stave_err *err)
{
	return submit(c, (struct comm_op){.what = COMM_SUM, .kind = STAVE_COMM_FLOAT, .p = x, .n = n, .name = op}, true, err);
}

int stave_comm_sum_begin(struct stave_comm *c, float *x, size_t n, const char *op, struct stave_err *err)
{
	return submit(c, (struct comm_op){.what = COMM_SUM, .kind = STAVE_COMM_FLOAT, .p = x, .n = n, .name = op}, false, err);
}

int stave_comm_wait_all(struct stave_comm *c, struct stave_err *err)
{
	return c->ops ? stave_progress_wait(c, err) : 0;
}

int stave_comm_sum_double(struct stave_comm *c, double *x, size_t n, const char *op, struct stave_err *err)
{
	return submit(c, (struct comm_op){.what = COMM_REDUCE, .kind = STAVE_COMM_DOUBLE, .p = x, .n = n, .name = op}, true, err);
}

int stave_comm_max_int(struct stave_comm *c, int64_t *x, size_t n, const char *op, struct stave_err *err)
{
	return submit(c, (struct comm_op){.what = COMM_REDUCE, .kind = STAVE_COMM_INT_MAX, .p = x, .n = n, .name = op}, true, err);
}

int stave_comm_bcast(struct stave_comm *c, void *p, size_t bytes, int root, const char *op, struct stave_err *err)
{
	if (root < 0 || root >= c->size)
		return stave_err_set(err, STAVE_EFAIL, "%s: no rank %d among %d", op, root, c->size);
	return submit(c, (struct comm_op){.what = COMM_BCAST, .p = p, .n = bytes, .root = root, .name = op}, true, err);
}

int stave_comm_gather(struct stave_comm *c, const void *mine, void *all, size_t bytes, const char *op, struct stave_err *err)
{
	if (!c->ops) {
		memmove(all, mine, bytes);
		return 0;
	}
	if (bytes > c->ops->piece)
		return stave_err_set(err, STAVE_EFAIL, "%s: %zu bytes of each rank at once, at most %zu", op, bytes, c->ops->piece);
	return submit(c, (struct comm_op){.what = COMM_GATHER, .mine = mine, .p = all, .n = bytes, .name = op}, true, err);
}

int stave_comm_barrier(struct stave_comm *c, const char *op, struct stave_err *err)
{
	int64_t x = 0;
	return stave_comm_max_int(c, &x, 1, op, err);
}

double stave_comm_wait_seconds(struct stave_comm *c)
{
	double s = c->wait_s;
	c->wait_s = 0;
	return s;
}
