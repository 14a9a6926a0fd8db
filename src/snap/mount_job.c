/* Overlay mounts that are attached nowhere, by the kernel's mount API of descriptors, and what of it this machine can do.
 *
 *  1. A mount lives as long as its descriptor (or a directory opened below it): a kill leaves nothing.
 *  2. Writable mounts are volatile where the kernel can: nothing is synced at unmount or by a step's fsync. The rows' boot id
 *     makes that safe (store.c). The kernel leaves a mark in the work directory that would refuse the next mount, so the
 *     caller makes the work directory anew each time.
 *  3. Layers are named one by one ("lowerdir+", Linux 6.8); before that by mount(2) with paths relative to the thread's own
 *     working directory, since the options must fit into one page.
 * Called from jobs. Source: kernel Documentation/filesystems/overlayfs.rst, fsopen(2), open_tree(2), move_mount(2). */
#include "snap/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* ---- making one ---- */

/* What the kernel wrote into the context's log, for the error's text. */
static void snap_mount_said(int fs, char *out, size_t n)
{
	ssize_t r = read(fs, out, n - 1);

	if (r < 0) r = 0;
	out[r] = 0;
	while (r > 0 && (out[r - 1] == '\n' || out[r - 1] == ' ')) out[--r] = 0;
}

static int snap_mount_options(const struct snap_caps *c, const struct snap_mount_spec *m, int fs)
{
	static const char *const off[] = {"redirect_dir", "metacopy", "index"};

	for (size_t i = m->n_lowers; i-- > 0;) {
		_cleanup_free_ char *p = path_join(m->base, m->lowers[i]);
		if (fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", p, 0) < 0) return -1;
	}
	if (m->upper) {
		_cleanup_free_ char *u = path_join(m->base, m->upper), *w = path_join(m->base, m->work);
		if (fsconfig(fs, FSCONFIG_SET_STRING, "upperdir", u, 0) < 0) return -1;
		if (fsconfig(fs, FSCONFIG_SET_STRING, "workdir", w, 0) < 0) return -1;
		if (c->is_volatile && fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0) return -1;
	}
	if (c->userxattr && fsconfig(fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0) return -1;
	for (size_t i = 0; i < array_len(off); i++)
		if (!c->userxattr && fsconfig(fs, FSCONFIG_SET_STRING, off[i], "off", 0) < 0) return -1;
	return fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

static int snap_mount_new(const struct snap_caps *c, const struct snap_mount_spec *m, struct err *e)
{
	_cleanup_close_ int fs = fsopen("overlay", FSOPEN_CLOEXEC);
	char said[512];
	int fd;

	if (fs < 0) return err_sys(e, errno, "overlay: fsopen");
	if (snap_mount_options(c, m, fs) < 0) {
		int saved = errno;
		snap_mount_said(fs, said, sizeof said);
		errno = saved;
		return err_sys(e, saved, "overlay mount of %zu layers%s%s", m->n_lowers, said[0] ? ": " : "", said);
	}
	fd = fsmount(fs, FSMOUNT_CLOEXEC, m->upper ? 0 : MOUNT_ATTR_RDONLY);
	return fd < 0 ? err_sys(e, errno, "overlay: fsmount") : fd;
}

/* The thread gets a working directory of its own; it is put back, as others' code may run on this thread later. */
static int snap_mount_at_base(const struct snap_mount_spec *m, const char *at, const char *options, struct err *e)
{
	_cleanup_close_ int old = open(".", O_PATH | O_CLOEXEC);
	int r = -1;

	if (unshare(CLONE_FS) < 0) return err_sys(e, errno, "unshare(CLONE_FS)");
	if (chdir(m->base) < 0) return err_sys(e, errno, "%s", m->base);
	if (mount("overlay", at, "overlay", m->upper ? 0 : MS_RDONLY, options) < 0)
		err_sys(e, errno, "overlay mount of %zu layers", m->n_lowers);
	else
		r = 0;
	if (old < 0 || fchdir(old) < 0) (void)!chdir("/");
	return r;
}

static int snap_mount_old(const struct snap_caps *c, const struct snap_mount_spec *m, struct err *e)
{
	_cleanup_buf_ struct buf o = BUF_MAX(4095);
	char id[ID_STR], at[64];
	_cleanup_free_ char *full = NULL;
	int fd, saved;

	id_new(id);
	snprintf(at, sizeof at, "new/mnt-%s", id);
	full = path_join(m->base, at);
	buf_adds(&o, "lowerdir=");
	for (size_t i = m->n_lowers; i-- > 0;) buf_addf(&o, "%s%s", m->lowers[i], i ? ":" : "");
	if (m->upper) buf_addf(&o, ",upperdir=%s,workdir=%s%s", m->upper, m->work, c->is_volatile ? ",volatile" : "");
	buf_adds(&o, c->userxattr ? ",userxattr" : ",redirect_dir=off,metacopy=off,index=off");
	if (o.overflow)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "%zu layers are too many for this kernel's mount options",
			       m->n_lowers);
	if (mkdir(full, 0700) < 0) return err_sys(e, errno, "%s", full);
	if (snap_mount_at_base(m, at, buf_str(&o), e) < 0) {
		rmdir(full);
		return -1;
	}
	fd = open_tree(AT_FDCWD, full, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	saved = errno;
	umount2(full, MNT_DETACH);
	rmdir(full);
	return fd < 0 ? err_sys(e, saved, "open_tree") : fd;
}

int snap_mount_overlay(const struct snap_caps *c, const struct snap_mount_spec *m, struct err *e)
{
	if (m->n_lowers > SNAP_LOWER_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "%zu layers: overlayfs mounts at most %d", m->n_lowers,
			       SNAP_LOWER_MAX);
	return c->lower_add ? snap_mount_new(c, m, e) : snap_mount_old(c, m, e);
}

int snap_mount_clone(int fd, const char *path)
{
	return open_tree(fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (path[0] ? 0 : AT_EMPTY_PATH));
}

int snap_mount_attach(int fd, const char *target, bool read_only, struct err *e)
{
	struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};

	if (read_only && mount_setattr(fd, "", AT_EMPTY_PATH, &a, sizeof a) < 0)
		return err_sys(e, errno, "making a mount read-only");
	if (move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0) return err_sys(e, errno, "mount on %s", target);
	return 0;
}

/* ---- probing: one real mount, with the two things whose form matters: a whiteout and an opaque directory ---- */

static int snap_probe_dirs(int fd, struct err *e)
{
	static const char *const dirs[] = {"a", "b", "a/d", "u", "w"};

	for (size_t i = 0; i < array_len(dirs); i++)
		if (mkdirat(fd, dirs[i], 0755) < 0) return err_sys(e, errno, "probe: mkdir %s", dirs[i]);
	_cleanup_close_ int f = openat(fd, "a/f", O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	return f < 0 ? err_sys(e, errno, "probe: creating a file") : 0;
}

static int snap_probe_forms(int root, int dir, const struct snap_caps *c, struct err *e)
{
	struct stat st;
	char v[4];

	if (unlinkat(root, "f", 0) < 0) return err_sys(e, errno, "probe: deleting through the mount");
	if (unlinkat(root, "d", AT_REMOVEDIR) < 0 || mkdirat(root, "d", 0755) < 0)
		return err_sys(e, errno, "probe: replacing a directory through the mount");
	if (fstatat(dir, "u/f", &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(0, 0))
		return err_set(e, CODE_UNIMPLEMENTED, "probe: whiteouts are not 0/0 devices here");
	_cleanup_close_ int d = openat(dir, "u/d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d < 0 || fgetxattr(d, SNAP_OPAQUE(c->userxattr), v, sizeof v) != 1 || v[0] != 'y')
		return err_set(e, CODE_UNIMPLEMENTED, "probe: no %s on a replaced directory", SNAP_OPAQUE(c->userxattr));
	return 0;
}

static int snap_probe_one(const char *base, const struct snap_caps *c, struct err *e)
{
	char id[ID_STR];
	_cleanup_free_ char *dir = NULL;
	_cleanup_close_ int dirfd = -1, mnt = -1, root = -1;
	static char *const lowers[] = {(char *)"a", (char *)"b"};
	int r = -1;

	id_new(id);
	dir = xasprintf("%s/new/probe-%s", base, id);
	/* The old way mounts below new/ of its base. */
	_cleanup_free_ char *sub = path_join(dir, "new");
	if (path_mkdirs(sub, 0700, e) < 0) return -1;
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0) return err_sys(e, errno, "%s", dir);
	struct snap_mount_spec m = {.base = dir, .lowers = lowers, .n_lowers = 2, .upper = "u", .work = "w"};
	if (snap_probe_dirs(dirfd, e) == 0 && (mnt = snap_mount_overlay(c, &m, e)) >= 0) {
		root = openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = root < 0 ? err_sys(e, errno, "probe: opening the mount") : snap_probe_forms(root, dirfd, c, e);
	}
	path_remove_all(AT_FDCWD, dir, NULL);
	return r;
}

void snap_mount_probe(const char *base, struct snap_caps *ret, struct err *why)
{
	static const struct snap_caps tries[] = {
		{.overlay = true, .lower_add = true, .is_volatile = true},
		{.overlay = true, .lower_add = true, .is_volatile = true, .userxattr = true},
		{.overlay = true, .is_volatile = true},
		{.overlay = true},
		{.overlay = true, .is_volatile = true, .userxattr = true},
	};
	*ret = (struct snap_caps){0};
	for (size_t i = 0; i < array_len(tries); i++) {
		_cleanup_err_ struct err one = ERR_INIT;
		if (snap_probe_one(base, &tries[i], &one) == 0) {
			*ret = tries[i];
			err_fini(why);
			return;
		}
		if (i == 0) err_move(why, &one); /* the one to tell: later tries ask for more unusual things */
	}
}
