/* The process: clock, threads, memory, signals, log and the live line. The only mutable globals of base/ are here: the
 * number of threads, the log level, the two stop flags and the state of the live line. */
#include "base/sys.h"

#include <hwloc.h>
#include <omp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double stave_now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Physical cores this process may run on: two hyperthreads of a core share its vector units. */
static int physical_cores(void)
{
	int n = 0;
	hwloc_topology_t topo;
	setenv("HWLOC_HIDE_ERRORS", "2", 0); /* a container without /sys is no error: the count below falls back */
	if (hwloc_topology_init(&topo) == 0) {
		if (hwloc_topology_load(topo) == 0) {
			hwloc_bitmap_t mine = hwloc_bitmap_alloc();
			hwloc_obj_t core = NULL;
			if (hwloc_get_cpubind(topo, mine, HWLOC_CPUBIND_PROCESS))
				hwloc_bitmap_copy(mine, hwloc_topology_get_allowed_cpuset(topo));
			while ((core = hwloc_get_next_obj_by_type(topo, HWLOC_OBJ_CORE, core)))
				n += hwloc_bitmap_intersects(core->cpuset, mine);
			hwloc_bitmap_free(mine);
		}
		hwloc_topology_destroy(topo);
	}
	if (n > 0)
		return n;
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (int)online : 1;
}

static int n_threads;

int stave_threads(void)
{
	if (!n_threads) {
		const char *e = getenv("STAVE_THREADS");
		int n = e ? atoi(e) : 0;
		stave_threads_set(n > 0 && n <= 4096 ? n : physical_cores());
	}
	return n_threads;
}

void stave_threads_set(int n)
{
	n_threads = n;
	omp_set_dynamic(0);
	omp_set_num_threads(n);
}

int stave_thread_index(void) { return omp_get_thread_num(); }

size_t stave_rss_bytes(void)
{
	size_t pages = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (f) {
		if (fscanf(f, "%zu %zu", &pages, &resident) != 2)
			resident = 0;
		fclose(f);
	}
	return resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t stave_memory_available_bytes(void)
{
	size_t avail = 0, kib;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1)
			avail = kib << 10;
	fclose(f);
	return avail;
}

static const char *scaled(char out[32], double v, double base, const char *const *unit, int units)
{
	int u = 0;
	while (u + 1 < units && (v >= base || v <= -base)) {
		v /= base;
		u++;
	}
	snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
	size_t n = strlen(out);
	if (n && out[n - 1] == ' ')
		out[n - 1] = 0;
	return out;
}

const char *stave_bytes_text(char out[32], double bytes)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	return scaled(out, bytes, 1024, unit, 6);
}

const char *stave_count_text(char out[32], double count)
{
	static const char *const unit[] = {"", "k", "M", "G", "T", "P", "E"};
	return scaled(out, count, 1000, unit, 7);
}

const char *stave_duration_text(char out[32], double s)
{
	if (s < 0 || s > 3e9)
		snprintf(out, 32, "-");
	else if (s < 1e-3)
		snprintf(out, 32, "%.0f us", s * 1e6);
	else if (s < 1)
		snprintf(out, 32, "%.1f ms", s * 1e3);
	else if (s < 60)
		snprintf(out, 32, "%.1f s", s);
	else if (s < 3600)
		snprintf(out, 32, "%d:%02d min", (int)s / 60, (int)s % 60);
	else
		snprintf(out, 32, "%d:%02d h", (int)(s / 3600), (int)s % 3600 / 60);
	return out;
}

static int log_level(void)
{
	static int level = -1;
	if (level < 0) {
		static const char *const names[] = {"error", "warn", "info", "debug"};
		const char *e = getenv("STAVE_LOG");
		level = STAVE_LOG_INFO;
		for (int i = 0; e && i < 4; i++)
			if (!strcmp(e, names[i]))
				level = i;
	}
	return level;
}

static bool line_open; /* the live line stands unfinished on the terminal */

void stave_log(enum stave_log_level level, const char *fmt, ...)
{
	if ((int)level > log_level())
		return;
	if (line_open) {
		fputs("\r\033[K", stderr);
		line_open = false;
	}
	va_list ap;
	va_start(ap, fmt);
	flockfile(stderr);
	fputs(level == STAVE_LOG_ERROR ? "stave: error: " : level == STAVE_LOG_WARN ? "stave: warning: " : "stave: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	funlockfile(stderr);
	va_end(ap);
}

void stave_progress(bool final, const char *fmt, ...)
{
	static double last = -1e9;
	static int tty = -1;
	if (tty < 0)
		tty = isatty(2);
	double now = stave_now_s(), gap = tty ? 0.1 : 30;
	if (log_level() < STAVE_LOG_INFO || (!final && now - last < gap))
		return;
	last = now;
	va_list ap;
	va_start(ap, fmt);
	if (tty)
		fputs("\r\033[K", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	line_open = tty && !final;
	if (!line_open)
		fputc('\n', stderr);
	fflush(stderr);
}

static volatile sig_atomic_t stop_flag, requeue_flag;

static void on_signal(int sig)
{
	if (sig == SIGINT) {
		if (stop_flag)
			_exit(130);
		stop_flag = 1;
	} else {
		requeue_flag = 1;
	}
}

void stave_signals_install(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool stave_stop_requested(void) { return stop_flag; }
bool stave_requeue_requested(void) { return requeue_flag; }
