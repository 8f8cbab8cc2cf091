/* Token and position embedding, the definition. */
#include "kernel/table.h"

void embed_fwd_ref(float *out, const int32_t *ids, const int32_t *pos, const float *wte, const float *wpe, int n, int C)
{
	for (int r = 0; r < n; r++)
		for (int c = 0; c < C; c++)
			out[(size_t)r * C + c] = wte[(size_t)ids[r] * C + c] + (wpe ? wpe[(size_t)pos[r] * C + c] : 0);
}
