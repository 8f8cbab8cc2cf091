/* SwiGLU: one pass, one exponential and one division per value; memory decides. */
#include "kernel/simd.h"

INLINE void forward(const enum stave_dtype dt, void *y, const void *gu, size_t n, size_t I)
{
	for (size_t r = 0; r < n; r++)
		EACH_VECTOR(I, {
			vf g = vget(dt, gu, 2 * r * I + i, m);
			vf u = vget(dt, gu, (2 * r + 1) * I + i, m);
			vput(dt, y, r * I + i, vmul(vmul(g, vsigmoid(g)), u), m);
		});
}

INLINE void backward(const enum stave_dtype dt, void *dgu, const void *dy, const void *gu, size_t n, size_t I)
{
	for (size_t r = 0; r < n; r++)
		EACH_VECTOR(I, {
			vf g = vget(dt, gu, 2 * r * I + i, m);
			vf u = vget(dt, gu, (2 * r + 1) * I + i, m);
			/* 1 - s as exp(-g) s, which does not cancel for large g; the bound keeps inf times 0 away */
			vf e = vexp(vmin(vset(88.f), vsub(vset(0.f), g)));
			vf s = vdiv(vset(1.f), vadd(vset(1.f), e));
			vf ds = vmul(vget(dt, dy, r * I + i, m), s);
			vf rest = vmul(g, vmul(e, s)); /* g (1 - s) */
			vput(dt, dgu, 2 * r * I + i, vmul(u, vfma(ds, rest, ds)), m);
			vput(dt, dgu, (2 * r + 1) * I + i, vmul(ds, g), m);
		});
}

void STAVE_LEVELED(swiglu_fwd)(enum stave_dtype dt, void *y, const void *gu, int n, int I)
{
	if (dt == STAVE_F32)
		forward(STAVE_F32, y, gu, (size_t)n, (size_t)I);
	else
		forward(STAVE_BF16, y, gu, (size_t)n, (size_t)I);
}

void STAVE_LEVELED(swiglu_bwd)(enum stave_dtype dt, void *dgu, const void *dy, const void *gu, int n, int I)
{
	if (dt == STAVE_F32)
		backward(STAVE_F32, dgu, dy, gu, (size_t)n, (size_t)I);
	else
		backward(STAVE_BF16, dgu, dy, gu, (size_t)n, (size_t)I);
}
