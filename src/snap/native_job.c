/* Native mode: full trees, for disks where overlay cannot be mounted.
 *
 * A snapshot keeps `flat`, its whole tree, beside `fs`, its layer in overlay format; so all that reads layers (export, merge,
 * diff) is the same in both modes.
 *  1. A committed snapshot's flat is made when it is first looked at: its parent's flat copied, its own layer applied.
 *     It is made under new/ and renamed, so two jobs at once do no harm.
 *  2. An active one's flat is what is written to; sealing compares it with the parent's flat and writes the layer.
 *  3. A bottom layer is its own flat tree.
 * Slow and big by nature: files are reflinked where the disk can. Called from jobs; blocks. */
#include "snap/internal.h"

#include <errno.h>
#include <fcntl.h>

static int open_dir(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
}

static int native_apply(const char *layer, int dst, bool userxattr, struct err *e)
{
	_cleanup_close_ int src = open_dir(layer, e);
	struct snap_copy c = {.dst_root = dst, .layer = true, .userxattr = userxattr};
	int r;

	if (src < 0) return -1;
	r = snap_copy_dir(&c, src, dst, e);
	snap_copy_fini(&c);
	return r;
}

/* Apply the layers in order; when the parent's flat tree is there, it stands for all but the last `own`. */
static int native_build(const struct snap_view *v, size_t n, int dst, struct err *e)
{
	_cleanup_free_ char *below = xasprintf("%s/%jd/flat", v->base, (intmax_t)v->parent);
	size_t i = 0;

	if (v->parent && v->owns && access(below, F_OK) == 0) {
		if (native_apply(below, dst, v->caps.userxattr, e) < 0) return -1;
		i = v->chain.n - 1;
	}
	for (; i < n; i++) {
		_cleanup_free_ char *p = xasprintf("%s/%jd/fs", v->base, (intmax_t)v->chain.v[i]);
		if (native_apply(p, dst, v->caps.userxattr, e) < 0) return -1;
	}
	return 0;
}

/* `<id>/flat` of the first n layers of v's chain, made when it is not there. */
static int native_flat(const struct snap_view *v, int64_t id, size_t n, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/%jd", v->base, (intmax_t)id), *flat = path_join(dir, "flat"), *tmp = NULL;
	_cleanup_close_ int dst = open(flat, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char rnd[ID_STR];

	if (dst >= 0) return take_fd(dst);
	id_new(rnd);
	tmp = xasprintf("%s/new/flat-%s", v->base, rnd);
	if (path_mkdirs(dir, 0700, e) < 0) return -1;
	if (mkdir(tmp, 0755) < 0 || chmod(tmp, 0755) < 0) return err_sys(e, errno, "%s", tmp);
	dst = open_dir(tmp, e);
	int r = dst < 0 ? -1 : native_build(v, n, dst, e);
	if (r == 0 && renameat2(AT_FDCWD, tmp, AT_FDCWD, flat, RENAME_NOREPLACE) < 0 && errno != EEXIST)
		r = err_sys(e, errno, "%s", flat);
	path_remove_all(AT_FDCWD, tmp, NULL);
	return r < 0 ? -1 : open_dir(flat, e);
}

/* The tree below an active one. Its parent may be a bottom layer, whose fs is its tree, or keep a flat one. */
static int native_below(const struct snap_view *v, struct err *e)
{
	_cleanup_free_ char *bottom = xasprintf("%s/%jd/fs", v->base, (intmax_t)v->chain.v[0]);

	if (v->chain.n == 2 && v->bottom_plain) return open_dir(bottom, e);
	return native_flat(v, v->parent, v->chain.n - 1, e);
}

int snap_native_root(const struct snap_view *v, struct err *e)
{
	if (!v->active) return native_flat(v, v->id, v->chain.n, e);
	_cleanup_close_ int below = native_below(v, e);
	return below < 0 ? -1 : native_flat(v, v->id, v->chain.n - 1, e);
}

int snap_native_seal(const struct snap_view *v, struct err *e)
{
	_cleanup_free_ char *fs = xasprintf("%s/%jd/fs", v->base, (intmax_t)v->id), *tmp = NULL;
	_cleanup_close_ int below = native_below(v, e), tree = -1, dst = -1;
	char rnd[ID_STR];

	if (below < 0 || (tree = snap_native_root(v, e)) < 0) return -1;
	id_new(rnd);
	tmp = xasprintf("%s/new/seal-%s", v->base, rnd);
	if (mkdir(tmp, 0755) < 0) return err_sys(e, errno, "%s", tmp);
	dst = open_dir(tmp, e);
	int r = dst < 0 ? -1 : snap_diff_trees(below, tree, dst, v->caps.userxattr, NULL, e);
	if (r == 0) r = path_remove_all(AT_FDCWD, fs, e);
	if (r == 0 && rename(tmp, fs) < 0) r = err_sys(e, errno, "%s", fs);
	if (r < 0) path_remove_all(AT_FDCWD, tmp, NULL);
	return r;
}
