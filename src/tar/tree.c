/* Reading trees that a peer wrote: sorted names, links, xattrs, always from a directory descriptor and never through a
 * link. xattrs of links and devices have no descriptor call, so they go by /proc/self/fd/<dirfd>/<name>. */
#include "tar/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

enum { LIST_BYTES = 65536, VALUE_BYTES = 65536 };

static void proc_path(int dirfd, const char *name, char out[static 300])
{
	snprintf(out, 300, "/proc/self/fd/%d/%.255s", dirfd, name);
}

bool tar_xattr_private(const char *key) { return str_starts(key, "trusted.overlay.") || str_starts(key, "user.overlay."); }

static bool no_xattr(int errnum) { return errnum == ENODATA || errnum == ENOTSUP; }

ssize_t tar_xattr_get(int dirfd, const char *name, const char *key, uint8_t **ret, struct err *e)
{
	char path[300];
	uint8_t small[256];
	proc_path(dirfd, name, path);
	ssize_t n = lgetxattr(path, key, small, sizeof small);
	if (n >= 0) {
		*ret = xmemdup(small, (size_t)n);
		return n;
	}
	if (no_xattr(errno)) return 0;
	if (errno != ERANGE) return err_sys(e, errno, "get extended attribute %s of %s", key, name);
	_cleanup_free_ uint8_t *big = xmalloc(VALUE_BYTES);
	n = lgetxattr(path, key, big, VALUE_BYTES);
	if (n < 0) return err_sys(e, errno, "get extended attribute %s of %s", key, name);
	*ret = take_ptr(big);
	return n;
}

int tar_xattr_set(int dirfd, const char *name, const char *key, const void *value, size_t n)
{
	char path[300];
	proc_path(dirfd, name, path);
	return lsetxattr(path, key, value, n, 0);
}

void tar_xattrs_fini(struct tar_xattrs *x)
{
	for (size_t i = 0; i < x->values.n; i++) free(x->values.v[i]);
	vec_fini(&x->values);
	vec_fini(&x->list);
	buf_fini(&x->names);
}

int tar_xattrs_read(int dirfd, const char *name, bool trusted, struct tar_xattrs *ret, struct err *e)
{
	char path[300], small[1024];
	proc_path(dirfd, name, path);
	ssize_t n = llistxattr(path, small, sizeof small);
	if (n == 0 || (n < 0 && no_xattr(errno))) return 0;
	if (n > 0) {
		buf_add(&ret->names, small, (size_t)n);
	} else if (errno == ERANGE) {
		n = llistxattr(path, buf_reserve(&ret->names, LIST_BYTES), LIST_BYTES);
		if (n > 0) ret->names.n = (size_t)n;
	}
	if (n < 0) return err_sys(e, errno, "list extended attributes of %s", name);
	const char *end = (char *)ret->names.p + n;
	for (const char *k = (char *)ret->names.p; k < end; k += strlen(k) + 1) {
		if (tar_xattr_private(k) || (!trusted && str_starts(k, "trusted."))) continue;
		uint8_t *value = NULL;
		ssize_t len = tar_xattr_get(dirfd, name, k, &value, e);
		if (len < 0) return -1;
		vec_push(&ret->values, value);
		vec_push(&ret->list, ((struct tar_xattr){k, value, (size_t)len}));
	}
	return 0;
}

int tar_dir_open(int dirfd, const char *name, struct err *e)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd >= 0 ? fd : err_sys(e, errno, "open directory %s", name);
}

int tar_dir_names(int dirfd, struct strvec *ret, struct err *e)
{
	int fd = tar_dir_open(dirfd, ".", e);
	if (fd < 0) return -1;
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return err_sys(e, errno, "read directory");
	}
	struct dirent *ent;
	errno = 0;
	while ((ent = readdir(d)))
		if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, "..")) strvec_add(ret, ent->d_name);
	int failed = errno;
	closedir(d);
	if (failed) return err_sys(e, failed, "read directory");
	strvec_sort(ret);
	return 0;
}

char *tar_readlink(int dirfd, const char *name, struct err *e)
{
	char target[4097];
	ssize_t n = readlinkat(dirfd, name, target, sizeof target - 1);
	if (n < 0) {
		err_sys(e, errno, "read link %s", name);
		return NULL;
	}
	return xstrndup(target, (size_t)n);
}
