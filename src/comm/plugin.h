/* Transports from shared objects (private to comm/). See plugin.c. */
#ifndef STAVE_COMM_PLUGIN_H
#define STAVE_COMM_PLUGIN_H

#include "base/err.h"
#include "comm/comm.h"

/* How many ranks a launcher says it started; 1 without one. *launcher: the variable that says so. */
int stave_plugin_ranks(const char **launcher);
/* Open stave-NAME.so and check its ABI. *handle is for dlclose. */
int stave_plugin_open(const char *name, const char *why_wanted, const struct stave_comm_ops **ops, void **handle, struct stave_err *err);

#endif
