/* Stretching the lifelines: each rank listens on a port, tells the others its addresses through the transport, dials the
 * ranks at distances 1, 2, 4 … and accepts as many. Ranks on one machine use the loopback only. Otherwise the port is open
 * to the network for a moment, so a caller must know the cookie of the job, which travels only through the transport;
 * strangers are hung up on, and whoever says nothing for a second is a stranger. */
#include "comm/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/sys.h"

#define OPEN_S 30.0 /* for all lines to stand */
#define ADDRESSES 4
#define COOKIE 16

/* What a rank tells the others before any line stands. */
struct card {
	uint64_t host;
	unsigned char cookie[COOKIE];
	char name[40];
	uint16_t port, n;
	uint32_t pad;
	struct in6_addr a[ADDRESSES]; /* IPv4 in its mapped form */
};

struct dialling {
	int rank, size, n;
	struct line *line;
};

uint64_t stave_lifeline_host(void)
{
	char boot[64] = "";
	struct stat net = {0};
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, boot, sizeof boot - 1) < 0)
			boot[0] = 0;
		close(fd);
	}
	if (stat("/proc/self/ns/net", &net))
		net.st_ino = 0;
	return stave_hash64(boot, strlen(boot), (uint64_t)net.st_ino);
}

/* A listening socket on any free port: of the loopback when all ranks share it, else of every interface. */
static int listen_anywhere(bool loopback, uint16_t *port, bool *v6, struct stave_err *err)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY)};
	int off = 0, fd = loopback ? -1 : socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) || bind(fd, (void *)&a6, sizeof a6))) {
		close(fd);
		fd = -1;
	}
	*v6 = fd >= 0;
	if (fd < 0) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || bind(fd, (void *)&a4, sizeof a4))
			goto fail;
	}
	socklen_t n6 = sizeof a6, n4 = sizeof a4;
	if (listen(fd, 256) || (*v6 ? getsockname(fd, (void *)&a6, &n6) : getsockname(fd, (void *)&a4, &n4)))
		goto fail;
	*port = ntohs(*v6 ? a6.sin6_port : a4.sin_port);
	return fd;
fail:
	stave_err_errno(err, "cannot listen for the other ranks");
	if (fd >= 0)
		close(fd);
	return -1;
}

static struct in6_addr mapped(uint32_t v4_network_order)
{
	struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(a.s6_addr + 12, &v4_network_order, 4);
	return a;
}

/* The addresses other machines may reach this one at: those of interfaces that are up, without the bridges that
 * container engines put on every machine under the same address. */
static uint16_t my_addresses(struct in6_addr a[ADDRESSES], bool v6)
{
	static const char *const local[] = {"docker", "virbr", "br-", "veth", "cni"};
	struct ifaddrs *all = NULL;
	uint16_t n = 0;
	if (getifaddrs(&all))
		return 0;
	for (struct ifaddrs *i = all; i && n < ADDRESSES; i = i->ifa_next) {
		bool skip = !i->ifa_addr || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK);
		for (size_t k = 0; k < sizeof local / sizeof *local; k++)
			skip |= !strncmp(i->ifa_name, local[k], strlen(local[k]));
		if (skip)
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			a[n++] = mapped(((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr.s_addr);
		else if (v6 && i->ifa_addr->sa_family == AF_INET6) {
			struct in6_addr x = ((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr;
			if (!IN6_IS_ADDR_LINKLOCAL(&x))
				a[n++] = x;
		}
	}
	freeifaddrs(all);
	return n;
}

static int dial_address(struct in6_addr a, uint16_t port)
{
	struct sockaddr_in6 s6 = {.sin6_family = AF_INET6, .sin6_addr = a, .sin6_port = htons(port)};
	struct sockaddr_in s4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	bool v4 = IN6_IS_ADDR_V4MAPPED(&a);
	struct timeval limit = {.tv_sec = 5};
	memcpy(&s4.sin_addr, a.s6_addr + 12, 4);
	int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* bounds connect too */
	if (connect(fd, v4 ? (void *)&s4 : (void *)&s6, v4 ? sizeof s4 : sizeof s6)) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static void add_line(struct dialling *d, int fd, int rank)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	d->line[d->n++] = (struct line){fd, rank};
}

static int dial(struct dialling *d, const struct card *all, int rank, struct stave_err *err)
{
	const struct card *peer = &all[rank], *me = &all[d->rank];
	struct in6_addr loopback = mapped(htonl(INADDR_LOOPBACK));
	bool near = peer->host == me->host;
	int fd = -1, n = near ? 1 : peer->n < ADDRESSES ? peer->n : ADDRESSES;
	struct lifeline_frame f = {.magic = LIFELINE_MAGIC, .type = LIFELINE_HELLO, .to = (uint16_t)rank, .rank = (uint32_t)d->rank};
	memcpy(f.op, all[0].cookie, COOKIE);
	errno = EHOSTUNREACH;
	for (int i = 0; fd < 0 && i < n; i++)
		fd = dial_address(near ? loopback : peer->a[i], peer->port);
	if (fd < 0 || send(fd, &f, sizeof f, MSG_NOSIGNAL) != sizeof f) {
		int e = errno;
		if (fd >= 0)
			close(fd);
		return stave_err_set(err, STAVE_EPEER, "rank %d cannot reach rank %d on %.40s, port %d: %s; ranks need TCP "
		                     "between their machines to notice each other's loss: open it in the firewall", d->rank, rank,
		                     peer->name, peer->port, strerror(e));
	}
	add_line(d, fd, rank);
	return 0;
}

/* One caller: its hello within a second, or it is a stranger. Returns its rank or -1. */
static int greet(struct dialling *d, int fd, const unsigned char *cookie)
{
	struct lifeline_frame f;
	struct timeval limit = {.tv_sec = 1};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	if (recv(fd, &f, sizeof f, MSG_WAITALL) != sizeof f || !stave_lifeline_frame_check(&f, d->size))
		return -1;
	if (f.type != LIFELINE_HELLO || f.to != (uint16_t)d->rank || memcmp(f.op, cookie, COOKIE))
		return -1;
	return (int)f.rank;
}

static int accept_callers(struct dialling *d, int listener, const struct card *all, struct stave_err *err)
{
	bool here[FINGERS] = {false};
	int fingers = d->n; /* as many dial us as we dialled */
	double end_s = stave_now_s() + OPEN_S;
	for (int n = 0; n < fingers;) {
		double left_s = end_s - stave_now_s();
		struct pollfd p = {.fd = listener, .events = POLLIN};
		if (left_s <= 0 || poll(&p, 1, (int)(left_s * 1000) + 1) < 0) {
			int k = 0;
			while (here[k])
				k++;
			int missing = (int)(((int64_t)d->rank - (1 << k) + d->size) % d->size);
			return stave_err_set(err, STAVE_EPEER, "rank %d (%.40s) did not reach rank %d (%.40s) in %.0f s; ranks need TCP "
			                     "between their machines: open it in the firewall", missing, all[missing].name, d->rank,
			                     all[d->rank].name, OPEN_S);
		}
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		int rank = greet(d, fd, all[0].cookie), k = 0;
		while (k < fingers && (here[k] || (d->rank - (1 << k) + d->size) % d->size != rank))
			k++;
		if (rank < 0 || k == fingers) {
			close(fd);
			continue;
		}
		here[k] = true;
		n++;
		add_line(d, fd, rank);
	}
	return 0;
}

int stave_dial(int rank, int size, uint64_t host, lifeline_gather *gather, void *ctx, struct line line[LINES], int *n, struct stave_err *err)
{
	struct dialling d = {.rank = rank, .size = size, .line = line};
	struct card me = {.host = host}, *all = calloc((size_t)size, sizeof me);
	int listener = -1, rc = all ? 0 : stave_err_set(err, STAVE_ENOMEM, "no memory for %d ranks", size);
	bool loopback = true, v6 = false;
	if (!rc)
		rc = gather(ctx, &me, all, sizeof me, err);
	for (int r = 0; !rc && r < size; r++)
		loopback &= all[r].host == host;
	if (!rc && (listener = listen_anywhere(loopback, &me.port, &v6, err)) < 0)
		rc = STAVE_EIO;
	if (!rc && getrandom(me.cookie, sizeof me.cookie, 0) != sizeof me.cookie)
		rc = stave_err_errno(err, "no random numbers");
	if (!rc) {
		gethostname(me.name, sizeof me.name - 1);
		me.n = loopback ? 0 : my_addresses(me.a, v6);
		rc = gather(ctx, &me, all, sizeof me, err); /* everybody listens from here on, so dialling waits for nobody */
	}
	for (int64_t f = 1; !rc && f < size; f *= 2)
		rc = dial(&d, all, (int)((rank + f) % size), err);
	if (!rc)
		rc = accept_callers(&d, listener, all, err);
	if (listener >= 0)
		close(listener);
	free(all);
	for (int i = 0; rc && i < d.n; i++)
		close(line[i].fd);
	*n = rc ? 0 : d.n;
	return rc;
}
