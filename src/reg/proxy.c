/* Which proxy to use for a URL: HTTP_PROXY or HTTPS_PROXY by its scheme, else ALL_PROXY; not for what NO_PROXY names, nor for
 * localhost and loopback addresses. Names of variables in either case, the upper one first. Pure but for the environment;
 * any thread.
 *
 * NO_PROXY is a list of "*", addresses, ranges in CIDR notation, and names: "example.com" means it and all below it,
 * ".example.com" and "*.example.com" only those below it. Each may have a port: then only that port is meant.
 * Source: golang.org/x/net/http/httpproxy (ALL_PROXY is curl's and git's). */
#include "reg/internal.h"
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

static const char *env2(const char *a, const char *b)
{
	const char *v = getenv(a);
	return str_empty(v) ? getenv(b) : v;
}

/* The parts of host[:port]; the host without brackets. */
static bool split(const char *s, size_t n, char *host, size_t size, const char **ret_port, size_t *ret_port_n)
{
	const char *end = s + n, *from = s, *to = end, *port = end;
	if (n && *s == '[') {
		to = memchr(s, ']', n);
		if (!to) return false;
		from++;
		if (to + 1 < end && to[1] == ':') port = to + 2;
	} else {
		const char *colon = memrchr(s, ':', n);
		if (colon && memchr(s, ':', n) == colon) {
			to = colon;
			port = colon + 1;
		}
	}
	if ((size_t)(to - from) >= size) return false;
	memcpy(host, from, (size_t)(to - from));
	host[to - from] = 0;
	*ret_port = port;
	*ret_port_n = (size_t)(end - port);
	return true;
}

static int address_of(const char *s, uint8_t out[16])
{
	if (inet_pton(AF_INET, s, out) == 1) return 4;
	return inet_pton(AF_INET6, s, out) == 1 ? 16 : 0;
}

static bool in_range(const char *range, const uint8_t *address, int size)
{
	char net[64];
	uint8_t base[16];
	const char *slash = strchr(range, '/');
	if (!slash || (size_t)(slash - range) >= sizeof net) return false;
	memcpy(net, range, (size_t)(slash - range));
	net[slash - range] = 0;
	int bits = atoi(slash + 1);
	if (address_of(net, base) != size || bits < 0 || bits > size * 8) return false;
	for (int i = 0; i < bits; i++)
		if ((base[i / 8] ^ address[i / 8]) & (0x80 >> i % 8)) return false;
	return true;
}

static bool name_below(const char *name, const char *suffix, bool itself)
{
	size_t n = strlen(name), k = strlen(suffix);
	if (itself && strcasecmp(name, suffix) == 0) return true;
	return n > k + 1 && name[n - k - 1] == '.' && strcasecmp(name + n - k, suffix) == 0;
}

static bool entry_means(const char *entry, size_t n, const char *host, const char *port)
{
	char name[256];
	uint8_t address[16], other[16];
	const char *entry_port;
	size_t entry_port_n;
	if (n == 1 && *entry == '*') return true;
	int size = address_of(host, address);
	if (memchr(entry, '/', n)) {
		_cleanup_free_ char *range = xstrndup(entry, n);
		return size && in_range(range, address, size);
	}
	if (!split(entry, n, name, sizeof name, &entry_port, &entry_port_n)) return false;
	if (entry_port_n && (strlen(port) != entry_port_n || strncmp(port, entry_port, entry_port_n) != 0)) return false;
	if (size) return address_of(name, other) == size && memcmp(address, other, (size_t)size) == 0;
	if (str_starts(name, "*.")) return name_below(host, name + 2, false);
	return *name == '.' ? name_below(host, name + 1, false) : *name && name_below(host, name, true);
}

bool reg_no_proxy(const char *list, const char *host_port, const char *default_port)
{
	char host[256], port[8];
	const char *p;
	size_t n;
	if (!split(host_port, strlen(host_port), host, sizeof host, &p, &n)) return false;
	snprintf(port, sizeof port, "%.*s", (int)(n ? n : strlen(default_port)), n ? p : default_port);
	for (list = list ? list : ""; *list;) {
		list += strspn(list, ", \t");
		n = strcspn(list, ", \t");
		if (n && entry_means(list, n, host, port)) return true;
		list += n;
	}
	return false;
}

char *reg_proxy_for(const char *url)
{
	_cleanup_free_ char *host = reg_url_host(url);
	bool https = strncasecmp(url, "https:", 6) == 0;
	const char *proxy = https ? env2("HTTPS_PROXY", "https_proxy") : env2("HTTP_PROXY", "http_proxy");
	if (str_empty(proxy)) proxy = env2("ALL_PROXY", "all_proxy");
	if (str_empty(proxy) || !host || reg_is_localhost(host)) return NULL;
	return reg_no_proxy(env2("NO_PROXY", "no_proxy"), host, https ? "443" : "80") ? NULL : xstrdup(proxy);
}
