#ifndef SHIP_OCI_TAR_H
#define SHIP_OCI_TAR_H
/* The archives of the oci and docker exporters, streamed from the blob store.
 * Blocks on the store and on `out`: for jobs; any thread. Source: containerd core/images/archive/exporter.go. */
#include "blob/blob.h"
#include "spec/ref.h"
#include "ship/manifest.h"
#include "tar/tar.h"
#include <stdatomic.h>

struct ship_archive {
	const struct blob_store *store;
	/* The root: a manifest or an index that is in the store, its annotations already with
	 * org.opencontainers.image.created. */
	const struct ship_desc *root;
	char *const *names; /* full references ("docker.io/library/app:v1"); none: one entry without names */
	size_t n_names;
	bool docker;            /* also manifest.json, when the root is a manifest */
	atomic_bool *cancelled; /* may be NULL */
};
/* The bytes: records sorted by name, once each; every blob is verified while it is copied (DATA_LOSS). A blob that is
 * missing is NOT_FOUND: unlazy layers first. */
int ship_archive_write(const struct ship_archive *a, struct tar_out out, struct err *e);
/* Every blob below the root, itself included, children first (what a push or a content-store export copies). */
struct ship_blobs {
	struct strvec digests;
	struct strvec media_types;
	VEC(int64_t) sizes;
};
int ship_blobs_walk(const struct blob_store *s, const struct ship_desc *root, struct ship_blobs *ret, struct err *e);
void ship_blobs_fini(struct ship_blobs *b);
#define _cleanup_ship_blobs_ _cleanup_(ship_blobs_fini)
#endif
