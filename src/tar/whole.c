/* Whole archives: a tree as the tar exporter writes it, and an archive copied with its times clamped.
 *
 * The tree walk is fsutil's: lexical, each inode's later names are hard links to the first (links themselves excepted),
 * all xattrs, a socket counts as an empty file, times rounded to the nearest second. */
#include "tar/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

enum { DEPTH_MAX = 1000 };

struct whole {
	struct tar_writer *w;
	const struct timespec *epoch;
	struct map first; /* inode -> name, heap */
	struct buf path;
	int depth;
};

static void whole_fini(struct whole *s)
{
	map_fini_free(&s->first);
	buf_fini(&s->path);
}

static struct timespec whole_mtime(const struct whole *s, const struct stat *st)
{
	struct timespec t = s->epoch ? *s->epoch : st->st_mtim;
	return (struct timespec){t.tv_sec + (t.tv_nsec >= 500000000), 0};
}

static enum tar_type type_of(mode_t m)
{
	switch (m & S_IFMT) {
	case S_IFDIR: return TAR_DIR;
	case S_IFLNK: return TAR_SYMLINK;
	case S_IFCHR: return TAR_CHAR;
	case S_IFBLK: return TAR_BLOCK;
	case S_IFIFO: return TAR_FIFO;
	default: return TAR_REG;
	}
}

/* The name an earlier entry has for this inode; NULL: this is the first. */
static const char *earlier(struct whole *s, const struct stat *st)
{
	char key[24];
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2) return NULL;
	snprintf(key, sizeof key, "%" PRIx64, (uint64_t)st->st_ino);
	const char *name = map_get(&s->first, key);
	if (!name) map_put(&s->first, key, xstrdup(buf_str(&s->path)));
	return name;
}

static int whole_entry(struct whole *s, int dir, const char *name, const struct stat *st, struct err *e)
{
	struct tar_entry t = {.type = type_of(st->st_mode), .mode = st->st_mode & 07777, .uid = st->st_uid, .gid = st->st_gid};
	_cleanup_free_ char *target = NULL, *slashed = NULL;
	_cleanup_tar_xattrs_ struct tar_xattrs x = {0};
	t.name = buf_str(&s->path);
	t.mtime = whole_mtime(s, st);
	if (t.type == TAR_DIR) t.name = slashed = xasprintf("%s/", t.name);
	if (t.type == TAR_CHAR || t.type == TAR_BLOCK) {
		t.devmajor = major(st->st_rdev);
		t.devminor = minor(st->st_rdev);
	}
	const char *first = earlier(s, st);
	if (t.type == TAR_SYMLINK) {
		if (!(t.linkname = target = tar_readlink(dir, name, e))) return -1;
	} else if (first) {
		t.type = TAR_LINK;
		t.linkname = first;
	}
	t.size = t.type == TAR_REG && S_ISREG(st->st_mode) ? st->st_size : 0;
	if (tar_xattrs_read(dir, name, true, &x, e) < 0) return -1;
	t.xattrs = x.list.v;
	t.n_xattrs = x.list.n;
	if (tar_write_header(s->w, &t, e) < 0) return -1;
	if (!t.size) return 0;
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? err_sys(e, errno, "open %s", t.name) : tar_write_data_fd(s->w, fd, t.size, e);
}

static int whole_walk(struct whole *s, int dir, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};
	if (s->depth >= DEPTH_MAX)
		return err_set(e, CODE_INVALID_ARGUMENT, "%.200s: directories are nested too deeply", buf_str(&s->path));
	if (tar_dir_names(dir, &names, e) < 0) return -1;
	size_t len = s->path.n;
	for (size_t i = 0; i < names.n; i++) {
		struct stat st;
		if (len && s->path.p[len - 1] != '/') buf_addc(&s->path, '/');
		buf_adds(&s->path, names.v[i]);
		if (fstatat(dir, names.v[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			return err_sys(e, errno, "stat %s", buf_str(&s->path));
		if (whole_entry(s, dir, names.v[i], &st, e) < 0) return -1;
		if (S_ISDIR(st.st_mode)) {
			_cleanup_close_ int fd = tar_dir_open(dir, names.v[i], e);
			s->depth++;
			if (fd < 0 || whole_walk(s, fd, e) < 0) return -1;
			s->depth--;
		}
		s->path.n = len;
		s->path.p[len] = 0;
	}
	return 0;
}

int tar_write_tree(int rootfd, const char *prefix, const struct timespec *epoch, struct tar_writer *w, struct err *e)
{
	_cleanup_(whole_fini) struct whole s = {.w = w, .epoch = epoch};
	buf_adds(&s.path, prefix);
	return whole_walk(&s, rootfd, e);
}

static struct timespec clamp(struct timespec t, struct timespec to)
{
	return t.tv_sec > to.tv_sec || (t.tv_sec == to.tv_sec && t.tv_nsec > to.tv_nsec) ? to : t;
}

int tar_clamp(struct tar_reader *r, struct timespec epoch, struct tar_writer *w, struct err *e)
{
	struct tar_entry t;
	int k;
	while ((k = tar_read_next(r, &t, e)) > 0) {
		static const uint8_t zeros[65536];
		const uint8_t *p;
		ssize_t n;
		t.mtime = clamp(t.mtime, epoch);
		t.atime = clamp(t.atime, epoch);
		t.ctime = clamp(t.ctime, epoch);
		if (tar_write_header(w, &t, e) < 0) return -1;
		while ((n = tar_read_span(r, &p, e)) > 0) {
			for (ssize_t done = 0; done < n;) {
				size_t step = p ? (size_t)n : min_of((size_t)(n - done), sizeof zeros);
				if (tar_write_data(w, p ? p : zeros, step, e) < 0) return -1;
				done += (ssize_t)step;
			}
		}
		if (n < 0) return -1;
	}
	return k < 0 || tar_writer_finish(w, e) < 0 ? -1 : tar_reader_drain(r, e);
}
