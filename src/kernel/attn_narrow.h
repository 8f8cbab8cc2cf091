/* Attention over bf16 activations with bf16 products (attn_narrow.avx512bf16.c); contracts as in kernel.h. */
#ifndef STAVE_KERNEL_ATTN_NARROW_H
#define STAVE_KERNEL_ATTN_NARROW_H

#include "kernel/kernel.h"

size_t attn_narrow_scratch(int T, int D, bool back);
void attn_narrow_fwd(const struct stave_attn *a, void *scratch);
void attn_narrow_bwd(const struct stave_attn *a, void *scratch);

#endif
