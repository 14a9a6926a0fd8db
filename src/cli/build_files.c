/* Files that a build leaves or needs beside its result: the metadata file, index.json of OCI layouts and local caches.
 * Source: BuildKit client/ociindex, cmd/buildctl/build.go writeMetadataFile. */
#include "cli/build.h"
#include "spec/ref.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)
#define NAME_ANNOTATION "io.containerd.image.name"
#define REF_ANNOTATION "org.opencontainers.image.ref.name"
enum { INDEX_MAX = 16 << 20 };

/* ---- the metadata file ---- */
/* The value as JSON when it is base64 of an object. NULL: keep the text. */
static json_t *embedded(const char *v)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (!*v || strlen(v) % 4 || base64_decode(v, strlen(v), &b, NULL) < 0) return NULL;
	json_t *o = json_loadb(buf_str(&b), b.n, 0, NULL);
	if (json_is_object(o) && json_object_size(o) > 0) return o;
	json_decref(o);
	return NULL;
}

static void put_value(struct json_w *w, json_t *v)
{
	const char *k;
	json_t *x;
	size_t i;
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		json_obj(w);
		json_object_foreach(v, k, x)
		{
			json_key(w, k);
			put_value(w, x);
		}
		json_obj_end(w);
		break;
	case JSON_ARRAY:
		json_arr(w);
		json_array_foreach(v, i, x) put_value(w, x);
		json_arr_end(w);
		break;
	case JSON_STRING: json_strn(w, json_string_value(v), json_string_length(v)); break;
	default: {
		char *s = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
		if (s) json_raw(w, s, strlen(s));
		free(s);
	}
	}
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int build_write_metadata(const char *path, const struct strvec *response, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_strvec_ struct strvec sorted = {0};
	struct json_w w = JSON_W(&b);
	w.indent = "  ";
	strvec_copy(&sorted, response->v, response->n);
	if (sorted.n) qsort(sorted.v, sorted.n, sizeof *sorted.v, by_text);
	json_obj(&w);
	for (size_t i = 0; i < sorted.n; i++) {
		const char *eq = strchr(sorted.v[i], '=');
		_cleanup_free_ char *k = xstrndup(sorted.v[i], (size_t)(eq - sorted.v[i]));
		json_t *o = embedded(eq + 1);
		json_key(&w, k);
		if (o)
			put_value(&w, o);
		else
			json_str(&w, eq + 1);
		json_decref(o);
	}
	json_obj_end(&w);
	return path_write_file(AT_FDCWD, path, b.p, b.n, 0666, false, e);
}

/* ---- index.json ---- */
static json_t *read_index(const char *path, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	_cleanup_err_ struct err why = ERR_INIT;
	size_t n = 0;
	if (path_read_file(AT_FDCWD, path, INDEX_MAX, &p, &n, &why) < 0 && why.code != CODE_NOT_FOUND) {
		err_move(e, &why);
		return NULL;
	}
	if (n == 0) return json_object();
	json_t *o = json_loadb((const char *)p, n, 0, NULL);
	if (json_is_object(o)) return o;
	json_decref(o);
	BAD("could not unmarshal %s", path);
	return NULL;
}

static const char *annotation(json_t *desc, const char *key)
{
	const char *s = json_string_value(json_object_get(json_object_get(desc, "annotations"), key));
	return s ? s : "";
}

/* The reference part that containerd's exporter gives: the tag. */
static char *reference_name(const char *image)
{
	_cleanup_spec_ref_ struct spec_ref r = {0};
	if (spec_ref_parse_tagged(image, &r, NULL) == 0 && r.tag) return xstrdup(r.tag);
	return xstrdup(image);
}

static void insert(json_t *manifests, const char *descriptor_json, const char *name, bool is_tag)
{
	_cleanup_free_ char *ref = is_tag ? xstrdup(name) : reference_name(name);
	const char *image = is_tag ? "" : name;
	json_t *desc = json_loads(descriptor_json, 0, NULL), *notes = json_object_get(desc, "annotations");
	for (size_t i = json_array_size(manifests); i-- > 0;) {
		json_t *m = json_array_get(manifests, i);
		if (strcmp(annotation(m, REF_ANNOTATION), ref) == 0 && strcmp(annotation(m, NAME_ANNOTATION), image) == 0)
			json_array_remove(manifests, i);
	}
	if (!notes) json_object_set_new(desc, "annotations", notes = json_object());
	if (*image) json_object_set_new(notes, NAME_ANNOTATION, json_string(image));
	json_object_set_new(notes, REF_ANNOTATION, json_string(ref));
	json_array_append_new(manifests, desc);
}

/* Keys of an index and of its descriptors in the order of Go's structs; maps sorted. */
static void put_index(json_t *index, struct buf *out)
{
	static const char *const order[] = {"schemaVersion", "mediaType", "artifactType",
					    "manifests",     "subject",   "annotations"};
	static const char *const desc_order[] = {"mediaType",   "digest", "size",     "urls",
						 "annotations", "data",   "platform", "artifactType"};
	struct json_w w = JSON_W(out);
	json_obj(&w);
	for (size_t i = 0; i < array_len(order); i++) {
		json_t *v = json_object_get(index, order[i]), *m;
		size_t k;
		if (!v) continue;
		json_key(&w, order[i]);
		if (strcmp(order[i], "manifests") != 0) {
			put_value(&w, v);
			continue;
		}
		json_arr(&w);
		json_array_foreach(v, k, m)
		{
			json_obj(&w);
			for (size_t j = 0; j < array_len(desc_order); j++) {
				json_t *x = json_object_get(m, desc_order[j]);
				if (!x) continue;
				json_key(&w, desc_order[j]);
				if (strcmp(desc_order[j], "annotations") != 0) {
					put_value(&w, x);
					continue;
				}
				char *s = json_dumps(x, JSON_SORT_KEYS | JSON_COMPACT);
				if (s) json_raw(&w, s, strlen(s));
				free(s);
			}
			json_obj_end(&w);
		}
		json_arr_end(&w);
	}
	json_obj_end(&w);
}

static int write_index(const char *dir, const char *path, json_t *index, struct err *e)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	_cleanup_free_ char *layout_path = path_join(dir, "oci-layout");
	_cleanup_buf_ struct buf b = BUF_INIT;
	put_index(index, &b);
	if (path_write_file(AT_FDCWD, layout_path, layout, strlen(layout), 0644, false, e) < 0) return -1;
	return path_write_file(AT_FDCWD, path, b.p, b.n, 0644, false, e);
}

int build_index_put(const char *dir, const char *descriptor_json, const char *const *names, size_t n, bool are_tags,
		    struct err *e)
{
	_cleanup_free_ char *path = path_join(dir, "index.json"), *lock_path = xasprintf("%s.lock", path);
	_cleanup_close_ int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0) return err_sys(e, errno, "could not lock %s", lock_path);
	json_t *index = read_index(path, e), *manifests, *desc = json_loads(descriptor_json, 0, NULL);
	int rv = index ? 0 : -1;
	if (rv == 0 && !json_is_object(desc)) rv = BAD("the daemon's descriptor is no JSON object: %s", descriptor_json);
	json_decref(desc);
	if (rv == 0) {
		if (!json_object_get(index, "schemaVersion")) json_object_set_new(index, "schemaVersion", json_integer(2));
		if (!json_object_get(index, "mediaType"))
			json_object_set_new(index, "mediaType", json_string("application/vnd.oci.image.index.v1+json"));
		manifests = json_object_get(index, "manifests");
		if (!json_is_array(manifests)) json_object_set_new(index, "manifests", manifests = json_array());
		for (size_t i = 0; i < n; i++) insert(manifests, descriptor_json, names[i], are_tags);
		rv = write_index(dir, path, index, e);
	}
	json_decref(index);
	unlink(lock_path);
	return rv;
}

char *build_index_get(const char *dir, const char *tag, struct err *e)
{
	_cleanup_free_ char *path = path_join(dir, "index.json");
	if (access(path, R_OK) < 0) {
		err_sys(e, errno, "could not read %s", path);
		return NULL;
	}
	json_t *index = read_index(path, e), *m;
	char *digest = NULL;
	for (int turn = 0; turn < 2 && !digest; turn++) {
		size_t i;
		json_array_foreach(json_object_get(index, "manifests"), i,
				   m) if (!digest && strcmp(annotation(m, turn ? REF_ANNOTATION : NAME_ANNOTATION), tag) == 0)
			digest = xstrdup(json_string_value(json_object_get(m, "digest")));
	}
	if (!digest && index) BAD("no digest found for tag %s", tag);
	json_decref(index);
	return digest;
}

/* ---- local caches ---- */
static void add_store(struct build *b, const char *dir, const char *tag, const char *response_key)
{
	struct local_cache *s = vec_add(&b->stores);
	s->dir = xstrdup(dir);
	s->tag = xstrdup(tag);
	s->response_key = xstrdup(response_key);
}

static int offer_export(struct build *b, struct build_cache *x, struct err *e)
{
	const char *dest = strvec_env_get(&x->attrs, "dest"), *tag = strvec_env_get(&x->attrs, "tag");
	if (strcmp(x->type, "registry") == 0 && str_empty(strvec_env_get(&x->attrs, "ref")))
		return BAD("registry cache exporter requires ref");
	if (strcmp(x->type, "local") != 0) return 0;
	if (str_empty(dest)) return BAD("local cache exporter requires dest");
	if (path_mkdirs(dest, 0755, e) < 0) return -1;
	_cleanup_free_ char *id = xasprintf("local:%s", dest);
	sess_client_add_content(b->sess, id, dest, true);
	add_store(b, dest, tag ? tag : "latest", "cache.manifest");
	return 0;
}

/* 1: to be used, 0: left out, with a warning. */
static int offer_import(struct build *b, struct build_cache *x, struct err *e)
{
	const char *src = strvec_env_get(&x->attrs, "src"), *tag = strvec_env_get(&x->attrs, "tag"),
		   *digest = strvec_env_get(&x->attrs, "digest");
	_cleanup_err_ struct err why = ERR_INIT;
	if (strcmp(x->type, "registry") == 0 && str_empty(strvec_env_get(&x->attrs, "ref")))
		return BAD("registry cache importer requires ref");
	if (strcmp(x->type, "local") != 0) return 1;
	if (str_empty(src)) return BAD("local cache importer requires src");
	if (str_empty(digest)) {
		_cleanup_free_ char *found = build_index_get(src, tag ? tag : "latest", &why);
		if (!found) {
			term_warn("local cache import at %s skipped due to err: %s", src, why.msg);
			return 0;
		}
		strvec_env_set(&x->attrs, "digest", found);
		src = strvec_env_get(&x->attrs, "src");
		digest = strvec_env_get(&x->attrs, "digest");
	}
	_cleanup_free_ char *blob = digest_valid(digest) ? xasprintf("%s/blobs/sha256/%s", src, digest + 7) : xstrdup("");
	if (access(blob, R_OK) < 0) {
		term_warn("local cache import at %s skipped: digest %s unavailable: not found", src, digest);
		return 0;
	}
	_cleanup_free_ char *id = xasprintf("local:%s", src);
	sess_client_add_content(b->sess, id, src, false);
	return 1;
}

/* The imports once more for the frontend, which passes them on. */
static void tell_frontend(struct build *b)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	struct json_w w = JSON_W(&out);
	json_arr(&w);
	for (size_t i = 0; i < b->cache_from.n; i++) {
		_cleanup_strvec_ struct strvec sorted = {0};
		strvec_copy(&sorted, b->cache_from.v[i].attrs.v, b->cache_from.v[i].attrs.n);
		if (sorted.n) qsort(sorted.v, sorted.n, sizeof *sorted.v, by_text);
		json_obj(&w);
		json_kstr_omit(&w, "Type", b->cache_from.v[i].type);
		if (sorted.n) {
			json_key(&w, "Attrs");
			json_obj(&w);
			for (size_t k = 0; k < sorted.n; k++) {
				char *eq = strchr(sorted.v[k], '=');
				*eq = 0;
				json_kstr(&w, sorted.v[k], eq + 1);
			}
			json_obj_end(&w);
		}
		json_obj_end(&w);
	}
	json_arr_end(&w);
	strvec_env_set(&b->attrs, "cache-imports", buf_str(&out));
}

int build_offer_caches(struct build *b, struct err *e)
{
	for (size_t i = 0; i < b->cache_to.n; i++)
		if (offer_export(b, &b->cache_to.v[i], e) < 0) return -1;
	for (size_t i = 0; i < b->cache_from.n;) {
		int rv = offer_import(b, &b->cache_from.v[i], e);
		if (rv < 0) return -1;
		if (rv > 0) {
			i++;
			continue;
		}
		free(b->cache_from.v[i].type);
		strvec_fini(&b->cache_from.v[i].attrs);
		vec_remove(&b->cache_from, i);
	}
	if (b->cache_from.n) tell_frontend(b);
	return 0;
}

static int index_exports(struct build *b, struct err *e)
{
	const char *desc = strvec_env_get(&b->response, "containerimage.descriptor"),
		   *names = strvec_env_get(&b->response, "image.name");
	_cleanup_buf_ struct buf text = BUF_INIT;
	_cleanup_strvec_ struct strvec list = {0};
	if (!desc) return 0;
	if (base64_decode(desc, strlen(desc), &text, e) < 0) return err_wrap(e, "containerimage.descriptor");
	for (const char *p = names ? names : "latest"; *p; p += *p == ',') {
		size_t n = strcspn(p, ",");
		strvec_take(&list, xstrndup(p, n));
		p += n;
	}
	for (size_t i = 0; i < b->exports.n; i++)
		if (b->exports.v[i].store &&
		    build_index_put(b->exports.v[i].dir, buf_str(&text), (const char *const *)list.v, list.n, !names, e) < 0)
			return -1;
	return 0;
}

int build_write_indexes(struct build *b, struct err *e)
{
	for (size_t i = 0; i < b->stores.n; i++) {
		const struct local_cache *s = &b->stores.v[i];
		const char *desc = strvec_env_get(&b->response, s->response_key);
		if (!str_empty(desc) && build_index_put(s->dir, desc, (const char *const *)&s->tag, 1, true, e) < 0) return -1;
	}
	return index_exports(b, e);
}
