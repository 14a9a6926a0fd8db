/* URLs and header values as transfers need them: origins, joining, hiding of secrets, Retry-After. Pure; any thread.
 * curl's own URL parser is used, so that what is checked here is what is connected to. */
#include "reg/internal.h"
#include <string.h>
#include <strings.h>

static void curlu_freep(CURLU **u) { curl_url_cleanup(*u); }

static void curl_free_ptr(char **p) { curl_free(*p); }
#define _cleanup_curlu_ _cleanup_(curlu_freep)
#define _cleanup_curl_ _cleanup_(curl_free_ptr)

static CURLU *parse(const char *url)
{
	CURLU *u = curl_url();
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_PATH_AS_IS) != CURLUE_OK) {
		curl_url_cleanup(u);
		return NULL;
	}
	return u;
}

char *reg_url_origin(const char *url)
{
	_cleanup_curlu_ CURLU *u = parse(url);
	_cleanup_curl_ char *scheme = NULL, *host = NULL, *port = NULL;
	if (!u || curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) || curl_url_get(u, CURLUPART_HOST, &host, 0)) return NULL;
	if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) return NULL;
	for (char *p = host; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p += 'a' - 'A';
	if (curl_url_get(u, CURLUPART_PORT, &port, CURLU_NO_DEFAULT_PORT)) return xasprintf("%s://%s", scheme, host);
	return xasprintf("%s://%s:%s", scheme, host, port);
}

char *reg_url_host(const char *url)
{
	const char *sep = strstr(url, "://");
	if (!sep) return NULL;
	size_t n = strcspn(sep + 3, "/?#");
	const char *at = memrchr(sep + 3, '@', n);
	return at ? xstrndup(at + 1, (size_t)(sep + 3 + n - at - 1)) : xstrndup(sep + 3, n);
}

char *reg_url_join(const char *base, const char *location)
{
	_cleanup_curlu_ CURLU *u = parse(base);
	_cleanup_curl_ char *joined = NULL;
	if (!u || curl_url_set(u, CURLUPART_URL, location, CURLU_PATH_AS_IS)) return NULL;
	if (curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) || curl_url_get(u, CURLUPART_URL, &joined, CURLU_PATH_AS_IS))
		return NULL;
	return xstrdup(joined);
}

char *reg_url_show(const char *url)
{
	struct buf b = BUF_INIT;
	const char *sep = strstr(url, "://");
	const char *host = sep ? sep + 3 : url;
	const char *at = memrchr(host, '@', strcspn(host, "/?#"));
	const char *query = host + strcspn(host, "?");
	buf_add(&b, url, (size_t)(host - url));
	if (at) buf_adds(&b, "xxxxx@");
	const char *from = at ? at + 1 : host;
	buf_add(&b, from, (size_t)(query - from));
	for (char lead = '?'; *query; lead = '&') {
		const char *p = query + 1;
		size_t n = strcspn(p, "&"), key = strcspn(p, "=&");
		bool plain = key == n || n == key + 1 || (key == 2 && strncmp(p, "ns", 2) == 0);
		buf_addc(&b, lead);
		buf_add(&b, p, plain ? n : key);
		if (!plain) buf_adds(&b, "=REDACTED");
		query = p + n;
	}
	return buf_take_str(&b);
}

int64_t reg_retry_after_ms(const char *value, time_t now)
{
	enum { LONGEST_S = 60 };
	if (str_empty(value)) return 0;
	char *end;
	long long s = strtoll(value, &end, 10);
	if (end == value || *end) {
		time_t at = curl_getdate(value, NULL);
		s = at == -1 ? 0 : (long long)at - (long long)now;
	}
	return s <= 0 ? 0 : min_of(s, (long long)LONGEST_S) * 1000;
}
