/* The documents of registries and folders: the manifest that lists a cache's layers and its config, either as an image
 * manifest or as an index; and images that carry a cache in their own config. */
#include "remote/place.h"
#include "spec/media.h"

#include <jansson.h>
#include <string.h>

#define _cleanup_json_ _cleanup_(json_decrefp)
enum { LAYERS_MAX = 20000, MANIFESTS_MAX = 100, CONFIG_MAX = 8 << 20 };
static const char label_diff_id[] = "containerd.io/uncompressed", label_created[] = "buildkit/createdat",
		  label_description[] = "buildkit/description";

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

/* ---- reading ---- */

static void blobs_free(struct map *blobs)
{
	MAP_EACH(blobs, it)
	{
		struct cache_blob *b = it->value;
		strvec_fini(&b->annotations);
		free(b);
	}
	map_fini(blobs);
}

/* Its strings are the document's, but the annotations. false: not a descriptor. */
static bool blob_of(const json_t *d, struct cache_blob *ret)
{
	const char *k;
	json_t *v, *annotations = json_object_get(d, "annotations");
	json_int_t size = json_integer_value(json_object_get(d, "size"));
	if (!digest_valid(str_of(d, "digest")) || size < 0) return false;
	*ret = (struct cache_blob){
		.digest = (char *)str_of(d, "digest"), .media_type = (char *)str_of(d, "mediaType"), .size = size};
	json_object_foreach(annotations, k, v) if (json_is_string(v))
		strvec_addf(&ret->annotations, "%s=%s", k, json_string_value(v));
	const char *diff_id = str_of(annotations, label_diff_id), *created = str_of(annotations, label_created);
	if (digest_valid(diff_id)) ret->diff_id = (char *)diff_id;
	if (time_parse_rfc3339(created, &ret->created, NULL) < 0) ret->created = (struct timespec){0};
	return true;
}

static int list_blobs(const json_t *list, struct map *blobs, const json_t **ret_config, struct err *e)
{
	if (json_array_size(list) > LAYERS_MAX)
		return err_set(e, CODE_INVALID_ARGUMENT, "the cache manifest lists %zu layers, the limit is %d",
			       json_array_size(list), LAYERS_MAX);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *d = json_array_get(list, i);
		if (ret_config && !strcmp(str_of(d, "mediaType"), SPEC_BUILDKIT_CACHE_CONFIG)) {
			*ret_config = d;
			continue;
		}
		struct cache_blob b, *copy;
		if (map_has(blobs, str_of(d, "digest")) || !blob_of(d, &b)) continue;
		copy = xnew(struct cache_blob);
		*copy = b;
		map_put(blobs, b.digest, copy);
	}
	return 0;
}

static int read_config(struct remote_place *p, const struct remote_docs *docs, const json_t *desc, const struct map *blobs,
		       struct cache_graph *g, struct err *e)
{
	_cleanup_buf_ struct buf config = BUF_MAX(CACHE_CONFIG_MAX);
	struct reg_desc d = {(char *)str_of(desc, "digest"), (char *)str_of(desc, "mediaType"),
			     json_integer_value(json_object_get(desc, "size"))};
	if (d.size > CACHE_CONFIG_MAX)
		return err_set(e, CODE_UNKNOWN, "blob %s is too large (%lld > %d)", d.digest, (long long)d.size,
			       CACHE_CONFIG_MAX);
	if (docs->get(p, &d, CACHE_CONFIG_MAX, &config, e) < 0) return -1;
	return cache_config_parse(config.p, config.n, blobs, g, e);
}

/* When and by what each layer was made, from the history. */
static void history(const json_t *config, struct cache_blob *layers, size_t n)
{
	const json_t *list = json_object_get(config, "history");
	size_t at = 0;
	for (size_t i = 0; i < json_array_size(list) && at < n; i++) {
		const json_t *h = json_array_get(list, i);
		if (json_is_true(json_object_get(h, "empty_layer"))) continue;
		const char *created = str_of(h, "created"), *by = str_of(h, "created_by");
		struct cache_blob *l = &layers[at++];
		if (*created) strvec_env_set(&l->annotations, label_created, created);
		if (time_parse_rfc3339(created, &l->created, NULL) < 0) l->created = (struct timespec){0};
		if (*by) strvec_env_set(&l->annotations, label_description, by);
	}
}

static int image_layers(const json_t *manifest, const json_t *config, struct cache_blob **ret, size_t *ret_n)
{
	const json_t *layers = json_object_get(manifest, "layers"),
		     *ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids");
	size_t n = json_array_size(layers);
	if (!n || n > CACHE_LAYERS_MAX || json_array_size(ids) != n) return -1;
	struct cache_blob *v = xcalloc(n, sizeof *v);
	*ret = v;
	*ret_n = n;
	for (size_t i = 0; i < n; i++) {
		const char *id = json_string_value(json_array_get(ids, i));
		if (!digest_valid(id) || !blob_of(json_array_get(layers, i), &v[i])) return -1;
		v[i].diff_id = (char *)id;
		strvec_env_set(&v[i].annotations, label_diff_id, id);
	}
	history(config, v, n);
	return 0;
}

/* An image's own cache. One without it is no error. */
static int read_inline(struct remote_place *p, const struct remote_docs *docs, const json_t *manifest, struct cache_graph *g,
		       struct err *e)
{
	const json_t *cd = json_object_get(manifest, "config");
	struct reg_desc d = {(char *)str_of(cd, "digest"), (char *)str_of(cd, "mediaType"),
			     json_integer_value(json_object_get(cd, "size"))};
	_cleanup_buf_ struct buf text = BUF_MAX(CONFIG_MAX), records = BUF_MAX(CACHE_CONFIG_MAX);
	if (!*d.digest || !json_array_size(json_object_get(manifest, "layers"))) return 0;
	if (docs->get(p, &d, CONFIG_MAX, &text, e) < 0) return -1;
	_cleanup_json_ json_t *config = parse(text.p, text.n, "the image config", e);
	if (!config) return -1;
	const char *cache = str_of(config, "moby.buildkit.cache.v0");
	struct cache_blob *layers = NULL;
	size_t n = 0;
	int r = 0;
	if (*cache && image_layers(manifest, config, &layers, &n) >= 0) {
		if (base64_decode(cache, strlen(cache), &records, e) < 0 || records.overflow)
			r = err_set(e, CODE_INVALID_ARGUMENT, "the inline cache of the image is not base64, or too large");
		else
			r = cache_inline_parse(records.p, records.n, layers, n, g, e);
	}
	for (size_t i = 0; i < n; i++) strvec_fini(&layers[i].annotations);
	free(layers);
	return r;
}

static int read_images(struct remote_place *p, const struct remote_docs *docs, const json_t *j, size_t *budget, int depth,
		       struct cache_graph *g, struct err *e)
{
	const json_t *list = json_object_get(j, "manifests");
	if (!list) return read_inline(p, docs, j, g, e);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *m = json_array_get(list, i);
		struct reg_desc d = {(char *)str_of(m, "digest"), (char *)str_of(m, "mediaType"),
				     json_integer_value(json_object_get(m, "size"))};
		_cleanup_buf_ struct buf body = BUF_MAX(REG_MANIFEST_MAX);
		if (!*budget || depth == 4) return 0;
		--*budget;
		if (docs->get(p, &d, REG_MANIFEST_MAX, &body, e) < 0) return -1;
		_cleanup_json_ json_t *child = parse(body.p, body.n, "the manifest", e);
		if (!child || read_images(p, docs, child, budget, depth + 1, g, e) < 0) return -1;
	}
	return 0;
}

static const char *type_of(const json_t *j)
{
	const char *said = str_of(j, "mediaType");
	if (*said) return said;
	if (json_object_get(j, "manifests")) return SPEC_OCI_INDEX;
	return json_object_get(j, "config") ? SPEC_OCI_MANIFEST : "";
}

int remote_manifest_read(struct remote_place *p, const struct remote_docs *docs, const struct buf *manifest,
			 struct cache_graph *g, struct err *e)
{
	_cleanup_json_ json_t *j = parse(manifest->p, manifest->n, "the cache manifest", e);
	struct map blobs = {0};
	const json_t *config = NULL;
	if (!j) return -1;
	const char *type = type_of(j);
	if (!spec_media_is_index(type) && !spec_media_is_manifest(type))
		return err_set(e, CODE_UNKNOWN, "unsupported or uninferrable manifest type %.100s", type);
	remote_note(p, true, "inferred cache manifest type: %s", type);
	int r;
	if (spec_media_is_index(type)) {
		r = list_blobs(json_object_get(j, "manifests"), &blobs, &config, e);
	} else {
		const json_t *c = json_object_get(j, "config");
		if (!strcmp(str_of(c, "mediaType"), SPEC_BUILDKIT_CACHE_CONFIG)) config = c;
		r = list_blobs(json_object_get(j, "layers"), &blobs, NULL, e);
	}
	size_t budget = MANIFESTS_MAX;
	if (r >= 0) r = config ? read_config(p, docs, config, &blobs, g, e) : read_images(p, docs, j, &budget, 0, g, e);
	blobs_free(&blobs);
	return r;
}

/* ---- writing ---- */

int remote_manifest_check(const struct remote_place *p, struct err *e)
{
	if (!p->image_manifest || p->oci) return 0;
	return err_set(e, CODE_UNKNOWN,
		       "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format");
}

static void put_desc(struct json_w *w, const char *type, const char *digest, int64_t size, const struct strvec *annotations)
{
	json_obj(w);
	json_kstr(w, "mediaType", type);
	json_kstr(w, "digest", digest);
	json_kint(w, "size", size);
	if (annotations && annotations->n) {
		_cleanup_strvec_ struct strvec sorted = {0};
		strvec_copy(&sorted, annotations->v, annotations->n);
		strvec_sort(&sorted);
		json_key(w, "annotations");
		json_obj(w);
		for (size_t i = 0; i < sorted.n; i++) {
			char *eq = strchr(sorted.v[i], '=');
			*eq = 0;
			json_kstr(w, sorted.v[i], eq + 1);
		}
		json_obj_end(w);
	}
	json_obj_end(w);
}

static void put_layers(struct json_w *w, const struct remote_place *p, const struct cache_graph *g, const size_t *blobs,
		       size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct cache_blob *b = cache_graph_blob_at(g, blobs[i]);
		put_desc(w, spec_media_convert_layer(b->media_type, p->oci), b->digest, b->size, &b->annotations);
	}
}

int remote_manifest_make(struct remote_place *p, struct cache_graph *g, struct remote_manifest *ret, struct err *e)
{
	size_t *blobs, n;
	cache_config_write(g, false, &ret->config, &blobs, &n);
	digest_str_of(ret->config.p, ret->config.n, ret->config_digest);
	ret->media_type = p->image_manifest ? SPEC_OCI_MANIFEST : spec_media_index(p->oci);
	struct json_w w = JSON_W(&ret->body);
	json_obj(&w);
	json_kint(&w, "schemaVersion", 2);
	json_kstr(&w, "mediaType", ret->media_type);
	if (p->image_manifest) {
		json_key(&w, "config");
		put_desc(&w, SPEC_BUILDKIT_CACHE_CONFIG, ret->config_digest, (int64_t)ret->config.n, NULL);
	}
	json_key(&w, p->image_manifest ? "layers" : "manifests");
	json_arr(&w);
	put_layers(&w, p, g, blobs, n);
	if (!p->image_manifest) put_desc(&w, SPEC_BUILDKIT_CACHE_CONFIG, ret->config_digest, (int64_t)ret->config.n, NULL);
	json_arr_end(&w);
	json_obj_end(&w);
	free(blobs);
	digest_str_of(ret->body.p, ret->body.n, ret->digest);
	if (!n) remote_note(p, true, "skipping cache export for empty result");
	return n > 0;
}

void remote_manifest_response(const struct remote_manifest *m, struct strvec *response)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	put_desc(&w, m->media_type, m->digest, (int64_t)m->body.n, NULL);
	strvec_addf(response, "cache.manifest=%s", buf_str(&b));
}

void remote_manifest_fini(struct remote_manifest *m)
{
	buf_fini(&m->config);
	buf_fini(&m->body);
}
