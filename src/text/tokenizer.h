/* The tokenizer's tables, private to text/. Made once by tables.c from what tokenizer_json.c reads out of a document (a file,
 * or one composed by tokenizer.c) or tokenizer_gguf.c out of a GGUF's keys, and never changed after; only the canonical
 * document of a GGUF's tokenizer is written when it is first asked for (document.c). */
#ifndef STAVE_TEXT_TOKENIZER_H
#define STAVE_TEXT_TOKENIZER_H

#include <jansson.h>
#include <pthread.h>
#include <string.h>

#include "text/split.h"
#include "text/text.h"
#include "text/unicode.h"

#define TEXT_STEPS_MAX 16
#define TEXT_VOCAB_MAX (1 << 21)
#define TEXT_TOKEN_MAX 65535  /* bytes of one token */
#define TEXT_MERGES_MAX (1 << 22)
#define TEXT_PIECE_MAX 1024   /* bytes of a token that Unigram or WordPiece looks for: bounds the work per character */
#define TEXT_MARK "\xe2\x96\x81" /* U+2581, what SentencePiece writes for a space */
#define TEXT_MARK_N 3

/* Flags of a token. */
#define TEXT_PRESENT 1
#define TEXT_SPECIAL 2
#define TEXT_ADDED 4   /* found in the text before the model sees it */
#define TEXT_BYTE 8    /* <0xNN>: comes of a byte, not of its spelling */
#define TEXT_UNUSED 16 /* never comes of a text */
#define TEXT_STOP 32   /* ends an answer */

/* What turns a word into ids: merges by rank; merges by the score of what comes out (SentencePiece); the segmentation of
 * the highest sum of scores; the longest match from the left; the whole word. */
enum text_model { TEXT_BPE, TEXT_SPM, TEXT_UNIGRAM, TEXT_WORDPIECE, TEXT_WORDLEVEL };

struct text_bytes {
	uint32_t at, n; /* into the tokenizer's blob */
};

/* A merge: the pair (left << 32 | right) becomes id; lower rank first. Open addressing, empty slots have rank -1. */
struct text_merge {
	uint64_t pair;
	int32_t rank, id;
};

/* A token that is found in the text before anything else is done to it. */
struct text_added {
	struct text_bytes content;
	int32_t id;
	bool special, lstrip, rstrip, single_word;
};

enum text_op_kind {
	TEXT_OP_FORM, TEXT_OP_STRIP_LEFT, TEXT_OP_STRIP_RIGHT, TEXT_OP_PREPEND, TEXT_OP_REPLACE,
	TEXT_OP_MATCHES,      /* replace what a pattern matches */
	TEXT_OP_WORDS,        /* words between white space, each behind `to` */
	TEXT_OP_TRIM,         /* runs of spaces become one, none at the ends */
	TEXT_OP_STRIP_MARKS,  /* drop combining marks (Mn) */
	TEXT_OP_CLEAN,        /* drop controls, white space becomes a space */
	TEXT_OP_CHINESE,      /* a space before and after each CJK ideograph */
	TEXT_OP_CHARSMAP,
};
/* One step of normalization. */
struct text_op {
	enum text_op_kind kind;
	enum text_form form;
	bool absent_only, first_only; /* PREPEND: not if the text begins with it; only at the start of the whole text */
	struct text_bytes from, to;
	struct text_split pattern;    /* MATCHES */
};

/* SentencePiece's table of character sequences and what replaces them: a trie in a double array (Aoe 1989, as the darts-clone
 * library packs it) whose values are offsets of NUL-terminated strings. */
struct text_charsmap {
	uint32_t *unit;
	size_t units;
	char *text; /* ends with NUL */
	size_t text_n;
	char *raw;  /* as it came, for writing it back */
	size_t raw_n;
};

struct stave_tokenizer {
	enum text_model model;
	int vocab;
	struct stave_buf blob;   /* all token texts; files are bounded, so 32-bit offsets hold */
	struct text_bytes *text; /* [vocab] what the encoder matches: raw bytes for byte-level, else the token as spelled */
	struct text_bytes *out;  /* [vocab] what the decoder writes */
	uint8_t *flags;          /* [vocab] TEXT_PRESENT …; ids may have holes */
	float *score;            /* [vocab] SPM and Unigram, else NULL */
	int32_t *word;           /* hash of text -> id, -1 empty; only tokens that merging may reach */
	uint32_t word_mask;
	struct text_merge *merge;
	uint32_t merge_mask;
	int n_merges;
	uint64_t *prefix;        /* Unigram, WordPiece: hashed set of the beginnings of words, so that a search knows when to end */
	uint32_t prefix_mask;    /* in bits */
	uint32_t longest;        /* bytes of the longest word */
	double unknown_score;    /* Unigram */
	char inner[16];          /* WordPiece: what a piece inside a word begins with */
	int inner_n, word_chars_max;

	bool byte_level, byte_fallback, ignore_merges, fuse_unknown, strip_prefix;
	bool whole_newlines;     /* a run of line ends is its own token where there is one, whatever the merges say */
	int32_t byte_id[256]; /* of the single byte, -1: none */
	int32_t unknown, bos, eos, eot, eom;
	bool add_bos, add_eos;

	struct text_op op[TEXT_STEPS_MAX];
	int n_ops;
	struct text_charsmap charsmap;
	struct text_split split[TEXT_STEPS_MAX];
	struct text_bytes pattern[TEXT_STEPS_MAX]; /* what each was made from; none for one that we put there */
	int n_splits;

	struct text_added *added;
	int n_added;
	int32_t *added_slot; /* hash of content -> index in added, -1 empty */
	uint32_t added_mask;
	uint8_t added_first[2][256]; /* [all][byte]: does one begin so; row 0 without the special ones */
	uint32_t *added_len;         /* distinct lengths, longest first */
	int n_added_len;

	char *chat_template;  /* NULL: none */
	/* Canonical tokenizer.json and tokenizer_config.json. json is NULL for a GGUF's tokenizer until text_document is called. */
	pthread_mutex_t lock;
	char *json, *config;
	size_t json_n, config_n;
	char sha256[65];
};

/* A token as its source spells it; the bytes belong to the source. */
struct text_piece {
	const char *p;
	size_t n;
	int32_t id;
	float score;
	uint8_t flags; /* TEXT_BYTE, TEXT_UNUSED */
};
struct text_pair {
	const char *left, *right;
	size_t left_n, right_n;
};
struct text_add {
	const char *p;
	size_t n;
	int32_t id;
	bool special, lstrip, rstrip, single_word;
};

/* What a source says, on its way into the tables. */
struct text_reader {
	struct stave_tokenizer *t;
	const char *what;
	struct stave_err *err;
	struct text_piece *piece;
	size_t n_pieces;
	struct text_pair *pair;
	size_t n_pairs;
	struct text_add *add;
	size_t n_adds;
	bool barren_merges; /* merges may yield what is no token, as in some GGUF files; they are dropped */
	int32_t *spelled;   /* hash of a spelling -> index in piece, -1 empty */
	uint32_t spelled_mask;
	struct text_bytes decode_from, decode_to; /* the decoder's Replace; from.n == 0: none */
	bool decode_bytes;                        /* the decoder turns <0xNN> into a byte */
	bool decode_words, decode_cleanup;        /* the decoder puts a space before each word, but not before punctuation */
	const char *template_bos, *template_eos;  /* what the post-processor puts first and last; NULL: nothing */
};

/* ---- tables.c ---- */

/* An empty tokenizer into r->t. */
int text_new(struct text_reader *r);
/* Fills the tables from r->piece, add and pair; text_read_components or its like comes before. STAVE_ECORRUPT for what cannot
 * be: two tokens of one id or one spelling, a merge of what is no token. */
int text_build(struct text_reader *r);
/* The id of a spelling among pieces and added tokens, -1: none. After text_build. */
int32_t text_spelled(const struct text_reader *r, const char *p, size_t n);
/* Frees the reader's own arrays. */
void text_reader_close(struct text_reader *r);
/* "<0x41>" -> 0x41, else -1. */
int text_fallback_byte(const char *token, size_t n);
int text_no_memory(struct text_reader *r);
/* Is it one of the names that models give the token that ends a turn, a message or a text. */
bool text_is_stop_name(const char *p, size_t n);
/* The chat template; NULL or empty: none. */
int text_set_template(struct text_reader *r, const char *text);

/* ---- tokenizer_json.c, components.c, document.c ---- */

/* Where tokenizer.c puts generation_config.json's eos_token_id into the configuration, beside what may be in the file itself. */
#define TEXT_STOPS "stave:stops"
/* Takes over both documents, also on error; config may be NULL. `what` names the source in errors. */
int text_tokenizer_from_json(struct stave_tokenizer **out, json_t *root, json_t *config, const char *what, struct stave_err *err);
/* Normalizer, pre-tokenizer, decoder and post-processor of the document. */
int text_read_components(struct text_reader *r, const json_t *root);
/* Steps, as text_read_components and tokenizer_gguf.c add them; STAVE_ECORRUPT beyond TEXT_STEPS_MAX. NULL when full. */
struct text_op *text_add_op(struct text_reader *r, enum text_op_kind kind);
int text_add_form(struct text_reader *r, enum text_form form);
int text_add_prepend(struct text_reader *r, const char *p, size_t n, bool absent_only, bool first_only);
int text_add_replace(struct text_reader *r, const char *from, size_t from_n, const char *to, size_t to_n);
int text_add_charsmap(struct text_reader *r, const void *p, size_t n);
int text_add_bert(struct text_reader *r, bool clean, bool chinese, bool accents, bool lower);
int text_add_bert_splits(struct text_reader *r);
int text_add_split(struct text_reader *r, const char *pattern, size_t n, bool literal, enum text_behavior behavior, bool invert);
/* Writes t->json, config and sha256 if they are not there yet. */
int text_document(const struct stave_tokenizer *t, struct stave_err *err);
/* Appends to the blob. */
struct text_bytes text_keep(struct stave_tokenizer *t, const void *p, size_t n);

/* ---- pre.c: GGUF's names for what comes before byte-level merges ---- */

#define TEXT_PRE_PATTERNS 6
struct text_pre {
	const char *name;
	const char *pattern[TEXT_PRE_PATTERNS]; /* applied one after the other, each Isolated */
	bool nfc, ignore_merges, bos;           /* bos: added unless the file says otherwise */
	bool raw;                               /* characters and <0xNN>, U+2581 for a space; not mapped bytes */
};
const struct text_pre *text_pre_find(const char *name); /* NULL: none of that name */
/* The name under which a GGUF reader does what t does; NULL: there is none. */
const struct text_pre *text_pre_of(const struct stave_tokenizer *t);

/* ---- normalize.c ---- */

/* Apply one step to *p, *n; the result lies in out or in the text itself, and has at most about `bound` bytes (STAVE_EFAIL).
 * `first`: p is the beginning of the whole text. */
int text_op_apply(const struct stave_tokenizer *t, const struct text_op *op, struct text_splitter *w, struct text_spans *spans, bool first, size_t bound,
                  const char **p, size_t *n, struct stave_buf *out, struct stave_err *err);
/* Takes white space from the left end or the right. */
void text_strip(bool left, const char **p, size_t *n);

/* ---- charsmap.c ---- */

/* p[0..n) as SentencePiece stores it. STAVE_ECORRUPT when its parts do not lie within it. */
int text_charsmap_open(struct text_charsmap *m, const void *p, size_t n, const char *what, struct stave_err *err);
void text_charsmap_close(struct text_charsmap *m);
/* Appends the mapped text to out, which may grow to `bound` bytes. */
int text_charsmap_apply(const struct text_charsmap *m, const char *p, size_t n, size_t bound, struct stave_buf *out, struct stave_err *err);

/* ---- the models: one word p[0..n) to ids, appended; room for n is reserved by the caller ---- */

/* Memory for the longest word so far. */
struct text_scratch {
	void *p;
	size_t size;
};
/* At least `size` bytes, NULL when memory is short; what was there is lost. */
void *text_scratch_take(struct text_scratch *s, size_t size);
int text_spm_word(const struct stave_tokenizer *t, struct text_scratch *s, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err);
int text_unigram_word(const struct stave_tokenizer *t, struct text_scratch *s, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err);
int text_wordpiece_word(const struct stave_tokenizer *t, struct text_scratch *s, const uint8_t *p, size_t n, struct stave_ids *ids, struct stave_err *err);
/* Ids for one character the vocabulary lacks: its bytes, or the unknown token unless `after_unknown` and they are fused. Returns
 * how many were put at s, or -1 when the tokenizer has neither. */
int text_fall_back(const struct stave_tokenizer *t, const uint8_t *p, size_t len, int32_t *s, bool after_unknown);
/* STAVE_EUSAGE that names the character at p[0..n). */
int text_unencodable(const struct stave_tokenizer *t, const uint8_t *p, size_t n, struct stave_err *err);
/* Can p[0..n) be the beginning of a word of the vocabulary? May say yes wrongly. */
static inline bool text_may_begin(const struct stave_tokenizer *t, uint64_t hash)
{
	uint32_t bit = (uint32_t)(hash >> 32) & t->prefix_mask;
	return t->prefix[bit / 64] >> bit % 64 & 1;
}

const struct stave_tokenizer *text_encoder_tokenizer(const struct stave_encoder *e);

/* GPT-2's map of the 256 bytes to printable characters: the code point of a byte, and back (-1: not in the map). */
uint32_t text_byte_char(uint8_t byte);
int text_char_byte(uint32_t cp);

static inline uint64_t text_hash(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint64_t h = n * 0x9e3779b97f4a7c15u, v;
	for (; n >= 8; n -= 8, b += 8) {
		memcpy(&v, b, 8);
		h = (h ^ v) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	if (n >= 4) {
		uint32_t lo, hi;
		memcpy(&lo, b, 4);
		memcpy(&hi, b + n - 4, 4);
		v = (uint64_t)hi << 32 | lo;
	} else if (n) {
		v = (uint64_t)b[0] << 16 | (uint64_t)b[n >> 1] << 8 | b[n - 1];
	} else {
		v = 0;
	}
	h = (h ^ v) * 0xff51afd7ed558ccdu;
	h ^= h >> 32;
	h *= 0xc4ceb9fe1a85ec53u;
	return h ^ h >> 29;
}

static inline uint32_t text_merge_slot(uint64_t pair, uint32_t mask)
{
	return (uint32_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & mask;
}

/* The merge of a pair, or NULL. */
static inline const struct text_merge *text_merge_find(const struct stave_tokenizer *t, int32_t left, int32_t right)
{
	uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	for (uint32_t i = text_merge_slot(pair, t->merge_mask);; i = (i + 1) & t->merge_mask) {
		const struct text_merge *m = &t->merge[i];
		if (m->rank < 0)
			return NULL;
		if (m->pair == pair)
			return m;
	}
}

/* The token whose text is exactly p[0..n), or -1; special tokens are not among them. */
static inline int32_t text_word_hashed(const struct stave_tokenizer *t, const void *p, size_t n, uint64_t hash)
{
	for (uint32_t i = (uint32_t)hash & t->word_mask;; i = (i + 1) & t->word_mask) {
		int32_t id = t->word[i];
		if (id < 0 || (t->text[id].n == n && !memcmp(t->blob.p + t->text[id].at, p, n)))
			return id;
	}
}

static inline int32_t text_word_find(const struct stave_tokenizer *t, const void *p, size_t n)
{
	return text_word_hashed(t, p, n, text_hash(p, n));
}

/* The added token that is exactly p[0..n), or NULL. */
static inline const struct text_added *text_added_find(const struct stave_tokenizer *t, const void *p, size_t n)
{
	for (uint32_t i = (uint32_t)text_hash(p, n) & t->added_mask;; i = (i + 1) & t->added_mask) {
		if (t->added_slot[i] < 0)
			return NULL;
		const struct text_added *a = &t->added[t->added_slot[i]];
		if (a->content.n == n && !memcmp(t->blob.p + a->content.at, p, n))
			return a;
	}
}

#endif
