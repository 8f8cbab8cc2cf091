/* The tokenizer's tables, private to text/. Made once by tokenizer_json.c from a tokenizer.json document, whether read
 * from a file or composed by tokenizer.c, and never changed after. */
#ifndef STAVE_TEXT_TOKENIZER_H
#define STAVE_TEXT_TOKENIZER_H

#include <jansson.h>
#include <string.h>

#include "text/split.h"
#include "text/text.h"
#include "text/unicode.h"

#define TEXT_STEPS_MAX 16
#define TEXT_VOCAB_MAX (1 << 21)
#define TEXT_TOKEN_MAX 65535  /* bytes of one token */
#define TEXT_MERGES_MAX (1 << 22)
#define TEXT_PRESENT 1
#define TEXT_SPECIAL 2

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

enum text_op_kind { TEXT_OP_FORM, TEXT_OP_STRIP_LEFT, TEXT_OP_STRIP_RIGHT, TEXT_OP_PREPEND, TEXT_OP_REPLACE };
/* One step of normalization. */
struct text_op {
	enum text_op_kind kind;
	enum text_form form;
	bool absent_only, first_only; /* PREPEND: not if the text begins with it; only at the start of the whole text */
	struct text_bytes from, to;
};

enum text_template { TEXT_CHAT_PLAIN, TEXT_CHAT_CHATML, TEXT_CHAT_LLAMA3, TEXT_CHAT_UNKNOWN };

struct stave_tokenizer {
	int vocab;
	struct stave_buf blob;   /* all token texts; files are bounded, so 32-bit offsets hold */
	struct text_bytes *text; /* [vocab] what the encoder matches: raw bytes for byte-level, else the token as spelled */
	struct text_bytes *out;  /* [vocab] what the decoder writes */
	uint8_t *flags;          /* [vocab] TEXT_PRESENT, TEXT_SPECIAL; ids may have holes */
	int32_t *word;           /* hash of text -> id, -1 empty; only tokens that merging may reach */
	uint32_t word_mask;
	struct text_merge *merge;
	uint32_t merge_mask;
	int n_merges;

	bool byte_level, byte_fallback, ignore_merges, fuse_unknown, strip_prefix;
	int32_t byte_id[256]; /* of the single byte, -1: none */
	int32_t unknown, bos, eos;
	bool add_bos;

	struct text_op op[TEXT_STEPS_MAX];
	int n_ops;
	struct text_split split[TEXT_STEPS_MAX];
	int n_splits;

	struct text_added *added;
	int n_added;
	int32_t *added_slot; /* hash of content -> index in added, -1 empty */
	uint32_t added_mask;
	uint8_t added_first[2][256]; /* [all][byte]: does one begin so; row 0 without the special ones */
	uint32_t *added_len;         /* distinct lengths, longest first */
	int n_added_len;

	enum text_template chat;
	char *chat_template;  /* NULL: none */
	char *json, *config;  /* canonical tokenizer.json and tokenizer_config.json */
	size_t json_n, config_n;
	char sha256[65];
};

/* Takes over both documents, also on error; config may be NULL. `what` names the source in errors. */
int text_tokenizer_from_json(struct stave_tokenizer **out, json_t *root, json_t *config, const char *what, struct stave_err *err);

/* Between tokenizer_json.c and components.c: what reading needs beyond the tokenizer itself. */
struct text_reader {
	struct stave_tokenizer *t;
	const char *what;
	struct stave_err *err;
	struct text_bytes decode_from, decode_to; /* the decoder's Replace; from.n == 0: none */
	bool decode_bytes;                        /* the decoder turns <0xNN> into a byte */
	const char *template_bos;                 /* the post-processor puts this token first; NULL: none */
};
/* Normalizer, pre-tokenizer, decoder and post-processor of the document. */
int text_read_components(struct text_reader *r, const json_t *root);
/* Appends to the blob. */
struct text_bytes text_keep(struct stave_tokenizer *t, const void *p, size_t n);

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

/* The token whose text is exactly p[0..n), or -1; added tokens are not among them. */
static inline int32_t text_word_find(const struct stave_tokenizer *t, const void *p, size_t n)
{
	for (uint32_t i = (uint32_t)text_hash(p, n) & t->word_mask;; i = (i + 1) & t->word_mask) {
		int32_t id = t->word[i];
		if (id < 0 || (t->text[id].n == n && !memcmp(t->blob.p + t->text[id].at, p, n)))
			return id;
	}
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
