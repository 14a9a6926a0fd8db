/* One entry of a tree: its modes in Go's and the system's bits, its extended attributes, and the order of paths.
 *
 * 1. Attributes are sorted by name, as they are hashed and sent.
 * 2. A socket is a regular file to everybody who reads an entry (fsutil drops the bit). */
#include "tree/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static const struct {
	mode_t unix_type;
	uint32_t mode;
} types[] = {
	{S_IFREG, 0},
	{S_IFDIR, TREE_DIR},
	{S_IFLNK, TREE_SYMLINK},
	{S_IFBLK, TREE_DEVICE},
	{S_IFCHR, TREE_DEVICE | TREE_CHAR},
	{S_IFIFO, TREE_PIPE},
};

uint32_t tree_mode_of(mode_t st_mode)
{
	uint32_t mode = st_mode & 0777;
	if (st_mode & S_ISUID) mode |= TREE_SETUID;
	if (st_mode & S_ISGID) mode |= TREE_SETGID;
	if (st_mode & S_ISVTX) mode |= TREE_STICKY;
	for (size_t i = 0; i < array_len(types); i++)
		if ((st_mode & S_IFMT) == types[i].unix_type) mode |= types[i].mode;
	return mode;
}

mode_t tree_mode_unix(uint32_t mode)
{
	mode_t st_mode = mode & 0777, type = S_IFREG;
	if (mode & TREE_SETUID) st_mode |= S_ISUID;
	if (mode & TREE_SETGID) st_mode |= S_ISGID;
	if (mode & TREE_STICKY) st_mode |= S_ISVTX;
	for (size_t i = 0; i < array_len(types); i++)
		if ((mode & TREE_TYPE) == types[i].mode) type = types[i].unix_type;
	return st_mode | type;
}

int tree_path_cmp(const char *a, const char *b)
{
	while (*a && *a == *b) a++, b++;
	if (!*a || !*b) return (*a != 0) - (*b != 0);
	int ca = *a == '/' ? 0 : (unsigned char)*a, cb = *b == '/' ? 0 : (unsigned char)*b;
	return ca < cb ? -1 : 1;
}

void tree_stat_fill(struct tree_entry *t, const struct stat *st)
{
	bool dir = S_ISDIR(st->st_mode), device = S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode);
	t->mode = tree_mode_of(st->st_mode);
	t->uid = st->st_uid;
	t->gid = st->st_gid;
	t->size = dir ? 0 : st->st_size;
	t->mtime_ns = st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
	t->ctime_ns = st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
	t->devmajor = device ? (int64_t)major(st->st_rdev) : 0;
	t->devminor = device ? (int64_t)minor(st->st_rdev) : 0;
	t->dev = st->st_dev;
	t->ino = st->st_ino;
}

void tree_entry_xattr(struct tree_entry *t, const char *name, const void *v, size_t len)
{
	size_t i = 0;
	while (i < t->n_xattrs && strcmp(t->xattrs[i].name, name) < 0) i++;
	if (i < t->n_xattrs && strcmp(t->xattrs[i].name, name) == 0) {
		free(t->xattrs[i].value);
	} else {
		t->xattrs = xreallocarray(t->xattrs, t->n_xattrs + 1, sizeof *t->xattrs);
		memmove(t->xattrs + i + 1, t->xattrs + i, (t->n_xattrs - i) * sizeof *t->xattrs);
		t->n_xattrs++;
		t->xattrs[i].name = xstrdup(name);
	}
	t->xattrs[i].value = len ? xmemdup(v, len) : NULL;
	t->xattrs[i].len = len;
}

void tree_xattrs_fini(struct tree_entry *t)
{
	for (size_t i = 0; i < t->n_xattrs; i++) {
		free(t->xattrs[i].name);
		free(t->xattrs[i].value);
	}
	free(t->xattrs);
	t->xattrs = NULL;
	t->n_xattrs = 0;
}

void tree_entry_copy(struct tree_entry *dst, const struct tree_entry *src)
{
	struct tree_entry t = *src;
	t.path = xstrdup(src->path);
	t.linkname = src->linkname && src->linkname[0] ? xstrdup(src->linkname) : NULL;
	t.xattrs = NULL;
	t.n_xattrs = 0;
	for (size_t i = 0; i < src->n_xattrs; i++)
		tree_entry_xattr(&t, src->xattrs[i].name, src->xattrs[i].value, src->xattrs[i].len);
	*dst = t;
}

void tree_entry_fini(struct tree_entry *t)
{
	free(t->path);
	free(t->linkname);
	tree_xattrs_fini(t);
	*t = (struct tree_entry){0};
}

bool tree_flag(const atomic_bool *f) { return f && atomic_load_explicit(f, memory_order_relaxed); }
int tree_cancelled(struct err *e) { return err_set(e, CODE_CANCELLED, "context canceled"); }

/* Neither there nor readable for a reason that fsutil passes over too. */
static bool no_attributes(int errnum)
{
	return errnum == ENOTSUP || errnum == ENOENT || errnum == ENOTDIR || errnum == ENODATA || errnum == ENOSYS;
}

/* The path by which the l*xattr calls reach name in dirfd without following it: there is no listxattrat before Linux 6.13. */
static void proc_path(char *out, size_t n, int dirfd, const char *name)
{
	snprintf(out, n, "/proc/self/fd/%d%s%s", dirfd, name ? "/" : "/.", name ? name : "");
}

static void read_one(struct tree_entry *t, const char *path, const char *name)
{
	uint8_t small[256];
	ssize_t n = lgetxattr(path, name, small, sizeof small);
	if (n >= 0) {
		tree_entry_xattr(t, name, small, (size_t)n);
		return;
	}
	if (errno != ERANGE) return; /* gone or not for us: left out, as fsutil does */
	_cleanup_free_ uint8_t *large = xmalloc(TREE_XATTR_LIST_MAX);
	n = lgetxattr(path, name, large, TREE_XATTR_LIST_MAX); /* XATTR_SIZE_MAX */
	if (n >= 0) tree_entry_xattr(t, name, large, (size_t)n);
}

/* listxattrat where the kernel has it (three times as fast), else by way of /proc. */
static ssize_t list_names(int dirfd, const char *name, const char *path, char *list, size_t n)
{
	enum { LISTXATTRAT = 465 };
	static atomic_bool missing;
	if (!atomic_load_explicit(&missing, memory_order_relaxed)) {
		ssize_t r = syscall(LISTXATTRAT, dirfd, name ? name : "", AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, list, n);
		if (r >= 0 || (errno != ENOSYS && errno != EPERM && errno != EBADF)) return r;
		if (errno == ENOSYS) atomic_store_explicit(&missing, true, memory_order_relaxed);
	}
	return llistxattr(path, list, n);
}

int tree_xattrs_read(struct tree_entry *t, int dirfd, const char *name, const char *skip_prefix, struct err *e)
{
	char path[64 + 256], list[1024], *names = list;
	proc_path(path, sizeof path, dirfd, name);
	ssize_t n = list_names(dirfd, name, path, list, sizeof list);
	_cleanup_free_ char *large = NULL;
	if (n < 0 && errno == ERANGE) {
		names = large = xmalloc(TREE_XATTR_LIST_MAX);
		n = list_names(dirfd, name, path, large, TREE_XATTR_LIST_MAX);
	}
	if (n < 0 && no_attributes(errno)) return 0;
	if (n < 0) return err_sys(e, errno, "failed to xattr %s", t->path);
	for (const char *s = names; s < names + n; s += strlen(s) + 1)
		if (!skip_prefix || !str_starts(s, skip_prefix)) read_one(t, path, s);
	return 0;
}
