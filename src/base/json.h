/* JSON by jansson, with the limits hostile input needs: size, depth (jansson's own 2048), no duplicate keys. */
#ifndef STAVE_BASE_JSON_H
#define STAVE_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Parse; `what` names the source in errors (STAVE_ECORRUPT with line and column). */
int stave_json_parse(json_t **out, const char *text, size_t n, const char *what, struct stave_err *err);
int stave_json_load(json_t **out, const char *path, size_t max_bytes, struct stave_err *err);
/* Field of an object with a default when absent or null; a present value of a wrong type or outside [min, max] is
 * STAVE_ECORRUPT naming `what` and the key. */
int stave_json_int(const json_t *o, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out, const char *what, struct stave_err *err);
int stave_json_real(const json_t *o, const char *key, double def, double *out, const char *what, struct stave_err *err);
int stave_json_bool(const json_t *o, const char *key, bool def, bool *out, const char *what, struct stave_err *err);
const char *stave_json_str(const json_t *o, const char *key, const char *def); /* def when absent or not a string */
/* Write atomically, indented. */
int stave_json_save(const json_t *j, const char *path, struct stave_err *err);

#endif
