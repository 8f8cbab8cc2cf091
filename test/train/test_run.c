/* The whole loop on a tiny model: what must not change what is learnt, and what must stop it. */
#include "train/tiny.h"

#include <dirent.h>

#include "base/json.h"
#include "train/checkpoint.h"
#include "train/near.h"
#include "train/trainer.h"

static struct stave_train_result result;
static struct stave_err err;

static void must(int rc)
{
	if (rc)
		fail_msg("%d: %s", rc, err.msg);
}

static void it_learns(void **state)
{
	static const char *const ways[][2] = {{"gpt2-124m", "adamw"}, {"gpt2-124m", "muon"}, {"llama-124m", "muon"}, {"qwen3-124m", "adamw"}};
	for (int i = 0; i < 4; i++) {
		struct tiny t = {0};
		char *dir = tiny_dir(), path[2 * STAVE_PATH];
		must(TINY(&t, dir, &result, &err, "model", ways[i][0], "train.optimizer", ways[i][1], "shape.kv_heads", i < 2 ? "2" : "1", "train.steps", "100",
		          "train.batch", "8"));
		assert_int_equal(t.n_steps, 100);
		assert_near(t.steps[0].loss, log(TINY_V), 0.05); /* small initial weights know nothing */
		assert_true(t.eval.val_loss < 0.7 * log(TINY_V)); /* the first tokens of a row cannot be foreseen */
		assert_int_equal(t.eval.step, 100);
		assert_int_equal(result.steps_done, 100);
		assert_int_equal(t.fills, 100 + 2);
		const char *const made[] = {"config.json", "model.safetensors", "checkpoints/step-100/DONE", "runs"};
		for (int k = 0; k < 4; k++) {
			snprintf(path, sizeof path, "%s/%s", dir, made[k]);
			assert_true(stave_exists(path));
		}
		stave_remove_tree(dir, NULL);
	}
}

static void planned_memory_is_allocated_memory(void **state)
{
	static const char *const optimizers[] = {"adamw", "muon"};
	for (int i = 0; i < 2; i++) {
		struct tiny t = {0};
		char *dir = tiny_dir();
		must(TINY(&t, dir, &result, &err, "train.steps", "2", "train.optimizer", optimizers[i], "train.micro_batch", "4"));
		assert_near(result.planned_bytes, result.allocated_bytes, 0);
		assert_true(result.planned_bytes > 0);
		stave_remove_tree(dir, NULL);
	}
}

extern void __asan_init(void) __attribute__((weak)); /* there in a sanitized build only */

/* What the kernel counts against what the plan said, of a process of its own: what earlier tests left behind is no run's. The
 * program's own reading (at the end) and the kernel's highest mark (ru_maxrss) must both be within 5 % of the plan. */
static void resident_memory_is_the_plan(void **state)
{
	static const char *const ways[][8] = {
		{"adamw", "train.dtype", "f32", "checkpoint.every", "2"},
		{"muon", "train.dtype", "auto", "checkpoint.every", "0"},
	};
	if (__asan_init) {
		print_message("skipped: the sanitizers' shadow is resident memory too\n");
		skip();
	}
	for (int i = 0; i < 2; i++) {
		char *dir = tiny_dir(), path[2 * STAVE_PATH];
		double planned, resident, arenas;
		struct rusage used;
		json_t *j;
		int status;
		pid_t pid = tiny_spawn((const char *const[]){"0", "0", dir, "shape.layers", "6", "shape.heads", "4", "shape.channels", "256", "shape.context", "128",
		                                            "train.seq", "128", "train.batch", "16", "train.micro_batch", "16", "train.steps", "4", "train.optimizer", ways[i][0],
		                                            ways[i][1], ways[i][2], ways[i][3], ways[i][4], NULL});
		assert_int_equal(wait4(pid, &status, 0, &used), pid);
		assert_int_equal(status, 0);
		snprintf(path, sizeof path, "%s/runs%s/receipt.json", dir, strrchr(dir, '/'));
		must(stave_json_load(&j, path, 1 << 20, &err));
		const json_t *memory = json_object_get(j, "memory");
		must(stave_json_real(memory, "planned_resident_bytes", 0, &planned, path, &err));
		must(stave_json_real(memory, "resident_bytes", 0, &resident, path, &err));
		must(stave_json_real(memory, "planned_bytes", 0, &arenas, path, &err));
		json_decref(j);
		print_message("%s: arenas %.1f MB, planned %.1f, resident %.1f, highest %.1f\n", ways[i][0], arenas / 1e6, planned / 1e6, resident / 1e6,
		              (double)used.ru_maxrss * 1024 / 1e6);
		assert_true(arenas > 100e6);
		assert_near(resident, planned, 0.05 * planned);
		assert_near((double)used.ru_maxrss * 1024, planned, 0.05 * planned);
		stave_remove_tree(dir, NULL);
	}
}

/* The unmasked tokens of rows differ, so a mean of means would be seen at once. */
static void accumulation_is_the_same_step(void **state)
{
	static const char *const micro[] = {"6", "1", "2", "4"}; /* 4 leaves a micro-batch that is not full */
	struct tiny first = {0};
	for (int i = 0; i < 4; i++) {
		struct tiny t = {0};
		char *dir = tiny_dir();
		must(TINY(&t, dir, &result, &err, "train.micro_batch", micro[i], "train.steps", "10"));
		if (!i)
			first = t;
		for (int k = 0; k < t.n_steps; k++) {
			assert_near(t.steps[k].loss, first.steps[k].loss, 2e-4);
			assert_near(t.steps[k].grad_norm, first.steps[k].grad_norm, 2e-3 * first.steps[k].grad_norm);
		}
		assert_near(t.eval.val_loss, first.eval.val_loss, 2e-4);
		stave_remove_tree(dir, NULL);
	}
}

static uint64_t undisturbed(const char *optimizer)
{
	struct tiny t = {0};
	char *dir = tiny_dir();
	must(TINY(&t, dir, &result, &err, "train.optimizer", optimizer, "train.spike_z", "6"));
	uint64_t h = tiny_file_hash(dir, "model.safetensors");
	stave_remove_tree(dir, NULL);
	return h;
}

static void resume_is_bit_exact(void **state)
{
	static const char *const optimizers[] = {"adamw", "muon"};
	for (int i = 0; i < 2; i++) {
		uint64_t want = undisturbed(optimizers[i]), losses = result.losses_hash;
		char *dir = tiny_dir();
		int status = TINY_CHILD("12", "0", dir, "train.optimizer", optimizers[i], "train.spike_z", "6");
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		struct tiny t = {0};
		must(TINY(&t, dir, &result, &err, "train.optimizer", optimizers[i], "train.spike_z", "6"));
		assert_true(result.first_step == 5 || result.first_step == 10);
		assert_int_equal(tiny_file_hash(dir, "model.safetensors"), want);
		assert_int_equal(result.losses_hash, losses);
		struct tiny again = {0}; /* finished: nothing is trained, the model stays */
		must(TINY(&again, dir, &result, &err, "train.optimizer", optimizers[i], "train.spike_z", "6"));
		assert_int_equal(again.n_steps, 0);
		assert_int_equal(tiny_file_hash(dir, "model.safetensors"), want);
		stave_remove_tree(dir, NULL);
	}
}

static void sigterm_checkpoints_and_asks_to_be_requeued(void **state)
{
	uint64_t want = undisturbed("adamw");
	char *dir = tiny_dir();
	int status = TINY_CHILD("0", "7", dir, "checkpoint.every", "0", "train.spike_z", "6");
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 75);
	struct tiny t = {0};
	must(TINY(&t, dir, &result, &err, "checkpoint.every", "0", "train.spike_z", "6"));
	assert_int_equal(result.first_step, 9); /* it came after step 7 had agreed to go on */
	assert_int_equal(tiny_file_hash(dir, "model.safetensors"), want);
	stave_remove_tree(dir, NULL);
}

/* Killed at random moments of its life until it gets through: the weights are those of the run that was left alone. How
 * long a life is, is measured first, so that kills fall everywhere in it on a slow machine too. */
static void random_kills(void **state)
{
	uint64_t want = undisturbed("adamw");
	char *dir = tiny_dir();
	const char *const args[] = {"0", "0", dir, "checkpoint.every", "1", "train.spike_z", "6", NULL};
	double start = stave_now_s();
	int killed = 0, status = tiny_wait(tiny_spawn(args));
	double life_s = stave_now_s() - start;
	assert_int_equal(status, 0);
	const char *kills = getenv("STAVE_KILLS"); /* the long check asks for 50 */
	for (int i = 0; killed < (kills ? atoi(kills) : 6);) {
		stave_remove_tree(dir, NULL);
		assert_int_equal(stave_mkdirs(dir, &err), 0);
		status = -1;
		for (int lives = 0; status && lives < 20; lives++) {
			pid_t pid = tiny_spawn(args);
			if (lives < 12) {
				usleep((useconds_t)(1e6 * life_s * (0.3 + 0.6 * stave_random_unit(9, (uint64_t)i++))));
				kill(pid, SIGKILL);
			}
			status = tiny_wait(pid);
			killed += WIFSIGNALED(status);
		}
		assert_int_equal(status, 0);
		assert_int_equal(tiny_file_hash(dir, "model.safetensors"), want);
	}
	stave_remove_tree(dir, NULL);
}

static void full_disk_stops_the_run(void **state)
{
	char *dir = tiny_dir();
	struct tiny t = {0};
	struct rlimit was, small;
	must(TINY(&t, dir, &result, &err, "train.steps", "10"));
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	small = was;
	small.rlim_cur = 20000;
	setrlimit(RLIMIT_FSIZE, &small);
	int rc = TINY(&t, dir, &result, &err, "train.steps", "400");
	setrlimit(RLIMIT_FSIZE, &was);
	assert_true(rc == STAVE_EIO || rc == STAVE_ENOSPACE);
	assert_int_equal(stave_err_exit(rc), 1);
	assert_true(t.last.step < 390); /* it stopped, and did not train for hours what it cannot keep */
	must(TINY(&t, dir, &result, &err, "train.steps", "20"));
	assert_int_equal(result.first_step, 10);
	stave_remove_tree(dir, NULL);
}

static void poison_params(void *ctx, const struct stave_layout *l, float *p)
{
	stave_weights_init(l, p, 1);
	p[l->layer[1].down_w + 3] = NAN;
}

static void poison_gradient(void *ctx, const struct stave_layout *l, float *p)
{
	stave_weights_init(l, p, 1);
	for (int i = 0; i < 16; i++)
		p[l->layer[1].norm2_w + i] = 3e38f; /* finite itself, not what comes of it */
}

static void nonfinite_is_named(void **state)
{
	struct tiny t = {.init = poison_params};
	char *dir = tiny_dir();
	assert_int_equal(TINY(&t, dir, &result, &err, NULL), STAVE_EFAIL);
	assert_non_null(strstr(err.msg, "parameter transformer.h.1.mlp.c_proj.weight"));
	assert_int_equal(t.n_steps, 0);
	stave_remove_tree(dir, NULL);

	t = (struct tiny){.init = poison_gradient};
	dir = tiny_dir();
	assert_int_equal(TINY(&t, dir, &result, &err, NULL), STAVE_EFAIL);
	assert_non_null(strstr(err.msg, "gradient of transformer."));
	assert_null(strstr(err.msg, "parameter "));
	stave_remove_tree(dir, NULL);

	t = (struct tiny){.init = poison_gradient};
	dir = tiny_dir();
	must(TINY(&t, dir, &result, &err, "train.on_nonfinite", "skip", "train.eval_batches", "0"));
	assert_int_equal(t.n_skipped, 20);
	stave_remove_tree(dir, NULL);
}

static void spikes_are_skipped(void **state)
{
	struct tiny t = {.poison = 100};
	char *dir = tiny_dir();
	must(TINY(&t, dir, &result, &err, "train.steps", "110", "train.spike_z", "6", "checkpoint.every", "0"));
	assert_int_equal(t.n_skipped, 1);
	assert_true(t.steps[100].skipped);
	stave_remove_tree(dir, NULL);
	t = (struct tiny){.poison = 100};
	dir = tiny_dir();
	must(TINY(&t, dir, &result, &err, "train.steps", "110", "checkpoint.every", "0"));
	assert_int_equal(t.n_skipped, 0);
	stave_remove_tree(dir, NULL);
}

static void refusals(void **state)
{
	struct tiny t = {0};
	char *dir = tiny_dir(), path[2 * STAVE_PATH];
	/* does not fit: exit 3 and the change that would */
	assert_int_equal(TINY(&t, dir, &result, &err, "train.batch", "1000000", "train.micro_batch", "1000000"), STAVE_ENOFIT);
	assert_non_null(strstr(err.msg, "--train.micro_batch"));
	assert_int_equal(stave_err_exit(STAVE_ENOFIT), 3);
	assert_int_equal(TINY(&t, dir, &result, &err, "train.seq", "17"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "shape.heads", "3"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "shape.vocab", "30"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "train.min_lr", "1"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "model", "no-such-preset"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "resume", "/nowhere"), STAVE_ECORRUPT);
	must(TINY(&t, dir, &result, &err, NULL));
	assert_int_equal(TINY(&t, dir, &result, &err, "resume", "no"), STAVE_EUSAGE);
	assert_int_equal(TINY(&t, dir, &result, &err, "train.batch", "5"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "train.optimizer", "muon"), STAVE_ECONFIG);
	assert_int_equal(TINY(&t, dir, &result, &err, "shape.layers", "3"), STAVE_ECONFIG);
	snprintf(path, sizeof path, "%s/checkpoints/step-15", dir);
	assert_int_equal(TINY(&t, dir, &result, &err, "resume", path), STAVE_EUSAGE); /* a newer one lies beside it */
	must(TINY(&t, dir, &result, &err, "train.steps", "25"));
	assert_int_equal(result.first_step, 20);
	stave_remove_tree(dir, NULL);
}

static void time_limit_finishes_early(void **state)
{
	struct tiny t = {0};
	char *dir = tiny_dir(), path[2 * STAVE_PATH];
	must(TINY(&t, dir, &result, &err, "train.steps", "1M", "train.time_limit_s", "0.2", "checkpoint.every", "0"));
	assert_true(result.time_limit);
	assert_true(result.steps_done < 1000000);
	assert_int_equal(t.eval.step, result.steps_done);
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	assert_true(stave_exists(path));
	stave_remove_tree(dir, NULL);
}

/* Fine-tuning begins with the very weights of the directory, and a saved model can be it. */
static void continues_from_a_directory(void **state)
{
	struct tiny t = {0}, u = {0};
	char from[64];
	snprintf(from, sizeof from, "%s", tiny_dir());
	must(TINY(&t, from, &result, &err, "train.steps", "60", "checkpoint.every", "0"));
	double was = t.eval.val_loss;
	char *dir = tiny_dir();
	must(TINY(&u, dir, &result, &err, "model", from, "shape.layers", "0", "shape.heads", "0", "shape.channels", "0", "shape.context", "0",
	          "shape.vocab", "0", "train.steps", "0", "checkpoint.every", "0"));
	assert_true(was < 2);
	u.eval.step = 60; /* evaluation rows are a function of the step in this corpus */
	assert_near(u.eval.val_loss, was, 0.25);
	stave_remove_tree(dir, NULL);
	stave_remove_tree(from, NULL);
}

int main(int argc, char **argv)
{
	if (argc > 4 && !strcmp(argv[1], "--child"))
		return tiny_child(argc, argv);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_learns),
		cmocka_unit_test(planned_memory_is_allocated_memory),
		cmocka_unit_test(resident_memory_is_the_plan),
		cmocka_unit_test(accumulation_is_the_same_step),
		cmocka_unit_test(resume_is_bit_exact),
		cmocka_unit_test(sigterm_checkpoints_and_asks_to_be_requeued),
		cmocka_unit_test(random_kills),
		cmocka_unit_test(full_disk_stops_the_run),
		cmocka_unit_test(nonfinite_is_named),
		cmocka_unit_test(spikes_are_skipped),
		cmocka_unit_test(refusals),
		cmocka_unit_test(time_limit_finishes_early),
		cmocka_unit_test(continues_from_a_directory),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
