/* Pure parsing: WWW-Authenticate, token scopes, error bodies of registries.
 *
 * A scope is "type:name:action,action"; the list is kept sorted by type:name with the actions of one resource merged and
 * sorted, so that equal demands have equal keys in the token cache.
 * Sources: RFC 7235; distribution spec/auth/scope.md; containerd core/remotes/docker/{auth/parse,errcode,errdesc}.go. */
#include "reg/internal.h"
#include <jansson.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_token(char c) { return (unsigned char)c > 32 && (unsigned char)c < 127 && !strchr("\"(),/:;<=>?@[]\\{}", c); }

static char *token(const char **s)
{
	const char *from = *s;
	while (is_token(**s)) (*s)++;
	return xstrndup(from, (size_t)(*s - from));
}

static char *quoted(const char **s)
{
	struct buf b = BUF_INIT;
	const char *p = *s + 1;
	for (; *p && *p != '"'; p++) {
		if (*p == '\\' && p[1]) p++;
		buf_addc(&b, *p);
	}
	*s = *p ? p + 1 : p;
	return buf_take_str(&b);
}

static void skip_space(const char **s)
{
	while (**s && strchr(" \t\r\n", **s)) (*s)++;
}

static void lower(char *s)
{
	for (; *s; s++) *s = (char)tolower((unsigned char)*s);
}

bool reg_auth_parse(const char *value, struct reg_auth *ret)
{
	enum { MAX_PARAMS = 64 };
	struct reg_auth a = {0};
	_cleanup_free_ char *scheme = token(&value);
	if (strcasecmp(scheme, "bearer") == 0)
		a.bearer = true;
	else if (strcasecmp(scheme, "basic") != 0)
		return false;
	while (a.n < MAX_PARAMS) {
		skip_space(&value);
		_cleanup_free_ char *key = token(&value);
		if (!*key || *value != '=') break;
		value++;
		lower(key);
		struct reg_auth_param *p = vec_add(&a);
		p->key = take_ptr(key);
		p->value = *value == '"' ? quoted(&value) : token(&value);
		skip_space(&value);
		if (*value++ != ',') break;
	}
	*ret = a;
	return true;
}

const char *reg_auth_get(const struct reg_auth *a, const char *key)
{
	for (size_t i = a->n; i-- > 0;)
		if (str_eq(a->v[i].key, key)) return a->v[i].value;
	return "";
}

void reg_auth_fini(struct reg_auth *a)
{
	for (size_t i = 0; i < a->n; i++) {
		free(a->v[i].key);
		free(a->v[i].value);
	}
	vec_fini(a);
}

/* Where "type:name" of a scope ends: at its second colon that is followed by actions. Names may hold a port's colon
 * ("repository:host:5000/x:pull" is what some send), so the last colon counts when there are two or more. */
static size_t name_len(const char *scope)
{
	const char *first = strchr(scope, ':'), *last = strrchr(scope, ':');
	return first && last != first ? (size_t)(last - scope) : strlen(scope);
}

static void actions_merge(struct strvec *actions, const char *list)
{
	while (*list) {
		size_t n = strcspn(list, ",");
		_cleanup_free_ char *a = xstrndup(list, n);
		if (n && strvec_find(actions, a) < 0) strvec_add(actions, a);
		list += n + (list[n] == ',');
	}
}

static void scope_add(struct strvec *sv, const char *scope)
{
	_cleanup_strvec_ struct strvec actions = {0};
	size_t n = name_len(scope);
	size_t at = sv->n;
	for (size_t i = 0; i < sv->n && at == sv->n; i++)
		if (name_len(sv->v[i]) == n && strncmp(sv->v[i], scope, n) == 0) at = i;
	if (at < sv->n && sv->v[at][n]) actions_merge(&actions, sv->v[at] + n + 1);
	if (scope[n]) actions_merge(&actions, scope + n + 1);
	strvec_sort(&actions);
	_cleanup_free_ char *joined = strvec_join(&actions, ",");
	char *full = xasprintf("%.*s:%s", (int)n, scope, joined);
	if (at < sv->n) {
		free(sv->v[at]);
		sv->v[at] = full;
	} else {
		strvec_take(sv, full);
	}
}

void reg_scopes_add(struct strvec *sv, const char *list)
{
	enum { MAX_SCOPES = 64 };
	while (*list && sv->n < MAX_SCOPES) {
		size_t n = strcspn(list, " ");
		_cleanup_free_ char *s = xstrndup(list, n);
		if (n) scope_add(sv, s);
		list += n + (list[n] == ' ');
	}
	strvec_sort(sv);
}

bool reg_scopes_contain(const struct strvec *have, const struct strvec *want)
{
	_cleanup_strvec_ struct strvec both = {0};
	strvec_copy(&both, have->v, have->n);
	for (size_t i = 0; i < want->n; i++) reg_scopes_add(&both, want->v[i]);
	if (both.n != have->n) return false;
	for (size_t i = 0; i < both.n; i++)
		if (!str_eq(both.v[i], have->v[i])) return false;
	return true;
}

static const struct {
	const char *id, *message;
} codes[] = {
	{"UNKNOWN", "unknown error"},
	{"UNSUPPORTED", "The operation is unsupported."},
	{"UNAUTHORIZED", "authentication required"},
	{"DENIED", "requested access to the resource is denied"},
	{"UNAVAILABLE", "service unavailable"},
	{"TOOMANYREQUESTS", "too many requests"},
};

static void error_add(struct buf *out, json_t *err)
{
	const char *id = json_string_value(json_object_get(err, "code"));
	const char *message = json_string_value(json_object_get(err, "message"));
	json_t *detail = json_object_get(err, "detail");
	size_t k = 0;
	for (size_t i = 1; id && i < sizeof codes / sizeof *codes; i++)
		if (strcmp(codes[i].id, id) == 0) k = i;
	_cleanup_free_ char *name = xstrdup(codes[k].id);
	lower(name);
	bool plain = str_empty(message) || (str_eq(message, codes[k].message) && (!detail || json_is_null(detail)));
	buf_adds(out, name);
	if (!plain) {
		_cleanup_free_ char *clean = utf8_clean(message, strlen(message));
		buf_addf(out, ": %s", clean);
	}
}

char *reg_error_text(const void *body, size_t n)
{
	json_t *root = n ? json_loadb(body, n, 0, NULL) : NULL;
	json_t *errors = json_object_get(root, "errors");
	size_t count = json_array_size(errors);
	struct buf out = BUF_INIT;
	if (count > 1) buf_adds(&out, "errors:\n");
	for (size_t i = 0; i < count && i < 16; i++) {
		error_add(&out, json_array_get(errors, i));
		if (count > 1) buf_addc(&out, '\n');
	}
	json_decref(root);
	if (!out.n) {
		buf_fini(&out);
		return NULL;
	}
	return buf_take_str(&out);
}
