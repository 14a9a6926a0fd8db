/* Which platform runs what: containerd/platforms' Only(), an ordered list of what a platform can run, best first.
 *
 * amd64/vN runs its lower variants and 386; arm/vN what is lower down to v5; arm64 its lower versions and 32-bit arm.
 * On Windows the build number decides, and the feature win32k does not count. */
#include "spec/internal.h"
#include "spec/platform.h"

#include <stdio.h>
#include <string.h>

enum { VECTOR_MAX = 48, VARIANT_MAX = 32 };

/* What a platform can run: os, version and features are those of the platform itself. */
struct runs {
	struct spec_platform base; /* normalised */
	struct {
		const char *arch;
		char variant[32];
	} v[VECTOR_MAX];
	size_t n;
};

static void add_run(struct runs *r, const char *arch, const char *variant)
{
	if (r->n == VECTOR_MAX) return;
	r->v[r->n].arch = arch;
	snprintf(r->v[r->n++].variant, sizeof r->v[0].variant, "%s", variant);
}

/* The number of "vN" or "N"; -1 when it is none. */
static int variant_number(const char *s)
{
	if (*s == 'v') s++;
	int n = 0;
	if (!*s) return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || n > 1000) return -1;
		n = n * 10 + (*s - '0');
	}
	return n;
}

static void add_lower(struct runs *r, const char *arch, const char *variant, int last)
{
	int n = variant_number(variant);
	for (n = min_of(n, VARIANT_MAX) - 1; n >= last; n--) {
		char lower[16];
		snprintf(lower, sizeof lower, "v%d", n);
		add_run(r, arch, lower);
	}
}

/* "v8.0" and "v8" are one; v9.N is v8.(N+5), up to v8.9. */
static void add_arm64(struct runs *r, const char *variant)
{
	int major = 8, minor = 0;
	char rest;
	if (*variant && sscanf(variant, "v%1d.%1d%c", &major, &minor, &rest) != 2 &&
	    (minor = 0, sscanf(variant, "v%1d%c", &major, &rest) != 1))
		return;
	if ((major != 8 && major != 9) || (major == 9 && minor > 7)) return;
	char text[16];
	for (int m = minor; major == 9 && m >= 0; m--) {
		snprintf(text, sizeof text, m ? "v9.%d" : "v9", m);
		add_run(r, "arm64", text);
	}
	for (int m = major == 9 ? min_of(minor + 5, 9) : minor; m >= 0; m--) {
		snprintf(text, sizeof text, m ? "v8.%d" : "", m);
		add_run(r, "arm64", text);
	}
	add_run(r, "arm", "v8");
	add_lower(r, "arm", "v8", 5);
}

static void runs_init(struct runs *r, const struct spec_platform *want, bool strict)
{
	*r = (struct runs){0};
	spec_platform_copy(&r->base, want);
	spec_platform_normalize(&r->base);
	const char *arch = r->base.arch, *variant = r->base.variant;
	if (strcmp(arch, "arm64") == 0 && !strict) {
		add_arm64(r, variant);
		return;
	}
	add_run(r, arch, variant);
	if (strict) return;
	if (strcmp(arch, "arm") == 0) add_lower(r, "arm", variant, 5);
	if (strcmp(arch, "amd64") != 0) return;
	if (variant_number(variant) > 2) add_lower(r, "amd64", variant, 2);
	if (variant_number(variant) > 1) add_run(r, "amd64", "");
	add_run(r, "386", "");
}

/* On Windows "win32k" counts in the order of matches, but not for matching. */
static bool features_within(const struct strvec *have, const struct strvec *all, bool windows)
{
	for (size_t i = 0; i < have->n; i++)
		if (strvec_find(all, have->v[i]) < 0 && !(windows && strcmp(have->v[i], "win32k") == 0)) return false;
	return true;
}

struct windows {
	int major, minor, build;
};

static struct windows windows_version(const char *s)
{
	struct windows w = {0};
	unsigned v[3] = {0};
	int end = 0;
	if (sscanf(s, "%3u.%3u.%5u%n", &v[0], &v[1], &v[2], &end) == 3 && (!s[end] || s[end] == '.') && v[0] < 256 &&
	    v[1] < 256 && v[2] < 65536)
		w = (struct windows){(int)v[0], (int)v[1], (int)v[2]};
	return w;
}

/* A Windows host runs containers of its own build; since Server 2022 also those back to the LTSC release before it. */
static bool windows_runs(const char *host_version, const char *version)
{
	enum { LTSC2022 = 20348, LTSC2025 = 26100 };
	struct windows h = windows_version(host_version), c = windows_version(version);
	if ((!h.major && !h.minor && !h.build) || !*version) return true;
	if (h.major != c.major || h.minor != c.minor) return false;
	if (h.build < LTSC2022) return h.build == c.build;
	int oldest = h.build > LTSC2025 ? LTSC2025 : LTSC2022;
	return oldest <= c.build && c.build <= h.build;
}

/* The place of have (normalised) among what r can run; -1 when it cannot. */
static ptrdiff_t rank(const struct runs *r, const struct spec_platform *have, bool ignore_features)
{
	if (strcmp(r->base.os, have->os) != 0) return -1;
	bool windows = strcmp(r->base.os, "windows") == 0;
	if (!ignore_features && !features_within(&have->os_features, &r->base.os_features, windows)) return -1;
	if (windows && !windows_runs(r->base.os_version, have->os_version)) return -1;
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->v[i].arch, have->arch) == 0 && strcmp(r->v[i].variant, have->variant) == 0) return (ptrdiff_t)i;
	return -1;
}

static void normal_copy(struct spec_platform *dst, const struct spec_platform *src)
{
	spec_platform_copy(dst, src);
	spec_platform_normalize(dst);
}

static bool matches(const struct spec_platform *want, const struct spec_platform *have, bool strict)
{
	struct runs r;
	_cleanup_spec_platform_ struct spec_platform h = {0};
	runs_init(&r, want, strict);
	normal_copy(&h, have);
	ptrdiff_t at = rank(&r, &h, false);
	spec_platform_fini(&r.base);
	return at >= 0;
}

bool spec_platform_match_strict(const struct spec_platform *want, const struct spec_platform *have)
{
	return matches(want, have, true);
}

bool spec_platform_match(const struct spec_platform *want, const struct spec_platform *have)
{
	return matches(want, have, false);
}

static bool less(const struct runs *r, const struct spec_platform *a, const struct spec_platform *b, bool ignore_features)
{
	ptrdiff_t ra = rank(r, a, ignore_features), rb = rank(r, b, ignore_features);
	if (ra < 0 && rb < 0) {
		bool features = a->os_features.n || b->os_features.n;
		return features && !ignore_features && less(r, a, b, true);
	}
	if (ra == rb) return !ignore_features && a->os_features.n > b->os_features.n;
	return ra >= 0 && (rb < 0 || ra < rb);
}

bool spec_platform_less(const struct spec_platform *want, const struct spec_platform *a, const struct spec_platform *b)
{
	struct runs r;
	_cleanup_spec_platform_ struct spec_platform na = {0}, nb = {0};
	runs_init(&r, want, false);
	normal_copy(&na, a);
	normal_copy(&nb, b);
	bool l = less(&r, &na, &nb, false);
	spec_platform_fini(&r.base);
	return l;
}

ptrdiff_t spec_platform_choose(const struct spec_platform *want, const struct spec_platform *v, size_t n)
{
	ptrdiff_t best = -1;
	for (size_t i = 0; i < n; i++) {
		if (!spec_platform_match(want, &v[i])) continue;
		if (best < 0 || spec_platform_less(want, &v[i], &v[best])) best = (ptrdiff_t)i;
	}
	return best;
}
