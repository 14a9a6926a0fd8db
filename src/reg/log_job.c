/* What is seen of an exchange from outside: two debug lines in containerd's words, and counters.
 *
 * Never in a line: credentials. A header whose name tells of one is left out, in both directions; of a URL, in any header too,
 * the user and the values of the query are hidden. Bodies are not logged. Source of the words: containerd core/remotes/docker.
 */
#include "reg/internal.h"
#include "tele/tele.h"

#include <ctype.h>
#include <string.h>

struct lines {
	struct strvec keys, values;
};

static void line(struct lines *l, const char *prefix, const char *name, const char *value)
{
	_cleanup_free_ char *key = xasprintf("%s%s", prefix, name);
	for (int i = 1; strvec_find(&l->keys, key) >= 0; i++) {
		free(key);
		key = xasprintf("%s%s.%d", prefix, name, i);
	}
	strvec_take(&l->keys, take_ptr(key));
	strvec_add(&l->values, value);
}

static void lines_print(struct lines *l, const struct log_span *span, const char *msg)
{
	struct log_field *f = xcalloc(l->keys.n + 1, sizeof *f);
	for (size_t i = 0; i < l->keys.n; i++) f[i] = (struct log_field){l->keys.v[i], l->values.v[i]};
	log_fields(LOG_DEBUG, span, msg, f, l->keys.n);
	free(f);
	strvec_fini(&l->keys);
	strvec_fini(&l->values);
}

static bool secret(const char *name)
{
	static const char *const parts[] = {"authorization", "cookie",  "token",  "secret",   "passw",
					    "credential",    "api-key", "apikey", "signature"};
	for (size_t i = 0; i < array_len(parts); i++)
		if (strstr(name, parts[i])) return true;
	return false;
}

static void header(struct lines *l, const char *prefix, const char *name, const char *value)
{
	if (secret(name)) return;
	bool url = strcmp(name, "location") == 0 || strstr(value, "://");
	_cleanup_free_ char *shown = url ? reg_url_show(value) : NULL;
	line(l, prefix, name, shown ? shown : value);
}

static void add_url(struct lines *l, const char *url)
{
	_cleanup_free_ char *shown = reg_url_show(url);
	line(l, "", "url", shown);
}

void reg_log_request(const struct reg_exchange *x)
{
	struct lines l = {0};
	if (!log_enabled(LOG_DEBUG)) return;
	for (size_t i = 0; x->headers && i < x->headers->n; i++) {
		const char *h = x->headers->v[i], *colon = strchr(h, ':');
		if (!colon) continue;
		_cleanup_free_ char *name = xstrndup(h, (size_t)(colon - h));
		for (char *p = name; *p; p++) *p = (char)tolower((unsigned char)*p);
		header(&l, "request.header.", name, colon + 1 + strspn(colon + 1, " "));
	}
	line(&l, "request.header.", "user-agent", REG_USER_AGENT);
	line(&l, "request.", "method", x->method);
	add_url(&l, x->url);
	lines_print(&l, x->io->span, "do request");
}

void reg_log_response(const struct reg_exchange *x, const struct reg_http_res *r)
{
	struct lines l = {0};
	if (!log_enabled(LOG_DEBUG)) return;
	for (size_t i = 0; i < r->names.n; i++) header(&l, "response.header.", r->names.v[i], r->values.v[i]);
	line(&l, "response.", "status", r->reason);
	add_url(&l, x->url);
	lines_print(&l, x->io->span, "fetch response received");
}

static const char *result(const struct reg_http_res *r, const struct reg_fail *f)
{
	static const char *const classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
	static const char *const kinds[] = {
		[FAIL_REFUSED] = "refused", [FAIL_TIMEOUT] = "timeout", [FAIL_BROKEN] = "broken", [FAIL_NETWORK] = "network"};
	if (r && r->status >= 100 && r->status < 600) return classes[r->status / 100 - 1];
	if (r) return "other";
	return (size_t)f->kind < array_len(kinds) && kinds[f->kind] ? kinds[f->kind] : "error";
}

void reg_count(const struct reg_exchange *x, CURL *c, const struct reg_http_res *r, const struct reg_fail *f)
{
	curl_off_t received = 0, sent = 0;
	_cleanup_free_ char *host = reg_url_host(x->url);
	const char *h = host ? host : "other";
	curl_easy_getinfo(c, CURLINFO_SIZE_DOWNLOAD_T, &received);
	curl_easy_getinfo(c, CURLINFO_SIZE_UPLOAD_T, &sent);
	tele_count(TELE_TRANSFERS, 1, h, x->method, result(r, f));
	if (received > 0) tele_count(TELE_TRANSFER_BYTES, received, h, "received");
	if (sent > 0) tele_count(TELE_TRANSFER_BYTES, sent, h, "sent");
}
