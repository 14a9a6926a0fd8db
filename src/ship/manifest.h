#ifndef SHIP_MANIFEST_H
#define SHIP_MANIFEST_H
/* The documents of an image: config, manifest, index, attestation manifest; exactly the bytes BuildKit writes for the
 * same inputs (Go's field order, 2-space indent for manifests, sorted keys in the config, HTML characters escaped).
 *
 * All pure: any thread, no I/O. Inputs are borrowed; outputs are bytes in a buffer that the caller owns (appended).
 * Source: BuildKit exporter/containerimage/writer.go, image-spec specs-go/v1. */
#include "base/base.h"
#include "spec/media.h"
#include "spec/platform.h"

struct ship_kv {
	const char *key, *value;
};
/* An OCI descriptor; zero members are left out. Annotations need no order. */
struct ship_desc {
	const char *media_type;
	char digest[DIGEST_STR];
	int64_t size;
	char *const *urls;
	size_t n_urls;
	const struct ship_kv *annotations;
	size_t n_annotations;
	const void *data;
	size_t n_data;
	const struct spec_platform *platform;
	const char *artifact_type;
};
#define SHIP_LAYER_URL "slipway.url" /* where a foreign layer is to be had: kept among the annotations of its blob, see ops/image_job.c */
struct ship_layer {
	const char *media_type; /* as stored: docker and OCI forms, also non-distributable */
	char digest[DIGEST_STR], diff_id[DIGEST_STR];
	int64_t size;
	char *const *urls;
	size_t n_urls;
	/* Internal ones (containerd.io/uncompressed, buildkit/createdat, containerd.io/distribution.source.*) are left out
	 * here. */
	const struct ship_kv *annotations;
	size_t n_annotations;
	/* For history entries that the config lacks: when and how the layer was made. created_by "" and NULL: BuildKit's
	 * default text. */
	bool has_created;
	struct timespec created;
	const char *created_by;
};
struct ship_image {
	const struct ship_layer *layers; /* bottom first */
	size_t n_layers;
	bool no_ref;        /* the result is empty (no snapshot at all): missing history entries have no times */
	const char *config; /* containerimage.config of the frontend; n_config 0: a default config for `platform` */
	size_t n_config;
	const char *base_config; /* containerimage.base.config; may be NULL */
	size_t n_base_config;
	const struct spec_platform *platform; /* NULL: this machine's */
	const struct timespec *epoch;         /* SOURCE_DATE_EPOCH; NULL: none */
	bool docker_types;                    /* oci-mediatypes=false */
	bool keep_nondist;                    /* prefer-nondist-layers */
	const void *inline_cache;             /* value of moby.buildkit.cache.v0, not yet base64; NULL: none */
	size_t n_inline_cache;
	const struct ship_kv *annotations; /* of the manifest */
	size_t n_annotations;
};

/* The image config. INVALID_ARGUMENT with BuildKit's text for a config that cannot be exported. */
int ship_image_config(const struct ship_image *img, struct buf *ret, struct err *e);
/* The manifest for a config that was made before. */
int ship_image_manifest(const struct ship_image *img, const char *config_digest, int64_t config_size, struct buf *ret,
			struct err *e);
/* The layer's descriptor as it stands in the manifest; ret->annotations is heap (an array of borrowed strings). */
struct ship_desc ship_layer_desc(const struct ship_image *img, const struct ship_layer *l);

int ship_index(const struct ship_desc *manifests, size_t n, const struct ship_kv *annotations, size_t n_annotations,
	       bool docker_types, struct buf *ret, struct err *e);

/* An in-toto statement that is a blob already. */
struct ship_statement {
	char digest[DIGEST_STR];
	int64_t size;
	const char *predicate_type;
};
/* The attestation manifest of image manifest `target`. artifact (oci-artifact=true): the config is the empty descriptor
 * and ret_config is "{}"; else an image config. Both must be stored. */
int ship_attestation(const struct ship_desc *target, const struct ship_statement *st, size_t n, bool artifact,
		     bool docker_types, struct buf *ret_config, struct buf *ret_manifest, struct err *e);
/* Its annotations in the index: vnd.docker.reference.type and .digest; the value points at target. */
void ship_attestation_annotations(const struct ship_desc *target, struct ship_kv ret[static 2]);
const struct spec_platform *ship_unknown_platform(void); /* unknown/unknown */

/* A descriptor as compact JSON (containerimage.descriptor before its base64). */
void ship_desc_json(const struct ship_desc *d, struct buf *ret);
/* The same into a writer; annotations sorted. */
void ship_desc_write(struct json_w *w, const struct ship_desc *d);
/* An object of annotations under a key, sorted by key, the last of equal keys; nothing when n is 0. */
void ship_annotations_write(struct json_w *w, const char *key, const struct ship_kv *kv, size_t n);

/* in-toto statement: compact, or indented by 2 for the local exporter. subjects may be empty ("subject":[]). predicate is JSON.
 */
struct ship_subject {
	const char *name;
	char digest[DIGEST_STR];
};
int ship_intoto_statement(const char *predicate_type, const struct ship_subject *subjects, size_t n, const char *predicate,
			  size_t n_predicate, bool indent, struct buf *ret, struct err *e);
#endif
