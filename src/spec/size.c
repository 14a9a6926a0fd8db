/* Sizes as go-units' parseSize reads them: a decimal number, an optional space, and a suffix of at most three letters.
 * Fractions are allowed and the product is cut, not rounded. */
#include "spec/size.h"
#include "base/mem.h"
#include "spec/internal.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

/* The digits of s without the underscores between digits; NULL when another character is among them. */
static char *digits_of(const char *s, size_t n)
{
	_cleanup_free_ char *out = xmalloc(n + 1);
	size_t k = 0;
	for (size_t i = 0; i < n; i++) {
		bool between = i && i + 1 < n && isdigit((unsigned char)s[i - 1]) && isdigit((unsigned char)s[i + 1]);
		if (s[i] == '_' && between) continue;
		if (!s[i] || !strchr("0123456789.+-eE", s[i])) return NULL;
		out[k++] = s[i];
	}
	out[k] = 0;
	return k ? take_ptr(out) : NULL;
}

/* strconv.ParseFloat's decimal forms: no hex, no white space. */
static int number_parse(const char *s, size_t n, double *ret, struct err *e)
{
	_cleanup_free_ char *num = digits_of(s, n);
	char *end = NULL;
	double v = num ? strtod(num, &end) : 0;
	if (!num || *end) {
		_cleanup_free_ char *q = go_quote(s, n);
		return err_set(e, SPEC_BAD, "strconv.ParseFloat: parsing %s: invalid syntax", q);
	}
	if (isinf(v)) {
		_cleanup_free_ char *q = go_quote(s, n);
		return err_set(e, SPEC_BAD, "strconv.ParseFloat: parsing %s: value out of range", q);
	}
	*ret = v;
	return 0;
}

/* The factor of a suffix (lower case, not empty), 0 when it is none. */
static double suffix_factor(const char *s, double base)
{
	if (s[0] == 'b') return s[1] ? 0 : 1;
	const char *units = "kmgtp";
	const char *u = strchr(units, s[0]);
	if (!u) return 0;
	if (s[1] && strcmp(s + 1, "b") != 0 && strcmp(s + 1, "ib") != 0) return 0;
	return pow(base, (double)(u - units + 1));
}

static int parse(const char *s, double base, int64_t *ret, struct err *e)
{
	size_t n = strlen(s), num_n = n;
	while (num_n && !strchr("0123456789. ", s[num_n - 1])) num_n--;
	if (!num_n) return err_set(e, SPEC_BAD, "invalid size: '%s'", s);
	char suffix[4] = "";
	const char *sfx = s + num_n;
	if (s[num_n - 1] == ' ') num_n--;
	double v = 0;
	if (number_parse(s, num_n, &v, e) < 0) return -1;
	if (v < 0) return err_set(e, SPEC_BAD, "invalid size: '%s'", s);
	if (strlen(sfx) > 3) return err_set(e, SPEC_BAD, "invalid suffix: '%s'", sfx);
	for (size_t i = 0; sfx[i]; i++) suffix[i] = (char)tolower((unsigned char)sfx[i]);
	double f = suffix[0] ? suffix_factor(suffix, base) : 1;
	if (f == 0) return err_set(e, SPEC_BAD, "invalid suffix: '%s'", suffix);
	v *= f;
	if (v >= 9223372036854775808.0) return err_set(e, SPEC_BAD, "invalid size: '%s': out of range", s);
	*ret = (int64_t)v;
	return 0;
}

int spec_size_parse(const char *s, int64_t *ret_bytes, struct err *e) { return parse(s, 1024, ret_bytes, e); }
int spec_size_parse_decimal(const char *s, int64_t *ret_bytes, struct err *e) { return parse(s, 1000, ret_bytes, e); }
