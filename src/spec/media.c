/* Media types of images: one table of layer types holds every fact about them, the rest are comparisons.
 * Chain IDs: the first is the diff ID itself, each next sha256("<chain> <diff>"). */
#include "spec/media.h"
#include "spec/internal.h"

#include <string.h>

/* One row a layer type of the OCI family; docker: its type there (NULL: none). */
static const struct layer {
	const char *oci, *docker;
	enum spec_compression compression;
	bool nondist;
} layers[] = {
	{SPEC_OCI_LAYER, SPEC_DOCKER_LAYER, SPEC_UNCOMPRESSED, false},
	{SPEC_OCI_LAYER_GZIP, SPEC_DOCKER_LAYER_GZIP, SPEC_GZIP, false},
	{SPEC_OCI_LAYER_ZSTD, SPEC_DOCKER_LAYER_ZSTD, SPEC_ZSTD, false},
	{SPEC_OCI_NONDIST, SPEC_DOCKER_FOREIGN, SPEC_UNCOMPRESSED, true},
	{SPEC_OCI_NONDIST_GZIP, SPEC_DOCKER_FOREIGN_GZIP, SPEC_GZIP, true},
	{SPEC_OCI_NONDIST_ZSTD, NULL, SPEC_ZSTD, true},
};

static const struct layer *find_layer(const char *type)
{
	for (size_t i = 0; i < array_len(layers); i++)
		if (str_eq(layers[i].oci, type) || (layers[i].docker && str_eq(layers[i].docker, type))) return &layers[i];
	return NULL;
}

static const char *const compression_names[] = {"uncompressed", "gzip", "estargz", "zstd"};

int spec_compression_parse(const char *s, enum spec_compression *ret, struct err *e)
{
	for (size_t i = 0; i < array_len(compression_names); i++) {
		if (strcmp(s, compression_names[i]) != 0) continue;
		*ret = (enum spec_compression)i;
		return 0;
	}
	return err_set(e, SPEC_BAD, "unsupported compression type %s", s);
}

const char *spec_compression_name(enum spec_compression c) { return compression_names[c]; }

const char *spec_media_layer(enum spec_compression c, bool oci)
{
	size_t row = c == SPEC_UNCOMPRESSED ? 0 : c == SPEC_ZSTD ? 2 : 1;
	return oci ? layers[row].oci : layers[row].docker;
}

int spec_media_compression(const char *type, enum spec_compression *ret, struct err *e)
{
	const struct layer *l = find_layer(type);
	if (!l) return err_set(e, SPEC_BAD, "unsupported media type %s", type);
	*ret = l->compression;
	return 0;
}

const char *spec_media_convert_layer(const char *type, bool oci)
{
	const struct layer *l = find_layer(type);
	const char *to = !l ? NULL : oci ? l->oci : l->docker;
	return to ? to : type;
}

const char *spec_media_distributable(const char *type)
{
	const struct layer *l = find_layer(type);
	if (!l || !l->nondist) return type;
	return spec_media_layer(l->compression, str_eq(l->oci, type));
}

bool spec_media_is_index(const char *type) { return str_eq(type, SPEC_OCI_INDEX) || str_eq(type, SPEC_DOCKER_INDEX); }
bool spec_media_is_manifest(const char *type) { return str_eq(type, SPEC_OCI_MANIFEST) || str_eq(type, SPEC_DOCKER_MANIFEST); }
bool spec_media_is_config(const char *type) { return str_eq(type, SPEC_OCI_CONFIG) || str_eq(type, SPEC_DOCKER_CONFIG); }

bool spec_media_is_layer(const char *type)
{
	if (!type) return false;
	if (str_starts(type, "application/vnd.oci.image.layer.")) return true;
	_cleanup_free_ char *base = xstrndup(type, strcspn(type, "+"));
	return find_layer(base) != NULL || str_eq(base, "application/vnd.erofs.layer.v1");
}

bool spec_media_is_nondist(const char *type)
{
	return type && (str_starts(type, "application/vnd.oci.image.layer.nondistributable.") ||
			str_starts(type, "application/vnd.docker.image.rootfs.foreign."));
}

bool spec_media_is_docker(const char *type) { return type && str_starts(type, "application/vnd.docker."); }
const char *spec_media_index(bool oci) { return oci ? SPEC_OCI_INDEX : SPEC_DOCKER_INDEX; }
const char *spec_media_manifest(bool oci) { return oci ? SPEC_OCI_MANIFEST : SPEC_DOCKER_MANIFEST; }
const char *spec_media_config(bool oci) { return oci ? SPEC_OCI_CONFIG : SPEC_DOCKER_CONFIG; }

void spec_chain_ids(const struct digest *diff_ids, size_t n, struct digest *ret)
{
	char text[2 * DIGEST_STR];
	for (size_t i = 0; i < n; i++) {
		if (i == 0) {
			ret[0] = diff_ids[0];
			continue;
		}
		digest_format(&ret[i - 1], text);
		text[DIGEST_STR - 1] = ' ';
		digest_format(&diff_ids[i], text + DIGEST_STR);
		ret[i] = digest_of(text, 2 * DIGEST_STR - 1);
	}
}
