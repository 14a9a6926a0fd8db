/* The frontend's options: one table of those that are plain text, functions for those with a grammar of their own.
 * Error texts are the peer's. Source: BuildKit frontend/dockerui/{config,attr}.go, frontend/attestations/parse.go. */
#include "front/convert.h"
#include "spec/spec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

/* ---- small grammars ---- */

static int number_error(const char *fn, const char *s, const char *why, struct err *e)
{
	_cleanup_free_ char *q = go_quote(s, strlen(s));
	return err_set(e, CODE_UNKNOWN, "strconv.%s: parsing %s: %s", fn, q, why);
}

static bool digits_of(const char *s, int base)
{
	if (!*s) return false;
	for (; *s; s++)
		if (*s < '0' || *s >= '0' + base) return false;
	return true;
}

int go_int(const char *s, int base, int bits, int64_t *ret, struct err *e)
{
	const char *d = *s == '+' || *s == '-' ? s + 1 : s;
	if (!digits_of(d, base)) return number_error("ParseInt", s, "invalid syntax", e);
	errno = 0;
	long long v = strtoll(s, NULL, base);
	if (errno || (bits < 64 && (v >= 1LL << (bits - 1) || v < -(1LL << (bits - 1)))))
		return number_error("ParseInt", s, "value out of range", e);
	*ret = v;
	return 0;
}

int go_uint(const char *s, int base, int bits, uint64_t *ret, struct err *e)
{
	if (!digits_of(s, base)) return number_error("ParseUint", s, "invalid syntax", e);
	errno = 0;
	unsigned long long v = strtoull(s, NULL, base);
	if (errno || (bits < 64 && v >> bits)) return number_error("ParseUint", s, "value out of range", e);
	*ret = v;
	return 0;
}

static int csv_error(size_t pos, const char *why, struct err *e)
{
	return err_set(e, CODE_UNKNOWN, "parse error on line 1, column %zu: %s", pos + 1, why);
}

static int csv_quoted(const char *s, size_t n, size_t *pos, struct buf *b, struct err *e)
{
	size_t i = *pos + 1;
	for (;;) {
		const char *q = memchr(s + i, '"', n - i);
		if (!q) return csv_error(i, "extraneous or missing \" in quoted-field", e);
		size_t at = (size_t)(q - s);
		buf_add(b, s + i, at - i);
		i = at + 1;
		if (i >= n || s[i] == ',') break;
		if (s[i] != '"') return csv_error(at, "extraneous or missing \" in quoted-field", e);
		buf_addc(b, '"');
		i++;
	}
	*pos = i;
	return 0;
}

int csv_fields(const char *s, struct strvec *ret, struct err *e)
{
	size_t n = strlen(s), i = 0;
	if (n && s[n - 1] == '\n') n -= n > 1 && s[n - 2] == '\r' ? 2 : 1;
	if (!n) return err_set(e, CODE_UNKNOWN, "EOF");
	for (;;) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		if (i < n && s[i] == '"') {
			if (csv_quoted(s, n, &i, &b, e) < 0) return -1;
		} else {
			const char *comma = memchr(s + i, ',', n - i);
			size_t end = comma ? (size_t)(comma - s) : n;
			const char *q = memchr(s + i, '"', end - i);
			if (q) return csv_error((size_t)(q - s), "bare \" in non-quoted-field", e);
			buf_add(&b, s + i, end - i);
			i = end;
		}
		strvec_take(ret, buf_take_str(&b));
		if (i >= n) return 0;
		i++; /* the comma */
		if (i >= n) {
			strvec_add(ret, "");
			return 0;
		}
	}
}

static bool ip_text(struct arena *a, const char *s, const char **ret)
{
	unsigned char b[16];
	char out[INET6_ADDRSTRLEN];
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	if (inet_pton(AF_INET, s, b) == 1) {
		inet_ntop(AF_INET, b, out, sizeof out);
	} else if (inet_pton(AF_INET6, s, b) == 1) {
		if (memcmp(b, mapped, 12) == 0)
			inet_ntop(AF_INET, b + 12, out, sizeof out);
		else
			inet_ntop(AF_INET6, b, out, sizeof out);
	} else {
		return false;
	}
	*ret = arena_strdup(a, out);
	return true;
}

/* ---- options ---- */

const char *front_opt(const struct front *f, const char *key) { return map_get(&f->opts, key); }

const char *front_optz(const struct front *f, const char *key)
{
	const char *v = front_opt(f, key);
	return v ? v : "";
}

static int parse_hosts(struct front *f, struct err *e)
{
	const char *v = front_optz(f, "add-hosts");
	_cleanup_strvec_ struct strvec fields = {0};
	if (!*v) return 0;
	if (csv_fields(v, &fields, e) < 0) return err_wrap(e, "failed to parse additional hosts");
	for (size_t i = 0; i < fields.n; i++) {
		char *s = arena_strdup(f->a, fields.v[i]);
		for (char *c = s; *c; c++)
			if (*c >= 'A' && *c <= 'Z') *c += 'a' - 'A';
		char *eq = strchr(s, '=');
		if (!eq)
			return err_set(e, CODE_UNKNOWN, "failed to parse additional hosts: invalid key-value pair %s",
				       fields.v[i]);
		*eq = 0;
		Pb__HostIP *h = llb_new(f->a, Pb__HostIP, pb__host_ip__init);
		h->host = s;
		if (!ip_text(f->a, eq + 1, &h->ip))
			return err_set(e, CODE_UNKNOWN, "failed to parse additional hosts: failed to parse IP %s", eq + 1);
		LLB_PUSH(f->a, f->cfg.n_hosts, f->cfg.hosts, h);
	}
	return 0;
}

static int parse_ulimit(const char *s, Pb__Ulimit *u, struct arena *a, struct err *e)
{
	static const char *const types[] = {"core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue", "nice",
					    "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack"};
	const char *eq = strchr(s, '=');
	if (!eq) return err_set(e, CODE_UNKNOWN, "invalid ulimit argument: %s", s);
	u->name = arena_strndup(a, s, (size_t)(eq - s));
	bool known = false;
	for (size_t i = 0; i < array_len(types); i++) known |= strcmp(types[i], u->name) == 0;
	if (!known) return err_set(e, CODE_UNKNOWN, "invalid ulimit type: %s", u->name);
	const char *colon = strchr(eq + 1, ':');
	if (colon && strchr(colon + 1, ':'))
		return err_set(e, CODE_UNKNOWN, "too many limit value arguments - %s, can only have up to two, `soft[:hard]`",
			       eq + 1);
	if (colon && go_int(colon + 1, 10, 64, &u->hard, e) < 0) return -1;
	if (go_int(colon ? arena_strndup(a, eq + 1, (size_t)(colon - eq - 1)) : eq + 1, 10, 64, &u->soft, e) < 0) return -1;
	if (!colon) u->hard = u->soft;
	if (u->hard != -1 && u->soft == -1)
		return err_set(e, CODE_UNKNOWN,
			       "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: %lld",
			       (long long)u->hard);
	if (u->hard != -1 && u->soft > u->hard)
		return err_set(e, CODE_UNKNOWN, "ulimit soft limit must be less than or equal to hard limit: %lld > %lld",
			       (long long)u->soft, (long long)u->hard);
	return 0;
}

static int parse_ulimits(struct front *f, struct err *e)
{
	const char *v = front_optz(f, "ulimit");
	_cleanup_strvec_ struct strvec fields = {0};
	if (!*v) return 0;
	if (csv_fields(v, &fields, e) < 0) return err_wrap(e, "failed to parse ulimit");
	for (size_t i = 0; i < fields.n; i++) {
		Pb__Ulimit *u = llb_new(f->a, Pb__Ulimit, pb__ulimit__init);
		if (parse_ulimit(fields.v[i], u, f->a, e) < 0) return err_wrap(e, "failed to parse ulimit");
		LLB_PUSH(f->a, f->cfg.n_ulimits, f->cfg.ulimits, u);
	}
	return 0;
}

static int limit_int(struct front *f, const char *key, int64_t min, const char *rule, int64_t *ret, struct err *e)
{
	const char *v = front_optz(f, key);
	if (!*v) return 0;
	if (go_int(v, 10, 64, ret, e) < 0) return err_wrap(e, "failed to parse resource limits: invalid %s value: %s", key, v);
	if (*ret < min || !*ret)
		return err_set(e, CODE_UNKNOWN, "failed to parse resource limits: invalid %s value: %s: must be %s", key, v,
			       rule);
	return 0;
}

static int limit_uint(struct front *f, const char *key, uint64_t *ret, struct err *e)
{
	const char *v = front_optz(f, key);
	if (!*v) return 0;
	if (go_uint(v, 10, 64, ret, e) < 0) return err_wrap(e, "failed to parse resource limits: invalid %s value: %s", key, v);
	if (!*ret)
		return err_set(e, CODE_UNKNOWN, "failed to parse resource limits: invalid %s value: %s: must be > 0", key, v);
	return 0;
}

static bool cpu_number(const char *s, int64_t *ret) { return go_int(s, 10, 64, ret, NULL) >= 0 && *ret >= 0; }

static int cpuset_part(char *part, struct err *e)
{
	enum { MAX_CPU = 8192 };
	int64_t lo, hi;
	_cleanup_free_ char *q = go_quote(part, strlen(part));
	char *dash = strchr(part, '-');
	if (!dash) {
		if (!cpu_number(part, &lo)) return err_set(e, CODE_UNKNOWN, "invalid cpuset element %s", q);
		if (lo > MAX_CPU) return err_set(e, CODE_UNKNOWN, "cpuset element %s exceeds maximum %d", q, MAX_CPU);
		return 0;
	}
	_cleanup_free_ char *a = spec_trim(part, (size_t)(dash - part));
	_cleanup_free_ char *b = spec_trim(dash + 1, strlen(dash + 1));
	if (!cpu_number(a, &lo) || !cpu_number(b, &hi) || hi < lo)
		return err_set(e, CODE_UNKNOWN, "invalid cpuset range %s", q);
	if (hi > MAX_CPU) return err_set(e, CODE_UNKNOWN, "cpuset range %s exceeds maximum %d", q, MAX_CPU);
	return 0;
}

static int limit_cpuset(struct front *f, const char *key, const char **ret, struct err *e)
{
	const char *v = front_optz(f, key);
	for (const char *p = v; *p;) {
		size_t n = strcspn(p, ",");
		_cleanup_free_ char *part = spec_trim(p, n);
		if (*part && cpuset_part(part, e) < 0)
			return err_wrap(e, "failed to parse resource limits: invalid %s value: %s", key, v);
		p += n + (p[n] == ',');
	}
	if (*v) *ret = v;
	return 0;
}

static int parse_resources(struct front *f, struct err *e)
{
	Pb__LinuxResources *r = llb_new(f->a, Pb__LinuxResources, pb__linux_resources__init);
	if (limit_int(f, "memory", 1, "> 0", &r->memory, e) < 0 ||
	    limit_int(f, "memswap", -1, "-1 (unlimited) or > 0", &r->memoryswap, e) < 0 ||
	    limit_uint(f, "cpushares", &r->cpushares, e) < 0 || limit_uint(f, "cpuperiod", &r->cpuperiod, e) < 0 ||
	    limit_int(f, "cpuquota", 1, "> 0", &r->cpuquota, e) < 0 || limit_cpuset(f, "cpusetcpus", &r->cpusetcpus, e) < 0 ||
	    limit_cpuset(f, "cpusetmems", &r->cpusetmems, e) < 0)
		return -1;
	if (r->memory || r->memoryswap || r->cpushares || r->cpuperiod || r->cpuquota || *r->cpusetcpus || *r->cpusetmems)
		f->cfg.resources = r;
	return 0;
}

static int parse_platforms(struct front *f, struct err *e)
{
	const char *v = front_optz(f, "platform");
	if (f->in->n_build_platforms) {
		f->cfg.build_platform = platform_dup(f->a, &f->in->build_platforms[0]);
	} else {
		_cleanup_spec_platform_ struct spec_platform host = {0};
		spec_platform_host(&host);
		f->cfg.build_platform = platform_normal(f->a, &host);
	}
	if (!*v) return 0;
	for (const char *p = v;; p++) {
		size_t n = strcspn(p, ",");
		const char *s = arena_strndup(f->a, p, n);
		_cleanup_spec_platform_ struct spec_platform sp = {0};
		if (spec_platform_parse_normal(s, &sp, e) < 0) return err_wrap(e, "failed to parse target platform %s", s);
		LLB_PUSH(f->a, f->cfg.n_targets, f->cfg.targets, platform_dup(f->a, &sp));
		p += n;
		if (!*p) return 0;
	}
}

static int parse_modes(struct front *f, struct err *e)
{
	static const struct {
		const char *name;
		Pb__NetMode mode;
	} nets[] = {{"", PB__NET_MODE__UNSET},
		    {"sandbox", PB__NET_MODE__UNSET},
		    {"none", PB__NET_MODE__NONE},
		    {"host", PB__NET_MODE__HOST}};
	const char *m = front_optz(f, "image-resolve-mode");
	f->cfg.resolve_mode = *m ? m : "default";
	if (*m && strcmp(m, "default") != 0 && strcmp(m, "pull") != 0 && strcmp(m, "local") != 0)
		return err_set(e, CODE_UNKNOWN, "invalid image-resolve-mode: %s", m);
	if (parse_hosts(f, e) < 0) return -1;
	const char *shm = front_optz(f, "shm-size");
	if (*shm && go_int(shm, 10, 64, &f->cfg.shm_size, e) < 0) return err_wrap(e, "failed to parse shm size");
	if (parse_ulimits(f, e) < 0 || parse_resources(f, e) < 0) return -1;
	const char *net = front_optz(f, "force-network-mode");
	for (size_t i = 0; i < array_len(nets); i++) {
		if (strcmp(nets[i].name, net) != 0) continue;
		f->cfg.network = nets[i].mode;
		return 0;
	}
	return err_set(e, CODE_UNKNOWN, "invalid netmode %s", net);
}

static void parse_no_cache(struct front *f)
{
	const char *v = front_opt(f, "no-cache");
	if (!v) return;
	if (!*v) f->cfg.no_cache_all = true;
	for (const char *p = v; *v;) {
		size_t n = strcspn(p, ",");
		strs_add(f->a, &f->cfg.no_cache, arena_strndup(f->a, p, n));
		if (!p[n]) break;
		p += n + 1;
	}
}

bool config_no_cache(const struct front *f, const char *stage)
{
	if (f->cfg.no_cache_all) return true;
	for (size_t i = 0; i < f->cfg.no_cache.n; i++)
		if (strcasecmp(f->cfg.no_cache.v[i], stage) == 0) return true;
	return false;
}

static int parse_multi_platform(struct front *f, struct err *e)
{
	const char *arg = front_optz(f, "build-arg:BUILDKIT_MULTI_PLATFORM");
	if (*arg) map_put(&f->opts, "multi-platform", (void *)arg);
	const char *v = front_optz(f, "multi-platform");
	bool many = f->cfg.n_targets > 1, b = false;
	f->cfg.multi_platform = many;
	if (!*v) return 0;
	if (!str_bool(v, &b)) return err_set(e, CODE_UNKNOWN, "invalid boolean value for multi-platform: %s", v);
	if (!b && many)
		return err_set(e, CODE_UNKNOWN, "conflicting config: returning multiple target platforms is not allowed");
	f->cfg.multi_platform = b;
	return 0;
}

static void add_cache_import(struct front *f, const char *type, struct front_kv *attrs, size_t n)
{
	struct front_cache_import c = {type, attrs, n};
	LLB_PUSH(f->a, f->res->n_cache_imports, f->res->cache_imports, c);
}

static const json_t *json_fold(const json_t *o, const char *key)
{
	const char *k;
	json_t *v;
	json_object_foreach((json_t *)o, k, v) if (strcasecmp(k, key) == 0) return v;
	return NULL;
}

static int cache_imports_json(struct front *f, const json_t *list, struct err *e)
{
	const json_t *x;
	size_t i;
	if (json_is_null(list)) return 0;
	if (!json_is_array(list))
		return err_set(e, CODE_UNKNOWN,
			       "json: cannot unmarshal into Go value of type []*moby_buildkit_v1.CacheOptionsEntry");
	json_array_foreach((json_t *)list, i, x)
	{
		const json_t *type = json_fold(x, "Type"), *attrs = json_fold(x, "Attrs");
		struct front_kv *kv = NULL;
		size_t n = 0;
		const char *k;
		json_t *v;
		if (!json_is_object(x) || (type && !json_is_string(type)))
			return err_set(e, CODE_UNKNOWN,
				       "json: cannot unmarshal into Go value of type moby_buildkit_v1.CacheOptionsEntry");
		json_object_foreach((json_t *)attrs, k, v)
		{
			if (!json_is_string(v))
				return err_set(
					e, CODE_UNKNOWN,
					"json: cannot unmarshal into Go struct field CacheOptionsEntry.Attrs of type string");
			struct front_kv p = {arena_strdup(f->a, k), arena_strdup(f->a, json_string_value(v)),
					     json_string_length(v)};
			LLB_PUSH(f->a, n, kv, p);
		}
		add_cache_import(f, arena_strdup(f->a, type ? json_string_value(type) : ""), kv, n);
	}
	return 0;
}

static int parse_cache_imports(struct front *f, struct err *e)
{
	const char *v = front_optz(f, "cache-imports"), *old = front_optz(f, "cache-from");
	if (*v) {
		_cleanup_free_ char *q = go_quote(v, strlen(v));
		json_error_t je;
		json_t *list = json_loads(v, JSON_DECODE_ANY, &je);
		if (!list) return err_set(e, CODE_UNKNOWN, "failed to unmarshal cache-imports (%s): %s", q, je.text);
		int r = cache_imports_json(f, list, e);
		json_decref(list);
		if (r < 0) return err_wrap(e, "failed to unmarshal cache-imports (%s)", q);
	}
	while (*old) {
		size_t n = strcspn(old, ",");
		struct front_kv *kv = arena_new_of(f->a, struct front_kv);
		*kv = (struct front_kv){"ref", arena_strndup(f->a, old, n), n};
		add_cache_import(f, "registry", kv, 1);
		old += n + (old[n] == ',');
	}
	return 0;
}

/* ---- attestations ---- */

static int sbom_params(struct front *f, const char *v, struct err *e)
{
	_cleanup_strvec_ struct strvec fields = {0};
	const char *generator = "docker/buildkit-syft-scanner:stable-1";
	if (*v && csv_fields(v, &fields, e) < 0) return err_wrap(e, "failed to parse sbom");
	for (size_t i = 0; i < fields.n; i++) {
		const char *s = arena_strdup(f->a, fields.v[i]), *eq = strchr(s, '=');
		struct pair p = {eq ? arena_strndup(f->a, s, (size_t)(eq - s)) : s, eq ? eq + 1 : ""};
		if (strcmp(p.key, "generator") == 0)
			generator = p.value;
		else
			LLB_PUSH(f->a, f->cfg.n_sbom_params, f->cfg.sbom_params, p);
	}
	_cleanup_spec_ref_ struct spec_ref ref = {0};
	if (spec_ref_parse_tagged(generator, &ref, e) < 0) return err_wrap(e, "failed to parse sbom scanner %s", generator);
	_cleanup_free_ char *text = spec_ref_format(&ref);
	f->cfg.sbom_generator = arena_strdup(f->a, text);
	return 0;
}

static int parse_attestations(struct front *f, struct err *e)
{
	static const char *const prefixes[] = {"attest:", "build-arg:BUILDKIT_ATTEST_"};
	const char *sbom = NULL;
	for (size_t i = 0; i < array_len(prefixes); i++) {
		MAP_EACH(&f->opts, it)
		{
			if (!str_starts(it->key, prefixes[i])) continue;
			const char *type = it->key + strlen(prefixes[i]);
			if (strcasecmp(type, "sbom") == 0) {
				sbom = it->value;
			} else if (strcasecmp(type, "provenance") == 0) {
				_cleanup_strvec_ struct strvec fields = {0};
				if (*(const char *)it->value && csv_fields(it->value, &fields, e) < 0)
					return err_wrap(e, "failed to parse provenance");
			} else {
				char *low = arena_strdup(f->a, type);
				for (char *c = low; *c; c++)
					if (*c >= 'A' && *c <= 'Z') *c += 'a' - 'A';
				return err_set(e, CODE_UNKNOWN, "unknown attestation type \"%s\"", low);
			}
		}
	}
	return sbom ? sbom_params(f, sbom, e) : 0;
}

/* ---- all of it ---- */

static int check_removed(const struct front *f, struct err *e)
{
	bool b;
	if (*front_optz(f, "override-copy-image"))
		return err_set(e, CODE_UNKNOWN, "support for \"override-copy-image\" was removed in BuildKit 0.11");
	if (str_bool(front_optz(f, "build-arg:BUILDKIT_DISABLE_FILEOP"), &b) && b)
		return err_set(e, CODE_UNKNOWN,
			       "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11");
	return 0;
}

static void collect(struct front *f, const char *prefix, struct map *to)
{
	MAP_EACH(&f->opts, it)
	if (str_starts(it->key, prefix)) map_put(to, it->key + strlen(prefix), it->value);
}

int config_init(struct front *f, struct err *e)
{
	for (size_t i = 0; i < f->in->n_opts; i++) {
		const char *kv = f->in->opts[i], *eq = strchr(kv, '=');
		if (!eq) continue;
		map_put(&f->opts, arena_strndup(f->a, kv, (size_t)(eq - kv)), arena_strdup(f->a, eq + 1));
	}
	if (check_removed(f, e) < 0 || parse_platforms(f, e) < 0 || parse_modes(f, e) < 0) return -1;
	parse_no_cache(f);
	if (parse_multi_platform(f, e) < 0 || parse_cache_imports(f, e) < 0 || parse_attestations(f, e) < 0) return -1;
	collect(f, "build-arg:", &f->cfg.build_args);
	collect(f, "label:", &f->cfg.labels);
	f->cfg.cache_ns = front_optz(f, "build-arg:BUILDKIT_CACHE_MOUNT_NS");
	f->cfg.cgroup_parent = front_optz(f, "cgroup-parent");
	f->cfg.target = front_optz(f, "target");
	const char *host = front_optz(f, "build-arg:BUILDKIT_SANDBOX_HOSTNAME");
	f->cfg.hostname = *host ? host : front_optz(f, "hostname");
	const char *check = front_opt(f, "build-arg:BUILDKIT_DOCKERFILE_CHECK");
	if (!check) return 0;
	struct lint_config *lc = arena_new_of(f->a, struct lint_config);
	if (lint_config_parse(f->a, check, lc, e) < 0)
		return err_wrap(e, "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK");
	f->cfg.check = lc;
	return 0;
}

void config_fini(struct front_config *c)
{
	map_fini(&c->build_args);
	map_fini(&c->labels);
}
