/* stave prepare: text in, token shards out. The receipt goes to stderr; --json prints the same as one document. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "data/data.h"

static void help(const struct stave_config *c)
{
	printf("stave prepare book.txt --out data/book --tokenizer char\n"
	       "stave prepare corpus/ more.jsonl.zst --out data/web --tokenizer bpe:32k --filters web\n\n"
	       "Reads plain text, JSONL (a text field, or messages) and .gz or .zst of these, from files, directories and stdin (-);\n"
	       "drops duplicates and, where asked, what is not prose; splits, tokenizes, writes shards. A second run continues.\n\n");
	stave_config_help(c, stdout);
}

static json_t *receipt(const struct stave_prepare *p, const struct stave_prepare_result *r)
{
	char path[STAVE_PATH];
	json_t *report = NULL;
	struct stave_err ignored;
	json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s, s:i, s:i, s:b, s:f, s:f, s:f, s:f, s:f, s:s}", "out", p->out, "documents_read",
	                      (json_int_t)r->documents_read, "documents_kept", (json_int_t)r->documents_kept, "bytes_read", (json_int_t)r->bytes_read, "bytes_kept",
	                      (json_int_t)r->bytes_kept, "tokens_train", (json_int_t)r->tokens_train, "tokens_val", (json_int_t)r->tokens_val, "bytes_train",
	                      (json_int_t)r->bytes_train, "bytes_val", (json_int_t)r->bytes_val, "vocab", r->vocab, "tokenizer_sha256", r->tokenizer_sha256,
	                      "shards", r->shards, "shards_kept", r->shards_kept, "reused", r->reused, "seconds", r->seconds, "survey_s", r->survey_s, "learn_s",
	                      r->learn_s, "encode_s", r->encode_s, "write_s", r->write_s, "shortest_stave", r->shortest);
	if (j && !stave_path(path, p->out, "report.json", &ignored) && !stave_json_load(&report, path, (size_t)1 << 30, &ignored)) {
		json_object_set(j, "dropped", json_object_get(report, "dropped"));
		json_decref(report);
	}
	return j;
}

static void print_dropped(const json_t *dropped)
{
	const char *key, *name;
	json_t *d;
	json_object_foreach((json_t *)(uintptr_t)dropped, key, d) {
		name = json_string_value(json_array_get(json_object_get(d, "first"), 0));
		fprintf(stderr, "  dropped      %lld documents: %s (first: %s)\n", (long long)json_integer_value(json_object_get(d, "documents")), key, name ? name : "?");
	}
}

static void print_receipt(const struct stave_prepare *p, const struct stave_prepare_result *r, const json_t *j)
{
	char a[32], b[32], c[32], rate[32];
	fprintf(stderr, "prepared %s\n", p->out);
	fprintf(stderr, "  read         %lld documents, %s\n", (long long)r->documents_read, stave_bytes_text(a, (double)r->bytes_read));
	print_dropped(json_object_get(j, "dropped"));
	fprintf(stderr, "  train        %lld tokens, %s of text\n", (long long)r->tokens_train, stave_bytes_text(a, (double)r->bytes_train));
	fprintf(stderr, "  val          %lld tokens, %s of text\n", (long long)r->tokens_val, stave_bytes_text(a, (double)r->bytes_val));
	fprintf(stderr, "  tokenizer    %d tokens, %.2f bytes per token, sha256 %.12s\n", r->vocab,
	        (double)r->bytes_kept / (double)(r->tokens_train + r->tokens_val), r->tokenizer_sha256);
	fprintf(stderr, "  shards       %d", r->shards);
	if (r->shards_kept)
		fprintf(stderr, ", %d of them from an earlier run", r->shards_kept);
	fprintf(stderr, "\n  time         %s, %s/s", stave_duration_text(a, r->seconds), stave_bytes_text(rate, r->seconds > 0 ? (double)r->bytes_kept / r->seconds : 0));
	if (!r->reused)
		fprintf(stderr, " (survey %s, tokenizer %s, encoding %s)", stave_duration_text(a, r->survey_s), stave_duration_text(b, r->learn_s),
		        stave_duration_text(c, r->encode_s));
	fprintf(stderr, "\n  shortest     %s\n  next         stave train --data %s\n", r->shortest, p->out);
}

static int work(const struct stave_prepare *p, const char *const *inputs, int n, struct stave_err *err)
{
	struct stave_prepare_result r;
	int rc = stave_prepare_run(p, inputs, n, &r, err);
	if (rc)
		return rc;
	json_t *j = receipt(p, &r);
	print_receipt(p, &r, j);
	if (p->json)
		json_dumpf(j, stdout, JSON_INDENT(2)), putchar('\n');
	json_decref(j);
	return fflush(stdout) ? stave_err_errno(err, "writing to stdout") : 0;
}

int stave_cli_prepare(int argc, char **argv)
{
	struct stave_prepare p = {0};
	struct stave_config c = {0};
	struct stave_err err = {0};
	const char **inputs = malloc(sizeof(char *) * (size_t)(argc + 1));
	int n = 0;
	bool asked = false;
	int rc = inputs ? stave_config_open(&c, stave_prepare_keys, (size_t)stave_prepare_n_keys, &p, &err) : stave_err_set(&err, STAVE_ENOMEM, "no memory");
	if (!rc)
		rc = stave_config_args(&c, argc, argv, false, inputs, argc, &n, &asked, &err);
	if (!rc && asked) {
		help(&c);
	} else if (!rc) {
		stave_prepare_resolve(&p, &c);
		rc = work(&p, inputs, n, &err);
	}
	if (rc)
		stave_log(STAVE_LOG_ERROR, "%s", err.msg);
	stave_config_close(&c);
	free(inputs);
	return stave_err_exit(rc);
}
