/* URLs after Go's net/url: what a component may hold unescaped, parsing, and printing the same text again.
 *
 * 1. path, user, password, fragment and host are kept decoded; raw_path and raw_fragment only where encoding the decoded
 *    form would not give back what was read.
 * 2. A "%00" is refused everywhere: our strings end at NUL. */
#include "spec/url.h"
#include "spec/internal.h"

#include <arpa/inet.h>
#include <string.h>

enum part { PATH, SEGMENT, HOST, ZONE, USER, QUERY, FRAGMENT };

static bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* What stays as it is in each part, besides letters, digits and "-_.~". */
static const char *const plain[] = {
	[PATH] = "$&+,/:;=@", [SEGMENT] = "$&+:=@", [HOST] = "!$&'()*+,;=:[]<>\"", [ZONE] = "!$&'()*+,;=:[]<>\"",
	[USER] = "$&+,;=",    [QUERY] = "",         [FRAGMENT] = "$&+,/:;=?@!()*",
};

static bool escapes(char c, enum part part) { return !is_alnum(c) && (!c || (!strchr("-_.~", c) && !strchr(plain[part], c))); }

static int hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int bad_escape(const char *s, size_t n, struct err *e)
{
	_cleanup_free_ char *q = go_quote(s, min_of(n, (size_t)3));
	return err_set(e, SPEC_BAD, "invalid URL escape %s", q);
}

static int unescape(const char *s, size_t n, enum part part, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '%') {
			int hi = i + 2 < n ? hex_value(s[i + 1]) : -1, lo = i + 2 < n ? hex_value(s[i + 2]) : -1,
			    v = hi * 16 + lo;
			if (hi < 0 || lo < 0 || v == 0) return bad_escape(s + i, n - i, e);
			bool is_percent = v == '%';
			if (part == HOST && v < 0x80 && !is_percent) return bad_escape(s + i, n - i, e);
			if (part == ZONE && !is_percent && v != ' ' && escapes((char)v, HOST))
				return bad_escape(s + i, n - i, e);
			buf_addc(&out, (char)v);
			i += 2;
		} else if ((part == HOST || part == ZONE) && !(s[i] & 0x80) && escapes(s[i], part)) {
			_cleanup_free_ char *q = go_quote(s + i, 1);
			return err_set(e, SPEC_BAD, "invalid character %s in host name", q);
		} else {
			buf_addc(&out, s[i] == '+' && part == QUERY ? ' ' : s[i]);
		}
	}
	*ret = buf_take_str(&out);
	return 0;
}

static char *escape(const char *s, enum part part)
{
	struct buf out = BUF_INIT;
	for (; *s; s++) {
		if (*s == ' ' && part == QUERY)
			buf_addc(&out, '+');
		else if (escapes(*s, part))
			buf_addf(&out, "%%%02X", (unsigned char)*s);
		else
			buf_addc(&out, *s);
	}
	return buf_take_str(&out);
}

char *spec_query_escape(const char *s) { return escape(s, QUERY); }
char *spec_path_escape(const char *s) { return escape(s, SEGMENT); }
int spec_query_unescape(const char *s, char **ret, struct err *e) { return unescape(s, strlen(s), QUERY, ret, e); }
int spec_path_unescape(const char *s, char **ret, struct err *e) { return unescape(s, strlen(s), SEGMENT, ret, e); }

/* Decode s into *ret, keep it raw where its encoding would differ. */
static int set_encoded(const char *s, size_t n, enum part part, char **ret, char **ret_raw, struct err *e)
{
	if (unescape(s, n, part, ret, e) < 0) return -1;
	_cleanup_free_ char *again = escape(*ret, part);
	*ret_raw = strlen(again) == n && memcmp(again, s, n) == 0 ? xstrdup("") : xstrndup(s, n);
	return 0;
}

static bool port_ok(const char *s, size_t n)
{
	if (!n) return true;
	if (*s != ':') return false;
	for (size_t i = 1; i < n; i++)
		if (s[i] < '0' || s[i] > '9') return false;
	return true;
}

static int check_port(const char *s, size_t n, struct err *e)
{
	if (port_ok(s, n)) return 0;
	_cleanup_free_ char *q = go_quote(s, n);
	return err_set(e, SPEC_BAD, "invalid port %s after host", q);
}

/* "[address%25zone]:port" */
static int parse_ip_literal(const char *s, size_t n, char **ret, struct err *e)
{
	const char *close = memrchr(s, ']', n);
	if (!close) return err_set(e, SPEC_BAD, "missing ']' in host");
	size_t port_n = n - (size_t)(close + 1 - s), name_n = (size_t)(close - s) - 1;
	if (check_port(close + 1, port_n, e) < 0) return -1;
	const char *zone = memmem(s + 1, name_n, "%25", 3);
	size_t host_n = zone ? (size_t)(zone - s) - 1 : name_n;
	_cleanup_free_ char *host = NULL, *zone_text = NULL;
	if (unescape(s + 1, host_n, HOST, &host, e) < 0) return -1;
	if (unescape(zone ? zone : "", name_n - host_n, ZONE, &zone_text, e) < 0) return -1;
	struct in6_addr addr;
	if (inet_pton(AF_INET6, host, &addr) != 1) {
		_cleanup_free_ char *q = go_quote(host, strlen(host));
		if (inet_pton(AF_INET, host, &addr) == 1) return err_set(e, SPEC_BAD, "invalid IP-literal");
		return err_set(e, SPEC_BAD, "invalid host: ParseAddr(%s): unable to parse IP", q);
	}
	*ret = xasprintf("[%s%s]%.*s", host, zone_text, (int)port_n, close + 1);
	return 0;
}

static int parse_host(const char *scheme, const char *s, size_t n, char **ret, struct err *e)
{
	const char *open = memrchr(s, '[', n);
	if (open && open != s) return err_set(e, SPEC_BAD, "invalid IP-literal");
	if (open) return parse_ip_literal(s, n, ret, e);
	const char *colon = memchr(s, ':', n);
	bool strict = strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0;
	if (colon && !strict) colon = memrchr(s, ':', n);
	if (colon && check_port(colon, n - (size_t)(colon - s), e) < 0) return -1;
	return unescape(s, n, HOST, ret, e);
}

static bool userinfo_ok(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && !(s[i] && strchr("-._:~!$&'()*+,;=%@", s[i]))) return false;
	return true;
}

static int parse_authority(struct spec_url *u, const char *s, size_t n, struct err *e)
{
	const char *sep = memrchr(s, '@', n), *host = sep ? sep + 1 : s;
	if (parse_host(u->scheme, host, n - (size_t)(host - s), &u->host, e) < 0) return -1;
	if (!sep) return 0;
	size_t info_n = (size_t)(sep - s);
	if (!userinfo_ok(s, info_n)) return err_set(e, SPEC_BAD, "net/url: invalid userinfo");
	const char *colon = memchr(s, ':', info_n);
	size_t user_n = colon ? (size_t)(colon - s) : info_n;
	u->has_user = true;
	u->has_password = colon != NULL;
	if (unescape(s, user_n, USER, &u->user, e) < 0) return -1;
	return colon ? unescape(colon + 1, info_n - user_n - 1, USER, &u->password, e) : 0;
}

/* The length of a scheme before ':', 0 for none, -1 when the text starts with ':'. */
static ptrdiff_t scheme_len(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		if (c == ':') return i ? (ptrdiff_t)i : -1;
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		if (!letter && (i == 0 || !c || (!is_alnum(c) && !strchr("+-.", c)))) return 0;
	}
	return 0;
}

static size_t count_of(const char *s, size_t n, char c)
{
	size_t k = 0;
	for (size_t i = 0; i < n; i++) k += s[i] == c;
	return k;
}

/* Everything but the fragment. */
static int parse_rest(struct spec_url *u, const char *s, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return err_set(e, SPEC_BAD, "net/url: invalid control character in URL");
	if (n == 1 && *s == '*') {
		u->path = xstrdup("*");
		return 0;
	}
	ptrdiff_t scheme_n = scheme_len(s, n);
	if (scheme_n < 0) return err_set(e, SPEC_BAD, "missing protocol scheme");
	u->scheme = xstrndup(s, (size_t)scheme_n);
	for (char *p = u->scheme; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + 32);
	if (scheme_n) s += scheme_n + 1, n -= (size_t)scheme_n + 1;
	if (n && s[n - 1] == '?' && count_of(s, n, '?') == 1) {
		u->force_query = true;
		n--;
	} else {
		const char *q = memchr(s, '?', n);
		if (q) u->raw_query = xstrndup(q + 1, n - (size_t)(q + 1 - s));
		if (q) n = (size_t)(q - s);
	}
	bool slash = n && *s == '/', authority = n > 1 && slash && s[1] == '/';
	if (!slash && scheme_n) {
		u->opaque = xstrndup(s, n);
		return 0;
	}
	const char *first = memchr(s, '/', n);
	if (!slash && memchr(s, ':', first ? (size_t)(first - s) : n))
		return err_set(e, SPEC_BAD, "first path segment in URL cannot contain colon");
	if (authority && (scheme_n || !(n > 2 && s[2] == '/'))) {
		s += 2, n -= 2;
		first = memchr(s, '/', n);
		size_t authority_n = first ? (size_t)(first - s) : n;
		if (parse_authority(u, s, authority_n, e) < 0) return -1;
		s += authority_n, n -= authority_n;
	} else if (scheme_n && slash) {
		u->omit_host = true;
	}
	return set_encoded(s, n, PATH, &u->path, &u->raw_path, e);
}

static void fill(struct spec_url *u)
{
	char **members[] = {&u->scheme, &u->opaque,   &u->user,      &u->password, &u->host,
			    &u->path,   &u->raw_path, &u->raw_query, &u->fragment, &u->raw_fragment};
	for (size_t i = 0; i < array_len(members); i++)
		if (!*members[i]) *members[i] = xstrdup("");
}

int spec_url_parse(const char *s, struct spec_url *ret, struct err *e)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	size_t n = strcspn(s, "#");
	if (parse_rest(&u, s, n, e) < 0) {
		_cleanup_free_ char *q = go_quote(s, n);
		return err_wrap(e, "parse %s", q);
	}
	if (s[n] && s[n + 1] && set_encoded(s + n + 1, strlen(s + n + 1), FRAGMENT, &u.fragment, &u.raw_fragment, e) < 0) {
		_cleanup_free_ char *q = go_quote(s, strlen(s));
		return err_wrap(e, "parse %s", q);
	}
	fill(&u);
	*ret = u;
	u = (struct spec_url){0};
	return 0;
}

void spec_url_fini(struct spec_url *u)
{
	char *members[] = {u->scheme, u->opaque,   u->user,      u->password, u->host,
			   u->path,   u->raw_path, u->raw_query, u->fragment, u->raw_fragment};
	for (size_t i = 0; i < array_len(members); i++) free(members[i]);
	*u = (struct spec_url){0};
}

/* raw when it is a sound encoding of s, else s encoded. */
static char *escaped_or_raw(const char *s, const char *raw, enum part part)
{
	bool ok = *raw;
	for (const char *p = raw; ok && *p; p++) ok = strchr("!$&'()*+,;=:@[]%", *p) || !escapes(*p, part);
	_cleanup_free_ char *decoded = NULL;
	if (ok && unescape(raw, strlen(raw), part, &decoded, NULL) == 0 && strcmp(decoded, s) == 0) return xstrdup(raw);
	return part == PATH && strcmp(s, "*") == 0 ? xstrdup("*") : escape(s, part);
}

char *spec_url_escaped_path(const struct spec_url *u) { return escaped_or_raw(u->path, u->raw_path, PATH); }

static char *format(const struct spec_url *u, const char *password)
{
	struct buf b = BUF_INIT;
	if (*u->scheme) buf_addf(&b, "%s:", u->scheme);
	if (*u->opaque) {
		buf_adds(&b, u->opaque);
	} else {
		bool any = *u->scheme || *u->host || u->has_user;
		if (any && !(u->omit_host && !*u->host && !u->has_user)) {
			if (*u->host || *u->path || u->has_user) buf_adds(&b, "//");
			_cleanup_free_ char *user = escape(u->user, USER), *pass = escape(password, USER),
					    *host = escape(u->host, HOST);
			if (u->has_user) buf_addf(&b, "%s%s%s@", user, u->has_password ? ":" : "", u->has_password ? pass : "");
			buf_adds(&b, host);
		}
		_cleanup_free_ char *path = spec_url_escaped_path(u);
		if (*path && *path != '/' && *u->host) buf_addc(&b, '/');
		if (!b.n && memchr(path, ':', strcspn(path, "/"))) buf_adds(&b, "./");
		buf_adds(&b, path);
	}
	if (u->force_query || *u->raw_query) buf_addf(&b, "?%s", u->raw_query);
	if (*u->fragment) {
		_cleanup_free_ char *fragment = escaped_or_raw(u->fragment, u->raw_fragment, FRAGMENT);
		buf_addf(&b, "#%s", fragment);
	}
	return buf_take_str(&b);
}

char *spec_url_format(const struct spec_url *u) { return format(u, u->password); }
char *spec_url_redacted(const struct spec_url *u) { return format(u, u->has_password ? "xxxxx" : ""); }

static int parse_pair(const char *s, size_t n, struct spec_query *q, struct err *e)
{
	if (memchr(s, ';', n)) return err_set(e, SPEC_BAD, "invalid semicolon separator in query");
	if (!n) return 0;
	const char *eq = memchr(s, '=', n);
	size_t key_n = eq ? (size_t)(eq - s) : n;
	_cleanup_free_ char *key = NULL, *value = NULL;
	if (unescape(s, key_n, QUERY, &key, e) < 0) return -1;
	if (unescape(eq ? eq + 1 : "", eq ? n - key_n - 1 : 0, QUERY, &value, e) < 0) return -1;
	strvec_take(&q->keys, take_ptr(key));
	strvec_take(&q->values, take_ptr(value));
	return 0;
}

int spec_query_parse(const char *s, struct spec_query *ret, struct err *e)
{
	enum { PAIRS_MAX = 10000 };
	*ret = (struct spec_query){0};
	if (count_of(s, strlen(s), '&') >= PAIRS_MAX)
		return err_set(e, SPEC_BAD, "number of URL query parameters exceeded limit");
	int r = 0;
	while (*s) {
		size_t n = strcspn(s, "&");
		if (parse_pair(s, n, ret, r < 0 ? NULL : e) < 0) r = -1;
		s += n + (s[n] == '&');
	}
	return r;
}

const char *spec_query_get(const struct spec_query *q, const char *key)
{
	ptrdiff_t i = strvec_find(&q->keys, key);
	return i < 0 ? NULL : q->values.v[i];
}

void spec_query_fini(struct spec_query *q)
{
	strvec_fini(&q->keys);
	strvec_fini(&q->values);
}
