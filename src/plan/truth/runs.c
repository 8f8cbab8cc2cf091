/* Measured runs for calibration. A stave run directory says in plan.json what was trained and how, and in receipt.json how long a step took; that becomes one row
 * of the same schema that tables have, so that one reader makes all of them regular. */
#include "plan/truth/runs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/json.h"

enum { FILE_MAX = 64 << 20 };
#define RUNS "stave runs" /* group of the rows that come from directories */

static int load(json_t **out, const char *dir, const char *name, struct stave_err *err)
{
	char path[STAVE_PATH];
	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
		return stave_err_set(err, STAVE_EUSAGE, "%s: the path is too long", dir);
	return stave_json_load(out, path, FILE_MAX, err);
}

static json_t *of(const json_t *o, const char *map, const char *key)
{
	json_t *v = json_object_get(json_object_get(o, map), key);
	return json_is_number(v) ? json_incref(v) : json_null();
}

static json_t *row_of(const char *dir, const json_t *plan, const json_t *receipt, const char *accelerator, const char *stack)
{
	json_t *micro = of(plan, "batch", "micro_batch"), *ranks = of(plan, "batch", "ranks");
	json_t *model = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:O?}", "name", dir, "layers", of(plan, "shape", "layers"), "hidden", of(plan, "shape", "channels"), "ffn",
	                          of(plan, "shape", "ff"), "heads", of(plan, "shape", "heads"), "kv_heads", of(plan, "shape", "kv_heads"), "vocab", of(plan, "shape", "vocab"), "seq",
	                          of(plan, "batch", "seq"), "params", json_object_get(plan, "parameters"));
	json_t *parallel = json_pack("{s:i, s:i, s:O, s:s, s:O, s:o, s:O?}", "tp", 1, "pp", 1, "dp", ranks, "recompute", "none", "microbatch", micro, "global_batch",
	                             of(plan, "batch", "rows"), "precision", json_object_get(plan, "dtype"));
	json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:{s:s, s:o, s:i}, s:o, s:{s:o}}", "id", dir, "kind", "train", "group", RUNS, "tier", "A", "source", dir, "notes", stack,
	                        "model", model, "hardware", "gpu", accelerator, "gpus", ranks, "gpus_per_node", 1, "parallel", parallel, "measured", "step_time_s",
	                        of(receipt, "seconds_per_step", "step"));
	json_decref(micro);
	return row;
}

static int run_row(json_t *rows, const char *dir, const char *accelerator, const char *stack, struct stave_err *err)
{
	json_t *plan, *receipt;
	int rc = load(&plan, dir, "plan.json", err);
	if (rc)
		return rc;
	if ((rc = load(&receipt, dir, "receipt.json", err))) {
		json_decref(plan);
		return rc;
	}
	json_t *row = row_of(dir, plan, receipt, accelerator, stack);
	if (!row || !(json_number_value(json_object_get(json_object_get(row, "measured"), "step_time_s")) > 0))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s: no run of stave train that finished a step", dir);
	else
		json_array_append(rows, row);
	json_decref(row);
	json_decref(receipt);
	json_decref(plan);
	return rc;
}

static int table_rows(json_t *rows, const char *path, struct stave_err *err)
{
	json_t *document;
	int rc = stave_json_load(&document, path, FILE_MAX, err);
	if (rc)
		return rc;
	json_t *list = json_is_object(document) ? json_object_get(document, "rows") : document;
	if (!json_is_array(list))
		rc = stave_err_set(err, STAVE_ECORRUPT, "%s: expected a JSON array of measured runs, or a directory that stave train wrote", path);
	else
		json_array_extend(rows, list);
	json_decref(document);
	return rc;
}

int plan_runs_load(struct plan_truths *out, const struct plan_catalog *c, const char *const *path, int n, const char *accelerator, const char *stack, struct stave_err *err)
{
	json_t *rows = json_array();
	int rc = rows ? 0 : stave_err_set(err, STAVE_ENOMEM, "out of memory for runs");
	for (int i = 0; i < n && !rc; i++) {
		struct stat st;
		bool dir = !stat(path[i], &st) && S_ISDIR(st.st_mode);
		rc = dir ? run_row(rows, path[i], accelerator, stack, err) : table_rows(rows, path[i], err);
	}
	if (rc) {
		json_decref(rows);
		return rc;
	}
	if (!(rc = plan_truths_of(out, c, rows, "runs", err)))
		for (int i = 0; i < out->n; i++)
			if (!strcmp(out->row[i].group, RUNS)) /* said by the user, not guessed from words */
				out->row[i].stack = stack;
	return rc;
}
