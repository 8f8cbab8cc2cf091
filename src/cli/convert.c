/* stave convert: the same model in the other format. OUT ending in .gguf is a GGUF file, anything else a Hugging Face directory; the
 * tokenizer goes along. Values do not change unless --type says so; what the other format cannot say is refused by name. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/to_gguf.h"
#include "text/text.h"

struct options {
	int type;
	bool json;
};
#define AT(field) offsetof(struct options, field)
static const struct stave_key keys[] = {
	{"type", STAVE_KEY_CHOICE, AT(type), "stored", 0, 0, "stored|F32|F16|BF16", "of the matrices; stored = as they are ('stave quantize' writes the others)"},
	{"json", STAVE_KEY_BOOL, AT(json), "no", 0, 0, NULL, "print one JSON document"},
};
#undef AT

static void help(const struct stave_config *c)
{
	printf("stave convert MODEL OUT: a Hugging Face directory as a GGUF file, or a GGUF file as a directory.\n\n"
	       "  stave convert model model.gguf\n"
	       "  stave convert model-q8_0.gguf model-bf16 --type BF16\n\n"
	       "OUT ending in .gguf is a file, anything else a directory. The tokenizer and the chat template go along.\n\n");
	stave_config_help(c, stdout);
}

static enum stave_qtype qtype_of(int choice)
{
	return choice == 1 ? STAVE_Q_F32 : choice == 2 ? STAVE_Q_F16 : choice == 3 ? STAVE_Q_BF16 : STAVE_QTYPE_COUNT;
}

static enum stave_qtype one_type(void *ctx, enum stave_role role, int layer, int n_layers, int rows, int cols)
{
	return *(const enum stave_qtype *)ctx;
}

struct conversion {
	const char *in, *out;
	enum stave_qtype type;
	struct stave_source *source;
};

static bool to_gguf(const char *out)
{
	size_t n = strlen(out);
	return n > 5 && !strcmp(out + n - 5, ".gguf");
}

static int write_dir(const struct conversion *v, struct stave_convert_result *r, struct stave_err *err)
{
	struct stave_tokenizer *t;
	int rc = stave_tokenizer_load(&t, v->in, err);
	if (rc)
		return rc;
	if (!(rc = stave_source_to_dir(v->source, v->out, v->type, stave_tokenizer_eos(t), stave_tokenizer_bos(t), r, err)))
		rc = stave_tokenizer_save(t, v->out, err);
	stave_tokenizer_free(t);
	return rc;
}

static int write_out(struct conversion *v, struct stave_convert_result *r, struct stave_err *err)
{
	static const int file_types[] = {0, 1, 32};
	if (!to_gguf(v->out))
		return write_dir(v, r, err);
	bool stored = v->type == STAVE_QTYPE_COUNT;
	struct stave_convert c = {.choose = stored ? NULL : one_type, .ctx = &v->type,
	                          .file_type = stored ? -1 : file_types[v->type == STAVE_Q_F32 ? 0 : v->type == STAVE_Q_F16 ? 1 : 2]};
	return stave_cli_to_gguf(v->source, v->in, v->out, &c, r, err);
}

static void receipt(const struct options *o, const struct conversion *v, const struct stave_convert_result *r)
{
	char a[32], b[32], c[32];
	fprintf(stderr, "converted %s\n  weights      %s, %s of %s\n  to           %s, %s\n  time         %s\n  next         stave run %s\n", v->in,
	        stave_count_text(a, (double)r->elements), stave_bytes_text(b, (double)r->bytes_in), stave_qtype_info(r->from).name, v->out,
	        stave_bytes_text(c, (double)r->bytes_out), stave_duration_text((char[32]){0}, r->seconds), v->out);
	if (!o->json)
		return;
	json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:f}", "in", v->in, "out", v->out, "from", stave_qtype_info(r->from).name, "tensors", r->tensors,
	                      "weights", (json_int_t)r->elements, "bytes_in", (json_int_t)r->bytes_in, "bytes_out", (json_int_t)r->bytes_out, "seconds", r->seconds);
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(j);
}

static int convert(const struct options *o, const char *in, const char *out, struct stave_err *err)
{
	if (!in || !out)
		return stave_err_set(err, STAVE_EUSAGE, "stave convert wants a MODEL and OUT; 'stave convert -h' shows how");
	if (!to_gguf(out) && stave_exists(out))
		return stave_err_set(err, STAVE_EUSAGE, "%s exists already; give the name of a new directory, or of a .gguf file", out);
	struct conversion v = {.in = in, .out = out, .type = qtype_of(o->type)};
	struct stave_convert_result r = {0};
	int rc = stave_source_open(&v.source, in, err);
	if (!rc)
		rc = write_out(&v, &r, err);
	if (!rc)
		receipt(o, &v, &r);
	stave_source_close(v.source);
	return !rc && fflush(stdout) ? stave_err_errno(err, "writing to stdout") : rc;
}

int stave_cli_convert(int argc, char **argv)
{
	struct options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[2] = {NULL};
	int n = 0, rc = stave_config_open(&c, keys, sizeof keys / sizeof *keys, &o, &err);
	bool asked = false;
	if (!rc) {
		rc = stave_config_args(&c, argc, argv, false, positional, 2, &n, &asked, &err);
		if (!rc && asked)
			help(&c);
		else if (!rc)
			rc = convert(&o, positional[0], positional[1], &err);
		stave_config_close(&c);
	}
	if (rc)
		stave_log(STAVE_LOG_ERROR, "%s", err.msg);
	return stave_err_exit(rc);
}
