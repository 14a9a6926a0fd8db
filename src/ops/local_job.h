#ifndef OPS_LOCAL_JOB_H
#define OPS_LOCAL_JOB_H
/* Around a sync: open the directory with its index before, save the index and seal the layer after. Job; no loop. */
#include "snap/snap.h"
#include "tree/tree.h"

struct local_job {
	struct snap_view *view; /* the snapshot to write */
	struct snap_view *from; /* copy this one into it first; NULL: no */
	const atomic_bool *cancelled;
	char *index_path;
	char *index_from;         /* the index of `from`; NULL: none */
	int root;                 /* out of open: directory to write, -1 before */
	char *trash;              /* out of open: path for what is replaced */
	bool trashed;             /* out of seal: something was */
	struct tree_index *index; /* out of open */
	struct err sync_error;    /* into seal: how the sync ended */
	struct err error;
};
void local_job_open(struct local_job *j);
/* error is the sync's, or why sealing failed. */
void local_job_seal(struct local_job *j);
/* Hand over what was replaced; harmless when there is none. Seal does it too. */
void local_job_drop_trash(struct local_job *j);
#endif
