/* The store: paths, reading, listing, removing. Writing is in ingest.c.
 *
 * Two directory descriptors, blobs/sha256 and tmp, opened once; every call goes by them and a name of 64 hex digits, so
 * the store needs no lock: rename and unlink are the kernel's. */
#include "blob/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

const char *blob_hex(const char *digest, struct err *e)
{
	struct digest d;
	return digest_parse(digest, &d, e) < 0 ? NULL : digest + strlen("sha256:");
}

static int clean_tmp(const struct blob_store *s, const char *prefix, struct err *e)
{
	int fd = openat(s->tmp, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) return err_sys(e, errno, "read %s/tmp", s->root);
	struct dirent *ent;
	int r = 0;
	while (r == 0 && (ent = readdir(d)))
		if (str_starts(ent->d_name, prefix)) r = path_remove_all(s->tmp, ent->d_name, e);
	closedir(d);
	return r;
}

static int open_folder(const char *root, const char *sub, int *ret, struct err *e)
{
	_cleanup_free_ char *path = path_join(root, sub);
	if (path_mkdirs(path, 0700, e) < 0) return -1;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) return err_sys(e, errno, "open %s", path);
	*ret = fd;
	return 0;
}

int blob_store_open(const char *root, struct blob_store **ret, struct err *e)
{
	struct blob_store *s = xnew(struct blob_store);
	s->root = xstrdup(root);
	s->blobs = s->tmp = -1;
	if (open_folder(root, "blobs/sha256", &s->blobs, e) < 0 || open_folder(root, "tmp", &s->tmp, e) < 0 ||
	    clean_tmp(s, BLOB_TMP_PREFIX, e) < 0) { /* what a killed daemon left; other rooms may keep files in tmp/ too */
		blob_store_close(s);
		return err_wrap(e, "open blob store");
	}
	*ret = s;
	return 0;
}

void blob_store_close(struct blob_store *s)
{
	if (!s) return;
	close_fd(&s->blobs);
	close_fd(&s->tmp);
	free(s->root);
	free(s);
}

char *blob_path(const struct blob_store *s, const char *digest)
{
	const char *hex = blob_hex(digest, NULL);
	return hex ? xasprintf("%s/blobs/sha256/%s", s->root, hex) : NULL;
}

int blob_open(const struct blob_store *s, const char *digest, struct err *e)
{
	const char *hex = blob_hex(digest, e);
	if (!hex) return -1;
	int fd = openat(s->blobs, hex, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd >= 0 ? fd : err_sys(e, errno, "open blob %s", digest);
}

int blob_stat(const struct blob_store *s, const char *digest, int64_t *ret_bytes, struct err *e)
{
	const char *hex = blob_hex(digest, e);
	if (!hex) return -1;
	struct stat st;
	if (fstatat(s->blobs, hex, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(e, errno, "stat blob %s", digest);
	if (ret_bytes) *ret_bytes = st.st_size;
	return 1;
}

bool blob_has(const struct blob_store *s, const char *digest) { return blob_stat(s, digest, NULL, NULL) == 1; }

int blob_read(const struct blob_store *s, const char *digest, size_t max_bytes, uint8_t **ret, size_t *ret_len, struct err *e)
{
	const char *hex = blob_hex(digest, e);
	if (!hex) return -1;
	if (path_read_file(s->blobs, hex, max_bytes, ret, ret_len, e) < 0) return err_wrap(e, "blob %s", digest);
	return 0;
}

int blob_remove(struct blob_store *s, const char *digest, struct err *e)
{
	const char *hex = blob_hex(digest, e);
	if (!hex) return -1;
	if (unlinkat(s->blobs, hex, 0) == 0) return 1;
	return errno == ENOENT ? 0 : err_sys(e, errno, "remove blob %s", digest);
}

int blob_trash(struct blob_store *s, const char *digest, struct err *e)
{
	const char *hex = blob_hex(digest, e);
	if (!hex) return -1;
	_cleanup_free_ char *name = xasprintf(BLOB_TRASH_PREFIX "%s", hex);
	if (renameat(s->blobs, hex, s->tmp, name) == 0) return 1;
	return errno == ENOENT ? 0 : err_sys(e, errno, "remove blob %s", digest);
}

int blob_trash_empty(struct blob_store *s, struct err *e) { return clean_tmp(s, BLOB_TRASH_PREFIX, e); }

int blob_list(const struct blob_store *s,
	      int (*each)(void *ctx, const char *digest, int64_t bytes, int64_t mtime, struct err *e), void *ctx, struct err *e)
{
	int fd = openat(s->blobs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) return err_sys(e, errno, "read %s/blobs/sha256", s->root);
	struct dirent *ent;
	int r = 0;
	while (r >= 0 && (ent = readdir(d))) {
		struct stat st;
		_cleanup_free_ char *digest = xasprintf("sha256:%s", ent->d_name);
		if (!digest_valid(digest) || fstatat(s->blobs, ent->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
		r = each(ctx, digest, st.st_size, st.st_mtim.tv_sec, e);
	}
	closedir(d);
	return r < 0 ? -1 : 0;
}

static int put(struct blob_store *s, const void *p, size_t n, bool unsynced, char out_digest[DIGEST_STR], struct err *e)
{
	char digest[DIGEST_STR];
	digest_str_of(p, n, digest);
	int64_t there;
	int r = blob_stat(s, digest, &there, e);
	if (r < 0) return -1;
	if (r == 0 || there != (int64_t)n) {
		_cleanup_blob_ingest_ struct blob_ingest *i = NULL;
		if (blob_ingest_begin(s, digest, (int64_t)n, &i, e) < 0 || blob_ingest_write(i, p, n, e) < 0) return -1;
		if (unsynced) blob_ingest_unsynced(i);
		if (blob_ingest_commit(&i, NULL, NULL, e) < 0) return -1;
	}
	if (out_digest) memcpy(out_digest, digest, DIGEST_STR);
	return 0;
}

int blob_put(struct blob_store *s, const void *p, size_t n, char out_digest[DIGEST_STR], struct err *e)
{
	return put(s, p, n, false, out_digest, e);
}

int blob_put_unsynced(struct blob_store *s, const void *p, size_t n, char out_digest[DIGEST_STR], struct err *e)
{
	return put(s, p, n, true, out_digest, e);
}

int blob_sync(struct blob_store *s, const char *digest, struct err *e)
{
	const char *hex = blob_hex(digest, e);
	if (!hex) return -1;
	_cleanup_close_ int fd = openat(s->blobs, hex, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return errno == ENOENT ? 0 : err_sys(e, errno, "open blob %s", digest);
	return fdatasync(fd) < 0 ? err_sys(e, errno, "sync blob %s", digest) : 0;
}

int blob_put_fd(struct blob_store *s, int fd, const char *expected_digest, int64_t expected_bytes, struct err *e)
{
	enum { CHUNK = 256 * 1024 };
	_cleanup_blob_ingest_ struct blob_ingest *i = NULL;
	_cleanup_free_ uint8_t *buf = xmalloc(CHUNK);
	if (blob_ingest_begin(s, expected_digest, expected_bytes, &i, e) < 0) return -1;
	for (;;) {
		ssize_t n = read(fd, buf, CHUNK);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read");
		if (!n) return blob_ingest_commit(&i, NULL, NULL, e);
		if (blob_ingest_write(i, buf, (size_t)n, e) < 0) return -1;
	}
}

int blob_ensure(struct blob_store *s, struct blob_source *src, const char *digest, int64_t size, struct err *e)
{
	int r = blob_stat(s, digest, NULL, e);
	if (r != 0) return r < 0 ? -1 : 0;
	if (!src) return err_set(e, CODE_NOT_FOUND, "blob %s is missing and there is no source to fetch it from", digest);
	_cleanup_blob_ingest_ struct blob_ingest *i = NULL;
	if (blob_ingest_begin(s, digest, size, &i, e) < 0 || src->fetch(src, digest, size, i, e) < 0) return -1;
	return blob_ingest_commit(&i, NULL, NULL, e) < 0 ? -1 : 1;
}
