/* What vouches for an image: in its index, beside the manifest for a platform, there may be an attestation manifest for that
 * one; and signatures may refer to the attestation manifest. All these documents are given out with their bytes.
 *
 * The image's own manifest is only named: nothing is proved by it. Of the attestations themselves (the manifest's layers) only
 * those of the predicate types that were asked for come along; one of them may be large, all of them are bounded by
 * BLOBS_MAX_BYTES. Source: moby/buildkit source/containerimage/source.go, moby/policy-helpers image/resolve.go. */
#include "ops/image_job.h"
#include "spec/media.h"

#include <jansson.h>
#include <string.h>

enum { BLOB_MAX_BYTES = 8 << 20, BLOBS_MAX_BYTES = 12 << 20, SIGNATURE_LAYERS_MAX = 100 };

#define _cleanup_json_ _cleanup_(json_decrefp)

void ops_chain_free(struct ops_chain *c)
{
	if (!c) return;
	for (size_t i = 0; i < c->blobs.n; i++) {
		struct ops_chain_blob *b = &c->blobs.v[i];
		free(b->digest);
		free(b->media_type);
		free(b->data);
		strvec_fini(&b->annotations);
	}
	vec_fini(&c->blobs);
	strvec_fini(&c->signatures);
	free(c->root);
	free(c->image_manifest);
	free(c->attestation_manifest);
	free(c);
}

static const char *str_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

static bool has(const struct ops_chain *c, const char *digest)
{
	for (size_t i = 0; i < c->blobs.n; i++)
		if (str_eq(c->blobs.v[i].digest, digest)) return true;
	return false;
}

/* Add a document; desc NULL: no annotations. */
static int keep(struct ops_chain *c, const struct reg_desc *d, const json_t *desc, const struct buf *body, struct err *e)
{
	size_t all = body->n;
	for (size_t i = 0; i < c->blobs.n; i++) all += c->blobs.v[i].len;
	if (all > BLOBS_MAX_BYTES)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "the attestations of %s have more than %d bytes", c->root,
			       BLOBS_MAX_BYTES);
	struct ops_chain_blob *b = vec_add(&c->blobs);
	b->digest = xstrdup(d->digest);
	b->media_type = xstrdup(d->media_type);
	b->size = (int64_t)body->n;
	b->data = xmemdup(body->p, body->n);
	b->len = body->n;
	if (desc) image_job_annotations(desc, &b->annotations);
	return 0;
}

static int add_manifest(const struct image_job_req *r, struct ops_chain *c, const json_t *desc, json_t **ret, struct err *e)
{
	_cleanup_reg_desc_ struct reg_desc d = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(REG_MANIFEST_MAX);
	if (image_job_desc(desc, &d, e) < 0 || image_job_read(r, &d, &body, e) < 0 || keep(c, &d, desc, &body, e) < 0)
		return -1;
	json_error_t why;
	if (!(*ret = json_loadb((const char *)body.p, body.n, 0, &why)))
		return err_set(e, CODE_INVALID_ARGUMENT, "manifest %s is not valid JSON: %s", d.digest, why.text);
	return 0;
}

static int add_blob(const struct image_job_req *r, struct ops_chain *c, const json_t *desc, struct err *e)
{
	_cleanup_reg_desc_ struct reg_desc d = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(BLOB_MAX_BYTES);
	if (image_job_desc(desc, &d, e) < 0) return -1;
	if (has(c, d.digest)) return 0;
	if (blob_has(r->blobs, d.digest)) {
		uint8_t *p;
		size_t n;
		if (blob_read(r->blobs, d.digest, BLOB_MAX_BYTES, &p, &n, e) < 0) return -1;
		buf_add(&body, p, n);
		free(p);
	} else if (reg_fetch_bytes(r->io, &r->ref, &d, BLOB_MAX_BYTES, &body, e) < 0) {
		return -1;
	}
	return keep(c, &d, desc, &body, e);
}

static const json_t *attestation_of(const json_t *manifests, const char *image_manifest)
{
	size_t i;
	json_t *m;
	json_array_foreach(manifests, i, m)
	{
		const json_t *a = json_object_get(m, "annotations");
		if (!strcmp(str_of(a, "vnd.docker.reference.type"), "attestation-manifest") &&
		    !strcmp(str_of(a, "vnd.docker.reference.digest"), image_manifest))
			return m;
	}
	return NULL;
}

/* One signature of the attestation manifest: a sigstore bundle, or else cosign's older form. */
static int add_signature(const struct image_job_req *r, struct ops_chain *c, struct err *e)
{
	static const char *const types[] = {"application/vnd.dev.sigstore.bundle.v0.3+json",
					    "application/vnd.dev.cosign.artifact.sig.v1+json"};
	_cleanup_buf_ struct buf body = BUF_MAX(REG_MANIFEST_MAX);
	int rc = reg_fetch_referrers(r->io, &r->ref, c->attestation_manifest, &body, e);
	if (rc < 0) return err_wrap(e, "fetching referrers for attestation manifest %s", c->attestation_manifest);
	_cleanup_json_ json_t *list = rc ? json_loadb((const char *)body.p, body.n, 0, NULL) : NULL;
	const json_t *manifests = json_object_get(list, "manifests"), *found = NULL;
	for (size_t t = 0; t < array_len(types) && !found; t++)
		for (size_t i = 0; i < json_array_size(manifests) && !found; i++)
			if (!strcmp(str_of(json_array_get(manifests, i), "artifactType"), types[t]))
				found = json_array_get(manifests, i);
	if (!found) return 0;
	_cleanup_json_ json_t *m = NULL;
	if (add_manifest(r, c, found, &m, e) < 0) return -1;
	strvec_add(&c->signatures, c->blobs.v[c->blobs.n - 1].digest);
	const json_t *layers = json_object_get(m, "layers");
	for (size_t i = 0; i < min_of(json_array_size(layers), (size_t)SIGNATURE_LAYERS_MAX); i++)
		if (add_blob(r, c, json_array_get(layers, i), e) < 0) return -1;
	return 0;
}

static int add_attestations(const struct image_job_req *r, struct ops_chain *c, const json_t *manifest, struct err *e)
{
	size_t i;
	json_t *layer;
	json_array_foreach(json_object_get(manifest, "layers"), i, layer)
	{
		const char *type = str_of(json_object_get(layer, "annotations"), "in-toto.io/predicate-type");
		if (*type && strvec_find(&r->predicates, type) >= 0 && add_blob(r, c, layer, e) < 0) return -1;
	}
	return 0;
}

static int fill(const struct image_job_req *r, const json_t *index, struct ops_chain *c, struct err *e)
{
	const json_t *manifests = json_object_get(index, "manifests"), *attestation;
	ptrdiff_t at = image_job_choose(r, manifests, e);
	if (at < 0) return err_wrap(e, "resolving image manifest");
	c->image_manifest = xstrdup(str_of(json_array_get(manifests, (size_t)at), "digest"));
	if (!(attestation = attestation_of(manifests, c->image_manifest))) return 0;
	_cleanup_json_ json_t *m = NULL;
	if (add_manifest(r, c, attestation, &m, e) < 0) return -1;
	c->attestation_manifest = xstrdup(str_of(attestation, "digest"));
	return add_signature(r, c, e) < 0 ? -1 : add_attestations(r, c, m, e);
}

int image_job_chain(const struct image_job_req *r, const struct reg_desc *top, struct buf *body, struct ops_chain **ret,
		    struct err *e)
{
	if (image_job_read(r, top, body, e) < 0) return -1;
	_cleanup_json_ json_t *index = json_loadb((const char *)body->p, body->n, 0, NULL);
	const char *type = *str_of(index, "mediaType") ? str_of(index, "mediaType") : top->media_type;
	if (!json_is_array(json_object_get(index, "manifests")) || strcmp(type, SPEC_OCI_INDEX)) return 0;
	struct ops_chain *c = xnew(struct ops_chain);
	struct reg_desc root = {top->digest, (char *)SPEC_OCI_INDEX, (int64_t)body->n};
	c->root = xstrdup(top->digest);
	if (keep(c, &root, NULL, body, e) < 0 || fill(r, index, c, e) < 0) {
		ops_chain_free(c);
		return -1;
	}
	*ret = c;
	return 0;
}
