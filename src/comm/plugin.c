/* Finding a transport. A plugin is a shared object that exports one table, `stave_comm_plugin`, whose first field is the
 * ABI number: nothing behind it is looked at before that number is right. It is looked for in STAVE_PLUGINS alone when
 * set; else beside the program, in the two directories above it (a test's binary lies below the build directory) and in
 * ../lib/stave of an installation. RTLD_LOCAL: the program and the transport's libraries share no symbols. */
#include "comm/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"

int stave_plugin_ranks(const char **launcher)
{
	/* SLURM_NTASKS would also be set for a plain command in a batch script; the step's variable only under srun. */
	static const char *const vars[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
	for (size_t i = 0; i < sizeof vars / sizeof *vars; i++) {
		const char *e = getenv(vars[i]);
		long n = e ? strtol(e, NULL, 10) : 0;
		if (n > 1 && n <= 1 << 24) {
			*launcher = vars[i];
			return (int)n;
		}
	}
	*launcher = "no launcher";
	return 1;
}

/* Directories to look in, colon-separated. */
static void search_path(struct stave_buf *b)
{
	char exe[STAVE_PATH];
	const char *set = getenv("STAVE_PLUGINS");
	if (set && *set) {
		stave_buf_printf(b, "%s", set);
		return;
	}
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	exe[n > 0 ? n : 0] = 0;
	for (int up = 0; up < 3; up++) {
		char *slash = strrchr(exe, '/');
		if (!slash || slash == exe)
			break;
		*slash = 0;
		stave_buf_printf(b, "%s%s", up ? ":" : "", exe);
		if (up == 0)
			stave_buf_printf(b, ":%s/../lib/stave", exe);
	}
}

static int load(const char *file, const struct stave_comm_ops **ops, void **handle, struct stave_err *err)
{
	void *h = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!h)
		return stave_err_set(err, STAVE_EPEER, "%s cannot be loaded: %s", file, dlerror());
	const struct stave_comm_ops *o = dlsym(h, "stave_comm_plugin");
	if (!o) {
		dlclose(h);
		return stave_err_set(err, STAVE_EPEER, "%s is not a stave plugin: it exports no stave_comm_plugin", file);
	}
	if (o->abi != STAVE_COMM_ABI) {
		stave_err_set(err, STAVE_EPEER, "%s was built for plugin ABI %d, this program has %d: build both from the same "
		              "source (make)", file, o->abi, STAVE_COMM_ABI);
		dlclose(h);
		return STAVE_EPEER;
	}
	*ops = o;
	*handle = h;
	return 0;
}

int stave_plugin_open(const char *name, const char *why_wanted, const struct stave_comm_ops **ops, void **handle, struct stave_err *err)
{
	struct stave_buf path = {0};
	char file[STAVE_PATH];
	search_path(&path);
	stave_buf_reserve(&path, 1);
	char *copy = strdup(path.p ? path.p : ""), *rest = copy;
	int rc = copy ? 1 : stave_err_set(err, STAVE_ENOMEM, "no memory for the plugin path");
	for (char *dir; rc == 1 && (dir = strsep(&rest, ":"));) {
		int n = snprintf(file, sizeof file, "%s/stave-%s.so", dir, name);
		if (n < (int)sizeof file && *dir && access(file, F_OK) == 0)
			rc = load(file, ops, handle, err);
	}
	if (rc == 1)
		rc = stave_err_set(err, STAVE_EPEER, "%s, but the plugin stave-%s.so is in none of %s: build it with `make` (needs "
		                   "libopenmpi-dev), or name its directory in STAVE_PLUGINS", why_wanted, name, path.p ? path.p : "");
	free(copy);
	stave_buf_free(&path);
	return rc;
}
