#ifndef OPS_HTTP_JOB_H
#define OPS_HTTP_JOB_H
/* One URL into one file of a new snapshot; checksums of such a file. Job; no loop. */
#include "reg/reg.h"
#include "snap/snap.h"

#define HTTP_SESSION_HOST "buildkit-session"

struct http_job {
	const char *url;
	const char *filename; /* "": by the answer */
	int64_t perm, uid, gid;
	const struct strvec *headers;
	struct reg_io *io;
	/* Not NULL: the bytes come from here, from the client. 0: the end. */
	ssize_t (*upload)(void *ctx, void *buf, size_t n, struct err *e);
	void *upload_ctx;
	const struct snap_view *view;
	/* What an earlier build has: asked whether it is still so. "" : nothing. */
	const char *known_etag, *known_digest, *known_modified;
	const atomic_bool *cancelled;
	/* out */
	bool unchanged; /* known_* is it; nothing was written */
	char digest[DIGEST_STR];
	char *name;     /* of the file */
	char *modified; /* HTTP date, "" when the server said none */
	char *etag;     /* "": none */
	struct err error;
};
void http_job_get(struct http_job *j);
void http_job_fini(struct http_job *j);
/* The name that the file has when nothing was asked; heap. */
char *http_file_name(const char *url, const char *filename, const char *disposition);
/* Seconds and the canonical form ("Mon, 02 Jan 2006 15:04:05 GMT"; heap, may be NULL). False: no HTTP date. */
bool http_date(const char *s, int64_t *ret_unix_s, char **ret_text);

struct http_sum_job {
	const struct snap_view *view;
	const char *name;
	const char *algo; /* "sha256", "sha384", "sha512"; NULL: none */
	const void *suffix;
	size_t suffix_len;
	const char *sig_pubkey, *sig_signature; /* "": not verified */
	/* out */
	char *sum;
	struct err error;
};
void http_job_sum(struct http_sum_job *j);
#endif
