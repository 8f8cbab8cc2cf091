/* Private to simulate_*.c: the fleet while it is simulated.
 *
 * Time is whole microseconds, so that node-time adds up exactly. Nodes that compute for a job together are a gang: a training job is one gang, each serving
 * replica is one. A node is in one list: free nodes of its pool, its gang's, or a maintenance window's; a node under repair is in none.
 *
 * Failures are drawn per node, from a stream of random numbers of its own, and wait in the heap of events: unlike the superposed exponential of a whole job
 * this holds for Weibull lives and for nodes of different ages, costs one entry per node, and another job or node changes no other node's fate, so that two
 * fleets compared with one seed meet the same failures.
 *
 * Training at a site runs at one speed, set by its power. Ends of jobs are therefore kept in the site's own time (seconds of computing at full speed since the
 * beginning): when the speed changes, one event moves, however many jobs run.
 *
 * Who changes a counter of a site has called plan_site_touch first. */
#ifndef STAVE_PLAN_SIMULATE_STATE_H
#define STAVE_PLAN_SIMULATE_STATE_H

#include "plan/fleet/heap.h"
#include "plan/fleet/simulate.h"

enum { PLAN_NONE = -1, PLAN_BACKFILL_DEPTH = 32 };
enum plan_place { PLAN_PLACE_FREE, PLAN_PLACE_GANG, PLAN_PLACE_WINDOW, PLAN_PLACE_REPAIR };
enum plan_want { PLAN_WANT_NODES, PLAN_WANT_POWER, PLAN_WANTS }; /* what a waiting job waits for */

struct plan_sim_node {
	uint64_t random;         /* its stream */
	int64_t since_us;        /* beginning of its present life; negative: before the simulation's */
	int32_t next, prev;
	int32_t owner;           /* gang or window */
	int16_t pool;
	uint8_t place;
};
struct plan_sim_gang {
	int32_t job, first;      /* list of nodes */
	int32_t nodes, missing;  /* in hand; failed and not yet replaced */
	int32_t next, prev;      /* gangs of one serving job, newest first */
	bool up, failed;         /* computing; restarting after a failure */
	int64_t since_us;        /* of this state */
	double since_s;          /* the same in the site's own time */
};
struct plan_sim_window {
	int32_t first, taken;
	int64_t next_us;         /* beginning of the next */
	bool open;
};
struct plan_sim_job {
	uint64_t random;
	int32_t rank;            /* 0 first, by priority, then arrival */
	int32_t gang;            /* PLAN_NONE; serving: newest */
	int32_t up, held;        /* gangs computing, gangs in all */
	int32_t wanted;          /* serving: gangs wanted */
	bool arrived, started;
	double saved_s;          /* work that survives a failure */
	double debt_s;           /* of saving before it was preempted, paid at the next start */
	int32_t waiting;         /* nodes it waits for */
	enum plan_want want;
	int64_t wait_us;         /* since when */
	int64_t patience_us;     /* since when it may not be passed over for longer than its pool allows */
	double load_s;           /* serving: requests/s now */
	int64_t touched_us, surplus_us; /* serving: accounts are up to date; more gangs than wanted since, -1 not */
	int64_t power_mw;        /* serving: its share of serve_mean_mw */
	struct plan_fleet_outcome out;
	/* node-seconds held, by what for */
	double useful, lost, checkpoint, throttled, starting, restarting;
};
struct plan_sim_pool {
	const struct plan_fleet_pool *in;
	int32_t first_free, free; /* list and count */
	int used;                /* wanted by its gangs, failed ones included: at most nodes - spares */
	int64_t demand[PLAN_WANTS]; /* nodes that waiting jobs want */
	int64_t idle_mw, mean_mw, peak_mw; /* of a node; mean and peak: above idle */
	double weibull_scale_s;
	struct plan_heap queue;  /* waiting jobs by rank */
	struct plan_heap gangs;  /* all gangs, lowest priority first */
	struct plan_heap shorts; /* gangs that miss nodes, by rank */
	int preempting;          /* jobs that may preempt */
	bool dirty;              /* nodes or power were freed or jobs came: see who can start */
};
struct plan_sim_site {
	const struct plan_fleet_site *in;
	int first_pool, pools;
	int64_t touched_us;
	double time_s, speed, power_share; /* own time, how fast it runs, and the share of dynamic power that takes */
	int64_t state[PLAN_NODE_STATES]; /* nodes */
	int64_t other_mw, up_mw;         /* up: idle power of nodes that are not down */
	int64_t train_mean_mw, train_peak_mw, serve_mean_mw, serve_peak_mw; /* above idle; mean: of what computes; peak: of all gangs, at full speed */
	int64_t room_mw;                 /* for train_peak x share + serve_peak; -1 no cap */
	double floor_share;
	int64_t queued;                  /* jobs */
	struct plan_heap ends;           /* training gangs by own time */
	struct plan_fleet_sample total;
	double throttled_s, stave[PLAN_STAVES]; /* staves: only those that follow from counters */
	bool stirred;            /* something changed at this moment: schedule and settle before time goes on */
};
struct plan_sim {
	const struct plan_fleet *in;
	int64_t now_us, end_us, span_us;
	int samples;
	struct plan_fleet_sample *series; /* NULL after the first replication */
	int nodes;
	struct plan_sim_site *site;
	struct plan_sim_pool *pool;
	struct plan_sim_job *job;
	struct plan_sim_gang *gang;
	struct plan_sim_node *node;
	struct plan_sim_window *window;
	int32_t *gang_store;     /* unused numbers of gangs */
	int gangs_stored;
	struct plan_heap events; /* numbered: nodes, gangs, sites, jobs, windows */
	uint64_t handled, steps;
};

static inline struct plan_sim_site *plan_sim_site_of(struct plan_sim *f, int pool) { return &f->site[f->in->pool[pool].site]; }
static inline int32_t plan_event_gang(const struct plan_sim *f, int g) { return f->nodes + g; }
static inline int32_t plan_event_site(const struct plan_sim *f, int s) { return 2 * f->nodes + s; }
static inline int32_t plan_event_job(const struct plan_sim *f, int j) { return 2 * f->nodes + (int)f->in->sites + j; }
static inline int32_t plan_event_window(const struct plan_sim *f, int w) { return plan_event_job(f, (int)f->in->jobs) + w; }
/* Seconds as microseconds; durations beyond the horizon need not be exact. */
int64_t plan_sim_us(double s);

/* simulate_check.c */
int plan_fleet_check(const struct plan_fleet *f, struct stave_err *err);

/* simulate_node.c: random numbers, lives, lists, failures of idle nodes, repairs, maintenance */
uint64_t plan_random_stream(uint64_t seed, uint64_t replication, uint64_t kind, uint64_t index);
double plan_random_uniform(uint64_t *state);                 /* (0, 1) */
double plan_random_lognormal(uint64_t *state, double mean, double spread);
void plan_node_age(struct plan_sim *f, int n);               /* draw its next failure */
void plan_node_past(struct plan_sim *f, int n);              /* how old it is at the beginning */
void plan_node_insert(struct plan_sim *f, int32_t *head, int n, enum plan_place place, int32_t owner);
void plan_node_remove(struct plan_sim *f, int32_t *head, int n);
void plan_node_event(struct plan_sim *f, int n);             /* it fails, or its repair ends */
void plan_window_event(struct plan_sim *f, int w);

/* simulate_site.c: power, speed, accounts */
void plan_site_touch(struct plan_sim *f, struct plan_sim_site *s);
void plan_site_settle(struct plan_sim *f, struct plan_sim_site *s);
/* Whether gangs of so much more peak power (mW above idle; less: negative) fit under the cap, training throttled to its floor if need be. */
bool plan_site_admits(const struct plan_sim_site *s, int64_t train_mw, int64_t serve_mw);
/* Book requests that came, and that found no replica, evenly over a time. */
void plan_site_book_load(struct plan_sim *f, struct plan_sim_site *s, int64_t from_us, int64_t to_us, double load_s, double unserved_s);

/* simulate_gang.c: what nodes of a job do together */
int plan_gang_start(struct plan_sim *f, int j);              /* the nodes are free and the power is there */
void plan_gang_event(struct plan_sim *f, int g);             /* its start is over */
void plan_gang_fail(struct plan_sim *f, int g, int n, bool soft);
void plan_gang_evict(struct plan_sim *f, int g);             /* saves, gives its nodes back; the job waits again */
void plan_gang_stop(struct plan_sim *f, int g);              /* gives its nodes back */
void plan_gang_refill(struct plan_sim *f, int pool);         /* free nodes go to gangs that miss some */
void plan_gang_ends(struct plan_sim *f, struct plan_sim_site *s); /* training jobs that are done by now */
void plan_gang_close(struct plan_sim *f, int j);             /* the simulation is over: book what the job's gangs did since */

/* simulate_queue.c: arrivals, who starts, autoscaling */
void plan_job_event(struct plan_sim *f, int j);
void plan_job_wait(struct plan_sim *f, int j, int64_t nodes, enum plan_want want); /* nodes 0: waits no longer */
void plan_serve_touch(struct plan_sim *f, int j);            /* book load and what was served of it */
void plan_serve_power(struct plan_sim *f, int j);            /* replicas or load have changed */
void plan_pool_schedule(struct plan_sim *f, int pool);

/* simulate_totals.c: what a replication comes to */
void plan_sim_close(struct plan_sim *f);                     /* the simulation is over: book up to its end */
void plan_sim_figures(const struct plan_sim *f, double figure[PLAN_FIGURES]);
void plan_sim_outcomes(struct plan_sim *f, struct plan_simulation *out); /* series apart, all that is told of the first replication */
void plan_sim_percentiles(struct plan_simulation *out, double (*figure)[PLAN_FIGURES], double *finish); /* (replications), (jobs, replications), INFINITY: not; both are sorted */

#endif
