/* Mount stubs: a runtime makes an empty file or directory where a mount point is missing; afterwards it would be part of
 * the layer. Before the run we note which mount points are missing (with their missing parents, if asked), after it we
 * remove those that are still empty and put the parent's times back, so that the step leaves what it wrote and no more.
 * Paths are resolved inside the root each time, by single steps, as the process may have changed them meanwhile.
 * Source: peer executor/stubs.go. Job code. */
#include "run/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { LINKS_MAX = 255, PATH_MAX_BYTES = 4096 };

static int open_step(int rootfd, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, rootfd, path, &how, sizeof how);
}

/* The link at path inside the root: its text (heap); NULL when it is none or missing. */
static char *read_link_in(int rootfd, const char *path)
{
	char text[PATH_MAX_BYTES];
	_cleanup_close_ int fd = open_step(rootfd, path, O_PATH | O_NOFOLLOW);
	if (fd < 0) return NULL;
	ssize_t n = readlinkat(fd, "", text, sizeof text);
	return n > 0 ? xstrndup(text, (size_t)n) : NULL;
}

/* Where path leads inside the root: links followed, what is missing kept as it is. NULL when there are too many links. */
char *stubs_resolve(int rootfd, const char *path)
{
	_cleanup_free_ char *cur = xstrdup("/"), *rest = xstrdup(path);
	int links = 0;
	while (*rest) {
		size_t skip = strspn(rest, "/"), n = strcspn(rest + skip, "/");
		_cleanup_free_ char *name = xstrndup(rest + skip, n), *tail = xstrdup(rest + skip + n), *old = cur;
		free(rest);
		rest = take_ptr(tail);
		if (n == 0 || strcmp(name, ".") == 0) {
			cur = take_ptr(old);
			continue;
		}
		cur = strcmp(name, "..") == 0 ? path_dir(old) : path_join(old, name);
		_cleanup_free_ char *to = read_link_in(rootfd, cur);
		if (!to) continue;
		if (++links > LINKS_MAX) return NULL;
		free(cur);
		cur = *to == '/' ? xstrdup("/") : take_ptr(old);
		char *joined = xasprintf("%s/%s", to, rest);
		free(rest);
		rest = joined;
		if (strlen(rest) > 16 * PATH_MAX_BYTES) return NULL;
	}
	return take_ptr(cur);
}

static bool is_missing(int rootfd, const char *path)
{
	_cleanup_close_ int fd = open_step(rootfd, path, O_PATH | O_NOFOLLOW);
	return fd < 0 && (errno == ENOENT || errno == ENOTDIR);
}

void stubs_note(struct strvec *stubs, int rootfd, const char *dest, bool recursive)
{
	char *at = stubs_resolve(rootfd, dest);
	while (at && strcmp(at, "/") != 0 && is_missing(rootfd, at)) {
		strvec_add(stubs, at);
		char *up = recursive ? path_dir(at) : NULL;
		free(at);
		at = up;
	}
	free(at);
}

static bool dir_is_empty(int parent, const char *name)
{
	/* rmdir itself refuses a full one; this is the test for files. */
	struct stat st;
	return fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (S_ISDIR(st.st_mode) || st.st_size == 0);
}

static void stub_remove(int rootfd, const char *path)
{
	_cleanup_free_ char *now = stubs_resolve(rootfd, path), *up = now ? path_dir(now) : NULL;
	struct stat st, dir;
	if (!now || strcmp(now, "/") == 0) return;
	_cleanup_close_ int parent = open_step(rootfd, up, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	const char *name = path_base(now);
	if (parent < 0 || fstat(parent, &dir) < 0 || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return;
	if (!dir_is_empty(parent, name)) return;
	if (unlinkat(parent, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0) {
		if (errno != ENOTEMPTY && errno != EEXIST) log_debug("mount stub %s stays: %s", path, strerror(errno));
		return;
	}
	futimens(parent, (struct timespec[2]){dir.st_atim, dir.st_mtim});
}

void stubs_remove(const struct strvec *stubs, int rootfd)
{
	for (size_t i = 0; i < stubs->n; i++) stub_remove(rootfd, stubs->v[i]);
}
