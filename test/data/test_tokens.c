/* The loader: windows against a naive walk over the same tokens, the permutation as a bijection, foreign .bin files, and
 * shards that lie. Shards are written here by hand, not by prepare, so that the two sides agree only through the format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/safetensors.h"
#include "data/data.h"

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char dir[STAVE_PATH];

static int setup(void **state)
{
	snprintf(dir, sizeof dir, "/tmp/stave-tokens-XXXXXX");
	return mkdtemp(dir) == NULL;
}

static int teardown(void **state)
{
	struct stave_err err;
	return stave_remove_tree(dir, &err);
}

static const char *in_dir(const char *name)
{
	static char path[STAVE_PATH + 64];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void put_file(const char *name, const void *p, size_t n)
{
	FILE *f = fopen(in_dir(name), "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	fclose(f);
}

/* A safetensors file spelled out byte by byte. */
static void put_shard(const char *name, const char *split, const char *sha, bool wide, const uint32_t *tokens, int n, const int64_t *documents,
                      int n_documents, const uint8_t *mask)
{
	struct stave_buf b = {0}, header = {0};
	int token_bytes = wide ? 4 : 2;
	stave_buf_printf(&header, "{\"__metadata__\":{\"tokenizer_sha256\":\"%s\",\"split\":\"%s\",\"bytes\":\"100\"}", sha, split);
	stave_buf_printf(&header, ",\"documents\":{\"dtype\":\"I64\",\"shape\":[%d],\"data_offsets\":[0,%d]}", n_documents, 8 * n_documents);
	stave_buf_printf(&header, ",\"tokens\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[%d,%d]}", wide ? "U32" : "U16", n, 8 * n_documents, 8 * n_documents + token_bytes * n);
	if (mask)
		stave_buf_printf(&header, ",\"loss_mask\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]}", n, 8 * n_documents + token_bytes * n,
		                 8 * n_documents + token_bytes * n + n);
	stave_buf_printf(&header, "}");
	while (header.len % 8)
		stave_buf_put(&header, " ", 1);
	uint64_t size = header.len;
	stave_buf_put(&b, &size, 8);
	stave_buf_put(&b, header.p, header.len);
	stave_buf_put(&b, documents, 8 * (size_t)n_documents);
	for (int i = 0; i < n; i++) {
		uint16_t narrow = (uint16_t)tokens[i];
		stave_buf_put(&b, wide ? (const void *)&tokens[i] : &narrow, (size_t)token_bytes);
	}
	if (mask)
		stave_buf_put(&b, mask, (size_t)n);
	put_file(name, b.p, b.len);
	stave_buf_free(&b);
	stave_buf_free(&header);
}

/* ---- the truth the loader is held against ---- */

enum { N = 1000, FIRST = 377 };
static uint32_t id[N];
static bool begins[N];
static uint8_t learn[N];

static void make_split(bool wide, bool masked)
{
	int64_t a[N] = {0}, b[N] = {0};
	int na = 0, nb = 0;
	for (int i = 0; i < N; i++) {
		id[i] = (uint32_t)(stave_random64(1, (uint64_t)i) % (wide ? 100000 : 65536));
		begins[i] = i == 0 || (i != FIRST && stave_random64(2, (uint64_t)i) % 40 == 0); /* a document runs on into the second shard */
		learn[i] = !masked || stave_random64(3, (uint64_t)i) % 3;
		if (begins[i] && i < FIRST)
			a[na++] = i;
		if (begins[i] && i >= FIRST)
			b[nb++] = i - FIRST;
	}
	a[na++] = FIRST;
	b[nb++] = N - FIRST;
	put_shard("train-00000.safetensors", "train", SHA, wide, id, FIRST, a, na, masked ? learn : NULL);
	put_shard("train-00001.safetensors", "train", SHA, wide, id + FIRST, N - FIRST, b, nb, masked ? learn + FIRST : NULL);
}

static void check_window(int64_t at, int T, bool doc_mask, const int32_t *inputs, const int32_t *targets, const int32_t *start, const int32_t *pos)
{
	int began = 0;
	for (int i = 0; i < T; i++) {
		int64_t k = at + i;
		if (k + 1 >= N) {
			assert_int_equal(targets[i], -1);
			continue;
		}
		if (doc_mask && i && begins[k])
			began = i;
		assert_int_equal(inputs[i], id[k]);
		assert_int_equal(start[i], began);
		assert_int_equal(pos[i], i - began);
		assert_int_equal(targets[i], !learn[k + 1] || (doc_mask && begins[k + 1]) ? -1 : (int32_t)id[k + 1]);
	}
}

static void windows_of(bool wide, bool masked)
{
	struct stave_tokens *t;
	struct stave_err err;
	make_split(wide, masked);
	assert_int_equal(stave_tokens_open(&t, dir, "train", &err), 0);
	assert_int_equal(stave_tokens_count(t), N);
	assert_int_equal(stave_tokens_bytes(t), 200);
	assert_string_equal(stave_tokens_tokenizer_sha256(t), SHA);
	uint32_t max = 0;
	for (int i = 0; i < N; i++)
		max = id[i] > max ? id[i] : max;
	assert_int_equal(stave_tokens_max_id(t), max);
	for (int T = 1; T <= 1100; T = T * 2 + 1) {
		int32_t *v = malloc(4 * sizeof *v * (size_t)T);
		int64_t n = stave_tokens_windows(t, T);
		assert_int_equal(n, (N - 1 + T - 1) / T);
		for (int64_t i = 0; i < n; i++)
			for (int m = 0; m < 2; m++) {
				stave_tokens_window(t, i, T, m, v, v + T, v + 2 * T, v + 3 * T);
				check_window(i * T, T, m, v, v + T, v + 2 * T, v + 3 * T);
			}
		free(v);
	}
	stave_tokens_close(t);
}

static void test_windows(void **state)
{
	windows_of(false, false);
	windows_of(true, false);
	windows_of(false, true);
	windows_of(true, true);
}

/* An epoch's rows are whole windows of the corpus, none twice, in an order that changes with the epoch and the seed. */
static void test_epochs(void **state)
{
	struct stave_tokens *t;
	struct stave_err err;
	enum { T = 7 };
	int32_t v[4][T];
	make_split(false, false);
	assert_int_equal(stave_tokens_open(&t, dir, "train", &err), 0);
	int64_t windows = (N - 1) / T - 1;
	int moved = 0, offsets[T + 8] = {0};
	for (int epoch = 0; epoch < 40; epoch++) {
		bool used[N] = {false};
		int64_t grid = -1;
		for (int64_t w = 0; w < windows; w++) {
			stave_tokens_row(t, 99, epoch * windows + w, T, true, v[0], v[1], v[2], v[3]);
			int64_t at = -1;
			for (int k = 0; k + T < N && at < 0; k++) {
				at = k;
				for (int j = 0; j < T && at >= 0; j++)
					at = (int32_t)id[k + j] == v[0][j] ? at : -1;
			}
			assert_true(at >= 0);
			assert_false(used[at]);
			used[at] = true;
			assert_true(grid < 0 || (at - grid) % T == 0);
			grid = at;
			check_window(at, T, true, v[0], v[1], v[2], v[3]);
			moved += at != w * T;
		}
		offsets[grid % T]++;
	}
	assert_true(moved > 39 * windows);
	for (int i = 0; i < T; i++) /* 40 epochs shift the grid in every way */
		assert_true(offsets[i] > 0);
	/* a function of (seed, row) alone */
	int32_t again[4][T];
	stave_tokens_row(t, 99, 12345678, T, true, v[0], v[1], v[2], v[3]);
	stave_tokens_row(t, 99, 12345678, T, true, again[0], again[1], again[2], again[3]);
	assert_memory_equal(v, again, sizeof v);
	stave_tokens_row(t, 100, 12345678, T, true, again[0], again[1], again[2], again[3]);
	assert_memory_not_equal(v, again, sizeof v);
	/* a window longer than the split is padded */
	enum { LONG = 1200 };
	static int32_t l[4][LONG];
	stave_tokens_row(t, 99, 3, LONG, false, l[0], l[1], l[2], l[3]);
	check_window(0, LONG, false, l[0], l[1], l[2], l[3]);
	stave_tokens_close(t);
}

static void test_permutation(void **state)
{
	static bool hit[70000];
	const uint64_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 1000, 4095, 4096, 4097, 65537};
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
		for (uint64_t key = 0; key < 3; key++) {
			memset(hit, 0, sizeof hit);
			for (uint64_t i = 0; i < sizes[s]; i++) {
				uint64_t j = stave_permute(i, sizes[s], key);
				assert_true(j < sizes[s] && !hit[j]);
				hit[j] = true;
			}
		}
	/* not a rotation or a reversal: neighbours land apart. Expected mean distance of random places is n/3. */
	double apart = 0;
	for (uint64_t i = 0; i + 1 < 10000; i++) {
		double d = (double)stave_permute(i, 10000, 7) - (double)stave_permute(i + 1, 10000, 7);
		apart += d < 0 ? -d : d;
	}
	assert_true(apart / 9999 > 3100 && apart / 9999 < 3567);
	/* huge domains work without storage */
	assert_true(stave_permute(12345, (uint64_t)1 << 50, 1) < (uint64_t)1 << 50);
}

/* ---- files of others ---- */

static void open_bin(const char *path, const char *split, int64_t n, int32_t first)
{
	struct stave_tokens *t;
	struct stave_err err = {0};
	int32_t v[4][4];
	if (stave_tokens_open(&t, path, split, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(stave_tokens_count(t), n);
	stave_tokens_window(t, 0, 4, true, v[0], v[1], v[2], v[3]);
	assert_int_equal(v[0][0], first);
	assert_int_equal(v[1][0], first + 1);
	assert_int_equal(v[1][3], first + 4);
	stave_tokens_close(t);
}

static void test_bin(void **state)
{
	static uint16_t raw[512 + 1000];
	int32_t header[256] = {20240520, 1, 1000};
	for (int i = 0; i < 1000; i++)
		raw[512 + i] = (uint16_t)(50 + i);
	memcpy(raw, header, sizeof header);
	put_file("llmc.bin", raw, sizeof raw);
	open_bin(in_dir("llmc.bin"), "train", 900, 50);
	open_bin(in_dir("llmc.bin"), "val", 100, 950);
	put_file("nano.bin", raw + 512, 2000);
	open_bin(in_dir("nano.bin"), "train", 900, 50);
	open_bin(in_dir("nano.bin"), "val", 100, 950);
	put_file("train.bin", raw + 512, 2000);
	put_file("val.bin", raw + 512, 1000);
	open_bin(dir, "train", 1000, 50);
	open_bin(dir, "val", 500, 50);
}

/* ---- files that lie ---- */

static void refuse(const char *path, int code, const char *word)
{
	struct stave_tokens *t = NULL;
	struct stave_err err = {0};
	int rc = stave_tokens_open(&t, path, "train", &err);
	if (rc != code || !strstr(err.msg, word))
		fail_msg("wanted %d with '%s', got %d: %s", code, word, rc, rc ? err.msg : "opened");
	assert_null(t);
}

static void one_shard(int n, const int64_t *documents, int n_documents)
{
	static const uint32_t tokens[64] = {1, 2, 3};
	put_shard("train-00000.safetensors", "train", SHA, false, tokens, n, documents, n_documents, NULL);
}

static void test_hostile_shards(void **state)
{
	refuse(in_dir("nothing"), STAVE_EUSAGE, "no data");
	refuse(dir, STAVE_EUSAGE, "no train shards");
	one_shard(10, (int64_t[]){0, 4, 10}, 3);
	struct stave_tokens *t;
	struct stave_err err;
	assert_int_equal(stave_tokens_open(&t, dir, "train", &err), 0);
	stave_tokens_close(t);
	one_shard(10, (int64_t[]){0, 4, 11}, 3);
	refuse(dir, STAVE_ECORRUPT, "the last of `documents`");
	one_shard(10, (int64_t[]){0, 11, 10}, 3);
	refuse(dir, STAVE_ECORRUPT, "does not rise");
	one_shard(10, (int64_t[]){-1, 4, 10}, 3);
	refuse(dir, STAVE_ECORRUPT, "does not rise");
	one_shard(10, (int64_t[]){0, 4, 4, 10}, 4);
	refuse(dir, STAVE_ECORRUPT, "does not rise");
	one_shard(0, (int64_t[]){0}, 1);
	refuse(dir, STAVE_ECORRUPT, "no tensor `tokens`");
	put_shard("train-00000.safetensors", "val", SHA, false, (uint32_t[]){1, 2}, 2, (int64_t[]){0, 2}, 2, NULL);
	refuse(dir, STAVE_ECORRUPT, "another split");
	put_shard("train-00000.safetensors", "train", "abc", false, (uint32_t[]){1, 2}, 2, (int64_t[]){0, 2}, 2, NULL);
	refuse(dir, STAVE_ECORRUPT, "tokenizer_sha256");
	put_shard("train-00000.safetensors", "train", SHA, true, (uint32_t[]){1, 0x80000000u}, 2, (int64_t[]){0, 2}, 2, NULL);
	refuse(dir, STAVE_ECORRUPT, "has id");
	make_split(false, false);
	char other[] = SHA;
	other[5] = 'f';
	put_shard("train-00001.safetensors", "train", other, false, (uint32_t[]){1, 2}, 2, (int64_t[]){0, 2}, 2, NULL);
	refuse(dir, STAVE_ECORRUPT, "another tokenizer");
}

static void test_state(void **state)
{
	make_split(false, false);
	const char *doing = "{\"complete\": false, \"shards\": []}", *fewer = "{\"complete\": true, \"shards\": [{\"split\": \"train\"}]}";
	put_file("state.json", doing, strlen(doing));
	refuse(dir, STAVE_ECORRUPT, "interrupted");
	put_file("state.json", fewer, strlen(fewer));
	refuse(dir, STAVE_ECORRUPT, "2 train shards where its state.json says 1");
	put_file("state.json", "{", 1);
	refuse(dir, STAVE_ECORRUPT, "JSON");
	unlink(in_dir("state.json"));
	put_file("tokenizer.json", "{}", 2);
	refuse(dir, STAVE_ECORRUPT, "");
}

static void test_wrong_tokenizer(void **state)
{
	struct stave_tokenizer *tokenizer;
	struct stave_err err;
	make_split(false, false);
	assert_int_equal(stave_tokenizer_byte(&tokenizer, &err), 0);
	assert_int_equal(stave_tokenizer_save(tokenizer, dir, &err), 0);
	refuse(dir, STAVE_ECORRUPT, "tokenizer.json is");
	/* the right hash, but ids beyond its vocabulary */
	put_shard("train-00000.safetensors", "train", stave_tokenizer_sha256(tokenizer), false, (uint32_t[]){1, 257}, 2, (int64_t[]){0, 2}, 2, NULL);
	unlink(in_dir("train-00001.safetensors"));
	refuse(dir, STAVE_ECORRUPT, "outside the tokenizer's 257");
	stave_tokenizer_free(tokenizer);
}

/* Every truncation, and every bit of the header flipped: an error or data that can be walked, never a crash. */
static void test_damage(void **state)
{
	struct stave_map m;
	struct stave_err err;
	one_shard(30, (int64_t[]){0, 4, 30}, 3);
	assert_int_equal(stave_map_open(&m, in_dir("train-00000.safetensors"), &err), 0);
	size_t n = m.size;
	char *good = malloc(n), *bad = malloc(n);
	memcpy(good, m.p, n);
	stave_map_close(&m);
	for (size_t k = 0; k < n; k++) {
		put_file("train-00000.safetensors", good, k);
		refuse(dir, STAVE_ECORRUPT, "");
	}
	for (size_t bit = 0; bit < 8 * n; bit += 3) {
		struct stave_tokens *t;
		memcpy(bad, good, n);
		bad[bit / 8] ^= (char)(1 << bit % 8);
		put_file("train-00000.safetensors", bad, n);
		int rc = stave_tokens_open(&t, dir, "train", &err);
		if (rc) {
			assert_true(rc == STAVE_ECORRUPT);
			continue;
		}
		int32_t v[4][8];
		for (int64_t i = 0; i < stave_tokens_windows(t, 8) && i < 1000; i++)
			stave_tokens_window(t, i, 8, true, v[0], v[1], v[2], v[3]);
		stave_tokens_close(t);
	}
	free(good);
	free(bad);
}

static void test_hostile_bin(void **state)
{
	int32_t header[257] = {20240520, 2, 2};
	put_file("x.bin", header, sizeof header);
	refuse(in_dir("x.bin"), STAVE_ECORRUPT, "version 2");
	header[1] = 1;
	header[2] = 3;
	put_file("x.bin", header, sizeof header);
	refuse(in_dir("x.bin"), STAVE_ECORRUPT, "announces 3 tokens");
	header[2] = -1;
	put_file("x.bin", header, sizeof header);
	refuse(in_dir("x.bin"), STAVE_ECORRUPT, "announces -1");
	put_file("x.bin", header, 100);
	refuse(in_dir("x.bin"), STAVE_ECORRUPT, "announces");
	put_file("x.bin", "abc", 3);
	refuse(in_dir("x.bin"), STAVE_ECORRUPT, "no row of u16");
	put_file("x.bin", "", 0);
	refuse(in_dir("x.bin"), STAVE_ECORRUPT, "no row of u16");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_epochs, setup, teardown),
		cmocka_unit_test(test_permutation),
		cmocka_unit_test_setup_teardown(test_bin, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_shards, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_tokenizer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_bin, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
