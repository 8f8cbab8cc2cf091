/* The machine itself: how fast it multiplies at best, reads and copies memory, meets a page for the first time, enters a
 * parallel region, and moves a file to its disk and back. Each is the best of several tries, since these are limits and
 * everything else that runs on a machine only ever makes it slower. */
#include "cli/bench.h"

#include <dnnl.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/sys.h"
#include "kernel/kernel.h"
#include "kernel/matmul.h"

/* ---- the matrix peak ---- */

/* One product whose weights lie in whatever layout oneDNN chooses: what the hardware can do, which the plain layouts of
 * training are then measured against. */
struct peak {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_primitive_t prim;
	dnnl_memory_t mem[3];
	double flops;
};

static void peak_close(struct peak *p)
{
	for (int i = 0; i < 3; i++)
		if (p->mem[i])
			dnnl_memory_destroy(p->mem[i]);
	if (p->prim)
		dnnl_primitive_destroy(p->prim);
	if (p->stream)
		dnnl_stream_destroy(p->stream);
	if (p->engine)
		dnnl_engine_destroy(p->engine);
}

static bool peak_open(struct peak *p, enum stave_dtype dtype, int64_t m, int64_t n, int64_t k)
{
	dnnl_data_type_t a = dtype == STAVE_BF16 ? dnnl_bf16 : dtype == STAVE_I8 ? dnnl_u8 : dnnl_f32;
	dnnl_data_type_t b = dtype == STAVE_I8 ? dnnl_s8 : a, c = dtype == STAVE_I8 ? dnnl_s32 : a;
	dnnl_dims_t ad = {m, k}, bd = {k, n}, cd = {m, n};
	dnnl_memory_desc_t md[3];
	dnnl_matmul_desc_t desc;
	dnnl_primitive_desc_t pd = NULL;
	*p = (struct peak){.flops = 2.0 * (double)m * (double)n * (double)k};
	if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) || dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) ||
	    dnnl_memory_desc_init_by_tag(&md[0], 2, ad, a, dnnl_ab) || dnnl_memory_desc_init_by_tag(&md[1], 2, bd, b, dnnl_format_tag_any) ||
	    dnnl_memory_desc_init_by_tag(&md[2], 2, cd, c, dnnl_ab) || dnnl_matmul_desc_init(&desc, &md[0], &md[1], NULL, &md[2]) ||
	    dnnl_primitive_desc_create(&pd, &desc, NULL, p->engine, NULL)) {
		peak_close(p);
		return false;
	}
	bool ok = !dnnl_primitive_create(&p->prim, pd);
	static const dnnl_query_t what[] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
	for (int i = 0; i < 3 && ok; i++) {
		const dnnl_memory_desc_t *d = dnnl_primitive_desc_query_md(pd, what[i], 0);
		void *data;
		ok = !dnnl_memory_create(&p->mem[i], d, p->engine, DNNL_MEMORY_ALLOCATE) && !dnnl_memory_get_data_handle(p->mem[i], &data);
		if (ok)
			memset(data, 0x3c, dnnl_memory_desc_get_size(d)); /* a small normal number in f32 and bf16 */
	}
	dnnl_primitive_desc_destroy(pd);
	if (!ok)
		peak_close(p);
	return ok;
}

static double peak_once(struct peak *p)
{
	dnnl_exec_arg_t arg[] = {{DNNL_ARG_SRC, p->mem[0]}, {DNNL_ARG_WEIGHTS, p->mem[1]}, {DNNL_ARG_DST, p->mem[2]}};
	double t = stave_now_s();
	dnnl_primitive_execute(p->prim, p->stream, 3, arg);
	dnnl_stream_wait(p->stream);
	return p->flops / (stave_now_s() - t);
}

double bench_peak(enum stave_dtype dtype, double seconds)
{
	static const int64_t shapes[][3] = {{2048, 2048, 2048}, {1024, 3072, 768}, {4096, 768, 3072}};
	enum { SHAPES = sizeof shapes / sizeof *shapes };
	/* asks whether this level has such products, and lowers oneDNN to STAVE_CPU's level */
	struct stave_matmul_desc d = {.m = 64, .n = 64, .k = 64, .in = dtype, .out = dtype == STAVE_I8 ? STAVE_I32 : dtype};
	struct stave_matmul *mm;
	if (stave_matmul_open(&mm, &d, NULL, NULL))
		return 0;
	stave_matmul_close(mm);
	double best = 0;
	for (int i = 0; i < SHAPES; i++) {
		struct peak p;
		if (!peak_open(&p, dtype, shapes[i][0], shapes[i][1], shapes[i][2]))
			continue;
		peak_once(&p);
		double start = stave_now_s();
		for (int n = 0; n < 3 || stave_now_s() - start < seconds / SHAPES; n++) {
			double rate = peak_once(&p);
			best = rate > best ? rate : best;
		}
		peak_close(&p);
	}
	return best;
}

/* ---- memory ---- */

#define MEMORY_BYTES ((size_t)256 << 20) /* far beyond any cache level this meets, small beside the memory */
#define MEMORY_TRIES 5

static double read_rate(const char *base, size_t bytes)
{
	const uint64_t *x = (const uint64_t *)(const void *)base;
	int64_t n = (int64_t)(bytes / sizeof *x);
	double best = 0;
	for (int i = 0; i < MEMORY_TRIES; i++) {
		uint64_t sum = 0;
		double t = stave_now_s();
#pragma omp parallel for simd reduction(+ : sum) schedule(static)
		for (int64_t j = 0; j < n; j++)
			sum += x[j];
		t = stave_now_s() - t;
		__asm__ volatile("" : : "r"(sum)); /* the sum is wanted, whatever the optimizer thinks */
		best = (double)bytes / t > best ? (double)bytes / t : best;
	}
	return best;
}

/* Bytes read plus bytes written. */
static double copy_rate(char *base, size_t bytes)
{
	size_t half = bytes / 2;
	double best = 0;
	for (int i = 0; i < MEMORY_TRIES; i++) {
		double t = stave_now_s();
#pragma omp parallel
		{
			size_t n = (size_t)omp_get_num_threads(), me = (size_t)omp_get_thread_num();
			size_t from = half / 64 * me / n * 64, to = half / 64 * (me + 1) / n * 64;
			memcpy(base + half + from, base + from, to - from);
		}
		t = stave_now_s() - t;
		best = (double)bytes / t > best ? (double)bytes / t : best;
	}
	return best;
}

int bench_read_rate(double *bytes_s, struct stave_err *err)
{
	struct stave_arena a;
	int rc = stave_arena_open(&a, "memory bench", MEMORY_BYTES, err);
	if (rc)
		return rc;
	*bytes_s = read_rate(a.base, a.size);
	stave_arena_close(&a);
	return 0;
}

static int probe_memory(struct stave_machine *m, struct stave_err *err)
{
	struct stave_arena a;
	int rc = stave_arena_open(&a, "memory bench", MEMORY_BYTES, err);
	if (rc)
		return rc;
	m->read_bytes_s = read_rate(a.base, a.size);
	m->copy_bytes_s = copy_rate(a.base, a.size);
	stave_arena_close(&a);
	return 0;
}

/* Wall time per 4 KiB page with all threads touching; huge pages are declined, since what is asked is the price of one. */
static int probe_touch(struct stave_machine *m, struct stave_err *err)
{
	size_t bytes = MEMORY_BYTES / 2;
	m->touch_s_per_page = 1;
	for (int i = 0; i < 3; i++) {
		char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return stave_err_errno(err, "mapping %zu MiB to touch", bytes >> 20);
		madvise(p, bytes, MADV_NOHUGEPAGE);
		double t = stave_now_s();
#pragma omp parallel for schedule(static)
		for (size_t at = 0; at < bytes; at += 4096)
			*(volatile char *)(p + at) = 0;
		t = (stave_now_s() - t) / (double)(bytes / 4096);
		munmap(p, bytes);
		m->touch_s_per_page = t < m->touch_s_per_page ? t : m->touch_s_per_page;
	}
	return 0;
}

static double region_cost(void)
{
	enum { REGIONS = 1000 };
	double best = 1;
	for (int i = 0; i < MEMORY_TRIES; i++) {
		double t = stave_now_s();
		for (int r = 0; r < REGIONS; r++) {
#pragma omp parallel
			__asm__ volatile("" : : : "memory");
		}
		t = (stave_now_s() - t) / REGIONS;
		best = t < best ? t : best;
	}
	return best;
}

/* ---- disk ---- */

#define DISK_BYTES ((size_t)128 << 20)
#define DISK_PIECE ((size_t)4 << 20)

static int move(int fd, char *piece, bool write_it, struct stave_err *err)
{
	for (size_t done = 0; done < DISK_BYTES;) {
		size_t want = DISK_BYTES - done < DISK_PIECE ? DISK_BYTES - done : DISK_PIECE;
		ssize_t n = write_it ? write(fd, piece, want) : read(fd, piece, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return stave_err_errno(err, "disk bench: %s", write_it ? "writing" : "reading");
		if (n == 0)
			return stave_err_set(err, STAVE_EIO, "disk bench: the file ends after %zu bytes of %zu", done, DISK_BYTES);
		done += (size_t)n;
	}
	return 0;
}

static int probe_file(struct stave_machine *m, int fd, char *piece, struct stave_err *err)
{
	int rc;
	double t = stave_now_s();
	if ((rc = move(fd, piece, true, err)))
		return rc;
	if (fsync(fd))
		return stave_err_errno(err, "disk bench: fsync");
	m->disk_write_bytes_s = (double)DISK_BYTES / (stave_now_s() - t);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* so that reading asks the disk, not the page cache */
	if (lseek(fd, 0, SEEK_SET))
		return stave_err_errno(err, "disk bench: lseek");
	t = stave_now_s();
	if ((rc = move(fd, piece, false, err)))
		return rc;
	m->disk_read_bytes_s = (double)DISK_BYTES / (stave_now_s() - t);
	return 0;
}

static int probe_disk(struct stave_machine *m, const char *dir, struct stave_err *err)
{
	char path[STAVE_PATH];
	int rc = stave_path(path, dir, ".stave-bench-XXXXXX", err);
	if (rc)
		return rc;
	char *piece = malloc(DISK_PIECE);
	if (!piece)
		return stave_err_set(err, STAVE_ENOMEM, "disk bench: no memory for a buffer");
	memset(piece, 0x5a, DISK_PIECE);
	int fd = mkstemp(path);
	if (fd < 0) {
		rc = stave_err_errno(err, "disk bench: no file can be made in %s", dir);
	} else {
		unlink(path); /* gone whatever happens to this process */
		rc = probe_file(m, fd, piece, err);
		close(fd);
	}
	free(piece);
	return rc;
}

/* ---- all of it ---- */

static void cpu_name(char out[64])
{
	char line[256];
	FILE *f = fopen("/proc/cpuinfo", "r");
	snprintf(out, 64, "unknown");
	while (f && fgets(line, sizeof line, f)) {
		char *colon = strchr(line, ':');
		if (strncmp(line, "model name", 10) || !colon)
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(out, 64, "%.63s", colon[1] ? colon + 2 : "unknown");
		break;
	}
	if (f)
		fclose(f);
}

int bench_probe(struct stave_machine *m, const char *disk_dir, struct stave_err *err)
{
	int rc;
	cpu_name(m->cpu);
	snprintf(m->level, sizeof m->level, "%s", stave_kernels()->level);
	long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
	m->cores = cores > 0 ? (int)cores : 1;
	m->threads = stave_threads();
	m->memory_bytes = pages > 0 ? (int64_t)pages * sysconf(_SC_PAGESIZE) : 1;
	stave_progress(false, "memory");
	if ((rc = probe_memory(m, err)) || (rc = probe_touch(m, err)))
		return rc;
	m->call_s = region_cost();
	stave_progress(false, "disk");
	if ((rc = probe_disk(m, disk_dir, err)))
		return rc;
	stave_progress(false, "matrix peaks");
	m->peak_f32 = bench_peak(STAVE_F32, 1.5);
	m->peak_bf16 = bench_peak(STAVE_BF16, 1.5);
	m->peak_i8 = bench_peak(STAVE_I8, 1);
	if (m->peak_f32 <= 0)
		return stave_err_set(err, STAVE_EDEVICE, "oneDNN has no f32 matrix product for this CPU");
	return 0;
}
