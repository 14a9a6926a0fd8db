#include "build/flow_job.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

static int copy(int fd, const char *digest, int64_t at, int64_t end, const atomic_bool *cancelled,
		int (*write)(void *ctx, const void *p, size_t n, struct err *e), void *ctx, struct err *e)
{
	enum { CHUNK = 256 << 10 };
	_cleanup_free_ uint8_t *buf = xmalloc(CHUNK);
	while (at < end) {
		if (atomic_load(cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		ssize_t n = pread(fd, buf, (size_t)min_of(end - at, (int64_t)CHUNK), at);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read blob %s", digest);
		if (n == 0) return err_set(e, CODE_DATA_LOSS, "blob %s ends after %" PRId64 " bytes", digest, at);
		if (write(ctx, buf, (size_t)n, e) < 0) return -1;
		at += n;
	}
	return 0;
}

int flow_read(const struct blob_store *s, const char *digest, int64_t offset, int64_t size, const atomic_bool *cancelled,
	      int (*write)(void *ctx, const void *p, size_t n, struct err *e), void *ctx, struct err *e)
{
	struct stat st;
	if (!digest_valid(digest)) return err_set(e, CODE_INVALID_ARGUMENT, "%s is no digest", digest);
	if (!blob_has(s, digest)) return err_set(e, CODE_NOT_FOUND, "content %s: not found", digest);
	_cleanup_close_ int fd = blob_open(s, digest, e);
	if (fd < 0) return -1;
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "stat blob %s", digest);
	if (offset < 0) offset = 0;
	if (offset > st.st_size)
		return err_set(e, CODE_OUT_OF_RANGE, "read past object length %" PRId64 " bytes", (int64_t)st.st_size);
	int64_t end = size <= 0 || size > st.st_size - offset ? st.st_size : offset + size;
	return copy(fd, digest, offset, end, cancelled, write, ctx, e);
}
