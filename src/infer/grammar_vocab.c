/* The vocabulary as a trie in preorder: a walk over it reads memory forwards and skips a subtree by one jump. */
#include <stdlib.h>
#include <string.h>

#include "infer/grammar_build.h"

void stave_vocab_close(struct stave_vocab *v)
{
	if (!v)
		return;
	free(v->trie);
	free(v->same);
	free(v->stops);
	free(v->bytes);
	free(v->n_bytes);
	free(v);
}

struct word {
	const char *p;
	uint32_t n;
	int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
	const struct word *x = a, *y = b;
	int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
	if (c)
		return c;
	return x->n != y->n ? (x->n > y->n) - (x->n < y->n) : (x->id > y->id) - (x->id < y->id);
}

/* Sorted words become the trie: each adds the nodes beyond what it shares with the one before. */
static void build(struct stave_vocab *v, const struct word *w, int n)
{
	int32_t *path = calloc((size_t)v->longest + 2, sizeof *path); /* nodes on the way to the word before */
	uint32_t depth = 0;
	if (!path)
		abort();
	v->trie[0] = (struct trie_node){.token = -1};
	v->n_trie = 1;
	for (int i = 0; i < n; i++) {
		uint32_t same = 0;
		while (i && same < depth && same < w[i].n && w[i].p[same] == w[i - 1].p[same])
			same++;
		if (i && same == w[i].n && depth == w[i].n) { /* the same bytes again */
			v->same[w[i - 1].id] = w[i].id;
			v->trie[path[depth]].more = true;
			continue;
		}
		for (; depth > same; depth--)
			v->trie[path[depth]].skip = v->n_trie;
		for (; depth < w[i].n; depth++) {
			path[depth + 1] = v->n_trie;
			v->trie[v->n_trie++] = (struct trie_node){.token = -1, .depth = (uint16_t)(depth + 1), .byte = (uint8_t)w[i].p[depth]};
		}
		v->trie[path[depth]].token = w[i].id;
	}
	for (; depth > 0; depth--)
		v->trie[path[depth]].skip = v->n_trie;
	v->trie[0].skip = v->n_trie;
	free(path);
}

#define TOKEN_MAX 4096 /* bytes: longer ones are not offered */

int vocab_of(struct stave_vocab **out, const struct vocab_token *t, int V, struct stave_err *err)
{
	struct stave_vocab *v = calloc(1, sizeof *v);
	int n = 0;
	size_t total = 1, count = (size_t)V + 1;
	struct word *w = malloc(count * sizeof *w);
	if (v) {
		v->V = V;
		v->bytes = calloc(count, sizeof *v->bytes);
		v->n_bytes = calloc(count, sizeof *v->n_bytes);
		v->stops = malloc(count * sizeof *v->stops);
		v->same = malloc(count * sizeof *v->same);
	}
	if (!v || !w || !v->bytes || !v->n_bytes || !v->stops || !v->same)
		goto fail;
	memset(v->same, 0xff, count * sizeof *v->same);
	for (int32_t id = 0; id < V; id++) {
		if (t[id].stop)
			v->stops[v->n_stops++] = id;
		if (!t[id].p || !t[id].n || t[id].n > TOKEN_MAX || t[id].special || t[id].stop)
			continue;
		v->bytes[id] = t[id].p;
		v->n_bytes[id] = t[id].n;
		v->longest = (int)t[id].n > v->longest ? (int)t[id].n : v->longest;
		total += t[id].n;
		w[n++] = (struct word){t[id].p, t[id].n, id};
	}
	if (!(v->trie = malloc(total * sizeof *v->trie)))
		goto fail;
	qsort(w, (size_t)n, sizeof *w, by_bytes);
	build(v, w, n);
	struct trie_node *fit = realloc(v->trie, (size_t)v->n_trie * sizeof *fit);
	v->trie = fit ? fit : v->trie;
	free(w);
	*out = v;
	return 0;
fail:
	free(w);
	stave_vocab_close(v);
	return stave_err_set(err, STAVE_ENOMEM, "out of memory for the vocabulary of %d tokens", V);
}

int stave_vocab_open(struct stave_vocab **out, const struct stave_tokenizer *t, struct stave_err *err)
{
	int V = stave_tokenizer_vocab(t);
	struct vocab_token *list = calloc((size_t)V + 1, sizeof *list);
	if (!list)
		return stave_err_set(err, STAVE_ENOMEM, "out of memory for the vocabulary of %d tokens", V);
	for (int32_t id = 0; id < V; id++) {
		size_t n = 0;
		list[id].p = stave_tokenizer_bytes(t, id, &n);
		list[id].n = n > TOKEN_MAX ? TOKEN_MAX + 1 : (uint32_t)n;
		list[id].special = stave_tokenizer_is_special(t, id);
		list[id].stop = stave_tokenizer_is_stop(t, id);
	}
	int rc = vocab_of(out, list, V, err);
	free(list);
	return rc;
}
