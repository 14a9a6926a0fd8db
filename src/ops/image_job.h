#ifndef OPS_IMAGE_JOB_H
#define OPS_IMAGE_JOB_H
/* Manifests and configs of images: what blocks. Job; no loop. */
#include "blob/blob.h"
#include "ops/ops.h"

struct image_job_req {
	struct blob_store *blobs;
	struct reg_io *io;
	struct spec_ref ref;
	struct spec_platform platform;
	bool no_config;
	struct blob_source *source; /* not NULL: manifests come from here (an OCI layout), not from a registry */
};
/* Resolve the name, choose the platform's manifest, read the config. Manifests and configs are kept as blobs. */
int image_job_fetch(const struct image_job_req *r, struct ops_image *ret, struct err *e);
#endif
