/* Which hosts to ask for a domain of references, in order, and with which TLS files.
 *
 * A domain with an entry: its mirrors, each with the TLS and http settings of the entry under the mirror's own name, then
 * the origin; an entry may be for many ("*.corp", "*"): the most specific one counts. Without one: the origin alone. Plain http
 * is chosen by `http = true`, or for localhost when http is unset; `insecure = true` turns that into https without
 * verification, with http as what to fall back on. A configuration is immutable and shared between threads by its reference
 * count. Source: reference 05 §4; BuildKit util/resolver/resolver.go. */
#include "reg/internal.h"
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

static void files_copy(struct reg_entry *d, char *const *ca, size_t n_ca, const struct reg_keypair *pairs, size_t n_pairs,
		       char *const *dirs, size_t n_dirs)
{
	strvec_copy(&d->ca, ca, n_ca);
	strvec_copy(&d->dirs, dirs, n_dirs);
	for (size_t i = 0; i < n_pairs; i++) {
		strvec_add(&d->certs, pairs[i].cert ? pairs[i].cert : "");
		strvec_add(&d->keys, pairs[i].key ? pairs[i].key : "");
	}
}

static void entry_copy(struct reg_entry *d, const struct reg_host_conf *s)
{
	d->name = xstrdup(s->name);
	d->http = s->http;
	d->insecure = s->insecure;
	d->max_concurrency = s->max_concurrency;
	strvec_copy(&d->mirrors, s->mirrors, s->mirror_count);
	files_copy(d, s->ca, s->ca_count, s->keypairs, s->keypair_count, s->tls_config_dirs, s->tls_config_dir_count);
}

/* "name" or "host:port" against "*", "*.corp" or a name. How good the match is: 0 none; the longest pattern wins, an equal name
 * over all. */
static size_t match(const char *pattern, const char *name)
{
	if (strcasecmp(pattern, name) == 0) return SIZE_MAX;
	if (*pattern != '*') return 0;
	const char *suffix = pattern + 1;
	size_t n = strlen(name), k = strlen(suffix);
	bool port = strchr(suffix, ':') != NULL;
	const char *colon = strrchr(name, ':');
	if (!port && colon && name[n - 1] != ']') n = (size_t)(colon - name); /* *.corp means every port of it */
	if (n <= k && k) return 0;
	return strncasecmp(name + n - k, suffix, k) == 0 ? 1 + k : 0;
}

static const struct reg_entry *find(const struct reg_config *c, const char *name)
{
	const struct reg_entry *best = NULL;
	size_t best_match = 0;
	for (size_t i = 0; c && i < c->n; i++) {
		size_t m = match(c->entries[i].name, name);
		if (m > best_match) best = &c->entries[i];
		best_match = max_of(m, best_match);
	}
	return best;
}

size_t reg_config_limit(const struct reg_config *c, const char *domain)
{
	const struct reg_entry *d = find(c, domain);
	return d ? d->max_concurrency : 0;
}

/* What the mirror's table leaves out is as the entry under its host's name has it. */
static void own_copy(const struct reg_config *c, struct reg_entry *owner, const struct reg_mirror_conf *s, size_t i)
{
	struct reg_own *o = &owner->own[i];
	const struct reg_entry *base = find(c, s->host);
	struct reg_entry *d = &o->entry;
	_cleanup_free_ char *joined = xasprintf("%s/%s", s->host, s->path ? s->path : "");
	reg_mirror_parse(joined, &o->host, &o->path);
	o->credentials = xstrdup(s->credentials);
	o->no_fallback = s->no_fallback;
	d->name = xasprintf("%s mirror %zu", owner->name, i);
	d->http = s->http == REG_UNSET && base ? base->http : s->http;
	d->insecure = s->insecure == REG_UNSET && base ? base->insecure : s->insecure;
	d->max_concurrency = base ? base->max_concurrency : 0;
	files_copy(d, s->ca, s->ca_count, s->keypairs, s->keypair_count, s->tls_config_dirs, s->tls_config_dir_count);
	if (s->ca_count || s->keypair_count || s->tls_config_dir_count || !base) return;
	strvec_copy(&d->ca, base->ca.v, base->ca.n);
	strvec_copy(&d->dirs, base->dirs.v, base->dirs.n);
	strvec_copy(&d->certs, base->certs.v, base->certs.n);
	strvec_copy(&d->keys, base->keys.v, base->keys.n);
}

struct reg_config *reg_config_new(const struct reg_host_conf *hosts, size_t n)
{
	static atomic_ullong serial = 1;
	struct reg_config *c = xnew(struct reg_config);
	atomic_init(&c->refs, 1);
	c->serial = atomic_fetch_add(&serial, 1);
	c->entries = xcalloc(n ? n : 1, sizeof *c->entries);
	c->n = n;
	for (size_t i = 0; i < n; i++) entry_copy(&c->entries[i], &hosts[i]);
	for (size_t i = 0; i < n; i++) {
		struct reg_entry *d = &c->entries[i];
		d->own = xcalloc(hosts[i].own_mirror_count + 1, sizeof *d->own);
		d->n_own = hosts[i].own_mirror_count;
		for (size_t k = 0; k < d->n_own; k++) own_copy(c, d, &hosts[i].own_mirrors[k], k);
	}
	return c;
}

struct reg_config *reg_config_new_insecure(const char *domain)
{
	struct reg_host_conf h = {.name = domain, .http = REG_YES, .insecure = REG_YES};
	return reg_config_new(&h, 1);
}

struct reg_config *reg_config_ref(const struct reg_config *c)
{
	struct reg_config *m = (struct reg_config *)c;
	if (m) atomic_fetch_add(&m->refs, 1);
	return m;
}

static void entry_fini(struct reg_entry *d)
{
	for (size_t i = 0; i < d->n_own; i++) {
		free(d->own[i].host);
		free(d->own[i].path);
		free(d->own[i].credentials);
		entry_fini(&d->own[i].entry);
	}
	free(d->own);
	free(d->name);
	strvec_fini(&d->mirrors);
	strvec_fini(&d->ca);
	strvec_fini(&d->certs);
	strvec_fini(&d->keys);
	strvec_fini(&d->dirs);
}

void reg_config_unref(struct reg_config *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
	for (size_t i = 0; i < c->n; i++) entry_fini(&c->entries[i]);
	free(c->entries);
	free(c);
}

/* The host part without its port and brackets, into out; false when it is too long to be one. */
static bool bare_host(const char *host, char *out, size_t size)
{
	const char *from = host, *end = strrchr(host, ':');
	if (*host == '[') {
		from++;
		end = strchr(host, ']');
	} else if (end && strchr(host, ':') != end) {
		end = NULL; /* an IPv6 address without brackets */
	}
	size_t n = end ? (size_t)(end - from) : strlen(from);
	if (n >= size) return false;
	memcpy(out, from, n);
	out[n] = 0;
	return true;
}

bool reg_is_localhost(const char *host)
{
	char h[256];
	struct in_addr a4;
	struct in6_addr a6;
	if (!bare_host(host, h, sizeof h)) return false;
	if (strcmp(h, "localhost") == 0) return true;
	if (inet_pton(AF_INET, h, &a4) == 1) return (ntohl(a4.s_addr) >> 24) == 127;
	return inet_pton(AF_INET6, h, &a6) == 1 && IN6_IS_ADDR_LOOPBACK(&a6);
}

bool reg_has_port(const char *host)
{
	const char *colon = strrchr(host, ':');
	if (!colon || !colon[1]) return false;
	return *host == '[' ? colon[-1] == ']' : strchr(host, ':') == colon;
}

void reg_mirror_parse(const char *mirror, char **ret_host, char **ret_path)
{
	const char *sep = strstr(mirror, "://");
	const char *from = sep ? sep + 3 : str_starts(mirror, "//") ? mirror + 2 : mirror;
	const char *slash = from + strcspn(from, "/?#");
	if (slash == from) { /* no host in it: kept as it is, asking it will fail and the next host is tried */
		*ret_host = xstrdup(mirror);
		*ret_path = xstrdup("/v2");
		return;
	}
	for (const char *p = from; p < slash; p++)
		if (*p == '@') from = p + 1;
	*ret_host = xstrndup(from, (size_t)(slash - from));
	_cleanup_free_ char *path = xstrndup(slash, strcspn(slash, "?#"));
	*ret_path = path_join("/v2", path);
}

/* host is owned from here on. */
static struct reg_host *add(struct reg_hosts *h, char *host, char *path, const struct reg_entry *entry)
{
	struct reg_host *r = vec_add(h);
	bool http = entry && entry->http != REG_UNSET ? entry->http == REG_YES : reg_is_localhost(host);
	r->host = host;
	r->path = path;
	r->entry = entry;
	r->insecure = entry && entry->insecure == REG_YES;
	r->http = http && !r->insecure;
	r->fallback = http && r->insecure;
	return r;
}

static struct reg_host *add_mirror(struct reg_hosts *h, const char *domain, char *host, char *path,
				   const struct reg_entry *entry)
{
	struct reg_host *m = add(h, host, path, entry);
	m->mirror = true;
	m->ns = !str_eq(host, domain) && !(str_eq(domain, "docker.io") && str_eq(host, "registry-1.docker.io"));
	return m;
}

void reg_hosts_of(const struct reg_config *c, const char *domain, struct reg_hosts *ret)
{
	const struct reg_entry *entry = find(c, domain);
	*ret = (struct reg_hosts){0};
	for (size_t i = 0; entry && i < entry->mirrors.n; i++) {
		char *host, *path;
		reg_mirror_parse(entry->mirrors.v[i], &host, &path);
		add_mirror(ret, domain, host, path, find(c, host));
	}
	for (size_t i = 0; entry && i < entry->n_own; i++) {
		const struct reg_own *o = &entry->own[i];
		struct reg_host *m = add_mirror(ret, domain, xstrdup(o->host), xstrdup(o->path), &o->entry);
		m->credentials = o->credentials;
		m->no_fallback = o->no_fallback;
	}
	add(ret, xstrdup(str_eq(domain, "docker.io") ? "registry-1.docker.io" : domain), xstrdup("/v2"), entry);
}

void reg_hosts_fini(struct reg_hosts *h)
{
	for (size_t i = 0; i < h->n; i++) {
		free(h->v[i].host);
		free(h->v[i].path);
	}
	vec_fini(h);
}
