/* Dense products by oneDNN: C (m, n) = A (m, k) x B (k, n) [+ bias (n)] [+ C]. A handle fixes shapes, types and layouts,
 * so that running it allocates nothing. Rows are contiguous. It uses the process's OpenMP threads: call it from one thread. */
#ifndef STAVE_KERNEL_MATMUL_H
#define STAVE_KERNEL_MATMUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/err.h"

struct stave_matmul_desc {
	int64_t m, n, k;
	enum stave_dtype in;   /* A and B: F32, BF16, or I8 (A and B signed, C I32: for measuring peaks) */
	enum stave_dtype out;  /* C: F32, BF16 or I32 */
	bool a_transposed;     /* A is stored (k, m) */
	bool b_transposed;     /* B is stored (n, k): a weight matrix (out, in) */
	bool bias;             /* float (n) */
	bool accumulate;       /* C += */
};
struct stave_matmul;
/* STAVE_EDEVICE when this CPU (or STAVE_CPU) has no such product; scratch_bytes: what run needs in `scratch`, 64-aligned. */
int stave_matmul_open(struct stave_matmul **out, const struct stave_matmul_desc *d, size_t *scratch_bytes, struct stave_err *err);
void stave_matmul_close(struct stave_matmul *mm);
/* bias NULL unless the handle has one. A, B and C do not overlap. Aborts on a failure inside oneDNN: shapes were checked. */
void stave_matmul_run(struct stave_matmul *mm, const void *A, const void *B, void *C, const float *bias, void *scratch);
/* The definition, for tests: triple loop, double accumulation, inputs as typed. */
void stave_matmul_ref(const struct stave_matmul_desc *d, const void *A, const void *B, void *C, const float *bias);

#endif
