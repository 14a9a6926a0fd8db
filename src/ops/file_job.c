/* One file action on a writable tree. Here: the small actions, what a copy is made of, archives that ADD unpacks. The copy of
 * one source is file_copy_job.c.
 *  1. Paths of the action are clean and absolute before they are used; links in them are resolved inside their tree.
 *  2. Texts are those of Go's os.PathError: "<call> <path>: <errno's words>", the path as seen inside the tree.
 * Source: moby/buildkit solver/llbsolver/file/backend.go, unpack.go. */
#include "ops/file_parts_job.h"
#include "spec/pattern.h"
#include "tar/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* file.cleanPath: as path_abs_in, but a '/' or "/." at the end stays. */
static char *clean_path(const char *p)
{
	_cleanup_free_ char *clean = path_abs_in(p);
	bool root = !strcmp(clean, "/");
	if (str_ends(p, "/.")) return xasprintf("%s%s.", clean, root ? "" : "/");
	return str_ends(p, "/") && !root ? xasprintf("%s/", clean) : take_ptr(clean);
}

static struct file_time time_of(int64_t ns)
{
	if (ns == -1) return (struct file_time){0};
	int64_t sec = ns / 1000000000, rest = ns % 1000000000;
	if (rest < 0) {
		rest += 1000000000;
		sec--;
	}
	return (struct file_time){true, {sec, rest}};
}

static int set_owner_time(int dirfd, const char *name, const char *path, const struct file_owner *o, int64_t ns, struct err *e)
{
	struct file_time t = time_of(ns);
	if (file_owner_set(dirfd, name, o) < 0) return err_sys(e, errno, "lchown %s", path);
	return file_time_set(dirfd, name, &t) < 0 ? err_sys(e, errno, "failed to utime %s", path) : 0;
}

/* ---- mkdir, symlink, mkfile, rm ---- */

static int do_mkdir(const struct file_job_ctx *c, const Pb__FileActionMkDir *a, struct err *e)
{
	struct file_owner owner;
	struct file_time t = time_of(a->timestamp);
	mode_t mode = (mode_t)a->mode & 0777;
	const char *base;
	if (file_owner_read(c, a->owner, &owner, e) < 0) return -1;
	_cleanup_free_ char *path = file_root_path(c->rootfd, a->path, true, e);
	if (!path) return -1;
	if (a->makeparents) {
		_cleanup_strvec_ struct strvec made = {0};
		int r = file_mkdirs(c->rootfd, path, mode, &owner, &t, &made, e);
		return r < 0 ? -1 : file_times_again(c->rootfd, &made, &t, e);
	}
	_cleanup_close_ int dir = file_open_parent(c->rootfd, path, &base);
	if (dir < 0) return err_sys(e, errno, "mkdir %s", path);
	if (file_mkdir_at(dir, base, mode) < 0) return errno == EEXIST ? 0 : err_sys(e, errno, "mkdir %s", path);
	return set_owner_time(dir, base, path, &owner, a->timestamp, e);
}

static int do_symlink(const struct file_job_ctx *c, const Pb__FileActionSymlink *a, struct err *e)
{
	struct file_owner owner;
	const char *base;
	_cleanup_free_ char *clean = path_abs_in(a->newpath);
	if (file_owner_read(c, a->owner, &owner, e) < 0) return -1;
	_cleanup_free_ char *path = file_root_path(c->rootfd, clean, true, e);
	if (!path) return -1;
	_cleanup_close_ int dir = file_open_parent(c->rootfd, path, &base);
	if (dir < 0 || symlinkat(a->oldpath, dir, base) < 0) return err_sys(e, errno, "symlink %s %s", a->oldpath, path);
	return set_owner_time(dir, base, path, &owner, a->timestamp, e);
}

/* A new file with this mode, or the one that is there, emptied, with its own mode. Only regular files are opened. */
static int open_file(int dir, const char *name, mode_t mode)
{
	struct stat st;
	_cleanup_close_ int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	bool created = fd >= 0;
	if (!created && errno != EEXIST) return -1;
	if (!created) fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) return -1;
	if (!S_ISREG(st.st_mode)) {
		errno = ENXIO;
		return -1;
	}
	if (created ? (st.st_mode & 0777) != mode && fchmod(fd, mode) < 0 : ftruncate(fd, 0) < 0) return -1;
	return take_fd(fd);
}

static int do_mkfile(const struct file_job_ctx *c, const Pb__FileActionMkFile *a, struct err *e)
{
	struct file_owner owner;
	const char *base;
	_cleanup_free_ char *clean = path_abs_in(a->path);
	if (file_owner_read(c, a->owner, &owner, e) < 0) return -1;
	_cleanup_free_ char *path = file_root_path(c->rootfd, clean, true, e);
	if (!path) return -1;
	if (!strcmp(path, "/")) return err_sys(e, EISDIR, "open /");
	_cleanup_close_ int dir = file_open_parent(c->rootfd, path, &base);
	_cleanup_close_ int fd = dir < 0 ? -1 : open_file(dir, base, (mode_t)a->mode & 0777);
	if (fd < 0) return err_sys(e, errno, "open %s", path);
	if (path_write_all(fd, a->data.data, a->data.len, e) < 0) return err_wrap(e, "mkfile %s", path);
	return set_owner_time(dir, base, path, &owner, a->timestamp, e);
}

static int remove_path(const struct file_job_ctx *c, const char *src, bool allow_missing, struct err *e)
{
	const char *base;
	struct stat st;
	_cleanup_free_ char *clean = path_abs_in(src);
	if (!strcmp(clean, "/")) return err_set(e, CODE_INVALID_ARGUMENT, "rmPath: invalid empty path");
	_cleanup_free_ char *path = file_root_path(c->rootfd, clean, false, e);
	if (!path) return -1;
	if (!allow_missing && path_stat_in(c->rootfd, path, &st, NULL) < 0 && errno == ENOENT)
		return err_sys(e, ENOENT, "stat %s", path);
	_cleanup_close_ int dir = file_open_parent(c->rootfd, path, &base);
	if (dir < 0) return errno == ENOENT ? 0 : err_sys(e, errno, "unlinkat %s", path);
	return path_remove_all(dir, base, e);
}

static int do_rm(const struct file_job_ctx *c, const Pb__FileActionRm *a, struct err *e)
{
	if (!a->allowwildcard) return remove_path(c, a->path, a->allownotfound, e);
	_cleanup_strvec_ struct strvec paths = {0};
	if (file_wildcards(c, c->rootfd, a->path, false, &paths, e) < 0) return -1;
	for (size_t i = 0; i < paths.n; i++)
		if (file_check(c, e) < 0 || remove_path(c, paths.v[i], a->allownotfound, e) < 0) return -1;
	return 0;
}

/* ---- archives ---- */

struct archive {
	const struct file_job_ctx *ctx;
	int fd;
};

static ssize_t archive_read(void *arg, void *buf, size_t n, struct err *e)
{
	struct archive *a = arg;
	ssize_t r;
	if (file_check(a->ctx, e) < 0) return -1;
	do r = read(a->fd, buf, n);
	while (r < 0 && errno == EINTR);
	return r < 0 ? err_sys(e, errno, "read") : r;
}

static int unpack(const struct file_job_ctx *c, int fd, const char *name, const char *dst, const struct file_copy_opts *o,
		  struct err *e)
{
	_cleanup_tar_decomp_ struct tar_decomp *d = NULL;
	_cleanup_strvec_ struct strvec made = {0};
	struct archive in = {c, fd};
	struct tar_apply_opts opts = TAR_APPLY_OPTS(TAR_APPLY_PLAIN);
	opts.best_effort_xattrs = true;
	opts.override_owner = o->owner.set;
	opts.uid = o->owner.uid;
	opts.gid = o->owner.gid;
	_cleanup_free_ char *path = file_root_path(c->rootfd, dst, true, e);
	if (!path || file_mkdirs(c->rootfd, path, 0755, &o->owner, &o->time, &made, e) < 0) return -1;
	_cleanup_close_ int dir = path_open_in(c->rootfd, path, O_RDONLY | O_DIRECTORY, 0, e);
	if (dir < 0 || tar_decomp_new((struct tar_in){archive_read, &in}, 0, &d, e) < 0) return -1;
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_decomp_in(d));
	if (tar_apply(r, dir, &opts, NULL, NULL, e) == 0) return 0;
	return e && e->code == CODE_CANCELLED ? -1 : err_wrap(e, "unpack %s", name);
}

/* 1 src was an archive and is unpacked, 0 it was none. */
static int try_unpack(const struct file_job_ctx *c, int sourcefd, const char *src, const char *dst,
		      const struct file_copy_opts *o, struct err *e)
{
	struct stat st;
	_cleanup_free_ char *path = file_root_path(sourcefd, src, true, e);
	if (!path) return -1;
	_cleanup_close_ int fd = path_open_in(sourcefd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, NULL);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) return 0;
	struct archive in = {c, fd};
	if (!tar_is_archive((struct tar_in){archive_read, &in})) return file_check(c, e);
	if (lseek(fd, 0, SEEK_SET) < 0) return err_sys(e, errno, "seek %s", path);
	return unpack(c, fd, path, dst, o, e) < 0 ? -1 : 1;
}

/* ---- copy ---- */

static int new_patterns(const char **v, size_t n, const char *what, struct spec_patterns **ret, struct err *e)
{
	struct strvec all = {0};
	if (!n || spec_patterns_new((char *const *)v, n, ret, e) == 0) return 0;
	strvec_copy(&all, (char *const *)v, n);
	_cleanup_free_ char *joined = strvec_join(&all, " ");
	strvec_fini(&all);
	return err_wrap(e, "invalid %s: [%s]", what, joined);
}

static int check_parent(const struct file_job_ctx *c, const char *dest, struct err *e)
{
	struct stat st;
	_cleanup_free_ char *clean = path_abs_in(dest);
	_cleanup_free_ char *path = file_root_path(c->rootfd, clean, true, e);
	if (!path) return -1;
	_cleanup_free_ char *dir = path_dir(path);
	return path_lstat_in(c->rootfd, dir, &st, NULL) < 0 ? err_sys(e, errno, "failed to stat %s: lstat %s", dest, dir) : 0;
}

static int copy_each(const struct file_job_ctx *c, int sourcefd, const Pb__FileActionCopy *a, const struct file_copy_opts *o,
		     struct err *e)
{
	_cleanup_strvec_ struct strvec sources = {0};
	_cleanup_free_ char *src = clean_path(a->src), *dst = clean_path(a->dest);
	if (!a->allowwildcard)
		strvec_add(&sources, src);
	else if (file_wildcards(c, sourcefd, src, a->followsymlink, &sources, e) < 0)
		return -1;
	if (!sources.n) return a->allowemptywildcard ? 0 : err_set(e, CODE_NOT_FOUND, "%s not found", src);
	struct file_job_ctx alone = *c;
	if (a->attemptunpackdockercompatibility && sources.n > 1) { /* an archive could change what was copied before it */
		alone.share = false;
		c = &alone;
	}
	for (size_t i = 0; i < sources.n; i++) {
		int r = a->attemptunpackdockercompatibility ? try_unpack(c, sourcefd, sources.v[i], dst, o, e) : 0;
		if (r == 0) r = file_copy(c, sourcefd, sources.v[i], dst, o, e);
		if (r < 0) return -1;
	}
	return 0;
}

/* The directory of an empty tree: it has no name any more, and nothing can be put into it. */
static int open_empty(struct err *e)
{
	const char *tmp = getenv("TMPDIR");
	_cleanup_free_ char *path = xasprintf("%s/slipway-empty-XXXXXX", str_empty(tmp) ? "/tmp" : tmp);
	if (!mkdtemp(path)) return err_sys(e, errno, "make an empty directory %s", path);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 || fchmod(fd, 0755) < 0 ? err_sys(e, errno, "open %s", path) : 0;
	rmdir(path);
	return r < 0 ? -1 : take_fd(fd);
}

static int do_copy(const struct file_job_ctx *c, const Pb__FileActionCopy *a, struct err *e)
{
	_cleanup_spec_patterns_ struct spec_patterns *include = NULL, *exclude = NULL;
	struct file_copy_opts o = {
		.time = time_of(a->timestamp),
		.mode_text = str_empty(a->modestr) ? NULL : a->modestr,
		.mode = str_empty(a->modestr) ? a->mode : -1,
		.contents = a->dircopycontents,
		.follow = a->followsymlink,
		.replace = a->alwaysreplaceexistingdestpaths,
	};
	if (file_owner_read(c, a->owner, &o.owner, e) < 0) return -1;
	if (!a->createdestpath && check_parent(c, a->dest, e) < 0) return -1;
	if (new_patterns(a->include_patterns, a->n_include_patterns, "includepatterns", &include, e) < 0) return -1;
	if (new_patterns(a->exclude_patterns, a->n_exclude_patterns, "excludepatterns", &exclude, e) < 0) return -1;
	o.include = include;
	o.exclude = exclude;
	_cleanup_close_ int empty = c->sourcefd < 0 ? open_empty(e) : -1;
	if (c->sourcefd < 0 && empty < 0) return -1;
	return copy_each(c, empty >= 0 ? empty : c->sourcefd, a, &o, e);
}

int file_job_action(const struct file_job_ctx *c, const Pb__FileAction *a, struct err *e)
{
	if (file_check(c, e) < 0) return -1;
	switch (a->action_case) {
	case PB__FILE_ACTION__ACTION_COPY: return do_copy(c, a->copy, e);
	case PB__FILE_ACTION__ACTION_MKFILE: return do_mkfile(c, a->mkfile, e);
	case PB__FILE_ACTION__ACTION_MKDIR: return do_mkdir(c, a->mkdir, e);
	case PB__FILE_ACTION__ACTION_RM: return do_rm(c, a->rm, e);
	case PB__FILE_ACTION__ACTION_SYMLINK: return do_symlink(c, a->symlink, e);
	default: return err_set(e, CODE_INVALID_ARGUMENT, "invalid action type %d", (int)a->action_case);
	}
}
