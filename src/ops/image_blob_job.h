#ifndef OPS_IMAGE_BLOB_JOB_H
#define OPS_IMAGE_BLOB_JOB_H
/* A blob into the store, and out of it as a file of a snapshot. Job; no loop. */
#include "blob/blob.h"
#include "reg/reg.h"
#include "snap/snap.h"

struct blob_get_job {
	struct blob_store *blobs;
	const char *digest;
	struct blob_source *source; /* NULL: the registry */
	struct reg_io *io;
	const struct spec_ref *ref;
	int fd; /* out: the blob, -1: none */
	struct err error;
};
void blob_job_get(struct blob_get_job *j);

struct blob_file_job {
	int fd;
	const char *name;
	int64_t perm, uid, gid;
	const struct snap_view *view;
	const atomic_bool *cancelled;
	struct err error;
};
void blob_job_file(struct blob_file_job *j);
#endif
