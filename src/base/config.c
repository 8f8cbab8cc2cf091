/* One table of keys drives everything here: defaults, flags, environment, YAML, the dump and the help. A value remembers
 * where it came from, so that the order in which sources are read does not matter. */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/fs.h"

enum { FROM_DEFAULT, FROM_FILE, FROM_ENV, FROM_FLAG };

/* ---- nearest name ---- */

static int edit_distance(const char *a, const char *b)
{
	int row[128], nb = (int)strlen(b);
	if (nb >= 128)
		return 1000;
	for (int j = 0; j <= nb; j++)
		row[j] = j;
	for (int i = 1; a[i - 1]; i++) {
		int diagonal = row[0];
		row[0] = i;
		for (int j = 1; j <= nb; j++) {
			int keep = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			int best = row[j] < row[j - 1] ? row[j] : row[j - 1];
			row[j] = keep < best + 1 ? keep : best + 1;
		}
	}
	return row[nb];
}

const char *stave_nearest(const char *name, const char *const *words, size_t n)
{
	const char *best = NULL;
	int limit = 2 + (int)strlen(name) / 4, best_d = limit + 1;
	for (size_t i = 0; i < n; i++) {
		int d = edit_distance(name, words[i]);
		/* someone who types "lr" for "train.lr" means the key that ends so */
		size_t ln = strlen(name), lw = strlen(words[i]);
		if (lw > ln && words[i][lw - ln - 1] == '.' && !strcmp(words[i] + lw - ln, name))
			d = 1;
		if (d < best_d) {
			best_d = d;
			best = words[i];
		}
	}
	return best;
}

static int unknown(const struct stave_config *c, const char *name, const char *where, struct stave_err *err)
{
	const char **names = malloc((c->n ? c->n : 1) * sizeof *names);
	const char *near = NULL;
	for (size_t i = 0; names && i < c->n; i++)
		names[i] = c->keys[i].name;
	if (names)
		near = stave_nearest(name, names, c->n);
	free(names);
	if (near)
		return stave_err_set(err, STAVE_ECONFIG, "%s: unknown key '%s'; did you mean '%s'?", where, name, near);
	return stave_err_set(err, STAVE_ECONFIG, "%s: unknown key '%s'; -h lists the keys", where, name);
}

/* ---- one value ---- */

static int parse_real(const char *text, double *out)
{
	char *end;
	errno = 0;
	double v = strtod(text, &end);
	if (end == text || *end || !isfinite(v))
		return -1;
	*out = v;
	return 0;
}

/* Whole numbers, also as "3e5", and with a suffix k, M or G. */
static int parse_int(const char *text, int64_t *out)
{
	char *end;
	errno = 0;
	long long v = strtoll(text, &end, 10);
	if (end != text && !*end && !errno) {
		*out = v;
		return 0;
	}
	double d = strtod(text, &end);
	if (end == text || !isfinite(d))
		return -1;
	if (*end == 'k' || *end == 'K')
		d *= 1e3, end++;
	else if (*end == 'M')
		d *= 1e6, end++;
	else if (*end == 'G' || *end == 'B')
		d *= 1e9, end++;
	if (*end || d != floor(d) || fabs(d) > 9e15)
		return -1;
	*out = (int64_t)d;
	return 0;
}

static int choice_index(const char *choices, const char *text)
{
	int i = 0;
	size_t n = strlen(text);
	for (const char *p = choices; p; i++) {
		const char *bar = strchr(p, '|');
		size_t len = bar ? (size_t)(bar - p) : strlen(p);
		if (len == n && !memcmp(p, text, n))
			return i;
		p = bar ? bar + 1 : NULL;
	}
	return -1;
}

static int assign(const struct stave_key *k, void *target, const char *text, const char *where, struct stave_err *err)
{
	char *at = (char *)target + k->offset;
	double real;
	int64_t whole;
	switch (k->type) {
	case STAVE_KEY_BOOL:
		if (strcmp(text, "true") && strcmp(text, "false") && strcmp(text, "1") && strcmp(text, "0") && strcmp(text, "yes") &&
		    strcmp(text, "no") && strcmp(text, "on") && strcmp(text, "off"))
			return stave_err_set(err, STAVE_ECONFIG, "%s: %s wants true or false, found '%s'", where, k->name, text);
		*(bool *)(void *)at = !strcmp(text, "true") || !strcmp(text, "1") || !strcmp(text, "yes") || !strcmp(text, "on");
		return 0;
	case STAVE_KEY_INT:
		if (parse_int(text, &whole))
			return stave_err_set(err, STAVE_ECONFIG, "%s: %s wants a whole number, found '%s'", where, k->name, text);
		if (k->min != k->max && ((double)whole < k->min || (double)whole > k->max))
			return stave_err_set(err, STAVE_ECONFIG, "%s: %s is %lld, outside %.15g..%.15g", where, k->name, (long long)whole, k->min, k->max);
		*(int64_t *)(void *)at = whole;
		return 0;
	case STAVE_KEY_REAL:
		if (parse_real(text, &real))
			return stave_err_set(err, STAVE_ECONFIG, "%s: %s wants a number, found '%s'", where, k->name, text);
		if (k->min != k->max && (real < k->min || real > k->max))
			return stave_err_set(err, STAVE_ECONFIG, "%s: %s is %g, outside %g..%g", where, k->name, real, k->min, k->max);
		*(double *)(void *)at = real;
		return 0;
	case STAVE_KEY_CHOICE: {
		int i = choice_index(k->choices, text);
		if (i < 0)
			return stave_err_set(err, STAVE_ECONFIG, "%s: %s is one of %s, found '%s'", where, k->name, k->choices, text);
		*(int *)(void *)at = i;
		return 0;
	}
	case STAVE_KEY_STR: {
		char *copy = strdup(text);
		if (!copy)
			return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for %s", where, k->name);
		free(*(char **)(void *)at);
		*(char **)(void *)at = copy;
		return 0;
	}
	}
	return stave_err_set(err, STAVE_EFAIL, "%s: key %s has no type", where, k->name);
}

static const struct stave_key *find(const struct stave_config *c, const char *name)
{
	for (size_t i = 0; i < c->n; i++)
		if (!strcmp(c->keys[i].name, name))
			return &c->keys[i];
	return NULL;
}

int stave_config_open(struct stave_config *c, const struct stave_key *keys, size_t n, void *target, struct stave_err *err)
{
	*c = (struct stave_config){.keys = keys, .n = n, .target = target, .source = calloc(n ? n : 1, 1)};
	if (!c->source)
		return stave_err_set(err, STAVE_ENOMEM, "no memory for the configuration");
	for (size_t i = 0; i < n; i++)
		if (keys[i].type == STAVE_KEY_STR)
			*(char **)(void *)((char *)target + keys[i].offset) = NULL;
	for (size_t i = 0; i < n; i++) {
		int rc = keys[i].def ? assign(&keys[i], target, keys[i].def, "default", err) : 0;
		if (rc) {
			stave_config_close(c);
			return rc;
		}
	}
	return 0;
}

void stave_config_close(struct stave_config *c)
{
	for (size_t i = 0; c->source && i < c->n; i++)
		if (c->keys[i].type == STAVE_KEY_STR) {
			char **s = (char **)(void *)((char *)c->target + c->keys[i].offset);
			free(*s);
			*s = NULL;
		}
	free(c->source);
	c->source = NULL;
}

int stave_config_set(struct stave_config *c, const char *name, const char *value, const char *where, int source, struct stave_err *err)
{
	const struct stave_key *k = find(c, name);
	if (!k)
		return unknown(c, name, where, err);
	unsigned char *from = &c->source[k - c->keys];
	if (source < *from)
		return 0;
	int rc = assign(k, c->target, value, where, err);
	if (!rc)
		*from = (unsigned char)source;
	return rc;
}

/* ---- YAML: nested maps of scalars ---- */

#define YAML_DEPTH 8

struct yaml_state {
	char prefix[YAML_DEPTH][128];
	int depth;
	bool have_key;
	char key[256];
};

static int yaml_scalar(struct stave_config *c, struct yaml_state *s, const yaml_event_t *e, const char *path, struct stave_err *err)
{
	const char *text = (const char *)e->data.scalar.value;
	char where[STAVE_PATH + 32];
	snprintf(where, sizeof where, "%.900s:%zu", path, e->start_mark.line + 1);
	if (strlen(text) != e->data.scalar.length)
		return stave_err_set(err, STAVE_ECONFIG, "%s: a value holds a NUL byte", where);
	if (!s->have_key) {
		const char *prefix = s->prefix[s->depth - 1];
		if (snprintf(s->key, sizeof s->key, "%s%s%s", prefix, *prefix ? "." : "", text) >= 120)
			return stave_err_set(err, STAVE_ECONFIG, "%s: key too long", where);
		s->have_key = true;
		return 0;
	}
	s->have_key = false;
	/* a plain null keeps the default */
	if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (!*text || !strcmp(text, "null") || !strcmp(text, "~")))
		return find(c, s->key) ? 0 : unknown(c, s->key, where, err);
	return stave_config_set(c, s->key, text, where, FROM_FILE, err);
}

static int yaml_event(struct stave_config *c, struct yaml_state *s, const yaml_event_t *e, const char *path, struct stave_err *err)
{
	size_t line = e->start_mark.line + 1;
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		if (!s->depth)
			return stave_err_set(err, STAVE_ECONFIG, "%s:%zu: the file must be a map of keys", path, line);
		return yaml_scalar(c, s, e, path, err);
	case YAML_MAPPING_START_EVENT:
		if (s->depth && !s->have_key)
			return stave_err_set(err, STAVE_ECONFIG, "%s:%zu: a key must be plain text", path, line);
		if (s->depth >= YAML_DEPTH)
			return stave_err_set(err, STAVE_ECONFIG, "%s:%zu: nested too deeply", path, line);
		snprintf(s->prefix[s->depth], sizeof s->prefix[0], "%.120s", s->depth ? s->key : "");
		s->depth++;
		s->have_key = false;
		return 0;
	case YAML_MAPPING_END_EVENT:
		s->depth--;
		return 0;
	case YAML_SEQUENCE_START_EVENT:
		return stave_err_set(err, STAVE_ECONFIG, "%s:%zu: a list is not expected here", path, line);
	case YAML_ALIAS_EVENT:
		return stave_err_set(err, STAVE_ECONFIG, "%s:%zu: aliases are not supported", path, line);
	default:
		return 0;
	}
}

int stave_config_yaml(struct stave_config *c, const char *path, struct stave_err *err)
{
	struct stave_buf text = {0};
	int rc = stave_file_read(&text, path, 1 << 20, err);
	if (rc) {
		stave_buf_free(&text);
		if (err)
			err->code = STAVE_ECONFIG;
		return STAVE_ECONFIG;
	}
	yaml_parser_t parser;
	yaml_event_t event;
	struct yaml_state state = {0};
	if (!yaml_parser_initialize(&parser)) {
		stave_buf_free(&text);
		return stave_err_set(err, STAVE_ENOMEM, "%s: no memory for the YAML parser", path);
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.len);
	for (bool end = false; !rc && !end;) {
		if (!yaml_parser_parse(&parser, &event)) {
			rc = stave_err_set(err, STAVE_ECONFIG, "%s:%zu: not valid YAML: %s", path, parser.problem_mark.line + 1,
			                   parser.problem ? parser.problem : "unreadable");
			break;
		}
		end = event.type == YAML_STREAM_END_EVENT;
		rc = yaml_event(c, &state, &event, path, err);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	stave_buf_free(&text);
	return rc;
}

/* ---- environment ---- */

int stave_config_env(struct stave_config *c, struct stave_err *err)
{
	for (size_t i = 0; i < c->n; i++) {
		char name[160];
		int n = snprintf(name, sizeof name, "STAVE_%s", c->keys[i].name);
		for (int j = 6; j < n; j++)
			name[j] = isalnum((unsigned char)name[j]) ? (char)toupper((unsigned char)name[j]) : '_';
		const char *value = getenv(name);
		int rc = value ? stave_config_set(c, c->keys[i].name, value, name, FROM_ENV, err) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- flags ---- */

/* argv[*i] is "--…"; advances *i over a value in the next word. */
static int flag(struct stave_config *c, int argc, char **argv, int *i, struct stave_err *err)
{
	char name[160], where[168];
	const char *arg = argv[*i] + 2, *eq = strchr(arg, '='), *value = eq ? eq + 1 : NULL;
	snprintf(name, sizeof name, "%.*s", eq ? (int)(eq - arg) : (int)strlen(arg), arg);
	const struct stave_key *k = find(c, name);
	if (!k) /* words are joined by '_' in keys and, by habit, by '-' in flags */
		for (char *p = name; *p && !k; p++)
			if (*p == '-' && strncmp(name, "no-", 3)) {
				*p = '_';
				k = find(c, name);
			}
	snprintf(where, sizeof where, "--%s", name);
	if (!k && !strncmp(name, "no-", 3) && !value) {
		char rest[160];
		snprintf(rest, sizeof rest, "%s", name + 3);
		for (char *p = rest; *p; p++)
			if (*p == '-')
				*p = '_';
		k = find(c, rest);
		if (k && k->type == STAVE_KEY_BOOL)
			return stave_config_set(c, rest, "false", where, FROM_FLAG, err);
		k = NULL;
	}
	if (!k) {
		unknown(c, name, where, err);
		if (err)
			err->code = STAVE_EUSAGE;
		return STAVE_EUSAGE;
	}
	if (!value && k->type == STAVE_KEY_BOOL)
		value = "true";
	if (!value && ++*i >= argc)
		return stave_err_set(err, STAVE_EUSAGE, "%s wants a value: %s", where, k->doc);
	return stave_config_set(c, name, value ? value : argv[*i], where, FROM_FLAG, err);
}

int stave_config_args(struct stave_config *c, int argc, char **argv, bool yaml_positional, const char **positional,
                      int max_positional, int *n_positional, bool *help, struct stave_err *err)
{
	*n_positional = 0;
	*help = false;
	bool only_positional = false;
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
		size_t n = strlen(a);
		int rc = 0;
		if (!only_positional && !strcmp(a, "--")) {
			only_positional = true;
		} else if (!only_positional && (!strcmp(a, "-h") || !strcmp(a, "--help"))) {
			*help = true;
		} else if (!only_positional && !strncmp(a, "--", 2)) {
			rc = flag(c, argc, argv, &i, err);
		} else if (!only_positional && a[0] == '-' && a[1]) {
			rc = stave_err_set(err, STAVE_EUSAGE, "unknown option '%s'; options are written --name value, and -h lists them", a);
		} else if (yaml_positional && n > 4 && (!strcmp(a + n - 5, ".yaml") || !strcmp(a + n - 4, ".yml"))) {
			rc = stave_config_yaml(c, a, err);
		} else if (*n_positional >= max_positional) {
			rc = stave_err_set(err, STAVE_EUSAGE, "unexpected argument '%s'", a);
		} else {
			positional[(*n_positional)++] = a;
		}
		if (rc)
			return rc;
	}
	return stave_config_env(c, err);
}

/* ---- dump and help ---- */

static void value_text(const struct stave_key *k, const void *target, char *out, size_t size)
{
	const char *at = (const char *)target + k->offset;
	switch (k->type) {
	case STAVE_KEY_BOOL: snprintf(out, size, "%s", *(const bool *)(const void *)at ? "true" : "false"); break;
	case STAVE_KEY_INT: snprintf(out, size, "%lld", (long long)*(const int64_t *)(const void *)at); break;
	case STAVE_KEY_REAL: { /* the shortest text that reads back as the same double */
		double v = *(const double *)(const void *)at;
		for (int digits = 6; digits <= 17; digits++) {
			snprintf(out, size, "%.*g", digits, v);
			if (strtod(out, NULL) == v)
				break;
		}
		break;
	}
	case STAVE_KEY_STR: {
		const char *s = *(char *const *)(const void *)at;
		/* single quotes, doubled inside: the one YAML string form without escapes */
		size_t n = 0;
		if (!s) {
			snprintf(out, size, "null");
			break;
		}
		out[n++] = '\'';
		for (; *s && n + 3 < size; s++) {
			if (*s == '\'')
				out[n++] = '\'';
			out[n++] = *s;
		}
		out[n++] = '\'';
		out[n] = 0;
		break;
	}
	case STAVE_KEY_CHOICE: {
		const char *p = k->choices;
		for (int i = *(const int *)(const void *)at; i > 0; i--)
			p = strchr(p, '|') + 1;
		snprintf(out, size, "%.*s", (int)strcspn(p, "|"), p);
		break;
	}
	}
}

void stave_config_dump(const struct stave_config *c, FILE *to)
{
	static const char *const from[] = {"", "  # file", "  # environment", "  # flag"};
	char value[2048], section[128] = "";
	for (size_t i = 0; i < c->n; i++) { /* keys without a section first: a map may not be interrupted */
		if (strchr(c->keys[i].name, '.'))
			continue;
		value_text(&c->keys[i], c->target, value, sizeof value);
		fprintf(to, "%s: %s%s\n", c->keys[i].name, value, from[c->source[i]]);
	}
	for (size_t i = 0; i < c->n; i++) {
		const char *dot = strchr(c->keys[i].name, '.');
		if (!dot)
			continue;
		int n = (int)(dot - c->keys[i].name);
		if ((int)strlen(section) != n || strncmp(section, c->keys[i].name, (size_t)n)) {
			snprintf(section, sizeof section, "%.*s", n, c->keys[i].name);
			fprintf(to, "%s:\n", section);
		}
		value_text(&c->keys[i], c->target, value, sizeof value);
		fprintf(to, "  %s: %s%s\n", dot + 1, value, from[c->source[i]]);
	}
}

void stave_config_help(const struct stave_config *c, FILE *to)
{
	for (size_t i = 0; i < c->n; i++) {
		const struct stave_key *k = &c->keys[i];
		char left[160];
		const char *kind = k->type == STAVE_KEY_BOOL ? "" : k->type == STAVE_KEY_INT ? " N" : k->type == STAVE_KEY_REAL ? " X"
		                 : k->type == STAVE_KEY_STR ? " TEXT" : " WORD";
		snprintf(left, sizeof left, "--%s%s", k->name, kind);
		fprintf(to, "  %-28s %s", left, k->doc);
		if (k->type == STAVE_KEY_CHOICE)
			fprintf(to, " (%s)", k->choices);
		if (k->def && *k->def)
			fprintf(to, " [%s]", k->def);
		fputc('\n', to);
	}
}
