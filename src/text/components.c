/* The components of a tokenizer.json around its model: normalizer, pre-tokenizer, decoder, post-processor. Each becomes a
 * few fields of the tokenizer. What a component asks for and this program does not do is an error that names it: a
 * tokenizer that is nearly right is worse than none, because the model would read other ids than it was trained on. */
#include "base/json.h"
#include "text/tokenizer.h"

#define NESTING_MAX 8

static int corrupt(struct text_reader *r, const char *part, const char *wanted)
{
	return stave_err_set(r->err, STAVE_ECORRUPT, "%s: %s: %s", r->what, part, wanted);
}

static int unsupported(struct text_reader *r, const char *part, const char *type)
{
	return stave_err_set(r->err, STAVE_ECONFIG, "%s: %s \"%.80s\" is not one this program reads", r->what, part, type);
}

/* A string field, which must be there and hold at least one byte. */
static const char *text_field(const json_t *o, const char *key, size_t *n)
{
	const json_t *s = json_object_get(o, key);
	*n = json_string_length(s);
	return *n && *n <= TEXT_TOKEN_MAX ? json_string_value(s) : NULL;
}

/* ---- steps of normalization ---- */

struct text_op *text_add_op(struct text_reader *r, enum text_op_kind kind)
{
	struct stave_tokenizer *t = r->t;
	if (t->n_ops == TEXT_STEPS_MAX)
		return NULL;
	t->op[t->n_ops] = (struct text_op){.kind = kind};
	return &t->op[t->n_ops++];
}

static int too_many(struct text_reader *r)
{
	return corrupt(r, "normalizer", "more than 16 steps");
}

static int add_plain(struct text_reader *r, enum text_op_kind kind)
{
	return text_add_op(r, kind) ? 0 : too_many(r);
}

int text_add_form(struct text_reader *r, enum text_form form)
{
	struct text_op *op = text_add_op(r, TEXT_OP_FORM);
	if (!op)
		return too_many(r);
	op->form = form;
	return 0;
}

int text_add_prepend(struct text_reader *r, const char *p, size_t n, bool absent_only, bool first_only)
{
	struct text_op *op = text_add_op(r, TEXT_OP_PREPEND);
	if (!op)
		return too_many(r);
	op->to = text_keep(r->t, p, n);
	op->absent_only = absent_only;
	op->first_only = first_only;
	return 0;
}

int text_add_replace(struct text_reader *r, const char *from, size_t from_n, const char *to, size_t to_n)
{
	struct text_op *op = text_add_op(r, TEXT_OP_REPLACE);
	if (!op)
		return too_many(r);
	op->from = text_keep(r->t, from, from_n);
	op->to = text_keep(r->t, to, to_n);
	return 0;
}

/* BERT's own: each part may be absent; accents go with the case unless told otherwise. */
int text_add_bert(struct text_reader *r, bool clean, bool chinese, bool accents, bool lower)
{
	if ((clean && !text_add_op(r, TEXT_OP_CLEAN)) || (chinese && !text_add_op(r, TEXT_OP_CHINESE)))
		return too_many(r);
	if (accents && (text_add_form(r, TEXT_NFD) || !text_add_op(r, TEXT_OP_STRIP_MARKS)))
		return too_many(r);
	return lower ? text_add_form(r, TEXT_LOWERCASE) : 0;
}

static int read_bert_normalizer(struct text_reader *r, const json_t *o)
{
	bool clean, chinese, accents, lower;
	int rc = stave_json_bool(o, "clean_text", true, &clean, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(o, "handle_chinese_chars", true, &chinese, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(o, "lowercase", true, &lower, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(o, "strip_accents", lower, &accents, r->what, r->err);
	return rc ? rc : text_add_bert(r, clean, chinese, accents, lower);
}

/* Standard base64 without line breaks, into out; false when it is not that. */
static bool unbase64(const char *p, size_t n, struct stave_buf *out)
{
	uint32_t bits = 0;
	int have = 0;
	while (n && p[n - 1] == '=')
		n--;
	for (size_t i = 0; i < n; i++) {
		int c = (uint8_t)p[i];
		int v = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
		if (v < 0)
			return false;
		bits = bits << 6 | (uint32_t)v;
		have += 6;
		if (have >= 8) {
			have -= 8;
			stave_buf_put(out, &(char){(char)(bits >> have)}, 1);
		}
	}
	return true;
}

int text_add_charsmap(struct text_reader *r, const void *p, size_t n)
{
	struct stave_tokenizer *t = r->t;
	if (t->charsmap.raw)
		return unsupported(r, "normalizer", "a second Precompiled");
	int rc = text_charsmap_open(&t->charsmap, p, n, r->what, r->err);
	return rc ? rc : add_plain(r, TEXT_OP_CHARSMAP);
}

static int read_charsmap(struct text_reader *r, const json_t *o)
{
	const json_t *text = json_object_get(o, "precompiled_charsmap");
	struct stave_buf b = {0};
	if (!json_is_string(text) || !unbase64(json_string_value(text), json_string_length(text), &b)) {
		stave_buf_free(&b);
		return corrupt(r, "normalizer", "Precompiled wants a precompiled_charsmap in base64");
	}
	int rc = b.len ? text_add_charsmap(r, b.p, b.len) : 0; /* an empty table maps nothing */
	stave_buf_free(&b);
	return rc;
}

/* Replace by a pattern. Its content is taken as it is: no references to groups. */
static int add_matches(struct text_reader *r, const char *pattern, size_t n, const char *to, size_t to_n)
{
	struct text_op *op = text_add_op(r, TEXT_OP_MATCHES);
	if (!op)
		return too_many(r);
	op->from = text_keep(r->t, pattern, n);
	op->to = text_keep(r->t, to, to_n);
	int rc = text_split_open(&op->pattern, pattern, n, false, TEXT_MERGED_WITH_NEXT, false, r->what, r->err); /* never a written-out matcher */
	op->pattern.behavior = TEXT_ISOLATED;
	return rc;
}

/* {"pattern": {"String": from}, "content": to}; a normalizer's may be a Regex, read_replace takes those. */
static int replace_fields(struct text_reader *r, const json_t *o, const char *part, const char **from, size_t *from_n, const char **to, size_t *to_n)
{
	const json_t *content = json_object_get(o, "content");
	*from = text_field(json_object_get(o, "pattern"), "String", from_n);
	if (!*from && json_is_string(json_object_get(json_object_get(o, "pattern"), "Regex")))
		return unsupported(r, part, "Replace by Regex");
	*to = json_string_value(content);
	*to_n = json_string_length(content);
	/* A bound on growth: text is normalized in memory. */
	if (!*from || !*to || *to_n > 64)
		return corrupt(r, part, "Replace wants a String pattern and content of at most 64 bytes");
	return 0;
}

static int read_strip(struct text_reader *r, const json_t *o)
{
	bool left, right;
	int rc = stave_json_bool(o, "strip_left", true, &left, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(o, "strip_right", true, &right, r->what, r->err);
	if (rc)
		return rc;
	if ((left && !text_add_op(r, TEXT_OP_STRIP_LEFT)) || (right && !text_add_op(r, TEXT_OP_STRIP_RIGHT)))
		return too_many(r);
	return 0;
}

static int read_replace(struct text_reader *r, const json_t *o)
{
	const char *from, *to;
	size_t from_n, to_n;
	const char *pattern = text_field(json_object_get(o, "pattern"), "Regex", &from_n);
	const json_t *content = json_object_get(o, "content");
	int rc;
	if (pattern && json_is_string(content) && json_string_length(content) <= 64 && (rc = text_split_translate(&pattern, &from_n, r->what, r->err)))
		return rc;
	if (pattern && json_is_string(content) && json_string_length(content) <= 64)
		return add_matches(r, pattern, from_n, json_string_value(content), json_string_length(content));
	rc = replace_fields(r, o, "normalizer", &from, &from_n, &to, &to_n);
	return rc ? rc : text_add_replace(r, from, from_n, to, to_n);
}

static int read_normalizer(struct text_reader *r, const json_t *o, int depth)
{
	static const struct { const char *name; enum text_form form; } forms[] = {
		{"NFC", TEXT_NFC}, {"NFD", TEXT_NFD}, {"NFKC", TEXT_NFKC}, {"NFKD", TEXT_NFKD}, {"Lowercase", TEXT_LOWERCASE},
	};
	if (!o || json_is_null(o))
		return 0;
	const char *type = stave_json_str(o, "type", NULL);
	if (!type || depth > NESTING_MAX)
		return corrupt(r, "normalizer", type ? "nested too deeply" : "wanted an object with a type");
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (!strcmp(type, forms[i].name))
			return text_add_form(r, forms[i].form);
	if (!strcmp(type, "Sequence")) {
		size_t i;
		json_t *part;
		int rc = 0;
		json_array_foreach(json_object_get(o, "normalizers"), i, part)
			if ((rc = read_normalizer(r, part, depth + 1)))
				break;
		return rc;
	}
	if (!strcmp(type, "Strip"))
		return read_strip(r, o);
	if (!strcmp(type, "Prepend")) {
		size_t n;
		const char *p = text_field(o, "prepend", &n);
		return p && n <= 64 ? text_add_prepend(r, p, n, false, false) : corrupt(r, "normalizer", "Prepend wants a text of 1 to 64 bytes");
	}
	if (!strcmp(type, "Replace"))
		return read_replace(r, o);
	if (!strcmp(type, "StripAccents"))
		return add_plain(r, TEXT_OP_STRIP_MARKS);
	if (!strcmp(type, "BertNormalizer"))
		return read_bert_normalizer(r, o);
	if (!strcmp(type, "Precompiled"))
		return read_charsmap(r, o);
	return unsupported(r, "normalizer", type);
}

/* ---- splits ---- */

int text_add_split(struct text_reader *r, const char *pattern, size_t n, bool literal, enum text_behavior behavior, bool invert)
{
	struct stave_tokenizer *t = r->t;
	if (t->n_splits >= TEXT_STEPS_MAX - 1) /* one is kept free for the cut at marks */
		return corrupt(r, "pre_tokenizer", "more than 15 steps");
	int rc = text_split_open(&t->split[t->n_splits], pattern, n, literal, behavior, invert, r->what, r->err);
	if (rc)
		return rc;
	t->split[t->n_splits].behavior = behavior; /* also of the written-out matchers: whoever writes the file again asks */
	t->pattern[t->n_splits++] = text_keep(t, pattern, n);
	return 0;
}

int text_add_bert_splits(struct text_reader *r)
{
	int rc = text_add_split(r, text_pattern_spaces, strlen(text_pattern_spaces), false, TEXT_REMOVED, false);
	return rc ? rc : text_add_split(r, text_pattern_punctuation, strlen(text_pattern_punctuation), false, TEXT_ISOLATED, false);
}

static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};

static int read_split(struct text_reader *r, const json_t *o)
{
	const json_t *pattern = json_object_get(o, "pattern");
	size_t n;
	const char *regex = text_field(pattern, "Regex", &n), *literal = regex ? NULL : text_field(pattern, "String", &n);
	const char *behavior = stave_json_str(o, "behavior", "");
	bool invert;
	int rc = stave_json_bool(o, "invert", false, &invert, r->what, r->err);
	if (rc)
		return rc;
	if (!regex && !literal)
		return corrupt(r, "pre_tokenizer", "Split wants a pattern, Regex or String");
	if (regex && (rc = text_split_translate(&regex, &n, r->what, r->err)))
		return rc;
	for (int b = 0; b < 5; b++)
		if (!strcmp(behavior, behaviors[b]))
			return text_add_split(r, regex ? regex : literal, n, !regex, (enum text_behavior)b, invert);
	return corrupt(r, "pre_tokenizer", "Split has no known behavior");
}

static int read_byte_level(struct text_reader *r, const json_t *o)
{
	bool prefix, regex;
	int rc = stave_json_bool(o, "add_prefix_space", true, &prefix, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(o, "use_regex", true, &regex, r->what, r->err);
	if (rc)
		return rc;
	r->t->byte_level = true;
	if (prefix && r->t->n_splits)
		return unsupported(r, "pre_tokenizer", "ByteLevel with add_prefix_space after a split");
	if (prefix && (rc = text_add_prepend(r, " ", 1, true, false)))
		return rc;
	return regex ? text_add_split(r, text_pattern_gpt2, strlen(text_pattern_gpt2), false, TEXT_ISOLATED, false) : 0;
}

static int read_punctuation(struct text_reader *r, const json_t *o)
{
	const char *behavior = stave_json_str(o, "behavior", "Isolated");
	for (int b = 0; b < 5; b++)
		if (!strcmp(behavior, behaviors[b]))
			return text_add_split(r, text_pattern_punctuation, strlen(text_pattern_punctuation), false, (enum text_behavior)b, false);
	return corrupt(r, "pre_tokenizer", "Punctuation has no known behavior");
}

/* T5 writes Sequence[WhitespaceSplit, Metaspace]: words lose their white space and get a mark each, which is one step of
 * normalization. */
static bool after_whitespace_split(struct stave_tokenizer *t)
{
	return t->n_splits == 1 && t->split[0].kind == TEXT_SPLIT_REGEX && t->split[0].behavior == TEXT_REMOVED && !t->split[0].invert &&
	       t->pattern[0].n == strlen(text_pattern_spaces) && !memcmp(t->blob.p + t->pattern[0].at, text_pattern_spaces, t->pattern[0].n);
}

static int add_words(struct text_reader *r, const char *mark, size_t n, bool split)
{
	struct stave_tokenizer *t = r->t;
	struct text_op *op = text_add_op(r, TEXT_OP_WORDS);
	if (!op)
		return too_many(r);
	text_split_close(&t->split[--t->n_splits]);
	op->to = text_keep(t, mark, n);
	return split ? text_add_split(r, mark, n, true, TEXT_MERGED_WITH_NEXT, false) : 0;
}

static int read_metaspace(struct text_reader *r, const json_t *o)
{
	size_t n;
	const char *mark = text_field(o, "replacement", &n), *scheme = stave_json_str(o, "prepend_scheme", NULL);
	bool split, prefix;
	int rc = stave_json_bool(o, "split", true, &split, r->what, r->err);
	if (!rc)
		rc = stave_json_bool(o, "add_prefix_space", true, &prefix, r->what, r->err); /* the older spelling */
	if (rc)
		return rc;
	if (!mark || n > 64)
		return corrupt(r, "pre_tokenizer", "Metaspace wants a replacement of 1 to 64 bytes");
	prefix = scheme ? strcmp(scheme, "never") != 0 : prefix;
	if (prefix && !(scheme && !strcmp(scheme, "first")) && after_whitespace_split(r->t))
		return add_words(r, mark, n, split);
	if (r->t->n_splits)
		return unsupported(r, "pre_tokenizer", "Metaspace after a split");
	if ((rc = text_add_replace(r, " ", 1, mark, n)))
		return rc;
	if (prefix)
		rc = text_add_prepend(r, mark, n, true, scheme && !strcmp(scheme, "first"));
	return rc || !split ? rc : text_add_split(r, mark, n, true, TEXT_MERGED_WITH_NEXT, false);
}

static int read_pre_tokenizer(struct text_reader *r, const json_t *o, int depth)
{
	if (!o || json_is_null(o))
		return 0;
	const char *type = stave_json_str(o, "type", NULL);
	if (!type || depth > NESTING_MAX)
		return corrupt(r, "pre_tokenizer", type ? "nested too deeply" : "wanted an object with a type");
	if (r->t->byte_level)
		return unsupported(r, "pre_tokenizer after ByteLevel", type);
	if (!strcmp(type, "Sequence")) {
		size_t i;
		json_t *part;
		int rc = 0;
		json_array_foreach(json_object_get(o, "pretokenizers"), i, part)
			if ((rc = read_pre_tokenizer(r, part, depth + 1)))
				break;
		return rc;
	}
	if (!strcmp(type, "ByteLevel"))
		return read_byte_level(r, o);
	if (!strcmp(type, "Split"))
		return read_split(r, o);
	if (!strcmp(type, "Metaspace"))
		return read_metaspace(r, o);
	if (!strcmp(type, "Digits")) {
		bool each;
		int rc = stave_json_bool(o, "individual_digits", false, &each, r->what, r->err);
		return rc ? rc : text_add_split(r, "\\p{N}", 5, false, each ? TEXT_ISOLATED : TEXT_CONTIGUOUS, false);
	}
	if (!strcmp(type, "Whitespace"))
		return text_add_split(r, "\\w+|[^\\w\\s]+", 12, false, TEXT_REMOVED, true);
	if (!strcmp(type, "WhitespaceSplit"))
		return text_add_split(r, text_pattern_spaces, strlen(text_pattern_spaces), false, TEXT_REMOVED, false);
	if (!strcmp(type, "Punctuation"))
		return read_punctuation(r, o);
	if (!strcmp(type, "BertPreTokenizer"))
		return text_add_bert_splits(r);
	return unsupported(r, "pre_tokenizer", type);
}

static int read_decoder_replace(struct text_reader *r, const char *from, size_t from_n, const char *to, size_t to_n)
{
	if (r->decode_from.n)
		return unsupported(r, "decoder", "a second Replace");
	r->decode_from = text_keep(r->t, from, from_n);
	r->decode_to = text_keep(r->t, to, to_n);
	return 0;
}

static int read_decoder(struct text_reader *r, const json_t *o, int depth)
{
	if (!o || json_is_null(o))
		return 0;
	const char *type = stave_json_str(o, "type", NULL), *from, *to;
	size_t from_n, to_n;
	if (!type || depth > NESTING_MAX)
		return corrupt(r, "decoder", type ? "nested too deeply" : "wanted an object with a type");
	if (!strcmp(type, "Sequence")) {
		size_t i;
		json_t *part;
		int rc = 0;
		json_array_foreach(json_object_get(o, "decoders"), i, part)
			if ((rc = read_decoder(r, part, depth + 1)))
				break;
		return rc;
	}
	if (!strcmp(type, "Fuse"))
		return 0;
	if (!strcmp(type, "ByteLevel"))
		return r->t->byte_level ? 0 : unsupported(r, "decoder without its pre_tokenizer", type);
	if (!strcmp(type, "ByteFallback")) {
		r->decode_bytes = true;
		return 0;
	}
	if (!strcmp(type, "Replace")) {
		int rc = replace_fields(r, o, "decoder", &from, &from_n, &to, &to_n);
		return rc ? rc : read_decoder_replace(r, from, from_n, to, to_n);
	}
	if (!strcmp(type, "Metaspace")) {
		from = text_field(o, "replacement", &from_n);
		if (!from)
			return corrupt(r, "decoder", "Metaspace wants a replacement");
		r->t->strip_prefix = strcmp(stave_json_str(o, "prepend_scheme", "always"), "never") != 0;
		return read_decoder_replace(r, from, from_n, " ", 1);
	}
	if (!strcmp(type, "Strip")) {
		int64_t start, stop;
		int rc = stave_json_int(o, "start", 0, 0, 1, &start, r->what, r->err);
		if (!rc)
			rc = stave_json_int(o, "stop", 0, 0, 0, &stop, r->what, r->err);
		if (!rc && strcmp(stave_json_str(o, "content", ""), " "))
			rc = unsupported(r, "decoder", "Strip of other than one space at the start");
		r->t->strip_prefix = !rc && start;
		return rc;
	}
	if (!strcmp(type, "WordPiece")) {
		if (r->t->model != TEXT_WORDPIECE || strcmp(stave_json_str(o, "prefix", "##"), r->t->inner))
			return unsupported(r, "decoder of another model's pieces", type);
		r->decode_words = r->t->strip_prefix = true;
		return stave_json_bool(o, "cleanup", true, &r->decode_cleanup, r->what, r->err);
	}
	return unsupported(r, "decoder", type);
}

/* ---- what the post-processor puts around a text ---- */

/* One special token before the text and one after it are what callers can be told of; more is refused. */
static int read_template(struct text_reader *r, const json_t *single)
{
	size_t i;
	json_t *part;
	bool seen = false;
	json_array_foreach(single, i, part) {
		const json_t *special = json_object_get(part, "SpecialToken");
		if (json_object_get(part, "Sequence")) {
			if (seen)
				return unsupported(r, "post_processor", "TemplateProcessing with the text twice");
			seen = true;
			continue;
		}
		const char **at = seen ? &r->template_eos : &r->template_bos, *id = stave_json_str(special, "id", NULL);
		if (!id)
			return corrupt(r, "post_processor", "TemplateProcessing wants SpecialToken or Sequence in its template");
		if (*at)
			return unsupported(r, "post_processor", seen ? "TemplateProcessing with two tokens after the text" : "TemplateProcessing with two tokens before the text");
		*at = id;
	}
	return 0;
}

static int read_post_processor(struct text_reader *r, const json_t *o, int depth)
{
	if (!o || json_is_null(o))
		return 0;
	const char *type = stave_json_str(o, "type", NULL);
	if (!type || depth > NESTING_MAX)
		return corrupt(r, "post_processor", type ? "nested too deeply" : "wanted an object with a type");
	if (!strcmp(type, "ByteLevel"))
		return 0; /* concerns offsets only */
	if (!strcmp(type, "TemplateProcessing"))
		return read_template(r, json_object_get(o, "single"));
	if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing")) {
		r->template_bos = json_string_value(json_array_get(json_object_get(o, "cls"), 0));
		r->template_eos = json_string_value(json_array_get(json_object_get(o, "sep"), 0));
		return r->template_bos && r->template_eos ? 0 : corrupt(r, "post_processor", "wanted cls and sep as [\"token\", id]");
	}
	if (strcmp(type, "Sequence"))
		return unsupported(r, "post_processor", type);
	size_t i;
	json_t *part;
	int rc = 0;
	json_array_foreach(json_object_get(o, "processors"), i, part)
		if ((rc = read_post_processor(r, part, depth + 1)))
			break;
	return rc;
}

int text_read_components(struct text_reader *r, const json_t *root)
{
	int rc = read_normalizer(r, json_object_get(root, "normalizer"), 0);
	if (!rc)
		rc = read_pre_tokenizer(r, json_object_get(root, "pre_tokenizer"), 0);
	if (!rc)
		rc = read_decoder(r, json_object_get(root, "decoder"), 0);
	return rc ? rc : read_post_processor(r, json_object_get(root, "post_processor"), 0);
}
