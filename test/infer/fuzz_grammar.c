/* Any bytes as a grammar, a schema or an expression (by the first byte): opened or refused in bounded time; when it opens, masks hold
 * exactly what is accepted, and an answer is walked by the bytes that follow. */
#include "infer/grammar_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const more[] = {"\"}", "\":", "\",", "},{\"", "[[", "]]", "ab", "a\"", "  \n", "12", "\xc3\xa9", "\xa9\"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaa\"", "true", "null,", "{\"", "ab"};
	enum { N = sizeof more / sizeof *more };
	static struct stave_vocab *v;
	struct stave_grammar *g;
	struct stave_matcher *m;
	struct stave_err err;
	uint32_t bits[(N + 257 + 31) / 32];
	uint64_t seed = 1;
	if (!v) {
		struct vocab_token t[N] = {{0}};
		for (int i = 0; i < N; i++)
			t[i] = (struct vocab_token){.p = more[i], .n = (uint32_t)strlen(more[i])};
		v = bytes_and(t, N);
	}
	if (!size || stave_grammar_open(&g, data[0] % 3, (const char *)data + 1, size - 1, v, &err))
		return 0;
	for (size_t i = 0; i < size; i++)
		seed = seed * 31 + data[i];
	if (!stave_matcher_open(&m, g, &err)) {
		for (int step = 0; step < 24; step++) {
			int pick = -1, allowed = 0;
			stave_matcher_mask(m, bits);
			for (int id = 0; id < v->V; id++)
				if (bit(bits, id) && draw(&seed) % (uint64_t)++allowed == 0)
					pick = id;
			/* tokens, and one byte in passing, are accepted as the mask says; a state beyond the bounds may refuse all */
			for (int id = step % 16; id < v->V; id += id < 256 ? 16 : 1) {
				bool ok = stave_matcher_accept(m, id);
				if (ok && !bit(bits, id))
					abort();
				if (ok)
					stave_matcher_rewind(m, 1);
			}
			if (pick < 0 || !stave_matcher_accept(m, pick))
				break;
		}
		stave_matcher_close(m);
	}
	stave_grammar_close(g);
	return 0;
}
