/* Private to plan/: what the reports share (report.c). */
#ifndef STAVE_PLAN_REPORT_H
#define STAVE_PLAN_REPORT_H

#include "plan/result.h"

/* The parts of a training step in the order of every report; their seconds add up to step.total_s. */
struct plan_part {
	const char *name, *color;
	size_t offset; /* in struct plan_step */
};
enum { PLAN_PARTS = 12 };
extern const struct plan_part plan_parts[PLAN_PARTS];
double plan_part_s(const struct plan_step *s, int part);
/* The classes of device memory, likewise; offset in struct plan_memory. */
enum { PLAN_CLASSES = 6 };
extern const struct plan_part plan_classes[PLAN_CLASSES];

/* "tp 8, pp 8, dp 16, ZeRO 1, micro 2, selective recompute": what is 1 is left out. */
const char *plan_layout_text(const struct plan_layout *l, char out[128]);
/* "1.23 MUSD"; "no price" for NAN. */
const char *plan_money_text(double amount, const char *currency, char out[48]);
/* SI prefix and unit: "512 kW", "1.2 GWh" of J, "31 t" of kg. */
const char *plan_si_text(double v, const char *unit, char out[32]);
const char *plan_energy_text(double j, char out[32]);
const char *plan_mass_text(double kg, char out[32]);
/* "12 ms", "3.4 min", "1.5 h", "23.1 d", "4.2 y". */
const char *plan_time_text(double s, char out[32]);
/* "2027-06-30"; "-" for NAN. */
const char *plan_day_text(double day, char out[16]);

#endif
