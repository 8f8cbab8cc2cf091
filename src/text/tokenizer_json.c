/* From a tokenizer.json document to the tokenizer's tables.
 *
 * The byte, char and trained tokenizers are composed as documents first (tokenizer.c) and come this way too, so what is saved
 * and what is loaded cannot differ. The canonical text of a document is its JSON with two spaces of indent and members in
 * their order; its SHA-256 is the tokenizer's identity.
 *
 * Here the document becomes lists of tokens, added tokens and merges that point into it (tables.c makes the tables), and the
 * models' own options are read: BPE, Unigram, WordPiece, WordLevel. What the program does not do is refused by name. */
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

/* ---- tokens, added tokens, merges ---- */

static int put_piece(struct text_reader *r, const char *token, size_t n, const json_t *id)
{
	if (!json_is_integer(id))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the id of token \"%.80s\" is not an integer", r->what, token);
	json_int_t v = json_integer_value(id);
	if (v < 0 || v >= TEXT_VOCAB_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: token \"%.80s\" has id %lld, outside 0..%d", r->what, token, (long long)v, TEXT_VOCAB_MAX - 1);
	r->piece[r->n_pieces++] = (struct text_piece){.p = token, .n = n, .id = (int32_t)v};
	return 0;
}

/* {"token": id, …}. */
static int list_vocabulary(struct text_reader *r, json_t *vocab)
{
	const char *token;
	size_t n;
	json_t *id;
	if (!json_is_object(vocab))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the model wants an object \"vocab\"", r->what);
	if (!(r->piece = calloc(json_object_size(vocab) + 1, sizeof *r->piece)))
		return text_no_memory(r);
	json_object_keylen_foreach(vocab, token, n, id) {
		int rc = put_piece(r, token, n, id);
		if (rc)
			return rc;
	}
	return 0;
}

/* [["token", score], …], ids in order. */
static int list_scored(struct text_reader *r, const json_t *vocab)
{
	size_t n = json_array_size(vocab), i;
	json_t *o;
	if (!json_is_array(vocab) || n > TEXT_VOCAB_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: a Unigram model wants an array \"vocab\" of at most %d pairs", r->what, TEXT_VOCAB_MAX);
	if (!(r->piece = calloc(n + 1, sizeof *r->piece)))
		return text_no_memory(r);
	json_array_foreach(vocab, i, o) {
		const json_t *token = json_array_get(o, 0), *score = json_array_get(o, 1);
		if (!json_is_string(token) || !json_is_number(score))
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: entry %zu of the vocabulary is not [\"token\", score]", r->what, i);
		r->piece[r->n_pieces++] = (struct text_piece){.p = json_string_value(token), .n = json_string_length(token), .id = (int32_t)i, .score = (float)json_number_value(score)};
	}
	return 0;
}

static int list_added_token(struct text_reader *r, const json_t *o, struct text_add *a)
{
	const json_t *content = json_object_get(o, "content"), *id = json_object_get(o, "id");
	int rc;
	a->p = json_string_value(content);
	a->n = json_string_length(content);
	if (!a->n)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: an added token without content", r->what);
	if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TEXT_VOCAB_MAX)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the id of added token \"%.80s\" is no integer in 0..%d", r->what, a->p, TEXT_VOCAB_MAX - 1);
	a->id = (int32_t)json_integer_value(id);
	if ((rc = stave_json_bool(o, "special", false, &a->special, r->what, r->err)) ||
	    (rc = stave_json_bool(o, "lstrip", false, &a->lstrip, r->what, r->err)) ||
	    (rc = stave_json_bool(o, "rstrip", false, &a->rstrip, r->what, r->err)))
		return rc;
	return stave_json_bool(o, "single_word", false, &a->single_word, r->what, r->err);
}

static int list_added(struct text_reader *r, const json_t *list)
{
	size_t i;
	json_t *o;
	if (list && !json_is_null(list) && !json_is_array(list))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: added_tokens must be an array", r->what);
	if (!(r->add = calloc(json_array_size(list) + 1, sizeof *r->add)))
		return text_no_memory(r);
	json_array_foreach(list, i, o) {
		int rc = list_added_token(r, o, &r->add[i]);
		if (rc)
			return rc;
		r->n_adds++;
	}
	return 0;
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

static int list_merges(struct text_reader *r, const json_t *merges)
{
	size_t i;
	json_t *m;
	if (!json_is_array(merges))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: the model wants an array \"merges\"", r->what);
	if (!(r->pair = calloc(json_array_size(merges) + 1, sizeof *r->pair)))
		return text_no_memory(r);
	json_array_foreach(merges, i, m) {
		struct text_pair *x = &r->pair[i];
		if (!merge_sides(m, &x->left, &x->left_n, &x->right, &x->right_n))
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: merge %zu is neither \"left right\" nor [\"left\", \"right\"]", r->what, i);
		r->n_pairs++;
	}
	return 0;
}

/* ---- the models ---- */

static int read_bpe(struct text_reader *r, const json_t *model)
{
	static const char *const unused[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	struct stave_tokenizer *t = r->t;
	double dropout;
	int rc;
	for (int i = 0; i < 2; i++)
		if (*stave_json_str(model, unused[i], ""))
			return stave_err_set(r->err, STAVE_ECONFIG, "%s: model.%s is not supported", r->what, unused[i]);
	if ((rc = stave_json_real(model, "dropout", 0, &dropout, r->what, r->err)))
		return rc;
	if (dropout != 0)
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: model.dropout would make encoding random; set it to null", r->what);
	if ((rc = list_vocabulary(r, json_object_get(model, "vocab"))) || (rc = list_merges(r, json_object_get(model, "merges"))) ||
	    (rc = stave_json_bool(model, "byte_fallback", false, &t->byte_fallback, r->what, r->err)) ||
	    (rc = stave_json_bool(model, "ignore_merges", false, &t->ignore_merges, r->what, r->err)))
		return rc;
	return stave_json_bool(model, "fuse_unk", false, &t->fuse_unknown, r->what, r->err);
}

static int read_unigram(struct text_reader *r, const json_t *model)
{
	struct stave_tokenizer *t = r->t;
	t->model = TEXT_UNIGRAM;
	t->fuse_unknown = true;
	int rc = list_scored(r, json_object_get(model, "vocab"));
	return rc ? rc : stave_json_bool(model, "byte_fallback", false, &t->byte_fallback, r->what, r->err);
}

static int read_wordpiece(struct text_reader *r, const json_t *model)
{
	struct stave_tokenizer *t = r->t;
	const char *inner = stave_json_str(model, "continuing_subword_prefix", "##");
	int64_t chars;
	t->model = TEXT_WORDPIECE;
	if (strlen(inner) >= sizeof t->inner)
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: model.continuing_subword_prefix \"%.40s\" is longer than %zu bytes", r->what, inner, sizeof t->inner - 1);
	t->inner_n = (int)strlen(inner);
	memcpy(t->inner, inner, strlen(inner) + 1);
	int rc = list_vocabulary(r, json_object_get(model, "vocab"));
	if (!rc)
		rc = stave_json_int(model, "max_input_chars_per_word", 100, 1, 1 << 20, &chars, r->what, r->err);
	if (!rc)
		t->word_chars_max = (int)chars;
	return rc;
}

static int read_model(struct text_reader *r, const json_t *model)
{
	const char *type = stave_json_str(model, "type", json_object_get(model, "merges") ? "BPE" : NULL);
	if (!type)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: no model, or a model without a type", r->what);
	if (!strcmp(type, "BPE"))
		return read_bpe(r, model);
	if (!strcmp(type, "Unigram"))
		return read_unigram(r, model);
	if (!strcmp(type, "WordPiece"))
		return read_wordpiece(r, model);
	if (strcmp(type, "WordLevel"))
		return stave_err_set(r->err, STAVE_ECONFIG, "%s: a tokenizer model of type %.40s; BPE, Unigram, WordPiece and WordLevel are read", r->what, type);
	r->t->model = TEXT_WORDLEVEL;
	return list_vocabulary(r, json_object_get(model, "vocab"));
}

static int32_t id_of(const struct text_reader *r, const char *token)
{
	return text_spelled(r, token, strlen(token));
}

/* The unknown token decides Unigram's scores, so it is read before the tables are made; its id is checked after. */
static int read_unknown(struct text_reader *r, const json_t *model)
{
	const char *token = stave_json_str(model, "unk_token", NULL);
	int64_t id;
	r->t->unknown = -1;
	if (r->t->model == TEXT_UNIGRAM) {
		int rc = stave_json_int(model, "unk_id", -1, 0, (int64_t)r->n_pieces - 1, &id, r->what, r->err);
		r->t->unknown = rc ? -1 : (int32_t)id;
		return rc;
	}
	for (size_t i = 0; token && i < r->n_pieces && r->t->unknown < 0; i++)
		if (r->piece[i].n == strlen(token) && !memcmp(r->piece[i].p, token, r->piece[i].n))
			r->t->unknown = r->piece[i].id;
	for (size_t i = 0; token && i < r->n_adds && r->t->unknown < 0; i++)
		if (r->add[i].n == strlen(token) && !memcmp(r->add[i].p, token, r->add[i].n))
			r->t->unknown = r->add[i].id;
	if (token && r->t->unknown < 0)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: unk_token \"%.80s\" is not in the vocabulary", r->what, token);
	return 0;
}

/* ---- what surrounds a text ---- */

/* tokenizer_config.json spells a token as a string or as {"content": string}. */
static int config_token(struct text_reader *r, const json_t *config, const char *key, int32_t *id)
{
	const json_t *o = json_object_get(config, key);
	const char *token = json_is_object(o) ? stave_json_str(o, "content", NULL) : json_string_value(o);
	*id = token ? id_of(r, token) : -1;
	if (token && *id < 0)
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: tokenizer_config.json names %s \"%.80s\", which the vocabulary lacks", r->what, key, token);
	return 0;
}

/* eos_token_id of generation_config.json: one id or a list. Ids beyond the tokenizer's are of padding rows and never sampled. */
static int read_stops(struct text_reader *r, const json_t *config)
{
	struct stave_tokenizer *t = r->t;
	const json_t *list = json_object_get(config, TEXT_STOPS), *one;
	size_t n = json_is_array(list) ? json_array_size(list) : 1;
	for (size_t i = 0; list && !json_is_null(list) && i < n; i++) {
		one = json_is_array(list) ? json_array_get(list, i) : list;
		if (!json_is_integer(one))
			return stave_err_set(r->err, STAVE_ECORRUPT, "%s: eos_token_id of generation_config.json is neither an id nor a list of ids", r->what);
		if (json_integer_value(one) >= 0 && json_integer_value(one) < t->vocab)
			t->flags[json_integer_value(one)] |= TEXT_STOP;
	}
	return 0;
}

static int read_ends(struct text_reader *r, const json_t *config)
{
	static const char *const usual[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};
	struct stave_tokenizer *t = r->t;
	int rc = config_token(r, config, "eos_token", &t->eos);
	if (!rc)
		rc = config_token(r, config, "bos_token", &t->bos);
	if (!rc)
		rc = config_token(r, config, "eot_token", &t->eot);
	if (!rc)
		rc = config_token(r, config, "eom_token", &t->eom);
	if (rc)
		return rc;
	int32_t first = r->template_bos ? id_of(r, r->template_bos) : -1, last = r->template_eos ? id_of(r, r->template_eos) : -1;
	if (t->eos < 0)
		t->eos = last;
	if (t->bos < 0)
		t->bos = first;
	for (size_t i = 0; i < 4 && t->eos < 0 && !json_object_get(config, "eos_token"); i++) {
		const struct text_added *a = text_added_find(t, usual[i], strlen(usual[i]));
		t->eos = a && a->special ? a->id : -1;
	}
	rc = stave_json_bool(config, "add_bos_token", first >= 0 && first == t->bos, &t->add_bos, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(config, "add_eos_token", last >= 0 && last == t->eos, &t->add_eos, r->what, r->err);
	t->add_bos = t->add_bos && t->bos >= 0;
	t->add_eos = t->add_eos && t->eos >= 0;
	return rc;
}

/* chat_template is a string, or a list of named ones of which "default" is meant. */
static int read_chat(struct text_reader *r, const json_t *config)
{
	const json_t *c = json_object_get(config, "chat_template"), *o;
	const char *text = json_string_value(c);
	size_t i;
	json_array_foreach(c, i, o)
		if (!strcmp(stave_json_str(o, "name", ""), "default"))
			text = stave_json_str(o, "template", NULL);
	return text_set_template(r, text);
}

/* ---- the whole ---- */

static char *canonical(const json_t *j, size_t *n)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_ENCODE_ANY);
	*n = text ? strlen(text) : 0;
	return text;
}

static int read_document(struct text_reader *r, json_t *root, json_t *config)
{
	struct stave_tokenizer *t = r->t;
	const json_t *model = json_object_get(root, "model");
	int rc;
	if (!json_is_object(root) || (config && !json_is_object(config)))
		return stave_err_set(r->err, STAVE_ECORRUPT, "%s: a tokenizer file must hold a JSON object", r->what);
	if ((rc = read_model(r, model)) || (rc = text_read_components(r, root)) || (rc = list_added(r, json_object_get(root, "added_tokens"))) ||
	    (rc = read_unknown(r, model)) || (rc = text_build(r)) || (rc = read_ends(r, config)) || (rc = read_stops(r, config)) || (rc = read_chat(r, config)))
		return rc;
	if (config)
		json_object_del(config, TEXT_STOPS);
	t->json = canonical(root, &t->json_n);
	t->config = config && json_object_size(config) ? canonical(config, &t->config_n) : NULL;
	if (!t->json || (config && json_object_size(config) && !t->config))
		return text_no_memory(r);
	stave_sha256(t->json, t->json_n, t->sha256);
	return 0;
}

int text_tokenizer_from_json(struct stave_tokenizer **out, json_t *root, json_t *config, const char *what, struct stave_err *err)
{
	struct text_reader r = {.what = what, .err = err};
	int rc = text_new(&r);
	if (!rc)
		rc = read_document(&r, root, config);
	text_reader_close(&r);
	json_decref(root);
	json_decref(config);
	if (rc) {
		stave_tokenizer_free(r.t);
		return rc;
	}
	*out = r.t;
	return 0;
}
