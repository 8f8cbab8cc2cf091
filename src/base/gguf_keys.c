/* Values of an open GGUF file's keys. Everything was checked when it was opened; here bytes become numbers. Integers come in
 * eight types and writers disagree on which, so a reader asks for a number and says only integer, real or truth. */
#include <stdlib.h>
#include <string.h>

#include "base/gguf_file.h"

/* A number of that type; 0 for strings and arrays. */
static double number(enum stave_gguf_type t, const char *p)
{
	union {
		uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; float f32; uint64_t u64; int64_t i64; double f64;
	} v = {0};
	memcpy(&v, p, gguf_type_bytes(t));
	switch (t) {
	case STAVE_GGUF_U8: return v.u8;
	case STAVE_GGUF_I8: return v.i8;
	case STAVE_GGUF_U16: return v.u16;
	case STAVE_GGUF_I16: return v.i16;
	case STAVE_GGUF_U32: return v.u32;
	case STAVE_GGUF_I32: return v.i32;
	case STAVE_GGUF_F32: return (double)v.f32;
	case STAVE_GGUF_BOOL: return v.u8 != 0;
	case STAVE_GGUF_U64: return (double)v.u64;
	case STAVE_GGUF_I64: return (double)v.i64;
	case STAVE_GGUF_F64: return v.f64;
	default: return 0;
	}
}

int stave_gguf_real(const struct stave_gguf *g, const char *key, double *v, struct stave_err *err)
{
	const struct gguf_key *k = gguf_key_find(g, key);
	if (!k)
		return 0;
	if (k->type == STAVE_GGUF_STR || k->type == STAVE_GGUF_ARRAY || k->type == STAVE_GGUF_BOOL)
		return stave_err_set(err, STAVE_ECORRUPT, "GGUF key %.100s must be a number", key);
	*v = number(k->type, k->value);
	return 1;
}

int stave_gguf_bool(const struct stave_gguf *g, const char *key, bool *v, struct stave_err *err)
{
	const struct gguf_key *k = gguf_key_find(g, key);
	if (!k)
		return 0;
	if (k->type != STAVE_GGUF_BOOL)
		return stave_err_set(err, STAVE_ECORRUPT, "GGUF key %.100s must be true or false", key);
	*v = *k->value != 0;
	return 1;
}

const char *stave_gguf_str(const struct stave_gguf *g, const char *key)
{
	const struct gguf_key *k = gguf_key_find(g, key);
	return k && k->type == STAVE_GGUF_STR ? k->text : NULL;
}

size_t stave_gguf_str_n(const struct stave_gguf *g, const char *key)
{
	const struct gguf_key *k = gguf_key_find(g, key);
	return k && k->type == STAVE_GGUF_STR ? (size_t)k->n : 0;
}

static const struct gguf_key *array(const struct stave_gguf *g, const char *key)
{
	const struct gguf_key *k = gguf_key_find(g, key);
	return k && k->type == STAVE_GGUF_ARRAY ? k : NULL;
}

bool stave_gguf_array(const struct stave_gguf *g, const char *key, enum stave_gguf_type *type, int64_t *n)
{
	const struct gguf_key *k = array(g, key);
	if (!k)
		return false;
	*type = k->element;
	*n = k->n;
	return true;
}

/* Element i: after the array's type and count. */
static const char *element(const struct gguf_key *k, int64_t i) { return k->value + 12 + (size_t)i * gguf_type_bytes(k->element); }

int64_t stave_gguf_array_int(const struct stave_gguf *g, const char *key, int64_t i)
{
	const struct gguf_key *k = array(g, key);
	if (!k || i < 0 || i >= k->n)
		return 0;
	int64_t v = 0;
	if (k->element == STAVE_GGUF_U64 || k->element == STAVE_GGUF_I64) { /* beyond what a double holds */
		memcpy(&v, element(k, i), sizeof v);
		return v;
	}
	return k->element == STAVE_GGUF_F32 || k->element == STAVE_GGUF_F64 || k->element == STAVE_GGUF_STR ? 0 : (int64_t)number(k->element, element(k, i));
}

double stave_gguf_array_real(const struct stave_gguf *g, const char *key, int64_t i)
{
	const struct gguf_key *k = array(g, key);
	return k && i >= 0 && i < k->n && k->element != STAVE_GGUF_STR ? number(k->element, element(k, i)) : 0;
}

const char *stave_gguf_array_str(const struct stave_gguf *g, const char *key, int64_t i, size_t *n)
{
	const struct gguf_key *k = array(g, key);
	if (!k || i < 0 || i >= k->n || k->element != STAVE_GGUF_STR) {
		*n = 0;
		return "";
	}
	*n = k->at[i + 1] - k->at[i] - 1;
	return k->text + k->at[i];
}
