/* `prepare` from files to shards. Truth comes from outside: documents are decoded back from the shards and compared with
 * what was written into the inputs; a killed run is compared, byte by byte, with one that was not. Runs that are to be
 * killed or starved of disk are processes of their own: this binary started again as "child ARGS". */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/sys.h"
#include "data/data.h"

static char dir[STAVE_PATH], out[STAVE_PATH + 8];
static struct stave_prepare_result result;
static struct stave_err err;

static int setup(void **state)
{
	snprintf(dir, sizeof dir, "/tmp/stave-prepare-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(out, sizeof out, "%s/out", dir);
	return 0;
}

static int teardown(void **state)
{
	return stave_remove_tree(dir, &err);
}

static char *in(const char *name)
{
	static char path[8][STAVE_PATH + 128];
	static int turn;
	char *p = path[turn++ % 8];
	snprintf(p, sizeof path[0], "%s/%s", dir, name);
	return p;
}

static void put(const char *name, const void *p, size_t n)
{
	FILE *f = fopen(in(name), "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	fclose(f);
}
static void put_text(const char *name, const char *s) { put(name, s, strlen(s)); }

static int run(char **argv)
{
	struct stave_prepare p = {0};
	struct stave_config c;
	const char *inputs[64];
	int n = 0, argc = 0;
	bool help;
	while (argv[argc])
		argc++;
	int rc = stave_config_open(&c, stave_prepare_keys, (size_t)stave_prepare_n_keys, &p, &err);
	if (!rc)
		rc = stave_config_args(&c, argc, argv, false, inputs, 64, &n, &help, &err);
	if (!rc) {
		stave_prepare_resolve(&p, &c);
		rc = stave_prepare_run(&p, inputs, n, &result, &err);
	}
	stave_config_close(&c);
	return rc;
}
#define prepare(...) run((char *[]){(char *)"prepare", __VA_ARGS__, NULL})
#define prepared(...)                                                             \
	do {                                                                      \
		if (prepare(__VA_ARGS__, "--out", out))                           \
			fail_msg("%s:%d: %s", __FILE__, __LINE__, err.msg);       \
	} while (0)

/* ---- reading back ---- */

/* All documents of a split as bytes, each followed by '|': decoded from ids, eos left out. */
static void read_back(const char *split, struct stave_buf *text, int64_t *learnt)
{
	struct stave_tokens *t;
	struct stave_tokenizer *tokenizer;
	text->len = 0;
	stave_buf_put(text, "", 0);
	if (stave_tokens_open(&t, out, split, &err) || stave_tokenizer_load(&tokenizer, out, &err))
		fail_msg("%s", err.msg);
	int n = (int)stave_tokens_count(t);
	int32_t *v = malloc(4 * sizeof *v * (size_t)n), *starts = v + 2 * n;
	stave_tokens_window(t, 0, n, true, v, v + n, starts, v + 3 * n);
	*learnt = 0;
	/* the window's last input is only a target in the real stream: read it from one window of one token */
	int32_t last[4][1];
	if (n > 1)
		stave_tokens_window(t, n - 2, 1, false, last[0], last[1], last[2], last[3]);
	for (int i = 0; i < n; i++) {
		int32_t id = i < n - 1 ? v[i] : last[1][0];
		if (i && i < n - 1 && starts[i] == i)
			stave_buf_put(text, "|", 1);
		if (i < n - 1)
			*learnt += v[n + i] >= 0;
		assert_int_equal(stave_decode(tokenizer, &id, 1, false, text, &err), 0);
	}
	stave_buf_put(text, "|", 1);
	free(v);
	stave_tokenizer_free(tokenizer);
	stave_tokens_close(t);
}

static void assert_split(const char *split, const char *want)
{
	struct stave_buf b = {0};
	int64_t learnt;
	read_back(split, &b, &learnt);
	assert_string_equal(b.p, want);
	stave_buf_free(&b);
}

static int64_t report_count(const char *reason)
{
	json_t *j;
	char path[STAVE_PATH + 64];
	snprintf(path, sizeof path, "%s/report.json", out);
	assert_int_equal(stave_json_load(&j, path, 1 << 20, &err), 0);
	int64_t n = json_integer_value(json_object_get(json_object_get(json_object_get(j, "dropped"), reason), "documents"));
	json_decref(j);
	return n;
}

/* ---- tests ---- */

static void test_shakespeare(void **state)
{
	const char *shared = getenv("STAVE_SHARED");
	char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/data/tinyshakespeare.txt", shared ? shared : "../shared");
	if (!stave_exists(path)) {
		print_message("skipped: %s is not here (set STAVE_SHARED)\n", path);
		skip();
	}
	prepared(path, "--tokenizer", "char");
	assert_int_equal(result.tokens_train, 1003854);
	assert_int_equal(result.tokens_val, 111540);
	assert_int_equal(result.vocab, 65);
	struct stave_buf text = {0}, back = {0};
	int64_t learnt;
	assert_int_equal(stave_file_read(&text, path, 1 << 24, &err), 0);
	read_back("train", &back, &learnt);
	assert_memory_equal(back.p, text.p, 1003854);
	read_back("val", &back, &learnt);
	assert_memory_equal(back.p, text.p + 1003854, 111540);
	/* nanoGPT's ids: rank of the character among the 65 */
	struct stave_tokens *t;
	int32_t v[4][4];
	assert_int_equal(stave_tokens_open(&t, out, "train", &err), 0);
	stave_tokens_window(t, 0, 4, false, v[0], v[1], v[2], v[3]);
	const int32_t want[] = {18, 47, 56, 57}; /* "Firs" */
	assert_memory_equal(v[0], want, sizeof want);
	stave_tokens_close(t);
	stave_buf_free(&text);
	stave_buf_free(&back);
}

static void put_gzip(const char *name, const char *s, const char *more)
{
	gzFile f = gzopen(in(name), "wb");
	gzwrite(f, s, (unsigned)strlen(s));
	gzclose(f);
	if (!more)
		return;
	f = gzopen(in(name), "ab"); /* a second member */
	gzwrite(f, more, (unsigned)strlen(more));
	gzclose(f);
}

static void put_zstd(const char *name, const char *s)
{
	char packed[4096];
	put(name, packed, ZSTD_compress(packed, sizeof packed, s, strlen(s), 3));
}

static void test_inputs(void **state)
{
	mkdir(in("c"), 0755);
	mkdir(in("c/deep"), 0755);
	mkdir(in("c/.git"), 0755);
	put_text("c/.git/x", "hidden");
	put_text("c/b.txt", "second file\nof two lines\n");
	put_text("c/a.md", "\xef\xbb\xbf" "first file\n");
	put_gzip("c/c.txt.gz", "third, ", "in two members");
	put_zstd("c/d.jsonl.zst", "{\"text\": \"fourth\"}\n\n{\"text\": \"fifth \\u00e9\", \"id\": 7}");
	put_gzip("c/deep/e.jsonl.gz", "{\"text\": \"sixth\"}\n", NULL);
	put("c/image.png", "\x89PNG\0\0\0", 7);
	put_text("c/empty.txt", " \n");
	put_text("late.txt", "seventh");
	assert_int_equal(symlink(in("c"), in("c/loop")), 0);
	prepared(in("c"), in("late.txt"), "--tokenizer", "byte", "--val_fraction", "0");
	assert_split("train", "first file\n|second file\nof two lines\n|third, in two members|fourth|fifth \xc3\xa9|sixth|seventh|");
	assert_int_equal(result.documents_read, 9);
	assert_int_equal(result.documents_kept, 7);
	assert_int_equal(report_count("not_text"), 1);
	assert_int_equal(report_count("empty"), 1);
	/* bytes of text behind the tokens: every token but the seven separators is a byte */
	assert_int_equal(result.tokens_train, result.bytes_train + 7);
	/* an output inside the input is not an input */
	snprintf(out, sizeof out, "%s/c/out", dir);
	prepared(in("c"), "--tokenizer", "byte", "--val_fraction", "0");
	prepared(in("c"), "--tokenizer", "byte", "--val_fraction", "0");
	assert_true(result.reused);
}

/* More than a batch holds, by bytes, by documents, and of nothing but blank lines. */
static void test_many_batches(void **state)
{
	struct stave_buf b = {0};
	int64_t text = 0;
	for (int i = 0; i < 12000; i++) {
		char pad[2100];
		int n = (int)(stave_random64(1, (uint64_t)i) % 2000);
		memset(pad, 'a' + i % 26, (size_t)n);
		pad[n] = 0;
		text += snprintf(NULL, 0, "%d%s", i, pad);
		stave_buf_printf(&b, "{\"text\": \"%d%s\"}\n", i, pad);
	}
	for (int i = 0; i < 20000; i++) {
		text += snprintf(NULL, 0, "%d.", i);
		stave_buf_printf(&b, "{\"text\": \"%d.\"}\n\n", i);
	}
	for (int i = 0; i < 300000; i++)
		stave_buf_printf(&b, "                                                                \n");
	stave_buf_printf(&b, "{\"text\": \"end\"}\n");
	put("many.jsonl", b.p, b.len);
	stave_buf_free(&b);
	prepared(in("many.jsonl"), "--tokenizer", "byte");
	assert_int_equal(result.documents_read, 32001);
	assert_int_equal(result.documents_kept, 32001);
	assert_int_equal(result.bytes_train + result.bytes_val, text + 3);
	assert_int_equal(result.tokens_train + result.tokens_val, text + 3 + 32001);
}

static void test_split_on(void **state)
{
	put_text("p.txt", "one\ntwo\n\n \nthree\r\n\n\n\nfour");
	prepared(in("p.txt"), "--tokenizer", "byte", "--val_fraction", "0", "--split_on", "blank");
	assert_split("train", "one\ntwo|three|four|");
	prepared(in("p.txt"), "--tokenizer", "byte", "--val_fraction", "0", "--split_on", "line");
	assert_split("train", "one|two|three|four|");
	prepared(in("p.txt"), "--tokenizer", "byte", "--val_fraction", "0.5");
	assert_split("train", "one\ntwo\n\n \nt|");
	assert_split("val", "hree\r\n\n\n\nfour|");
	assert_int_equal(result.tokens_train + result.tokens_val, 25); /* a lone document has no separator */
	/* a cut never splits a character */
	put_text("u.txt", "\xc3\xa9\xc3\xa9\xc3\xa9");
	prepared(in("u.txt"), "--tokenizer", "byte", "--val_fraction", "0.5");
	assert_int_equal(result.tokens_train, 2);
}

static void test_duplicates(void **state)
{
	struct stave_buf b = {0};
	for (int i = 0; i < 40; i++) {
		char doc[2000] = "";
		for (int w = 0; w < 60; w++)
			sprintf(doc + strlen(doc), "word%c%c%c ", 'a' + i % 20, 'a' + w / 8, 'a' + w % 8);
		if (i >= 30) /* near: one word of sixty differs from document i - 20 */
			memcpy(doc + strlen(doc) - 4, "xyz", 3);
		stave_buf_printf(&b, "{\"text\": \"%s\"}\n", doc); /* 20..29 equal 0..9 */
	}
	put("d.jsonl", b.p, b.len);
	stave_buf_free(&b);
	prepared(in("d.jsonl"), "--tokenizer", "byte");
	assert_int_equal(result.documents_kept, 30);
	assert_int_equal(report_count("exact_duplicate"), 10);
	prepared(in("d.jsonl"), "--tokenizer", "byte", "--no-dedup.exact");
	assert_int_equal(result.documents_kept, 40);
	prepared(in("d.jsonl"), "--tokenizer", "byte", "--dedup.near");
	assert_int_equal(report_count("exact_duplicate"), 10);
	assert_int_equal(report_count("near_duplicate"), 10);
	assert_int_equal(result.documents_kept, 20);
	prepared(in("d.jsonl"), "--tokenizer", "byte", "--dedup.near", "--no-dedup.exact");
	assert_int_equal(report_count("near_duplicate"), 20);
}

/* The set a document falls into depends on its text alone. */
static void test_split(void **state)
{
	struct stave_buf b = {0}, val[2] = {{0}};
	int64_t learnt;
	for (int i = 0; i < 2000; i++)
		stave_buf_printf(&b, "{\"text\": \"<%d>\"}\n", i);
	put("s.jsonl", b.p, b.len);
	prepared(in("s.jsonl"), "--tokenizer", "byte", "--val_fraction", "0.2");
	read_back("val", &val[0], &learnt);
	b.len = 0;
	for (int i = 2099; i >= 0; i--)
		stave_buf_printf(&b, "{\"text\": \"<%d>\"}\n", i);
	put("s.jsonl", b.p, b.len);
	prepared(in("s.jsonl"), "--tokenizer", "byte", "--val_fraction", "0.2");
	read_back("val", &val[1], &learnt);
	int n = 0;
	for (char *p = strtok(val[0].p, "|"); p; p = strtok(NULL, "|"), n++)
		assert_non_null(strstr(val[1].p, p));
	assert_in_range(n, 400 - 72, 400 + 72); /* 4 sigma */
	stave_buf_free(&b);
	stave_buf_free(&val[0]);
	stave_buf_free(&val[1]);
	/* two documents are one for each set, whatever the hashes say */
	put_text("two.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n");
	prepared(in("two.jsonl"), "--tokenizer", "byte");
	assert_int_equal(result.tokens_train, 2);
	assert_int_equal(result.tokens_val, 2);
}

static void test_messages(void **state)
{
	struct stave_buf b = {0};
	int64_t learnt;
	put_text("m.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"hello\"}, "
	                    "{\"role\": \"user\", \"content\": \"bye\"}, {\"role\": \"assistant\", \"content\": \"ciao\"}]}\n");
	prepared(in("m.jsonl"), "--tokenizer", "byte", "--val_fraction", "0");
	read_back("train", &b, &learnt);
	/* the tokenizer's plain template */
	assert_string_equal(b.p, "user: hi\nassistant: hello\nuser: bye\nassistant: ciao\n|");
	/* learnt: "hello\n", "ciao\n" and the end; headers and the user's words are not (how the space after the colon and the
	 * line end are shared out is the template's business) */
	assert_in_range(learnt, 9 + 1, 9 + 2 + 2 + 1);
	assert_int_equal(result.bytes_train, 2 + 5 + 3 + 4);
	stave_buf_free(&b);
}

static void test_bad_lines(void **state)
{
	put_text("x.jsonl", "{\"text\": \"fine\"}\n{\"text\": 5}\n{\"text\": \"good\"}\n{\"text\": \n");
	assert_int_equal(prepare(in("x.jsonl"), "--tokenizer", "byte", "--out", out), STAVE_ECORRUPT);
	assert_non_null(strstr(err.msg, "x.jsonl:2"));
	assert_non_null(strstr(err.msg, "--bad_lines drop"));
	prepared(in("x.jsonl"), "--tokenizer", "byte", "--bad_lines", "drop", "--val_fraction", "0");
	assert_split("train", "fine|good|");
	assert_int_equal(report_count("bad_line"), 2);
	put_text("f.jsonl", "{\"body\": \"by another name\"}\n");
	prepared(in("f.jsonl"), "--tokenizer", "byte", "--field", "body", "--val_fraction", "0");
	assert_split("train", "by another name|");
}

static void test_utf8(void **state)
{
	char text[2002];
	memset(text, 'a', sizeof text);
	text[1000] = '\xff';
	put("latin.txt", text, 2000);
	text[10] = '\0';
	put("nul.txt", text, 2000);
	put_text("other.txt", "caf\xe9 au lait");
	prepared(in("latin.txt"), in("nul.txt"), in("other.txt"), "--tokenizer", "byte", "--val_fraction", "0");
	assert_int_equal(result.documents_kept, 1);
	assert_int_equal(report_count("not_text"), 2);
	assert_int_equal(result.bytes_train, 1999 + 3); /* U+FFFD */
}

static void test_refused(void **state)
{
	char big[5000];
	assert_int_equal(prepare(in("a.txt"), "--tokenizer", "byte"), STAVE_EUSAGE);
	assert_int_equal(prepare("--out", out), STAVE_EUSAGE);
	assert_int_equal(prepare(in("absent"), "--tokenizer", "byte", "--out", out), STAVE_EIO);
	assert_int_equal(prepare(in("a.txt"), "--tokenizer", "bpe:200", "--out", out), STAVE_EUSAGE);
	assert_int_equal(prepare(in("a.txt"), "--tokenizer", "bpe:20x", "--out", out), STAVE_EUSAGE);
	put_text("e.txt", "  \n");
	assert_int_equal(prepare(in("e.txt"), "--tokenizer", "byte", "--out", out), STAVE_EFAIL);
	assert_non_null(strstr(err.msg, "empty"));
	/* archives cut short or damaged are not shorter corpora */
	for (size_t i = 0; i < sizeof big; i++)
		big[i] = (char)('a' + stave_random64(4, i) % 20);
	big[4999] = 0;
	put_gzip("t.txt.gz", big, NULL);
	put_zstd("t.txt.zst", big);
	for (int k = 0; k < 2; k++) {
		const char *name = k ? "t.txt.zst" : "t.txt.gz";
		struct stave_buf b = {0};
		assert_int_equal(stave_file_read(&b, in(name), 1 << 20, &err), 0);
		put("cut", b.p, b.len - 20);
		assert_int_equal(prepare(in("cut"), "--tokenizer", "byte", "--out", out), STAVE_ECORRUPT);
		assert_non_null(strstr(err.msg, "cut short"));
		b.p[b.len / 2] ^= 16;
		put("cut", b.p, b.len);
		int rc = prepare(in("cut"), "--tokenizer", "byte", "--out", out);
		/* zstd frames need not carry a checksum: then damage may show as text that is none, or not at all */
		assert_true(rc == STAVE_ECORRUPT || (k && (rc == STAVE_EFAIL || rc == 0)));
		stave_buf_free(&b);
	}
	/* shards that are not ours are not overwritten */
	assert_int_equal(stave_remove_tree(out, &err), 0);
	mkdir(out, 0755);
	put_text("out/train-00000.safetensors", "precious");
	put_text("ok.txt", "fine text");
	assert_int_equal(prepare(in("ok.txt"), "--tokenizer", "byte", "--out", out), STAVE_EUSAGE);
	assert_true(stave_exists(in("out/train-00000.safetensors")));
}

/* ---- a corpus large enough for several shards ---- */

static void make_words(struct stave_buf *b, size_t bytes, uint64_t seed)
{
	static const char *const syllable[] = {"ka", "to", "mi", "ren", "sol", "ba", "ge", "lun", "par", "vi", "\xc3\xa9t", "os"};
	for (uint64_t i = 0; b->len < bytes; i++) {
		uint64_t r = stave_random64(seed, i);
		for (uint64_t k = 0; k <= r % 3; k++)
			stave_buf_printf(b, "%s", syllable[(r >> 8 >> 6 * k) % 12]);
		stave_buf_printf(b, "%s", r >> 40 & 15 ? " " : r >> 44 & 1 ? ".\n" : ", ");
	}
}

static void put_corpus(void)
{
	struct stave_buf b = {0}, all = {0};
	make_words(&b, 6000000, 1); /* one document of many pieces */
	put("big.txt", b.p, b.len);
	for (int i = 0; i < 1500; i++) {
		b.len = 0;
		make_words(&b, 500 + (size_t)(stave_random64(9, (uint64_t)i) % 3000), 100 + (uint64_t)i);
		json_t *j = json_pack("{s:s}", "text", b.p);
		char *s = json_dumps(j, JSON_COMPACT);
		stave_buf_printf(&all, "%s\n", s);
		free(s);
		json_decref(j);
	}
	put("small.jsonl", all.p, all.len);
	stave_buf_free(&b);
	stave_buf_free(&all);
}
#define CORPUS in("big.txt"), in("small.jsonl"), "--tokenizer", "bpe:600", "--shard_tokens", "300k"

/* Compares every file of two directories, but state.json, whose inputs hold times. */
static void assert_same_shards(const char *a, const char *b)
{
	DIR *d = opendir(a);
	int n = 0;
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		struct stave_map x, y;
		char p[STAVE_PATH * 2], q[STAVE_PATH * 2];
		if (e->d_name[0] == '.' || !strcmp(e->d_name, "state.json"))
			continue;
		snprintf(p, sizeof p, "%s/%s", a, e->d_name);
		snprintf(q, sizeof q, "%s/%s", b, e->d_name);
		assert_int_equal(stave_map_open(&x, p, &err), 0);
		if (stave_map_open(&y, q, &err))
			fail_msg("%s", err.msg);
		if (x.size != y.size || memcmp(x.p, y.p, x.size))
			fail_msg("%s and %s differ", p, q);
		stave_map_close(&x);
		stave_map_close(&y);
		n++;
	}
	closedir(d);
	assert_true(n > 6);
}

static int count_files(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;
	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static void test_pieces(void **state)
{
	put_corpus();
	prepared(CORPUS);
	/* the large document's ids are those of encoding it whole: truth is the tokenizer itself */
	struct stave_tokens *t;
	struct stave_tokenizer *tokenizer;
	struct stave_encoder *e;
	struct stave_ids ids = {0};
	struct stave_buf text = {0};
	assert_int_equal(stave_file_read(&text, in("big.txt"), 1 << 24, &err), 0);
	assert_int_equal(stave_tokenizer_load(&tokenizer, out, &err), 0);
	assert_int_equal(stave_encoder_open(&e, tokenizer, &err), 0);
	assert_int_equal(stave_encode(e, text.p, text.len, false, &ids, &err), 0);
	const char *split = "train";
	int32_t first[4][8];
	assert_int_equal(stave_tokens_open(&t, out, split, &err), 0);
	stave_tokens_window(t, 0, 8, false, first[0], first[1], first[2], first[3]);
	if (memcmp(first[0], ids.p, sizeof first[0])) { /* the split may have put it into val, first there too */
		stave_tokens_close(t);
		assert_int_equal(stave_tokens_open(&t, out, split = "val", &err), 0);
	}
	int n = (int)ids.n;
	assert_true(stave_tokens_count(t) > n);
	int32_t *v = malloc(4 * sizeof *v * (size_t)n);
	stave_tokens_window(t, 0, n, true, v, v + n, v + 2 * n, v + 3 * n);
	assert_memory_equal(v, ids.p, sizeof *v * (size_t)n);
	for (int i = 0; i < n; i++) /* one document, though it lies in several shards */
		assert_int_equal(v[2 * n + i], 0);
	assert_int_equal(v[2 * n - 1], stave_tokenizer_eos(tokenizer));
	assert_true(result.shards > 6);
	free(v);
	stave_ids_free(&ids);
	stave_encoder_free(e);
	stave_tokenizer_free(tokenizer);
	stave_tokens_close(t);
	/* one thread gives the same bytes as many */
	char one[STAVE_PATH + 8];
	snprintf(one, sizeof one, "%s/one", dir);
	int threads = stave_threads();
	stave_threads_set(threads == 1 ? 3 : 1);
	assert_int_equal(prepare(CORPUS, "--out", one), 0);
	stave_threads_set(threads);
	assert_same_shards(out, one);
	/* a damaged and a missing shard are noticed and made again, and nothing else is */
	int shards = result.shards;
	struct stave_buf shard = {0};
	assert_int_equal(stave_file_read(&shard, in("one/train-00002.safetensors"), 1 << 24, &err), 0);
	shard.p[shard.len - 5] ^= 1;
	put("one/train-00002.safetensors", shard.p, shard.len);
	stave_buf_free(&shard);
	assert_int_equal(prepare(CORPUS, "--out", one), 0);
	assert_false(result.reused);
	assert_true(result.shards_kept >= 2 && result.shards_kept < shards);
	assert_same_shards(out, one);
	stave_buf_free(&text);
}

static pid_t start(char **args, rlim_t file_limit, int input)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	char *argv[32] = {(char *)"test_prepare", (char *)"child"};
	for (int i = 0; args[i] && i < 29; i++)
		argv[i + 2] = args[i];
	if (file_limit) {
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &(struct rlimit){file_limit, file_limit});
	}
	if (input >= 0)
		dup2(input, 0);
	execv("/proc/self/exe", argv);
	_exit(99);
}

static int finish(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_kill(void **state)
{
	put_corpus();
	prepared(CORPUS);
	char killed[STAVE_PATH + 8];
	snprintf(killed, sizeof killed, "%s/killed", dir);
	char *args[] = {CORPUS, (char *)"--out", killed, NULL};
	double whole = result.seconds;
	int interrupted = 0, kept = 0;
	for (uint64_t i = 0; i < 12; i++) {
		if (i % 4 == 0) {
			assert_int_equal(stave_remove_tree(killed, &err), 0);
		}
		pid_t pid = start(args, 0, -1);
		double wait = whole * (.1 + .9 * stave_random_unit(77, i));
		nanosleep(&(struct timespec){(time_t)wait, (long)(1e9 * (wait - (double)(time_t)wait))}, NULL);
		kill(pid, SIGKILL);
		interrupted += finish(pid) == -SIGKILL;
		if (i % 4 < 3) /* killed again and again before it may finish */
			continue;
		struct stave_tokens *t;
		if (stave_exists(in("killed/train-00000.safetensors")) && stave_tokens_open(&t, killed, "train", &err) == 0)
			stave_tokens_close(t); /* it had finished */
		assert_int_equal(run((char *[]){(char *)"prepare", CORPUS, (char *)"--out", killed, NULL}), 0);
		kept += result.shards_kept;
		assert_same_shards(out, killed);
		assert_int_equal(count_files(out), count_files(killed)); /* no half shard, no left-over */
	}
	assert_true(interrupted >= 3);
	print_message("killed %d runs, %d shards survived\n", interrupted, kept);
}

static void test_disk_full(void **state)
{
	put_corpus();
	char *args[] = {CORPUS, (char *)"--out", out, NULL};
	/* files may grow to 400 KB: the survey and the tokenizer fit, the first shard does not */
	assert_int_equal(finish(start(args, 400000, -1)), 1);
	assert_false(stave_exists(in("out/train-00000.safetensors")));
	assert_false(stave_exists(in("out/train-00000.safetensors.tmp")));
	struct stave_tokens *t;
	assert_int_not_equal(stave_tokens_open(&t, out, "train", &err), 0);
	prepared(CORPUS);
	assert_int_equal(stave_tokens_open(&t, out, "train", &err), 0);
	stave_tokens_close(t);
	/* and a file system that really is full */
	mkdir(in("small"), 0755);
	if (mount("none", in("small"), "tmpfs", 0, "size=1m")) {
		print_message("part skipped: mounting a small tmpfs needs root\n");
		return;
	}
	char full[STAVE_PATH + 16];
	snprintf(full, sizeof full, "%s/small/out", dir);
	int rc = prepare(CORPUS, "--out", full);
	int first = stave_exists(in("small/out/train-00001.safetensors")), tmp = stave_exists(in("small/out/train-00001.safetensors.tmp"));
	umount(in("small"));
	assert_int_equal(rc, STAVE_ENOSPACE);
	assert_int_equal(stave_err_exit(rc), 1);
	assert_non_null(strstr(err.msg, "No space left"));
	assert_false(first || tmp);
}

static void test_changes(void **state)
{
	put_text("a.txt", "some text");
	put_text("b.txt", "other text");
	prepared(in("a.txt"), in("b.txt"), "--tokenizer", "byte");
	assert_false(result.reused);
	prepared(in("a.txt"), in("b.txt"), "--tokenizer", "byte");
	assert_true(result.reused);
	assert_int_equal(result.documents_kept, 2);
	/* a newer time alone is no change */
	struct timespec later[2] = {{2000000000, 0}, {2000000000, 0}};
	utimensat(AT_FDCWD, in("a.txt"), later, 0);
	prepared(in("a.txt"), in("b.txt"), "--tokenizer", "byte");
	assert_true(result.reused);
	/* the same size with other bytes is one */
	put_text("a.txt", "same text");
	prepared(in("a.txt"), in("b.txt"), "--tokenizer", "byte", "--val_fraction", "0");
	prepared(in("a.txt"), in("b.txt"), "--tokenizer", "byte");
	assert_false(result.reused);
	put_text("a.txt", "some test");
	prepared(in("a.txt"), in("b.txt"), "--tokenizer", "byte");
	assert_false(result.reused);
	prepared(in("b.txt"), in("a.txt"), "--tokenizer", "byte");
	assert_false(result.reused); /* order decides which duplicate stays */
	prepared(in("b.txt"), in("a.txt"), "--tokenizer", "byte", "--seed", "2");
	assert_false(result.reused);
	prepared(in("b.txt"), in("a.txt"), "--tokenizer", "char", "--seed", "2");
	assert_false(result.reused);
	assert_int_equal(result.vocab, 9 + 1); /* " ehmorstx" and the separator */
}

static void test_stdin(void **state)
{
	put_text("s", "{\"text\": \"from\"}\n{\"text\": \"a pipe\"}\n");
	char *args[] = {(char *)"-", (char *)"--tokenizer", (char *)"byte", (char *)"--val_fraction", (char *)"0", (char *)"--out", out, NULL};
	for (int i = 0; i < 2; i++) {
		int fd = open(in("s"), O_RDONLY);
		assert_int_equal(finish(start(args, 0, fd)), 0);
		close(fd);
		assert_split("train", "from|a pipe|");
		assert_false(stave_exists(in("out/stdin.part")));
	}
}

/* The filters reach the shards: C4's lines are gone from the text and from its byte count. */
static void test_filters(void **state)
{
	const char *kept = "This is a first sentence. Here comes another one.\nA third follows it at once! Is there a fourth?\nThe fifth ends it.";
	struct stave_buf b = {0};
	json_t *j = json_array();
	char page[1000];
	snprintf(page, sizeof page, "Home\n%s\nWe use cookies here today.", kept);
	json_array_append_new(j, json_pack("{s:s}", "text", page));
	json_array_append_new(j, json_pack("{s:s}", "text", "Too short to say."));
	for (size_t i = 0; i < 2; i++) {
		char *s = json_dumps(json_array_get(j, i), JSON_COMPACT);
		stave_buf_printf(&b, "%s\n", s);
		free(s);
	}
	json_decref(j);
	put("f.jsonl", b.p, b.len);
	stave_buf_free(&b);
	char want[1000];
	snprintf(want, sizeof want, "%s|", kept);
	prepared(in("f.jsonl"), "--tokenizer", "byte", "--filter.c4", "--val_fraction", "0");
	assert_split("train", want);
	assert_int_equal(result.bytes_train, strlen(kept));
	assert_int_equal(report_count("c4.too_few_sentences"), 1);
	/* all of FineWeb's rules, of which one is taken back by hand */
	assert_int_equal(prepare(in("f.jsonl"), "--tokenizer", "byte", "--filters", "web", "--out", out), STAVE_EFAIL);
	assert_non_null(strstr(err.msg, "gopher_quality.short_doc"));
	prepared(in("f.jsonl"), "--tokenizer", "byte", "--filters", "web", "--no-filter.gopher_quality", "--no-filter.gopher_repetition", "--val_fraction", "0");
	assert_int_equal(result.documents_kept, 1);
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "child"))
		return stave_err_exit(run(argv + 1));
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_shakespeare), T(test_inputs), T(test_many_batches), T(test_split_on), T(test_duplicates), T(test_split), T(test_messages),
		T(test_bad_lines), T(test_utf8), T(test_refused), T(test_pieces), T(test_kill), T(test_disk_full), T(test_changes),
		T(test_stdin), T(test_filters),
	};
	setenv("STAVE_LOG", "error", 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
