/* The vocabulary of element types: enum, safetensors name, bytes. */
#ifndef STAVE_BASE_DTYPE_H
#define STAVE_BASE_DTYPE_H

#include <stddef.h>

/*         enum   name    bytes */
#define STAVE_DTYPES(X)    \
	X(F32,  "F32",  4) \
	X(BF16, "BF16", 2) \
	X(F16,  "F16",  2) \
	X(F64,  "F64",  8) \
	X(I8,   "I8",   1) \
	X(U8,   "U8",   1) \
	X(I16,  "I16",  2) \
	X(U16,  "U16",  2) \
	X(I32,  "I32",  4) \
	X(U32,  "U32",  4) \
	X(I64,  "I64",  8) \
	X(U64,  "U64",  8) \
	X(BOOL, "BOOL", 1)

enum stave_dtype {
#define X(e, name, bytes) STAVE_##e,
	STAVE_DTYPES(X)
#undef X
	STAVE_DTYPE_COUNT
};

static inline size_t stave_dtype_bytes(enum stave_dtype t)
{
	static const unsigned char bytes[] = {
#define X(e, name, b) b,
		STAVE_DTYPES(X)
#undef X
	};
	return bytes[t];
}

static inline const char *stave_dtype_name(enum stave_dtype t)
{
	static const char *const names[] = {
#define X(e, name, b) name,
		STAVE_DTYPES(X)
#undef X
	};
	return names[t];
}

#endif
