/* What one tree has over another, written as an overlay layer.
 *
 *  1. Both are walked together by sorted names. Only in upper: copied whole. Only in lower: a whiteout. In both: nothing when
 *     they are the same; directories are descended into, and made in the layer only when something below or their own
 *     metadata differs.
 *  2. Same means: kind, mode, owner, device, xattrs; for files also size and mtime, and then the content, unless both
 *     are one unchanged inode (same number and ctime). A name and time alone never make a file count as unchanged.
 *  3. A time of a directory alone is no change, as in containerd's differ.
 * Called from jobs; blocks. Source: containerd/continuity fs.Changes (what counts as a change). */
#include "snap/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>

/* A directory of both trees; dst is made when it is needed. */
struct diff_dir {
	struct diff_dir *up;
	const char *name;
	int lower, upper, dst;
	struct stat st; /* upper's */
};

struct diff {
	struct snap_copy copy;
};

/* ---- same? ---- */

static ssize_t read_full(int fd, uint8_t *p, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = read(fd, p + done, n - done);
		if (r < 0) return -1;
		if (r == 0) break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

/* 1 same, 0 not, -1. */
static int same_content(int lower, int upper, const char *name, const atomic_bool *cancelled, struct err *e)
{
	enum { CHUNK = 1 << 17 };
	_cleanup_close_ int a = openat(lower, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	_cleanup_close_ int b = openat(upper, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	_cleanup_free_ uint8_t *p = xmalloc(2 * CHUNK);

	if (a < 0 || b < 0) return err_sys(e, errno, "%s", name);
	for (;;) {
		if (snap_cancelled(cancelled, e) < 0) return -1;
		ssize_t na = read_full(a, p, CHUNK), nb = read_full(b, p + CHUNK, CHUNK);
		if (na < 0 || nb < 0) return err_sys(e, errno, "%s", name);
		if (na != nb || memcmp(p, p + CHUNK, (size_t)na) != 0) return 0;
		if (na < CHUNK) return 1;
	}
}

static bool same_target(int lower, int upper, const char *name)
{
	char a[4096], b[4096];
	ssize_t na = readlinkat(lower, name, a, sizeof a), nb = readlinkat(upper, name, b, sizeof b);

	return na >= 0 && na == nb && memcmp(a, b, (size_t)na) == 0;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stat(const struct stat *a, const struct stat *b)
{
	return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid && a->st_rdev == b->st_rdev;
}

int snap_same_entry(int upper, int lower, const char *name, mode_t mode, const atomic_bool *cancelled, struct err *e)
{
	if (!snap_same_xattrs_at(lower, upper, name)) return 0;
	if (S_ISLNK(mode)) return same_target(lower, upper, name);
	return S_ISREG(mode) ? same_content(lower, upper, name, cancelled, e) : 1;
}

/* For anything but directories. */
static int same_entry(struct diff *d, const struct diff_dir *at, const char *name, const struct stat *a, const struct stat *b,
		      struct err *e)
{
	if (!same_stat(a, b) || a->st_size != b->st_size || !same_time(&a->st_mtim, &b->st_mtim)) return 0;
	if (a->st_ino == b->st_ino && same_time(&a->st_ctim, &b->st_ctim)) return 1;
	return snap_same_entry(at->upper, at->lower, name, a->st_mode, d->copy.cancelled, e);
}

/* ---- the layer ---- */

static int diff_need(struct diff *d, struct diff_dir *at, struct err *e)
{
	if (at->dst >= 0) return 0;
	if (diff_need(d, at->up, e) < 0) return -1;
	if (mkdirat(at->up->dst, at->name, 0700) < 0) return err_sys(e, errno, "making %s", at->name);
	at->dst = openat(at->up->dst, at->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return at->dst < 0 ? err_sys(e, errno, "opening %s", at->name) : 0;
}

static int diff_removed(struct diff *d, struct diff_dir *at, const char *name, struct err *e)
{
	if (diff_need(d, at, e) < 0) return -1;
	return mknodat(at->dst, name, S_IFCHR | 0600, makedev(0, 0)) < 0 ? err_sys(e, errno, "whiteout of %s", name) : 0;
}

static int diff_added(struct diff *d, struct diff_dir *at, const char *name, const struct stat *st, struct err *e)
{
	if (diff_need(d, at, e) < 0) return -1;
	return snap_copy_entry(&d->copy, at->upper, at->dst, name, st, e);
}

static int diff_walk(struct diff *d, struct diff_dir *at, struct err *e);

static int diff_subdir(struct diff *d, struct diff_dir *up, const char *name, const struct stat *a, const struct stat *b,
		       struct err *e)
{
	_cleanup_close_ int lower = openat(up->lower, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_close_ int upper = openat(up->upper, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct diff_dir at = {.up = up, .name = name, .lower = lower, .upper = upper, .dst = -1, .st = *b};
	size_t before = d->copy.path.n;
	int r = 0;

	if (lower < 0 || upper < 0) return err_sys(e, errno, "%s", name);
	if (++d->copy.depth > SNAP_DEPTH_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "directories nest deeper than %d", SNAP_DEPTH_MAX);
	buf_addf(&d->copy.path, "%s%s", before ? "/" : "", name);
	if (!same_stat(a, b) || !snap_same_xattrs(lower, upper)) r = diff_need(d, &at, e);
	if (r == 0) r = diff_walk(d, &at, e);
	if (r == 0 && at.dst >= 0) r = snap_copy_meta(&d->copy, upper, at.dst, b, e);
	close_fd(&at.dst);
	d->copy.depth--;
	d->copy.path.n = before;
	if (d->copy.path.p) d->copy.path.p[before] = 0;
	return r;
}

static int diff_both(struct diff *d, struct diff_dir *at, const char *name, struct err *e)
{
	struct stat a, b;

	if (fstatat(at->lower, name, &a, AT_SYMLINK_NOFOLLOW) < 0 || fstatat(at->upper, name, &b, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, errno, "%s", name);
	if (S_ISDIR(a.st_mode) && S_ISDIR(b.st_mode)) return diff_subdir(d, at, name, &a, &b, e);
	if ((a.st_mode & S_IFMT) == (b.st_mode & S_IFMT)) {
		int same = same_entry(d, at, name, &a, &b, e);
		if (same != 0) return same < 0 ? -1 : 0;
	}
	return diff_added(d, at, name, &b, e);
}

static int diff_upper_only(struct diff *d, struct diff_dir *at, const char *name, struct err *e)
{
	struct stat st;

	if (fstatat(at->upper, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "%s", name);
	return diff_added(d, at, name, &st, e);
}

static int diff_walk(struct diff *d, struct diff_dir *at, struct err *e)
{
	_cleanup_strvec_ struct strvec lo = {0}, up = {0};
	size_t i = 0, k = 0;
	int r = 0;

	if (snap_cancelled(d->copy.cancelled, e) < 0) return -1;
	if (snap_dir_names(at->lower, &lo, e) < 0 || snap_dir_names(at->upper, &up, e) < 0) return -1;
	while (r == 0 && (i < lo.n || k < up.n)) {
		int c = i == lo.n ? 1 : k == up.n ? -1 : strcmp(lo.v[i], up.v[k]);
		if (c < 0)
			r = diff_removed(d, at, lo.v[i++], e);
		else if (c > 0)
			r = diff_upper_only(d, at, up.v[k++], e);
		else
			r = diff_both(d, at, up.v[k++], e), i++;
	}
	return r;
}

int snap_diff_trees(int lower, int upper, int dst, bool userxattr, const atomic_bool *cancelled, struct err *e)
{
	struct diff d = {.copy = {.dst_root = dst, .userxattr = userxattr, .cancelled = cancelled}};
	struct diff_dir root = {.lower = lower, .upper = upper, .dst = dst};
	int r;

	if (fstat(upper, &root.st) < 0) return err_sys(e, errno, "stat");
	r = diff_walk(&d, &root, e);
	if (r == 0) r = snap_copy_meta(&d.copy, upper, dst, &root.st, e);
	snap_copy_fini(&d.copy);
	return r;
}
