/* Views: a snapshot as a value, and its tree as a descriptor or a mount.
 *
 * What is opened for a tree of the layers l1 (bottom) .. ln:
 *	nothing                       the shared empty directory
 *	l1 alone, plain               its directory itself
 *	anything else, read-only      an overlay of its own, detached (with the empty directory below a single layer)
 *	active upon nothing           its directory itself
 *	active upon layers            one overlay for all views of that snapshot (struct snap_mnt)
 *	native mode                   the flat copy (native_job.c)
 * The own directory of an active snapshot is made here, by the first view that writes. */
#include "snap/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

void snap_view_free(struct snap_view *v)
{
	if (!v) return;
	snap_mnt_unref(v->mnt);
	vec_fini(&v->chain);
	free(v->base);
	free(v);
}

bool snap_view_userxattr(const struct snap_view *v) { return v->caps.userxattr; }
bool snap_view_plain(const struct snap_view *v) { return v->plain; }

static char *view_path(const struct snap_view *v, int64_t id, const char *sub)
{
	return xasprintf("%s/%jd/%s", v->base, (intmax_t)id, sub);
}

static int view_open_dir(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
}

/* ---- the own directory ---- */

/* A new upper directory shows as the root of the tree: it takes mode and owner of the root below. */
static int view_inherit(const struct snap_view *v, const char *fs, struct err *e)
{
	_cleanup_free_ char *below = NULL;
	struct stat st;

	if (v->chain.n < 2) return 0;
	below = view_path(v, v->chain.v[v->chain.n - 2], "fs");
	if (stat(below, &st) < 0) return err_sys(e, errno, "%s", below);
	if (chown(fs, st.st_uid, st.st_gid) < 0 || chmod(fs, st.st_mode & 07777) < 0) return err_sys(e, errno, "%s", fs);
	return 0;
}

/* Made under another name first, so that what is there has its mode. Two jobs may come here at once. */
static int view_make_own(const struct snap_view *v, struct err *e)
{
	_cleanup_free_ char *dir = view_path(v, v->id, ""), *fs = view_path(v, v->id, "fs"), *tmp = NULL;
	char id[ID_STR];

	if (access(fs, F_OK) == 0) return 0;
	if (path_mkdirs(dir, 0700, e) < 0) return -1;
	id_new(id);
	tmp = xasprintf("%s/new/own-%s", v->base, id);
	if (mkdir(tmp, 0755) < 0 || chmod(tmp, 0755) < 0) return err_sys(e, errno, "%s", tmp);
	if (view_inherit(v, tmp, e) < 0) goto fail;
	if (renameat2(AT_FDCWD, tmp, AT_FDCWD, fs, RENAME_NOREPLACE) == 0) return 0;
	if (errno == EEXIST) {
		rmdir(tmp);
		return 0;
	}
	err_sys(e, errno, "%s", fs);
fail:
	rmdir(tmp);
	return -1;
}

/* ---- overlay ---- */

static int view_overlay_ro(const struct snap_view *v, struct err *e)
{
	_cleanup_strvec_ struct strvec lowers = {0};
	struct snap_mount_spec m = {.base = v->base};

	if (v->chain.n == 1) strvec_add(&lowers, "empty");
	for (size_t i = 0; i < v->chain.n; i++) strvec_addf(&lowers, "%jd/fs", (intmax_t)v->chain.v[i]);
	m.lowers = lowers.v;
	m.n_lowers = lowers.n;
	return snap_mount_overlay(&v->caps, &m, e);
}

static int view_overlay_rw(const struct snap_view *v, struct err *e)
{
	_cleanup_strvec_ struct strvec lowers = {0};
	_cleanup_free_ char *upper = xasprintf("%jd/fs", (intmax_t)v->id), *work = xasprintf("%jd/work", (intmax_t)v->id);
	_cleanup_free_ char *work_full = path_join(v->base, work);

	if (view_make_own(v, e) < 0 || path_remove_all(AT_FDCWD, work_full, e) < 0) return -1;
	if (mkdir(work_full, 0700) < 0) return err_sys(e, errno, "%s", work_full);
	for (size_t i = 0; i + 1 < v->chain.n; i++) strvec_addf(&lowers, "%jd/fs", (intmax_t)v->chain.v[i]);
	struct snap_mount_spec m = {.base = v->base, .lowers = lowers.v, .n_lowers = lowers.n, .upper = upper, .work = work};
	return snap_mount_overlay(&v->caps, &m, e);
}

/* The shared mount, made when it is not there. Borrowed. */
static int view_shared(const struct snap_view *v, struct err *e)
{
	int fd;

	pthread_mutex_lock(&v->mnt->lock);
	if (v->mnt->fd < 0) v->mnt->fd = view_overlay_rw(v, e);
	fd = v->mnt->fd;
	pthread_mutex_unlock(&v->mnt->lock);
	return fd;
}

struct snap_mnt *snap_mnt_new(void)
{
	struct snap_mnt *m = xnew(struct snap_mnt);

	atomic_store(&m->refs, 1);
	pthread_mutex_init(&m->lock, NULL);
	m->fd = -1;
	return m;
}

void snap_mnt_close(struct snap_mnt *m)
{
	pthread_mutex_lock(&m->lock);
	if (m->attached) {
		umount2(m->attached, MNT_DETACH);
		rmdir(m->attached);
		free(m->attached);
		m->attached = NULL;
	}
	close_fd(&m->fd);
	m->fd = -1;
	pthread_mutex_unlock(&m->lock);
}

void snap_mnt_unref(struct snap_mnt *m)
{
	if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
	snap_mnt_close(m);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- roots ---- */

enum view_form { VIEW_DIR, VIEW_SHARED, VIEW_OVERLAY };

static enum view_form view_form(const struct snap_view *v)
{
	if (v->chain.n == 0 || v->plain || !v->caps.overlay) return VIEW_DIR;
	return v->active && v->mnt ? VIEW_SHARED : VIEW_OVERLAY;
}

/* The directory that alone is the tree. */
static int view_dir(const struct snap_view *v, struct err *e)
{
	_cleanup_free_ char *p = NULL;

	if (v->chain.n == 0)
		p = xasprintf("%s/empty", v->base);
	else if (!v->plain)
		return snap_native_root(v, e);
	else
		p = view_path(v, v->chain.v[0], "fs");
	if (v->active && view_make_own(v, e) < 0) return -1;
	return view_open_dir(p, e);
}

static int view_check(const struct snap_view *v, bool lazy, struct err *e)
{
	return lazy ? err_set(e, CODE_FAILED_PRECONDITION, "snapshot %jd is not unpacked yet", (intmax_t)v->id) : 0;
}

int snap_view_open_root(const struct snap_view *v, bool writable, struct err *e)
{
	_cleanup_close_ int own = -1;
	int mnt, fd;

	if (writable && !v->active)
		return err_set(e, CODE_FAILED_PRECONDITION, "snapshot %jd is committed: it cannot be written", (intmax_t)v->id);
	if (view_check(v, v->lazy_chain, e) < 0) return -1;
	switch (view_form(v)) {
	case VIEW_DIR: return view_dir(v, e);
	case VIEW_SHARED: mnt = view_shared(v, e); break;
	default: mnt = own = view_overlay_ro(v, e); break;
	}
	if (mnt < 0) return -1;
	fd = openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, errno, "opening the tree of snapshot %jd", (intmax_t)v->id) : fd;
}

int snap_view_open_upper(const struct snap_view *v, int *ret_fd, struct err *e)
{
	*ret_fd = -1;
	if (view_form(v) == VIEW_DIR && (v->plain || v->chain.n == 0)) return 0;
	if (view_form(v) != VIEW_SHARED) return err_set(e, CODE_UNIMPLEMENTED, "no upper directory");
	_cleanup_free_ char *p = view_path(v, v->id, "fs");
	*ret_fd = view_open_dir(p, e);
	return *ret_fd < 0 ? -1 : 0;
}

int snap_view_open_layer(const struct snap_view *v, struct err *e)
{
	_cleanup_free_ char *p = NULL;

	if (view_check(v, v->lazy, e) < 0) return -1;
	if (!v->owns) return err_set(e, CODE_NOT_FOUND, "snapshot %jd has no layer of its own", (intmax_t)v->id);
	p = view_path(v, v->id, "fs");
	return view_open_dir(p, e);
}

/* ---- attached ---- */

/* Kernels before 6.15 clone attached mounts only: give the shared one a place in our namespace. */
static int view_clone_attached(const struct snap_view *v, struct err *e)
{
	struct snap_mnt *m = v->mnt;
	char id[ID_STR];
	int fd = -1;

	pthread_mutex_lock(&m->lock);
	if (!m->attached) {
		id_new(id);
		char *at = xasprintf("%s/new/mnt-%s", v->base, id);
		if (mkdir(at, 0700) < 0) {
			err_sys(e, errno, "%s", at);
			free(at);
		} else if (snap_mount_attach(m->fd, at, false, e) < 0) {
			rmdir(at);
			free(at);
		} else {
			m->attached = at;
		}
	}
	if (m->attached && (fd = snap_mount_clone(m->fd, "")) < 0) err_sys(e, errno, "open_tree");
	pthread_mutex_unlock(&m->lock);
	return fd;
}

/* An own mount of the tree, detached. */
static int view_mount(const struct snap_view *v, struct err *e)
{
	_cleanup_close_ int dir = -1;
	int mnt, fd;

	switch (view_form(v)) {
	case VIEW_OVERLAY: return view_overlay_ro(v, e);
	case VIEW_SHARED:
		if ((mnt = view_shared(v, e)) < 0) return -1;
		fd = snap_mount_clone(mnt, "");
		if (fd < 0 && errno == EINVAL) return view_clone_attached(v, e);
		break;
	default:
		if ((dir = view_dir(v, e)) < 0) return -1;
		fd = snap_mount_clone(dir, "");
		break;
	}
	return fd < 0 ? err_sys(e, errno, "open_tree") : fd;
}

int snap_view_mount(const struct snap_view *v, const char *target, bool read_only, struct err *e)
{
	_cleanup_close_ int fd = -1;

	if (view_check(v, v->lazy_chain, e) < 0 || (fd = view_mount(v, e)) < 0) return -1;
	return snap_mount_attach(fd, target, read_only || !v->active, e);
}

int snap_view_umount(const char *target, struct err *e)
{
	if (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT) return 0;
	return err_sys(e, errno, "umount %s", target);
}

/* ---- the end of writing ---- */

char *snap_view_trash(const struct snap_view *v)
{
	char id[ID_STR];

	id_new(id);
	return xasprintf("%s/new/old-%s", v->base, id);
}

bool snap_view_trash_give(const struct snap_view *v, char *path)
{
	_cleanup_free_ char *from = path, *to = xasprintf("%s/trash/%s", v->base, path_base(path));

	return rename(from, to) == 0;
}

int snap_view_seal(const struct snap_view *v, struct err *e)
{
	_cleanup_free_ char *work = view_path(v, v->id, "work");

	if (!v->active) return err_set(e, CODE_FAILED_PRECONDITION, "snapshot %jd is committed already", (intmax_t)v->id);
	if (v->mnt) snap_mnt_close(v->mnt);
	if (view_make_own(v, e) < 0) return -1;
	if (!v->caps.overlay && v->parent) return snap_native_seal(v, e);
	return path_remove_all(AT_FDCWD, work, e);
}

/* ---- filling a lazy layer ---- */

int snap_fill_begin(const struct snap_view *lazy, struct snap_fill *ret, struct err *e)
{
	_cleanup_free_ char *p = NULL;
	char id[ID_STR];

	if (!lazy->lazy) return err_set(e, CODE_FAILED_PRECONDITION, "snapshot %jd is filled already", (intmax_t)lazy->id);
	id_new(id);
	p = xasprintf("%s/new/fill-%s", lazy->base, id);
	if (mkdir(p, 0755) < 0 || chmod(p, 0755) < 0) return err_sys(e, errno, "%s", p);
	int fd = view_open_dir(p, e);
	if (fd < 0) return -1;
	*ret = (struct snap_fill){.dirfd = fd, .name = take_ptr(p), .view = lazy};
	return 0;
}

int snap_fill_commit(struct snap_fill *f, struct err *e)
{
	const struct snap_view *v = f->view;
	_cleanup_free_ char *dir = view_path(v, v->id, ""), *fs = view_path(v, v->id, "fs");
	int r = path_mkdirs(dir, 0700, e);

	/* RENAME_NOREPLACE: an empty layer that is there already must not be replaced under its users. */
	if (r == 0 && renameat2(AT_FDCWD, f->name, AT_FDCWD, fs, RENAME_NOREPLACE) < 0 && errno != EEXIST)
		r = err_sys(e, errno, "%s", fs);
	snap_fill_abort(f);
	return r;
}

void snap_fill_abort(struct snap_fill *f)
{
	close_fd(&f->dirfd);
	f->dirfd = -1;
	if (f->name) path_remove_all(AT_FDCWD, f->name, NULL);
	free(f->name);
	f->name = NULL;
}

/* ---- whole trees ---- */

int snap_diff_compute(const struct snap_view *lower, const struct snap_view *upper, const struct snap_view *diff,
		      const atomic_bool *cancelled, struct err *e)
{
	_cleanup_close_ int lo = snap_view_open_root(lower, false, e);
	_cleanup_close_ int up = lo < 0 ? -1 : snap_view_open_root(upper, false, e);
	_cleanup_close_ int dst = -1;

	if (up < 0 || view_make_own(diff, e) < 0 || (dst = snap_view_open_layer(diff, e)) < 0) return -1;
	return snap_diff_trees(lo, up, dst, diff->caps.userxattr, cancelled, e);
}

int snap_copy_tree(const struct snap_view *from, const struct snap_view *to, const atomic_bool *cancelled, struct err *e)
{
	_cleanup_close_ int src = snap_view_open_root(from, false, e);
	_cleanup_close_ int dst = src < 0 ? -1 : snap_view_open_root(to, true, e);
	struct snap_copy c = {.dst_root = dst, .cancelled = cancelled};
	int r;

	if (dst < 0) return -1;
	r = snap_copy_dir(&c, src, dst, e);
	snap_copy_fini(&c);
	return r;
}
