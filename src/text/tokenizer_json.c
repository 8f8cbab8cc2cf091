/* From a tokenizer.json document to the tokenizer's tables.
 *
 * Every tokenizer here is made by this one function, so what is saved and what is loaded cannot differ: the byte, char
 * and trained tokenizers are composed as documents first (tokenizer.c). The canonical text of a document is its JSON with
 * two spaces of indent and members in their order; its SHA-256 is the tokenizer's identity.
 *
 * Refused: a model that is not BPE, components we do not have (components.c), two tokens of one id, an id above 2^21, a
 * merge of tokens that the vocabulary lacks. Ids may have holes; a hole decodes to nothing. */
#include <stdlib.h>

#include "base/hash.h"
#include "base/json.h"
#include "text/tokenizer.h"

uint32_t text_byte_char(uint8_t b)
{
	if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)
		return b;
	/* the 68 others, in order, from U+0100 */
	return 0x100u + (b <= 32 ? b : b <= 160 ? b - 127u + 33 : 67);
}

int text_char_byte(uint32_t c)
{
	if (c < 256)
		return text_byte_char((uint8_t)c) == c ? (int)c : -1;
	if (c >= 0x144)
		return -1;
	c -= 0x100;
	return (int)(c <= 32 ? c : c < 67 ? c - 33 + 127 : 173);
}

struct text_bytes text_keep(struct stave_tokenizer *t, const void *p, size_t n)
{
	struct text_bytes b = {(uint32_t)t->blob.len, (uint32_t)n};
	stave_buf_put(&t->blob, p, n);
	return b;
}

static int no_memory(struct text_reader *r)
{
	return stave_err_set(r->err, STAVE_ENOMEM, "%s: no memory for the tokenizer's tables", r->what);
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

/* ---- vocabulary ---- */

static int check_id(struct text_reader *r, const json_t *id, const char *token, int32_t *out)
{
	if (!json_is_integer(id))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the id of token \"%.80s\" is not an integer", r->what, token);
	json_int_t v = json_integer_value(id);
	if (v < 0 || v >= TEXT_VOCAB_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: token \"%.80s\" has id %lld, outside 0..%d", r->what, token, (long long)v, TEXT_VOCAB_MAX - 1);
	*out = (int32_t)v;
	return 0;
}

/* ids are 0..vocab-1 over the model's vocabulary and the added tokens. */
static int size_vocabulary(struct text_reader *r, json_t *vocab, const json_t *added)
{
	struct stave_tokenizer *t = r->t;
	const char *token;
	json_t *id, *a;
	size_t i;
	int32_t v = -1, top = -1;
	int rc;
	json_object_foreach(vocab, token, id) {
		if ((rc = check_id(r, id, token, &v)))
			return rc;
		top = v > top ? v : top;
	}
	json_array_foreach(added, i, a) {
		if ((rc = check_id(r, json_object_get(a, "id"), stave_json_str(a, "content", "?"), &v)))
			return rc;
		top = v > top ? v : top;
	}
	if (top < 0)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the vocabulary is empty", r->what);
	t->vocab = top + 1;
	t->text = calloc((size_t)t->vocab, sizeof *t->text);
	t->out = calloc((size_t)t->vocab, sizeof *t->out);
	t->flags = calloc((size_t)t->vocab, 1);
	return t->text && t->out && t->flags ? 0 : no_memory(r);
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

/* "<0x41>" -> 0x41, else -1. */
static int fallback_byte(const char *token, size_t n)
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

/* What decoding writes for a token that is not byte-level. */
static struct text_bytes decoded(struct text_reader *r, const char *token, size_t n, struct text_bytes text)
{
	struct stave_tokenizer *t = r->t;
	int byte = r->decode_bytes ? fallback_byte(token, n) : -1;
	if (byte >= 0)
		return text_keep(t, &(char){(char)byte}, 1);
	size_t m = r->decode_from.n;
	if (!m || !memmem(token, n, t->blob.p + r->decode_from.at, m))
		return text;
	struct stave_buf b = {0};
	for (size_t i = 0; i < n;) {
		bool hit = n - i >= m && !memcmp(token + i, t->blob.p + r->decode_from.at, m);
		stave_buf_put(&b, hit ? t->blob.p + r->decode_to.at : token + i, hit ? r->decode_to.n : 1);
		i += hit ? m : 1;
	}
	struct text_bytes out = text_keep(t, b.p, b.len);
	stave_buf_free(&b);
	return out;
}

static int read_vocabulary(struct text_reader *r, json_t *vocab)
{
	struct stave_tokenizer *t = r->t;
	struct stave_buf bytes = {0};
	const char *token;
	size_t n;
	json_t *j;
	json_object_keylen_foreach(vocab, token, n, j) {
		size_t id = (size_t)json_integer_value(j);
		if (t->flags[id] & TEXT_PRESENT || n > TEXT_TOKEN_MAX) {
			stave_buf_free(&bytes);
			return stave_err_set(r->err, STAVE_ECORRUPT, n > TEXT_TOKEN_MAX ? "%s: token \"%.80s\" (id %zu) is too long" : "%s: token \"%.80s\" has id %zu, which another token has too", r->what, token, id);
		}
		t->flags[id] = TEXT_PRESENT;
		if (t->byte_level && unmap_bytes(token, n, &bytes)) {
			t->out[id] = t->text[id] = text_keep(t, bytes.p, bytes.len);
		} else if (t->byte_level) { /* unreachable by merging: only as an added token, or by its id */
			t->out[id] = text_keep(t, token, n);
		} else {
			t->text[id] = text_keep(t, token, n);
			t->out[id] = decoded(r, token, n, t->text[id]);
		}
	}
	stave_buf_free(&bytes);
	return 0;
}

/* After the added tokens are known: special ones are left out, so that no text can be merged or fall into one. */
static int index_words(struct text_reader *r)
{
	struct stave_tokenizer *t = r->t;
	size_t n = 0;
	for (int id = 0; id < t->vocab; id++)
		n += t->text[id].n > 0;
	t->word_mask = mask_for(n);
	if (!(t->word = empty_slots(t->word_mask)))
		return no_memory(r);
	for (int id = 0; id < t->vocab; id++) {
		if (!t->text[id].n || t->flags[id] & TEXT_SPECIAL)
			continue;
		uint32_t i = (uint32_t)text_hash(t->blob.p + t->text[id].at, t->text[id].n) & t->word_mask;
		while (t->word[i] >= 0)
			i = (i + 1) & t->word_mask;
		t->word[i] = id;
	}
	for (int b = 0; b < 256; b++)
		t->byte_id[b] = -1;
	for (int id = 0; id < t->vocab; id++) {
		const char *p = t->blob.p + t->text[id].at;
		int b = t->flags[id] & TEXT_SPECIAL ? -1 : t->byte_level ? (t->text[id].n == 1 ? (uint8_t)*p : -1) : t->byte_fallback ? fallback_byte(p, t->text[id].n) : -1;
		if (b >= 0)
			t->byte_id[b] = id;
	}
	return 0;
}

/* ---- added tokens ---- */

static int read_added_token(struct text_reader *r, const json_t *o, json_t *vocab, struct text_added *a)
{
	struct stave_tokenizer *t = r->t;
	const json_t *content = json_object_get(o, "content");
	const char *p = json_string_value(content);
	size_t n = json_string_length(content);
	bool special;
	int rc;
	if (!n || n > TEXT_TOKEN_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: an added token without content", r->what);
	if ((rc = stave_json_bool(o, "special", false, &special, r->what, r->err)) ||
	    (rc = stave_json_bool(o, "lstrip", false, &a->lstrip, r->what, r->err)) ||
	    (rc = stave_json_bool(o, "rstrip", false, &a->rstrip, r->what, r->err)) ||
	    (rc = stave_json_bool(o, "single_word", false, &a->single_word, r->what, r->err)))
		return rc;
	a->special = special;
	a->id = (int32_t)json_integer_value(json_object_get(o, "id"));
	const json_t *same = json_object_getn(vocab, p, n);
	if (same ? json_integer_value(same) != a->id : t->flags[a->id] & TEXT_PRESENT)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: added token \"%.80s\" has id %d, but the vocabulary says otherwise", r->what, p, a->id);
	a->content = text_keep(t, p, n);
	t->out[a->id] = a->content; /* an added token is plain text, never mapped bytes */
	t->flags[a->id] |= TEXT_PRESENT | (special ? TEXT_SPECIAL : 0);
	if (text_added_find(t, p, n))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: added token \"%.80s\" occurs twice", r->what, p);
	uint32_t i = (uint32_t)text_hash(p, n) & t->added_mask;
	while (t->added_slot[i] >= 0)
		i = (i + 1) & t->added_mask;
	t->added_slot[i] = t->n_added++;
	for (int row = special; row < 2; row++)
		t->added_first[row][(uint8_t)*p] = 1;
	return 0;
}

static int longest_first(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x < y) - (x > y);
}

static int read_added(struct text_reader *r, const json_t *list, json_t *vocab)
{
	struct stave_tokenizer *t = r->t;
	size_t n = json_array_size(list), i;
	json_t *o;
	t->added_mask = mask_for(n);
	t->added = calloc(n + 1, sizeof *t->added);
	t->added_len = calloc(n + 1, sizeof *t->added_len);
	if (!t->added || !t->added_len || !(t->added_slot = empty_slots(t->added_mask)))
		return no_memory(r);
	json_array_foreach(list, i, o) {
		int rc = read_added_token(r, o, vocab, &t->added[i]);
		if (rc)
			return rc;
		t->added_len[i] = t->added[i].content.n;
	}
	qsort(t->added_len, n, sizeof *t->added_len, longest_first);
	for (i = 0; i < n; i++)
		if (!i || t->added_len[i] != t->added_len[i - 1])
			t->added_len[t->n_added_len++] = t->added_len[i];
	return 0;
}

/* ---- merges ---- */

static int bad_merge(struct text_reader *r, size_t i, const char *why)
{
	return stave_err_set(r->err, STAVE_ECORRUPT, "%s: merge %zu %s", r->what, i, why);
}

/* The two tokens of a merge in either form, "a b" or ["a", "b"]. */
static bool merge_sides(const json_t *m, const char **a, size_t *an, const char **b, size_t *bn)
{
	if (json_is_array(m) && json_array_size(m) == 2) {
		const json_t *left = json_array_get(m, 0), *right = json_array_get(m, 1);
		*a = json_string_value(left);
		*b = json_string_value(right);
		*an = json_string_length(left);
		*bn = json_string_length(right);
		return *a && *b;
	}
	const char *s = json_string_value(m);
	size_t n = json_string_length(m);
	const char *space = s ? memchr(s, ' ', n) : NULL;
	if (!space)
		return false;
	*a = s;
	*an = (size_t)(space - s);
	*b = space + 1;
	*bn = n - *an - 1;
	return !memchr(*b, ' ', *bn);
}

/* Later merges of the same pair win, as in the library that writes these files. */
static void put_merge(struct stave_tokenizer *t, uint64_t pair, int32_t rank, int32_t id)
{
	uint32_t i = text_merge_slot(pair, t->merge_mask);
	while (t->merge[i].rank >= 0 && t->merge[i].pair != pair)
		i = (i + 1) & t->merge_mask;
	t->merge[i] = (struct text_merge){pair, rank, id};
}

static int read_merges(struct text_reader *r, const json_t *merges, json_t *vocab)
{
	struct stave_tokenizer *t = r->t;
	size_t n = json_array_size(merges), i;
	json_t *m;
	if (n > TEXT_MERGES_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: %zu merges, more than %d", r->what, n, TEXT_MERGES_MAX);
	t->n_merges = (int)n;
	t->merge_mask = mask_for(n);
	if (!(t->merge = malloc(((size_t)t->merge_mask + 1) * sizeof *t->merge)))
		return no_memory(r);
	for (i = 0; i <= t->merge_mask; i++)
		t->merge[i].rank = -1;
	struct stave_buf joined = {0};
	int rc = 0;
	json_array_foreach(merges, i, m) {
		const char *a, *b;
		size_t an, bn;
		if (!merge_sides(m, &a, &an, &b, &bn)) {
			rc = bad_merge(r, i, "is neither \"left right\" nor [\"left\", \"right\"]");
			break;
		}
		joined.len = 0;
		stave_buf_put(&joined, a, an);
		stave_buf_put(&joined, b, bn);
		const json_t *left = json_object_getn(vocab, a, an), *right = json_object_getn(vocab, b, bn), *both = json_object_getn(vocab, joined.p, joined.len);
		if (!left || !right || !both) {
			rc = bad_merge(r, i, "names a token that the vocabulary lacks");
			break;
		}
		put_merge(t, (uint64_t)json_integer_value(left) << 32 | (uint64_t)json_integer_value(right), (int32_t)i, (int32_t)json_integer_value(both));
	}
	stave_buf_free(&joined);
	return rc;
}

/* ---- the model and the whole ---- */

static int read_model(struct text_reader *r, const json_t *model)
{
	static const char *const unused[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	struct stave_tokenizer *t = r->t;
	const char *type = stave_json_str(model, "type", json_object_get(model, "merges") ? "BPE" : NULL);
	double dropout;
	int rc;
	if (!type)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: no model, or a model without a type", r->what);
	if (strcmp(type, "BPE"))
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: a tokenizer model of type %.40s; only BPE is read", r->what, type);
	for (int i = 0; i < 2; i++)
		if (*stave_json_str(model, unused[i], ""))
			return stave_err_set(r->err, STAVE_ECONFIG, "%s: model.%s is not supported", r->what, unused[i]);
	if ((rc = stave_json_real(model, "dropout", 0, &dropout, r->what, r->err)))
		return rc;
	if (dropout != 0)
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: model.dropout would make encoding random; set it to null", r->what);
	if (!json_is_object(json_object_get(model, "vocab")) || !json_is_array(json_object_get(model, "merges")))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the model wants an object \"vocab\" and an array \"merges\"", r->what);
	if ((rc = stave_json_bool(model, "byte_fallback", false, &t->byte_fallback, r->what, r->err)) ||
	    (rc = stave_json_bool(model, "ignore_merges", false, &t->ignore_merges, r->what, r->err)))
		return rc;
	return stave_json_bool(model, "fuse_unk", false, &t->fuse_unknown, r->what, r->err);
}

static int32_t id_of(const json_t *root, const char *token)
{
	const json_t *id = json_object_get(json_object_get(json_object_get(root, "model"), "vocab"), token), *o;
	size_t i;
	if (id)
		return (int32_t)json_integer_value(id);
	json_array_foreach(json_object_get(root, "added_tokens"), i, o)
		if (!strcmp(stave_json_str(o, "content", ""), token))
			return (int32_t)json_integer_value(json_object_get(o, "id"));
	return -1;
}

/* tokenizer_config.json spells a token as a string or as {"content": string}. */
static int config_token(struct text_reader *r, const json_t *root, const json_t *config, const char *key, int32_t *id)
{
	const json_t *o = json_object_get(config, key);
	const char *token = json_is_object(o) ? stave_json_str(o, "content", NULL) : json_string_value(o);
	*id = token ? id_of(root, token) : -1;
	if (token && *id < 0)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: tokenizer_config.json names %s \"%.80s\", which the vocabulary lacks", r->what, key, token);
	return 0;
}

static int read_ends(struct text_reader *r, const json_t *root, const json_t *config)
{
	static const char *const usual[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};
	struct stave_tokenizer *t = r->t;
	int rc = config_token(r, root, config, "eos_token", &t->eos);
	if (!rc)
		rc = config_token(r, root, config, "bos_token", &t->bos);
	if (rc)
		return rc;
	for (size_t i = 0; i < 4 && t->eos < 0 && !json_object_get(config, "eos_token"); i++) {
		const struct text_added *a = text_added_find(t, usual[i], strlen(usual[i]));
		t->eos = a && a->special ? a->id : -1;
	}
	int32_t first = r->template_bos ? id_of(root, r->template_bos) : -1;
	if (t->bos < 0)
		t->bos = first;
	return stave_json_bool(config, "add_bos_token", first >= 0 && first == t->bos, &t->add_bos, r->what, r->err);
}

/* chat_template is a string, or a list of named ones of which "default" is meant. */
static int read_chat(struct text_reader *r, const json_t *config)
{
	struct stave_tokenizer *t = r->t;
	const json_t *c = json_object_get(config, "chat_template"), *o;
	const char *text = json_string_value(c);
	size_t i;
	json_array_foreach(c, i, o)
		if (!strcmp(stave_json_str(o, "name", ""), "default"))
			text = stave_json_str(o, "template", NULL);
	t->chat = TEXT_CHAT_PLAIN;
	if (!text || !*text)
		return 0;
	if (!(t->chat_template = strdup(text)))
		return no_memory(r);
	t->chat = strstr(text, "<|im_start|>") ? TEXT_CHAT_CHATML : strstr(text, "<|start_header_id|>") ? TEXT_CHAT_LLAMA3 : TEXT_CHAT_UNKNOWN;
	return 0;
}

static char *canonical(const json_t *j, size_t *n)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_ENCODE_ANY);
	*n = text ? strlen(text) : 0;
	return text;
}

static int read_unknown(struct text_reader *r, const json_t *root)
{
	const char *token = stave_json_str(json_object_get(root, "model"), "unk_token", NULL);
	r->t->unknown = token ? id_of(root, token) : -1;
	if (token && r->t->unknown < 0)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: unk_token \"%.80s\" is not in the vocabulary", r->what, token);
	return 0;
}

static int read_document(struct text_reader *r, json_t *root, json_t *config)
{
	struct stave_tokenizer *t = r->t;
	const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
	json_t *vocab = json_object_get(model, "vocab");
	int rc;
	if (!json_is_object(root) || (config && !json_is_object(config)))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: a tokenizer file must hold a JSON object", r->what);
	if (added && !json_is_null(added) && !json_is_array(added))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: added_tokens must be an array", r->what);
	if ((rc = read_model(r, model)) || (rc = text_read_components(r, root)) || (rc = size_vocabulary(r, vocab, added)) ||
	    (rc = read_vocabulary(r, vocab)) || (rc = read_added(r, added, vocab)) || (rc = index_words(r)) ||
	    (rc = read_merges(r, json_object_get(model, "merges"), vocab)) || (rc = read_unknown(r, root)) ||
	    (rc = read_ends(r, root, config)) || (rc = read_chat(r, config)))
		return rc;
	t->json = canonical(root, &t->json_n);
	t->config = config ? canonical(config, &t->config_n) : NULL;
	if (!t->json || (config && !t->config))
		return no_memory(r);
	stave_sha256(t->json, t->json_n, t->sha256);
	return 0;
}

int text_tokenizer_from_json(struct stave_tokenizer **out, json_t *root, json_t *config, const char *what, struct stave_err *err)
{
	struct text_reader r = {.t = calloc(1, sizeof *r.t), .what = what, .err = err};
	text_unicode_init();
	int rc = r.t ? read_document(&r, root, config) : no_memory(&r);
	json_decref(root);
	json_decref(config);
	if (rc) {
		stave_tokenizer_free(r.t);
		return rc;
	}
	*out = r.t;
	return 0;
}
