/* Unpacking an archive below a directory descriptor.
 *
 * The directories from the root down to the parent of the entry at hand stay open, a stack of O_PATH descriptors; archives
 * come in tree order, so most entries need no look-up but their own name. A component that is a link is resolved from
 * the root with RESOLVE_IN_ROOT and what it leads to is pushed in its place.
 *  1. Every system call takes a descriptor of a directory inside the root and one plain name: nothing leaves the root.
 *  2. The stack holds parents of the entry at hand only, so what an entry replaces is never on it.
 *  3. A whiteout that meets a directory of its own layer, before or after it, makes that directory opaque.
 *  4. Directory times are set last, since every entry below changes them.
 * Not here: what lower layers must supply (fixup.c). */
#include "tar/apply.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/sysmacros.h>

enum { DEPTH_MAX = 1000 };

/* ---- the stack of open directories ---- */
static void stack_cut(struct apply *a, size_t n)
{
	while (a->stack.n > n) {
		struct apply_level *l = &a->stack.v[--a->stack.n];
		close(l->fd);
		free(l->name);
	}
}

void apply_init(struct apply *a, int rootfd, const struct tar_apply_opts *o) { *a = (struct apply){.rootfd = rootfd, .o = o}; }

void apply_fini(struct apply *a)
{
	stack_cut(a, 0);
	vec_fini(&a->stack);
	map_fini(&a->made);
	tar_pending_fini(&a->pending);
	buf_fini(&a->path);
	buf_fini(&a->target);
}

static int stack_fd(const struct apply *a) { return a->stack.n ? a->stack.v[a->stack.n - 1].fd : a->rootfd; }

static void stack_push(struct apply *a, const char *name, size_t n, int fd)
{
	struct apply_level *l = vec_add(&a->stack);
	l->name = xstrndup(name, n);
	l->len = n;
	l->fd = fd;
}

bool apply_is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == 0; }

int apply_set_opaque(struct apply *a, int dirfd, const char *name, struct err *e)
{
	const char *key = a->o->userxattr ? "user.overlay.opaque" : "trusted.overlay.opaque";
	return tar_xattr_set(dirfd, name, key, "y", 1) < 0 ? err_sys(e, errno, "set %s on %s", key, name) : 0;
}

/* A parent that the archive did not name (yet). */
static int make_parent(struct apply *a, int fd, const char *name, const char *so_far, struct err *e)
{
	if (mkdirat(fd, name, 0755) < 0) return err_sys(e, errno, "make directory %s", so_far);
	if (fchmodat(fd, name, 0755, 0) < 0) return err_sys(e, errno, "chmod %s", so_far);
	if (a->o->mode != TAR_APPLY_PLAIN) strvec_add(&a->pending.parents, so_far);
	if (a->o->mode == TAR_APPLY_MERGED) map_put(&a->made, so_far, a);
	return 0;
}

/* Enter component `name` of the path, making it where it is missing. `so_far` is the path up to it. */
static int enter(struct apply *a, const char *name, const char *so_far, bool create, struct err *e)
{
	int fd = stack_fd(a);
	for (int tries = 0;; tries++) {
		int next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next >= 0) return next;
		if (errno == ENOENT && create && !tries) {
			if (make_parent(a, fd, name, so_far, e) < 0) return -1;
			continue;
		}
		if (errno != ENOTDIR && errno != ELOOP) return err_sys(e, errno, "%s", so_far);
		struct stat st;
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "%s", so_far);
		if (S_ISLNK(st.st_mode)) return path_open_in(a->rootfd, so_far, O_PATH | O_DIRECTORY, 0, e);
		if (a->o->mode != TAR_APPLY_OVERLAY || !apply_is_whiteout(&st) || !create || tries)
			return err_sys(e, ENOTDIR, "%s", so_far);
		if (unlinkat(fd, name, 0) < 0) return err_sys(e, errno, "remove %s", so_far);
		if (make_parent(a, fd, name, so_far, e) < 0 || apply_set_opaque(a, fd, name, e) < 0) return -1;
	}
}

int apply_parent(struct apply *a, char *path, const char **ret_base, bool create, struct err *e)
{
	size_t depth = 0;
	char *p = path;
	bool same = true;
	for (;;) {
		char *slash = strchr(p, '/');
		if (!slash) break;
		size_t n = (size_t)(slash - p);
		same = same && depth < a->stack.n && a->stack.v[depth].len == n && !memcmp(a->stack.v[depth].name, p, n);
		if (!same) {
			if (depth >= DEPTH_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "directories are nested too deeply");
			stack_cut(a, depth);
			*slash = 0;
			int fd = enter(a, p, path, create, e);
			if (fd >= 0) stack_push(a, p, n, fd);
			*slash = '/';
			if (fd < 0) return -1;
		}
		depth++;
		p = slash + 1;
	}
	stack_cut(a, depth);
	*ret_base = p;
	return stack_fd(a);
}

/* Clean and relative in `out`; "" is the root. A name that climbs out is refused. */
int apply_clean(struct buf *out, const char *name, const char *what, struct err *e)
{
	buf_reset(out);
	for (const char *s = name; *s;) {
		size_t n = strcspn(s, "/");
		if (n == 2 && s[0] == '.' && s[1] == '.') {
			if (!out->n) return err_set(e, CODE_INVALID_ARGUMENT, "%s", what);
			while (out->n && out->p[out->n - 1] != '/') out->n--;
			if (out->n) out->n--;
			out->p[out->n] = 0;
		} else if (n && !(n == 1 && *s == '.')) {
			if (n > 255) return err_set(e, CODE_INVALID_ARGUMENT, "a part of the name is longer than 255 bytes");
			if (out->n) buf_addc(out, '/');
			buf_add(out, s, n);
		}
		s += n;
		while (*s == '/') s++;
	}
	return 0;
}

/* ---- metadata ---- */
static struct timespec bound(struct timespec t)
{
	return t.tv_sec < 0 || t.tv_sec > INT64_MAX / 1000000000 ? (struct timespec){0} : t;
}

/* atime as Go's Apply sets it: the later of both. */
static void times_of(const struct tar_entry *t, struct timespec out[2])
{
	bool later = t->has_atime && (t->atime.tv_sec > t->mtime.tv_sec ||
				      (t->atime.tv_sec == t->mtime.tv_sec && t->atime.tv_nsec > t->mtime.tv_nsec));
	out[0] = bound(later ? t->atime : t->mtime);
	out[1] = bound(t->mtime);
}

static bool xattr_forgiven(const struct apply *a, const struct tar_entry *t, const char *key, int errnum)
{
	if (errnum == ENOTSUP) return true;
	if (errnum != EPERM) return false;
	return a->o->best_effort_xattrs || (str_starts(key, "user.") && t->type != TAR_REG && t->type != TAR_DIR);
}

static int set_xattrs(struct apply *a, int fd, const char *base, const struct tar_entry *t, struct err *e)
{
	for (size_t i = 0; i < t->n_xattrs; i++) {
		const struct tar_xattr *x = &t->xattrs[i];
		if (str_starts(x->name, "trusted.") || tar_xattr_private(x->name)) continue;
		if (tar_xattr_set(fd, base, x->name, x->value, x->len) < 0 && !xattr_forgiven(a, t, x->name, errno))
			return err_sys(e, errno, "set extended attribute %s", x->name);
	}
	return 0;
}

/* Owner first: changing it drops setuid bits and capabilities. */
static int set_meta(struct apply *a, int fd, const char *base, const struct tar_entry *t, struct err *e)
{
	uid_t uid = a->o->override_owner ? a->o->uid : (uid_t)t->uid;
	gid_t gid = a->o->override_owner ? a->o->gid : (gid_t)t->gid;
	if (fchownat(fd, base, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, errno, "change owner to %u:%u%s", uid, gid,
			       errno == EINVAL ? " (more subordinate ids may be needed in /etc/subuid and /etc/subgid)" : "");
	if (set_xattrs(a, fd, base, t, e) < 0) return -1;
	if (t->type != TAR_SYMLINK && fchmodat(fd, base, t->mode, 0) < 0) return err_sys(e, errno, "change mode");
	if (t->type == TAR_DIR) return 0; /* times come last */
	struct timespec ts[2];
	times_of(t, ts);
	return utimensat(fd, base, ts, AT_SYMLINK_NOFOLLOW) < 0 ? err_sys(e, errno, "set times") : 0;
}

/* ---- the types ---- */
static int copy_data(struct tar_reader *r, int fd, struct err *e)
{
	const uint8_t *p;
	ssize_t n;
	bool hole = false;
	int64_t at = 0;
	while ((n = tar_read_span(r, &p, e)) > 0) {
		at += n;
		hole = !p;
		if (p && path_write_all(fd, p, (size_t)n, e) < 0) return -1;
		if (!p && lseek(fd, n, SEEK_CUR) < 0) return err_sys(e, errno, "seek");
	}
	if (n == 0 && hole && ftruncate(fd, at) < 0) return err_sys(e, errno, "truncate");
	return n < 0 ? -1 : 0;
}

static int make_file(struct apply *a, int dir, const char *base, const struct tar_entry *t, struct err *e)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	_cleanup_close_ int fd = openat(dir, base, flags, 0600);
	if (fd < 0 && errno == EEXIST) {
		if (path_remove_all(dir, base, e) < 0) return -1;
		fd = openat(dir, base, flags, 0600);
	}
	if (fd < 0) return err_sys(e, errno, "create");
	if (copy_data(a->r, fd, e) < 0) return -1;
	uid_t uid = a->o->override_owner ? a->o->uid : (uid_t)t->uid;
	gid_t gid = a->o->override_owner ? a->o->gid : (gid_t)t->gid;
	struct timespec ts[2];
	times_of(t, ts);
	if (t->n_xattrs) return set_meta(a, dir, base, t, e);
	if (fchown(fd, uid, gid) < 0) return set_meta(a, dir, base, t, e); /* it words the error */
	if (fchmod(fd, t->mode) < 0) return err_sys(e, errno, "change mode");
	return futimens(fd, ts) < 0 ? err_sys(e, errno, "set times") : 0;
}

static int make_dir(struct apply *a, int dir, const char *base, const struct tar_entry *t, struct err *e)
{
	struct stat st;
	if (mkdirat(dir, base, 0700) < 0) {
		if (errno != EEXIST) return err_sys(e, errno, "make directory");
		if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "stat");
		if (S_ISDIR(st.st_mode)) {
			ptrdiff_t i = strvec_find(&a->pending.parents, buf_str(&a->path)); /* named after all */
			if (i >= 0) {
				free(a->pending.parents.v[i]);
				vec_remove(&a->pending.parents, (size_t)i);
				a->pending.parents.v[a->pending.parents.n] = NULL;
			}
		} else {
			if (path_remove_all(dir, base, e) < 0) return -1;
			if (mkdirat(dir, base, 0700) < 0) return err_sys(e, errno, "make directory");
			if (a->o->mode == TAR_APPLY_OVERLAY && apply_is_whiteout(&st) && apply_set_opaque(a, dir, base, e) < 0)
				return -1;
		}
	}
	struct timespec ts[2];
	times_of(t, ts);
	strvec_add(&a->pending.dir_names, buf_str(&a->path));
	vec_push(&a->pending.dir_mtimes, ts[1]);
	return set_meta(a, dir, base, t, e);
}

/* 0 made, 1 the target is not in this tree. */
int apply_link(struct apply *a, int dir, const char *base, const char *target, struct err *e)
{
	const char *tbase;
	struct err quiet = ERR_INIT;
	_cleanup_close_ int tdir = path_open_parent_in(a->rootfd, target, &tbase, &quiet);
	bool missing = tdir < 0 && quiet.code == CODE_NOT_FOUND;
	if (tdir < 0 && !missing) return err_move(e, &quiet);
	err_fini(&quiet);
	if (missing) return 1;
	if (linkat(tdir, tbase, dir, base, 0) == 0) return 0;
	if (errno == EEXIST) {
		struct stat x, y;
		if (fstatat(dir, base, &x, AT_SYMLINK_NOFOLLOW) == 0 && fstatat(tdir, tbase, &y, AT_SYMLINK_NOFOLLOW) == 0 &&
		    x.st_dev == y.st_dev && x.st_ino == y.st_ino)
			return 0; /* a link to itself, or made before: removing it first would lose the file */
		if (path_remove_all(dir, base, e) < 0) return -1;
		if (linkat(tdir, tbase, dir, base, 0) == 0) return 0;
	}
	return errno == ENOENT ? 1 : err_sys(e, errno, "link to %s", target);
}

static int make_link(struct apply *a, int dir, const char *base, const struct tar_entry *t, struct err *e)
{
	if (apply_clean(&a->target, t->linkname, "hard link to a place outside of the archive's root", e) < 0) return -1;
	if (!a->target.n) return err_set(e, CODE_INVALID_ARGUMENT, "hard link to \"%.200s\"", t->linkname);
	int r = apply_link(a, dir, base, buf_str(&a->target), e);
	if (r <= 0) return r;
	if (a->o->mode != TAR_APPLY_OVERLAY)
		return err_set(e, CODE_NOT_FOUND, "hard link to \"%.200s\", which does not exist", t->linkname);
	strvec_add(&a->pending.names, buf_str(&a->path));
	strvec_add(&a->pending.targets, buf_str(&a->target));
	return 1;
}

static int make_node(struct apply *a, int dir, const char *base, const struct tar_entry *t, struct err *e)
{
	mode_t type = t->type == TAR_CHAR ? S_IFCHR : t->type == TAR_BLOCK ? S_IFBLK : S_IFIFO;
	for (int tries = 0;; tries++) {
		int r = t->type == TAR_SYMLINK ? symlinkat(t->linkname, dir, base)
					       : mknodat(dir, base, type | (t->mode & 0777), makedev(t->devmajor, t->devminor));
		if (r == 0) return set_meta(a, dir, base, t, e);
		if (errno == EPERM && a->o->rootless && (t->type == TAR_CHAR || t->type == TAR_BLOCK)) return 1;
		if (errno != EEXIST || tries)
			return err_sys(e, errno, t->type == TAR_SYMLINK ? "make symbolic link" : "make node");
		if (path_remove_all(dir, base, e) < 0) return -1;
	}
}

/* ---- whiteouts ---- */
/* MERGED: what this archive did not bring goes. */
static int clear_below(struct apply *a, int dir, const char *path, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	if (tar_dir_names(dir, &names, e) < 0) return -1;
	for (size_t i = 0; i < names.n; i++) {
		_cleanup_free_ char *child = *path ? xasprintf("%s/%s", path, names.v[i]) : xstrdup(names.v[i]);
		if (!map_has(&a->made, child)) {
			if (path_remove_all(dir, names.v[i], e) < 0) return -1;
			continue;
		}
		_cleanup_close_ int fd = openat(dir, names.v[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && clear_below(a, fd, child, e) < 0) return -1;
	}
	return 0;
}

static int opaque(struct apply *a, int dir, const char *base, struct err *e)
{
	if (a->o->mode == TAR_APPLY_OVERLAY) return apply_set_opaque(a, dir, ".", e);
	_cleanup_free_ char *parent = xstrndup(buf_str(&a->path), (size_t)(base - buf_str(&a->path)));
	size_t n = strlen(parent);
	if (n) parent[n - 1] = 0;
	_cleanup_close_ int fd = tar_dir_open(dir, ".", e);
	return fd < 0 ? -1 : clear_below(a, fd, parent, e);
}

static int whiteout(struct apply *a, int dir, const char *base, const struct tar_entry *t, struct err *e)
{
	a->stats.whiteouts++;
	if (!strcmp(base, TAR_OPAQUE)) return opaque(a, dir, base, e);
	if (str_starts(base, TAR_WHITEOUT_META)) return 0; /* aufs' own book-keeping */
	const char *name = base + strlen(TAR_WHITEOUT);
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid whiteout name");
	if (a->o->mode == TAR_APPLY_MERGED) return path_remove_all(dir, name, e);
	struct stat st;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return S_ISDIR(st.st_mode) ? apply_set_opaque(a, dir, name, e) : 0;
	if (mknodat(dir, name, S_IFCHR, 0) < 0) return err_sys(e, errno, "make whiteout");
	return 0;
}

static int one(struct apply *a, const struct tar_entry *t, struct err *e)
{
	if (apply_clean(&a->path, t->name, "its name leads out of the archive's root", e) < 0) return -1;
	if (!a->path.n) return 0; /* the root itself stays as its owner made it */
	const char *base;
	int dir = apply_parent(a, (char *)a->path.p, &base, true, e), r;
	if (dir < 0) return -1;
	if (a->o->mode != TAR_APPLY_PLAIN && str_starts(base, TAR_WHITEOUT)) return whiteout(a, dir, base, t, e);
	switch (t->type) {
	case TAR_REG: r = make_file(a, dir, base, t, e); break;
	case TAR_DIR: r = make_dir(a, dir, base, t, e); break;
	case TAR_LINK: r = make_link(a, dir, base, t, e); break;
	default: r = make_node(a, dir, base, t, e); break;
	}
	if (r == 0 && a->o->mode == TAR_APPLY_MERGED) map_put(&a->made, buf_str(&a->path), a);
	return r < 0 ? -1 : 0;
}

int apply_dir_times(struct apply *a, const struct strvec *names, const struct timespec *mtimes, struct err *e)
{
	for (size_t i = 0; i < names->n; i++) {
		const char *base;
		struct err quiet = ERR_INIT;
		buf_reset(&a->path);
		buf_adds(&a->path, names->v[i]);
		int dir = apply_parent(a, (char *)a->path.p, &base, false, &quiet);
		err_fini(&quiet);
		if (dir < 0) continue; /* replaced by a later entry */
		struct timespec ts[2] = {mtimes[i], mtimes[i]};
		if (utimensat(dir, base, ts, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
			return err_sys(e, errno, "set times of %s", names->v[i]);
	}
	return 0;
}

int tar_apply(struct tar_reader *r, int dirfd, const struct tar_apply_opts *o, struct tar_pending *ret_pending,
	      struct tar_stats *ret_stats, struct err *e)
{
	_cleanup_(apply_fini) struct apply a;
	apply_init(&a, dirfd, o);
	a.r = r;
	struct tar_entry t;
	int k;
	while ((k = tar_read_next(r, &t, e)) > 0) {
		a.stats.entries++;
		if (t.type == TAR_REG) a.stats.regular_bytes += (uint64_t)t.size;
		if (one(&a, &t, e) == 0) continue;
		return err_wrap(e, "archive entry \"%.300s\"", t.name);
	}
	if (k < 0 || tar_reader_drain(r, e) < 0) return -1;
	if (apply_dir_times(&a, &a.pending.dir_names, a.pending.dir_mtimes.v, e) < 0) return -1;
	if (o->lower_rootfd >= 0 || !ret_pending) {
		if (tar_apply_fixup(&a.pending, dirfd, o->lower_rootfd, o, e) < 0) return -1;
	} else {
		*ret_pending = a.pending;
		a.pending = (struct tar_pending){0};
	}
	if (ret_stats) *ret_stats = a.stats;
	return 0;
}

bool tar_is_archive(struct tar_in in)
{
	_cleanup_tar_decomp_ struct tar_decomp *d = NULL;
	if (tar_decomp_new(in, 0, &d, NULL) < 0) return false;
	_cleanup_tar_reader_ struct tar_reader *r = tar_reader_new(tar_decomp_in(d));
	struct tar_entry t;
	return tar_read_next(r, &t, NULL) == 1;
}
