/* The container's /etc/resolv.conf and /etc/hosts. Pure text in, text out, but for reading the host's resolv.conf.
 * Rules (peer executor/oci/resolvconf.go, util/resolvconf): the host's file with the daemon's [dns] values in place of
 * its own; loopback servers do not work in another network namespace and are left out, unless the step uses the host's
 * network or they were configured; with none left, public ones are used. systemd-resolved's stub (127.0.0.53 alone)
 * means its own file is read instead. */
#include "run/internal.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>

enum { RESOLV_MAX_BYTES = 1 << 20 };
static const char *const fallback_servers[] = {"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"};

bool dns_addr_canonical(const char *s, char out[static ADDR_STR])
{
	struct in_addr a4;
	struct in6_addr a6;
	if (inet_pton(AF_INET, s, &a4) == 1) return inet_ntop(AF_INET, &a4, out, INET6_ADDRSTRLEN) != NULL;
	size_t n = strcspn(s, "%");
	char plain[INET6_ADDRSTRLEN];
	if (n >= sizeof plain || (s[n] && (!s[n + 1] || strlen(s + n) > 20))) return false;
	memcpy(plain, s, n);
	plain[n] = 0;
	if (inet_pton(AF_INET6, plain, &a6) != 1 || !inet_ntop(AF_INET6, &a6, out, INET6_ADDRSTRLEN)) return false;
	memcpy(out + strlen(out), s + n, strlen(s + n) + 1);
	return true;
}

static bool is_loopback(const char *s)
{
	return str_starts(s, "127.") || strcmp(s, "::1") == 0 || str_starts(s, "::ffff:127.");
}

struct resolv {
	struct strvec servers, search, options, other;
};

static void resolv_fini(struct resolv *r)
{
	strvec_fini(&r->servers);
	strvec_fini(&r->search);
	strvec_fini(&r->options);
	strvec_fini(&r->other);
}

static void words(struct strvec *out, char *s)
{
	char *save = NULL;
	for (char *w = strtok_r(s, " \t\r\v\f", &save); w; w = strtok_r(NULL, " \t\r\v\f", &save)) strvec_add(out, w);
}

static void resolv_line(struct resolv *r, char *line)
{
	_cleanup_strvec_ struct strvec f = {0};
	char addr[ADDR_STR];
	if (!*line || *line == '#' || *line == ';') return;
	_cleanup_free_ char *copy = xstrdup(line);
	words(&f, copy);
	if (f.n == 0) return;
	bool known = true;
	if (strcmp(f.v[0], "nameserver") == 0) {
		if (f.n > 1 && dns_addr_canonical(f.v[1], addr)) strvec_add(&r->servers, addr);
	} else if (strcmp(f.v[0], "search") == 0 || strcmp(f.v[0], "domain") == 0) {
		if (f.n < 2) return;
		strvec_fini(&r->search);
		strvec_copy(&r->search, f.v + 1, f.n - 1);
	} else if (strcmp(f.v[0], "options") == 0) {
		strvec_copy(&r->options, f.v + 1, f.n - 1);
	} else {
		known = false;
	}
	if (!known) strvec_add(&r->other, line);
}

static void resolv_parse(struct resolv *r, char *text)
{
	char *save = NULL;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		size_t n = strlen(l);
		if (n && l[n - 1] == '\r') l[n - 1] = 0;
		resolv_line(r, l);
	}
}

static void put_line(struct buf *out, const char *word, const struct strvec *v)
{
	_cleanup_free_ char *joined = strvec_join(v, " ");
	if (v->n) buf_addf(out, "%s %s\n", word, joined);
}

static void replace(struct strvec *dst, const struct strvec *conf, const char *but)
{
	if (!conf->n) return;
	strvec_fini(dst);
	for (size_t i = 0; i < conf->n; i++)
		if (!but || strcmp(conf->v[i], but) != 0) strvec_add(dst, conf->v[i]);
}

char *dns_resolv_conf(char *host_text, const struct run_dns *conf, bool host_net)
{
	_cleanup_(resolv_fini) struct resolv r = {0};
	static const struct run_dns none = {0};
	struct buf out = BUF_INIT;
	if (!conf) conf = &none;
	resolv_parse(&r, host_text);
	replace(&r.servers, &conf->servers, NULL);
	replace(&r.search, &conf->search, ".");
	replace(&r.options, &conf->options, NULL);
	bool filter = (!host_net || r.servers.n == 0) && !conf->servers.n;
	size_t n = 0;
	for (size_t i = 0; i < r.servers.n; i++) {
		if (filter && is_loopback(r.servers.v[i])) continue;
		buf_addf(&out, "nameserver %s\n", r.servers.v[i]);
		n++;
	}
	for (size_t i = 0; filter && n == 0 && i < array_len(fallback_servers); i++)
		buf_addf(&out, "nameserver %s\n", fallback_servers[i]);
	put_line(&out, "search", &r.search);
	put_line(&out, "options", &r.options);
	for (size_t i = 0; i < r.other.n; i++) buf_addf(&out, "%s\n", r.other.v[i]);
	return out.p ? buf_take_str(&out) : xstrdup("");
}

int run_dns_new(char *const *nameservers, size_t n_nameservers, char *const *options, size_t n_options, char *const *search,
		size_t n_search, struct run_dns **ret, struct err *e)
{
	char addr[ADDR_STR];
	struct run_dns *d = xnew(struct run_dns);
	atomic_init(&d->refs, 1);
	for (size_t i = 0; i < n_nameservers; i++) {
		if (!dns_addr_canonical(nameservers[i], addr)) {
			run_dns_unref(d);
			return err_set(e, CODE_INVALID_ARGUMENT, "bad nameserver address %s", nameservers[i]);
		}
		strvec_add(&d->servers, addr);
	}
	strvec_copy(&d->options, options, n_options);
	strvec_copy(&d->search, search, n_search);
	*ret = d;
	return 0;
}

struct run_dns *run_dns_ref(struct run_dns *d)
{
	if (d) atomic_fetch_add(&d->refs, 1);
	return d;
}

void run_dns_unref(struct run_dns *d)
{
	if (!d || atomic_fetch_sub(&d->refs, 1) != 1) return;
	strvec_fini(&d->servers);
	strvec_fini(&d->options);
	strvec_fini(&d->search);
	free(d);
}

/* Is systemd-resolved's stub the only server? */
static bool only_stub(const char *text)
{
	_cleanup_(resolv_fini) struct resolv r = {0};
	_cleanup_free_ char *copy = xstrdup(text);
	resolv_parse(&r, copy);
	return r.servers.n == 1 && strcmp(r.servers.v[0], "127.0.0.53") == 0;
}

char *dns_host_text(bool host_net)
{
	uint8_t *p = NULL;
	size_t n;
	if (path_read_file(AT_FDCWD, "/etc/resolv.conf", RESOLV_MAX_BYTES, &p, &n, NULL) < 0) return xstrdup("");
	if (host_net || !only_stub((char *)p)) return (char *)p;
	free(p);
	p = NULL;
	if (path_read_file(AT_FDCWD, "/run/systemd/resolve/resolv.conf", RESOLV_MAX_BYTES, &p, &n, NULL) < 0)
		return xstrdup("");
	return (char *)p;
}

int dns_hosts_file(const char *hostname, const struct run_host *extra, size_t n, char **ret, struct err *e)
{
	struct buf out = BUF_INIT;
	buf_addf(&out, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n",
		 str_empty(hostname) ? RUN_HOSTNAME : hostname);
	for (size_t i = 0; i < n; i++) {
		char addr[ADDR_STR];
		if (!dns_addr_canonical(extra[i].ip, addr) || strpbrk(extra[i].host, "\n\r")) {
			buf_fini(&out);
			return err_set(e, CODE_INVALID_ARGUMENT, "extra host %s has a bad address %s", extra[i].host,
				       extra[i].ip);
		}
		buf_addf(&out, "%s\t%s\n", addr, extra[i].host);
	}
	*ret = buf_take_str(&out);
	return 0;
}
