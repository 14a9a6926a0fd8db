/* The archives of the oci and docker exporters.
 *
 * First the tree of blobs is walked from the root by reading manifests and indexes (bounded), which gives the list of
 * records; then the records are written in the order of their names, each once. Blobs are copied in chunks and hashed on
 * the way, so a damaged store is found out before the client keeps the file.
 * What kind a blob is follows from its descriptor's media type alone; only manifests and indexes are opened. */
#include "ship/oci_tar.h"
#include <jansson.h>
#include <inttypes.h>
#include <string.h>

enum { MANIFEST_MAX = 16 << 20, DEPTH_MAX = 16, BLOBS_MAX = 100000 };

struct record {
	char *name;
	uint32_t mode;
	char *digest; /* a blob's; NULL: text or a directory */
	struct buf text;
	int64_t size;
	bool is_dir;
};
struct records {
	VEC(struct record) v;
};

static void records_fini(struct records *r)
{
	for (size_t i = 0; i < r->v.n; i++) {
		free(r->v.v[i].name);
		free(r->v.v[i].digest);
		buf_fini(&r->v.v[i].text);
	}
	vec_fini(&r->v);
}

static char *blob_name(const char *digest) { return xasprintf("blobs/sha256/%s", digest + strlen("sha256:")); }

/* ---- the tree of blobs ---- */
void ship_blobs_fini(struct ship_blobs *b)
{
	strvec_fini(&b->digests);
	strvec_fini(&b->media_types);
	vec_fini(&b->sizes);
}

static json_t *load(const struct blob_store *s, const char *digest, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	json_error_t why;
	if (blob_read(s, digest, MANIFEST_MAX, &p, &n, e) < 0) return NULL;
	json_t *doc = json_loadb((char *)p, n, JSON_ALLOW_NUL, &why);
	if (!doc) err_set(e, CODE_INVALID_ARGUMENT, "manifest %s: %s", digest, why.text);
	return doc;
}

struct walk {
	const struct blob_store *s;
	struct ship_blobs *out;
	int depth;
};

static int walk_one(struct walk *w, const char *digest, const char *type, int64_t size, struct err *e);

static int walk_desc(struct walk *w, const json_t *d, struct err *e)
{
	const char *digest = json_string_value(json_object_get(d, "digest"));
	const char *type = json_string_value(json_object_get(d, "mediaType"));
	const json_t *size = json_object_get(d, "size");
	/* A layer that may not be passed on is to be had where its descriptor says. */
	if (type && spec_media_is_nondist(type) && json_array_size(json_object_get(d, "urls"))) return 0;
	if (!digest || !type || !json_is_integer(size) || json_integer_value(size) < 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "a descriptor without mediaType, digest or size");
	return walk_one(w, digest, type, json_integer_value(size), e);
}

static int walk_list(struct walk *w, const json_t *list, struct err *e)
{
	size_t i;
	json_t *d;
	json_array_foreach(list, i, d)
	{
		if (walk_desc(w, d, e) < 0) return -1;
	}
	return 0;
}

static int walk_children(struct walk *w, const char *digest, bool index, struct err *e)
{
	json_t *doc = load(w->s, digest, e);
	if (!doc) return -1;
	int r;
	w->depth++;
	if (index) {
		r = walk_list(w, json_object_get(doc, "manifests"), e);
	} else {
		r = walk_desc(w, json_object_get(doc, "config"), e);
		if (r == 0) r = walk_list(w, json_object_get(doc, "layers"), e);
	}
	w->depth--;
	json_decref(doc);
	return r < 0 ? err_wrap(e, "manifest %s", digest) : 0;
}

static int walk_one(struct walk *w, const char *digest, const char *type, int64_t size, struct err *e)
{
	struct digest checked;
	if (digest_parse(digest, &checked, e) < 0) return -1;
	if (w->depth > DEPTH_MAX || w->out->digests.n >= BLOBS_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "too many blobs in one image");
	bool index = spec_media_is_index(type);
	if ((index || spec_media_is_manifest(type)) && walk_children(w, digest, index, e) < 0) return -1;
	strvec_add(&w->out->digests, digest);
	strvec_add(&w->out->media_types, type);
	vec_push(&w->out->sizes, size);
	return 0;
}

int ship_blobs_walk(const struct blob_store *s, const struct ship_desc *root, struct ship_blobs *ret, struct err *e)
{
	struct walk w = {.s = s, .out = ret};
	return walk_one(&w, root->digest, root->media_type, root->size, e);
}

/* ---- the documents of the archive ---- */
static struct record *add_text(struct records *r, const char *name, uint32_t mode)
{
	struct record *rec = vec_add(&r->v);
	rec->name = xstrdup(name);
	rec->mode = mode;
	return rec;
}

/* What OCI calls the reference: the tag; the whole name when it has none. */
static const char *oci_ref_name(const char *name)
{
	const char *path = strchr(name, '/');
	const char *at = path ? path + strcspn(path, ":@") : "";
	return *at == ':' && at[1] ? at + 1 : name;
}

static void index_entry(const struct ship_archive *a, const char *name, struct json_w *w)
{
	size_t n = a->root->n_annotations;
	_cleanup_free_ struct ship_kv *kv = xcalloc(n + 2, sizeof *kv);
	if (n) memcpy(kv, a->root->annotations, n * sizeof *kv);
	if (name) {
		kv[n++] = (struct ship_kv){"io.containerd.image.name", name};
		kv[n++] = (struct ship_kv){"org.opencontainers.image.ref.name", oci_ref_name(name)};
	}
	struct ship_desc d = *a->root;
	d.annotations = kv;
	d.n_annotations = n;
	ship_desc_write(w, &d);
}

static void add_index(const struct ship_archive *a, struct records *r)
{
	struct json_w w = JSON_W(&add_text(r, "index.json", 0644)->text);
	json_obj(&w);
	json_kint(&w, "schemaVersion", 2);
	json_kstr(&w, "mediaType", SPEC_OCI_INDEX);
	json_key(&w, "manifests");
	json_arr(&w);
	for (size_t i = 0; i < a->n_names; i++) index_entry(a, a->names[i], &w);
	if (!a->n_names) index_entry(a, NULL, &w);
	json_arr_end(&w);
	json_obj_end(&w);
}

static int repo_tags(const struct ship_archive *a, struct json_w *w, struct err *e)
{
	json_key(w, "RepoTags");
	if (!a->n_names) {
		json_nil(w);
		return 0;
	}
	json_arr(w);
	for (size_t i = 0; i < a->n_names; i++) {
		_cleanup_spec_ref_ struct spec_ref ref = {0};
		if (spec_ref_parse_tagged(a->names[i], &ref, e) < 0) return err_wrap(e, "failed to parse \"%s\"", a->names[i]);
		_cleanup_free_ char *familiar = spec_ref_familiar(&ref);
		json_str(w, familiar);
	}
	json_arr_end(w);
	return 0;
}

static void path_value(struct json_w *w, const char *digest)
{
	_cleanup_free_ char *path = blob_name(digest);
	json_str(w, path);
}

/* blobs: what the walk of the root manifest gave: config, layers, the manifest itself. */
static int add_docker_manifest(const struct ship_archive *a, const struct ship_blobs *blobs, struct records *r, struct err *e)
{
	struct json_w w = JSON_W(&add_text(r, "manifest.json", 0644)->text);
	size_t n = blobs->digests.n;
	json_arr(&w);
	json_obj(&w);
	json_key(&w, "Config");
	path_value(&w, blobs->digests.v[0]);
	if (repo_tags(a, &w, e) < 0) return -1;
	json_key(&w, "Layers");
	if (n > 2)
		json_arr(&w);
	else
		json_nil(&w);
	for (size_t i = 1; i + 1 < n; i++) path_value(&w, blobs->digests.v[i]);
	if (n > 2) json_arr_end(&w);
	json_obj_end(&w);
	json_arr_end(&w);
	return 0;
}

static void add_blobs(const struct ship_blobs *blobs, struct records *r)
{
	for (size_t i = 0; i < blobs->digests.n; i++) {
		struct record *rec = vec_add(&r->v);
		rec->name = blob_name(blobs->digests.v[i]);
		rec->digest = xstrdup(blobs->digests.v[i]);
		rec->size = blobs->sizes.v[i];
		rec->mode = 0444;
	}
	add_text(r, "blobs/", 0755)->is_dir = true;
	add_text(r, "blobs/sha256/", 0755)->is_dir = true;
}

/* ---- writing ---- */
static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct record *)a)->name, ((const struct record *)b)->name);
}

static int copy_blob(const struct ship_archive *a, const struct record *rec, struct tar_writer *w, struct err *e)
{
	enum { CHUNK = 256 * 1024 };
	_cleanup_close_ int fd = blob_open(a->store, rec->digest, e);
	if (fd < 0) return -1;
	_cleanup_free_ uint8_t *buf = xmalloc(CHUNK);
	char digest[DIGEST_STR];
	_cleanup_(tar_tee_fini) struct tar_tee t = {.in = tar_in_fd(&fd)};
	tar_tee_init(&t);
	struct tar_in in = tar_tee_in(&t);
	ssize_t n;
	while ((n = in.read(in.ctx, buf, CHUNK, e)) > 0) {
		if (a->cancelled && atomic_load(a->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		if (t.bytes > rec->size) break;
		if (tar_write_data(w, buf, (size_t)n, e) < 0) return -1;
	}
	if (n < 0) return -1;
	if (t.bytes != rec->size)
		return err_set(e, CODE_DATA_LOSS, "blob %s does not have its %" PRId64 " bytes", rec->digest, rec->size);
	tar_tee_final(&t, digest);
	return strcmp(digest, rec->digest)
		       ? err_set(e, CODE_DATA_LOSS, "blob %s: its content has digest %s", rec->digest, digest)
		       : 0;
}

static int write_record(const struct ship_archive *a, const struct record *rec, struct tar_writer *w, struct err *e)
{
	struct tar_entry t = {.name = rec->name, .mode = rec->mode, .type = rec->is_dir ? TAR_DIR : TAR_REG};
	t.size = rec->digest ? rec->size : (int64_t)rec->text.n;
	if (tar_write_header(w, &t, e) < 0) return -1;
	return rec->digest ? copy_blob(a, rec, w, e) : tar_write_data(w, rec->text.p, rec->text.n, e);
}

int ship_archive_write(const struct ship_archive *a, struct tar_out out, struct err *e)
{
	_cleanup_ship_blobs_ struct ship_blobs blobs = {0};
	_cleanup_(records_fini) struct records r = {0};
	bool manifest = spec_media_is_manifest(a->root->media_type);
	if (!manifest && !spec_media_is_index(a->root->media_type))
		return err_set(e, CODE_INVALID_ARGUMENT, "only manifests may be exported");
	if (ship_blobs_walk(a->store, a->root, &blobs, e) < 0) return -1;
	buf_adds(&add_text(&r, "oci-layout", 0444)->text, "{\"imageLayoutVersion\":\"1.0.0\"}");
	add_blobs(&blobs, &r);
	add_index(a, &r);
	if (a->docker && manifest && add_docker_manifest(a, &blobs, &r, e) < 0) return -1;
	qsort(r.v.v, r.v.n, sizeof *r.v.v, by_name);
	_cleanup_tar_writer_ struct tar_writer *w = tar_writer_new(out);
	for (size_t i = 0; i < r.v.n; i++) {
		if (i && !strcmp(r.v.v[i].name, r.v.v[i - 1].name)) continue;
		if (write_record(a, &r.v.v[i], w, e) < 0) return -1;
	}
	return tar_writer_finish(w, e);
}
