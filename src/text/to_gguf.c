/* A tokenizer as a GGUF's tokenizer.ggml.* keys, so that a reader of such files makes the same ids.
 *
 *   byte-level BPE           gpt2, if its patterns and normal form have a `pre` name (pre.c)
 *   BPE over characters      llama, if merging by scores comes to the same: all ways to spell a token are merges, and one token's
 *                            merges stand together in the list; the score is minus the place. A space may be a token of its own,
 *                            as in a char tokenizer: it is spelled U+2581 here
 *   SentencePiece, Unigram   llama, t5
 *   WordPiece                bert, if BERT's normalizer and pre-tokenizer stand before it
 *
 * Everything else is refused by name. What GGUF readers do by their own habits is taken as meant: white space that added tokens
 * swallow is not written, and a prefix that the tokenizer puts only in front of the whole text is put after each control token. */
#include <stdlib.h>

#include "base/gguf.h"
#include "text/spell.h"

#define KEY "tokenizer.ggml."

enum type { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

struct sink {
	const struct stave_tokenizer *t;
	struct stave_gguf_writer *w;
	struct stave_err *err;
	int vocab;
	float *score;         /* [vocab] or NULL */
	struct stave_buf all; /* all spellings, one after the other */
	size_t *at;           /* [vocab + 1] */
	int32_t *type;
};

static int refuse(struct sink *s, const char *what)
{
	return stave_err_set(s->err, STAVE_ECONFIG, "GGUF has no way to say what this tokenizer does: %s", what);
}

static bool is_literal(const struct stave_tokenizer *t, struct text_bytes b, const char *text)
{
	return b.n == strlen(text) && !memcmp(t->blob.p + b.at, text, b.n);
}

/* ---- scores of merges ---- */

static bool known_merge(const struct stave_tokenizer *t, int32_t left, int32_t right, int32_t id)
{
	const struct text_merge *m = text_merge_find(t, left, right);
	return m && m->id == id;
}

/* Every way to spell the token by two others must be a merge; returns how many there are, -1 when one is not. */
static int ways(const struct stave_tokenizer *t, int32_t id)
{
	const uint8_t *p = (const uint8_t *)t->blob.p + t->text[id].at;
	uint32_t cp;
	int n = 0;
	for (size_t k = text_utf8_next(p, t->text[id].n, &cp), len = t->text[id].n; k < len; k += text_utf8_next(p + k, len - k, &cp)) {
		int32_t left = text_word_find(t, p, k), right = left < 0 ? -1 : text_word_find(t, p + k, len - k);
		if (right >= 0 && !known_merge(t, left, right, id))
			return -1;
		n += right >= 0;
	}
	return n;
}

static int score_merges(struct sink *s)
{
	const struct stave_tokenizer *t = s->t;
	struct text_merge_list list;
	int rc = text_merge_list(t, &list, s->err);
	if (rc)
		return rc;
	for (int id = 0; id < s->vocab; id++)
		s->score[id] = 0;
	int32_t last = -1;
	float place = 0;
	for (size_t i = 0; i < list.n && !rc; i++) {
		int32_t id = list.p[i].id;
		if (id != last && s->score[id] < 0)
			rc = refuse(s, "merges of one token stand apart in its list");
		if (id != last)
			s->score[id] = place -= 1;
		last = id;
	}
	free(list.p);
	for (uint32_t i = 0; i <= t->word_mask && !rc; i++)
		if (t->word[i] >= 0 && ways(t, t->word[i]) < 0)
			rc = refuse(s, "two tokens spell a third and are no merge");
	return rc;
}

/* ---- what comes before the model ---- */

/* Steps as SentencePiece has them, in its order, each at most once: table, spaces trimmed, prefix, U+2581. Anything else is -1. */
static int sentencepiece_steps(const struct stave_tokenizer *t, bool *trim, bool *prefix)
{
	*trim = *prefix = false;
	for (int i = 0; i < t->n_ops; i++) {
		const struct text_op *op = &t->op[i];
		switch (op->kind) {
		case TEXT_OP_CHARSMAP:
			if (i)
				return -1;
			break;
		case TEXT_OP_WORDS:
			*prefix = *trim = true;
			break;
		case TEXT_OP_TRIM:
			*trim = true;
			break;
		case TEXT_OP_MATCHES: /* XLM-R's way to say it, and document.c's */
			if (!is_literal(t, op->from, " {2,}") && !is_literal(t, op->from, "\\A +| +\\z"))
				return -1;
			*trim = true;
			break;
		case TEXT_OP_PREPEND:
			if (!is_literal(t, op->to, " ") && !is_literal(t, op->to, TEXT_MARK))
				return -1;
			*prefix = true;
			break;
		case TEXT_OP_REPLACE:
			if (!is_literal(t, op->from, " ") || !is_literal(t, op->to, TEXT_MARK))
				return -1;
			break;
		default:
			return -1;
		}
	}
	return 0;
}

/* Cutting at U+2581 changes nothing if no token goes over it. */
static bool cuts_marks_only(const struct stave_tokenizer *t)
{
	for (int i = 0; i < t->n_splits; i++)
		if (t->split[i].kind != TEXT_SPLIT_MARK && !(t->split[i].behavior == TEXT_MERGED_WITH_NEXT && !t->split[i].invert && is_literal(t, t->pattern[i], TEXT_MARK)))
			return false;
	for (uint32_t i = 0; i <= t->word_mask && t->n_splits && t->split[0].kind != TEXT_SPLIT_MARK; i++) {
		const struct text_bytes *x = t->word[i] < 0 ? NULL : &t->text[t->word[i]];
		if (x && x->n > TEXT_MARK_N && memmem(t->blob.p + x->at + 1, x->n - 1, TEXT_MARK, TEXT_MARK_N))
			return false;
	}
	return true;
}

static int put_sentencepiece(struct sink *s)
{
	const struct stave_tokenizer *t = s->t;
	bool trim, prefix;
	int rc = 0;
	if (sentencepiece_steps(t, &trim, &prefix))
		return refuse(s, "its normalizer is not SentencePiece's");
	if (!cuts_marks_only(t))
		return refuse(s, "its pre-tokenizer splits elsewhere than before U+2581");
	if (t->model == TEXT_BPE && t->charsmap.raw)
		return refuse(s, "a Precompiled normalizer before BPE");
	if (t->model == TEXT_BPE)
		rc = score_merges(s);
	const char *model = t->model == TEXT_UNIGRAM ? "t5" : "llama";
	stave_gguf_put_str(s->w, KEY "model", model, strlen(model));
	stave_gguf_put_str(s->w, KEY "pre", "default", 7);
	stave_gguf_put_bool(s->w, KEY "add_space_prefix", prefix);
	stave_gguf_put_bool(s->w, KEY "remove_extra_whitespaces", trim);
	if (t->charsmap.raw)
		stave_gguf_put_u8s(s->w, KEY "precompiled_charsmap", (const uint8_t *)t->charsmap.raw, (int64_t)t->charsmap.raw_n);
	return rc;
}

static int put_merges(struct sink *s)
{
	struct text_merge_list list;
	int rc = text_merge_list(s->t, &list, s->err);
	if (rc)
		return rc;
	struct stave_buf text = {0}, one = {0};
	size_t *at = malloc((list.n + 1) * sizeof *at), *len = malloc((list.n + 1) * sizeof *len);
	const char **p = malloc((list.n + 1) * sizeof *p);
	for (size_t i = 0; at && len && p && i < list.n; i++) {
		at[i] = text.len;
		text_spell(s->t, list.p[i].left, &one);
		stave_buf_put(&text, one.p, one.len);
		stave_buf_put(&text, " ", 1);
		text_spell(s->t, list.p[i].right, &one);
		stave_buf_put(&text, one.p, one.len);
		len[i] = text.len - at[i];
	}
	for (size_t i = 0; at && len && p && i < list.n; i++)
		p[i] = text.p + at[i];
	if (at && len && p)
		stave_gguf_put_strs(s->w, KEY "merges", p, len, (int64_t)list.n);
	else
		rc = stave_err_set(s->err, STAVE_ENOMEM, "no memory for %zu merges", list.n);
	stave_buf_free(&text);
	stave_buf_free(&one);
	free(at);
	free(len);
	free(p);
	free(list.p);
	return rc;
}

static int put_byte_level(struct sink *s)
{
	const struct text_pre *pre = text_pre_of(s->t);
	if (!pre)
		return refuse(s, "no `pre` name stands for its normalizer, patterns and ignore_merges together");
	stave_gguf_put_str(s->w, KEY "model", "gpt2", 4);
	stave_gguf_put_str(s->w, KEY "pre", pre->name, strlen(pre->name));
	return put_merges(s);
}

static int put_raw(struct sink *s)
{
	stave_gguf_put_str(s->w, KEY "model", "gemma4", 6);
	stave_gguf_put_str(s->w, KEY "pre", "gemma4", 6);
	return put_merges(s);
}

static int put_bert(struct sink *s)
{
	const struct stave_tokenizer *t = s->t;
	bool lower = t->n_ops && t->op[t->n_ops - 1].kind == TEXT_OP_FORM && t->op[t->n_ops - 1].form == TEXT_LOWERCASE;
	int accents = t->n_ops - 2 - lower;
	bool bert = t->n_ops >= 2 && t->op[0].kind == TEXT_OP_CLEAN && t->op[1].kind == TEXT_OP_CHINESE &&
	            (accents == 0 || (accents == 2 && t->op[2].kind == TEXT_OP_FORM && t->op[2].form == TEXT_NFD && t->op[3].kind == TEXT_OP_STRIP_MARKS));
	if (!bert || strcmp(t->inner, "##"))
		return refuse(s, "WordPiece without BERT's normalizer and \"##\"");
	if (t->n_splits != 2 || t->split[0].behavior != TEXT_REMOVED || !is_literal(t, t->pattern[0], text_pattern_spaces) || t->split[1].behavior != TEXT_ISOLATED ||
	    !is_literal(t, t->pattern[1], text_pattern_punctuation))
		return refuse(s, "WordPiece without BertPreTokenizer");
	stave_gguf_put_str(s->w, KEY "model", "bert", 4);
	stave_gguf_put_str(s->w, KEY "pre", "default", 7);
	stave_gguf_put_bool(s->w, KEY "normalizer.lowercase", lower);
	stave_gguf_put_bool(s->w, KEY "normalizer.strip_accents", accents == 2);
	return 0;
}

/* ---- tokens ---- */

static enum type type_of(const struct stave_tokenizer *t, int32_t id)
{
	uint8_t f = id < t->vocab ? t->flags[id] : 0;
	if (!(f & TEXT_PRESENT) || f & TEXT_UNUSED)
		return UNUSED;
	if (id == t->unknown)
		return UNKNOWN;
	if (f & TEXT_SPECIAL)
		return CONTROL;
	return f & TEXT_ADDED ? USER : f & TEXT_BYTE ? BYTE : NORMAL;
}

/* A name for an id without one that no token has. */
static void padding(const struct sink *s, int32_t id, struct stave_buf *name)
{
	name->len = 0;
	stave_buf_printf(name, "[PAD%d]", id);
	while (text_added_find(s->t, name->p, name->len) || text_word_find(s->t, name->p, name->len) >= 0)
		stave_buf_printf(name, "_");
}

static void spell(struct sink *s, int32_t id, struct stave_buf *one)
{
	const struct stave_tokenizer *t = s->t;
	if (id >= t->vocab || !text_spell(t, id, one) || !one->len) {
		padding(s, id, one);
		s->type[id] = UNUSED;
	}
	bool plain = s->type[id] == NORMAL;
	if (t->model == TEXT_WORDPIECE && plain && one->len > 2 && !memcmp(one->p, "##", 2)) {
		stave_buf_put(&s->all, one->p + 2, one->len - 2);
		return;
	}
	if (t->model == TEXT_WORDPIECE && plain)
		stave_buf_put(&s->all, TEXT_MARK, TEXT_MARK_N);
	if (t->model == TEXT_BPE && !t->byte_level && plain && one->len == 1 && *one->p == ' ')
		stave_buf_put(&s->all, TEXT_MARK, TEXT_MARK_N); /* a char tokenizer's space */
	else
		stave_buf_put(&s->all, one->p, one->len);
}

static int put_tokens(struct sink *s)
{
	const struct stave_tokenizer *t = s->t;
	struct stave_buf one = {0};
	const char **p = malloc((size_t)s->vocab * sizeof *p);
	size_t *len = malloc((size_t)s->vocab * sizeof *len);
	for (int32_t id = 0; id < s->vocab; id++) {
		s->at[id] = s->all.len;
		s->type[id] = type_of(t, id);
		spell(s, id, &one);
		if (s->score && t->model != TEXT_BPE)
			s->score[id] = id < t->vocab && s->type[id] != UNUSED ? t->score[id] : -1000;
	}
	s->at[s->vocab] = s->all.len;
	for (int32_t id = 0; p && len && id < s->vocab; id++) {
		p[id] = s->all.p + s->at[id];
		len[id] = s->at[id + 1] - s->at[id];
	}
	if (p && len) {
		stave_gguf_put_strs(s->w, KEY "tokens", p, len, s->vocab);
		if (s->score)
			stave_gguf_put_f32s(s->w, KEY "scores", s->score, s->vocab);
		stave_gguf_put_i32s(s->w, KEY "token_type", s->type, s->vocab);
	}
	int rc = p && len ? 0 : stave_err_set(s->err, STAVE_ENOMEM, "no memory for %d tokens", s->vocab);
	stave_buf_free(&one);
	free(p);
	free(len);
	return rc;
}

/* ---- the whole ---- */

static void put_ids(struct sink *s)
{
	const struct stave_tokenizer *t = s->t;
	bool bert = t->model == TEXT_WORDPIECE;
	const struct text_added *mask = text_added_find(t, "[MASK]", 6), *pad = text_added_find(t, "[PAD]", 5);
	const struct {
		const char *key;
		int32_t id;
	} ids[] = {{KEY "bos_token_id", t->bos}, {KEY "eos_token_id", t->eos}, {KEY "eot_token_id", t->eot}, {KEY "eom_token_id", t->eom}, {KEY "unknown_token_id", t->unknown},
	           {KEY "cls_token_id", bert ? t->bos : -1}, {KEY "seperator_token_id", bert ? t->eos : -1}, {KEY "mask_token_id", bert && mask ? mask->id : -1},
	           {KEY "padding_token_id", bert && pad ? pad->id : -1}};
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		if (ids[i].id >= 0)
			stave_gguf_put_u32(s->w, ids[i].key, (uint32_t)ids[i].id);
	stave_gguf_put_bool(s->w, KEY "add_bos_token", t->add_bos);
	stave_gguf_put_bool(s->w, KEY "add_eos_token", t->add_eos);
	if (t->chat_template)
		stave_gguf_put_str(s->w, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
}

static int put_model(struct sink *s)
{
	const struct stave_tokenizer *t = s->t;
	switch (t->model) {
	case TEXT_WORDLEVEL:
		return refuse(s, "a WordLevel model");
	case TEXT_WORDPIECE:
		return put_bert(s);
	case TEXT_BPE:
		if (t->byte_level)
			return put_byte_level(s);
		if (t->whole_newlines)
			return put_raw(s);
		if (t->ignore_merges)
			return refuse(s, "ignore_merges over characters");
		return put_sentencepiece(s);
	default:
		return put_sentencepiece(s);
	}
}

int stave_tokenizer_to_gguf(const struct stave_tokenizer *t, int vocab, struct stave_gguf_writer *w, struct stave_err *err)
{
	struct sink s = {.t = t, .w = w, .err = err, .vocab = vocab};
	if (vocab < t->vocab)
		return stave_err_set(err, STAVE_ECONFIG, "the tokenizer has %d tokens, the model only %d rows", t->vocab, vocab);
	s.at = malloc(((size_t)vocab + 1) * sizeof *s.at);
	s.type = malloc((size_t)vocab * sizeof *s.type);
	if (t->model <= TEXT_UNIGRAM && !t->byte_level && !t->whole_newlines)
		s.score = calloc((size_t)vocab, sizeof *s.score);
	int rc = s.at && s.type && (s.score || t->model > TEXT_UNIGRAM || t->byte_level || t->whole_newlines) ? put_model(&s) : stave_err_set(err, STAVE_ENOMEM, "no memory for %d tokens", vocab);
	if (!rc)
		rc = put_tokens(&s);
	if (!rc)
		put_ids(&s);
	stave_buf_free(&s.all);
	free(s.at);
	free(s.type);
	free(s.score);
	return rc;
}
