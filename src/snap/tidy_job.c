/* What a container wrote, brought into the form in which a layer may be put upon other trees (merge, diff) too.
 *
 *  1. An overlay marks a directory that was removed and made again as opaque: it hides all that is below, whatever that is. A
 * layer says what it deletes: each name of the tree below that is gone gets a whiteout, and the mark goes.
 *  2. A file that was copied up and is as it was (moved away and back) is no change and goes. Not when it has several names:
 * the layer keeps them together.
 *  3. Only directories that the tree below has too are looked into: a new tree costs nothing.
 *  4. Nor is the directory of such a file, when nothing else is in it. (One with only another time stays: somebody may have set
 * it.) Times of directories stay. Called from jobs; blocks. Source: moby/buildkit util/overlay; OCI image-spec layer.md
 * "Whiteouts".
 */
#include "snap/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

struct tidy {
	bool userxattr;
	unsigned depth;
	size_t dropped; /* entries, so far */
};

static int open_dir_at(int at, const char *name) { return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }

static bool is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0); }

static bool is_opaque(const struct tidy *t, int dir)
{
	char v[4];
	return fgetxattr(dir, SNAP_OPAQUE(t->userxattr), v, sizeof v) >= 1 && v[0] == 'y';
}

static void keep_times(int dir, const struct stat *st) { futimens(dir, (const struct timespec[]){st->st_atim, st->st_mtim}); }

static int enter(struct tidy *t, struct err *e)
{
	if (++t->depth <= SNAP_DEPTH_MAX) return 0;
	return err_set(e, CODE_RESOURCE_EXHAUSTED, "directories nest deeper than %d", SNAP_DEPTH_MAX);
}

/* upper hides all of lower: say so name by name. */
static int say_deleted(struct tidy *t, int upper, int lower, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	struct stat times, up, lo;
	int r = 0;

	if (enter(t, e) < 0 || snap_dir_names(lower, &names, e) < 0) return -1;
	if (fstat(upper, &times) < 0) return err_sys(e, errno, "stat");
	for (size_t i = 0; i < names.n && r == 0; i++) {
		const char *name = names.v[i];
		if (fstatat(upper, name, &up, AT_SYMLINK_NOFOLLOW) < 0) {
			if (mknodat(upper, name, S_IFCHR | 0600, makedev(0, 0)) < 0)
				r = err_sys(e, errno, "whiteout of %s", name);
			continue;
		}
		if (!S_ISDIR(up.st_mode) || fstatat(lower, name, &lo, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(lo.st_mode))
			continue;
		_cleanup_close_ int u = open_dir_at(upper, name), l = open_dir_at(lower, name);
		r = u < 0 || l < 0 ? err_sys(e, errno, "%s", name) : say_deleted(t, u, l, e);
	}
	if (r == 0 && fremovexattr(upper, SNAP_OPAQUE(t->userxattr)) < 0 && errno != ENODATA && errno != EOPNOTSUPP)
		r = err_sys(e, errno, "removing the mark of an opaque directory");
	keep_times(upper, &times);
	t->depth--;
	return r;
}

static int tidy_dir(struct tidy *t, int upper, int lower, struct err *e);

/* A directory that is as it was but for its time, which nobody set (whole seconds are what people set); whether it is empty too
 * shows when it is removed. */
static bool idle(int upper, int lower)
{
	struct stat up, lo;
	return fstat(upper, &up) == 0 && fstat(lower, &lo) == 0 && up.st_mtim.tv_nsec && up.st_mode == lo.st_mode &&
	       up.st_uid == lo.st_uid && up.st_gid == lo.st_gid && snap_same_xattrs(lower, upper);
}

static int tidy_subdir(struct tidy *t, int upper, int lower, const char *name, struct err *e)
{
	_cleanup_close_ int u = open_dir_at(upper, name), l = open_dir_at(lower, name);
	int r;

	if (u < 0) return err_sys(e, errno, "%s", name);
	if (l < 0) { /* nothing is hidden by it: a file was there, or nothing */
		fremovexattr(u, SNAP_OPAQUE(t->userxattr));
		return 0;
	}
	if (is_opaque(t, u)) return say_deleted(t, u, l, e);
	size_t before = t->dropped;
	if (enter(t, e) < 0) return -1;
	r = tidy_dir(t, u, l, e);
	t->depth--;
	if (r == 0 && t->dropped > before && idle(u, l) && unlinkat(upper, name, AT_REMOVEDIR) == 0) t->dropped++;
	return r;
}

/* 1: it is what the tree below has. */
static int unchanged(int upper, int lower, const char *name, const struct stat *up, struct err *e)
{
	struct stat lo;

	if (up->st_nlink > 1 || fstatat(lower, name, &lo, AT_SYMLINK_NOFOLLOW) < 0) return 0;
	if (up->st_mode != lo.st_mode || up->st_uid != lo.st_uid || up->st_gid != lo.st_gid || up->st_size != lo.st_size ||
	    up->st_rdev != lo.st_rdev || up->st_mtim.tv_sec != lo.st_mtim.tv_sec || up->st_mtim.tv_nsec != lo.st_mtim.tv_nsec)
		return 0;
	return snap_same_entry(upper, lower, name, up->st_mode, NULL, e);
}

static int tidy_dir(struct tidy *t, int upper, int lower, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	struct stat times, st;
	int r = 0;

	if (snap_dir_names(upper, &names, e) < 0) return -1;
	if (fstat(upper, &times) < 0) return err_sys(e, errno, "stat");
	for (size_t i = 0; i < names.n && r == 0; i++) {
		if (fstatat(upper, names.v[i], &st, AT_SYMLINK_NOFOLLOW) < 0 || is_whiteout(&st)) continue;
		if (S_ISDIR(st.st_mode)) {
			r = tidy_subdir(t, upper, lower, names.v[i], e);
			continue;
		}
		int same = unchanged(upper, lower, names.v[i], &st, e);
		if (same < 0 || (same && unlinkat(upper, names.v[i], 0) < 0 && err_sys(e, errno, "%s", names.v[i]) < 0)) r = -1;
		t->dropped += same > 0;
	}
	keep_times(upper, &times);
	return r;
}

int snap_view_tidy(const struct snap_view *v, int lower, struct err *e)
{
	struct tidy t = {.userxattr = v->caps.userxattr};
	_cleanup_err_ struct err none = ERR_INIT;

	if (!v->caps.overlay) return 0;
	if (v->mnt) snap_mnt_close(v->mnt);
	_cleanup_close_ int upper = snap_view_open_layer(v, &none);
	return upper < 0 ? 0 : tidy_dir(&t, upper, lower, e);
}
