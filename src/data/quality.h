/* Private to data/: the quality rules of web corpora, and near-duplicates. Thresholds are FineWeb's (Penedo et al. 2024,
 * arXiv 2406.17557), which took them from Gopher (Rae et al. 2021, tables A1) and C4 (Raffel et al. 2020). */
#ifndef STAVE_DATA_QUALITY_H
#define STAVE_DATA_QUALITY_H

#include "data/corpus.h"

/* Scratch of one thread; zero-initialise. */
struct stave_word {
	const char *p;
	uint32_t bytes, chars; /* chars: code points */
	uint64_t hash;
	bool letter;           /* holds a letter */
	bool symbol;           /* holds neither letter nor digit */
};
struct stave_seen { /* a set or counter of hashes that is emptied in O(1) */
	struct stave_seen_slot {
		uint64_t key;
		uint32_t count, era;
	} *slot;
	size_t mask, used;
	uint32_t era;
};
struct stave_quality {
	struct stave_word *words;
	size_t n_words, cap_words;
	int64_t chars;          /* code points of the text last given to stave_quality_words */
	struct stave_seen seen;
	struct stave_buf lines; /* the text C4 leaves */
};
void stave_quality_free(struct stave_quality *q);

/* Splits text into words: a word is a run of letters, digits, marks and inner apostrophes, or a run of other
 * characters that are not spaces (a symbol). Must precede the Gopher and FineWeb rules on the same text. */
void stave_quality_words(struct stave_quality *q, const char *text, size_t n);
/* Each returns STAVE_V_TRAIN to keep, or the first rule broken. */
enum stave_verdict stave_gopher_repetition(struct stave_quality *q, const char *text, size_t n);
enum stave_verdict stave_gopher_quality(struct stave_quality *q, const char *text, size_t n);
enum stave_verdict stave_fineweb(struct stave_quality *q, const char *text, size_t n);
/* C4 judges lines: those it drops are left out of *out (in q->lines, valid until the next call). terminal_punctuation:
 * also drop lines that do not end a sentence (C4 does, FineWeb does not). *removed: lines dropped. */
enum stave_verdict stave_c4(struct stave_quality *q, const char *text, size_t n, bool terminal_punctuation, const char **out,
                            size_t *out_n, int64_t *removed);

/* ---- near-duplicates: near.c ---- */

#define STAVE_MINHASH_BUCKETS 14
#define STAVE_MINHASH_ROWS 8
#define STAVE_MINHASH (STAVE_MINHASH_BUCKETS * STAVE_MINHASH_ROWS)

/* Minima of 112 hash functions over the word 5-grams of the normalised text (lower case, no punctuation or diacritics,
 * numbers as 0); a text of fewer words is one gram. false: no words at all. `word` is scratch. */
bool stave_minhash(const char *text, size_t n, struct stave_buf *word, uint32_t signature[STAVE_MINHASH]);
/* One 64-bit key per bucket; equal keys in any bucket make two documents candidates. */
void stave_minhash_keys(const uint32_t signature[STAVE_MINHASH], uint64_t keys[STAVE_MINHASH_BUCKETS]);
/* keys (n, BUCKETS): keeper[i] = the first document of i's cluster, i itself when it stays. */
int stave_near_clusters(const uint64_t *keys, size_t n, uint32_t *keeper, struct stave_err *err);

#endif
