/* stave serve: a model behind the OpenAI-style API, until SIGTERM or Ctrl-C. */
#include <stdio.h>

#include "base/config.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/engine.h"
#include "serve/serve.h"

struct options {
	char *host, *name, *api_key_file;
	int64_t port, slots, chunk, queue;
	struct cli_engine engine;
};
#define AT(field) offsetof(struct options, field)
#define AT_ENGINE(field) offsetof(struct options, engine.field)
static const struct stave_key keys[] = {
	{"host", STAVE_KEY_STR, AT(host), "127.0.0.1", 0, 0, NULL, "address to listen on; 0.0.0.0 = every interface (use --api-key-file then)"},
	{"port", STAVE_KEY_INT, AT(port), "8000", 0, 65535, NULL, "TCP port; 0 = one the system chooses"},
	{"name", STAVE_KEY_STR, AT(name), NULL, 0, 0, NULL, "the model's id in the API; default the last part of its path"},
	{"api_key_file", STAVE_KEY_STR, AT(api_key_file), NULL, 0, 0, NULL, "accept only these keys: lines of SHA-256 in hex (printf %s KEY | sha256sum)"},
	{"slots", STAVE_KEY_INT, AT(slots), "8", 1, 1024, NULL, "sequences computed at once"},
	{"chunk", STAVE_KEY_INT, AT(chunk), "512", 1, 65536, NULL, "prompt tokens per step at most; beside running answers there are fewer"},
	{"queue", STAVE_KEY_INT, AT(queue), "64", 1, 1048576, NULL, "sequences that may wait; more are refused with 429"},
	CLI_ENGINE_KEYS(AT_ENGINE),
};

static void help(const struct stave_config *c)
{
	fputs("stave serve MODEL: the OpenAI-style API (/v1/models, /v1/completions, /v1/chat/completions), with /health, /ready, /metrics.\n\n"
	      "  stave serve model --port 8000\n"
	      "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"Once upon\", \"max_tokens\": 20, \"stream\": true}'\n\n"
	      "SIGTERM and Ctrl-C let running answers end (30 s at most); a second one does not.\n\n", stdout);
	stave_config_help(c, stdout);
}

static int serve(void *options, const char *model, struct stave_err *err)
{
	struct options *o = options;
	struct stave_server *s;
	struct stave_serve_config c = {.engine = {.model = model, .slots = (int)o->slots, .chunk = (int)o->chunk, .queue = (int)o->queue},
	                               .name = o->name, .host = o->host, .port = (int)o->port, .key_file = o->api_key_file};
	int rc = cli_engine_config(&o->engine, &c.engine, err);
	if (!rc && !(rc = stave_server_open(&s, &c, err))) {
		rc = stave_server_run(s, err);
		stave_server_close(s);
	}
	cli_engine_free(&o->engine);
	return rc;
}

int stave_cli_serve(int argc, char **argv)
{
	struct options o;
	const struct cli_model_verb v = {keys, sizeof keys / sizeof *keys, &o, help, serve, "'stave serve MODEL'; 'stave serve -h' shows more"};
	return cli_model_verb(&v, argc, argv);
}
