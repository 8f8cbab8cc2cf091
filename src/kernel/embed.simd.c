/* Token and position embedding: a copy or a sum of two rows, bound by memory. */
#include "kernel/simd.h"

void STAVE_LEVELED(embed_fwd)(float *out, const int32_t *ids, const int32_t *pos, const float *wte, const float *wpe, int n,
                              int C)
{
	for (int r = 0; r < n; r++) {
		float *o = out + (size_t)r * C;
		const float *token = wte + (size_t)ids[r] * C;
		if (!wpe) {
			memcpy(o, token, (size_t)C * sizeof *o);
			continue;
		}
		const float *place = wpe + (size_t)pos[r] * C;
		EACH_VECTOR((size_t)C, vstore_n(o + i, vadd(vload_n(token + i, m), vload_n(place + i, m)), m););
	}
}
