#ifndef OPS_IMAGE_JOB_H
#define OPS_IMAGE_JOB_H
/* Manifests and configs of images: what blocks. Job; no loop. */
#include "blob/blob.h"
#include "ops/ops.h"

#include <jansson.h>

struct image_job_req {
	struct blob_store *blobs;
	struct reg_io *io;
	struct spec_ref ref;
	struct spec_platform platform;
	bool no_config;
	bool chain;
	struct strvec predicates; /* of attestations that come with the chain */
	struct blob_source *source; /* not NULL: manifests come from here (an OCI layout), not from a registry */
};
/* Resolve the name, choose the platform's manifest, read the config. Manifests and configs are kept as blobs. */
int image_job_fetch(const struct image_job_req *r, struct ops_image *ret, struct err *e);
/* A manifest or index by descriptor: from our blobs, else from the registry, then kept. Appended to body, unless it is there. */
int image_job_read(const struct image_job_req *r, const struct reg_desc *d, struct buf *body, struct err *e);
/* The place in an index' "manifests" of the one for the platform; -1 NOT_FOUND. */
ptrdiff_t image_job_choose(const struct image_job_req *r, const json_t *manifests, struct err *e);
int image_job_desc(const json_t *j, struct reg_desc *ret, struct err *e);
void image_job_annotations(const json_t *desc, struct strvec *ret); /* "k=v" */
/* chain_job.c: what vouches for the image that `top` names (the bytes of its index in body). NULL: it is no OCI index. */
int image_job_chain(const struct image_job_req *r, const struct reg_desc *top, struct buf *body, struct ops_chain **ret, struct err *e);
#endif
