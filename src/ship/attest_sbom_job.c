/* Layers are read from the top down until every file that the SBOM names was found. */
#include "ship/attest_sbom_job.h"
#include "base/path.h"
#include "conf/conf.h"
#include "tar/tar.h"

#include <jansson.h>
#include <string.h>

#define SPDX "https://spdx.dev/Document"

/* A file that is looked for is in the map with WANTED, then with the number of its layer + FOUND. */
enum { WANTED = 1, FOUND = 2 };

static char *file_path(const json_t *file)
{
	const char *name = json_string_value(json_object_get(file, "fileName")),
		   *comment = json_string_value(json_object_get(file, "comment"));
	return name && str_empty(comment) ? path_abs_in(name) : NULL;
}

static size_t look_in(struct blob_store *blobs, const struct image_layer_info *l, size_t k, struct map *files, size_t left,
		      struct err *e)
{
	_cleanup_close_ int fd = blob_open(blobs, l->digest, e);
	_cleanup_tar_decomp_ struct tar_decomp *decomp = NULL;
	if (fd < 0 || tar_decomp_new(tar_in_fd(&fd), 0, &decomp, e) < 0) return left;
	_cleanup_tar_reader_ struct tar_reader *reader = tar_reader_new(tar_decomp_in(decomp));
	struct tar_entry t;
	while (left && tar_read_next(reader, &t, e) > 0) {
		_cleanup_free_ char *path = path_abs_in(t.name);
		if (str_starts(path_base(path), ".wh.") || map_get(files, path) != (void *)WANTED) continue;
		map_put(files, path, (void *)(uintptr_t)(k + FOUND));
		left--;
	}
	return left;
}

static int find_layers(struct blob_store *blobs, const struct image_ref_info *ref, struct map *files, struct err *e)
{
	size_t left = files->count;
	for (size_t k = ref->n_layers; left && k-- > 0;) {
		left = look_in(blobs, &ref->layers[k], k, files, left, e);
		if (err_is_set(e)) return -1;
	}
	return 0;
}

static void add_creator(json_t *doc)
{
	json_t *info = json_object_get(doc, "creationInfo");
	if (!json_is_object(info)) json_object_set_new(doc, "creationInfo", info = json_object());
	json_t *list = json_object_get(info, "creators");
	if (!json_is_array(list)) json_object_set_new(info, "creators", list = json_array());
	json_array_append_new(list, json_string("Tool: buildkit-" CONF_BUILDKIT_VERSION));
}

int attest_sbom_supplement(struct attest_out *o, struct blob_store *blobs, const struct image_ref_info *ref, struct err *e)
{
	if (!o->sbom || strcmp(o->predicate_type, SPDX) || ref->scratch) return 0;
	json_t *doc = json_loadb(buf_str(&o->predicate), o->predicate.n, 0, NULL), *list = json_object_get(doc, "files"), *file;
	struct map files = {0};
	size_t i;
	if (!json_is_string(json_object_get(doc, "spdxVersion"))) { /* no SPDX document */
		json_decref(doc);
		return 0;
	}
	json_array_foreach(list, i, file)
	{
		_cleanup_free_ char *path = file_path(file);
		if (path) map_put(&files, path, (void *)WANTED);
	}
	int r = find_layers(blobs, ref, &files, e);
	json_array_foreach(list, i, file)
	{
		_cleanup_free_ char *path = file_path(file);
		uintptr_t at = path ? (uintptr_t)map_get(&files, path) : 0;
		if (at < FOUND) continue;
		_cleanup_free_ char *comment = xasprintf("layerID: %s", ref->layers[at - FOUND].digest);
		json_object_set_new(file, "comment", json_string(comment));
	}
	add_creator(doc);
	char *text = json_dumps(doc, JSON_COMPACT);
	if (text) {
		buf_reset(&o->predicate);
		buf_adds(&o->predicate, text);
	}
	free(text);
	map_fini(&files);
	json_decref(doc);
	return r;
}
