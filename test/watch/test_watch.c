/* watch/ read back by other means: event files are decoded here by a reader of our own, written from the format's
 * definition, CRCs are checked against published vectors, and histories against what was logged. */
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/json.h"
#include "watch/events.h"
#include "watch/metrics.h"
#include "watch/run.h"
#include "watch/watch.h"

static char dir[64];

static int setup(void **state)
{
	strcpy(dir, "/tmp/stave-watch-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state) { return stave_remove_tree(dir, NULL); }

static char *slurp(const char *name, size_t *n)
{
	char path[STAVE_PATH];
	struct stave_buf b = {0};
	assert_int_equal(stave_path(path, dir, name, NULL), 0);
	assert_int_equal(stave_file_read(&b, path, 1 << 20, NULL), 0);
	if (n)
		*n = b.len;
	return b.p;
}

/* RFC 3720 B.4 and the customary check value. */
static void test_crc(void **state)
{
	unsigned char b[32];
	assert_int_equal(stave_crc32c("123456789", 9), 0xe3069283u);
	assert_int_equal(stave_crc32c("", 0), 0);
	memset(b, 0, sizeof b);
	assert_int_equal(stave_crc32c(b, 32), 0x8a9136aau);
	memset(b, 0xff, sizeof b);
	assert_int_equal(stave_crc32c(b, 32), 0x62a8ab43u);
	for (int i = 0; i < 32; i++)
		b[i] = (unsigned char)i;
	assert_int_equal(stave_crc32c(b, 32), 0x46dd794eu);
}

/* ---- a reader of event files ---- */

static uint32_t crc_by_table(const unsigned char *p, size_t n)
{
	uint32_t table[256], crc = ~0u;
	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int k = 0; k < 8; k++)
			table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
	}
	while (n--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
	return ~crc;
}

static void check_masked(const unsigned char *p, size_t n, const unsigned char *stored)
{
	uint32_t crc = crc_by_table(p, n), have;
	memcpy(&have, stored, 4);
	assert_int_equal(have, ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

static uint64_t varint(const unsigned char **p, const unsigned char *end)
{
	uint64_t x = 0;
	for (int shift = 0; shift < 64; shift += 7) {
		assert_true(*p < end);
		unsigned char c = *(*p)++;
		x |= (uint64_t)(c & 127) << shift;
		if (!(c & 128))
			return x;
	}
	fail();
	return 0;
}

struct field {
	int number, type;
	uint64_t x;
	const unsigned char *p;
	size_t n;
};

static int next_field(const unsigned char **p, const unsigned char *end, struct field *f)
{
	if (*p == end)
		return 0;
	uint64_t key = varint(p, end);
	f->number = (int)(key >> 3);
	f->type = (int)(key & 7);
	f->x = 0;
	if (f->type == 0)
		f->x = varint(p, end);
	else {
		f->n = f->type == 1 ? 8 : f->type == 5 ? 4 : (size_t)varint(p, end);
		assert_true((size_t)(end - *p) >= f->n);
		f->p = *p;
		*p += f->n;
		if (f->type != 2)
			memcpy(&f->x, f->p, f->n);
	}
	return 1;
}

struct event {
	double time;
	int64_t step;
	char version[32];
	int session, n;
	char tag[8][64];
	float value[8];
};

static void read_value(struct event *e, const unsigned char *p, const unsigned char *end)
{
	struct field f;
	assert_true(e->n < 8);
	while (next_field(&p, end, &f)) {
		if (f.number == 1) {
			assert_true(f.type == 2 && f.n < 64);
			memcpy(e->tag[e->n], f.p, f.n);
		} else {
			assert_true(f.number == 2 && f.type == 5);
			memcpy(&e->value[e->n], f.p, 4);
		}
	}
	e->n++;
}

static void read_event(struct event *e, const unsigned char *p, const unsigned char *end)
{
	struct field f, g;
	memset(e, 0, sizeof *e);
	while (next_field(&p, end, &f)) {
		const unsigned char *q = f.p, *q_end = f.p + f.n;
		if (f.number == 1 && f.type == 1)
			memcpy(&e->time, &f.x, 8);
		else if (f.number == 2 && f.type == 0)
			e->step = (int64_t)f.x;
		else if (f.number == 3 && f.type == 2 && f.n < 32)
			memcpy(e->version, f.p, f.n);
		else if (f.number == 5 && f.type == 2)
			while (next_field(&q, q_end, &g)) {
				assert_true(g.number == 1 && g.type == 2);
				read_value(e, g.p, g.p + g.n);
			}
		else if (f.number == 7 && f.type == 2)
			while (next_field(&q, q_end, &g))
				e->session = g.number == 1 ? (int)g.x : e->session;
		else
			fail_msg("field %d of type %d", f.number, f.type);
	}
}

/* All events of the which-th event file. */
static int read_events(int which, struct event *e, int max)
{
	char pattern[STAVE_PATH];
	glob_t g;
	struct stave_buf b = {0};
	snprintf(pattern, sizeof pattern, "%s/tensorboard/events.out.tfevents.*", dir);
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_true((int)g.gl_pathc > which);
	assert_int_equal(stave_file_read(&b, g.gl_pathv[which], 1 << 20, NULL), 0);
	globfree(&g);
	const unsigned char *p = (void *)b.p, *end = p + b.len;
	int n = 0;
	while (p < end) {
		uint64_t length;
		assert_true(end - p >= 16 && n < max);
		memcpy(&length, p, 8);
		check_masked(p, 8, p + 8);
		assert_true(length <= (uint64_t)(end - p) - 16);
		check_masked(p + 12, length, p + 12 + length);
		read_event(&e[n++], p + 12, p + 12 + length);
		p += 16 + length;
	}
	stave_buf_free(&b);
	return n;
}

/* ---- the run store ---- */

static struct stave_run *open_run(bool resume, int64_t step)
{
	struct stave_run *r;
	struct stave_err err;
	if (stave_run_open(&r, dir, resume, step, &err))
		fail_msg("%s", err.msg);
	return r;
}

static void put(struct stave_run *r, int64_t step, double loss)
{
	struct stave_scalar s[] = {{"loss", loss}, {"tokens_per_s", 1e5}};
	assert_int_equal(stave_run_scalars(r, step, s, 2, NULL), 0);
}

static void test_files(void **state)
{
	static struct event e[8];
	struct stave_run *r = open_run(false, 0);
	assert_string_equal(stave_run_dir(r), dir);
	put(r, 0, 4.25);
	put(r, 300, NAN);
	struct stave_scalar own = {"my_own", -1e-30};
	assert_int_equal(stave_run_scalars(r, INT64_MAX, &own, 1, NULL), 0);
	assert_int_equal(stave_run_event(r, 7, "spike", "loss 9.1 in \"wte\" \xff", NULL), 0);
	FILE *f = stave_run_file(r, "config.yaml", NULL);
	assert_non_null(f);
	fputs("train:\n", f);
	fclose(f);
	json_t *receipt = json_pack("{s:i}", "steps", 3);
	assert_int_equal(stave_run_receipt(r, receipt, NULL), 0);
	json_decref(receipt);
	stave_run_close(r);

	char *text = slurp("metrics.jsonl", NULL), *rest = text;
	json_t *line[4];
	for (int i = 0; i < 4; i++) {
		char *one = strsep(&rest, "\n");
		line[i] = json_loads(one, 0, NULL);
		assert_non_null(line[i]);
	}
	assert_string_equal(rest, "");
	double now = (double)time(NULL);
	assert_true(fabs(json_number_value(json_object_get(line[0], "time")) - now) < 60);
	assert_true(json_number_value(json_object_get(line[0], "loss")) == 4.25);
	assert_int_equal(json_integer_value(json_object_get(line[1], "step")), 300);
	assert_true(json_is_null(json_object_get(line[1], "loss")));
	assert_true(json_number_value(json_object_get(line[2], "my_own")) == -1e-30);
	assert_string_equal(json_string_value(json_object_get(line[3], "event")), "spike");
	assert_string_equal(json_string_value(json_object_get(line[3], "message")), "loss 9.1 in \"wte\" ?");
	for (int i = 0; i < 4; i++)
		json_decref(line[i]);
	free(text);
	text = slurp("receipt.json", NULL);
	assert_non_null(strstr(text, "\"steps\": 3"));
	free(text);

	assert_int_equal(read_events(0, e, 8), 4);
	assert_string_equal(e[0].version, "brain.Event:2");
	assert_true(fabs(e[0].time - now) < 60);
	assert_int_equal(e[1].step, 0);
	assert_int_equal(e[1].n, 2);
	assert_string_equal(e[1].tag[0], "loss/loss");
	assert_true(e[1].value[0] == 4.25f);
	assert_string_equal(e[1].tag[1], "speed/tokens_per_s");
	assert_true(e[1].value[1] == 1e5f);
	assert_int_equal(e[2].step, 300);
	assert_true(isnan(e[2].value[0]));
	assert_true(e[3].step == INT64_MAX);
	assert_string_equal(e[3].tag[0], "my_own");
}

/* Killed at step 5 in the middle of a line, resumed at 3. */
static void test_resume(void **state)
{
	static struct event e[16];
	pid_t child = fork();
	if (child == 0) {
		struct stave_run *r = open_run(false, 0);
		for (int step = 0; step < 5; step++)
			put(r, step, step);
		char path[STAVE_PATH];
		stave_path(path, dir, "metrics.jsonl", NULL);
		FILE *f = fopen(path, "a");
		fputs("{\"step\":5,\"ti", f);
		fflush(f);
		kill(getpid(), SIGKILL);
	}
	int status;
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
	struct stave_run *r = open_run(true, 3);
	put(r, 3, 30);
	stave_run_close(r);
	char *text = slurp("metrics.jsonl", NULL), *rest = text;
	static const double want[] = {0, 1, 2, 30};
	for (int i = 0; i < 4; i++) {
		json_t *o = json_loads(strsep(&rest, "\n"), 0, NULL);
		assert_int_equal(json_integer_value(json_object_get(o, "step")), i);
		assert_true(json_number_value(json_object_get(o, "loss")) == want[i]);
		json_decref(o);
	}
	assert_string_equal(rest, "");
	free(text);
	/* both files are there; the second says where it starts again */
	assert_int_equal(read_events(0, e, 16), 6);
	assert_int_equal(read_events(1, e, 16), 3);
	assert_int_equal(e[1].session, 1);
	assert_int_equal(e[1].step, 3);
	assert_int_equal(e[2].step, 3);
	/* a run that starts over keeps no lines */
	stave_run_close(open_run(false, 0));
	size_t n;
	free(slurp("metrics.jsonl", &n));
	assert_int_equal(n, 0);
}

static void test_history(void **state)
{
	static const char good[] = "{\"step\":0,\"a\":1}\n{\"step\":1}\n{\"step\":7}\n{\"step\":2}\n";
	struct stave_buf kept = {0};
	struct stave_err err;
	assert_int_equal(stave_run_history(good, sizeof good - 1, 2, "m", &kept, &err), 0);
	assert_string_equal(kept.p, "{\"step\":0,\"a\":1}\n{\"step\":1}\n");
	/* cut anywhere: whole lines before the cut are kept, and never half of one */
	for (size_t n = 0; n < sizeof good; n++) {
		kept.len = 0;
		assert_int_equal(stave_run_history(good, n, 100, "m", &kept, &err), 0);
		size_t whole = n;
		while (whole && good[whole - 1] != '\n')
			whole--;
		assert_int_equal(kept.len, whole);
		assert_int_equal(memcmp(kept.len ? kept.p : "", good, whole), 0);
	}
	static const char *const bad[] = {"\n", "x\n", "{}\n", "[1]\n", "{\"step\":-1}\n", "{\"step\":1.5}\n", "{\"step\":\"1\"}\n", "{\"step\":1}}\n",
	                                  "{\"step\":99999999999999999999}\n", "{\"step\":0}\n{\"step\"\n"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(stave_run_history(bad[i], strlen(bad[i]), 9, "m", &kept, &err), STAVE_ECORRUPT);
	assert_non_null(strstr(err.msg, "m:2"));
	stave_buf_free(&kept);
}

static void test_refused(void **state)
{
	struct stave_run *r;
	struct stave_err err;
	char path[STAVE_PATH], deep[STAVE_PATH];
	stave_path(path, dir, "metrics.jsonl", NULL);
	assert_int_equal(stave_file_write(path, "not ours\n", 9, NULL), 0);
	assert_int_equal(stave_run_open(&r, dir, true, 1, &err), STAVE_ECORRUPT);
	char *text = slurp("metrics.jsonl", NULL);
	assert_string_equal(text, "not ours\n"); /* untouched */
	free(text);
	assert_int_not_equal(stave_run_open(&r, "/proc/no/such", false, 0, &err), 0);
	memset(deep, 'a', sizeof deep);
	deep[0] = '/';
	deep[sizeof deep - 1] = 0;
	assert_int_equal(stave_run_open(&r, deep, false, 0, &err), STAVE_EUSAGE);
}

static void test_metrics(void **state)
{
	const struct stave_metric *m;
	for (m = stave_train_metrics; m->name; m++) {
		assert_ptr_equal(stave_metric_find(m->name), m); /* no name twice */
		const char *brace = strchr(m->exposed, '{');
		size_t n = brace ? (size_t)(brace - m->exposed) : strlen(m->exposed);
		bool total = n > 6 && !strncmp(m->exposed + n - 6, "_total", 6);
		assert_int_equal(total, m->type == STAVE_METRIC_COUNTER);
	}
	assert_string_equal(stave_metric_find("lr")->exposed, "learning_rate");
	assert_null(stave_metric_find("los"));
}

static void test_zscore(void **state)
{
	struct stave_zscore z = {0};
	for (int i = 0; i < 32; i++)
		assert_true(stave_zscore_push(&z, i % 2, true) == 0);
	/* mean 1/2, deviation 1/2 */
	assert_true(fabs(stave_zscore_push(&z, 3, false) - 5) < 1e-12);
	assert_true(fabs(stave_zscore_push(&z, -1, false) + 3) < 1e-12);
	assert_true(isnan(stave_zscore_push(&z, NAN, true)));
	assert_int_equal(z.n, 32);
	/* the window forgets: after 128 tens the old values are gone */
	for (int i = 0; i < 128; i++)
		stave_zscore_push(&z, 10 + i % 2, true);
	assert_int_equal(z.n, 128);
	assert_true(fabs(stave_zscore_push(&z, 11.5, false) - 2) < 1e-12);
	struct stave_zscore flat = {0};
	for (int i = 0; i < 40; i++)
		stave_zscore_push(&flat, 2, true);
	assert_true(stave_zscore_push(&flat, 3, true) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc),
		cmocka_unit_test_setup_teardown(test_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
		cmocka_unit_test(test_history),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_zscore),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
