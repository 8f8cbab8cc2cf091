/* What a run says: the plan before it, the live line during it, the receipt after it. The plan and the receipt are JSON documents
 * (runs/NAME/plan.json, receipt.json) and the text printed of them.
 *
 * The shortest stave: for each class of work, how much shorter the step would be without what it loses. Matrix products
 * lose what separates them from the machine's measured peak; everything else is time not spent on products and is lost whole.
 * Without a machine profile the peak is unknown, and the class that takes most time is named instead. */
#include <math.h>
#include <string.h>

#include "base/sys.h"
#include "train/trainer.h"

/* ---- the shortest stave ---- */

const char *report_shortest(const struct trainer *t, double *gain)
{
	const struct train_times *w = &t->times;
	double matmul = w->matmul;
	if (t->peak > 0) /* of this rank's share of the peak */
		matmul = fmax(0, w->matmul - (double)w->n * t->matmul_flops_step / (t->peak / t->size));
	const struct {
		const char *name;
		double lost_s;
	} classes[] = {
		{"matrix products", matmul},      {"attention", w->attention},  {"norms and activations", w->element},
		{"loss over the vocabulary", w->loss}, {"optimizer", w->optimizer}, {"waiting for data", w->data},
		{"waiting for other ranks", w->comm}, {"copying checkpoints", w->checkpoint},
	};
	size_t worst = 0;
	for (size_t i = 1; i < sizeof classes / sizeof *classes; i++)
		if (classes[i].lost_s > classes[worst].lost_s)
			worst = i;
	*gain = w->steps > 0 ? classes[worst].lost_s / w->steps : 0;
	return classes[worst].name;
}

static double mfu(const struct trainer *t, double tokens_per_s)
{
	return t->peak > 0 ? tokens_per_s * t->flops_per_token / t->peak : NAN;
}

/* ---- the live line ---- */

void report_live(struct trainer *t, bool final)
{
	char rate[32], eta[32], share[40] = "";
	double gain, left = (double)(t->o->steps - t->state.step) * t->times.steps / (double)(t->times.n ? t->times.n : 1);
	const char *shortest = report_shortest(t, &gain);
	if (t->peak > 0)
		snprintf(share, sizeof share, "MFU %.0f %% | ", 100 * mfu(t, t->tokens_per_s));
	stave_progress(final, "step %lld/%lld | loss %.4f | %s tokens/s | %sshortest stave: %s (%.0f %%) | ETA %s", (long long)t->state.step,
	               (long long)t->o->steps, t->loss, stave_count_text(rate, t->tokens_per_s), share, shortest, 100 * gain, stave_duration_text(eta, left));
}

/* ---- the plan ---- */

static size_t sum(const size_t *x, int n)
{
	size_t s = 0;
	for (int i = 0; i < n; i++)
		s += x[i];
	return s;
}

/* What the process will hold: arenas come in huge pages, and the program with its libraries and mapped data is there already. */
static double planned_resident(const struct trainer *t)
{
	const size_t page = (size_t)2 << 20;
	size_t s = t->base_rss;
	for (int i = 0; i < ARENAS; i++)
		s += (t->planned[i] + page - 1) / page * page;
	return (double)s;
}

json_t *report_plan_json(const struct trainer *t)
{
	const struct stave_shape *s = &t->layout.shape;
	json_t *arenas = json_object(), *j = json_object();
	for (int i = 0; i < ARENAS; i++)
		json_object_set_new(arenas, arena_names[i], json_integer((json_int_t)t->planned[i]));
	json_object_set_new(j, "parameters", json_integer(stave_shape_params(s)));
	json_object_set_new(j, "shape", json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "layers", s->L, "channels", s->C, "heads", s->H,
	                                          "kv_heads", s->K, "ff", s->I, "vocab", s->V, "context", s->T_max));
	json_object_set_new(j, "batch", json_pack("{s:I, s:i, s:i, s:i, s:i}", "rows", (json_int_t)t->o->batch, "seq", t->T, "micro_batch", t->nc.B,
	                                          "micro_batches", t->n_micro, "ranks", t->size));
	json_object_set_new(j, "dtype", json_string(stave_dtype_name(t->nc.dtype)));
	json_object_set_new(j, "threads", json_integer(stave_threads()));
	json_object_set_new(j, "arenas_bytes", arenas);
	json_object_set_new(j, "total_bytes", json_integer((json_int_t)sum(t->planned, ARENAS)));
	json_object_set_new(j, "resident_bytes", json_real(planned_resident(t)));
	json_object_set_new(j, "flops_per_token", json_real(t->flops_per_token));
	json_object_set_new(j, "flops_per_step", json_real(t->flops_per_token * (double)t->o->batch * t->T));
	if (t->has_machine) {
		json_object_set_new(j, "predicted_step_s", json_real(t->forecast.step_s));
		json_object_set_new(j, "predicted_tokens_per_s", json_real((double)t->o->batch * t->T / t->forecast.step_s));
		json_object_set_new(j, "predicted_shortest", json_string(t->forecast.shortest));
	}
	return j;
}

void report_plan(struct trainer *t)
{
	const struct stave_shape *s = &t->layout.shape;
	char a[32], b[32];
	stave_log(STAVE_LOG_INFO, "model: %s parameters, %d layers of %d channels, %d tokens of vocabulary, context %d",
	          stave_count_text(a, (double)stave_shape_params(s)), s->L, s->C, s->V, s->T_max);
	stave_log(STAVE_LOG_INFO, "step: %lld rows of %d tokens on %d rank%s of %d thread%s, %d x %d rows at once, %s", (long long)t->o->batch, t->T,
	          t->size, t->size > 1 ? "s" : "", stave_threads(), stave_threads() > 1 ? "s" : "", t->n_micro, t->nc.B, stave_dtype_name(t->nc.dtype));
	for (int i = 0; i < ARENAS; i++)
		if (t->planned[i])
			stave_log(STAVE_LOG_INFO, "memory: %10s  %s", stave_bytes_text(a, (double)t->planned[i]), arena_names[i]);
	stave_log(STAVE_LOG_INFO, "memory: %10s  in all, of %s available", stave_bytes_text(a, (double)sum(t->planned, ARENAS)),
	          stave_bytes_text(b, (double)stave_memory_available_bytes()));
	double step_flops = t->flops_per_token * (double)t->o->batch * t->T;
	stave_log(STAVE_LOG_INFO, "work: %sflop a token, %sflop a step", stave_count_text(a, t->flops_per_token), stave_count_text(b, step_flops));
	if (t->has_machine)
		stave_log(STAVE_LOG_INFO, "forecast: %s a step, %.0f tokens/s, shortest stave: %s", stave_duration_text(a, t->forecast.step_s),
		          (double)t->o->batch * t->T / t->forecast.step_s, t->forecast.shortest ? t->forecast.shortest : "unknown");
	else
		stave_log(STAVE_LOG_INFO, "forecast: none, this machine is not measured yet; run `stave bench machine`");
}

/* ---- the receipt ---- */

static json_t *number(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}

static void set_hex(json_t *o, const char *key, uint64_t x)
{
	char text[17];
	snprintf(text, sizeof text, "%016llx", (unsigned long long)x);
	json_object_set_new(o, key, json_string(text));
}

static json_t *times_json(const struct trainer *t)
{
	const struct train_times *w = &t->times;
	double n = w->n ? (double)w->n : 1;
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "step", w->steps / n, "matmul", w->matmul / n, "attention", w->attention / n,
	                 "elements", w->element / n, "loss", w->loss / n, "optimizer", w->optimizer / n, "data_wait", w->data / n, "comm_wait",
	                 w->comm / n, "checkpoint_stall", w->checkpoint / n);
}

json_t *report_receipt(const struct trainer *t, const struct stave_train_result *r)
{
	json_t *j = json_object(), *fingerprint = json_object(), *memory = json_object();
	double gain, bits = t->job->batches.val_tokens_per_byte;
	char next[STAVE_PATH + 64];
	json_object_set_new(j, "model", json_string(t->o->out));
	json_object_set_new(j, "parameters", json_integer(stave_shape_params(&t->layout.shape)));
	json_object_set_new(j, "steps", json_integer(r->steps_done));
	json_object_set_new(j, "first_step", json_integer(r->first_step));
	json_object_set_new(j, "tokens", json_integer(r->tokens));
	json_object_set_new(j, "loss", number(r->loss));
	json_object_set_new(j, "train_loss", number(r->train_loss));
	json_object_set_new(j, "val_loss", number(r->val_loss));
	json_object_set_new(j, "val_bits_per_byte", bits > 0 ? number(r->val_loss / M_LN2 * bits) : json_null());
	json_object_set_new(j, "seconds", json_real(r->seconds));
	json_object_set_new(j, "tokens_per_s", number(r->tokens_per_s));
	json_object_set_new(j, "mfu", number(r->mfu));
	json_object_set_new(j, "data_wait_share", number(r->data_wait_share));
	json_object_set_new(j, "checkpoint_share", number(r->checkpoint_share));
	json_object_set_new(j, "seconds_per_step", times_json(t));
	if (t->has_machine)
		json_object_set_new(j, "predicted_step_s", json_real(t->forecast.step_s));
	json_object_set_new(j, "shortest", json_string(report_shortest(t, &gain)));
	json_object_set_new(j, "shortest_share", json_real(gain));
	json_object_set_new(memory, "planned_bytes", json_real(r->planned_bytes));
	json_object_set_new(memory, "allocated_bytes", json_real(r->allocated_bytes));
	json_object_set_new(memory, "resident_bytes", json_real(r->rss_bytes));
	json_object_set_new(memory, "planned_resident_bytes", json_real(planned_resident(t)));
	json_object_set_new(j, "memory", memory);
	json_object_set_new(fingerprint, "seed", json_integer(t->o->seed));
	set_hex(fingerprint, "config_xxh64", t->config_hash);
	set_hex(fingerprint, "losses_xxh64", r->losses_hash);
	set_hex(fingerprint, "weights_xxh64", r->weights_hash);
	json_object_set_new(j, "fingerprint", fingerprint);
	bool done = r->steps_done >= t->o->steps || r->time_limit;
	json_object_set_new(j, "stopped", json_string(r->requeue ? "signal" : r->time_limit ? "time limit" : done ? "finished" : "interrupted"));
	snprintf(next, sizeof next, done ? "stave run %s --prompt \"\"" : "the same command again continues at once (%s)", t->o->out);
	json_object_set_new(j, "next", json_string(next));
	return j;
}

void report_receipt_text(const struct trainer *t, const struct stave_train_result *r)
{
	char a[32], b[32];
	double gain;
	const char *shortest = report_shortest(t, &gain);
	stave_log(STAVE_LOG_INFO, "made: %s, %lld steps, %s tokens", t->o->out, (long long)r->steps_done, stave_count_text(a, (double)r->tokens));
	if (isfinite(r->val_loss))
		stave_log(STAVE_LOG_INFO, "how good: validation loss %.4f, training loss %.4f", r->val_loss, r->train_loss);
	if (isfinite(r->val_loss) && t->job->batches.val_tokens_per_byte > 0)
		stave_log(STAVE_LOG_INFO, "how good: %.4f bits per byte on the validation text", r->val_loss / M_LN2 * t->job->batches.val_tokens_per_byte);
	if (t->times.n) {
		stave_log(STAVE_LOG_INFO, "how fast: %s in all, %s a step, %.0f tokens/s", stave_duration_text(a, r->seconds),
		          stave_duration_text(b, t->times.steps / (double)t->times.n), r->tokens_per_s);
		if (isfinite(r->mfu))
			stave_log(STAVE_LOG_INFO, "of the machine: %.0f %% of its matrix peak", 100 * r->mfu);
		stave_log(STAVE_LOG_INFO, "shortest stave: %s; without what it loses a step would be %.0f %% shorter", shortest, 100 * gain);
	}
	stave_log(STAVE_LOG_INFO, "fingerprint: losses %016llx, weights %016llx", (unsigned long long)r->losses_hash, (unsigned long long)r->weights_hash);
	stave_log(STAVE_LOG_INFO, "next: %s", json_string_value(json_object_get(r->receipt, "next")));
}
