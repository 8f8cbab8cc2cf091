#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int put(struct stave_err *err, int code, const char *tail, const char *fmt, va_list ap)
{
	if (!err)
		return code;
	err->code = code;
	int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	if (tail && n >= 0 && (size_t)n < sizeof err->msg)
		snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", tail);
	return code;
}

int stave_err_set(struct stave_err *err, int code, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	put(err, code, NULL, fmt, ap);
	va_end(ap);
	return code;
}

int stave_err_errno(struct stave_err *err, const char *fmt, ...)
{
	int e = errno;
	int code = e == ENOSPC || e == EDQUOT ? STAVE_ENOSPACE : e == ENOMEM ? STAVE_ENOMEM : STAVE_EIO;
	va_list ap;
	va_start(ap, fmt);
	put(err, code, strerror(e), fmt, ap);
	va_end(ap);
	return code;
}

int stave_err_exit(int code)
{
	switch (code) {
	case 0: return 0;
#define X(name, exit, text) case STAVE_E##name: return exit;
	STAVE_ERRORS(X)
#undef X
	}
	return 1;
}
