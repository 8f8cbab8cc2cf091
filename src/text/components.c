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

static struct text_op *add_op(struct text_reader *r, enum text_op_kind kind)
{
	struct stave_tokenizer *t = r->t;
	if (t->n_ops == TEXT_STEPS_MAX)
		return NULL;
	t->op[t->n_ops] = (struct text_op){.kind = kind};
	return &t->op[t->n_ops++];
}

static int add_form(struct text_reader *r, enum text_form form)
{
	struct text_op *op = add_op(r, TEXT_OP_FORM);
	if (!op)
		return corrupt(r, "normalizer", "more than 16 steps");
	op->form = form;
	return 0;
}

static int add_prepend(struct text_reader *r, const char *p, size_t n, bool absent_only, bool first_only)
{
	struct text_op *op = add_op(r, TEXT_OP_PREPEND);
	if (!op)
		return corrupt(r, "normalizer", "more than 16 steps");
	op->to = text_keep(r->t, p, n);
	op->absent_only = absent_only;
	op->first_only = first_only;
	return 0;
}

static int add_replace(struct text_reader *r, const char *from, size_t from_n, const char *to, size_t to_n)
{
	struct text_op *op = add_op(r, TEXT_OP_REPLACE);
	if (!op)
		return corrupt(r, "normalizer", "more than 16 steps");
	op->from = text_keep(r->t, from, from_n);
	op->to = text_keep(r->t, to, to_n);
	return 0;
}

/* {"pattern": {"String": from}, "content": to}: the one form of Replace that occurs. */
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
	if ((left && !add_op(r, TEXT_OP_STRIP_LEFT)) || (right && !add_op(r, TEXT_OP_STRIP_RIGHT)))
		return corrupt(r, "normalizer", "more than 16 steps");
	return 0;
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
			return add_form(r, forms[i].form);
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
		return p && n <= 64 ? add_prepend(r, p, n, false, false) : corrupt(r, "normalizer", "Prepend wants a text of 1 to 64 bytes");
	}
	if (!strcmp(type, "Replace")) {
		const char *from, *to;
		size_t from_n, to_n;
		int rc = replace_fields(r, o, "normalizer", &from, &from_n, &to, &to_n);
		return rc ? rc : add_replace(r, from, from_n, to, to_n);
	}
	return unsupported(r, "normalizer", type);
}

static int add_split(struct text_reader *r, const char *pattern, size_t n, bool literal, enum text_behavior behavior, bool invert)
{
	struct stave_tokenizer *t = r->t;
	if (t->n_splits == TEXT_STEPS_MAX)
		return corrupt(r, "pre_tokenizer", "more than 16 steps");
	int rc = text_split_open(&t->split[t->n_splits], pattern, n, literal, behavior, invert, r->what, r->err);
	t->n_splits += !rc;
	return rc;
}

static int read_split(struct text_reader *r, const json_t *o)
{
	static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
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
	for (int b = 0; b < 5; b++)
		if (!strcmp(behavior, names[b]))
			return add_split(r, regex ? regex : literal, n, !regex, (enum text_behavior)b, invert);
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
	if (prefix && (rc = add_prepend(r, " ", 1, true, false)))
		return rc;
	return regex ? add_split(r, text_pattern_gpt2, strlen(text_pattern_gpt2), false, TEXT_ISOLATED, false) : 0;
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
	if (r->t->n_splits)
		return unsupported(r, "pre_tokenizer", "Metaspace after a split");
	if ((rc = add_replace(r, " ", 1, mark, n)))
		return rc;
	if (scheme ? strcmp(scheme, "never") != 0 : prefix)
		rc = add_prepend(r, mark, n, true, scheme && !strcmp(scheme, "first"));
	return rc || !split ? rc : add_split(r, mark, n, true, TEXT_MERGED_WITH_NEXT, false);
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
		return rc ? rc : add_split(r, "\\p{N}", 5, false, each ? TEXT_ISOLATED : TEXT_CONTIGUOUS, false);
	}
	if (!strcmp(type, "Whitespace"))
		return add_split(r, "\\w+|[^\\w\\s]+", 12, false, TEXT_REMOVED, true);
	if (!strcmp(type, "WhitespaceSplit"))
		return add_split(r, "\\s+", 3, false, TEXT_REMOVED, false);
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
	return unsupported(r, "decoder", type);
}

/* Of the post-processor only one thing concerns us: does it put a special token before the text. */
static void read_post_processor(struct text_reader *r, const json_t *o, int depth)
{
	const char *type = stave_json_str(o, "type", "");
	if (depth > NESTING_MAX)
		return;
	if (!strcmp(type, "TemplateProcessing")) {
		const json_t *single = json_object_get(o, "single");
		const json_t *first = json_object_get(json_array_get(single, 0), "SpecialToken");
		if (first && json_object_get(json_array_get(single, 1), "Sequence"))
			r->template_bos = stave_json_str(first, "id", NULL);
	}
	size_t i;
	json_t *part;
	json_array_foreach(json_object_get(o, "processors"), i, part)
		read_post_processor(r, part, depth + 1);
}

int text_read_components(struct text_reader *r, const json_t *root)
{
	int rc = read_normalizer(r, json_object_get(root, "normalizer"), 0);
	if (!rc)
		rc = read_pre_tokenizer(r, json_object_get(root, "pre_tokenizer"), 0);
	if (!rc)
		rc = read_decoder(r, json_object_get(root, "decoder"), 0);
	if (!rc)
		read_post_processor(r, json_object_get(root, "post_processor"), 0);
	return rc;
}
