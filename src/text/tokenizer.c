/* Tokenizers as files and as values: load, save, free, the byte and char tokenizers, and what callers ask of one.
 * Composed tokenizers are documents first and read back by the reader of files, see tokenizer_json.c. A directory's
 * generation_config.json is read for one thing, the ids that end an answer. */
#include <stdio.h>
#include <stdlib.h>

#include "base/gguf.h"
#include "base/json.h"
#include "text/build.h"
#include "text/tokenizer.h"

#define FILE_MAX ((size_t)256 << 20)

static const char end_of_text[] = "<|endoftext|>";

/* chat_template.jinja, where newer directories keep the template, counts as a member of tokenizer_config.json. */
static int load_config(json_t **out, const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	json_t *config = NULL;
	int rc = stave_path(path, dir, "tokenizer_config.json", err);
	if (!rc && stave_exists(path))
		rc = stave_json_load(&config, path, FILE_MAX, err);
	if (!rc)
		rc = stave_path(path, dir, "chat_template.jinja", err);
	if (!rc && stave_exists(path) && !json_object_get(config, "chat_template")) {
		struct stave_buf text = {0};
		if (!config)
			config = json_object();
		rc = stave_file_read(&text, path, FILE_MAX, err);
		if (!rc && json_object_set_new(config, "chat_template", json_stringn(text.p ? text.p : "", text.len)))
			rc = stave_err_set(err, STAVE_ECORRUPT, "%s is not UTF-8 text, or tokenizer_config.json beside it is no object", path);
		stave_buf_free(&text);
	}
	if (rc)
		json_decref(config);
	else
		*out = config;
	return rc;
}

/* eos_token_id of generation_config.json travels as a member of the configuration. */
static int load_stops(json_t **config, const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	json_t *generation = NULL;
	int rc = stave_path(path, dir, "generation_config.json", err);
	if (rc || !stave_exists(path) || (rc = stave_json_load(&generation, path, FILE_MAX, err)))
		return rc;
	json_t *ids = json_object_get(generation, "eos_token_id");
	if (ids && !*config)
		*config = json_object();
	if (ids)
		json_object_set(*config, TEXT_STOPS, ids);
	json_decref(generation);
	return 0;
}

static int load_gguf(struct stave_tokenizer **out, const char *path, struct stave_err *err)
{
	struct stave_gguf *g;
	int rc = stave_gguf_open(&g, path, err);
	if (rc)
		return rc;
	rc = stave_tokenizer_gguf(out, g, err);
	stave_gguf_close(g);
	return rc;
}

int stave_tokenizer_load(struct stave_tokenizer **out, const char *path, struct stave_err *err)
{
	char file[STAVE_PATH], dir[STAVE_PATH];
	json_t *root = NULL, *config = NULL;
	int rc;
	if (stave_is_gguf(path))
		return load_gguf(out, path, err);
	if (stave_is_dir(path)) {
		if ((rc = stave_path(file, path, "tokenizer.json", err)))
			return rc;
		snprintf(dir, sizeof dir, "%s", path);
	} else {
		if (snprintf(file, sizeof file, "%s", path) >= (int)sizeof file)
			return stave_err_set(err, STAVE_EUSAGE, "path is too long: %.100s…", path);
		const char *slash = strrchr(path, '/');
		snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	}
	if ((rc = stave_json_load(&root, file, FILE_MAX, err)))
		return rc;
	if ((rc = load_config(&config, dir, err)) || (rc = load_stops(&config, dir, err))) {
		json_decref(root);
		json_decref(config);
		return rc;
	}
	return text_tokenizer_from_json(out, root, config, file, err);
}

/* What another tokenizer left in the directory would be read with this one: the template file always goes, since the
 * template is in the configuration. */
int stave_tokenizer_save(const struct stave_tokenizer *t, const char *dir, struct stave_err *err)
{
	char json[STAVE_PATH], config[STAVE_PATH], template[STAVE_PATH];
	int rc = stave_mkdirs(dir, err);
	if (rc || (rc = stave_path(json, dir, "tokenizer.json", err)) || (rc = stave_path(config, dir, "tokenizer_config.json", err)) ||
	    (rc = stave_path(template, dir, "chat_template.jinja", err)))
		return rc;
	if ((rc = text_document(t, err)))
		return rc;
	if ((rc = stave_file_write(json, t->json, t->json_n, err)) || (rc = stave_remove_tree(template, err)))
		return rc;
	return t->config ? stave_file_write(config, t->config, t->config_n, err) : stave_remove_tree(config, err);
}

void stave_tokenizer_free(struct stave_tokenizer *t)
{
	if (!t)
		return;
	for (int i = 0; i < t->n_splits; i++)
		text_split_close(&t->split[i]);
	for (int i = 0; i < t->n_ops; i++)
		text_split_close(&t->op[i].pattern);
	text_charsmap_close(&t->charsmap);
	pthread_mutex_destroy(&t->lock);
	stave_buf_free(&t->blob);
	free(t->text);
	free(t->out);
	free(t->flags);
	free(t->score);
	free(t->prefix);
	free(t->word);
	free(t->merge);
	free(t->added);
	free(t->added_slot);
	free(t->added_len);
	free(t->chat_template);
	free(t->json);
	free(t->config);
	free(t);
}

/* ---- composed documents ---- */

json_t *text_compose(json_t *vocab, json_t *merges, int32_t eot, json_t *pre_tokenizer, const char *decoder)
{
	json_t *added = json_array();
	if (eot >= 0) {
		json_object_set_new(vocab, end_of_text, json_integer(eot));
		json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)eot, "content", end_of_text, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
	}
	json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
	                          "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
	json_t *dec = !strcmp(decoder, "ByteLevel") ? json_pack("{s:s, s:b, s:b, s:b}", "type", decoder, "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1) : json_pack("{s:s}", "type", decoder);
	return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
	                 "pre_tokenizer", pre_tokenizer, "post_processor", "decoder", dec, "model", model);
}

static json_t *compose_config(bool eot)
{
	json_t *c = json_pack("{s:b, s:b, s:s}", "add_bos_token", 0, "clean_up_tokenization_spaces", 0, "tokenizer_class", "PreTrainedTokenizerFast");
	if (eot)
		json_object_set_new(c, "eos_token", json_string(end_of_text));
	return c;
}

json_t *text_compose_byte_level(bool use_regex)
{
	return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", use_regex);
}

int text_compose_open(struct stave_tokenizer **out, json_t *root, bool eot, const char *what, struct stave_err *err)
{
	if (!root)
		return stave_err_set(err, STAVE_ENOMEM, "no memory to compose %s", what);
	return text_tokenizer_from_json(out, root, compose_config(eot), what, err);
}

int stave_tokenizer_byte(struct stave_tokenizer **out, struct stave_err *err)
{
	json_t *vocab = json_object();
	for (int b = 0; b < 256; b++) {
		uint8_t c[4];
		json_object_setn_new(vocab, (char *)c, text_utf8_put(c, text_byte_char((uint8_t)b)), json_integer(b));
	}
	return text_compose_open(out, text_compose(vocab, json_array(), 256, text_compose_byte_level(false), "ByteLevel"), true, "the byte tokenizer", err);
}

int stave_tokenizer_char(struct stave_tokenizer **out, const char *text, size_t n, bool eot, struct stave_err *err)
{
	const uint8_t *p = (const uint8_t *)text;
	uint8_t *seen = calloc(0x110000 / 8, 1);
	if (!seen)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for a set of characters");
	for (size_t i = 0; i < n;) {
		uint32_t cp;
		size_t at = i;
		i += text_utf8_next(p + i, n - i, &cp);
		if (cp == TEXT_INVALID || cp == 0) {
			free(seen);
			return stave_err_set(err, STAVE_ECORRUPT, "byte %zu of the text is %s; a char tokenizer wants text (byte or bpe:N take any bytes)", at, cp ? "not UTF-8" : "NUL");
		}
		seen[cp / 8] |= (uint8_t)(1 << cp % 8);
	}
	json_t *vocab = json_object();
	int32_t id = 0;
	for (uint32_t cp = 0; cp < 0x110000; cp++)
		if (seen[cp / 8] >> cp % 8 & 1) {
			uint8_t c[4];
			json_object_setn_new(vocab, (char *)c, text_utf8_put(c, cp), json_integer(id++));
		}
	free(seen);
	return text_compose_open(out, text_compose(vocab, json_array(), eot ? id : -1, json_null(), "Fuse"), eot, "the char tokenizer", err);
}

/* ---- what callers ask ---- */

int stave_tokenizer_vocab(const struct stave_tokenizer *t)
{
	return t->vocab;
}

/* Empty when the document of a GGUF's tokenizer cannot be written: its ids are then nobody else's. */
const char *stave_tokenizer_sha256(const struct stave_tokenizer *t)
{
	return text_document(t, NULL) ? "" : t->sha256;
}

int32_t stave_tokenizer_eos(const struct stave_tokenizer *t)
{
	return t->eos;
}

int32_t stave_tokenizer_bos(const struct stave_tokenizer *t)
{
	return t->bos;
}

bool stave_tokenizer_add_bos(const struct stave_tokenizer *t)
{
	return t->add_bos;
}

bool stave_tokenizer_add_eos(const struct stave_tokenizer *t)
{
	return t->add_eos;
}

bool stave_tokenizer_is_stop(const struct stave_tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->vocab && (id == t->eos || id == t->eot || id == t->eom || t->flags[id] & TEXT_STOP);
}

const char *stave_tokenizer_chat_template(const struct stave_tokenizer *t)
{
	return t->chat_template;
}

const char *stave_tokenizer_bytes(const struct stave_tokenizer *t, int32_t id, size_t *n)
{
	*n = id >= 0 && id < t->vocab ? t->out[id].n : 0;
	return *n ? t->blob.p + t->out[id].at : "";
}

/* Byte tokens and unused ones are not reached by text, but have a spelling. */
int32_t stave_tokenizer_find(const struct stave_tokenizer *t, const char *token, size_t n)
{
	const struct text_added *a = text_added_find(t, token, n);
	int byte = t->byte_fallback ? text_fallback_byte(token, n) : -1;
	return a ? a->id : byte >= 0 ? t->byte_id[byte] : text_word_find(t, token, n);
}

bool stave_tokenizer_is_special(const struct stave_tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->vocab && t->flags[id] & TEXT_SPECIAL;
}
