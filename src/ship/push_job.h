#ifndef SHIP_PUSH_JOB_H
#define SHIP_PUSH_JOB_H
/* The jobs of a push: see push.h. Job, block. */
#include "blob/blob.h"
#include "reg/reg.h"
#include "ship/oci_tar.h"

struct push_plan { /* what one name needs: the reference, and the blobs below the root, leaves first */
	const struct blob_store *blobs;
	const char *name;
	bool by_digest;
	const struct ship_desc *root;
	/* out */
	struct spec_ref ref, bare; /* bare: without tag and digest */
	struct ship_blobs what;
	struct err error;
};
void push_job_plan(struct push_plan *p);
void push_plan_fini(struct push_plan *p);

struct push_one { /* one blob or manifest */
	struct blob_store *blobs;
	struct reg_io *io;
	const struct spec_ref *ref;
	const char *digest, *media_type; /* borrowed */
	int64_t size;
	const char *mount_from; /* repository of the same registry, NULL */
	bool manifest;
	struct err error;
};
void push_job_one(struct push_one *o);
bool push_is_manifest(const char *media_type);
#endif
