/* The second pass of unpacking a layer: what only the layers below can supply.
 *
 * Directories that the archive used but did not name take owner, mode, times and xattrs from below; a hard link whose
 * target is in a lower layer gets that file copied up first, as overlayfs would. Run once a layer, after the layers
 * below are complete. Parents come before children in `parents`, so the order of the lists is the order of work. */
#include "tar/apply.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

void tar_pending_fini(struct tar_pending *p)
{
	strvec_fini(&p->parents);
	strvec_fini(&p->names);
	strvec_fini(&p->targets);
	strvec_fini(&p->dir_names);
	vec_fini(&p->dir_mtimes);
}

/* Owner, xattrs and mode of from_dir/from onto dir/base; both exist and are of one type. */
static int copy_meta(int from_dir, const char *from, const struct stat *st, int dir, const char *base, struct err *e)
{
	if (fchownat(dir, base, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, errno, "change owner of %s", base);
	_cleanup_tar_xattrs_ struct tar_xattrs x = {0};
	if (tar_xattrs_read(from_dir, from, false, &x, e) < 0) return -1;
	for (size_t i = 0; i < x.list.n; i++)
		if (tar_xattr_set(dir, base, x.list.v[i].name, x.list.v[i].value, x.list.v[i].len) < 0 && errno != ENOTSUP)
			return err_sys(e, errno, "set extended attribute %s of %s", x.list.v[i].name, base);
	if (!S_ISLNK(st->st_mode) && fchmodat(dir, base, st->st_mode & 07777, 0) < 0)
		return err_sys(e, errno, "change mode of %s", base);
	return 0;
}

/* Parent in the lower view: its descriptor, -1 and *ret_missing when there is none, -1 and *e. */
static int lower_parent(int lower, const char *path, const char **ret_base, bool *ret_missing, struct err *e)
{
	struct err quiet = ERR_INIT;
	int fd = path_open_parent_in(lower, path, ret_base, &quiet);
	*ret_missing = fd < 0 && (quiet.code == CODE_NOT_FOUND || errno == ENOTDIR);
	if (fd < 0 && !*ret_missing) return err_move(e, &quiet);
	err_fini(&quiet);
	return fd;
}

/* A directory that was made without an entry. What is no directory below leaves it as it is. */
static int fix_parent(struct apply *a, int lower, const char *path, struct err *e)
{
	const char *from, *base;
	_cleanup_close_ int src = path_open_in(lower, path, O_RDONLY | O_DIRECTORY, 0, NULL);
	struct stat st;
	if (src < 0) return 0;
	if (fstat(src, &st) < 0) return err_sys(e, errno, "stat %s", path);
	from = ".";
	buf_reset(&a->path);
	buf_adds(&a->path, path);
	int dir = apply_parent(a, (char *)a->path.p, &base, false, e);
	if (dir < 0) return -1;
	if (copy_meta(src, from, &st, dir, base, e) < 0) return -1;
	strvec_add(&a->pending.dir_names, path);
	vec_push(&a->pending.dir_mtimes, st.st_mtim);
	return 0;
}

static int copy_bytes(int from, int to, int64_t size, struct err *e)
{
	if (ioctl(to, FICLONE, from) == 0) return 0;
	while (size > 0) {
		ssize_t n = copy_file_range(from, NULL, to, NULL, (size_t)size, 0);
		if (n <= 0) break;
		size -= n;
	}
	if (size <= 0) return 0;
	return tar_copy(tar_in_fd(&from), tar_out_fd(&to), NULL, e); /* both offsets are where it stopped */
}

static int copy_up_file(int src, const char *from, int64_t size, int dir, const char *base, struct err *e)
{
	_cleanup_close_ int in = openat(src, from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0) return err_sys(e, errno, "open %s", from);
	_cleanup_close_ int out = openat(dir, base, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0) return err_sys(e, errno, "create %s", base);
	return copy_bytes(in, out, size, e);
}

static int copy_up_node(int src, const char *from, const struct stat *st, int dir, const char *base, struct err *e)
{
	if (S_ISREG(st->st_mode)) return copy_up_file(src, from, st->st_size, dir, base, e);
	if (!S_ISLNK(st->st_mode))
		return mknodat(dir, base, st->st_mode, st->st_rdev) < 0 ? err_sys(e, errno, "make %s", base) : 0;
	_cleanup_free_ char *to = tar_readlink(src, from, e);
	if (!to) return -1;
	return symlinkat(to, dir, base) < 0 ? err_sys(e, errno, "make %s", base) : 0;
}

static int copy_up(struct apply *a, int lower, const char *path, struct err *e)
{
	const char *from, *base;
	bool missing;
	struct stat st;
	_cleanup_close_ int src = lower_parent(lower, path, &from, &missing, e);
	if (src < 0 && !missing) return -1;
	if (src >= 0 && fstatat(src, from, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT) return err_sys(e, errno, "stat %s", path);
		missing = true;
	}
	if (missing) return err_set(e, CODE_NOT_FOUND, "hard link to \"%s\", which is in no layer", path);
	if (S_ISDIR(st.st_mode)) return err_set(e, CODE_INVALID_ARGUMENT, "hard link to the directory \"%s\"", path);
	buf_reset(&a->path);
	buf_adds(&a->path, path);
	int dir = apply_parent(a, (char *)a->path.p, &base, true, e);
	if (dir < 0 || copy_up_node(src, from, &st, dir, base, e) < 0) return -1;
	if (copy_meta(src, from, &st, dir, base, e) < 0) return -1;
	struct timespec ts[2] = {st.st_atim, st.st_mtim};
	return utimensat(dir, base, ts, AT_SYMLINK_NOFOLLOW) < 0 ? err_sys(e, errno, "set times of %s", path) : 0;
}

static int fix_link(struct apply *a, int lower, const char *name, const char *target, struct err *e)
{
	const char *base;
	for (int tries = 0;; tries++) {
		buf_reset(&a->path);
		buf_adds(&a->path, name);
		int dir = apply_parent(a, (char *)a->path.p, &base, true, e);
		if (dir < 0) return -1;
		struct stat st;
		if (!tries && fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0) return 0; /* a later entry of that name */
		int r = apply_link(a, dir, base, target, e);
		if (r <= 0) return r;
		if (lower < 0 || tries) return err_set(e, CODE_NOT_FOUND, "hard link to \"%s\", which is in no layer", target);
		if (copy_up(a, lower, target, e) < 0) return -1;
	}
}

int tar_apply_fixup(const struct tar_pending *p, int dirfd, int lower_rootfd, const struct tar_apply_opts *o, struct err *e)
{
	if (!p->names.n && (!p->parents.n || lower_rootfd < 0)) return 0;
	_cleanup_(apply_fini) struct apply a;
	apply_init(&a, dirfd, o);
	for (size_t i = 0; i < p->names.n; i++)
		if (fix_link(&a, lower_rootfd, p->names.v[i], p->targets.v[i], e) < 0)
			return err_wrap(e, "archive entry \"%.300s\"", p->names.v[i]);
	for (size_t i = 0; lower_rootfd >= 0 && i < p->parents.n + a.pending.parents.n; i++) {
		const char *path = i < p->parents.n ? p->parents.v[i] : a.pending.parents.v[i - p->parents.n];
		if (fix_parent(&a, lower_rootfd, path, e) < 0) return err_wrap(e, "directory \"%.300s\"", path);
	}
	if (apply_dir_times(&a, &a.pending.dir_names, a.pending.dir_mtimes.v, e) < 0) return -1;
	return apply_dir_times(&a, &p->dir_names, p->dir_mtimes.v, e);
}
