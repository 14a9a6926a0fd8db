#include "base/path.h"
#include "base/buf.h"
#include "base/mem.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

char *path_clean(const char *p)
{
	bool rooted = *p == '/';
	struct buf out = BUF_INIT;
	if (rooted) buf_addc(&out, '/');
	size_t floor = out.n; /* ".." never goes back beyond this */
	for (const char *s = p; *s;) {
		size_t n = strcspn(s, "/");
		if (n == 2 && s[0] == '.' && s[1] == '.') {
			if (out.n > floor) {
				while (out.n > floor && out.p[out.n - 1] != '/') out.n--;
				if (out.n > floor) out.n--;
				out.p[out.n] = 0;
			} else if (!rooted) {
				if (out.n) buf_addc(&out, '/');
				buf_adds(&out, "..");
				floor = out.n;
			}
		} else if (n && !(n == 1 && s[0] == '.')) {
			if (out.n && out.p[out.n - 1] != '/') buf_addc(&out, '/');
			buf_add(&out, s, n);
		}
		s += n;
		while (*s == '/') s++;
	}
	if (!out.n) buf_addc(&out, '.');
	return buf_take_str(&out);
}

char *path_join(const char *a, const char *b)
{
	if (!*a && !*b) return xstrdup("");
	_cleanup_free_ char *joined = !*a ? xstrdup(b) : !*b ? xstrdup(a) : xasprintf("%s/%s", a, b);
	return path_clean(joined);
}

char *path_abs_in(const char *p)
{
	_cleanup_free_ char *rooted = xasprintf("/%s", p);
	return path_clean(rooted);
}

const char *path_base(const char *p)
{
	const char *s = strrchr(p, '/');
	return s ? s + 1 : p;
}

char *path_dir(const char *p)
{
	const char *s = strrchr(p, '/');
	_cleanup_free_ char *dir = s ? xstrndup(p, (size_t)(s - p) + 1) : xstrdup("");
	return path_clean(dir);
}

static int openat2_in(int rootfd, const char *path, uint64_t flags, mode_t mode)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	if (flags & (O_CREAT | __O_TMPFILE)) how.mode = mode & 07777;
	for (int tries = 0;; tries++) {
		int fd = (int)syscall(SYS_openat2, rootfd, *path ? path : ".", &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN || tries == 64) return fd; /* EAGAIN: a rename raced with a ".." */
	}
}

int path_open_in(int rootfd, const char *path, int flags, mode_t mode, struct err *e)
{
	int fd = openat2_in(rootfd, path, (uint64_t)flags, mode);
	if (fd < 0) {
		int saved = errno;
		err_sys(e, saved, "open %s", path);
		errno = saved;
	}
	return fd;
}

int path_open_parent_in(int rootfd, const char *path, const char **ret_base, struct err *e)
{
	const char *end = path + strlen(path);
	while (end > path && end[-1] == '/') end--;
	const char *base = end;
	while (base > path && base[-1] != '/') base--;
	size_t n = (size_t)(end - base);
	if (!n || *end || (n == 1 && *base == '.') || (n == 2 && base[0] == '.' && base[1] == '.'))
		return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" names no file", path);
	_cleanup_free_ char *dir = xstrndup(path, (size_t)(base - path));
	int fd = path_open_in(rootfd, *dir ? dir : ".", O_PATH | O_DIRECTORY, 0, e);
	if (fd >= 0) *ret_base = base;
	return fd;
}

/* One component: made when missing, entered either way; links are followed within the root by way of `so_far`. */
static int enter_or_make(int rootfd, const char *so_far, mode_t mode, uid_t uid, gid_t gid, struct err *e)
{
	int fd = openat2_in(rootfd, so_far, O_PATH | O_DIRECTORY, 0);
	if (fd >= 0 || errno != ENOENT) return fd >= 0 ? fd : err_sys(e, errno, "mkdir %s", so_far);
	const char *base;
	_cleanup_close_ int parent = path_open_parent_in(rootfd, so_far, &base, e);
	if (parent < 0) return -1;
	if (mkdirat(parent, base, mode) < 0 && errno != EEXIST) return err_sys(e, errno, "mkdir %s", so_far);
	if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchownat(parent, base, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, errno, "chown %s", so_far);
	if (fchmodat(parent, base, mode, 0) < 0) return err_sys(e, errno, "chmod %s", so_far); /* whatever the umask */
	fd = openat2_in(rootfd, so_far, O_PATH | O_DIRECTORY, 0);
	return fd >= 0 ? fd : err_sys(e, errno, "mkdir %s", so_far);
}

int path_mkdirs_in(int rootfd, const char *path, mode_t mode, uid_t uid, gid_t gid, struct err *e)
{
	_cleanup_free_ char *clean = path_abs_in(path);
	for (char *s = clean + 1; *s;) {
		s += strcspn(s, "/");
		char was = *s;
		*s = 0;
		int fd = enter_or_make(rootfd, clean, mode, uid, gid, e);
		if (fd < 0) return -1;
		close(fd);
		*s = was;
		if (was) s++;
	}
	return 0;
}

static int stat_in(int rootfd, const char *path, int flags, const char *verb, struct stat *ret, struct err *e)
{
	_cleanup_close_ int fd = openat2_in(rootfd, path, (uint64_t)(O_PATH | flags), 0);
	if (fd < 0 || fstat(fd, ret) < 0) {
		int saved = errno;
		err_sys(e, saved, "%s %s", verb, path);
		errno = saved;
		return -1;
	}
	return 0;
}

int path_stat_in(int rootfd, const char *path, struct stat *ret, struct err *e)
{
	return stat_in(rootfd, path, 0, "stat", ret, e);
}

int path_lstat_in(int rootfd, const char *path, struct stat *ret, struct err *e)
{
	return stat_in(rootfd, path, O_NOFOLLOW, "lstat", ret, e);
}

static int remove_children(int fd, dev_t dev, struct err *e);

static int remove_entry(int dirfd, const char *name, dev_t dev, struct err *e)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT) return 0;
	if (errno != EISDIR && errno != EPERM) return err_sys(e, errno, "remove %s", name);
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "remove %s", name);
	struct stat st;
	if (fstat(fd, &st) < 0 || (dev && st.st_dev != dev)) {
		close(fd);
		return err_set(e, CODE_FAILED_PRECONDITION, "remove %s: it is a mount point", name);
	}
	if (remove_children(fd, st.st_dev, e) < 0) return -1; /* closes fd */
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT) return err_sys(e, errno, "remove %s", name);
	return 0;
}

static int remove_children(int fd, dev_t dev, struct err *e)
{
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return err_sys(e, errno, "read directory");
	}
	int r = 0;
	struct dirent *ent;
	while (r == 0 && (ent = readdir(d)))
		if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..")) r = remove_entry(dirfd(d), ent->d_name, dev, e);
	closedir(d);
	return r;
}

int path_remove_all(int dirfd, const char *name, struct err *e) { return remove_entry(dirfd, name, 0, e); }

int path_mkdirs(const char *path, mode_t mode, struct err *e)
{
	_cleanup_free_ char *clean = path_clean(path);
	for (char *s = clean + (*clean == '/'); *s;) {
		s += strcspn(s, "/");
		char was = *s;
		*s = 0;
		if (mkdir(clean, mode) < 0 && errno != EEXIST) return err_sys(e, errno, "mkdir %s", clean);
		*s = was;
		if (was) s++;
	}
	return 0;
}

int path_read_file(int dirfd, const char *path, size_t max_bytes, uint8_t **ret, size_t *ret_len, struct err *e)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open %s", path);
	_cleanup_buf_ struct buf b = BUF_MAX(max_bytes);
	for (;;) {
		char chunk[16384];
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read %s", path);
		if (n == 0) break;
		if (buf_add(&b, chunk, (size_t)n) < 0)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s is larger than %zu bytes", path, max_bytes);
	}
	*ret_len = b.n;
	*ret = (uint8_t *)buf_take_str(&b);
	return 0;
}

int path_write_all(int fd, const void *p, size_t n, struct err *e)
{
	for (const char *s = p; n;) {
		ssize_t w = write(fd, s, n);
		if (w < 0 && errno == EINTR) continue;
		if (w < 0) return err_sys(e, errno, "write");
		s += w;
		n -= (size_t)w;
	}
	return 0;
}

int path_write_file(int dirfd, const char *path, const void *p, size_t n, mode_t mode, bool fsync_too, struct err *e)
{
	char id[ID_STR];
	id_new(id);
	_cleanup_free_ char *tmp = xasprintf("%s.tmp-%s", path, id);
	_cleanup_close_ int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0) return err_sys(e, errno, "create %s", tmp);
	if (path_write_all(fd, p, n, e) < 0 || (fsync_too && fsync(fd) < 0 && err_sys(e, errno, "fsync %s", tmp) < 0) ||
	    (renameat(dirfd, tmp, dirfd, path) < 0 && err_sys(e, errno, "rename %s", tmp) < 0)) {
		unlinkat(dirfd, tmp, 0);
		return err_wrap(e, "write %s", path);
	}
	return 0;
}
