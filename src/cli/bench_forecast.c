/* What the machine's profile foretells of a model that answers: the model's files say shape and types, the profile the rates; nothing
 * is run. */
#include <string.h>
#include <strings.h>

#include "base/sys.h"
#include "cli/bench.h"
#include "kernel/kernel.h"
#include "model/model.h"

/* The type that most of a layer has: of its widest matrix. */
static enum stave_qtype layers_type(const struct stave_source *s)
{
	struct stave_weight w;
	if (stave_source_weight(s, STAVE_ROLE_UP, 0, 0, &w) == 1 || stave_source_weight(s, STAVE_ROLE_EXPERT_UP, 0, 0, &w) == 1)
		return w.type;
	return stave_source_main_type(s);
}

static enum stave_dtype cache_type(const char *name, enum stave_qtype stored)
{
	if (!strcasecmp(name, "f32"))
		return STAVE_F32;
	if (!strcasecmp(name, "i8"))
		return STAVE_I8;
	return strcasecmp(name, "auto") || (stored != STAVE_Q_F32 && stored != STAVE_Q_F16) ? STAVE_BF16 : STAVE_F32;
}

static struct stave_answering answering(const struct stave_source *s, const struct bench_case *c)
{
	struct stave_answering a = {.weights = stave_qtype_of_name(c->type), .prompt = c->prompt, .generate = c->generate, .sequences = c->sequences};
	struct stave_weight head;
	a.head = a.weights;
	if (a.weights == STAVE_QTYPE_COUNT) {
		a.weights = layers_type(s);
		a.head = stave_source_weight(s, STAVE_ROLE_HEAD, 0, 0, &head) == 1 ? head.type : a.weights;
	}
	a.cache = cache_type(c->cache, stave_source_main_type(s));
	return a;
}

int bench_forecast(const struct bench_case *c, struct stave_answer_rates *out, struct stave_err *err)
{
	struct stave_machine m;
	struct stave_source *s;
	struct stave_err absent = {0};
	int rc = stave_machine_load(&m, NULL, &absent);
	if (rc && absent.code == STAVE_ECORRUPT)
		return stave_err_set(err, absent.code, "%s", absent.msg);
	if (rc) {
		stave_log(STAVE_LOG_WARN, "no machine profile, so no forecast; `stave bench machine` writes one");
		return 0;
	}
	if (m.threads != stave_threads() || strcmp(m.level, stave_kernels()->level))
		stave_log(STAVE_LOG_WARN, "the machine profile is of %d threads at level %s, this run has %d at %s; expect its forecast to be off", m.threads, m.level, stave_threads(),
		          stave_kernels()->level);
	if ((rc = stave_source_open(&s, c->model, err)))
		return rc;
	struct stave_answering a = answering(s, c);
	*out = stave_machine_answer(&m, stave_source_shape(s), &a);
	stave_source_close(s);
	if (!out->sampled)
		stave_log(STAVE_LOG_WARN, "the machine profile has no rates of %s; the forecast is what peaks and bandwidth allow at most. `stave bench machine` measures them",
		          stave_qtype_info(a.weights).name);
	return 1;
}
