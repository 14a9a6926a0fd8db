/* What the targets share. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

struct fuzz_in fuzz_until(struct fuzz_in *in, const char *end)
{
	size_t len = strlen(end);
	const uint8_t *at = memmem(in->p, in->n, end, len);
	struct fuzz_in head = {in->p, at ? (size_t)(at - in->p) : in->n};
	size_t skip = at ? head.n + len : in->n;
	in->p += skip;
	in->n -= skip;
	return head;
}

char *fuzz_text(struct fuzz_in in) { return xstrndup((const char *)in.p, in.n); }

/* ---- the scratch folder ---- */

static char top[64], inner[80];
static int top_fd = -1, in_fd = -1;
static pid_t owner;

static void remove_top(void)
{
	if (getpid() == owner) path_remove_all(AT_FDCWD, top, NULL);
}

static void must(bool ok, const char *what)
{
	if (!ok) bug("scratch folder: %s", what);
}

int fuzz_scratch(void)
{
	if (in_fd >= 0) return in_fd;
	snprintf(top, sizeof top, "%s/slipway-fuzz.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	must(mkdtemp(top), "mkdtemp");
	owner = getpid();
	atexit(remove_top);
	snprintf(inner, sizeof inner, "%s/in", top);
	top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(top_fd >= 0 && mkdirat(top_fd, "in", 0755) == 0 && mkdirat(top_fd, "out", 0755) == 0, "mkdir");
	must(path_write_file(top_fd, "out/secret", "secret", 6, 0600, false, NULL) == 0, "write");
	in_fd = openat(top_fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(in_fd >= 0, "open");
	return in_fd;
}

const char *fuzz_scratch_path(void)
{
	fuzz_scratch();
	return inner;
}

static size_t count_names(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	size_t n = 0;
	must(d, name);
	for (struct dirent *x; (x = readdir(d));) n += strcmp(x->d_name, ".") && strcmp(x->d_name, "..");
	closedir(d);
	return n;
}

void fuzz_scratch_clear(void)
{
	DIR *d = fdopendir(openat(fuzz_scratch(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	must(d, "open");
	for (struct dirent *x; (x = readdir(d));)
		if (strcmp(x->d_name, ".") && strcmp(x->d_name, ".."))
			must(path_remove_all(in_fd, x->d_name, NULL) == 0, "remove");
	closedir(d);
	must(fchmod(in_fd, 0755) == 0 && fchown(in_fd, getuid(), getgid()) == 0, "chmod");
}

void fuzz_scratch_check(void)
{
	struct stat st;
	uint8_t *p = NULL;
	size_t n = 0;
	must(count_names(top_fd, ".") == 2 && count_names(top_fd, "out") == 1, "something was made outside of it");
	must(fstatat(top_fd, "out/secret", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
		     (st.st_mode & 07777) == 0600 && st.st_nlink == 1 && st.st_uid == getuid(),
	     "the file outside of it was changed");
	must(path_read_file(top_fd, "out/secret", 100, &p, &n, NULL) == 0 && n == 6 && !memcmp(p, "secret", 6),
	     "the file outside of it was written to");
	free(p);
}
