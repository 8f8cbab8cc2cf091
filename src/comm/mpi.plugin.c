/* The MPI transport, a shared object of its own (stave-mpi.so), so that the program links no MPI. Every call comes from
 * one thread, the one that called init: MPI_THREAD_FUNNELED is enough. Only nonblocking collectives on a communicator of
 * our own, one at a time, polled by test: who waits how long is the caller's business. MPI's errors come back as text
 * (MPI_ERRORS_RETURN) instead of ending the process. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>

#include "comm/comm.h"

static MPI_Comm world = MPI_COMM_NULL;
static MPI_Request request = MPI_REQUEST_NULL;

static int explain(int code, char *why, size_t why_size)
{
	char text[MPI_MAX_ERROR_STRING];
	int n;
	if (code == MPI_SUCCESS)
		return 0;
	if (MPI_Error_string(code, text, &n))
		snprintf(text, sizeof text, "MPI error %d", code);
	snprintf(why, why_size, "%s", text);
	return -1;
}

static int init(int *rank, int *size, char *why, size_t why_size)
{
	int level, rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
	if (rc)
		return explain(rc, why, why_size);
	if (level < MPI_THREAD_FUNNELED) {
		snprintf(why, why_size, "this MPI was built without threads (MPI_THREAD_FUNNELED)");
		return -1;
	}
	MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	rc = MPI_Comm_dup(MPI_COMM_WORLD, &world);
	if (!rc)
		rc = MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN);
	if (!rc)
		rc = MPI_Comm_rank(world, rank);
	if (!rc)
		rc = MPI_Comm_size(world, size);
	return explain(rc, why, why_size);
}

static void finish(void)
{
	MPI_Comm_free(&world);
	MPI_Finalize();
}

static int reduce_start(void *buf, size_t n, enum stave_comm_kind kind, char *why, size_t why_size)
{
	MPI_Datatype type = kind == STAVE_COMM_FLOAT ? MPI_FLOAT : kind == STAVE_COMM_DOUBLE ? MPI_DOUBLE : MPI_INT64_T;
	MPI_Op op = kind == STAVE_COMM_INT_MAX ? MPI_MAX : MPI_SUM;
	return explain(MPI_Iallreduce(MPI_IN_PLACE, buf, (int)n, type, op, world, &request), why, why_size);
}

static int bcast_start(void *buf, size_t bytes, int root, char *why, size_t why_size)
{
	return explain(MPI_Ibcast(buf, (int)bytes, MPI_BYTE, root, world, &request), why, why_size);
}

static int gather_start(const void *mine, void *all, size_t bytes, char *why, size_t why_size)
{
	return explain(MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, world, &request), why, why_size);
}

static int test(bool *done, char *why, size_t why_size)
{
	int flag = 0, rc = MPI_Test(&request, &flag, MPI_STATUS_IGNORE);
	*done = flag;
	return explain(rc, why, why_size);
}

__attribute__((visibility("default"))) const struct stave_comm_ops stave_comm_plugin = {
	.abi = STAVE_COMM_ABI,
	.name = "mpi",
	.init = init,
	.finish = finish,
	.reduce_start = reduce_start,
	.bcast_start = bcast_start,
	.gather_start = gather_start,
	.test = test,
	.piece = 1u << 28, /* MPI counts are int; a piece is 256 Mi elements or bytes */
};
