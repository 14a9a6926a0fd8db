/* Platforms: parsing, normal form and text. What suits what is in match.c.
 *
 * 1. After parse, init, copy and normalize no member is NULL; readers take NULL as "" all the same.
 * 2. Parse normalises the names it knows, but keeps the hints of containerd/platforms: "linux/arm/v7" keeps its variant,
 *    "linux/arm" has none until it is normalised. */
#include "spec/platform.h"
#include "spec/internal.h"
#include "spec/url.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#if defined __x86_64__
#define HOST_ARCH "amd64"
#elif defined __aarch64__
#define HOST_ARCH "arm64"
#elif defined __arm__
#define HOST_ARCH "arm"
#elif defined __i386__
#define HOST_ARCH "386"
#elif defined __riscv && __riscv_xlen == 64
#define HOST_ARCH "riscv64"
#elif defined __powerpc64__ && defined __LITTLE_ENDIAN__
#define HOST_ARCH "ppc64le"
#elif defined __s390x__
#define HOST_ARCH "s390x"
#elif defined __loongarch64
#define HOST_ARCH "loong64"
#elif defined __mips64
#define HOST_ARCH "mips64le"
#else
#error "this machine's name in Go's GOARCH is not known here"
#endif

static const char os_re[] = "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$";
static const char part_re[] = "^[A-Za-z0-9_.-]+$";
static const char *const known_os[] = {"aix",   "android", "darwin", "dragonfly", "freebsd", "hurd",    "illumos", "ios", "js",
				       "linux", "nacl",    "netbsd", "openbsd",   "plan9",   "solaris", "windows", "zos"};
static const char *const known_arch[] = {"386",     "amd64",    "amd64p32",  "arm",         "armbe",   "arm64",
					 "arm64be", "ppc64",    "ppc64le",   "loong64",     "mips",    "mipsle",
					 "mips64",  "mips64le", "mips64p32", "mips64p32le", "ppc",     "riscv",
					 "riscv64", "s390",     "s390x",     "sparc",       "sparc64", "wasm"};
/* How an architecture and variant are called by others; variant NULL: any, to_variant NULL: as it was. */
static const struct {
	const char *arch, *variant, *to_arch, *to_variant;
} arch_names[] = {
	{"i386", NULL, "386", ""},        {"x86_64", "v1", "amd64", ""},     {"x86-64", "v1", "amd64", ""},
	{"amd64", "v1", "amd64", ""},     {"x86_64", NULL, "amd64", NULL},   {"x86-64", NULL, "amd64", NULL},
	{"aarch64", "8", "arm64", ""},    {"aarch64", "v8", "arm64", ""},    {"aarch64", "v8.0", "arm64", ""},
	{"aarch64", "9", "arm64", "v9"},  {"aarch64", "9.0", "arm64", "v9"}, {"aarch64", "v9.0", "arm64", "v9"},
	{"arm64", "8", "arm64", ""},      {"arm64", "v8", "arm64", ""},      {"arm64", "v8.0", "arm64", ""},
	{"arm64", "9", "arm64", "v9"},    {"arm64", "9.0", "arm64", "v9"},   {"arm64", "v9.0", "arm64", "v9"},
	{"aarch64", NULL, "arm64", NULL}, {"armhf", NULL, "arm", "v7"},      {"armel", NULL, "arm", "v6"},
	{"arm", "", "arm", "v7"},         {"arm", "7", "arm", "v7"},         {"arm", "5", "arm", "v5"},
	{"arm", "6", "arm", "v6"},        {"arm", "8", "arm", "v8"},
};

static bool in_list(const char *const *v, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i], s) == 0) return true;
	return false;
}

static void set(char **member, const char *s)
{
	char *copy = xstrdup(s ? s : "");
	free(*member);
	*member = copy;
}

static void lower(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z') *s = (char)(*s - 'A' + 'a');
}

static void normalize_os(char **os)
{
	if (str_empty(*os)) {
		set(os, "linux");
		return;
	}
	lower(*os);
	if (strcmp(*os, "macos") == 0) set(os, "darwin");
}

static void normalize_arch(char **arch, char **variant)
{
	lower(*arch);
	lower(*variant);
	for (size_t i = 0; i < array_len(arch_names); i++) {
		if (strcmp(*arch, arch_names[i].arch) != 0) continue;
		if (arch_names[i].variant && strcmp(*variant, arch_names[i].variant) != 0) continue;
		set(arch, arch_names[i].to_arch);
		if (arch_names[i].to_variant) set(variant, arch_names[i].to_variant);
		return;
	}
}

static void fill(struct spec_platform *p)
{
	char **members[] = {&p->os, &p->arch, &p->variant, &p->os_version};
	for (size_t i = 0; i < array_len(members); i++)
		if (!*members[i]) *members[i] = xstrdup("");
}

void spec_platform_normalize(struct spec_platform *p)
{
	fill(p);
	normalize_os(&p->os);
	normalize_arch(&p->arch, &p->variant);
	struct strvec sorted = {0};
	strvec_sort(&p->os_features);
	for (size_t i = 0; i < p->os_features.n; i++)
		if (i == 0 || strcmp(p->os_features.v[i], p->os_features.v[i - 1]) != 0)
			strvec_add(&sorted, p->os_features.v[i]);
	strvec_fini(&p->os_features);
	p->os_features = sorted;
}

static bool chars_ok(const char *s, size_t n, const char *extra)
{
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr(extra, c));
		if (!ok) return false;
	}
	return n > 0;
}

/* The features behind the version: "+a+b", each percent-encoded. */
static int parse_features(const char *s, size_t n, const char *whole, struct spec_platform *p, struct err *e)
{
	for (size_t i = 0; i < n;) {
		size_t from = ++i;
		while (i < n && s[i] != '+') i++;
		_cleanup_free_ char *raw = xstrndup(s + from, i - from);
		char *feature = NULL;
		if (spec_path_unescape(raw, &feature, e) < 0) {
			_cleanup_free_ char *q = go_quote(whole, strlen(whole)), *qf = go_quote(raw, strlen(raw));
			return err_wrap(e, "%s has invalid OS features: invalid os feature %s", q, qf);
		}
		strvec_take(&p->os_features, feature);
	}
	return 0;
}

/* os[(version[+feature]*)] */
static int parse_os(const char *s, size_t n, const char *whole, struct spec_platform *p, struct err *e)
{
	const char *open = memchr(s, '(', n);
	size_t os_n = open ? (size_t)(open - s) : n, version_n = 0, features_n = 0;
	bool ok = chars_ok(s, os_n, "_-");
	if (ok && open) {
		const char *end = s + n - 1, *plus = memchr(open, '+', (size_t)(end - open));
		ok = end > open && *end == ')';
		const char *version_end = plus ? plus : end;
		version_n = ok ? (size_t)(version_end - open - 1) : 0;
		ok = ok && (!version_n || chars_ok(open + 1, version_n, "_.%-"));
		features_n = ok && plus ? (size_t)(end - plus) : 0;
		for (size_t i = 0; ok && i < features_n;) {
			size_t from = ++i;
			while (i < features_n && plus[i] != '+') i++;
			ok = chars_ok(plus + from, i - from, "_.%-");
		}
	}
	if (!ok) {
		_cleanup_free_ char *qs = go_quote(s, n), *qw = go_quote(whole, strlen(whole)),
				    *qr = go_quote(os_re, strlen(os_re));
		return err_set(
			e, SPEC_BAD,
			"%s is an invalid OS component of %s: OSAndVersion specifier component must match %s: invalid argument",
			qs, qw, qr);
	}
	p->os = xstrndup(s, os_n);
	normalize_os(&p->os);
	if (!open) return 0;
	_cleanup_free_ char *raw = xstrndup(open + 1, version_n);
	if (spec_path_unescape(raw, &p->os_version, e) < 0) {
		_cleanup_free_ char *q = go_quote(whole, strlen(whole)), *qv = go_quote(raw, strlen(raw));
		return err_wrap(e, "%s has an invalid OS version %s", q, qv);
	}
	return parse_features(open + 1 + version_n, features_n, whole, p, e);
}

/* A single word: an operating system, else an architecture. */
static int parse_single(const char *s, struct spec_platform *p, struct err *e)
{
	if (in_list(known_os, array_len(known_os), p->os)) {
		set(&p->arch, HOST_ARCH);
		return 0;
	}
	set(&p->arch, s);
	normalize_arch(&p->arch, &p->variant);
	if (strcmp(p->arch, "arm") == 0 && strcmp(p->variant, "v7") == 0) set(&p->variant, "");
	if (!in_list(known_arch, array_len(known_arch), p->arch)) {
		_cleanup_free_ char *q = go_quote(s, strlen(s));
		return err_set(e, SPEC_BAD, "%s: unknown operating system or architecture: invalid argument", q);
	}
	set(&p->os, "linux");
	return 0;
}

static int check_part(const char *s, size_t n, const char *whole, struct err *e)
{
	if (chars_ok(s, n, "_.-")) return 0;
	_cleanup_free_ char *qs = go_quote(s, n), *qw = go_quote(whole, strlen(whole)),
			    *qr = go_quote(part_re, strlen(part_re));
	return err_set(e, SPEC_BAD,
		       "%s is an invalid component of %s: platform specifier component must match %s: invalid argument", qs, qw,
		       qr);
}

int spec_platform_parse(const char *s, struct spec_platform *ret, struct err *e)
{
	_cleanup_spec_platform_ struct spec_platform p = {0};
	_cleanup_free_ char *q = go_quote(s, strlen(s));
	if (strchr(s, '*')) return err_set(e, SPEC_BAD, "%s: wildcards not yet supported: invalid argument", q);
	const char *part[4] = {s};
	size_t len[4], n = 1;
	for (const char *slash; n < 4 && (slash = strchr(part[n - 1], '/')); n++) {
		len[n - 1] = (size_t)(slash - part[n - 1]);
		part[n] = slash + 1;
	}
	len[n - 1] = strlen(part[n - 1]);
	if (parse_os(part[0], len[0], s, &p, e) < 0) return -1;
	for (size_t i = 1; i < n; i++)
		if (check_part(part[i], len[i], s, e) < 0) return -1;
	fill(&p);
	if (n == 1 && parse_single(s, &p, e) < 0) return -1;
	if (n == 4) return err_set(e, SPEC_BAD, "%s: cannot parse platform specifier: invalid argument", q);
	if (n > 1) {
		free(p.arch);
		p.arch = xstrndup(part[1], len[1]);
		if (n == 3) set(&p.variant, part[2]);
		normalize_arch(&p.arch, &p.variant);
		if (n == 2 && strcmp(p.arch, "arm") == 0 && strcmp(p.variant, "v7") == 0) set(&p.variant, "");
		if (n == 3 && strcmp(p.arch, "arm64") == 0 && !*p.variant) set(&p.variant, "v8");
	}
	*ret = p;
	p = (struct spec_platform){0};
	return 0;
}

int spec_platform_parse_normal(const char *s, struct spec_platform *ret, struct err *e)
{
	if (spec_platform_parse(s, ret, e) < 0) return -1;
	spec_platform_normalize(ret);
	return 0;
}

void spec_platform_init(struct spec_platform *p, const char *os, const char *arch, const char *variant, const char *os_version)
{
	*p = (struct spec_platform){xstrdup(os), xstrdup(arch), xstrdup(variant), xstrdup(os_version), {0}};
	fill(p);
}

void spec_platform_copy(struct spec_platform *dst, const struct spec_platform *src)
{
	struct strvec features = {0};
	strvec_copy(&features, src->os_features.v, src->os_features.n);
	spec_platform_init(dst, src->os, src->arch, src->variant, src->os_version);
	dst->os_features = features;
}

void spec_platform_fini(struct spec_platform *p)
{
	free(p->os);
	free(p->arch);
	free(p->variant);
	free(p->os_version);
	strvec_fini(&p->os_features);
	*p = (struct spec_platform){0};
}

static char *joined(const char *os, const struct spec_platform *p)
{
	_cleanup_free_ char *a = path_join(os, p->arch ? p->arch : "");
	return path_join(a, p->variant ? p->variant : "");
}

char *spec_platform_format_short(const struct spec_platform *p)
{
	return str_empty(p->os) ? xstrdup("unknown") : joined(p->os, p);
}

static void add_option(struct buf *b, const char *s)
{
	for (; *s; s++) {
		if (strchr("%+()/", *s))
			buf_addf(b, "%%%02X", (unsigned)*s);
		else
			buf_addc(b, *s);
	}
}

char *spec_platform_format(const struct spec_platform *p)
{
	if (str_empty(p->os)) return xstrdup("unknown");
	_cleanup_buf_ struct buf options = BUF_INIT, os = BUF_INIT;
	add_option(&options, p->os_version ? p->os_version : "");
	struct strvec features = {0};
	strvec_copy(&features, p->os_features.v, p->os_features.n);
	strvec_sort(&features);
	for (size_t i = 0; i < features.n; i++) {
		if (!*features.v[i] || (i && strcmp(features.v[i], features.v[i - 1]) == 0)) continue;
		buf_addc(&options, '+');
		add_option(&options, features.v[i]);
	}
	strvec_fini(&features);
	buf_adds(&os, p->os);
	if (options.n) buf_addf(&os, "(%s)", buf_str(&options));
	return joined(buf_str(&os), p);
}

void spec_platform_host(struct spec_platform *ret)
{
	const char *variant = "";
#if defined __arm__
	struct utsname u;
	if (uname(&u) == 0 && str_starts(u.machine, "armv"))
		variant = u.machine[4] == '8' ? "v8" : u.machine[4] == '6' ? "v6" : u.machine[4] == '5' ? "v5" : "v7";
#endif
	spec_platform_init(ret, "linux", HOST_ARCH, variant, "");
	spec_platform_normalize(ret);
}

static const char *text(const char *s) { return s ? s : ""; }

bool spec_platform_equal(const struct spec_platform *a, const struct spec_platform *b)
{
	if (strcmp(text(a->os), text(b->os)) != 0 || strcmp(text(a->arch), text(b->arch)) != 0) return false;
	if (strcmp(text(a->variant), text(b->variant)) != 0 || strcmp(text(a->os_version), text(b->os_version)) != 0)
		return false;
	if (a->os_features.n != b->os_features.n) return false;
	for (size_t i = 0; i < a->os_features.n; i++)
		if (strcmp(a->os_features.v[i], b->os_features.v[i]) != 0) return false;
	return true;
}
