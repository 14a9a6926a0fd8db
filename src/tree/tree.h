#ifndef TREE_TREE_H
#define TREE_TREE_H
/* File trees: entries as the session protocol states them, walking a directory in the protocol's order, an index of a
 * tree with content digests, and the checksums of parts of it that make cache keys equal to BuildKit's.
 *
 * Order: '/' sorts before every other byte ("a/b" < "a-b"), so a directory's contents come right behind it, names
 * bytewise. Paths are relative, clean, without a leading slash; the root itself is the path "".
 * Source: tonistiigi/fsutil (stat.go, filter.go, followlinks.go), BuildKit cache/contenthash, reference 02 §3, 06 §7.3.
 * Threads: one at a time for an index; no function keeps state elsewhere. Those that touch the disk block: jobs. */
#include "base/base.h"
#include <stdatomic.h>
#include <sys/stat.h>

/* Go's os.FileMode bits, as on the wire. */
enum tree_mode {
	TREE_DIR = 1u << 31,
	TREE_SYMLINK = 1u << 27,
	TREE_DEVICE = 1u << 26, /* with TREE_CHAR: a character device, alone: a block device */
	TREE_PIPE = 1u << 25,
	TREE_SOCKET = 1u << 24, /* never in an entry: dropped, as fsutil does */
	TREE_SETUID = 1u << 23,
	TREE_SETGID = 1u << 22,
	TREE_CHAR = 1u << 21,
	TREE_STICKY = 1u << 20,
	TREE_IRREGULAR = 1u << 19,
	TREE_TYPE = TREE_DIR | TREE_SYMLINK | TREE_DEVICE | TREE_PIPE | TREE_SOCKET | TREE_CHAR | TREE_IRREGULAR,
};
uint32_t tree_mode_of(mode_t st_mode); /* struct stat's -> Go's, socket bit dropped. Any thread */
mode_t tree_mode_unix(uint32_t mode);  /* Go's -> S_IF* and permission bits (a regular file when no type bit is set) */

struct tree_xattr {
	char *name;
	uint8_t *value;
	size_t len;
};
struct tree_entry {
	char *path;
	char *linkname; /* symlink: the target; a regular file: the path of the first hard link; NULL or "": none */
	uint32_t mode, uid, gid;
	int64_t size; /* 0 for directories */
	int64_t mtime_ns;
	int64_t devmajor, devminor;
	struct tree_xattr *xattrs; /* sorted by name */
	size_t n_xattrs;
	/* What is known of the file where it lies; 0: not known. Not on the wire. */
	uint64_t dev, ino;
	int64_t ctime_ns;
	uint32_t flags; /* the owner's own, saved with the entry */
	bool has_digest;
	struct digest digest; /* of the file record; of a directory: its header */
};
static inline bool tree_is_dir(const struct tree_entry *t) { return t->mode & TREE_DIR; }
static inline bool tree_is_symlink(const struct tree_entry *t) { return t->mode & TREE_SYMLINK; }
static inline bool tree_is_regular(const struct tree_entry *t) { return !(t->mode & TREE_TYPE); }
static inline bool tree_is_hardlink(const struct tree_entry *t)
{
	return !(t->mode & (TREE_DIR | TREE_SYMLINK)) && t->linkname && t->linkname[0];
}
void tree_entry_copy(struct tree_entry *dst, const struct tree_entry *src); /* deep; dst is overwritten, not freed */
void tree_entry_fini(struct tree_entry *t);                                 /* for entries made by tree_entry_copy */
void tree_entry_xattr(struct tree_entry *t, const char *name, const void *v, size_t len); /* insert or replace, copied */
int tree_path_cmp(const char *a, const char *b);                                          /* the order above: < 0, 0, > 0 */

/* ---- walking ---- */
struct tree_walk_opts {
	char *const *include, *const *exclude, *const *follow; /* patterns, patterns, paths; NULL with n 0 */
	size_t n_include, n_exclude, n_follow;
	bool set_owner; /* give every entry uid and gid below */
	uint32_t uid, gid;
	bool no_xattrs;
	const atomic_bool *cancelled; /* read at each entry; NULL: never */
};
/* 0: go on; 1: do not descend into this directory; -1 with *e: stop. The entry and all in it are borrowed till it returns. */
typedef int tree_walk_fn(const struct tree_entry *t, void *arg, struct err *e);
/* Walk the directory rootfd (borrowed) in order, as fsutil's FilterFS does: parents of what is
 * included are emitted too, before it; links are never followed; the second link of an inode carries linkname; sockets are
 * plain files of size 0. What vanishes meanwhile is left out. Job, blocks. Errors: INVALID_ARGUMENT for bad patterns,
 * CANCELLED, or the system's. */
int tree_walk(int rootfd, const struct tree_walk_opts *o, tree_walk_fn *fn, void *arg, struct err *e);
/* The include patterns that follow-paths resolve to (fsutil FollowLinks): sorted; none when the root itself is among
 * them. Job, blocks. */
int tree_follow_links(int rootfd, char *const *paths, size_t n, struct strvec *ret, struct err *e);

/* ---- the digest of a file record, while its bytes stream by ---- */
struct tree_hasher {
	struct hasher h;
};
void tree_hash_begin(struct tree_hasher *h, const struct tree_entry *t); /* header: mode, owner, size, xattrs, not the times */
void tree_hash_update(struct tree_hasher *h, const void *p, size_t n);
void tree_hash_final(struct tree_hasher *h, struct digest *ret); /* releases */
void tree_hash_fini(struct tree_hasher *h);                      /* release without a result; harmless after final */
/* The record digest of an entry without content (not a regular file, or an empty one). */
struct digest tree_hash_header(const struct tree_entry *t);

/* ---- index ---- */
struct tree_index;
struct tree_index *tree_index_new(void);    /* empty, kept by sync: its root header counts as sha256("") */
void tree_index_free(struct tree_index *x); /* NULL allowed */
static inline void tree_index_freep(struct tree_index **x) { tree_index_free(*x); }
#define _cleanup_tree_index_ __attribute__((cleanup(tree_index_freep)))
struct tree_index *tree_index_copy(const struct tree_index *x);
size_t tree_index_count(const struct tree_index *x);                    /* the root does not count */
struct tree_entry *tree_index_at(const struct tree_index *x, size_t i); /* in order; change nothing but digest and flags */
struct tree_entry *tree_index_find(const struct tree_index *x, const char *path); /* NULL when absent */
size_t tree_index_lower(const struct tree_index *x, const char *path);            /* the first i with path_i >= path */
/* Insert or replace (copied). In-order puts are O(1), others a move from the last place. Where a directory becomes
 * something else, what was below goes. Missing parents are not made. */
struct tree_entry *tree_index_put(struct tree_index *x, const struct tree_entry *t);
bool tree_index_remove(struct tree_index *x, const char *path); /* and all below; false when absent; "" empties it */
/* Digests were computed since it was made, loaded or saved: worth saving again. */
bool tree_index_dirty(const struct tree_index *x);
/* Stat walk of a snapshot. File digests are left out: tree_checksum computes those it needs (or tree_index_hash all). The
 * root's header is the real one. Job, blocks. */
int tree_index_scan(int rootfd, const atomic_bool *cancelled, struct tree_index **ret, struct err *e);
/* Compute every missing digest now. Job, blocks. */
int tree_index_hash(struct tree_index *x, int rootfd, const atomic_bool *cancelled, struct err *e);
/* One file, versioned, with a hash over all; written to a temporary name and renamed. load: NOT_FOUND when there is none,
 * DATA_LOSS when it is damaged or of another version: scan again then. Job, block. */
int tree_index_save(struct tree_index *x, int dirfd, const char *name, struct err *e);
/* The file is no index till it is saved again, as if it were gone (a missing one is fine). Cheaper than to unlink it: when what
 * is saved then is the same, the file only becomes valid again. */
int tree_index_suspend(int dirfd, const char *name, struct err *e);
int tree_index_load(int dirfd, const char *name, struct tree_index **ret, struct err *e);

/* ---- checksums ---- */
struct tree_selector {
	const char *path;  /* NULL or "": "/" */
	bool wildcard;     /* path may hold wildcards */
	bool follow_links; /* the last component too, when it is a link */
	char *const *include_patterns, *const *exclude_patterns, *const *required_paths;
	size_t n_include, n_exclude, n_required;
};
/* The content digest C of the parts that sel[0..n) select: sha256 of their digests joined by NUL; n 0 is the whole tree.
 * x NULL is the empty (scratch) tree. rootfd is read for digests that are missing (-1: none is), links in the middle of
 * paths are followed inside the tree. NOT_FOUND `"/x": not found`; the caller wraps "failed to calculate checksum of ref
 * ID". Job, blocks when it has to read. */
int tree_checksum(struct tree_index *x, int rootfd, const struct tree_selector *sel, size_t n, const atomic_bool *cancelled,
		  char ret[static DIGEST_STR], struct err *e);
/* One selector alone, its path as given (contenthash.Checksum): what tree_checksum joins. */
int tree_checksum_one(struct tree_index *x, int rootfd, const struct tree_selector *sel, const atomic_bool *cancelled,
		      char ret[static DIGEST_STR], struct err *e);
#endif
