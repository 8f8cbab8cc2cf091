/* Thin glue: jansson parses and limits depth; here are the size cap and the field readers that say what was wrong. */
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

int stave_json_parse(json_t **out, const char *text, size_t n, const char *what, struct stave_err *err)
{
	json_error_t e;
	json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
	if (!j)
		return stave_err_set(err, STAVE_ECORRUPT, "%s is not valid JSON: line %d, column %d: %s", what, e.line, e.column, e.text);
	*out = j;
	return 0;
}

int stave_json_load(json_t **out, const char *path, size_t max_bytes, struct stave_err *err)
{
	struct stave_buf b = {0};
	int rc = stave_file_read(&b, path, max_bytes, err);
	if (!rc)
		rc = stave_json_parse(out, b.p, b.len, path, err);
	stave_buf_free(&b);
	return rc;
}

static json_t *field(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);
	return json_is_null(v) ? NULL : v;
}

int stave_json_int(const json_t *o, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out, const char *what, struct stave_err *err)
{
	json_t *v = field(o, key);
	if (!v) {
		*out = def;
		return 0;
	}
	if (!json_is_integer(v))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s must be an integer", what, key);
	int64_t x = json_integer_value(v);
	if (x < min || x > max)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s is %lld, outside %lld..%lld", what, key, (long long)x, (long long)min, (long long)max);
	*out = x;
	return 0;
}

int stave_json_real(const json_t *o, const char *key, double def, double *out, const char *what, struct stave_err *err)
{
	json_t *v = field(o, key);
	if (v && !json_is_number(v))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s must be a number", what, key);
	double x = v ? json_number_value(v) : def;
	if (!isfinite(x))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s is not finite", what, key);
	*out = x;
	return 0;
}

int stave_json_bool(const json_t *o, const char *key, bool def, bool *out, const char *what, struct stave_err *err)
{
	json_t *v = field(o, key);
	if (v && !json_is_boolean(v))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: %s must be true or false", what, key);
	*out = v ? json_is_true(v) : def;
	return 0;
}

const char *stave_json_str(const json_t *o, const char *key, const char *def)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : def;
}

int stave_json_save(const json_t *j, const char *path, struct stave_err *err)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
	if (!text)
		return stave_err_set(err, STAVE_EFAIL, "%s: value cannot be written as JSON", path);
	struct stave_buf b = {0};
	stave_buf_printf(&b, "%s\n", text);
	int rc = stave_file_write(path, b.p, b.len, err);
	stave_buf_free(&b);
	free(text);
	return rc;
}
