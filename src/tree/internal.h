#ifndef TREE_INTERNAL_H
#define TREE_INTERNAL_H
/* Shared inside the room only: reading extended attributes, and the state of an index. */
#include "tree/tree.h"

enum { TREE_PATH_MAX = 4096, TREE_XATTR_LIST_MAX = 64 << 10 };

/* The attributes of name in dirfd (name NULL: of dirfd itself; never a link's target), but for those in skip's prefix, into
 * t (owned, as tree_entry_xattr). Where the file system has none, or the file is gone: none. */
int tree_xattrs_read(struct tree_entry *t, int dirfd, const char *name, const char *skip_prefix, struct err *e);
void tree_xattrs_fini(struct tree_entry *t);
void tree_stat_fill(struct tree_entry *t, const struct stat *st); /* all but path, linkname and xattrs */
bool tree_flag(const atomic_bool *f);
int tree_cancelled(struct err *e);

/* Entries in order with a gap where the last change was: v[0..gap) and v[gap + gap_n .. n + gap_n). */
struct tree_index {
	struct tree_entry **v;
	size_t n, cap, gap;
	bool dirty;
	bool scanned;           /* from a walk: root is a real header, attributes are read with the content */
	struct tree_entry root; /* path "" */
};

/* The digest of one record (a directory: its header), computed and kept when it is missing. */
struct tree_reader {
	struct tree_index *x;
	int rootfd, dirfd; /* dirfd: the directory dir, opened last; -1: none */
	char *dir;
	const atomic_bool *cancelled;
	uint8_t *buf;
};
#define _cleanup_tree_reader_ __attribute__((cleanup(tree_reader_fini)))
void tree_reader_init(struct tree_reader *r, struct tree_index *x, int rootfd, const atomic_bool *cancelled);
void tree_reader_fini(struct tree_reader *r);
int tree_record_digest(struct tree_reader *r, struct tree_entry *t, struct digest *ret, struct err *e);
#endif
