/* A GGUF's tokenizer.ggml.* keys to the tokenizer's tables.
 *
 *   model  gpt2   byte-level BPE; `pre` names the patterns (pre.c), an unknown or missing one is refused
 *          llama  SentencePiece's BPE by scores
 *          t5     Unigram
 *          bert   WordPiece; pieces at the beginning of a word are spelled with U+2581, those inside without "##"
 *          gemma4 BPE over characters, as `pre` gemma4
 *   tokens, scores, token_type (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte), merges "left right"
 *
 * Control tokens become special ones, user-defined ones are found in any text. Ids named by keys must be of the vocabulary. Tokens
 * must be UTF-8 and differ; an empty one is a hole. */
#include <stdio.h>
#include <stdlib.h>

#include "base/gguf.h"
#include "text/tokenizer.h"

#define KEY "tokenizer.ggml."

enum type { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

struct source {
	struct text_reader r;
	const struct stave_gguf *g;
	struct stave_buf spelling; /* of WordPiece's pieces, as tokenizer.json spells them */
	uint8_t *type;             /* of each token */
	int64_t n;
	int32_t bos, eos, unknown; /* where no key says otherwise */
	bool add_bos, add_eos;
};

static int corrupt(struct source *s, const char *what)
{
	return stave_err_set(s->r.err, STAVE_ECORRUPT, "%s: %s", s->r.what, what);
}

/* An id that a key names, or `otherwise` when there is no such key; *id is -1 for none. */
static int read_id(struct source *s, const char *name, int32_t otherwise, int32_t *id)
{
	char key[64];
	int64_t v;
	snprintf(key, sizeof key, KEY "%s_token_id", name);
	int rc = stave_gguf_int(s->g, key, &v, s->r.err);
	if (rc < 0)
		return rc;
	if (rc && (v < 0 || v >= s->n) && v != -1 && v != UINT32_MAX) /* both mean none in some files */
		return stave_err_set(s->r.err, STAVE_ECORRUPT, "%s: %s is %lld, and the vocabulary has %lld tokens", s->r.what, key, (long long)v, (long long)s->n);
	if (!rc) /* a usual place counts if what is there is no word */
		v = otherwise >= 0 && otherwise < s->n && (s->type[otherwise] == CONTROL || s->type[otherwise] == UNKNOWN) ? otherwise : -1;
	*id = v >= 0 && v < s->n ? (int32_t)v : -1;
	return 0;
}

static int read_flag(struct source *s, const char *name, bool otherwise, bool *v)
{
	char key[64];
	snprintf(key, sizeof key, KEY "%s", name);
	*v = otherwise;
	int rc = stave_gguf_bool(s->g, key, v, s->r.err);
	return rc < 0 ? rc : 0;
}

/* ---- lists ---- */

static bool is_utf8(const char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		uint32_t cp;
		i += text_utf8_next((const uint8_t *)p + i, n - i, &cp);
		if (cp == TEXT_INVALID)
			return false;
	}
	return true;
}

/* How tokenizer.json spells a piece of a bert vocabulary. */
static void respell(struct source *s, struct text_piece *x, int type)
{
	if (type != NORMAL)
		return;
	size_t at = s->spelling.len;
	bool begins = x->n > TEXT_MARK_N && !memcmp(x->p, TEXT_MARK, TEXT_MARK_N);
	if (begins) {
		x->p += TEXT_MARK_N;
		x->n -= TEXT_MARK_N;
		return;
	}
	stave_buf_put(&s->spelling, "##", 2); /* reserved before: the buffer does not move */
	stave_buf_put(&s->spelling, x->p, x->n + 1);
	x->p = s->spelling.p + at;
	x->n += 2;
}

static int list_tokens(struct source *s)
{
	static const char tokens[] = KEY "tokens", scores[] = KEY "scores", types[] = KEY "token_type";
	struct text_reader *r = &s->r;
	enum stave_gguf_type kind;
	int64_t n_scores = 0, n_types = 0;
	size_t bytes = 0, n;
	if (!stave_gguf_array(s->g, tokens, &kind, &s->n) || kind != STAVE_GGUF_STR || s->n < 1 || s->n > TEXT_VOCAB_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: %s must be an array of 1 to %d strings", r->what, tokens, TEXT_VOCAB_MAX);
	bool scored = stave_gguf_array(s->g, scores, &kind, &n_scores), typed = stave_gguf_array(s->g, types, &kind, &n_types);
	if ((scored && n_scores < s->n) || (typed && n_types < s->n))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: %lld tokens, but %lld scores and %lld types", r->what, (long long)s->n, (long long)n_scores, (long long)n_types);
	if ((r->t->model == TEXT_SPM || r->t->model == TEXT_UNIGRAM) && !scored)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: no %s, which this model of tokenizer goes by", r->what, scores);
	r->piece = calloc((size_t)s->n, sizeof *r->piece);
	r->add = calloc((size_t)s->n, sizeof *r->add);
	s->type = calloc((size_t)s->n, 1);
	if (!r->piece || !r->add || !s->type)
		return text_no_memory(r);
	for (int64_t i = 0; i < s->n; i++) {
		stave_gguf_array_str(s->g, tokens, i, &n);
		bytes += n + 3;
	}
	if (r->t->model == TEXT_WORDPIECE)
		stave_buf_reserve(&s->spelling, bytes + 1);
	for (int64_t i = 0; i < s->n; i++) {
		struct text_piece x = {.id = (int32_t)i, .score = scored ? (float)stave_gguf_array_real(s->g, scores, i) : 0};
		x.p = stave_gguf_array_str(s->g, tokens, i, &x.n);
		int64_t type = typed ? stave_gguf_array_int(s->g, types, i) : NORMAL;
		s->type[i] = type >= NORMAL && type <= BYTE ? (uint8_t)type : NORMAL;
		if (!is_utf8(x.p, x.n))
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: token %lld is not UTF-8", r->what, (long long)i);
		if (r->t->model == TEXT_WORDPIECE)
			respell(s, &x, s->type[i]);
		x.flags = s->type[i] == UNUSED ? TEXT_UNUSED : s->type[i] == BYTE && r->t->byte_fallback ? TEXT_BYTE : 0;
		if (x.n)
			r->piece[r->n_pieces++] = x;
		else
			s->type[i] = UNUSED;
	}
	return 0;
}

static bool keeps_space(const struct text_piece *x)
{
	static const char *const names[] = {"<unk>", "<s>", "<|endoftext|>"};
	for (int i = 0; i < 3; i++)
		if (strlen(names[i]) == x->n && !memcmp(names[i], x->p, x->n))
			return true;
	return false;
}

/* The tokens that end an answer and the like are control tokens, whatever their type says: typed text must not become them. */
static int list_added(struct source *s, const int32_t *named, int n_named)
{
	struct text_reader *r = &s->r;
	const char *name = stave_gguf_str(s->g, "general.name");
	/* Phi-3's control tokens swallow the white space behind them; the format has no key for that, so readers go by the name. */
	bool phi3 = name && (strcasestr(name, "phi-3") || strcasestr(name, "phi3"));
	for (int k = 0; k < n_named; k++)
		if (named[k] >= 0 && s->type[named[k]] != UNKNOWN && s->type[named[k]] != UNUSED)
			s->type[named[k]] = CONTROL;
	for (size_t k = 0; k < r->n_pieces; k++) {
		const struct text_piece *x = &r->piece[k];
		if (text_is_stop_name(x->p, x->n) && s->type[x->id] == NORMAL)
			s->type[x->id] = CONTROL;
		if (s->type[x->id] == UNKNOWN || s->type[x->id] == CONTROL || s->type[x->id] == USER)
			r->add[r->n_adds++] = (struct text_add){.p = x->p, .n = x->n, .id = x->id, .special = s->type[x->id] != USER, .rstrip = phi3 && !keeps_space(x)};
	}
	return 0;
}

static int list_merges(struct source *s)
{
	static const char key[] = KEY "merges";
	struct text_reader *r = &s->r;
	enum stave_gguf_type kind;
	int64_t n;
	if (!stave_gguf_array(s->g, key, &kind, &n) || kind != STAVE_GGUF_STR)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: no array of strings %s", r->what, key);
	if (n > TEXT_MERGES_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: %lld merges, more than %d", r->what, (long long)n, TEXT_MERGES_MAX);
	if (!(r->pair = calloc((size_t)n + 1, sizeof *r->pair)))
		return text_no_memory(r);
	for (int64_t i = 0; i < n; i++) {
		size_t len;
		const char *p = stave_gguf_array_str(s->g, key, i, &len), *space = len > 2 ? memchr(p + 1, ' ', len - 2) : NULL;
		if (!space)
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: merge %lld is not \"left right\"", r->what, (long long)i);
		r->pair[r->n_pairs++] = (struct text_pair){p, space + 1, (size_t)(space - p), len - (size_t)(space - p) - 1};
	}
	return 0;
}

/* ---- models ---- */

static int open_bpe(struct source *s, const char *name)
{
	struct text_reader *r = &s->r;
	const struct text_pre *pre = name ? text_pre_find(name) : NULL;
	if (!name)
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: no " KEY "pre, so how to split text into words is not known; convert the model again with a newer converter", r->what);
	if (!pre)
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: " KEY "pre \"%.40s\" is not one this program knows", r->what, name);
	struct stave_tokenizer *t = r->t;
	t->byte_level = !pre->raw;
	t->byte_fallback = t->whole_newlines = r->decode_bytes = pre->raw;
	t->ignore_merges = pre->ignore_merges;
	r->barren_merges = true;
	s->add_bos = pre->bos;
	int rc = pre->nfc ? text_add_form(r, TEXT_NFC) : 0;
	if (!rc && pre->raw) {
		r->decode_from = text_keep(t, TEXT_MARK, TEXT_MARK_N);
		r->decode_to = text_keep(t, " ", 1);
		rc = text_add_replace(r, " ", 1, TEXT_MARK, TEXT_MARK_N);
	}
	for (int i = 0; i < TEXT_PRE_PATTERNS && pre->pattern[i] && !rc; i++)
		rc = text_add_split(r, pre->pattern[i], strlen(pre->pattern[i]), false, TEXT_ISOLATED, false);
	return rc ? rc : list_merges(s);
}

/* SentencePiece's own normalization: its table, spaces at the ends and in runs dropped, one put in front, U+2581 for each. */
static int open_sentencepiece(struct source *s, bool prefix)
{
	struct text_reader *r = &s->r;
	struct stave_tokenizer *t = r->t;
	static const char key[] = KEY "precompiled_charsmap";
	enum stave_gguf_type kind;
	bool trim;
	int64_t n;
	int rc = read_flag(s, "remove_extra_whitespaces", false, &trim);
	if (!rc)
		rc = read_flag(s, "add_space_prefix", prefix, &prefix);
	if (!rc && stave_gguf_array(s->g, key, &kind, &n) && n > 0) {
		uint8_t *p = kind == STAVE_GGUF_U8 || kind == STAVE_GGUF_I8 ? malloc((size_t)n) : NULL;
		for (int64_t i = 0; p && i < n; i++)
			p[i] = (uint8_t)stave_gguf_array_int(s->g, key, i);
		rc = p ? text_add_charsmap(r, p, (size_t)n) : corrupt(s, "precompiled_charsmap must be an array of bytes");
		free(p);
	}
	if (!rc && trim && !text_add_op(r, TEXT_OP_TRIM))
		rc = corrupt(s, "too many steps");
	if (!rc && prefix)
		rc = text_add_prepend(r, " ", 1, false, false);
	if (!rc)
		rc = text_add_replace(r, " ", 1, TEXT_MARK, TEXT_MARK_N);
	r->decode_from = text_keep(t, TEXT_MARK, TEXT_MARK_N);
	r->decode_to = text_keep(t, " ", 1);
	r->decode_bytes = t->byte_fallback = t->fuse_unknown = true;
	t->strip_prefix = prefix;
	return rc;
}

static int open_bert(struct source *s)
{
	struct text_reader *r = &s->r;
	struct stave_tokenizer *t = r->t;
	bool lower, accents;
	int rc = read_flag(s, "normalizer.lowercase", true, &lower);
	if (!rc)
		rc = read_flag(s, "normalizer.strip_accents", lower, &accents);
	if (!rc)
		rc = text_add_bert(r, true, true, accents, lower);
	strcpy(t->inner, "##");
	t->inner_n = 2;
	t->word_chars_max = 100;
	t->strip_prefix = r->decode_words = r->decode_cleanup = true;
	return rc ? rc : text_add_bert_splits(r);
}

static int open_model(struct source *s)
{
	struct stave_tokenizer *t = s->r.t;
	const char *model = stave_gguf_str(s->g, KEY "model");
	s->bos = s->eos = s->unknown = -1;
	if (!model)
		return corrupt(s, "no " KEY "model: the file has no tokenizer");
	if (!strcmp(model, "gpt2"))
		return open_bpe(s, stave_gguf_str(s->g, KEY "pre"));
	if (!strcmp(model, "gemma4"))
		return open_bpe(s, "gemma4");
	if (!strcmp(model, "llama")) {
		t->model = TEXT_SPM;
		s->unknown = 0;
		s->bos = 1;
		s->eos = 2;
		s->add_bos = true;
		return open_sentencepiece(s, true);
	}
	if (!strcmp(model, "t5")) {
		t->model = TEXT_UNIGRAM;
		s->eos = 1;
		s->unknown = 2;
		s->add_eos = true;
		return open_sentencepiece(s, false);
	}
	if (!strcmp(model, "bert")) {
		t->model = TEXT_WORDPIECE;
		s->unknown = 100;
		s->bos = 101;
		s->eos = 102;
		s->add_bos = s->add_eos = true;
		return open_bert(s);
	}
	return stave_err_set(s->r.err, STAVE_ECONFIG, "%s: a tokenizer of model \"%.40s\"; gpt2, llama, t5, bert and gemma4 are read", s->r.what, model);
}

/* bert's files name cls and sep where others name bos and eos. */
static int read_ends(struct source *s, int32_t ids[5])
{
	struct stave_tokenizer *t = s->r.t;
	bool bert = t->model == TEXT_WORDPIECE;
	int32_t other = -1;
	int rc = read_id(s, "bos", s->bos, &ids[0]);
	if (!rc && bert)
		rc = read_id(s, "cls", ids[0], &ids[0]);
	if (!rc)
		rc = read_id(s, "eos", s->eos, &ids[1]);
	if (!rc && bert)
		rc = read_id(s, "seperator", ids[1], &ids[1]);
	if (!rc)
		rc = read_id(s, "eot", -1, &ids[2]);
	if (!rc)
		rc = read_id(s, "eom", -1, &ids[3]);
	if (!rc)
		rc = read_id(s, "padding", -1, &other);
	if (!rc)
		rc = read_id(s, "mask", -1, &other);
	ids[4] = other;
	if (!rc)
		rc = read_id(s, "unknown", s->unknown, &t->unknown);
	if (!rc)
		rc = read_flag(s, "add_bos_token", s->add_bos && ids[0] >= 0, &t->add_bos);
	if (!rc)
		rc = read_flag(s, "add_eos_token", s->add_eos && ids[1] >= 0, &t->add_eos);
	if (!rc && bert) /* what an encoder was trained with, whatever the flags of other models say */
		t->add_bos = t->add_eos = true;
	if (!rc && ((t->add_bos && ids[0] < 0) || (t->add_eos && ids[1] < 0)))
		rc = corrupt(s, "bos or eos is to be added, but no key says which token it is");
	return rc;
}

static int read_source(struct source *s)
{
	struct stave_tokenizer *t = s->r.t;
	int32_t ids[5] = {-1, -1, -1, -1, -1};
	int rc;
	if ((rc = open_model(s)) || (rc = list_tokens(s)) || (rc = read_ends(s, ids)) || (rc = list_added(s, ids, 5)) || (rc = text_build(&s->r)))
		return rc;
	t->bos = ids[0];
	t->eos = ids[1];
	t->eot = ids[2];
	t->eom = ids[3];
	return text_set_template(&s->r, stave_gguf_str(s->g, "tokenizer.chat_template"));
}

int stave_tokenizer_gguf(struct stave_tokenizer **out, const struct stave_gguf *g, struct stave_err *err)
{
	struct source s = {.g = g, .r = {.what = "the GGUF's tokenizer", .err = err}};
	int rc = text_new(&s.r);
	if (!rc)
		rc = read_source(&s);
	text_reader_close(&s.r);
	stave_buf_free(&s.spelling);
	free(s.type);
	if (rc) {
		stave_tokenizer_free(s.r.t);
		return rc;
	}
	*out = s.r.t;
	return 0;
}
