/* Which hosts to ask for a domain of references, in order, and with which TLS files.
 *
 * A domain with an entry: its mirrors, each with the TLS and http settings of the entry under the mirror's own name, then
 * the origin. Without one: the origin alone. Plain http is chosen by `http = true`, or for localhost when http is unset;
 * `insecure = true` turns that into https without verification, with http as what to fall back on. A configuration is
 * immutable and shared between threads by its reference count.
 * Source: reference 05 §4; BuildKit util/resolver/resolver.go. */
#include "reg/internal.h"
#include <arpa/inet.h>
#include <string.h>

static void entry_copy(struct reg_entry *d, const struct reg_host_conf *s)
{
	d->name = xstrdup(s->name);
	d->http = s->http;
	d->insecure = s->insecure;
	strvec_copy(&d->mirrors, s->mirrors, s->mirror_count);
	strvec_copy(&d->ca, s->ca, s->ca_count);
	strvec_copy(&d->dirs, s->tls_config_dirs, s->tls_config_dir_count);
	for (size_t i = 0; i < s->keypair_count; i++) {
		strvec_add(&d->certs, s->keypairs[i].cert ? s->keypairs[i].cert : "");
		strvec_add(&d->keys, s->keypairs[i].key ? s->keypairs[i].key : "");
	}
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

void reg_config_unref(struct reg_config *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1) return;
	for (size_t i = 0; i < c->n; i++) {
		struct reg_entry *d = &c->entries[i];
		free(d->name);
		strvec_fini(&d->mirrors);
		strvec_fini(&d->ca);
		strvec_fini(&d->certs);
		strvec_fini(&d->keys);
		strvec_fini(&d->dirs);
	}
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

static const struct reg_entry *find(const struct reg_config *c, const char *name)
{
	for (size_t i = 0; c && i < c->n; i++)
		if (str_eq(c->entries[i].name, name)) return &c->entries[i];
	return NULL;
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

void reg_hosts_of(const struct reg_config *c, const char *domain, struct reg_hosts *ret)
{
	const struct reg_entry *entry = find(c, domain);
	*ret = (struct reg_hosts){0};
	for (size_t i = 0; entry && i < entry->mirrors.n; i++) {
		char *host, *path;
		reg_mirror_parse(entry->mirrors.v[i], &host, &path);
		struct reg_host *m = add(ret, host, path, find(c, host));
		m->mirror = true;
		m->ns = !str_eq(host, domain) && !(str_eq(domain, "docker.io") && str_eq(host, "registry-1.docker.io"));
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
