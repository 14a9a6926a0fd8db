#ifndef SPEC_REF_H
#define SPEC_REF_H
/* Image references: [domain/]path[:tag][@digest], and their Docker Hub short forms.
 * Source: github.com/distribution/reference (grammar, normalisation and error texts). Any thread, no blocking. */
#include "base/base.h"

struct spec_ref {
	char *domain; /* "docker.io", "localhost:5000"; never empty once parsed */
	char *path;   /* "library/alpine" */
	char *tag;    /* NULL: none */
	char *digest; /* "sha256:..." (sha384, sha512 too), NULL: none */
};
#define _cleanup_spec_ref_ __attribute__((cleanup(spec_ref_fini)))

/* ParseNormalizedNamed: "alpine" -> docker.io/library/alpine, without a tag. Errors: "invalid reference format",
 * "repository name must be lowercase", ... */
int spec_ref_parse(const char *s, struct spec_ref *ret, struct err *e);
/* spec_ref_parse, then ":latest" when there is neither tag nor digest (TagNameOnly). */
int spec_ref_parse_tagged(const char *s, struct spec_ref *ret, struct err *e);
/* ParseDockerRef: as parse_tagged, but a tag beside a digest is dropped. */
int spec_ref_parse_docker(const char *s, struct spec_ref *ret, struct err *e);
bool spec_ref_is_name_only(const struct spec_ref *r);
void spec_ref_tag_name_only(struct spec_ref *r);
int spec_ref_set_tag(struct spec_ref *r, const char *tag, struct err *e);       /* NULL removes; "invalid tag format" */
int spec_ref_set_digest(struct spec_ref *r, const char *digest, struct err *e); /* NULL removes; "invalid digest format" */
void spec_ref_copy(struct spec_ref *dst, const struct spec_ref *src);           /* dst is overwritten, not freed */
void spec_ref_fini(struct spec_ref *r);
/* All heap. */
char *spec_ref_name(const struct spec_ref *r);          /* domain/path */
char *spec_ref_format(const struct spec_ref *r);        /* domain/path[:tag][@digest] */
char *spec_ref_familiar(const struct spec_ref *r);      /* "alpine:3.20": FamiliarString */
char *spec_ref_familiar_name(const struct spec_ref *r); /* "alpine" */
/* go-digest's Parse for any of its algorithms (sha256, sha384, sha512); its error texts. */
int spec_digest_check(const char *s, struct err *e);
#endif
