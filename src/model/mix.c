/* The mixes: which type each matrix has in a file that is called Q4_K_M and so on. They are a convention among those who share
 * models, found by trying what costs quality: the values (v) and the way out of the feed-forward block (down) are sensitive
 * in the first and last eighth of the layers and in every third between, v also where it is one matrix with q and k; the head is
 * sensitive always; models of eight experts share one small k and v among much, so these are nearly free in Q8_0. */
#include <stdio.h>
#include <strings.h>

#include "model/convert.h"

static const struct {
	const char *name;
	enum stave_qtype base;
	int file_type;
} mixes[] = {
#define X(e, name, base, file_type) {name, STAVE_Q_##base, file_type},
	STAVE_MIXES(X)
#undef X
};

const char *stave_mix_name(enum stave_mix m) { return mixes[m].name; }
int stave_mix_file_type(enum stave_mix m) { return mixes[m].file_type; }

enum stave_mix stave_mix_of_name(const char *name)
{
	int m = 0;
	while (m < STAVE_MIX_COUNT && strcasecmp(mixes[m].name, name))
		m++;
	return (enum stave_mix)m;
}

static bool more_bits(int layer, int n_layers)
{
	int eighth = n_layers / 8;
	return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

/* The next type up whose block divides a row. */
static enum stave_qtype dividing(enum stave_qtype t, int cols)
{
	if (cols % stave_qtype_info(t).per)
		t = t == STAVE_Q_Q4_K ? STAVE_Q_Q5_0 : t == STAVE_Q_Q5_K ? STAVE_Q_Q5_1 : STAVE_Q_Q8_0;
	return cols % stave_qtype_info(t).per ? STAVE_Q_F16 : t;
}

/* Inside a layer of one of the two mixed files. */
static enum stave_qtype mixed(const struct stave_mix_model *m, enum stave_role role, int layer, int n_layers, int rows)
{
	enum stave_qtype base = mixes[m->mix].base;
	switch (role) {
	case STAVE_ROLE_V:
		if (more_bits(layer, n_layers))
			return STAVE_Q_Q6_K;
		return base == STAVE_Q_Q4_K && n_layers == 80 && rows < m->q_rows ? STAVE_Q_Q5_K : base; /* 70B models: a small v serves many heads */
	case STAVE_ROLE_DOWN: case STAVE_ROLE_EXPERT_DOWN:
		return more_bits(layer, n_layers) ? STAVE_Q_Q6_K : base;
	case STAVE_ROLE_OUT:
		return base == STAVE_Q_Q4_K && m->experts == 8 ? STAVE_Q_Q5_K : base;
	default:
		return base;
	}
}

enum stave_qtype stave_mix_choose(void *model, enum stave_role role, int layer, int n_layers, int rows, int cols)
{
	const struct stave_mix_model *m = model;
	enum stave_qtype t = mixes[m->mix].base;
	switch (role) {
	case STAVE_ROLE_EMBED: case STAVE_ROLE_HEAD: case STAVE_ROLE_Q: case STAVE_ROLE_K: case STAVE_ROLE_V: case STAVE_ROLE_OUT: case STAVE_ROLE_GATE:
	case STAVE_ROLE_UP: case STAVE_ROLE_DOWN: case STAVE_ROLE_EXPERT_GATE: case STAVE_ROLE_EXPERT_UP: case STAVE_ROLE_EXPERT_DOWN:
		break;
	default:
		return STAVE_QTYPE_COUNT;
	}
	if (m->mix == STAVE_MIX_BF16 || m->mix == STAVE_MIX_F16)
		return t;
	if (role == STAVE_ROLE_Q && m->q_rows && rows > m->q_rows)
		role = STAVE_ROLE_V;
	if (role == STAVE_ROLE_HEAD || (role == STAVE_ROLE_EMBED && m->tied))
		t = t == STAVE_Q_Q8_0 || cols % stave_qtype_info(t).per ? STAVE_Q_Q8_0 : STAVE_Q_Q6_K;
	else if (m->experts == 8 && (role == STAVE_ROLE_K || role == STAVE_ROLE_V))
		t = STAVE_Q_Q8_0;
	else if (m->mix == STAVE_MIX_Q4_K_M || m->mix == STAVE_MIX_Q5_K_M)
		t = mixed(m, role, layer, n_layers, rows);
	return dividing(t, cols);
}

int stave_mix_model_gguf(struct stave_mix_model *m, enum stave_mix mix, const struct stave_gguf *g, struct stave_err *err)
{
	const char *arch = stave_gguf_str(g, "general.architecture");
	int64_t heads = 0, width = 0, key = 0, experts = 0;
	const struct {
		const char *name;
		int64_t *value;
	} keys[] = {{"attention.head_count", &heads}, {"embedding_length", &width}, {"attention.key_length", &key}, {"expert_count", &experts}};
	for (int i = 0; i < 4; i++) {
		char name[256];
		if (!arch || snprintf(name, sizeof name, "%s.%s", arch, keys[i].name) >= (int)sizeof name)
			return stave_err_set(err, STAVE_ECORRUPT, "the file names no architecture");
		bool list = stave_gguf_array(g, name, &(enum stave_gguf_type){0}, &(int64_t){0}); /* heads by layer: none of these models fuses q, k, v */
		if (!list && stave_gguf_int(g, name, keys[i].value, err) < 0)
			return err->code;
		if (*keys[i].value < 0 || *keys[i].value > 1 << 24)
			return stave_err_set(err, STAVE_ECORRUPT, "%s is %lld", name, (long long)*keys[i].value);
	}
	if (!key && heads)
		key = width / heads;
	*m = (struct stave_mix_model){mix, (int)experts, heads * key > 1 << 24 ? 0 : (int)(heads * key), !stave_gguf_find(g, "output.weight")};
	return 0;
}
