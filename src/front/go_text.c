/* Text as Go programs print it, and paths of the system that an image is for (Windows' too).
 * Source: Go fmt and time, BuildKit util/system/path.go. */
#include "front/stage.h"

#include <string.h>
#include <strings.h>

const char *text_join(struct arena *a, const char *const *v, size_t n, const char *sep)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		if (i) buf_adds(&b, sep);
		buf_adds(&b, v[i]);
	}
	return arena_strdup(a, buf_str(&b));
}

const char *go_list(struct arena *a, const char *const *v, size_t n)
{
	return arena_printf(a, "[%s]", text_join(a, v, n, " "));
}

const char *go_quoted_list(struct arena *a, const char *const *v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_addc(&b, '[');
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *q = go_quote(v[i], strlen(v[i]));
		if (i) buf_addc(&b, ' ');
		buf_adds(&b, q);
	}
	buf_addc(&b, ']');
	return arena_strdup(a, buf_str(&b));
}

/* v of a unit that is `unit` ns, its fraction without trailing zeros. */
static const char *fraction(struct arena *a, uint64_t v, uint64_t unit, const char *suffix)
{
	char frac[24];
	int n = 0;
	uint64_t rest = v % unit;
	for (uint64_t u = unit / 10; u && rest; u /= 10) {
		frac[n++] = (char)('0' + rest / u);
		rest %= u;
	}
	frac[n] = 0;
	return arena_printf(a, "%llu%s%s%s", (unsigned long long)(v / unit), n ? "." : "", frac, suffix);
}

const char *go_duration(struct arena *a, int64_t ns)
{
	const uint64_t second = 1000000000ULL;
	uint64_t u = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
	const char *s;
	if (!u) return "0s";
	if (u < 1000)
		s = arena_printf(a, "%lluns", (unsigned long long)u);
	else if (u < 1000000)
		s = fraction(a, u, 1000, "µs");
	else if (u < second)
		s = fraction(a, u, 1000000, "ms");
	else {
		uint64_t minutes = u / second / 60;
		s = fraction(a, u % (60 * second), second, "s");
		if (minutes >= 60)
			s = arena_printf(a, "%lluh%llum%s", (unsigned long long)(minutes / 60),
					 (unsigned long long)(minutes % 60), s);
		else if (minutes)
			s = arena_printf(a, "%llum%s", (unsigned long long)minutes, s);
	}
	return ns < 0 ? arena_printf(a, "-%s", s) : s;
}

int err_mean(struct err *e, const char *match)
{
	if (!e || str_empty(match)) return -1;
	char *msg = xasprintf("%s (did you mean %s?)", e->msg, match);
	free(e->msg);
	e->msg = msg;
	return -1;
}

/* ---- paths ---- */

const char *path_joined(struct arena *a, const char *x, const char *y)
{
	_cleanup_free_ char *p = path_join(x, y);
	return arena_strdup(a, p);
}

static bool windows(const char *os) { return str_eq(os, "windows"); }

static const char *swap(struct arena *a, const char *path, char from, char to)
{
	char *s = arena_strdup(a, path);
	for (char *c = s; *c; c++)
		if (*c == from) *c = to;
	return s;
}

const char *os_to_slash(struct arena *a, const char *path, const char *os)
{
	return windows(os) ? swap(a, path, '\\', '/') : path;
}

static const char *clean_slash(struct arena *a, const char *path, bool keep_slash)
{
	path = swap(a, path, '\\', '/');
	_cleanup_free_ char *c = path_clean(path);
	bool slash = keep_slash && strlen(c) > 1 && str_ends(path, "/");
	return arena_printf(a, "%s%s", c, slash ? "/" : "");
}

const char *os_strip_drive(struct arena *a, const char *path, const char *os, bool keep_slash, struct err *e)
{
	if (!windows(os)) return path;
	if (strlen(path) == 2 && path[1] == ':') {
		_cleanup_free_ char *q = go_quote(path, 2);
		err_set(e, CODE_UNKNOWN, "No relative path specified in %s", q);
		return NULL;
	}
	if (path[0] && path[1] && strchr("/\\", path[0]) && strchr("/\\", path[1])) {
		err_set(e, CODE_UNKNOWN, "UNC paths are not supported");
		return NULL;
	}
	const char *colon = strchr(path, ':');
	if (!colon) return clean_slash(a, path, keep_slash);
	if (colon - path != 1 || strncasecmp(path, "c", 1) != 0) {
		err_set(e, CODE_UNKNOWN, "The specified path is not on the system drive (C:)");
		return NULL;
	}
	return clean_slash(a, colon + 1, keep_slash);
}

bool os_is_abs(struct arena *a, const char *path, const char *os)
{
	const char *p = os_strip_drive(a, path, os, false, NULL);
	return p && *os_to_slash(a, p, os) == '/';
}

static const char *no_drive(struct arena *a, const char *path, const char *os, bool keep_slash, struct err *e)
{
	const char *p = os_strip_drive(a, path, os, keep_slash, e);
	if (!p) err_wrap(e, "removing drive letter");
	return p;
}

const char *os_normalize(struct arena *a, const char *parent, const char *path, const char *os, bool keep_slash, struct err *e)
{
	const char *orig = path = os_to_slash(a, path, os);
	parent = os_to_slash(a, parent, os);
	if (!*parent) parent = "/";
	if (!(parent = no_drive(a, parent, os, keep_slash, e))) return NULL;
	if (!os_is_abs(a, parent, os)) parent = path_joined(a, "/", parent);
	if (!*path) path = parent;
	if (!(path = no_drive(a, path, os, keep_slash, e))) return NULL;
	if (!os_is_abs(a, path, os)) path = path_joined(a, parent, path);
	if (keep_slash && str_ends(orig, "/") && !str_ends(path, "/"))
		path = arena_printf(a, "%s/", path);
	else if (keep_slash && !str_ends(orig, "/") && str_ends(orig, "/."))
		path = arena_printf(a, "%s%s.", path, strcmp(path, "/") == 0 ? "" : "/");
	return os_to_slash(a, path, os);
}

const char *os_workdir(struct arena *a, const char *current, const char *wd, const char *os, struct err *e)
{
	const char *p = os_normalize(a, current, wd, os, false, e);
	if (!p) {
		err_wrap(e, "normalizing working directory");
		return NULL;
	}
	return windows(os) ? swap(a, p, '/', '\\') : p;
}
