/* containerd's filter language (pkg/filters): `field.path`, `==value`, `!=value`, `~=regexp`, joined by commas; fields and
 * values may be quoted. Regular expressions are POSIX extended ones here, RE2 there: what people write in filters is the same
 * in both. */
#include "build/internal.h"

#include <ctype.h>
#include <regex.h>
#include <string.h>

void selectors_fini(struct selectors *s)
{
	for (size_t i = 0; i < s->all.n; i++) {
		strvec_fini(&s->all.v[i].path);
		free(s->all.v[i].value);
	}
	vec_fini(&s->all);
}

static int wrong(const char *s, const char *at, const char *what, struct err *e)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "filters: parse error: [%.*s >|%s|< ]: %s",
		       (int)min_of(at - s, (ptrdiff_t)200), s, *at ? (char[]){*at, 0} : "", what);
}

/* A quoted word: " or ', with backslashes. */
static int quoted(const char *s, const char **at, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *p = *at;
	char q = *p++;
	for (; *p && *p != q; p++) {
		if (*p == '\\' && p[1]) p++;
		buf_addc(&b, *p);
	}
	if (!*p) return wrong(s, *at, "quoted literal not terminated", e);
	*at = p + 1;
	*ret = buf_take_str(&b);
	return 0;
}

static int word(const char *s, const char **at, bool value, char **ret, struct err *e)
{
	const char *p = *at;
	if (*p == '"' || *p == '\'') return quoted(s, at, ret, e);
	while (value ? *p && *p != ',' && !isspace((unsigned char)*p) : isalnum((unsigned char)*p) || *p == '_') p++;
	if (p == *at) return wrong(s, p, value ? "expected value" : "expected field", e);
	*ret = xstrndup(*at, (size_t)(p - *at));
	*at = p;
	return 0;
}

static int selector(const char *s, const char **at, struct selector *x, struct err *e)
{
	static const char ops[][3] = {[SELECT_EQUAL] = "==", [SELECT_NOT_EQUAL] = "!=", [SELECT_MATCH] = "~="};
	for (;;) {
		char *field;
		if (word(s, at, false, &field, e) < 0) return -1;
		strvec_take(&x->path, field);
		if (**at != '.') break;
		++*at;
	}
	for (size_t i = SELECT_EQUAL; i < array_len(ops); i++) {
		if (strncmp(*at, ops[i], 2)) continue;
		x->op = i;
		*at += 2;
		return word(s, at, true, &x->value, e);
	}
	return **at && **at != ',' ? wrong(s, *at, "expected an operator: ==, != or ~=", e) : 0;
}

int selectors_parse(const char *s, struct selectors *ret, struct err *e)
{
	struct selectors out = {0};
	for (const char *at = s; *s;) {
		if (selector(s, &at, vec_add(&out.all), e) < 0 || (*at && *at != ',' && wrong(s, at, "expected ','", e) < 0)) {
			selectors_fini(&out);
			return -1;
		}
		if (!*at++) break;
	}
	*ret = out;
	return 0;
}

static bool regex_matches(const char *re, const char *s)
{
	regex_t r;
	if (regcomp(&r, re, REG_EXTENDED | REG_NOSUB)) return false;
	bool ok = regexec(&r, s, 0, NULL, 0) == 0;
	regfree(&r);
	return ok;
}

bool selectors_match(const struct selectors *s, const char *(*field)(void *ctx, const struct strvec *path), void *ctx)
{
	for (size_t i = 0; i < s->all.n; i++) {
		const struct selector *x = &s->all.v[i];
		const char *have = field(ctx, &x->path);
		bool ok = false;
		switch (x->op) {
		case SELECT_PRESENT: ok = have != NULL; break;
		case SELECT_EQUAL: ok = have && !strcmp(have, x->value); break;
		case SELECT_NOT_EQUAL: ok = strcmp(have ? have : "", x->value) != 0; break;
		case SELECT_MATCH: ok = regex_matches(x->value, have ? have : ""); break;
		}
		if (!ok) return false;
	}
	return true;
}
