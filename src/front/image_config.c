/* Image configs: read from a base image, changed step by step, printed. Unknown members of the base are dropped, as the
 * peer drops them; lists and maps print in Go's order. See image_config.h. */
#include "front/image_config.h"

#include "llb/llb.h"

#include <jansson.h>
#include <string.h>
#include <strings.h>

/* ---- lists ---- */

void strs_add(struct arena *a, struct strs *s, const char *v) { LLB_PUSH(a, s->n, s->v, arena_strdup(a, v)); }

void strs_add_once(struct arena *a, struct strs *s, const char *v)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->v[i], v) == 0) return;
	strs_add(a, s, v);
}

struct strs strs_clone(struct arena *a, const struct strs *s)
{
	struct strs c = {0};
	for (size_t i = 0; i < s->n; i++) LLB_PUSH(a, c.n, c.v, s->v[i]);
	return c;
}

/* ---- reading ---- */

/* A member by its name; Go also takes it in another case. */
static const json_t *member(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);
	if (v || !json_is_object(o)) return v && !json_is_null(v) ? v : NULL;
	const char *k;
	json_t *x;
	json_object_foreach((json_t *)o, k, x) if (strcasecmp(k, key) == 0 && !json_is_null(x)) return x;
	return NULL;
}

static int mismatch(const json_t *v, const char *key, const char *type, struct err *e)
{
	static const char *const names[] = {"object", "array", "string", "number", "number", "bool", "bool", "null"};
	return err_set(e, CODE_UNKNOWN, "json: cannot unmarshal %s into Go struct field %s of type %s", names[json_typeof(v)],
		       key, type);
}

static int get_str(struct arena *a, const json_t *o, const char *key, const char **ret, struct err *e)
{
	const json_t *v = member(o, key);
	if (!v) return 0;
	if (!json_is_string(v)) return mismatch(v, key, "string", e);
	*ret = arena_strdup(a, json_string_value(v));
	return 0;
}

static int get_strs(struct arena *a, const json_t *o, const char *key, struct strs *ret, bool *ret_set, struct err *e)
{
	const json_t *v = member(o, key), *x;
	size_t i;
	if (!v) return 0;
	if (!json_is_array(v)) return mismatch(v, key, "[]string", e);
	if (ret_set) *ret_set = true;
	json_array_foreach((json_t *)v, i, x)
	{
		if (!json_is_string(x) && !json_is_null(x)) return mismatch(x, key, "string", e);
		strs_add(a, ret, json_is_null(x) ? "" : json_string_value(x));
	}
	return 0;
}

static int get_set(struct arena *a, const json_t *o, const char *key, struct strs *ret, struct err *e)
{
	const json_t *v = member(o, key);
	const char *k;
	json_t *x;
	if (!v) return 0;
	if (!json_is_object(v)) return mismatch(v, key, "map[string]struct {}", e);
	json_object_foreach((json_t *)v, k, x) strs_add(a, ret, k);
	return 0;
}

static int get_labels(struct arena *a, const json_t *o, struct image *img, struct err *e)
{
	const json_t *v = member(o, "Labels");
	const char *k;
	json_t *x;
	if (!v) return 0;
	if (!json_is_object(v)) return mismatch(v, "Labels", "map[string]string", e);
	json_object_foreach((json_t *)v, k, x)
	{
		if (!json_is_string(x) && !json_is_null(x)) return mismatch(x, "Labels", "string", e);
		image_label(a, img, k, json_is_null(x) ? "" : json_string_value(x));
	}
	return 0;
}

static int get_bool(const json_t *o, const char *key, bool *ret, struct err *e)
{
	const json_t *v = member(o, key);
	if (!v) return 0;
	if (!json_is_boolean(v)) return mismatch(v, key, "bool", e);
	*ret = json_is_true(v);
	return 0;
}

static int get_int(const json_t *o, const char *key, int64_t *ret, struct err *e)
{
	const json_t *v = member(o, key);
	if (!v) return 0;
	if (!json_is_integer(v)) return mismatch(v, key, "int64", e);
	*ret = json_integer_value(v);
	return 0;
}

/* A time as Go prints it again: the fraction without trailing zeros, the zone as it was. */
static int get_time(struct arena *a, const json_t *o, const char *key, const char **ret, struct err *e)
{
	const char *s = NULL;
	if (get_str(a, o, key, &s, e) < 0) return -1;
	if (!s) return 0;
	struct timespec t;
	if (time_parse_rfc3339(s, &t, e) < 0) return -1;
	const char *dot = strchr(s, '.');
	if (!dot) {
		*ret = s;
		return 0;
	}
	size_t digits = strspn(dot + 1, "0123456789"), keep = min_of(digits, (size_t)9);
	while (keep && dot[keep] == '0') keep--;
	const char *zone = dot + 1 + digits;
	*ret = keep ? arena_printf(a, "%.*s%.*s%s", (int)(dot - s), s, (int)keep + 1, dot, zone)
		    : arena_printf(a, "%.*s%s", (int)(dot - s), s, zone);
	if (str_ends(*ret, "+00:00")) *ret = arena_printf(a, "%.*sZ", (int)strlen(*ret) - 6, *ret);
	return 0;
}

static int get_history(struct arena *a, const json_t *o, struct image *img, struct err *e)
{
	const json_t *v = member(o, "history"), *x;
	size_t i;
	if (!v) return 0;
	if (!json_is_array(v)) return mismatch(v, "history", "[]v1.History", e);
	json_array_foreach((json_t *)v, i, x)
	{
		struct image_history h = {0};
		if (get_time(a, x, "created", &h.created, e) < 0 || get_str(a, x, "created_by", &h.created_by, e) < 0 ||
		    get_str(a, x, "author", &h.author, e) < 0 || get_str(a, x, "comment", &h.comment, e) < 0 ||
		    get_bool(x, "empty_layer", &h.empty_layer, e) < 0)
			return -1;
		LLB_PUSH(a, img->n_history, img->history, h);
	}
	return 0;
}

static int get_health(struct arena *a, const json_t *o, struct image *img, struct err *e)
{
	const json_t *v = member(o, "Healthcheck");
	if (!v) return 0;
	if (!json_is_object(v)) return mismatch(v, "Healthcheck", "v1.HealthcheckConfig", e);
	struct image_health *h = img->health = arena_new_of(a, struct image_health);
	if (get_strs(a, v, "Test", &h->test, NULL, e) < 0 || get_int(v, "Interval", &h->interval, e) < 0 ||
	    get_int(v, "Timeout", &h->timeout, e) < 0 || get_int(v, "StartPeriod", &h->start_period, e) < 0 ||
	    get_int(v, "StartInterval", &h->start_interval, e) < 0)
		return -1;
	return get_int(v, "Retries", &h->retries, e);
}

static int get_config(struct arena *a, const json_t *c, struct image *img, struct err *e)
{
	const struct {
		const char *key;
		struct strs *list;
	} lists[] = {
		{"Env", &img->env},         {"Entrypoint", &img->entrypoint}, {"Cmd", &img->cmd},
		{"OnBuild", &img->onbuild}, {"Shell", &img->shell},
	};
	if (!c) return 0;
	if (!json_is_object(c)) return mismatch(c, "config", "v1.DockerOCIImageConfig", e);
	for (size_t i = 0; i < array_len(lists); i++)
		if (get_strs(a, c, lists[i].key, lists[i].list, NULL, e) < 0) return -1;
	if (get_str(a, c, "User", &img->user, e) < 0 || get_str(a, c, "WorkingDir", &img->working_dir, e) < 0 ||
	    get_str(a, c, "StopSignal", &img->stop_signal, e) < 0 || get_set(a, c, "ExposedPorts", &img->ports, e) < 0 ||
	    get_set(a, c, "Volumes", &img->volumes, e) < 0 || get_labels(a, c, img, e) < 0 ||
	    get_bool(c, "ArgsEscaped", &img->args_escaped, e) < 0)
		return -1;
	return get_health(a, c, img, e);
}

static int get_platform(struct arena *a, const json_t *o, struct image *img, struct err *e)
{
	struct spec_platform *p = &img->platform;
	const char *os = "", *arch = "", *variant = "", *version = "";
	struct strs features = {0};
	if (get_str(a, o, "os", &os, e) < 0 || get_str(a, o, "architecture", &arch, e) < 0 ||
	    get_str(a, o, "variant", &variant, e) < 0 || get_str(a, o, "os.version", &version, e) < 0 ||
	    get_strs(a, o, "os.features", &features, &img->has_features, e) < 0)
		return -1;
	p->os = (char *)os;
	p->arch = (char *)arch;
	p->variant = (char *)variant;
	p->os_version = (char *)version;
	p->os_features = (struct strvec){.v = (char **)features.v, .n = features.n, .cap = features.n};
	return 0;
}

static int parse(struct arena *a, const json_t *o, struct image *img, struct err *e)
{
	if (json_is_null(o)) return 0;
	if (!json_is_object(o)) return mismatch(o, "image", "v1.DockerOCIImage", e);
	const json_t *rootfs = member(o, "rootfs");
	if (get_time(a, o, "created", &img->created, e) < 0 || get_str(a, o, "author", &img->author, e) < 0 ||
	    get_platform(a, o, img, e) < 0 || get_history(a, o, img, e) < 0)
		return -1;
	if (rootfs && (get_str(a, rootfs, "type", &img->rootfs_type, e) < 0 ||
		       get_strs(a, rootfs, "diff_ids", &img->diff_ids, &img->has_diff_ids, e) < 0))
		return -1;
	return get_config(a, member(o, "config"), img, e);
}

struct image image_zero(void)
{
	return (struct image){
		.platform = {.os = (char *)"", .arch = (char *)"", .variant = (char *)"", .os_version = (char *)""},
		.user = "",
		.working_dir = "",
		.stop_signal = "",
		.author = "",
		.rootfs_type = "",
	};
}

int image_parse(struct arena *a, const void *json, size_t n, struct image *ret, struct err *e)
{
	json_error_t je;
	json_t *o = json_loadb(json, n, JSON_DECODE_ANY, &je);
	if (!o) return err_set(e, CODE_UNKNOWN, "%s (line %d, column %d)", je.text, je.line, je.column);
	struct image img = image_zero();
	int r = parse(a, o, &img, e);
	json_decref(o);
	if (r == 0) *ret = img;
	return r;
}

/* ---- changing ---- */

const char *default_path(const char *os)
{
	return str_eq(os, "windows") ? "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0"
				     : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

struct image image_empty(struct arena *a, const struct spec_platform *p)
{
	struct image img = image_zero();
	if (p->os) img.platform.os = p->os;
	if (p->arch) img.platform.arch = p->arch;
	if (p->variant) img.platform.variant = p->variant;
	if (p->os_version) img.platform.os_version = p->os_version;
	img.platform.os_features = p->os_features;
	img.rootfs_type = "layers";
	img.working_dir = "/";
	if (strcmp(img.platform.os, "windows") != 0) strs_add(a, &img.env, arena_printf(a, "PATH=%s", default_path(p->os)));
	return img;
}

struct image image_clone(struct arena *a, const struct image *src)
{
	struct image c = *src;
	struct strs *lists[] = {&c.env, &c.entrypoint, &c.cmd, &c.ports, &c.volumes, &c.onbuild, &c.shell};
	for (size_t i = 0; i < array_len(lists); i++) *lists[i] = strs_clone(a, lists[i]);
	c.labels = NULL;
	c.n_labels = 0;
	for (size_t i = 0; i < src->n_labels; i++) LLB_PUSH(a, c.n_labels, c.labels, src->labels[i]);
	c.history = NULL;
	c.n_history = 0;
	for (size_t i = 0; i < src->n_history; i++) LLB_PUSH(a, c.n_history, c.history, src->history[i]);
	if (src->health) c.health = arena_memdup(a, src->health, sizeof *src->health);
	return c;
}

static bool env_is(const char *kv, const char *k)
{
	size_t n = strlen(k);
	return strncmp(kv, k, n) == 0 && (kv[n] == '=' || !kv[n]);
}

void image_env(struct arena *a, struct image *img, const char *k, const char *v)
{
	const char *kv = arena_printf(a, "%s=%s", k, v);
	for (size_t i = 0; i < img->env.n; i++) {
		if (!env_is(img->env.v[i], k)) continue;
		img->env.v[i] = kv;
		return;
	}
	LLB_PUSH(a, img->env.n, img->env.v, kv);
}

const char *image_env_get(const struct image *img, const char *k)
{
	const char *found = NULL;
	for (size_t i = 0; i < img->env.n; i++)
		if (env_is(img->env.v[i], k)) found = img->env.v[i][strlen(k)] ? img->env.v[i] + strlen(k) + 1 : "";
	return found;
}

void image_label(struct arena *a, struct image *img, const char *k, const char *v)
{
	for (size_t i = 0; i < img->n_labels; i++) {
		if (strcmp(img->labels[i].key, k) != 0) continue;
		img->labels[i].value = arena_strdup(a, v);
		return;
	}
	struct pair p = {arena_strdup(a, k), arena_strdup(a, v)};
	LLB_PUSH(a, img->n_labels, img->labels, p);
}

void image_commit(struct arena *a, struct image *img, const char *created_by, bool layer, const char *created)
{
	struct image_history h = {
		.created = created, .created_by = created_by, .comment = "buildkit.dockerfile.v0", .empty_layer = !layer};
	LLB_PUSH(a, img->n_history, img->history, h);
}

/* ---- printing ---- */

static int by_str(const void *x, const void *y) { return strcmp(*(const char *const *)x, *(const char *const *)y); }

static int by_key(const void *x, const void *y) { return strcmp(((const struct pair *)x)->key, ((const struct pair *)y)->key); }

static void put_list(struct json_w *w, const char *k, const struct strs *s)
{
	json_kstrs_omit(w, k, (char *const *)s->v, s->n);
}

static void put_set(struct json_w *w, const char *k, const struct strs *s)
{
	if (!s->n) return;
	_cleanup_free_ const char **v = xmemdup(s->v, s->n * sizeof *v);
	qsort(v, s->n, sizeof *v, by_str);
	json_key(w, k);
	json_obj(w);
	for (size_t i = 0; i < s->n; i++) {
		json_key(w, v[i]);
		json_obj(w);
		json_obj_end(w);
	}
	json_obj_end(w);
}

static void put_labels(struct json_w *w, const struct image *img)
{
	if (!img->n_labels) return;
	_cleanup_free_ struct pair *v = xmemdup(img->labels, img->n_labels * sizeof *v);
	qsort(v, img->n_labels, sizeof *v, by_key);
	json_key(w, "Labels");
	json_obj(w);
	for (size_t i = 0; i < img->n_labels; i++) json_kstr(w, v[i].key, v[i].value);
	json_obj_end(w);
}

static void put_health(struct json_w *w, const struct image_health *h)
{
	if (!h) return;
	json_key(w, "Healthcheck");
	json_obj(w);
	put_list(w, "Test", &h->test);
	json_kint_omit(w, "Interval", h->interval);
	json_kint_omit(w, "Timeout", h->timeout);
	json_kint_omit(w, "StartPeriod", h->start_period);
	json_kint_omit(w, "StartInterval", h->start_interval);
	json_kint_omit(w, "Retries", h->retries);
	json_obj_end(w);
}

static void put_history(struct json_w *w, const struct image *img)
{
	if (!img->n_history) return;
	json_key(w, "history");
	json_arr(w);
	for (size_t i = 0; i < img->n_history; i++) {
		const struct image_history *h = &img->history[i];
		json_obj(w);
		json_kstr_omit(w, "created", h->created);
		json_kstr_omit(w, "created_by", h->created_by);
		json_kstr_omit(w, "author", h->author);
		json_kstr_omit(w, "comment", h->comment);
		json_kbool_omit(w, "empty_layer", h->empty_layer);
		json_obj_end(w);
	}
	json_arr_end(w);
}

static void put_rootfs(struct json_w *w, const struct image *img)
{
	json_key(w, "rootfs");
	json_obj(w);
	json_kstr(w, "type", img->rootfs_type);
	json_key(w, "diff_ids");
	if (img->has_diff_ids) {
		json_arr(w);
		for (size_t i = 0; i < img->diff_ids.n; i++) json_str(w, img->diff_ids.v[i]);
		json_arr_end(w);
	} else {
		json_nil(w);
	}
	json_obj_end(w);
}

static void put_config(struct json_w *w, const struct image *img)
{
	json_key(w, "config");
	json_obj(w);
	json_kstr_omit(w, "User", img->user);
	put_set(w, "ExposedPorts", &img->ports);
	put_list(w, "Env", &img->env);
	put_list(w, "Entrypoint", &img->entrypoint);
	put_list(w, "Cmd", &img->cmd);
	put_set(w, "Volumes", &img->volumes);
	json_kstr_omit(w, "WorkingDir", img->working_dir);
	put_labels(w, img);
	json_kstr_omit(w, "StopSignal", img->stop_signal);
	json_kbool_omit(w, "ArgsEscaped", img->args_escaped);
	put_health(w, img->health);
	put_list(w, "OnBuild", &img->onbuild);
	put_list(w, "Shell", &img->shell);
	json_obj_end(w);
}

void image_json(const struct image *img, struct buf *out)
{
	struct json_w w = JSON_W(out);
	const struct spec_platform *p = &img->platform;
	json_obj(&w);
	json_kstr_omit(&w, "created", img->created);
	json_kstr_omit(&w, "author", img->author);
	json_kstr(&w, "architecture", p->arch);
	json_kstr(&w, "os", p->os);
	json_kstr_omit(&w, "os.version", p->os_version);
	json_kstrs_omit(&w, "os.features", p->os_features.v, p->os_features.n);
	json_kstr_omit(&w, "variant", p->variant);
	put_rootfs(&w, img);
	put_history(&w, img);
	put_config(&w, img);
	json_obj_end(&w);
}
