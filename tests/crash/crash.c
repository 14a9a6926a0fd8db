/* Preloaded into slipwayd by tests/integ/test_crash_points.py: kill -9 at the N-th change of the disk or of the mounts.
 *
 * Counted are the calls by which something becomes visible on disk or goes: renames, links, unlinks, new directories, fsyncs, truncation,
 * mounts, and the database's writes (pwrite64 is SQLite's; our own code writes by write(2) into files that have no name yet, or rename
 * them). SLIPWAY_CRASH_AT=N: SIGKILL just before the N-th of them; 0: never. SLIPWAY_CRASH_COUNT=FILE: their names are
 * kept there, 16 bytes each, in order. Only in slipwayd: programs that it starts do not get the library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { POINTS_MAX = 65536, NAME_BYTES = 16 };
static char (*names)[NAME_BYTES]; /* shared with the test */
static _Atomic long count;
static long crash_at;

__attribute__((constructor)) static void begin(void)
{
	const char *at = getenv("SLIPWAY_CRASH_AT"), *file = getenv("SLIPWAY_CRASH_COUNT");
	int fd = file ? open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	if (fd >= 0 && ftruncate(fd, POINTS_MAX * NAME_BYTES) == 0) {
		void *p = mmap(NULL, POINTS_MAX * NAME_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) names = p;
	}
	if (fd >= 0) close(fd);
	atomic_store(&count, 0); /* our own ftruncate was counted */
	crash_at = at ? atol(at) : 0;
	unsetenv("LD_PRELOAD");
}

static void point(const char *name)
{
	long n = atomic_fetch_add(&count, 1) + 1;
	if (names && n <= POINTS_MAX) snprintf(names[n - 1], NAME_BYTES, "%s", name);
	if (n == crash_at) kill(getpid(), SIGKILL);
}

#define WRAP(type, name, params, args)                                        \
	type name params;                                                     \
	type name params                                                      \
	{                                                                     \
		static type(*real) params;                                    \
		if (!real) real = (type(*) params)dlsym(RTLD_NEXT, #name);    \
		point(#name);                                                 \
		return real args;                                             \
	}
WRAP(int, rename, (const char *a, const char *b), (a, b))
WRAP(int, renameat, (int x, const char *a, int y, const char *b), (x, a, y, b))
WRAP(int, renameat2, (int x, const char *a, int y, const char *b, unsigned f), (x, a, y, b, f))
WRAP(int, linkat, (int x, const char *a, int y, const char *b, int f), (x, a, y, b, f))
WRAP(int, symlinkat, (const char *a, int x, const char *b), (a, x, b))
WRAP(int, unlink, (const char *a), (a))
WRAP(int, unlinkat, (int x, const char *a, int f), (x, a, f))
WRAP(int, rmdir, (const char *a), (a))
WRAP(int, mkdir, (const char *a, mode_t m), (a, m))
WRAP(int, mkdirat, (int x, const char *a, mode_t m), (x, a, m))
WRAP(int, fsync, (int x), (x))
WRAP(int, fdatasync, (int x), (x))
WRAP(int, syncfs, (int x), (x))
WRAP(int, ftruncate64, (int x, off64_t n), (x, n))
WRAP(int, mount, (const char *a, const char *b, const char *t, unsigned long f, const void *d), (a, b, t, f, d))
WRAP(int, umount2, (const char *a, int f), (a, f))
WRAP(ssize_t, pwrite64, (int x, const void *p, size_t n, off64_t o), (x, p, n, o))
