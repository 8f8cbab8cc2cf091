/* Private to plan/: what machines, rooms, people and energy cost. Money is in one currency, the caller's; prices come with their own and a date, and are turned
 * by plan_price_in, which refuses one that nobody gave. Years are of 8766 h (365.25 d). Pure functions; nothing here allocates. */
#ifndef STAVE_PLAN_MONEY_H
#define STAVE_PLAN_MONEY_H

#include "plan/catalog/hardware.h"

#define PLAN_YEAR_S (365.25 * 86400)

/* A price in `currency` by way of the catalog's dated rates to USD. `what` names it in errors. STAVE_ECONFIG when it was not given (no currency, not a number, negative): a
 * price of 0 must be written down to count, or when a rate is missing. */
int plan_price_in(const struct plan_price *price, const char *what, const char *currency, const struct plan_catalog *c, double *out, struct stave_err *err);
/* Capital recovery factor: what a loan of 1 at `interest` a year costs each of `years` years, i (1+i)^n / ((1+i)^n - 1); 1/n without interest. */
double plan_crf(double interest, double years);

/* What owning machines takes. */
struct plan_owning {
	double devices, network, storage; /* bought: capital */
	double building;            /* power and cooling works, bought */
	double interest, life_years, building_years;
	double maintenance;         /* share of devices, network and storage each year */
	double staff_year, space_year;
	double idle_energy_year;    /* energy that is drawn whether work is done or not, all machines */
	double busy_energy_year;    /* what they draw beyond that when all work all year */
	double count;               /* devices: accelerators */
};
struct plan_owned {
	double capex;
	double devices_year, network_year, storage_year, building_year, maintenance_year, staff_year, space_year, energy_year; /* sum: year */
	double year, capital_year, operation_year; /* year = capital + operation */
	double fixed_year;          /* of year: what is paid even when nothing runs */
	double device_hour;         /* of a used hour of one device */
};
/* Yearly cost at a share `use` (0..1] of all device-hours: capital by the recovery factor, the rest as it comes (planner.md d.10). */
void plan_owned_evaluate(const struct plan_owning *o, double use, struct plan_owned *out);
/* Utilisation above which owning is cheaper than renting at `rent_h` per device-hour: fixed cost over what an hour of use saves. Above 1: never; PLAN_NEVER_S when
 * renting is cheaper than the owned machine's energy alone. */
double plan_break_even(const struct plan_owning *o, double rent_h);

/* Own a base, rent what goes beyond. */
struct plan_mix {
	double owned;               /* devices */
	double owned_hour, rented_hour, total_hour; /* money per hour, mean over the curve */
	double rented_share;        /* of the device-hours used */
};
/* The cheapest base for a load curve of n equally long stretches (24 hours, or a duration curve), in devices. A device owned costs fixed_h each hour and used_h more in
 * hours it works; rented, rent_h; whoever owns any pays once_h (staff). Bases are whole multiples of `step` devices. The cost is piecewise linear in the base, so one of
 * the loads, rounded up or down to a step, or nothing, is best. Never dearer than renting or owning everything, which come back too when not NULL. */
void plan_hybrid_choose(const double *load, int n, double step, double fixed_h, double used_h, double once_h, double rent_h, struct plan_mix *best, struct plan_mix *rent,
                        struct plan_mix *own);

/* Tokens of a serving fleet by what they cost it. */
struct plan_tokens {
	double input_s, cached_s, output_s; /* per second; input: computed, cached: found in the cache */
	double input_share, cached_share, output_share; /* of the fleet's busy time spent on them; any scale, only ratios count */
};
struct plan_token_price {
	double input, cached, output, mean; /* per million tokens; 0 where there are none */
};
/* Money per second split over the tokens in proportion to the time that each kind takes: what all tokens bring in is what the fleet costs. */
void plan_token_price_evaluate(const struct plan_tokens *t, double money_s, struct plan_token_price *out);

#endif
