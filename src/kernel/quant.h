/* Stored weight types: what their bytes mean, and how floats become them. One thread's work over plain memory. */
#ifndef STAVE_KERNEL_QUANT_H
#define STAVE_KERNEL_QUANT_H

#include <stdbool.h>

#include "base/qtype.h"

/* y (n) = the values of n elements stored as t; n a multiple of the block. This is the definition; x need not be aligned.
 * Every bit pattern has a value (NaN and infinite scales included). */
void stave_dequantize(enum stave_qtype t, float *y, const void *x, int64_t n);
/* Types that can be written: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K. */
bool stave_can_quantize(enum stave_qtype t);
/* x (n) floats into t's blocks, n a multiple of the block.
 * NaN is stored as zero, infinities as the largest finite value that the block holds. */
void stave_quantize(enum stave_qtype t, void *y, const float *x, int64_t n);

#endif
