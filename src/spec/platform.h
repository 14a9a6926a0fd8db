#ifndef SPEC_PLATFORM_H
#define SPEC_PLATFORM_H
/* Platforms: "linux/arm64", "linux/arm/v7", "windows(10.0.17763)/amd64", "linux(+feature)/amd64".
 * Source: github.com/containerd/platforms (parse, normalise, format, Only's order). Any thread. Members are heap and
 * never NULL after parse, copy or normalise; a zeroed struct is the empty platform (NULL reads as ""). */
#include "base/base.h"

struct spec_platform {
	char *os, *arch, *variant, *os_version;
	struct strvec os_features;
};
#define _cleanup_spec_platform_ __attribute__((cleanup(spec_platform_fini)))

/* platforms.Parse: also "arm64", "linux", "aarch64". Not yet normalised: "linux/arm64/v8" keeps v8 as containerd does. */
int spec_platform_parse(const char *s, struct spec_platform *ret, struct err *e);
/* Members in, normalised: lower case, macos -> darwin, x86_64 -> amd64, arm64/v8 -> arm64, arm -> arm/v7, ... */
void spec_platform_normalize(struct spec_platform *p);
/* Parse, then normalise: what BuildKit keeps. */
int spec_platform_parse_normal(const char *s, struct spec_platform *ret, struct err *e);
/* From the members of a message or an image config (each may be NULL), not normalised. */
void spec_platform_init(struct spec_platform *p, const char *os, const char *arch, const char *variant, const char *os_version);
void spec_platform_copy(struct spec_platform *dst, const struct spec_platform *src); /* dst is overwritten, not freed */
void spec_platform_fini(struct spec_platform *p);
char *
spec_platform_format(const struct spec_platform *p); /* FormatAll, heap: with (osversion+features); "unknown" without os */
char *spec_platform_format_short(const struct spec_platform *p);                        /* Format, heap: os/arch/variant */
void spec_platform_host(struct spec_platform *ret);                                     /* this machine's, normalised */
bool spec_platform_equal(const struct spec_platform *a, const struct spec_platform *b); /* member by member, as they are */
/* OnlyStrict(want).Match(have): the same platform after normalising. */
bool spec_platform_match_strict(const struct spec_platform *want, const struct spec_platform *have);
/* Only(want).Match(have): also what runs on it (amd64 runs 386 and lower amd64 variants, arm/v7 runs v6 and v5, ...). */
bool spec_platform_match(const struct spec_platform *want, const struct spec_platform *have);
/* Only(want).Less(a, b): a suits want better than b. */
bool spec_platform_less(const struct spec_platform *want, const struct spec_platform *a, const struct spec_platform *b);
/* The index of the best match among n (the first of equals), -1 when none matches. */
ptrdiff_t spec_platform_choose(const struct spec_platform *want, const struct spec_platform *v, size_t n);
#endif
