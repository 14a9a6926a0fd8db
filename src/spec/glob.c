/* Go's path.Match and strings.TrimSpace, and stepping through UTF-8 the way Go does.
 *
 * A pattern is checked whole before anything is matched, as Match reports a bad pattern whatever the name is. Matching
 * keeps one point to return to, the last '*': an earlier star need never take more, since none crosses a '/'. */
#include "spec/internal.h"
#include "spec/pattern.h"

#include <string.h>

uint32_t spec_rune(const char *s, size_t n, size_t *ret_width)
{
	const uint8_t *u = (const uint8_t *)s;
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t w = u[0] < 0x80                   ? 1
		   : u[0] >= 0xc2 && u[0] < 0xe0 ? 2
		   : u[0] >= 0xe0 && u[0] < 0xf0 ? 3
		   : u[0] >= 0xf0 && u[0] < 0xf5 ? 4
						 : 0;
	*ret_width = 1;
	if (w == 1) return u[0];
	if (!w || w > n) return SPEC_RUNE_ERROR;
	uint32_t r = u[0] & (0x7fu >> w);
	for (size_t i = 1; i < w; i++) {
		if ((u[i] & 0xc0) != 0x80) return SPEC_RUNE_ERROR;
		r = r << 6 | (u[i] & 0x3f);
	}
	if (r < least[w] || r > 0x10ffff || (r >= 0xd800 && r < 0xe000)) return SPEC_RUNE_ERROR;
	*ret_width = w;
	return r;
}

void spec_rune_add(struct buf *b, uint32_t r)
{
	if (r < 0x80) {
		buf_addc(b, (char)r);
		return;
	}
	int more = r < 0x800 ? 1 : r < 0x10000 ? 2 : 3;
	static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
	buf_addc(b, (char)(lead[more] | r >> (6 * more)));
	while (more--) buf_addc(b, (char)(0x80 | (r >> (6 * more) & 0x3f)));
}

static bool is_space(uint32_t r)
{
	if (r <= 0x20) return r == ' ' || (r >= '\t' && r <= '\r');
	return r == 0x85 || r == 0xa0 || r == 0x1680 || (r >= 0x2000 && r <= 0x200a) || r == 0x2028 || r == 0x2029 ||
	       r == 0x202f || r == 0x205f || r == 0x3000;
}

char *spec_trim(const char *s, size_t n)
{
	size_t w, end = 0;
	while (n && is_space(spec_rune(s, n, &w))) {
		s += w;
		n -= w;
	}
	for (size_t i = 0; i < n; i += w)
		if (!is_space(spec_rune(s + i, n - i, &w))) end = i + w;
	return xstrndup(s, end);
}

/* One character of a class, possibly escaped, which must not be its last: the rest, or NULL when it is bad. */
static const char *class_char(const char *p, uint32_t *ret)
{
	if (*p == '\\')
		p++;
	else if (*p == '-' || *p == ']')
		return NULL;
	if (!*p) return NULL;
	size_t w;
	*ret = spec_rune(p, strlen(p), &w);
	if (*ret == SPEC_RUNE_ERROR && w == 1) return NULL;
	p += w;
	return *p ? p : NULL;
}

/* The class behind '[': the rest behind ']', or NULL when it is bad; whether r is in it. */
static const char *class_match(const char *p, uint32_t r, bool *ret)
{
	bool negated = *p == '^', in = false;
	if (negated) p++;
	for (size_t n = 0; *p != ']' || n == 0; n++) {
		uint32_t lo, hi;
		p = class_char(p, &lo);
		if (!p) return NULL;
		hi = lo;
		if (*p == '-') {
			p = class_char(p + 1, &hi);
			if (!p) return NULL;
		}
		in = in || (lo <= r && r <= hi);
	}
	*ret = in != negated;
	return p + 1;
}

static bool pattern_ok(const char *p)
{
	bool in;
	while (p && *p) {
		if (*p == '\\')
			p = p[1] ? p + 2 : NULL;
		else
			p = *p == '[' ? class_match(p + 1, 0, &in) : p + 1;
	}
	return p != NULL;
}

/* One step of a valid pattern that does not start with '*': how much of the name it takes, -1 when it does not fit. */
static ptrdiff_t step(const char **p, const char *s)
{
	size_t w;
	if (!*s) return -1;
	bool in = false;
	switch (**p) {
	case '?':
		if (*s == '/') return -1;
		spec_rune(s, strlen(s), &w);
		++*p;
		return (ptrdiff_t)w;
	case '[': {
		uint32_t r = spec_rune(s, strlen(s), &w);
		*p = class_match(*p + 1, r, &in);
		return in ? (ptrdiff_t)w : -1;
	}
	case '\\': ++*p; /* fallthrough */
	default: return *(*p)++ == *s ? 1 : -1;
	}
}

int spec_path_match(const char *pattern, const char *name, struct err *e)
{
	if (!pattern_ok(pattern)) return err_set(e, SPEC_BAD, "syntax error in pattern");
	const char *p = pattern, *s = name, *star = NULL, *star_s = NULL;
	for (;;) {
		if (*p == '*') {
			while (*p == '*') p++;
			if (!*p) return strchr(s, '/') == NULL;
			star = p;
			star_s = s;
			continue;
		}
		if (!*p && !*s) return 1;
		ptrdiff_t w = *p ? step(&p, s) : -1;
		if (w >= 0) {
			s += w;
			continue;
		}
		if (!star || !*star_s || *star_s == '/') return 0;
		p = star;
		s = ++star_s;
	}
}

bool spec_path_has_wildcard(const char *s)
{
	for (; *s; s++) {
		if (*s == '*' || *s == '?' || *s == '[') return true;
		if (*s == '\\' && !*++s) return false;
	}
	return false;
}
