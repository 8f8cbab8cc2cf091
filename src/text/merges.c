/* BPE training after the words are counted: find the most frequent pair of adjacent tokens, replace it everywhere, go on.
 *
 * What makes it fast is that little is touched. Each pair knows its count and a list of the words it was seen in, so a
 * merge visits only those (a list may name words where the pair has since vanished; they are skipped). The changes a
 * merge makes to other pairs' counts are gathered per neighbouring token, x before the pair and y behind it:
 *     (x, a) and (b, y) lose what (x, c) and (c, y) gain,      for a, b -> c
 * and applied once per neighbour, not once per place, so that the pair table is touched seldom. A heap holds pairs by a
 * count that is never too small; an entry found too large when it comes up is put back with its true count (lazy
 * deletion). Order: highest count, then the lower left id, then the lower right id; nothing else decides, so the result
 * depends neither on threads nor on the order of the words.
 *
 * Counts are of all adjacent places, overlapping ones too ("aaa" has two of a,a), which is what the published algorithm
 * counts; replacing goes left to right. A pair may spell a token that exists already (ab+c after a+bc): it then yields
 * that token, since a vocabulary is a set of spellings.
 *
 * A word is a record in one array of 32-bit numbers: count (two), length, tokens. */
#include "text/merges.h"

#include <stdlib.h>

#include "text/tokenizer.h"

#define RECORD 3       /* numbers before the tokens of a word */
#define PREFETCH 12    /* words ahead: a visit waits on memory and on nothing else */
#define BLOCK ((size_t)1 << 20)
#define COUNT_MIN 2    /* a pair seen once saves nothing anywhere else */

struct pair {
	uint64_t key;  /* left << 32 | right */
	int64_t count;
	uint32_t *list; /* words it was seen in */
	uint32_t n;
};

struct candidate {
	int64_t count;
	uint64_t key;
	uint32_t pair;
};

/* What a merge does beside one neighbouring token. */
struct neighbour {
	int64_t moved;     /* count that moves from the old pair to the new one */
	uint32_t words, at, last; /* places in the new pair's list; the word appended last */
};

struct side {
	struct neighbour *of; /* [tokens], all zero between merges */
	int32_t *touched;
	uint32_t *seen;       /* neighbour, word, neighbour, word … */
	uint32_t *sorted;     /* the words of seen, by neighbour */
	size_t n_touched, n_seen, cap_seen, cap_sorted;
};

/* Lists are cut from large blocks and never given back one by one. */
struct block {
	struct block *next;
	size_t size, used;
	uint32_t p[];
};

struct trainer {
	uint32_t *word; /* records */
	struct pair *pair;
	uint32_t n_pairs, cap_pairs;
	uint32_t *slot; /* hash of key -> index + 1 in pair */
	uint32_t mask;
	struct candidate *heap;
	size_t heap_n, heap_cap;
	struct side left, right;
	struct block *block;
	uint32_t *spelled; /* hash of spelling -> token + 1 */
	uint32_t spelled_mask;
};

/* ---- the pair table ---- */

static inline uint32_t pair_slot(uint64_t key, uint32_t mask)
{
	uint64_t h = key * 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32 ^ h >> 17) & mask;
}

static bool pairs_grow(struct trainer *b)
{
	uint32_t cap = b->cap_pairs ? 2 * b->cap_pairs : 1 << 16;
	struct pair *p = realloc(b->pair, (size_t)cap * sizeof *p);
	uint32_t *slot = calloc(2 * (size_t)cap, sizeof *slot);
	if (p)
		b->pair = p;
	if (!p || !slot || cap > UINT32_MAX / 4) {
		free(slot);
		return false;
	}
	b->cap_pairs = cap;
	b->mask = 2 * cap - 1;
	for (uint32_t i = 0; i < b->n_pairs; i++) {
		uint32_t k = pair_slot(p[i].key, b->mask);
		while (slot[k])
			k = (k + 1) & b->mask;
		slot[k] = i + 1;
	}
	free(b->slot);
	b->slot = slot;
	return true;
}

/* The pair's index; a new one has count 0. UINT32_MAX when memory is short. */
static uint32_t pair_get(struct trainer *b, int32_t left, int32_t right)
{
	uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	if (b->n_pairs == b->cap_pairs && !pairs_grow(b))
		return UINT32_MAX;
	uint32_t k = pair_slot(key, b->mask);
	for (; b->slot[k]; k = (k + 1) & b->mask)
		if (b->pair[b->slot[k] - 1].key == key)
			return b->slot[k] - 1;
	b->pair[b->n_pairs] = (struct pair){.key = key};
	b->slot[k] = ++b->n_pairs;
	return b->n_pairs - 1;
}

/* ---- the heap ---- */

static inline bool before(const struct candidate *a, const struct candidate *b)
{
	return a->count != b->count ? a->count > b->count : a->key < b->key;
}

static bool heap_push(struct trainer *b, uint32_t pair)
{
	struct candidate c = {b->pair[pair].count, b->pair[pair].key, pair};
	if (c.count < COUNT_MIN)
		return true;
	if (b->heap_n == b->heap_cap) {
		size_t cap = b->heap_cap ? 2 * b->heap_cap : 1 << 16;
		struct candidate *p = realloc(b->heap, cap * sizeof *p);
		if (!p)
			return false;
		b->heap = p;
		b->heap_cap = cap;
	}
	size_t i = b->heap_n++;
	for (; i && before(&c, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
		b->heap[i] = b->heap[(i - 1) / 2];
	b->heap[i] = c;
	return true;
}

static struct candidate heap_pop(struct trainer *b)
{
	struct candidate top = b->heap[0], c = b->heap[--b->heap_n];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < b->heap_n; i = child) {
		child += child + 1 < b->heap_n && before(&b->heap[child + 1], &b->heap[child]);
		if (!before(&b->heap[child], &c))
			break;
		b->heap[i] = b->heap[child];
	}
	b->heap[i] = c;
	return top;
}

/* The pair to merge next, or UINT32_MAX when none occurs twice. */
static uint32_t best_pair(struct trainer *b)
{
	while (b->heap_n) {
		struct candidate c = heap_pop(b);
		if (c.count == b->pair[c.pair].count)
			return c.pair;
		heap_push(b, c.pair); /* room for it was just freed */
	}
	return UINT32_MAX;
}

/* ---- one merge ---- */

static bool note(struct side *s, int32_t token, uint32_t word, int64_t count)
{
	struct neighbour *x = &s->of[token];
	if (!x->moved)
		s->touched[s->n_touched++] = token;
	x->moved += count;
	if (x->words && x->last == word)
		return true;
	if (s->n_seen + 2 > s->cap_seen) {
		size_t cap = s->cap_seen ? 2 * s->cap_seen : 1 << 14;
		uint32_t *p = realloc(s->seen, cap * sizeof *p);
		if (!p)
			return false;
		s->seen = p;
		s->cap_seen = cap;
	}
	s->seen[s->n_seen++] = (uint32_t)token;
	s->seen[s->n_seen++] = word;
	x->words++;
	x->last = word;
	return true;
}

static inline int64_t count_of(const uint32_t *record)
{
	return (int64_t)((uint64_t)record[1] << 32 | record[0]);
}

/* Replace l, r by c throughout one word, noting the neighbours of each place. */
static bool merge_word(struct trainer *b, uint32_t word, uint32_t l, uint32_t r, uint32_t c)
{
	uint32_t *record = b->word + word, *s = record + RECORD, n = record[2], i = 0, k;
	int64_t count = count_of(record);
	while (i + 1 < n && !(s[i] == l && s[i + 1] == r))
		i++;
	if (i + 1 >= n)
		return true;
	for (k = i; i < n;) {
		if (i + 1 >= n || s[i] != l || s[i + 1] != r) {
			s[k++] = s[i++];
			continue;
		}
		if (k && !note(&b->left, (int32_t)s[k - 1], word, count))
			return false;
		if (i + 2 < n && !note(&b->right, (int32_t)s[i + 2], word, count))
			return false;
		s[k++] = c;
		i += 2;
	}
	record[2] = k;
	return true;
}

/* n numbers that live until training ends. */
static uint32_t *take(struct trainer *b, size_t n)
{
	if (!b->block || b->block->used + n > b->block->size) {
		size_t size = n > BLOCK ? n : BLOCK;
		struct block *k = malloc(sizeof *k + size * sizeof(uint32_t));
		if (!k)
			return NULL;
		*k = (struct block){.next = b->block, .size = size};
		b->block = k;
	}
	uint32_t *p = b->block->p + b->block->used;
	b->block->used += n;
	return p;
}

/* Append the words of a neighbour to the list of its new pair. The pair is nearly always new indeed; only where the
 * merge spells a token that existed can it have a list already. */
static bool extend(struct trainer *b, struct pair *p, const uint32_t *words, uint32_t n)
{
	uint32_t *list = take(b, (size_t)p->n + n);
	if (!list)
		return false;
	if (p->n)
		memcpy(list, p->list, p->n * sizeof *list);
	memcpy(list + p->n, words, n * sizeof *list);
	p->list = list;
	p->n += n;
	return true;
}

/* The new pairs of one side, (x, c) or (c, y), get their counts and the words they are in. */
static bool gain(struct trainer *b, struct side *s, int32_t c, bool left)
{
	uint32_t at = 0;
	if (s->n_seen / 2 > s->cap_sorted) {
		free(s->sorted);
		s->cap_sorted = s->n_seen;
		if (!(s->sorted = malloc(s->cap_sorted * sizeof *s->sorted))) {
			s->cap_sorted = 0;
			return false;
		}
	}
	for (size_t i = 0; i < s->n_touched; i++) {
		struct neighbour *x = &s->of[s->touched[i]];
		x->at = at;
		at += x->words;
	}
	for (size_t i = 0; i < s->n_seen; i += 2)
		s->sorted[s->of[s->seen[i]].at++] = s->seen[i + 1];
	for (size_t i = 0; i < s->n_touched; i++) {
		int32_t t = s->touched[i];
		struct neighbour *x = &s->of[t];
		uint32_t k = left ? pair_get(b, t, c) : pair_get(b, c, t);
		if (k == UINT32_MAX)
			return false;
		b->pair[k].count += x->moved;
		/* A pair below the threshold now will never be merged, unless its token is spelled again: then it would lack
		 * these places, so its words are kept too. */
		if (!extend(b, &b->pair[k], s->sorted + x->at - x->words, x->words))
			return false;
	}
	return true;
}

/* The old pairs of one side, (x, l) or (r, y), lose theirs. */
static bool lose(struct trainer *b, const struct side *s, int32_t l, int32_t r, bool left)
{
	for (size_t i = 0; i < s->n_touched; i++) {
		int32_t t = s->touched[i];
		uint32_t k = left ? pair_get(b, t, l) : pair_get(b, r, t);
		if (k == UINT32_MAX)
			return false;
		b->pair[k].count -= s->of[t].moved;
	}
	return true;
}

static bool offer(struct trainer *b, struct side *s, int32_t c, bool left)
{
	for (size_t i = 0; i < s->n_touched; i++) {
		int32_t t = s->touched[i];
		uint32_t k = left ? pair_get(b, t, c) : pair_get(b, c, t);
		if (!heap_push(b, k))
			return false;
		s->of[t] = (struct neighbour){0};
	}
	s->n_touched = s->n_seen = 0;
	return true;
}

/* Replace the pair by c in every word. */
static bool apply(struct trainer *b, uint32_t pair, int32_t c)
{
	uint64_t key = b->pair[pair].key;
	int32_t l = (int32_t)(key >> 32), r = (int32_t)(uint32_t)key;
	const uint32_t *list = b->pair[pair].list;
	uint32_t n = b->pair[pair].n;
	for (uint32_t i = 0; i < n; i++) {
		if (i + PREFETCH < n)
			__builtin_prefetch(b->word + list[i + PREFETCH], 1);
		if (!merge_word(b, list[i], (uint32_t)l, (uint32_t)r, (uint32_t)c))
			return false;
	}
	bool ok = gain(b, &b->left, c, true) && gain(b, &b->right, c, false) && lose(b, &b->left, l, r, true) && lose(b, &b->right, l, r, false);
	b->pair[pair].count = 0;
	b->pair[pair].n = 0;
	return ok && offer(b, &b->left, c, true) && offer(b, &b->right, c, false);
}

/* ---- spellings ---- */

/* The token that l and r spell together: an old one, or the next. */
static int32_t spell(struct trainer *b, struct text_merges *m, int32_t l, int32_t r)
{
	struct text_spelling a = m->spelling[l], z = m->spelling[r], s = {(uint32_t)m->bytes.len, a.n + z.n};
	stave_buf_reserve(&m->bytes, s.n);
	stave_buf_put(&m->bytes, m->bytes.p + a.at, a.n);
	stave_buf_put(&m->bytes, m->bytes.p + z.at, z.n);
	uint32_t k = (uint32_t)text_hash(m->bytes.p + s.at, s.n) & b->spelled_mask;
	for (; b->spelled[k]; k = (k + 1) & b->spelled_mask) {
		const struct text_spelling *o = &m->spelling[b->spelled[k] - 1];
		if (o->n == s.n && !memcmp(m->bytes.p + o->at, m->bytes.p + s.at, s.n)) {
			m->bytes.len = s.at;
			return (int32_t)(b->spelled[k] - 1);
		}
	}
	m->spelling[m->tokens++] = s;
	b->spelled[k] = (uint32_t)m->tokens;
	return m->tokens - 1;
}

static bool spell_bytes(struct trainer *b, struct text_merges *m, int tokens)
{
	b->spelled_mask = 1023;
	while (b->spelled_mask < 2 * (uint32_t)tokens)
		b->spelled_mask = 2 * b->spelled_mask + 1;
	b->spelled = calloc((size_t)b->spelled_mask + 1, sizeof *b->spelled);
	m->spelling = malloc((size_t)tokens * sizeof *m->spelling);
	if (!b->spelled || !m->spelling)
		return false;
	for (int i = 0; i < 256; i++) {
		char c = (char)i;
		uint32_t k = (uint32_t)text_hash(&c, 1) & b->spelled_mask;
		while (b->spelled[k])
			k = (k + 1) & b->spelled_mask;
		m->spelling[m->tokens++] = (struct text_spelling){(uint32_t)m->bytes.len, 1};
		stave_buf_put(&m->bytes, &c, 1);
		b->spelled[k] = (uint32_t)m->tokens;
	}
	return true;
}

/* ---- the whole ---- */

/* Words of one byte have no pairs and are left out. */
static bool lay_out(struct trainer *b, const struct text_words *words, uint32_t *end)
{
	uint64_t size = 0;
	for (uint64_t i = 0; words->slot && i <= words->mask; i++)
		if (words->slot[i].count && words->slot[i].n > 1)
			size += RECORD + words->slot[i].n;
	if (size >= UINT32_MAX || !(b->word = malloc((size + 1) * sizeof *b->word)))
		return false;
	uint32_t at = 0;
	for (uint64_t i = 0; words->slot && i <= words->mask; i++) {
		const struct text_word *w = &words->slot[i];
		if (!w->count || w->n < 2)
			continue;
		const uint8_t *p = (const uint8_t *)text_word_bytes(words, w);
		uint32_t *record = b->word + at;
		record[0] = (uint32_t)w->count;
		record[1] = (uint32_t)(w->count >> 32);
		record[2] = w->n;
		for (uint32_t k = 0; k < w->n; k++)
			record[RECORD + k] = p[k];
		at += RECORD + w->n;
	}
	*end = at;
	return true;
}

/* The pairs of bytes: counts, then lists cut from one block, then filled. */
static bool count_pairs(struct trainer *b, uint32_t end)
{
	uint32_t *of = malloc(65536 * sizeof *of);
	bool ok = of != NULL;
	for (uint32_t k = 0; k < 65536 && ok; k++)
		ok = (of[k] = pair_get(b, (int32_t)(k >> 8), (int32_t)(k & 255))) != UINT32_MAX;
	for (int fill = 0; fill < 2 && ok; fill++) {
		for (uint32_t at = 0; at < end; at += RECORD + b->word[at + 2]) {
			const uint32_t *s = b->word + at + RECORD;
			for (uint32_t k = 0; k + 1 < b->word[at + 2]; k++) {
				struct pair *p = &b->pair[of[s[k] << 8 | s[k + 1]]];
				if (fill)
					p->list[p->n] = at;
				else
					p->count += count_of(b->word + at);
				p->n++;
			}
		}
		for (uint32_t k = 0; k < 65536 && !fill && ok; k++) {
			struct pair *p = &b->pair[of[k]];
			ok = (p->list = take(b, p->n)) != NULL;
			p->n = 0;
		}
	}
	for (uint32_t k = 0; k < 65536 && ok; k++)
		ok = heap_push(b, of[k]);
	free(of);
	return ok;
}

static bool run(struct trainer *b, struct text_merges *m, int tokens)
{
	int cap = 0;
	while (m->tokens < tokens) {
		uint32_t pair = best_pair(b);
		if (pair == UINT32_MAX)
			break;
		if (m->n == cap) {
			cap = cap ? 2 * cap : 4096;
			struct text_chosen *p = realloc(m->merge, (size_t)cap * sizeof *p);
			if (!p)
				return false;
			m->merge = p;
		}
		int32_t l = (int32_t)(b->pair[pair].key >> 32), r = (int32_t)(uint32_t)b->pair[pair].key;
		int32_t c = spell(b, m, l, r);
		m->merge[m->n++] = (struct text_chosen){l, r, c};
		if (!apply(b, pair, c))
			return false;
	}
	return true;
}

static void release(struct trainer *b)
{
	for (struct block *k = b->block, *next; k; k = next) {
		next = k->next;
		free(k);
	}
	for (int i = 0; i < 2; i++) {
		struct side *s = i ? &b->right : &b->left;
		free(s->of);
		free(s->touched);
		free(s->seen);
		free(s->sorted);
	}
	free(b->word);
	free(b->pair);
	free(b->slot);
	free(b->heap);
	free(b->spelled);
}

int text_merges_choose(struct text_merges *m, const struct text_words *words, int tokens, struct stave_err *err)
{
	struct trainer b = {0};
	uint32_t end = 0;
	*m = (struct text_merges){0};
	bool ok = true;
	for (int i = 0; i < 2; i++) {
		struct side *s = i ? &b.right : &b.left;
		s->of = calloc((size_t)tokens, sizeof *s->of);
		s->touched = malloc((size_t)tokens * sizeof *s->touched);
		ok = ok && s->of && s->touched;
	}
	ok = ok && spell_bytes(&b, m, tokens) && lay_out(&b, words, &end) && count_pairs(&b, end) && run(&b, m, tokens);
	release(&b);
	if (ok)
		return 0;
	text_merges_free(m);
	return stave_err_set(err, STAVE_ENOMEM, "no memory to choose %d tokens from %llu distinct words", tokens, (unsigned long long)words->used);
}

void text_merges_free(struct text_merges *m)
{
	free(m->merge);
	free(m->spelling);
	stave_buf_free(&m->bytes);
	*m = (struct text_merges){0};
}
