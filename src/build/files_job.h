#ifndef BUILD_FILES_JOB_H
#define BUILD_FILES_JOB_H
/* Reading files of a result. Job; no loop. */
#include "proto/fsutil.pb-c.h"
#include "snap/snap.h"
#include "tree/tree.h"

enum files_kind { FILES_READ, FILES_DIR, FILES_STAT };
struct files_job {
	enum files_kind kind;
	struct snap_view *view;
	char *path, *pattern;
	int64_t offset, length; /* length -1: all */
	/* out */
	struct buf data;
	VEC(struct tree_entry) entries;
	struct err error;
};
void files_job_run(struct files_job *j);
void files_job_fini(struct files_job *j);
Fsutil__Stat *files_stat_message(struct arena *a, const struct tree_entry *t);
#endif
