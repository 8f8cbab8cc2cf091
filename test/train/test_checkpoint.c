/* Checkpoints as files: whole or absent, verified, pruned; what damage, full disks and kills leave behind. */
#include "train/tiny.h"

#include <dirent.h>
#include <sys/stat.h>
#include <time.h>

#include "train/checkpoint.h"

/* A small model's state, every value known: value i of array k is a hash of (k, i, step). */
struct fixture {
	struct stave_layout l;
	struct stave_arena arena;
	struct checkpoint c;
	struct optimizer o;
	struct checkpoint_policy policy;
	float *p;
	char loader[40];
};

static void set_values(struct fixture *f, int64_t step)
{
	float *arrays[] = {f->c.p, f->c.m, f->c.v};
	memset(f->c.p, 0, (size_t)f->l.n * 4);
	memset(f->c.m, 0, (size_t)f->l.n * 4);
	for (int k = 0; k < 3; k++)
		for (int i = 0; i < f->l.n_params; i++) {
			const struct stave_param *p = &f->l.params[i];
			int64_t at = k == 2 ? f->o.v_at[i] : p->offset;
			for (int64_t j = 0; j < (int64_t)p->rows * p->cols; j++)
				arrays[k][at + j] = (float)stave_random_unit((uint64_t)(step * 10 + k), (uint64_t)(p->offset + j)) - 0.5f;
		}
	memset(f->loader, 0, sizeof f->loader);
	snprintf(f->loader, sizeof f->loader, "loader at %lld", (long long)step);
	f->c.state.step = step;
	f->c.state.updates = step - 1;
	f->c.state.tokens = step * 100;
	f->c.state.losses_hash = 0xfedcba9876543210u + (uint64_t)step;
	f->c.state.loss_z.v[3] = 1.0 / 3 * (double)step;
	f->c.state.loss_z.n = 5;
}

static void make(struct fixture *f, const char *out)
{
	struct stave_shape s;
	struct stave_err err = {0};
	memset(f, 0, sizeof *f);
	assert_int_equal(stave_preset(&s, "nano", 31, &err), 0);
	s.L = 2;
	assert_int_equal(stave_layout_open(&f->l, &s, &err), 0);
	assert_int_equal(stave_arena_open(&f->arena, "moments", (size_t)f->l.n * 8 + (1 << 20), &err), 0);
	assert_int_equal(optimizer_open(&f->o, &f->l, STAVE_ADAMW, &f->arena, &err), 0);
	f->p = calloc((size_t)f->l.n, sizeof *f->p);
	f->c = (struct checkpoint){.opt = &f->o, .p = f->p, .m = f->o.m, .v = f->o.v, .batches = f->loader, .batches_bytes = sizeof f->loader,
	                           .state = {.seed = 1, .batch = 2, .seq = 3}};
	f->policy = (struct checkpoint_policy){.keep = 100, .eos = -1, .bos = -1};
	snprintf(f->policy.root, sizeof f->policy.root, "%s/checkpoints", out);
	set_values(f, 0);
}

static void drop(struct fixture *f)
{
	optimizer_close(&f->o);
	stave_arena_close(&f->arena);
	stave_layout_close(&f->l);
	free(f->p);
}

/* The state is that of `step`, to the bit. */
static void check_values(struct fixture *f, int64_t step)
{
	struct fixture want;
	make(&want, "");
	set_values(&want, step);
	assert_memory_equal(f->c.p, want.c.p, (size_t)f->l.n * 4);
	assert_memory_equal(f->c.m, want.c.m, (size_t)f->l.n * 4);
	assert_memory_equal(f->c.v, want.c.v, (size_t)f->o.n_v * 4);
	assert_memory_equal(f->loader, want.loader, sizeof f->loader);
	assert_memory_equal(&f->c.state, &want.c.state, sizeof f->c.state);
	drop(&want);
}

static void write_step(struct fixture *f, int64_t step)
{
	struct stave_err err = {0};
	set_values(f, step);
	if (checkpoint_write(&f->policy, &f->c, &err))
		fail_msg("%s", err.msg);
	set_values(f, 0);
}

static void flip(const char *root, int64_t step, const char *name, long at)
{
	char path[2 * STAVE_PATH];
	snprintf(path, sizeof path, "%s/step-%lld/%s", root, (long long)step, name);
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
	int c = getc(f);
	fseek(f, -1, SEEK_CUR);
	putc(c ^ 4, f);
	fclose(f);
}

static int load_newest(struct fixture *f, bool *found)
{
	struct stave_err err = {0};
	int rc = checkpoint_load_newest(&f->policy, &f->c, found, &err);
	if (rc)
		assert_true(err.msg[0] != 0);
	return rc;
}

static void survives_the_round_trip(void **state)
{
	struct fixture f;
	char *dir = tiny_dir();
	bool found;
	make(&f, dir);
	assert_int_equal(load_newest(&f, &found), 0);
	assert_false(found);
	write_step(&f, 7);
	write_step(&f, 12);
	write_step(&f, 9); /* newest is by step, not by time */
	assert_int_equal(load_newest(&f, &found), 0);
	assert_true(found);
	check_values(&f, 12);
	write_step(&f, 12); /* over an existing one */
	assert_int_equal(load_newest(&f, &found), 0);
	drop(&f);
	stave_remove_tree(dir, NULL);
}

static void damage_is_noticed_and_passed_over(void **state)
{
	static const char *const names[] = {"model.safetensors", "optimizer.safetensors", "state.json", "config.json"};
	for (int i = 0; i < 4; i++)
		for (int where = 0; where < 2; where++) {
			struct fixture f;
			char *dir = tiny_dir(), path[2 * STAVE_PATH];
			bool found;
			make(&f, dir);
			write_step(&f, 5);
			write_step(&f, 10);
			flip(f.policy.root, 10, names[i], where ? -3 : 9);
			snprintf(path, sizeof path, "%s/step-10", f.policy.root);
			struct stave_err err = {0};
			assert_int_equal(checkpoint_verify(path, &err), STAVE_ECORRUPT);
			assert_non_null(strstr(err.msg, names[i]));
			assert_int_equal(load_newest(&f, &found), 0);
			assert_true(found);
			check_values(&f, 5);
			snprintf(path, sizeof path, "%s/step-10.corrupt", f.policy.root); /* evidence is kept */
			assert_true(stave_exists(path));
			write_step(&f, 10); /* and the step can be written again */
			flip(f.policy.root, 5, "model.safetensors", 100);
			flip(f.policy.root, 10, "optimizer.safetensors", 100);
			assert_int_equal(load_newest(&f, &found), STAVE_ECORRUPT);
			assert_int_equal(load_newest(&f, &found), STAVE_ECORRUPT); /* and again: never begins anew by itself */
			drop(&f);
			stave_remove_tree(dir, NULL);
		}
}

static void truncated_and_hostile_manifests(void **state)
{
	static const char *const texts[] = {
		"", "{", "[]", "{\"step\": 5}", "{\"step\": 5, \"files\": {}}",
		"{\"step\":5,\"files\":{\"config.json\":{\"bytes\":1,\"xxh64\":\"0\"},\"model.safetensors\":{},\"optimizer.safetensors\":{},\"state.json\":{}}}",
		"{\"step\":5,\"files\":{\"../../etc/passwd\":{\"bytes\":1,\"xxh64\":\"0000000000000000\"},\"config.json\":{},\"model.safetensors\":{},"
		"\"optimizer.safetensors\":{},\"state.json\":{}}}",
	};
	struct fixture f;
	char *dir = tiny_dir(), path[2 * STAVE_PATH], done[3 * STAVE_PATH];
	make(&f, dir);
	write_step(&f, 5);
	snprintf(path, sizeof path, "%s/step-5", f.policy.root);
	snprintf(done, sizeof done, "%s/DONE", path);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct stave_err err = {0};
		assert_int_equal(stave_file_write(done, texts[i], strlen(texts[i]), &err), 0);
		assert_int_equal(checkpoint_verify(path, &err), STAVE_ECORRUPT);
	}
	write_step(&f, 5);
	snprintf(done, sizeof done, "%s/optimizer.safetensors", path);
	assert_int_equal(truncate(done, 1000), 0);
	assert_int_equal(checkpoint_verify(path, NULL), STAVE_ECORRUPT);
	drop(&f);
	stave_remove_tree(dir, NULL);
}

static bool has(const struct fixture *f, const char *name)
{
	char path[2 * STAVE_PATH];
	snprintf(path, sizeof path, "%s/%s", f->policy.root, name);
	return stave_exists(path);
}

static void keeps_what_was_asked(void **state)
{
	struct fixture f;
	char *dir = tiny_dir();
	make(&f, dir);
	f.policy.keep = 2;
	f.policy.every_keep = 20;
	for (int64_t step = 5; step <= 50; step += 5)
		write_step(&f, step);
	int64_t steps[64];
	assert_int_equal(checkpoint_list(f.policy.root, steps, 64), 4); /* 50 45 40 20 */
	assert_int_equal(steps[0], 50);
	assert_int_equal(steps[1], 45);
	assert_int_equal(steps[2], 40);
	assert_int_equal(steps[3], 20);
	drop(&f);
	stave_remove_tree(dir, NULL);
}

static void leftovers_are_swept_and_others_are_not(void **state)
{
	struct fixture f;
	char *dir = tiny_dir(), path[2 * STAVE_PATH];
	const char *const names[] = {".tmp-step-3", "step-4", "step-x", "notes", "step-6.corrupt"};
	make(&f, dir);
	write_step(&f, 5);
	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof path, "%s/%s", f.policy.root, names[i]);
		mkdir(path, 0755);
	}
	assert_int_equal(checkpoint_sweep(f.policy.root, NULL), 0);
	assert_false(has(&f, ".tmp-step-3"));
	assert_false(has(&f, "step-4")); /* renamed but never finished */
	assert_true(has(&f, "step-x"));
	assert_true(has(&f, "notes"));
	assert_true(has(&f, "step-6.corrupt"));
	assert_true(has(&f, "step-5"));
	drop(&f);
	stave_remove_tree(dir, NULL);
}

static void refuses_another_run(void **state)
{
	struct fixture f;
	struct stave_err err = {0};
	char *dir = tiny_dir(), path[2 * STAVE_PATH];
	make(&f, dir);
	write_step(&f, 5);
	snprintf(path, sizeof path, "%s/step-5", f.policy.root);
	f.c.state.batch = 4;
	assert_int_equal(checkpoint_load(path, &f.c, &err), STAVE_ECONFIG);
	assert_non_null(strstr(err.msg, "train.batch"));
	f.c.state.batch = 2;
	f.c.batches_bytes--;
	assert_int_equal(checkpoint_load(path, &f.c, &err), STAVE_ECONFIG);
	drop(&f);
	stave_remove_tree(dir, NULL);
}

/* A file that may not grow beyond a limit is a disk that is full, as far as write() is concerned. */
static void full_disk_leaves_the_last_one(void **state)
{
	struct fixture f;
	char *dir = tiny_dir();
	bool found;
	struct rlimit was, small = {100000, RLIM_INFINITY};
	struct stave_err err = {0};
	make(&f, dir);
	write_step(&f, 5);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	small.rlim_max = was.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	set_values(&f, 10);
	int rc = checkpoint_write(&f.policy, &f.c, &err);
	setrlimit(RLIMIT_FSIZE, &was);
	assert_true(rc == STAVE_EIO || rc == STAVE_ENOSPACE);
	assert_non_null(strstr(err.msg, "model.safetensors"));
	assert_false(has(&f, "step-10"));
	assert_false(has(&f, ".tmp-step-10")); /* the space is given back */
	assert_int_equal(load_newest(&f, &found), 0);
	check_values(&f, 5);
	drop(&f);
	stave_remove_tree(dir, NULL);
}

/* The thread: what it writes is the state at submit, whatever the loop does meanwhile. */
static void thread_writes_the_copy(void **state)
{
	struct fixture f;
	char *dir = tiny_dir();
	bool found;
	struct stave_err err = {0};
	struct checkpointer w = {.last_step = -1};
	make(&f, dir);
	struct stave_arena plan = stave_arena_plan("staging"), staging;
	checkpointer_take(&w, &f.o, sizeof f.loader, &plan);
	assert_int_equal(stave_arena_open(&staging, "staging", plan.used, &err), 0);
	checkpointer_take(&w, &f.o, sizeof f.loader, &staging);
	assert_int_equal(staging.used, plan.used);
	w.policy = f.policy;
	assert_int_equal(checkpointer_start(&w, &err), 0);
	for (int64_t step = 1; step <= 4; step++) {
		set_values(&f, step);
		assert_int_equal(checkpointer_submit(&w, &f.c, &err), 0);
		set_values(&f, 1000);
	}
	assert_int_equal(checkpointer_wait(&w, &err), 0);
	assert_int_equal(w.last_step, 4);
	f.c.state.step = 0;
	assert_int_equal(load_newest(&f, &found), 0);
	check_values(&f, 4);
	checkpointer_stop(&w);
	stave_arena_close(&staging);
	drop(&f);
	stave_remove_tree(dir, NULL);
}

/* ---- kill -9 ---- */

static _Noreturn void writer(const char *out)
{
	struct fixture f;
	make(&f, out);
	f.policy.keep = 2;
	checkpoint_sweep(f.policy.root, NULL);
	int64_t first = 1, newest;
	if (checkpoint_newest(f.policy.root, &newest))
		first = newest + 1;
	for (int64_t step = first;; step++)
		write_step(&f, step);
}

/* A writer is killed again and again at random moments of its first three checkpoints, whose length here is known from the
 * first one: whatever lies there is whole, and the newest never gets older. */
static void kills_leave_whole_checkpoints(void **state)
{
	char *dir = tiny_dir();
	double life_s = 0;
	int64_t before = -1;
	for (int i = 0; i < 25; i++) {
		struct fixture f;
		bool found;
		double start = stave_now_s();
		make(&f, dir);
		pid_t pid = tiny_spawn((const char *const[]){"writer", dir, NULL});
		if (i == 0)
			while (!checkpoint_newest(f.policy.root, &before) && stave_now_s() < start + 100)
				usleep(1000);
		life_s = i ? life_s : stave_now_s() - start;
		usleep((useconds_t)(1e6 * life_s * (i ? 0.3 + 2.7 * stave_random_unit(3, (uint64_t)i) : 0.5)));
		kill(pid, SIGKILL);
		tiny_wait(pid);
		int64_t steps[64];
		int n = checkpoint_list(f.policy.root, steps, 64);
		for (int k = 0; k < n; k++) {
			char path[2 * STAVE_PATH];
			struct stave_err err = {0};
			snprintf(path, sizeof path, "%s/step-%lld", f.policy.root, (long long)steps[k]);
			if (checkpoint_verify(path, &err))
				fail_msg("after kill %d: %s", i, err.msg);
		}
		assert_int_equal(load_newest(&f, &found), 0);
		assert_true(found && steps[0] >= before);
		before = steps[0];
		check_values(&f, steps[0]);
		drop(&f);
	}
	assert_true(before > 1); /* not only the first */
	stave_remove_tree(dir, NULL);
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "--child"))
		writer(argv[3]);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(survives_the_round_trip),
		cmocka_unit_test(damage_is_noticed_and_passed_over),
		cmocka_unit_test(truncated_and_hostile_manifests),
		cmocka_unit_test(keeps_what_was_asked),
		cmocka_unit_test(leftovers_are_swept_and_others_are_not),
		cmocka_unit_test(refuses_another_run),
		cmocka_unit_test(full_disk_leaves_the_last_one),
		cmocka_unit_test(thread_writes_the_copy),
		cmocka_unit_test(kills_leave_whole_checkpoints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
