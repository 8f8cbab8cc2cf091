/* Failures, checkpoints and when a job ends: closed forms of a renewal process.
 *
 * A job works in periods of T seconds, the last C of which write a checkpoint. Failures come at rate 1 / mu while it works, writes or
 * restarts, never while a node is being replaced (D). A failure throws away the period; D and a restart of R seconds follow, and a failure
 * during the restart starts the replacement anew. Everything below is exact for that process but two things: an asynchronous
 * checkpoint's exposed time is treated as a longer restart, and the sum over a job's periods as gamma distributed. */
#include "plan/site/reliability.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* exp beyond this is "never": its square, times the square of PLAN_NEVER_S, still is a double */
#define EXPONENT_MAX 200

static const struct plan_failure_rate rates[] = {
	{"Meta RSC-1, 16,000 A100, 11 months", "Kokolis et al. HPCA 2025 (arXiv:2410.21680)", 6.50},
	{"Meta RSC-2, 8,000 A100, 11 months", "Kokolis et al. HPCA 2025 (arXiv:2410.21680)", 2.34},
	{"Meta, 32,000 H100", "FT-HSDP (arXiv:2602.00277)", 2.3},
	{"Llama 3 405B, 16,384 H100, 419 in 54 days", "Llama Team 2024 (arXiv:2407.21783)", 3.79},
};

const struct plan_failure_rate *plan_failure_rates(int *n)
{
	*n = sizeof rates / sizeof rates[0];
	return rates;
}

double plan_failure_rate_s(double per_1000_node_days) { return per_1000_node_days / 1000 / 86400; }

double plan_failure_rate_typical(const char *without, double *spread)
{
	double sum = 0, squares = 0;
	int n = 0;
	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
		if (without && strstr(rates[i].source, without))
			continue;
		double l = log(rates[i].per_1000_node_days);
		sum += l;
		squares += l * l;
		n++;
	}
	double mean = sum / n;
	if (spread)
		*spread = n > 1 ? sqrt(fmax(squares - n * mean * mean, 0) / (n - 1)) : 0;
	return plan_failure_rate_s(exp(mean));
}

double plan_job_mtbf_s(double nodes, double rate_node_s)
{
	double rate = nodes * rate_node_s;
	return rate > 1 / PLAN_NEVER_S ? 1 / rate : PLAN_NEVER_S;
}

/* Root of x - 1 + exp(-x) = c. The left side is convex and rises, and sqrt(2c) + c lies right of the root: Newton comes down to it. */
static double exact_ratio(double c)
{
	double x = sqrt(2 * c) + c;
	for (int i = 0; i < 50 && x > 0; i++) {
		double e = expm1(-x), step = (x + e - c) / -e;
		x -= step;
		if (fabs(step) <= 1e-14 * x)
			break;
	}
	return x;
}

double plan_interval_s(enum plan_interval_rule rule, const struct plan_recovery *r)
{
	double mu = r->mtbf_s, C = r->checkpoint_s, gone = r->down_s + r->restart_s;
	switch (rule) {
	case PLAN_YOUNG: return sqrt(2 * mu * C) + C;
	case PLAN_DALY: return sqrt(2 * (mu + gone) * C) + C;
	case PLAN_RFO: return mu > gone ? sqrt(2 * (mu - gone) * C) : 0;
	default:
		/* a free checkpoint would be written all the time; no job does so more than once a second */
		return fmax(mu * exact_ratio(C / mu), 1);
	}
}

static double grown(double a) { return expm1(fmin(a, EXPONENT_MAX)); }

void plan_goodput(const struct plan_recovery *r, double interval_s, struct plan_goodput *out)
{
	double mu = r->mtbf_s, C = r->checkpoint_s, R = r->restart_s + r->exposed_s;
	double T = interval_s > 0 ? interval_s : fmax(plan_interval_s(PLAN_EXACT, r), C + r->exposed_s);
	double lost = mu * grown(T / mu), failures = (1 + grown(R / mu)) * grown(T / mu);
	double restarts = failures * mu * -expm1(-R / mu); /* E[min(failure, R)] each */
	double E = lost + restarts + failures * r->down_s; /* = (mu + D) exp(R/mu) (exp(T/mu) - 1) */
	double again = R > 0 ? r->exposed_s / R : 0;       /* the part of "restart" that repeats work */
	*out = (struct plan_goodput){
		.interval_s = T, .useful = fmax(T - C, 0) / E, .checkpoint = fmin(C, T) / E, .lost = (fmax(lost - T, 0) + restarts * again) / E,
		.restart = restarts * (1 - again) / E, .down = failures * r->down_s / E, .failures_s = failures / E,
	};
}

/* First two moments of an exponential time known to be below a (mean mu without that knowledge); by series where the closed form
 * subtracts nearly equal numbers. */
static void truncated(double mu, double a, double *m1, double *m2)
{
	double x = a / mu;
	if (x < 1e-3) {
		*m1 = a * (0.5 - x / 12);
		*m2 = a * a * (1.0 / 3 - x / 12);
	} else {
		*m1 = mu - a / grown(x);
		*m2 = 2 * mu * mu - (a * a + 2 * a * mu) / grown(x);
	}
}

/* Mean and variance of the time beyond `a` that it takes to get through `a` seconds undisturbed, each failure costing its time and
 * another `m`, variance `v`: a geometric number of failures. */
static void through(double mu, double a, double m, double v, double *mean, double *variance)
{
	double n = grown(a / mu), m1 = 0, m2 = 0;
	if (a > 0)
		truncated(mu, a, &m1, &m2);
	double each = m1 + m;
	*mean = n * each;
	*variance = n * (fmax(m2 - m1 * m1, 0) + v) + n * (1 + n) * each * each;
}

/* Regularized lower incomplete gamma function P(k, x): series below k + 1, Lentz's continued fraction above (Abramowitz and Stegun 6.5.29,
 * 6.5.31), and Wilson and Hilferty's normal approximation (1931) for large k, where those are slow. */
static double gamma_cdf(double k, double x)
{
	if (x <= 0)
		return 0;
	if (k > 400) {
		double z = (cbrt(x / k) - 1 + 1 / (9 * k)) * 3 * sqrt(k);
		return 0.5 * erfc(-z / sqrt(2));
	}
	double front = exp(k * log(x) - x - lgamma(k));
	if (x < k + 1) {
		double term = 1 / k, sum = term;
		for (int i = 1; i < 1000 && term > sum * 1e-12; i++)
			sum += term *= x / (k + i);
		return fmin(front * sum, 1);
	}
	double b = x + 1 - k, c = 1e300, d = 1 / b, h = d;
	for (int i = 1; i < 1000; i++) {
		double an = -i * (i - k);
		b += 2;
		d = 1 / (an * d + b);
		c = b + an / c;
		h *= c * d;
		if (fabs(c * d - 1) < 1e-12)
			break;
	}
	return fmax(1 - front * h, 0);
}

/* The job's time for one failure rate: `base` undisturbed, and a gamma distributed rest. */
struct spell {
	double base, mean, variance; /* mean, variance of the rest */
};

static struct spell spell_of(const struct plan_recovery *r, double T, double periods)
{
	double mu = r->mtbf_s, R = r->restart_s + r->exposed_s, rest, rest_v, mean, variance;
	through(mu, R, r->down_s, 0, &rest, &rest_v);
	through(mu, T, r->down_s + R + rest, rest_v, &mean, &variance);
	return (struct spell){.base = periods * T, .mean = periods * mean, .variance = periods * variance};
}

static double spell_cdf(const struct spell *s, double t)
{
	double x = t - s->base;
	if (s->variance <= 0 || s->mean <= 0)
		return x >= s->mean ? 1 : 0;
	double scale = s->variance / s->mean;
	return gamma_cdf(s->mean / scale, x / scale);
}

/* How many equally likely failure rates stand for not knowing it, and their standard normal quantiles at (i + 1/2) / 9. */
enum { RATES = 9 };
static const double deviate[RATES] = {-1.59322, -0.96742, -0.58946, -0.28222, 0, 0.28222, 0.58946, 0.96742, 1.59322};

static double quantile(const struct spell *s, int n, double p)
{
	double low = s[0].base, high = low;
	for (int i = 0; i < n; i++)
		high = fmax(high, s[i].base + s[i].mean + 20 * sqrt(s[i].variance));
	for (int i = 0; i < 200 && high - low > 1e-10 * high; i++) {
		double middle = (low + high) / 2, cdf = 0;
		for (int j = 0; j < n; j++)
			cdf += spell_cdf(&s[j], middle) / n;
		*(cdf < p ? &low : &high) = middle;
	}
	return fmin(high, PLAN_NEVER_S);
}

void plan_finish_forecast(const struct plan_recovery *r, double interval_s, double work_s, double rate_spread, struct plan_finish *out)
{
	struct plan_finish f = {0};
	plan_goodput(r, interval_s, &f.goodput);
	double T = f.goodput.interval_s, gain = fmax(T - r->checkpoint_s, 1e-12 * T);
	double periods = work_s / gain;
	struct spell one = spell_of(r, T, periods), s[RATES];
	int n = rate_spread > 0 ? RATES : 1;
	for (int i = 0; i < n; i++) {
		struct plan_recovery q = *r;
		if (n > 1)
			q.mtbf_s = fmin(r->mtbf_s * exp(-rate_spread * deviate[i]), PLAN_NEVER_S);
		s[i] = spell_of(&q, T, periods);
	}
	f.mean_s = fmin(one.base + one.mean, PLAN_NEVER_S);
	f.sd_s = fmin(sqrt(one.variance), PLAN_NEVER_S);
	f.failures = fmin(f.goodput.failures_s * (one.base + one.mean), PLAN_NEVER_S);
	f.p10_s = quantile(s, n, 0.1);
	f.p50_s = quantile(s, n, 0.5);
	f.p90_s = quantile(s, n, 0.9);
	*out = f;
}

double plan_spare_share(double nodes, double rate_node_s, double repair_s, double spares)
{
	double mean = nodes * rate_node_s * repair_s, s = floor(spares);
	if (mean <= 0)
		return 1;
	return s < 1 ? 0 : 1 - gamma_cdf(s, mean); /* P(Poisson(m) < s) = Q(s, m) */
}

double plan_spares(double nodes, double rate_node_s, double repair_s, double sure)
{
	if (!(sure > 0) || !(nodes > 0) || nodes * rate_node_s * repair_s <= 0)
		return 0;
	sure = fmin(sure, 1 - 1e-9); /* certainty would take a spare for every node */
	double low = 0, high = 1;    /* low is too few */
	while (high < nodes && plan_spare_share(nodes, rate_node_s, repair_s, high) < sure) {
		low = high;
		high *= 2;
	}
	while (high - low > 1) {
		double middle = floor((low + high) / 2);
		*(plan_spare_share(nodes, rate_node_s, repair_s, middle) < sure ? &low : &high) = middle;
	}
	return fmin(high, ceil(nodes));
}

double plan_restart_s(double devices) { return 79.75 + 8.387e-3 * devices; }
