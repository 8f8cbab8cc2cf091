/* BPE training: the textbook example, a naive trainer written from the algorithm's definition, and any thread count. */
#include "fixtures.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/sys.h"

static struct stave_tokenizer *train(const char *pattern, const char *text, size_t n, size_t piece, int vocab)
{
	struct stave_bpe_trainer *b = NULL;
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	assert_int_equal(stave_bpe_trainer_open(&b, pattern, &err), 0);
	for (size_t i = 0; i < n; i += piece)
		assert_int_equal(stave_bpe_trainer_add(b, text + i, n - i < piece ? n - i : piece, &err), 0);
	if (stave_bpe_trainer_finish(b, vocab, &t, &err))
		fail_msg("%s", err.msg);
	return t;
}

/* Wikipedia's example of byte pair encoding, as minbpe's tests have it. */
static void textbook(void **state)
{
	struct stave_tokenizer *t = train(NULL, "aaabdaaabac", 11, 11, 260);
	IDS(t, "aaabdaaabac", 258, 100, 258, 97, 99);
	assert_int_equal(stave_tokenizer_vocab(t), 260);
	assert_int_equal(stave_tokenizer_eos(t), 259);
	stave_tokenizer_free(t);
}

/* ---- a naive trainer ---- */

enum { MAX_WORDS = 4000, MAX_TOKENS = 700 };
struct naive {
	struct {
		int n, s[128];
		long count;
		char text[128];
		int len;
	} word[MAX_WORDS];
	int n_words;
	char spelling[MAX_TOKENS][300];
	int length[MAX_TOKENS], tokens;
	long pair[MAX_TOKENS][MAX_TOKENS];
};

static void naive_add(struct naive *v, const char *p, int n)
{
	int k = 0;
	while (k < v->n_words && !(v->word[k].len == n && !memcmp(v->word[k].text, p, (size_t)n)))
		k++;
	if (k == v->n_words) {
		assert_true(n <= 128 && k < MAX_WORDS);
		v->n_words++;
		v->word[k].n = v->word[k].len = n;
		v->word[k].count = 0;
		memcpy(v->word[k].text, p, (size_t)n);
		for (int i = 0; i < n; i++)
			v->word[k].s[i] = (unsigned char)p[i];
	}
	v->word[k].count++;
}

static void naive_words(struct naive *v, const char *pattern, const char *text, size_t n)
{
	int code;
	PCRE2_SIZE at;
	pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	for (size_t i = 0; i < n;) {
		assert_int_equal(pcre2_match(re, (PCRE2_SPTR)text, n, i, 0, data, NULL), 1);
		PCRE2_SIZE *o = pcre2_get_ovector_pointer(data);
		naive_add(v, text + o[0], (int)(o[1] - o[0]));
		i = o[1];
	}
	pcre2_match_data_free(data);
	pcre2_code_free(re);
}

/* Count every pair anew, take the best, replace it; returns the merge as "left right" in the byte alphabet, or NULL. */
static const char *naive_step(struct naive *v)
{
	static char line[1200];
	int l = -1, r = -1, c = 0, n;
	memset(v->pair, 0, sizeof v->pair);
	for (int w = 0; w < v->n_words; w++)
		for (int i = 0; i + 1 < v->word[w].n; i++)
			v->pair[v->word[w].s[i]][v->word[w].s[i + 1]] += v->word[w].count;
	for (int a = 0; a < v->tokens; a++)
		for (int b = 0; b < v->tokens; b++)
			if (v->pair[a][b] > 1 && (l < 0 || v->pair[a][b] > v->pair[l][r])) {
				l = a;
				r = b;
			}
	if (l < 0)
		return NULL;
	n = v->length[l] + v->length[r];
	memcpy(v->spelling[v->tokens], v->spelling[l], (size_t)v->length[l]);
	memcpy(v->spelling[v->tokens] + v->length[l], v->spelling[r], (size_t)v->length[r]);
	while (c < v->tokens && !(v->length[c] == n && !memcmp(v->spelling[c], v->spelling[v->tokens], (size_t)n)))
		c++;
	if (c == v->tokens)
		v->length[v->tokens++] = n;
	for (int w = 0; w < v->n_words; w++) {
		int k = 0;
		for (int i = 0; i < v->word[w].n; k++) {
			bool hit = i + 1 < v->word[w].n && v->word[w].s[i] == l && v->word[w].s[i + 1] == r;
			v->word[w].s[k] = hit ? c : v->word[w].s[i];
			i += hit ? 2 : 1;
		}
		v->word[w].n = k;
	}
	snprintf(line, sizeof line, "%s %s", mapped(v->spelling[l], (size_t)v->length[l]), mapped(v->spelling[r], (size_t)v->length[r]));
	return line;
}

/* Words of few letters, so that pairs overlap ("aaaa"), tie, vanish, and spell one token in two ways. */
static size_t make_text(char *text, size_t size, int letters)
{
	size_t n = 0;
	while (n + 40 < size) {
		for (int i = rand() % 11 + 1; i > 0; i--)
			text[n++] = (char)('a' + rand() % letters);
		text[n++] = rand() % 9 ? ' ' : '\n';
		if (rand() % 20 == 0)
			n += (size_t)sprintf(text + n, "%d!\xc3\xa9", rand() % 30);
	}
	return n;
}

static void as_naive(void **state)
{
	struct naive *v = malloc(sizeof *v);
	srand(5);
	for (int round = 0; round < 8; round++) {
		char text[9000], dir[64], path[128];
		size_t n = make_text(text, round < 4 ? 1500 : sizeof text, 2 + round % 4);
		int vocab = round % 2 ? 400 : 330;
		struct stave_tokenizer *t = train(round % 3 ? "gpt2" : "llama3", text, n, n, vocab);
		new_dir(dir);
		assert_int_equal(stave_tokenizer_save(t, dir, NULL), 0);
		snprintf(path, sizeof path, "%s/tokenizer.json", dir);
		json_t *doc = json_load_file(path, 0, NULL), *merges = json_object_get(json_object_get(doc, "model"), "merges");
		memset(v, 0, sizeof *v);
		for (v->tokens = 0; v->tokens < 256; v->tokens++) {
			v->spelling[v->tokens][0] = (char)v->tokens;
			v->length[v->tokens] = 1;
		}
		naive_words(v, round % 3 ? gpt2_pattern : llama3_pattern, text, n);
		size_t k = 0;
		while (v->tokens < vocab - 1) {
			const char *want = naive_step(v);
			if (!want)
				break;
			const char *got = json_string_value(json_array_get(merges, k++));
			assert_non_null(got);
			assert_string_equal(got, want);
		}
		assert_int_equal(json_array_size(merges), k);
		assert_int_equal(stave_tokenizer_vocab(t), v->tokens + 1);
		check_round_trip(t, text, n);
		json_decref(doc);
		stave_remove_tree(dir, NULL);
		stave_tokenizer_free(t);
	}
	free(v);
}

/* The tokenizer is the same for 1, 2 and 5 threads, and does not change when the text comes in pieces cut between lines. */
static void any_threads(void **state)
{
	enum { SIZE = 7 << 19 };
	char *text = malloc(SIZE), sha[65] = "";
	int threads = stave_threads();
	srand(6);
	size_t n = make_text(text, SIZE, 20);
	/* stray bytes, no-break spaces and long runs where chunks may be divided */
	for (size_t i = 1000; i + 8 < n; i += 997)
		memcpy(text + i, i % 3 ? "\xff\xc2\xa0 \n" : "\xe4\xb8\xad \n", 5);
	memset(text + (1 << 20) - 3000, ' ', 6000);
	memset(text + (2 << 20) - 3000, 'q', 6000);
	const char *const patterns[] = {"gpt2", "llama3", "qwen2"};
	for (int p = 0; p < 3; p++) {
		sha[0] = 0;
		for (int k = 0; k < 3; k++) {
			stave_threads_set((int[]){1, 2, 5}[k]);
			struct stave_tokenizer *t = train(patterns[p], text, n, n, 600);
			if (sha[0])
				assert_string_equal(stave_tokenizer_sha256(t), sha);
			strcpy(sha, stave_tokenizer_sha256(t));
			stave_tokenizer_free(t);
		}
	}
	stave_threads_set(threads);
	free(text);
}

static void limits(void **state)
{
	struct stave_bpe_trainer *b = NULL;
	struct stave_tokenizer *t = NULL;
	struct stave_err err = {0};
	assert_int_equal(stave_bpe_trainer_open(&b, "gpt5", &err), STAVE_ECONFIG);
	assert_int_equal(stave_bpe_trainer_open(&b, "gpt2", &err), 0);
	assert_int_equal(stave_bpe_trainer_finish(b, 256, &t, &err), STAVE_ECONFIG);
	t = train("gpt2", "", 0, 1, 1000); /* nothing to merge */
	assert_int_equal(stave_tokenizer_vocab(t), 257);
	check_round_trip(t, "any text", 8);
	stave_tokenizer_free(t);
	/* no pair occurs twice: fewer tokens than asked for */
	t = train("gpt2", "abc ab", 6, 6, 1000);
	assert_int_equal(stave_tokenizer_vocab(t), 258);
	IDS(t, "ab", 256);
	stave_tokenizer_free(t);
	/* one word of a megabyte is cut into many, and does not make each merge walk through it */
	char *text = malloc(1 << 20);
	for (int i = 0; i < 1 << 20; i++)
		text[i] = (char)('a' + (i * 7 + i / 13) % 26);
	t = train("gpt2", text, 1 << 20, 1 << 20, 500);
	assert_int_equal(stave_tokenizer_vocab(t), 500);
	check_round_trip(t, text, 1 << 20);
	stave_tokenizer_free(t);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(textbook), cmocka_unit_test(as_naive), cmocka_unit_test(any_threads), cmocka_unit_test(limits)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
