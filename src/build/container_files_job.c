#include "build/container_files_job.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

enum { READ_MAX = (16 << 20) - 4096, ENTRIES_MAX = 200000 };

static int fail(struct err *e, const char *call, const char *path)
{
	if (errno == EXDEV)
		err_set(e, CODE_UNKNOWN, "%s %s: path escapes from parent", call, path);
	else
		err_sys(e, errno, "%s %s", call, path);
	if (e) e->code = CODE_UNKNOWN;
	return -1;
}

static int open_beneath(int root, const char *path, uint64_t flags)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* "/a/b" -> "a/b", "/" -> "."; heap. */
static int relative(const char *path, char **ret, struct err *e)
{
	_cleanup_free_ char *clean = path_clean(path);
	if (*clean != '/') return err_set(e, CODE_UNKNOWN, "can't make %s relative to /", path);
	*ret = xstrdup(clean[1] ? clean + 1 : ".");
	return 0;
}

/* fd: the entry itself, by O_PATH. */
static int add_entry(struct files_job *j, const char *name, int fd, struct err *e)
{
	struct stat st;
	char target[4096];
	if (fstat(fd, &st) < 0) return fail(e, "statat", name);
	struct tree_entry *t = vec_add(&j->entries);
	t->path = xstrdup(name);
	t->mode = tree_mode_of(st.st_mode);
	t->size = S_ISDIR(st.st_mode) ? 0 : st.st_size;
	t->mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
	if (!S_ISLNK(st.st_mode)) return 0;
	ssize_t n = readlinkat(fd, "", target, sizeof target);
	if (n < 0) return fail(e, "readlinkat", name);
	t->linkname = xstrndup(target, (size_t)n);
	return 0;
}

static int read_file(struct files_job *j, int root, const char *path, struct err *e)
{
	_cleanup_close_ int fd = open_beneath(root, path, O_RDONLY | O_NONBLOCK);
	char chunk[65536];
	ssize_t n;
	if (fd < 0) return fail(e, "openat", path);
	j->data = BUF_MAX(READ_MAX);
	while ((n = read(fd, chunk, sizeof chunk)) != 0) {
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return fail(e, "read", path);
		if (buf_add(&j->data, chunk, (size_t)n) < 0)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s is larger than a message may be (%d bytes)", j->path,
				       READ_MAX);
	}
	return 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct tree_entry *)a)->path, ((const struct tree_entry *)b)->path);
}

static int read_dir(struct files_job *j, int root, const char *path, struct err *e)
{
	int fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY);
	if (fd < 0) return fail(e, "openat", path);
	DIR *d = fdopendir(fd);
	int r = d ? 0 : fail(e, "readdir", path);
	for (struct dirent *ent; r == 0 && (ent = readdir(d)) && j->entries.n < ENTRIES_MAX;) {
		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, "..")) continue;
		_cleanup_close_ int at = openat(fd, ent->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (at < 0 && errno == ENOENT) continue; /* gone meanwhile */
		r = at < 0 ? fail(e, "lstatat", ent->d_name) : add_entry(j, ent->d_name, at, e);
	}
	if (d) closedir(d);
	if (j->entries.n > 1) qsort(j->entries.v, j->entries.n, sizeof *j->entries.v, by_path);
	return r;
}

/* A link that leads out is shown as a link: its user may resolve it. */
static int stat_file(struct files_job *j, int root, const char *path, struct err *e)
{
	_cleanup_close_ int fd = open_beneath(root, path, O_PATH);
	const char *call = "statat";
	if (fd < 0 && errno == EXDEV) {
		fd = open_beneath(root, path, O_PATH | O_NOFOLLOW);
		call = "lstatat";
	}
	if (fd < 0) return fail(e, call, path);
	const char *base = path_base(path);
	return add_entry(j, strcmp(path, ".") ? base : "/", fd, e);
}

void container_files_run(struct files_job *j, const char *root)
{
	struct err *e = &j->error;
	_cleanup_free_ char *path = NULL;
	if (relative(j->path, &path, e) < 0) return;
	_cleanup_close_ int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		fail(e, "open", "mount");
		return;
	}
	switch (j->kind) {
	case FILES_READ: read_file(j, fd, path, e); break;
	case FILES_DIR: read_dir(j, fd, path, e); break;
	case FILES_STAT: stat_file(j, fd, path, e); break;
	}
}
