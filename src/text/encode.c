/* Encoding: added tokens are cut out of the text, what lies between is normalized (normalize.c), split into words, and each word
 * becomes ids by the model. Here the model is BPE: a word's bytes (or characters) are merged pair by pair, lowest rank first,
 * leftmost among equals; the others are in files of their names.
 *
 * Natural text repeats its words, so an encoder keeps a direct-mapped cache of words and their ids, one cache line each;
 * a hit costs a hash and a comparison. Misses merge in place in the output: short words by scanning the ranks of their
 * pairs, long ones with a heap, so that a megabyte without a space costs n log n. Ids are appended to the caller's list
 * and taken back on failure. */
#include <stdio.h>
#include <stdlib.h>

#include "text/tokenizer.h"

#define CACHE_SLOTS 32768 /* 2 MiB: fits a core's second-level cache */
#define CACHE_WORD 26
#define CACHE_IDS 8
#define SCAN_MAX 64       /* longest word, in symbols, that is merged by scanning */
#define WORD_MAX ((size_t)1 << 29)

struct cached {
	uint32_t tag;
	uint8_t len, n; /* bytes of the word (0: empty slot), ids */
	char word[CACHE_WORD];
	int32_t ids[CACHE_IDS];
};

/* Per symbol of a long word: its neighbours, and the merge with the right one. */
struct node {
	int32_t prev, next, rank, to; /* rank -1: no merge, or the symbol is gone */
};

struct stave_encoder {
	const struct stave_tokenizer *t;
	struct cached *cache;
	struct text_splitter splitter;
	struct text_spans spans[TEXT_STEPS_MAX];
	struct stave_buf norm[2];
	struct node *node;
	uint64_t *heap; /* rank << 32 | position */
	size_t long_cap, heap_n;
	struct text_scratch scratch; /* of the other models */
	struct stave_ids *ids;
	struct stave_err *err;
};

int stave_encoder_open(struct stave_encoder **out, const struct stave_tokenizer *t, struct stave_err *err)
{
	struct stave_encoder *e = calloc(1, sizeof *e);
	if (!e || !(e->cache = aligned_alloc(64, CACHE_SLOTS * sizeof *e->cache))) {
		free(e);
		return stave_err_set(err, STAVE_ENOMEM, "no memory for an encoder");
	}
	e->t = t;
	memset(e->cache, 0, CACHE_SLOTS * sizeof *e->cache);
	int rc = text_splitter_open(&e->splitter, err);
	if (rc)
		stave_encoder_free(e);
	else
		*out = e;
	return rc;
}

void stave_encoder_free(struct stave_encoder *e)
{
	if (!e)
		return;
	for (int i = 0; i < TEXT_STEPS_MAX; i++)
		free(e->spans[i].p);
	stave_buf_free(&e->norm[0]);
	stave_buf_free(&e->norm[1]);
	text_splitter_close(&e->splitter);
	free(e->cache);
	free(e->node);
	free(e->heap);
	free(e->scratch.p);
	free(e);
}

const struct stave_tokenizer *text_encoder_tokenizer(const struct stave_encoder *e)
{
	return e->t;
}

/* ---- lists of ids ---- */

void stave_ids_free(struct stave_ids *ids)
{
	free(ids->p);
	*ids = (struct stave_ids){0};
}

static bool reserve(struct stave_ids *ids, size_t more)
{
	if (ids->n + more <= ids->cap)
		return true;
	size_t cap = ids->cap ? 2 * ids->cap : 256;
	if (cap < ids->n + more)
		cap = ids->n + more;
	int32_t *p = realloc(ids->p, cap * sizeof *p);
	if (!p)
		return false;
	ids->p = p;
	ids->cap = cap;
	return true;
}

void stave_ids_put(struct stave_ids *ids, int32_t id)
{
	if (!reserve(ids, 1)) {
		fprintf(stderr, "stave: out of memory for %zu token ids\n", ids->n);
		abort();
	}
	ids->p[ids->n++] = id;
}

/* ---- merging ---- */

static inline void look(const struct stave_tokenizer *t, int32_t left, int32_t right, int32_t *rank, int32_t *to)
{
	const struct text_merge *m = text_merge_find(t, left, right);
	*rank = m ? m->rank : INT32_MAX;
	*to = m ? m->id : 0;
}

/* Merge s[0..n) in place; returns the new length. */
static size_t merge_scan(const struct stave_tokenizer *t, int32_t *s, size_t n)
{
	int32_t rank[SCAN_MAX], to[SCAN_MAX]; /* of the pair (s[i], s[i + 1]) */
	for (size_t i = 0; i + 1 < n; i++)
		look(t, s[i], s[i + 1], &rank[i], &to[i]);
	while (n > 1) {
		size_t at = 0;
		for (size_t i = 1; i + 1 < n; i++)
			if (rank[i] < rank[at])
				at = i;
		if (rank[at] == INT32_MAX)
			break;
		s[at] = to[at];
		n--;
		for (size_t i = at + 1; i < n; i++)
			s[i] = s[i + 1];
		for (size_t i = at + 1; i + 1 < n; i++) {
			rank[i] = rank[i + 1];
			to[i] = to[i + 1];
		}
		if (at > 0)
			look(t, s[at - 1], s[at], &rank[at - 1], &to[at - 1]);
		if (at + 1 < n)
			look(t, s[at], s[at + 1], &rank[at], &to[at]);
	}
	return n;
}

static void heap_push(struct stave_encoder *e, uint64_t key)
{
	size_t i = e->heap_n++;
	for (; i && e->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
		e->heap[i] = e->heap[(i - 1) / 2];
	e->heap[i] = key;
}

static uint64_t heap_pop(struct stave_encoder *e)
{
	uint64_t top = e->heap[0], key = e->heap[--e->heap_n];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < e->heap_n; i = child) {
		child += child + 1 < e->heap_n && e->heap[child + 1] < e->heap[child];
		if (e->heap[child] >= key)
			break;
		e->heap[i] = e->heap[child];
	}
	e->heap[i] = key;
	return top;
}

/* Note the merge of the symbol at i with its right neighbour, if there is one. */
static void consider(struct stave_encoder *e, const int32_t *s, int32_t i)
{
	struct node *a = &e->node[i];
	a->rank = -1;
	if (a->next < 0)
		return;
	const struct text_merge *m = text_merge_find(e->t, s[i], s[a->next]);
	if (!m)
		return;
	a->rank = m->rank;
	a->to = m->id;
	heap_push(e, (uint64_t)m->rank << 32 | (uint32_t)i);
}

static size_t merge_heap(struct stave_encoder *e, int32_t *s, size_t n)
{
	struct node *node = e->node;
	e->heap_n = 0;
	for (size_t i = 0; i < n; i++)
		node[i] = (struct node){(int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1, -1, 0};
	for (size_t i = 0; i + 1 < n; i++)
		consider(e, s, (int32_t)i);
	while (e->heap_n) {
		uint64_t key = heap_pop(e);
		int32_t i = (int32_t)(uint32_t)key, j = node[i].next;
		if (node[i].rank != (int32_t)(key >> 32))
			continue; /* the pair has changed since */
		s[i] = node[i].to;
		node[j].rank = -1;
		node[i].next = node[j].next;
		if (node[i].next >= 0)
			node[node[i].next].prev = i;
		consider(e, s, i);
		if (node[i].prev >= 0)
			consider(e, s, node[i].prev);
	}
	size_t k = 0;
	for (int32_t i = 0; i >= 0; i = node[i].next)
		s[k++] = s[i];
	return k;
}

static int merge(struct stave_encoder *e, int32_t *s, size_t n, size_t *left)
{
	if (n < 2 || !e->t->n_merges) {
		*left = n;
		return 0;
	}
	if (n <= SCAN_MAX) {
		*left = merge_scan(e->t, s, n);
		return 0;
	}
	if (n > e->long_cap) {
		free(e->node);
		free(e->heap);
		e->node = malloc(n * sizeof *e->node);
		e->heap = malloc(3 * n * sizeof *e->heap); /* n pairs at first, two per merge */
		e->long_cap = e->node && e->heap ? n : 0;
		if (!e->long_cap)
			return stave_err_set(e->err, STAVE_ENOMEM, "no memory to encode a word of %zu symbols", n);
	}
	*left = merge_heap(e, s, n);
	return 0;
}

/* ---- words ---- */

void *text_scratch_take(struct text_scratch *s, size_t size)
{
	if (size <= s->size)
		return s->p;
	free(s->p);
	s->p = malloc(size);
	s->size = s->p ? size : 0;
	return s->p;
}

int text_unencodable(const struct stave_tokenizer *t, const uint8_t *p, size_t n, struct stave_err *err)
{
	uint32_t cp;
	text_utf8_next(p, n, &cp);
	if (t->byte_level || cp == TEXT_INVALID)
		return stave_err_set(err, STAVE_EUSAGE, "the tokenizer has no token for byte 0x%02x and no unknown token", p[0]);
	return stave_err_set(err, STAVE_EUSAGE, "the tokenizer has no token for the character U+%04X and no unknown token; prepare with byte or bpe:N to take any text", cp);
}

int text_fall_back(const struct stave_tokenizer *t, const uint8_t *p, size_t len, int32_t *s, bool after_unknown)
{
	bool bytes = t->byte_fallback;
	for (size_t k = 0; k < len && bytes; k++)
		bytes = (s[k] = t->byte_id[p[k]]) >= 0;
	if (bytes)
		return (int)len;
	if (t->unknown < 0)
		return -1;
	if (after_unknown && t->fuse_unknown)
		return 0;
	s[0] = t->unknown;
	return 1;
}

/* The unmerged symbols of a word; s has room for n. */
static int symbols(struct stave_encoder *e, const uint8_t *p, size_t n, int32_t *s, size_t *count)
{
	const struct stave_tokenizer *t = e->t;
	size_t k = 0;
	bool was_unknown = false;
	if (t->byte_level) {
		for (size_t i = 0; i < n; i++) {
			s[k] = t->byte_id[p[i]];
			if (s[k] < 0 && (s[k] = t->unknown) < 0)
				return text_unencodable(t, p + i, n - i, e->err);
			k++;
		}
		*count = k;
		return 0;
	}
	for (size_t i = 0, len; i < n; i += len) {
		uint32_t cp;
		len = text_utf8_next(p + i, n - i, &cp);
		int32_t id = text_word_find(t, p + i, len);
		if (id >= 0) {
			s[k++] = id;
			was_unknown = false;
			continue;
		}
		int put = text_fall_back(t, p + i, len, s + k, was_unknown);
		if (put < 0)
			return text_unencodable(t, p + i, len, e->err);
		was_unknown = put == 0 || (put == 1 && s[k] == t->unknown);
		k += (size_t)put;
	}
	*count = k;
	return 0;
}

static int merge_word(struct stave_encoder *e, const uint8_t *p, size_t n)
{
	const struct stave_tokenizer *t = e->t;
	struct stave_ids *ids = e->ids;
	size_t count = 0;
	if (t->ignore_merges || (t->whole_newlines && p[0] == '\n' && p[n - 1] == '\n')) {
		int32_t id = text_word_find(t, p, n);
		if (id >= 0) {
			ids->p[ids->n++] = id;
			return 0;
		}
	}
	int rc = symbols(e, p, n, ids->p + ids->n, &count);
	if (!rc)
		rc = merge(e, ids->p + ids->n, count, &count);
	if (!rc)
		ids->n += count;
	return rc;
}

static int level_word(struct stave_encoder *e, const uint8_t *p, size_t n)
{
	int32_t id = text_word_find(e->t, p, n);
	if (id < 0 && (id = e->t->unknown) < 0)
		return stave_err_set(e->err, STAVE_EUSAGE, "the tokenizer has no token for the word \"%.*s\" and no unknown token", (int)(n < 80 ? n : 80), (const char *)p);
	e->ids->p[e->ids->n++] = id;
	return 0;
}

/* A word that is not in the cache. No model makes more ids than bytes. */
static int encode_fresh(struct stave_encoder *e, const uint8_t *p, size_t n)
{
	const struct stave_tokenizer *t = e->t;
	struct stave_ids *ids = e->ids;
	if (n > WORD_MAX)
		return stave_err_set(e->err, STAVE_EUSAGE, "a word of %zu bytes is too long to encode", n);
	if (!reserve(ids, n))
		return stave_err_set(e->err, STAVE_ENOMEM, "no memory for the ids of %zu bytes", n);
	switch (t->model) {
	case TEXT_SPM:
		return text_spm_word(t, &e->scratch, p, n, ids, e->err);
	case TEXT_UNIGRAM:
		return text_unigram_word(t, &e->scratch, p, n, ids, e->err);
	case TEXT_WORDPIECE:
		return text_wordpiece_word(t, &e->scratch, p, n, ids, e->err);
	case TEXT_WORDLEVEL:
		return level_word(e, p, n);
	case TEXT_BPE:
		break;
	}
	return merge_word(e, p, n);
}

static inline int encode_word(struct stave_encoder *e, const uint8_t *p, size_t n)
{
	if (n > CACHE_WORD)
		return encode_fresh(e, p, n);
	struct stave_ids *ids = e->ids;
	uint64_t h = text_hash(p, n);
	struct cached *c = &e->cache[h % CACHE_SLOTS];
	uint32_t tag = (uint32_t)(h >> 32);
	if (c->tag == tag && c->len == n && !memcmp(c->word, p, n)) {
		if (!reserve(ids, CACHE_IDS))
			return stave_err_set(e->err, STAVE_ENOMEM, "no memory for %zu ids", ids->n);
		memcpy(ids->p + ids->n, c->ids, sizeof c->ids); /* all of them: one store beats a loop */
		ids->n += c->n;
		return 0;
	}
	size_t at = ids->n;
	int rc = encode_fresh(e, p, n);
	if (!rc && ids->n - at <= CACHE_IDS) {
		c->tag = tag;
		c->len = (uint8_t)n;
		c->n = (uint8_t)(ids->n - at);
		memcpy(c->word, p, n);
		memcpy(c->ids, ids->p + at, c->n * sizeof *c->ids);
	}
	return rc;
}

/* Split p[0..n) by the steps from `step` on and encode the words. */
static int encode_pieces(struct stave_encoder *e, int step, const uint8_t *p, size_t n)
{
	const struct stave_tokenizer *t = e->t;
	if (step == t->n_splits)
		return n ? encode_word(e, p, n) : 0;
	text_next_fn next = text_split_next(t->split[step].kind);
	bool leaf = step + 1 == t->n_splits;
	if (next) {
		for (size_t i = 0, end; i < n; i = end) {
			end = next(p, i, n);
			int rc = leaf ? encode_word(e, p + i, end - i) : encode_pieces(e, step + 1, p + i, end - i);
			if (rc)
				return rc;
		}
		return 0;
	}
	struct text_spans *spans = &e->spans[step];
	int rc = text_split_regex(&e->splitter, &t->split[step], p, n, spans, e->err);
	for (size_t i = 0; i < spans->n && !rc; i++)
		rc = encode_pieces(e, step + 1, p + spans->p[i].begin, spans->p[i].end - spans->p[i].begin);
	return rc;
}

/* ---- stretches between added tokens ---- */

/* `first`: p is the beginning of the whole text. */
static int encode_segment(struct stave_encoder *e, const char *p, size_t n, bool first)
{
	size_t bound = 64 * n + 4096; /* replacing over and over can grow without end; a real normalizer triples at most */
	int spare = 0; /* the buffer that p does not lie in */
	for (int i = 0; i < e->t->n_ops && n; i++) {
		int rc = text_op_apply(e->t, &e->t->op[i], &e->splitter, &e->spans[0], first, bound, &p, &n, &e->norm[spare], e->err);
		if (rc)
			return rc;
		spare ^= p == e->norm[spare].p;
	}
	return encode_pieces(e, 0, (const uint8_t *)p, n);
}

/* ---- added tokens ---- */

static bool is_word(const uint8_t *p, size_t n)
{
	size_t len;
	return text_class_at(p, n, &len) & (TEXT_LETTER | TEXT_NUMBER) || *p == '_';
}

static bool stands_alone(const uint8_t *p, size_t from, size_t to, size_t n)
{
	size_t before = from;
	while (before && from - before < 4 && (before == from || (p[before] & 0xc0) == 0x80))
		before--;
	return !(before < from && is_word(p + before, from - before)) && !(to < n && is_word(p + to, n - to));
}

/* Where special tokens are read: everywhere, nowhere, or in the bytes that are marked. */
struct trust {
	bool everywhere;
	const uint8_t *own; /* one per byte of the text, or NULL */
};

static bool trusted(struct trust s, size_t at, size_t n)
{
	return s.everywhere || (s.own && !memchr(s.own + at, 0, n));
}

/* The first added token at or after i: the longest one at the leftmost place. */
static const struct text_added *next_added(const struct stave_tokenizer *t, const uint8_t *p, size_t i, size_t n, struct trust s, size_t *at)
{
	int row = s.everywhere || s.own; /* of added_first */
	for (; i < n; i++) {
		if (!t->added_first[row][p[i]])
			continue;
		for (int k = 0; k < t->n_added_len; k++) {
			size_t len = t->added_len[k];
			const struct text_added *a = len <= n - i ? text_added_find(t, p + i, len) : NULL;
			if (a && (!a->special || trusted(s, i, len)) && (!a->single_word || stands_alone(p, i, i + len, n))) {
				*at = i;
				return a;
			}
		}
	}
	return NULL;
}

static int encode_text(struct stave_encoder *e, const char *text, size_t n, struct trust s)
{
	const struct stave_tokenizer *t = e->t;
	const struct text_added *a;
	size_t from = 0, at;
	while (t->n_added && (a = next_added(t, (const uint8_t *)text, from, n, s, &at))) {
		const char *p = text + from, *rest = text + at + a->content.n;
		size_t len = at - from, rest_n = n - at - a->content.n;
		if (a->lstrip)
			text_strip(false, &p, &len);
		if (a->rstrip)
			text_strip(true, &rest, &rest_n);
		int rc = len ? encode_segment(e, p, len, from == 0) : 0;
		if (rc)
			return rc;
		if (!reserve(e->ids, 1))
			return stave_err_set(e->err, STAVE_ENOMEM, "no memory for %zu ids", e->ids->n);
		e->ids->p[e->ids->n++] = a->id;
		from = n - rest_n;
	}
	return from < n ? encode_segment(e, text + from, n - from, from == 0) : 0;
}

static int encode(struct stave_encoder *e, const char *text, size_t n, struct trust s, struct stave_ids *ids, struct stave_err *err)
{
	size_t before = ids->n;
	e->ids = ids;
	e->err = err;
	int rc = encode_text(e, text, n, s);
	if (rc)
		ids->n = before;
	return rc;
}

int stave_encode(struct stave_encoder *e, const char *text, size_t n, bool specials, struct stave_ids *ids, struct stave_err *err)
{
	return encode(e, text, n, (struct trust){.everywhere = specials}, ids, err);
}

int stave_encode_marked(struct stave_encoder *e, const char *text, size_t n, const uint8_t *own, struct stave_ids *ids, struct stave_err *err)
{
	return encode(e, text, n, (struct trust){.own = own}, ids, err);
}
