/* The platforms of a result: their order (an index lists them as the frontend did), and whether they are what was asked for.
 * Source: moby/buildkit exporter/containerimage/exptypes/parse.go, exporter/verifier. */
#include "build/platforms.h"

#include <jansson.h>
#include <string.h>

#define REQUEST_KEY "verifier.requestopts"

static const char *str_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

void result_platforms_fini(struct result_platforms *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->v[i].id);
		spec_platform_fini(&p->v[i].platform);
	}
	vec_fini(p);
}

static void add(struct result_platforms *ret, const char *id, const json_t *j)
{
	struct result_platform *p = vec_add(ret);
	spec_platform_init(&p->platform, str_of(j, "os"), str_of(j, "architecture"), str_of(j, "variant"), str_of(j, "os.version"));
	size_t i;
	json_t *feature;
	json_array_foreach(json_object_get(j, "os.features"), i, feature)
		if (json_is_string(feature)) strvec_add(&p->platform.os_features, json_string_value(feature));
	spec_platform_normalize(&p->platform);
	p->id = id ? xstrdup(id) : spec_platform_format(&p->platform);
}

static int from_list(const struct result_meta *m, struct result_platforms *ret, struct err *e)
{
	json_error_t je;
	json_t *j = json_loadb((const char *)m->data, m->len, JSON_DECODE_ANY, &je);
	if (m->len && !j) return err_set(e, CODE_UNKNOWN, "failed to parse platforms passed to provenance processor: %s", je.text);
	json_t *list = json_object_get(j, "Platforms"), *p;
	size_t i;
	int r = json_array_size(list) ? 0 : err_set(e, CODE_UNKNOWN, "invalid empty platforms index for exporter");
	json_array_foreach(list, i, p)
	{
		const json_t *platform = json_object_get(p, "Platform");
		if (r == 0 && !*str_of(p, "ID")) r = err_set(e, CODE_UNKNOWN, "invalid empty platform key for exporter");
		if (r == 0 && (!*str_of(platform, "os") || !*str_of(platform, "architecture")))
			r = err_set(e, CODE_UNKNOWN, "invalid platform value {%s %s %s [] %s} for exporter", str_of(platform, "architecture"),
				    str_of(platform, "os"), str_of(platform, "os.version"), str_of(platform, "variant"));
		if (r == 0) add(ret, str_of(p, "ID"), platform);
	}
	json_decref(j);
	return r;
}

static int from_config(const struct result_meta *m, const struct spec_platform *host, struct result_platforms *ret, struct err *e)
{
	json_error_t je;
	json_t *j = m ? json_loadb((const char *)m->data, m->len, 0, &je) : NULL;
	if (m && !j) return err_set(e, CODE_UNKNOWN, "invalid image config: %s", je.text);
	bool os = j && *str_of(j, "os"), arch = j && *str_of(j, "architecture");
	int r = os != arch ? err_set(e, CODE_UNKNOWN, "invalid image config: os and architecture must be specified together") : 0;
	if (r == 0 && os) add(ret, NULL, j);
	if (r == 0 && !os) {
		struct result_platform *p = vec_add(ret);
		if (m)
			spec_platform_init(&p->platform, "", "", "", "");
		else
			spec_platform_copy(&p->platform, host);
		p->id = spec_platform_format(&p->platform);
	}
	json_decref(j);
	return r;
}

int result_platforms(const struct result *res, const struct spec_platform *host, struct result_platforms *ret, struct err *e)
{
	const struct result_meta *list = result_meta_find(res, "refs.platforms");
	int r = list ? from_list(list, ret, e) : from_config(result_meta_find(res, "containerimage.config"), host, ret, e);
	if (r < 0) result_platforms_fini(ret);
	return r;
}

int result_order(struct result *res, const struct spec_platform *host, struct err *e)
{
	struct result_platforms ps = {0};
	bool has_list = result_meta_find(res, "refs.platforms") != NULL;
	if (!res->is_map && !has_list) {
		bool empty = !res->refs.n || !res->refs.v[0].ref;
		if (empty) return 0;
	}
	if (res->is_map && !has_list) return res->refs.n ? err_set(e, CODE_UNKNOWN, "build result contains multiple refs without platforms mapping") : 0;
	if (result_platforms(res, host, &ps, e) < 0) return -1;
	size_t at = 0;
	for (size_t i = 0; res->is_map && i < ps.n && at < res->refs.n; i++)
		for (size_t k = at; k < res->refs.n; k++)
			if (!strcmp(res->refs.v[k].key, ps.v[i].id)) {
				struct result_ref tmp = res->refs.v[at];
				res->refs.v[at++] = res->refs.v[k];
				res->refs.v[k] = tmp;
				break;
			}
	result_platforms_fini(&ps);
	return 0;
}

void result_capture_request(struct result *res, const struct strvec *opts)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	const char *platforms = strvec_env_get(opts, "platform"), *request = strvec_env_get(opts, "requestid");
	if (result_meta_find(res, REQUEST_KEY)) return;
	json_obj(&w);
	if (platforms) {
		_cleanup_free_ char *copy = xstrdup(platforms);
		json_key(&w, "Platforms");
		json_arr(&w);
		for (char *save, *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save)) json_str(&w, s);
		json_arr_end(&w);
	}
	json_kstr_omit(&w, "Request", request);
	json_obj_end(&w);
	result_meta_set(res, REQUEST_KEY, b.p, b.n);
}

static void requested(const struct result *res, const struct spec_platform *host, struct strvec *ret)
{
	const struct result_meta *m = result_meta_find(res, REQUEST_KEY);
	json_t *j = m ? json_loadb((const char *)m->data, m->len, 0, NULL) : NULL, *p;
	size_t i;
	json_array_foreach(json_object_get(j, "Platforms"), i, p)
		if (json_is_string(p)) strvec_add(ret, json_string_value(p));
	if (m && !ret->n) strvec_take(ret, spec_platform_format(host));
	json_decref(j);
}

static bool has_platform(const struct strvec *formatted, const struct spec_platform *p)
{
	_cleanup_free_ char *f = spec_platform_format(p);
	return strvec_find(formatted, f) >= 0;
}

static bool has_without_version(const struct strvec *formatted, const struct spec_platform *p)
{
	struct spec_platform bare;
	spec_platform_copy(&bare, p);
	free(bare.os_version);
	bare.os_version = xstrdup("");
	bool r = has_platform(formatted, &bare);
	spec_platform_fini(&bare);
	return r;
}

static void join(const struct strvec *sv, struct buf *b)
{
	for (size_t i = 0; i < sv->n; i++) buf_addf(b, "%s%s", i ? "," : "", sv->v[i]);
}

void result_platform_warnings(const struct result *res, const struct spec_platform *host, struct strvec *warnings)
{
	struct result_platforms ps = {0};
	_cleanup_strvec_ struct strvec want = {0}, formatted = {0}, have = {0};
	bool empty = !res->refs.n || (res->refs.n == 1 && !res->refs.v[0].ref);
	if (!result_meta_find(res, "refs.platforms") && (empty || res->is_map)) return;
	if (result_platforms(res, host, &ps, NULL) < 0) return;
	requested(res, host, &want);
	if (!want.n) { /* nobody said what was wanted */
		result_platforms_fini(&ps);
		return;
	}
	for (size_t i = 0; i < want.n; i++) {
		struct spec_platform p = {0};
		struct err bad = ERR_INIT;
		if (spec_platform_parse_normal(want.v[i], &p, &bad) < 0) {
			strvec_addf(warnings, "Invalid platform result requested \"%s\": %s", want.v[i], bad.msg);
			err_fini(&bad);
			continue;
		}
		char *f = spec_platform_format(&p);
		spec_platform_fini(&p);
		if (strvec_find(&formatted, f) >= 0) strvec_addf(warnings, "Duplicate platform result requested \"%s\"", want.v[i]);
		strvec_take(&formatted, f);
	}
	if (!warnings->n && formatted.n == 1 && ps.n == 1) {
		if (!has_platform(&formatted, &ps.v[0].platform) && !has_without_version(&formatted, &ps.v[0].platform)) {
			_cleanup_free_ char *f = spec_platform_format(&ps.v[0].platform);
			strvec_addf(warnings, "Requested platform \"%s\" does not match result platform \"%s\"", want.v[0], f);
		}
	} else if (!warnings->n && !res->is_map && formatted.n > 1) {
		strvec_add(warnings, "Multiple platforms requested but result is not multi-platform");
	} else if (!warnings->n) {
		bool mismatch = formatted.n != ps.n;
		for (size_t i = 0; i < ps.n; i++) {
			mismatch |= !has_platform(&formatted, &ps.v[i].platform);
			strvec_take(&have, spec_platform_format(&ps.v[i].platform));
		}
		strvec_sort(&have);
		_cleanup_buf_ struct buf a = BUF_INIT, b = BUF_INIT;
		strvec_sort(&formatted);
		join(&formatted, &a);
		join(&have, &b);
		if (mismatch) strvec_addf(warnings, "Requested platforms %s do not match result platforms %s", buf_str(&a), buf_str(&b));
	}
	result_platforms_fini(&ps);
}
