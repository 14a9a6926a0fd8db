#ifndef TAR_INTERNAL_H
#define TAR_INTERNAL_H
/* What the files of this room share: the layout of a header block, and helpers of the tree walks. */
#include "tar/tar.h"
#include <dirent.h>

enum { TAR_BLOCK_BYTES = 512 };
/* Offset and length of each field of a header block (POSIX ustar). */
#define TAR_F_NAME 0, 100
#define TAR_F_MODE 100, 8
#define TAR_F_UID 108, 8
#define TAR_F_GID 116, 8
#define TAR_F_SIZE 124, 12
#define TAR_F_MTIME 136, 12
#define TAR_F_SUM 148, 8
#define TAR_F_TYPE 156, 1
#define TAR_F_LINK 157, 100
#define TAR_F_MAGIC 257, 8
#define TAR_F_UNAME 265, 32
#define TAR_F_GNAME 297, 32
#define TAR_F_MAJOR 329, 8
#define TAR_F_MINOR 337, 8
#define TAR_F_PREFIX 345, 155
#define TAR_XATTR_KEY "SCHILY.xattr."
#define TAR_WHITEOUT ".wh."
#define TAR_WHITEOUT_META ".wh..wh."
#define TAR_OPAQUE ".wh..wh..opq"

static inline size_t tar_padding(int64_t size) { return (size_t)(-(uint64_t)size & (TAR_BLOCK_BYTES - 1)); }
/* Unsigned sum of the block with the checksum field as blanks; the signed one through ret_signed when not NULL. */
static inline long tar_checksum(const uint8_t *block, long *ret_signed)
{
	long u = 0, s = 0;
	for (int i = 0; i < TAR_BLOCK_BYTES; i++) {
		uint8_t b = i >= 148 && i < 156 ? ' ' : block[i];
		u += b;
		s += (int8_t)b;
	}
	if (ret_signed) *ret_signed = s;
	return u;
}

/* ---- xattrs of an entry of a tree (xattr.c) ---- */
struct tar_xattrs {
	VEC(struct tar_xattr) list; /* names and values point into store */
	struct buf names;
	VEC(uint8_t *) values;
};
void tar_xattrs_fini(struct tar_xattrs *x);
#define _cleanup_tar_xattrs_ _cleanup_(tar_xattrs_fini)
/* All xattrs of dirfd/name, no link followed; overlay's own are left out, and trusted.* unless `trusted`. A file system
 * without xattrs has none. */
int tar_xattrs_read(int dirfd, const char *name, bool trusted, struct tar_xattrs *ret, struct err *e);
/* One of them, heap; 0 when absent. */
ssize_t tar_xattr_get(int dirfd, const char *name, const char *key, uint8_t **ret, struct err *e);
int tar_xattr_set(int dirfd, const char *name, const char *key, const void *value, size_t n); /* -1 and errno */
bool tar_xattr_private(const char *key);                                                      /* overlayfs' own */

/* ---- directories (walk.c) ---- */
/* Names in dirfd but "." and "..", sorted bytewise. */
int tar_dir_names(int dirfd, struct strvec *ret, struct err *e);
/* Open directory name below dirfd for reading, not following a link. -1 and *e. */
int tar_dir_open(int dirfd, const char *name, struct err *e);
/* Target of a symbolic link, heap; NULL and *e. */
char *tar_readlink(int dirfd, const char *name, struct err *e);
#endif
