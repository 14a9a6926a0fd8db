/* Reading images. Everything that a registry says is bounded and checked: sizes, digests, counts, JSON depth (jansson's). */
#include "ops/image_job.h"
#include "spec/media.h"

#include <jansson.h>
#include <string.h>

enum { LAYERS_MAX = 1000, CONFIG_MAX = 8 << 20 };

#define _cleanup_json_ _cleanup_(json_decrefp)

static const char *str_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

static json_t *parse(const void *p, size_t n, const char *what, struct err *e)
{
	json_error_t je;
	json_t *j = json_loadb(p, n, 0, &je);
	if (!j) err_set(e, CODE_INVALID_ARGUMENT, "%s is not valid JSON: %s at line %d", what, je.text, je.line);
	return j;
}

/* A manifest or index by descriptor: from our blobs, else from the registry, then kept. */
int image_job_read(const struct image_job_req *r, const struct reg_desc *d, struct buf *body, struct err *e)
{
	if (blob_has(r->blobs, d->digest)) {
		uint8_t *p;
		size_t n;
		if (blob_read(r->blobs, d->digest, REG_MANIFEST_MAX, &p, &n, e) < 0) return -1;
		buf_add(body, p, n);
		free(p);
		return 0;
	}
	if (r->source) {
		if (blob_ensure(r->blobs, r->source, d->digest, d->size, e) < 0) return -1;
		return image_job_read(r, d, body, e);
	}
	if (!body->n && reg_fetch_manifest(r->io, &r->ref, d, body, NULL, e) < 0) return -1;
	return blob_put(r->blobs, body->p, body->n, NULL, e);
}

int image_job_desc(const json_t *j, struct reg_desc *ret, struct err *e)
{
	json_int_t size = json_integer_value(json_object_get(j, "size"));
	const char *digest = str_of(j, "digest");
	if (!digest_valid(digest) || size < 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "the manifest has a descriptor with digest \"%.80s\" and size %lld", digest, (long long)size);
	*ret = (struct reg_desc){xstrdup(digest), xstrdup(str_of(j, "mediaType")), size};
	return 0;
}

void image_job_annotations(const json_t *desc, struct strvec *ret)
{
	const char *k;
	json_t *v;
	json_object_foreach(json_object_get(desc, "annotations"), k, v)
		if (json_is_string(v)) strvec_addf(ret, "%s=%s", k, json_string_value(v));
}

static void platform_of(const json_t *j, struct spec_platform *ret)
{
	spec_platform_init(ret, str_of(j, "os"), str_of(j, "architecture"), str_of(j, "variant"), str_of(j, "os.version"));
	spec_platform_normalize(ret);
}

ptrdiff_t image_job_choose(const struct image_job_req *r, const json_t *manifests, struct err *e)
{
	size_t n = min_of(json_array_size(manifests), (size_t)LAYERS_MAX), c = 0;
	struct spec_platform *have = xcalloc(n, sizeof *have);
	size_t *index = xcalloc(n, sizeof *index);
	for (size_t i = 0; i < n; i++) {
		const json_t *m = json_array_get(manifests, i), *p = json_object_get(m, "platform");
		const char *type = str_of(m, "mediaType");
		if (*type && !spec_media_is_manifest(type)) continue;
		if (!strcmp(str_of(p, "os"), "unknown")) continue; /* an attestation */
		if (p)
			platform_of(p, &have[c]);
		else
			spec_platform_copy(&have[c], &r->platform);
		index[c++] = i;
	}
	ptrdiff_t best = spec_platform_choose(&r->platform, have, c);
	ptrdiff_t rc = best < 0 ? -1 : (ptrdiff_t)index[best];
	if (best < 0) err_set(e, CODE_NOT_FOUND, "no match for platform in manifest: not found");
	for (size_t i = 0; i < c; i++) spec_platform_fini(&have[i]);
	free(have);
	free(index);
	return rc;
}

static int add_layers(const json_t *layers, const json_t *diff_ids, struct ops_image *ret, struct err *e)
{
	size_t n = json_array_size(layers);
	if (n > LAYERS_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "the image has %zu layers, the limit is %d", n, LAYERS_MAX);
	if (json_array_size(diff_ids) != n)
		return err_set(e, CODE_INVALID_ARGUMENT, "mismatched image rootfs and manifest layers: %zu and %zu", json_array_size(diff_ids), n);
	ret->layers = xcalloc(n, sizeof *ret->layers);
	for (size_t i = 0; i < n; i++) {
		struct ops_layer *l = &ret->layers[i];
		struct reg_desc d;
		const json_t *j = json_array_get(layers, i);
		const char *diff_id = json_string_value(json_array_get(diff_ids, i));
		if (image_job_desc(j, &d, e) < 0) return -1;
		ret->n_layers = i + 1;
		l->digest = d.digest;
		l->media_type = d.media_type;
		l->size = d.size;
		if (!digest_valid(diff_id)) return err_set(e, CODE_INVALID_ARGUMENT, "the image config has no valid diff ID for layer %zu", i);
		l->diff_id = xstrdup(diff_id);
		image_job_annotations(j, &l->annotations);
		const json_t *urls = json_object_get(j, "urls");
		for (size_t k = 0; k < min_of(json_array_size(urls), (size_t)16); k++)
			if (json_is_string(json_array_get(urls, k)))
				strvec_addf(&l->annotations, OPS_LAYER_URL "=%s", json_string_value(json_array_get(urls, k)));
	}
	return 0;
}

static int read_config(const struct image_job_req *r, const json_t *manifest, struct ops_image *ret, struct err *e)
{
	_cleanup_reg_desc_ struct reg_desc d = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(CONFIG_MAX);
	if (image_job_desc(json_object_get(manifest, "config"), &d, e) < 0) return -1;
	if (blob_has(r->blobs, d.digest)) {
		uint8_t *p;
		size_t n;
		if (blob_read(r->blobs, d.digest, CONFIG_MAX, &p, &n, e) < 0) return -1;
		buf_add(&body, p, n);
		free(p);
	} else if (r->source) {
		uint8_t *p;
		size_t n;
		if (blob_ensure(r->blobs, r->source, d.digest, d.size, e) < 0 || blob_read(r->blobs, d.digest, CONFIG_MAX, &p, &n, e) < 0) return -1;
		buf_add(&body, p, n);
		free(p);
	} else if (reg_fetch_bytes(r->io, &r->ref, &d, CONFIG_MAX, &body, e) < 0 || blob_put(r->blobs, body.p, body.n, NULL, e) < 0) {
		return -1;
	}
	ret->config_digest = xstrdup(d.digest);
	ret->config_len = body.n;
	ret->config = buf_take_str(&body);
	_cleanup_json_ json_t *config = parse(ret->config, ret->config_len, "the image config", e);
	if (!config) return -1;
	const json_t *layers = json_object_get(manifest, "layers");
	return add_layers(layers, json_object_get(json_object_get(config, "rootfs"), "diff_ids"), ret, e);
}

/* What a repository has by a digest is believed without asking only when that repository gave it to us before: another one's content
 * would be had without its permission. The note is a small blob of its own: it goes with unused blobs, and then the registry is asked. */
static void origin_note(const struct image_job_req *r, const char *digest, struct buf *ret)
{
	buf_addf(ret, "slipway: %s/%s has %s\n", r->ref.domain, r->ref.path, digest);
}

static bool origin_known(const struct image_job_req *r)
{
	_cleanup_buf_ struct buf note = BUF_INIT;
	char digest[DIGEST_STR];
	if (!blob_has(r->blobs, r->ref.digest)) return false;
	origin_note(r, r->ref.digest, &note);
	digest_str_of(note.p, note.n, digest);
	return blob_has(r->blobs, digest);
}

static int origin_keep(const struct image_job_req *r, const char *digest, struct err *e)
{
	_cleanup_buf_ struct buf note = BUF_INIT;
	origin_note(r, digest, &note);
	return blob_put(r->blobs, note.p, note.n, NULL, e);
}

int image_job_fetch(const struct image_job_req *r, struct ops_image *ret, struct err *e)
{
	_cleanup_reg_desc_ struct reg_desc top = {0}, chosen = {0};
	_cleanup_buf_ struct buf body = BUF_MAX(REG_MANIFEST_MAX);
	ret->ref = spec_ref_format(&r->ref);
	ret->repo = spec_ref_name(&r->ref);
	if (r->ref.digest && (r->source || origin_known(r)))
		top = (struct reg_desc){xstrdup(r->ref.digest), xstrdup(""), -1};
	else if (reg_resolve(r->io, &r->ref, &top, &body, e) < 0 || origin_keep(r, top.digest, e) < 0)
		return -1;
	ret->top_digest = xstrdup(top.digest);
	if (r->chain && !r->source && image_job_chain(r, &top, &body, &ret->chain, e) < 0) return -1;
	if (r->no_config) return 0;
	const struct reg_desc *d = &top;
	for (int depth = 0; depth < 4; depth++) {
		if (image_job_read(r, d, &body, e) < 0) return -1;
		_cleanup_json_ json_t *j = parse(body.p, body.n, "the manifest", e);
		if (!j) return -1;
		const json_t *manifests = json_object_get(j, "manifests");
		if (!manifests) {
			ret->manifest_digest = xstrdup(d->digest);
			ret->is_oci = !spec_media_is_docker(*str_of(j, "mediaType") ? str_of(j, "mediaType") : d->media_type);
			return read_config(r, j, ret, e);
		}
		struct reg_desc next = {0};
		ptrdiff_t best = image_job_choose(r, manifests, e);
		if (best < 0 || image_job_desc(json_array_get(manifests, (size_t)best), &next, e) < 0) return -1;
		reg_desc_fini(&chosen);
		chosen = next;
		d = &chosen;
		buf_reset(&body);
	}
	return err_set(e, CODE_INVALID_ARGUMENT, "image indexes nested too deeply");
}

void ops_image_fini(struct ops_image *m)
{
	free(m->ref);
	free(m->repo);
	free(m->top_digest);
	free(m->manifest_digest);
	free(m->config);
	free(m->config_digest);
	for (size_t i = 0; i < m->n_layers; i++) {
		free(m->layers[i].digest);
		free(m->layers[i].media_type);
		free(m->layers[i].diff_id);
		strvec_fini(&m->layers[i].annotations);
	}
	free(m->layers);
	ops_chain_free(m->chain);
	*m = (struct ops_image){0};
}
