/* The machine profile as a file. One JSON document, written whole by `stave bench machine` and checked in full here before
 * a number of it is used: people copy profiles between machines and edit them by hand, and a rate of 0, NaN or -1 would
 * otherwise come back as a forecast of infinity. Scalars are one table, from which reading, writing and checking derive. */
#include "cost/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"

#define PROFILE_VERSION 1
#define PROFILE_MAX_BYTES ((size_t)1 << 20)

/* A positive real of the profile; `optional` ones may be 0, which says that the machine has no such thing. */
struct scalar {
	const char *key;
	size_t offset;
	bool optional;
};
static const struct scalar scalars[] = {
	{"peak_f32_flop_s", offsetof(struct stave_machine, peak_f32), false},
	{"peak_bf16_flop_s", offsetof(struct stave_machine, peak_bf16), true},
	{"peak_i8_op_s", offsetof(struct stave_machine, peak_i8), true},
	{"read_bytes_s", offsetof(struct stave_machine, read_bytes_s), false},
	{"copy_bytes_s", offsetof(struct stave_machine, copy_bytes_s), false},
	{"touch_s_per_page", offsetof(struct stave_machine, touch_s_per_page), false},
	{"disk_write_bytes_s", offsetof(struct stave_machine, disk_write_bytes_s), true},
	{"disk_read_bytes_s", offsetof(struct stave_machine, disk_read_bytes_s), true},
	{"call_s", offsetof(struct stave_machine, call_s), false},
};
#define N_SCALARS (sizeof scalars / sizeof *scalars)

static const char *const pass_names[] = {"forward", "dgrad", "wgrad", "update"};

static int default_path(char out[STAVE_PATH], struct stave_err *err)
{
	const char *direct = getenv("STAVE_MACHINE"), *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	int n;
	if (direct && *direct)
		n = snprintf(out, STAVE_PATH, "%s", direct);
	else if (xdg && *xdg)
		n = snprintf(out, STAVE_PATH, "%s/stave/machine.json", xdg);
	else if (home && *home)
		n = snprintf(out, STAVE_PATH, "%s/.config/stave/machine.json", home);
	else
		return stave_err_set(err, STAVE_EUSAGE, "machine profile: none of STAVE_MACHINE, XDG_CONFIG_HOME and HOME is set; name a path");
	if (n < 0 || n >= STAVE_PATH)
		return stave_err_set(err, STAVE_EUSAGE, "machine profile: its path is longer than %d bytes", STAVE_PATH - 1);
	return 0;
}

int stave_machine_path(char out[STAVE_PATH], const char *path_or_null, struct stave_err *err)
{
	if (!path_or_null)
		return default_path(out, err);
	if (snprintf(out, STAVE_PATH, "%s", path_or_null) >= STAVE_PATH)
		return stave_err_set(err, STAVE_EUSAGE, "machine profile: its path is longer than %d bytes", STAVE_PATH - 1);
	return 0;
}

/* ---- reading ---- */

static int read_text(const json_t *o, const char *key, char *out, size_t size, const char *what, struct stave_err *err)
{
	const char *s = stave_json_str(o, key, NULL);
	if (!s || !*s || strlen(s) >= size)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: \"%s\" must be a text of 1 to %zu bytes", what, key, size - 1);
	memcpy(out, s, strlen(s) + 1);
	return 0;
}

static int read_count(const json_t *o, const char *key, int64_t max, int64_t *out, const char *what, struct stave_err *err)
{
	int rc = stave_json_int(o, key, 0, 0, max, out, what, err);
	if (rc)
		return rc;
	if (*out < 1)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: \"%s\" must be 1 to %lld", what, key, (long long)max);
	return 0;
}

static int read_positive(const json_t *o, const char *key, bool optional, double *out, const char *what, struct stave_err *err)
{
	int rc = stave_json_real(o, key, 0, out, what, err);
	if (rc)
		return rc;
	/* above 1e24 of anything per second it is not a machine, and sums of such numbers overflow */
	if (!isfinite(*out) || *out < 0 || *out > 1e24 || (*out > 0 && *out < 1e-15) || (*out == 0 && !optional))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: \"%s\" is %g; expected a positive rate", what, key, *out);
	return 0;
}

static int read_pass(const json_t *o, enum stave_pass *out, const char *what, struct stave_err *err)
{
	const char *s = stave_json_str(o, "pass", "");
	for (size_t i = 0; i < sizeof pass_names / sizeof *pass_names; i++)
		if (!strcmp(s, pass_names[i])) {
			*out = (enum stave_pass)i;
			return 0;
		}
	return stave_err_set(err, STAVE_ECORRUPT, "%s: \"pass\" is \"%.40s\"; expected forward, dgrad, wgrad or update", what, s);
}

static int read_dtype(const json_t *o, enum stave_dtype *out, const char *what, struct stave_err *err)
{
	const char *s = stave_json_str(o, "dtype", "");
	for (int i = 0; i < STAVE_DTYPE_COUNT; i++)
		if (!strcmp(s, stave_dtype_name((enum stave_dtype)i))) {
			*out = (enum stave_dtype)i;
			return 0;
		}
	return stave_err_set(err, STAVE_ECORRUPT, "%s: \"dtype\" is \"%.40s\"; expected F32, BF16, I8 …", what, s);
}

static int read_rate(const json_t *o, struct stave_rate *r, const char *what, struct stave_err *err)
{
	int rc;
	if (!json_is_object(o))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: expected an object", what);
	if ((rc = read_text(o, "what", r->what, sizeof r->what, what, err)) || (rc = read_pass(o, &r->pass, what, err)) ||
	    (rc = read_dtype(o, &r->dtype, what, err)) || (rc = read_count(o, "m", (int64_t)1 << 40, &r->m, what, err)) ||
	    (rc = read_count(o, "n", (int64_t)1 << 40, &r->n, what, err)) || (rc = read_count(o, "k", (int64_t)1 << 40, &r->k, what, err)))
		return rc;
	return read_positive(o, "per_s", false, &r->per_s, what, err);
}

static int read_rates(const json_t *o, struct stave_machine *m, const char *what, struct stave_err *err)
{
	const json_t *list = json_object_get(o, "rates");
	if (!json_is_array(list) || json_array_size(list) > STAVE_RATES_MAX)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: \"rates\" must be a list of at most %d samples", what, STAVE_RATES_MAX);
	for (size_t i = 0; i < json_array_size(list); i++) {
		char where[STAVE_PATH + 32];
		snprintf(where, sizeof where, "%s: rates[%zu]", what, i);
		int rc = read_rate(json_array_get(list, i), &m->rates[i], where, err);
		if (rc)
			return rc;
	}
	m->n_rates = (int)json_array_size(list);
	return 0;
}

/* Into *m, which is only valid when 0 is returned. */
static int read_profile(const json_t *o, struct stave_machine *m, const char *what, struct stave_err *err)
{
	int rc;
	int64_t version, cores, threads;
	if (!json_is_object(o))
		return stave_err_set(err, STAVE_ECORRUPT, "%s: a machine profile is a JSON object", what);
	if ((rc = stave_json_int(o, "stave_machine", 0, 0, 1000, &version, what, err)))
		return rc;
	if (version != PROFILE_VERSION)
		return stave_err_set(err, STAVE_ECORRUPT, "%s: \"stave_machine\" is %lld; this program reads version %d: run `stave bench machine` again",
		                     what, (long long)version, PROFILE_VERSION);
	if ((rc = read_text(o, "cpu", m->cpu, sizeof m->cpu, what, err)) || (rc = read_text(o, "level", m->level, sizeof m->level, what, err)) ||
	    (rc = read_count(o, "cores", 1 << 20, &cores, what, err)) || (rc = read_count(o, "threads", 1 << 20, &threads, what, err)) ||
	    (rc = read_count(o, "memory_bytes", (int64_t)1 << 60, &m->memory_bytes, what, err)))
		return rc;
	m->cores = (int)cores;
	m->threads = (int)threads;
	for (size_t i = 0; i < N_SCALARS; i++)
		if ((rc = read_positive(o, scalars[i].key, scalars[i].optional, (double *)((char *)m + scalars[i].offset), what, err)))
			return rc;
	return read_rates(o, m, what, err);
}

int stave_machine_parse(struct stave_machine *m, const char *text, size_t n, const char *what, struct stave_err *err)
{
	json_t *o;
	int rc = stave_json_parse(&o, text, n, what, err);
	if (rc)
		return rc;
	struct stave_machine *read = calloc(1, sizeof *read);
	if (!read)
		rc = stave_err_set(err, STAVE_ENOMEM, "%s: out of memory", what);
	else if (!(rc = read_profile(o, read, what, err)))
		*m = *read;
	free(read);
	json_decref(o);
	return rc;
}

int stave_machine_load(struct stave_machine *m, const char *path_or_null, struct stave_err *err)
{
	char path[STAVE_PATH];
	struct stave_buf text = {0};
	int rc = stave_machine_path(path, path_or_null, err);
	if (!rc)
		rc = stave_file_read(&text, path, PROFILE_MAX_BYTES, err);
	if (!rc)
		rc = stave_machine_parse(m, text.p, text.len, path, err);
	stave_buf_free(&text);
	return rc;
}

/* ---- writing ---- */

json_t *stave_machine_json(const struct stave_machine *m)
{
	json_t *o = json_pack("{s:i, s:s, s:s, s:i, s:i, s:I}", "stave_machine", PROFILE_VERSION, "cpu", m->cpu, "level", m->level, "cores",
	                      m->cores, "threads", m->threads, "memory_bytes", (json_int_t)m->memory_bytes);
	json_t *list = json_array();
	for (size_t i = 0; i < N_SCALARS; i++)
		json_object_set_new(o, scalars[i].key, json_real(*(const double *)((const char *)m + scalars[i].offset)));
	for (int i = 0; i < m->n_rates; i++) {
		const struct stave_rate *r = &m->rates[i];
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:f}", "what", r->what, "pass", pass_names[r->pass],
		                                      "dtype", stave_dtype_name(r->dtype), "m", (json_int_t)r->m, "n",
		                                      (json_int_t)r->n, "k", (json_int_t)r->k, "per_s", r->per_s));
	}
	json_object_set_new(o, "rates", list);
	return o;
}

int stave_machine_place(char out[STAVE_PATH], const char *path_or_null, struct stave_err *err)
{
	char dir[STAVE_PATH];
	int rc = stave_machine_path(out, path_or_null, err);
	if (rc)
		return rc;
	memcpy(dir, out, sizeof dir);
	char *slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = 0;
	return stave_mkdirs(dir, err);
}

int stave_machine_save(const struct stave_machine *m, const char *path_or_null, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = stave_machine_place(path, path_or_null, err);
	if (rc)
		return rc;
	json_t *o = stave_machine_json(m);
	if (!o)
		return stave_err_set(err, STAVE_EFAIL, "machine profile: the processor name \"%s\" is not UTF-8", m->cpu);
	rc = stave_json_save(o, path, err);
	json_decref(o);
	return rc;
}
