/* The receiver's hand on the disk: directories, links, devices, and files whose bytes arrive in pieces.
 * Everything is reached from the destination's descriptor without following a link. A file is hashed while it is written. With
 * an index the directory is ours alone: the old version's name is taken away and the new one is written under it (a rename
 * over a file makes ext4 flush its bytes at once). Without one (merge) a file gets a temporary name and is published by rename.
 * A file that only has to prove that it is the same is compared with what arrives, and written from the first difference on.
 * Source: fsutil diskwriter.go. */
#include "sess/recv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

int sess_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
			       .mode = flags & O_CREAT ? mode : 0,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, dirfd, *path ? path : ".", &how, sizeof how);
}

/* ---- directories ---- */
int recv_dir_fd(struct recv *r, uint32_t item, struct err *e)
{
	if (item == NONE) return r->o->dest_fd;
	for (size_t i = 0; i < OPEN_DIRS; i++)
		if (r->dirs[i].fd >= 0 && r->dirs[i].item == item) return r->dirs[i].fd;
	const char *path = entry_of(r, item)->path;
	int fd = sess_open_beneath(r->o->dest_fd, path, O_PATH | O_DIRECTORY, 0);
	if (fd < 0) return err_sys(e, errno, "open directory %s", path);
	size_t at = r->dirs_next++ % OPEN_DIRS;
	close_fd(&r->dirs[at].fd);
	r->dirs[at].item = item;
	r->dirs[at].fd = fd;
	return fd;
}

static void tmp_name(struct recv *r, char out[static 32])
{
	snprintf(out, 32, ".tmp.%09llu", (unsigned long long)(r->started_ns / 1000 + (int64_t)r->tmp_count++) % 1000000000);
}

static int trash_fd(struct recv *r)
{
	if (!r->o->trash) return -1;
	if (!r->trash_fd && (mkdir(r->o->trash, 0700) == 0 || errno == EEXIST))
		r->trash_fd = open(r->o->trash, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return r->trash_fd > 0 ? r->trash_fd : -1;
}

/* Deleting may take long (a disk that discards blocks does it file by file); a rename does not. */
int recv_discard(struct recv *r, int dfd, const char *name, struct err *e)
{
	char to[32];
	int trash = trash_fd(r);
	snprintf(to, sizeof to, "%llu", (unsigned long long)r->trash_count++);
	if (trash >= 0 && renameat(dfd, name, trash, to) == 0) return 0;
	return path_remove_all(dfd, name, e);
}

/* Name `tmp` as `name`, whatever is there. */
static int into_place(int dfd, const char *tmp, const char *name, struct err *e)
{
	if (renameat(dfd, tmp, dfd, name) == 0) return 0;
	if (errno != EISDIR && errno != ENOTEMPTY && errno != EEXIST) return err_sys(e, errno, "rename to %s", name);
	if (path_remove_all(dfd, name, e) < 0) return -1;
	return renameat(dfd, tmp, dfd, name) < 0 ? err_sys(e, errno, "rename to %s", name) : 0;
}
/* ---- attributes ---- */
static bool xattr_allowed(const char *name)
{
	return !str_starts(name, "trusted.overlay.") && !str_starts(name, "user.overlay.") &&
	       !str_starts(name, "user.containers.override_stat") && !str_starts(name, "user.fuseoverlayfs.");
}

static struct timespec stamp_of(int64_t ns)
{
	int64_t s = ns / 1000000000, rest = ns % 1000000000;
	if (rest < 0) s--, rest += 1000000000;
	return (struct timespec){s, rest};
}

/* Owner, mode, xattrs and times of an open file or directory, the mode after the owner (chown clears setuid). What is right
 * already is left alone: a look costs a tenth of a change. */
static int set_attrs(int fd, const struct tree_entry *t, struct err *e)
{
	struct timespec ts[2] = {stamp_of(t->mtime_ns), stamp_of(t->mtime_ns)};
	mode_t mode = tree_mode_unix(t->mode) & 07777;
	struct stat now;
	if (fstat(fd, &now) < 0) return err_sys(e, errno, "stat %s", t->path);
	bool chown = now.st_uid != t->uid || now.st_gid != t->gid;
	if (chown && fchown(fd, t->uid, t->gid) < 0) return err_sys(e, errno, "chown %s", t->path);
	for (size_t i = 0; i < t->n_xattrs; i++) /* best effort, as the file system may know none */
		if (xattr_allowed(t->xattrs[i].name)) fsetxattr(fd, t->xattrs[i].name, t->xattrs[i].value, t->xattrs[i].len, 0);
	bool chmod = chown || t->n_xattrs || (now.st_mode & 07777) != mode;
	if (chmod && fchmod(fd, mode) < 0) return err_sys(e, errno, "chmod %s", t->path);
	return futimens(fd, ts) < 0 ? err_sys(e, errno, "set times of %s", t->path) : 0;
}

static int set_attrs_at(int dfd, const char *name, const struct tree_entry *t, struct err *e)
{
	struct timespec ts[2] = {stamp_of(t->mtime_ns), stamp_of(t->mtime_ns)};
	if (fchownat(dfd, name, t->uid, t->gid, AT_SYMLINK_NOFOLLOW) < 0) return err_sys(e, errno, "chown %s", t->path);
	if (!tree_is_symlink(t) && fchmodat(dfd, name, tree_mode_unix(t->mode) & 07777, 0) < 0)
		return err_sys(e, errno, "chmod %s", t->path);
	return utimensat(dfd, name, ts, AT_SYMLINK_NOFOLLOW) < 0 ? err_sys(e, errno, "set times of %s", t->path) : 0;
}
/* ---- what is made at once ---- */
int recv_make_dir(struct recv *r, struct item *it, const struct tree_entry *t, struct err *e)
{
	const struct tree_entry *old = old_of(r, it);
	const char *name = path_base(t->path);
	struct stat sb;
	if (old && tree_is_dir(old)) {
		bool same = recv_same_meta(old, t);
		it->touched = !same || old->mtime_ns != t->mtime_ns;
		it->state = same ? ITEM_KEPT : ITEM_DONE;
		return 0;
	}
	int dfd = recv_dir_fd(r, it->parent, e);
	if (dfd < 0) return -1;
	it->touched = true;
	if (mkdirat(dfd, name, 0700) < 0) {
		if (errno != EEXIST) return err_sys(e, errno, "mkdir %s", t->path);
		bool is_dir = fstatat(dfd, name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(sb.st_mode);
		if (!is_dir || r->o->old) {
			if (path_remove_all(dfd, name, e) < 0) return -1;
			if (mkdirat(dfd, name, 0700) < 0) return err_sys(e, errno, "mkdir %s", t->path);
		}
	}
	recv_touch(r, it->parent);
	it->state = ITEM_DONE;
	return 0;
}

static int make_node(int dfd, const char *name, const struct tree_entry *t)
{
	if (tree_is_symlink(t)) return symlinkat(t->linkname, dfd, name);
	dev_t dev = t->mode & TREE_DEVICE ? makedev((unsigned)t->devmajor, (unsigned)t->devminor) : 0;
	return mknodat(dfd, name, (tree_mode_unix(t->mode) & S_IFMT) | 0600, dev);
}

/* A symlink, device or fifo. */
int recv_make_special(struct recv *r, struct item *it, const struct tree_entry *t, struct err *e)
{
	const struct tree_entry *old = old_of(r, it);
	if (old && recv_same_meta(old, t)) {
		it->state = ITEM_KEPT;
		return 0;
	}
	char tmp[32];
	int dfd = recv_dir_fd(r, it->parent, e);
	if (dfd < 0) return -1;
	tmp_name(r, tmp);
	if (make_node(dfd, tmp, t) < 0) return err_sys(e, errno, "create %s", t->path);
	recv_touch(r, it->parent);
	if (set_attrs_at(dfd, tmp, t, e) < 0 || into_place(dfd, tmp, path_base(t->path), e) < 0) {
		unlinkat(dfd, tmp, 0);
		return -1;
	}
	it->state = ITEM_DONE;
	return 0;
}
/* ---- the data ---- */
static struct rfile *file_new(struct recv *r, uint32_t item)
{
	struct rfile *f = xnew(struct rfile);
	f->item = item;
	f->fd = f->old_fd = -1;
	list_add_tail(&r->files, &f->link);
	r->n_files++;
	r->items.v[item].file = f;
	tree_hash_begin(&f->hash, entry_of(r, item));
	return f;
}

void recv_file_free(struct recv *r, struct rfile *f)
{
	close_fd(&f->fd);
	close_fd(&f->old_fd);
	tree_hash_fini(&f->hash);
	r->items.v[f->item].file = NULL;
	r->n_files--;
	list_del(&f->link);
	free(f);
}

/* Under its own name: the old version goes first, so a failure leaves nothing of either (ITEM_NEW). */
static int file_create_own(struct recv *r, struct rfile *f, int dfd, int flags, struct err *e)
{
	struct item *it = &r->items.v[f->item];
	const struct tree_entry *t = entry_of(r, f->item);
	const char *name = path_base(t->path);
	mode_t mode = tree_mode_unix(t->mode) & 0777;
	if (it->state == ITEM_OLD && recv_discard(r, dfd, name, e) < 0) return -1;
	it->state = ITEM_NEW;
	f->fd = openat(dfd, name, flags, mode);
	if (f->fd < 0 && errno == EEXIST) { /* something that the index does not know */
		if (recv_discard(r, dfd, name, e) < 0) return -1;
		f->fd = openat(dfd, name, flags, mode);
	}
	return f->fd < 0 ? err_sys(e, errno, "create %s", t->path) : 0;
}

static int file_create(struct recv *r, struct rfile *f, struct err *e)
{
	struct item *it = &r->items.v[f->item];
	const struct tree_entry *t = entry_of(r, f->item);
	int dfd = recv_dir_fd(r, it->parent, e), flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	if (dfd < 0) return -1;
	recv_touch(r, it->parent);
	if (r->o->old) return file_create_own(r, f, dfd, flags, e);
	do {
		tmp_name(r, f->tmp);
		f->fd = openat(dfd, f->tmp, flags, 0600);
	} while (f->fd < 0 && errno == EEXIST);
	return f->fd < 0 ? err_sys(e, errno, "create %s", t->path) : 0;
}

/* The comparison found a difference: write a new file that begins as the old one does. */
static int file_diverge(struct recv *r, struct rfile *f, struct err *e)
{
	uint8_t b[65536];
	r->items.v[f->item].state = ITEM_OLD;
	r->st->changed++;
	if (file_create(r, f, e) < 0) return -1;
	for (int64_t at = 0; at < f->off;) {
		ssize_t n = pread(f->old_fd, b, (size_t)min_of((int64_t)sizeof b, f->off - at), at);
		if (n <= 0) return err_sys(e, n < 0 ? errno : EIO, "read %s", entry_of(r, f->item)->path);
		if (path_write_all(f->fd, b, (size_t)n, e) < 0) return -1;
		tree_hash_update(&f->hash, b, (size_t)n);
		at += n;
	}
	close_fd(&f->old_fd);
	f->old_fd = -1;
	return 0;
}

static int file_compare(struct recv *r, struct rfile *f, const uint8_t *p, size_t n, bool *ret_equal, struct err *e)
{
	uint8_t b[65536];
	int64_t off = f->off;
	for (size_t at = 0; at < n;) {
		ssize_t got = pread(f->old_fd, b, min_of(sizeof b, n - at), off);
		if (got < 0) return err_sys(e, errno, "read %s", entry_of(r, f->item)->path);
		if (got == 0 || memcmp(b, p + at, (size_t)got) != 0) {
			*ret_equal = false;
			return 0;
		}
		at += (size_t)got;
		off += got;
	}
	f->off = off;
	*ret_equal = true;
	return 0;
}

static int file_begin(struct recv *r, uint32_t item, struct rfile **ret, struct err *e)
{
	if (r->n_files >= OPEN_FILES) return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: too many files at once");
	struct rfile *f = file_new(r, item);
	struct item *it = &r->items.v[item];
	*ret = f;
	if (it->state != ITEM_VERIFY) return file_create(r, f, e);
	int dfd = recv_dir_fd(r, it->parent, e);
	if (dfd < 0) return -1;
	f->old_fd = openat(dfd, path_base(entry_of(r, item)->path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	return f->old_fd >= 0 ? 0 : file_diverge(r, f, e); /* it should be there; if not, all of it is new */
}

static int file_data(struct recv *r, struct rfile *f, const uint8_t *p, size_t n, struct err *e)
{
	if (f->old_fd >= 0) {
		bool equal;
		if (file_compare(r, f, p, n, &equal, e) < 0) return -1;
		if (equal) return 0;
		if (file_diverge(r, f, e) < 0) return -1;
	}
	if (path_write_all(f->fd, p, n, e) < 0) return err_wrap(e, "write %s", entry_of(r, f->item)->path);
	tree_hash_update(&f->hash, p, n);
	f->off += (int64_t)n;
	return 0;
}

static int file_publish(struct recv *r, struct rfile *f, struct err *e)
{
	struct item *it = &r->items.v[f->item];
	struct tree_entry *t = entry_of(r, f->item);
	if (set_attrs(f->fd, t, e) < 0) return -1;
	if (*f->tmp) {
		int dfd = recv_dir_fd(r, it->parent, e);
		if (dfd < 0 || into_place(dfd, f->tmp, path_base(t->path), e) < 0) return -1;
	}
	it->state = ITEM_DONE;
	tree_hash_final(&f->hash, &t->digest);
	t->has_digest = true;
	if (f->off != t->size) t->flags |= SESS_ENTRY_RACY; /* it changed while the client read it */
	return 0;
}

static int file_end(struct recv *r, struct rfile *f, struct err *e)
{
	struct item *it = &r->items.v[f->item];
	struct tree_entry *t = entry_of(r, f->item);
	const struct tree_entry *old = old_of(r, it);
	struct stat sb;
	if (f->old_fd >= 0) {
		if (fstat(f->old_fd, &sb) < 0) return err_sys(e, errno, "stat %s", t->path);
		if (sb.st_size == f->off) {
			it->state = ITEM_KEPT;
			t->has_digest = old->has_digest;
			t->digest = old->digest;
			if (f->off != t->size) t->flags |= SESS_ENTRY_RACY;
			recv_file_free(r, f);
			return 0;
		}
		if (file_diverge(r, f, e) < 0) return -1;
	}
	if (file_publish(r, f, e) < 0) return -1;
	recv_file_free(r, f);
	return 0;
}

int recv_file_data(struct recv *r, uint32_t item, const uint8_t *p, size_t n, struct err *e)
{
	struct rfile *f = r->items.v[item].file;
	if (!f && file_begin(r, item, &f, e) < 0) return -1;
	return n ? file_data(r, f, p, n, e) : file_end(r, f, e);
}

/* ---- the end ---- */
int recv_make_link(struct recv *r, uint32_t at, struct err *e)
{
	struct item *it = &r->items.v[at];
	const struct tree_entry *t = entry_of(r, at), *old = old_of(r, it);
	size_t to = tree_index_lower(r->now, t->linkname);
	const struct tree_entry *target = entry_of(r, (uint32_t)to);
	if (old && recv_same_meta(old, t) && r->items.v[to].state == ITEM_KEPT) {
		it->state = ITEM_KEPT;
		return 0;
	}
	_cleanup_close_ int from = sess_open_beneath(r->o->dest_fd, target->path, O_PATH, 0);
	int dfd = recv_dir_fd(r, it->parent, e);
	if (from < 0 || dfd < 0) return from < 0 ? err_sys(e, errno, "open %s", target->path) : -1;
	int tdir = recv_dir_fd(r, r->items.v[to].parent, e);
	if (tdir < 0) return -1;
	const char *name = path_base(t->path), *tname = path_base(target->path);
	it->state = ITEM_BROKEN;
	r->st->changed++;
	recv_touch(r, it->parent);
	if (linkat(tdir, tname, dfd, name, 0) < 0) {
		if (errno != EEXIST) return err_sys(e, errno, "link %s", t->path);
		if (path_remove_all(dfd, name, e) < 0) return -1;
		if (linkat(tdir, tname, dfd, name, 0) < 0) return err_sys(e, errno, "link %s", t->path);
	}
	it->state = ITEM_DONE;
	return 0;
}

int recv_finish_dir(struct recv *r, uint32_t at, struct err *e)
{
	struct item *it = &r->items.v[at];
	const struct tree_entry *t = entry_of(r, at);
	struct timespec ts[2] = {stamp_of(t->mtime_ns), stamp_of(t->mtime_ns)};
	_cleanup_close_ int fd = sess_open_beneath(r->o->dest_fd, t->path, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0) return err_sys(e, errno, "open directory %s", t->path);
	const struct tree_entry *old = old_of(r, it);
	for (size_t i = 0; old && i < old->n_xattrs; i++)
		if (xattr_allowed(old->xattrs[i].name) && it->state == ITEM_DONE) fremovexattr(fd, old->xattrs[i].name);
	if (it->state == ITEM_DONE) return set_attrs(fd, t, e);
	return futimens(fd, ts) < 0 ? err_sys(e, errno, "set times of %s", t->path) : 0;
}
