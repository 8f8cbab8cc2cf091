/* Configuration: one table of keys per verb, from which parsing, validation, --help, the dump of the resolved values
 * and the docs derive. Precedence: flag > STAVE_* environment > YAML file > default. A misspelt key is an error that
 * names the nearest one. */
#ifndef STAVE_BASE_CONFIG_H
#define STAVE_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* The C type of the field at `offset`. */
enum stave_key_type {
	STAVE_KEY_BOOL,   /* bool */
	STAVE_KEY_INT,    /* int64_t; accepts suffixes k M G (powers of 1000) */
	STAVE_KEY_REAL,   /* double */
	STAVE_KEY_STR,    /* char *, owned by the config; NULL when the default is NULL */
	STAVE_KEY_CHOICE, /* int: index into `choices`, words separated by '|' */
};

struct stave_key {
	const char *name; /* dotted, e.g. "train.lr"; a flag is "--" + name, the environment STAVE_TRAIN_LR */
	enum stave_key_type type;
	size_t offset;    /* into the target struct */
	const char *def;  /* default, as text; NULL: no value (only STR) */
	double min, max;  /* for INT and REAL; min == max == 0: any finite value */
	const char *choices;
	const char *doc;  /* one line; says the unit */
};

struct stave_config {
	const struct stave_key *keys;
	size_t n;
	void *target;
	unsigned char *source; /* per key: 0 default, 1 file, 2 environment, 3 flag */
};

/* Fill target with defaults. Free with stave_config_close (frees the strings too). */
int stave_config_open(struct stave_config *c, const struct stave_key *keys, size_t n, void *target, struct stave_err *err);
void stave_config_close(struct stave_config *c);
/* Nested maps of a YAML file become dotted keys; a sequence, an alias or an anchor is an error with its line. */
int stave_config_yaml(struct stave_config *c, const char *path, struct stave_err *err);
int stave_config_env(struct stave_config *c, struct stave_err *err);
/* One value; `where` is shown in errors ("--train.lr", "run.yaml:12"); source 1..3 as above; a lower source than the
 * value's present one is ignored. */
int stave_config_set(struct stave_config *c, const char *name, const char *value, const char *where, int source, struct stave_err *err);
/* Parse argv[1..): flags ("--key value", "--key=value", bools also "--key" and "--no-key") into c, then environment;
 * the rest into positional[0..*n_positional). `yaml_positional`: a positional ending in .yaml or .yml is read as the
 * file. "-h"/"--help" sets *help. */
int stave_config_args(struct stave_config *c, int argc, char **argv, bool yaml_positional, const char **positional,
                      int max_positional, int *n_positional, bool *help, struct stave_err *err);
/* Resolved values as YAML with nested maps, and the help table. */
void stave_config_dump(const struct stave_config *c, FILE *to);
void stave_config_help(const struct stave_config *c, FILE *to);

/* The word of `words` (n of them) nearest to `name` by edit distance, or NULL when none is close. */
const char *stave_nearest(const char *name, const char *const *words, size_t n);

#endif
