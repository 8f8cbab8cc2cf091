/* The decoder against independent truths: the training forward pass (directories in F32), the plain double-precision reference of all
 * families (plain.h), merged weights (adapters); and against itself: rows alone, in company, cut differently and on another
 * number of threads give the same bits for every cache type, wherever the weights are; the plan is what is taken. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/safetensors.h"
#include "base/sys.h"
#include "kernel/panel.h"
#include "model/any_model.h"
#include "model/lm.h"
#include "model/model.h"
#include "model/plain.h"

enum { V = 131, T = 150, CONTEXT = 192, PAGES_OF_ONE = CONTEXT / STAVE_PAGE, COMPANY = 5, ROWS = 200 };

static char dir[] = "/tmp/stave-lm-XXXXXX";
static const char *inside(const char *name)
{
	static char path[4][STAVE_PATH];
	static int next;
	char *p = path[next++ % 4];
	snprintf(p, STAVE_PATH, "%s/%s", dir, name);
	return p;
}

static double relative(const float *got, const float *want, int64_t n)
{
	double d = 0, w = 0;
	for (int64_t i = 0; i < n; i++) {
		d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		w += (double)want[i] * want[i];
	}
	return sqrt(d / (w > 0 ? w : 1));
}

/* ---- an open model ---- */

struct rig {
	struct stave_source *source;
	struct stave_lm *lm;
	struct stave_arena arena;
	int32_t ids[COMPANY][T];
};

static void open_rig(struct rig *r, const char *path, enum stave_qtype type, enum stave_cache_type cache)
{
	struct stave_err e = {0};
	struct stave_lm_memory m;
	must(stave_source_open(&r->source, path, &e), &e);
	struct stave_lm_config c = {.source = r->source, .type = type, .cache = cache, .pages = COMPANY * PAGES_OF_ONE, .context = CONTEXT, .rows = ROWS};
	must(stave_lm_plan(&c, &m, &e), &e);
	assert_int_equal(m.total, m.weights + m.cache + m.workspace);
	must(stave_arena_open(&r->arena, "model", m.total, &e), &e);
	must(stave_lm_open(&r->lm, &c, &r->arena, &e), &e);
	assert_int_equal(r->arena.used, m.total);
	for (int i = 0; i < COMPANY * T; i++)
		r->ids[i / T][i % T] = (int32_t)(stave_random64(9, (uint64_t)i) % V);
}

static void close_rig(struct rig *r)
{
	stave_lm_close(r->lm);
	stave_arena_close(&r->arena);
	stave_source_close(r->source);
}

/* Pages of a sequence, scattered: neighbours in a sequence are none in the pool. */
static const int32_t *pages_of(int sequence)
{
	static int32_t pages[COMPANY][PAGES_OF_ONE];
	for (int i = 0; i < PAGES_OF_ONE; i++)
		pages[sequence][i] = (int32_t)((sequence + 3 * i) % COMPANY + COMPANY * i);
	return pages[sequence];
}

/* Logits (n, V) of sequence 0's first n tokens, in pieces (a zero ends: the last is repeated), with `company` others beside it that
 * are cut in their own ways. */
static void logits_of(struct rig *r, int n, const int *pieces, int company, const struct stave_adapter *adapter, const struct stave_adapter *others, float *logits)
{
	int past = 0, piece = *pieces, theirs[COMPANY] = {0};
	while (past < n) {
		struct stave_lm_rows s[COMPANY];
		int m = 0, mine = company / 2, room = ROWS - (n - past < piece ? n - past : piece);
		for (int i = 1; i <= company; i++) {
			int want = i % 2 ? 1 : 7, left = n - theirs[i], k = want < left ? want : left;
			if (m == mine)
				m++;
			if (k <= 0 || k > room)
				continue;
			room -= k;
			s[m++] = (struct stave_lm_rows){.ids = r->ids[i] + theirs[i], .n = k, .past = theirs[i], .pages = pages_of(i), .adapter = others};
			theirs[i] += k;
		}
		mine = mine < m ? mine : m; /* others may have run out */
		s[mine] = (struct stave_lm_rows){.ids = r->ids[0] + past, .n = n - past < piece ? n - past : piece, .past = past, .pages = pages_of(0), .adapter = adapter};
		m = m > mine + 1 ? m : mine + 1;
		stave_lm_run(r->lm, s, m);
		const float *rows[T];
		for (int i = 0; i < s[mine].n; i++)
			rows[i] = s[mine].hidden + (size_t)i * (size_t)stave_source_shape(r->source)->C;
		stave_lm_logits(r->lm, rows, s[mine].n, logits + (size_t)past * V);
		past += s[mine].n;
		if (pieces[1])
			piece = *++pieces;
	}
}

/* ---- against the training network ---- */

static void perturb(const struct stave_layout *l, float *p, uint64_t seed, float size)
{
	for (int i = 0; i < l->n_params; i++)
		for (int64_t j = 0; j < (int64_t)l->params[i].rows * l->params[i].cols; j++)
			p[l->params[i].offset + j] += size * (float)(stave_random_unit(seed + (uint64_t)i, (uint64_t)j) - 0.5);
}

struct trained {
	struct stave_layout l;
	struct stave_arena arena;
	float *p;
};

static void open_trained(struct trained *t, const struct stave_shape *s)
{
	struct stave_err e = {0};
	must(stave_layout_open(&t->l, s, &e), &e);
	must(stave_arena_open(&t->arena, "params", (size_t)t->l.n * 4, &e), &e);
	t->p = stave_arena_take(&t->arena, (size_t)t->l.n * 4);
	stave_weights_init(&t->l, t->p, 3);
	perturb(&t->l, t->p, 0, 0.2f);
}

static void close_trained(struct trained *t)
{
	stave_arena_close(&t->arena);
	stave_layout_close(&t->l);
}

static void save(const struct trained *t, const char *path)
{
	struct stave_err e = {0};
	must(stave_mkdirs(path, &e), &e);
	must(stave_weights_save(&t->l, t->p, path, STAVE_F32, -1, -1, &e), &e);
}

static void network_logits(const struct trained *t, const int32_t *ids, float *want)
{
	struct stave_err e = {0};
	struct stave_net_config c = {.shape = t->l.shape, .B = 1, .T = T, .dtype = STAVE_F32};
	struct stave_net_memory m;
	struct stave_arena a;
	struct stave_net *net;
	int32_t targets[T] = {0};
	must(stave_net_plan(&c, &m, &e), &e);
	must(stave_arena_open(&a, "net", m.total, &e), &e);
	must(stave_net_open(&net, &c, &t->l, t->p, NULL, &a, &e), &e);
	stave_net_logits(net, &(struct stave_batch){.inputs = ids, .targets = targets}, want);
	stave_net_close(net);
	stave_arena_close(&a);
}

static void check_trained(const struct stave_shape *s, const char *what)
{
	static float want[T * V], got[T * V];
	static const struct {
		enum stave_qtype type;
		enum stave_cache_type cache;
		double most;
	} forms[] = {{STAVE_QTYPE_COUNT, STAVE_CACHE_F32, 1e-5}, {STAVE_Q_BF16, STAVE_CACHE_BF16, 2e-2}, {STAVE_Q_Q8_0, STAVE_CACHE_I8, 4e-2}};
	struct trained t;
	struct rig r;
	open_trained(&t, s);
	save(&t, inside("trained"));
	for (int i = 0; i < 3; i++) {
		open_rig(&r, inside("trained"), forms[i].type, forms[i].cache);
		if (i == 0)
			network_logits(&t, r.ids[0], want);
		logits_of(&r, T, (int[]){100, 0}, 0, NULL, NULL, got);
		double off = relative(got, want, T * V);
		if (!(off < forms[i].most))
			fail_msg("%s, form %d: relative error %g", what, i, off);
		close_rig(&r);
	}
	close_trained(&t);
	stave_remove_tree(inside("trained"), NULL);
}

static void equals_the_training_network(void **state)
{
	struct stave_shape s = any_shape(STAVE_GPT2);
	check_trained(&s, "gpt2");
	s.act = STAVE_GELU_EXACT;
	s.norm_bias = s.qkv_bias = s.out_bias = s.mlp_bias = false;
	check_trained(&s, "gpt2 without biases");
	s = any_shape(STAVE_LLAMA);
	check_trained(&s, "llama");
	s.rope_factor = 8, s.rope_low = 1, s.rope_high = 4, s.rope_original = 32;
	check_trained(&s, "llama 3 rope");
	s.rope_linear = true;
	check_trained(&s, "linear rope");
	s = any_shape(STAVE_MISTRAL);
	check_trained(&s, "mistral");
	s = any_shape(STAVE_QWEN2);
	check_trained(&s, "qwen2");
	s = any_shape(STAVE_QWEN3);
	check_trained(&s, "qwen3");
}

/* ---- against PyTorch ---- */

static void equals_pytorch(void **state)
{
	static const char *const families[] = {"gpt2 n_embd=64 n_layer=2 n_head=4 n_positions=256 vocab_size=131",
	                                       "llama hidden_size=64 intermediate_size=96 num_hidden_layers=2 num_attention_heads=4 num_key_value_heads=2 head_dim=16 vocab_size=131",
	                                       "qwen3 hidden_size=64 intermediate_size=96 num_hidden_layers=2 num_attention_heads=4 num_key_value_heads=2 head_dim=32 vocab_size=131"};
	static float got[T * V];
	char peer[STAVE_PATH], line[4 * STAVE_PATH], text[8 * T];
	const char *shared = getenv("STAVE_SHARED");
	snprintf(peer, sizeof peer, "%s/peers/torch_ref.py", shared ? shared : "../shared");
	if (!stave_exists(peer) || system("/usr/bin/python3 -c 'import torch' >/dev/null 2>&1")) {
		print_message("no torch_ref.py under STAVE_SHARED, or no python3-torch: not compared with PyTorch\n");
		skip();
	}
	for (int f = 0; f < 3; f++) {
		struct stave_err e = {0};
		struct stave_st st;
		struct rig r;
		snprintf(line, sizeof line, "THREADS=2 %s init %.*s %s %s >/dev/null", peer, (int)strcspn(families[f], " "), families[f], inside("torch"),
		         strchr(families[f], ' '));
		assert_int_equal(system(line), 0);
		open_rig(&r, inside("torch"), STAVE_QTYPE_COUNT, STAVE_CACHE_F32);
		size_t n = (size_t)snprintf(text, sizeof text, "[[");
		for (int i = 0; i <= T; i++) /* the last is only a target */
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%d", i ? "," : "", i < T ? r.ids[0][i] : 0);
		snprintf(text + n, sizeof text - n, "]]");
		must(stave_file_write(inside("tokens.json"), text, strlen(text), &e), &e);
		snprintf(line, sizeof line, "THREADS=2 %s check %s %s %s >/dev/null", peer, inside("torch"), inside("tokens.json"), inside("torch.safetensors"));
		assert_int_equal(system(line), 0);
		must(stave_st_open(&st, inside("torch.safetensors"), &e), &e);
		const struct stave_st_tensor *t = stave_st_find(&st, "logits");
		assert_true(t && stave_st_elements(t) == T * V && t->dtype == STAVE_F32);
		float *want = malloc(sizeof got);
		memcpy(want, t->data, sizeof got);
		logits_of(&r, T, (int[]){40, 1, 64, 0}, 0, NULL, NULL, got);
		double off = relative(got, want, T * V);
		if (!(off < 1e-5))
			fail_msg("%.5s: relative error %g", families[f], off);
		free(want);
		stave_st_close(&st);
		close_rig(&r);
		stave_remove_tree(inside("torch"), NULL);
	}
}

/* ---- against the plain reference ---- */

static double relative_plain(const float *got, const double *want, int64_t n)
{
	double d = 0, w = 0;
	for (int64_t i = 0; i < n; i++) {
		d += (got[i] - want[i]) * (got[i] - want[i]);
		w += want[i] * want[i];
	}
	return sqrt(d / (w > 0 ? w : 1));
}

/* Half of the rows are at most this far off. Rounding now and then turns a router's choice, and then a row is another one. */
static double typical(const float *got, const double *want, int rows, int width)
{
	double off[T];
	for (int r = 0; r < rows; r++) {
		off[r] = relative_plain(got + (size_t)r * (size_t)width, want + (size_t)r * (size_t)width, width);
		for (int i = r; i > 0 && off[i] < off[i - 1]; i--) {
			double t = off[i];
			off[i] = off[i - 1];
			off[i - 1] = t;
		}
	}
	return off[rows / 2];
}

static void equals_plain(void **state)
{
	static float got[T * V];
	for (int f = 0; f < STAVE_FAMILIES; f++)
		for (int form = 0; form < 2; form++) {
			if (f == STAVE_BERT)
				continue;
			struct stave_shape s = any_shape((enum stave_family)f);
			struct rig r;
			any_write(inside("any.gguf"), &s, form ? STAVE_Q_Q8_0 : STAVE_Q_F32);
			open_rig(&r, inside("any.gguf"), STAVE_QTYPE_COUNT, form ? STAVE_CACHE_BF16 : STAVE_CACHE_F32);
			double *want = plain_logits(r.source, r.ids[0], T);
			logits_of(&r, T, (int[]){T, 0}, 0, NULL, NULL, got);
			double off = form && s.experts ? typical(got, want, T, V) : relative_plain(got, want, T * V);
			free(want);
			if (!(off < (form ? s.experts ? 0.1 : 3e-2 : 1e-5)))
				fail_msg("family %d, form %d: relative error %g", f, form, off);
			close_rig(&r);
		}
}

/* An encoder has no logits: its hidden states. */
static void encoder_equals_plain(void **state)
{
	enum { N = 100, C = 64 };
	struct stave_shape s = any_shape(STAVE_BERT);
	struct rig r;
	any_write(inside("any.gguf"), &s, STAVE_Q_F32);
	open_rig(&r, inside("any.gguf"), STAVE_QTYPE_COUNT, STAVE_CACHE_F32);
	double *want = plain_hidden(r.source, r.ids[0], N);
	struct stave_lm_rows rows[2] = {{.ids = r.ids[1], .n = 30, .pages = pages_of(1)}, {.ids = r.ids[0], .n = N, .pages = pages_of(0)}};
	stave_lm_run(r.lm, rows, 2);
	double off = relative_plain(rows[1].hidden, want, N * C);
	free(want);
	if (!(off < 1e-5))
		fail_msg("relative error %g", off);
	static float beside[N * C];
	memcpy(beside, rows[1].hidden, sizeof beside);
	stave_lm_run(r.lm, rows + 1, 1);
	assert_memory_equal(rows[1].hidden, beside, sizeof beside);
	close_rig(&r);
}

/* ---- against itself ---- */

static void check_bits(const char *path, enum stave_qtype type, enum stave_cache_type cache, const char *what)
{
	static const int pieces[][8] = {{1}, {T}, {64}, {8, 1, 1, 16, 1, 50}, {3, 13, 29}, {65, 1, 63, 2}};
	static float one[T * V], got[T * V];
	struct rig r;
	open_rig(&r, path, type, cache);
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
		for (int company = 0; company < COMPANY; company += 3) {
			float *to = i || company ? got : one;
			memset(to, 0, sizeof one);
			logits_of(&r, T, pieces[i], company, NULL, NULL, to);
			if (to == got && memcmp(one, got, sizeof one))
				fail_msg("%s, type %d, cache %d: pieces %zu with %d neighbours differ by %g", what, (int)type, (int)cache, i, company,
				         relative(got, one, T * V));
		}
	close_rig(&r);
}

static void rows_do_not_depend_on_company(void **state)
{
	static const enum stave_family families[] = {STAVE_GPT2, STAVE_LLAMA, STAVE_GEMMA2, STAVE_GEMMA3, STAVE_QWEN3_MOE};
	for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
		struct stave_shape s = any_shape(families[i]);
		any_write(inside("any.gguf"), &s, STAVE_Q_Q8_0);
		check_bits(inside("any.gguf"), STAVE_QTYPE_COUNT, (enum stave_cache_type)(i % 3), "family");
	}
	struct stave_shape s = any_shape(STAVE_LLAMA);
	any_write(inside("any.gguf"), &s, STAVE_Q_F32);
	static const enum stave_qtype types[] = {STAVE_Q_F32, STAVE_Q_F16, STAVE_Q_BF16, STAVE_Q_Q4_0, STAVE_Q_Q5_1};
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		check_bits(inside("any.gguf"), types[i], STAVE_CACHE_BF16, "type");
}

/* One panel of each matrix is in its place, and what lies behind it there is not to be read. */
static void unsettle(struct stave_lm *d)
{
	for (int i = 0; i < d->n_matrices; i++) {
		struct lm_matrix *m = d->matrix[i];
		size_t ready = lm_panel_bytes(&m->w);
		assert_int_equal(m->ready, stave_panels(&m->w));
		m->ready = 1;
		memset((char *)(uintptr_t)m->w.data + ready, 0xff, ready * (size_t)(stave_panels(&m->w) - 1));
	}
	d->settled = 0;
}

/* Weights in the file, some of them in their places, a part of each, all: the same bits. */
static void settling_does_not_show(void **state)
{
	static const enum stave_qtype types[] = {STAVE_Q_F32, STAVE_Q_BF16, STAVE_Q_Q8_0, STAVE_Q_Q4_0};
	static const int whole[] = {T, 0}, cut[] = {64, 1, 30, 0}, *const cuts[] = {whole, cut};
	static float before[T * V], got[T * V];
	for (int f = 0; f < STAVE_FAMILIES; f++)
		for (size_t t = 0; t < sizeof types / sizeof *types && f != STAVE_BERT; t++) {
			struct stave_shape s = any_shape((enum stave_family)f);
			struct rig r;
			int calls = 0;
			any_write(inside("any.gguf"), &s, types[t]);
			open_rig(&r, inside("any.gguf"), STAVE_QTYPE_COUNT, STAVE_CACHE_F32);
			assert_false(stave_lm_settle(r.lm, 0));
			logits_of(&r, T, whole, 0, NULL, NULL, before);
			for (bool all = false; !all;) {
				all = stave_lm_settle(r.lm, calls < 3 ? 1e-6 : 1e9);
				logits_of(&r, T, cuts[calls++ % 2], 0, NULL, NULL, got);
				if (memcmp(before, got, sizeof got))
					fail_msg("family %d, type %d: settling changed the result, call %d", f, (int)types[t], calls);
			}
			unsettle(r.lm);
			logits_of(&r, T, whole, 0, NULL, NULL, got);
			assert_memory_equal(before, got, sizeof got);
			assert_true(stave_lm_settle(r.lm, 1e9));
			logits_of(&r, T, whole, 0, NULL, NULL, got);
			assert_memory_equal(before, got, sizeof got);
			close_rig(&r);
		}
}

static void threads_do_not_show(void **state)
{
	static float one[T * V], two[T * V];
	struct stave_shape s = any_shape(STAVE_MIXTRAL);
	struct rig r;
	any_write(inside("any.gguf"), &s, STAVE_Q_Q8_0);
	for (int n = 1; n <= 3; n += 2) {
		stave_threads_set(n);
		open_rig(&r, inside("any.gguf"), STAVE_QTYPE_COUNT, STAVE_CACHE_BF16);
		logits_of(&r, T, (int[]){70, 1, 5, 0}, 2, NULL, NULL, n == 1 ? one : two);
		close_rig(&r);
	}
	stave_threads_set(2);
	assert_memory_equal(one, two, sizeof one);
}

/* A copied page continues as the original does. */
static void pages_copy(void **state)
{
	enum { AT = 80 };
	static float want[V], got[V];
	struct stave_shape s = any_shape(STAVE_LLAMA);
	struct rig r;
	any_write(inside("any.gguf"), &s, STAVE_Q_Q8_0);
	open_rig(&r, inside("any.gguf"), STAVE_QTYPE_COUNT, STAVE_CACHE_I8);
	int32_t copied[PAGES_OF_ONE];
	memcpy(copied, pages_of(0), sizeof copied);
	copied[1] = pages_of(1)[1];
	struct stave_lm_rows rows = {.ids = r.ids[0], .n = AT, .pages = pages_of(0)};
	stave_lm_run(r.lm, &rows, 1);
	stave_lm_copy_page(r.lm, copied[1], pages_of(0)[1]);
	for (int i = 0; i < 2; i++) {
		rows = (struct stave_lm_rows){.ids = r.ids[0] + AT, .n = 1, .past = AT, .pages = i ? copied : pages_of(0)};
		stave_lm_run(r.lm, &rows, 1);
		stave_lm_logits(r.lm, &rows.hidden, 1, i ? got : want);
	}
	assert_memory_equal(got, want, sizeof got);
	close_rig(&r);
}

/* ---- adapters ---- */

enum { RANK = 5 };

/* B A of every module as a safetensors file, values as functions of the tensor's index. */
static void write_adapter(const char *path, const char *const *modules, const int (*dims)[2], int n, int L)
{
	struct stave_err e = {0};
	struct stave_st_writer w;
	static struct stave_st_tensor t[64];
	static char names[64][128];
	int count = 0;
	must(stave_mkdirs(path, &e), &e);
	for (int layer = 0; layer < L; layer++)
		for (int i = 0; i < n; i++)
			for (int half = 0; half < 2; half++, count++) {
				snprintf(names[count], sizeof names[count], modules[i], layer, half ? 'B' : 'A');
				t[count] = (struct stave_st_tensor){.name = names[count], .dtype = STAVE_F32, .n_dims = 2,
				                                    .shape = {half ? dims[i][0] : RANK, half ? RANK : dims[i][1]}};
			}
	char file[STAVE_PATH];
	snprintf(file, sizeof file, "%s/adapter_model.safetensors", path);
	must(stave_st_create(&w, file, t, count, NULL, 0, &e), &e);
	for (int i = 0; i < count; i++)
		for (int64_t j = 0; j < stave_st_elements(&t[i]); j++) {
			float v = (float)(stave_random_unit(77 + (uint64_t)i, (uint64_t)j) - 0.5);
			must(stave_st_write(&w, &v, 4, &e), &e);
		}
	must(stave_st_commit(&w, &e), &e);
}

static void write_adapter_config(const char *path, const char *json)
{
	struct stave_err e = {0};
	char file[STAVE_PATH];
	snprintf(file, sizeof file, "%s/adapter_config.json", path);
	must(stave_file_write(file, json, strlen(json), &e), &e);
}

/* w (out, in) += scale B A, as files have it. */
static void merge(float *p, int64_t at, int out, int in, int tensor, double scale)
{
	for (int o = 0; o < out; o++)
		for (int i = 0; i < in; i++) {
			double sum = 0;
			for (int k = 0; k < RANK; k++)
				sum += (double)(float)(stave_random_unit(78 + (uint64_t)tensor, (uint64_t)(o * RANK + k)) - 0.5) *
				       (double)(float)(stave_random_unit(77 + (uint64_t)tensor, (uint64_t)(k * in + i)) - 0.5);
			p[at + (int64_t)o * in + i] += (float)(scale * sum);
		}
}

/* Open, planned, and taken from an arena of just that size. */
static struct stave_adapter *open_adapter(const char *path, const struct stave_source *base, struct stave_arena *arena)
{
	struct stave_adapter *a;
	struct stave_err e = {0};
	struct stave_arena plan = stave_arena_plan("adapter");
	must(stave_adapter_open(&a, path, base, &e), &e);
	stave_adapter_take(a, &plan);
	must(stave_arena_open(arena, "adapter", plan.used, &e), &e);
	stave_adapter_take(a, arena);
	assert_int_equal(arena->used, plan.used);
	return a;
}

static void adapters_equal_merged_weights(void **state)
{
	static const char *const modules[] = {"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", "base_model.model.model.layers.%d.self_attn.v_proj.lora_%c.weight",
	                                      "base_model.model.model.layers.%d.self_attn.o_proj.lora_%c.weight", "base_model.model.model.layers.%d.mlp.gate_proj.lora_%c.weight",
	                                      "base_model.model.model.layers.%d.mlp.up_proj.lora_%c.weight", "base_model.model.model.layers.%d.mlp.down_proj.lora_%c.weight"};
	static const int dims[][2] = {{64, 64}, {32, 64}, {64, 64}, {96, 64}, {96, 64}, {64, 96}};
	static float want[T * V], got[T * V], beside[T * V], plain[T * V];
	struct stave_shape s = any_shape(STAVE_LLAMA);
	struct stave_arena arena;
	struct trained t;
	struct rig r;
	open_trained(&t, &s);
	save(&t, inside("base"));
	write_adapter(inside("lora"), modules, dims, 6, s.L);
	write_adapter_config(inside("lora"), "{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 2, \"bias\": \"none\", \"modules_to_save\": null}");
	double scale = 2.0 / RANK;
	for (int i = 0; i < s.L; i++) {
		const struct stave_layer_at *at = &t.l.layer[i];
		const int64_t where[] = {at->qkv_w, at->qkv_w + (64 + 32) * 64, at->out_w, at->up_w, at->up_w + 96 * 64, at->down_w};
		for (int m = 0; m < 6; m++)
			merge(t.p, where[m], dims[m][0], dims[m][1], (i * 6 + m) * 2, scale);
	}
	open_rig(&r, inside("base"), STAVE_QTYPE_COUNT, STAVE_CACHE_F32);
	struct stave_adapter *a = open_adapter(inside("lora"), r.source, &arena);
	network_logits(&t, r.ids[0], want);
	logits_of(&r, T, (int[]){T, 0}, 0, a, NULL, got);
	double off = relative(got, want, T * V);
	if (!(off < 1e-5))
		fail_msg("adapted and merged differ by %g", off);
	logits_of(&r, T, (int[]){T, 0}, 0, NULL, NULL, plain);
	assert_true(relative(got, plain, T * V) > 0.05); /* it does something */
	for (int company = 1; company < COMPANY; company++) {
		logits_of(&r, T, (int[]){5, 64, 1, 0}, company, a, company % 2 ? a : NULL, beside);
		assert_memory_equal(got, beside, sizeof got);
		logits_of(&r, T, (int[]){5, 64, 1, 0}, company, NULL, a, beside);
		assert_memory_equal(plain, beside, sizeof plain); /* neighbours' adapters are theirs */
	}
	stave_adapter_close(a);
	stave_arena_close(&arena);
	close_rig(&r);
	close_trained(&t);
}

/* GPT-2's c_attn is one matrix in the file and three here; its base is stored (in, out), the adapter is not. */
static void fused_adapters(void **state)
{
	static const char *const modules[] = {"base_model.model.transformer.h.%d.attn.c_attn.lora_%c.weight", "base_model.model.transformer.h.%d.mlp.c_fc.lora_%c.weight"};
	static const int dims[][2] = {{192, 64}, {96, 64}};
	static float want[T * V], got[T * V];
	struct stave_shape s = any_shape(STAVE_GPT2);
	struct stave_arena arena;
	struct trained t;
	struct rig r;
	open_trained(&t, &s);
	save(&t, inside("base2"));
	write_adapter(inside("lora2"), modules, dims, 2, s.L);
	write_adapter_config(inside("lora2"), "{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 3, \"use_rslora\": true, \"fan_in_fan_out\": true}");
	for (int i = 0; i < s.L; i++) {
		merge(t.p, t.l.layer[i].qkv_w, 192, 64, i * 4, 3 / sqrt(RANK));
		merge(t.p, t.l.layer[i].up_w, 96, 64, i * 4 + 2, 3 / sqrt(RANK));
	}
	open_rig(&r, inside("base2"), STAVE_QTYPE_COUNT, STAVE_CACHE_F32);
	struct stave_adapter *a = open_adapter(inside("lora2"), r.source, &arena);
	network_logits(&t, r.ids[0], want);
	logits_of(&r, T, (int[]){T, 0}, 0, a, NULL, got);
	double off = relative(got, want, T * V);
	if (!(off < 1e-5))
		fail_msg("adapted and merged differ by %g", off);
	stave_adapter_close(a);
	stave_arena_close(&arena);
	close_rig(&r);
	close_trained(&t);
}

static void adapters_that_are_refused(void **state)
{
	static const char *const good = "{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 2}";
	static const struct {
		const char *module;
		int out, in;
		const char *config, *word;
	} bad[] = {
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 64, 64, "{\"peft_type\": \"IA3\"}", "IA3"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 64, 64, "{\"use_dora\": true}", "use_dora"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 64, 64, "{\"bias\": \"all\"}", "bias"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 64, 64, "{\"modules_to_save\": [\"lm_head\"]}", "modules_to_save"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 64, 64, "{\"lora_alpha\": \"x\"}", "lora_alpha"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 63, 64, NULL, "wanted"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight", 64, 65, NULL, "wanted"},
		{"base_model.model.model.layers.7%d.self_attn.q_proj.lora_%c.weight", 64, 64, NULL, "layers"},
		{"base_model.model.model.layers.-%d.self_attn.q_proj.lora_%c.weight", 64, 64, NULL, "not supported"},
		{"base_model.model.model.layers.99999999999999999999%d.self_attn.q_proj.lora_%c.weight", 64, 64, NULL, "not supported"},
		{"base_model.model.model.layers.%d.self_attn.z_proj.lora_%c.weight", 64, 64, NULL, "z_proj"},
		{"base_model.model.lm_head%d.lora_%c.weight", 131, 64, NULL, "lm_head"},
		{"base_model.model.model.layers.%d.self_attn.q_proj.lora_%c_other.weight", 64, 64, NULL, "not supported"},
		{"lora_%d_%c", 64, 64, NULL, "not supported"},
	};
	struct stave_shape s = any_shape(STAVE_LLAMA);
	struct stave_source *source;
	struct stave_adapter *a = NULL;
	struct stave_err e = {0};
	any_write(inside("any.gguf"), &s, STAVE_Q_F32);
	must(stave_source_open(&source, inside("any.gguf"), &e), &e);
	assert_true(stave_adapter_open(&a, inside("no such directory"), source, &e) < 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		write_adapter(inside("bad"), &bad[i].module, &(const int[1][2]){{bad[i].out, bad[i].in}}[0], 1, 1);
		write_adapter_config(inside("bad"), bad[i].config ? bad[i].config : good);
		int rc = stave_adapter_open(&a, inside("bad"), source, &e);
		if (!rc || !strstr(e.msg, bad[i].word))
			fail_msg("adapter %zu: %d, %s", i, rc, rc ? e.msg : "accepted");
		stave_remove_tree(inside("bad"), NULL);
	}
	stave_source_close(source);
}

/* ---- numbers ---- */

/* A token of a mixture reads the shared matrices and its own experts. */
static void token_bytes_of_experts(void **state)
{
	struct stave_shape s = any_shape(STAVE_MIXTRAL);
	struct stave_lm_memory all;
	struct stave_err e = {0};
	struct rig r;
	any_write(inside("any.gguf"), &s, STAVE_Q_Q8_0);
	open_rig(&r, inside("any.gguf"), STAVE_QTYPE_COUNT, STAVE_CACHE_BF16);
	struct stave_lm_config c = {.source = r.source, .type = STAVE_QTYPE_COUNT, .cache = STAVE_CACHE_BF16, .pages = 1, .context = 64, .rows = 1};
	must(stave_lm_plan(&c, &all, &e), &e);
	double position = (double)stave_page_bytes(STAVE_CACHE_BF16, s.D) / STAVE_PAGE * s.K * s.L;
	double expert = (double)s.L * (double)(2 * stave_packed_bytes(STAVE_Q_Q8_0, s.I, s.C) + stave_packed_bytes(STAVE_Q_Q8_0, s.C, s.I));
	double bytes = stave_lm_token_bytes(r.lm, 9);
	assert_true(fabs(stave_lm_token_bytes(r.lm, 19) - bytes - 10 * position) < 1e-6);
	double weights = bytes - 10 * position + (s.experts - s.experts_used) * expert; /* of all experts: what is packed, less vectors and the table */
	assert_true(weights < (double)all.weights && weights > 0.9 * (double)all.weights);
	close_rig(&r);
}

static void refusals(void **state)
{
	struct stave_shape s = any_shape(STAVE_LLAMA);
	struct stave_source *source;
	struct stave_lm_memory m;
	struct stave_err e = {0};
	any_write(inside("any.gguf"), &s, STAVE_Q_F32);
	must(stave_source_open(&source, inside("any.gguf"), &e), &e);
	const struct stave_lm_config good = {.source = source, .type = STAVE_Q_Q8_0, .cache = STAVE_CACHE_BF16, .pages = 4, .context = 256, .rows = 8};
	must(stave_lm_plan(&good, &m, &e), &e);
#define REFUSED(field, value, code)                                      \
	do {                                                             \
		struct stave_lm_config c = good;                         \
		c.field = value;                                         \
		assert_int_equal(stave_lm_plan(&c, &m, &e), code);       \
	} while (0)
	REFUSED(context, 257, STAVE_EUSAGE);
	REFUSED(context, 0, STAVE_EUSAGE);
	REFUSED(pages, 0, STAVE_EUSAGE);
	REFUSED(pages, -1, STAVE_EUSAGE);
	REFUSED(rows, 0, STAVE_EUSAGE);
	REFUSED(rows, INT32_MAX, STAVE_EUSAGE);
	REFUSED(type, STAVE_Q_Q2_K, STAVE_EUSAGE);
	REFUSED(type, (enum stave_qtype)99, STAVE_EUSAGE);
	REFUSED(cache, (enum stave_cache_type)7, STAVE_EUSAGE);
#undef REFUSED
	stave_source_close(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equals_the_training_network),   cmocka_unit_test(equals_pytorch), cmocka_unit_test(equals_plain),
		cmocka_unit_test(encoder_equals_plain),          cmocka_unit_test(rows_do_not_depend_on_company),
		cmocka_unit_test(settling_does_not_show),
		cmocka_unit_test(threads_do_not_show),           cmocka_unit_test(pages_copy),
		cmocka_unit_test(adapters_equal_merged_weights), cmocka_unit_test(fused_adapters),
		cmocka_unit_test(adapters_that_are_refused),     cmocka_unit_test(token_bytes_of_experts),
		cmocka_unit_test(refusals),
	};
	if (!mkdtemp(dir))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	stave_remove_tree(dir, NULL);
	return failed;
}
