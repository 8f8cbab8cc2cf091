/* The same tokens through the decoder, the plain reference (plain.h) and llama.cpp, and how far apart their distributions are. Shared by
 * test_parity (which asserts) and bench_kl (which prints). Every logit is compared, not a few probabilities: llama.cpp hands out its
 * raw ones. A run is a prompt, evaluated as one batch, and then llama.cpp's own greedy tokens one by one, so that both ways of its
 * arithmetic and of ours are in it. The file that includes this defines must(). */
#ifndef TEST_MODEL_PARITY_H
#define TEST_MODEL_PARITY_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/fs.h"
#include "model/plain.h"
#include "model/random_model.h"

static void must(int rc, const struct stave_err *e);

enum { PARITY_PROMPT = 96, PARITY_STEPS = 8, PARITY_ROWS = PARITY_PROMPT + PARITY_STEPS, PARITY_V = 1000 };

/* ---- models ---- */

/* A shape in which every row of every matrix is a multiple of 256, as the K types want them. */
__attribute__((unused)) static struct stave_shape parity_shape(enum stave_family f)
{
	struct stave_shape s = random_shape(f);
	bool old = f == STAVE_GPT2;
	s.C = 256;
	s.I = s.experts ? 256 : 512;
	s.H = 8;
	s.D = 32;
	s.K = old ? s.H : 2;
	s.L = s.window_pattern == 6 ? 6 : 2;
	s.V = PARITY_V;
	s.T_max = 256;
	if (s.embed_scale > 0)
		s.embed_scale = 16;
	if (s.rope_dims)
		s.rope_dims = 24;
	if (s.window)
		s.window = 40;
	return s;
}

/* Token i of the prompt: without the special ones at the end. */
__attribute__((unused)) static void parity_prompt(int32_t ids[PARITY_PROMPT])
{
	for (int i = 0; i < PARITY_PROMPT; i++)
		ids[i] = (int32_t)(stave_random64(41, (uint64_t)i) % (PARITY_V - 16));
}

/* ---- llama.cpp ---- */

/* Writes MODEL.logits: float32 (prompt + steps, V), row i after token i; prints the greedy ids, a JSON line per model. */
static const char parity_script[] =
	"import { writeFileSync } from 'node:fs';\n"
	"import { getLlama } from 'node-llama-cpp';\n"
	"const [steps, flash, list, ...paths] = process.argv.slice(2);\n"
	"const prompt = list.split(',').map(Number);\n"
	"const llama = await getLlama({ gpu: false, maxThreads: 1, build: 'never', skipDownload: true, logLevel: 'error' });\n"
	"const asked = (id) => [id, { generateNext: { logits: true } }];\n"
	"for (const path of paths) {\n"
	"  const model = await llama.loadModel({ modelPath: path });\n"
	"  const context = await model.createContext({ contextSize: prompt.length + +steps + 64, batchSize: 512, threads: 1, flashAttention: flash === '1' });\n"
	"  const seq = context.getSequence(), rows = [], ids = [];\n"
	"  const take = (out) => out.forEach(({ next }) => {\n"
	"    const row = new Float32Array(next.logits.size);\n"
	"    for (const [id, logit] of next.logits) row[id] = logit;\n"
	"    rows.push(row);\n"
	"  });\n"
	"  take(await seq.controlledEvaluate(prompt.map(asked)));\n"
	"  while (ids.length < +steps) {\n"
	"    const last = rows.at(-1);\n"
	"    ids.push(last.reduce((best, x, i) => (x > last[best] ? i : best), 0));\n"
	"    take(await seq.controlledEvaluate([asked(ids.at(-1))]));\n"
	"  }\n"
	"  writeFileSync(path + '.logits', Buffer.concat(rows.map((r) => Buffer.from(r.buffer))));\n"
	"  console.log(JSON.stringify(ids));\n"
	"  await context.dispose();\n"
	"  await model.dispose();\n"
	"}\n"
	"process.exit(0);\n";

/* $STAVE_LLAMACPP, a folder with node-llama-cpp; NULL without. */
__attribute__((unused)) static const char *parity_peer(void)
{
	const char *p = getenv("STAVE_LLAMACPP");
	char path[STAVE_PATH];
	snprintf(path, sizeof path, "%s/node_modules/node-llama-cpp", p ? p : "");
	return p && stave_is_dir(path) ? p : NULL;
}

struct parity_run {
	int32_t ids[PARITY_ROWS]; /* prompt, then llama.cpp's greedy tokens */
	int prompt, steps, V;
	float *theirs;            /* (prompt + steps, V) */
};

static void parity_read(struct parity_run *r, const char *model, const char *line)
{
	struct stave_map m;
	struct stave_err e = {0};
	char path[STAVE_PATH + 8];
	json_t *ids = json_loads(line, 0, NULL);
	snprintf(path, sizeof path, "%s.logits", model);
	must(stave_map_open(&m, path, &e), &e);
	int rows = r->prompt + r->steps;
	r->V = (int)(m.size / sizeof(float) / (size_t)rows);
	r->theirs = malloc(m.size);
	memcpy(r->theirs, m.p, m.size);
	stave_map_close(&m);
	remove(path);
	if ((int)json_array_size(ids) != r->steps)
		must(stave_err_set(&e, STAVE_EPEER, "llama.cpp gave %zu tokens for %s", json_array_size(ids), model), &e);
	for (int i = 0; i < r->steps; i++)
		r->ids[r->prompt + i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
	json_decref(ids);
}

/* runs[i].ids[0 .. prompt) are the same for all n models, whose paths are given; fills in the rest. One process for all: starting takes
 * longer than small models. dir: a folder to write in. */
__attribute__((unused)) static void parity_ask(const char *dir, const char *const *paths, int n, bool flash, struct parity_run *runs)
{
	struct stave_buf cmd = {0};
	struct stave_err e = {0};
	char script[STAVE_PATH], *line = NULL;
	size_t cap = 0;
	must(stave_path(script, dir, "peer.mjs", &e), &e);
	must(stave_file_write(script, parity_script, strlen(parity_script), &e), &e);
	stave_buf_printf(&cmd, "ln -sfn '%s/node_modules' '%s/node_modules' && node '%s' %d %d ", parity_peer(), dir, script, runs->steps, flash);
	for (int i = 0; i < runs->prompt; i++)
		stave_buf_printf(&cmd, "%s%d", i ? "," : "", runs->ids[i]);
	for (int i = 0; i < n; i++)
		stave_buf_printf(&cmd, " '%s'", paths[i]);
	stave_buf_printf(&cmd, " 2>'%s/peer.log'", dir);
	FILE *f = popen(cmd.p, "r");
	for (int i = 0; i < n; i++) {
		if (!f || getline(&line, &cap, f) < 0)
			must(stave_err_set(&e, STAVE_EPEER, "llama.cpp did not take %s (see %s/peer.log)", paths[i], dir), &e);
		parity_read(&runs[i], paths[i], line);
	}
	pclose(f);
	free(line);
	stave_buf_free(&cmd);
}

/* ---- stave ---- */

/* Logits (prompt + steps, V) of r's tokens: the prompt in one call, then one token a call. The caller frees them. */
__attribute__((unused)) static float *parity_logits(const struct stave_source *s, enum stave_cache_type cache, const struct parity_run *r)
{
	enum { PAGES = (PARITY_ROWS + STAVE_PAGE - 1) / STAVE_PAGE };
	static const int32_t pages[] = {1, 0, 2, 3};
	_Static_assert(PAGES <= 4, "pages");
	struct stave_err e = {0};
	struct stave_lm_memory m;
	struct stave_arena arena;
	struct stave_lm *lm;
	struct stave_lm_config c = {.source = s, .type = STAVE_QTYPE_COUNT, .cache = cache, .pages = 4, .context = PARITY_ROWS, .rows = PARITY_PROMPT};
	must(stave_lm_plan(&c, &m, &e), &e);
	must(stave_arena_open(&arena, "model", m.total, &e), &e);
	must(stave_lm_open(&lm, &c, &arena, &e), &e);
	const size_t C = (size_t)stave_source_shape(s)->C, V = (size_t)stave_source_shape(s)->V;
	float *logits = malloc((size_t)(r->prompt + r->steps) * V * sizeof *logits);
	for (int at = 0; at < r->prompt + r->steps;) {
		struct stave_lm_rows rows = {.ids = r->ids + at, .n = at ? 1 : r->prompt, .past = at, .pages = pages};
		const float *hidden[PARITY_PROMPT];
		stave_lm_run(lm, &rows, 1);
		for (int i = 0; i < rows.n; i++)
			hidden[i] = rows.hidden + (size_t)i * C;
		stave_lm_logits(lm, hidden, rows.n, logits + (size_t)at * V);
		at += rows.n;
	}
	stave_lm_close(lm);
	stave_arena_close(&arena);
	return logits;
}

/* ---- distances ---- */

/* Logarithms of probabilities, in place. */
__attribute__((unused)) static void parity_log_softmax(double *x, int V)
{
	double top = -INFINITY, sum = 0;
	for (int i = 0; i < V; i++)
		top = x[i] > top ? x[i] : top;
	for (int i = 0; i < V; i++)
		sum += exp(x[i] - top);
	for (int i = 0; i < V; i++)
		x[i] -= top + log(sum);
}

/* Mean over rows of KL(plain || other), in nats. plain: (rows, V) logarithms of probabilities; other: logits. */
__attribute__((unused)) static double parity_kl(const double *plain, const float *other, int rows, int V)
{
	double total = 0, *q = malloc((size_t)V * sizeof *q);
	for (int r = 0; r < rows; r++, plain += V, other += V) {
		for (int i = 0; i < V; i++)
			q[i] = (double)other[i];
		parity_log_softmax(q, V);
		for (int i = 0; i < V; i++)
			total += exp(plain[i]) * (plain[i] - q[i]);
	}
	free(q);
	return total / rows;
}

/* The plain reference's logarithms of probabilities (prompt + steps, V); the caller frees them. */
__attribute__((unused)) static double *parity_plain(const struct stave_source *s, const struct parity_run *r)
{
	int V = stave_source_shape(s)->V;
	double *y = plain_logits(s, r->ids, r->prompt + r->steps);
	for (int i = 0; i < r->prompt + r->steps; i++)
		parity_log_softmax(y + (size_t)i * (size_t)V, V);
	return y;
}

#endif
