#ifndef SHIP_ATTEST_FILES_JOB_H
#define SHIP_ATTEST_FILES_JOB_H
/* Attestations as files beside a result (local, tar): statements whose subjects are the result's own files. Job; no loop. */
#include "sess/types.h"
#include "ship/attest_job.h"

struct files_attest {
	struct attest_in *const *in; /* borrowed */
	size_t n_in;
	char *platform;     /* id; NULL: the result has none, so no files */
	bool name_platform; /* several platforms in one directory: "provenance.linux_amd64.json" */
	char *prefix;
	int64_t mtime_ns;
	VEC(struct sess_extra_file) files; /* out; name and p are heap */
};
int files_attest_make(struct files_attest *f, int rootfd, struct err *e);
void files_attest_free(struct files_attest *f); /* NULL allowed */
#endif
