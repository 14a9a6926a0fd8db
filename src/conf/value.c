/* Values: from a flag's text into the field that a row names; printing, comparing and freeing likewise. */
#include "conf/internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <strings.h>

const char *const conf_expected[] = {
	[T_BOOL] = "a boolean",
	[T_TRI] = "a boolean",
	[T_STR] = "a string",
	[T_INT] = "an integer",
	[T_STRS] = "an array of strings",
	[T_MAP] = "a table of strings",
	[T_DURATION] = "a duration as \"48h\" or seconds",
	[T_SPACE] = "a size as \"10GB\", \"20%\" or bytes",
	[T_LIST] = "an array of tables",
	[T_NAMED] = "a table of tables",
	[T_ANY] = "anything",
};
#define FIELD(T) ((T *)((char *)base + r->off))

int conf_parse_duration(const char *s, int64_t *ret)
{
	char *end;
	if (!*s) return 0;
	if (duration_parse(s, ret, NULL) == 0) return 0;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (end == s || *end || errno || v > INT64_MAX / 1000000000 || v < -(INT64_MAX / 1000000000)) return -1;
	*ret = v * 1000000000;
	return 0;
}

/* docker/go-units RAMInBytes: number, optional space, unit b k m g t p in powers of 1024, with "b" or "ib" behind. */
static int ram_in_bytes(const char *s, int64_t *ret)
{
	static const char units[] = "bkmgtp";
	char *end;
	double v = strtod(s, &end);
	if (end == s || !(isdigit((unsigned char)*s) || *s == '.') || v < 0 || strpbrk(s, "xXnN")) return -1;
	if (*end == ' ') end++;
	if (*end) {
		const char *u = strchr(units, tolower((unsigned char)*end));
		if (!u) return -1;
		for (long i = 0; i < u - units; i++) v *= 1024;
		end++;
		if (u != units && (*end == 'i' || *end == 'I')) end++;
		if (u != units && (*end == 'b' || *end == 'B')) end++;
	}
	if (*end || v >= 9.2e18) return -1;
	*ret = (int64_t)v;
	return 0;
}

int conf_parse_space(const char *s, struct conf_space *ret)
{
	struct conf_space v = {0};
	size_t n = strlen(s);
	if (n && s[n - 1] == '%') {
		char *end;
		errno = 0;
		v.percent = strtoll(s, &end, 10);
		if (end != s + n - 1 || errno || n < 2) return -1;
	} else if (n && ram_in_bytes(s, &v.bytes) < 0) {
		return -1;
	}
	*ret = v;
	return 0;
}

static char *unquote(const char *s)
{
	size_t n = strlen(s);
	return n > 1 && s[0] == '"' && s[n - 1] == '"' ? xstrndup(s + 1, n - 2) : xstrdup(s);
}

static bool in_range(const struct conf_row *r, int64_t v) { return (!r->min && !r->max) || (v >= r->min && v <= r->max); }

int conf_bad(const struct conf_row *r, const char *found, struct err *e)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "expected %s, found %s", conf_expected[r->type], found);
}

static int bad_range(const struct conf_row *r, int64_t v, struct err *e)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "%" PRId64 " is out of range (%" PRId64 " to %" PRId64 ")", v, r->min, r->max);
}

static int add_pair(struct strvec *map, const char *text, const struct conf_row *r, struct err *e)
{
	const char *eq = strchr(text, '=');
	if (!eq) return err_set(e, CODE_INVALID_ARGUMENT, "invalid value %s, expected key=value", text);
	_cleanup_free_ char *k = xstrndup(text, (size_t)(eq - text));
	strvec_env_set(map, k, eq + 1);
	return 0;
}

int conf_set_bool(void *base, const struct conf_row *r, bool v)
{
	if (r->type == T_TRI)
		*FIELD(enum conf_tri) = v ? CONF_TRUE : CONF_FALSE;
	else
		*FIELD(bool) = v;
	return 0;
}

int conf_set_int(void *base, const struct conf_row *r, int64_t v, struct err *e)
{
	if (!in_range(r, v)) return bad_range(r, v, e);
	*FIELD(int64_t) = v;
	return 0;
}

int conf_set_text(void *base, const struct conf_row *r, const char *text, struct err *e)
{
	_cleanup_free_ char *plain = unquote(text), *found = xasprintf("\"%.100s\"", text);
	bool b;
	char *end;
	switch (r->type) {
	case T_TRI:
		if (!*text || strcasecmp(text, "auto") == 0) {
			*FIELD(enum conf_tri) = CONF_UNSET;
			return 0;
		}
		/* fall through */
	case T_BOOL: return str_bool(text, &b) ? conf_set_bool(base, r, b) : conf_bad(r, found, e);
	case T_STR:
		free(*FIELD(char *));
		*FIELD(char *) = xstrdup(text);
		return 0;
	case T_INT: {
		errno = 0;
		long long v = strtoll(text, &end, 10);
		return end == text || *end || errno ? conf_bad(r, found, e) : conf_set_int(base, r, v, e);
	}
	case T_STRS: strvec_add(FIELD(struct strvec), text); return 0;
	case T_MAP: return add_pair(FIELD(struct strvec), text, r, e);
	case T_DURATION: return conf_parse_duration(plain, FIELD(int64_t)) < 0 ? conf_bad(r, found, e) : 0;
	case T_SPACE: return conf_parse_space(plain, FIELD(struct conf_space)) < 0 ? conf_bad(r, found, e) : 0;
	default: return conf_bad(r, found, e);
	}
}

void conf_clear(void *base, const struct conf_row *r)
{
	struct raw_vec *vec = FIELD(struct raw_vec);
	switch (r->type) {
	case T_STR:
		free(*FIELD(char *));
		*FIELD(char *) = NULL;
		break;
	case T_STRS:
	case T_MAP: strvec_fini(FIELD(struct strvec)); break;
	case T_LIST:
	case T_NAMED:
		for (size_t i = 0; i < vec->n; i++) {
			void *elem = vec->v + i * r->sub->elem_size;
			if (r->type == T_NAMED) free(*(char **)elem); /* the name is the first member */
			conf_rows_fini(r->sub, elem);
		}
		free(vec->v);
		*vec = (struct raw_vec){0};
		break;
	default: break;
	}
}

void conf_rows_fini(const struct conf_rows *rs, void *base)
{
	for (size_t i = 0; i < rs->n; i++) conf_clear(base, &rs->rows[i]);
}

/* ---- to text ---- */
static void put_strs(struct buf *out, const struct strvec *v)
{
	buf_addc(out, '[');
	for (size_t i = 0; i < v->n; i++) {
		if (i) buf_adds(out, ", ");
		json_quote(out, v->v[i], strlen(v->v[i]));
	}
	buf_addc(out, ']');
}

bool conf_is_unset(const void *base, const struct conf_row *r)
{
	switch (r->type) {
	case T_STR: return !*FIELD(char *const);
	case T_TRI: return *FIELD(const enum conf_tri) == CONF_UNSET;
	case T_BOOL: return false;
	case T_INT: return (r->flags & F_SET) && *FIELD(const int64_t) == r->min;
	case T_DURATION: return (r->flags & F_SET) ? *FIELD(const int64_t) == INT64_MIN : !*FIELD(const int64_t);
	case T_STRS:
	case T_MAP: return !FIELD(const struct strvec)->n;
	case T_SPACE: return !FIELD(const struct conf_space)->bytes && !FIELD(const struct conf_space)->percent;
	case T_LIST:
	case T_NAMED: return !FIELD(const struct raw_vec)->n;
	case T_ANY: return true;
	}
	return true;
}

void conf_put_value(const struct conf_row *r, const void *base, struct buf *out)
{
	const struct conf_space *s = FIELD(const struct conf_space);
	switch (r->type) {
	case T_BOOL: buf_adds(out, *FIELD(const bool) ? "true" : "false"); break;
	case T_TRI: buf_adds(out, *FIELD(const enum conf_tri) == CONF_TRUE ? "true" : "false"); break;
	case T_STR: json_quote(out, *FIELD(char *const), strlen(*FIELD(char *const))); break;
	case T_INT: buf_addf(out, "%" PRId64, *FIELD(const int64_t)); break;
	case T_STRS:
	case T_MAP: put_strs(out, FIELD(const struct strvec)); break;
	case T_DURATION: buf_addf(out, "\"%" PRId64 "s\"", *FIELD(const int64_t) / 1000000000); break;
	case T_SPACE: s->percent ? buf_addf(out, "\"%" PRId64 "%%\"", s->percent) : buf_addf(out, "%" PRId64, s->bytes); break;
	default: break;
	}
}
