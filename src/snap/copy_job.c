/* Copying trees of files: a plain tree, or an overlay layer applied upon a tree.
 *
 *  1. Both sides are reached one component at a time from open directories without following links, so nothing in either tree
 *     leads out of it.
 *  2. Contents are shared with the source where the disk can (FICLONE), else copied in the kernel with holes kept.
 *  3. What was hard linked together in the source is hard linked together in the copy; never with the source.
 *  4. Owner, mode, times and xattrs are kept, but overlay's own xattrs.
 *  5. Depth is bounded: a directory costs two descriptors a level.
 * Called from jobs; blocks. */
#include "snap/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

int snap_cancelled(const atomic_bool *c, struct err *e)
{
	return c && atomic_load(c) ? err_set(e, CODE_CANCELLED, "cancelled") : 0;
}

void snap_copy_fini(struct snap_copy *c)
{
	map_fini_free(&c->links);
	buf_fini(&c->path);
}

static int names_cmp(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int snap_dir_names(int fd, struct strvec *ret, struct err *e)
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	struct dirent *de;

	if (!d) {
		int saved = errno;
		if (own >= 0) close(own);
		return err_sys(e, saved, "reading a directory");
	}
	errno = 0;
	while ((de = readdir(d)))
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0) strvec_add(ret, de->d_name);
	int saved = errno;
	closedir(d);
	if (saved) return err_sys(e, saved, "reading a directory");
	if (ret->n) qsort(ret->v, ret->n, sizeof *ret->v, names_cmp);
	return 0;
}

/* ---- xattrs, by descriptor or, for what cannot be opened, by a path below /proc/self/fd ---- */

static bool xattr_is_overlay(const char *name)
{
	return str_starts(name, "trusted.overlay.") || str_starts(name, "user.overlay.");
}

/* The list of names, NUL-separated; errno ENOTSUP counts as none. */
static ssize_t xattr_list(const char *path, char **ret)
{
	for (;;) {
		ssize_t n = llistxattr(path, NULL, 0);
		if (n < 0) return errno == ENOTSUP ? 0 : -1;
		char *p = xmalloc((size_t)n + 1);
		ssize_t got = llistxattr(path, p, (size_t)n);
		if (got >= 0) {
			*ret = p;
			return got;
		}
		free(p);
		if (errno != ERANGE) return -1;
	}
}

static ssize_t xattr_get(const char *path, const char *name, uint8_t **ret)
{
	for (;;) {
		ssize_t n = lgetxattr(path, name, NULL, 0);
		if (n < 0) return -1;
		uint8_t *p = xmalloc((size_t)n + 1);
		ssize_t got = lgetxattr(path, name, p, (size_t)n);
		if (got >= 0) {
			*ret = p;
			return got;
		}
		free(p);
		if (errno != ERANGE) return -1;
	}
}

static int xattrs_copy(const char *from, const char *to, struct err *e)
{
	_cleanup_free_ char *names = NULL;
	ssize_t n = xattr_list(from, &names);

	if (n < 0) return err_sys(e, errno, "listing xattrs");
	for (const char *k = names; k && k < names + n; k += strlen(k) + 1) {
		_cleanup_free_ uint8_t *v = NULL;
		ssize_t len;
		if (xattr_is_overlay(k)) continue;
		if ((len = xattr_get(from, k, &v)) < 0) {
			if (errno == ENODATA) continue;
			return err_sys(e, errno, "reading xattr %s", k);
		}
		if (lsetxattr(to, k, v, (size_t)len, 0) < 0) return err_sys(e, errno, "setting xattr %s", k);
	}
	return 0;
}

static size_t xattrs_own(const char *names, ssize_t n)
{
	size_t count = 0;

	for (const char *k = names; k && k < names + n; k += strlen(k) + 1) count += !xattr_is_overlay(k);
	return count;
}

static bool xattrs_same(const char *a, const char *b)
{
	_cleanup_free_ char *an = NULL, *bn = NULL;
	ssize_t na = xattr_list(a, &an), nb = xattr_list(b, &bn);

	if (na < 0 || nb < 0 || xattrs_own(an, na) != xattrs_own(bn, nb)) return false;
	for (const char *k = an; k && k < an + na; k += strlen(k) + 1) {
		_cleanup_free_ uint8_t *va = NULL, *vb = NULL;
		if (xattr_is_overlay(k)) continue;
		ssize_t la = xattr_get(a, k, &va), lb = xattr_get(b, k, &vb);
		if (la < 0 || la != lb || memcmp(va, vb, (size_t)la) != 0) return false;
	}
	return true;
}

enum { FD_PATH = 300 };
static void fd_path(char *out, int fd, const char *name)
{
	snprintf(out, FD_PATH, "/proc/self/fd/%d%s%s", fd, name ? "/" : "", name ? name : "");
}

/* fds are O_PATH or better; "/." makes the l-calls look at the directory, not at the link in /proc. */
bool snap_same_xattrs(int a, int b)
{
	char pa[FD_PATH], pb[FD_PATH];

	fd_path(pa, a, ".");
	fd_path(pb, b, ".");
	return xattrs_same(pa, pb);
}

bool snap_same_xattrs_at(int a, int b, const char *name)
{
	char pa[FD_PATH], pb[FD_PATH];

	fd_path(pa, a, name);
	fd_path(pb, b, name);
	return xattrs_same(pa, pb);
}

/* ---- metadata ---- */

/* Owner first: it clears setuid and the capability. Then xattrs, mode, times. path is what the l-calls take. */
static int meta_copy(const char *from, const char *to, const struct stat *st, struct err *e)
{
	const struct timespec t[2] = {st->st_atim, st->st_mtim};

	if (lchown(to, st->st_uid, st->st_gid) < 0) return err_sys(e, errno, "setting the owner");
	if (xattrs_copy(from, to, e) < 0) return -1;
	if (!S_ISLNK(st->st_mode) && chmod(to, st->st_mode & 07777) < 0) return err_sys(e, errno, "setting the mode");
	if (utimensat(AT_FDCWD, to, t, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "setting the times");
	return 0;
}

int snap_copy_meta(struct snap_copy *c, int src, int dst, const struct stat *st, struct err *e)
{
	char from[FD_PATH], to[FD_PATH];

	fd_path(from, src, ".");
	fd_path(to, dst, ".");
	return meta_copy(from, to, st, e);
}

/* ---- contents ---- */

/* One run of data; copy_file_range where it can, through a buffer where it cannot. */
static int copy_span(int in, int out, off_t at, off_t end, const atomic_bool *cancelled, struct err *e)
{
	static const size_t chunk = 8 << 20;
	off_t from = at, to = at;
	ssize_t n = 0;

	while (from < end) {
		if (snap_cancelled(cancelled, e) < 0) return -1;
		n = copy_file_range(in, &from, out, &to, min_of((size_t)(end - from), chunk), 0);
		if (n <= 0) break;
	}
	if (from >= end) return 0;
	if (n == 0) return err_set(e, CODE_ABORTED, "a file became shorter while it was copied");
	if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return err_sys(e, errno, "copying");
	_cleanup_free_ uint8_t *p = xmalloc(1 << 18);
	while (from < end) {
		if (snap_cancelled(cancelled, e) < 0) return -1;
		n = pread(in, p, min_of((size_t)(end - from), (size_t)1 << 18), from);
		if (n < 0) return err_sys(e, errno, "reading");
		if (n == 0) return err_set(e, CODE_ABORTED, "a file became shorter while it was copied");
		for (ssize_t done = 0, w; done < n; done += w)
			if ((w = pwrite(out, p + done, (size_t)(n - done), from + done)) < 0)
				return err_sys(e, errno, "writing");
		from += n;
	}
	return 0;
}

static int copy_bytes(int in, int out, off_t size, const atomic_bool *cancelled, struct err *e)
{
	off_t at = 0;

	if (ioctl(out, FICLONE, in) == 0) return 0;
	if (ftruncate(out, size) < 0) return err_sys(e, errno, "setting the size");
	while (at < size) {
		off_t data = lseek(in, at, SEEK_DATA), end;
		if (data < 0 && errno == ENXIO) break; /* a hole to the end */
		if (data < 0) data = at;
		end = lseek(in, data, SEEK_HOLE);
		if (end < 0 || end > size) end = size;
		if (data >= size) break;
		if (copy_span(in, out, data, end, cancelled, e) < 0) return -1;
		at = end;
	}
	return 0;
}

static int copy_file(struct snap_copy *c, int src, int dst, const char *name, const struct stat *st, struct err *e)
{
	_cleanup_close_ int in = openat(src, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	_cleanup_close_ int out = -1;

	if (in < 0) return err_sys(e, errno, "opening");
	out = openat(dst, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0) return err_sys(e, errno, "creating");
	return copy_bytes(in, out, st->st_size, c->cancelled, e);
}

static int copy_symlink(int src, int dst, const char *name, struct err *e)
{
	char target[4097];
	ssize_t n = readlinkat(src, name, target, sizeof target - 1);

	if (n < 0) return err_sys(e, errno, "reading a link");
	target[n] = 0;
	return symlinkat(target, dst, name) < 0 ? err_sys(e, errno, "making a link") : 0;
}

/* ---- entries ---- */

static bool is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0); }

static bool is_opaque(const struct snap_copy *c, int dir)
{
	char v[4];

	return c->layer && fgetxattr(dir, SNAP_OPAQUE(c->userxattr), v, sizeof v) == 1 && v[0] == 'y';
}

/* Path of name below dst_root. Borrowed until the next call; NULL when it is too long to link by. */
static char *path_below(struct snap_copy *c, const char *name)
{
	size_t n = c->path.n + strlen(name) + 2;

	return n > 4000 ? NULL : xasprintf("%s%s%s", buf_str(&c->path), c->path.n ? "/" : "", name);
}

/* 1: it is linked to the first of its kind. 0: it has to be copied (and is noted as the first). */
static int link_to_first(struct snap_copy *c, int dst, const char *name, const struct stat *st, struct err *e)
{
	char key[64];
	char *path;
	const char *first;

	if (st->st_nlink < 2) return 0;
	snprintf(key, sizeof key, "%jx:%jx", (uintmax_t)st->st_dev, (uintmax_t)st->st_ino);
	first = map_get(&c->links, key);
	if (first) {
		if (linkat(c->dst_root, first, dst, name, 0) == 0) return 1;
		return errno == EMLINK ? 0 : err_sys(e, errno, "linking to %s", first);
	}
	path = path_below(c, name);
	if (path) map_put(&c->links, key, path);
	return 0;
}

static int copy_subdir(struct snap_copy *c, int src, int dst, const char *name, struct err *e)
{
	_cleanup_close_ int from = openat(src, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), to = -1;
	struct stat st;
	size_t before = c->path.n;
	int r;

	if (from < 0) return err_sys(e, errno, "opening");
	if (fstatat(dst, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (!S_ISDIR(st.st_mode) || is_opaque(c, from)) &&
	    path_remove_all(dst, name, e) < 0)
		return -1;
	if (mkdirat(dst, name, 0700) < 0 && errno != EEXIST) return err_sys(e, errno, "making a directory");
	to = openat(dst, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to < 0) return err_sys(e, errno, "opening the copy");
	if (++c->depth > SNAP_DEPTH_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "directories nest deeper than %d", SNAP_DEPTH_MAX);
	buf_addf(&c->path, "%s%s", before ? "/" : "", name);
	r = snap_copy_dir(c, from, to, e);
	c->depth--;
	c->path.n = before;
	if (c->path.p) c->path.p[before] = 0;
	return r;
}

static int copy_other(struct snap_copy *c, int src, int dst, const char *name, const struct stat *st, struct err *e)
{
	char from[FD_PATH], to[FD_PATH];
	int r = link_to_first(c, dst, name, st, e);

	if (r != 0) return r < 0 ? -1 : 0;
	if (S_ISREG(st->st_mode))
		r = copy_file(c, src, dst, name, st, e);
	else if (S_ISLNK(st->st_mode))
		r = copy_symlink(src, dst, name, e);
	else if (mknodat(dst, name, st->st_mode, st->st_rdev) < 0)
		r = err_sys(e, errno, "making a special file");
	if (r < 0) return -1;
	fd_path(from, src, name);
	fd_path(to, dst, name);
	return meta_copy(from, to, st, e);
}

int snap_copy_entry(struct snap_copy *c, int src, int dst, const char *name, const struct stat *st, struct err *e)
{
	int r = 0;

	if (snap_cancelled(c->cancelled, e) < 0) return -1;
	if (S_ISDIR(st->st_mode)) {
		r = copy_subdir(c, src, dst, name, e);
	} else if (!S_ISSOCK(st->st_mode)) {
		if (c->layer) r = path_remove_all(dst, name, e);
		if (r == 0 && !(c->layer && is_whiteout(st))) r = copy_other(c, src, dst, name, st, e);
	}
	/* Only the innermost says where: it knows the whole path. */
	if (r < 0 && e && e->msg && e->msg[0] != '/')
		return err_wrap(e, "/%s%s%s", buf_str(&c->path), c->path.n ? "/" : "", name);
	return r;
}

int snap_copy_dir(struct snap_copy *c, int src, int dst, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	struct stat st;

	if (fstat(src, &st) < 0) return err_sys(e, errno, "stat");
	if (snap_dir_names(src, &names, e) < 0) return -1;
	for (size_t i = 0; i < names.n; i++) {
		struct stat one;
		if (fstatat(src, names.v[i], &one, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "%s", names.v[i]);
		if (snap_copy_entry(c, src, dst, names.v[i], &one, e) < 0) return -1;
	}
	return snap_copy_meta(c, src, dst, &st, e); /* last: its times */
}
