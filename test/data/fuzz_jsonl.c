/* Any bytes as a document, JSONL line or plain: what is accepted is UTF-8 without NUL, and every rule and MinHash can
 * judge it. */
#include <stdint.h>
#include <stdlib.h>

#include "data/quality.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct stave_record r;
	static struct stave_quality q;
	static struct stave_buf word;
	uint32_t signature[STAVE_MINHASH];
	const char *out;
	size_t n;
	int64_t removed;
	for (int jsonl = 0; jsonl < 2; jsonl++) {
		if (stave_record_read(&r, (const char *)data, size, jsonl, "text"))
			continue;
		bool nul;
		if (!r.n || stave_utf8_invalid(r.text, r.n, &nul) || (nul && !r.n_messages))
			abort();
		stave_quality_words(&q, r.text, r.n);
		stave_gopher_repetition(&q, r.text, r.n);
		stave_gopher_quality(&q, r.text, r.n);
		stave_fineweb(&q, r.text, r.n);
		stave_minhash(r.text, r.n, &word, signature);
		if (!stave_c4(&q, r.text, r.n, size % 2, &out, &n, &removed) && n > r.n)
			abort();
	}
	return 0;
}
