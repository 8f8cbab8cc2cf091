/* Files, arenas, hashes and safetensors: round trips, and a hostile file at every byte. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/gguf.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/safetensors.h"

static char dir[] = "/tmp/stave-files-XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

static void known_hashes(void **state)
{
	char hex[65];
	stave_sha256("abc", 3, hex); /* FIPS 180-2, appendix B.1 */
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_true(stave_hash64("", 0, 0) == 0x2d06800538d394c2u); /* XXH3-64 of nothing, from its specification */
	double sum = 0;
	for (uint64_t i = 0; i < 100000; i++)
		sum += stave_random_unit(9, i);
	assert_true(sum > 49500 && sum < 50500);
	assert_true(stave_random64(0, 0) == 0xe220a8397b1dcdafu); /* splitmix64's first output for seed 0 */
}

static void arena_plan_is_the_allocation(void **state)
{
	struct stave_arena plan = stave_arena_plan("p"), real;
	struct stave_err e;
	const size_t sizes[] = {1, 64, 65, 4096, 1000003, 0};
	for (int i = 0; i < 6; i++)
		assert_null(stave_arena_take(&plan, sizes[i]));
	must(stave_arena_open(&real, "r", plan.used, &e), &e);
	for (int i = 0; i < 6; i++) {
		char *p = stave_arena_take(&real, sizes[i]);
		assert_int_equal((uintptr_t)p % STAVE_ALIGN, 0);
		for (size_t j = 0; j < sizes[i]; j++)
			assert_int_equal(p[j], 0);
		memset(p, 1, sizes[i]);
	}
	assert_int_equal(real.used, plan.used);
	stave_arena_close(&real);
	int rc = stave_arena_open(&real, "too much", (size_t)1 << 50, &e);
	assert_int_equal(rc, STAVE_ENOFIT);
	assert_non_null(strstr(e.msg, "too much needs 1048576.00 GiB"));
}

static void arena_keeps_what_is_touched(void **state)
{
	struct stave_err e = {0};
	struct stave_arena a;
	must(stave_arena_reserve(&a, "t", 3 << 20, &e), &e);
	memset(a.base + 8190, 7, 4);
	stave_arena_touch(&a, 0, a.size);
	for (size_t i = 0; i < a.size; i++)
		assert_int_equal(a.base[i], i >= 8190 && i < 8194 ? 7 : 0);
	stave_arena_close(&a);
}

static void pieces_of_a_mapping(void **state)
{
	struct stave_err e = {0};
	struct stave_map m;
	char path[STAVE_PATH], text[10000], got[STAVE_GATHER * 3];
	const void *from[STAVE_GATHER];
	for (int i = 0; i < 10000; i++)
		text[i] = (char)(i * 7 >> 3);
	must(stave_path(path, dir, "mapped", &e), &e);
	must(stave_file_write(path, text, sizeof text, &e), &e);
	must(stave_map_open(&m, path, &e), &e);
	for (int i = 0; i < STAVE_GATHER; i++)
		from[i] = m.p + (i * 3989 + 4090) % 9998;
	stave_map_gather(got, from, STAVE_GATHER, 3);
	for (int i = 0; i < STAVE_GATHER; i++)
		assert_memory_equal(got + 3 * i, text + (i * 3989 + 4090) % 9998, 3);
	stave_map_close(&m);
}

static void write_is_whole_or_absent(void **state)
{
	struct stave_err e = {0};
	struct stave_buf b = {0};
	must(stave_file_write(in_dir("f"), "first", 5, &e), &e);
	/* a full disk, as a file-size limit: the old content stays, no temporary is left */
	struct rlimit old, small = {0};
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 1000;
	setrlimit(RLIMIT_FSIZE, &small);
	char big[5000] = {0};
	int rc = stave_file_write(in_dir("f"), big, sizeof big, &e);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_true(rc < 0);
	assert_non_null(strstr(e.msg, "writing"));
	must(stave_file_read(&b, in_dir("f"), 100, &e), &e);
	assert_int_equal(b.len, 5);
	assert_memory_equal(b.p, "first", 6);
	assert_false(stave_exists(in_dir("f.tmp")));
	assert_int_equal(stave_file_read(&b, in_dir("f"), 4, &e), STAVE_ECORRUPT);
	assert_int_equal(stave_file_read(&b, in_dir("absent"), 4, &e), STAVE_EIO);
	stave_buf_free(&b);
	must(stave_mkdirs(in_dir("a/b/c"), &e), &e);
	assert_true(stave_is_dir(in_dir("a/b/c")));
	must(stave_remove_tree(in_dir("a"), &e), &e);
	assert_false(stave_exists(in_dir("a")));
	assert_true(stave_mkdirs(in_dir("f/x"), &e) < 0);
}

static void write_sample(const char *path)
{
	struct stave_err e = {0};
	struct stave_st_writer w;
	static const float x[6] = {1, 2, 3, 4, 5, 6};
	static const uint16_t y[3] = {7, 8, 9};
	static const char *const meta[] = {"who", "stave", "quote", "a\"b\\c"};
	struct stave_st_tensor t[] = {
		{.name = "x", .dtype = STAVE_F32, .n_dims = 2, .shape = {2, 3}},
		{.name = "y\xc3\xa9", .dtype = STAVE_U16, .n_dims = 1, .shape = {3}},
		{.name = "empty", .dtype = STAVE_BF16, .n_dims = 1, .shape = {0}},
		{.name = "scalar", .dtype = STAVE_U16, .n_dims = 0},
	};
	must(stave_st_create(&w, path, t, 4, meta, 2, &e), &e);
	must(stave_st_write(&w, x, sizeof x, &e), &e);
	must(stave_st_write(&w, y, sizeof y, &e), &e);
	must(stave_st_write(&w, y, 2, &e), &e);
	must(stave_st_commit(&w, &e), &e);
}

/* A file appears by a rename, which would put it in the place of a device or a pipe. */
static void what_is_no_file_is_kept(void **state)
{
	char pipe[STAVE_PATH];
	struct stat st;
	struct stave_err err = {0};
	struct stave_st_writer w;
	struct stave_gguf_writer *g;
	snprintf(pipe, sizeof pipe, "%s/pipe", dir);
	assert_int_equal(mkfifo(pipe, 0600), 0);
	assert_int_equal(stave_file_write(pipe, "x", 1, &err), STAVE_EUSAGE);
	assert_non_null(strstr(err.msg, "a device or a pipe"));
	assert_int_equal(stave_st_create(&w, pipe, NULL, 0, NULL, 0, &err), STAVE_EUSAGE);
	assert_int_equal(stave_gguf_create(&g, pipe, &err), STAVE_EUSAGE);
	assert_int_equal(stave_file_write(dir, "x", 1, &err), STAVE_EUSAGE);
	assert_int_equal(stat(pipe, &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	assert_int_equal(unlink(pipe), 0);
}

static void safetensors_round_trip(void **state)
{
	struct stave_err e = {0};
	struct stave_st st;
	write_sample(in_dir("s.safetensors"));
	must(stave_st_open(&st, in_dir("s.safetensors"), &e), &e);
	assert_int_equal(st.n, 4);
	assert_string_equal(stave_st_meta(&st, "quote"), "a\"b\\c");
	assert_null(stave_st_meta(&st, "absent"));
	const struct stave_st_tensor *x = stave_st_find(&st, "x");
	assert_int_equal(x->shape[1], 3);
	assert_true(((const float *)x->data)[5] == 6);
	assert_int_equal(stave_st_elements(stave_st_find(&st, "scalar")), 1);
	assert_int_equal(stave_st_elements(stave_st_find(&st, "empty")), 0);
	stave_st_close(&st);
	struct stave_st_writer w;
	struct stave_st_tensor one = {.name = "a", .dtype = STAVE_F32, .n_dims = 1, .shape = {4}};
	must(stave_st_create(&w, in_dir("short.safetensors"), &one, 1, NULL, 0, &e), &e);
	assert_int_equal(stave_st_commit(&w, &e), STAVE_EFAIL);
	assert_false(stave_exists(in_dir("short.safetensors")));
}

static void try_bytes(const void *p, size_t n, bool must_fail)
{
	struct stave_err e = {0};
	struct stave_st st;
	must(stave_file_write(in_dir("h.safetensors"), p, n, &e), &e);
	int rc = stave_st_open(&st, in_dir("h.safetensors"), &e);
	if (!rc) {
		volatile uint8_t sum = 0; /* every byte a tensor claims must be readable */
		for (int i = 0; i < st.n; i++)
			for (size_t b = 0; b < st.t[i].end - st.t[i].begin; b++)
				sum = (uint8_t)(sum + ((const uint8_t *)st.t[i].data)[b]);
		stave_st_close(&st);
	}
	if (must_fail && rc != STAVE_ECORRUPT)
		fail_msg("%zu bytes gave %d", n, rc);
}

static void hostile_safetensors(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e;
	write_sample(in_dir("s.safetensors"));
	must(stave_file_read(&b, in_dir("s.safetensors"), 1 << 20, &e), &e);
	for (size_t n = 0; n < b.len; n++)
		try_bytes(b.p, n, true);
	for (size_t i = 0; i < b.len; i++) {
		char was = b.p[i];
		b.p[i] ^= (char)(1 << i % 8);
		try_bytes(b.p, b.len, i < 8);
		b.p[i] = was;
	}
	stave_buf_put(&b, "x", 1);
	try_bytes(b.p, b.len, true);
	stave_buf_free(&b);
	static const char *const headers[] = {
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,9223372036854775807],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,18446744073709551615]}}",
		"{\"a\":{\"dtype\":\"F32\",\"shape\":\"x\",\"data_offsets\":[0,4]}}",
		"{\"a\":7}", "[]", "{\"__metadata__\":{\"a\":1}}", "{\"__metadata__\":3}", "{}",
	};
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
		char file[400];
		uint64_t n = strlen(headers[i]);
		memcpy(file, &n, 8);
		memcpy(file + 8, headers[i], n);
		memset(file + 8 + n, 0, 4);
		try_bytes(file, 8 + n + 4, true);
	}
	char deep[20008];
	uint64_t n = 20000;
	memcpy(deep, &n, 8);
	memset(deep + 8, '[', n);
	try_bytes(deep, sizeof deep, true);
}

static void json_fields(void **state)
{
	json_t *j = NULL;
	struct stave_err e;
	int64_t i;
	double d;
	bool b;
	const char *text = "{\"a\":5,\"b\":1.5,\"c\":true,\"d\":null,\"s\":\"t\"}";
	must(stave_json_parse(&j, text, strlen(text), "t", &e), &e);
	must(stave_json_int(j, "a", 0, 0, 9, &i, "t", &e), &e);
	assert_int_equal(i, 5);
	must(stave_json_int(j, "d", 3, 0, 9, &i, "t", &e), &e);
	assert_int_equal(i, 3);
	assert_int_equal(stave_json_int(j, "a", 0, 0, 4, &i, "t", &e), STAVE_ECORRUPT);
	assert_int_equal(stave_json_int(j, "b", 0, 0, 9, &i, "t", &e), STAVE_ECORRUPT);
	must(stave_json_real(j, "b", 0, &d, "t", &e), &e);
	assert_true(d == 1.5);
	must(stave_json_bool(j, "c", false, &b, "t", &e), &e);
	assert_true(b);
	assert_int_equal(stave_json_bool(j, "a", false, &b, "t", &e), STAVE_ECORRUPT);
	assert_string_equal(stave_json_str(j, "s", ""), "t");
	assert_string_equal(stave_json_str(j, "a", "def"), "def");
	json_decref(j);
	assert_int_equal(stave_json_parse(&j, "{\"a\":1,\"a\":2}", 13, "t", &e), STAVE_ECORRUPT);
}

static int start(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int end(void **state) { return stave_remove_tree(dir, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_hashes), cmocka_unit_test(arena_plan_is_the_allocation),
		cmocka_unit_test(arena_keeps_what_is_touched), cmocka_unit_test(pieces_of_a_mapping), cmocka_unit_test(write_is_whole_or_absent),
		cmocka_unit_test(what_is_no_file_is_kept),
		cmocka_unit_test(safetensors_round_trip), cmocka_unit_test(hostile_safetensors), cmocka_unit_test(json_fields),
	};
	return cmocka_run_group_tests(tests, start, end);
}
