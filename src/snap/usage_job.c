/* Disk usage of a layer and its removal: walks that follow no link and cross no mount. Called from jobs; block. */
#include "snap/internal.h"

#include <errno.h>
#include <fcntl.h>

struct usage {
	struct map seen; /* "ino" of files with several links */
	dev_t dev;
	int64_t bytes;
	const atomic_bool *cancelled;
	unsigned depth;
};

static bool usage_seen(struct usage *u, const struct stat *st)
{
	char key[32];

	if (S_ISDIR(st->st_mode) || st->st_nlink < 2) return false;
	snprintf(key, sizeof key, "%jx", (uintmax_t)st->st_ino);
	return map_put(&u->seen, key, u) != NULL;
}

static int usage_dir(struct usage *u, int fd, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};

	if (snap_cancelled(u->cancelled, e) < 0 || snap_dir_names(fd, &names, e) < 0) return -1;
	for (size_t i = 0; i < names.n; i++) {
		struct stat st;
		if (fstatat(fd, names.v[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT) continue;
			return err_sys(e, errno, "%s", names.v[i]);
		}
		if (st.st_dev != u->dev || usage_seen(u, &st)) continue;
		u->bytes += (int64_t)st.st_blocks * 512;
		if (!S_ISDIR(st.st_mode) || u->depth >= SNAP_DEPTH_MAX) continue;
		_cleanup_close_ int sub = openat(fd, names.v[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 && errno == ENOENT) continue;
		if (sub < 0) return err_sys(e, errno, "%s", names.v[i]);
		u->depth++;
		if (usage_dir(u, sub, e) < 0) return -1;
		u->depth--;
	}
	return 0;
}

int64_t snap_view_usage(const struct snap_view *v, const atomic_bool *cancelled, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/%jd", v->base, (intmax_t)v->id);
	_cleanup_close_ int fd = v->id ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct usage u = {.cancelled = cancelled};
	struct stat st;
	int r;

	if (!v->id) return 0;
	if (fd < 0) return errno == ENOENT ? 0 : err_sys(e, errno, "%s", dir);
	if (fstat(fd, &st) < 0) return err_sys(e, errno, "%s", dir);
	u.dev = st.st_dev;
	r = usage_dir(&u, fd, e);
	map_fini(&u.seen);
	return r < 0 ? err_wrap(e, "usage of snapshot %jd", (intmax_t)v->id) : u.bytes;
}

/* ---- trash ---- */

int snap_trash_move(const char *base, int64_t id, struct err *e)
{
	char rnd[ID_STR];
	_cleanup_free_ char *from = xasprintf("%s/%jd", base, (intmax_t)id), *to = NULL;

	id_new(rnd);
	to = xasprintf("%s/trash/%jd-%s", base, (intmax_t)id, rnd);
	if (rename(from, to) == 0 || errno == ENOENT) return 0;
	return err_sys(e, errno, "%s", from);
}

int snap_trash_empty(const char *base, struct err *e)
{
	_cleanup_free_ char *dir = path_join(base, "trash");
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_strvec_ struct strvec names = {0};

	if (fd < 0) return err_sys(e, errno, "%s", dir);
	if (snap_dir_names(fd, &names, e) < 0) return -1;
	for (size_t i = 0; i < names.n; i++)
		if (path_remove_all(fd, names.v[i], e) < 0) return -1;
	return 0;
}
