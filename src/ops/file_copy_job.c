/* A copy of one file or tree onto another tree, with the semantics of fsutil's copy.Copy.
 *
 * Both trees are walked side by side: a level holds one descriptor of the source directory and one of the destination's,
 * everything inside is reached by one plain name below them.
 *  1. A destination directory is opened when something goes into it: a source directory that no include pattern names
 *     itself is made only once something below it is included, with its own metadata.
 *  2. Nothing is written through a link: files are made with O_EXCL after what stood there was removed.
 *  3. Directories get owner, mode and times after their children, so that the times stay.
 *  4. At the top an existing destination keeps owner and mode (its times become the source's); below it they are overwritten.
 *  5. Names are taken in byte order, so that of several hard links always the same one is copied.
 * Different from fsutil: block devices stay block devices, directories made for an included child keep the source's time,
 * hard links are told apart by device and inode, and one attribute that cannot be set does not keep back the others.
 * Source: github.com/tonistiigi/fsutil copy/copy.go, copy_linux.go, copy_nowindows.go, hardlink.go. */
#include "ops/file_parts_job.h"
#include "spec/pattern.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 1000 };

struct copier {
	const struct file_job_ctx *ctx;
	const struct file_copy_opts *o;
	const struct file_mode *mode_set; /* NULL: none */
	const char *src, *dst;            /* canonical paths of the top */
	int rootfd;
	struct map links; /* "dev:ino" of a file with several names -> its first copy, canonical */
	struct buf rel;   /* of the entry at hand below the top; "" at the top */
	struct file_data data;
	size_t n_include, n_exclude;
	bool no_share; /* these two trees cannot be linked */
};

struct level {
	struct level *up;
	const char *from, *to; /* its names below up */
	int src, dst;
	int stage; /* in the upper layer, for files that are shared: the directory itself or `.slipway-...` in it; 0: none */
	char staged[40]; /* its name, if it is one of its own */
	struct stat st;
	bool done;           /* the destination directory is there and open */
	bool created;        /* by us */
	size_t depth, rel_n; /* of rel */
	bool *flags;         /* what its path matched: n_include, then n_exclude; NULL at the top */
};

/* ---- texts ---- */
static char *path_at(const struct copier *c, const char *top)
{
	return c->rel.n ? path_join(top, buf_str(&c->rel)) : xstrdup(top);
}

static int fail(const struct copier *c, int errnum, const char *what, const char *top, struct err *e)
{
	_cleanup_free_ char *path = path_at(c, top);
	return err_sys(e, errnum, "%s %s", what, path);
}

static int refuse(const struct copier *c, const char *before, const char *after, struct err *e)
{
	_cleanup_free_ char *path = path_at(c, c->dst);
	return err_set(e, CODE_FAILED_PRECONDITION, "%s%s%s", before, path, after);
}

/* ---- metadata ---- */
static uid_t want_uid(const struct copier *c, const struct stat *st) { return c->o->owner.set ? c->o->owner.uid : st->st_uid; }
static gid_t want_gid(const struct copier *c, const struct stat *st) { return c->o->owner.set ? c->o->owner.gid : st->st_gid; }

static mode_t want_mode(const struct copier *c, const struct stat *st)
{
	if (c->mode_set) return file_mode_apply(c->mode_set, st->st_mode);
	return (c->o->mode >= 0 ? (mode_t)c->o->mode : st->st_mode) & 07777;
}

static void want_times(const struct copier *c, const struct stat *st, struct timespec ts[2])
{
	ts[0] = c->o->time.set ? c->o->time.ts : st->st_atim;
	ts[1] = c->o->time.set ? c->o->time.ts : st->st_mtim;
}

static int set_times(struct copier *c, int fd, const struct stat *st, struct err *e)
{
	struct timespec ts[2];
	want_times(c, st, ts);
	return futimens(fd, ts) < 0 ? fail(c, errno, "failed to copy file info: failed to utime", c->dst, e) : 0;
}

/* A file or directory that is open. Owner first: changing it drops setuid bits and capabilities. */
static int set_meta(struct copier *c, int src, int dst, const struct stat *st, struct err *e)
{
	struct stat now;
	if (fstat(dst, &now) < 0) return fail(c, errno, "failed to stat", c->dst, e);
	bool chown = now.st_uid != want_uid(c, st) || now.st_gid != want_gid(c, st);
	if (chown && fchown(dst, want_uid(c, st), want_gid(c, st)) < 0)
		return fail(c, errno, "failed to copy file info: failed to chown", c->dst, e);
	if ((chown || (now.st_mode & 07777) != want_mode(c, st)) && fchmod(dst, want_mode(c, st)) < 0)
		return fail(c, errno, "failed to copy file info: failed to chmod", c->dst, e);
	if (set_times(c, dst, st, e) < 0) return -1;
	file_xattrs_copy_fd(src, dst);
	return 0;
}

/* A link or special file, by name. */
static int set_meta_at(struct copier *c, const struct level *up, const char *from, const char *to, const struct stat *st,
		       struct err *e)
{
	struct timespec ts[2];
	want_times(c, st, ts);
	if (fchownat(up->dst, to, want_uid(c, st), want_gid(c, st), AT_SYMLINK_NOFOLLOW) < 0)
		return fail(c, errno, "failed to copy file info: failed to chown", c->dst, e);
	if (!S_ISLNK(st->st_mode) && fchmodat(up->dst, to, want_mode(c, st), 0) < 0)
		return fail(c, errno, "failed to copy file info: failed to chmod", c->dst, e);
	if (utimensat(up->dst, to, ts, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(c, errno, "failed to copy file info: failed to utime", c->dst, e);
	file_xattrs_copy_at(up->src, from, up->dst, to);
	return 0;
}

/* ---- destination directories ---- */

/* Make or enter the directory of this level. `replace`: what stands in its way is removed. */
static int open_dst(struct copier *c, struct level *l, bool overwrite, bool replace, struct err *e)
{
	struct stat st;
	l->created = mkdirat(l->up->dst, l->to, l->st.st_mode & 07777) == 0;
	if (!l->created && errno != EEXIST) return fail(c, errno, "failed to mkdir", c->dst, e);
	if (!l->created) {
		if (fstatat(l->up->dst, l->to, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return fail(c, errno, "failed to stat", c->dst, e);
		if (!S_ISDIR(st.st_mode) && replace) {
			if (path_remove_all(l->up->dst, l->to, e) < 0) return -1;
			return open_dst(c, l, overwrite, false, e);
		}
		if (!S_ISDIR(st.st_mode)) return refuse(c, "cannot copy to non-directory: ", "", e);
		if (overwrite && fchmodat(l->up->dst, l->to, l->st.st_mode & 07777, 0) < 0)
			return fail(c, errno, "failed to chmod on", c->dst, e);
	}
	l->dst = openat(l->up->dst, l->to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (l->dst < 0) return fail(c, errno, "failed to open", c->dst, e);
	l->done = true;
	return 0;
}

static int make_parent(struct copier *c, struct level *l, struct err *e)
{
	if (open_dst(c, l, true, false, e) < 0) return -1;
	return l->created ? set_meta(c, l->src, l->dst, &l->st, e) : 0;
}

/* The directories above the entry at hand that no pattern named themselves; rel is cut to each for the texts. */
static int make_parents(struct copier *c, struct level *l, struct err *e)
{
	if (l->done) return 0;
	if (make_parents(c, l->up, e) < 0) return -1;
	size_t n = c->rel.n;
	uint8_t was = c->rel.p[l->rel_n];
	c->rel.p[c->rel.n = l->rel_n] = 0;
	int r = make_parent(c, l, e);
	c->rel.p[l->rel_n] = was;
	c->rel.n = n;
	return r;
}

/* ---- leaves ---- */

/* Nothing may stand at the name of a file that is made. */
static int clear_target(struct copier *c, const struct level *up, const char *to, struct err *e)
{
	struct stat st;
	if (up->created) return 0;
	if (fstatat(up->dst, to, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(c, errno, "failed to stat", c->dst, e);
	if (S_ISDIR(st.st_mode)) {
		if (!c->o->replace || !strcmp(to, ".")) return refuse(c, "cannot replace to directory ", " with file", e);
		return path_remove_all(up->dst, to, e);
	}
	return unlinkat(up->dst, to, 0) < 0 && errno != ENOENT ? fail(c, errno, "remove", c->dst, e) : 0;
}

/* 1 linked to the copy of another name, 0 this is the first. */
static int copy_link(struct copier *c, const struct level *up, const char *to, const struct stat *st, struct err *e)
{
	char key[48];
	snprintf(key, sizeof key, "%jx:%jx", (uintmax_t)st->st_dev, (uintmax_t)st->st_ino);
	const char *first = map_get(&c->links, key), *base;
	if (first) {
		_cleanup_close_ int dir = file_open_parent(c->rootfd, first, &base);
		if (dir >= 0 && linkat(dir, base, up->dst, to, 0) == 0) return 1;
		if (errno != EMLINK) return fail(c, errno, "failed to create hard link: link", c->dst, e);
	}
	free(map_put(&c->links, key, path_at(c, c->dst)));
	return 0;
}

/* ---- files shared with the source (adr/0006) ----
 * Never reached through an overlay mount, which has no links to elsewhere: the link is made in the upper layer. That is right
 * behind the mount's back in a directory that this copy has just made and nobody has looked into; in any other one the file is
 * linked into a directory of its own there and renamed through the mount. */

static int open_upper(struct copier *c, const char *dir, const char *sub)
{
	_cleanup_free_ char *path = path_join(dir, sub);
	return path_open_in(c->ctx->upperfd, path, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, NULL);
}

/* Where files of this level are linked. -1: nowhere. */
static int open_stage(struct copier *c, struct level *up)
{
	char id[ID_STR];
	if (up->stage > 0) return up->stage;
	if (!c->ctx->upperfd) return up->dst;
	_cleanup_free_ char *path = path_at(c, c->dst);
	_cleanup_free_ char *dir = path_dir(path);
	if (!up->created) {
		id_new(id);
		snprintf(up->staged, sizeof up->staged, ".slipway-%.20s", id);
		if (mkdirat(up->dst, up->staged, 0700) < 0) return up->staged[0] = 0, -1;
	}
	int fd = open_upper(c, dir, up->staged);
	if (fd < 0) return -1;
	return up->stage = fd;
}

static void close_stage(struct level *l)
{
	if (l->stage > 0) close(l->stage);
	if (l->staged[0]) unlinkat(l->dst, l->staged, AT_REMOVEDIR);
	l->stage = 0;
	l->staged[0] = 0;
}

/* Is what would be copied the file itself, in all its metadata? One with several names is not shared again: no tree ever shows
 * one file under two names because of us. */
static bool is_sharable(const struct copier *c, const struct stat *st)
{
	struct timespec ts[2];
	want_times(c, st, ts);
	return st->st_nlink == 1 && want_uid(c, st) == st->st_uid && want_gid(c, st) == st->st_gid &&
	       want_mode(c, st) == (st->st_mode & 07777) && ts[1].tv_sec == st->st_mtim.tv_sec &&
	       ts[1].tv_nsec == st->st_mtim.tv_nsec;
}

/* Through the mount, so that it knows. */
static int unstage(const struct level *up, const char *to)
{
	char path[sizeof up->staged + NAME_MAX + 2];
	snprintf(path, sizeof path, "%s/%s", up->staged, to);
	return renameat(up->dst, path, up->dst, to);
}

/* 1 shared, 0 it has to be copied. */
static int try_share(struct copier *c, struct level *up, const char *from, const char *to, const struct stat *st)
{
	struct stat now;
	if (!c->ctx->share || c->no_share || !is_sharable(c, st)) return 0;
	int stage = open_stage(c, up);
	if (stage < 0 || linkat(up->src, from, stage, to, 0) < 0) {
		c->no_share = true;
		return 0;
	}
	/* Another copy may have had the same thought at the same time: then neither shares it. */
	bool ours = fstatat(stage, to, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_nlink == 2 && now.st_ino == st->st_ino;
	if (ours && up->staged[0] && unstage(up, to) < 0) ours = false;
	if (!ours) unlinkat(stage, to, 0);
	return ours;
}

static int copy_regular(struct copier *c, struct level *up, const char *from, const char *to, const struct stat *st,
			struct err *e)
{
	if (st->st_nlink > 1) {
		int r = copy_link(c, up, to, st, e);
		if (r != 0) return r < 0 ? -1 : 0;
	}
	if (try_share(c, up, from, to, st)) return 0;
	_cleanup_close_ int src = openat(up->src, from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (src < 0) return fail(c, errno, "failed to copy files: failed to open source", c->src, e);
	_cleanup_close_ int dst =
		openat(up->dst, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, want_mode(c, st) & 0777);
	if (dst < 0) return fail(c, errno, "failed to copy files: failed to open target", c->dst, e);
	if (file_data_copy(&c->data, src, dst, st, e) < 0) {
		if (e && e->code == CODE_CANCELLED) return -1;
		_cleanup_free_ char *path = path_at(c, c->dst);
		return err_wrap(e, "failed to copy files: %s", path);
	}
	return set_meta(c, src, dst, st, e);
}

static int copy_symlink(struct copier *c, const struct level *up, const char *from, const char *to, const struct stat *st,
			struct err *e)
{
	char target[PATH_MAX + 1];
	ssize_t n = readlinkat(up->src, from, target, sizeof target - 1);
	if (n < 0) return fail(c, errno, "failed to read link:", c->src, e);
	target[n] = 0;
	if (symlinkat(target, up->dst, to) < 0) return fail(c, errno, "failed to create symlink:", c->dst, e);
	return set_meta_at(c, up, from, to, st, e);
}

/* A socket becomes an empty file. */
static int copy_special(struct copier *c, const struct level *up, const char *from, const char *to, const struct stat *st,
			struct err *e)
{
	mode_t mode = S_ISSOCK(st->st_mode) ? S_IFREG | (st->st_mode & 07777) : st->st_mode;
	dev_t dev = S_ISCHR(mode) || S_ISBLK(mode) ? st->st_rdev : 0;
	if (mknodat(up->dst, to, mode, dev) < 0) return fail(c, errno, "failed to create device:", c->dst, e);
	return set_meta_at(c, up, from, to, st, e);
}

static int copy_leaf(struct copier *c, struct level *up, const char *from, const char *to, const struct stat *st, struct err *e)
{
	if (clear_target(c, up, to, e) < 0) return -1;
	if (S_ISREG(st->st_mode)) return copy_regular(c, up, from, to, st, e);
	if (S_ISLNK(st->st_mode)) return copy_symlink(c, up, from, to, st, e);
	return copy_special(c, up, from, to, st, e);
}

/* ---- the walk ---- */

static int copy_entry(struct copier *c, struct level *up, const char *from, const char *to, struct err *e);

static int copy_child(struct copier *c, struct level *l, const char *name, struct err *e)
{
	size_t before = c->rel.n;
	if (before) buf_addc(&c->rel, '/');
	buf_adds(&c->rel, name);
	int r = copy_entry(c, l, name, name, e);
	c->rel.n = before;
	if (c->rel.p) c->rel.p[before] = 0;
	return r;
}

static int read_names(int srcfd, struct strvec *ret)
{
	int fd = openat(srcfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		close_fd(&fd);
		return -1;
	}
	struct dirent *ent;
	errno = 0;
	while ((ent = readdir(d)))
		if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..")) strvec_add(ret, ent->d_name);
	int saved = errno;
	closedir(d);
	errno = saved;
	return saved ? -1 : 0;
}

static int copy_children(struct copier *c, struct level *l, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	if (l->depth > DEPTH_MAX) return refuse(c, "directories are nested too deeply: ", "", e);
	l->src = openat(l->up->src, l->from, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (l->src < 0 || read_names(l->src, &names) < 0) return fail(c, errno, "failed to read", c->src, e);
	strvec_sort(&names);
	for (size_t i = 0; i < names.n; i++)
		if (copy_child(c, l, names.v[i], e) < 0) return -1;
	return 0;
}

static int finish_dir(struct copier *c, struct level *l, bool include, struct err *e)
{
	bool top = !c->rel.n;
	if (include && (!top || l->created)) return set_meta(c, l->src, l->dst, &l->st, e);
	return include || (l->done && l->created) ? set_times(c, l->dst, &l->st, e) : 0;
}

static int copy_dir(struct copier *c, struct level *l, bool include, bool descend, struct err *e)
{
	if (include && (make_parents(c, l->up, e) < 0 || open_dst(c, l, c->rel.n > 0, c->o->replace, e) < 0)) return -1;
	if (!descend) return 0;
	int r = copy_children(c, l, e);
	close_stage(l);
	return r < 0 ? -1 : finish_dir(c, l, include, e);
}

/* What the patterns say of the entry at hand. */
static int match(struct copier *c, const struct level *up, bool *flags, bool *include, bool *excluded, struct err *e)
{
	const char *rel = buf_str(&c->rel);
	*include = true;
	*excluded = false;
	if (c->o->include) {
		int r = spec_patterns_match_parents(c->o->include, rel, up->flags, flags, e);
		if (r < 0) return err_wrap(e, "failed to match includepatterns");
		*include = r > 0;
	}
	if (c->o->exclude) {
		int r = spec_patterns_match_parents(c->o->exclude, rel, up->flags ? up->flags + c->n_include : NULL,
						    flags + c->n_include, e);
		if (r < 0) return err_wrap(e, "failed to match excludepatterns");
		*excluded = r > 0;
		*include = *include && !*excluded;
	}
	return 0;
}

static int copy_entry(struct copier *c, struct level *up, const char *from, const char *to, struct err *e)
{
	bool include = true, excluded = false;
	bool exceptions = c->o->exclude && spec_patterns_exclusions(c->o->exclude);
	_cleanup_free_ bool *flags = NULL;
	struct stat st;
	if (file_check(c->ctx, e) < 0) return -1;
	if (c->rel.n && (c->o->include || c->o->exclude)) {
		flags = xcalloc(c->n_include + c->n_exclude + 1, sizeof *flags);
		if (match(c, up, flags, &include, &excluded, e) < 0) return -1;
		if (!include && !c->o->include && !exceptions) return 0;
	}
	if (fstatat(up->src, from, &st, AT_SYMLINK_NOFOLLOW) < 0) return fail(c, errno, "failed to stat", c->src, e);
	if (!S_ISDIR(st.st_mode)) {
		if (!include) return 0;
		return make_parents(c, up, e) < 0 ? -1 : copy_leaf(c, up, from, to, &st, e);
	}
	struct level l = {.up = up,
			  .from = from,
			  .to = to,
			  .src = -1,
			  .dst = -1,
			  .st = st,
			  .depth = up->depth + 1,
			  .rel_n = c->rel.n,
			  .flags = flags};
	int r = copy_dir(c, &l, include, !excluded || exceptions, e);
	close_fd(&l.src);
	close_fd(&l.dst);
	return r;
}

static int copy_top(struct copier *c, int sourcefd, struct err *e)
{
	const char *from, *to;
	struct level top = {.src = -1, .dst = -1, .done = true};
	top.src = file_open_parent(sourcefd, c->src, &from);
	if (top.src < 0) return fail(c, errno, "failed to stat", c->src, e);
	top.dst = file_open_parent(c->rootfd, c->dst, &to);
	int r = top.dst < 0 ? fail(c, errno, "failed to stat", c->dst, e) : copy_entry(c, &top, from, to, e);
	close_stage(&top);
	close_fd(&top.src);
	close_fd(&top.dst);
	return r;
}

static int run_copier(const struct file_job_ctx *ctx, int sourcefd, const char *src, const char *dst,
		      const struct file_copy_opts *o, const struct file_mode *mode_set, struct err *e)
{
	struct copier c = {.ctx = ctx, .o = o, .src = src, .dst = dst, .rootfd = ctx->rootfd, .data = {.ctx = ctx}};
	c.mode_set = mode_set;
	c.n_include = o->include ? spec_patterns_count(o->include) : 0;
	c.n_exclude = o->exclude ? spec_patterns_count(o->exclude) : 0;
	int r = copy_top(&c, sourcefd, e);
	map_fini_free(&c.links);
	buf_fini(&c.rel);
	file_data_fini(&c.data);
	return r;
}

/* ---- where it goes ---- */

/* The last part of a path as Go's filepath.Base says: a '/' at the end does not count, "/." gives ".". */
static char *base_of(const char *path)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/') n--;
	_cleanup_free_ char *cut = xstrndup(path, n);
	return xstrdup(path_base(cut));
}

/* The directory that must be there before anything is looked at: dst itself when it ends in '/' or "/.". */
static int ensure_dst(const struct file_job_ctx *c, const char *dst, mode_t perm, const struct file_copy_opts *o,
		      struct strvec *made, struct err *e)
{
	const char *base = path_base(dst);
	bool is_dir = !*base || !strcmp(base, ".");
	_cleanup_free_ char *dir = is_dir ? xstrdup(dst) : xstrndup(dst, (size_t)(base - dst));
	_cleanup_free_ char *real = file_root_path(c->rootfd, dir, true, e);
	return real ? file_mkdirs(c->rootfd, real, perm, &o->owner, &o->time, made, e) : -1;
}

/* The canonical path that the copy of src gets. */
static char *place(const struct file_job_ctx *c, const char *src, bool src_is_dir, const char *dst, mode_t perm,
		   const struct file_copy_opts *o, struct strvec *made, struct err *e)
{
	struct stat st;
	_cleanup_free_ char *path = file_root_path(c->rootfd, dst, true, e);
	if (!path) return NULL;
	bool exists = path_lstat_in(c->rootfd, path, &st, NULL) == 0;
	if (!exists && errno != ENOENT) {
		err_sys(e, errno, "failed to lstat destination path: stat %s", path);
		return NULL;
	}
	if (exists && (src_is_dir ? !o->contents : S_ISDIR(st.st_mode))) {
		_cleanup_free_ char *base = base_of(src);
		char *inside = path_join(path, base);
		free(path);
		path = inside;
	}
	_cleanup_free_ char *parent = o->contents && src_is_dir && !exists ? xstrdup(path) : path_dir(path);
	return file_mkdirs(c->rootfd, parent, perm, &o->owner, &o->time, made, e) < 0 ? NULL : take_ptr(path);
}

int file_copy(const struct file_job_ctx *c, int sourcefd, const char *src, const char *dst, const struct file_copy_opts *o,
	      struct err *e)
{
	struct stat st;
	_cleanup_strvec_ struct strvec made = {0};
	_cleanup_(file_mode_fini) struct file_mode mode = {0};
	mode_t perm = (o->mode >= 0 ? (mode_t)o->mode : 0755) & 0777;
	if (ensure_dst(c, dst, perm, o, &made, e) < 0) return -1;
	if (o->mode_text && file_mode_parse(o->mode_text, &mode, e) < 0) return -1;
	_cleanup_free_ char *from = file_root_path(sourcefd, src, o->follow, e);
	if (!from) return -1;
	if (path_lstat_in(sourcefd, from, &st, NULL) < 0) return err_sys(e, errno, "lstat %s", from);
	_cleanup_free_ char *to = place(c, src, S_ISDIR(st.st_mode), dst, perm, o, &made, e);
	if (!to || run_copier(c, sourcefd, from, to, o, o->mode_text ? &mode : NULL, e) < 0) return -1;
	return file_times_again(c->rootfd, &made, &o->time, e);
}
