/* plan/: from model and machines to time, power and money. A specification says what is wanted (train, fine-tune, serve) and what there is
 * (sites with nodes, network, storage, power, prices); the plan says how long, how much and what it costs, with its error, and names the shortest stave.
 *
 *   stave_plan_open        read SPEC.yaml and compute; STAVE_ECONFIG (file:line) for a bad one, STAVE_ENOFIT with the binding constraint
 *   stave_plan_text …      the result: one screen, JSON, CSV, HTML
 *   stave_plan_simulate    the same specification as a fleet over time
 *   stave_plan_validate    predict measured runs, and say how far off
 *   stave_plan_calibrate   fit the constants of an accelerator and its software to measured runs
 *   stave_plan_catalog     what is known about hardware, with sources and dates
 *
 * Everything is deterministic: same specification, catalog and seed, same bytes. */
#ifndef STAVE_PLAN_H
#define STAVE_PLAN_H

#include <jansson.h>
#include <stdio.h>

#include "base/err.h"
#include "cost/cost.h"

/* The shape of the model in a directory or file `ref` (Hugging Face directory, GGUF); given by the caller, since plan/ knows no model files. */
typedef int stave_plan_shape_of(const char *ref, struct stave_shape *out, struct stave_err *err);
struct stave_plan_options {
	const char *catalog;            /* directory whose files add to the built-in ones and replace namesakes, or NULL */
	stave_plan_shape_of *shape_of;
};

struct stave_plan;
int stave_plan_open(struct stave_plan **out, const char *spec, const struct stave_plan_options *o, struct stave_err *err);
void stave_plan_close(struct stave_plan *p);
void stave_plan_text(const struct stave_plan *p, FILE *to);
json_t *stave_plan_json(const struct stave_plan *p);
void stave_plan_csv(const struct stave_plan *p, FILE *to);
/* One page without scripts from elsewhere, images or network. */
void stave_plan_html(const struct stave_plan *p, FILE *to);

enum stave_plan_form { STAVE_PLAN_TEXT, STAVE_PLAN_JSON, STAVE_PLAN_CSV };
/* Each writes its result to `to`. */
int stave_plan_simulate(const char *spec, const struct stave_plan_options *o, enum stave_plan_form form, FILE *to, struct stave_err *err);
int stave_plan_validate(const char *truth, const struct stave_plan_options *o, enum stave_plan_form form, FILE *to, struct stave_err *err);
/* runs: tables in the schema of validate, or stave run directories, all of one accelerator and stack. The fit is written as YAML that --catalog reads. */
int stave_plan_calibrate(const char *const *runs, int n, const char *accelerator, const char *stack, const struct stave_plan_options *o, FILE *to,
                         struct stave_err *err);
/* name NULL: everything; a kind ("node"): its table; else all facts of one thing. */
int stave_plan_catalog(const char *name, const struct stave_plan_options *o, enum stave_plan_form form, FILE *to, struct stave_err *err);
/* The keys of a specification, by map, with units and defaults. */
void stave_plan_keys(FILE *to);

#endif
