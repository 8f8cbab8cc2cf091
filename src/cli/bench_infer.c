/* stave bench infer: how fast a model answers here, against the machine's limits and, if asked, against llama.cpp in the same run.
 *
 * Everything goes through the engine, as a user's requests do. Each figure is the best of `reps`: what else runs on the machine only
 * ever makes it slower. Rounds of the peer and of ours are not interleaved, since two models at once would not fit many
 * machines; the read bandwidth is measured right before, with the same threads. */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/sys.h"
#include "cli/bench.h"
#include "cli/engine.h"
#include "infer/infer.h"

struct options {
	int64_t prompt, generate, sequences, beside, reps;
	char *type, *cache, *peer;
	bool json;
};
#define AT(field) offsetof(struct options, field)
static const struct stave_key keys[] = {
	{"prompt", STAVE_KEY_INT, AT(prompt), "512", 1, 1e7, NULL, "tokens of the prompt"},
	{"generate", STAVE_KEY_INT, AT(generate), "32", 2, 1e6, NULL, "tokens to generate"},
	{"sequences", STAVE_KEY_INT, AT(sequences), "1", 1, 1024, NULL, "sequences that decode together"},
	{"beside", STAVE_KEY_INT, AT(beside), "0", 0, 1e7, NULL, "read a prompt of so many tokens while the sequences decode: gaps between their tokens"},
	{"reps", STAVE_KEY_INT, AT(reps), "3", 1, 100, NULL, "rounds; the best counts"},
	{"type", STAVE_KEY_STR, AT(type), "auto", 0, 0, NULL, "of the matrices in memory: as stored, or F32, BF16, Q8_0, Q4_K …"},
	{"cache", STAVE_KEY_STR, AT(cache), "auto", 0, 0, NULL, "of cached keys and values: bf16, i8, f32; auto = f32 for a model in F32 or F16, else bf16"},
	{"peer", STAVE_KEY_STR, AT(peer), NULL, 0, 0, NULL, "folder with peer.mjs and node-llama-cpp: measure llama.cpp in the same run"},
	{"json", STAVE_KEY_BOOL, AT(json), "no", 0, 0, NULL, "print one JSON document"},
};
#undef AT

struct figures { /* 0: not measured */
	double open_s, first_token_s, settled_s;
	double prefill_per_s, decode_per_s, token_bytes, read_bytes_s;
	double gap_idle_p99_s, gap_beside_p99_s, beside_per_s;
	double peer_prefill_per_s, peer_decode_per_s;
	struct stave_answer_rates forecast; /* of the machine's profile */
};

/* ---- requests ---- */

#define GAPS_MAX 65536
struct stream { /* one request's events, written by the engine's thread, read after DONE */
	pthread_mutex_t *lock;
	pthread_cond_t *changed;
	bool done;
	int tokens;
	double first_s, last_s;
	struct stave_event end;
	double *gaps; /* (GAPS_MAX) seconds between tokens, and when each ended: NULL = not kept */
	double *at;
	int n_gaps;
};

static void on_event(void *ctx, const struct stave_event *v)
{
	struct stream *s = ctx;
	pthread_mutex_lock(s->lock);
	if (v->kind == STAVE_EVENT_TOKEN) {
		if (!s->tokens++)
			s->first_s = v->time_s;
		else if (s->gaps && s->n_gaps < GAPS_MAX) {
			s->at[s->n_gaps] = v->time_s;
			s->gaps[s->n_gaps++] = v->time_s - s->last_s;
		}
		s->last_s = v->time_s;
	} else if (v->kind == STAVE_EVENT_DONE) {
		s->end = *v;
		s->done = true;
	}
	pthread_cond_broadcast(s->changed);
	pthread_mutex_unlock(s->lock);
}

struct room {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct stream *s; /* (n) */
	int n;
	int salt;
};

/* `n` streams at once, so that none is far ahead of another. Ids differ by `salt` from the first on: no prompt finds another's
 * beginning in the cache. ids (n). */
static int submit(struct stave_engine *e, struct room *m, struct stream *s, int n, int64_t prompt, int64_t generate, uint64_t *ids, struct stave_err *err)
{
	const struct stave_engine_info *info = stave_engine_info(e);
	int vocab = info->shape.V < 1000 ? info->shape.V : 1000;
	struct stave_request *r = calloc((size_t)n, sizeof *r);
	int32_t *tokens = malloc((size_t)(n * prompt) * sizeof *tokens);
	int rc = r && tokens ? 0 : stave_err_set(err, STAVE_ENOMEM, "out of memory for %d prompts of %lld tokens", n, (long long)prompt);
	for (int k = 0; k < n && !rc; k++) {
		int32_t *own = tokens + k * prompt;
		m->salt++;
		for (int64_t i = 0; i < prompt; i++)
			own[i] = (int32_t)((i * 7919 + 13 + (int64_t)m->salt * 31) % vocab);
		r[k] = (struct stave_request){.ids = own, .n_ids = (int)prompt, .sampling = stave_sampling_default(), .max_tokens = (int)generate, .ignore_eos = true, .logprobs = -1, .event = on_event, .ctx = &s[k]};
		r[k].sampling.temperature = 0;
	}
	if (!rc)
		rc = stave_engine_submit(e, r, n, ids, err);
	free(tokens);
	free(r);
	return rc;
}

static void wait_for(struct room *m, struct stream *s, int tokens)
{
	pthread_mutex_lock(&m->lock);
	while (!s->done && (tokens < 0 || s->tokens < tokens))
		pthread_cond_wait(&m->changed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

static void reset(struct room *m, struct stream *s)
{
	double *gaps = s->gaps, *at = s->at;
	*s = (struct stream){.lock = &m->lock, .changed = &m->changed, .gaps = gaps, .at = at};
}

/* One prompt alone, then its answer. */
static int round_alone(struct stave_engine *e, struct room *m, const struct options *o, struct figures *f, struct stave_err *err)
{
	uint64_t id;
	reset(m, m->s);
	int rc = submit(e, m, m->s, 1, o->prompt, o->generate, &id, err);
	if (rc)
		return rc;
	wait_for(m, m->s, -1);
	const struct stave_event *v = &m->s->end;
	double prefill = v->prompt_tokens / v->prefill_s, decode = (v->completion_tokens - 1) / v->decode_s;
	f->prefill_per_s = prefill > f->prefill_per_s ? prefill : f->prefill_per_s;
	f->decode_per_s = decode > f->decode_per_s ? decode : f->decode_per_s;
	return 0;
}

/* All sequences have their prompts read first; the rate is of the time in which all of them decode. */
static int round_together(struct stave_engine *e, struct room *m, const struct options *o, struct figures *f, struct stave_err *err)
{
	uint64_t *ids = malloc((size_t)m->n * sizeof *ids);
	double from = 0, to = 1e300;
	int tokens = 0;
	for (int i = 0; i < m->n; i++)
		reset(m, &m->s[i]);
	int rc = ids ? submit(e, m, m->s, m->n, o->prompt, o->generate * 2, ids, err) : stave_err_set(err, STAVE_ENOMEM, "out of memory for %d sequences", m->n);
	for (int i = 0; i < m->n && !rc; i++)
		wait_for(m, &m->s[i], -1);
	free(ids);
	if (rc)
		return rc;
	for (int i = 0; i < m->n; i++) {
		from = m->s[i].first_s > from ? m->s[i].first_s : from;
		to = m->s[i].last_s < to ? m->s[i].last_s : to;
	}
	for (int i = 0; i < m->n; i++)
		for (int k = 0; k < m->s[i].n_gaps; k++)
			tokens += m->s[i].at[k] > from && m->s[i].at[k] <= to;
	if (to <= from)
		return stave_err_set(err, STAVE_EUSAGE, "the first of %d answers ended before the last prompt was read: give more than --generate %lld", m->n, (long long)o->generate);
	f->decode_per_s = tokens / (to - from) > f->decode_per_s ? tokens / (to - from) : f->decode_per_s;
	return 0;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* The 99th percentile of the gaps that ended between two moments. */
static double p99(const struct room *m, double from, double to)
{
	double *all = malloc((size_t)m->n * GAPS_MAX * sizeof *all), v = 0;
	size_t n = 0;
	if (!all)
		return 0;
	for (int i = 0; i < m->n; i++)
		for (int k = 0; k < m->s[i].n_gaps; k++)
			if (m->s[i].at[k] > from && m->s[i].at[k] <= to)
				all[n++] = m->s[i].gaps[k];
	qsort(all, n, sizeof *all, by_size);
	if (n)
		v = all[(n - 1) * 99 / 100];
	free(all);
	return v;
}

/* The sequences decode for a while alone, then while a long prompt is read. */
static int round_beside(struct stave_engine *e, struct room *m, const struct options *o, struct figures *f, struct stave_err *err)
{
	struct stream guest = {0};
	uint64_t id, *ids = malloc((size_t)m->n * sizeof *ids);
	int rc = ids ? 0 : stave_err_set(err, STAVE_ENOMEM, "out of memory for %d sequences", m->n), room = stave_engine_info(e)->context - (int)o->prompt;
	double quiet = 0;
	for (int i = 0; i < m->n; i++)
		reset(m, &m->s[i]);
	if (!rc)
		rc = submit(e, m, m->s, m->n, o->prompt, room, ids, err);
	for (int i = 0; i < m->n && !rc; i++)
		wait_for(m, &m->s[i], 2 + (int)o->generate);
	for (int i = 0; i < m->n && !rc; i++)
		quiet = m->s[i].first_s > quiet ? m->s[i].first_s : quiet;
	reset(m, &guest);
	double from = stave_now_s();
	if (!rc && !(rc = submit(e, m, &guest, 1, o->beside, 1, &id, err))) {
		wait_for(m, &guest, -1);
		double idle = p99(m, quiet, from), busy = p99(m, from, guest.first_s);
		if (f->gap_idle_p99_s == 0 || busy / idle < f->gap_beside_p99_s / f->gap_idle_p99_s) {
			f->gap_idle_p99_s = idle;
			f->gap_beside_p99_s = busy;
			f->beside_per_s = guest.end.prompt_tokens / guest.end.prefill_s;
		}
	}
	for (int i = 0; i < m->n && ids; i++)
		stave_engine_cancel(e, ids[i]);
	for (int i = 0; i < m->n && !rc; i++)
		wait_for(m, &m->s[i], -1);
	free(ids);
	return rc;
}

/* ---- ours ---- */

static int rounds(struct stave_engine *e, struct room *m, const struct options *o, struct figures *f, struct stave_err *err)
{
	int rc = 0;
	for (int i = 0; i < o->reps && !rc; i++) {
		stave_progress(false, "round %d of %d", i + 1, (int)o->reps);
		rc = o->beside ? round_beside(e, m, o, f, err) : m->n > 1 ? round_together(e, m, o, f, err) : round_alone(e, m, o, f, err);
	}
	return rc;
}

/* From nothing to the first token of a short prompt, and to where an engine no longer works on its start. */
static int start(struct stave_engine **e, struct room *m, const struct stave_engine_config *c, struct figures *f, struct stave_err *err)
{
	double t = stave_now_s();
	uint64_t id;
	int rc = stave_engine_open(e, c, err);
	if (rc)
		return rc;
	f->open_s = stave_now_s() - t;
	reset(m, m->s);
	int prompt = c->context < 18 ? 1 : 16;
	if ((rc = submit(*e, m, m->s, 1, prompt, 1, &id, err)))
		return rc;
	wait_for(m, m->s, -1);
	f->first_token_s = m->s->first_s - t;
	stave_engine_settle(*e);
	f->settled_s = stave_now_s() - t;
	return 0;
}

static int measure_ours(const struct options *o, const char *model, struct figures *f, struct stave_err *err)
{
	struct room m = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .n = (int)o->sequences};
	int64_t longest = o->beside > o->prompt ? o->beside : o->prompt, context = longest + 2 * o->generate + 64;
	if (o->beside) /* those beside go on as long as the prompt is read, at less than a quarter of its rate each */
		context += longest / 4;
	struct stave_engine_config c = {.model = model, .slots = m.n + (o->beside > 0), .context = context > INT32_MAX ? INT32_MAX : (int)context, .type = o->type, .cache = o->cache};
	struct stave_engine *e = NULL;
	int rc = 0;
	m.s = calloc((size_t)m.n, sizeof *m.s);
	for (int i = 0; i < m.n && m.s; i++) {
		m.s[i].gaps = malloc(GAPS_MAX * sizeof(double));
		m.s[i].at = malloc(GAPS_MAX * sizeof(double));
		if (!m.s[i].gaps || !m.s[i].at)
			rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for %d sequences", m.n);
	}
	if (!m.s)
		rc = stave_err_set(err, STAVE_ENOMEM, "out of memory for %d sequences", m.n);
	if (!rc && !(rc = start(&e, &m, &c, f, err)) && !(rc = rounds(e, &m, o, f, err)))
		f->token_bytes = stave_engine_token_bytes(e, (int)(o->prompt + o->generate / 2));
	stave_engine_close(e);
	for (int i = 0; i < m.n && m.s; i++) {
		free(m.s[i].gaps);
		free(m.s[i].at);
	}
	free(m.s);
	return rc;
}

/* ---- the peer ---- */

extern char **environ;

/* What the command prints, at most 1 MiB. */
static int run_command(const char *dir, char *const *argv, struct stave_buf *out, struct stave_err *err)
{
	int fd[2], status;
	pid_t pid;
	posix_spawn_file_actions_t a;
	if (pipe(fd))
		return stave_err_errno(err, "starting %s", argv[0]);
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, fd[1], 1);
	posix_spawn_file_actions_addclose(&a, fd[0]);
	posix_spawn_file_actions_addchdir_np(&a, dir);
	int rc = posix_spawnp(&pid, argv[0], &a, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&a);
	close(fd[1]);
	if (rc) {
		close(fd[0]);
		return stave_err_set(err, STAVE_EFAIL, "starting %s: %s", argv[0], strerror(rc));
	}
	char piece[4096];
	for (ssize_t n; (n = read(fd[0], piece, sizeof piece)) > 0 || (n < 0 && errno == EINTR);)
		if (n > 0 && out->len < 1 << 20)
			stave_buf_put(out, piece, (size_t)n);
	close(fd[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return stave_err_set(err, STAVE_EFAIL, "%s %s in %s failed", argv[0], argv[1], dir);
	return 0;
}

static int measure_peer(const struct options *o, const char *model, struct figures *f, struct stave_err *err)
{
	char path[4096], prompt[24], generate[24], reps[24], threads[24];
	if (!realpath(model, path))
		return stave_err_errno(err, "%s", model);
	snprintf(prompt, sizeof prompt, "%lld", (long long)o->prompt);
	snprintf(generate, sizeof generate, "%lld", (long long)o->generate);
	snprintf(reps, sizeof reps, "%lld", (long long)o->reps);
	snprintf(threads, sizeof threads, "%d", stave_threads());
	setenv("THREADS", threads, 1);
	char *argv[] = {"node", "peer.mjs", "bench", path, prompt, generate, reps, NULL};
	struct stave_buf out = {0};
	stave_progress(false, "llama.cpp");
	int rc = run_command(o->peer, argv, &out, err);
	for (char *line = out.p; !rc && line && *line;) { /* one document a round */
		char *end = strchr(line, '\n');
		json_t *j = json_loadb(line, end ? (size_t)(end - line) : strlen(line), 0, NULL);
		double p = json_number_value(json_object_get(j, "prefill_tokens_per_s")), d = json_number_value(json_object_get(j, "decode_tokens_per_s"));
		f->peer_prefill_per_s = p > f->peer_prefill_per_s ? p : f->peer_prefill_per_s;
		f->peer_decode_per_s = d > f->peer_decode_per_s ? d : f->peer_decode_per_s;
		json_decref(j);
		line = end ? end + 1 : NULL;
	}
	stave_buf_free(&out);
	if (!rc && f->peer_prefill_per_s <= 0)
		rc = stave_err_set(err, STAVE_EFAIL, "llama.cpp in %s printed no figures", o->peer);
	return rc;
}

/* ---- what is printed ---- */

static void put(json_t *j, const char *key, double v)
{
	if (v > 0)
		json_object_set_new(j, key, json_real(v));
}

static void print_json(const struct options *o, const char *model, const struct figures *f)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "model", model, "type", o->type, "cache", o->cache, "prompt", (json_int_t)o->prompt, "generate", (json_int_t)o->generate, "sequences",
	                      (json_int_t)o->sequences);
	put(j, "open_s", f->open_s);
	put(j, "first_token_s", f->first_token_s);
	put(j, "settled_s", f->settled_s);
	put(j, "prefill_tokens_per_s", f->prefill_per_s);
	put(j, "decode_tokens_per_s", f->decode_per_s);
	put(j, "predicted_prefill_tokens_per_s", f->prefill_per_s > 0 ? f->forecast.prefill_tokens_s : 0);
	put(j, "predicted_decode_tokens_per_s", f->decode_per_s > 0 ? f->forecast.decode_tokens_s : 0);
	put(j, "decode_bytes_per_s", o->sequences == 1 ? f->decode_per_s * f->token_bytes : 0);
	put(j, "read_bytes_per_s", f->read_bytes_s);
	put(j, "bandwidth_share", o->sequences == 1 ? f->decode_per_s * f->token_bytes / f->read_bytes_s : 0);
	put(j, "gap_idle_p99_s", f->gap_idle_p99_s);
	put(j, "gap_beside_p99_s", f->gap_beside_p99_s);
	put(j, "beside_prefill_tokens_per_s", f->beside_per_s);
	put(j, "llamacpp_prefill_tokens_per_s", f->peer_prefill_per_s);
	put(j, "llamacpp_decode_tokens_per_s", f->peer_decode_per_s);
	if (f->peer_prefill_per_s > 0) {
		put(j, "prefill_ratio", f->prefill_per_s / f->peer_prefill_per_s);
		put(j, "decode_ratio", f->decode_per_s / f->peer_decode_per_s);
	}
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(j);
}

/* A measured rate and, where there is a profile, the one it foretold. */
static void print_rate(const char *name, double per_s, const char *of, double foretold)
{
	if (per_s <= 0)
		return;
	printf("  %-15s %8.2f tokens/s%s", name, per_s, of);
	if (foretold > 0)
		printf(", predicted %.2f (%+.1f %%)", foretold, 100 * (foretold / per_s - 1));
	putchar('\n');
}

static void print_text(const struct options *o, const char *model, const struct figures *f)
{
	printf("%s (type %s, cache %s), prompt %lld, then %lld tokens, %d threads\n", model, o->type, o->cache, (long long)o->prompt, (long long)o->generate, stave_threads());
	printf("  open            %8.3f s\n  first token     %8.3f s from the start, of a prompt of 16\n  settled         %8.3f s from the start: weights in their places\n", f->open_s, f->first_token_s, f->settled_s);
	print_rate("prefill", f->prefill_per_s, "", f->forecast.prefill_tokens_s);
	print_rate("decode", f->decode_per_s, o->sequences > 1 ? " of all sequences" : "", f->forecast.decode_tokens_s);
	if (f->decode_per_s > 0 && f->forecast.decode_tokens_s > 0)
		printf("  shortest stave  %s: %.0f %% of a decoding step\n", f->forecast.decode.shortest, 100 * f->forecast.decode.shortest_share);
	if (o->sequences == 1 && f->decode_per_s > 0)
		printf("  bandwidth       %8.1f GB/s, %.0f %% of the %.1f GB/s measured\n", f->decode_per_s * f->token_bytes / 1e9, 100 * f->decode_per_s * f->token_bytes / f->read_bytes_s, f->read_bytes_s / 1e9);
	if (f->gap_idle_p99_s > 0)
		printf("  p99 gap         %8.1f ms alone, %.1f ms while %lld tokens are read (%.1f tokens/s): %.2f times\n", 1e3 * f->gap_idle_p99_s, 1e3 * f->gap_beside_p99_s, (long long)o->beside,
		       f->beside_per_s, f->gap_beside_p99_s / f->gap_idle_p99_s);
	if (f->peer_prefill_per_s > 0)
		printf("  llama.cpp       %8.1f and %.2f tokens/s: %.2f and %.2f times as fast\n", f->peer_prefill_per_s, f->peer_decode_per_s, f->prefill_per_s / f->peer_prefill_per_s,
		       f->decode_per_s / f->peer_decode_per_s);
}

static int measure(const struct options *o, const char *model, struct figures *f, struct stave_err *err)
{
	struct bench_case c = {.model = model, .type = o->type, .cache = o->cache, .prompt = (int)o->prompt, .generate = (int)o->generate, .sequences = (int)o->sequences};
	int rc = bench_forecast(&c, &f->forecast, err);
	if (rc < 0 || (rc = bench_read_rate(&f->read_bytes_s, err)) || (rc = measure_ours(o, model, f, err)) || !o->peer)
		return rc;
	return measure_peer(o, model, f, err);
}

static int run(void *options, const char *model, struct stave_err *err)
{
	const struct options *o = options;
	struct figures f = {0};
	int rc = measure(o, model, &f, err);
	if (!rc)
		(o->json ? print_json : print_text)(o, model, &f);
	return rc;
}

static void help(const struct stave_config *c)
{
	fputs("stave bench infer MODEL: how fast a model answers here.\n\n"
	      "  stave bench infer model.gguf --prompt 512 --generate 32 --json\n"
	      "  stave bench infer model.gguf --sequences 8 --beside 4096\n\n", stdout);
	stave_config_help(c, stdout);
}

int bench_infer(int argc, char **argv)
{
	struct options o;
	const struct cli_model_verb v = {keys, sizeof keys / sizeof *keys, &o, help, run, "'stave bench infer MODEL'; -h shows more"};
	return cli_model_verb(&v, argc, argv);
}
