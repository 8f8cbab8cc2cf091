/* Speed of tokenizer training and of encoding: bench_text FILE [megabytes] [vocab]. One JSON line on stdout.
 *
 * A small file is made larger by drawing its paragraphs at random. That alone would flatter both numbers, because such
 * a text has the few distinct words of the small file; English prose of 100 MB has near a million. So one word in 25
 * gets one letter changed at random, which brings the count of distinct words to that of real text. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/sys.h"
#include "text/text.h"

static void misspell(char *p, size_t n, uint64_t seed)
{
	uint64_t index = 0;
	for (size_t i = 0, begin = 0; i <= n; i++) {
		if (i < n && p[i] != ' ' && p[i] != '\n')
			continue;
		uint64_t r = stave_random64(seed, index++);
		if (i > begin && r % 25 == 0) {
			char *c = &p[begin + (r >> 32) % (i - begin)];
			if ((*c | 32) >= 'a' && (*c | 32) <= 'z')
				*c = (char)('a' + (r >> 16) % 26);
		}
		begin = i + 1;
	}
}

/* Paragraphs of the file in random order, until there are `want` bytes. */
static void enlarge(const struct stave_buf *file, size_t want, struct stave_buf *text)
{
	size_t *start = malloc((file->len + 2) * sizeof *start), n = 0;
	start[n++] = 0;
	for (size_t i = 0; i + 2 < file->len; i++)
		if (file->p[i] == '\n' && file->p[i + 1] == '\n')
			start[n++] = i + 2;
	start[n] = file->len;
	for (uint64_t k = 0; text->len < want; k++) {
		size_t i = stave_random64(1, k) % n, at = text->len;
		stave_buf_put(text, file->p + start[i], start[i + 1] - start[i]);
		misspell(text->p + at, text->len - at, k);
	}
	free(start);
}

/* Megabytes a second of encoding on all threads, in pieces of a megabyte. */
static int encode_speed(const struct stave_tokenizer *t, const struct stave_buf *text, double *mb_s, size_t *tokens, struct stave_err *err)
{
	const size_t piece = 1 << 20;
	size_t pieces = (text->len + piece - 1) / piece, sum = 0;
	double begin = stave_now_s();
	int failed = 0;
#pragma omp parallel num_threads(stave_threads()) reduction(+ : sum, failed)
	{
		struct stave_encoder *e = NULL;
		struct stave_ids ids = {0};
		struct stave_err mine = {0};
		failed += stave_encoder_open(&e, t, &mine) != 0;
#pragma omp for schedule(dynamic, 1)
		for (size_t i = 0; i < pieces; i++) {
			size_t n = i + 1 < pieces ? piece : text->len - i * piece;
			ids.n = 0;
			failed += e && stave_encode(e, text->p + i * piece, n, false, &ids, &mine);
			sum += ids.n;
		}
		stave_ids_free(&ids);
		stave_encoder_free(e);
	}
	*mb_s = (double)text->len / 1e6 / (stave_now_s() - begin);
	*tokens = sum;
	return failed ? stave_err_set(err, STAVE_EFAIL, "encoding failed") : 0;
}

int main(int argc, char **argv)
{
	struct stave_buf file = {0}, text = {0};
	struct stave_err err = {0};
	struct stave_bpe_trainer *b = NULL;
	struct stave_tokenizer *t = NULL;
	if (argc < 2) {
		fprintf(stderr, "usage: bench_text FILE [megabytes] [vocab]\n");
		return 2;
	}
	size_t want = (size_t)((argc > 2 ? atof(argv[2]) : 100) * 1e6), tokens = 0;
	int vocab = argc > 3 ? atoi(argv[3]) : 32000;
	double encode_mb_s = 0;
	int rc = stave_file_read(&file, argv[1], (size_t)1 << 32, &err);
	if (rc)
		goto fail;
	enlarge(&file, want, &text);
	double begin = stave_now_s();
	if ((rc = stave_bpe_trainer_open(&b, "gpt2", &err)) || (rc = stave_bpe_trainer_add(b, text.p, text.len, &err)))
		goto fail;
	double counted = stave_now_s();
	rc = stave_bpe_trainer_finish(b, vocab, &t, &err);
	b = NULL;
	if (rc)
		goto fail;
	double trained = stave_now_s();
	if ((rc = encode_speed(t, &text, &encode_mb_s, &tokens, &err)))
		goto fail;
	printf("{\"bytes\": %zu, \"threads\": %d, \"vocab\": %d, \"count_s\": %.3f, \"merge_s\": %.3f, \"train_mb_s\": %.1f, \"encode_mb_s\": %.1f, \"bytes_per_token\": %.3f}\n",
	       text.len, stave_threads(), stave_tokenizer_vocab(t), counted - begin, trained - counted, (double)text.len / 1e6 / (trained - begin), encode_mb_s, (double)text.len / (double)tokens);
fail:
	if (rc)
		fprintf(stderr, "bench_text: %s\n", err.msg);
	stave_bpe_trainer_free(b);
	stave_tokenizer_free(t);
	stave_buf_free(&file);
	stave_buf_free(&text);
	return rc ? 1 : 0;
}
