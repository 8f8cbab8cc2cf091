/* Private to kernel/: the prototypes of every operation at every level. A level's function is OP_LEVEL; which of them
 * exist is decided by the table in kernels.c, the contracts are those of kernel.h. */
#ifndef STAVE_KERNEL_TABLE_H
#define STAVE_KERNEL_TABLE_H

#include "kernel/kernel.h"

#define STAVE_KERNEL_PROTOTYPES(L)                                                                                              \
	void to_bf16_##L(uint16_t *y, const float *x, size_t n);                                                                \
	void from_bf16_##L(float *y, const uint16_t *x, size_t n);                                                              \
	void norm_fwd_##L(enum stave_dtype dt, bool rms, void *y, float *mean, float *rstd, const float *x, const float *gain,  \
	                  const float *bias, float eps, int n, int C);                                                          \
	void norm_bwd_##L(enum stave_dtype dt, bool rms, float *dx, void *dx_dt, float *dgain, float *dbias, const void *dy,    \
	                  const float *x, const float *mean, const float *rstd, const float *gain, int n, int C);               \
	void headnorm_fwd_##L(enum stave_dtype dt, void *y, size_t ldy, float *rstd, const void *x, size_t ldx,                 \
	                      const float *gain, float eps, int n, int heads, int D);                                           \
	void headnorm_bwd_##L(float *dy, size_t lddy, float *dgain, const void *x, enum stave_dtype dt, size_t ldx,             \
	                      const float *rstd, const float *gain, int n, int heads, int D);                                   \
	void rope_##L(enum stave_dtype dt, bool inverse, void *x, size_t ld, const int32_t *pos, const float *table, int n,     \
	              int heads, int D);                                                                                        \
	void gelu_fwd_##L(enum stave_dtype dt, bool exact, void *y, const void *x, size_t n);                                   \
	void gelu_bwd_##L(enum stave_dtype dt, bool exact, void *dx, const void *dy, const void *x, size_t n);                  \
	void swiglu_fwd_##L(enum stave_dtype dt, void *y, const void *gu, int n, int I);                                        \
	void swiglu_bwd_##L(enum stave_dtype dt, void *dgu, const void *dy, const void *gu, int n, int I);                      \
	void embed_fwd_##L(float *out, const int32_t *ids, const int32_t *pos, const float *wte, const float *wpe, int n,       \
	                   int C);                                                                                              \
	void bias_add_##L(enum stave_dtype dt, void *x, const float *bias, int n, int C);                                       \
	void colsum_##L(enum stave_dtype dt, float *db, const void *dy, size_t ld, int n, int C);                               \
	void add_##L(float *y, const float *x, size_t n);                                                                       \
	void scale_##L(float *y, float a, size_t n);                                                                            \
	void xent_##L(enum stave_dtype dt, void *logits, size_t ld, float *loss, const int32_t *targets, float grad_scale,      \
	              int n, int V);                                                                                            \
	void attn_fwd_##L(enum stave_dtype dt, const struct stave_attn *a, void *scratch);                                      \
	void attn_bwd_##L(enum stave_dtype dt, const struct stave_attn *a, void *scratch);                                      \
	size_t attn_scratch_##L(enum stave_dtype dt, int T, int D, bool backward);                                              \
	void adamw_##L(float *p, uint16_t *w16, float *m, float *v, const float *g, size_t n, float g_scale, double lr,         \
	               double b1, double b2, double eps, double decay, double c1, double c2);                                   \
	double sumsq_##L(const float *x, size_t n);                                                                             \
	void gemv_##L(enum stave_dtype dt, float *y, const void *W, size_t ldw, const float *x, int n, int k);    \
	void paged_attn_##L(const struct stave_paged_attn *a, void *scratch);

STAVE_KERNEL_PROTOTYPES(ref)
STAVE_KERNEL_PROTOTYPES(avx2)
STAVE_KERNEL_PROTOTYPES(avx512)
STAVE_KERNEL_PROTOTYPES(avx512bf16)

#endif
