/* stave quantize: a model's matrices in fewer bits. It names the mix (Q4_K_M and its like), hands the choice of types to the
 * conversion, and tells what came of it: sizes, bits per weight, and the error by role, which says where the bits should have
 * gone. The receipt goes to stderr; --json prints the same as one document. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/config.h"
#include "base/fs.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/to_gguf.h"

#define X(e, name, base, file_type) name " "
#define MIXES STAVE_MIXES(X)
struct options {
	char *type, *out;
	bool json;
};
#define AT(field) offsetof(struct options, field)
static const struct stave_key keys[] = {
	{"type", STAVE_KEY_STR, AT(type), "Q4_K_M", 0, 0, NULL, "one of " MIXES},
	{"out", STAVE_KEY_STR, AT(out), NULL, 0, 0, NULL, "the GGUF file to write"},
	{"json", STAVE_KEY_BOOL, AT(json), "no", 0, 0, NULL, "print one JSON document"},
};
#undef AT
#undef X

static void help(const struct stave_config *c)
{
	printf("stave quantize MODEL --type TYPE --out FILE.gguf: a model's matrices in fewer bits.\n\n"
	       "  stave quantize model.gguf --type Q4_K_M --out model-q4_k_m.gguf\n"
	       "  stave quantize model --type Q8_0 --out model-q8_0.gguf --json\n\n"
	       "MODEL is a GGUF file (any part of a split one) or a Hugging Face directory. Q8_0 is hard to\n"
	       "tell from the original; Q4_K_M is a third of BF16's size, with the sensitive matrices in Q6_K.\n\n");
	stave_config_help(c, stdout);
}

/* ---- the receipt ---- */

static const char *const roles[STAVE_ROLES + 1] = {
	[STAVE_ROLE_EMBED] = "embedding",        [STAVE_ROLE_POSITIONS] = "positions",    [STAVE_ROLE_TOKEN_TYPES] = "token types",
	[STAVE_ROLE_EMBED_NORM] = "embed norm",  [STAVE_ROLE_NORM_F] = "last norm",       [STAVE_ROLE_HEAD] = "head",
	[STAVE_ROLE_NORM1] = "norm 1",           [STAVE_ROLE_Q] = "q",                    [STAVE_ROLE_K] = "k",
	[STAVE_ROLE_V] = "v",                    [STAVE_ROLE_QNORM] = "q norm",           [STAVE_ROLE_KNORM] = "k norm",
	[STAVE_ROLE_OUT] = "attention out",      [STAVE_ROLE_NORM1_POST] = "norm 1 post", [STAVE_ROLE_NORM2] = "norm 2",
	[STAVE_ROLE_GATE] = "gate",              [STAVE_ROLE_UP] = "up",                  [STAVE_ROLE_DOWN] = "down",
	[STAVE_ROLE_NORM2_POST] = "norm 2 post", [STAVE_ROLE_ROUTER] = "router",          [STAVE_ROLE_EXPERT_GATE] = "expert gate",
	[STAVE_ROLE_EXPERT_UP] = "expert up",    [STAVE_ROLE_EXPERT_DOWN] = "expert down", [STAVE_ROLES] = "other",
};

static double relative(double error2, double value2) { return value2 > 0 ? sqrt(error2 / value2) : 0; }
static double bits_per_weight(const struct stave_convert_result *r) { return r->elements ? 8. * (double)r->bytes_out / (double)r->elements : 0; }
static const char *shortest(const struct stave_convert_result *r) { return r->compute_s >= r->write_s ? "compute" : "storage"; }

static json_t *receipt(const struct options *o, const char *in, const struct stave_convert_result *r)
{
	double error2 = 0, value2 = 0;
	json_t *parts = json_object();
	for (int i = 0; i <= STAVE_ROLES; i++) {
		const struct stave_convert_part *p = &r->part[i];
		json_t *types = json_array();
		for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
			if (p->types >> t & 1)
				json_array_append_new(types, json_string(stave_qtype_info((enum stave_qtype)t).name));
		if (p->tensors)
			json_object_set_new(parts, roles[i], json_pack("{s:i, s:I, s:I, s:O, s:f}", "tensors", p->tensors, "weights", (json_int_t)p->elements, "bytes",
			                                               (json_int_t)p->bytes, "types", types, "relative_error", relative(p->error2, p->value2)));
		json_decref(types);
		error2 += p->error2;
		value2 += p->error2 > 0 ? p->value2 : 0; /* of what lost anything: norms would hide it */
	}
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:o, s:f, s:f, s:f, s:s}", "in", in, "out", o->out, "type", o->type, "from",
	                 stave_qtype_info(r->from).name, "tensors", r->tensors, "weights", (json_int_t)r->elements, "bytes_in", (json_int_t)r->bytes_in, "bytes_out",
	                 (json_int_t)r->bytes_out, "bits_per_weight", bits_per_weight(r), "relative_error", relative(error2, value2), "roles", parts, "seconds",
	                 r->seconds, "compute_s", r->compute_s, "write_s", r->write_s, "shortest_stave", shortest(r));
}

static void print_roles(const struct stave_convert_result *r)
{
	char size[32];
	for (int i = 0; i <= STAVE_ROLES; i++) {
		const struct stave_convert_part *p = &r->part[i];
		if (p->error2 <= 0) /* nothing lost */
			continue;
		fprintf(stderr, "    %-13s %10s  error %6.3f %% ", roles[i], stave_bytes_text(size, (double)p->bytes), 100 * relative(p->error2, p->value2));
		for (int t = 0; t < STAVE_QTYPE_COUNT; t++)
			if (p->types >> t & 1)
				fprintf(stderr, " %s", stave_qtype_info((enum stave_qtype)t).name);
		fputc('\n', stderr);
	}
}

static void print_receipt(const struct options *o, const struct stave_convert_result *r)
{
	char a[32], b[32], c[32];
	fprintf(stderr, "quantized %s\n", o->out);
	fprintf(stderr, "  from         %s of %s, %s weights\n", stave_bytes_text(a, (double)r->bytes_in), stave_qtype_info(r->from).name,
	        stave_count_text(b, (double)r->elements));
	fprintf(stderr, "  to           %s of %s, %.2f bits per weight, %.1f times smaller\n", stave_bytes_text(a, (double)r->bytes_out), o->type,
	        bits_per_weight(r), r->bytes_out ? (double)r->bytes_in / (double)r->bytes_out : 0);
	print_roles(r);
	fprintf(stderr, "  time         %s, %s/s read (computing %s, writing %s)\n", stave_duration_text(a, r->seconds),
	        stave_bytes_text(b, r->seconds > 0 ? (double)r->bytes_in / r->seconds : 0), stave_duration_text(c, r->compute_s), stave_duration_text((char[32]){0}, r->write_s));
	fprintf(stderr, "  shortest     %s\n  next         stave run %s\n", shortest(r), o->out);
}

/* ---- the work ---- */

/* What the mix must know of the model, and its source where it is a directory. A GGUF file may be of any architecture. */
static int model_of(struct stave_mix_model *m, struct stave_source **source, enum stave_mix mix, const char *in, struct stave_err *err)
{
	struct stave_gguf *g;
	int rc;
	if (!stave_is_dir(in)) {
		if ((rc = stave_gguf_open(&g, in, err)))
			return rc;
		rc = stave_mix_model_gguf(m, mix, g, err);
		stave_gguf_close(g);
		return rc;
	}
	if ((rc = stave_source_open(source, in, err)))
		return rc;
	const struct stave_shape *s = stave_source_shape(*source);
	*m = (struct stave_mix_model){mix, s->experts, s->H * s->D, s->tied};
	return 0;
}

static int quantize(struct options *o, const char *in, struct stave_err *err)
{
	if (!in || !o->out)
		return stave_err_set(err, STAVE_EUSAGE, "stave quantize wants a MODEL and --out FILE.gguf; 'stave quantize -h' shows how");
	enum stave_mix mix = stave_mix_of_name(o->type);
	if (mix == STAVE_MIX_COUNT)
		return stave_err_set(err, STAVE_EUSAGE, "--type %s: stave writes %s", o->type, keys[0].doc);
	snprintf(o->type, strlen(o->type) + 1, "%s", stave_mix_name(mix)); /* as it is written, for the receipt */
	struct stave_mix_model m;
	struct stave_convert c = {.choose = stave_mix_choose, .ctx = &m, .file_type = stave_mix_file_type(mix)};
	struct stave_convert_result r = {0};
	struct stave_source *source = NULL;
	int rc = model_of(&m, &source, mix, in, err);
	if (!rc)
		rc = stave_cli_to_gguf(source, in, o->out, &c, &r, err);
	stave_source_close(source);
	if (rc)
		return rc;
	if (r.from != STAVE_Q_F32 && r.from != STAVE_Q_F16 && r.from != STAVE_Q_BF16)
		stave_log(STAVE_LOG_WARN, "%s was quantized before (%s): its error stays, and this one's comes on top", in, stave_qtype_info(r.from).name);
	print_receipt(o, &r);
	if (o->json) {
		json_t *j = receipt(o, in, &r);
		json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(j);
	}
	return fflush(stdout) ? stave_err_errno(err, "writing to stdout") : 0;
}

int stave_cli_quantize(int argc, char **argv)
{
	struct options o;
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1] = {NULL};
	int n = 0, rc = stave_config_open(&c, keys, sizeof keys / sizeof *keys, &o, &err);
	bool asked = false;
	if (!rc) {
		rc = stave_config_args(&c, argc, argv, false, positional, 1, &n, &asked, &err);
		if (!rc && asked)
			help(&c);
		else if (!rc)
			rc = quantize(&o, positional[0], &err);
		stave_config_close(&c);
	}
	if (rc)
		stave_log(STAVE_LOG_ERROR, "%s", err.msg);
	return stave_err_exit(rc);
}
