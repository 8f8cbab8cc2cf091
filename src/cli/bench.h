/* Private to the bench verb: what its files share. bench.c speaks; bench_probe.c measures peaks, memory and disk;
 * bench_rates.c and bench_answer.c sample the operations of a model; bench_train.c runs training steps, bench_infer.c a model that
 * answers, and bench_forecast.c foretells how fast it will. */
#ifndef STAVE_CLI_BENCH_H
#define STAVE_CLI_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "cost/machine.h"

/* Flops (I8: operations) per second of the best matrix product found, weights in the layout oneDNN likes best, within about
 * `seconds`; 0 when this CPU, or STAVE_CPU, has no product of that type. */
double bench_peak(enum stave_dtype dtype, double seconds);
/* Everything of a profile but its rates; `disk_dir` is where a file of some hundred MB is written and removed. */
int bench_probe(struct stave_machine *m, const char *disk_dir, struct stave_err *err);
/* The rates. Takes about a minute. */
int bench_rates(struct stave_machine *m, struct stave_err *err);

/* Bytes per second that all threads read from memory. */
int bench_read_rate(double *bytes_s, struct stave_err *err);

/* A model as bench infer runs it; type and cache as its options name them. */
struct bench_case {
	const char *model, *type, *cache;
	int prompt, generate, sequences;
};
/* 1: *out holds what the profile foretells; 0: this machine has no profile, which is logged. */
int bench_forecast(const struct bench_case *c, struct stave_answer_rates *out, struct stave_err *err);

int bench_train(int argc, char **argv);
int bench_infer(int argc, char **argv);
/* Prints an error and returns its exit status. */
int bench_failed(const struct stave_err *err);

#endif
