/* Descriptors, manifests and indexes as JSON. Each document is one table-like writer in the order of the Go struct. */
#include "ship/manifest.h"
#include "ship/rawjson.h"
#include <string.h>

#define EMPTY_DIGEST "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" /* of {} */

static int by_key(const void *a, const void *b)
{
	return strcmp((*(const struct ship_kv *const *)a)->key, (*(const struct ship_kv *const *)b)->key);
}

void ship_annotations_write(struct json_w *w, const char *key, const struct ship_kv *kv, size_t n)
{
	if (!n) return;
	_cleanup_free_ const struct ship_kv **sorted = xreallocarray(NULL, n, sizeof *sorted);
	size_t k = 0;
	for (size_t i = 0; i < n; i++) {
		bool again = false;
		for (size_t j = i + 1; j < n && !again; j++) again = !strcmp(kv[i].key, kv[j].key);
		if (!again) sorted[k++] = &kv[i];
	}
	qsort(sorted, k, sizeof *sorted, by_key);
	json_key(w, key);
	json_obj(w);
	for (size_t i = 0; i < k; i++) json_kstr(w, sorted[i]->key, sorted[i]->value);
	json_obj_end(w);
}

static void platform_write(struct json_w *w, const struct spec_platform *p)
{
	json_obj(w);
	json_kstr(w, "architecture", p->arch);
	json_kstr(w, "os", p->os);
	json_kstr_omit(w, "os.version", p->os_version);
	json_kstrs_omit(w, "os.features", p->os_features.v, p->os_features.n);
	json_kstr_omit(w, "variant", p->variant);
	json_obj_end(w);
}

void ship_desc_write(struct json_w *w, const struct ship_desc *d)
{
	json_obj(w);
	json_kstr(w, "mediaType", d->media_type);
	json_kstr(w, "digest", d->digest);
	json_kint(w, "size", d->size);
	json_kstrs_omit(w, "urls", d->urls, d->n_urls);
	ship_annotations_write(w, "annotations", d->annotations, d->n_annotations);
	if (d->n_data) {
		json_key(w, "data");
		json_base64(w, d->data, d->n_data);
	}
	if (d->platform) {
		json_key(w, "platform");
		platform_write(w, d->platform);
	}
	json_kstr_omit(w, "artifactType", d->artifact_type);
	json_obj_end(w);
}

void ship_desc_json(const struct ship_desc *d, struct buf *ret)
{
	struct json_w w = JSON_W(ret);
	ship_desc_write(&w, d);
}

static bool internal_annotation(const char *key)
{
	return !strcmp(key, "containerd.io/uncompressed") || !strcmp(key, SHIP_LAYER_URL) || !strcmp(key, "buildkit/createdat") ||
	       str_starts(key, "containerd.io/distribution.source.");
}

struct ship_desc ship_layer_desc(const struct ship_image *img, const struct ship_layer *l)
{
	const char *type = img->keep_nondist ? l->media_type : spec_media_distributable(l->media_type);
	struct ship_desc d = {.media_type = spec_media_convert_layer(type, !img->docker_types),
			      .size = l->size};
	if (spec_media_is_nondist(type)) {
		d.urls = l->urls;
		d.n_urls = l->n_urls;
	}
	memcpy(d.digest, l->digest, sizeof d.digest);
	if (img->docker_types || !l->n_annotations) return d;
	struct ship_kv *kept = xreallocarray(NULL, l->n_annotations, sizeof *kept);
	for (size_t i = 0; i < l->n_annotations; i++)
		if (!internal_annotation(l->annotations[i].key)) kept[d.n_annotations++] = l->annotations[i];
	d.annotations = kept;
	return d;
}

static void manifest_head(struct json_w *w, const char *type, const char *artifact_type)
{
	json_obj(w);
	json_kint(w, "schemaVersion", 2);
	json_kstr(w, "mediaType", type);
	json_kstr_omit(w, "artifactType", artifact_type);
}

int ship_image_manifest(const struct ship_image *img, const char *config_digest, int64_t config_size, struct buf *ret,
			struct err *e)
{
	struct digest checked;
	if (digest_parse(config_digest, &checked, e) < 0) return -1;
	struct json_w w = {.out = ret, .indent = "  "};
	struct ship_desc config = {.media_type = spec_media_config(!img->docker_types), .size = config_size};
	memcpy(config.digest, config_digest, sizeof config.digest);
	manifest_head(&w, spec_media_manifest(!img->docker_types), NULL);
	json_key(&w, "config");
	ship_desc_write(&w, &config);
	json_key(&w, "layers");
	if (img->n_layers)
		json_arr(&w);
	else
		json_nil(&w);
	for (size_t i = 0; i < img->n_layers; i++) {
		struct ship_desc d = ship_layer_desc(img, &img->layers[i]);
		ship_desc_write(&w, &d);
		free((void *)d.annotations);
	}
	if (img->n_layers) json_arr_end(&w);
	ship_annotations_write(&w, "annotations", img->annotations, img->n_annotations);
	json_obj_end(&w);
	return 0;
}

int ship_index(const struct ship_desc *manifests, size_t n, const struct ship_kv *annotations, size_t n_annotations,
	       bool docker_types, struct buf *ret, struct err *e)
{
	if (docker_types && n_annotations)
		return err_set(e, CODE_INVALID_ARGUMENT, "cannot export annotations with \"oci-mediatypes=false\"");
	struct json_w w = {.out = ret, .indent = "  "};
	manifest_head(&w, spec_media_index(!docker_types), NULL);
	json_key(&w, "manifests");
	if (n)
		json_arr(&w);
	else
		json_nil(&w);
	for (size_t i = 0; i < n; i++) ship_desc_write(&w, &manifests[i]);
	if (n) json_arr_end(&w);
	ship_annotations_write(&w, "annotations", annotations, n_annotations);
	json_obj_end(&w);
	return 0;
}

/* ---- attestations ---- */
const struct spec_platform *ship_unknown_platform(void)
{
	static char unknown[] = "unknown";
	static const struct spec_platform p = {.os = unknown, .arch = unknown};
	return &p;
}

static void attestation_config(const struct ship_statement *st, size_t n, struct buf *ret)
{
	struct json_w w = JSON_W(ret);
	json_obj(&w);
	json_kstr(&w, "architecture", "unknown");
	json_kstr(&w, "os", "unknown");
	json_key(&w, "config");
	json_obj(&w);
	json_obj_end(&w);
	json_key(&w, "rootfs");
	json_obj(&w);
	json_kstr(&w, "type", "layers");
	json_key(&w, "diff_ids");
	if (n)
		json_arr(&w);
	else
		json_nil(&w);
	for (size_t i = 0; i < n; i++) json_str(&w, st[i].digest);
	if (n) json_arr_end(&w);
	json_obj_end(&w);
	json_obj_end(&w);
}

static void statement_layers(struct json_w *w, const struct ship_statement *st, size_t n, bool docker_types)
{
	if (n)
		json_arr(w);
	else
		json_nil(w);
	for (size_t i = 0; i < n; i++) {
		struct ship_kv kv = {"in-toto.io/predicate-type", st[i].predicate_type};
		struct ship_desc d = {
			.media_type = SPEC_INTOTO, .size = st[i].size, .annotations = &kv, .n_annotations = !docker_types};
		memcpy(d.digest, st[i].digest, sizeof d.digest);
		ship_desc_write(w, &d);
	}
	if (n) json_arr_end(w);
}

int ship_attestation(const struct ship_desc *target, const struct ship_statement *st, size_t n, bool artifact,
		     bool docker_types, struct buf *ret_config, struct buf *ret_manifest, struct err *e)
{
	if (artifact && docker_types)
		return err_set(e, CODE_INVALID_ARGUMENT,
			       "exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"");
	struct ship_desc config = {.media_type = SPEC_OCI_EMPTY, .digest = EMPTY_DIGEST, .size = 2, .data = "{}", .n_data = 2};
	if (artifact) {
		buf_adds(ret_config, "{}");
	} else {
		size_t from = ret_config->n;
		attestation_config(st, n, ret_config);
		config = (struct ship_desc){.media_type = spec_media_config(!docker_types),
					    .size = (int64_t)(ret_config->n - from)};
		digest_str_of(ret_config->p + from, ret_config->n - from, config.digest);
	}
	struct json_w w = {.out = ret_manifest, .indent = "  "};
	manifest_head(&w, spec_media_manifest(!docker_types), artifact ? SPEC_DOCKER_ATTESTATION : NULL);
	json_key(&w, "config");
	ship_desc_write(&w, &config);
	json_key(&w, "layers");
	statement_layers(&w, st, n, docker_types);
	if (artifact) {
		struct ship_desc subject = {.media_type = target->media_type, .size = target->size};
		memcpy(subject.digest, target->digest, sizeof subject.digest);
		json_key(&w, "subject");
		ship_desc_write(&w, &subject);
	}
	json_obj_end(&w);
	return 0;
}

void ship_attestation_annotations(const struct ship_desc *target, struct ship_kv ret[static 2])
{
	ret[0] = (struct ship_kv){"vnd.docker.reference.type", "attestation-manifest"};
	ret[1] = (struct ship_kv){"vnd.docker.reference.digest", target->digest};
}

int ship_intoto_statement(const char *predicate_type, const struct ship_subject *subjects, size_t n, const char *predicate,
			  size_t n_predicate, bool indent, struct buf *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT, compact = BUF_INIT;
	if (n_predicate) {
		if (ship_raw_check(predicate, n_predicate, e) < 0) return err_wrap(e, "failed to marshal attestation");
		ship_raw_compact(predicate, n_predicate, &compact);
	}
	struct json_w w = JSON_W(&text);
	json_obj(&w);
	json_kstr(&w, "_type", "https://in-toto.io/Statement/v1");
	json_kstr(&w, "predicateType", predicate_type);
	json_key(&w, "subject");
	json_arr(&w);
	for (size_t i = 0; i < n; i++) {
		json_obj(&w);
		json_kstr(&w, "name", subjects[i].name);
		json_key(&w, "digest");
		json_obj(&w);
		const char *colon = strchr(subjects[i].digest, ':'); /* none: it has no digest */
		_cleanup_free_ char *algo = colon ? xstrndup(subjects[i].digest, (size_t)(colon - subjects[i].digest)) : NULL;
		if (colon) json_kstr(&w, algo, colon + 1);
		json_obj_end(&w);
		json_obj_end(&w);
	}
	json_arr_end(&w);
	json_key(&w, "predicate");
	if (compact.n)
		json_raw(&w, buf_str(&compact), compact.n);
	else
		json_nil(&w);
	json_obj_end(&w);
	if (indent)
		ship_raw_indent(buf_str(&text), text.n, ret);
	else
		buf_add(ret, text.p, text.n);
	return 0;
}
