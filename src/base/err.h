/* Errors. A function that can fail returns 0 or a negative STAVE_E code and takes `struct stave_err *err` last.
 * Who detects a failure writes the message: what was wanted, what was found, what to do. Callers pass it on untouched.
 * The table is the vocabulary: enum, exit status and short name come from it. */
#ifndef STAVE_BASE_ERR_H
#define STAVE_BASE_ERR_H

/*        name         exit  what it says to a reader */
#define STAVE_ERRORS(X)                                     \
	X(FAIL,         1,   "failure")                     \
	X(IO,           1,   "input/output")                \
	X(NOSPACE,      1,   "no space left")               \
	X(NOMEM,        3,   "out of memory")               \
	X(USAGE,        2,   "usage")                       \
	X(CONFIG,       2,   "configuration")               \
	X(NOFIT,        3,   "does not fit")                \
	X(CORRUPT,      4,   "corrupt or unverifiable")     \
	X(DEVICE,       5,   "device")                      \
	X(PEER,         6,   "peer or network")             \
	X(REQUEUE,      75,  "checkpointed, please requeue") \
	X(INTERRUPTED,  130, "interrupted")

enum stave_error {
	STAVE_ENONE_ = 0,
#define X(name, exit, text) STAVE_E##name##_POS,
	STAVE_ERRORS(X)
#undef X
#define X(name, exit, text) STAVE_E##name = -STAVE_E##name##_POS,
	STAVE_ERRORS(X)
#undef X
};

struct stave_err {
	int code; /* 0 or STAVE_E… */
	char msg[1000];
};

/* Write the message and return `code`. err may be NULL. */
__attribute__((format(printf, 3, 4))) int stave_err_set(struct stave_err *err, int code, const char *fmt, ...);
/* As stave_err_set, with ": strerror(errno)" appended; ENOSPC and EDQUOT become STAVE_ENOSPACE, ENOMEM STAVE_ENOMEM. */
__attribute__((format(printf, 2, 3))) int stave_err_errno(struct stave_err *err, const char *fmt, ...);
/* Exit status of the process for a code (DESIGN 5). */
int stave_err_exit(int code);

#endif
