/* What the operator adds to provenance: the members of the JSON objects in a folder, later files win. Read once, when the
 * daemon starts: this one blocks. */
#include "build/provenance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { ENV_FILE_MAX = 1 << 20 };

static int load_file(int dirfd, const char *name, json_t *into, struct err *e)
{
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	json_error_t je;
	if (path_read_file(dirfd, name, ENV_FILE_MAX, &p, &n, e) < 0) return -1;
	json_t *j = json_loadb((const char *)p, n, 0, &je);
	if (!json_is_object(j)) {
		err_set(e, CODE_INVALID_ARGUMENT, "failed to parse %s: %s", name, j ? "it is no JSON object" : je.text);
		json_decref(j);
		return -1;
	}
	json_object_update(into, j);
	json_decref(j);
	return 0;
}

json_t *prov_env_load(const char *dir)
{
	_cleanup_strvec_ struct strvec names = {0};
	json_t *env = json_object();
	DIR *d = str_empty(dir) ? NULL : opendir(dir);
	if (!d) return env;
	for (struct dirent *de; (de = readdir(d));)
		if (str_ends(de->d_name, ".json")) strvec_add(&names, de->d_name);
	strvec_sort(&names);
	for (size_t i = 0; i < names.n; i++) {
		struct err e = ERR_INIT;
		if (load_file(dirfd(d), names.v[i], env, &e) < 0) log_warn("provenance: %s: %s", dir, e.msg);
		err_fini(&e);
	}
	closedir(d);
	return env;
}

static void write_value(struct json_w *w, const json_t *j, int depth)
{
	switch (depth > 64 ? JSON_NULL : json_typeof(j)) {
	case JSON_OBJECT: {
		_cleanup_strvec_ struct strvec keys = {0};
		const char *k;
		json_t *v;
		json_object_foreach((json_t *)j, k, v) strvec_add(&keys, k);
		strvec_sort(&keys);
		json_obj(w);
		for (size_t i = 0; i < keys.n; i++) {
			json_key(w, keys.v[i]);
			write_value(w, json_object_get(j, keys.v[i]), depth + 1);
		}
		json_obj_end(w);
		break;
	}
	case JSON_ARRAY:
		json_arr(w);
		for (size_t i = 0; i < json_array_size(j); i++) write_value(w, json_array_get(j, i), depth + 1);
		json_arr_end(w);
		break;
	case JSON_STRING: json_strn(w, json_string_value(j), json_string_length(j)); break;
	case JSON_NULL: json_nil(w); break;
	default: {
		char *s = json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
		json_raw(w, s, strlen(s));
		free(s);
	}
	}
}

void prov_env_write(struct json_w *w, const json_t *env)
{
	_cleanup_strvec_ struct strvec keys = {0};
	const char *k;
	json_t *v;
	json_object_foreach((json_t *)env, k, v) strvec_add(&keys, k);
	strvec_sort(&keys);
	for (size_t i = 0; i < keys.n; i++) {
		json_key(w, keys.v[i]);
		write_value(w, json_object_get(env, keys.v[i]), 0);
	}
}
