#ifndef SPEC_MEDIA_H
#define SPEC_MEDIA_H
/* Media types of OCI and Docker images, and chain IDs. Any thread, no blocking.
 * Source: OCI image-spec media-types.md and layer.md (ChainID), containerd core/images/mediatypes.go, BuildKit
 * util/compression. */
#include "base/base.h"

#define SPEC_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define SPEC_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define SPEC_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define SPEC_OCI_EMPTY "application/vnd.oci.empty.v1+json"
#define SPEC_OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define SPEC_OCI_LAYER_GZIP "application/vnd.oci.image.layer.v1.tar+gzip"
#define SPEC_OCI_LAYER_ZSTD "application/vnd.oci.image.layer.v1.tar+zstd"
#define SPEC_OCI_NONDIST "application/vnd.oci.image.layer.nondistributable.v1.tar"
#define SPEC_OCI_NONDIST_GZIP "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
#define SPEC_OCI_NONDIST_ZSTD "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
#define SPEC_DOCKER_INDEX "application/vnd.docker.distribution.manifest.list.v2+json"
#define SPEC_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define SPEC_DOCKER_SCHEMA1 "application/vnd.docker.distribution.manifest.v1+prettyjws"
#define SPEC_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define SPEC_DOCKER_LAYER "application/vnd.docker.image.rootfs.diff.tar"
#define SPEC_DOCKER_LAYER_GZIP "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define SPEC_DOCKER_LAYER_ZSTD "application/vnd.docker.image.rootfs.diff.tar.zstd"
#define SPEC_DOCKER_FOREIGN "application/vnd.docker.image.rootfs.foreign.diff.tar"
#define SPEC_DOCKER_FOREIGN_GZIP "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
#define SPEC_INTOTO "application/vnd.in-toto+json"
#define SPEC_DOCKER_ATTESTATION "application/vnd.docker.attestation.manifest.v1+json"
#define SPEC_BUILDKIT_CACHE_CONFIG "application/vnd.buildkit.cacheconfig.v0"

enum spec_compression { SPEC_UNCOMPRESSED, SPEC_GZIP, SPEC_ESTARGZ, SPEC_ZSTD };
/* "uncompressed", "gzip", "estargz", "zstd"; else "unsupported compression type X". */
int spec_compression_parse(const char *s, enum spec_compression *ret, struct err *e);
const char *spec_compression_name(enum spec_compression c);
/* The layer type to give a blob of compression c. */
const char *spec_media_layer(enum spec_compression c, bool oci);
/* The compression that a layer type names (estargz shows as gzip); "unsupported media type X". */
int spec_media_compression(const char *type, enum spec_compression *ret, struct err *e);
/* The same layer's type in the other family; type itself when it has none there (the caller may warn). Borrowed. */
const char *spec_media_convert_layer(const char *type, bool oci);
const char *spec_media_distributable(const char *type); /* nondistributable or foreign -> the plain layer type; else itself */
bool spec_media_is_index(const char *type);
bool spec_media_is_manifest(const char *type);
bool spec_media_is_config(const char *type);
bool spec_media_is_layer(const char *type);
bool spec_media_is_nondist(const char *type);
bool spec_media_is_docker(const char *type);
const char *spec_media_index(bool oci);
const char *spec_media_manifest(bool oci);
const char *spec_media_config(bool oci);

/* Chain IDs of n diff IDs into ret[n]; ret may be diff_ids itself. */
void spec_chain_ids(const struct digest *diff_ids, size_t n, struct digest *ret);
#endif
