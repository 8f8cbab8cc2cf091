/* The tokenizer's tables, from what a source says: tokens with ids and scores, added tokens, merges as pairs of spellings.
 * tokenizer_json.c and tokenizer_gguf.c are the sources; this is the one way into the tables, so what is loaded from either
 * cannot differ.
 *
 * Refused: two tokens of one id or one spelling, a merge of what is no token, a token whose bytes would not fit the offsets.
 * Ids may have holes; a hole decodes to nothing. A special token is in no table that text can reach. */
#include <math.h>
#include <stdlib.h>

#include "text/tokenizer.h"

#define PREFIX_BITS 16 /* of the set of beginnings, per beginning: one in 16 wrong guesses */

struct text_bytes text_keep(struct stave_tokenizer *t, const void *p, size_t n)
{
	struct text_bytes b = {(uint32_t)t->blob.len, (uint32_t)n};
	stave_buf_put(&t->blob, p, n);
	return b;
}

int text_no_memory(struct text_reader *r)
{
	return stave_err_set(r->err, STAVE_ENOMEM, "%s: no memory for the tokenizer's tables", r->what);
}

int text_new(struct text_reader *r)
{
	text_unicode_init();
	if (!(r->t = calloc(1, sizeof *r->t)))
		return text_no_memory(r);
	r->t->unknown = r->t->bos = r->t->eos = r->t->eot = r->t->eom = -1;
	pthread_mutex_init(&r->t->lock, NULL);
	return 0;
}

void text_reader_close(struct text_reader *r)
{
	free(r->piece);
	free(r->pair);
	free(r->add);
	free(r->spelled);
}

/* Size of a hash table for n entries, half full at most, as a mask. */
static uint32_t mask_for(size_t n)
{
	uint32_t size = 16;
	while (size < 2 * n)
		size *= 2;
	return size - 1;
}

static int32_t *empty_slots(uint32_t mask)
{
	int32_t *p = malloc(((size_t)mask + 1) * sizeof *p);
	if (p)
		memset(p, 0xff, ((size_t)mask + 1) * sizeof *p);
	return p;
}

int text_fallback_byte(const char *token, size_t n)
{
	int v = 0;
	if (n != 6 || memcmp(token, "<0x", 3) || token[5] != '>')
		return -1;
	for (int k = 3; k < 5; k++) {
		int c = token[k], d = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
		if (d < 0)
			return -1;
		v = v * 16 + d;
	}
	return v;
}

/* ---- spellings ---- */

static const struct text_piece *piece_of(const struct text_reader *r, const char *p, size_t n)
{
	for (uint32_t i = (uint32_t)text_hash(p, n) & r->spelled_mask;; i = (i + 1) & r->spelled_mask) {
		if (r->spelled[i] < 0)
			return NULL;
		const struct text_piece *x = &r->piece[r->spelled[i]];
		if (x->n == n && !memcmp(x->p, p, n))
			return x;
	}
}

static int index_spellings(struct text_reader *r)
{
	r->spelled_mask = mask_for(r->n_pieces);
	if (!(r->spelled = empty_slots(r->spelled_mask)))
		return text_no_memory(r);
	for (size_t k = 0; k < r->n_pieces; k++) {
		const struct text_piece *x = &r->piece[k], *same;
		if (x->n > TEXT_TOKEN_MAX)
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: token \"%.80s\" (id %d) is too long", r->what, x->p, x->id);
		if ((same = piece_of(r, x->p, x->n)))
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: tokens %d and %d are both \"%.80s\"", r->what, same->id, x->id, x->p);
		uint32_t i = (uint32_t)text_hash(x->p, x->n) & r->spelled_mask;
		while (r->spelled[i] >= 0)
			i = (i + 1) & r->spelled_mask;
		r->spelled[i] = (int32_t)k;
	}
	return 0;
}

int32_t text_spelled(const struct text_reader *r, const char *p, size_t n)
{
	const struct text_piece *x = piece_of(r, p, n);
	const struct text_added *a = x ? NULL : text_added_find(r->t, p, n);
	return x ? x->id : a ? a->id : -1;
}

/* ---- vocabulary ---- */

static int check_id(struct text_reader *r, int32_t id, const char *token, size_t n)
{
	if (id < 0 || id >= TEXT_VOCAB_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: token \"%.*s\" has id %d, outside 0..%d", r->what, (int)(n < 80 ? n : 80), token, id, TEXT_VOCAB_MAX - 1);
	return 0;
}

/* ids are 0..vocab-1 over the model's vocabulary and the added tokens. */
static int size_vocabulary(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	int32_t top = -1;
	int rc = 0;
	for (size_t i = 0; i < r->n_pieces && !rc; i++) {
		rc = check_id(r, r->piece[i].id, r->piece[i].p, r->piece[i].n);
		top = r->piece[i].id > top ? r->piece[i].id : top;
	}
	for (size_t i = 0; i < r->n_adds && !rc; i++) {
		rc = check_id(r, r->add[i].id, r->add[i].p, r->add[i].n);
		top = r->add[i].id > top ? r->add[i].id : top;
	}
	if (rc)
		return rc;
	if (top < 0)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the vocabulary is empty", r->what);
	t->vocab = top + 1;
	t->text = calloc((size_t)t->vocab, sizeof *t->text);
	t->out = calloc((size_t)t->vocab, sizeof *t->out);
	t->flags = calloc((size_t)t->vocab, 1);
	if (t->model == TEXT_SPM || t->model == TEXT_UNIGRAM)
		t->score = calloc((size_t)t->vocab, sizeof *t->score);
	return t->text && t->out && t->flags && (t->score || t->model == TEXT_BPE || t->model >= TEXT_WORDPIECE) ? 0 : text_no_memory(r);
}

/* The bytes a byte-level token stands for, or false when a character of it is outside the byte alphabet. */
static bool unmap_bytes(const char *token, size_t n, struct stave_buf *bytes)
{
	bytes->len = 0;
	for (size_t i = 0; i < n;) {
		uint32_t cp;
		i += text_utf8_next((const uint8_t *)token + i, n - i, &cp);
		int b = cp == TEXT_INVALID ? -1 : text_char_byte(cp);
		if (b < 0)
			return false;
		stave_buf_put(bytes, &(char){(char)b}, 1);
	}
	return true;
}

static void replace(const struct stave_tokenizer *t, struct text_bytes from, struct text_bytes to, const char *p, size_t n, struct stave_buf *out)
{
	for (size_t i = 0; i < n;) {
		bool hit = n - i >= from.n && !memcmp(p + i, t->blob.p + from.at, from.n);
		stave_buf_put(out, hit ? t->blob.p + to.at : p + i, hit ? to.n : 1);
		i += hit ? from.n : 1;
	}
}

/* A piece of a word as BERT's decoder writes it: the beginnings of words behind a space, which punctuation and English
 * contractions lose again. */
static struct text_bytes decoded_word(struct text_reader *r, const char *p, size_t n)
{
	static const char *const close[][2] = {{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
	                                       {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
	struct stave_tokenizer *t = r->t;
	size_t k = (size_t)t->inner_n;
	if (k && n >= k && !memcmp(p, t->inner, k))
		return text_keep(t, p + k, n - k);
	struct stave_buf b = {0};
	stave_buf_printf(&b, " ");
	stave_buf_put(&b, p, n);
	for (size_t i = 0; r->decode_cleanup && i < sizeof close / sizeof *close; i++)
		if (b.len == strlen(close[i][0]) && !memcmp(b.p, close[i][0], b.len)) {
			b.len = 0;
			stave_buf_put(&b, close[i][1], strlen(close[i][1]));
		}
	struct text_bytes out = text_keep(t, b.p, b.len);
	stave_buf_free(&b);
	return out;
}

/* What decoding writes for a token that is not byte-level. */
static struct text_bytes decoded(struct text_reader *r, const char *token, size_t n, struct text_bytes text)
{
	struct stave_tokenizer *t = r->t;
	int byte = r->decode_bytes ? text_fallback_byte(token, n) : -1;
	if (byte >= 0)
		return text_keep(t, &(char){(char)byte}, 1);
	if (r->decode_words)
		return decoded_word(r, token, n);
	if (!r->decode_from.n || !memmem(token, n, t->blob.p + r->decode_from.at, r->decode_from.n))
		return text;
	struct stave_buf b = {0};
	replace(t, r->decode_from, r->decode_to, token, n, &b);
	struct text_bytes out = text_keep(t, b.p, b.len);
	stave_buf_free(&b);
	return out;
}

static int keep_vocabulary(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	struct stave_buf bytes = {0};
	int rc = 0;
	for (size_t k = 0; k < r->n_pieces && !rc; k++) {
		const struct text_piece *x = &r->piece[k];
		if (t->flags[x->id] & TEXT_PRESENT) {
			rc = stave_err_set(r->err, STAVE_ECORRUPT, "%s: token \"%.80s\" has id %d, which another token has too", r->what, x->p, x->id);
			break;
		}
		if (t->score && !isfinite(x->score)) {
			rc = stave_err_set(r->err, STAVE_ECORRUPT, "%s: the score of token %d is not a finite number", r->what, x->id);
			break;
		}
		t->flags[x->id] = TEXT_PRESENT | x->flags;
		if (t->byte_fallback && text_fallback_byte(x->p, x->n) >= 0)
			t->flags[x->id] |= TEXT_BYTE;
		if (t->score)
			t->score[x->id] = x->score + 0.0f; /* one zero, not two */
		if (t->byte_level && unmap_bytes(x->p, x->n, &bytes)) {
			t->out[x->id] = t->text[x->id] = text_keep(t, bytes.p, bytes.len);
		} else if (t->byte_level) { /* unreachable by merging: only as an added token, or by its id */
			t->out[x->id] = text_keep(t, x->p, x->n);
		} else {
			t->text[x->id] = text_keep(t, x->p, x->n);
			t->out[x->id] = decoded(r, x->p, x->n, t->text[x->id]);
		}
		if (t->blob.len > UINT32_MAX / 2)
			rc = stave_err_set(r->err, STAVE_ECORRUPT, "%s: more than 2 GiB of tokens", r->what);
	}
	stave_buf_free(&bytes);
	return rc;
}

/* After the added tokens are known: special, byte and unused ones are left out, so that no text can be merged or fall into one. */
static int index_words(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	const uint8_t out = TEXT_SPECIAL | TEXT_UNUSED | TEXT_BYTE;
	size_t n = 0;
	for (int id = 0; id < t->vocab; id++)
		n += t->text[id].n > 0;
	t->word_mask = mask_for(n);
	if (!(t->word = empty_slots(t->word_mask)))
		return text_no_memory(r);
	for (int id = 0; id < t->vocab; id++) {
		if (!t->text[id].n || t->flags[id] & out)
			continue;
		uint32_t i = (uint32_t)text_hash(t->blob.p + t->text[id].at, t->text[id].n) & t->word_mask;
		while (t->word[i] >= 0)
			i = (i + 1) & t->word_mask;
		t->word[i] = id;
		t->longest = t->text[id].n > t->longest ? t->text[id].n : t->longest;
	}
	for (int b = 0; b < 256; b++)
		t->byte_id[b] = -1;
	for (int id = 0; id < t->vocab; id++) {
		const char *p = t->blob.p + t->text[id].at;
		int b = t->flags[id] & TEXT_SPECIAL ? -1 : t->byte_level ? (t->text[id].n == 1 ? (uint8_t)*p : -1) : t->flags[id] & TEXT_BYTE ? text_fallback_byte(p, t->text[id].n) : -1;
		if (b >= 0)
			t->byte_id[b] = id;
	}
	return 0;
}

/* ---- added tokens ---- */

static int keep_added_token(struct text_reader *r, const struct text_add *o, struct text_added *a)
{
	struct stave_tokenizer *t = r->t;
	if (!o->n || o->n > TEXT_TOKEN_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: an added token without content", r->what);
	*a = (struct text_added){.id = o->id, .special = o->special, .lstrip = o->lstrip, .rstrip = o->rstrip, .single_word = o->single_word};
	const struct text_piece *same = piece_of(r, o->p, o->n);
	if (same ? same->id != a->id : t->flags[a->id] & TEXT_PRESENT)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: added token \"%.80s\" has id %d, but the vocabulary says otherwise", r->what, o->p, a->id);
	a->content = text_keep(t, o->p, o->n);
	t->out[a->id] = a->content; /* an added token is plain text, never mapped bytes */
	t->flags[a->id] |= TEXT_PRESENT | TEXT_ADDED | (a->special ? TEXT_SPECIAL : 0);
	if (text_added_find(t, o->p, o->n))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: added token \"%.80s\" occurs twice", r->what, o->p);
	uint32_t i = (uint32_t)text_hash(o->p, o->n) & t->added_mask;
	while (t->added_slot[i] >= 0)
		i = (i + 1) & t->added_mask;
	t->added_slot[i] = t->n_added++;
	for (int row = a->special; row < 2; row++)
		t->added_first[row][(uint8_t)*o->p] = 1;
	return 0;
}

static int longest_first(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x < y) - (x > y);
}

static int keep_added(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	size_t n = r->n_adds;
	t->added_mask = mask_for(n);
	t->added = calloc(n + 1, sizeof *t->added);
	t->added_len = calloc(n + 1, sizeof *t->added_len);
	if (!t->added || !t->added_len || !(t->added_slot = empty_slots(t->added_mask)))
		return text_no_memory(r);
	for (size_t i = 0; i < n; i++) {
		int rc = keep_added_token(r, &r->add[i], &t->added[i]);
		if (rc)
			return rc;
		t->added_len[i] = t->added[i].content.n;
	}
	qsort(t->added_len, n, sizeof *t->added_len, longest_first);
	for (size_t i = 0; i < n; i++)
		if (!i || t->added_len[i] != t->added_len[i - 1])
			t->added_len[t->n_added_len++] = t->added_len[i];
	return 0;
}

/* ---- merges ---- */

/* Later merges of the same pair win, as in the library that writes these files. */
static void put_merge(struct stave_tokenizer *t, uint64_t pair, int32_t rank, int32_t id)
{
	uint32_t i = text_merge_slot(pair, t->merge_mask);
	while (t->merge[i].rank >= 0 && t->merge[i].pair != pair)
		i = (i + 1) & t->merge_mask;
	t->n_merges += t->merge[i].rank < 0;
	t->merge[i] = (struct text_merge){pair, rank, id};
}

static int keep_merges(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	struct stave_buf joined = {0};
	if (r->n_pairs > TEXT_MERGES_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: %zu merges, more than %d", r->what, r->n_pairs, TEXT_MERGES_MAX);
	t->merge_mask = mask_for(r->n_pairs);
	if (!(t->merge = malloc(((size_t)t->merge_mask + 1) * sizeof *t->merge)))
		return text_no_memory(r);
	for (size_t i = 0; i <= t->merge_mask; i++)
		t->merge[i].rank = -1;
	int rc = 0;
	for (size_t i = 0; i < r->n_pairs && !rc; i++) {
		const struct text_pair *m = &r->pair[i];
		joined.len = 0;
		stave_buf_put(&joined, m->left, m->left_n);
		stave_buf_put(&joined, m->right, m->right_n);
		const struct text_piece *left = piece_of(r, m->left, m->left_n), *right = piece_of(r, m->right, m->right_n), *both = piece_of(r, joined.p, joined.len);
		if (left && right && both)
			put_merge(t, (uint64_t)(uint32_t)left->id << 32 | (uint32_t)right->id, (int32_t)i, both->id);
		else if (!left || !right || !r->barren_merges)
			rc = stave_err_set(r->err, STAVE_ECORRUPT, "%s: merge %zu names a token that the vocabulary lacks", r->what, i);
	}
	stave_buf_free(&joined);
	return rc;
}

/* ---- beginnings of words, for the models that search ---- */

/* Every beginning of every word that ends with a character. */
static size_t each_beginning(struct stave_tokenizer *t, bool put)
{
	size_t n = 0;
	for (uint32_t i = 0; i <= t->word_mask; i++) {
		int32_t id = t->word[i];
		if (id < 0)
			continue;
		const uint8_t *p = (const uint8_t *)t->blob.p + t->text[id].at;
		uint32_t cp;
		for (size_t k = 0, len = t->text[id].n; k < len; n++) {
			k += text_utf8_next(p + k, len - k, &cp);
			if (!put)
				continue;
			uint32_t bit = (uint32_t)(text_hash(p, k) >> 32) & t->prefix_mask;
			t->prefix[bit / 64] |= (uint64_t)1 << bit % 64;
		}
	}
	return n;
}

static int index_beginnings(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	if (t->longest > TEXT_PIECE_MAX)
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: a token of %u bytes; Unigram and WordPiece are searched up to %d", r->what, t->longest, TEXT_PIECE_MAX);
	size_t bits = PREFIX_BITS * each_beginning(t, false), size = 1024;
	while (size < bits && size < (size_t)1 << 31)
		size *= 2;
	t->prefix_mask = (uint32_t)(size - 1);
	if (!(t->prefix = calloc(size / 64, sizeof *t->prefix)))
		return text_no_memory(r);
	each_beginning(t, true);
	return 0;
}

/* SentencePiece gives an unknown character ten less than its worst token. */
static void score_unknown(struct stave_tokenizer *t)
{
	double least = 0;
	bool any = false;
	for (int id = 0; id < t->vocab; id++)
		if (t->flags[id] & TEXT_PRESENT && !(t->flags[id] & (TEXT_ADDED | TEXT_BYTE | TEXT_UNUSED)) && id != t->unknown && (!any || t->score[id] < least)) {
			least = t->score[id];
			any = true;
		}
	t->unknown_score = least - 10;
}

/* ---- the whole ---- */

/* Does a token go on with U+2581 after something else? Then words cannot be cut there. */
static bool crosses_words(const struct stave_tokenizer *t)
{
	for (uint32_t i = 0; i <= t->word_mask; i++) {
		const struct text_bytes *x = t->word[i] < 0 ? NULL : &t->text[t->word[i]];
		if (x && text_next_mark((const uint8_t *)t->blob.p + x->at, 0, x->n) < x->n)
			return true;
	}
	return false;
}

/* SentencePiece's models take a text as one word. Where no token has U+2581 anywhere but at its beginning, cutting before each
 * changes nothing, and lets the cache of words work. An unknown U+2581 would be fused with unknown characters before it. */
static void cut_at_marks(struct stave_tokenizer *t)
{
	if (t->n_splits || t->byte_level || t->model > TEXT_UNIGRAM || text_word_find(t, TEXT_MARK, TEXT_MARK_N) < 0 || crosses_words(t))
		return;
	t->split[t->n_splits++] = (struct text_split){.kind = TEXT_SPLIT_MARK};
}

bool text_is_stop_name(const char *p, size_t n)
{
	static const char *const names[] = {
		"</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<end_of_turn>",
		"<turn|>", "<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>", ("<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"),
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i]) == n && !memcmp(names[i], p, n))
			return true;
	return false;
}

/* Special tokens with such a name end an answer. */
static void mark_stops(struct stave_tokenizer *t)
{
	for (int i = 0; i < t->n_added; i++)
		if (t->added[i].special && text_is_stop_name(t->blob.p + t->added[i].content.at, t->added[i].content.n))
			t->flags[t->added[i].id] |= TEXT_STOP;
}

int text_set_template(struct text_reader *r, const char *text)
{
	if (!text || !*text)
		return 0;
	r->t->chat_template = strdup(text);
	return r->t->chat_template ? 0 : text_no_memory(r);
}

int text_build(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	int rc;
	if ((rc = size_vocabulary(r)) || (rc = index_spellings(r)) || (rc = keep_vocabulary(r)) || (rc = keep_added(r)) || (rc = index_words(r)) || (rc = keep_merges(r)))
		return rc;
	if (t->model == TEXT_UNIGRAM)
		score_unknown(t);
	if ((t->model == TEXT_UNIGRAM || t->model == TEXT_WORDPIECE) && (rc = index_beginnings(r)))
		return rc;
	cut_at_marks(t);
	mark_stops(t);
	return 0;
}
