/* Before step 0: who does which rows, how much memory each arena takes, whether it fits, and where the weights come from.
 *
 * The plan and the allocation are one function (take_all) run twice, on arenas that only count and on real ones, so that the
 * planned sizes are the allocated ones. When a plan does not fit, the same function prices the alternatives, and the error
 * names the first that would. */
#include <math.h>
#include <string.h>

#include "base/sys.h"
#include "kernel/kernel.h"
#include "train/trainer.h"

const char *const arena_names[ARENAS] = {
#define X(name, text) text,
	TRAIN_ARENAS(X)
#undef X
};

/* Enough tokens to keep the matrix products at their peak; more would only take memory. */
#define MICRO_TOKENS 8192
/* For the program itself, its libraries and threads, which no arena holds. */
#define MARGIN_BYTES ((size_t)64 << 20)
/* Large enough for bandwidth, small enough that the first one leaves early. */
#define BUCKET_FLOATS ((int64_t)4 << 20)
#define BUCKETS_MAX 200

/* ---- memory ---- */

static int take_all(struct trainer *t, struct stave_arena *a, struct stave_err *err)
{
	const struct stave_batches *b = &t->job->batches;
	int rc;
	t->p = stave_arena_take(&a[ARENA_WEIGHTS], (size_t)t->layout.n * sizeof(float));
	t->g = stave_arena_take(&a[ARENA_GRADIENTS], (size_t)t->layout.n * sizeof(float));
	if ((rc = optimizer_open(&t->opt, &t->layout, t->o->optimizer, &a[ARENA_MOMENTS], err)))
		return rc;
	if (a[ARENA_NETWORK].base)
		rc = stave_net_open(&t->net, &t->nc, &t->layout, t->p, t->g, &a[ARENA_NETWORK], err);
	else if (!(rc = stave_net_plan(&t->nc, &t->net_memory, err)))
		stave_arena_take(&a[ARENA_NETWORK], t->net_memory.total);
	if (rc)
		return rc;
	t->pre = (struct prefetch){.batches = b, .row0 = t->row0, .rows = (int)t->rows, .capacity = t->n_micro * t->nc.B, .T = t->T};
	prefetch_take(&t->pre, &a[ARENA_BATCHES]);
	rows_take(&t->eval_rows, t->nc.B, t->T, &a[ARENA_BATCHES]);
	t->batches_state = stave_arena_take(&a[ARENA_BATCHES], b->state_bytes);
	if (t->root && t->o->checkpoint_every)
		checkpointer_take(&t->ck, &t->opt, b->state_bytes, &a[ARENA_STAGING]);
	return 0;
}

static void set_micro(struct trainer *t, int64_t micro)
{
	t->n_micro = (int)((t->rows + micro - 1) / micro);
	t->nc.B = (int)((t->rows + t->n_micro - 1) / t->n_micro);
}

/* Sizes of all arenas for the present choices; the sum in *total. */
static int plan(struct trainer *t, size_t *total, struct stave_err *err)
{
	struct stave_arena a[ARENAS];
	for (int i = 0; i < ARENAS; i++)
		a[i] = stave_arena_plan(arena_names[i]);
	int rc = take_all(t, a, err);
	optimizer_close(&t->opt);
	*total = 0;
	for (int i = 0; i < ARENAS; i++)
		*total += t->planned[i] = a[i].used;
	return rc;
}

/* Which single change would make it fit: smaller micro-batch, then recompute, then both. */
static int does_not_fit(struct trainer *t, size_t need, size_t room, struct stave_err *err)
{
	static const char *const names[] = {"none", "cheap", "layer"};
	const enum stave_recompute first = t->nc.recompute;
	char change[160] = "", a[32], b[32], c[32];
	size_t total;
	for (int re = (int)first; re <= STAVE_RECOMPUTE_LAYER && !*change; re++)
		for (int64_t micro = t->nc.B; micro >= 1 && !*change; micro /= 2) {
			t->nc.recompute = (enum stave_recompute)re;
			set_micro(t, micro);
			if (plan(t, &total, NULL) == 0 && total <= room)
				snprintf(change, sizeof change, "it fits (%s) with --train.micro_batch %d --train.recompute %s", stave_bytes_text(c, (double)total),
				         t->nc.B, names[re]);
		}
	if (!*change && plan(t, &total, NULL) == 0 && total - t->planned[ARENA_STAGING] <= room)
		snprintf(change, sizeof change, "it fits with --train.micro_batch 1 --train.recompute layer --checkpoint.every 0");
	if (!*change)
		snprintf(change, sizeof change, "even one row with full recompute needs %s: take a smaller model or shorter rows", stave_bytes_text(c, (double)total));
	return stave_err_set(err, STAVE_ENOFIT, "training needs %s of memory, the machine has %s; %s", stave_bytes_text(a, (double)need),
	                     stave_bytes_text(b, (double)room), change);
}

/* The given micro-batch, or the largest useful one that fits. */
static int choose_micro(struct trainer *t, struct stave_err *err)
{
	size_t available = stave_memory_available_bytes(), room = available > MARGIN_BYTES ? available - MARGIN_BYTES : 0, need;
	int64_t useful = MICRO_TOKENS / t->T > 1 ? MICRO_TOKENS / t->T : 1;
	int64_t micro = t->o->micro_batch ? t->o->micro_batch : useful;
	set_micro(t, micro < t->rows ? micro : t->rows);
	int rc = plan(t, &need, err);
	while (!rc && !t->o->micro_batch && need > room && t->nc.B > 1) {
		set_micro(t, t->nc.B / 2);
		rc = plan(t, &need, err);
	}
	if (!rc && need > room)
		rc = does_not_fit(t, need, room, err);
	return rc;
}

int setup_memory(struct trainer *t, struct stave_err *err)
{
	int rc;
	t->base_rss = stave_rss_bytes();
	for (int i = 0; i < ARENAS; i++)
		if (t->planned[i] && (rc = stave_arena_open(&t->arena[i], arena_names[i], t->planned[i], err)))
			return rc;
	if ((rc = take_all(t, t->arena, err)))
		return rc;
	int64_t even = (t->layout.n + BUCKETS_MAX - 1) / BUCKETS_MAX;
	t->buckets = (struct buckets){.comm = t->comm, .g = t->g, .floats = even > BUCKET_FLOATS ? even : BUCKET_FLOATS};
	return 0;
}

/* ---- the work ---- */

static enum stave_dtype choose_dtype(const struct trainer *t)
{
	enum stave_dtype dtype = t->o->dtype == STAVE_TRAIN_BF16 || (t->o->dtype == STAVE_DTYPE_AUTO && stave_has_bf16()) ? STAVE_BF16 : STAVE_F32;
	if (dtype == STAVE_BF16 && !stave_has_bf16() && t->root)
		stave_log(STAVE_LOG_WARN, "kernel level %s has no bf16 products: train.dtype f32 would be faster", stave_kernels()->level);
	return dtype;
}

static void forecast(struct trainer *t)
{
	struct stave_op ops[STAVE_OPS_MAX];
	struct stave_err none;
	int n = stave_cost_train_ops(&t->layout.shape, t->nc.B, t->T, t->n_micro, t->nc.dtype, t->nc.recompute, ops);
	t->flops_per_token = stave_train_flops_per_token(&t->layout.shape, t->T);
	for (int i = 0; i < n; i++)
		if (ops[i].kind == STAVE_OP_MATMUL)
			t->matmul_flops_step += (double)ops[i].count * ops[i].flops;
	t->has_machine = stave_machine_load(&t->machine, NULL, &none) == 0;
	if (t->has_machine) {
		t->forecast = stave_machine_forecast(&t->machine, ops, n);
		/* of all ranks: each has the share of a machine that its threads are */
		double share = t->machine.threads > 0 ? fmin(1, (double)stave_threads() / t->machine.threads) : 1;
		t->peak = (t->nc.dtype == STAVE_BF16 ? t->machine.peak_bf16 : t->machine.peak_f32) * share * t->size;
	}
}

static int check_options(const struct trainer *t, struct stave_err *err)
{
	const struct stave_train *o = t->o;
	if (o->batch < t->size)
		return stave_err_set(err, STAVE_ECONFIG, "train.batch is %lld rows for %d ranks: every rank needs at least one", (long long)o->batch, t->size);
	if (t->T > t->job->shape.T_max)
		return stave_err_set(err, STAVE_ECONFIG, "train.seq is %d tokens but the model's context is %d", t->T, t->job->shape.T_max);
	if (o->min_lr > o->lr)
		return stave_err_set(err, STAVE_ECONFIG, "train.min_lr %g is above train.lr %g", o->min_lr, o->lr);
	return 0;
}

int setup_work(struct trainer *t, struct stave_err *err)
{
	const struct stave_train *o = t->o;
	const struct stave_shape *s = &t->job->shape;
	t->T = o->seq ? (int)o->seq : s->T_max < 1024 ? s->T_max : 1024;
	int rc = check_options(t, err);
	if (rc || (rc = stave_layout_open(&t->layout, s, err)))
		return rc;
	t->row0 = o->batch * t->rank / t->size;
	t->rows = o->batch * (t->rank + 1) / t->size - t->row0;
	t->nc = (struct stave_net_config){.shape = *s, .T = t->T, .train = true, .recompute = (enum stave_recompute)o->recompute, .doc_mask = o->doc_mask};
	t->schedule = (struct stave_schedule){.kind = o->schedule, .peak = o->lr, .min = o->min_lr, .decay_fraction = o->decay_fraction,
	                                      .warmup = o->warmup, .decay_steps = o->decay_steps ? o->decay_steps : o->steps};
	t->state = (struct train_state){.seed = o->seed, .batch = o->batch, .seq = t->T, .optimizer = o->optimizer};
	t->nc.dtype = choose_dtype(t);
	if ((rc = choose_micro(t, err)))
		return rc;
	forecast(t);
	return 0;
}

/* ---- weights ---- */

struct checkpoint live_checkpoint(struct trainer *t)
{
	return (struct checkpoint){.opt = &t->opt, .p = t->p, .m = t->opt.m, .v = t->opt.v, .batches = t->batches_state,
	                           .batches_bytes = t->job->batches.state_bytes, .state = t->state};
}

/* Resuming an early checkpoint while later ones of another history lie beside it would end in a mixture of both. */
static int check_rewind(const struct trainer *t, int64_t step, struct stave_err *err)
{
	int64_t newest;
	if (checkpoint_newest(t->ck.policy.root, &newest) && newest > step)
		return stave_err_set(err, STAVE_EUSAGE, "%s holds a newer checkpoint, step-%lld: to go back to step %lld, move it away or give another --out",
		                     t->ck.policy.root, (long long)newest, (long long)step);
	return 0;
}

/* On rank 0: fills the live arenas from a checkpoint, if there is one to continue. */
static int resume(struct trainer *t, bool *found, struct stave_err *err)
{
	struct checkpoint c = live_checkpoint(t);
	const char *how = t->o->resume ? t->o->resume : "auto";
	int64_t newest;
	int rc;
	*found = false;
	if ((rc = stave_mkdirs(t->ck.policy.root, err)) || (rc = checkpoint_sweep(t->ck.policy.root, err)))
		return rc;
	if (!strcmp(how, "no")) {
		if (checkpoint_newest(t->ck.policy.root, &newest))
			return stave_err_set(err, STAVE_EUSAGE, "%s already holds checkpoints of a run: continue it with --resume auto, or give another --out", t->o->out);
		return 0;
	}
	if (!strcmp(how, "auto")) {
		rc = checkpoint_load_newest(&t->ck.policy, &c, found, err);
	} else {
		rc = checkpoint_load(how, &c, err);
		if (!rc)
			rc = check_rewind(t, c.state.step, err);
		*found = !rc;
	}
	if (*found)
		t->state = c.state;
	return rc;
}

static int fresh(struct trainer *t, struct stave_err *err)
{
	if (t->job->hooks.init) {
		t->job->hooks.init(t->job->hooks.ctx, &t->layout, t->p);
		return 0;
	}
	if (t->o->model && stave_is_dir(t->o->model))
		return stave_weights_load(&t->layout, t->p, t->o->model, err);
	stave_weights_init(&t->layout, t->p, (uint64_t)t->o->seed);
	return 0;
}

/* Rank 0 reads, everyone gets the same bits: no shared file system is needed, and the number of ranks may have changed. */
static int spread(struct trainer *t, int code, bool found, struct stave_err *err)
{
	struct {
		int code;
		bool found;
		struct train_state state;
	} head = {.code = code, .found = found, .state = t->state};
	const struct {
		void *p;
		size_t bytes;
	} parts[] = {{t->p, (size_t)t->layout.n * 4}, {t->opt.m, (size_t)t->layout.n * 4}, {t->opt.v, (size_t)t->opt.n_v * 4},
	             {t->batches_state, t->job->batches.state_bytes}};
	int rc = stave_comm_bcast(t->comm, &head, sizeof head, 0, "start", err);
	if (rc)
		return rc;
	if (head.code)
		return t->root ? head.code : stave_err_set(err, head.code, "rank 0 could not start; see its message");
	t->state = head.state;
	for (size_t i = 0; i < (head.found ? 4 : 1); i++)
		if (parts[i].bytes && (rc = stave_comm_bcast(t->comm, parts[i].p, parts[i].bytes, 0, "weights", err)))
			return rc;
	return head.found && t->job->batches.state_load && t->job->batches.state_bytes
	               ? t->job->batches.state_load(t->job->batches.ctx, t->batches_state, err) : 0;
}

int setup_weights(struct trainer *t, struct stave_err *err)
{
	bool found = false;
	int rc = 0;
	if (t->root && !(rc = resume(t, &found, err)) && !found)
		rc = fresh(t, err);
	if ((rc = spread(t, rc, found, err)))
		return rc;
	stave_net_refresh(t->net);
	t->first_step = t->state.step;
	if (found)
		stave_log(STAVE_LOG_INFO, "continuing at step %lld of %lld", (long long)t->state.step, (long long)t->o->steps);
	return 0;
}

void setup_close(struct trainer *t)
{
	prefetch_stop(&t->pre);
	checkpointer_stop(&t->ck);
	stave_net_close(t->net);
	optimizer_close(&t->opt);
	for (int i = 0; i < ARENAS; i++)
		stave_arena_close(&t->arena[i]);
	stave_layout_close(&t->layout);
}
