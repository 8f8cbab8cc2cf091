/* SentencePiece's BPE: a word starts as its characters; of all neighbours that together spell a token, the pair whose token has
 * the highest score is joined, the leftmost of equals, until none is left (Kudo & Richardson 2018). Merges are not listed: any
 * two symbols join if what they spell is a token. A character that joined nothing and is no token becomes bytes, <0xNN>.
 *
 * Pairs wait in a heap under a number that orders them, the score turned around above the position. A pair that has changed
 * since it was put there is known by its length. n characters cost n log n. */
#include "text/tokenizer.h"

struct symbol {
	uint32_t at, n;      /* bytes; n == 0: joined to the left */
	int32_t prev, next;  /* -1: none */
	int32_t id;          /* -1: no token */
};

struct join {
	uint64_t order; /* of the score, then the position */
	uint32_t n;     /* bytes that the two have together */
	int32_t id;
};

struct word {
	const struct stave_tokenizer *t;
	const uint8_t *p;
	struct symbol *s;
	struct join *heap;
	size_t heap_n;
};

/* Floats in descending order as unsigned numbers in ascending order. */
static uint32_t descending(float score)
{
	uint32_t bits;
	memcpy(&bits, &score, sizeof bits);
	return bits >> 31 ? bits : ~(bits | 1u << 31);
}

static void push(struct word *w, struct join j)
{
	size_t i = w->heap_n++;
	for (; i && w->heap[(i - 1) / 2].order > j.order; i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = j;
}

static struct join pop(struct word *w)
{
	struct join top = w->heap[0], j = w->heap[--w->heap_n];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < w->heap_n; i = child) {
		child += child + 1 < w->heap_n && w->heap[child + 1].order < w->heap[child].order;
		if (w->heap[child].order >= j.order)
			break;
		w->heap[i] = w->heap[child];
	}
	w->heap[i] = j;
	return top;
}

/* Offer the symbol at i and its right neighbour. */
static void offer(struct word *w, int32_t i)
{
	if (i < 0 || w->s[i].next < 0)
		return;
	const struct symbol *a = &w->s[i];
	uint32_t n = a->n + w->s[a->next].n;
	if (n > w->t->longest)
		return;
	int32_t id = text_word_find(w->t, w->p + a->at, n);
	if (id >= 0)
		push(w, (struct join){(uint64_t)descending(w->t->score[id]) << 32 | (uint32_t)i, n, id});
}

static size_t characters(struct word *w, size_t n)
{
	size_t k = 0;
	for (size_t i = 0, len; i < n; i += len, k++) {
		uint32_t cp;
		len = text_utf8_next(w->p + i, n - i, &cp);
		w->s[k] = (struct symbol){(uint32_t)i, (uint32_t)len, (int32_t)k - 1, i + len < n ? (int32_t)k + 1 : -1, text_word_find(w->t, w->p + i, len)};
	}
	return k;
}

static void join_all(struct word *w)
{
	while (w->heap_n) {
		struct join j = pop(w);
		struct symbol *a = &w->s[(uint32_t)j.order];
		if (!a->n || a->next < 0 || a->n + w->s[a->next].n != j.n)
			continue;
		struct symbol *b = &w->s[a->next];
		a->n = j.n;
		a->id = j.id;
		a->next = b->next;
		b->n = 0;
		if (a->next >= 0)
			w->s[a->next].prev = (int32_t)(uint32_t)j.order;
		offer(w, a->prev);
		offer(w, (int32_t)(uint32_t)j.order);
	}
}

int text_spm_word(const struct stave_tokenizer *t, struct text_scratch *scratch, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err)
{
	/* n pairs at first, and two for each join */
	struct word w = {.t = t, .p = p, .s = text_scratch_take(scratch, n * (sizeof(struct symbol) + 3 * sizeof(struct join)) + 8)};
	if (!w.s)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to encode a word of %zu bytes", n);
	w.heap = (struct join *)(((uintptr_t)(w.s + n) + 7) & ~(uintptr_t)7);
	size_t count = characters(&w, n);
	for (size_t i = 0; i + 1 < count; i++)
		offer(&w, (int32_t)i);
	join_all(&w);
	bool unknown = false;
	for (int32_t i = count ? 0 : -1; i >= 0; i = w.s[i].next) {
		const struct symbol *a = &w.s[i];
		int put = 1;
		if (a->id >= 0)
			ids->p[ids->n] = a->id;
		else if ((put = text_fall_back(t, p + a->at, a->n, ids->p + ids->n, unknown)) < 0)
			return text_unencodable(t, p + a->at, a->n, err);
		unknown = a->id < 0 && (put == 0 || (put == 1 && ids->p[ids->n] == t->unknown));
		ids->n += (size_t)put;
	}
	return 0;
}
