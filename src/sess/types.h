#ifndef SESS_TYPES_H
#define SESS_TYPES_H
/* Structs of sess.h that jobs use too: no loop in here. */
#include "base/base.h"

/* Of a file sync. */
struct sess_filesync_stats {
	uint64_t entries;         /* in the client's listing */
	uint64_t requested;       /* files whose bytes were asked for */
	uint64_t requested_again; /* of them: only because their stamp proves nothing (design §5) */
	uint64_t changed;         /* entries that were added or are different now, and removed */
	uint64_t bytes;           /* of packets received */
};

/* ---- what is sent to a client's directory; all that is pointed at stays the caller's until done ---- */
struct sess_extra_file { /* beside what is on disk, in the root's directory (attestations); it wins over a file there */
	const char *name;
	const void *p;
	size_t n;
	int64_t mtime_ns;
};
struct sess_send_root {
	int fd;          /* borrowed; -1: an empty directory */
	const char *top; /* NULL or "": as it is; "linux_amd64": below a directory of that name (one component) */
	int64_t top_mtime_ns;
	const struct sess_extra_file *extras;
	size_t n_extras;
};
#endif
