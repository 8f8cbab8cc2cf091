/* The canonical tokenizer.json and tokenizer_config.json of a tokenizer that came from a GGUF, written from its tables when they
 * are first asked for: few runs need them, and a document of 10 MB takes time.
 *
 * SentencePiece's BPE has no form of its own there. As Hugging Face's converter does, it becomes BPE whose merges are all ways to
 * spell each token by two others, best score first. Where two different tokens have one score the library goes by the order of
 * the list and not by the place in the text; real vocabularies have no such ties.
 *
 * Refused: gemma4's habit of taking runs of line ends whole, for which the format has no word. */
#include <stdlib.h>

#include "base/hash.h"
#include "text/spell.h"

static json_t *string(const struct stave_tokenizer *t, struct text_bytes b)
{
	return json_stringn(t->blob.p + b.at, b.n);
}

/* ---- the model ---- */

static json_t *vocabulary(const struct stave_tokenizer *t)
{
	json_t *v = json_object();
	struct stave_buf s = {0};
	for (int id = 0; id < t->vocab; id++)
		if (text_spell(t, id, &s))
			json_object_setn_new(v, s.p, s.len, json_integer(id));
	stave_buf_free(&s);
	return v;
}

static json_t *scored(const struct stave_tokenizer *t)
{
	json_t *v = json_array();
	struct stave_buf s = {0};
	for (int id = 0; id < t->vocab; id++) {
		if (!text_spell(t, id, &s))
			stave_buf_printf(&s, "[UNUSED%d]", id); /* ids are places in the list */
		/* unused tokens are out of reach: no way through a text is worth so little */
		json_array_append_new(v, json_pack("[o, f]", json_stringn(s.p, s.len), t->flags[id] & TEXT_PRESENT && !(t->flags[id] & TEXT_UNUSED) ? (double)t->score[id] : -1e6));
	}
	stave_buf_free(&s);
	return v;
}

static json_t *merges(const struct stave_tokenizer *t, struct stave_err *err)
{
	struct text_merge_list list;
	struct stave_buf s = {0}, one = {0};
	if (text_merge_list(t, &list, err))
		return NULL;
	json_t *m = json_array();
	for (size_t i = 0; i < list.n; i++) {
		s.len = 0;
		text_spell(t, list.p[i].left, &one);
		stave_buf_put(&s, one.p, one.len);
		stave_buf_put(&s, " ", 1);
		text_spell(t, list.p[i].right, &one);
		stave_buf_put(&s, one.p, one.len);
		json_array_append_new(m, json_stringn(s.p, s.len));
	}
	stave_buf_free(&s);
	stave_buf_free(&one);
	free(list.p);
	return m;
}

static json_t *unknown_token(const struct stave_tokenizer *t)
{
	struct stave_buf s = {0};
	json_t *j = t->unknown >= 0 && text_spell(t, t->unknown, &s) ? json_stringn(s.p, s.len) : json_null();
	stave_buf_free(&s);
	return j;
}

static json_t *model(const struct stave_tokenizer *t, struct stave_err *err)
{
	json_t *m;
	switch (t->model) {
	case TEXT_UNIGRAM:
		return json_pack("{s:s, s:o, s:o, s:b}", "type", "Unigram", "unk_id", t->unknown >= 0 ? json_integer(t->unknown) : json_null(), "vocab", scored(t), "byte_fallback", t->byte_fallback);
	case TEXT_WORDPIECE:
		return json_pack("{s:s, s:o, s:s, s:i, s:o}", "type", "WordPiece", "unk_token", unknown_token(t), "continuing_subword_prefix", t->inner, "max_input_chars_per_word", t->word_chars_max,
		                 "vocab", vocabulary(t));
	case TEXT_WORDLEVEL:
		return json_pack("{s:s, s:o, s:o}", "type", "WordLevel", "vocab", vocabulary(t), "unk_token", unknown_token(t));
	default:
		if (!(m = merges(t, err)))
			return NULL;
		return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token", unknown_token(t), "continuing_subword_prefix", "end_of_word_suffix",
		                 "fuse_unk", t->fuse_unknown, "byte_fallback", t->byte_fallback, "ignore_merges", t->ignore_merges, "vocab", vocabulary(t), "merges", m);
	}
}

/* ---- what surrounds it ---- */

static json_t *added(const struct stave_tokenizer *t)
{
	json_t *list = json_array();
	for (int i = 0; i < t->n_added; i++) {
		const struct text_added *a = &t->added[i];
		json_array_append_new(list, json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (int)a->id, "content", string(t, a->content), "single_word", a->single_word, "lstrip", a->lstrip,
		                                      "rstrip", a->rstrip, "normalized", 0, "special", a->special));
	}
	return list;
}

static json_t *replace_by_pattern(const char *pattern, const char *to)
{
	return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "Regex", pattern, "content", to);
}

static json_t *base64(const char *raw, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct stave_buf b = {0};
	for (size_t i = 0; i < n; i += 3) {
		const uint8_t *p = (const uint8_t *)raw + i;
		uint32_t v = (uint32_t)p[0] << 16 | (i + 1 < n ? (uint32_t)p[1] << 8 : 0) | (i + 2 < n ? p[2] : 0u);
		char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
		stave_buf_put(&b, four, 4);
	}
	json_t *j = json_stringn(b.p, b.len);
	stave_buf_free(&b);
	return j;
}

/* BERT's steps were one component and become it again, so they are skipped but for the first. */
static json_t *bert_normalizer(const struct stave_tokenizer *t)
{
	bool lower = false, accents = false;
	for (int i = 0; i < t->n_ops; i++) {
		lower |= t->op[i].kind == TEXT_OP_FORM && t->op[i].form == TEXT_LOWERCASE;
		accents |= t->op[i].kind == TEXT_OP_STRIP_MARKS;
	}
	return json_pack("{s:s, s:b, s:b, s:b, s:b}", "type", "BertNormalizer", "clean_text", 1, "handle_chinese_chars", 1, "strip_accents", accents, "lowercase", lower);
}

static json_t *normalizer(const struct stave_tokenizer *t)
{
	if (t->model == TEXT_WORDPIECE)
		return bert_normalizer(t);
	json_t *list = json_array();
	for (int i = 0; i < t->n_ops; i++) {
		const struct text_op *op = &t->op[i];
		if (op->kind == TEXT_OP_FORM)
			json_array_append_new(list, json_pack("{s:s}", "type", "NFC"));
		else if (op->kind == TEXT_OP_CHARSMAP)
			json_array_append_new(list, json_pack("{s:s, s:o}", "type", "Precompiled", "precompiled_charsmap", base64(t->charsmap.raw, t->charsmap.raw_n)));
		else if (op->kind == TEXT_OP_PREPEND)
			json_array_append_new(list, json_pack("{s:s, s:o}", "type", "Prepend", "prepend", string(t, op->to)));
		else if (op->kind == TEXT_OP_REPLACE)
			json_array_append_new(list, json_pack("{s:s, s:{s:o}, s:o}", "type", "Replace", "pattern", "String", string(t, op->from), "content", string(t, op->to)));
		if (op->kind == TEXT_OP_TRIM) {
			json_array_append_new(list, replace_by_pattern("\\A +| +\\z", ""));
			json_array_append_new(list, replace_by_pattern(" {2,}", " "));
		}
	}
	return json_array_size(list) ? json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", list) : (json_decref(list), json_null());
}

static json_t *pre_tokenizer(const struct stave_tokenizer *t)
{
	json_t *list = json_array();
	if (t->model == TEXT_WORDPIECE) {
		json_decref(list);
		return json_pack("{s:s}", "type", "BertPreTokenizer");
	}
	for (int i = 0; i < t->n_splits; i++)
		if (t->pattern[i].n)
			json_array_append_new(list, json_pack("{s:s, s:{s:o}, s:s, s:b}", "type", "Split", "pattern", "Regex", string(t, t->pattern[i]), "behavior", "Isolated", "invert", 0));
	if (t->byte_level)
		json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 0));
	return json_array_size(list) ? json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list) : (json_decref(list), json_null());
}

static json_t *decoder(const struct stave_tokenizer *t)
{
	if (t->byte_level)
		return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1);
	if (t->model == TEXT_WORDPIECE)
		return json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", t->inner, "cleanup", 1);
	json_t *list = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", TEXT_MARK, "content", " ", "type", "ByteFallback", "type", "Fuse");
	if (t->strip_prefix)
		json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
	return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

static json_t *token(const struct stave_tokenizer *t, int32_t id)
{
	struct stave_buf s = {0};
	json_t *j = text_spell(t, id, &s) ? json_stringn(s.p, s.len) : json_string("");
	stave_buf_free(&s);
	return j;
}

static json_t *special(const struct stave_tokenizer *t, int32_t id)
{
	return json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", token(t, id), "type_id", 0);
}

static json_t *post_processor(const struct stave_tokenizer *t)
{
	if (!t->add_bos && !t->add_eos)
		return json_null();
	json_t *single = json_array(), *used = json_object();
	const int32_t ids[2] = {t->add_bos ? t->bos : -1, t->add_eos ? t->eos : -1};
	for (int i = 0; i < 2; i++) {
		if (ids[i] >= 0) {
			json_t *name = token(t, ids[i]);
			json_array_append_new(single, special(t, ids[i]));
			json_object_setn_new(used, json_string_value(name), json_string_length(name), json_pack("{s:O, s:[i], s:[O]}", "id", name, "ids", (int)ids[i], "tokens", name));
			json_decref(name);
		}
		if (!i)
			json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
	}
	json_t *pair = json_deep_copy(single);
	json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
	return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens", used);
}

static json_t *configuration(const struct stave_tokenizer *t)
{
	static const char *const names[] = {"bos_token", "eos_token", "eot_token", "eom_token", "unk_token"};
	const int32_t ids[] = {t->bos, t->eos, t->eot, t->eom, t->unknown};
	json_t *c = json_pack("{s:b, s:b, s:b, s:s}", "add_bos_token", t->add_bos, "add_eos_token", t->add_eos, "clean_up_tokenization_spaces", 0, "tokenizer_class", "PreTrainedTokenizerFast");
	for (int i = 0; i < 5; i++)
		if (ids[i] >= 0)
			json_object_set_new(c, names[i], token(t, ids[i]));
	if (t->chat_template && json_object_set_new(c, "chat_template", json_string(t->chat_template))) {
		json_decref(c);
		return NULL;
	}
	return c;
}

static int write(struct stave_tokenizer *t, struct stave_err *err)
{
	if (t->whole_newlines)
		return stave_err_set(err, STAVE_ECONFIG, "tokenizer.json has no way to say that runs of line ends are taken whole, as gemma4's tokenizer does");
	json_t *m = model(t, err), *c = m ? configuration(t) : NULL;
	if (!m)
		return err ? err->code : STAVE_ENOMEM;
	json_t *root = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens", added(t), "normalizer", normalizer(t), "pre_tokenizer",
	                         pre_tokenizer(t), "post_processor", post_processor(t), "decoder", decoder(t), "model", m);
	char *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL, *config = c ? json_dumps(c, JSON_INDENT(2)) : NULL;
	json_decref(root);
	json_decref(c);
	if (!json || !config) {
		free(json);
		free(config);
		return stave_err_set(err, STAVE_ECORRUPT, "the tokenizer's tokens or its chat template are no text that JSON can hold");
	}
	t->config = config;
	t->config_n = strlen(config);
	t->json_n = strlen(json);
	stave_sha256(json, t->json_n, t->sha256);
	t->json = json;
	return 0;
}

int text_document(const struct stave_tokenizer *tokenizer, struct stave_err *err)
{
	struct stave_tokenizer *t = (struct stave_tokenizer *)tokenizer; /* what is written once and under the lock is no change to others */
	pthread_mutex_lock(&t->lock);
	int rc = t->json ? 0 : write(t, err);
	pthread_mutex_unlock(&t->lock);
	return rc;
}
