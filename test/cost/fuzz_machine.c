/* A machine profile of arbitrary bytes is refused or usable: any that is accepted must give a finite, positive forecast. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "cost/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct stave_machine m;
	static struct stave_op ops[STAVE_OPS_MAX];
	const struct stave_shape s = {.family = STAVE_LLAMA, .L = 2, .C = 64, .H = 4, .K = 2, .D = 16, .I = 96, .V = 1000, .T_max = 64,
	                              .act = STAVE_SWIGLU, .norm_eps = 1e-5f, .rope_theta = 1e4};
	struct stave_err err;
	if (stave_machine_parse(&m, (const char *)data, size, "profile", &err))
		return 0;
	int n = stave_cost_train_ops(&s, 2, 32, 1, STAVE_BF16, STAVE_KEEP_ALL, ops);
	struct stave_forecast f = stave_machine_forecast(&m, ops, n);
	if (!isfinite(f.step_s) || f.step_s <= 0 || !(f.shortest_share >= 0 && f.shortest_share <= 1))
		abort();
	return 0;
}
