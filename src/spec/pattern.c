/* Ignore patterns: moby/patternmatcher's reading of them, and the ignore file.
 *
 * Each pattern is sorted once, when the set is made, into one of four kinds: equal to the path, a prefix of it (where it
 * ends in two stars), a suffix (where it starts with them), or a regular expression. Matching changes nothing, so a set
 * may be shared.
 * 1. A pattern that passes the check of its syntax but that regexp does not compile is an error only when it is tried.
 * 2. A later pattern overrules an earlier one; an exception ('!') is looked at only when the path is matched so far. */
#include "spec/pattern.h"
#include "spec/internal.h"
#include "spec/regexp.h"

#include <string.h>

enum kind { EXACT, PREFIX, SUFFIX, REGEX, BAD };
struct pattern {
	enum kind kind;
	bool exclusion;
	char *text; /* cleaned, without '!' */
	size_t n;
	struct spec_regexp *re;
};
struct spec_patterns {
	struct pattern *v;
	size_t n;
	bool exclusions;
};

/* The regular expression patternmatcher makes of a pattern, and the kind it finds on the way. */
static enum kind translate(const char *s, struct buf *re)
{
	enum kind kind = EXACT;
	size_t w, left = strlen(s);
	buf_addc(re, '^');
	for (bool first = true; left; first = false) {
		uint32_t c = spec_rune(s, left, &w);
		s += w, left -= w;
		if (c == '*' && *s == '*') {
			s++, left--;
			if (*s == '/') s++, left--;
			if (left) {
				buf_adds(re, "(.*/)?");
				kind = REGEX;
			} else if (kind == EXACT) {
				kind = PREFIX;
			} else {
				buf_adds(re, ".*");
				kind = REGEX;
			}
			if (first) kind = SUFFIX;
		} else if (c == '*' || c == '?') {
			buf_adds(re, c == '*' ? "[^/]*" : "[^/]");
			kind = REGEX;
		} else if (c < 0x80 && strchr(".+()|{}$", (int)c)) {
			buf_addf(re, "\\%c", (int)c);
		} else if (c == '\\' && left) {
			c = spec_rune(s, left, &w);
			s += w, left -= w;
			buf_addc(re, '\\');
			spec_rune_add(re, c);
			kind = REGEX;
		} else {
			spec_rune_add(re, c);
			if (c == '[' || c == ']') kind = REGEX;
		}
	}
	buf_addc(re, '$');
	return kind;
}

/* Up to the next '*' that is not in a class. */
static size_t chunk_len(const char *s)
{
	bool in_class = false;
	size_t i = 0;
	for (; s[i] && (s[i] != '*' || in_class); i++) {
		if (s[i] == '\\' && s[i + 1])
			i++;
		else if (s[i] == '[' || s[i] == ']')
			in_class = s[i] == '[';
	}
	return i;
}

/* patternmatcher takes what filepath.Match(pattern, ".") has no objection to, and that (unlike path.Match) looks at a
 * pattern no further than up to the first stretch between stars that does not fit. */
static int check_syntax(const char *pattern, struct err *e)
{
	for (int round = 0; round < 2; round++) {
		pattern += strspn(pattern, "*");
		_cleanup_free_ char *chunk = xstrndup(pattern, chunk_len(pattern));
		int r = *chunk ? spec_path_match(chunk, round ? "" : ".", e) : 0;
		if (r <= 0) return r;
		pattern += strlen(chunk);
	}
	return 0;
}

static int pattern_init(struct pattern *p, char *text, bool exclusion, struct err *e)
{
	_cleanup_free_ char *owned = text;
	_cleanup_buf_ struct buf re = BUF_INIT;
	if (check_syntax(text, e) < 0) return -1;
	*p = (struct pattern){.kind = translate(text, &re), .exclusion = exclusion, .n = strlen(text)};
	if (p->kind == REGEX) {
		if (spec_regexp_new(buf_str(&re), &p->re, NULL) < 0) p->kind = BAD;
	}
	p->text = take_ptr(owned);
	return 0;
}

int spec_patterns_new(char *const *v, size_t n, struct spec_patterns **ret, struct err *e)
{
	_cleanup_spec_patterns_ struct spec_patterns *pm = xnew(struct spec_patterns);
	pm->v = xcalloc(n ? n : 1, sizeof *pm->v);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *trimmed = spec_trim(v[i], strlen(v[i]));
		if (!*trimmed) continue;
		_cleanup_free_ char *clean = path_clean(trimmed);
		bool exclusion = clean[0] == '!';
		if (exclusion && !clean[1]) return err_set(e, SPEC_BAD, "illegal exclusion pattern: \"!\"");
		if (pattern_init(&pm->v[pm->n], xstrdup(clean + exclusion), exclusion, e) < 0) return -1;
		pm->n++;
		pm->exclusions |= exclusion;
	}
	*ret = take_ptr(pm);
	return 0;
}

void spec_patterns_free(struct spec_patterns *p)
{
	if (!p) return;
	for (size_t i = 0; i < p->n; i++) {
		free(p->v[i].text);
		spec_regexp_free(p->v[i].re);
	}
	free(p->v);
	free(p);
}

size_t spec_patterns_count(const struct spec_patterns *p) { return p->n; }
bool spec_patterns_exclusions(const struct spec_patterns *p) { return p->exclusions; }
const char *spec_patterns_text(const struct spec_patterns *p, size_t i) { return p->v[i].text; }
bool spec_patterns_is_exclusion(const struct spec_patterns *p, size_t i) { return p->v[i].exclusion; }

/* 1, 0, or -1 for a pattern that does not compile. */
static int match_one(const struct pattern *p, const char *path)
{
	switch (p->kind) {
	case EXACT: return strcmp(path, p->text) == 0;
	case PREFIX: return strncmp(path, p->text, p->n - 2) == 0;
	case SUFFIX: {
		const char *suffix = p->text + 2;
		return str_ends(path, suffix) || (*suffix == '/' && strcmp(path, suffix + 1) == 0);
	}
	case REGEX: return spec_regexp_match(p->re, path);
	default: return -1;
	}
}

/* Does the pattern match a directory above the path? Those it cannot judge count as no. */
static bool match_above(const struct pattern *p, const char *path)
{
	_cleanup_free_ char *s = xstrdup(path);
	char *last = strrchr(s, '/');
	if (!last) return false;
	if (last == s) return match_one(p, "") > 0 || match_one(p, "/") > 0; /* as Go splits "/" */
	*last = 0;
	for (char *slash = s;; slash++) {
		slash = strchr(slash, '/');
		if (slash) *slash = 0;
		if (match_one(p, s) > 0) return true;
		if (!slash) return false;
		*slash = '/';
	}
}

int spec_patterns_match_parents(const struct spec_patterns *pm, const char *path, const bool *parent, bool *ret_info,
				struct err *e)
{
	bool matched = false;
	if (ret_info) memset(ret_info, 0, pm->n * sizeof *ret_info);
	for (size_t i = 0; i < pm->n; i++) {
		const struct pattern *p = &pm->v[i];
		int m = parent && parent[i];
		if (!m) {
			if (p->exclusion != matched) continue;
			m = match_one(p, path);
			if (m < 0) return err_set(e, SPEC_BAD, "syntax error in pattern");
			if (!m && !parent) m = match_above(p, path);
		}
		if (ret_info) ret_info[i] = m;
		if (m) matched = !p->exclusion;
	}
	return matched;
}

int spec_patterns_match(const struct spec_patterns *p, const char *path, struct err *e)
{
	return spec_patterns_match_parents(p, path, NULL, NULL, e);
}

int spec_patterns_match_once(char *const *v, size_t n, const char *path, struct err *e)
{
	_cleanup_spec_patterns_ struct spec_patterns *pm = NULL;
	if (spec_patterns_new(v, n, &pm, e) < 0) return -1;
	_cleanup_free_ char *clean = path_clean(path);
	return strcmp(clean, ".") == 0 ? 0 : spec_patterns_match(pm, clean, e);
}

/* One line of an ignore file: "!" and the cleaned pattern, or NULL for a line that says nothing. */
static char *ignore_line(const char *s, size_t n)
{
	if (n && *s == '#') return NULL;
	_cleanup_free_ char *line = spec_trim(s, n);
	if (!*line) return NULL;
	bool invert = *line == '!';
	_cleanup_free_ char *pattern = spec_trim(line + invert, strlen(line + invert));
	_cleanup_free_ char *clean = *pattern ? path_clean(pattern) : xstrdup("");
	return xasprintf("%s%s", invert ? "!" : "", clean[0] == '/' && clean[1] ? clean + 1 : clean);
}

int spec_ignorefile_parse(const char *p, size_t n, struct strvec *ret, struct err *e)
{
	enum { LINE_MAX_BYTES = 64 << 10 };
	if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3, n -= 3;
	for (size_t line = 1; n; line++) {
		const char *nl = memchr(p, '\n', n);
		size_t len = nl ? (size_t)(nl - p) : n;
		if (len >= LINE_MAX_BYTES) return err_set(e, SPEC_BAD, "bufio.Scanner: token too long: line %zu", line);
		char *pattern = ignore_line(p, len && p[len - 1] == '\r' ? len - 1 : len);
		if (pattern) strvec_take(ret, pattern);
		p += len + (nl != NULL);
		n -= len + (nl != NULL);
	}
	return 0;
}
