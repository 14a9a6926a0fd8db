#ifndef SHIP_ATTEST_SBOM_JOB_H
#define SHIP_ATTEST_SBOM_JOB_H
/* The core SBOM of an image says of each file which layer brought it. Job; no loop.
 * Source: BuildKit exporter/containerimage/attestations.go. */
#include "ship/attest_job.h"
#include "ship/image_job.h"

/* Rewrites o's predicate when it is a core SBOM in SPDX JSON; anything else is left alone. Layers' blobs must be in the store.
 */
int attest_sbom_supplement(struct attest_out *o, struct blob_store *blobs, const struct image_ref_info *ref, struct err *e);
#endif
