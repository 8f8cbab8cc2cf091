/* Private to plan/: failures, checkpoints and when a job ends. Exponential failures at a constant rate per node; seconds, nodes,
 * failures per node-second. Nothing here allocates; every result is finite for arguments that are. */
#ifndef STAVE_PLAN_RELIABILITY_H
#define STAVE_PLAN_RELIABILITY_H

#include <stdbool.h>

/* A mean time between failures that stands for "never": thirty thousand million years, so that ratios stay finite. */
#define PLAN_NEVER_S 1e18

/* A failure rate somebody published for a whole fleet. */
struct plan_failure_rate {
	const char *fleet, *source; /* the source as cited, short enough to be compared */
	double per_1000_node_days;
};
/* The published rates; *n of them. Static. */
const struct plan_failure_rate *plan_failure_rates(int *n);
/* Geometric mean, in failures per node-second, of the published rates but those whose source contains `without` (may be NULL); *spread:
 * standard deviation of their logarithms, what one must allow for a fleet one does not know yet (may be NULL). */
double plan_failure_rate_typical(const char *without, double *spread);
/* Failures per node-second of a rate per 1000 node-days. */
double plan_failure_rate_s(double per_1000_node_days);
/* Mean time between failures of a job that stops when any of its nodes fails: 1 / (nodes rate) (Kokolis et al. HPCA 2025, section III).
 * PLAN_NEVER_S when nothing fails. */
double plan_job_mtbf_s(double nodes, double rate_node_s);

/* What failures and checkpoints cost one job. */
struct plan_recovery {
	double mtbf_s;       /* of the whole job, > 0 */
	double checkpoint_s; /* the job stands still so long for a checkpoint */
	double exposed_s;    /* a checkpoint is safe only so long after that (asynchronous write); 0 when it blocks */
	double down_s;       /* until the failed node is replaced: nothing runs, nothing fails */
	double restart_s;    /* start, load, first step: can fail again */
};
enum plan_interval_rule { PLAN_YOUNG, PLAN_DALY, PLAN_RFO, PLAN_EXACT };
/* Seconds from one checkpoint's start to the next one's, the checkpoint included.
 * PLAN_YOUNG sqrt(2 mu C) + C (Young 1974); PLAN_DALY sqrt(2 (mu + D + R) C) + C (Daly 2004); PLAN_RFO sqrt(2 (mu - D - R) C), 0 where
 * mu <= D + R (Aupy et al. 2013, "refined first order"); PLAN_EXACT maximises the goodput of plan_goodput, which needs neither D nor R:
 * T = mu x with x - 1 + exp(-x) = C / mu (Aupy et al. 2013; Bougeret et al. 2011, by Lambert's W). */
double plan_interval_s(enum plan_interval_rule rule, const struct plan_recovery *r);

/* Where the time of a job goes, as shares of wall time: useful + checkpoint + lost + restart + down = 1. */
struct plan_goodput {
	double interval_s;
	double useful;             /* the goodput, or effective training time */
	double checkpoint, lost, restart, down;
	double failures_s;         /* failures per second of wall time */
};
/* Expected shares with a period `interval_s` (0: the best one, no shorter than a checkpoint takes to become safe). One period takes
 * E = (mu + D) exp(R / mu) (exp(T / mu) - 1) for T - C of work (Aupy et al. 2013, proposition for exponential failures); its parts follow
 * from the exp(R / mu) (exp(T / mu) - 1) failures a period sees. exposed_s counts as part of R: so much work more is done again after
 * each failure. */
void plan_goodput(const struct plan_recovery *r, double interval_s, struct plan_goodput *out);

/* Wall time of a job. */
struct plan_finish {
	struct plan_goodput goodput;
	double mean_s, sd_s;       /* sd: of the failures' luck alone */
	double p10_s, p50_s, p90_s; /* also of not knowing the rate, see rate_spread */
	double failures;           /* expected restarts */
};
/* `work_s`: the time it would take without failures and checkpoints. Mean and variance of a period are exact (a compound geometric sum of
 * truncated exponentials); over the whole job the time beyond the undisturbed one is taken as gamma distributed with that mean and
 * variance. rate_spread: standard deviation of the logarithm of the failure rate, 0 when it is known; the checkpoint interval is the one
 * for the rate believed. */
void plan_finish_forecast(const struct plan_recovery *r, double interval_s, double work_s, double rate_spread, struct plan_finish *out);

/* Probability that a failed node finds one of `spares` spare nodes free. The nodes under repair when it fails are Poisson distributed with mean nodes rate repair_s,
 * whatever the distribution of repairs (Palm's theorem), and must be fewer than the spares. 1 when nothing fails. */
double plan_spare_share(double nodes, double rate_node_s, double repair_s, double spares);
/* Fewest spares for which that is at least `sure` (0..1), never more than the nodes. */
double plan_spares(double nodes, double rate_node_s, double repair_s, double sure);

/* Seconds to start a job again on so many devices, without loading its checkpoint: a + b devices, fitted to the relative error of the cold
 * recoveries at 16, 22, 64 and 98 thousand devices of FT-HSDP (arXiv:2602.00277 figure 2). */
double plan_restart_s(double devices);

#endif
