/* Image references, read by hand instead of by regular expression.
 *
 * The grammar is distribution/reference's, and so is what counts as a domain in a normalised name: the first component
 * when it is "localhost", holds '.' or ':', or an upper-case letter. It is unambiguous when cut in this order: '@' can
 * only start the digest, and a ':' behind the last '/' only the tag.
 * 1. A parsed reference always has a domain and a path.
 * 2. Texts of errors are distribution/reference's and go-digest's. */
#include "spec/ref.h"
#include "spec/internal.h"

#include <string.h>

enum { NAME_MAX_BYTES = 255, TAG_MAX_BYTES = 128 };

static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return is_lower(c) || is_upper(c); }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
static bool is_path_char(char c) { return is_lower(c) || is_digit(c); }
static bool is_word(char c) { return is_alpha(c) || is_digit(c) || c == '_'; }

/* [a-z0-9]+ ( (. | _ | __ | -+) [a-z0-9]+ )* */
static bool component_ok(const char *s, size_t n)
{
	size_t i = 0;
	for (;;) {
		size_t from = i;
		while (i < n && is_path_char(s[i])) i++;
		if (i == from) return false;
		if (i == n) return true;
		if (s[i] == '-') {
			while (i < n && s[i] == '-') i++;
		} else if (s[i] == '_') {
			i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
		} else if (s[i] == '.') {
			i++;
		} else {
			return false;
		}
	}
}

static bool path_ok(const char *s, size_t n)
{
	for (;;) {
		const char *slash = memchr(s, '/', n);
		size_t len = slash ? (size_t)(slash - s) : n;
		if (!component_ok(s, len)) return false;
		if (!slash) return true;
		s += len + 1;
		n -= len + 1;
	}
}

static bool host_ok(const char *s, size_t n)
{
	if (n && s[0] == '[') {
		if (n < 3 || s[n - 1] != ']') return false;
		for (size_t i = 1; i < n - 1; i++)
			if (!is_hex(s[i]) && s[i] != ':') return false;
		return true;
	}
	bool ok = false; /* the label so far may end here */
	for (size_t i = 0; i < n; i++) {
		if (is_alpha(s[i]) || is_digit(s[i])) {
			ok = true;
		} else if (s[i] == '-') {
			if (i == 0 || s[i - 1] == '.') return false;
			ok = false;
		} else if (s[i] == '.') {
			if (!ok) return false;
			ok = false;
		} else {
			return false;
		}
	}
	return ok;
}

static bool domain_ok(const char *s, size_t n)
{
	size_t host = n;
	while (host && is_digit(s[host - 1])) host--;
	if (host && host < n && s[host - 1] == ':' && host_ok(s, host - 1)) return true;
	return host_ok(s, n);
}

static bool tag_ok(const char *s, size_t n)
{
	if (!n || n > TAG_MAX_BYTES || !is_word(s[0])) return false;
	for (size_t i = 1; i < n; i++)
		if (!is_word(s[i]) && s[i] != '.' && s[i] != '-') return false;
	return true;
}

/* The grammar's digest, wider than what go-digest knows: alpha[alnum]* ([-_+.] alpha[alnum]*)* : 32 or more hex digits. */
static bool digest_shape_ok(const char *s)
{
	for (;;) {
		if (!is_alpha(*s)) return false;
		while (is_alpha(*s) || is_digit(*s)) s++;
		if (!*s || !strchr("-_+.", *s)) break;
		s++;
	}
	if (*s++ != ':') return false;
	size_t n = 0;
	while (is_hex(s[n])) n++;
	return n >= 32 && !s[n];
}

static bool algorithm_shape_ok(const char *s, size_t n)
{
	bool ok = false;
	for (size_t i = 0; i < n; i++) {
		if (is_path_char(s[i])) {
			ok = true;
		} else if (ok && strchr(".+_-", s[i])) {
			ok = false;
		} else {
			return false;
		}
	}
	return ok;
}

int spec_digest_check(const char *s, struct err *e)
{
	static const struct {
		const char *name;
		size_t hex;
	} algorithms[] = {{"sha256", 64}, {"sha384", 96}, {"sha512", 128}};
	const char *colon = strchr(s, ':');
	if (!colon || colon == s || !colon[1]) return err_set(e, SPEC_BAD, "invalid checksum digest format");
	const char *enc = colon + 1;
	for (size_t i = 0; i < array_len(algorithms); i++) {
		size_t n = strlen(algorithms[i].name);
		if ((size_t)(colon - s) != n || memcmp(s, algorithms[i].name, n) != 0) continue;
		if (strlen(enc) != algorithms[i].hex) return err_set(e, SPEC_BAD, "invalid checksum digest length");
		if (strspn(enc, "0123456789abcdef") != algorithms[i].hex)
			return err_set(e, SPEC_BAD, "invalid checksum digest format");
		return 0;
	}
	bool known_shape = algorithm_shape_ok(s, (size_t)(colon - s));
	for (const char *p = enc; known_shape && *p; p++) known_shape = is_word(*p) || *p == '=' || *p == '-';
	return err_set(e, SPEC_BAD, known_shape ? "unsupported digest algorithm" : "invalid checksum digest format");
}

struct parts {
	const char *domain, *path, *tag, *digest;
	size_t domain_n, path_n, tag_n;
};

/* [domain/]path[:tag][@digest], as the anchored regular expression reads it. */
static bool split_reference(const char *s, struct parts *ret)
{
	struct parts p = {0};
	const char *at = strchr(s, '@');
	size_t n = at ? (size_t)(at - s) : strlen(s);
	if (at) {
		p.digest = at + 1;
		if (!digest_shape_ok(p.digest)) return false;
	}
	const char *slash = memrchr(s, '/', n);
	const char *from = slash ? slash : s;
	const char *colon = memchr(from, ':', n - (size_t)(from - s));
	size_t name_n = n;
	if (colon) {
		p.tag = colon + 1;
		p.tag_n = n - (size_t)(p.tag - s);
		name_n = (size_t)(colon - s);
		if (!tag_ok(p.tag, p.tag_n)) return false;
	}
	const char *first = memchr(s, '/', name_n);
	p.path = s;
	p.path_n = name_n;
	if (first && domain_ok(s, (size_t)(first - s)) && path_ok(first + 1, name_n - (size_t)(first + 1 - s))) {
		p.domain = s;
		p.domain_n = (size_t)(first - s);
		p.path = first + 1;
		p.path_n = name_n - p.domain_n - 1;
	} else if (!path_ok(s, name_n)) {
		return false;
	}
	*ret = p;
	return true;
}

static char *lower_ascii(const char *s)
{
	char *t = xstrdup(s);
	for (char *p = t; *p; p++)
		if (is_upper(*p)) *p = (char)(*p - 'A' + 'a');
	return t;
}

static int parse_reference(const char *s, struct spec_ref *ret, struct err *e)
{
	struct parts p;
	if (!split_reference(s, &p)) {
		_cleanup_free_ char *lower = lower_ascii(s);
		if (split_reference(lower, &p)) return err_set(e, SPEC_BAD, "repository name must be lowercase");
		return err_set(e, SPEC_BAD, "invalid reference format");
	}
	if (p.path_n > NAME_MAX_BYTES)
		return err_set(e, SPEC_BAD, "repository name must not be more than %d characters", NAME_MAX_BYTES);
	if (p.digest && spec_digest_check(p.digest, e) < 0) return -1;
	*ret = (struct spec_ref){
		.domain = p.domain ? xstrndup(p.domain, p.domain_n) : xstrdup(""),
		.path = xstrndup(p.path, p.path_n),
		.tag = p.tag ? xstrndup(p.tag, p.tag_n) : NULL,
		.digest = xstrdup(p.digest),
	};
	return 0;
}

static bool has_upper(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_upper(s[i])) return true;
	return false;
}

/* Where a familiar name says its domain, and what stays: heap. */
static char *split_docker_domain(const char *s, char **ret_rest)
{
	const char *slash = strchr(s, '/');
	size_t n = slash ? (size_t)(slash - s) : 0;
	char *domain;
	const char *rest = s;
	if (!slash) {
		domain = xstrdup("docker.io");
	} else if (n == 15 && memcmp(s, "index.docker.io", n) == 0) {
		domain = xstrdup("docker.io");
		rest = slash + 1;
	} else if ((n == 9 && memcmp(s, "localhost", n) == 0) || memchr(s, '.', n) || memchr(s, ':', n) || has_upper(s, n)) {
		domain = xstrndup(s, n);
		rest = slash + 1;
	} else {
		domain = xstrdup("docker.io");
	}
	bool official = strcmp(domain, "docker.io") == 0 && !strchr(rest, '/');
	*ret_rest = xasprintf("%s%s", official ? "library/" : "", rest);
	return domain;
}

int spec_ref_parse(const char *s, struct spec_ref *ret, struct err *e)
{
	if (strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64)
		return err_set(e, SPEC_BAD, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s);
	_cleanup_free_ char *rest = NULL;
	_cleanup_free_ char *domain = split_docker_domain(s, &rest);
	size_t n = strcspn(rest, ":");
	if (has_upper(rest, n))
		return err_set(e, SPEC_BAD, "invalid reference format: repository name (%.*s) must be lowercase", (int)n, rest);
	_cleanup_free_ char *full = xasprintf("%s/%s", domain, rest);
	return parse_reference(full, ret, e);
}

bool spec_ref_is_name_only(const struct spec_ref *r) { return !r->tag && !r->digest; }

void spec_ref_tag_name_only(struct spec_ref *r)
{
	if (spec_ref_is_name_only(r)) r->tag = xstrdup("latest");
}

int spec_ref_parse_tagged(const char *s, struct spec_ref *ret, struct err *e)
{
	if (spec_ref_parse(s, ret, e) < 0) return -1;
	spec_ref_tag_name_only(ret);
	return 0;
}

int spec_ref_parse_docker(const char *s, struct spec_ref *ret, struct err *e)
{
	if (spec_ref_parse_tagged(s, ret, e) < 0) return -1;
	if (ret->digest) {
		free(ret->tag);
		ret->tag = NULL;
	}
	return 0;
}

int spec_ref_set_tag(struct spec_ref *r, const char *tag, struct err *e)
{
	if (tag && !tag_ok(tag, strlen(tag))) return err_set(e, SPEC_BAD, "invalid tag format");
	char *copy = xstrdup(tag);
	free(r->tag);
	r->tag = copy;
	return 0;
}

int spec_ref_set_digest(struct spec_ref *r, const char *digest, struct err *e)
{
	if (digest && !digest_shape_ok(digest)) return err_set(e, SPEC_BAD, "invalid digest format");
	char *copy = xstrdup(digest);
	free(r->digest);
	r->digest = copy;
	return 0;
}

void spec_ref_copy(struct spec_ref *dst, const struct spec_ref *src)
{
	*dst = (struct spec_ref){xstrdup(src->domain), xstrdup(src->path), xstrdup(src->tag), xstrdup(src->digest)};
}

void spec_ref_fini(struct spec_ref *r)
{
	free(r->domain);
	free(r->path);
	free(r->tag);
	free(r->digest);
	*r = (struct spec_ref){0};
}

char *spec_ref_name(const struct spec_ref *r)
{
	return str_empty(r->domain) ? xstrdup(r->path) : xasprintf("%s/%s", r->domain, r->path);
}

static char *with_version(char *name, const struct spec_ref *r)
{
	char *s = xasprintf("%s%s%s%s%s", name, r->tag ? ":" : "", r->tag ? r->tag : "", r->digest ? "@" : "",
			    r->digest ? r->digest : "");
	free(name);
	return s;
}

char *spec_ref_format(const struct spec_ref *r) { return with_version(spec_ref_name(r), r); }

char *spec_ref_familiar_name(const struct spec_ref *r)
{
	if (!str_eq(r->domain, "docker.io")) return spec_ref_name(r);
	const char *rest = r->path + strlen("library/");
	if (str_starts(r->path, "library/") && !strchr(rest, '/')) return xstrdup(rest);
	return xstrdup(r->path);
}

char *spec_ref_familiar(const struct spec_ref *r) { return with_version(spec_ref_familiar_name(r), r); }
