/* The tree of a YAML text, built from libyaml's events.
 *
 * What is accepted is the part of YAML that means the same to everybody: one document of maps with plain keys, lists and scalars. Anchors
 * and aliases (a text of a kilobyte that grows to gigabytes), tags (types the reader chooses), %TAG directives, second documents and
 * duplicate keys (of which every reader takes another) are refused. Size, depth and number of nodes are bounded, so that what comes back fits
 * an int and nothing recurses.
 *
 * Events arrive in document order and are kept as records that know their parent by number; when all are there, each parent's children are
 * laid out as one array. Tree and strings are one block of memory, hence freed by one free. */
#include "base/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/config.h"
#include "base/fs.h"

#define SIZE_MAX_BYTES (4u << 20)
#define DEPTH_MAX      32
#define NODES_MAX      200000

/* A node before its place is known. key and text are offsets into `strings`; 0, where the file's name stands, means none. */
struct record {
	enum stave_yaml_kind kind;
	int line, parent, n;
	size_t key, text;
};
struct builder {
	const char *what;
	struct record *record;
	int n, room;
	struct stave_buf strings;
	int open[DEPTH_MAX], depth; /* records of the containers we are in */
	size_t key;                 /* of the entry whose value is awaited, and its line */
	int key_line;
	int documents;
	struct stave_err *err;
};

static int refuse(const struct builder *b, const yaml_event_t *e, const char *why)
{
	return stave_err_set(b->err, STAVE_ECONFIG, "%s:%zu: %s", b->what, e->start_mark.line + 1, why);
}

static size_t keep(struct builder *b, const void *text, size_t n)
{
	size_t at = b->strings.len;
	stave_buf_put(&b->strings, text, n);
	stave_buf_put(&b->strings, "", 1);
	return at;
}

static bool awaits_key(const struct builder *b)
{
	return b->depth && b->record[b->open[b->depth - 1]].kind == STAVE_YAML_MAP && !b->key;
}

static int add(struct builder *b, const yaml_event_t *e, enum stave_yaml_kind kind, size_t text)
{
	if (b->n == NODES_MAX)
		return refuse(b, e, "too many entries; 200000 are the limit");
	if (b->n == b->room) {
		int room = b->room ? 2 * b->room : 64;
		struct record *r = realloc(b->record, (size_t)room * sizeof *r);
		if (!r)
			return stave_err_set(b->err, STAVE_ENOMEM, "%s: no memory for the text", b->what);
		b->record = r;
		b->room = room;
	}
	int parent = b->depth ? b->open[b->depth - 1] : -1;
	b->record[b->n] = (struct record){.kind = kind, .line = b->key ? b->key_line : (int)e->start_mark.line + 1, .parent = parent, .key = b->key, .text = text};
	if (parent >= 0)
		b->record[parent].n++;
	b->key = 0;
	b->n++;
	return 0;
}

static int scalar(struct builder *b, const yaml_event_t *e)
{
	const char *text = (const char *)e->data.scalar.value;
	size_t n = e->data.scalar.length;
	if (e->data.scalar.anchor)
		return refuse(b, e, "anchors (&name) are not supported; write the value out");
	if (e->data.scalar.tag)
		return refuse(b, e, "tags (!type) are not supported; write the plain value");
	if (memchr(text, 0, n))
		return refuse(b, e, "the text holds a NUL byte");
	if (!awaits_key(b))
		return add(b, e, STAVE_YAML_SCALAR, keep(b, text, n));
	if (!n)
		return refuse(b, e, "an entry has no key; write 'key: value'");
	b->key = keep(b, text, n);
	b->key_line = (int)e->start_mark.line + 1;
	return 0;
}

static int container(struct builder *b, const yaml_event_t *e, enum stave_yaml_kind kind)
{
	bool map = kind == STAVE_YAML_MAP;
	if (map ? e->data.mapping_start.anchor : e->data.sequence_start.anchor)
		return refuse(b, e, "anchors (&name) are not supported; write the value out");
	if (map ? e->data.mapping_start.tag : e->data.sequence_start.tag)
		return refuse(b, e, "tags (!type) are not supported; write the plain map or list");
	if (awaits_key(b))
		return refuse(b, e, "a key must be plain text, not a map or a list");
	if (b->depth == DEPTH_MAX)
		return refuse(b, e, "nested too deeply; 32 levels are the limit");
	int rc = add(b, e, kind, 0);
	if (!rc)
		b->open[b->depth++] = b->n - 1;
	return rc;
}

static int take(struct builder *b, const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (b->documents++)
			return refuse(b, e, "a second document begins here; put it into a file of its own");
		if (e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end)
			return refuse(b, e, "%TAG directives are not supported");
		return 0;
	case YAML_SCALAR_EVENT:         return scalar(b, e);
	case YAML_MAPPING_START_EVENT:  return container(b, e, STAVE_YAML_MAP);
	case YAML_SEQUENCE_START_EVENT: return container(b, e, STAVE_YAML_LIST);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		b->depth--;
		return 0;
	case YAML_ALIAS_EVENT:
		return refuse(b, e, "aliases (*name) are not supported; write the value out");
	default:
		return 0;
	}
}

static int read_events(struct builder *b, const char *text, size_t n)
{
	yaml_parser_t parser;
	if (!yaml_parser_initialize(&parser))
		return stave_err_set(b->err, STAVE_ENOMEM, "%s: no memory for the YAML parser", b->what);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
	int rc = 0;
	for (bool end = false; !rc && !end;) {
		yaml_event_t e;
		if (!yaml_parser_parse(&parser, &e)) {
			rc = stave_err_set(b->err, STAVE_ECONFIG, "%s:%zu: not valid YAML: %s", b->what, parser.problem_mark.line + 1,
			                   parser.problem ? parser.problem : "unreadable");
			break;
		}
		end = e.type == YAML_STREAM_END_EVENT;
		rc = take(b, &e);
		yaml_event_delete(&e);
	}
	yaml_parser_delete(&parser);
	if (!rc && !b->n)
		rc = stave_err_set(b->err, STAVE_ECONFIG, "%s:1: the text is empty; a map of keys is wanted", b->what);
	return rc;
}

/* Records come parent before child, so a parent's array is placed before a child asks for its room in it. */
static struct stave_yaml *lay_out(const struct builder *b)
{
	size_t nodes = (size_t)b->n * sizeof(struct stave_yaml);
	struct stave_yaml *node = calloc(1, nodes + b->strings.len), **place = calloc((size_t)b->n, sizeof *place);
	if (!node || !place) {
		free(node);
		free(place);
		return NULL;
	}
	char *strings = (char *)node + nodes;
	memcpy(strings, b->strings.p, b->strings.len);
	struct stave_yaml *next = node + 1;
	for (int i = 0; i < b->n; i++) {
		const struct record *r = &b->record[i];
		struct stave_yaml *parent = i ? place[r->parent] : NULL;
		place[i] = parent ? &parent->child[parent->n++] : node; /* n counts the children placed so far */
		*place[i] = (struct stave_yaml){.kind = r->kind, .line = r->line, .file = strings, .key = r->key ? strings + r->key : NULL,
		                                .text = r->text ? strings + r->text : NULL, .child = r->n ? next : NULL};
		next += r->n;
	}
	free(place);
	return node;
}

static int by_key(const void *a, const void *b)
{
	const struct stave_yaml *x = *(struct stave_yaml *const *)a, *y = *(struct stave_yaml *const *)b;
	int c = strcmp(x->key, y->key);
	return c ? c : (x > y) - (x < y);
}

/* Sorted, a repeated key stands beside itself: n log n also for a map of 200,000 entries. `order` has room for them. */
static int distinct(const struct stave_yaml *map, const struct stave_yaml **order, struct stave_err *err)
{
	for (int i = 0; i < map->n; i++)
		order[i] = &map->child[i];
	if (map->n > 1)
		qsort(order, (size_t)map->n, sizeof *order, by_key);
	for (int i = 1; i < map->n; i++)
		if (!strcmp(order[i - 1]->key, order[i]->key))
			return stave_yaml_error(order[i], err, "'%.100s' stands here a second time; the first is in line %d", order[i]->key, order[i - 1]->line);
	return 0;
}

static int check_keys(const struct stave_yaml *root, int nodes, struct stave_err *err)
{
	const struct stave_yaml **order = calloc((size_t)nodes, sizeof *order);
	int rc = order ? 0 : stave_err_set(err, STAVE_ENOMEM, "%s: no memory for the text", root->file);
	for (int i = 0; !rc && i < nodes; i++)
		if (root[i].kind == STAVE_YAML_MAP)
			rc = distinct(&root[i], order, err);
	free(order);
	return rc;
}

int stave_yaml_parse(struct stave_yaml **out, const char *text, size_t n, const char *what, struct stave_err *err)
{
	if (n > SIZE_MAX_BYTES)
		return stave_err_set(err, STAVE_ECONFIG, "%s: %zu bytes of YAML; %u are the limit", what, n, SIZE_MAX_BYTES);
	struct builder b = {.what = what, .err = err};
	keep(&b, what, strlen(what));
	struct stave_yaml *root = NULL;
	int rc = read_events(&b, text, n);
	if (!rc && !(root = lay_out(&b)))
		rc = stave_err_set(err, STAVE_ENOMEM, "%s: no memory for the text", what);
	if (!rc)
		rc = check_keys(root, b.n, err);
	free(b.record);
	stave_buf_free(&b.strings);
	if (rc)
		stave_yaml_free(root);
	else
		*out = root;
	return rc;
}

int stave_yaml_load(struct stave_yaml **out, const char *path, struct stave_err *err)
{
	struct stave_buf text = {0};
	int rc = stave_file_read(&text, path, SIZE_MAX_BYTES, err);
	if (!rc)
		rc = stave_yaml_parse(out, text.p, text.len, path, err);
	else if (rc != STAVE_ENOMEM) {
		rc = STAVE_ECONFIG; /* a specification that cannot be read is the user's to mend */
		if (err)
			err->code = rc;
	}
	stave_buf_free(&text);
	return rc;
}

void stave_yaml_free(struct stave_yaml *root) { free(root); }

struct stave_yaml *stave_yaml_get(struct stave_yaml *map, const char *key)
{
	if (!map || map->kind != STAVE_YAML_MAP)
		return NULL;
	for (int i = 0; i < map->n; i++)
		if (!strcmp(map->child[i].key, key))
			return &map->child[i];
	return NULL;
}

int stave_yaml_error(const struct stave_yaml *at, struct stave_err *err, const char *fmt, ...)
{
	char message[900];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	return stave_err_set(err, STAVE_ECONFIG, "%.400s:%d: %s", at->file, at->line, message);
}

static bool among(const char *key, const char *const *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(keys[i], key))
			return true;
	return false;
}

int stave_yaml_keys(const struct stave_yaml *map, const char *const *keys, size_t n, struct stave_err *err)
{
	if (map->kind != STAVE_YAML_MAP)
		return stave_yaml_error(map, err, "%s%.100s%sa map of keys is wanted here, found %s", map->key ? "'" : "", map->key ? map->key : "",
		                        map->key ? "': " : "", map->kind == STAVE_YAML_LIST ? "a list" : "a single value");
	for (int i = 0; i < map->n; i++) {
		const struct stave_yaml *c = &map->child[i];
		if (among(c->key, keys, n))
			continue;
		const char *near = stave_nearest(c->key, keys, n);
		if (near)
			return stave_yaml_error(c, err, "unknown key '%.100s'; did you mean '%s'?", c->key, near);
		char list[500] = "";
		for (size_t k = 0, len = 0; k < n && len + strlen(keys[k]) + 2 < sizeof list; k++)
			len += (size_t)snprintf(list + len, sizeof list - len, " %s", keys[k]);
		return stave_yaml_error(c, err, "unknown key '%.100s'; known here:%s", c->key, list);
	}
	return 0;
}

static void write_scalar(const char *text, FILE *to)
{
	if (text[0] && text[0] != ' ' && !text[strcspn(text, ",:#{}[]\"'&*!|>@`\\\n\t")]) {
		fputs(text, to);
		return;
	}
	fputc('"', to);
	for (; *text; text++)
		if (*text == '\n')
			fputs("\\n", to);
		else
			fprintf(to, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
	fputc('"', to);
}

/* Depth is bounded by the parser, so this may recurse. */
void stave_yaml_write(const struct stave_yaml *n, FILE *to)
{
	bool map = n->kind == STAVE_YAML_MAP;
	if (n->kind == STAVE_YAML_SCALAR) {
		write_scalar(n->text, to);
		return;
	}
	fputc(map ? '{' : '[', to);
	for (int i = 0; i < n->n; i++) {
		if (i)
			fputs(", ", to);
		if (map)
			fprintf(to, "%s: ", n->child[i].key);
		stave_yaml_write(&n->child[i], to);
	}
	fputc(map ? '}' : ']', to);
}
