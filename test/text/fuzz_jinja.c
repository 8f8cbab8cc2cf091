/* Any bytes as a chat template, rendered over a small conversation. */
#include <stdlib.h>

#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static json_t *vars;
	struct jinja *t;
	struct jinja_text out = {0};
	struct stave_err err;
	if (!vars)
		vars = json_loads("{\"messages\": [{\"role\": \"user\", \"content\": \"h\\u00e9 <|x|>\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1.5}}}]}], \"n\": 3, \"s\": \" a b \"}", 0, NULL);
	if (!jinja_open(&t, (const char *)data, size, &err)) {
		jinja_render(t, vars, NULL, 0, &out, &err);
		if (out.text.len != out.own.len)
			abort();
		jinja_close(t);
	}
	jinja_text_free(&out);
	return 0;
}
