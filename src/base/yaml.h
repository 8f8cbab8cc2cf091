/* YAML documents as a tree that remembers its lines, and the quantities written in them ("40 kW", "400 Gb/s", "300G").
 *
 * A specification or a data file is maps, lists and plain scalars. Anchors, aliases, tags and second documents are refused,
 * as are duplicate keys; size and depth are bounded. Errors say file, line, what was wanted and what was found. */
#ifndef STAVE_BASE_YAML_H
#define STAVE_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum stave_yaml_kind { STAVE_YAML_SCALAR, STAVE_YAML_MAP, STAVE_YAML_LIST };
struct stave_yaml {
	enum stave_yaml_kind kind;
	int line;                 /* of its key, in a map */
	const char *file;         /* as named to the reader, for errors */
	const char *key;          /* in a map, else NULL */
	const char *text;         /* of a scalar */
	struct stave_yaml *child; /* (n) of a map or list */
	int n;
};

/* The tree and all its strings are one allocation each; free with stave_yaml_free. `what` names the text in errors. */
int stave_yaml_parse(struct stave_yaml **out, const char *text, size_t n, const char *what, struct stave_err *err);
int stave_yaml_load(struct stave_yaml **out, const char *path, struct stave_err *err);
void stave_yaml_free(struct stave_yaml *root);

/* Child of a map, NULL when absent (or when `map` is NULL). */
struct stave_yaml *stave_yaml_get(struct stave_yaml *map, const char *key);
/* STAVE_ECONFIG "file:line: …" about a node. */
__attribute__((format(printf, 3, 4))) int stave_yaml_error(const struct stave_yaml *at, struct stave_err *err, const char *fmt, ...);
/* A map whose keys are all among `keys`; else an error that names the nearest one. */
int stave_yaml_keys(const struct stave_yaml *map, const char *const *keys, size_t n, struct stave_err *err);
/* The tree below a node in one line of flow style, so that reading it gives the same tree; comments are not known to it. */
void stave_yaml_write(const struct stave_yaml *n, FILE *to);

/* What a quantity measures; each has one unit inside the program. Written without a unit a number is an error for all but NUMBER and
 * COUNT; a wrong unit is an error that says which are right. */
enum stave_dimension {
	STAVE_NUMBER,    /* plain real */
	STAVE_COUNT,     /* whole number up to 2^53; suffixes k M G T P (powers of 1000) */
	STAVE_SHARE,     /* "80 %" or 0.8 */
	STAVE_BYTES,     /* B kB MB GB TB PB, KiB MiB GiB TiB PiB */
	STAVE_BYTE_RATE, /* GB/s …, also Gb/s (bits) */
	STAVE_FLOP_RATE, /* FLOP/s: TFLOP/s, PFLOP/s, TOP/s, "TFLOPS" */
	STAVE_SECONDS,   /* us ms s min h d w mo (365.25/12 d) y (365.25 d) */
	STAVE_WATTS,     /* W kW MW GW */
	STAVE_JOULES,    /* J kJ MJ, Wh kWh MWh GWh */
	STAVE_RATE,      /* per second: /s /min /h /d */
	STAVE_MONEY,     /* amount and ISO currency: "300 kUSD", "2.5 EUR" */
	STAVE_MONEY_PER_JOULE,   /* "0.11 EUR/kWh" */
	STAVE_MONEY_PER_SECOND,  /* "2.5 USD/h" */
	STAVE_KG_PER_JOULE,      /* "350 g/kWh" */
	STAVE_LITRE_PER_JOULE,   /* "1.8 L/kWh" */
	STAVE_KILOGRAMS, /* g kg t */
	STAVE_DATE,      /* 2027-06-30, as days since 1970-01-01 */
	STAVE_DIMENSIONS
};
/* Value of a scalar node in the unit of its dimension (B, B/s, flop/s, s, W, J, 1/s, money of `currency` …), finite and within
 * [min, max]. currency: out, 3 letters, for the money dimensions; else NULL. */
int stave_yaml_quantity(struct stave_yaml *node, enum stave_dimension d, double min, double max, double *out, char currency[4], struct stave_err *err);
/* The same number for a reader: "3.35 TB/s", "20 w", "2.5 USD/h", in the largest unit that leaves 1 or more. Returns buf. */
const char *stave_quantity_text(char *buf, size_t size, enum stave_dimension d, double value, const char *currency);
int stave_yaml_bool(struct stave_yaml *node, bool *out, struct stave_err *err);
/* Index among words. */
int stave_yaml_choice(struct stave_yaml *node, const char *const *words, size_t n, int *out, struct stave_err *err);

#endif
