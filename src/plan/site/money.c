/* Money: prices into one currency, capital into years, years into device-hours, and device-hours bought or rented.
 *
 * A price that nobody gave is an error that names it. It is never taken as 0: a plan that forgot the network would look cheap, not incomplete. */
#include "plan/site/money.h"

#include <math.h>
#include <string.h>

#include "plan/site/reliability.h"

int plan_price_in(const struct plan_price *price, const char *what, const char *currency, const struct plan_catalog *c, double *out, struct stave_err *err)
{
	if (!price->currency[0] || !isfinite(price->amount) || price->amount < 0)
		return stave_err_set(err, STAVE_ECONFIG, "no price is known for %s: give one in the specification, with its currency", what);
	if (!strcmp(price->currency, currency)) {
		*out = price->amount;
		return 0;
	}
	double from = plan_exchange_usd(c, price->currency), to = plan_exchange_usd(c, currency);
	if (!(from > 0) || !(to > 0))
		return stave_err_set(err, STAVE_ECONFIG, "the price of %s is in %s and is wanted in %s, but no exchange rate of %s is known", what, price->currency, currency,
		                     from > 0 ? currency : price->currency);
	*out = price->amount * from / to;
	return 0;
}

double plan_crf(double interest, double years)
{
	years = fmax(years, 1.0 / 365.25);
	/* i / (1 - (1+i)^-n), with the digits that small interest would lose */
	return interest > 0 ? interest / -expm1(-years * log1p(interest)) : 1 / years;
}

void plan_owned_evaluate(const struct plan_owning *o, double use, struct plan_owned *out)
{
	use = fmin(fmax(use, 1e-6), 1);
	double crf = plan_crf(o->interest, o->life_years), energy = o->idle_energy_year + use * o->busy_energy_year;
	struct plan_owned r = {
		.capex = o->devices + o->network + o->storage + o->building,
		.devices_year = o->devices * crf, .network_year = o->network * crf, .storage_year = o->storage * crf,
		.building_year = o->building * plan_crf(o->interest, o->building_years),
		.maintenance_year = o->maintenance * (o->devices + o->network + o->storage),
		.staff_year = o->staff_year, .space_year = o->space_year, .energy_year = energy,
	};
	r.capital_year = r.devices_year + r.network_year + r.storage_year + r.building_year;
	r.operation_year = r.maintenance_year + r.staff_year + r.space_year + r.energy_year;
	r.year = r.capital_year + r.operation_year;
	r.fixed_year = r.year - use * o->busy_energy_year;
	r.device_hour = o->count > 0 ? r.year / (o->count * PLAN_YEAR_S / 3600 * use) : 0;
	*out = r;
}

double plan_break_even(const struct plan_owning *o, double rent_h)
{
	struct plan_owned r;
	plan_owned_evaluate(o, 1, &r);
	double saved = o->count * PLAN_YEAR_S / 3600 * rent_h - o->busy_energy_year;
	return saved > r.fixed_year / PLAN_NEVER_S ? r.fixed_year / saved : PLAN_NEVER_S;
}

static struct plan_mix mix(const double *load, int n, double base, double fixed_h, double used_h, double once_h, double rent_h)
{
	double within = 0, beyond = 0;
	for (int i = 0; i < n; i++) {
		within += fmin(load[i], base) / n;
		beyond += fmax(load[i] - base, 0) / n;
	}
	struct plan_mix m = {.owned = base, .owned_hour = base * fixed_h + within * used_h + (base > 0 ? once_h : 0), .rented_hour = beyond * rent_h};
	m.total_hour = m.owned_hour + m.rented_hour;
	m.rented_share = within + beyond > 0 ? beyond / (within + beyond) : 0;
	return m;
}

void plan_hybrid_choose(const double *load, int n, double step, double fixed_h, double used_h, double once_h, double rent_h, struct plan_mix *best, struct plan_mix *rent,
                        struct plan_mix *own)
{
	double most = 0;
	struct plan_mix b = mix(load, n, 0, fixed_h, used_h, once_h, rent_h);
	if (rent)
		*rent = b;
	for (int i = 0; i < n; i++) {
		most = fmax(most, load[i]);
		for (int up = 0; up < 2; up++) {
			double base = step > 0 ? (floor(load[i] / step) + (up && fmod(load[i], step) > 0)) * step : load[i];
			struct plan_mix m = mix(load, n, base, fixed_h, used_h, once_h, rent_h);
			/* at equal cost own less: what is rented can be given back */
			if (m.total_hour < b.total_hour || (m.total_hour == b.total_hour && m.owned < b.owned))
				b = m;
		}
	}
	if (own) {
		most = step > 0 ? ceil(most / step) * step : most;
		*own = mix(load, n, most, fixed_h, used_h, once_h, rent_h);
	}
	*best = b;
}

/* Money per million of tokens that come at `rate` and take `share` of `all` the time. */
static double per_million(double money_s, double share, double all, double rate)
{
	return rate > 0 && all > 0 ? money_s * share / all / rate * 1e6 : 0;
}

void plan_token_price_evaluate(const struct plan_tokens *t, double money_s, struct plan_token_price *out)
{
	/* time booked on a kind of which there are no tokens has nobody to pay it: the others do */
	double input = t->input_s > 0 ? t->input_share : 0, cached = t->cached_s > 0 ? t->cached_share : 0, output = t->output_s > 0 ? t->output_share : 0;
	double all = input + cached + output, tokens = t->input_s + t->cached_s + t->output_s;
	*out = (struct plan_token_price){
		.input = per_million(money_s, input, all, t->input_s), .cached = per_million(money_s, cached, all, t->cached_s),
		.output = per_million(money_s, output, all, t->output_s), .mean = per_million(money_s, 1, 1, tokens),
	};
}
