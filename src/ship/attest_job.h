#ifndef SHIP_ATTEST_JOB_H
#define SHIP_ATTEST_JOB_H
/* Attestations of one platform -> in-toto statements. Job; no loop. Inputs are borrowed values.
 *
 *  1. A bundle is a directory of statements in a reference; each regular file of it is one attestation.
 *  2. A provenance predicate comes from the daemon only (has_content); a frontend may not set one.
 *  3. The core SBOM comes first, then all in the order they were given.
 * Source: BuildKit exporter/attestation. */
#include "base/base.h"
#include "ship/manifest.h"

enum { ATTEST_FILE_MAX = 40 << 20, ATTEST_FILES_MAX = 4096 };

struct snap_view;
struct attest_subject {
	bool raw;
	char *name, *digest; /* heap */
};
struct attest_in {
	char *key; /* platform id */
	bool bundle, has_content, inline_only;
	char *path, *predicate_type, *sbom_core; /* sbom_core NULL: none */
	VEC(struct attest_subject) subjects;
	struct snap_view *view; /* of its reference; NULL: none */
	struct buf content;     /* has_content */
};
void attest_in_fini(struct attest_in *a); /* not the view */

struct attest_out {
	char *path, *predicate_type;
	VEC(struct attest_subject) subjects;
	struct buf predicate;
	bool core; /* comes first */
	bool sbom; /* the core SBOM by its file's name */
};
struct attest_outs {
	struct attest_out *v;
	size_t n, cap;
};
void attest_outs_fini(struct attest_outs *o);
/* Read and check those of platform `key`; skip_inline leaves out what is for inline use only. */
int attest_job_read(struct attest_in *const *in, size_t n, const char *key, bool skip_inline, struct attest_outs *ret,
		    struct err *e);
/* The statement with its subjects; `self` are the result's own. */
int attest_job_statement(const struct attest_out *o, const struct ship_subject *self, size_t n_self, bool indent,
			 struct buf *ret, struct err *e);
#endif
