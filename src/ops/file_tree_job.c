/* Paths in a tree that a peer wrote: links resolved by hand (a missing tail is kept, which no open can do), directories
 * made on the way, wildcards.
 *  1. Every look-up is an openat2 inside the root, or of one plain name below a directory found that way.
 *  2. Nobody else changes the tree while the action runs, so a path that was resolved stays resolved.
 *  3. Wildcards walk in lexical order and enter no link; a pattern without a class cannot match deeper than it has
 *     slashes, so the walk stops there. */
#include "ops/file_parts_job.h"
#include "spec/pattern.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

enum { LINKS_MAX = 255, DEPTH_MAX = 1000 };

int file_check(const struct file_job_ctx *c, struct err *e)
{
	return c->cancelled && atomic_load_explicit(c->cancelled, memory_order_relaxed)
		       ? err_set(e, CODE_CANCELLED, "context canceled")
		       : 0;
}

/* 1 a link with its target in `target`, 0 not one or not there, -1 error. */
static int read_link(int rootfd, const char *path, char target[PATH_MAX], struct err *e)
{
	_cleanup_close_ int fd = path_open_in(rootfd, path, O_PATH | O_NOFOLLOW, 0, NULL);
	if (fd < 0) return errno == ENOENT ? 0 : err_sys(e, errno, "lstat %s", path);
	ssize_t n = readlinkat(fd, "", target, PATH_MAX);
	if (n < 0 && (errno == EINVAL || errno == ENOENT)) return 0; /* no link */
	if (n < 0) return err_sys(e, errno, "readlink %s", path);
	if (n == PATH_MAX) return err_sys(e, ENAMETOOLONG, "readlink %s", path);
	target[n] = 0;
	return 1;
}

static void drop_last(struct buf *b, size_t to)
{
	b->n = to;
	if (b->p) b->p[to] = 0;
}

static void go_up(struct buf *out)
{
	const char *slash = out->n ? strrchr(buf_str(out), '/') : NULL;
	drop_last(out, slash ? (size_t)(slash - buf_str(out)) : 0);
}

/* One component onto `out`; a link puts its target in front of the rest instead. */
static int step(int rootfd, struct buf *out, const char *name, size_t n, char **rest, const char *behind, int *links,
		struct err *e)
{
	char target[PATH_MAX];
	size_t before = out->n;
	buf_addc(out, '/');
	buf_add(out, name, n);
	int r = read_link(rootfd, buf_str(out), target, e);
	if (r <= 0) return r;
	if (++*links > LINKS_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "too many links");
	drop_last(out, *target == '/' ? 0 : before);
	char *joined = xasprintf("%s/%s", target, behind);
	free(*rest);
	*rest = joined;
	return 1;
}

static char *resolve(int rootfd, const char *path, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT; /* "" is the root */
	_cleanup_free_ char *rest = xstrdup(path);
	int links = 0;
	for (const char *p = rest;;) {
		while (*p == '/') p++;
		size_t n = strcspn(p, "/");
		if (!n) break;
		const char *behind = p + n;
		if (n == 2 && !memcmp(p, "..", 2)) {
			go_up(&out);
		} else if (!(n == 1 && *p == '.')) {
			int r = step(rootfd, &out, p, n, &rest, behind, &links, e);
			if (r < 0) return NULL;
			if (r > 0) behind = rest;
		}
		p = behind;
	}
	if (!out.n) buf_addc(&out, '/');
	return buf_take_str(&out);
}

char *file_root_path(int rootfd, const char *path, bool follow, struct err *e)
{
	if (follow) return resolve(rootfd, path, e);
	_cleanup_free_ char *clean = path_abs_in(path);
	_cleanup_free_ char *dir = path_dir(clean);
	_cleanup_free_ char *real = resolve(rootfd, dir, e);
	return real ? path_join(real, path_base(clean)) : NULL;
}

int file_open_parent(int rootfd, const char *path, const char **ret_base)
{
	if (!strcmp(path, "/")) {
		*ret_base = ".";
		return openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	}
	return path_open_parent_in(rootfd, path, ret_base, NULL);
}

int file_mkdir_at(int dirfd, const char *name, mode_t mode)
{
	struct stat st;
	if (mkdirat(dirfd, name, mode) < 0) return -1;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return -1;
	return (st.st_mode & 0777) == mode ? 0 : fchmodat(dirfd, name, (st.st_mode & 07000) | mode, 0);
}

int file_owner_set(int dirfd, const char *name, const struct file_owner *o)
{
	return o->set ? fchownat(dirfd, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW) : 0;
}

int file_time_set(int dirfd, const char *name, const struct file_time *t)
{
	struct timespec ts[2] = {t->ts, t->ts};
	return t->set ? utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW) : 0;
}

/* ---- directories ---- */

static int make_one(int dirfd, const char *name, const char *path, mode_t mode, const struct file_owner *o,
		    const struct file_time *t, struct strvec *made, struct err *e)
{
	if (file_mkdir_at(dirfd, name, mode) < 0) return err_sys(e, errno, "mkdir %s", path);
	strvec_add(made, path);
	if (file_owner_set(dirfd, name, o) < 0) return err_sys(e, errno, "lchown %s", path);
	return file_time_set(dirfd, name, t) < 0 ? err_sys(e, errno, "failed to utime %s", path) : 0;
}

int file_mkdirs(int rootfd, const char *path, mode_t mode, const struct file_owner *o, const struct file_time *t,
		struct strvec *made, struct err *e)
{
	_cleanup_free_ char *so_far = xstrdup(path);
	_cleanup_close_ int fd = openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open /");
	for (char *s = so_far + 1; *s;) {
		char *name = s;
		s += strcspn(s, "/");
		char was = *s;
		*s = 0;
		int next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && errno == ENOENT) {
			if (make_one(fd, name, so_far, mode, o, t, made, e) < 0) return -1;
			next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		}
		if (next < 0) return err_sys(e, errno, "mkdir %s", so_far);
		close(fd);
		fd = next;
		*s = was;
		if (was) s++;
	}
	return 0;
}

int file_times_again(int rootfd, const struct strvec *made, const struct file_time *t, struct err *e)
{
	if (!t->set) return 0;
	for (size_t i = made->n; i-- > 0;) {
		const char *base;
		_cleanup_close_ int fd = file_open_parent(rootfd, made->v[i], &base);
		if (fd < 0 || file_time_set(fd, base, t) < 0) return err_sys(e, errno, "failed to utime %s", made->v[i]);
	}
	return 0;
}

/* ---- wildcards ---- */

struct walk {
	const struct file_job_ctx *ctx;
	const char *base, *pattern; /* the directory walked, what the rest must match */
	size_t depth_max;
	struct buf rel;
	struct strvec *out;
};

static int read_names(int fd, struct strvec *ret)
{
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -1;
	}
	struct dirent *ent;
	errno = 0;
	while ((ent = readdir(d)))
		if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..")) strvec_add(ret, ent->d_name);
	int saved = errno;
	closedir(d);
	strvec_sort(ret);
	errno = saved;
	return saved ? -1 : 0;
}

static int walk_dir(struct walk *w, int dirfd, size_t depth, struct err *e);

static int walk_entry(struct walk *w, int dirfd, const char *name, size_t depth, struct err *e)
{
	if (spec_path_match(w->pattern, buf_str(&w->rel), NULL) == 1) {
		strvec_take(w->out, path_join(w->base, buf_str(&w->rel)));
		return 0;
	}
	if (depth >= w->depth_max) return 0;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) return 0;
	if (fd < 0) return err_sys(e, errno, "open %s/%s", w->base, buf_str(&w->rel));
	int r = walk_dir(w, fd, depth + 1, e);
	close(fd);
	return r;
}

static int walk_dir(struct walk *w, int dirfd, size_t depth, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	if (depth > DEPTH_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "directories are nested too deeply");
	if (file_check(w->ctx, e) < 0) return -1;
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || read_names(fd, &names) < 0) return err_sys(e, errno, "open %s/%s", w->base, buf_str(&w->rel));
	for (size_t i = 0; i < names.n; i++) {
		size_t before = w->rel.n;
		if (before) buf_addc(&w->rel, '/');
		buf_adds(&w->rel, names.v[i]);
		int r = walk_entry(w, dirfd, names.v[i], depth, e);
		drop_last(&w->rel, before);
		if (r < 0) return -1;
	}
	return 0;
}

/* Where the first component with a wildcard begins; the end when there is none. */
static size_t plain_length(const char *clean)
{
	for (const char *p = clean; *p;) {
		size_t n = strcspn(p, "/");
		_cleanup_free_ char *part = xstrndup(p, n);
		if (spec_path_has_wildcard(part)) return (size_t)(p - clean);
		p += n;
		while (*p == '/') p++;
	}
	return strlen(clean);
}

int file_wildcards(const struct file_job_ctx *c, int rootfd, const char *src, bool follow, struct strvec *ret, struct err *e)
{
	_cleanup_free_ char *clean = path_abs_in(src);
	size_t n = plain_length(clean);
	if (!clean[n]) {
		strvec_add(ret, clean);
		return 0;
	}
	_cleanup_free_ char *dir = xstrndup(clean, n);
	_cleanup_free_ char *base = file_root_path(rootfd, dir, follow, e);
	if (!base) return -1;
	_cleanup_close_ int fd = path_open_in(rootfd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, NULL);
	if (fd < 0 && (errno == ELOOP || (errno == ENOTDIR && path_lstat_in(rootfd, base, &(struct stat){0}, NULL) == 0)))
		return 0;
	if (fd < 0) return err_sys(e, errno, "lstat %s", base);
	struct walk w = {.ctx = c, .base = base, .pattern = clean + n, .out = ret};
	for (const char *p = w.pattern; *p; p++) w.depth_max += *p == '/';
	if (strchr(w.pattern, '[')) w.depth_max = DEPTH_MAX + 1; /* a class may match a slash */
	int r = walk_dir(&w, fd, 0, e);
	buf_fini(&w.rel);
	return r;
}
