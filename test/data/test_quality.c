/* Quality rules against texts whose fate follows from the rules' own words (and from datatrove's unit tests), and MinHash
 * against its theory: P(duplicate) = 1 - (1 - s^8)^14. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "data/quality.h"

static struct stave_quality q;

static char *repeat(const char *s, int n)
{
	char *out = calloc(1, strlen(s) * (size_t)n + 1);
	for (int i = 0; i < n; i++)
		strcat(out, s);
	return out;
}

#define PROSE                                                                                                               \
	"It was a bright morning in the old harbour, and the fishermen had already gone out with their nets.\n"             \
	"The keeper of the lighthouse watched them leave, one sail after another, until only the gulls remained.\n"        \
	"He thought of the winter that was to come, of storms that would have to be weathered alone.\n"                    \
	"Nobody in the village knew how long he had lived there; some said that his father had built the tower.\n"         \
	"Every evening he climbed the narrow stairs, lit the lamp, and wrote a few lines in a thick brown book.\n"         \
	"What he wrote was a secret, but the children liked to guess: treasure maps, perhaps, or letters to the sea.\n"

static enum stave_verdict repetition(const char *text)
{
	stave_quality_words(&q, text, strlen(text));
	return stave_gopher_repetition(&q, text, strlen(text));
}

static enum stave_verdict quality(const char *text)
{
	stave_quality_words(&q, text, strlen(text));
	return stave_gopher_quality(&q, text, strlen(text));
}

static enum stave_verdict fineweb(const char *text)
{
	stave_quality_words(&q, text, strlen(text));
	return stave_fineweb(&q, text, strlen(text));
}

#define expect(call, verdict) assert_string_equal(stave_verdict_key(call), stave_verdict_key(STAVE_V_##verdict))

static void test_repetition(void **state)
{
	expect(repetition(PROSE), TRAIN);
	expect(repetition("I am your father.\nI am your father.\nI am your father.\nI am your father.\n"), REP_DUP_LINE);
	expect(repetition("I am your father.\n\nI am your father.\n\nI am your father.\n\nI am your father.\n\n"), REP_DUP_PARA);
	/* two of eight paragraphs repeat, but they are most of the text */
	char *x = repeat("x", 300), text[2000];
	snprintf(text, sizeof text, "one\n\ntwo\n\nthree\n\nfour\n\nfive\n\nsix\n\n%s\n\n%s", x, x);
	expect(repetition(text), REP_DUP_PARA_CHAR);
	snprintf(text, sizeof text, "one\ntwo\nthree\nfour\nfive\nsix\n%s\n%s", x, x);
	expect(repetition(text), REP_DUP_LINE_CHAR);
	free(x);
	/* one line, so only n-grams can tell */
	char *frank = repeat("I am Frank ", 40);
	expect(repetition(frank), REP_TOP_2);
	free(frank);
	/* ten different words, repeated once in full: a 10-gram, but each 2-gram is a small part of the text */
	char long_text[6000] = "";
	for (int i = 0; i < 60; i++)
		sprintf(long_text + strlen(long_text), "word%c%c ", 'a' + i / 8, 'a' + i % 8);
	for (int i = 0; i < 30; i++)
		sprintf(long_text + strlen(long_text), "word%c%c ", 'a' + i / 8, 'a' + i % 8);
	expect(repetition(long_text), REP_DUP_5);
}

static void test_gopher_quality(void **state)
{
	char *t;
	expect(quality(PROSE), TRAIN);
	expect(quality("I am too small..."), GQ_SHORT);
	expect(quality(t = repeat("I am ", 30)), GQ_SHORT_WORDS);
	free(t);
	expect(quality(t = repeat("interconnection ", 60)), GQ_LONG_WORDS);
	free(t);
	expect(quality(t = repeat("# comment ", 60)), GQ_HASHES);
	free(t);
	expect(quality(t = repeat("... comment ", 60)), GQ_ELLIPSES);
	free(t);
	expect(quality(t = repeat("the ./!*?<><> apple <?////> orange  ++ interconnection !<>??? have", 20)), GQ_ALPHA);
	free(t);
	expect(quality(t = repeat("- the cheese and bread\n", 20)), GQ_BULLETS);
	free(t);
	expect(quality(t = repeat("the cheese and bread were taken from the table by somebody else...\n", 10)), GQ_END_ELLIPSIS);
	free(t);
	expect(quality(t = repeat("kaas brood melk appel peren ", 12)), GQ_STOP_WORDS);
	free(t);
	expect(quality(t = repeat("the cheese ", 50001)), GQ_LONG);
	free(t);
	/* 50 words are enough, 49 are not */
	char *fifty = repeat("the cheese and bread have ", 10);
	expect(quality(fifty), TRAIN);
	fifty[strlen(fifty) - 5] = 0;
	expect(quality(fifty), GQ_SHORT);
	free(fifty);
}

static void test_words(void **state)
{
	const char *text = "Don't stop: caf\xc3\xa9 42 \xe4\xbd\xa0\xe5\xa5\xbd...";
	stave_quality_words(&q, text, strlen(text));
	const char *want[] = {"Don't", "stop", ":", "caf\xc3\xa9", "42", "\xe4\xbd\xa0\xe5\xa5\xbd", "..."};
	assert_int_equal(q.n_words, 7);
	for (int i = 0; i < 7; i++) {
		assert_int_equal(q.words[i].bytes, strlen(want[i]));
		assert_memory_equal(q.words[i].p, want[i], strlen(want[i]));
	}
	assert_int_equal(q.words[3].chars, 4);
	assert_true(q.words[2].symbol && !q.words[4].symbol && !q.words[4].letter && q.words[5].letter);
}

static void test_c4(void **state)
{
	const char *out;
	size_t n;
	int64_t removed;
	const char *text = "Home | About\n" PROSE "This site uses cookies to track you.\nPlease enable Javascript to go on.\nIt is true.[1][edit] So they say.[citation needed]\nno stop at the end here\nAnd so on and on...\n";
	expect(stave_c4(&q, text, strlen(text), true, &out, &n, &removed), TRAIN);
	const char *want = PROSE "It is true. So they say.";
	assert_int_equal(n, strlen(want));
	assert_memory_equal(out, want, n);
	assert_int_equal(removed, 5);
	/* FineWeb's variant keeps lines without a full stop */
	expect(stave_c4(&q, text, strlen(text), false, &out, &n, &removed), TRAIN);
	assert_int_equal(removed, 2); /* cookies and Javascript; "Home | About" has three words */
	expect(stave_c4(&q, PROSE "Lorem Ipsum dolor sit amet.", strlen(PROSE) + 27, true, &out, &n, &removed), C4_LOREM);
	expect(stave_c4(&q, PROSE "int main(void) { return 0; }.", strlen(PROSE) + 29, true, &out, &n, &removed), C4_CURLY);
	expect(stave_c4(&q, "One two three. Four five six.\nSeven eight nine!", 47, true, &out, &n, &removed), C4_SENTENCES);
	expect(stave_c4(&q, "One two three. Four five six. A b c?\nSeven eight nine! Ten e f.", 63, true, &out, &n, &removed), TRAIN);
}

static void test_fineweb(void **state)
{
	char *t;
	expect(fineweb(PROSE), TRAIN);
	expect(fineweb("\n \n"), FW_EMPTY);
	expect(fineweb(t = repeat("a line of the list that goes on for a while without an end\n", 10)), FW_LINE_PUNCT);
	free(t);
	expect(fineweb("A short one.\nAnother one.\nA third one that is longer than thirty characters.\nFour.\n"), FW_SHORT_LINES);
	expect(fineweb(PROSE "The keeper of the lighthouse watched them leave, one sail after another, until only the gulls remained.\n"), FW_CHAR_DUP);
	expect(fineweb("Extraordinaryconstitutionalisminterpretation.\nUncharacteristicallymisrepresented.\n"), FW_NEWLINES);
}

/* ---- MinHash ---- */

/* Texts with a known Jaccard similarity of their 5-grams: `common` leading grams shared, the others private. */
static void make_pair(struct stave_buf *a, struct stave_buf *b, int common, int private, uint64_t seed)
{
	a->len = b->len = 0;
	for (int i = 0; i < common + 4; i++) {
		stave_buf_printf(a, "w%llx ", (unsigned long long)stave_random64(seed, (uint64_t)i));
		stave_buf_printf(b, "w%llx ", (unsigned long long)stave_random64(seed, (uint64_t)i));
	}
	for (int i = 0; i < private; i++) {
		stave_buf_printf(a, "a%llx ", (unsigned long long)stave_random64(seed + 1, (uint64_t)i));
		stave_buf_printf(b, "b%llx ", (unsigned long long)stave_random64(seed + 2, (uint64_t)i));
	}
	/* hex letters and digits: digits would be merged by normalisation, so write them as letters */
	for (size_t i = 0; i < a->len; i++)
		a->p[i] = a->p[i] >= '0' && a->p[i] <= '9' ? (char)(a->p[i] - '0' + 'k') : a->p[i];
	for (size_t i = 0; i < b->len; i++)
		b->p[i] = b->p[i] >= '0' && b->p[i] <= '9' ? (char)(b->p[i] - '0' + 'k') : b->p[i];
}

static void test_minhash_table(void **state)
{
	static const struct {
		double s, p;
	} table[] = {{.5, .0533}, {.6, .2111}, {.7, .5645}, {.75, .7716}, {.8, .9235}, {.85, .9884}, {.9, .9996}};
	struct stave_buf a = {0}, b = {0}, word = {0};
	enum { PAIRS = 600, GRAMS = 240 };
	for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
		/* union = common + 2 private; s = common / union */
		int common = (int)lround(table[k].s * GRAMS), private = (GRAMS - common) / 2, found = 0;
		double s = (double)common / (common + 2 * private), p = 1 - pow(1 - pow(s, 8), 14), agree = 0;
		assert_true(fabs(p - table[k].p) < .02);
		for (int i = 0; i < PAIRS; i++) {
			uint32_t ma[STAVE_MINHASH], mb[STAVE_MINHASH];
			uint64_t ka[STAVE_MINHASH_BUCKETS], kb[STAVE_MINHASH_BUCKETS];
			bool near = false;
			int same = 0;
			make_pair(&a, &b, common, private, 1000 * k + 7 * (uint64_t)i);
			assert_true(stave_minhash(a.p, a.len, &word, ma) && stave_minhash(b.p, b.len, &word, mb));
			stave_minhash_keys(ma, ka);
			stave_minhash_keys(mb, kb);
			for (int j = 0; j < STAVE_MINHASH_BUCKETS; j++)
				near |= ka[j] == kb[j];
			for (int j = 0; j < STAVE_MINHASH; j++)
				same += ma[j] == mb[j];
			/* datatrove's own bound for 112 hashes */
			assert_true(fabs((double)same / STAVE_MINHASH - s) < .21);
			agree += (double)same / STAVE_MINHASH;
			found += near;
		}
		double sigma = sqrt(p * (1 - p) / PAIRS) + 1e-4, sigma_s = sqrt(s * (1 - s) / STAVE_MINHASH / PAIRS);
		if (fabs((double)found / PAIRS - p) > 4 * sigma || fabs(agree / PAIRS - s) > 5 * sigma_s)
			fail_msg("s %.2f: duplicates %.4f, theory %.4f; agreement %.4f", s, (double)found / PAIRS, p, agree / PAIRS);
	}
	stave_buf_free(&a);
	stave_buf_free(&b);
	stave_buf_free(&word);
}

static void test_normalisation(void **state)
{
	static const char *const same[] = {
		"The CAF\xc3\x89, no. 12, closed at 9: nobody knew \xe2\x80\x94 nor cared.",
		"the cafe no 7 closed at 31 Nobody knew nor CARED",
		"the\n\tcafe\xcc\x81 no 1 closed (at 44) nobody; knew nor cared...",
	};
	uint32_t first[STAVE_MINHASH], m[STAVE_MINHASH];
	struct stave_buf word = {0};
	stave_minhash(same[0], strlen(same[0]), &word, first);
	for (int i = 1; i < 3; i++) {
		stave_minhash(same[i], strlen(same[i]), &word, m);
		assert_memory_equal(first, m, sizeof m);
	}
	stave_minhash("the cafe no 7 closed at 31 nobody knew and cared", 48, &word, m);
	assert_memory_not_equal(first, m, sizeof m);
	assert_false(stave_minhash("... !!! ---", 11, &word, m));
	stave_buf_free(&word);
}

static void test_clusters(void **state)
{
	enum { N = 600 };
	static uint64_t keys[N * STAVE_MINHASH_BUCKETS];
	static uint32_t keeper[N];
	for (size_t i = 0; i < N * STAVE_MINHASH_BUCKETS; i++)
		keys[i] = stave_random64(5, i);
	/* datatrove's clusters, joined in chains through different buckets */
	const size_t links[][3] = {{0, 20, 3}, {20, 50, 9}, {400, 420, 0}, {421, 599, 13}, {599, 500, 12}};
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		keys[links[i][1] * STAVE_MINHASH_BUCKETS + links[i][2]] = keys[links[i][0] * STAVE_MINHASH_BUCKETS + links[i][2]];
	struct stave_err err;
	assert_int_equal(stave_near_clusters(keys, N, keeper, &err), 0);
	for (uint32_t i = 0; i < N; i++) {
		uint32_t want = i == 20 || i == 50 ? 0 : i == 420 ? 400 : i == 599 || i == 500 ? 421 : i;
		assert_int_equal(keeper[i], want);
	}
}

static int close_all(void **state)
{
	stave_quality_free(&q);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),          cmocka_unit_test(test_repetition),    cmocka_unit_test(test_gopher_quality),
		cmocka_unit_test(test_c4),             cmocka_unit_test(test_fineweb),       cmocka_unit_test(test_minhash_table),
		cmocka_unit_test(test_normalisation),  cmocka_unit_test(test_clusters),
	};
	return cmocka_run_group_tests(tests, NULL, close_all);
}
