/* GGUF: what the writer writes is what the reader reads, byte for byte as the format says; every way in which a file can lie about
 * its counts, lengths, types and offsets is refused. The hostile files are composed here by hand, byte by byte, not by the writer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/gguf.h"
#include "base/sys.h"

static char dir[] = "/tmp/stave-gguf-XXXXXX";

static void must(int rc, const struct stave_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

static const char *at(const char *name)
{
	static char path[4][STAVE_PATH];
	static int turn;
	char *p = path[turn++ % 4];
	snprintf(p, STAVE_PATH, "%s/%s", dir, name);
	return p;
}

/* ---- files by hand ---- */

static void u32(struct stave_buf *b, uint32_t v) { stave_buf_put(b, &v, 4); }
static void u64(struct stave_buf *b, uint64_t v) { stave_buf_put(b, &v, 8); }
static void str(struct stave_buf *b, const char *s)
{
	u64(b, strlen(s));
	stave_buf_put(b, s, strlen(s));
}
static void header(struct stave_buf *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
	b->len = 0;
	stave_buf_put(b, "GGUF", 4);
	u32(b, version);
	u64(b, tensors);
	u64(b, keys);
}
static void key_u32(struct stave_buf *b, const char *key, uint32_t v)
{
	str(b, key);
	u32(b, STAVE_GGUF_U32);
	u32(b, v);
}
static void tensor(struct stave_buf *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset)
{
	str(b, name);
	u32(b, n_dims);
	for (uint32_t d = 0; d < n_dims && d < 8; d++)
		u64(b, ne[d]);
	u32(b, type);
	u64(b, offset);
}
static void pad(struct stave_buf *b, size_t to)
{
	while (b->len % to)
		stave_buf_put(b, "", 1);
}
static void zeros(struct stave_buf *b, size_t n)
{
	while (n--)
		stave_buf_put(b, "", 1);
}

/* No fsync: thousands of files are written here. */
static int put(const char *path, const void *p, size_t n, struct stave_err *e)
{
	FILE *f = fopen(path, "wb");
	bool ok = f && fwrite(p, 1, n, f) == n;
	return f && !fclose(f) && ok ? 0 : stave_err_errno(e, "writing %s", path);
}

static int opened(const struct stave_buf *b, struct stave_err *e)
{
	struct stave_gguf *g;
	must(put(at("x.gguf"), b->p, b->len, e), e);
	int rc = stave_gguf_open(&g, at("x.gguf"), e);
	if (!rc)
		stave_gguf_close(g);
	return rc;
}

/* The file is refused with that code and a message that holds `says`. */
static void refused(const struct stave_buf *b, int code, const char *says)
{
	struct stave_err e = {0};
	int rc = opened(b, &e);
	if (rc != code || !strstr(e.msg, says))
		fail_msg("wanted %d and '%s', got %d and '%s'", code, says, rc, rc ? e.msg : "success");
}

/* One key, two tensors: (4) F32 and (32, 2) Q8_0, each padded to 32. */
static void good(struct stave_buf *b)
{
	header(b, 3, 2, 1);
	key_u32(b, "a.b", 7);
	tensor(b, "one", 1, (const uint64_t[]){4}, 0, 0);
	tensor(b, "two", 2, (const uint64_t[]){32, 2}, 8, 32);
	pad(b, 32);
	zeros(b, 32 + 68);
}

static void a_file_by_hand_is_read(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	struct stave_gguf *g;
	int64_t v = 0;
	for (uint32_t version = 2; version <= 3; version++) {
		good(&b);
		memcpy(b.p + 4, &version, 4);
		size_t data = b.len - 100;
		float x[4] = {1, -2, 3.5f, 0};
		memcpy(b.p + data, x, sizeof x);
		must(put(at("good.gguf"), b.p, b.len, &e), &e);
		must(stave_gguf_open(&g, at("good.gguf"), &e), &e);
		assert_int_equal(g->n, 2);
		assert_int_equal(g->n_parts, 1);
		assert_int_equal(stave_gguf_int(g, "a.b", &v, &e), 1);
		assert_int_equal(v, 7);
		const struct stave_gguf_tensor *one = stave_gguf_find(g, "one"), *two = stave_gguf_find(g, "two");
		assert_memory_equal(one->data, x, sizeof x);
		assert_int_equal(one->bytes, 16);
		assert_int_equal(two->bytes, 68);
		assert_int_equal(two->type, STAVE_Q_Q8_0);
		assert_true(two->ne[0] == 32 && two->ne[1] == 2 && two->ne[2] == 1 && two->ne[3] == 1 && two->n_dims == 2);
		assert_int_equal((const char *)two->data - (const char *)one->data, 32);
		assert_null(stave_gguf_find(g, "three"));
		stave_gguf_close(g);
	}
	stave_buf_free(&b);
}

/* Every shorter file is refused: nothing may depend on bytes that are not there. */
static void a_file_cut_anywhere_is_refused(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	good(&b);
	must(opened(&b, &e), &e);
	size_t whole = b.len;
	for (size_t n = 0; n < whole; n++) {
		b.len = n;
		assert_int_equal(opened(&b, &e), STAVE_ECORRUPT);
	}
	stave_buf_free(&b);
}

static const uint64_t edges[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, (uint64_t)1 << 60, ((uint64_t)1 << 61) + 1, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 1, UINT64_MAX};
#define N_EDGES (sizeof edges / sizeof *edges)

/* Each 8-byte number of the header and the descriptions at its extremes: nothing may crash, and only what is true may open. */
static void counts_at_their_extremes_are_refused(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	good(&b);
	size_t data = (24 + 8 + 3 + 4 + 4 + 2 * (8 + 3 + 4 + 8 + 4 + 8) + 8);
	char *copy = malloc(b.len);
	memcpy(copy, b.p, b.len);
	for (size_t where = 8; where + 8 <= data; where++)
		for (size_t k = 0; k < N_EDGES; k++) {
			memcpy(b.p + where, &edges[k], 8);
			if (opened(&b, &e) == 0) { /* it may be true: the value of the key, a letter of a name, fewer elements */
				struct stave_gguf *g;
				must(stave_gguf_open(&g, at("x.gguf"), &e), &e);
				for (int i = 0; i < g->n; i++) {
					size_t begin = (size_t)((const char *)g->t[i].data - (const char *)g->t[0].data);
					assert_true(begin + g->t[i].bytes <= 100);
				}
				stave_gguf_close(g);
			}
			memcpy(b.p, copy, b.len);
		}
	static const size_t exact[] = {8, 16}; /* numbers of tensors and of keys: only one value is right */
	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < N_EDGES; k++) {
			if (edges[k] == (i ? 1u : 2u))
				continue;
			memcpy(b.p + exact[i], &edges[k], 8);
			int rc = opened(&b, &e);
			assert_true(rc == STAVE_ECORRUPT || rc == STAVE_ECONFIG || (i == 0 && edges[k] < 2)); /* fewer tensors than described is a file with other bytes behind */
			memcpy(b.p, copy, b.len);
		}
	free(copy);
	stave_buf_free(&b);
}

static void headers_of_others_are_refused(void **state)
{
	struct stave_buf b = {0};
	header(&b, 1, 0, 0);
	refused(&b, STAVE_ECONFIG, "version 1");
	header(&b, 0, 0, 0);
	refused(&b, STAVE_ECONFIG, "version 0");
	header(&b, 4, 0, 0);
	refused(&b, STAVE_ECONFIG, "version 4");
	header(&b, 0x03000000, 0, 0);
	refused(&b, STAVE_ECONFIG, "big-endian");
	header(&b, 3, 0, 0);
	b.p[0] = 'X';
	refused(&b, STAVE_ECORRUPT, "no GGUF");
	b.len = 0;
	refused(&b, STAVE_ECORRUPT, "no GGUF");
	stave_buf_free(&b);
}

static void keys_are_checked(void **state)
{
	struct stave_buf b = {0};
	header(&b, 3, 0, 2);
	key_u32(&b, "same", 1);
	key_u32(&b, "same", 1);
	refused(&b, STAVE_ECORRUPT, "twice");
	header(&b, 3, 0, 1);
	key_u32(&b, "", 1);
	zeros(&b, 32);
	refused(&b, STAVE_ECORRUPT, "a key's name");
	header(&b, 3, 0, 1);
	key_u32(&b, "line\nbreak", 1);
	refused(&b, STAVE_ECORRUPT, "control characters");
	for (uint32_t type = 13; type; type = type < 20 ? type + 1 : type == 20 ? 0x7fffffff : type == 0x7fffffff ? 0xffffffff : 0) {
		header(&b, 3, 0, 1);
		str(&b, "key");
		u32(&b, type);
		zeros(&b, 64);
		refused(&b, STAVE_ECORRUPT, "unknown type");
	}
	stave_buf_free(&b);
}

static void array_of(struct stave_buf *b, uint32_t element, uint64_t n, size_t bytes)
{
	header(b, 3, 0, 1);
	str(b, "list");
	u32(b, STAVE_GGUF_ARRAY);
	u32(b, element);
	u64(b, n);
	zeros(b, bytes);
}

static void arrays_are_checked(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	for (uint32_t t = 0; t < 16; t++)
		for (size_t k = 2; k < N_EDGES; k++) {
			array_of(&b, t, edges[k], 4096);
			assert_int_equal(opened(&b, &e), STAVE_ECORRUPT);
		}
	array_of(&b, STAVE_GGUF_ARRAY, 1, 64);
	refused(&b, STAVE_ECORRUPT, "array of arrays");
	array_of(&b, 13, 1, 64);
	refused(&b, STAVE_ECORRUPT, "unknown type");
	array_of(&b, STAVE_GGUF_F64, 3, 23); /* one byte short */
	refused(&b, STAVE_ECORRUPT, "3 elements");
	array_of(&b, STAVE_GGUF_STR, 3, 24); /* three empty strings */
	must(opened(&b, &e), &e);
	array_of(&b, STAVE_GGUF_STR, 3, 0);
	u64(&b, 1);
	stave_buf_put(&b, "a", 1);
	u64(&b, 0);
	u64(&b, 1); /* the last one's byte is missing */
	refused(&b, STAVE_ECORRUPT, "a string of 1 bytes");
	array_of(&b, STAVE_GGUF_STR, 1, 0);
	u64(&b, UINT64_MAX); /* would wrap a sum */
	zeros(&b, 64);
	refused(&b, STAVE_ECORRUPT, "a string of");
	array_of(&b, STAVE_GGUF_U8, 0, 0);
	must(opened(&b, &e), &e);
	stave_buf_free(&b);
}

static void alignments_are_checked(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	static const uint32_t bad[] = {0, 3, 24, 33, 0x80000000, 0xffffffff};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		header(&b, 3, 1, 1);
		key_u32(&b, "general.alignment", bad[i]);
		tensor(&b, "t", 1, (const uint64_t[]){4}, 0, 0);
		zeros(&b, 256);
		refused(&b, STAVE_ECORRUPT, "general.alignment is");
	}
	header(&b, 3, 0, 1);
	str(&b, "general.alignment");
	u32(&b, STAVE_GGUF_U64);
	u64(&b, 32);
	refused(&b, STAVE_ECORRUPT, "32-bit");
	static const uint32_t ok[] = {1, 8, 64, 4096};
	for (size_t i = 0; i < sizeof ok / sizeof *ok; i++) {
		uint64_t second = (20 + ok[i] - 1) / ok[i] * ok[i];
		header(&b, 3, 2, 1);
		key_u32(&b, "general.alignment", ok[i]);
		tensor(&b, "t", 1, (const uint64_t[]){5}, 0, 0);
		tensor(&b, "u", 1, (const uint64_t[]){1}, 0, second);
		pad(&b, ok[i]);
		zeros(&b, second + 4);
		must(opened(&b, &e), &e);
		b.len--;
		refused(&b, STAVE_ECORRUPT, "beyond the end");
	}
	header(&b, 3, 1, 1); /* the padding alone goes far beyond the file */
	key_u32(&b, "general.alignment", 1u << 30);
	tensor(&b, "t", 1, (const uint64_t[]){4}, 0, 0);
	zeros(&b, 4096);
	refused(&b, STAVE_ECORRUPT, "beyond the end");
	stave_buf_free(&b);
}

struct bad_tensor {
	const char *name;
	uint32_t n_dims;
	uint64_t ne[4];
	uint32_t type;
	uint64_t offset;
	int code;
	const char *says;
};

static void tensors_are_checked(void **state)
{
	static const struct bad_tensor bad[] = {
		{"", 1, {4}, 0, 0, STAVE_ECORRUPT, "a tensor's name"},
		{"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg", 1, {4}, 0, 0, STAVE_ECORRUPT, "a tensor's name"}, /* 64 */
		{"t\x1b[2J", 1, {4}, 0, 0, STAVE_ECORRUPT, "control characters"},
		{"t", 0, {4}, 0, 0, STAVE_ECORRUPT, "0 dimensions"},
		{"t", 5, {1, 1, 1, 1}, 0, 0, STAVE_ECORRUPT, "5 dimensions"},
		{"t", UINT32_MAX, {1, 1, 1, 1}, 0, 0, STAVE_ECORRUPT, "dimensions"},
		{"t", 2, {4, 0}, 0, 0, STAVE_ECORRUPT, "impossible shape"},
		{"t", 1, {(uint64_t)-4}, 0, 0, STAVE_ECORRUPT, "impossible shape"},
		{"t", 2, {(uint64_t)1 << 32, (uint64_t)1 << 32}, 0, 0, STAVE_ECORRUPT, "impossible shape"}, /* 2^64 = 0 */
		{"t", 4, {(uint64_t)1 << 16, (uint64_t)1 << 16, (uint64_t)1 << 16, (uint64_t)1 << 16}, 0, 0, STAVE_ECORRUPT, "impossible shape"},
		{"t", 3, {(uint64_t)1 << 32, (uint64_t)1 << 31, 3}, 0, 0, STAVE_ECORRUPT, "impossible shape"},
		{"t", 1, {(uint64_t)1 << 47}, 0, 0, STAVE_ECORRUPT, "beyond the end"},
		{"t", 1, {33}, 8, 0, STAVE_ECORRUPT, "Q8_0 blocks"},
		{"t", 1, {128}, 12, 0, STAVE_ECORRUPT, "Q4_K blocks"},
		{"t", 1, {4}, 0, 32, STAVE_ECORRUPT, "begins at 32"},
		{"t", 1, {4}, 0, 1, STAVE_ECORRUPT, "begins at 1"},
		{"t", 1, {4}, 0, UINT64_MAX, STAVE_ECORRUPT, "begins at"},
		{"t", 1, {4}, 0, (uint64_t)-32, STAVE_ECORRUPT, "begins at"},
		{"t", 1, {4}, 4, 0, STAVE_ECORRUPT, "unknown type 4"},
		{"t", 1, {4}, 43, 0, STAVE_ECORRUPT, "unknown type 43"},
		{"t", 1, {4}, UINT32_MAX, 0, STAVE_ECORRUPT, "unknown type"},
		{"t", 1, {256}, 16, 0, STAVE_ECONFIG, "IQ2_XXS"},
		{"t", 1, {256}, 40, 0, STAVE_ECONFIG, "NVFP4"},
		{"t", 1, {65}, 0, 0, STAVE_ECORRUPT, "beyond the end"},
	};
	struct stave_buf b = {0};
	struct stave_err e = {0};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		const struct bad_tensor *t = &bad[i];
		header(&b, 3, 1, 0);
		tensor(&b, t->name, t->n_dims, t->ne, t->type, t->offset);
		pad(&b, 32);
		zeros(&b, 256);
		refused(&b, t->code, t->says);
	}
	header(&b, 3, 2, 0);
	tensor(&b, "t", 1, (const uint64_t[]){4}, 0, 0);
	tensor(&b, "t", 1, (const uint64_t[]){4}, 0, 32);
	pad(&b, 32);
	zeros(&b, 64);
	refused(&b, STAVE_ECORRUPT, "twice");
	header(&b, 3, 2, 0); /* overlap: the known way to read one tensor through another */
	tensor(&b, "t", 1, (const uint64_t[]){16}, 0, 0);
	tensor(&b, "u", 1, (const uint64_t[]){4}, 0, 32);
	pad(&b, 32);
	zeros(&b, 128);
	refused(&b, STAVE_ECORRUPT, "overlap");
	header(&b, 3, 1, 0);
	tensor(&b, "t", 1, (const uint64_t[]){64}, 0, 0);
	pad(&b, 32);
	zeros(&b, 256);
	must(opened(&b, &e), &e);
	stave_buf_free(&b);
}

/* Many tensors of 2^47 elements each: the sum of their sizes must not wrap. */
static void sums_of_sizes_do_not_wrap(void **state)
{
	struct stave_buf b = {0};
	enum { N = 40000 };
	header(&b, 3, N, 0);
	for (int i = 0; i < N; i++) {
		char name[16];
		snprintf(name, sizeof name, "t%d", i);
		tensor(&b, name, 1, (const uint64_t[]){(uint64_t)1 << 47}, 0, ((uint64_t)1 << 49) * (uint64_t)i);
	}
	refused(&b, STAVE_ECORRUPT, "larger than any file");
	stave_buf_free(&b);
}

/* ---- splits ---- */

static void part(const char *name, uint16_t no, uint16_t count, int32_t total, const char *tensor_name, const char *arch)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	header(&b, 3, tensor_name ? 1 : 0, arch ? 4 : 3);
	str(&b, "split.no");
	u32(&b, STAVE_GGUF_U16);
	stave_buf_put(&b, &no, 2);
	str(&b, "split.count");
	u32(&b, STAVE_GGUF_U16);
	stave_buf_put(&b, &count, 2);
	str(&b, "split.tensors.count");
	u32(&b, STAVE_GGUF_I32);
	stave_buf_put(&b, &total, 4);
	if (arch) {
		str(&b, "general.architecture");
		u32(&b, STAVE_GGUF_STR);
		str(&b, arch);
	}
	if (tensor_name)
		tensor(&b, tensor_name, 1, (const uint64_t[]){4}, 0, 0);
	pad(&b, 32);
	stave_buf_put(&b, tensor_name ? tensor_name : "   ", 3); /* tells the parts apart */
	zeros(&b, 29);
	must(put(at(name), b.p, b.len, &e), &e);
	stave_buf_free(&b);
}

static void split_says(const char *name, const char *says)
{
	struct stave_gguf *g;
	struct stave_err e = {0};
	int rc = stave_gguf_open(&g, at(name), &e);
	if (!rc)
		stave_gguf_close(g);
	if ((rc != STAVE_ECORRUPT && rc != STAVE_EIO) || !strstr(e.msg, says))
		fail_msg("wanted '%s', got %d and '%s'", says, rc, rc ? e.msg : "success");
}

static void splits_are_joined_and_checked(void **state)
{
	struct stave_gguf *g;
	struct stave_err e = {0};
	part("m-00001-of-00003.gguf", 0, 3, 3, "aaa", "llama");
	part("m-00002-of-00003.gguf", 1, 3, 3, "bbb", NULL);
	part("m-00003-of-00003.gguf", 2, 3, 3, "ccc", NULL);
	for (int i = 1; i <= 3; i++) { /* by any part */
		char name[64];
		snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i);
		must(stave_gguf_open(&g, at(name), &e), &e);
		assert_int_equal(g->n, 3);
		assert_int_equal(g->n_parts, 3);
		assert_string_equal(stave_gguf_str(g, "general.architecture"), "llama");
		for (int k = 0; k < 3; k++) {
			static const char *const names[] = {"aaa", "bbb", "ccc"};
			assert_string_equal(g->t[k].name, names[k]);
			assert_memory_equal(stave_gguf_find(g, names[k])->data, names[k], 3);
		}
		stave_gguf_close(g);
	}
	part("renamed.gguf", 0, 3, 3, "aaa", "llama");
	split_says("renamed.gguf", "must end in -00001-of-00003.gguf");
	part("m-00002-of-00003.gguf", 1, 3, 3, "aaa", NULL);
	split_says("m-00001-of-00003.gguf", "twice");
	part("m-00002-of-00003.gguf", 0, 3, 3, "bbb", NULL);
	split_says("m-00001-of-00003.gguf", "wanted part 2 of 3");
	split_says("m-00002-of-00003.gguf", "must end in");
	part("m-00002-of-00003.gguf", 1, 3, 4, "bbb", NULL);
	split_says("m-00001-of-00003.gguf", "of one of 3");
	part("m-00002-of-00003.gguf", 1, 3, 3, "bbb", "qwen2");
	split_says("m-00001-of-00003.gguf", "another model");
	part("m-00002-of-00003.gguf", 1, 3, 3, NULL, NULL);
	split_says("m-00001-of-00003.gguf", "hold 2 tensors");
	unlink(at("m-00002-of-00003.gguf"));
	split_says("m-00001-of-00003.gguf", "m-00002-of-00003.gguf");
	part("n-00001-of-65535.gguf", 0, 65535, 3, "aaa", NULL);
	split_says("n-00001-of-65535.gguf", "at most");
	part("o-00006-of-00002.gguf", 5, 2, 3, "aaa", NULL);
	split_says("o-00006-of-00002.gguf", "part 6 of 2");
}

/* ---- the writer ---- */

static void write_sample(const char *name, const float *x, const struct stave_gguf *copy)
{
	struct stave_gguf_writer *w;
	struct stave_err e = {0};
	const char *strs[] = {"plain", "", "with\0nul"};
	const size_t lengths[] = {5, 0, 8};
	const int32_t ints[] = {-1, 0, INT32_MAX};
	const float floats[] = {0.5f, -3};
	must(stave_gguf_create(&w, at(name), &e), &e);
	if (copy) {
		for (int i = 0; i < stave_gguf_keys(copy); i++) {
			enum stave_gguf_type type;
			stave_gguf_put_copy(w, copy, stave_gguf_key(copy, i, &type));
		}
	} else {
		stave_gguf_put_u32(w, "general.alignment", 64);
		stave_gguf_put_u32(w, "u32", UINT32_MAX);
		stave_gguf_put_f32(w, "f32", 1.25f);
		stave_gguf_put_bool(w, "yes", true);
		stave_gguf_put_bool(w, "no", false);
		stave_gguf_put_str(w, "str", "a\0b", 3);
		stave_gguf_put_strs(w, "strs", strs, lengths, 3);
		stave_gguf_put_i32s(w, "i32s", ints, 3);
		stave_gguf_put_f32s(w, "f32s", floats, 2);
	}
	const struct stave_gguf_tensor t[] = {{.name = "vec", .type = STAVE_Q_F32, .n_dims = 1, .ne = {3}}, {.name = "q", .type = STAVE_Q_Q4_0, .n_dims = 3, .ne = {64, 2, 3}},
	                                      {.name = "last", .type = STAVE_Q_F32, .n_dims = 2, .ne = {2, 2}}};
	char block[6 * 36];
	memset(block, 0x5a, sizeof block);
	must(stave_gguf_tensors(w, t, 3, &e), &e);
	must(stave_gguf_write(w, x, 4, &e), &e); /* in pieces */
	must(stave_gguf_write(w, x + 1, 8, &e), &e);
	must(stave_gguf_write(w, block, sizeof block, &e), &e);
	must(stave_gguf_write(w, x, 16, &e), &e);
	assert_false(stave_exists(at(name))); /* whole or absent */
	must(stave_gguf_commit(w, &e), &e);
	assert_true(stave_exists(at(name)));
	assert_true(stave_is_gguf(at(name)));
}

static void what_is_written_is_read(void **state)
{
	const float x[4] = {1, 2, 3, 4};
	struct stave_gguf *g;
	struct stave_err e = {0};
	int64_t v;
	double r;
	bool b;
	size_t n;
	enum stave_gguf_type type;
	write_sample("w.gguf", x, NULL);
	must(stave_gguf_open(&g, at("w.gguf"), &e), &e);
	assert_true(stave_gguf_int(g, "u32", &v, &e) == 1 && v == UINT32_MAX);
	assert_true(stave_gguf_real(g, "f32", &r, &e) == 1 && r == 1.25);
	assert_true(stave_gguf_real(g, "u32", &r, &e) == 1 && r == (double)UINT32_MAX);
	assert_true(stave_gguf_bool(g, "yes", &b, &e) == 1 && b);
	assert_true(stave_gguf_bool(g, "no", &b, &e) == 1 && !b);
	assert_int_equal(stave_gguf_int(g, "f32", &v, &e), STAVE_ECORRUPT);
	assert_int_equal(stave_gguf_int(g, "str", &v, &e), STAVE_ECORRUPT);
	assert_int_equal(stave_gguf_real(g, "strs", &r, &e), STAVE_ECORRUPT);
	assert_int_equal(stave_gguf_bool(g, "u32", &b, &e), STAVE_ECORRUPT);
	assert_int_equal(stave_gguf_int(g, "none", &v, &e), 0);
	assert_null(stave_gguf_str(g, "u32"));
	assert_int_equal(stave_gguf_str_n(g, "str"), 3);
	assert_memory_equal(stave_gguf_str(g, "str"), "a\0b", 4);
	assert_true(stave_gguf_array(g, "strs", &type, &v) && type == STAVE_GGUF_STR && v == 3);
	assert_string_equal(stave_gguf_array_str(g, "strs", 0, &n), "plain");
	assert_string_equal(stave_gguf_array_str(g, "strs", 1, &n), "");
	assert_int_equal(n, 0);
	assert_memory_equal(stave_gguf_array_str(g, "strs", 2, &n), "with\0nul", 9);
	assert_int_equal(n, 8);
	stave_gguf_array_str(g, "strs", 3, &n);
	assert_int_equal(n, 0);
	assert_true(stave_gguf_array_int(g, "i32s", 0) == -1 && stave_gguf_array_int(g, "i32s", 2) == INT32_MAX && stave_gguf_array_int(g, "i32s", 3) == 0);
	assert_true(stave_gguf_array_real(g, "f32s", 1) == -3 && stave_gguf_array_real(g, "f32s", -1) == 0);
	assert_false(stave_gguf_array(g, "str", &type, &v));
	assert_int_equal(stave_gguf_find(g, "q")->bytes, 6 * 36);
	assert_memory_equal(stave_gguf_find(g, "last")->data, x, 16);
	assert_memory_equal(stave_gguf_find(g, "vec")->data, x, 12);
	assert_int_equal(((uintptr_t)stave_gguf_find(g, "last")->data) % 64, 0); /* the mapping is page-aligned */
	/* copied key by key, it is the same file to the byte */
	write_sample("w2.gguf", x, g);
	struct stave_map a, c;
	must(stave_map_open(&a, at("w.gguf"), &e), &e);
	must(stave_map_open(&c, at("w2.gguf"), &e), &e);
	assert_int_equal(a.size, c.size);
	assert_memory_equal(a.p, c.p, a.size);
	stave_map_close(&a);
	stave_map_close(&c);
	stave_gguf_close(g);
}

static void mistakes_of_writers_are_told(void **state)
{
	struct stave_gguf_writer *w;
	struct stave_err e = {0};
	struct stave_gguf_tensor t = {.name = "t", .type = STAVE_Q_F32, .n_dims = 1, .ne = {4}};
	must(stave_gguf_create(&w, at("bad.gguf"), &e), &e);
	stave_gguf_put_u32(w, "k", 1);
	stave_gguf_put_u32(w, "k", 2);
	assert_int_equal(stave_gguf_tensors(w, &t, 1, &e), STAVE_EFAIL);
	assert_non_null(strstr(e.msg, "twice"));
	stave_gguf_abort(w);
	must(stave_gguf_create(&w, at("bad.gguf"), &e), &e);
	must(stave_gguf_tensors(w, &t, 1, &e), &e);
	assert_int_equal(stave_gguf_write(w, "12345678901234567", 17, &e), STAVE_EFAIL);
	must(stave_gguf_write(w, "1234", 4, &e), &e);
	assert_int_equal(stave_gguf_commit(w, &e), STAVE_EFAIL); /* 12 bytes short */
	t.name = "a.name.longer.than.the.sixty.three.characters.that.ggml.can.keep.of.it";
	must(stave_gguf_create(&w, at("bad.gguf"), &e), &e);
	assert_int_equal(stave_gguf_tensors(w, &t, 1, &e), STAVE_ECONFIG);
	stave_gguf_abort(w);
	t = (struct stave_gguf_tensor){.name = "t", .type = STAVE_Q_Q4_K, .n_dims = 1, .ne = {128}};
	must(stave_gguf_create(&w, at("bad.gguf"), &e), &e);
	assert_int_equal(stave_gguf_tensors(w, &t, 1, &e), STAVE_EFAIL);
	stave_gguf_abort(w);
	assert_false(stave_exists(at("bad.gguf")));
	assert_false(stave_exists(at("bad.gguf.tmp")));
}

static void integers_keep_their_sign(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	struct stave_gguf *g;
	int64_t v;
	static const struct {
		uint32_t type, bytes;
		int64_t bits, want;
	} c[] = {{STAVE_GGUF_U8, 1, 0xff, 255},         {STAVE_GGUF_I8, 1, 0xff, -1},   {STAVE_GGUF_U16, 2, 0xfffe, 65534}, {STAVE_GGUF_I16, 2, 0xfffe, -2},
	         {STAVE_GGUF_I32, 4, 0xfffffffd, -3},   {STAVE_GGUF_I64, 8, -4, -4},    {STAVE_GGUF_U64, 8, INT64_MAX, INT64_MAX}, {STAVE_GGUF_BOOL, 1, 1, 1}};
	for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
		header(&b, 3, 0, 1);
		str(&b, "k");
		u32(&b, c[i].type);
		stave_buf_put(&b, &c[i].bits, c[i].bytes);
		must(put(at("i.gguf"), b.p, b.len, &e), &e);
		must(stave_gguf_open(&g, at("i.gguf"), &e), &e);
		assert_int_equal(stave_gguf_int(g, "k", &v, &e), 1);
		assert_true(v == c[i].want);
		stave_gguf_close(g);
	}
	header(&b, 3, 0, 1);
	str(&b, "k");
	u32(&b, STAVE_GGUF_U64);
	u64(&b, UINT64_MAX);
	must(put(at("i.gguf"), b.p, b.len, &e), &e);
	must(stave_gguf_open(&g, at("i.gguf"), &e), &e);
	assert_int_equal(stave_gguf_int(g, "k", &v, &e), STAVE_ECORRUPT);
	stave_gguf_close(g);
	stave_buf_free(&b);
}

/* A vocabulary of 200 000 words and 300 000 merges beside 2 GB of tensor bytes (a hole in the file): opened in no time. */
static void large_files_open_fast(void **state)
{
	struct stave_buf b = {0};
	struct stave_err e = {0};
	header(&b, 3, 1, 2);
	for (int k = 0; k < 2; k++) {
		int n = k ? 300000 : 200000;
		str(&b, k ? "merges" : "tokens");
		u32(&b, STAVE_GGUF_ARRAY);
		u32(&b, STAVE_GGUF_STR);
		u64(&b, (uint64_t)n);
		for (int i = 0; i < n; i++) {
			char s[16];
			snprintf(s, sizeof s, "t%d", i);
			str(&b, s);
		}
	}
	tensor(&b, "big", 2, (const uint64_t[]){1 << 14, 1 << 15}, 0, 0);
	pad(&b, 32);
	must(put(at("big.gguf"), b.p, b.len, &e), &e);
	assert_int_equal(truncate(at("big.gguf"), (off_t)b.len + ((off_t)4 << 29)), 0);
	double best = 1e9;
	for (int i = 0; i < 3; i++) {
		struct stave_gguf *g;
		double t = stave_now_s();
		must(stave_gguf_open(&g, at("big.gguf"), &e), &e);
		t = stave_now_s() - t;
		best = t < best ? t : best;
		size_t n;
		assert_string_equal(stave_gguf_array_str(g, "tokens", 199999, &n), "t199999");
		assert_int_equal(g->t[0].bytes, (size_t)4 << 29);
		stave_gguf_close(g);
	}
	if (best > 0.2)
		fail_msg("opening took %.0f ms", best * 1e3);
	unlink(at("big.gguf"));
	stave_buf_free(&b);
}

static int setup(void **state) { return mkdtemp(dir) ? 0 : -1; }
static int teardown(void **state) { return stave_remove_tree(dir, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_by_hand_is_read), cmocka_unit_test(a_file_cut_anywhere_is_refused), cmocka_unit_test(counts_at_their_extremes_are_refused),
		cmocka_unit_test(headers_of_others_are_refused), cmocka_unit_test(keys_are_checked), cmocka_unit_test(arrays_are_checked),
		cmocka_unit_test(alignments_are_checked), cmocka_unit_test(tensors_are_checked), cmocka_unit_test(sums_of_sizes_do_not_wrap),
		cmocka_unit_test(splits_are_joined_and_checked), cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(mistakes_of_writers_are_told),
		cmocka_unit_test(integers_keep_their_sign), cmocka_unit_test(large_files_open_fast),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
