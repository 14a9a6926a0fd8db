#include "ship/attest_sbom_job.h"
#include "ship/image_job.h"
#include "ship/oci_tar.h"
#include "ship/purl.h"

#include <string.h>

static void copy_digest(char dst[static DIGEST_STR], const char *src)
{
	memcpy(dst, src, DIGEST_STR);
}

static struct ship_kv *annotations_of(const struct strvec *sv)
{
	struct ship_kv *kv = xcalloc(sv->n, sizeof *kv);
	for (size_t i = 0; i < sv->n; i++) {
		char *eq = strchr(sv->v[i], '=');
		if (eq) *eq = 0;
		kv[i] = (struct ship_kv){sv->v[i], eq ? eq + 1 : ""};
	}
	return kv;
}

static struct ship_layer *layers_of(const struct image_ref_info *ref)
{
	struct ship_layer *v = xcalloc(ref->n_layers, sizeof *v);
	for (size_t i = 0; i < ref->n_layers; i++) {
		struct image_layer_info *l = &ref->layers[i];
		v[i] = (struct ship_layer){.media_type = l->media_type, .size = l->size, .has_created = true, .created = l->created, .created_by = l->description};
		copy_digest(v[i].digest, l->digest);
		copy_digest(v[i].diff_id, l->diff_id);
		v[i].annotations = annotations_of(&l->annotations);
		v[i].n_annotations = l->annotations.n;
		char **urls = xcalloc(l->annotations.n + 1, sizeof *urls);
		for (size_t k = 0; k < v[i].n_annotations; k++)
			if (!strcmp(v[i].annotations[k].key, SHIP_LAYER_URL)) urls[v[i].n_urls++] = (char *)v[i].annotations[k].value;
		v[i].urls = urls;
	}
	return v;
}

static void layers_free(struct ship_layer *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((void *)v[i].annotations);
		free((void *)v[i].urls);
	}
	free(v);
}

static int make_one(struct image_job *j, const struct image_ref_info *ref, struct ship_desc *ret, struct err *e)
{
	_cleanup_buf_ struct buf config = BUF_INIT, manifest = BUF_INIT;
	struct ship_layer *layers = layers_of(ref);
	struct ship_image img = {
		.layers = layers,
		.n_layers = ref->n_layers,
		.no_ref = ref->scratch,
		.config = ref->config ? (const char *)ref->config->data : NULL,
		.n_config = ref->config ? ref->config->len : 0,
		.base_config = ref->base_config ? (const char *)ref->base_config->data : NULL,
		.n_base_config = ref->base_config ? ref->base_config->len : 0,
		.platform = &ref->platform,
		.epoch = ref->has_epoch ? &ref->epoch : NULL,
		.inline_cache = ref->inline_cache.n ? ref->inline_cache.p : NULL,
		.n_inline_cache = ref->inline_cache.n,
		.docker_types = j->docker_types,
		.keep_nondist = j->keep_nondist,
		.annotations = ref->annotations,
		.n_annotations = ref->n_annotations,
	};
	char config_digest[DIGEST_STR], digest[DIGEST_STR];
	int r = -1;
	if (ship_image_config(&img, &config, e) >= 0 && blob_put(j->blobs, config.p, config.n, config_digest, e) >= 0 &&
	    ship_image_manifest(&img, config_digest, (int64_t)config.n, &manifest, e) >= 0 &&
	    blob_put(j->blobs, manifest.p, manifest.n, digest, e) >= 0)
		r = 0;
	layers_free(layers, ref->n_layers);
	if (r < 0) return -1;
	strvec_addf(&j->made, "exporting manifest %s", digest);
	strvec_addf(&j->made, "exporting config %s", config_digest);
	copy_digest(j->config_digest, config_digest);
	*ret = (struct ship_desc){.media_type = spec_media_manifest(!j->docker_types), .size = (int64_t)manifest.n, .platform = &ref->platform,
				  .annotations = ref->desc_annotations, .n_annotations = ref->n_desc_annotations};
	copy_digest(ret->digest, digest);
	return 0;
}

/* ---- attestations: one manifest a platform that has any ---- */

static struct ship_subject *self_subjects(const struct image_job *j, const struct image_ref_info *ref, const struct ship_desc *target,
					  struct strvec *keep, struct err *e)
{
	struct ship_subject *v = xcalloc(j->names.n + 1, sizeof *v);
	for (size_t i = 0; i < j->names.n; i++) {
		char *name = ship_purl("docker", j->names.v[i], &ref->platform, NULL, 0, e);
		if (!name) {
			free(v);
			return NULL;
		}
		strvec_take(keep, name);
		v[i].name = name;
		copy_digest(v[i].digest, target->digest);
	}
	return v;
}

static int put_statements(struct image_job *j, const struct image_ref_info *ref, const struct attest_outs *outs, const struct ship_desc *target,
			  struct ship_statement *st, struct err *e)
{
	_cleanup_strvec_ struct strvec keep = {0};
	struct ship_subject *self = self_subjects(j, ref, target, &keep, e);
	int r = self ? 0 : -1;
	for (size_t i = 0; i < outs->n && r == 0; i++) {
		_cleanup_buf_ struct buf text = BUF_INIT;
		r = attest_job_statement(&outs->v[i], self, j->names.n, false, &text, e);
		if (r == 0) r = blob_put(j->blobs, text.p, text.n, st[i].digest, e);
		st[i].size = (int64_t)text.n;
		st[i].predicate_type = outs->v[i].predicate_type;
	}
	free(self);
	return r < 0 ? -1 : 0;
}

/* 1: there is one, and ret describes it; its annotations are in kv. */
static int make_attestation(struct image_job *j, const struct image_ref_info *ref, const struct ship_desc *target, struct ship_desc *ret,
			    struct ship_kv kv[static 2], struct err *e)
{
	struct attest_outs outs = {0};
	bool any = false;
	for (size_t i = 0; ref->platform_id && i < j->n_attests; i++) any |= !strcmp(j->attests[i]->key, ref->platform_id);
	if (!any) return 0;
	_cleanup_buf_ struct buf config = BUF_INIT, manifest = BUF_INIT;
	struct ship_statement *st = NULL;
	char digest[DIGEST_STR];
	int r = attest_job_read(j->attests, j->n_attests, ref->platform_id, false, &outs, e);
	for (size_t i = 0; i < outs.n && r == 0; i++) r = attest_sbom_supplement(&outs.v[i], j->blobs, ref, e);
	if (r == 0) {
		st = xcalloc(outs.n + 1, sizeof *st);
		r = put_statements(j, ref, &outs, target, st, e);
	}
	if (r == 0) r = ship_attestation(target, st, outs.n, j->artifact, j->docker_types, &config, &manifest, e);
	if (r == 0) r = blob_put(j->blobs, config.p, config.n, NULL, e);
	if (r == 0) r = blob_put(j->blobs, manifest.p, manifest.n, digest, e);
	free(st);
	attest_outs_fini(&outs);
	if (r < 0) return -1;
	strvec_addf(&j->made, "exporting attestation manifest %s", digest);
	ship_attestation_annotations(target, kv);
	*ret = (struct ship_desc){.media_type = spec_media_manifest(!j->docker_types), .size = (int64_t)manifest.n,
				  .platform = ship_unknown_platform(), .annotations = kv, .n_annotations = 2};
	copy_digest(ret->digest, digest);
	return 1;
}

static int add_attestations(struct image_job *j, struct ship_desc *descs, struct ship_kv (*kv)[2], size_t *n, struct err *e)
{
	if (j->n_attests && j->docker_types) return err_set(e, CODE_UNKNOWN, "cannot export attestations with \"oci-mediatypes=false\"");
	for (size_t i = 0; i < j->n_refs; i++) {
		int r = make_attestation(j, &j->refs[i], &descs[i], &descs[*n], kv[i], e);
		if (r < 0) return -1;
		*n += (size_t)r;
	}
	return 0;
}

static int make_index(struct image_job *j, struct ship_desc *descs, size_t n, struct ship_desc *ret, struct err *e)
{
	_cleanup_buf_ struct buf index = BUF_INIT;
	char digest[DIGEST_STR];
	if (ship_index(descs, n, j->index_annotations, j->n_index_annotations, j->docker_types, &index, e) < 0 || blob_put(j->blobs, index.p, index.n, digest, e) < 0) return -1;
	strvec_addf(&j->made, "exporting manifest list %s", digest);
	*ret = (struct ship_desc){.media_type = spec_media_index(!j->docker_types), .size = (int64_t)index.n};
	copy_digest(ret->digest, digest);
	return 0;
}

/* Which moment the image counts as made at: the epoch, else now. */
static void created_text(const struct image_job *j, char out[static TIME_STR])
{
	struct timespec t = j->refs[0].has_epoch ? j->refs[0].epoch : (struct timespec){time_now().tv_sec, 0};
	time_rfc3339nano(t, out);
}

static int make(struct image_job *j, struct ship_desc *ret, struct err *e)
{
	struct ship_desc *descs = xcalloc(j->n_refs * 2, sizeof *descs);
	struct ship_kv(*kv)[2] = xcalloc(j->n_refs, sizeof *kv);
	size_t n = j->n_refs;
	int r = 0;
	for (size_t i = 0; i < j->n_refs && r == 0; i++) r = make_one(j, &j->refs[i], &descs[i], e);
	if (r == 0) {
		if (j->is_map) r = add_attestations(j, descs, kv, &n, e);
		if (r == 0 && j->is_map)
			r = make_index(j, descs, n, ret, e);
		else if (r == 0)
			*ret = descs[0];
	}
	free(kv);
	free(descs);
	return r;
}

/* The annotations of the whole's descriptor: those that were asked for, and of an archive the moment of creation. Heap. */
static struct ship_kv *root_annotations(const struct image_job *j, char *created, size_t *ret_n)
{
	const struct ship_kv *own = j->is_map ? j->index_desc_annotations : j->refs[0].desc_annotations;
	size_t n = j->is_map ? j->n_index_desc_annotations : j->refs[0].n_desc_annotations;
	struct ship_kv *v = xcalloc(n + 1, sizeof *v);
	size_t dated = j->dated;
	if (dated) {
		created_text(j, created);
		v[0] = (struct ship_kv){"org.opencontainers.image.created", created};
	}
	if (n) memcpy(v + dated, own, n * sizeof *v);
	*ret_n = n + dated;
	return v;
}

void image_job_make(struct image_job *j)
{
	struct ship_desc root;
	char created[TIME_STR];
	if (make(j, &root, &j->error) < 0) return;
	copy_digest(j->digest, root.digest);
	_cleanup_free_ struct ship_kv *kv = root_annotations(j, created, &root.n_annotations);
	root.annotations = kv;
	ship_desc_json(&root, &j->descriptor);
}

static int64_t blob_size(const struct image_job *j, const char *digest)
{
	int64_t n = 0;
	blob_stat(j->blobs, digest, &n, NULL);
	return n;
}

struct ship_desc image_job_root(const struct image_job *j)
{
	struct ship_desc root = {.media_type = j->is_map ? spec_media_index(!j->docker_types) : spec_media_manifest(!j->docker_types),
				 .size = blob_size(j, j->digest)};
	copy_digest(root.digest, j->digest);
	return root;
}

void image_job_archive(struct image_job *j)
{
	char created[TIME_STR];
	struct ship_desc root = image_job_root(j);
	_cleanup_free_ struct ship_kv *kv = root_annotations(j, created, &root.n_annotations);
	root.annotations = kv;
	if (!j->is_map) root.platform = &j->refs[0].platform;
	struct ship_archive a = {.store = j->blobs, .root = &root, .names = j->names.v, .n_names = j->names.n, .docker = j->docker_archive,
				 .cancelled = j->cancelled};
	ship_archive_write(&a, j->out, &j->error);
}

const char *image_job_mount_source(const struct image_job *j, const char *digest, const struct spec_ref *to)
{
	for (size_t i = 0; i < j->n_refs; i++)
		for (size_t k = 0; k < j->refs[i].n_layers; k++) {
			const struct image_layer_info *l = &j->refs[i].layers[k];
			size_t n = strlen(to->domain);
			if (strcmp(l->digest, digest) || !l->mount_from || strncmp(l->mount_from, to->domain, n) || l->mount_from[n] != '/') continue;
			const char *path = l->mount_from + n + 1;
			return strcmp(path, to->path) ? path : NULL;
		}
	return NULL;
}

void image_job_fini(struct image_job *j)
{
	for (size_t i = 0; i < j->n_refs; i++) {
		struct image_ref_info *r = &j->refs[i];
		for (size_t k = 0; k < r->n_layers; k++) {
			free(r->layers[k].media_type);
			free(r->layers[k].description);
			free(r->layers[k].mount_from);
			strvec_fini(&r->layers[k].annotations);
		}
		free(r->layers);
		buf_fini(&r->inline_cache);
		free(r->annotations);
		free(r->desc_annotations);
		spec_platform_fini(&r->platform);
	}
	free(j->refs);
	free(j->index_annotations);
	free(j->index_desc_annotations);
	strvec_fini(&j->names);
	strvec_fini(&j->made);
	buf_fini(&j->descriptor);
	err_fini(&j->error);
}
