#ifndef OPS_FILE_JOB_H
#define OPS_FILE_JOB_H
/* One file action on a writable root: copy, mkfile, mkdir, rm, symlink, with BuildKit's semantics (reference 03 §5).
 * Job; blocks; no loop. Sources: moby/buildkit solver/llbsolver/file/backend.go, tonistiigi/fsutil copy. */
#include "base/base.h"
#include "proto/ops.pb-c.h"
#include <stdatomic.h>

struct file_job_ctx {
	int rootfd;          /* the tree to change */
	int sourcefd;        /* copy: the tree to copy from; -1: an empty one */
	int userfd, groupfd; /* trees whose /etc/passwd and /etc/group names are looked up in; -1: none */
	const atomic_bool *cancelled;
	/* Copy may share whole files with the source by hard links (adr/0006). upperfd: where a file must be made to be of the
	 * source's file system, when rootfd is an overlay mount: its upper directory; 0: rootfd itself. */
	bool share;
	int upperfd;
};
/* Error texts are the peer's. */
int file_job_action(const struct file_job_ctx *c, const Pb__FileAction *a, struct err *e);
#endif
