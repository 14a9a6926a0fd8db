#ifndef SHIP_IMAGE_JOB_H
#define SHIP_IMAGE_JOB_H
/* Config, manifest and index of an image, put as blobs; then the archive or the push. Job; no loop. */
#include "blob/blob.h"
#include "reg/reg.h"
#include "ship/attest_job.h"
#include "ship/manifest.h"
#include "tar/tar.h"

struct image_meta_kv {
	char *key;
	uint8_t *data;
	size_t len;
};
struct image_layer_info {
	char digest[DIGEST_STR], diff_id[DIGEST_STR];
	char *media_type, *description, *mount_from;
	int64_t size;
	struct strvec annotations;
	struct timespec created;
};
struct image_ref_info {
	const char *key; /* platform id or NULL */
	const char *platform_id; /* also of a single result; NULL: unknown */
	struct image_layer_info *layers;
	size_t n_layers;
	bool scratch;
	const struct image_meta_kv *config, *base_config; /* NULL: none */
	struct spec_platform platform;
	bool has_epoch;
	struct timespec epoch;
	struct buf inline_cache; /* empty: none */
	struct ship_kv *annotations, *desc_annotations; /* of the manifest, and of its descriptor; owned arrays */
	size_t n_annotations, n_desc_annotations;
};
struct image_job {
	struct blob_store *blobs;
	struct image_ref_info *refs;
	size_t n_refs;
	bool is_map, artifact, docker_types, keep_nondist, docker_archive;
	struct ship_kv *index_annotations, *index_desc_annotations; /* owned arrays */
	size_t n_index_annotations, n_index_desc_annotations;
	struct attest_in *const *attests; /* borrowed */
	size_t n_attests;
	struct strvec names; /* full references */
	/* archive */
	struct loop_pipe *pipe; /* opaque here: written by `out` */
	struct tar_out out;
	atomic_bool *cancelled;
	bool dated; /* the whole's descriptor tells the moment of creation: of archives */
	bool by_digest;
	/* out */
	char digest[DIGEST_STR], config_digest[DIGEST_STR];
	struct buf descriptor; /* JSON */
	struct strvec made;    /* "exporting manifest sha256:..." lines */
	struct err error;
};
void image_job_make(struct image_job *j);
void image_job_archive(struct image_job *j);
struct ship_desc image_job_root(const struct image_job *j); /* what was made; loop or job, a stat */
/* A repository of to's registry that a layer was pulled from; NULL: none. */
const char *image_job_mount_source(const struct image_job *j, const char *digest, const struct spec_ref *to);
void image_job_fini(struct image_job *j);
#endif
