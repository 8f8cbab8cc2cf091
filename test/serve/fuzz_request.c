/* Everything a stranger can send before the model is asked: the head of an HTTP request, a chunked body in two pieces, and
 * the JSON of both endpoints. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "serve/http.h"
#include "serve/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	int how = data[0] % 4;
	const char *p = (const char *)data + 1;
	size_t n = size - 1;
	if (how == 0) {
		struct http_head h;
		const char *why = "";
		int used = http_head_parse(p, n, &h, &why);
		if (used > (int)n || (used < 0 && !*why))
			__builtin_trap();
	} else if (how == 1) {
		struct http_chunks c = {0};
		struct stave_buf body = {0};
		size_t used, half = n / 2;
		int rc = http_chunks_feed(&c, p, half, &used, &body, 4096);
		if (used > half)
			__builtin_trap();
		if (!rc)
			http_chunks_feed(&c, p + half, n - half, &used, &body, 4096);
		if (body.len > 4096)
			__builtin_trap();
		stave_buf_free(&body);
	} else {
		struct api_request r;
		struct api_error e = {0};
		if (api_request_parse(&r, how == 2, p, n, &e))
			api_request_free(&r);
		else if (e.status < 400 || !e.message[0])
			__builtin_trap();
	}
	return 0;
}
