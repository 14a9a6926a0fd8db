/* The layer between two trees, or that an overlay upper directory is.
 *
 * One recursive walk in two modes. OVERLAY: the names of the upper directory are the changes; 0/0 devices are deletions.
 * TREES: the names of both sides are merged; what only the lower has is a deletion. An opaque directory switches its
 * subtree from OVERLAY to TREES, with whiteouts then meaning "not there". Both emit in lexical order, children right
 * behind their directory.
 *  1. Nothing is emitted before its parent directories are; an unchanged parent is emitted for its first changed child.
 *  2. The first name of an inode carries the data, later ones are hard links to it. In TREES mode an unchanged name of a
 *     linked inode waits in `refs` and is emitted as a link once some other name of it has changed (so links survive).
 *  3. A lower entry counts only where its directory is a real directory: links on the way mean "not there".
 * The order, the comparison and the headers are those of BuildKit's overlay differ and containerd's ChangeWriter. */
#include "tar/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

enum { DEPTH_MAX = 1000, COMPARE_BYTES = 64 * 1024 };
enum mode { MODE_OVERLAY, MODE_TREES };

struct diff {
	struct tar_writer *w;
	int upper;        /* root, to reach parents again */
	bool overlay;     /* 0/0 devices of the upper are whiteouts */
	struct map added; /* directories that were emitted */
	struct map first; /* inode -> the name that carries it, heap */
	struct map refs;  /* inode -> struct strvec of unchanged names */
	struct buf path;
	int depth;
};

static void diff_fini(struct diff *d)
{
	MAP_EACH(&d->refs, it)
	{
		strvec_fini(it->value);
		free(it->value);
	}
	map_fini(&d->refs);
	map_fini_free(&d->first);
	map_fini(&d->added);
	buf_fini(&d->path);
}

static void inode_key(const struct stat *st, char out[static 24]) { snprintf(out, 24, "%" PRIx64, (uint64_t)st->st_ino); }

static bool is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == 0; }

/* ---- comparison ---- */
static int same_bytes(int ldir, int udir, const char *name, struct err *e)
{
	_cleanup_close_ int a = openat(ldir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_close_ int b = openat(udir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (a < 0 || b < 0) return err_sys(e, errno, "open %s", name);
	_cleanup_free_ uint8_t *x = xmalloc(2 * COMPARE_BYTES);
	for (off_t at = 0;; at += COMPARE_BYTES) {
		ssize_t n = pread(a, x, COMPARE_BYTES, at), m = pread(b, x + COMPARE_BYTES, COMPARE_BYTES, at);
		if (n < 0 || m < 0) return err_sys(e, errno, "read %s", name);
		if (n != m || memcmp(x, x + COMPARE_BYTES, (size_t)n)) return 0;
		if (n < COMPARE_BYTES) return 1;
	}
}

static int same_link(int ldir, int udir, const char *name, struct err *e)
{
	_cleanup_free_ char *a = tar_readlink(ldir, name, e);
	_cleanup_free_ char *b = a ? tar_readlink(udir, name, e) : NULL;
	return !b ? -1 : !strcmp(a, b);
}

static int same_capability(int ldir, int udir, const char *name, struct err *e)
{
	_cleanup_free_ uint8_t *a = NULL, *b = NULL;
	ssize_t n = tar_xattr_get(ldir, name, "security.capability", &a, e);
	ssize_t m = n < 0 ? -1 : tar_xattr_get(udir, name, "security.capability", &b, e);
	if (n < 0 || m < 0) return -1;
	return n == m && (!n || !memcmp(a, b, (size_t)n));
}

/* 1 unchanged. Equal times with nanoseconds are trusted; without (they may have been cut by a tar) the content decides. */
static int same(int ldir, const struct stat *l, int udir, const struct stat *u, const char *name, struct err *e)
{
	if (l->st_dev == u->st_dev && l->st_ino == u->st_ino) return 1;
	if (l->st_mode != u->st_mode || l->st_uid != u->st_uid || l->st_gid != u->st_gid || l->st_rdev != u->st_rdev) return 0;
	int r = same_capability(ldir, udir, name, e);
	if (r <= 0 || S_ISDIR(u->st_mode)) return r;
	if (l->st_size != u->st_size || l->st_mtim.tv_sec != u->st_mtim.tv_sec) return 0;
	if (l->st_mtim.tv_nsec || u->st_mtim.tv_nsec) return l->st_mtim.tv_nsec == u->st_mtim.tv_nsec;
	if (S_ISLNK(u->st_mode)) return same_link(ldir, udir, name, e);
	if (!u->st_size) return 1;
	return S_ISREG(u->st_mode) ? same_bytes(ldir, udir, name, e) : 1;
}

/* ---- emission ---- */
static enum tar_type type_of(mode_t m)
{
	switch (m & S_IFMT) {
	case S_IFDIR: return TAR_DIR;
	case S_IFLNK: return TAR_SYMLINK;
	case S_IFCHR: return TAR_CHAR;
	case S_IFBLK: return TAR_BLOCK;
	case S_IFIFO: return TAR_FIFO;
	default: return TAR_REG;
	}
}

static struct tar_entry entry_of(const struct stat *st)
{
	enum tar_type type = type_of(st->st_mode);
	bool dev = type == TAR_CHAR || type == TAR_BLOCK;
	return (struct tar_entry){
		.type = type,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = type == TAR_REG ? st->st_size : 0,
		.mtime = {st->st_mtim.tv_sec, 0},
		.devmajor = dev ? major(st->st_rdev) : 0,
		.devminor = dev ? minor(st->st_rdev) : 0,
	};
}

/* A directory's header, from its parent and name. */
static int emit_dir(struct diff *d, int dir, const char *name, const char *path, const struct stat *st, struct err *e)
{
	struct tar_entry t = entry_of(st);
	_cleanup_free_ char *slashed = xasprintf("%s/", path);
	_cleanup_free_ uint8_t *cap = NULL;
	ssize_t n = tar_xattr_get(dir, name, "security.capability", &cap, e);
	if (n < 0) return -1;
	struct tar_xattr x = {"security.capability", cap, (size_t)n};
	t.name = slashed;
	t.xattrs = &x;
	t.n_xattrs = n > 0;
	map_put(&d->added, path, d);
	return tar_write_header(d->w, &t, e);
}

/* Every directory above path that was not emitted yet. */
static int emit_parents(struct diff *d, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	if (!slash) return 0;
	_cleanup_free_ char *parent = xstrndup(path, (size_t)(slash - path));
	if (map_has(&d->added, parent)) return 0;
	if (emit_parents(d, parent, e) < 0) return -1;
	struct stat st;
	const char *base;
	_cleanup_close_ int dir = path_open_parent_in(d->upper, parent, &base, e);
	if (dir < 0) return -1;
	if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "stat %s", parent);
	return emit_dir(d, dir, base, parent, &st, e);
}

static int emit_whiteout(struct diff *d, const char *path, struct err *e)
{
	const char *base = path_base(path);
	_cleanup_free_ char *name = xasprintf("%.*s" TAR_WHITEOUT "%s", (int)(base - path), path, base);
	struct tar_entry t = {.name = name, .type = TAR_REG};
	return emit_parents(d, path, e) < 0 ? -1 : tar_write_header(d->w, &t, e);
}

/* The names that waited for this inode to be emitted. */
static int emit_refs(struct diff *d, const char *key, struct tar_entry *t, struct err *e)
{
	struct strvec *names = map_del(&d->refs, key);
	int r = 0;
	_cleanup_free_ char *source = xstrdup(t->name);
	for (size_t i = 0; names && i < names->n && r == 0; i++) {
		t->name = names->v[i];
		t->linkname = source;
		t->type = TAR_LINK;
		r = emit_parents(d, t->name, e) < 0 ? -1 : tar_write_header(d->w, t, e);
	}
	if (names) strvec_fini(names);
	free(names);
	return r;
}

static int emit_data(struct diff *d, int dir, const char *name, int64_t size, struct err *e)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open %s", name);
	return tar_write_data_fd(d->w, fd, size, e);
}

/* One changed entry, not a whiteout; `unchanged` only notes the name of a linked inode. */
static int emit(struct diff *d, int dir, const char *name, const struct stat *st, bool unchanged, struct err *e)
{
	const char *path = buf_str(&d->path);
	char key[24];
	bool linked = !S_ISDIR(st->st_mode) && st->st_nlink > 1, owner = false;
	if (S_ISSOCK(st->st_mode)) return 0;
	inode_key(st, key);
	const char *first = linked ? map_get(&d->first, key) : NULL;
	if (unchanged && !first) {
		struct strvec *names = map_get(&d->refs, key);
		if (!names) map_put(&d->refs, key, names = xnew(struct strvec));
		strvec_add(names, path);
		return 0;
	}
	if (emit_parents(d, path, e) < 0) return -1;
	if (S_ISDIR(st->st_mode)) return emit_dir(d, dir, name, path, st, e);
	struct tar_entry t = entry_of(st);
	_cleanup_free_ char *target = NULL;
	_cleanup_free_ uint8_t *cap = NULL;
	t.name = path;
	if (first) {
		t.type = TAR_LINK;
		t.linkname = first;
		t.size = 0;
	} else {
		if (t.type == TAR_SYMLINK && !(t.linkname = target = tar_readlink(dir, name, e))) return -1;
		if ((owner = linked)) map_put(&d->first, key, xstrdup(path));
	}
	ssize_t n = tar_xattr_get(dir, name, "security.capability", &cap, e);
	if (n < 0) return -1;
	struct tar_xattr x = {"security.capability", cap, (size_t)n};
	t.xattrs = &x;
	t.n_xattrs = n > 0;
	if (tar_write_header(d->w, &t, e) < 0) return -1;
	if (t.type == TAR_REG && t.size > 0 && emit_data(d, dir, name, t.size, e) < 0) return -1;
	return owner ? emit_refs(d, key, &t, e) : 0;
}

/* ---- the walk ---- */
static int xattr_is(int dir, const char *name, const char *key, bool *ret_yes, size_t *ret_len, struct err *e)
{
	_cleanup_free_ uint8_t *v = NULL;
	ssize_t n = tar_xattr_get(dir, name, key, &v, e);
	if (n < 0) return -1;
	*ret_yes = n == 1 && *v == 'y';
	*ret_len = (size_t)n;
	return 0;
}

/* 1 the directory hides what is below it, 0 not. One that overlayfs moved (redirect) cannot be told from its content. */
static int opaque(int dir, const char *name, struct err *e)
{
	bool yes = false;
	size_t n;
	if (xattr_is(dir, name, "trusted.overlay.redirect", &yes, &n, e) < 0) return -1;
	if (n) return err_set(e, CODE_FAILED_PRECONDITION, "%s: overlay mounts with redirect_dir are not supported", name);
	if (xattr_is(dir, name, "trusted.overlay.opaque", &yes, &n, e) < 0) return -1;
	if (yes) return 1;
	return xattr_is(dir, name, "user.overlay.opaque", &yes, &n, e) < 0 ? -1 : yes;
}

static int walk(struct diff *d, enum mode m, int ldir, int udir, struct err *e);

static int descend(struct diff *d, enum mode m, int ldir, bool lower_is_dir, int udir, const char *name, struct err *e)
{
	if (d->depth >= DEPTH_MAX)
		return err_set(e, CODE_INVALID_ARGUMENT, "%.200s: directories are nested too deeply", buf_str(&d->path));
	_cleanup_close_ int u = tar_dir_open(udir, name, e);
	if (u < 0) return -1;
	_cleanup_close_ int l = lower_is_dir ? tar_dir_open(ldir, name, e) : -1;
	if (lower_is_dir && l < 0) return -1;
	d->depth++;
	int r = walk(d, m, l, u, e);
	d->depth--;
	return r;
}

/* An entry of the upper; lst is what the lower has of that name, NULL for nothing. */
static int visit(struct diff *d, enum mode m, int ldir, const struct stat *lst, int udir, const char *name, struct err *e)
{
	struct stat st;
	if (fstatat(udir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "stat %s", buf_str(&d->path));
	if (d->overlay && is_whiteout(&st)) return lst ? emit_whiteout(d, buf_str(&d->path), e) : 0;
	int unchanged = lst ? same(ldir, lst, udir, &st, name, e) : 0;
	if (unchanged < 0) return -1;
	bool linked = !S_ISDIR(st.st_mode) && st.st_nlink > 1;
	if ((!unchanged || (m == MODE_TREES && linked)) && emit(d, udir, name, &st, unchanged, e) < 0) return -1;
	if (!S_ISDIR(st.st_mode)) return 0;
	if (m == MODE_OVERLAY && lst) {
		int o = opaque(udir, name, e);
		if (o < 0) return -1;
		if (o) m = MODE_TREES;
	}
	return descend(d, m, ldir, lst && S_ISDIR(lst->st_mode), udir, name, e);
}

/* Names of both sides in order; in OVERLAY mode those of the upper only. */
static int merge_names(enum mode m, int ldir, int udir, struct strvec *ret, struct err *e)
{
	if (tar_dir_names(udir, ret, e) < 0) return -1;
	if (m == MODE_OVERLAY || ldir < 0) return 0;
	_cleanup_strvec_ struct strvec lower = {0};
	if (tar_dir_names(ldir, &lower, e) < 0) return -1;
	size_t own = ret->n;
	for (size_t i = 0, j = 0; i < lower.n; i++) {
		while (j < own && strcmp(ret->v[j], lower.v[i]) < 0) j++;
		if (j == own || strcmp(ret->v[j], lower.v[i])) strvec_add(ret, lower.v[i]);
	}
	if (ret->n > own) strvec_sort(ret);
	return 0;
}

static int walk(struct diff *d, enum mode m, int ldir, int udir, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	if (merge_names(m, ldir, udir, &names, e) < 0) return -1;
	size_t len = d->path.n;
	int r = 0;
	for (size_t i = 0; i < names.n && r == 0; i++) {
		struct stat lst;
		bool below = ldir >= 0 && fstatat(ldir, names.v[i], &lst, AT_SYMLINK_NOFOLLOW) == 0;
		if (ldir >= 0 && !below && errno != ENOENT) return err_sys(e, errno, "stat %s", names.v[i]);
		if (len) buf_addc(&d->path, '/');
		buf_adds(&d->path, names.v[i]);
		if (m == MODE_TREES && below && faccessat(udir, names.v[i], F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			r = emit_whiteout(d, buf_str(&d->path), e);
		else
			r = visit(d, m, ldir, below ? &lst : NULL, udir, names.v[i], e);
		d->path.n = len;
		d->path.p[len] = 0;
	}
	return r;
}

static int diff(enum mode m, bool overlay, int lowerfd, int upperfd, struct tar_writer *w, struct err *e)
{
	_cleanup_(diff_fini) struct diff d = {.w = w, .upper = upperfd, .overlay = overlay};
	return walk(&d, m, lowerfd, upperfd, e);
}

int tar_diff_overlay(int upperfd, int lower_rootfd, struct tar_writer *w, struct err *e)
{
	return diff(MODE_OVERLAY, true, lower_rootfd, upperfd, w, e);
}

int tar_diff_trees(int lowerfd, int upperfd, struct tar_writer *w, struct err *e)
{
	return diff(MODE_TREES, false, lowerfd, upperfd, w, e);
}
