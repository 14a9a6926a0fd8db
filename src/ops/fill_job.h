#ifndef OPS_FILL_JOB_H
#define OPS_FILL_JOB_H
/* One layer: download, verify, unpack beside its place; then the ordered pass. Job; no loop. */
#include "blob/blob.h"
#include "reg/reg.h"
#include "snap/snap.h"
#include "tar/tar.h"

struct fill_job {
	struct blob_store *blobs;
	struct reg_io *io;
	const struct spec_ref *ref;
	struct reg_desc desc;
	const char *diff_id;          /* NULL: not known */
	bool have_blob;
	atomic_llong *bytes;          /* downloaded so far */
	const atomic_bool *cancelled;
	const struct snap_view *view; /* NULL: only the blob is wanted */
	/* out */
	struct snap_fill fill;
	struct tar_pending pending;
	struct err error;
};
void fill_job_download(struct fill_job *j); /* holds a registry's slot: nothing else is done in it */
void fill_job_unpack(struct fill_job *j);   /* of the blob that is here */
void fill_job_commit(struct fill_job *j, const struct snap_view *lower /* or NULL */);
#endif
