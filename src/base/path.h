#ifndef BASE_PATH_H
#define BASE_PATH_H
/* Paths: the pure ones on text, and those that reach into a tree that a peer wrote. Everything inside a rootfs or a
 * context is reached from a directory descriptor with openat2(RESOLVE_IN_ROOT), so no link leads out of it.
 * The *_in functions block on the disk: call them from jobs. */
#include "base/err.h"
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Lexical cleaning as Go's path.Clean ("" -> "."); heap. */
char *path_clean(const char *p);
/* path.Join of two parts, cleaned; heap. An absolute b is appended, as Go does. */
char *path_join(const char *a, const char *b);
/* Clean and absolute: "/" + p cleaned, so that ".." cannot leave; heap. */
char *path_abs_in(const char *p);
const char *path_base(const char *p); /* behind the last '/', borrowed */
char *path_dir(const char *p);        /* path.Dir, heap */

/* Open path inside the tree rootfd (absolute or relative, links resolved within the root). O_CLOEXEC is added.
 * Answers the fd or -1 with *e and errno set. */
int path_open_in(int rootfd, const char *path, int flags, mode_t mode, struct err *e);
/* Open the parent directory of path inside the root (O_PATH) and point *ret_base at the last component inside path. */
int path_open_parent_in(int rootfd, const char *path, const char **ret_base, struct err *e);
/* Create directory path and its missing parents, each with mode and owner (uid/gid -1: leave). 0 or -1. */
int path_mkdirs_in(int rootfd, const char *path, mode_t mode, uid_t uid, gid_t gid, struct err *e);
int path_stat_in(int rootfd, const char *path, struct stat *ret, struct err *e); /* follows links within the root */
int path_lstat_in(int rootfd, const char *path, struct stat *ret, struct err *e);
/* Remove name below dirfd with all it holds; a missing one is fine. Crosses no mount point. */
int path_remove_all(int dirfd, const char *name, struct err *e);
/* mkdir -p for our own folders (not a peer's). */
int path_mkdirs(const char *path, mode_t mode, struct err *e);
/* Whole file into *ret (NUL-terminated heap), at most max_bytes: more is RESOURCE_EXHAUSTED. */
int path_read_file(int dirfd, const char *path, size_t max_bytes, uint8_t **ret, size_t *ret_len, struct err *e);
/* Write to a temporary name beside it, then rename; with fsync_too also fsync before the rename. */
int path_write_file(int dirfd, const char *path, const void *p, size_t n, mode_t mode, bool fsync_too, struct err *e);
int path_write_all(int fd, const void *p, size_t n, struct err *e);
#endif
