/* GELU and its derivative.
 *
 * Exact: Phi(-|x|) = exp(-x^2 / 2) R(|x|), where R falls slowly and is a polynomial in t = 1 / (1 + 0.3 |x|); the form is that of
 * Hastings' erf approximations (Abramowitz & Stegun 7.1.26), the coefficients are our own least-maximum fit over 0..14:
 * relative error 3e-8 at 0 rising to 3e-7 in the far tail. Keeping the exponential as a factor makes the left tail of
 * x Phi(x) right to its leading digits, where x/2 (1 + erf) would cancel to noise, and the derivative needs it anyway.
 *
 * Tanh form: (1 + tanh u) / 2 is the logistic function of 2u, which does not cancel either. */
#include "kernel/simd.h"

/* Phi(x); *e = exp(-x^2 / 2) */
INLINE vf normal_cdf(vf x, vf *e)
{
	*e = vexp(vmul(vmul(x, x), vset(-0.5f)));
	vf t = vdiv(vset(1.f), vfma(vabs(x), vset(0.3f), vset(1.f)));
	vf p = vset(0x1.29fd18p-5f);
	p = vfma(p, t, vset(-0x1.47543ap-3f));
	p = vfma(p, t, vset(0x1.aebb7ep-3f));
	p = vfma(p, t, vset(-0x1.d112a2p-5f));
	p = vfma(p, t, vset(0x1.09fcbap-3f));
	p = vfma(p, t, vset(0x1.9806bep-4f));
	p = vfma(p, t, vset(0x1.eebcc0p-4f));
	p = vfma(p, t, vset(0x1.e9ff50p-4f));
	vf tail = vmul(vmul(p, t), *e);
	return vbysign(x, tail, vsub(vset(1.f), tail));
}

/* 2u = 2 sqrt(2/pi) (x + 0.044715 x^3) */
INLINE vf twice_u(vf x)
{
	return vmul(x, vfma(vmul(x, x), vset(0.0713548162726f), vset(1.59576912161f)));
}

INLINE vf gelu(const bool exact, vf x)
{
	vf e;
	return vmul(x, exact ? normal_cdf(x, &e) : vsigmoid(twice_u(x)));
}

INLINE vf gelu_slope(const bool exact, vf x)
{
	vf e;
	if (exact) {
		vf cdf = normal_cdf(x, &e);
		return vfma(vmul(x, vset(0.398942280401f)), e, cdf);
	}
	/* Beyond 16 the slope is 0 or 1 to the last bit; the clamp keeps x^2 from overflowing into 0 times inf. */
	x = vmax(vset(-16.f), vmin(vset(16.f), x));
	vf s = vsigmoid(twice_u(x));
	vf slope_2u = vfma(vmul(x, x), vset(3 * 0.0713548162726f), vset(1.59576912161f));
	return vfma(vmul(vmul(x, s), vsub(vset(1.f), s)), slope_2u, s);
}

INLINE void forward(const enum stave_dtype dt, const bool exact, void *y, const void *x, size_t n)
{
	EACH_VECTOR(n, vput(dt, y, i, gelu(exact, vget(dt, x, i, m)), m););
}

INLINE void backward(const enum stave_dtype dt, const bool exact, void *dx, const void *dy, const void *x, size_t n)
{
	EACH_VECTOR(n, vput(dt, dx, i, vmul(vget(dt, dy, i, m), gelu_slope(exact, vget(dt, x, i, m))), m););
}

void STAVE_LEVELED(gelu_fwd)(enum stave_dtype dt, bool exact, void *y, const void *x, size_t n)
{
	if (dt == STAVE_F32 && exact)
		forward(STAVE_F32, true, y, x, n);
	else if (dt == STAVE_F32)
		forward(STAVE_F32, false, y, x, n);
	else if (exact)
		forward(STAVE_BF16, true, y, x, n);
	else
		forward(STAVE_BF16, false, y, x, n);
}

void STAVE_LEVELED(gelu_bwd)(enum stave_dtype dt, bool exact, void *dx, const void *dy, const void *x, size_t n)
{
	if (dt == STAVE_F32 && exact)
		backward(STAVE_F32, true, dx, dy, x, n);
	else if (dt == STAVE_F32)
		backward(STAVE_F32, false, dx, dy, x, n);
	else if (exact)
		backward(STAVE_BF16, true, dx, dy, x, n);
	else
		backward(STAVE_BF16, false, dx, dy, x, n);
}
