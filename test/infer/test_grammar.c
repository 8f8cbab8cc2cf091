/* Grammars and expressions against PCRE2 and by hand; masks against acceptance, token by token; rewinding; threads; what a hostile
 * source tries. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "infer/grammar_kit.h"

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- against PCRE2 ---- */

static pcre2_code *whole(const char *pattern)
{
	char text[2000];
	int rc;
	size_t at;
	snprintf(text, sizeof text, "^(?:%s)\\z", pattern);
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_ALT_BSUX | PCRE2_NEVER_BACKSLASH_C, &rc, &at, NULL);
	if (!code && rc != PCRE2_ERROR_INTERNAL && rc != 120) /* 120: its code would be too large */
		fail_msg("PCRE2 refuses %s at %zu: error %d", text, at, rc);
	return code;
}

static bool matches(pcre2_code *code, const char *text, size_t n)
{
	pcre2_match_data *d = pcre2_match_data_create(1, NULL);
	int rc = pcre2_match(code, (PCRE2_SPTR)text, n, 0, 0, d, NULL);
	pcre2_match_data_free(d);
	assert_true(rc >= 0 || rc == PCRE2_ERROR_NOMATCH);
	return rc >= 0;
}

/* All texts of up to `most` of the letters: the grammar says what PCRE2 says, and what begins a match is taken as far. */
static void compare(struct stave_grammar *g, const char *pattern, const char *const *letters, int n_letters, int most)
{
	pcre2_code *code = whole(pattern);
	int digit[16] = {0}, n = 0;
	while (code) {
		char text[80] = "";
		size_t viable;
		for (int i = 0; i < n; i++)
			strcat(text, letters[digit[i]]);
		bool want = matches(code, text, strlen(text)), got = accepts(g, 256, text, strlen(text), &viable);
		if (want != got || (want && viable != strlen(text)))
			fail_msg("%s: '%s' is %s", pattern, text, want ? "matched by PCRE2 but refused" : "taken but not matched by PCRE2");
		int i = n - 1;
		while (i >= 0 && digit[i] == n_letters - 1)
			digit[i--] = 0;
		if (i >= 0)
			digit[i]++;
		else if (n++ == most)
			break;
	}
	pcre2_code_free(code);
}

static void random_expression(uint64_t *seed, char *out, int depth)
{
	static const char *const atoms[] = {"a", "b", "c", "é", ".", "[ab]", "[^a]", "[a-c]", "\\w", "\\W", "\\u00e9", "[^\\wé]", "[é-ü]", "\\d", "(?:)", "bc"};
	static const char *const counts[] = {"*", "+", "?", "{2}", "{0,2}", "{1,}", "{3,20}", "*?", "{18,}", "{0}"};
	char part[1000];
	int parts = 1 + (int)(draw(seed) % 3);
	for (int i = 0; i < parts && strlen(out) < 100; i++) {
		if (depth < 3 && draw(seed) % 3 == 0) {
			part[0] = 0;
			random_expression(seed, part, depth + 1);
			strcat(strcat(strcat(out, draw(seed) % 2 ? "(" : "(?:"), part), ")");
		} else {
			strcat(out, atoms[draw(seed) % (sizeof atoms / sizeof *atoms)]);
		}
		if (draw(seed) % 3 == 0 && out[strlen(out) - 1] != '*')
			strcat(out, counts[draw(seed) % (sizeof counts / sizeof *counts)]);
		if (i + 1 < parts && draw(seed) % 4 == 0)
			strcat(out, "|");
	}
}

static void expressions_match_as_pcre2(void **state)
{
	static const char *const letters[] = {"a", "b", "c", "é", "ü"};
	static const char *const fixed[] = {"", "a|", "|a", "a||b", "(|a)b*", "a{0}b", "(a*)*b", "(a|ab)(c|bcd)", "((a|b)*c){2,3}", "(a?){3}", "(a?b?){17,}", "(ab?){0,40}c", "(a{2,3}){2}", "[a\\-c]+", "[]a]?", "[^]", "x{,2}",
	                                    "\\x61\\t?", "[\\x61-c]", "(?<name>a)b", "a{1,2}?b", "\\.|a"};
	struct stave_vocab *v = bytes_and(NULL, 0);
	uint64_t seed = 7;
	(void)state;
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed + 300; i++) {
		char text[2000] = "";
		struct stave_err err;
		if (i < sizeof fixed / sizeof *fixed)
			strcpy(text, fixed[i]);
		else
			random_expression(&seed, text, 0);
		struct stave_grammar *g = grammar(STAVE_GRAMMAR_REGEX, text, v, &err);
		if (!g) {
			if (!strstr(err.msg, "nothing matches"))
				fail_msg("%s: %s", text, err.msg);
			continue;
		}
		if (!strcmp(text, "[]a]?") || !strcmp(text, "[^]") || !strcmp(text, "x{,2}")) { /* JavaScript's and PCRE2's meanings differ */
			stave_grammar_close(g);
			continue;
		}
		compare(g, text, letters, 5, 4);
		stave_grammar_close(g);
	}
	stave_vocab_close(v);
}

static void grammars_match_as_pcre2(void **state)
{
	static const char *const pairs[][2] = {
		{"root ::= \"a\" | b \"c\"*\nb ::= \"b\" b?", "a|b+c*"},
		{"root ::= ( \"a\" |\n  \"b\" )+ # comment\n", "[ab]+"},
		{"root ::= [^a-b]{2,3} \"\\x61\"", "[^a-b]{2,3}a"},
		{"x ::= \"a\" y\ny ::= \"b\" x | \"c\"\nroot ::= x | \"\"", "(?:ab)*ac|"},
		{"root ::= a a?\na ::= \"a\" | \"ab\" | \"abc\"", "(a|ab|abc)(a|ab|abc)?"},
		{"root ::= nothing* \"a\" nothing\nnothing ::= \"\"", "a"},
		{"root ::= \"\\u00e9\" . [é-ü]?", "é.[é-ü]?"},
		{"root ::= item{18,20}\nitem ::= [abc]?", "[abc]{0,20}"},
		{"root ::= \"a\"{0} \"b\"{0,1}", "b?"},
		{"root ::=\n  \"a\" |\n\n  \"b\"\n\n", "a|b"},
	};
	static const char *const letters[] = {"a", "b", "c", "é"};
	struct stave_vocab *v = bytes_and(NULL, 0);
	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		struct stave_err err;
		struct stave_grammar *g = grammar(STAVE_GRAMMAR_GBNF, pairs[i][0], v, &err);
		if (!g)
			fail_msg("%s: %s", pairs[i][0], err.msg);
		compare(g, pairs[i][1], letters, 4, 6);
		stave_grammar_close(g);
	}
	stave_vocab_close(v);
}

/* ---- what is not regular, by a recogniser of its own ---- */

static bool balanced(const char *t, size_t n)
{
	char stack[64];
	int depth = 0;
	for (size_t i = 0; i < n; i++) {
		if (t[i] == '(' || t[i] == '[')
			stack[depth++] = t[i];
		else if (!depth || stack[--depth] != (t[i] == ')' ? '(' : '['))
			return false;
	}
	return !depth;
}

static void nesting_balances(void **state)
{
	struct stave_vocab *v = bytes_and(NULL, 0);
	struct stave_grammar *g = grammar(STAVE_GRAMMAR_GBNF, "root ::= pair*\npair ::= \"(\" root \")\" | \"[\" root \"]\"", v, NULL);
	(void)state;
	assert_non_null(g);
	for (int n = 0; n <= 8; n++)
		for (int k = 0; k < 1 << 2 * n; k++) {
			char t[9];
			for (int i = 0; i < n; i++)
				t[i] = "()[]"[k >> 2 * i & 3];
			assert_int_equal(accepts(g, 256, t, (size_t)n, NULL), balanced(t, (size_t)n));
		}
	stave_grammar_close(g);
	stave_vocab_close(v);
}

/* ---- masks ---- */

static const char *const sources[][2] = {
	{"j", "{}"},
	{"j", "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":9}},\"n\":{\"type\":\"number\",\"minimum\":-2,\"maximum\":13.5},"
	      "\"more\":{\"type\":\"object\",\"additionalProperties\":{\"enum\":[\"a\",\"ab\",1,true]}}},\"required\":[\"tags\"],\"additionalProperties\":false}"},
	{"j", "{\"type\":\"array\",\"minItems\":3,\"maxItems\":40,\"items\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"maxItems\":2}}"},
	{"j", "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/n\"}},\"s\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":30}}}}}"},
	{"j", "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\",\"pattern\":\"^[a-z]{20,40}[0-9\\\"]*$\"},\"properties\":{\"ab\":{\"type\":\"null\"}}}"},
	{"g", "root ::= (\"a\" | \"ab\" | \"abc\")* \"!\" pair\npair ::= \"(\" pair* \")\" | \"[\" pair \"]\" pair?"},
	{"g", "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"\""},
	{"g", "root ::= x{30,60} \"]\"\nx ::= \"{\" y{0,3} \"}\" | [a-c]\ny ::= [0-9]{2} \",\"?"},
	{"g", "root ::= e{0,20} \"\\\"\"\ne ::= [a-c]?"},
	{"r", "(a|ab|[b-d]{2,30})*\"(,|: ?)é?.{18,24}"},
};

/* Tokens as a tokenizer for text and JSON has them: pieces of the sources, marks that cross the ends of rules, repeated and special ones. */
enum { TOKENS = 700, LONGEST = 12 };
static struct stave_vocab *any_vocab(uint64_t *seed, struct vocab_token *t, char (*room)[LONGEST])
{
	static const char *const marks[] = {"\"", "\":", "\": ", "\",", "\"}", "\"},", "\"]", "\"]}", "},{", "},{\"", "[[", "]]", "[]", "{}", "{\"", ", ", "\n", "\n  ", "true", "null", "1", "23", "0.", ".5", "-", "a", "b", "ab", "abc", "tags", "name", "é", "\xc3", "\xa9",
	                                    "\\\"", "\\n", "\\u00", "((", "))", "()", "!", "[", "]", ")", "d", "00", ":", "k", "s\":", "aa", "bb", "bc", "cc", "  ", " \"", "99,", "{12", "},a", "😀", "\xf0\x9f"};
	for (int i = 0; i < TOKENS; i++) {
		char *p = room[i];
		size_t n = 0;
		for (int k = 1 + (int)(draw(seed) % 3); k--;) {
			const char *m = marks[draw(seed) % (sizeof marks / sizeof *marks)];
			if (n + strlen(m) <= LONGEST)
				memcpy(p + n, m, strlen(m)), n += strlen(m);
		}
		t[i] = (struct vocab_token){.p = p, .n = (uint32_t)n, .special = draw(seed) % 40 == 0, .stop = draw(seed) % 200 == 0};
	}
	return bytes_and(t, TOKENS);
}

static enum stave_grammar_kind kind_of(const char *s) { return *s == 'j' ? STAVE_GRAMMAR_JSON_SCHEMA : *s == 'g' ? STAVE_GRAMMAR_GBNF : STAVE_GRAMMAR_REGEX; }

/* The mask of m holds exactly the tokens that m accepts. */
static int check_mask(struct stave_matcher *m, const struct stave_vocab *v, uint32_t *bits)
{
	uint32_t again[(TOKENS + 257 + 31) / 32];
	int allowed = 0;
	stave_matcher_mask(m, bits);
	for (int id = 0; id < v->V; id++) {
		bool ok = stave_matcher_accept(m, id);
		if (ok != bit(bits, id))
			fail_msg("token %d '%.*s' is %s", id, v->bytes[id] ? (int)v->n_bytes[id] : 4, v->bytes[id] ? v->bytes[id] : "none", ok ? "accepted but not in the mask" : "in the mask but refused");
		if (ok)
			stave_matcher_rewind(m, 1);
		allowed += ok;
	}
	stave_matcher_mask(m, again);
	assert_memory_equal(bits, again, (size_t)(v->V + 31) / 32 * 4);
	return allowed;
}

static void masks_are_what_is_accepted(void **state)
{
	static struct vocab_token t[TOKENS];
	static char room[TOKENS][LONGEST];
	uint32_t bits[(TOKENS + 257 + 31) / 32];
	uint64_t seed = 3;
	int states = 0, ended = 0;
	(void)state;
	for (int round = 0; round < 3; round++) {
		struct stave_vocab *v = any_vocab(&seed, t, room);
		for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
			struct stave_err err;
			struct stave_grammar *g = grammar(kind_of(sources[i][0]), sources[i][1], v, &err);
			if (!g)
				fail_msg("%s: %s", sources[i][1], err.msg);
			for (int k = 0; k < 6; k++) {
				struct stave_matcher *m;
				assert_int_equal(stave_matcher_open(&m, g, NULL), 0);
				for (int step = 0; step < 60; step++, states++) {
					int allowed = check_mask(m, v, bits), pick = allowed ? (int)(draw(&seed) % (uint64_t)allowed) : 0, id = -1;
					if (!allowed) {
						assert_true(stave_matcher_done(m));
						break;
					}
					while (pick >= 0)
						pick -= bit(bits, ++id);
					bool stop = id == v->V - 1 || (id >= 256 && t[id - 256].stop);
					assert_true(stave_matcher_accept(m, id));
					ended += stop;
					if (stop)
						assert_true(stave_matcher_done(m));
				}
				stave_matcher_close(m);
			}
			stave_grammar_close(g);
		}
		stave_vocab_close(v);
	}
	print_message("%d states, %d answers ended\n", states, ended);
	assert_true(states > 3000 && ended > 20);
}

static void rewinding_goes_back(void **state)
{
	struct stave_vocab *v = bytes_and(NULL, 0);
	struct stave_grammar *g = grammar(STAVE_GRAMMAR_JSON_SCHEMA, "{}", v, NULL);
	static const char text[] = "{\"a\": [1, 2, {\"b\": \"xyz\", \"c\": [[[], {}]]}, \"a longer text, so that the history is full before the end\"], \"d\": 12}";
	struct stave_matcher *m, *other;
	uint32_t a[9], b[9];
	(void)state;
	assert_int_equal(stave_matcher_open(&m, g, NULL), 0);
	for (size_t n = 1; n < sizeof text - 1; n++) {
		for (int back = 1; back <= 64 && (size_t)back <= n; back += 7) {
			assert_int_equal(taken(m, text, n), n);
			stave_matcher_rewind(m, back);
			assert_int_equal(stave_matcher_open(&other, g, NULL), 0);
			assert_int_equal(taken(other, text, n - (size_t)back), n - (size_t)back);
			stave_matcher_mask(m, a);
			stave_matcher_mask(other, b);
			assert_memory_equal(a, b, sizeof a);
			assert_int_equal(taken(m, text + n - back, (size_t)back), back);
			stave_matcher_close(m);
			m = other;
			stave_matcher_close(m);
			assert_int_equal(stave_matcher_open(&m, g, NULL), 0);
		}
	}
	assert_int_equal(taken(m, text, sizeof text - 1), sizeof text - 1);
	assert_true(stave_matcher_done(m));
	assert_true(stave_matcher_accept(m, 256));
	assert_false(stave_matcher_accept(m, 256));
	stave_matcher_mask(m, a);
	for (int i = 0; i < 9; i++)
		assert_int_equal(a[i], 0);
	stave_matcher_rewind(m, 1); /* the stop token is taken back as well */
	assert_true(stave_matcher_done(m));
	stave_matcher_mask(m, a);
	assert_true(bit(a, 256));
	stave_matcher_rewind(m, 1);
	assert_false(stave_matcher_done(m));
	assert_true(stave_matcher_accept(m, '}'));
	stave_matcher_close(m);
	stave_grammar_close(g);
	stave_vocab_close(v);
}

/* ---- threads ---- */

struct job {
	struct stave_grammar *g;
	const struct stave_vocab *v;
	uint64_t seed, sum;
};
static void *generate(void *arg)
{
	struct job *j = arg;
	uint32_t bits[(TOKENS + 257 + 31) / 32];
	for (int k = 0; k < 20; k++) {
		struct stave_matcher *m;
		if (stave_matcher_open(&m, j->g, NULL))
			abort();
		for (int step = 0; step < 50; step++) {
			int allowed = 0, id = -1;
			stave_matcher_mask(m, bits);
			for (int i = 0; i < j->v->V; i++)
				allowed += bit(bits, i);
			if (!allowed)
				break;
			for (int pick = (int)(draw(&j->seed) % (uint64_t)allowed); pick >= 0;)
				pick -= bit(bits, ++id);
			if (!stave_matcher_accept(m, id))
				abort();
			j->sum = j->sum * 31 + (uint64_t)id;
		}
		stave_matcher_close(m);
	}
	return NULL;
}

static void threads_share_a_grammar(void **state)
{
	static struct vocab_token t[TOKENS];
	static char room[TOKENS][LONGEST];
	uint64_t seed = 11;
	struct stave_vocab *v = any_vocab(&seed, t, room);
	struct stave_grammar *g = grammar(STAVE_GRAMMAR_JSON_SCHEMA, sources[1][1], v, NULL), *alone = grammar(STAVE_GRAMMAR_JSON_SCHEMA, sources[1][1], v, NULL);
	struct job job[4], same;
	pthread_t id[4];
	(void)state;
	for (int i = 0; i < 4; i++) {
		job[i] = (struct job){g, v, (uint64_t)i, 0};
		assert_int_equal(pthread_create(&id[i], NULL, generate, &job[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(id[i], NULL), 0);
		same = (struct job){alone, v, (uint64_t)i, 0};
		generate(&same);
		assert_true(same.sum == job[i].sum);
	}
	stave_grammar_close(g);
	stave_grammar_close(alone);
	stave_vocab_close(v);
}

/* ---- hostile sources ---- */

static char *repeated(const char *begin, const char *part, int n, const char *middle, const char *back, const char *end)
{
	size_t cap = strlen(begin) + (size_t)n * (strlen(part) + strlen(back)) + strlen(middle) + strlen(end) + 1;
	char *t = malloc(cap), *p = stpcpy(t, begin);
	for (int i = 0; i < n; i++)
		p = stpcpy(p, part);
	p = stpcpy(p, middle);
	for (int i = 0; i < n; i++)
		p = stpcpy(p, back);
	stpcpy(p, end);
	return t;
}

/* Opens or refuses it within the time, and walks a little when it opens: each mask within the time as well. `refused`: part of the
 * message, NULL when it must open, EITHER when both will do. */
static const char EITHER[] = "";
static void hostile(const struct stave_vocab *v, enum stave_grammar_kind kind, char *text, const char *refused)
{
	struct stave_err err = {0};
	double limit = 1, begin = now_s();
	uint32_t bits[(TOKENS + 257 + 31) / 32];
#ifdef __SANITIZE_ADDRESS__
	limit = 10;
#endif
	struct stave_grammar *g = grammar(kind, text, v, &err);
	double took = now_s() - begin;
	if (getenv("GRAMMAR_TIMES"))
		print_message("%6.3f s %.60s… %s\n", took, text, g ? "opened" : err.msg);
	if (took > limit)
		fail_msg("%.60s… took %.2f s (%s)", text, took, g ? "opened" : err.msg);
	if (refused && refused != EITHER && (g || !strstr(err.msg, refused)))
		fail_msg("%.60s…: expected '%s', got '%s'", text, refused, g ? "opened" : err.msg);
	if (!refused && !g)
		fail_msg("%.60s…: %s", text, err.msg);
	struct stave_matcher *m = NULL;
	uint64_t seed = 5;
	if (g && !stave_matcher_open(&m, g, NULL)) {
		for (int step = 0; step < 20; step++) {
			int allowed = 0, id = -1;
			begin = now_s();
			stave_matcher_mask(m, bits);
			took = now_s() - begin;
			if (took > limit)
				fail_msg("%.60s…: a mask took %.2f s", text, took);
			for (int i = 0; i < v->V; i++)
				allowed += bit(bits, i);
			if (!allowed)
				break;
			for (int pick = (int)(draw(&seed) % (uint64_t)allowed); pick >= 0;)
				pick -= bit(bits, ++id);
			if (!stave_matcher_accept(m, id))
				break;
		}
		stave_matcher_close(m);
	}
	stave_grammar_close(g);
	free(text);
}

static char *chain_of_rules(int n, const char *body, const char *last)
{
	char *t = malloc((size_t)n * 80 + 100), *p = t + sprintf(t, "root ::= r0\n");
	for (int i = 0; i < n; i++) {
		p += sprintf(p, "r%d ::= ", i);
		p += i + 1 < n ? sprintf(p, body, i + 1, i + 1) : sprintf(p, "%s", last);
		*p++ = '\n';
	}
	*p = 0;
	return t;
}

static char *wide(int n, const char *begin, const char *part, const char *end)
{
	char *t = malloc((size_t)n * (strlen(part) + 20) + 2 * strlen(begin) + strlen(end) + 10), *p = stpcpy(t, begin);
	for (int i = 0; i < n; i++)
		p += sprintf(p, part, i);
	stpcpy(p, end);
	return t;
}

static void hostile_sources_are_bounded(void **state)
{
	static struct vocab_token t[TOKENS];
	static char room[TOKENS][LONGEST];
	uint64_t seed = 13;
	struct stave_vocab *v = any_vocab(&seed, t, room);
	enum stave_grammar_kind G = STAVE_GRAMMAR_GBNF, J = STAVE_GRAMMAR_JSON_SCHEMA, R = STAVE_GRAMMAR_REGEX;
	(void)state;
	/* nesting */
	hostile(v, G, repeated("root ::= ", "(", 60000, "\"a\"", ")", ""), "nested too deep");
	hostile(v, R, repeated("", "(", 60000, "a", ")", ""), "nested too deep");
	hostile(v, R, repeated("", "(", 60000, "", "", ""), "nested too deep");
	hostile(v, G, repeated("root ::= ", "(", 150, "\"a\"", ")*", ""), NULL);
	hostile(v, R, repeated("", "(", 150, "a", "|b)*", ""), NULL);
	hostile(v, J, repeated("", "{\"items\":", 100000, "{}", "}", ""), "");
	hostile(v, J, repeated("", "{\"items\":", 1500, "{}", "}", ""), "nested deeper");
	hostile(v, J, repeated("", "{\"allOf\":[", 900, "{}", "]}", ""), "nested deeper");
	hostile(v, J, repeated("{\"const\":", "[", 1500, "", "]", "}"), "nested deeper");
	hostile(v, J, repeated("{\"properties\":{\"a\":", "[", 1000000, "", "", ""), "");
	/* left recursion, and what only looks like it */
	hostile(v, G, strdup("root ::= root \"a\" | \"b\""), "left recursion");
	hostile(v, G, strdup("root ::= x \"a\" | \"b\"\nx ::= y\ny ::= root | \"c\""), "left recursion");
	hostile(v, G, strdup("root ::= n root \"a\" | \"b\"\nn ::= \"\" | \"x\""), "left recursion");
	hostile(v, G, strdup("root ::= (\"a\"* x)? \nx ::= \"x\"? root \"y\""), "left recursion");
	hostile(v, G, strdup("root ::= root"), "");
	hostile(v, G, strdup("root ::= \"a\" root | \"b\""), NULL);
	hostile(v, G, strdup("root ::= n \"x\" root? \nn ::= \"\""), NULL);
	hostile(v, J, strdup("{\"$ref\":\"#\"}"), "");
	hostile(v, J, strdup("{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}"), "");
	hostile(v, J, strdup("{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}"), "left recursion");
	hostile(v, J, strdup("{\"allOf\":[{\"$ref\":\"#\"}]}"), "");
	hostile(v, J, strdup("{\"type\":\"object\",\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}"), "");
	hostile(v, J, strdup("{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}"), NULL);
	hostile(v, J, strdup("{\"type\":\"array\",\"items\":{\"$ref\":\"#\",\"maxItems\":3}}"), NULL);
	hostile(v, J, strdup("{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#\"}}"), "nothing matches");
	/* what nothing matches, or is empty */
	hostile(v, G, strdup(""), "no rule 'root'");
	hostile(v, G, strdup("a ::= \"b\""), "no rule 'root'");
	hostile(v, G, strdup("root ::= other"), "not defined");
	hostile(v, G, strdup("root ::= \"a\"\nb ::= missing"), "not defined");
	hostile(v, G, strdup("root ::= \"a\"\nroot ::= \"b\""), "twice");
	hostile(v, G, strdup("root ::= \"a\" x\nx ::= \"b\" x"), "nothing matches");
	hostile(v, G, strdup("root ::= []"), "nothing matches");
	hostile(v, G, strdup("root ::= [] | \"a\""), NULL);
	hostile(v, G, strdup("root ::= \"\""), NULL);
	hostile(v, G, strdup("root ::="), NULL);
	hostile(v, R, strdup("[]"), "nothing matches");
	hostile(v, R, strdup("a[]|b"), NULL);
	hostile(v, J, strdup("false"), "nothing matches");
	/* bounds beside the last number of 16 digits, which a double does not hold */
	hostile(v, J, strdup("{\"type\":\"integer\",\"minimum\":10000000000000000}"), "more than 16 digits");
	hostile(v, J, strdup("{\"type\":\"integer\",\"maximum\":-10000000000000000}"), "more than 16 digits");
	hostile(v, J, strdup("{\"type\":\"integer\",\"minimum\":-10000000000000000,\"maximum\":10000000000000000}"), NULL);
	hostile(v, J, strdup("{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":false}}"), "nothing matches");
	/* bad characters and classes */
	hostile(v, G, strdup("root ::= \"\xff\""), "UTF-8");
	hostile(v, G, strdup("root ::= \"\xe2\x82\""), "UTF-8");
	hostile(v, G, strdup("root ::= [b-a]"), "backwards");
	hostile(v, G, strdup("root ::= \"\\U00110000\""), "no such character");
	hostile(v, G, strdup("root ::= \"\\ud800\""), EITHER);
	hostile(v, G, strdup("root ::= [a"), "not closed");
	hostile(v, G, strdup("root ::= \"a"), "not closed");
	hostile(v, G, strdup("root ::= (\"a\""), "not closed");
	hostile(v, G, strdup("root ::= \"a\" )"), "unexpected");
	hostile(v, G, strdup("root ::= *"), "expected");
	hostile(v, R, strdup("[b-a]"), "backwards");
	hostile(v, R, strdup("a)"), "')'");
	hostile(v, R, strdup("*"), "nothing to repeat");
	hostile(v, R, strdup("a**"), "nothing to repeat");
	hostile(v, R, strdup("a{2}{3}"), "nothing to repeat");
	hostile(v, R, strdup("(?=a)"), "not supported");
	hostile(v, R, strdup("(a)\\1"), "not supported");
	hostile(v, R, strdup("\\bA"), "not supported");
	hostile(v, R, strdup("\\"), "");
	hostile(v, J, strdup("{"), "");
	hostile(v, J, strdup("{\"type\":\"strin\"}"), "unknown type");
	hostile(v, J, strdup("{\"not\":{}}"), "'not'");
	hostile(v, J, strdup("{\"$ref\":\"http://x/y\"}"), "nothing is fetched");
	hostile(v, J, strdup("{\"$ref\":\"#/nowhere\"}"), "leads nowhere");
	hostile(v, J, strdup("{\"type\":\"string\",\"minLength\":-1}"), "minLength");
	hostile(v, J, strdup("{\"type\":\"string\",\"minLength\":\"1\"}"), "minLength");
	hostile(v, J, strdup("{\"anyOf\":[]}"), "");
	hostile(v, J, strdup("{\"enum\":[]}"), "nothing matches");
	/* repetitions */
	hostile(v, R, strdup("a{100000}"), NULL);
	hostile(v, R, strdup("a{100001}"), "");
	hostile(v, R, strdup("a{99999999999999999999}"), "");
	hostile(v, R, strdup("a{3,2}"), "");
	hostile(v, R, strdup("(a{1000}){1000}"), NULL);
	hostile(v, R, strdup("((((a{16}){16}){16}){16}){16}"), EITHER);
	hostile(v, R, strdup("((((a{17}){17}){17}){17}){17}"), NULL);
	hostile(v, R, strdup("((((((a*){16}){16}){16}){16}){16}){16}"), EITHER);
	hostile(v, R, strdup("(((((a?){99}){99}){99}){99}){99}"), EITHER);
	hostile(v, R, strdup("(.*.*.*.*.*.*.*.*.*.*.*.*)*=.*"), NULL);
	hostile(v, R, strdup("(a|a)*(a|a)*(a|a)*(a|a)*b"), NULL);
	hostile(v, R, strdup("(a|b)*a(a|b){15}"), NULL);
	hostile(v, R, strdup("(a|b)*a(a|b){16}(a|b){10}c"), EITHER);
	hostile(v, G, strdup("root ::= (x | y)* \"a\" x{100}\nx ::= \"a\" | \"b\"\ny ::= \"a\" | \"b\""), NULL);
	hostile(v, J, strdup("{\"type\":\"string\",\"maxLength\":100000}"), NULL);
	hostile(v, J, strdup("{\"type\":\"string\",\"maxLength\":2000000000}"), NULL);
	hostile(v, J, strdup("{\"type\":\"string\",\"minLength\":2000000000}"), "minLength");
	hostile(v, J, strdup("{\"type\":\"array\",\"minItems\":2000000000}"), "minItems");
	hostile(v, J, strdup("{\"type\":\"array\",\"maxItems\":100000,\"items\":{\"type\":\"array\",\"maxItems\":100000,\"items\":{\"type\":\"array\",\"maxItems\":100000}}}"), NULL);
	/* many and long rules */
	hostile(v, G, chain_of_rules(20000, "r%d | \"x\"", "\"y\""), EITHER);
	hostile(v, G, chain_of_rules(20000, "\"a\" r%d", "\"y\""), NULL);
	hostile(v, G, chain_of_rules(900, "r%d r%d", "\"y\""), EITHER);
	hostile(v, G, chain_of_rules(20, "r%d r%d", "\"y\""), NULL);
	hostile(v, G, chain_of_rules(20000, "r%d?", "\"y\""), EITHER);
	hostile(v, G, chain_of_rules(100, "r%d? r%d?", "\"y\"?"), EITHER);
	hostile(v, G, wide(40000, "root ::= \"a\"", " | \"%d\" root", "\n"), EITHER);
	hostile(v, G, wide(20000, "root ::= \"a\"\n", "r%d ::= root\n", ""), NULL);
	hostile(v, J, wide(20000, "{\"enum\":[0", ",\"%d\"", "]}"), NULL);
	hostile(v, J, wide(5000, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"a\":{}", ",\"p%d\":{\"type\":\"string\"}", "}}"), EITHER);
	hostile(v, J, wide(5000, "{\"type\":\"object\",\"properties\":{\"a\":{}", ",\"p%d\":{\"type\":\"string\"}", "},\"additionalProperties\":{}}"), EITHER);
	hostile(v, J, wide(200, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"a\":{}", ",\"p%d\":{\"type\":\"string\"}", "}}"), NULL);
	hostile(v, J, wide(2000, "{\"allOf\":[{}", ",{\"properties\":{\"p%d\":{\"type\":\"string\"}}}", "]}"), EITHER);
	hostile(v, R, repeated("", "a", 1000000, "", "", ""), EITHER);
	hostile(v, R, repeated("", "a|", 500000, "", "", ""), EITHER);
	hostile(v, R, repeated("", "[^a]", 200000, "", "", ""), EITHER);
	hostile(v, R, repeated("", "a", 2000000, "", "", ""), "at most");
	stave_vocab_close(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(expressions_match_as_pcre2), cmocka_unit_test(grammars_match_as_pcre2), cmocka_unit_test(nesting_balances), cmocka_unit_test(masks_are_what_is_accepted),
		cmocka_unit_test(rewinding_goes_back), cmocka_unit_test(threads_share_a_grammar), cmocka_unit_test(hostile_sources_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
