#include "ops/mounts_job.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/xattr.h>

/* A sub path of a mounted tree as a host path: resolved within the tree, links included. */
static int select_path(const char *root, const char *selector, char **ret, struct err *e)
{
	_cleanup_close_ int rootfd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (rootfd < 0) return err_sys(e, errno, "open %s", root);
	_cleanup_close_ int fd = path_open_in(rootfd, selector, O_PATH, 0, e);
	if (fd < 0) {
		struct err plain = ERR_INIT;
		err_sys(&plain, errno, "failed to mount: %s", selector); /* no host path in a user's error */
		return err_move(e, &plain);
	}
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0) return err_sys(e, errno, "readlink");
	path[n] = 0;
	*ret = xstrdup(path);
	return 0;
}

static int put_secret(struct mount_job *j, struct mount_job_item *it, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/secrets", j->dir);
	if (!j->secrets_mounted) {
		if (path_mkdirs(dir, 0700, e) < 0) return -1;
		if (mount("tmpfs", dir, "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=0711") < 0) return err_sys(e, errno, "mount secrets");
		j->secrets_mounted = true;
	}
	it->source = xasprintf("%s/%zu", dir, (size_t)(it - j->items));
	_cleanup_close_ int fd = open(it->source, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) return err_sys(e, errno, "create secret");
	if (path_write_all(fd, it->secret, it->secret_len, e) < 0) return -1;
	if (fchown(fd, it->uid, it->gid) < 0 || fchmod(fd, it->mode & 0777) < 0) return err_sys(e, errno, "set owner of secret");
	return 0;
}

void mount_job_up(struct mount_job *j)
{
	struct err *e = &j->error;
	if (path_mkdirs(j->dir, 0711, e) < 0) return;
	for (size_t i = 0; i < j->n; i++) {
		struct mount_job_item *it = &j->items[i];
		if (it->is_secret && put_secret(j, it, e) < 0) return;
		if (!it->view) continue;
		if (path_mkdirs(it->target, 0711, e) < 0 || snap_view_mount(it->view, it->target, it->read_only, e) < 0) return;
		it->mounted = true;
		if (str_empty(it->selector) || !strcmp(it->selector, "/"))
			it->source = xstrdup(it->target);
		else if (select_path(it->target, it->selector, &it->source, e) < 0)
			return;
	}
}

static bool is_empty_dir(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	size_t n = 0;
	while (d && readdir(d)) n++;
	if (d) closedir(d);
	return d && n == 2; /* "." and ".." */
}

/* Mount points make the kernel copy their directory up; once they were removed it is an empty copy of what lies below, and would
 * show as a change that the step did not make. */
static void tidy(const struct mount_job_item *it, struct err *e)
{
	static const char *const dirs[] = {"etc", "run", "dev", "proc", "sys"};
	struct err ignored = ERR_INIT;
	_cleanup_close_ int layer = snap_view_open_layer(it->view, &ignored);
	err_fini(&ignored);
	_cleanup_close_ int lower = layer < 0 ? -1 : snap_view_open_root(it->lower, false, &ignored);
	err_fini(&ignored);
	for (size_t i = 0; lower >= 0 && i < array_len(dirs); i++) {
		struct stat a, b;
		char value[2];
		if (fstatat(layer, dirs[i], &a, AT_SYMLINK_NOFOLLOW) < 0 || fstatat(lower, dirs[i], &b, AT_SYMLINK_NOFOLLOW) < 0) continue;
		if (a.st_mode != b.st_mode || a.st_uid != b.st_uid || a.st_gid != b.st_gid) continue; /* times: no change in BuildKit either */
		if (!a.st_mtim.tv_nsec && a.st_mtim.tv_sec != b.st_mtim.tv_sec) continue; /* whole seconds: the step set it */
		_cleanup_free_ char *path = xasprintf("/proc/self/fd/%d/%s", layer, dirs[i]);
		if (lgetxattr(path, "trusted.overlay.opaque", value, sizeof value) >= 0 || !is_empty_dir(layer, dirs[i])) continue;
		unlinkat(layer, dirs[i], AT_REMOVEDIR);
	}
	if (lower >= 0) snap_view_tidy(it->view, lower, e);
}

void mount_job_down(struct mount_job *j)
{
	struct err *e = &j->error;
	for (size_t i = j->n; i-- > 0;) {
		struct mount_job_item *it = &j->items[i];
		struct err ignored = ERR_INIT;
		if (it->mounted && snap_view_umount(it->target, &ignored) < 0) log_warn("unmount: %s", ignored.msg);
		err_fini(&ignored);
		it->mounted = false;
		if (it->seal && it->lower && !err_is_set(e)) tidy(it, e);
		if (it->seal && !err_is_set(e)) snap_view_seal(it->view, e);
	}
	if (j->secrets_mounted) {
		_cleanup_free_ char *dir = xasprintf("%s/secrets", j->dir);
		umount2(dir, MNT_DETACH);
		j->secrets_mounted = false;
	}
	struct err ignored = ERR_INIT;
	if (j->dir && path_remove_all(AT_FDCWD, j->dir, &ignored) < 0) log_debug("%s", ignored.msg);
	err_fini(&ignored);
}
