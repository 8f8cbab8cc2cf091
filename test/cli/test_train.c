/* `stave train` as its user meets it when something ends it: Ctrl-C and SIGTERM leave a checkpoint from which the same command
 * goes on to the very bytes of the run that was left alone, and of several ranks started by mpirun the survivors of a lost
 * one say who, where and in what, and exit 6. The program is the one built beside this test. */
#include <ctype.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/fs.h"
#include "base/sys.h"

#define WAIT_S 100 /* far beyond what any part takes, sanitized and on a loaded machine */

static char program[STAVE_PATH], dir[] = "/tmp/stave-train-XXXXXX";

/* A run of milliseconds a step. No checkpoint unless something asks for one: what is resumed is the one the signal left. */
#define RUN "--model nano --shape.channels 64 --data data --train.batch 4 --train.seq 32 --train.dtype f32 --threads 1 --train.eval_every 0 " \
            "--train.eval_batches 1 --checkpoint.every 0"

static void file(char *path, const char *name)
{
	snprintf(path, STAVE_PATH, "%s/%s", dir, name);
}

static char *text_of(const char *name)
{
	static struct stave_buf b;
	char path[STAVE_PATH];
	file(path, name);
	stave_buf_free(&b);
	return stave_file_read(&b, path, 1 << 22, NULL) || !b.p ? "" : b.p;
}

/* `sh -c COMMAND` in the test's directory, with $stave the program; its own process, so that signals can be sent to it. */
__attribute__((format(printf, 1, 2))) static pid_t start(const char *format, ...)
{
	char command[4096];
	va_list ap;
	va_start(ap, format);
	vsnprintf(command, sizeof command, format, ap);
	va_end(ap);
	fflush(NULL);
	pid_t pid = fork();
	if (!pid) {
		if (!chdir(dir) && !setenv("stave", program, 1))
			execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	return pid;
}

static int end(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void succeeds(pid_t pid, const char *talk)
{
	int status = end(pid);
	if (status)
		fail_msg("exit %d: %s", status, text_of(talk));
}

/* Lines of a run's metrics.jsonl: at least as many as its steps. */
static int lines(const char *run)
{
	char name[64];
	int n = 0;
	snprintf(name, sizeof name, "runs/%s/metrics.jsonl", run);
	for (const char *p = text_of(name); (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

static void await_lines(const char *run, int n, const char *talk)
{
	double until = stave_now_s() + WAIT_S;
	while (lines(run) < n) {
		if (stave_now_s() > until)
			fail_msg("%s did not reach %d lines of metrics: %s", run, n, text_of(talk));
		usleep(1000);
	}
}

static int64_t receipt_int(const char *run, const char *key)
{
	char name[64];
	snprintf(name, sizeof name, "runs/%s/receipt.json", run);
	json_t *j = json_loads(text_of(name), 0, NULL);
	assert_non_null(j);
	int64_t v = json_integer_value(json_object_get(j, key));
	json_decref(j);
	return v;
}

/* ---- stopped by a signal ---- */

static void stopped_by(int sig, int status, const char *word, const char *out)
{
	char path[STAVE_PATH], name[128];
	pid_t pid = start("exec \"$stave\" train " RUN " --train.steps 400 --out %s > out 2> talk < /dev/null", out);
	await_lines(out, 50, "talk");
	kill(pid, sig);
	int got = end(pid);
	if (got != status)
		fail_msg("exit %d, expected %d: %s", got, status, text_of("talk"));
	int64_t at = receipt_int(out, "steps");
	assert_in_range(at, 49, 399);
	assert_non_null(strstr(text_of("talk"), word));
	snprintf(name, sizeof name, "at step %lld", (long long)at);
	assert_non_null(strstr(text_of("talk"), name));
	assert_non_null(strstr(text_of("talk"), "the same command"));
	snprintf(name, sizeof name, "%s/checkpoints/step-%lld/DONE", out, (long long)at);
	file(path, name);
	assert_true(stave_exists(path));
	snprintf(name, sizeof name, "%s/model.safetensors", out);
	file(path, name);
	assert_false(stave_exists(path)); /* it is no finished model */

	succeeds(start("exec \"$stave\" train " RUN " --train.steps 400 --out %s > out 2> talk < /dev/null", out), "talk");
	assert_int_equal(receipt_int(out, "first_step"), at);
	assert_int_equal(receipt_int(out, "steps"), 400);
	assert_int_equal(end(start("cmp %s/model.safetensors undisturbed/model.safetensors", out)), 0);
}

static void a_signal_leaves_a_checkpoint(void **state)
{
	succeeds(start("exec \"$stave\" train " RUN " --train.steps 400 --out undisturbed > out 2> talk < /dev/null"), "talk");
	stopped_by(SIGINT, 130, "interrupted", "interrupted");
	stopped_by(SIGTERM, 75, "stopped by a signal", "requeued");
}

/* Who is in a hurry presses twice; the checkpoint of the last interval is what remains. */
static void a_second_interrupt_kills(void **state)
{
	pid_t pid = start("exec \"$stave\" train " RUN " --train.steps 1000000 --train.batch 2048 --train.micro_batch 64 --out hurried > out 2> talk < /dev/null");
	await_lines("hurried", 1, "talk"); /* then it is in the second of its long steps */
	kill(pid, SIGINT);
	usleep(20000); /* two at once would be one */
	kill(pid, SIGINT);
	assert_int_equal(end(pid), 130);
	assert_null(strstr(text_of("talk"), "interrupted at step"));
}

/* ---- a rank is lost ---- */

/* "rank R of 3 was lost at step S in OP": the step, or -1. The operation must be there. */
static long long lost_step(const char *said, int rank)
{
	char words[64];
	snprintf(words, sizeof words, "rank %d of 3 was lost at step ", rank);
	const char *p = strstr(said, words);
	char *after;
	if (!p)
		return -1;
	long long step = strtoll(p + strlen(words), &after, 10);
	return !strncmp(after, " in ", 4) && isalpha((unsigned char)after[4]) ? step : -1;
}

/* mpirun ends the others soon after a loss unless told not to: --enable-recovery lets each reach its own exit. Each rank runs
 * under a shell that notes its process and adds its exit status, to a file of its own: mpirun drops output once it aborts. */
static void lose_rank(int victim, const char *out)
{
	char name[32];
	pid_t launcher = start("export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0; "
	                       "exec timeout -k 5 %d mpirun --oversubscribe --enable-recovery -n 3 sh -c 'trap : TERM; r=$OMPI_COMM_WORLD_RANK; "
	                       "sh -c \"echo \\$\\$ > %s.pid.$r; exec $stave train " RUN " --train.steps 1000000 --out %s\" > %s.said.$r 2>&1; "
	                       "echo \"exit $?\" >> %s.said.$r' > mpirun.out 2>&1 < /dev/null", WAIT_S, out, out, out, out);
	snprintf(name, sizeof name, "%s.said.0", out);
	await_lines(out, 20, name);
	snprintf(name, sizeof name, "%s.pid.%d", out, victim);
	int pid = atoi(text_of(name)), before = lines(out);
	assert_true(pid > 1);
	kill(pid, SIGKILL);
	end(launcher); /* its own status is the victim's */
	for (int r = 0; r < 3; r++) {
		snprintf(name, sizeof name, "%s.said.%d", out, r);
		const char *said = text_of(name);
		long long step = lost_step(said, victim);
		if (r == victim && !strstr(said, "exit 137\n"))
			fail_msg("rank %d was not killed: %s", r, said);
		/* a line is written when its step, counted from 0, is done; the victim may be one behind the writer */
		if (r != victim && (step < before - 2 || !strstr(said, "exit 6\n")))
			fail_msg("rank %d, after %d lines of metrics: step %lld in: %s", r, before, step, said);
	}
}

static void survivors_name_the_lost_rank(void **state)
{
	if (system("command -v mpirun > /dev/null 2>&1")) {
		print_message("skipped: mpirun is not installed\n");
		skip();
	}
	lose_rank(1, "second");
	lose_rank(0, "first"); /* the one that talks and writes */
}

/* ---- */

static int setup(void **state)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 32);
	if (n <= 0 || !mkdtemp(dir))
		return -1;
	program[n] = 0;
	for (int i = 0; i < 3; i++) { /* BUILD/test/cli/test_train -> BUILD/stave */
		char *slash = strrchr(program, '/');
		if (!slash)
			return -1;
		*slash = 0;
	}
	strcat(program, "/stave");
	return end(start("i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo \"Line $i of a small corpus says $((i * 7919 %% 1000)), not $((i * 104729 %% 997)).\"; done > text.txt; "
	                 "exec \"$stave\" prepare text.txt --out data --tokenizer byte 2> talk"));
}

static int teardown(void **state)
{
	return stave_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signal_leaves_a_checkpoint),
		cmocka_unit_test(a_second_interrupt_kills),
		cmocka_unit_test(survivors_name_the_lost_rank),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
