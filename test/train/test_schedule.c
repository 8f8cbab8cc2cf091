/* Schedules against published values: nanoGPT's cosine with warm-up, and the 1 - sqrt cooldown of WSD. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "train/near.h"
#include "train/train.h"

static void cosine_is_nanogpts(void **state)
{
	struct stave_schedule s = {.kind = STAVE_COSINE, .peak = 1e-3, .min = 1e-4, .warmup = 100, .decay_steps = 2000};
	const struct {
		int64_t it;
		double lr;
	} want[] = {{0, 9.9009901e-06}, {50, 5.04950495e-04}, {99, 9.9009901e-04}, {100, 1e-3}, {500, 9.05113229e-04}, {1050, 5.5e-04},
	            {1999, 1.00000615e-04}, {2000, 1e-4}, {5000, 1e-4}};
	for (size_t i = 0; i < sizeof want / sizeof *want; i++)
		assert_near(stave_schedule_lr(&s, want[i].it), want[i].lr, want[i].lr * 1e-8);
}

static void wsd_cools_down_by_the_square_root(void **state)
{
	struct stave_schedule s = {.kind = STAVE_WSD, .peak = 1, .min = 0, .decay_fraction = 0.2, .decay_steps = 1000};
	assert_near(stave_schedule_lr(&s, 0), 1, 0);
	assert_near(stave_schedule_lr(&s, 800), 1, 1e-12);
	assert_near(stave_schedule_lr(&s, 850), 0.5, 1e-12);
	assert_near(stave_schedule_lr(&s, 900), 0.292893, 1e-6);
	assert_near(stave_schedule_lr(&s, 1000), 0, 1e-12);
	s.min = 0.1;
	assert_near(stave_schedule_lr(&s, 850), 0.55, 1e-12);
}

static void linear_and_constant(void **state)
{
	struct stave_schedule s = {.kind = STAVE_LINEAR, .peak = 2, .min = 1, .warmup = 10, .decay_steps = 110};
	assert_near(stave_schedule_lr(&s, 4), 2 * 5.0 / 11, 1e-12);
	assert_near(stave_schedule_lr(&s, 10), 2, 1e-12);
	assert_near(stave_schedule_lr(&s, 60), 1.5, 1e-12);
	assert_near(stave_schedule_lr(&s, 110), 1, 1e-12);
	s.kind = STAVE_CONSTANT;
	assert_near(stave_schedule_lr(&s, 109), 2, 0);
}

/* No schedule divides by zero or rises after warm-up, however its lengths are set. */
static void odd_lengths(void **state)
{
	for (int kind = STAVE_COSINE; kind <= STAVE_CONSTANT; kind++)
		for (int64_t warmup = 0; warmup < 12; warmup += 3)
			for (int64_t steps = 0; steps < 12; steps++) {
				struct stave_schedule s = {.kind = kind, .peak = 1, .min = 0.1, .decay_fraction = 1, .warmup = warmup, .decay_steps = steps};
				double before = 1;
				for (int64_t it = warmup; it < 20; it++) {
					double lr = stave_schedule_lr(&s, it);
					assert_true(lr >= 0.1 - 1e-12 && lr <= before + 1e-12);
					before = lr;
				}
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cosine_is_nanogpts),
		cmocka_unit_test(wsd_cools_down_by_the_square_root),
		cmocka_unit_test(linear_and_constant),
		cmocka_unit_test(odd_lengths),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
