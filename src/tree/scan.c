/* An index made from a snapshot: first a walk that only looks, then digests of those records that somebody asks for.
 *
 * 1. A scanned index reads extended attributes together with the content, an index kept by sync has them in its entries.
 * 2. A hard link's record is that of its first link (same inode, same owner, same mode).
 * 3. Files are reached through their directory by openat without following links; the directory opened last is kept, as
 *    records are wanted in order. */
#include "tree/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { READ_BYTES = 256 << 10 };

static int put_entry(const struct tree_entry *t, void *arg, struct err *e)
{
	(void)e;
	tree_index_put(arg, t);
	return 0;
}

int tree_index_scan(int rootfd, const atomic_bool *cancelled, struct tree_index **ret, struct err *e)
{
	_cleanup_tree_index_ struct tree_index *x = tree_index_new();
	struct tree_walk_opts o = {.no_xattrs = true, .cancelled = cancelled};
	struct stat st;
	x->scanned = true;
	if (fstat(rootfd, &st) < 0) return err_sys(e, errno, "stat /");
	tree_stat_fill(&x->root, &st);
	if (tree_walk(rootfd, &o, put_entry, x, e) < 0) return -1;
	*ret = take_ptr(x);
	return 0;
}

void tree_reader_init(struct tree_reader *r, struct tree_index *x, int rootfd, const atomic_bool *cancelled)
{
	*r = (struct tree_reader){.x = x, .rootfd = rootfd, .dirfd = -1, .cancelled = cancelled};
}

void tree_reader_fini(struct tree_reader *r)
{
	close_fd(&r->dirfd);
	free(r->dir);
	free(r->buf);
	*r = (struct tree_reader){.dirfd = -1, .rootfd = -1};
}

/* The directory of path and the name in it; path "" is the root itself, named ".". */
static int open_dir(struct tree_reader *r, const char *path, const char **ret_name, struct err *e)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	*ret_name = *path ? path + n + (slash != NULL) : ".";
	if (!slash) return r->rootfd;
	if (r->dirfd >= 0 && strlen(r->dir) == n && memcmp(r->dir, path, n) == 0) return r->dirfd;
	close_fd(&r->dirfd);
	free(r->dir);
	r->dir = xstrndup(path, n);
	r->dirfd = path_open_in(r->rootfd, r->dir, O_PATH | O_DIRECTORY, 0, e);
	return r->dirfd;
}

static int read_content(struct tree_reader *r, int fd, const struct tree_entry *t, struct tree_hasher *h, struct err *e)
{
	if (!r->buf) r->buf = xmalloc(READ_BYTES);
	for (;;) {
		if (tree_flag(r->cancelled)) return tree_cancelled(e);
		ssize_t n = read(fd, r->buf, READ_BYTES);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "failed to copy file data for /%s", t->path);
		if (n == 0) return 0;
		tree_hash_update(h, r->buf, (size_t)n);
	}
}

/* full: t with the attributes to hash. */
static int hash_file(struct tree_reader *r, int dirfd, const char *name, const struct tree_entry *full, struct digest *ret,
		     struct err *e)
{
	struct tree_hasher h;
	if (!tree_is_regular(full) || full->size == 0) {
		*ret = tree_hash_header(full);
		return 0;
	}
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "failed to open /%s", full->path);
	tree_hash_begin(&h, full);
	int result = read_content(r, fd, full, &h, e);
	if (result == 0) tree_hash_final(&h, ret);
	tree_hash_fini(&h);
	return result;
}

static int compute(struct tree_reader *r, const struct tree_entry *t, struct digest *ret, struct err *e)
{
	bool scanned = r->x->scanned;
	if (!scanned && t == &r->x->root) {
		*ret = digest_of("", 0);
		return 0;
	}
	if (!scanned && (!tree_is_regular(t) || t->size == 0)) {
		*ret = tree_hash_header(t);
		return 0;
	}
	if (r->rootfd < 0) return err_set(e, CODE_INTERNAL, "no digest of /%s and no tree to read it from", t->path);
	const char *name;
	int dirfd = open_dir(r, t->path, &name, e);
	if (dirfd < 0) return -1;
	struct tree_entry full = *t;
	if (scanned) {
		full.xattrs = NULL;
		full.n_xattrs = 0;
		if (tree_xattrs_read(&full, dirfd, name, NULL, e) < 0) return -1;
	}
	int result = hash_file(r, dirfd, name, &full, ret, e);
	if (scanned) tree_xattrs_fini(&full);
	return result;
}

int tree_record_digest(struct tree_reader *r, struct tree_entry *t, struct digest *ret, struct err *e)
{
	if (!t->has_digest && tree_is_hardlink(t)) {
		struct tree_entry *first = tree_index_find(r->x, t->linkname);
		if (!first || first == t || tree_is_hardlink(first))
			return err_set(e, CODE_INTERNAL, "hard link /%s to unknown path %s", t->path, t->linkname);
		return tree_record_digest(r, first, ret, e);
	}
	if (!t->has_digest) {
		if (compute(r, t, &t->digest, e) < 0) return -1;
		t->has_digest = r->x->dirty = true;
	}
	*ret = t->digest;
	return 0;
}

int tree_index_hash(struct tree_index *x, int rootfd, const atomic_bool *cancelled, struct err *e)
{
	_cleanup_tree_reader_ struct tree_reader r;
	struct digest d;
	tree_reader_init(&r, x, rootfd, cancelled);
	if (tree_record_digest(&r, &x->root, &d, e) < 0) return -1;
	for (size_t i = 0; i < x->n; i++) {
		if (tree_flag(cancelled)) return tree_cancelled(e);
		if (tree_record_digest(&r, tree_index_at(x, i), &d, e) < 0) return -1;
	}
	return 0;
}
