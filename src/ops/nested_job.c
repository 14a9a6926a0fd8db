#include "ops/nested_job.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

int nested_job_read(const struct snap_view *v, const char *path, uint8_t **ret, size_t *ret_len, struct err *e)
{
	struct stat st;
	_cleanup_close_ int root = snap_view_open_root(v, false, e);
	if (root < 0) return -1;
	_cleanup_close_ int fd = path_open_in(root, path, O_RDONLY | O_NONBLOCK, 0, e);
	if (fd < 0) {
		err_sys(e, errno, "failed to open %s", path);
		if (e) e->code = CODE_UNKNOWN; /* as a Go error's */
		return -1;
	}
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "stat %s", path);
	if (!S_ISREG(st.st_mode)) return err_set(e, CODE_UNKNOWN, "%s is not a regular file", path);
	struct buf b = BUF_MAX(NESTED_MAX_BYTES);
	char chunk[65536];
	ssize_t n;
	while ((n = read(fd, chunk, sizeof chunk)) != 0) {
		if (n < 0 && errno == EINTR) continue;
		int r = n < 0 ? err_sys(e, errno, "read %s", path)
			: buf_add(&b, chunk, (size_t)n) < 0
				? err_set(e, CODE_RESOURCE_EXHAUSTED, "%s is larger than a definition may be (%d bytes)", path,
					  NESTED_MAX_BYTES)
				: 0;
		if (r < 0) {
			buf_fini(&b);
			return -1;
		}
	}
	*ret_len = b.n;
	*ret = (uint8_t *)buf_take_str(&b);
	return 0;
}
