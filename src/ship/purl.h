#ifndef SHIP_PURL_H
#define SHIP_PURL_H
/* Package URLs of images: "pkg:docker/alpine@3.20?platform=linux%2Famd64". Pure; heap answers.
 * Sources: BuildKit util/purl/image.go, package-url/packageurl-go. */
#include "spec/platform.h"
#include "spec/ref.h"

struct purl_extra {
	const char *key, *value;
};
/* type: "docker" or "oci"; platform NULL: none; extras are more qualifiers. NULL with *e for a bad reference. */
char *ship_purl(const char *type, const char *ref, const struct spec_platform *platform, const struct purl_extra *extra,
		size_t n_extra, struct err *e);
#endif
