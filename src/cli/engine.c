/* From a verb's options to the engine's configuration. */
#include "cli/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/sys.h"

int cli_model_verb(const struct cli_model_verb *v, int argc, char **argv)
{
	struct stave_config c;
	struct stave_err err = {0};
	const char *positional[1];
	bool wants_help = false;
	int n = 0, rc = stave_config_open(&c, v->keys, v->n_keys, v->options, &err);
	if (!rc)
		rc = stave_config_args(&c, argc, argv, false, positional, 1, &n, &wants_help, &err);
	if (!rc && wants_help)
		v->help(&c);
	else if (!rc && n != 1)
		rc = stave_err_set(&err, STAVE_EUSAGE, "which model? %s", v->usage);
	else if (!rc)
		rc = v->run(v->options, positional[0], &err);
	if (rc)
		stave_log(rc == STAVE_EINTERRUPTED ? STAVE_LOG_WARN : STAVE_LOG_ERROR, "%s", err.msg);
	stave_config_close(&c);
	return stave_err_exit(rc);
}

static int parse_adapters(struct cli_engine *o, struct stave_engine_config *c, struct stave_err *err)
{
	char *save = NULL;
	if (!o->adapters || !*o->adapters)
		return 0;
	if (!(o->parsed = strdup(o->adapters)))
		return stave_err_set(err, STAVE_ENOMEM, "out of memory");
	for (char *item = strtok_r(o->parsed, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(item, '=');
		if (!eq || eq == item || !eq[1])
			return stave_err_set(err, STAVE_EUSAGE, "--adapters: '%s' is not name=directory", item);
		if (c->n_adapters == CLI_ADAPTERS_MAX)
			return stave_err_set(err, STAVE_EUSAGE, "--adapters: at most %d", CLI_ADAPTERS_MAX);
		*eq = 0;
		o->adapter[c->n_adapters++] = (struct stave_adapter_path){item, eq + 1};
	}
	c->adapters = o->adapter;
	return 0;
}

int cli_engine_config(struct cli_engine *o, struct stave_engine_config *c, struct stave_err *err)
{
	o->parsed = NULL;
	c->type = o->type;
	c->cache = o->cache;
	c->context = (int)o->context;
	c->cache_tokens = o->cache_tokens;
	c->speculate = (int)o->speculate;
	c->ngram = (int)o->ngram;
	c->draft = o->draft;
	return parse_adapters(o, c, err);
}

void cli_engine_free(struct cli_engine *o)
{
	free(o->parsed);
	o->parsed = NULL;
}
