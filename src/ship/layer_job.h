#ifndef SHIP_LAYER_JOB_H
#define SHIP_LAYER_JOB_H
/* A layer's blob from its directory, or in another compression from a blob that is there. Job; no loop. */
#include "blob/blob.h"
#include "snap/snap.h"
#include "spec/media.h"
#include "tar/tar.h"

struct layer_job {
	struct blob_store *blobs;
	struct snap_view *view, *lower; /* lower NULL: none */
	enum spec_compression compression;
	int level;
	char *from;        /* convert this blob; NULL: from the directory */
	bool clamp;        /* rewrite-timestamp */
	struct timespec epoch;
	const atomic_bool *cancelled;
	/* out */
	struct tar_sums sums;
	struct err error;
};
void layer_job_run(struct layer_job *j);
#endif
