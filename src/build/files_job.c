#include "build/files_job.h"
#include "spec/pattern.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { READ_MAX = 16 << 20, ENTRIES_MAX = 200000 };

static int64_t ns_of(struct timespec t) { return t.tv_sec * 1000000000 + t.tv_nsec; }

static void entry_of(const char *name, const struct stat *st, struct tree_entry *t)
{
	*t = (struct tree_entry){.path = xstrdup(name), .mode = tree_mode_of(st->st_mode), .uid = st->st_uid, .gid = st->st_gid};
	t->size = S_ISDIR(st->st_mode) ? 0 : st->st_size;
	t->mtime_ns = ns_of(st->st_mtim);
}

static void add_entry(struct files_job *j, int dirfd, const char *name, const struct stat *st)
{
	struct tree_entry *t = vec_add(&j->entries);
	entry_of(name, st, t);
	if (!S_ISLNK(st->st_mode)) return;
	char target[4096];
	ssize_t n = readlinkat(dirfd, name, target, sizeof target);
	t->linkname = xstrndup(target, n < 0 ? 0 : (size_t)n);
}

static int read_range(struct files_job *j, int fd, struct err *e)
{
	j->data = BUF_MAX(READ_MAX - 4096);
	int64_t left = j->length < 0 ? INT64_MAX : j->length, at = j->offset;
	while (left > 0) {
		char chunk[65536];
		ssize_t n = pread(fd, chunk, (size_t)min_of(left, (int64_t)sizeof chunk), at);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read %s", j->path);
		if (n == 0) break;
		if (buf_add(&j->data, chunk, (size_t)n) < 0)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s is larger than a message may be (%d bytes)", j->path, READ_MAX);
		at += n;
		left -= n;
	}
	return 0;
}

static int read_file(struct files_job *j, int root, struct err *e)
{
	_cleanup_close_ int fd = path_open_in(root, j->path, O_RDONLY | O_NONBLOCK, 0, e);
	struct stat st;
	if (fd < 0) return -1;
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "stat %s", j->path);
	if (!S_ISREG(st.st_mode)) return err_set(e, CODE_UNKNOWN, "%s is not a regular file", j->path);
	return read_range(j, fd, e);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct tree_entry *)a)->path, ((const struct tree_entry *)b)->path);
}

static int read_dir(struct files_job *j, int root, struct err *e)
{
	int fd = path_open_in(root, j->path, O_RDONLY | O_DIRECTORY, 0, e);
	if (fd < 0) return -1;
	DIR *d = fdopendir(fd);
	struct dirent *ent;
	while (d && (ent = readdir(d)) && j->entries.n < ENTRIES_MAX) {
		struct stat st;
		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, "..")) continue;
		if (!str_empty(j->pattern)) {
			int m = spec_patterns_match_once(&j->pattern, 1, ent->d_name, e);
			if (m < 0) {
				closedir(d);
				return -1;
			}
			if (!m) continue;
		}
		if (fstatat(fd, ent->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) add_entry(j, fd, ent->d_name, &st);
	}
	if (d) closedir(d);
	if (j->entries.n > 1) qsort(j->entries.v, j->entries.n, sizeof *j->entries.v, by_path);
	return 0;
}

static int stat_file(struct files_job *j, int root, struct err *e)
{
	struct stat st;
	_cleanup_free_ char *clean = path_abs_in(j->path);
	const char *base = "/";
	_cleanup_close_ int parent = -1;
	if (strcmp(clean, "/")) {
		struct err tmp = ERR_INIT;
		parent = path_open_parent_in(root, clean, &base, &tmp);
		if (parent < 0 || fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			err_fini(&tmp);
			return err_sys(e, errno, "lstat %s", j->path);
		}
		add_entry(j, parent, base, &st);
		return 0;
	}
	if (fstat(root, &st) < 0) return err_sys(e, errno, "lstat %s", j->path);
	add_entry(j, root, "/", &st);
	return 0;
}

void files_job_run(struct files_job *j)
{
	struct err *e = &j->error;
	_cleanup_close_ int root = snap_view_open_root(j->view, false, e);
	if (root < 0) return;
	switch (j->kind) {
	case FILES_READ: read_file(j, root, e); break;
	case FILES_DIR: read_dir(j, root, e); break;
	case FILES_STAT: stat_file(j, root, e); break;
	}
}

void files_job_fini(struct files_job *j)
{
	for (size_t i = 0; i < j->entries.n; i++) tree_entry_fini(&j->entries.v[i]);
	vec_fini(&j->entries);
	buf_fini(&j->data);
	err_fini(&j->error);
	free(j->path);
	free(j->pattern);
}

Fsutil__Stat *files_stat_message(struct arena *a, const struct tree_entry *t)
{
	Fsutil__Stat *m = arena_new_of(a, Fsutil__Stat);
	fsutil__stat__init(m);
	_cleanup_free_ char *clean = utf8_clean(t->path, strlen(t->path));
	m->path = arena_strdup(a, clean);
	m->mode = t->mode;
	m->uid = t->uid;
	m->gid = t->gid;
	m->size = t->size;
	m->modtime = t->mtime_ns;
	_cleanup_free_ char *link = utf8_clean(t->linkname ? t->linkname : "", t->linkname ? strlen(t->linkname) : 0);
	m->linkname = arena_strdup(a, link);
	return m;
}
