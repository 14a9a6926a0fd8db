/* An index as a file: a head, the entries in order, and a SHA-256 over all before it.
 *
 *   "SLIPTREE" version:u8 scanned:u8 count:varint  entry...  sha256:32
 *   entry: shared:varint suffix:bytes  mode uid gid size mtime ctime devmajor devminor dev ino flags:varint
 *          linkname:bytes  attributes:varint { name:bytes value:bytes }  has_digest:u8 [digest:32]
 *   bytes: length:varint and so many; varint: LEB128, signed numbers zigzag.
 * The root comes first, as an entry with the path "". Paths share a prefix with the one before.
 * 1. It is a cache: whatever is wrong with it is DATA_LOSS, and the tree is scanned again. */
#include "tree/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { VERSION = 1, HEAD_BYTES = 10 };
static const char magic[8] = "SLIPTREE";
static const size_t max_bytes = (size_t)1 << 30;

static void put_uint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7) buf_addc(b, (char)(v | 0x80));
	buf_addc(b, (char)v);
}

static void put_int(struct buf *b, int64_t v) { put_uint(b, (uint64_t)v << 1 ^ (uint64_t)(v >> 63)); }

static void put_bytes(struct buf *b, const void *p, size_t n)
{
	put_uint(b, n);
	buf_add(b, p, n);
}

static void put_entry(struct buf *b, const struct tree_entry *t, const char *before)
{
	size_t shared = 0;
	while (t->path[shared] && t->path[shared] == before[shared]) shared++;
	put_uint(b, shared);
	put_bytes(b, t->path + shared, strlen(t->path + shared));
	put_uint(b, t->mode);
	put_uint(b, t->uid);
	put_uint(b, t->gid);
	const int64_t numbers[] = {t->size, t->mtime_ns, t->ctime_ns, t->devmajor, t->devminor};
	for (size_t i = 0; i < array_len(numbers); i++) put_int(b, numbers[i]);
	put_uint(b, t->dev);
	put_uint(b, t->ino);
	put_uint(b, t->flags);
	put_bytes(b, t->linkname ? t->linkname : "", t->linkname ? strlen(t->linkname) : 0);
	put_uint(b, t->n_xattrs);
	for (size_t i = 0; i < t->n_xattrs; i++) {
		put_bytes(b, t->xattrs[i].name, strlen(t->xattrs[i].name));
		put_bytes(b, t->xattrs[i].value ? (void *)t->xattrs[i].value : "", t->xattrs[i].len);
	}
	buf_addc(b, t->has_digest);
	if (t->has_digest) buf_add(b, t->digest.b, DIGEST_BYTES);
}

int tree_index_suspend(int dirfd, const char *name, struct err *e)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return errno == ENOENT ? 0 : err_sys(e, errno, "open index %s", name);
	return pwrite(fd, "-", 1, 0) == 1 ? 0 : err_sys(e, errno, "write index %s", name);
}

/* A suspended file that holds these bytes otherwise, as its digest tells, is valid again. */
static bool resumed(int dirfd, const char *name, const struct buf *b)
{
	uint8_t head, tail[DIGEST_BYTES];
	off_t end = (off_t)(b->n - DIGEST_BYTES);
	struct stat st;
	_cleanup_close_ int fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != (off_t)b->n) return false;
	if (pread(fd, tail, sizeof tail, end) != sizeof tail || memcmp(tail, b->p + end, sizeof tail) != 0) return false;
	return pread(fd, &head, 1, 0) == 1 && head == '-' && pwrite(fd, magic, 1, 0) == 1;
}

int tree_index_save(struct tree_index *x, int dirfd, const char *name, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_MAX(max_bytes);
	buf_add(&b, magic, sizeof magic);
	buf_addc(&b, VERSION);
	buf_addc(&b, x->scanned);
	put_uint(&b, x->n);
	put_entry(&b, &x->root, "");
	for (size_t i = 0; i < x->n; i++) put_entry(&b, tree_index_at(x, i), i ? tree_index_at(x, i - 1)->path : "");
	if (b.overflow) return err_set(e, CODE_RESOURCE_EXHAUSTED, "index %s would exceed %zu bytes", name, max_bytes);
	struct digest d = digest_of(b.p, b.n);
	buf_add(&b, d.b, sizeof d.b);
	if (!resumed(dirfd, name, &b) && path_write_file(dirfd, name, b.p, b.n, 0600, false, e) < 0)
		return err_wrap(e, "save index");
	x->dirty = false;
	return 0;
}

struct cursor {
	const uint8_t *p, *end;
	bool bad;
};

static uint64_t get_uint(struct cursor *c)
{
	uint64_t v = 0;
	for (int shift = 0; shift < 64 && c->p < c->end; shift += 7) {
		uint8_t b = *c->p++;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80)) return v;
	}
	c->bad = true;
	return 0;
}

static int64_t get_int(struct cursor *c)
{
	uint64_t v = get_uint(c);
	return (int64_t)(v >> 1 ^ -(v & 1));
}

/* Borrowed; "" of length 0 when it is bad. */
static const uint8_t *get_bytes(struct cursor *c, size_t *ret_n)
{
	uint64_t n = get_uint(c);
	*ret_n = 0;
	if (n > (uint64_t)(c->end - c->p)) c->bad = true;
	if (c->bad) return (const uint8_t *)"";
	c->p += n;
	*ret_n = (size_t)n;
	return c->p - n;
}

static char *get_str(struct cursor *c)
{
	size_t n;
	const uint8_t *p = get_bytes(c, &n);
	if (memchr(p, 0, n)) c->bad = true;
	return xstrndup((const char *)p, n);
}

/* *t is to be freed also when c is bad. */
static void get_entry(struct cursor *c, const char *before, struct tree_entry *t)
{
	*t = (struct tree_entry){0};
	uint64_t shared = get_uint(c);
	_cleanup_free_ char *suffix = get_str(c);
	if (shared > strlen(before)) c->bad = true;
	t->path = xasprintf("%.*s%s", c->bad ? 0 : (int)shared, before, suffix);
	t->mode = (uint32_t)get_uint(c);
	t->uid = (uint32_t)get_uint(c);
	t->gid = (uint32_t)get_uint(c);
	int64_t *numbers[] = {&t->size, &t->mtime_ns, &t->ctime_ns, &t->devmajor, &t->devminor};
	for (size_t i = 0; i < array_len(numbers); i++) *numbers[i] = get_int(c);
	t->dev = get_uint(c);
	t->ino = get_uint(c);
	t->flags = (uint32_t)get_uint(c);
	t->linkname = get_str(c);
	uint64_t n = get_uint(c);
	for (uint64_t i = 0; i < n && !c->bad; i++) {
		size_t len;
		_cleanup_free_ char *name = get_str(c);
		const uint8_t *value = get_bytes(c, &len);
		tree_entry_xattr(t, name, value, len);
	}
	t->has_digest = get_uint(c) == 1;
	if (!t->has_digest) return;
	if (c->end - c->p < DIGEST_BYTES) c->bad = true;
	if (c->bad) return;
	memcpy(t->digest.b, c->p, DIGEST_BYTES);
	c->p += DIGEST_BYTES;
}

static bool get_index(struct cursor *c, struct tree_index *x)
{
	x->scanned = get_uint(c) == 1;
	uint64_t n = get_uint(c);
	tree_entry_fini(&x->root);
	get_entry(c, "", &x->root);
	for (uint64_t i = 0; i < n && !c->bad; i++) {
		const char *before = i ? tree_index_at(x, i - 1)->path : "";
		struct tree_entry t;
		get_entry(c, before, &t);
		if (!c->bad && tree_path_cmp(before, t.path) >= 0) c->bad = true;
		if (!c->bad) tree_index_put(x, &t);
		tree_entry_fini(&t);
	}
	return !c->bad && c->p == c->end && !*x->root.path;
}

int tree_index_load(int dirfd, const char *name, struct tree_index **ret, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	_cleanup_tree_index_ struct tree_index *x = tree_index_new();
	size_t n;
	if (path_read_file(dirfd, name, max_bytes, &p, &n, e) < 0) return -1;
	if (n < HEAD_BYTES + DIGEST_BYTES || memcmp(p, magic, sizeof magic) != 0)
		return err_set(e, CODE_DATA_LOSS, "%s is not an index", name);
	if (p[sizeof magic] != VERSION)
		return err_set(e, CODE_DATA_LOSS, "index %s is of version %d, not %d", name, p[sizeof magic], VERSION);
	struct digest d = digest_of(p, n - DIGEST_BYTES);
	struct cursor c = {p + sizeof magic + 1, p + n - DIGEST_BYTES, false};
	if (memcmp(d.b, c.end, DIGEST_BYTES) != 0 || !get_index(&c, x))
		return err_set(e, CODE_DATA_LOSS, "index %s is damaged", name);
	x->dirty = false;
	*ret = take_ptr(x);
	return 0;
}
