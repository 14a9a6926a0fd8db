#include "build/gateway_front_job.h"

#include <errno.h>
#include <fcntl.h>

int gateway_meta_write(const char *dir, const void *def, size_t n, struct err *e)
{
	if (path_mkdirs(dir, 0711, e) < 0) return -1;
	_cleanup_close_ int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0) return err_sys(e, errno, "open %s", dir);
	return path_write_file(dirfd, "frontend.bin", def, n, 0400, false, e);
}

void gateway_meta_remove(const char *dir)
{
	struct err ignored = ERR_INIT;
	if (path_remove_all(AT_FDCWD, dir, &ignored) < 0) log_debug("%s", ignored.msg);
	err_fini(&ignored);
}
