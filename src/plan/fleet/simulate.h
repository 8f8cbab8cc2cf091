/* Private to plan/: a fleet over time by discrete events. Sites hold pools of like nodes; jobs train or serve on one pool; nodes fail and are repaired;
 * facility power is capped. One event per thing that happens (a failure, a repair, a start, an end, a change of serving load), never per second, step or
 * token: cost is events x log(events), memory is planned from the numbers of nodes and jobs and taken once.
 *
 * Seconds, watts, joules and nodes throughout; money in the one currency of the caller. The same fleet and seed give the same result to the bit. */
#ifndef STAVE_PLAN_SIMULATE_H
#define STAVE_PLAN_SIMULATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "base/arena.h"
#include "base/err.h"

/* ---- what is simulated; the caller owns all arrays, which must outlive the result ---- */

struct plan_span {               /* a random duration: lognormal, which is how repair times are found to be (Schroeder and Gibson, DSN 2006) */
	double mean_s;
	double spread;               /* coefficient of variation; 0: always the mean */
};
struct plan_fleet_site {
	const char *name;
	double pue;                  /* facility power = pue x IT power */
	double other_w;              /* IT power that does not depend on jobs: network, storage */
	double cap_w;                /* most facility power, held against nodes' peak power; 0: none */
	double throttle_floor;       /* slowest speed training may be throttled to, (0, 1]; 1: jobs wait for power instead */
	double throttle_exponent;    /* power above idle goes with speed^this; 1 linear, near 2 for chips whose voltage follows the clock */
	double price_per_j, kg_per_j; /* of facility energy; 0: not known */
};
struct plan_fleet_pool {
	const char *name;
	int site;
	int nodes;
	int spares;                  /* of them: kept back from new jobs, so that a failed node can be replaced at once */
	double idle_w, mean_w, peak_w; /* of a node: idle; computing, billed; computing, held against the cap */
	double failure_rate_s;       /* failures per node and second over a node's life (6.5 per 1000 node-days = 7.5e-8) */
	double weibull_shape;        /* of time between failures of a node; 0 or 1: exponential; 0.7-0.8 seen in the field (Schroeder and Gibson) */
	double infant_factor;        /* new nodes fail (1 + factor) times as often … */
	double infant_s;             /* … an excess that decays with this time constant */
	double age_s;                /* of the nodes when the simulation begins */
	double soft_share;           /* of failures that a restart cures: no repair */
	struct plan_span repair;
	double backfill_s;           /* how long a waiting job may be passed over by later ones that fit; 0: never */
	double price_node_s;         /* of having one node for a second, used or not */
};
enum plan_fleet_kind { PLAN_FLEET_TRAIN, PLAN_FLEET_SERVE };
struct plan_fleet_job {
	const char *name;
	enum plan_fleet_kind kind;
	int pool;
	int nodes;                   /* of the job; serving: of one replica (or of one node's worth of small ones) */
	int priority;                /* higher first */
	bool preempts;               /* may take nodes and power of jobs of lower priority in its pool; they save first */
	double arrival_s;
	double start_s;              /* from nodes in hand to computing: program start, loading */
	/* training */
	double work_s;               /* of computing at full speed: steps x step time */
	double step_s;               /* the interval of checkpoints is rounded up to whole steps; 0: not rounded */
	double checkpoint_every_s;   /* of computing; 0: none are taken */
	double checkpoint_s;         /* the job stands still */
	double checkpoint_flush_s;   /* after that, in the background, until it can be restarted from */
	double detect_s;             /* from a failure to its being noticed */
	double restart_s;            /* start_s after a failure: loading the checkpoint is in it */
	double deadline_s;           /* 0: none */
	/* serving */
	double load[24];             /* requests/s (or tokens/s) by the users' hour, drawn as a line through the middles of hours */
	double weekend_factor;       /* of load on the 6th and 7th day of a week; 0 is taken as 1 */
	int first_weekday;           /* of the simulation's first day: 0 Monday … 6 */
	double utc_offset_s;         /* of the users; the simulation begins at midnight UTC */
	double growth_per_day;       /* 0.001: 0.1 % more each day */
	double load_spread;          /* coefficient of variation of load from one decision to the next (lognormal) */
	double capacity_s;           /* requests/s of one replica */
	double target;               /* utilisation autoscaling aims at, (0, 1] */
	int replicas_min, replicas_max;
	double decide_s;             /* between decisions of the autoscaler */
	double ahead_s;              /* how far ahead it knows the curve; 0: it only reacts */
	double cooldown_s;           /* too many replicas for so long: stop the surplus */
};
struct plan_fleet_window {       /* maintenance of some nodes of a pool; jobs on them save first */
	int pool, nodes;
	double start_s, duration_s;
	double every_s;              /* 0: once */
};
struct plan_fleet {
	const struct plan_fleet_site *site;
	const struct plan_fleet_pool *pool;
	const struct plan_fleet_job *job;
	const struct plan_fleet_window *window;
	int64_t sites, pools, jobs, windows;
	double horizon_s;
	uint64_t seed;
	int replications;            /* runs with other random numbers, for percentiles; at least 1 */
	const char *currency;        /* for reports; may be NULL */
};

/* ---- what comes out ---- */

enum plan_node_state {
	PLAN_NODE_BUSY,              /* training, checkpoints included */
	PLAN_NODE_SERVING,
	PLAN_NODE_STARTING,          /* held by a job that does not compute yet: loading, restarting, waiting for a node to be replaced */
	PLAN_NODE_IDLE,
	PLAN_NODE_DOWN,              /* under repair */
	PLAN_NODE_MAINTENANCE,
	PLAN_NODE_STATES
};
/* What node time was lost to. Each is node-seconds that did no useful work, but NODES and POWER count also work that waited: nodes wanted x time. */
enum plan_fleet_stave {
	PLAN_STAVE_NODES,            /* work and replicas waiting for nodes */
	PLAN_STAVE_POWER,            /* work waiting for power, and slowed by throttling */
	PLAN_STAVE_FAILURES,         /* repairs, work done twice, detection, restarts, waiting for a replacement */
	PLAN_STAVE_CHECKPOINTS,
	PLAN_STAVE_STARTS,           /* first starts, starts after preemption, scaling up */
	PLAN_STAVE_MAINTENANCE,
	PLAN_STAVE_SPARES,           /* idle, kept back */
	PLAN_STAVE_ARRIVALS,         /* idle for want of jobs */
	PLAN_STAVE_FRAGMENTS,        /* idle while jobs that do not fit wait */
	PLAN_STAVES
};
struct plan_fleet_sample {       /* integrals over one span of one site */
	int64_t node_us[PLAN_NODE_STATES]; /* node-microseconds; they add up to nodes x span exactly */
	double energy_j;             /* facility */
	double peak_w;               /* most facility power, all nodes that compute at their peak */
	double cost, kg;
	double speed_s;              /* of training against full speed x time */
	double queue_job_s, queue_node_s; /* waiting jobs, and nodes they want, x time */
	double load, unserved;       /* requests */
};
struct plan_fleet_outcome {      /* of one job, in the first replication; times from the simulation's beginning, -1: did not happen */
	double start_s, finish_s;
	double progress;             /* share of the work done when the simulation ended */
	double wait_s, wait_power_s; /* with nothing to run on; of it, for power only */
	double useful_s, lost_s, checkpoint_s, throttled_s; /* parts of computing (wall time; serving: useful only, in replica-seconds) */
	double starting_s, restarting_s; /* starts; detection, restarts and waiting for a replacement after failures */
	double goodput;              /* useful over all time nodes were held */
	long failures, checkpoints, preemptions;
	double load, unserved;       /* serving: requests */
	/* over all replications */
	double finish_p10_s, finish_p50_s, finish_p90_s; /* -1: not within the horizon */
	double finished_share, in_time_share;
};
struct plan_fleet_percentiles { double mean, p10, p50, p90; };
enum plan_fleet_figure {
	PLAN_FIGURE_UTILISATION,     /* nodes computing or serving, share of all node time */
	PLAN_FIGURE_GOODPUT,         /* training: useful node time over node time held */
	PLAN_FIGURE_ENERGY,          /* J */
	PLAN_FIGURE_COST,
	PLAN_FIGURE_CARBON,          /* kg */
	PLAN_FIGURE_FAILURES,
	PLAN_FIGURE_THROTTLED,       /* s, of all sites together */
	PLAN_FIGURE_UNSERVED,        /* share of load */
	PLAN_FIGURE_WAIT,            /* mean s a training job waited in all */
	PLAN_FIGURE_FINISHED,        /* training jobs */
	PLAN_FIGURE_LATE,            /* jobs whose deadline was missed within the horizon */
	PLAN_FIGURES
};
struct plan_simulation {
	const struct plan_fleet *fleet;
	double span_s;               /* of a sample: an hour, or whole hours for long horizons */
	int samples;
	struct plan_fleet_sample *series; /* (sites, samples), first replication */
	struct plan_fleet_sample total;   /* all sites, first replication */
	struct plan_fleet_outcome *outcome; /* (jobs) */
	double figure[PLAN_FIGURES];      /* first replication */
	struct plan_fleet_percentiles over[PLAN_FIGURES]; /* replications */
	double stave_node_s[PLAN_STAVES];
	enum plan_fleet_stave shortest;   /* the largest of them */
	double useful_node_s;             /* training and serving */
	int64_t nodes;
	uint64_t events, heap_steps;      /* of all replications: events handled, comparisons in heaps */
	struct stave_arena arena;         /* all of the above and the state */
};

/* Run it. STAVE_ECONFIG names the field that is wrong; STAVE_ENOFIT when a job can never start, with what would let it; STAVE_ENOMEM.
 * Free with plan_simulation_free. */
int plan_simulate(struct plan_simulation *out, const struct plan_fleet *fleet, struct stave_err *err);
void plan_simulation_free(struct plan_simulation *s);

/* One screen: curves of utilisation and power, jobs, where node time went. */
void plan_simulation_text(const struct plan_simulation *s, FILE *to);
/* New reference. */
json_t *plan_simulation_json(const struct plan_simulation *s);
/* One line per site and sample, with a heading. */
void plan_simulation_csv(const struct plan_simulation *s, FILE *to);

#endif
