#ifndef SHIP_OPTS_H
#define SHIP_OPTS_H
/* Exporter attributes, parsed. Strings are borrowed from the attributes. */
#include "ship/ship.h"
#include "tar/tar.h"

enum ship_kind { SHIP_IMAGE, SHIP_OCI, SHIP_DOCKER, SHIP_LOCAL, SHIP_TAR };
struct ship_opts {
	enum ship_kind kind;
	const char *name;
	bool push, push_by_digest, insecure;
	bool has_oci_types, oci_types, oci_artifact, has_oci_artifact, attest_inline, prefer_nondist, force_compression, rewrite_timestamp, tar;
	enum spec_compression compression;
	int level;
	bool epoch_given; /* with has_epoch false: given as empty, so that no moment counts, whatever the result says */
	bool has_epoch;
	struct timespec epoch;
	bool delete_mode; /* local mode=delete */
	bool has_split, split;
	const char *dangling_prefix, *attest_prefix;
	bool name_canonical;
	VEC(struct ship_kv) annotations;  /* attributes as they came: see annotations.h */
	VEC(struct ship_kv) rest;         /* unknown ones: they count as result metadata */
};
int ship_opts_parse(const char *type, const struct ship_kv *attrs, size_t n, struct ship_opts *ret, struct err *e);
void ship_opts_fini(struct ship_opts *o);
#endif
