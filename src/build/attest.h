#ifndef BUILD_ATTEST_H
#define BUILD_ATTEST_H
/* Private to the room: between attest.c and sbom.c. Loop thread. */
#include "build/platforms.h"
#include "build/provenance.h"

#define SBOM_PREDICATE "https://spdx.dev/Document"

struct record_doc {
	char *key, digest[DIGEST_STR];
	struct buf text;
	bool ok;
};
/* The reference of a platform of the result; NULL: scratch, or *ret_found is false. */
struct ref *attest_ref(const struct build *b, const char *id, bool *ret_found);

/* Adds a scan of each platform to the result: done once, later. */
struct sbom_run;
struct sbom_run *sbom_start(struct build *b, const char *image, const struct strvec *opts,
			    void (*done)(void *arg, const struct err *e), void *arg);
void sbom_cancel(struct sbom_run *s); /* done is not called any more */
#endif
