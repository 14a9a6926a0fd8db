/* Contents and extended attributes of one file. The cheapest way first: a reflink; read and write for small files (fewer
 * and cheaper calls than a splice); copy_file_range; read and write. What a pair of file systems answered once is
 * remembered for the whole action. Sparse files are copied extent by extent. The cancelled flag is read each CHUNK_MAX bytes.
 */
#include "ops/file_parts_job.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

enum { SMALL = 128 << 10, CHUNK = 256 << 10, CHUNK_MAX = 64 << 20, XATTR_MAX = 64 << 10 };

void file_data_fini(struct file_data *d) { free(d->chunk); }

static int write_at(int fd, const uint8_t *p, size_t n, off_t at, struct err *e)
{
	while (n) {
		ssize_t w = pwrite(fd, p, n, at);
		if (w < 0 && errno == EINTR) continue;
		if (w < 0) return err_sys(e, errno, "userspace copy failed: write");
		p += w;
		n -= (size_t)w;
		at += w;
	}
	return 0;
}

static int copy_by_hand(struct file_data *d, int src, int dst, off_t at, off_t end, struct err *e)
{
	if (!d->chunk) d->chunk = xmalloc(CHUNK);
	while (at < end) {
		ssize_t n = pread(src, d->chunk, (size_t)min_of(end - at, (off_t)CHUNK), at);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "userspace copy failed: read");
		if (n == 0) break;
		if (write_at(dst, d->chunk, (size_t)n, at, e) < 0 || file_check(d->ctx, e) < 0) return -1;
		at += n;
	}
	return 0;
}

static bool cannot(int errnum)
{
	return errnum == ENOSYS || errnum == EXDEV || errnum == EPERM || errnum == EIO || errnum == EOPNOTSUPP ||
	       errnum == EINVAL;
}

static int copy_span(struct file_data *d, int src, int dst, off_t at, off_t end, struct err *e)
{
	bool first = true;
	if (d->no_range || end - at <= SMALL) return copy_by_hand(d, src, dst, at, end, e);
	while (at < end) {
		off_t from = at, to = at;
		ssize_t n = copy_file_range(src, &from, dst, &to, (size_t)min_of(end - at, (off_t)CHUNK_MAX), 0);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && first && cannot(errno)) {
			d->no_range = errno == ENOSYS || errno == EXDEV || errno == EOPNOTSUPP;
			return copy_by_hand(d, src, dst, at, end, e);
		}
		if (n < 0) return err_sys(e, errno, "copy file range failed");
		if (n == 0) break;
		first = false;
		at += n;
		if (file_check(d->ctx, e) < 0) return -1;
	}
	return 0;
}

static int copy_sparse(struct file_data *d, int src, int dst, off_t size, struct err *e)
{
	for (off_t at = 0; at < size;) {
		off_t data = lseek(src, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO) break; /* a hole to the end */
		off_t hole = data < 0 ? -1 : lseek(src, data, SEEK_HOLE);
		if (hole < 0) return copy_span(d, src, dst, at, size, e); /* this file system does not say */
		hole = min_of(hole, size);
		if (copy_span(d, src, dst, data, hole, e) < 0) return -1;
		at = hole;
	}
	return ftruncate(dst, size) < 0 ? err_sys(e, errno, "truncate") : 0;
}

int file_data_copy(struct file_data *d, int src, int dst, const struct stat *st, struct err *e)
{
	if (st->st_size == 0) return 0;
	if (!d->no_clone) {
		if (ioctl(dst, FICLONE, src) == 0) return 0;
		d->no_clone = true;
	}
	if ((off_t)st->st_blocks * 512 < st->st_size && st->st_size > 4096) return copy_sparse(d, src, dst, st->st_size, e);
	return copy_span(d, src, dst, 0, st->st_size, e);
}

/* ---- extended attributes ---- */

/* Either descriptors, or paths by way of /proc (a link has no descriptor that would do). */
struct xattr_pair {
	int src, dst;
	const char *src_path, *dst_path;
};

static bool is_private(const char *key) { return str_starts(key, "trusted.overlay.") || str_starts(key, "user.overlay."); }

static void copy_one(const struct xattr_pair *p, const char *key)
{
	_cleanup_free_ uint8_t *value = xmalloc(XATTR_MAX);
	ssize_t n = p->src_path ? lgetxattr(p->src_path, key, value, XATTR_MAX) : fgetxattr(p->src, key, value, XATTR_MAX);
	int r = n < 0         ? -1
		: p->dst_path ? lsetxattr(p->dst_path, key, value, (size_t)n, 0)
			      : fsetxattr(p->dst, key, value, (size_t)n, 0);
	if (r < 0) log_debug("extended attribute %s was not copied: %s", key, strerror(errno));
}

static void copy_all(const struct xattr_pair *p)
{
	char few[512];
	_cleanup_free_ char *many = NULL;
	char *list = few;
	ssize_t n = p->src_path ? llistxattr(p->src_path, few, sizeof few) : flistxattr(p->src, few, sizeof few);
	if (n < 0 && errno == ERANGE) {
		list = many = xmalloc(XATTR_MAX);
		n = p->src_path ? llistxattr(p->src_path, many, XATTR_MAX) : flistxattr(p->src, many, XATTR_MAX);
	}
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1)
		if (!is_private(list + at)) copy_one(p, list + at);
}

void file_xattrs_copy_fd(int src, int dst) { copy_all(&(struct xattr_pair){src, dst, NULL, NULL}); }

void file_xattrs_copy_at(int srcdir, const char *from, int dstdir, const char *to)
{
	_cleanup_free_ char *a = xasprintf("/proc/self/fd/%d/%s", srcdir, from);
	_cleanup_free_ char *b = xasprintf("/proc/self/fd/%d/%s", dstdir, to);
	copy_all(&(struct xattr_pair){-1, -1, a, b});
}
