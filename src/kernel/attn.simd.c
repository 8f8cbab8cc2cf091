/* Attention for any vector level, with single-precision products. Activations in bf16 are widened as they are packed and their
 * outputs rounded once, so this is also the bf16 attention of levels without bf16 instructions. */
#include "kernel/attn_narrow.h"
#include "kernel/simd.h"

#define PAIR 1
typedef float unit;
typedef vf vu;

INLINE vu vu_load(const unit *p) { return vload(p); }
INLINE vu vu_splat(unit a) { return vset(a); }
INLINE vf mac(vf c, vu a, vu b) { return vfma(a, b, c); }

INLINE void load_floats(enum stave_dtype dt, unit *y, const void *x, int D, int Dp)
{
	EACH_VECTOR(D, vstore(y + i, vget(dt, x, i, m)););
	for (int d = (D + VL - 1) / VL * VL; d < Dp; d += VL)
		vstore(y + d, vset(0));
}
INLINE void load_row(enum stave_dtype dt, unit *y, const void *x, int D, int Dp)
{
	if (dt == STAVE_F32)
		load_floats(STAVE_F32, y, x, D, Dp);
	else
		load_floats(STAVE_BF16, y, x, D, Dp);
}

INLINE void put_row(unit *y, vf x) { vstore(y, x); }
INLINE void put_col(unit *y, const vf *x) { vstore(y, *x); }
INLINE void put_outer(unit *y, const unit *rows, size_t ld) { vstore(y, vload(rows)); }

#include "kernel/attn_blocks.h"

/* The level with bf16 instructions multiplies bf16 activations without widening them: attn_narrow.avx512bf16.c. */
#ifdef __AVX512BF16__
#define NARROW(dt) ((dt) == STAVE_BF16)
#else
#define NARROW(dt) false
#endif

size_t STAVE_LEVELED(attn_scratch)(enum stave_dtype dt, int T, int D, bool back)
{
	return NARROW(dt) ? attn_narrow_scratch(T, D, back) : scratch_bytes(T, D, back);
}

void STAVE_LEVELED(attn_fwd)(enum stave_dtype dt, const struct stave_attn *a, void *scratch)
{
	if (NARROW(dt))
		attn_narrow_fwd(a, scratch);
	else
		forward(dt, a, scratch);
}

void STAVE_LEVELED(attn_bwd)(enum stave_dtype dt, const struct stave_attn *a, void *scratch)
{
	if (NARROW(dt))
		attn_narrow_bwd(a, scratch);
	else
		backward(dt, a, scratch);
}
