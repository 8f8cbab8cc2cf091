/* stave doctor: what this machine has, what is missing, and what to do about it. Each check is one function that looks,
 * and says ok, warn (works, but slower or with less) or fail (stave cannot do its work here). */
#include <dlfcn.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "comm/plugin.h"
#include "cost/machine.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"

enum status { OK, WARN, FAIL };
static const char *const status_text[] = {"ok", "warn", "fail"};

struct finding {
	enum status status;
	char found[256], advice[320]; /* advice: empty when there is nothing to do */
};

__attribute__((format(printf, 3, 4))) static void found(struct finding *f, enum status s, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(f->found, sizeof f->found, fmt, ap);
	va_end(ap);
	f->status = s;
}

static void advise(struct finding *f, const char *text) { snprintf(f->advice, sizeof f->advice, "%s", text); }

/* First line of a small file, without its newline; false when there is none. */
static bool first_line(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "r");
	bool ok = f && fgets(out, (int)size, f);
	if (f)
		fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok;
}

static void processor(struct finding *f)
{
	const struct stave_kernels *k = stave_kernels();
	const char *lowered = getenv("STAVE_CPU");
	bool slow = !strcmp(k->level, "ref");
	found(f, slow || (lowered && *lowered) ? WARN : OK, "%ld cores, %d threads, vector level %s%s", sysconf(_SC_NPROCESSORS_ONLN), stave_threads(), k->level,
	      stave_has_bf16() ? ", bf16 products in hardware" : "; no bf16 products, training uses f32");
	if (lowered && *lowered)
		advise(f, "STAVE_CPU lowers the vector level; unset it unless you are testing");
	else if (slow)
		advise(f, "this CPU has no AVX2: everything works, at about a tenth of the speed");
}

/* A container may grant less time than it shows cores; threads then wait for each other asleep. */
static void quota(struct finding *f)
{
	char line[64];
	long long limit, period;
	if (!first_line("/sys/fs/cgroup/cpu.max", line, sizeof line) || sscanf(line, "%lld %lld", &limit, &period) != 2 || period <= 0) {
		found(f, OK, "no limit on processor time");
		return;
	}
	double cores = (double)limit / (double)period;
	found(f, cores + 0.01 < stave_threads() ? WARN : OK, "this container may use %.1f cores", cores);
	if (f->status == WARN)
		advise(f, "set STAVE_THREADS to the number of cores granted, or grant more");
}

/* A product small enough to check against the definition. */
static bool product_is_right(enum stave_dtype dt)
{
	enum { N = 48 };
	static float x[N * N], y[N * N];
	static uint16_t x16[N * N], y16[N * N];
	float z[N * N], want[N * N];
	struct stave_matmul_desc d = {.m = N, .n = N, .k = N, .in = dt, .out = STAVE_F32};
	struct stave_matmul *mm;
	size_t bytes = 0;
	for (int i = 0; i < N * N; i++) {
		x[i] = (float)(i % 7) - 3;
		y[i] = (float)(i % 5) - 2;
		x16[i] = stave_f32_to_bf16(x[i]);
		y16[i] = stave_f32_to_bf16(y[i]);
	}
	const void *a = dt == STAVE_F32 ? (const void *)x : x16, *b = dt == STAVE_F32 ? (const void *)y : y16;
	if (stave_matmul_open(&mm, &d, &bytes, NULL))
		return false;
	void *scratch = bytes ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
	bool ok = !bytes || scratch;
	if (ok) {
		stave_matmul_run(mm, a, b, z, NULL, scratch);
		stave_matmul_ref(&d, a, b, want, NULL);
		ok = !memcmp(z, want, sizeof z); /* small integers: exact in any order of summation */
	}
	free(scratch);
	stave_matmul_close(mm);
	return ok;
}

static void products(struct finding *f)
{
	bool f32 = product_is_right(STAVE_F32), bf16 = !stave_has_bf16() || product_is_right(STAVE_BF16);
	found(f, f32 && bf16 ? OK : FAIL, "matrix products in f32%s %s", stave_has_bf16() ? " and bf16" : "", f32 && bf16 ? "agree with the definition" : "are wrong");
	if (f->status == FAIL)
		advise(f, "install libdnnl2 of Debian 12 again; if it stays, report the CPU model");
}

static void memory(struct finding *f)
{
	char have[32], all[32];
	size_t available = stave_memory_available_bytes();
	found(f, available < (size_t)1 << 30 ? WARN : OK, "%s available of %s", stave_bytes_text(have, (double)available),
	      stave_bytes_text(all, (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE)));
	if (f->status == WARN)
		advise(f, "only the smallest models fit; `stave train` prints what a run needs before it starts");
}

static void huge_pages(struct finding *f)
{
	char line[128];
	if (!first_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line)) {
		found(f, WARN, "this kernel has no transparent huge pages");
		advise(f, "buffers are touched page by page at start: some seconds per 10 GiB on a virtual machine");
		return;
	}
	bool on = strstr(line, "[always]") || strstr(line, "[madvise]");
	found(f, on ? OK : WARN, "transparent huge pages: %s", line);
	if (!on)
		advise(f, "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
}

static void profile(struct finding *f)
{
	struct stave_machine *m = calloc(1, sizeof *m);
	struct stave_err err = {0};
	char path[STAVE_PATH];
	if (!m || stave_machine_path(path, NULL, &err)) {
		found(f, WARN, "%s", m ? err.msg : "out of memory");
	} else if (stave_machine_load(m, path, &err)) {
		found(f, WARN, "%.200s", stave_exists(path) ? err.msg : "none yet: no forecasts, no share of peak");
		advise(f, "stave bench machine");
	} else if (m->threads != stave_threads() || strcmp(m->level, stave_kernels()->level)) {
		found(f, WARN, "measured for %d threads at level %s, not for this machine's %d at %s", m->threads, m->level, stave_threads(), stave_kernels()->level);
		advise(f, "stave bench machine");
	} else {
		found(f, OK, "%.0f GFLOP/s f32, %.0f bf16, %.1f GB/s read, %d rates (%.100s)", m->peak_f32 * 1e-9, m->peak_bf16 * 1e-9, m->read_bytes_s * 1e-9,
		      m->n_rates, path);
	}
	free(m);
}

static void disk(struct finding *f)
{
	struct statvfs s;
	char text[32];
	if (statvfs(".", &s)) {
		found(f, WARN, "the current directory cannot be asked for its free space");
		return;
	}
	double bytes = (double)s.f_bavail * (double)s.f_frsize;
	bool writable = access(".", W_OK) == 0;
	found(f, bytes < 2e9 || !writable ? WARN : OK, "%s free in this directory%s", stave_bytes_text(text, bytes), writable ? "" : ", which is not writable");
	if (f->status == WARN)
		advise(f, "checkpoints of a 124M model take 1.5 GB each; choose another directory with --out");
}

static void mpi(struct finding *f)
{
	const struct stave_comm_ops *ops;
	void *handle = NULL;
	struct stave_err err = {0};
	if (stave_plugin_open("mpi", "doctor", &ops, &handle, &err)) {
		found(f, WARN, "not usable, single machine only: %.180s", err.msg);
		advise(f, "only for several ranks or machines: apt-get install openmpi-bin libopenmpi-dev, then make");
		return;
	}
	found(f, OK, "plugin loads; mpirun -n N stave train ... works where Open MPI is installed");
	if (handle)
		dlclose(handle);
}

static void gpu(struct finding *f)
{
	char line[200];
	void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
	bool card = first_line("/proc/driver/nvidia/version", line, sizeof line);
	if (driver)
		dlclose(driver);
	found(f, card && !driver ? WARN : OK, "%s", card && driver ? line : card ? "a kernel driver without libcuda" : "none; stave computes on the CPU");
	if (f->status == WARN)
		advise(f, "install the CUDA driver library that matches the kernel driver; this version of stave does not use it");
}

static const struct check {
	const char *name;
	void (*look)(struct finding *f);
} checks[] = {
	{"processor", processor}, {"processor time", quota}, {"products", products}, {"memory", memory}, {"huge pages", huge_pages},
	{"machine profile", profile}, {"disk", disk}, {"MPI", mpi}, {"GPU", gpu},
};
enum { CHECKS = sizeof checks / sizeof *checks };

static int doctor(bool json)
{
	json_t *list = json_array();
	int count[3] = {0};
	for (int i = 0; i < CHECKS; i++) {
		struct finding f = {0};
		checks[i].look(&f);
		count[f.status]++;
		if (!json) {
			printf("%-5s %-16s %s\n", status_text[f.status], checks[i].name, f.found);
			if (*f.advice)
				printf("%-5s %-16s -> %s\n", "", "", f.advice);
		}
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s*}", "name", checks[i].name, "status", status_text[f.status], "found", f.found, "do",
		                                      *f.advice ? f.advice : NULL));
	}
	if (json) {
		json_t *j = json_pack("{s:b, s:O}", "usable", count[FAIL] == 0, "checks", list);
		json_dumpf(j, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(j);
	} else {
		printf("\n%s: %d ok, %d to improve, %d failed\n", count[FAIL] ? "stave cannot work here" : "stave can work here", count[OK], count[WARN], count[FAIL]);
	}
	json_decref(list);
	return count[FAIL] ? stave_err_exit(STAVE_EDEVICE) : 0;
}

int stave_cli_doctor(int argc, char **argv)
{
	struct {
		bool json;
	} o;
	static const struct stave_key keys[] = {{"json", STAVE_KEY_BOOL, 0, "no", 0, 0, NULL, "print one JSON document"}};
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1];
	int n = 0, status = 0, rc = stave_config_open(&c, keys, 1, &o, &err);
	bool help = false;
	if (!rc) {
		rc = stave_config_args(&c, argc, argv, false, positional, 1, &n, &help, &err);
		if (!rc && n)
			rc = stave_err_set(&err, STAVE_EUSAGE, "stave doctor takes no '%s'", positional[0]);
		if (!rc && help) {
			fputs("stave doctor: what this machine has, what is missing, what to do. Exit status 0 when stave can work here.\n\n"
			      "  stave doctor\n"
			      "  stave doctor --json\n\n", stdout);
			stave_config_help(&c, stdout);
		} else if (!rc) {
			status = doctor(o.json);
		}
		stave_config_close(&c);
	}
	if (rc)
		stave_log(STAVE_LOG_ERROR, "%s", err.msg);
	return rc ? stave_err_exit(rc) : status;
}
