#include "dockerfile/rune.h"
#include "dockerfile/rune_table.h"

#include <string.h>

static int32_t decode(const uint8_t *p, size_t n, size_t *ret_width)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
	*ret_width = 1;
	if (!len || n < len) return RUNE_ERROR;
	uint32_t r = p[0] & (0xff >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80) return RUNE_ERROR;
		r = r << 6 | (p[i] & 0x3f);
	}
	if (r < least[len] || r > 0x10ffff || (r >= 0xd800 && r < 0xe000)) return RUNE_ERROR;
	*ret_width = len;
	return (int32_t)r;
}

int32_t rune_at(const char *s, size_t n, size_t *ret_width)
{
	*ret_width = 0;
	if (!n) return RUNE_EOF;
	if ((uint8_t)*s >= 0x80) return decode((const uint8_t *)s, n, ret_width);
	*ret_width = 1;
	return *s;
}

int rune_add(struct buf *b, int32_t r)
{
	if (r >= 0 && r < 0x80) return buf_addc(b, (char)r);
	uint32_t u = r < 0 || r > 0x10ffff || (r >= 0xd800 && r < 0xe000) ? RUNE_ERROR : (uint32_t)r;
	char out[4];
	size_t n = u < 0x800 ? 2 : u < 0x10000 ? 3 : 4;
	for (size_t i = n; i-- > 1; u >>= 6) out[i] = (char)(0x80 | (u & 0x3f));
	out[0] = (char)((0xf00 >> n & 0xff) | u);
	return buf_add(b, out, n);
}

bool rune_is_space(int32_t r)
{
	if (r < 0x80) return r == ' ' || (r >= '\t' && r <= '\r');
	return r == 0x85 || r == 0xa0 || r == 0x1680 || (r >= 0x2000 && r <= 0x200a) || r == 0x2028 || r == 0x2029 ||
	       r == 0x202f || r == 0x205f || r == 0x3000;
}

static bool in_table(const struct rune_range *t, size_t n, uint32_t r)
{
	size_t lo = 0;
	while (lo < n) {
		size_t mid = lo + (n - lo) / 2;
		if (r < t[mid].lo)
			n = mid;
		else if (r > t[mid].hi)
			lo = mid + 1;
		else
			return true;
	}
	return false;
}

bool rune_is_letter(int32_t r)
{
	if (r < 0x80) return (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z');
	return in_table(rune_letters, array_len(rune_letters), (uint32_t)r);
}

bool rune_is_digit(int32_t r)
{
	if (r < 0x80) return r >= '0' && r <= '9';
	return in_table(rune_digits, array_len(rune_digits), (uint32_t)r);
}

struct rune_text rune_trim_left(const char *s, size_t n)
{
	size_t w;
	while (n && rune_is_space(rune_at(s, n, &w))) {
		s += w;
		n -= w;
	}
	return (struct rune_text){s, n};
}

struct rune_text rune_trim(const char *s, size_t n)
{
	struct rune_text t = rune_trim_left(s, n);
	while (t.n) {
		size_t w, last = t.n - 1;
		while (last && t.n - last < 4 && ((uint8_t)t.s[last] & 0xc0) == 0x80) last--;
		int32_t r = rune_at(t.s + last, t.n - last, &w);
		if (w != t.n - last || !rune_is_space(r)) break;
		t.n = last;
	}
	return t;
}

char *rune_upper(struct arena *a, const char *s)
{
	char *out = arena_strdup(a, s);
	for (char *p = out; *p; p++)
		if (*p >= 'a' && *p <= 'z') *p = (char)(*p - 32);
	return out;
}

char *rune_lower(struct arena *a, const char *s)
{
	char *out = arena_strdup(a, s);
	for (char *p = out; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + 32);
	return out;
}

const char *rune_quote(struct arena *a, const char *s)
{
	_cleanup_free_ char *q = go_quote(s, strlen(s));
	return arena_strdup(a, q);
}
