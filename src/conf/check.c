/* What needs more than one value to be judged, or the disk: files that are named, mirrors, hosts, words of a fixed list.
 * Errors are what BuildKit refuses too, and certificates that are missing; faults what it would quietly do otherwise. */
#include "conf/internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* ---- files: by the rows ---- */

static void check_path(const struct conf *c, struct conf_report *r, const char *at, const char *path, bool dir)
{
	struct stat st;
	if (stat(path, &st) < 0)
		conf_say_of(c, r, CONF_WARN, at, "%s: %s", path, strerror(errno));
	else if (dir && !S_ISDIR(st.st_mode))
		conf_say_of(c, r, CONF_WARN, at, "%s is not a folder", path);
}

static bool missing(const struct conf *c, struct conf_report *r, const char *at, const char *what, const char *path)
{
	if (access(path, R_OK) == 0) return false;
	conf_say_of(c, r, CONF_ERROR, at, "%s %s: %s", what, path, strerror(errno));
	return true;
}

static void check_file(const struct conf *c, struct conf_report *r, const char *at, enum conf_file kind, const char *path)
{
	_cleanup_free_ char *fault = NULL, *warning = NULL;
	if (str_empty(path)) return;
	switch (kind) {
	case FILE_NONE: return;
	case FILE_ANY: check_path(c, r, at, path, false); return;
	case FILE_DIR: check_path(c, r, at, path, true); return;
	case FILE_SECRET: missing(c, r, at, "credentials", path); return;
	case FILE_CERT:
		if (!missing(c, r, at, "certificate", path)) fault = conf_cert_fault(path, &warning);
		break;
	case FILE_KEY:
		if (!missing(c, r, at, "key", path)) fault = conf_key_fault(path);
		break;
	}
	if (fault) conf_say_of(c, r, CONF_FAULT, at, "%s: %s", path, fault);
	if (warning) conf_say_of(c, r, CONF_WARN, at, "%s: %s", path, warning);
}

static void check_rows(const struct conf *c, struct conf_report *r, const struct conf_rows *rs, const void *base,
		       const char *prefix)
{
	for (size_t i = 0; i < rs->n; i++) {
		const struct conf_row *row = &rs->rows[i];
		const void *field = (const char *)base + row->off;
		_cleanup_free_ char *at = conf_shown(prefix, row->path);
		const struct raw_vec *v = field;
		if (row->sub) {
			for (size_t k = 0; k < v->n; k++) {
				const void *elem = v->v + k * row->sub->elem_size;
				_cleanup_free_ char *sub = row->type == T_NAMED
								   ? xasprintf("%s.\"%s\"", at, *(char *const *)elem)
								   : xasprintf("%s[%zu]", at, k);
				check_rows(c, r, row->sub, elem, sub);
			}
		} else if (row->file && conf_origin_get(c, at)) {
			const struct strvec *sv = field;
			if (row->type == T_STR) check_file(c, r, at, row->file, *(char *const *)field);
			for (size_t k = 0; row->type == T_STRS && k < sv->n; k++) {
				_cleanup_free_ char *elem = xasprintf("%s[%zu]", at, k);
				check_file(c, r, elem, row->file, sv->v[k]);
			}
		}
	}
}

static void check_pair(const struct conf *c, struct conf_report *r, const char *at, const char *cert, const char *key)
{
	if (str_empty(cert) || str_empty(key)) {
		conf_say_of(c, r, CONF_ERROR, at, "%s is missing: key and cert belong together",
			    str_empty(cert) ? "cert" : "key");
		return;
	}
	_cleanup_free_ char *bad_cert = conf_cert_fault(cert, NULL), *bad_key = conf_key_fault(key);
	if (bad_cert || bad_key) return; /* was told */
	_cleanup_free_ char *fault = conf_pair_fault(cert, key);
	if (fault) conf_say_of(c, r, CONF_FAULT, at, "%s", fault);
}

static void check_pairs(const struct conf *c, struct conf_report *r, const char *at, const struct conf_keypair *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *sub = xasprintf("%s.keypair[%zu]", at, i);
		check_pair(c, r, sub, v[i].cert, v[i].key);
	}
}

/* ---- hosts ---- */

static bool host_ok(const char *host, size_t n)
{
	if (!n) return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)host[i] <= ' ' || strchr("/?#@\\\"'<>*", host[i])) return false;
	return true;
}

/* BuildKit cuts a scheme off and goes by the host's own entry. */
static bool check_scheme(const struct conf *c, struct conf_report *r, const char *at, const char *mirror)
{
	const char *sep = strstr(mirror, "://");
	if (!sep) return false;
	const char *rest = sep + 3;
	int host = (int)strcspn(rest, "/");
	if (strncasecmp(mirror, "http://", 7) == 0)
		conf_say_of(c, r, CONF_FAULT, at,
			    "the scheme of %s is dropped: write \"%s\", and http = true in [registry.\"%.*s\"]", mirror, rest,
			    host, rest);
	else
		conf_say_of(c, r, CONF_FAULT, at, "the scheme of %s is dropped: write \"%s\"", mirror, rest);
	return true;
}

static void check_mirrors(const struct conf *c, struct conf_report *r, const struct conf_registry *g, const char *at)
{
	for (size_t i = 0; i < g->mirrors.n; i++) {
		const char *m = g->mirrors.v[i];
		_cleanup_free_ char *elem = xasprintf("%s.mirrors[%zu]", at, i);
		if (!check_scheme(c, r, elem, m) && !host_ok(m, strcspn(m, "/")))
			conf_say_of(c, r, CONF_FAULT, elem, "\"%s\" names no host: write host[:port][/path]", m);
	}
	for (size_t i = 0; i < g->mirror.n; i++) {
		const struct conf_mirror *m = &g->mirror.v[i];
		_cleanup_free_ char *sub = xasprintf("%s.mirror[%zu]", at, i), *host = xasprintf("%s.host", sub);
		check_pairs(c, r, sub, m->keypairs.v, m->keypairs.n);
		if (str_empty(m->host))
			conf_say_of(c, r, CONF_ERROR, sub, "host is missing");
		else if (strstr(m->host, "://"))
			conf_say_of(c, r, CONF_ERROR, host,
				    "%s has a scheme: write the host alone, and http = true for plain HTTP", m->host);
		else if (!host_ok(m->host, strlen(m->host)))
			conf_say_of(c, r, CONF_ERROR, host, "\"%s\" is no host[:port]; a path goes into path", m->host);
	}
}

static void check_registry(const struct conf *c, struct conf_report *r, const struct conf_registry *g)
{
	_cleanup_free_ char *at = xasprintf("registry.\"%s\"", g->name);
	const char *n = g->name;
	const char *bare = str_starts(n, "*.") ? n + 2 : n;
	const char *sep = strstr(n, "://");
	if (sep)
		conf_say_of(c, r, CONF_FAULT, at, "a registry is named by its host: write [registry.\"%.*s\"]",
			    (int)strcspn(sep + 3, "/"), sep + 3);
	else if (strcmp(n, "*") != 0 && !host_ok(bare, strlen(bare)))
		conf_say_of(c, r, CONF_FAULT, at, "\"%s\" matches no registry: write host[:port], \"*.domain\" or \"*\"", n);
	else if (!strcmp(n, "registry-1.docker.io") || !strcmp(n, "index.docker.io"))
		conf_say_of(c, r, CONF_FAULT, at, "images of Docker Hub are named docker.io: write [registry.\"docker.io\"]");
	check_pairs(c, r, at, g->keypairs.v, g->keypairs.n);
	check_mirrors(c, r, g, at);
}

/* ---- words ---- */

static bool one_of(const char *s, const char *const *v)
{
	for (; *v; v++)
		if (strcasecmp(s, *v) == 0) return true;
	return false;
}

static void check_words(const struct conf *c, struct conf_report *r)
{
	static const char *const levels[] = {"panic", "fatal", "error", "warn", "warning", "info", "debug", "trace", NULL};
	static const char *const formats[] = {"text", "json", NULL};
	static const char *const modes[] = {"auto", "cni", "bridge", "host", "none", NULL};
	static const char *const snapshotters[] = {"auto", "overlayfs", "native", "fuse-overlayfs", "stargz", NULL};
	static const char *const entitlements[] = {"network.host", "security.insecure", "device", NULL};
	if (!one_of(c->log.format, formats))
		conf_say_of(c, r, CONF_ERROR, "log.format", "unsupported log type \"%s\": text or json", c->log.format);
	if (!one_of(c->log.level, levels))
		conf_say_of(c, r, CONF_ERROR, "log.level", "unsupported log level: %s (trace, debug, info, warn, error)",
			    c->log.level);
	if (!one_of(c->oci.network_mode, modes))
		conf_say_of(c, r, CONF_ERROR, "worker.oci.networkMode",
			    "invalid network mode: \"%s\" (auto, cni, bridge, host, none)", c->oci.network_mode);
	if (!one_of(c->oci.snapshotter, snapshotters))
		conf_say_of(c, r, CONF_ERROR, "worker.oci.snapshotter",
			    "unknown snapshotter name: \"%s\" (auto, overlayfs, native)", c->oci.snapshotter);
	for (size_t i = 0; i < c->entitlements.n; i++) {
		_cleanup_free_ char *at = xasprintf("insecure-entitlements[%zu]", i);
		if (!one_of(c->entitlements.v[i], entitlements))
			conf_say_of(c, r, CONF_ERROR, at, "invalid entitlement : %s", c->entitlements.v[i]);
	}
}

static void check_addresses(const struct conf *c, struct conf_report *r)
{
	for (size_t i = 0; i < c->grpc.address.n; i++) {
		const char *a = c->grpc.address.v[i];
		_cleanup_free_ char *at = xasprintf("grpc.address[%zu]", i);
		if (!strstr(a, "://"))
			conf_say_of(c, r, CONF_ERROR, at, "address %s does not contain proto, you meant unix://%s ?", a, a);
		else if (!str_starts(a, "unix://") && !str_starts(a, "tcp://") && !str_starts(a, "fd://"))
			conf_say_of(c, r, CONF_ERROR, at, "addr %s not supported: unix://PATH, tcp://HOST:PORT or fd://", a);
	}
}

void conf_check(const struct conf *c, struct conf_report *r)
{
	const char *cert = c->grpc.tls.cert, *key = c->grpc.tls.key;
	check_words(c, r);
	if (c->oci.enabled == CONF_FALSE)
		conf_say_of(c, r, CONF_ERROR, "worker.oci.enabled", "no worker would be left: there is no other than this one");
	if (!strcasecmp(c->oci.snapshotter, "fuse-overlayfs") || !strcasecmp(c->oci.snapshotter, "stargz"))
		conf_say_of(c, r, CONF_WARN, "worker.oci.snapshotter", "%s is not built yet: as auto", c->oci.snapshotter);
	check_addresses(c, r);
	check_rows(c, r, &conf_all_rows, c, "");
	for (size_t i = 0; i < c->registries.n; i++) check_registry(c, r, &c->registries.v[i]);
	if (c->system.max_registry_concurrency <= 0)
		conf_say_of(c, r, CONF_ERROR, "system.maxRegistryConcurrency",
			    "maxRegistryConcurrency must be greater than zero; set to %lld in the configuration file",
			    (long long)c->system.max_registry_concurrency);
	if (c->oci.no_process_sandbox && !c->oci.rootless)
		conf_say_of(c, r, CONF_ERROR, "worker.oci.noProcessSandbox", "can't enable NoProcessSandbox without Rootless");
	if (str_empty(cert) != str_empty(key))
		conf_say_of(c, r, CONF_ERROR, str_empty(cert) ? "grpc.tls.key" : "grpc.tls.cert",
			    "you must specify key and cert file if one is specified");
	else if (!str_empty(cert))
		check_pair(c, r, "grpc.tls.cert", cert, key);
}
