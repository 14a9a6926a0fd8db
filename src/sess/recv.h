#ifndef SESS_RECV_H
#define SESS_RECV_H
/* The receiver's state, between recv_job.c (listing, comparison, requests) and recv_disk_job.c (what it does to the disk). */
#include "sess/transfer.h"

enum { OUTSTANDING = 2048, OPEN_FILES = 64, OPEN_DIRS = 64, ENTRIES_MAX = 8 << 20, RACY_NS = 20000000 };
enum { LISTING_MAX = 1 << 30 }; /* bytes of names and xattrs */
enum { NONE = UINT32_MAX, SHARED = UINT32_MAX - 1 };
#define METADATA_NAME ".fsutil-metadata"

enum item_state {
	ITEM_BROKEN, /* being made: the name may or may not be there */
	ITEM_KEPT,   /* as the old index says */
	ITEM_DONE,   /* made, or made again */
	ITEM_NEW,    /* a file that is wanted; nothing of it is there */
	ITEM_OLD,    /* a file that is wanted; the old version is in place */
	ITEM_VERIFY, /* a file that looks as before but must prove it */
	ITEM_LINK,   /* a hard link, made at the end */
};
struct item {
	uint32_t id, parent, old; /* parent: item of the directory, NONE: the root; old: in the old index */
	uint8_t state;
	bool asked, touched; /* touched: a directory whose attributes must be set at the end */
	struct rfile *file;
};
/* A file that is being received. */
struct rfile {
	struct list link;
	uint32_t item;
	int fd, old_fd; /* old_fd: being compared with, up to off */
	int64_t off;
	char tmp[32]; /* "": written under its own name */
	struct tree_hasher hash;
};
/* The directories above the last entry of the listing. */
struct above {
	char *path;
	uint32_t item;           /* NONE: not materialised (metadata_only) */
	struct tree_entry entry; /* a copy, then */
};
struct recv {
	const struct sess_recv *o;
	const struct sess_io *io;
	struct sess_filesync_stats *st;
	struct tree_index *now;
	size_t old_at; /* entries of old before it are dealt with */
	VEC(struct item) items;
	VEC(uint32_t) by_id, queue;
	size_t queue_at, n_asked, listing_bytes;
	struct list files;
	size_t n_files;
	VEC(struct above) above;
	char *last;
	bool listed;
	struct {
		uint32_t item;
		int fd;
	} dirs[OPEN_DIRS];
	size_t dirs_next;
	struct {
		int64_t *key;
		uint32_t *item; /* 0: free, else item + 1 */
		size_t n, cap;
	} stamps;
	uint64_t tmp_count, trash_count;
	int trash_fd; /* 0: not made yet */
	int64_t started_ns;
	struct buf packet, metadata;
};
static inline struct tree_entry *entry_of(struct recv *r, uint32_t item) { return tree_index_at(r->now, item); }
static inline const struct tree_entry *old_of(struct recv *r, const struct item *it)
{
	return it->old == NONE ? NULL : tree_index_at(r->o->old, it->old);
}
/* Take a name away, with all below it; a missing one is fine. */
int recv_discard(struct recv *r, int dfd, const char *name, struct err *e);
/* A directory's attributes must be set again at the end. */
static inline void recv_touch(struct recv *r, uint32_t dir)
{
	if (dir != NONE) r->items.v[dir].touched = true;
}
/* Alike but for the content of files (recv_job.c). */
bool recv_same_meta(const struct tree_entry *a, const struct tree_entry *b);

/* recv_disk_job.c */
int recv_dir_fd(struct recv *r, uint32_t item, struct err *e); /* borrowed, until some others were opened */
int recv_make_dir(struct recv *r, struct item *it, const struct tree_entry *t, struct err *e);
int recv_make_special(struct recv *r, struct item *it, const struct tree_entry *t, struct err *e); /* symlink, device, fifo */
int recv_make_link(struct recv *r, uint32_t at, struct err *e);                                    /* a hard link */
int recv_finish_dir(struct recv *r, uint32_t at, struct err *e);
/* Bytes of a wanted file; n 0: that was all. */
int recv_file_data(struct recv *r, uint32_t item, const uint8_t *p, size_t n, struct err *e);
void recv_file_free(struct recv *r, struct rfile *f);
#endif
