/* The vocabulary of stored weight types: the plain ones and GGUF's block formats. A row of a matrix is a whole number of
 * blocks; `per` elements take `bytes` bytes. Ids are GGUF's. What the bytes mean is defined in kernel/quant.c. */
#ifndef STAVE_BASE_QTYPE_H
#define STAVE_BASE_QTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <strings.h>

/*         enum    id  name      per  bytes */
#define STAVE_QTYPES(X)               \
	X(F32,     0, "F32",     1,   4)   \
	X(F16,     1, "F16",     1,   2)   \
	X(BF16,   30, "BF16",    1,   2)   \
	X(Q8_0,    8, "Q8_0",   32,  34)   \
	X(Q4_0,    2, "Q4_0",   32,  18)   \
	X(Q4_1,    3, "Q4_1",   32,  20)   \
	X(Q5_0,    6, "Q5_0",   32,  22)   \
	X(Q5_1,    7, "Q5_1",   32,  24)   \
	X(Q2_K,   10, "Q2_K",  256,  84)   \
	X(Q3_K,   11, "Q3_K",  256, 110)   \
	X(Q4_K,   12, "Q4_K",  256, 144)   \
	X(Q5_K,   13, "Q5_K",  256, 176)   \
	X(Q6_K,   14, "Q6_K",  256, 210)   \
	X(IQ4_NL, 20, "IQ4_NL", 32,  18)   \
	X(IQ4_XS, 23, "IQ4_XS", 256, 136)  \
	X(MXFP4,  39, "MXFP4",  32,  17)

enum stave_qtype {
#define X(e, id, name, per, bytes) STAVE_Q_##e,
	STAVE_QTYPES(X)
#undef X
	STAVE_QTYPE_COUNT
};

struct stave_qtype_info {
	const char *name;
	int id, per, bytes;
};
static inline struct stave_qtype_info stave_qtype_info(enum stave_qtype t)
{
	static const struct stave_qtype_info info[] = {
#define X(e, id, name, per, bytes) {name, id, per, bytes},
		STAVE_QTYPES(X)
#undef X
	};
	return info[t];
}
/* STAVE_QTYPE_COUNT for an id or a name that stave does not read. */
static inline enum stave_qtype stave_qtype_of_id(uint32_t id)
{
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		if ((uint32_t)stave_qtype_info((enum stave_qtype)t).id == id)
			return (enum stave_qtype)t;
	return STAVE_QTYPE_COUNT;
}
static inline enum stave_qtype stave_qtype_of_name(const char *name) /* either case */
{
	for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
		if (!strcasecmp(stave_qtype_info((enum stave_qtype)t).name, name))
			return (enum stave_qtype)t;
	return STAVE_QTYPE_COUNT;
}
/* Bytes of a row of `cols` elements, a multiple of `per`. */
static inline size_t stave_qtype_row_bytes(enum stave_qtype t, int64_t cols)
{
	struct stave_qtype_info i = stave_qtype_info(t);
	return (size_t)(cols / i.per) * (size_t)i.bytes;
}

#endif
