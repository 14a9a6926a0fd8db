#ifndef OPS_CONTENT_JOB_H
#define OPS_CONTENT_JOB_H
/* Job; no loop. */
#include "snap/snap.h"
#include "tree/tree.h"

struct content_job {
	struct snap_view *view;
	char *index_path; /* NULL: scratch */
	struct tree_selector *selectors;
	size_t n_selectors;
	const atomic_bool *cancelled;
	/* out */
	char digest[DIGEST_STR];
	struct err error;
};
void content_job_run(struct content_job *j);
#endif
