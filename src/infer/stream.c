/* From bytes of tokens to text that may be shown. A token may end in the middle of a character, and a stop text may be
 * spread over several tokens; what could still become either is held back. Invariant: `held` never contains a whole
 * stop text after stream_ready reported it absent, and what went out is never taken back. */
#include <stdlib.h>
#include <string.h>

#include "infer/engine.h"

/* Length of the longest proper prefix of `stop` that ends p[0..n). */
static size_t overlap(const char *p, size_t n, const char *stop)
{
	size_t len = strlen(stop);
	for (size_t k = len - 1 < n ? len - 1 : n; k > 0; k--)
		if (!memcmp(p + n - k, stop, k))
			return k;
	return 0;
}

size_t stream_ready(const struct stream *s, bool *stopped)
{
	const struct stave_buf *b = &s->held;
	size_t hold = 0, first = b->len;
	*stopped = false;
	for (int i = 0; i < s->n_stop; i++) {
		const char *at = b->len ? memmem(b->p, b->len, s->stop[i], strlen(s->stop[i])) : NULL;
		if (at && (size_t)(at - b->p) <= first) {
			first = (size_t)(at - b->p);
			*stopped = true;
		}
		size_t k = overlap(b->p, b->len, s->stop[i]);
		hold = k > hold ? k : hold;
	}
	if (*stopped)
		return first;
	return stave_utf8_complete(b->p, b->len - hold);
}

void stream_drop(struct stream *s, size_t n)
{
	s->held.len -= n;
	if (n)
		memmove(s->held.p, s->held.p + n, s->held.len);
}

void stream_free(struct stream *s)
{
	for (int i = 0; i < s->n_stop; i++)
		free(s->stop[i]);
	free(s->stop);
	stave_buf_free(&s->held);
}
