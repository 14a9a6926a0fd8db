/* `slipway build`: buildx's flags become a build. Sources: buildx commands/build.go, build/opt.go; reference 07 §5. */
#include "cli/auth.h"
#include "cli/build.h"
#include "cli/builder.h"
#include "cli/inputs.h"
#include "cli/load.h"
#include "spec/platform.h"
#include "spec/ref.h"
#include "spec/size.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define BAD(...) err_set(e, CODE_UNKNOWN, __VA_ARGS__)

struct request {
	struct build b;
	struct args *args;
	struct inputs inputs;
	struct builder builder;
	struct load *load;
	struct sess_client_output sink;
	char *call; /* "lint", "outline", ...; NULL: build */
	bool call_json, quiet, local_delete, no_output;
	struct strvec attests; /* type=value; value "" when disabled */
};

static void request_fini(struct request *r)
{
	build_fini(&r->b);
	inputs_fini(&r->inputs);
	builder_fini(&r->builder);
	load_free(r->load);
	free(r->call);
	strvec_fini(&r->attests);
}

static int each(struct request *r, const char *flag, int (*fn)(struct request *r, const char *spec, struct err *e),
		struct err *e)
{
	const struct strvec *v = args_list(r->args, flag);
	for (size_t i = 0; i < v->n; i++)
		if (fn(r, v->v[i], e) < 0) return -1;
	return 0;
}

/* ---- simple attributes ---- */
static void set_attr(struct request *r, const char *prefix, const char *key, const char *value)
{
	_cleanup_free_ char *k = xasprintf("%s%s", prefix, key);
	strvec_env_set(&r->b.attrs, k, value);
}

static int add_key_value(struct request *r, const char *prefix, const char *spec, bool from_env, struct err *e)
{
	const char *eq = strchr(spec, '=');
	_cleanup_free_ char *k = eq ? xstrndup(spec, (size_t)(eq - spec)) : xstrdup(spec);
	if (!*k) return BAD("invalid key-value pair \"%s\": empty key", spec);
	const char *v = eq ? eq + 1 : from_env ? getenv(k) : "";
	if (v) set_attr(r, prefix, k, v);
	return 0;
}

static int add_build_arg(struct request *r, const char *spec, struct err *e)
{
	return add_key_value(r, "build-arg:", spec, true, e);
}
static int add_label(struct request *r, const char *spec, struct err *e) { return add_key_value(r, "label:", spec, false, e); }

static int add_host(struct request *r, const char *spec, struct buf *out, struct err *e)
{
	const char *sep = strchr(spec, '=');
	unsigned char addr[16];
	if (!sep) sep = strchr(spec, ':');
	if (!sep || sep == spec || !sep[1]) return BAD("invalid host %s", spec);
	if (strcmp(sep + 1, "host-gateway") == 0)
		return BAD("unable to derive the IP value for host-gateway: host-gateway is not supported by the %s driver",
			   r->builder.driver);
	for (const char *p = sep + 1; *p; p += *p == ',') {
		size_t n = strcspn(p, ",");
		_cleanup_free_ char *ip = n > 2 && *p == '[' && p[n - 1] == ']' ? xstrndup(p + 1, n - 2) : xstrndup(p, n);
		if (inet_pton(AF_INET, ip, addr) != 1 && inet_pton(AF_INET6, ip, addr) != 1)
			return BAD("invalid host %s", spec);
		buf_addf(out, "%s%.*s=%s", out->n ? "," : "", (int)(sep - spec), spec, ip);
		p += n;
	}
	return 0;
}

static int add_hosts(struct request *r, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	const struct strvec *v = args_list(r->args, "add-host");
	for (size_t i = 0; i < v->n; i++)
		if (add_host(r, v->v[i], &out, e) < 0) return -1;
	if (out.n) set_attr(r, "", "add-hosts", buf_str(&out));
	return 0;
}

static int add_ulimits(struct request *r, struct err *e)
{
	static const char *const known[] = {"core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue", "nice",
					    "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack"};
	_cleanup_buf_ struct buf out = BUF_INIT;
	const struct strvec *v = args_list(r->args, "ulimit");
	for (size_t i = 0; i < v->n; i++) {
		char name[32], rest;
		long long soft, hard;
		int n = sscanf(v->v[i], "%31[a-z]=%lld:%lld%c", name, &soft, &hard, &rest);
		bool ok = n == 3 || (n == 2 && !strchr(v->v[i], ':')), is_known = false;
		for (size_t k = 0; ok && k < array_len(known); k++) is_known |= strcmp(known[k], name) == 0;
		if (!ok)
			return BAD("invalid argument \"%s\" for \"--ulimit\" flag: invalid ulimit argument: %s", v->v[i],
				   v->v[i]);
		if (!is_known)
			return BAD("invalid argument \"%s\" for \"--ulimit\" flag: invalid ulimit type: %s", v->v[i], name);
		if (n == 2) hard = soft;
		if (hard != -1 && (soft == -1 || soft > hard))
			return BAD("invalid argument \"%s\" for \"--ulimit\" flag: ulimit soft limit must be less than or "
				   "equal to hard limit: %lld > %lld",
				   v->v[i], soft, hard);
		buf_addf(&out, "%s%s=%lld:%lld", out.n ? "," : "", name, soft, hard);
	}
	if (out.n) set_attr(r, "", "ulimit", buf_str(&out));
	return 0;
}

static int add_resource(struct request *r, const char *spec, struct err *e)
{
	static const struct {
		const char *key, *attr;
		bool bytes, number;
	} keys[] = {{"memory", "memory", true, false},          {"memory-swap", "memswap", true, false},
		    {"cpu-shares", "cpushares", false, true},   {"cpu-period", "cpuperiod", false, true},
		    {"cpu-quota", "cpuquota", false, true},     {"cpuset-cpus", "cpusetcpus", false, false},
		    {"cpuset-mems", "cpusetmems", false, false}};
	const char *eq = strchr(spec, '=');
	for (size_t i = 0; eq && i < array_len(keys); i++) {
		char s[24];
		int64_t n = 0;
		char *end;
		if (strlen(keys[i].key) != (size_t)(eq - spec) || strncmp(spec, keys[i].key, (size_t)(eq - spec)) != 0)
			continue;
		if (!keys[i].bytes && !keys[i].number) {
			set_attr(r, "", keys[i].attr, eq + 1);
			return 0;
		}
		if (keys[i].bytes && strcmp(eq + 1, "-1") == 0)
			n = -1;
		else if (keys[i].bytes && spec_size_parse(eq + 1, &n, e) < 0)
			return err_wrap(e, "invalid value for resource %s", keys[i].key);
		else if (keys[i].number && (n = strtoll(eq + 1, &end, 10), *end || !eq[1]))
			return BAD("invalid value for resource %s: %s", keys[i].key, eq + 1);
		snprintf(s, sizeof s, "%" PRId64, n);
		set_attr(r, "", keys[i].attr, s);
		return 0;
	}
	return BAD("invalid resource \"%s\": expected memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or "
		   "cpuset-mems as key=value",
		   spec);
}

static int add_platforms(struct request *r, struct err *e)
{
	_cleanup_strvec_ struct strvec all = {0};
	const struct strvec *v = args_list(r->args, "platform");
	const char *env = getenv("DOCKER_DEFAULT_PLATFORM");
	size_t n = v->n ? v->n : !str_empty(env) ? 1 : 0;
	for (size_t i = 0; i < n; i++)
		for (const char *p = v->n ? v->v[i] : env; *p; p += *p == ',') {
			size_t len = strcspn(p, ",");
			_cleanup_free_ char *one = xstrndup(p, len);
			_cleanup_spec_platform_ struct spec_platform x = {0};
			p += len;
			if (strcmp(one, "local") == 0)
				spec_platform_host(&x);
			else if (spec_platform_parse_normal(one, &x, e) < 0)
				return -1;
			_cleanup_free_ char *s = spec_platform_format_short(&x);
			if (strvec_find(&all, s) < 0) strvec_add(&all, s);
		}
	if (!all.n) return 0;
	_cleanup_free_ char *joined = strvec_join(&all, ",");
	set_attr(r, "", "platform", joined);
	return 0;
}

static int set_network(struct request *r, struct err *e)
{
	const char *mode = args_str(r->args, "network");
	if (!*mode || strcmp(mode, "default") == 0) return 0;
	if (strcmp(mode, "host") != 0 && strcmp(mode, "none") != 0)
		return BAD("network mode \"%s\" not supported by buildkit - you can define a custom network for your builder "
			   "using the network driver-opt in "
			   "buildx create",
			   mode);
	set_attr(r, "", "force-network-mode", mode);
	if (strcmp(mode, "host") == 0) strvec_add(&r->b.entitlements, "network.host");
	return 0;
}

static int add_allow(struct request *r, const char *spec, struct err *e)
{
	if (strcmp(spec, "buildx.local.delete") == 0) {
		r->local_delete = true;
		return 0;
	}
	return build_add_allow(&r->b, spec, e);
}

static int add_secret(struct request *r, const char *spec, struct err *e) { return build_add_secret(&r->b, spec, e); }
static int add_ssh(struct request *r, const char *spec, struct err *e) { return build_add_ssh(&r->b, spec, e); }

static int add_cache(struct request *r, bool to, const char *flag, const char *spec, struct err *e)
{
	if (!strchr(spec, '=')) { /* references: each field is one */
		_cleanup_strvec_ struct strvec refs = {0};
		if (csv_fields(spec, ',', &refs, e) < 0) return -1;
		for (size_t i = 0; i < refs.n; i++)
			if (build_add_cache(&r->b, to, flag, refs.v[i], e) < 0) return -1;
		return 0;
	}
	if (!strstr(spec, "type=")) return BAD("type required for \"%s\"", spec);
	return build_add_cache(&r->b, to, flag, spec, e);
}

static int cache_to(struct request *r, const char *spec, struct err *e)
{
	return *spec ? add_cache(r, true, "--cache-to", spec, e) : 0;
}
static int cache_from(struct request *r, const char *spec, struct err *e)
{
	return *spec ? add_cache(r, false, "--cache-from", spec, e) : 0;
}

/* ---- attestations ---- */
static void csv_pair(struct buf *out, const char *k, const char *v)
{
	_cleanup_free_ char *pair = xasprintf("%s=%s", k, v);
	if (out->n) buf_addc(out, ',');
	bool quote = strchr(pair, ',') || strchr(pair, '"');
	if (quote) buf_addc(out, '"');
	for (const char *p = pair; *p; p++) {
		if (*p == '"') buf_addc(out, '"');
		buf_addc(out, *p);
	}
	if (quote) buf_addc(out, '"');
}

static int add_attest(struct request *r, const char *spec, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0}, kv = {0};
	_cleanup_buf_ struct buf out = BUF_INIT;
	bool disabled = false;
	if (csv_fields(spec, ',', &fields, e) < 0) return -1;
	for (size_t i = 0; i < fields.n; i++) {
		_cleanup_free_ char *k = NULL;
		const char *v;
		if (build_key_value(fields.v[i], &k, &v, e) < 0) return -1;
		if (strcmp(k, "disabled") != 0)
			strvec_env_set(&kv, k, v);
		else if (!str_bool(v, &disabled))
			return BAD("invalid value %s", fields.v[i]);
	}
	const char *type = strvec_env_get(&kv, "type");
	if (str_empty(type)) return BAD("attestation type not specified");
	if (strvec_env_get(&r->attests, type)) return 0;
	csv_pair(&out, "type", type);
	strvec_sort(&kv);
	for (size_t i = 0; i < kv.n; i++) {
		const char *eq = strchr(kv.v[i], '=');
		_cleanup_free_ char *k = xstrndup(kv.v[i], (size_t)(eq - kv.v[i]));
		if (strcmp(k, "type") != 0) csv_pair(&out, k, eq + 1);
	}
	strvec_env_set(&r->attests, type, disabled ? "" : buf_str(&out));
	return 0;
}

/* --sbom, --provenance: a truth value or attributes. */
static int add_shorthand(struct request *r, const char *type, struct err *e)
{
	const char *v = args_str(r->args, type);
	bool b;
	if (!*v) return 0;
	_cleanup_free_ char *spec = str_bool(v, &b) ? xasprintf("type=%s,disabled=%s", type, b ? "false" : "true")
						    : xasprintf("type=%s,%s", type, v);
	return add_attest(r, spec, e);
}

static int add_attests(struct request *r, struct err *e)
{
	const char *env = getenv("BUILDX_NO_DEFAULT_ATTESTATIONS");
	bool none = false;
	if (each(r, "attest", add_attest, e) < 0 || add_shorthand(r, "provenance", e) < 0 || add_shorthand(r, "sbom", e) < 0)
		return -1;
	for (size_t i = 0; i < r->attests.n; i++) {
		const char *eq = strchr(r->attests.v[i], '=');
		_cleanup_free_ char *type = xstrndup(r->attests.v[i], (size_t)(eq - r->attests.v[i]));
		if (eq[1]) set_attr(r, "attest:", type, eq + 1);
	}
	if (env && !str_bool(env, &none)) return BAD("invalid BUILDX_NO_DEFAULT_ATTESTATIONS: %s", env);
	if (!none && !strvec_env_get(&r->attests, "provenance"))
		set_attr(r, "", "attest:provenance", "mode=min,inline-only=true");
	return 0;
}

/* ---- outputs ---- */
static struct build_export *new_export(struct request *r, const char *type)
{
	struct build_export *x = vec_add(&r->b.exports);
	x->fd = -1;
	x->type = xstrdup(type);
	return x;
}

static int safe_delete(struct request *r, const struct build_export *x, struct err *e)
{
	_cleanup_free_ char *wd = realpath(".", NULL), *dest = realpath(x->dir, NULL);
	size_t n = wd ? strlen(wd) : 0;
	if (!x->delete_rest || r->local_delete) return 0;
	if (!dest) { /* not there yet: its parent tells */
		_cleanup_free_ char *dir = path_dir(x->dir), *up = realpath(dir, NULL);
		dest = up ? path_join(up, path_base(x->dir)) : NULL;
	}
	if (dest && wd && strncmp(dest, wd, n) == 0 && dest[n] == '/') return 0;
	return BAD("local output mode=delete for destination \"%s\" requires --allow=buildx.local.delete", x->dir);
}

static int add_output(struct request *r, const char *spec, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0}, attrs = {0};
	_cleanup_free_ char *type = NULL;
	if (!*spec) return 0;
	if (csv_fields(spec, ',', &fields, e) < 0) return -1;
	bool bare = fields.n == 1 && strcmp(fields.v[0], spec) == 0 && !str_starts(spec, "type="); /* only a destination */
	if (bare) {
		type = xstrdup(strcmp(spec, "-") == 0 ? "tar" : "local");
		strvec_env_set(&attrs, "dest", spec);
	}
	for (size_t i = 0; i < fields.n && !bare; i++) {
		_cleanup_free_ char *k = NULL;
		const char *v;
		if (build_key_value(fields.v[i], &k, &v, e) < 0) return -1;
		char *key = k + strspn(k, " ");
		if (strcmp(key, "type") == 0) {
			free(type);
			type = xstrdup(v);
		} else {
			strvec_env_set(&attrs, key, v);
		}
	}
	if (str_empty(type)) return BAD("type is required for output");
	bool registry = strcmp(type, "registry") == 0, as_tar = true;
	struct build_export *x = new_export(r, registry ? "image" : type);
	strvec_copy(&x->attrs, attrs.v, attrs.n);
	if (registry) {
		strvec_env_set(&x->attrs, "push", "true");
		if (!strvec_env_get(&x->attrs, "unpack")) strvec_env_set(&x->attrs, "unpack", "false");
	}
	const char *dest = strvec_env_get(&x->attrs, "dest"), *tar = strvec_env_get(&x->attrs, "tar");
	if (tar && !str_bool(tar, &as_tar)) as_tar = true;
	if (strcmp(type, "docker") == 0 && str_empty(dest) && as_tar) return 0; /* into docker itself */
	bool dir = strcmp(type, "local") == 0 || ((strcmp(type, "oci") == 0 || strcmp(type, "docker") == 0) && !as_tar);
	if (dir && str_empty(dest)) return BAD("dest is required for %s exporter", type);
	if (dir && strcmp(dest, "-") == 0) return BAD("dest cannot be stdout for %s exporter", type);
	return build_set_dest(x, e) < 0 ? -1 : safe_delete(r, x, e);
}

static bool for_docker(const struct build_export *x) { return strcmp(x->type, "docker") == 0 && x->fd < 0 && !x->dir; }

static void add_push(struct request *r)
{
	bool used = false;
	for (size_t i = 0; i < r->b.exports.n; i++) used |= strcmp(r->b.exports.v[i].type, "image") == 0;
	if (!used) new_export(r, "image");
	for (size_t i = 0; i < r->b.exports.n; i++) {
		struct build_export *x = &r->b.exports.v[i];
		if (strcmp(x->type, "image") != 0) continue;
		strvec_env_set(&x->attrs, "push", "true");
		if (!strvec_env_get(&x->attrs, "unpack")) strvec_env_set(&x->attrs, "unpack", "false");
	}
}

static int set_names(struct request *r, struct err *e)
{
	_cleanup_strvec_ struct strvec tags = {0};
	const struct strvec *v = args_list(r->args, "tag");
	for (size_t i = 0; i < v->n; i++) {
		_cleanup_spec_ref_ struct spec_ref ref = {0};
		if (spec_ref_parse(v->v[i], &ref, e) < 0) return err_wrap(e, "invalid tag \"%s\"", v->v[i]);
		strvec_add(&tags, v->v[i]);
	}
	_cleanup_free_ char *joined = tags.n ? strvec_join(&tags, ",") : NULL;
	for (size_t i = 0; i < r->b.exports.n; i++) {
		struct build_export *x = &r->b.exports.v[i];
		const char *push = strvec_env_get(&x->attrs, "push");
		bool b = false, image = strcmp(x->type, "image") == 0;
		if (joined && (image || strcmp(x->type, "oci") == 0 || strcmp(x->type, "docker") == 0))
			strvec_env_set(&x->attrs, "name", joined);
		else if (image && str_empty(strvec_env_get(&x->attrs, "name")) && push && str_bool(push, &b) && b)
			return BAD("tag is needed when pushing to registry");
	}
	return 0;
}

static int add_annotation(struct request *r, const char *spec, struct err *e)
{
	static const char *const types[] = {"index", "index-descriptor", "manifest", "manifest-descriptor"};
	const char *eq = strchr(spec, '=');
	if (!*spec) return 0;
	if (!eq) return BAD("parse annotations: invalid annotation \"%s\", expected key=value", spec);
	_cleanup_free_ char *k = xstrndup(spec, (size_t)(eq - spec)), *where = NULL;
	char *colon = strchr(k, ':');
	if (colon) *colon = 0;
	for (char *p = colon ? k : (char *)""; p && (colon ? *p : 1);) {
		size_t n = strcspn(p, ",");
		_cleanup_free_ char *one = xstrndup(p, n);
		char *open = strchr(one, '[');
		bool known = !*one;
		for (size_t i = 0; i < array_len(types); i++)
			known |= strncmp(one, types[i], open ? (size_t)(open - one) : strlen(one)) == 0 &&
				 strlen(types[i]) == (open ? (size_t)(open - one) : strlen(one));
		if (!known) return BAD("parse annotations: unknown annotation type \"%s\"", one);
		free(where);
		where = *one ? xasprintf("annotation-%s.%s", one, colon ? colon + 1 : k)
			     : xasprintf("annotation.%s", colon ? colon + 1 : k);
		for (size_t i = 0; i < r->b.exports.n; i++) strvec_env_set(&r->b.exports.v[i].attrs, where, eq + 1);
		p += n;
		if (*p != ',') break;
		p++;
	}
	return 0;
}

/* Images for docker: what kind it wants, and the way there. */
static int set_loads(struct request *r, struct err *e)
{
	size_t n = 0;
	for (size_t i = 0; i < r->b.exports.n; i++) {
		struct build_export *x = &r->b.exports.v[i];
		bool oci = false;
		const char *platforms = strvec_env_get(&r->b.attrs, "platform");
		if (!for_docker(x)) continue;
		if (n++) return BAD("multiple outputs configured to load into docker");
		if (!(r->load = load_new(r->b.cli, r->b.progress, &oci, e))) return -1;
		bool attested = false;
		for (size_t k = 0; k < r->attests.n; k++) attested |= strchr(r->attests.v[k], '=')[1] != 0;
		if (!oci && ((platforms && strchr(platforms, ',')) || attested))
			return BAD("docker exporter does not currently support exporting manifest lists");
		if (oci) {
			free(x->type);
			x->type = xstrdup("oci");
			strvec_env_set(&x->attrs, "prefer-image-digest", "true");
		}
		load_sink(r->load, &r->sink);
		x->sink = &r->sink;
	}
	return 0;
}

static int add_outputs(struct request *r, struct err *e)
{
	if (each(r, "output", add_output, e) < 0) return -1;
	if (args_bool(r->args, "push")) add_push(r);
	bool loads = false;
	for (size_t i = 0; i < r->b.exports.n; i++) loads |= for_docker(&r->b.exports.v[i]);
	if (args_bool(r->args, "load") && !loads) new_export(r, "docker");
	r->no_output = r->b.exports.n == 0 && !r->call;
	if (each(r, "annotation", add_annotation, e) < 0 || set_names(r, e) < 0) return -1;
	for (size_t i = r->b.exports.n; i-- > 0;) { /* "cacheonly" is no exporter: it says that there shall be none */
		struct build_export *x = &r->b.exports.v[i];
		if (strcmp(x->type, "cacheonly") != 0) continue;
		free(x->type);
		strvec_fini(&x->attrs);
		vec_remove(&r->b.exports, i);
	}
	return 0;
}

/* ---- frontend ---- */
static int set_frontend(struct request *r, struct err *e)
{
	const char *syntax = strvec_env_get(&r->b.attrs, "build-arg:BUILDKIT_SYNTAX"),
		   *inline_ = strvec_env_get(&r->b.attrs, "build-arg:BUILDKIT_INLINE_CACHE");
	const char *multi = strvec_env_get(&r->b.attrs, "build-arg:BUILDKIT_MULTI_PLATFORM");
	bool b = false;
	r->b.frontend = "dockerfile.v0";
	if (syntax) {
		const char *from = syntax + strspn(syntax, " \t");
		if (!*from)
			return BAD("empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' "
				   "for optional behavior");
		_cleanup_free_ char *all = xstrdup(syntax), *source = xstrndup(from, strcspn(from, " "));
		r->b.frontend = "gateway.v0";
		set_attr(r, "", "source", source);
		set_attr(r, "", "cmdline", all);
	}
	if (inline_ && str_bool(inline_, &b) && b) {
		struct build_cache *x = vec_add(&r->b.cache_to);
		x->type = xstrdup("inline");
	}
	if (multi && str_bool(multi, &b) && b) set_attr(r, "", "multi-platform", "true");
	return 0;
}

static int set_call(struct request *r, struct err *e)
{
	const char *spec = args_bool(r->args, "check") ? "check" : args_str(r->args, "call");
	_cleanup_strvec_ struct strvec fields = {0};
	if (*spec && csv_fields(spec, ',', &fields, e) < 0) return -1;
	for (size_t i = 0; i < fields.n; i++) {
		const char *f = fields.v[i];
		if (str_starts(f, "format="))
			r->call_json = strcmp(f, "format=json") == 0;
		else if (strchr(f, '='))
			return BAD("invalid print field: %s", f);
		else if (r->call)
			return BAD("invalid print value: %s", spec);
		else
			r->call = xstrdup(strcmp(f, "check") == 0 ? "lint" : f);
	}
	if (r->call && strcmp(r->call, "build") == 0) free(take_ptr(r->call));
	if (!r->call) return 0;
	_cleanup_free_ char *id = xasprintf("frontend.%s", r->call);
	const char *caps = strvec_env_get(&r->b.attrs, "frontend.caps");
	_cleanup_free_ char *all =
		xasprintf("%s%smoby.buildkit.frontend.subrequests+forward", caps ? caps : "", caps ? "," : "");
	set_attr(r, "", "requestid", id);
	set_attr(r, "", "frontend.caps", all);
	r->b.internal = true;
	return 0;
}

static int set_progress(struct request *r, struct err *e)
{
	const char *mode = args_str(r->args, "progress");
	r->quiet = args_bool(r->args, "quiet") || strcmp(mode, "quiet") == 0;
	if (r->quiet && strcmp(mode, "auto") != 0 && strcmp(mode, "quiet") != 0)
		return BAD("progress=%s and quiet cannot be used together", mode);
	if (progress_new(r->quiet ? "quiet" : mode, 2, NULL, &r->b.progress, e) < 0) return -1;
	_cleanup_free_ char *plain =
		xasprintf("building with \"%s\" instance using %s driver", r->builder.name, r->builder.driver);
	_cleanup_free_ char *tty = xasprintf("%s:%s", r->builder.driver, r->builder.name);
	progress_title(r->b.progress, plain, tty);
	return 0;
}

/* docker's config.json may name proxies for builds. */
static void add_proxies(struct request *r)
{
	static const char *const names[][2] = {{"httpProxy", "HTTP_PROXY"},
					       {"httpsProxy", "HTTPS_PROXY"},
					       {"ftpProxy", "FTP_PROXY"},
					       {"noProxy", "NO_PROXY"},
					       {"allProxy", "ALL_PROXY"}};
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	_cleanup_free_ char *path =
		str_empty(dir) ? xasprintf("%s/.docker/config.json", home ? home : "") : xasprintf("%s/config.json", dir);
	json_t *root = json_load_file(path, 0, NULL), *proxies = json_object_get(json_object_get(root, "proxies"), "default");
	for (size_t i = 0; i < array_len(names); i++) {
		const char *v = json_string_value(json_object_get(proxies, names[i][0]));
		char lower[16] = "";
		for (size_t k = 0; names[i][1][k]; k++) lower[k] = (char)(names[i][1][k] == '_' ? '_' : names[i][1][k] + 32);
		_cleanup_free_ char *up = xasprintf("build-arg:%s", names[i][1]), *low = xasprintf("build-arg:%s", lower);
		if (str_empty(v) || strvec_env_get(&r->b.attrs, up) || strvec_env_get(&r->b.attrs, low)) continue;
		strvec_env_set(&r->b.attrs, up, v);
		strvec_env_set(&r->b.attrs, low, v);
	}
	json_decref(root);
}

static int set_cache_flags(struct request *r, struct err *e)
{
	const struct strvec *filter = args_list(r->args, "no-cache-filter");
	bool none = args_bool(r->args, "no-cache");
	if (none && filter->n) return BAD("--no-cache and --no-cache-filter cannot currently be used together");
	_cleanup_free_ char *joined = filter->n ? strvec_join(filter, ",") : NULL;
	if (joined) set_attr(r, "", "no-cache", joined);
	if (none) set_attr(r, "", "no-cache", "");
	if (args_bool(r->args, "pull")) set_attr(r, "", "image-resolve-mode", "pull");
	return 0;
}

/* What flags say by themselves. */
static int read_flags(struct request *r, struct err *e)
{
	auth_serve(r->b.sess);
	return each(r, "build-arg", add_build_arg, e) < 0 || each(r, "label", add_label, e) < 0 || add_hosts(r, e) < 0 ||
			       add_ulimits(r, e) < 0 || each(r, "resource", add_resource, e) < 0 || add_platforms(r, e) < 0 ||
			       each(r, "allow", add_allow, e) < 0 || each(r, "cache-to", cache_to, e) < 0 ||
			       each(r, "cache-from", cache_from, e) < 0 || add_attests(r, e) < 0 || set_frontend(r, e) < 0 ||
			       set_progress(r, e) < 0
		       ? -1
		       : 0;
}

/* What needs files, agents or other programs. */
static int prepare(struct request *r, struct err *e)
{
	struct args *a = r->args;
	const char *epoch = getenv("SOURCE_DATE_EPOCH"), *policy = getenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY");
	const char *context = a->rest.v[0], *file = args_str(a, "file");
	int64_t shm = 0;
	if (set_network(r, e) < 0 || each(r, "secret", add_secret, e) < 0 || each(r, "ssh", add_ssh, e) < 0 ||
	    set_cache_flags(r, e) < 0 || inputs_load(&r->inputs, &r->b, context, file, args_list(a, "build-context"), e) < 0 ||
	    set_call(r, e) < 0 || add_outputs(r, e) < 0 || set_loads(r, e) < 0)
		return -1;
	inputs_add_git(&r->b, context, file);
	if (epoch && !strvec_env_get(&r->b.attrs, "build-arg:SOURCE_DATE_EPOCH"))
		set_attr(r, "build-arg:", "SOURCE_DATE_EPOCH", epoch);
	if (!str_empty(policy) && build_read_policy(&r->b, policy, e) < 0) return -1;
	if (*args_str(a, "target")) set_attr(r, "", "target", args_str(a, "target"));
	if (*args_str(a, "cgroup-parent")) set_attr(r, "", "cgroup-parent", args_str(a, "cgroup-parent"));
	if (*args_str(a, "shm-size") && spec_size_parse(args_str(a, "shm-size"), &shm, e) < 0) return -1;
	if (shm > 0) {
		char s[24];
		snprintf(s, sizeof s, "%" PRId64, shm);
		set_attr(r, "", "shm-size", s);
	}
	add_proxies(r);
	return 0;
}

/* ---- what is said at the end ---- */
static const char *image_id(const struct build *b)
{
	const char *config = strvec_env_get(&b->response, "containerimage.config.digest"),
		   *digest = strvec_env_get(&b->response, "containerimage.digest");
	for (size_t i = 0; i < b->exports.n; i++)
		if (strvec_env_get(&b->exports.v[i].attrs, "prefer-image-digest")) config = NULL;
	return config ? config : digest ? digest : "";
}

static int print_lint(const struct request *r)
{
	const char *json = strvec_env_get(&r->b.metadata, "result.json"), *txt = strvec_env_get(&r->b.metadata, "result.txt");
	json_t *root = json ? json_loads(json, 0, NULL) : NULL;
	size_t n = json_array_size(json_object_get(root, "warnings"));
	bool failed = json_is_object(json_object_get(root, "buildError"));
	json_decref(root);
	if (n == 1) printf("Check complete, 1 warning has been found!\n");
	if (n > 1) printf("Check complete, %zu warnings have been found!\n", n);
	if (n || failed) fputs(txt ? txt : "", stdout);
	if (!n && !failed) printf("Check complete, no warnings found.\n");
	return failed;
}

static int print_call(struct request *r)
{
	const char *txt = strvec_env_get(&r->b.metadata, "result.txt"), *json = strvec_env_get(&r->b.metadata, "result.json");
	const char *code = strvec_env_get(&r->b.metadata, "result.statuscode");
	int failed = 0;
	if (r->call_json)
		printf("%s\n", json ? json : "");
	else if (strcmp(r->call, "lint") == 0)
		failed = print_lint(r);
	else
		fputs(txt ? txt : json ? json : "", stdout);
	return code && atoi(code) ? atoi(code) : failed;
}

static int leave_files(struct request *r, struct err *e)
{
	const char *iid = args_str(r->args, "iidfile"), *metadata = args_str(r->args, "metadata-file"), *id = image_id(&r->b);
	if (*iid && path_write_file(AT_FDCWD, iid, id, strlen(id), 0644, false, e) < 0)
		return err_wrap(e, "writing image ID file");
	if (!*metadata) return 0;
	if (!r->call) {
		_cleanup_free_ char *ref = xasprintf("%s/%s/%s", r->builder.name, r->builder.node, r->b.ref);
		strvec_env_set(&r->b.response, "buildx.build.ref", ref);
	}
	return build_write_metadata(metadata, &r->b.response, e);
}

static int finish_load(void *arg, struct err *e)
{
	struct request *r = arg;
	return load_finish(r->load, e);
}

static int run(struct request *r, struct err *e)
{
	struct cli *c = r->b.cli;
	const char *iid = args_str(r->args, "iidfile");
	if (*iid && unlink(iid) < 0 && errno != ENOENT) return err_sys(e, errno, "removing image ID file");
	if (builder_find(c, r->args, &r->builder, e) < 0) return -1;
	if (read_flags(r, e) < 0) return -1;
	if (prepare(r, e) < 0) return err_wrap(e, "failed to build");
	if (builder_connect(c, &r->builder, r->b.progress, e) < 0) return -1;
	if (r->load) {
		r->b.finish = finish_load;
		r->b.finish_arg = r;
	}
	int rv = build_run(&r->b, e);
	if (!r->quiet) progress_print_warnings(r->b.progress, c->debug);
	if (r->no_output)
		fprintf(stderr,
			"WARNING: No output specified with %s driver. Build result will only remain in the build cache. To "
			"push result image into registry "
			"use --push or to load image into docker use --load\n",
			r->builder.driver);
	return rv < 0 ? err_wrap(e, "failed to build") : 0;
}

int buildx_build(struct cli *c, struct args *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct request r = {.args = a};
	_cleanup_free_ char *base = realpath(a->rest.v[0], NULL), *node = builder_node_id();
	_cleanup_free_ char *shared = base ? xasprintf("%s:%s", path_base(base), node) : NULL;
	build_init(&r.b, c, shared);
	int rv = run(&r, &e);
	if (rv == 0) rv = leave_files(&r, &e);
	if (rv == 0 && r.quiet && !r.call) printf("%s\n", image_id(&r.b));
	if (rv == 0 && r.call) rv = print_call(&r);
	const char *said = strvec_env_get(&r.b.response, "frontend.result.inlinemessage");
	if (rv == 0 && said) printf("\n%s\n", said);
	fflush(stdout);
	request_fini(&r);
	return err_is_set(&e) ? cli_fail(c, &e) : rv;
}
