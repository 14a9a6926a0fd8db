/* The image config of an export: the frontend's JSON with rootfs, history and created put right.
 *
 * History is normalised in BuildKit's order: entries that count as layers are brought into line with the layers there
 * are, then missing times are filled in from the layers and their neighbours, then everything later than the epoch is
 * set to it, except a leading run that is the base image's own.
 * A time is kept as the text it came as (Go keeps its zone), only its fraction without trailing zeros; comparisons
 * parse it. */
#include "ship/manifest.h"
#include "ship/rawjson.h"
#include <jansson.h>
#include <string.h>

struct entry {
	char *created;                          /* NULL: none */
	struct buf created_by, author, comment; /* may hold any byte */
	bool empty_layer;
};
struct history {
	VEC(struct entry) v;
	bool is_list; /* there was one, perhaps empty: [] and not null */
};

static void history_fini(struct history *h)
{
	for (size_t i = 0; i < h->v.n; i++) {
		struct entry *t = &h->v.v[i];
		free(t->created);
		buf_fini(&t->created_by);
		buf_fini(&t->author);
		buf_fini(&t->comment);
	}
	vec_fini(&h->v);
}

static void set_created(struct entry *t, const char *text)
{
	if (t->created == text) return;
	free(t->created);
	t->created = xstrdup(text);
}

/* As Go prints what it has parsed. */
static char *go_time(const char *text)
{
	const char *dot = strchr(text, '.'), *zone = text + strcspn(text, "Zz+");
	if (!*zone) { /* a negative offset: behind the time of day */
		const char *t = strchr(text, 'T');
		zone = t ? t + strcspn(t, "-") : text + strlen(text);
	}
	size_t n = (size_t)(zone - text);
	if (dot && dot < zone) {
		n = min_of(n, (size_t)(dot - text) + 10);
		while (text[n - 1] == '0') n--;
		if (text[n - 1] == '.') n--;
	}
	bool utc = !strcmp(zone, "+00:00") || !strcmp(zone, "-00:00");
	return xasprintf("%.*s%s", (int)n, text, utc ? "Z" : zone);
}

static int take_string(const json_t *o, const char *key, struct buf *ret, struct err *e)
{
	const json_t *v = json_object_get(o, key);
	if (!v || json_is_null(v)) return 0;
	if (!json_is_string(v))
		return err_set(e, CODE_INVALID_ARGUMENT, "failed to unmarshal history from config: %s is no string", key);
	buf_add(ret, json_string_value(v), json_string_length(v));
	return 0;
}

static int take_entry(const json_t *o, struct entry *t, struct err *e)
{
	struct timespec when;
	const json_t *created = json_object_get(o, "created"), *empty = json_object_get(o, "empty_layer");
	if (created && !json_is_null(created)) {
		const char *text = json_is_string(created) ? json_string_value(created) : "";
		if (time_parse_rfc3339(text, &when, e) < 0) return err_wrap(e, "failed to unmarshal history from config");
		t->created = go_time(text);
	}
	t->empty_layer = json_is_true(empty);
	if (take_string(o, "created_by", &t->created_by, e) < 0 || take_string(o, "author", &t->author, e) < 0) return -1;
	return take_string(o, "comment", &t->comment, e);
}

static int parse_history(const char *config, size_t n, struct history *ret, struct err *e)
{
	json_error_t why;
	json_t *root = json_loadb(config, n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
	if (!root) return err_set(e, CODE_INVALID_ARGUMENT, "failed to unmarshal history from config: %s", why.text);
	json_t *list = json_object_get(root, "history"), *o;
	int r = 0;
	size_t i;
	ret->is_list = json_is_array(list);
	if (list && !ret->is_list && !json_is_null(list))
		r = err_set(e, CODE_INVALID_ARGUMENT, "failed to unmarshal history from config: no list");
	json_array_foreach(list, i, o)
	{
		if (r == 0) r = take_entry(o, vec_add(&ret->v), e);
	}
	json_decref(root);
	return r;
}

/* ---- normalising ---- */
static char *layer_time(const struct ship_image *img, size_t i)
{
	if (img->no_ref || i >= img->n_layers || !img->layers[i].has_created) return NULL;
	char text[TIME_STR];
	time_rfc3339nano(img->layers[i].created, text);
	return xstrdup(text);
}

static void match_layers(const struct ship_image *img, struct history *h)
{
	size_t layers = 0;
	for (size_t i = 0; i < h->v.n; i++) {
		struct entry *t = &h->v.v[i];
		if (layers >= img->n_layers) t->empty_layer = true; /* more entries than layers: the later ones lose */
		layers += !t->empty_layer;
	}
	for (; layers < img->n_layers; layers++) {
		const struct ship_layer *l = &img->layers[layers];
		struct entry *t = vec_add(&h->v);
		t->created = layer_time(img, layers);
		if (!img->no_ref) buf_adds(&t->created_by, str_empty(l->created_by) ? "created by buildkit" : l->created_by);
		buf_adds(&t->comment, "buildkit.exporter.image.v0");
	}
}

static void fill_times(const struct ship_image *img, struct history *h)
{
	size_t layer = 0;
	for (size_t i = 0; i < h->v.n; i++) {
		struct entry *t = &h->v.v[i];
		if (t->empty_layer) continue;
		if (!t->created) t->created = layer_time(img, layer);
		layer++;
	}
	/* The first time behind a gap; else the last there is. */
	const char *created = NULL;
	bool gap = false;
	for (size_t i = 0; i < h->v.n; i++) {
		if (!h->v.v[i].created) {
			gap = true;
			continue;
		}
		created = h->v.v[i].created;
		if (gap) break;
	}
	_cleanup_free_ char *fill = xstrdup(created);
	gap = false;
	for (size_t i = 0; i < h->v.n; i++) {
		struct entry *t = &h->v.v[i];
		if (!t->created) {
			gap = true;
			if (fill) set_created(t, fill);
		} else if (gap) {
			free(fill);
			fill = xstrdup(t->created);
		}
	}
}

static bool buf_eq(const struct buf *a, const struct buf *b) { return a->n == b->n && (!a->n || !memcmp(a->p, b->p, a->n)); }

static bool entry_eq(const struct entry *a, const struct entry *b)
{
	return str_eq(a->created, b->created) && buf_eq(&a->created_by, &b->created_by) && buf_eq(&a->author, &b->author) &&
	       buf_eq(&a->comment, &b->comment) && a->empty_layer == b->empty_layer;
}

static bool later(const char *text, const struct timespec *epoch)
{
	struct timespec t;
	if (time_parse_rfc3339(text, &t, NULL) < 0) return false;
	return t.tv_sec > epoch->tv_sec || (t.tv_sec == epoch->tv_sec && t.tv_nsec > epoch->tv_nsec);
}

static int clamp_history(const struct ship_image *img, struct history *h, struct err *e)
{
	_cleanup_(history_fini) struct history base = {0};
	char epoch[TIME_STR];
	bool diverged = !img->n_base_config;
	if (!diverged && parse_history(img->base_config, img->n_base_config, &base, e) < 0)
		return err_wrap(e, "failed to unmarshal base image config");
	time_rfc3339nano(*img->epoch, epoch);
	for (size_t i = 0; i < h->v.n; i++) {
		struct entry *t = &h->v.v[i];
		if (!diverged && i < base.v.n && entry_eq(t, &base.v.v[i])) continue;
		diverged = true;
		if (!t->created || later(t->created, img->epoch)) set_created(t, epoch);
	}
	return 0;
}

static void write_history(const struct history *h, struct buf *out)
{
	struct json_w w = JSON_W(out);
	if (!h->v.n && !h->is_list) {
		buf_adds(out, "null");
		return;
	}
	json_arr(&w);
	for (size_t i = 0; i < h->v.n; i++) {
		const struct entry *t = &h->v.v[i];
		const struct {
			const char *key;
			const struct buf *text;
		} texts[] = {{"created_by", &t->created_by}, {"author", &t->author}, {"comment", &t->comment}};
		json_obj(&w);
		json_kstr_omit(&w, "created", t->created);
		for (size_t k = 0; k < array_len(texts); k++) {
			if (!texts[k].text->n) continue;
			json_key(&w, texts[k].key);
			json_strn(&w, buf_str(texts[k].text), texts[k].text->n);
		}
		json_kbool_omit(&w, "empty_layer", t->empty_layer);
		json_obj_end(&w);
	}
	json_arr_end(&w);
}

/* ---- the document ---- */
static void default_config(const struct ship_image *img, struct buf *out)
{
	_cleanup_spec_platform_ struct spec_platform host = {0};
	const struct spec_platform *p = img->platform;
	if (!p) {
		spec_platform_host(&host);
		p = &host;
	}
	struct json_w w = JSON_W(out);
	json_obj(&w);
	json_kstr(&w, "architecture", p->arch);
	json_kstr(&w, "os", p->os);
	json_kstr_omit(&w, "os.version", p->os_version);
	json_kstrs_omit(&w, "os.features", p->os_features.v, p->os_features.n);
	json_kstr_omit(&w, "variant", p->variant);
	json_key(&w, "config");
	json_obj(&w);
	if (!str_eq(p->os, "windows")) {
		json_key(&w, "Env");
		json_arr(&w);
		json_str(&w, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
		json_arr_end(&w);
	}
	json_kstr(&w, "WorkingDir", "/");
	json_obj_end(&w);
	json_obj_end(&w);
}

static void write_rootfs(const struct ship_image *img, struct buf *out)
{
	struct json_w w = JSON_W(out);
	json_obj(&w);
	json_kstr(&w, "type", "layers");
	json_key(&w, "diff_ids");
	if (img->n_layers) {
		json_arr(&w);
		for (size_t i = 0; i < img->n_layers; i++) json_str(&w, img->layers[i].diff_id);
		json_arr_end(&w);
	} else {
		json_nil(&w);
	}
	json_obj_end(&w);
}

/* A quoted string's text when raw is one; NULL else. Heap. */
static char *raw_string(const struct buf *raw)
{
	json_t *s = raw ? json_loadb(buf_str(raw), raw->n, JSON_DECODE_ANY, NULL) : NULL;
	char *text = json_is_string(s) ? xstrdup(json_string_value(s)) : NULL;
	json_decref(s);
	return text;
}

static int put_created(const struct ship_image *img, const struct history *h, struct ship_raw *doc, struct err *e)
{
	const struct buf *there = ship_raw_get(doc, "created");
	char epoch[TIME_STR];
	if (there) {
		if (!img->epoch || !strcmp(buf_str(there), "null")) return 0;
		_cleanup_free_ char *text = raw_string(there);
		struct timespec t;
		if (!text || time_parse_rfc3339(text, &t, NULL) < 0)
			return err_set(e, CODE_INVALID_ARGUMENT, "failed to unmarshal creation time \"%.100s\"",
				       buf_str(there));
		if (!later(text, img->epoch)) return 0;
		time_rfc3339nano(*img->epoch, epoch);
		json_quote(ship_raw_set(doc, "created"), epoch, strlen(epoch));
		return 0;
	}
	const char *last = NULL;
	for (size_t i = 0; i < h->v.n; i++)
		if (h->v.v[i].created) last = h->v.v[i].created;
	struct buf *v = ship_raw_set(doc, "created");
	if (last)
		json_quote(v, last, strlen(last));
	else
		buf_adds(v, "null");
	return 0;
}

static int require(const struct ship_raw *doc, const char *key, struct err *e)
{
	_cleanup_free_ char *text = raw_string(ship_raw_get(doc, key));
	return str_empty(text) ? err_set(e, CODE_INVALID_ARGUMENT, "invalid image config for export: missing %s", key) : 0;
}

int ship_image_config(const struct ship_image *img, struct buf *ret, struct err *e)
{
	_cleanup_buf_ struct buf made = BUF_INIT;
	_cleanup_ship_raw_ struct ship_raw doc = {0};
	_cleanup_(history_fini) struct history h = {0};
	const char *config = img->config;
	size_t n = img->n_config;
	bool null;
	if (!n) {
		default_config(img, &made);
		config = buf_str(&made);
		n = made.n;
	}
	if (ship_raw_parse(config, n, &doc, &null, e) < 0) return err_wrap(e, "invalid image config for export");
	if (null) return err_set(e, CODE_INVALID_ARGUMENT, "invalid null image config for export");
	_cleanup_free_ char *os = raw_string(ship_raw_get(&doc, "os")), *arch = raw_string(ship_raw_get(&doc, "architecture"));
	if (str_empty(os) != str_empty(arch))
		return err_set(e, CODE_INVALID_ARGUMENT, "invalid image config: os and architecture must be specified together");
	if (require(&doc, "os", e) < 0 || require(&doc, "architecture", e) < 0) return -1;
	if (parse_history(config, n, &h, e) < 0) return -1;
	match_layers(img, &h);
	fill_times(img, &h);
	if (img->epoch && clamp_history(img, &h, e) < 0) return -1;
	write_rootfs(img, ship_raw_set(&doc, "rootfs"));
	write_history(&h, ship_raw_set(&doc, "history"));
	if (put_created(img, &h, &doc, e) < 0) return -1;
	if (img->inline_cache) {
		struct json_w w = JSON_W(ship_raw_set(&doc, "moby.buildkit.cache.v0"));
		json_base64(&w, img->inline_cache, img->n_inline_cache);
	}
	ship_raw_write(&doc, ret);
	return 0;
}
