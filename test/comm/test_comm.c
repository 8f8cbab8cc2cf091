/* comm/ against closed forms, and against the loss of a rank in every way we know of. The binary is also its own rank:
 * `test_comm --rank SCENARIO` is what mpirun starts, and the parent judges what the ranks print and how they exit. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/sys.h"
#include "comm/comm.h"
#include "comm/lifeline.h"

/* ---- what one rank does ---- */

static struct stave_comm *c;
static int rank, size;

#define NEED(ok)                                                                                  \
	do {                                                                                      \
		if (!(ok)) {                                                                      \
			fprintf(stderr, "rank %d: line %d: not so: %s\n", rank, __LINE__, #ok);   \
			_exit(99);                                                                \
		}                                                                                 \
	} while (0)

static void sleep_s(double s)
{
	struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
	nanosleep(&t, NULL);
}

/* Leave as the program does: the message, then the code's exit status. */
static void leave(int rc, const struct stave_err *err)
{
	fprintf(stderr, "[%d] %s\n", rank, rc ? err->msg : "fine");
	if (rc)
		stave_comm_abort(c);
	else
		stave_comm_close(c);
	_exit(stave_err_exit(rc));
}

/* Whole numbers below 2^24: a float sum in any order is exact, so the closed form is met to the bit. */
static float whole(int r, size_t i) { return (float)((i * 7 + (size_t)r * 1001) % 4093); }

static void check_sum(size_t n)
{
	struct stave_err err;
	float *x = malloc((n + 1) * sizeof *x);
	for (size_t i = 0; i < n; i++)
		x[i] = whole(rank, i);
	x[n] = -5;
	NEED(stave_comm_sum(c, x, n, "sum", &err) == 0);
	for (size_t i = 0; i < n; i++) {
		float want = 0;
		for (int r = 0; r < size; r++)
			want += whole(r, i);
		NEED(x[i] == want);
	}
	NEED(x[n] == -5);
	free(x);
}

/* Sums of numbers that round: equal to adding in rank order, hence the same bits on all ranks and in all runs. */
static void check_rounding(bool window)
{
	struct stave_err err;
	size_t n = 300001;
	float *x = malloc(n * sizeof *x), *first = malloc(n * sizeof *x);
	for (int turn = 0; turn < 3; turn++) {
		for (size_t i = 0; i < n; i++)
			x[i] = sinf((float)(i + 1) * 0.37f * (float)(rank + 1)) * 1e3f;
		NEED(stave_comm_sum(c, x, n, "sum", &err) == 0);
		for (size_t i = 0; window && i < n; i++) {
			float want = sinf((float)(i + 1) * 0.37f) * 1e3f;
			for (int r = 1; r < size; r++)
				want += sinf((float)(i + 1) * 0.37f * (float)(r + 1)) * 1e3f;
			NEED(x[i] == want);
		}
		if (turn)
			NEED(!memcmp(x, first, n * sizeof *x));
		memcpy(first, x, n * sizeof *x);
	}
	uint64_t *all = malloc((size_t)size * sizeof *all), mine;
	memcpy(&mine, x + n / 3, sizeof mine);
	NEED(stave_comm_gather(c, &mine, all, sizeof mine, "gather", &err) == 0);
	for (int r = 0; r < size; r++)
		NEED(all[r] == mine);
	free(all);
	free(first);
	free(x);
}

static void check_small(void)
{
	struct stave_err err;
	double d[3] = {0.25 * (rank + 1), 1e15, -(double)rank};
	NEED(stave_comm_sum_double(c, d, 3, "loss", &err) == 0);
	NEED(d[0] == 0.25 * size * (size + 1) / 2 && d[1] == 1e15 * size && d[2] == -(double)(size * (size - 1) / 2));
	int64_t m[2] = {rank == size / 2 ? INT64_MAX - 3 : rank, -rank - 1};
	NEED(stave_comm_max_int(c, m, 2, "max", &err) == 0);
	NEED(m[0] == INT64_MAX - 3 && m[1] == -1);
	for (int root = 0; root < size; root++) {
		char text[100000];
		memset(text, rank, sizeof text);
		NEED(stave_comm_bcast(c, text, sizeof text, root, "bcast", &err) == 0);
		NEED(text[0] == root && text[99999] == root);
	}
	NEED(stave_comm_bcast(c, d, 8, size, "bcast", &err) == STAVE_EFAIL);
	int32_t mine[3] = {rank, rank * rank, 7}, all[3 * 64];
	NEED(stave_comm_gather(c, mine, all, sizeof mine, "gather", &err) == 0);
	for (int r = 0; r < size; r++)
		NEED(all[3 * r] == r && all[3 * r + 1] == r * r && all[3 * r + 2] == 7);
	NEED(stave_comm_barrier(c, "barrier", &err) == 0);
}

/* More buckets than the queue holds, of odd lengths, with the ranks out of step. */
static void check_overlap(void)
{
	struct stave_err err;
	enum { BUCKETS = 300 };
	size_t n = 3001;
	float *x = malloc(BUCKETS * n * sizeof *x);
	for (size_t i = 0; i < BUCKETS * n; i++)
		x[i] = whole(rank, i);
	for (size_t b = 0; b < BUCKETS; b++) {
		if (b % 64 == (size_t)rank)
			sleep_s(0.005);
		NEED(stave_comm_sum_begin(c, x + b * n, n, "gradients", &err) == 0);
	}
	NEED(stave_comm_wait_all(c, &err) == 0);
	for (size_t i = 0; i < BUCKETS * n; i++) {
		float want = 0;
		for (int r = 0; r < size; r++)
			want += whole(r, i);
		NEED(x[i] == want);
	}
	NEED(stave_comm_wait_seconds(c) >= 0 && stave_comm_wait_seconds(c) == 0);
	free(x);
}

static void rank_sums(const char *scenario)
{
	static const size_t lengths[] = {0, 1, 15, 17, 1000, 131072, 131073, 500000};
	int want = atoi(scenario + 4);
	NEED(size == want);
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
		check_sum(lengths[i]);
	check_rounding(!getenv("STAVE_TEST_NO_WINDOW"));
	check_small();
	check_overlap();
	leave(0, NULL);
}

static void lost(void *arg, const char *message)
{
	fprintf(stderr, "[%d] alarm: %s\n", rank, message);
	_exit(6);
}

/* Steps as in training; at step 3 the last rank but one meets its fate. */
static void rank_fate(const char *scenario)
{
	struct stave_err err;
	int victim = size - 2;
	size_t n = 100000;
	float *x = calloc(n, sizeof *x);
	if (!strcmp(scenario, "alarm"))
		stave_comm_lost_set(c, lost, NULL, 0.3);
	for (int step = 0; step < 1000; step++) {
		stave_comm_step_set(c, step);
		if (step == 3 && rank == victim) {
			sleep_s(0.4); /* a heartbeat or two */
			if (!strcmp(scenario, "kill") || !strcmp(scenario, "alarm"))
				raise(SIGKILL);
			if (!strcmp(scenario, "stop"))
				raise(SIGSTOP);
			if (!strcmp(scenario, "late"))
				sleep_s(30);
			if (!strcmp(scenario, "leave")) {
				stave_err_set(&err, STAVE_ENOSPACE, "no space left on the disk");
				leave(STAVE_ENOSPACE, &err);
			}
		}
		if (step == 3 && !strcmp(scenario, "alarm"))
			sleep_s(20); /* a long step */
		int rc = stave_comm_sum_begin(c, x, n, "gradients", &err);
		if (!rc)
			rc = stave_comm_wait_all(c, &err);
		if (rc)
			leave(rc, &err);
	}
	leave(0, NULL);
}

/* Two ranks reduce 120 M floats in 8 MB buckets: exposed, then behind a compute that takes a core. */
static double busy(double s)
{
	double end = stave_now_s() + s;
	volatile double x = 1;
	double n = 0;
	while (stave_now_s() < end) {
		for (int i = 0; i < 1000; i++)
			x = x * 1.0000001;
		n++;
	}
	return n;
}

static void rank_bench(void)
{
	struct stave_err err;
	size_t n = 2 << 20, buckets = 60;
	float *x = malloc(n * buckets * sizeof *x);
	for (size_t i = 0; i < n * buckets; i++)
		x[i] = 1e-3f;
	for (int turn = 0; turn < 3; turn++) {
		NEED(stave_comm_barrier(c, "start", &err) == 0);
		double t = stave_now_s();
		for (size_t b = 0; b < buckets; b++)
			NEED(stave_comm_sum_begin(c, x + b * n, n, "gradients", &err) == 0);
		NEED(stave_comm_wait_all(c, &err) == 0);
		t = stave_now_s() - t;
		NEED(stave_comm_barrier(c, "start", &err) == 0);
		double t2 = stave_now_s(), alone = busy(1.0);
		NEED(stave_comm_barrier(c, "start", &err) == 0);
		t2 = stave_now_s();
		double with = 0;
		for (size_t b = 0; b < buckets; b++) {
			with += busy(1.0 / (double)buckets);
			NEED(stave_comm_sum_begin(c, x + b * n, n, "gradients", &err) == 0);
		}
		NEED(stave_comm_wait_all(c, &err) == 0);
		t2 = stave_now_s() - t2;
		if (rank == 0)
			fprintf(stderr, "exposed %.3f s, %.2f GB/s; 1 s of compute with overlap %.3f s, compute rate kept %.2f\n", t,
			        (double)(n * buckets) * 4e-9 / t, t2, with / alone);
	}
	free(x);
	leave(0, NULL);
}

static int be_rank(const char *scenario)
{
	struct stave_err err = {0};
	stave_signals_install(); /* as training does: mpirun's SIGTERM must not end a rank before it has spoken */
	int rc = stave_comm_open(&c, &err);
	if (rc) {
		fprintf(stderr, "open: %s\n", err.msg);
		_exit(stave_err_exit(rc));
	}
	rank = stave_comm_rank(c);
	size = stave_comm_size(c);
	if (!strncmp(scenario, "sums", 4))
		rank_sums(scenario);
	if (!strcmp(scenario, "bench"))
		rank_bench();
	rank_fate(scenario);
	return 0;
}

/* ---- the parent ---- */

static char self[STAVE_PATH];
static struct stave_buf said;

static bool have_mpirun(void) { return system("command -v mpirun >/dev/null 2>&1") == 0; }

/* Run `env mpirun -n N test_comm --rank SCENARIO`; what the ranks said on either stream is in `said`. Not direct: each
 * under a shell that adds its exit status as "exit CODE", all to a file, since mpirun drops output once it aborts. */
static int run(const char *env, int n, const char *options, const char *scenario, bool direct)
{
	char cmd[3 * STAVE_PATH], chunk[4096], file[] = "/tmp/stave-comm-XXXXXX";
	int fd = mkstemp(file);
	assert_true(fd >= 0);
	/* leaks of the MPI library are not ours */
	if (direct)
		snprintf(cmd, sizeof cmd, "ASAN_OPTIONS=detect_leaks=0 %s timeout 60 mpirun --allow-run-as-root --oversubscribe -n %d %s %s "
		         "--rank %s 2>&1", env, n, options, self, scenario);
	else
		snprintf(cmd, sizeof cmd, "ASAN_OPTIONS=detect_leaks=0 %s timeout 60 mpirun --allow-run-as-root --oversubscribe -n %d %s sh "
		         "-c 'trap : TERM; { %s --rank %s; echo \"exit $?\"; } >>%s 2>&1' 2>&1", env, n, options, self, scenario, file);
	stave_buf_free(&said);
	FILE *p = popen(cmd, "r");
	assert_non_null(p);
	for (size_t got; (got = fread(chunk, 1, sizeof chunk, p)) > 0;)
		stave_buf_put(&said, chunk, got);
	int status = pclose(p);
	if (!direct)
		assert_int_equal(stave_file_read(&said, file, 1 << 20, NULL), 0);
	close(fd);
	unlink(file);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int count(const char *what)
{
	int n = 0;
	for (const char *p = said.p; p && (p = strstr(p, what)); p++)
		n++;
	return n;
}

static void expect(int n, const char *what)
{
	if (count(what) != n)
		fail_msg("wanted %d times \"%s\" in:\n%s", n, what, said.p ? said.p : "");
}

static void test_self(void **state)
{
	struct stave_err err;
	struct stave_comm *one;
	float x[3] = {1, 2, 3};
	int64_t m = -4;
	unsetenv("OMPI_COMM_WORLD_SIZE");
	assert_int_equal(stave_comm_open(&one, &err), 0);
	assert_int_equal(stave_comm_rank(one), 0);
	assert_int_equal(stave_comm_size(one), 1);
	stave_comm_step_set(one, 5);
	stave_comm_timeout_set(one, 1);
	stave_comm_lost_set(one, lost, NULL, 1);
	assert_int_equal(stave_comm_sum(one, x, 3, "sum", &err), 0);
	assert_int_equal(stave_comm_sum_begin(one, x, 3, "sum", &err), 0);
	assert_int_equal(stave_comm_wait_all(one, &err), 0);
	assert_true(x[0] == 1 && x[1] == 2 && x[2] == 3);
	assert_int_equal(stave_comm_max_int(one, &m, 1, "max", &err), 0);
	assert_int_equal(m, -4);
	int in = 9, out = 0;
	assert_int_equal(stave_comm_gather(one, &in, &out, sizeof in, "gather", &err), 0);
	assert_int_equal(out, 9);
	assert_int_equal(stave_comm_bcast(one, x, 4, 1, "bcast", &err), STAVE_EFAIL);
	stave_comm_close(one);
	stave_comm_close(NULL);
}

static void test_sums(void **state)
{
	if (!have_mpirun())
		skip();
	for (int n = 1; n <= 4; n++) {
		char scenario[8];
		snprintf(scenario, sizeof scenario, "sums%d", n);
		run(n == 1 ? "STAVE_COMM=mpi" : "", n, "", scenario, false);
		expect(n, "exit 0");
		expect(n, "fine");
	}
}

/* Without shared memory, sums go through MPI itself. */
static void test_sums_mpi(void **state)
{
	if (!have_mpirun())
		skip();
	run("STAVE_COMM_WINDOW=off STAVE_TEST_NO_WINDOW=1", 3, "", "sums3", false);
	expect(3, "exit 0");
}

/* mpirun kills the survivors within two seconds: they have spoken before. */
static void test_kill_direct(void **state)
{
	if (!have_mpirun())
		skip();
	assert_int_not_equal(run("", 4, "", "kill", true), 0);
	expect(3, "rank 2 of 4 was lost at step 3 in gradients");
}

/* Exit statuses, where the launcher leaves the survivors alone (as ULFM and some schedulers do). */
static void test_kill(void **state)
{
	if (!have_mpirun())
		skip();
	run("", 4, "--enable-recovery", "kill", false);
	expect(3, "rank 2 of 4 was lost at step 3 in gradients");
	expect(3, "its process ended");
	expect(3, "exit 6");
	expect(1, "exit 137");
}

static void test_kill_tcp(void **state)
{
	if (!have_mpirun())
		skip();
	run("STAVE_COMM_WINDOW=off", 3, "--enable-recovery --mca btl tcp,self", "kill", false);
	expect(2, "rank 1 of 3 was lost at step 3 in gradients");
	expect(2, "exit 6");
}

static void test_alarm(void **state)
{
	if (!have_mpirun())
		skip();
	run("", 3, "--enable-recovery", "alarm", false);
	expect(2, "alarm: rank 1 of 3 was lost at step 3 in computing");
	expect(2, "exit 6");
}

/* mpirun wakes the stopped rank to end it, so it may hear of its own loss. */
static void test_stop(void **state)
{
	if (!have_mpirun())
		skip();
	run("STAVE_COMM_TIMEOUT=1", 3, "", "stop", true);
	expect(1, "[0] rank 1 of 3 was lost at step 3 in gradients");
	expect(1, "[2] rank 1 of 3 was lost at step 3 in gradients");
	assert_true(count("it is stopped, or its machine or network is gone") >= 2);
}

/* mpirun's SIGTERM wakes the late rank too, and it says the same of itself. */
static void test_late(void **state)
{
	if (!have_mpirun())
		skip();
	run("STAVE_COMM_TIMEOUT=1", 4, "", "late", true);
	expect(1, "[0] rank 2 of 4 was lost at step 3 in gradients");
	expect(1, "[1] rank 2 of 4 was lost at step 3 in gradients");
	expect(1, "[3] rank 2 of 4 was lost at step 3 in gradients");
	assert_true(count("it is alive but did not join within 1.0 s") >= 3);
}

static void test_leave(void **state)
{
	if (!have_mpirun())
		skip();
	run("", 3, "--enable-recovery", "leave", false);
	expect(2, "rank 1 of 3 was lost at step 3 in gradients");
	expect(2, "it stopped because of an error of its own");
	expect(1, "no space left on the disk");
	expect(2, "exit 6");
	expect(1, "exit 1\n");
}

/* ---- plugins that are not there, or not ours ---- */

static void open_refused(const char *plugins, const char *words)
{
	struct stave_err err = {0};
	struct stave_comm *none = NULL;
	setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
	setenv("STAVE_PLUGINS", plugins, 1);
	int rc = stave_comm_open(&none, &err);
	unsetenv("OMPI_COMM_WORLD_SIZE");
	unsetenv("STAVE_PLUGINS");
	assert_int_equal(rc, STAVE_EPEER);
	assert_null(none);
	if (!strstr(err.msg, words))
		fail_msg("wanted \"%s\" in: %s", words, err.msg);
}

static void test_plugin(void **state)
{
	char dir[] = "/tmp/stave-plugin-XXXXXX", path[STAVE_PATH], cmd[2 * STAVE_PATH];
	assert_non_null(mkdtemp(dir));
	open_refused(dir, "the launcher started 4 ranks (OMPI_COMM_WORLD_SIZE), but the plugin stave-mpi.so is in none of");
	snprintf(path, sizeof path, "%s/stave-mpi.so", dir);
	FILE *f = fopen(path, "w");
	fputs("not a shared object", f);
	fclose(f);
	open_refused(dir, "cannot be loaded");
	snprintf(cmd, sizeof cmd, "cd %s && echo 'const int stave_comm_plugin = %d;' >a.c && cc -shared -fPIC -o stave-mpi.so a.c", dir,
	         STAVE_COMM_ABI + 7);
	if (system(cmd) == 0) {
		char words[80];
		snprintf(words, sizeof words, "was built for plugin ABI %d, this program has %d", STAVE_COMM_ABI + 7, STAVE_COMM_ABI);
		open_refused(dir, words);
	}
	snprintf(cmd, sizeof cmd, "cd %s && echo 'int other;' >a.c && cc -shared -fPIC -o stave-mpi.so a.c", dir);
	if (system(cmd) == 0)
		open_refused(dir, "is not a stave plugin");
	stave_remove_tree(dir, NULL);
	struct stave_err err;
	struct stave_comm *none;
	setenv("STAVE_COMM_TIMEOUT", "soon", 1);
	assert_int_equal(stave_comm_open(&none, &err), STAVE_ECONFIG);
	unsetenv("STAVE_COMM_TIMEOUT");
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--rank"))
		return be_rank(argv[2]);
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = 0;
	if (!have_mpirun())
		fprintf(stderr, "skipped: tests with several ranks, since mpirun is not installed\n");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_self),    cmocka_unit_test(test_plugin), cmocka_unit_test(test_sums), cmocka_unit_test(test_sums_mpi),
		cmocka_unit_test(test_kill),    cmocka_unit_test(test_kill_direct), cmocka_unit_test(test_kill_tcp),
		cmocka_unit_test(test_alarm),   cmocka_unit_test(test_stop),   cmocka_unit_test(test_late), cmocka_unit_test(test_leave),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
