#include "base/text.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

void id_new(char out[static ID_STR])
{
	static const char digit[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	uint8_t r[ID_STR * 2];
	size_t w = 0;
	while (w < ID_STR - 1) {
		if (getrandom(r, sizeof r, 0) != sizeof r) bug("getrandom failed");
		for (size_t i = 0; i < sizeof r && w < ID_STR - 1; i++)
			if (r[i] < 252) out[w++] = digit[r[i] % 36]; /* 252 = 7 * 36: no bias */
	}
	out[w] = 0;
}

/* Length of the UTF-8 sequence at s, 0 when there is none. Overlong forms and surrogates are none. */
static size_t sequence(const uint8_t *s, size_t n)
{
	if (s[0] < 0x80) return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
	size_t len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (n < len) return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80) return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

bool utf8_valid(const char *s, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t len = sequence((const uint8_t *)s + i, n - i);
		if (!len) return false;
		i += len;
	}
	return true;
}

char *utf8_clean(const char *s, size_t n)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < n;) {
		size_t len = s[i] ? sequence((const uint8_t *)s + i, n - i) : 0;
		if (len)
			buf_add(&b, s + i, len);
		else
			buf_adds(&b, "\xef\xbf\xbd");
		i += len ? len : 1;
	}
	return buf_take_str(&b);
}

bool str_starts(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

bool str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && !strcmp(s + n - m, suffix);
}

bool str_eq(const char *a, const char *b) { return a == b || (a && b && !strcmp(a, b)); }
bool str_empty(const char *s) { return !s || !*s; }

bool str_bool(const char *s, bool *ret)
{
	static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
	static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};
	for (size_t i = 0; i < array_len(yes); i++) {
		if (!strcmp(s, yes[i])) return *ret = true, true;
		if (!strcmp(s, no[i])) return *ret = false, true;
	}
	return false;
}

void base64_encode(struct buf *out, const void *p, size_t n)
{
	static const char c[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *b = p;
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) | (i + 2 < n ? b[i + 2] : 0);
		char q[4] = {c[v >> 18], c[v >> 12 & 63], i + 1 < n ? c[v >> 6 & 63] : '=', i + 2 < n ? c[v & 63] : '='};
		buf_add(out, q, 4);
	}
}

static int sextet(char c)
{
	if (c >= 'A' && c <= 'Z') return c - 'A';
	if (c >= 'a' && c <= 'z') return c - 'a' + 26;
	if (c >= '0' && c <= '9') return c - '0' + 52;
	return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

int base64_decode(const char *s, size_t n, struct buf *out, struct err *e)
{
	uint32_t v = 0;
	int bits = 0;
	while (n && s[n - 1] == '=') n--;
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\n' || s[i] == '\r') continue;
		int x = sextet(s[i]);
		if (x < 0) return err_set(e, CODE_INVALID_ARGUMENT, "illegal base64 data at input byte %zu", i);
		v = v << 6 | (uint32_t)x;
		bits += 6;
		if (bits < 8) continue;
		bits -= 8;
		if (buf_addc(out, (char)(v >> bits & 255)) < 0)
			return err_set(e, CODE_RESOURCE_EXHAUSTED, "base64 data too long");
	}
	if (bits == 6) return err_set(e, CODE_INVALID_ARGUMENT, "illegal base64 data at input byte %zu", n);
	return 0;
}

void hex_encode(const void *p, size_t n, char *out)
{
	static const char digit[] = "0123456789abcdef";
	const uint8_t *b = p;
	for (size_t i = 0; i < n; i++) {
		out[i * 2] = digit[b[i] >> 4];
		out[i * 2 + 1] = digit[b[i] & 15];
	}
	out[n * 2] = 0;
}

char *go_quote(const char *s, size_t n)
{
	static const char *const named[] = {"\\a", "\\b", "\\t", "\\n", "\\v", "\\f", "\\r"};
	struct buf b = BUF_INIT;
	buf_addc(&b, '"');
	for (size_t i = 0; i < n;) {
		uint8_t c = (uint8_t)s[i];
		size_t len = sequence((const uint8_t *)s + i, n - i);
		if (!len)
			buf_addf(&b, "\\x%02x", c);
		else if (len > 1)
			buf_add(&b, s + i, len);
		else if (c == '"' || c == '\\')
			buf_addf(&b, "\\%c", c);
		else if (c >= 7 && c <= 13)
			buf_adds(&b, named[c - 7]);
		else if (c < 32 || c == 127)
			buf_addf(&b, "\\x%02x", c);
		else
			buf_addc(&b, (char)c);
		i += len ? len : 1;
	}
	buf_addc(&b, '"');
	return buf_take_str(&b);
}

struct timespec time_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t;
}

int64_t time_mono_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void time_rfc3339nano(struct timespec t, char out[static TIME_STR])
{
	struct tm tm;
	gmtime_r(&t.tv_sec, &tm);
	size_t n = strftime(out, TIME_STR, "%Y-%m-%dT%H:%M:%S", &tm);
	if (t.tv_nsec) {
		n += (size_t)snprintf(out + n, TIME_STR - n, ".%09ld", t.tv_nsec);
		while (out[n - 1] == '0') n--;
	}
	out[n] = 'Z';
	out[n + 1] = 0;
}

static bool digits(const char **s, int n, int *ret)
{
	*ret = 0;
	for (; n > 0; n--, (*s)++) {
		if (!isdigit((unsigned char)**s)) return false;
		*ret = *ret * 10 + (**s - '0');
	}
	return true;
}

static bool literal(const char **s, char c) { return **s == c ? (*s)++, true : false; }

int time_parse_rfc3339(const char *text, struct timespec *ret, struct err *e)
{
	const char *s = text;
	struct tm tm = {0};
	long ns = 0;
	int oh = 0, om = 0, sign = 1;
	bool ok = digits(&s, 4, &tm.tm_year) && literal(&s, '-') && digits(&s, 2, &tm.tm_mon) && literal(&s, '-') &&
		  digits(&s, 2, &tm.tm_mday) && (literal(&s, 'T') || literal(&s, 't')) && digits(&s, 2, &tm.tm_hour) &&
		  literal(&s, ':') && digits(&s, 2, &tm.tm_min) && literal(&s, ':') && digits(&s, 2, &tm.tm_sec);
	if (ok && literal(&s, '.')) {
		int n = 0;
		for (; isdigit((unsigned char)*s); s++, n++)
			if (n < 9) ns = ns * 10 + (*s - '0');
		ok = n > 0;
		for (; n < 9; n++) ns *= 10;
	}
	if (ok && !literal(&s, 'Z')) {
		sign = *s == '-' ? -1 : 1;
		ok = (literal(&s, '+') || literal(&s, '-')) && digits(&s, 2, &oh) && literal(&s, ':') && digits(&s, 2, &om);
	}
	ok = ok && !*s && tm.tm_mon >= 1 && tm.tm_mon <= 12 && tm.tm_mday >= 1 && tm.tm_mday <= 31 && tm.tm_hour < 24 &&
	     tm.tm_min < 60 && tm.tm_sec < 61;
	if (!ok) return err_set(e, CODE_INVALID_ARGUMENT, "\"%.60s\" is no RFC 3339 time", text);
	tm.tm_year -= 1900;
	tm.tm_mon--;
	*ret = (struct timespec){timegm(&tm) - sign * (oh * 3600 + om * 60), ns};
	return 0;
}

int duration_parse(const char *text, int64_t *ret_ns, struct err *e)
{
	static const struct {
		const char *unit;
		double ns;
	} unit[] = {{"ns", 1}, {"us", 1e3}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 6e10}, {"h", 3.6e12}};
	const char *s = text;
	double total = 0;
	bool negative = *s == '-', any = false;
	if (*s == '-' || *s == '+') s++;
	if (!strcmp(s, "0")) return *ret_ns = 0, 0;
	while (*s) {
		char *end;
		if (!isdigit((unsigned char)*s) && *s != '.') goto bad;
		double v = strtod(s, &end);
		size_t n = strcspn(end, "0123456789."), i = 0;
		for (; i < array_len(unit); i++)
			if (strlen(unit[i].unit) == n && !strncmp(end, unit[i].unit, n)) break;
		if (!n && *end == 0) return err_set(e, CODE_INVALID_ARGUMENT, "time: missing unit in duration \"%.60s\"", text);
		if (i == array_len(unit)) goto bad;
		total += v * unit[i].ns;
		s = end + n;
		any = true;
	}
	if (!any || total > 9.2e18) goto bad;
	*ret_ns = (int64_t)(negative ? -total : total);
	return 0;
bad:
	return err_set(e, CODE_INVALID_ARGUMENT, "time: invalid duration \"%.60s\"", text);
}

void size_format(int64_t bytes, char out[static 24])
{
	static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double v = (double)bytes;
	size_t i = 0;
	while (v >= 1000 && i + 1 < array_len(unit)) v /= 1000, i++;
	snprintf(out, 24, "%.4g%s", floor(v * 100 + 0.5) / 100, unit[i]);
}

size_t text_distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	if (n > 256 || m > 256) return 256;
	size_t row[257];
	for (size_t j = 0; j <= m; j++) row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t up = row[j];
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			best = min_of(best, up + 1);
			row[j] = min_of(best, row[j - 1] + 1);
			diagonal = up;
		}
	}
	return row[m];
}
