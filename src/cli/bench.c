/* stave bench: what this machine can do (`machine`, written as the profile that train, run and plan read) and what a
 * training step really takes on it (`train`, in bench_train.c), and how fast a model answers (`infer`, in bench_infer.c). */
#include "cli/bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/config.h"
#include "base/sys.h"
#include "cli/cli.h"

int bench_failed(const struct stave_err *err)
{
	stave_log(STAVE_LOG_ERROR, "%s", err->msg);
	return stave_err_exit(err->code);
}

struct machine_options {
	char *out, *disk;
	bool rates, json;
};
#define AT(field) offsetof(struct machine_options, field)
static const struct stave_key machine_keys[] = {
	{"out", STAVE_KEY_STR, AT(out), NULL, 0, 0, NULL, "where the profile is written (default: $STAVE_MACHINE, else ~/.config/stave/machine.json)"},
	{"disk", STAVE_KEY_STR, AT(disk), ".", 0, 0, NULL, "directory whose disk is measured, with a file of 128 MiB"},
	{"rates", STAVE_KEY_BOOL, AT(rates), "true", 0, 0, NULL, "sample the operations of a model, as forecasts need; without: limits only"},
	{"json", STAVE_KEY_BOOL, AT(json), "false", 0, 0, NULL, "print the profile as JSON"},
};
#undef AT

static void row(const char *name, double value, double scale, const char *unit)
{
	if (value > 0)
		printf("  %-22s %10.2f %s\n", name, value * scale, unit);
	else
		printf("  %-22s %10s\n", name, "none");
}

/* The most that peak or bandwidth allows of what a sample counts: a product with stored weights is limited by one or the other. */
static double limit_of(const struct stave_machine *m, const struct stave_rate *r, bool flops)
{
	double peak = r->dtype == STAVE_BF16 && m->peak_bf16 > 0 ? m->peak_bf16 : r->dtype == STAVE_I8 && m->peak_i8 > 0 ? m->peak_i8 : m->peak_f32;
	enum stave_qtype t = strncmp(r->what, "packed ", 7) ? STAVE_QTYPE_COUNT : stave_qtype_of_name(r->what + 7);
	if (!flops)
		return m->copy_bytes_s;
	if (t == STAVE_QTYPE_COUNT)
		return peak;
	double reading = 2.0 * (double)r->m * stave_qtype_info(t).per / stave_qtype_info(t).bytes * m->read_bytes_s;
	return reading < peak ? reading : peak;
}

static void print_rates(const struct stave_machine *m)
{
	static const char *const passes[] = {"forward", "dgrad", "wgrad", "update"};
	printf("\n  %-12s %-8s %-5s %8s %8s %8s %14s %10s\n", "operation", "pass", "type", "m", "n", "k", "rate", "of limit");
	for (int i = 0; i < m->n_rates; i++) {
		const struct stave_rate *r = &m->rates[i];
		bool flops = !strcmp(r->what, "matmul") || !strcmp(r->what, "attention") || !strcmp(r->what, "paged") || !strncmp(r->what, "packed ", 7);
		printf("  %-12s %-8s %-5s %8lld %8lld %8lld %9.1f %s %9.0f %%\n", r->what, passes[r->pass], stave_dtype_name(r->dtype), (long long)r->m,
		       (long long)r->n, (long long)r->k, r->per_s * 1e-9, flops ? "GF/s" : "GB/s", 100 * r->per_s / limit_of(m, r, flops));
	}
}

static void print_machine(const struct stave_machine *m)
{
	char size[32];
	printf("%s: %d cores, %d threads, level %s, %s of memory\n", m->cpu, m->cores, m->threads, m->level, stave_bytes_text(size, (double)m->memory_bytes));
	row("matrix peak f32", m->peak_f32, 1e-9, "GFLOP/s");
	row("matrix peak bf16", m->peak_bf16, 1e-9, "GFLOP/s");
	row("matrix peak int8", m->peak_i8, 1e-9, "GOP/s");
	row("memory read", m->read_bytes_s, 1e-9, "GB/s");
	row("memory copy", m->copy_bytes_s, 1e-9, "GB/s (read + written)");
	row("first touch", m->touch_s_per_page, 1e6, "us per 4 KiB page, all threads");
	row("disk write + fsync", m->disk_write_bytes_s, 1e-6, "MB/s");
	row("disk read", m->disk_read_bytes_s, 1e-6, "MB/s");
	row("parallel region", m->call_s, 1e6, "us");
	print_rates(m);
}

/* Seconds that all processors have worked since the machine started, less this process's own; 0 where /proc does not say. */
static double others_s(void)
{
	unsigned long long user = 0, nice = 0, system = 0;
	struct rusage own;
	FILE *f = fopen("/proc/stat", "r");
	int n = f ? fscanf(f, "cpu %llu %llu %llu", &user, &nice, &system) : 0;
	if (f)
		fclose(f);
	getrusage(RUSAGE_SELF, &own);
	double mine = (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + 1e-6 * (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec);
	return n == 3 ? (double)(user + nice + system) / (double)sysconf(_SC_CLK_TCK) - mine : 0;
}

#define OTHERS_MOST 0.05 /* of the cores */

/* A profile is of the machine, not of what else ran on it. */
static void warn_if_shared(const struct stave_machine *m, double others, double seconds)
{
	double share = others / (seconds * m->cores);
	if (share > OTHERS_MOST)
		stave_log(STAVE_LOG_WARN, "other processes used %.0f %% of the cores meanwhile: rates are too low and forecasts will be off; measure again when the machine is idle",
		          100 * share);
}

static int measure(const struct machine_options *o, struct stave_machine *m, struct stave_err *err)
{
	char path[STAVE_PATH], took[32];
	double start = stave_now_s(), others = others_s();
	int rc = stave_machine_place(path, o->out, err); /* asked first: a minute's work must have where to go */
	if (rc || (rc = bench_probe(m, o->disk, err)) || (o->rates && (rc = bench_rates(m, err))) || (rc = stave_machine_save(m, path, err)))
		return rc;
	warn_if_shared(m, others_s() - others, stave_now_s() - start);
	stave_progress(true, "measured in %s; written to %s", stave_duration_text(took, stave_now_s() - start), path);
	return 0;
}

static int bench_machine(int argc, char **argv)
{
	struct machine_options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1];
	int n = 0, status = 0;
	bool help = false;
	struct stave_machine *m = calloc(1, sizeof *m);
	if (!m || stave_config_open(&c, machine_keys, sizeof machine_keys / sizeof *machine_keys, &o, &err)) {
		free(m);
		return bench_failed(&err);
	}
	if (stave_config_args(&c, argc, argv, false, positional, 1, &n, &help, &err)) {
		status = bench_failed(&err);
	} else if (help) {
		fputs("stave bench machine: measure this machine and write its profile, in about a minute.\n\n"
		      "  stave bench machine\n"
		      "  stave bench machine --out here.json --json\n\n", stdout);
		stave_config_help(&c, stdout);
	} else if (n) {
		stave_err_set(&err, STAVE_EUSAGE, "'%s' is no option of bench machine; 'stave bench machine -h' lists them", positional[0]);
		status = bench_failed(&err);
	} else if (measure(&o, m, &err)) {
		status = bench_failed(&err);
	} else if (o.json) {
		json_t *j = stave_machine_json(m);
		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
		putchar('\n');
		json_decref(j);
	} else {
		print_machine(m);
	}
	stave_config_close(&c);
	free(m);
	return status;
}

int stave_cli_bench(int argc, char **argv)
{
	static const char *const verbs[] = {"machine", "train", "infer"};
	static const char usage[] = "stave bench machine|train|infer: measure this machine, or training and inference on it.\n\n"
	                            "  stave bench machine\n"
	                            "  stave bench train --model gpt2-124m --batch 4 --seq 256 --dtype bf16\n"
	                            "  stave bench infer model.gguf --prompt 512 --generate 32\n\n"
	                            "'stave bench infer -h' shows the options, and so for the others.\n";
	if (argc > 1 && !strcmp(argv[1], verbs[0]))
		return bench_machine(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], verbs[1]))
		return bench_train(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], verbs[2]))
		return bench_infer(argc - 1, argv + 1);
	if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		fputs(usage, stdout);
		return 0;
	}
	const char *near = argc > 1 ? stave_nearest(argv[1], verbs, 3) : NULL;
	if (argc > 1)
		stave_log(STAVE_LOG_ERROR, "bench '%s' is unknown%s%s; machine, train or infer is wanted", argv[1], near ? "; did you mean " : "", near ? near : "");
	else
		fputs(usage, stderr);
	return stave_err_exit(STAVE_EUSAGE);
}
