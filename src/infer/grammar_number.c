/* Numbers between bounds, as grammars. A bound is a decimal; numbers are compared with it digit by digit, so that the
 * language is exact. Near a bound no more digits are written than a double can tell apart, so that what a reader's
 * floating point makes of the text lies on the same side of the bound. Exponents are written only where nothing bounds a number.
 *
 * multipleOf: powers of ten limit the digits of the fraction; whole numbers are enumerated when the bounds leave few, else
 * their remainder is a rule. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

#define WHOLE_DIGITS 16
#define WHOLE_MAX 9999999999999999
#define WHOLE_END 1e16 /* the next; doubles are compared with this, since they do not hold that */
#define DOUBLE_DIGITS 15 /* any decimal of so many digits is told apart by a double */
#define FRACTION_DIGITS 16

static struct ast *text(struct build *b, const char *t) { return ast_text(b, t, strlen(t)); }
static struct ast *some_digits(struct build *b, int min, int max) { return ast_repeat(b, ast_byte(b, '0', '9'), min, max); }

/* ---- whole parts ---- */

static bool all(const char *s, char c, int n)
{
	while (n && s[n - 1] == c)
		n--;
	return !n;
}

/* Digits of lo..hi, both written with n digits. */
static struct ast *digits(struct build *b, const char *lo, const char *hi, int n)
{
	if (all(lo, '0', n) && all(hi, '9', n))
		return some_digits(b, n, n);
	if (lo[0] == hi[0])
		return ast_seq(b, ast_byte(b, lo[0], lo[0]), digits(b, lo + 1, hi + 1, n - 1));
	struct ast *x = ast_seq(b, ast_byte(b, lo[0], lo[0]), digits(b, lo + 1, "99999999999999999999", n - 1));
	x = ast_alt(b, x, ast_seq(b, ast_byte(b, hi[0], hi[0]), digits(b, "00000000000000000000", hi + 1, n - 1)));
	return hi[0] - lo[0] > 1 ? ast_alt(b, x, ast_seq(b, ast_byte(b, lo[0] + 1, hi[0] - 1), some_digits(b, n - 1, n - 1))) : x;
}

/* lo..hi >= 0, without leading zeros; nothing when lo > hi. */
static struct ast *natural(struct build *b, int64_t lo, int64_t hi)
{
	struct ast *x = ast_never(b);
	for (int64_t from = lo, last = 9; from <= hi; last = last * 10 + 9) {
		char low[24], high[24];
		if (from > last)
			continue;
		int64_t to = hi < last ? hi : last;
		int n = snprintf(low, sizeof low, "%lld", (long long)from);
		snprintf(high, sizeof high, "%lld", (long long)to);
		x = ast_alt(b, x, digits(b, low, high, n));
		from = to + 1;
	}
	return x;
}

/* ---- decimals ---- */

struct limit { /* of magnitudes; a fraction has no trailing zeros */
	int64_t whole;
	char fraction[24];
	bool open;
};

/* What may follow in a fraction when the digits so far equal the limits' (lo or hi NULL: they do not, or there is none): up to k digits;
 * `*ends`: it may also end here. */
static struct ast *fraction(struct build *b, const char *lo, bool lo_open, const char *hi, bool hi_open, int k, bool *ends)
{
	*ends = (!lo || (!*lo && !lo_open)) && (!hi || *hi || !hi_open);
	if (k <= 0)
		return ast_never(b);
	if (!lo && !hi)
		return some_digits(b, 1, k);
	int low = lo && *lo ? *lo : '0', high = !hi ? '9' : *hi ? *hi : '0';
	struct ast *x = ast_never(b);
	for (int c = low; c <= high; c++) {
		const char *next_lo = lo && c == low ? lo + (*lo != 0) : NULL, *next_hi = hi && c == high ? hi + (*hi != 0) : NULL;
		int last = !next_lo && !next_hi ? (hi ? high - 1 : high) : c;
		bool stop;
		struct ast *rest = fraction(b, next_lo, lo_open, next_hi, hi_open, k - 1, &stop);
		if (stop)
			rest = ast_repeat(b, rest, 0, 1);
		x = ast_alt(b, x, ast_seq(b, ast_byte(b, c, last), rest));
		c = last;
	}
	return x;
}

/* A whole part, and what fraction may follow it. */
static struct ast *with_fraction(struct build *b, int64_t whole, const struct limit *lo, const struct limit *hi, int most)
{
	int used = snprintf(NULL, 0, "%lld", (long long)whole), k = DOUBLE_DIGITS - used;
	bool ends;
	struct ast *f = fraction(b, lo ? lo->fraction : NULL, lo && lo->open, hi ? hi->fraction : NULL, hi && hi->open, k < most ? k : most, &ends);
	f = ast_seq(b, ast_byte(b, '.', '.'), f);
	return ast_seq(b, natural(b, whole, whole), ends ? ast_repeat(b, f, 0, 1) : f);
}

/* Magnitudes from lo to hi with at most `most` digits after the point. */
static struct ast *decimal(struct build *b, const struct limit *lo, const struct limit *hi, int most)
{
	if (lo->whole > hi->whole)
		return ast_never(b);
	if (lo->whole == hi->whole)
		return with_fraction(b, lo->whole, lo, hi, most);
	struct ast *x = with_fraction(b, lo->whole, lo, NULL, most);
	int k = DOUBLE_DIGITS - snprintf(NULL, 0, "%lld", (long long)hi->whole); /* more nines would be rounded up to hi */
	most = hi->open && k < most ? (k > 0 ? k : 0) : most;
	struct ast *any = ast_seq(b, ast_byte(b, '.', '.'), some_digits(b, 1, most));
	if (lo->whole + 1 < hi->whole)
		x = ast_alt(b, x, ast_seq(b, natural(b, lo->whole + 1, hi->whole - 1), most ? ast_repeat(b, any, 0, 1) : ast_empty(b)));
	return ast_alt(b, x, with_fraction(b, hi->whole, NULL, hi, most));
}

/* |x| as decimal digits: the shortest that read back as x. false: more than a double surely tells apart. */
static bool to_limit(double x, bool open, struct limit *l)
{
	char s[48] = "";
	x = fabs(x);
	*l = (struct limit){.open = open};
	if (x >= WHOLE_END) {
		l->whole = WHOLE_MAX;
		return true;
	}
	if (x == floor(x)) {
		l->whole = (int64_t)x;
		return true;
	}
	for (int places = 1; places <= FRACTION_DIGITS; places++) {
		snprintf(s, sizeof s, "%.*f", places, x);
		if (strtod(s, NULL) == x)
			break;
	}
	char *point = strchr(s, '.');
	if (strtod(s, NULL) != x || strlen(s) - 1 > DOUBLE_DIGITS + 1)
		return false;
	l->whole = strtoll(s, NULL, 10);
	snprintf(l->fraction, sizeof l->fraction, "%s", point + 1);
	return true;
}

/* ---- multiples ---- */

#define FEW 1000       /* so many numbers are enumerated */
#define STEPS_MAX 1000 /* and so large a divisor gets a rule for each remainder */

/* Multiples of m that are at least 0, or (positive) at least m. */
static struct ast *multiples(struct build *b, int m, bool positive)
{
	int first = b->n_rules;
	for (int i = 0; i < m; i++)
		build_rule(b);
	if (b->failed)
		return ast_empty(b);
	for (int r = 0; r < m; r++) {
		struct ast *x = r ? ast_never(b) : ast_empty(b);
		for (int d = 0; d < 10; d++)
			x = ast_alt(b, x, ast_seq(b, ast_byte(b, '0' + d, '0' + d), ast_call(b, first + (10 * r + d) % m)));
		b->rules[first + r].body = x;
	}
	struct ast *x = positive ? ast_never(b) : ast_byte(b, '0', '0');
	for (int d = 1; d < 10; d++)
		x = ast_alt(b, x, ast_seq(b, ast_byte(b, '0' + d, '0' + d), ast_call(b, first + d % m)));
	return x;
}

static struct ast *whole_multiples(struct build *b, int64_t lo, int64_t hi, double m)
{
	if (m != floor(m) || m >= WHOLE_END)
		return build_fail(b, "schema: multipleOf %g of a whole number is not supported", m);
	int64_t step = (int64_t)m, from = lo >= 0 ? (lo + step - 1) / step : -(-lo / step), to = hi >= 0 ? hi / step : -((-hi + step - 1) / step);
	if (to - from < FEW) {
		struct ast *x = ast_never(b);
		for (int64_t i = from; i <= to; i++) {
			char t[24];
			snprintf(t, sizeof t, "%lld", (long long)(i * step));
			x = ast_alt(b, x, text(b, t));
		}
		return x;
	}
	bool low = lo <= -WHOLE_MAX, high = hi >= WHOLE_MAX;
	if (step > STEPS_MAX || !(low || lo == 0 || lo == 1) || !(high || hi == 0 || hi == -1))
		return build_fail(b, "schema: multipleOf %lld between these bounds is not supported", (long long)step);
	struct ast *x = high ? multiples(b, (int)step, lo == 1) : hi == 0 ? ast_byte(b, '0', '0') : ast_never(b);
	return low ? ast_alt(b, x, ast_seq(b, text(b, "-"), multiples(b, (int)step, true))) : x;
}

/* ---- any number ---- */

static struct ast *whole_between(struct build *b, int64_t lo, int64_t hi)
{
	struct ast *x = hi >= 0 ? natural(b, lo > 0 ? lo : 0, hi) : ast_never(b);
	return lo < 0 ? ast_alt(b, x, ast_seq(b, text(b, "-"), natural(b, hi < 0 ? -hi : 1, -lo))) : x;
}

static struct ast *real_between(struct build *b, const struct number_bounds *n, int most)
{
	static const struct limit zero = {0}, least = {.open = true};
	static const struct limit most_whole = {.whole = WHOLE_MAX};
	struct limit lo = most_whole, hi = most_whole;
	if (n->lo >= WHOLE_END || n->hi <= -WHOLE_END)
		return build_fail(b, "schema: numbers of more than %d digits are not supported", WHOLE_DIGITS);
	if ((!isinf(n->lo) && !to_limit(n->lo, n->lo_open, &lo)) || (!isinf(n->hi) && !to_limit(n->hi, n->hi_open, &hi)))
		return build_fail(b, "schema: the bounds %.17g and %.17g are not supported; up to %d digits are", n->lo, n->hi, DOUBLE_DIGITS);
	struct ast *x = ast_never(b);
	if (n->hi >= 0)
		x = decimal(b, n->lo >= 0 ? &lo : &zero, &hi, most);
	if (n->lo < 0) /* mirrored; zero itself has no sign */
		x = ast_alt(b, x, ast_seq(b, text(b, "-"), decimal(b, n->hi < 0 ? &hi : &least, &lo, most)));
	return x;
}

struct ast *grammar_number(struct build *b, const struct number_bounds *n)
{
	int most = FRACTION_DIGITS;
	if (n->whole || (n->multiple > 0 && n->multiple == floor(n->multiple))) {
		double low = n->lo == floor(n->lo) ? n->lo + n->lo_open : ceil(n->lo), high = n->hi == floor(n->hi) ? n->hi - n->hi_open : floor(n->hi);
		if (low >= WHOLE_END || high <= -WHOLE_END)
			return build_fail(b, "schema: whole numbers of more than %d digits are not supported", WHOLE_DIGITS);
		int64_t lo = low <= -WHOLE_END ? -WHOLE_MAX : (int64_t)low, hi = high >= WHOLE_END ? WHOLE_MAX : (int64_t)high;
		if (lo > hi)
			return ast_never(b);
		double m = n->multiple; /* a whole number is a multiple of 1, .5, .25, .1 … */
		return m > 0 && 1 / m != floor(1 / m) ? whole_multiples(b, lo, hi, m) : whole_between(b, lo, hi);
	}
	if (n->multiple > 0) {
		double power = 1;
		for (most = 0; most < 6 && power * n->multiple < .999999; most++)
			power *= 10;
		if (n->multiple != 1 / power)
			return build_fail(b, "schema: multipleOf %g is not supported; whole numbers and powers of ten from 0.000001 are", n->multiple);
	}
	if (isinf(n->lo) && isinf(n->hi)) {
		struct ast *x = ast_seq(b, ast_repeat(b, text(b, "-"), 0, 1), natural(b, 0, WHOLE_MAX));
		x = ast_seq(b, x, ast_repeat(b, ast_seq(b, text(b, "."), some_digits(b, 1, most)), 0, 1));
		struct ast *sign = ast_repeat(b, ast_alt(b, text(b, "+"), text(b, "-")), 0, 1);
		struct ast *exponent = ast_seq(b, ast_alt(b, text(b, "e"), text(b, "E")), ast_seq(b, sign, natural(b, 0, 199)));
		return n->multiple > 0 ? x : ast_seq(b, x, ast_repeat(b, exponent, 0, 1));
	}
	if (n->lo > n->hi || (n->lo == n->hi && (n->lo_open || n->hi_open)))
		return ast_never(b);
	return real_between(b, n, most);
}
