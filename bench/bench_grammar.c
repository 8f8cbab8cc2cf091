/* What constrained decoding costs: for schemas as applications have them, answers are cut into tokens of a vocabulary of 128256 and masked
 * token by token, each schema beginning cold. Prints the time of opening with the first mask, and of the masks.
 *
 *   bench_grammar [TEXT-FILE]     words of the vocabulary are taken from the file, else made up */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/grammar_build.h"

enum { V = 128256 };

static const struct {
	const char *name, *schema, *answers[3];
} cases[] = {
	{"any JSON", "{}", {"{\"user\": {\"id\": 12, \"name\": \"Alice Liddell\", \"tags\": [\"a\", \"b\"], \"ok\": true}, \"n\": [1.5, -2e3, null]}", "[\n  {\n    \"title\": \"The winter's tale\",\n    \"year\": 1611\n  }\n]"}},
	{"person", "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},\"email\":{\"type\":\"string\"}},\"required\":[\"name\",\"age\",\"email\"],\"additionalProperties\":false}",
	 {"{\"name\": \"John of Gaunt\", \"age\": 58, \"email\": \"john@lancaster.example\"}", "{\n  \"name\": \"Queen Margaret\",\n  \"age\": 31,\n  \"email\": \"margaret@court.example\"\n}"}},
	{"ticket", "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},\"priority\":{\"enum\":[\"low\",\"medium\",\"high\",\"critical\"]},\"labels\":{\"type\":\"array\",\"items\":{\"enum\":[\"bug\",\"feature\",\"docs\",\"question\"]}},\"assignee\":{\"type\":[\"string\",\"null\"]},\"estimate\":{\"type\":\"number\",\"minimum\":0}},\"required\":[\"title\",\"priority\"],\"additionalProperties\":false}",
	 {"{\"title\":\"The server does not answer after a long night\",\"priority\":\"high\",\"labels\":[\"bug\",\"question\"],\"assignee\":null,\"estimate\":3.5}", "{\"title\": \"Write the manual\", \"priority\": \"low\", \"estimate\": 12}"}},
	{"bounded strings", "{\"type\":\"object\",\"properties\":{\"slug\":{\"type\":\"string\",\"maxLength\":50},\"summary\":{\"type\":\"string\",\"minLength\":10,\"maxLength\":200},\"body\":{\"type\":\"string\",\"maxLength\":5000},\"code\":{\"type\":\"string\",\"minLength\":3,\"maxLength\":3}},\"required\":[\"slug\",\"summary\",\"body\",\"code\"]}",
	 {"{\"slug\": \"the-winter-of-our-discontent\", \"summary\": \"Now is the winter of our discontent made glorious summer by this sun of York\", \"body\": \"And all the clouds that lour'd upon our house in the deep bosom of the ocean buried. Now are our brows bound with victorious wreaths; our bruised arms hung up for monuments.\", \"code\": \"abc\"}"}},
	{"patterns", "{\"type\":\"object\",\"properties\":{\"phone\":{\"type\":\"string\",\"pattern\":\"^\\\\+?[0-9]{7,15}$\"},\"sku\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}-[0-9]{4}(-[a-z]+)*$\"},\"word\":{\"type\":\"string\",\"pattern\":\"^\\\\w+$\"},\"on\":{\"type\":\"string\",\"format\":\"date-time\"},\"id\":{\"type\":\"string\",\"format\":\"uuid\"}},\"required\":[\"phone\",\"sku\",\"word\",\"on\",\"id\"]}",
	 {"{\"phone\": \"+441632960961\", \"sku\": \"ABC-1234-red-large\", \"word\": \"honourable\", \"on\": \"2024-05-01T12:30:00Z\", \"id\": \"123e4567-e89b-12d3-a456-426614174000\"}"}},
	{"optional properties", "{\"type\":\"object\",\"properties\":{\"host\":{\"type\":\"string\"},\"port\":{\"type\":\"integer\"},\"path\":{\"type\":\"string\"},\"user\":{\"type\":\"string\"},\"password\":{\"type\":\"string\"},\"timeout\":{\"type\":\"number\"},\"retries\":{\"type\":\"integer\"},\"verify\":{\"type\":\"boolean\"},\"proxy\":{\"type\":\"string\"},\"headers\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}},\"cookies\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}},\"debug\":{\"type\":\"boolean\"}}}",
	 {"{\"host\": \"example.org\", \"port\": 8080, \"timeout\": 2.5, \"headers\": {\"Accept\": \"text/html\", \"Host\": \"example.org\"}, \"debug\": false}", "{\"user\": \"lear\", \"retries\": 3, \"verify\": true}"}},
	{"order", "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},\"customer\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"address\":{\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\"},\"city\":{\"type\":\"string\"},\"zip\":{\"type\":\"string\"}},\"required\":[\"street\",\"city\"]}},\"required\":[\"name\",\"address\"]},\"items\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"properties\":{\"sku\":{\"type\":\"string\"},\"quantity\":{\"type\":\"integer\",\"minimum\":1},\"price\":{\"type\":\"number\",\"exclusiveMinimum\":0}},\"required\":[\"sku\",\"quantity\",\"price\"]}}},\"required\":[\"id\",\"customer\",\"items\"]}",
	 {"{\"id\": \"A-100\", \"customer\": {\"name\": \"Falstaff\", \"address\": {\"street\": \"Eastcheap 1\", \"city\": \"London\"}}, \"items\": [{\"sku\": \"sack\", \"quantity\": 12, \"price\": 5.75}, {\"sku\": \"bread\", \"quantity\": 1, \"price\": 0.5}]}",
	  "{\n  \"id\": \"A-101\",\n  \"customer\": {\n    \"name\": \"Hal\",\n    \"address\": {\n      \"street\": \"The palace\",\n      \"city\": \"London\",\n      \"zip\": \"1\"\n    }\n  },\n  \"items\": [\n    {\n      \"sku\": \"crown\",\n      \"quantity\": 1,\n      \"price\": 1000\n    }\n  ]\n}"}},
	{"tree", "{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/node\"}}},\"required\":[\"name\"],\"additionalProperties\":false}}}",
	 {"{\"name\":\"Edward\",\"children\":[{\"name\":\"John\",\"children\":[{\"name\":\"Henry\",\"children\":[{\"name\":\"Hal\"},{\"name\":\"Humphrey\"}]}]},{\"name\":\"Lionel\"}]}"}},
	{"tool calls", "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"tool\":{\"const\":\"search\"},\"query\":{\"type\":\"string\"},\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":100}},\"required\":[\"tool\",\"query\"]},{\"type\":\"object\",\"properties\":{\"tool\":{\"const\":\"weather\"},\"city\":{\"type\":\"string\"},\"unit\":{\"enum\":[\"celsius\",\"fahrenheit\"]}},\"required\":[\"tool\",\"city\"]},{\"type\":\"object\",\"properties\":{\"tool\":{\"const\":\"calculate\"},\"expression\":{\"type\":\"string\"}},\"required\":[\"tool\",\"expression\"]}]}",
	 {"{\"tool\": \"search\", \"query\": \"the tragedy of king Richard the second\", \"limit\": 10}", "{\"tool\": \"weather\", \"city\": \"Elsinore\", \"unit\": \"celsius\"}", "{\"tool\": \"calculate\", \"expression\": \"(2 + 3) * 7\"}"}},
	{"matrix", "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"number\"},\"minItems\":3,\"maxItems\":3},\"minItems\":2,\"maxItems\":10}", {"[[1, 0, 0], [0.5, -1.25, 3e2], [10, 200, 3000]]", "[[1,2,3],[4,5,6],[7,8,9],[10,11,12]]"}},
	{"dictionary", "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}}", {"{\"first\": [1, 2, 3], \"second\": [], \"the third one\": [1000000]}"}},
	{"review", "{\"type\":\"object\",\"properties\":{\"sentiment\":{\"enum\":[\"positive\",\"negative\",\"neutral\"]},\"confidence\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1},\"quotes\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":100},\"maxItems\":5},\"reason\":{\"type\":\"string\"}},\"required\":[\"sentiment\",\"confidence\",\"quotes\",\"reason\"],\"additionalProperties\":false}",
	 {"{\"sentiment\": \"negative\", \"confidence\": 0.87, \"quotes\": [\"a plague on both your houses\", \"what's in a name\"], \"reason\": \"The speaker is wounded and curses both families.\"}"}},
	{"steps", "{\"type\":\"object\",\"properties\":{\"steps\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"explanation\":{\"type\":\"string\"},\"output\":{\"type\":\"string\"}},\"required\":[\"explanation\",\"output\"],\"additionalProperties\":false}},\"final_answer\":{\"type\":\"string\"}},\"required\":[\"steps\",\"final_answer\"],\"additionalProperties\":false}",
	 {"{\"steps\":[{\"explanation\":\"Subtract seven from both sides\",\"output\":\"8x = -30\"},{\"explanation\":\"Divide both sides by eight\",\"output\":\"x = -30 / 8\"}],\"final_answer\":\"x = -15 / 4\"}"}},
	{"many enums", "{\"type\":\"array\",\"items\":{\"enum\":[\"Argentina\",\"Australia\",\"Austria\",\"Belgium\",\"Brazil\",\"Canada\",\"Chile\",\"China\",\"Denmark\",\"Egypt\",\"Finland\",\"France\",\"Germany\",\"Greece\",\"India\",\"Italy\",\"Japan\",\"Mexico\",\"Norway\",\"Poland\",\"Portugal\",\"Spain\",\"Sweden\",\"Turkey\"]}}", {"[\"Norway\", \"Denmark\", \"Italy\", \"Egypt\"]"}},
	{"all of", "{\"allOf\":[{\"$ref\":\"#/$defs/base\"},{\"type\":\"object\",\"properties\":{\"extra\":{\"type\":\"boolean\"}},\"required\":[\"extra\"]}],\"$defs\":{\"base\":{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9007199254740991},\"kind\":{\"type\":\"string\"}},\"required\":[\"id\",\"kind\"]}}}", {"{\"id\": 4711, \"kind\": \"letter\", \"extra\": true}"}},
	{"cast", "{\"type\":\"object\",\"properties\":{\"play\":{\"type\":\"string\"},\"acts\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":5},\"roles\":{\"type\":\"array\",\"minItems\":2,\"maxItems\":30,\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":40},\"lines\":{\"type\":\"integer\",\"minimum\":0},\"dies\":{\"type\":\"boolean\"}},\"required\":[\"name\",\"lines\",\"dies\"]}}},\"required\":[\"play\",\"acts\",\"roles\"]}",
	 {"{\"play\": \"Romeo and Juliet\", \"acts\": 5, \"roles\": [{\"name\": \"Romeo\", \"lines\": 612, \"dies\": true}, {\"name\": \"Nurse\", \"lines\": 281, \"dies\": false}, {\"name\": \"Mercutio\", \"lines\": 252, \"dies\": true}]}"}},
	{"multilingual", "{\"type\":\"object\",\"properties\":{\"de\":{\"type\":\"string\"},\"fr\":{\"type\":\"string\"},\"ru\":{\"type\":\"string\"},\"zh\":{\"type\":\"string\"}},\"required\":[\"de\",\"fr\",\"ru\",\"zh\"]}", {"{\"de\": \"Sein oder nicht sein, das ist hier die Frage: ob's edler im Gemüt\", \"fr\": \"Être ou ne pas être, telle est la question\", \"ru\": \"Быть или не быть, вот в чём вопрос\", \"zh\": \"生存还是毁灭，这是一个值得考虑的问题\"}"}},
	{"coordinates", "{\"type\":\"object\",\"properties\":{\"lat\":{\"type\":\"number\",\"minimum\":-90,\"maximum\":90},\"lon\":{\"type\":\"number\",\"minimum\":-180,\"maximum\":180},\"zoom\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":22}},\"required\":[\"lat\",\"lon\"]}", {"{\"lat\": 51.5072, \"lon\": -0.1276, \"zoom\": 12}", "{\"lat\":-33.86,\"lon\":151.2}"}},
	{"tuple", "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"},{\"type\":\"object\",\"properties\":{\"ok\":{\"type\":\"boolean\"}},\"required\":[\"ok\"]}],\"items\":false,\"minItems\":3}", {"[\"ready\", 12, {\"ok\": true}]"}},
	{"long list", "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"question\":{\"type\":\"string\"},\"answer\":{\"type\":\"string\"},\"score\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":10}},\"required\":[\"question\",\"answer\",\"score\"],\"additionalProperties\":false}}",
	 {"[{\"question\": \"Who's there?\", \"answer\": \"Nay, answer me: stand, and unfold yourself.\", \"score\": 7}, {\"question\": \"What, is Horatio there?\", \"answer\": \"A piece of him.\", \"score\": 9}, {\"question\": \"What art thou that usurp'st this time of night?\", \"answer\": \"It is offended.\", \"score\": 10}]"}},
};

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ---- a vocabulary as large tokenizers have ---- */

static struct vocab_token tokens[V];
static int n_tokens;

static void add(const char *p, size_t n)
{
	char *copy = n && n_tokens < V - 1 ? malloc(n) : NULL;
	if (!copy)
		return;
	memcpy(copy, p, n);
	tokens[n_tokens++] = (struct vocab_token){.p = copy, .n = (uint32_t)n};
}

static uint64_t seed = 1;
static uint64_t draw(uint64_t n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % n;
}

static size_t put(char *to, uint32_t c) /* UTF-8, up to three bytes */
{
	if (c < 0x80)
		return to[0] = (char)c, 1;
	if (c < 0x800)
		return to[0] = (char)(0xc0 | c >> 6), to[1] = (char)(0x80 | (c & 63)), 2;
	return to[0] = (char)(0xe0 | c >> 12), to[1] = (char)(0x80 | (c >> 6 & 63)), to[2] = (char)(0x80 | (c & 63)), 3;
}

static struct stave_vocab *vocabulary(const char *path)
{
	static const char *const marks[] = {"\"", "\":", "\": ", "\":\"", "\": \"", "\",", "\", ", "\",\"", "\", \"", "\"}", "\"},", "\"},{\"", "\"}}", "\"]", "\"],", "\"]}", "{\"", "[{\"", "[\"", "},{", "}, {", "}]", "}}", "]]", "],[", "], [", "{}", "[]", "()", "\n}", "},\n", "\",\n", ": {", ": [", ":[", ":{", "\\n", "\\\"", "\\u", ".\"", "!\"", "?\"", "'s", "://", "/>", "</", "=\"", "--", "==", "true", "false", "null", " true", " false", " null", "true,", "null}"};
	static const uint32_t scripts[][2] = {{0xc0, 0x24f}, {0x370, 0x3ff}, {0x400, 0x4ff}, {0x5d0, 0x5ea}, {0x620, 0x64a}, {0x900, 0x97f}, {0xe00, 0xe4f}, {0x3040, 0x30ff}, {0x4e00, 0x6fff}, {0xac00, 0xd7a3}};
	char t[200];
	for (int i = 0; i < 256; i++)
		add((char[]){(char)i}, 1);
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
		add(marks[i], strlen(marks[i]));
	for (int n = 2; n <= 128; n++) { /* indentation, also after a line break and before a quote */
		memset(t, n % 3 ? ' ' : '\t', sizeof t);
		add(t, (size_t)n);
		t[0] = '\n';
		add(t, (size_t)n);
		t[n] = '"';
		add(t, (size_t)n + 1);
	}
	for (int i = 0; i < 1110; i++)
		add(t, (size_t)(i < 10 ? sprintf(t, "%d", i) : i < 110 ? sprintf(t, "%02d", i - 10) : sprintf(t, "%03d", i - 110)));
	FILE *f = path ? fopen(path, "r") : NULL;
	char word[64] = " ";
	for (int c, n = 1; f && (c = getc(f)) != EOF && n_tokens < 50000;) /* words, with and without a space, and their beginnings */
		if ((c | 32) >= 'a' && (c | 32) <= 'z' && n < 60) {
			word[n++] = (char)c;
		} else if (n > 1) {
			size_t cut = 1 + draw((uint64_t)n - 1);
			add(word, (size_t)n);
			add(word + 1, (size_t)n - 1);
			add(word, cut + 1);
			n = 1;
		}
	if (f)
		fclose(f);
	while (n_tokens < V - 1) { /* pieces of words, ends with punctuation, other scripts */
		size_t n = 0;
		int letters = 2 + (int)draw(8), kind = (int)draw(10);
		if (draw(2))
			t[n++] = ' ';
		if (kind < 6)
			for (int i = 0; i < letters; i++)
				t[n++] = "etaoinshrdlucmfwygpbvk"[draw(22) * draw(22) / 22];
		else
			for (int i = 0, k = (int)draw(10); i < letters / 2 + 1; i++)
				n += put(t + n, scripts[k][0] + (uint32_t)draw(scripts[k][1] - scripts[k][0]));
		if (draw(30) == 0)
			t[n++] = "\"',.;:)]}>"[draw(10)];
		if (draw(60) == 0)
			t[n++] = "\"',.;:)]}>"[draw(10)];
		add(t, n);
	}
	tokens[n_tokens++] = (struct vocab_token){.p = "</s>", .n = 4, .special = true, .stop = true};
	struct stave_vocab *v;
	return vocab_of(&v, tokens, V, NULL) ? NULL : v;
}

/* The longest token that the text begins with. */
static int32_t longest(const struct stave_vocab *v, const char *text, size_t *n)
{
	int32_t id = -1;
	size_t depth = 0;
	for (int32_t i = 1; i < v->n_trie && text[depth];)
		if (v->trie[i].depth == depth + 1 && v->trie[i].byte == (uint8_t)text[depth]) {
			depth++;
			if (v->trie[i].token >= 0) {
				id = v->trie[i].token;
				*n = depth;
			}
			i++;
		} else if (v->trie[i].depth <= depth) {
			break;
		} else {
			i = v->trie[i].skip;
		}
	return id;
}

static int by_value(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

int main(int argc, char **argv)
{
	enum { MOST = 20000 };
	static uint32_t bits[(V + 31) / 32];
	static double mask[MOST];
	double begin = now_us(), sum = 0, accept_us = 0, first_sum = 0, first_worst = 0;
	struct stave_vocab *v = vocabulary(argc > 1 ? argv[1] : NULL);
	int n = 0, schemas = 0;
	printf("vocabulary of %d tokens, %d nodes, opened in %.0f ms\n", V, v->n_trie, (now_us() - begin) / 1e3);
	printf("%-20s %9s %8s %9s %9s\n", "schema", "first ms", "tokens", "mean us", "worst us");
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++, schemas++) {
		struct stave_grammar *g = NULL;
		struct stave_err err;
		double first = 0, worst = 0, total = 0;
		int count = 0;
		begin = now_us();
		if (stave_grammar_open(&g, STAVE_GRAMMAR_JSON_SCHEMA, cases[i].schema, strlen(cases[i].schema), v, &err))
			return fprintf(stderr, "%s: %s\n", cases[i].name, err.msg), 1;
		for (int k = 0; k < 3 && cases[i].answers[k]; k++) {
			struct stave_matcher *m;
			if (stave_matcher_open(&m, g, NULL))
				return 1;
			for (const char *p = cases[i].answers[k];;) {
				size_t len = 0;
				double from = now_us();
				stave_matcher_mask(m, bits);
				double took = now_us() - from;
				if (!k && p == cases[i].answers[k])
					first = (now_us() - begin) / 1e3;
				if (n < MOST)
					mask[n++] = took;
				total += took;
				count++;
				worst = took > worst ? took : worst;
				if (!*p)
					break;
				int32_t id = longest(v, p, &len);
				from = now_us();
				if (id < 0 || !(bits[id >> 5] >> (id & 31) & 1) || !stave_matcher_accept(m, id))
					return fprintf(stderr, "%s: refused at %s\n", cases[i].name, p), 1;
				accept_us += now_us() - from;
				p += len;
			}
			stave_matcher_close(m);
		}
		stave_grammar_close(g);
		printf("%-20s %9.2f %8d %9.1f %9.0f\n", cases[i].name, first, count, total / count, worst);
		sum += total;
		first_sum += first;
		first_worst = first > first_worst ? first : first_worst;
	}
	qsort(mask, (size_t)n, sizeof *mask, by_value);
	printf("first mask with opening: mean %.2f ms, worst %.2f ms\n", first_sum / schemas, first_worst);
	printf("%d masks: mean %.1f us, p50 %.1f, p90 %.1f, p99 %.1f, worst %.0f; accept %.2f us\n", n, sum / n, mask[n / 2], mask[n * 9 / 10], mask[n * 99 / 100], mask[n - 1], accept_us / n);
	for (int i = 0; i < V - 1; i++)
		free((void *)tokens[i].p);
	stave_vocab_close(v);
	return 0;
}
