/* The process and its clock: time, threads, signals, terminal. */
#ifndef STAVE_BASE_SYS_H
#define STAVE_BASE_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Monotonic seconds since an arbitrary start. */
double stave_now_s(void);
/* Threads of the one OpenMP pool. Default: STAVE_THREADS, else the physical cores this process may run on (hwloc). */
int stave_threads(void);
void stave_threads_set(int n);
int stave_thread_index(void);
/* Resident memory of this process, and memory the machine can still give, in bytes. */
size_t stave_rss_bytes(void);
size_t stave_memory_available_bytes(void);
/* "12.3 GiB", "4.56 G" into a caller's buffer; returned for use in printf. */
const char *stave_bytes_text(char out[32], double bytes);
const char *stave_count_text(char out[32], double count);
const char *stave_duration_text(char out[32], double seconds);

/* Log to stderr: level by STAVE_LOG = error | warn | info | debug (default info). One line, prefixed by verb. */
enum stave_log_level { STAVE_LOG_ERROR, STAVE_LOG_WARN, STAVE_LOG_INFO, STAVE_LOG_DEBUG };
__attribute__((format(printf, 2, 3))) void stave_log(enum stave_log_level level, const char *fmt, ...);

/* The live line: on a terminal it is rewritten in place, elsewhere a plain line every 30 s. stderr only. */
__attribute__((format(printf, 2, 3))) void stave_progress(bool final, const char *fmt, ...);

/* Cooperative stop: SIGINT, SIGTERM and SIGUSR1 set flags read by loops at their step boundary. */
void stave_signals_install(void);
bool stave_stop_requested(void);    /* SIGINT: stop now, keep what is safe; a second SIGINT kills */
bool stave_requeue_requested(void); /* SIGTERM or SIGUSR1: checkpoint and exit 75 */

#endif
