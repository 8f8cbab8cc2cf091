/* Quantities: a number and its unit, read and written.
 *
 * One table names the units: what each measures and how many of the program's own it is. A dimension is one such measure, or one over
 * another ("GB/s", "EUR/kWh"), so that every combination reads alike. A number without its unit is refused wherever a unit is possible: "40"
 * for a rack's power has been read as W and as kW. */
#include "base/yaml.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

enum measure { NONE, MEMORY, BITS, WORK, TIME, POWER, ENERGY, MASS, VOLUME, PERCENT, CASH };

/* name, what it measures, factor to the program's unit. Of several names for one unit the first is written. */
#define UNITS(X) \
	X("B", MEMORY, 1) X("kB", MEMORY, 1e3) X("MB", MEMORY, 1e6) X("GB", MEMORY, 1e9) X("TB", MEMORY, 1e12) X("PB", MEMORY, 1e15) X("EB", MEMORY, 1e18) \
	X("KiB", MEMORY, 1024.) X("MiB", MEMORY, 1048576.) X("GiB", MEMORY, 1073741824.) X("TiB", MEMORY, 1099511627776.) X("PiB", MEMORY, 1125899906842624.) \
	X("b", BITS, 0.125) X("kb", BITS, 125) X("Mb", BITS, 125e3) X("Gb", BITS, 125e6) X("Tb", BITS, 125e9) X("Pb", BITS, 125e12) \
	X("bit", BITS, 0.125) X("kbit", BITS, 125) X("Mbit", BITS, 125e3) X("Gbit", BITS, 125e6) X("Tbit", BITS, 125e9) \
	X("FLOP", WORK, 1) X("kFLOP", WORK, 1e3) X("MFLOP", WORK, 1e6) X("GFLOP", WORK, 1e9) X("TFLOP", WORK, 1e12) X("PFLOP", WORK, 1e15) X("EFLOP", WORK, 1e18) \
	X("OP", WORK, 1) X("GOP", WORK, 1e9) X("TOP", WORK, 1e12) X("POP", WORK, 1e15) X("EOP", WORK, 1e18) \
	X("ns", TIME, 1e-9) X("us", TIME, 1e-6) X("ms", TIME, 1e-3) X("s", TIME, 1) X("min", TIME, 60) X("h", TIME, 3600) X("d", TIME, 86400) X("w", TIME, 604800) \
	X("mo", TIME, 365.25 / 12 * 86400) X("y", TIME, 365.25 * 86400) \
	X("mW", POWER, 1e-3) X("W", POWER, 1) X("kW", POWER, 1e3) X("MW", POWER, 1e6) X("GW", POWER, 1e9) \
	X("J", ENERGY, 1) X("kJ", ENERGY, 1e3) X("MJ", ENERGY, 1e6) X("GJ", ENERGY, 1e9) \
	X("Wh", ENERGY, 3600) X("kWh", ENERGY, 3.6e6) X("MWh", ENERGY, 3.6e9) X("GWh", ENERGY, 3.6e12) X("TWh", ENERGY, 3.6e15) \
	X("g", MASS, 1e-3) X("kg", MASS, 1) X("t", MASS, 1e3) \
	X("L", VOLUME, 1) X("l", VOLUME, 1) X("m3", VOLUME, 1e3) \
	X("%", PERCENT, 0.01)

static const struct unit {
	const char *name;
	enum measure measure;
	double factor;
} units[] = {
#define X(name, measure, factor) {name, measure, factor},
	UNITS(X)
#undef X
};
#define N_UNITS (sizeof units / sizeof *units)

/* Written are `shown`: units in rising order, "*" for a plain number. */
static const struct dimension {
	const char *what;         /* in errors */
	enum measure over, under; /* a measure, or one over another */
	bool bare;                /* a number without a unit is right */
	const char *example, *right;
	const char *shown;
} dimensions[STAVE_DIMENSIONS] = {
	[STAVE_NUMBER] = {"a number", NONE, NONE, true, "1.5", "no unit", "*"},
	[STAVE_COUNT] = {"a whole number", NONE, NONE, true, "300G", "k M G T P (powers of 1000)", "*"},
	[STAVE_SHARE] = {"a share", PERCENT, NONE, true, "80 %", "%", "%"},
	[STAVE_BYTES] = {"an amount of memory", MEMORY, NONE, false, "80 GB", "B kB MB GB TB PB, KiB MiB GiB TiB PiB", "B kB MB GB TB PB EB"},
	[STAVE_BYTE_RATE] = {"a data rate", MEMORY, TIME, false, "400 Gb/s", "B/s kB/s MB/s GB/s TB/s, in bits b/s kb/s Mb/s Gb/s Tb/s", "B/s kB/s MB/s GB/s TB/s PB/s"},
	[STAVE_FLOP_RATE] = {"a computing rate", WORK, TIME, false, "989 TFLOP/s", "GFLOP/s TFLOP/s PFLOP/s, TOP/s", "FLOP/s kFLOP/s MFLOP/s GFLOP/s TFLOP/s PFLOP/s EFLOP/s"},
	[STAVE_SECONDS] = {"a time", TIME, NONE, false, "90 d", "us ms s min h d w mo y", "us ms s min h d w mo y"},
	[STAVE_WATTS] = {"a power", POWER, NONE, false, "40 kW", "W kW MW GW", "W kW MW GW"},
	[STAVE_JOULES] = {"an energy", ENERGY, NONE, false, "20 MWh", "J kJ MJ, Wh kWh MWh GWh", "J kJ Wh kWh MWh GWh TWh"},
	[STAVE_RATE] = {"a rate", NONE, TIME, false, "20 /s", "/s /min /h /d", "/d /h /min /s"},
	[STAVE_MONEY] = {"an amount of money", CASH, NONE, false, "300 kUSD", "a currency of three letters (USD EUR), with k M or G before it", ""},
	[STAVE_MONEY_PER_JOULE] = {"a price of energy", CASH, ENERGY, false, "0.11 EUR/kWh", "CURRENCY/kWh CURRENCY/MWh", ""},
	[STAVE_MONEY_PER_SECOND] = {"a price of time", CASH, TIME, false, "2.5 USD/h", "CURRENCY/h CURRENCY/d CURRENCY/mo CURRENCY/y", ""},
	[STAVE_KG_PER_JOULE] = {"an emission", MASS, ENERGY, false, "350 g/kWh", "g/kWh kg/MWh", "g/kWh"},
	[STAVE_LITRE_PER_JOULE] = {"a use of water", VOLUME, ENERGY, false, "1.8 L/kWh", "L/kWh L/MWh", "L/kWh"},
	[STAVE_KILOGRAMS] = {"a mass", MASS, NONE, false, "150 kg", "g kg t", "g kg t"},
	[STAVE_DATE] = {"a date", NONE, NONE, false, "2027-06-30", "year-month-day", ""},
};

static const struct unit *unit_find(const char *name, size_t n)
{
	for (size_t i = 0; i < N_UNITS; i++)
		if (strlen(units[i].name) == n && !memcmp(units[i].name, name, n))
			return &units[i];
	return NULL;
}

/* Digits with an optional point and exponent, so that neither "inf" nor "0x10" is a number. Returns its end, NULL when it is none. */
static const char *number(const char *s, double *out)
{
	const char *p = s + (*s == '-' || *s == '+'), *digits = p;
	int n = 0;
	for (; isdigit((unsigned char)*p); p++)
		n++;
	if (*p == '.')
		for (p++; isdigit((unsigned char)*p); p++)
			n++;
	if (!n || (digits[0] == '0' && tolower((unsigned char)digits[1]) == 'x'))
		return NULL;
	const char *e = p + (*p == 'e' || *p == 'E');
	e += e > p && (*e == '-' || *e == '+');
	if (e > p && isdigit((unsigned char)*e)) {
		while (isdigit((unsigned char)*e))
			e++;
		p = e;
	}
	char copy[64];
	if ((size_t)(p - s) >= sizeof copy)
		return NULL;
	memcpy(copy, s, (size_t)(p - s));
	copy[p - s] = 0;
	*out = strtod(copy, NULL);
	return isfinite(*out) ? p : NULL;
}

static double power_of_1000(char c)
{
	const char *letters = "kMGTP", *at = c ? strchr(letters, c) : NULL;
	return at ? pow(1000, (double)(at - letters) + 1) : 0;
}

/* "USD", "kUSD", "MEUR": factor, 0 when it is no money. */
static double cash(const char *s, size_t n, char currency[4])
{
	double factor = n == 4 ? power_of_1000(*s) : n == 3;
	const char *letters = s + (n == 4);
	for (int i = 0; factor != 0 && i < 3; i++)
		if (letters[i] < 'A' || letters[i] > 'Z')
			factor = 0;
	if (factor != 0) {
		memcpy(currency, letters, 3);
		currency[3] = 0;
	}
	return factor;
}

/* Factor of one side of a unit when it measures `m`, else 0. Network people say bits. */
static double side(const char *s, size_t n, enum measure m, bool rate, char currency[4])
{
	if (m == NONE)
		return n == 0;
	if (m == CASH)
		return cash(s, n, currency);
	const struct unit *u = unit_find(s, n);
	return u && (u->measure == m || (rate && m == MEMORY && u->measure == BITS)) ? u->factor : 0;
}

/* Factor of a unit in a dimension, 0 when it is none of it. */
static double unit_factor(const char *s, enum stave_dimension d, char currency[4])
{
	const struct dimension *x = &dimensions[d];
	const char *slash = strchr(s, '/');
	size_t n = strlen(s);
	if (d == STAVE_DATE)
		return 0;
	if (!n && x->bare)
		return 1;
	if (d == STAVE_COUNT)
		return n == 1 ? power_of_1000(*s) : 0;
	if (d == STAVE_FLOP_RATE && !slash && n > 1 && s[n - 1] == 'S') /* as data sheets write it: TFLOPS, TOPS */
		return side(s, n - 1, WORK, false, currency);
	if (!slash != (x->under == NONE))
		return 0;
	double over = side(s, slash ? (size_t)(slash - s) : n, x->over, slash != NULL, currency);
	double under = slash ? side(slash + 1, strlen(slash + 1), x->under, false, currency) : 1;
	return over != 0 && under != 0 ? over / under : 0;
}

/* What a unit of another dimension measures, for the error; NULL when nobody knows it. */
static const char *measured_by(const char *s)
{
	char currency[4];
	for (int d = STAVE_SHARE; *s && d < STAVE_DIMENSIONS; d++)
		if (unit_factor(s, (enum stave_dimension)d, currency) != 0)
			return dimensions[d].what;
	return NULL;
}

static const char *label(const struct stave_yaml *node) { return node->key ? node->key : "this entry"; }

static int wants(const struct stave_yaml *node, enum stave_dimension d, const char *why, struct stave_err *err)
{
	const struct dimension *x = &dimensions[d];
	return stave_yaml_error(node, err, "%.60s wants %s such as '%s' (units: %s); found '%.80s'%s", label(node), x->what, x->example, x->right, node->text, why);
}

static int is_scalar(const struct stave_yaml *node, const char *what, struct stave_err *err)
{
	if (node->kind == STAVE_YAML_SCALAR)
		return 0;
	return stave_yaml_error(node, err, "%.60s wants %s; found a %s", label(node), what, node->kind == STAVE_YAML_MAP ? "map" : "list");
}

static int days_in_month(int y, int m)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	return days[m - 1] + (m == 2 && y % 4 == 0 && (y % 100 || y % 400 == 0));
}

/* Days since 1970-01-01; the year counts from March, so that the leap day comes last (Hinnant, "chrono-compatible low-level date algorithms"). */
static bool date(const char *s, double *out)
{
	for (int i = 0; i < 10; i++)
		if (i == 4 || i == 7 ? s[i] != '-' : !isdigit((unsigned char)s[i]))
			return false;
	int y = atoi(s), m = atoi(s + 5), d = atoi(s + 8);
	if (s[10] || y < 1970 || m < 1 || m > 12 || d < 1 || d > days_in_month(y, m))
		return false;
	y -= m <= 2;
	int era = y / 400, of_era = y % 400, of_year = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	*out = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
	return true;
}

static int read_value(struct stave_yaml *node, enum stave_dimension d, double *value, char currency[4], struct stave_err *err)
{
	if (d == STAVE_DATE)
		return date(node->text, value) ? 0 : wants(node, d, "", err);
	const char *rest = number(node->text, value);
	if (!rest)
		return wants(node, d, "", err);
	while (*rest == ' ')
		rest++;
	double factor = unit_factor(rest, d, currency);
	if (factor == 0) {
		const char *other = measured_by(rest);
		char why[100] = "";
		if (!*rest)
			snprintf(why, sizeof why, ", which has no unit");
		else if (other)
			snprintf(why, sizeof why, ", which is %s", other);
		return wants(node, d, why, err);
	}
	*value *= factor;
	if (!isfinite(*value))
		return wants(node, d, ", which is too large", err);
	if (d == STAVE_COUNT && fabs(*value - rint(*value)) <= 4 * DBL_EPSILON * fabs(*value)) /* 4.35G is whole, if not to the last bit */
		*value = rint(*value);
	if (d == STAVE_COUNT && (*value != floor(*value) || fabs(*value) > 9007199254740992.))
		return wants(node, d, ", which is not a whole number of at most 2^53", err);
	return 0;
}

int stave_yaml_quantity(struct stave_yaml *node, enum stave_dimension d, double min, double max, double *out, char currency[4], struct stave_err *err)
{
	double value = 0;
	char ccy[4] = "", low[48], high[48];
	int rc = is_scalar(node, dimensions[d].what, err);
	if (rc || (rc = read_value(node, d, &value, ccy, err)))
		return rc;
	if (value < min || value > max)
		return stave_yaml_error(node, err, "%.60s is '%.80s'; expected %s to %s", label(node), node->text, stave_quantity_text(low, sizeof low, d, min, ccy),
		                        stave_quantity_text(high, sizeof high, d, max, ccy));
	*out = value;
	if (currency)
		memcpy(currency, ccy, sizeof ccy);
	return 0;
}

int stave_yaml_bool(struct stave_yaml *node, bool *out, struct stave_err *err)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};
	for (int i = 0; node->kind == STAVE_YAML_SCALAR && i < 6; i++)
		if (!strcmp(node->text, words[i])) {
			*out = i % 2;
			return 0;
		}
	int rc = is_scalar(node, "yes or no", err);
	return rc ? rc : stave_yaml_error(node, err, "%.60s wants yes or no; found '%.80s'", label(node), node->text);
}

int stave_yaml_choice(struct stave_yaml *node, const char *const *words, size_t n, int *out, struct stave_err *err)
{
	int rc = is_scalar(node, "a word", err);
	if (rc)
		return rc;
	char list[400] = "";
	for (size_t i = 0, len = 0; i < n; i++) {
		if (!strcmp(node->text, words[i])) {
			*out = (int)i;
			return 0;
		}
		if (len < sizeof list)
			len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "", words[i]);
	}
	const char *near = stave_nearest(node->text, words, n);
	return stave_yaml_error(node, err, "%.60s is one of %s; found '%.80s'%s%s%s", label(node), list, node->text, near ? ". Did you mean '" : "", near ? near : "",
	                        near ? "'?" : "");
}

/* ---- written ---- */

/* The inverse of date(); a limit without end is shown as the last day that can be written. */
static void date_text(char *buf, size_t size, double days)
{
	if (!(days >= 0 && days <= 2932896)) { /* to 9999-12-31 */
		snprintf(buf, size, days < 0 ? "1970-01-01" : "9999-12-31");
		return;
	}
	int z = (int)days + 719468, era = z / 146097, of_era = z % 146097;
	int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * of_year + 2) / 153;
	int month = m < 10 ? m + 3 : m - 9;
	snprintf(buf, size, "%04d-%02d-%02d", year + era * 400 + (month <= 2), month, of_year - (153 * m + 2) / 5 + 1);
}

/* Of the units shown the largest that leaves 1 or more, else the smallest; of time, where units are no powers of ten, the largest that leaves a
 * whole number of at most 366 before that: 8 w, not 1.84 mo. Returns its factor. */
static double pick_unit(char unit[16], enum stave_dimension d, double value)
{
	double best = 0;
	bool whole = false;
	for (const char *p = dimensions[d].shown; *p;) {
		char name[16], currency[4];
		size_t n = strcspn(p, " ");
		snprintf(name, sizeof name, "%.*s", (int)n, p);
		double factor = unit_factor(name, d, currency);
		/* a tolerance, lest 7 days of rounded seconds be shown as 6.99 */
		bool enough = fabs(value) >= factor * (1 - 1e-9);
		bool even = d == STAVE_SECONDS && enough && factor >= 1 && fabs(value) <= 366 * factor && fabs(value / factor - rint(value / factor)) < 1e-6;
		if (best == 0 || (enough && (even || !whole))) {
			memcpy(unit, name, sizeof name);
			best = factor;
			whole = whole || even;
		}
		p += n + (p[n] == ' ');
	}
	return best;
}

static const char *money_text(char *buf, size_t size, enum stave_dimension d, double value, const char *currency)
{
	const char *ccy = currency && *currency ? currency : "(currency)";
	if (d == STAVE_MONEY_PER_JOULE)
		snprintf(buf, size, "%.4g %s/kWh", value * 3.6e6, ccy);
	else if (d == STAVE_MONEY_PER_SECOND)
		snprintf(buf, size, "%.4g %s/h", value * 3600, ccy);
	else {
		double size_of = fabs(value);
		const char *prefix = size_of >= 1e9 ? "G" : size_of >= 1e6 ? "M" : size_of >= 1e4 ? "k" : "";
		snprintf(buf, size, "%.4g %s%s", value / (size_of >= 1e9 ? 1e9 : size_of >= 1e6 ? 1e6 : size_of >= 1e4 ? 1e3 : 1), prefix, ccy);
	}
	return buf;
}

const char *stave_quantity_text(char *buf, size_t size, enum stave_dimension d, double value, const char *currency)
{
	char unit[16] = "";
	if (d == STAVE_DATE)
		date_text(buf, size, value);
	else if (dimensions[d].over == CASH)
		money_text(buf, size, d, value, currency);
	else if (d == STAVE_NUMBER)
		snprintf(buf, size, "%.6g", value);
	else if (d == STAVE_COUNT)
		snprintf(buf, size, "%.15g", value);
	else {
		double factor = pick_unit(unit, d, value);
		snprintf(buf, size, "%.4g %s", value / factor, unit);
	}
	return buf;
}
