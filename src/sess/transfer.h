#ifndef SESS_TRANSFER_H
#define SESS_TRANSFER_H
/* The two roles of a file transfer, for jobs: straight-line code over a channel of packets. The loop side that feeds the
 * channel is lane.h. The same code serves the daemon and the client. Source: fsutil send.go, receive.go; reference 02 §3. */
#include "sess/packet.h"
#include "sess/types.h"
#include "spec/spec.h"

/* Packets in and out. `io` functions run on the job's thread. */
struct sess_io {
	/* The next packet, borrowed until the next call: 1; 0 at the clean end; -1 error. What was sent is flushed before it
	 * blocks. */
	int (*next)(void *ctx, const uint8_t **ret, size_t *ret_n, struct err *e);
	bool (*ready)(void *ctx);                                       /* next() has something to begin with */
	int (*send)(void *ctx, const void *p, size_t n, struct err *e); /* one packet, buffered */
	int (*flush)(void *ctx, struct err *e);
	void *ctx;
};

/* ---- receiving ---- */
enum { SESS_ENTRY_RACY = 1 }; /* tree_entry.flags: written while it was being looked at; prove it next time */
struct sess_recv {
	int dest_fd;
	/* Path of a directory on the same disk, made when it is needed, that takes what is gone or replaced. NULL: deleted at
	 * once. */
	const char *trash;
	/* What dest holds. Without it (merge) dest may hold anything: what is in the way is replaced, the rest stays. */
	const struct tree_index *old;
	bool differ_none; /* ask for every file */
	bool metadata_only;
	const struct spec_patterns *exceptions; /* with metadata_only: what is materialised; NULL: nothing */
	bool override_owner;
	uint32_t uid, gid;
	const char *peer; /* "sender", for messages */
	bool leave;       /* once all is in place, say so and return: whoever owns the channel parts with the peer */
	const atomic_bool *cancelled;
	_Atomic uint64_t *bytes; /* progress, may be NULL */
};
/* *ret_index is set always, also on failure: what dest holds now. */
int sess_recv_run(const struct sess_recv *o, const struct sess_io *io, struct tree_index **ret_index,
		  struct sess_filesync_stats *st, struct err *e);

/* ---- sending ---- */
struct sess_send {
	const struct sess_send_root *roots; /* more than one, or one with a top: by top in byte order */
	size_t n_roots;
	struct tree_walk_opts walk;
	bool override_mtime;
	int64_t mtime_ns;
	bool proof; /* say dev, inode and ctime */
	const atomic_bool *cancelled;
	_Atomic uint64_t *bytes;
};
int sess_send_run(const struct sess_send *o, const struct sess_io *io, struct err *e);
/* openat2 without links and beyond the root never: what a listing named. */
int sess_open_beneath(int dirfd, const char *path, int flags, mode_t mode);
#endif
