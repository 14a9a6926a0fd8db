#ifndef BLOB_BLOB_H
#define BLOB_BLOB_H
/* Content-addressed store on disk: `<root>/blobs/sha256/<hex>`, temporary files in `<root>/tmp/`.
 *
 *  1. A name under blobs/ holds exactly the bytes it names: written to tmp/, hashed, fsynced, then renamed (blob_put_unsynced
 * tells the exception).
 *  2. Two ingests of one digest may run at once: the second rename replaces equal bytes.
 *  3. Left-over temporary files of ours are removed when the store is opened: a killed daemon leaves nothing. One daemon a root
 * (the caller locks it).
 *  4. Which blobs are still wanted is not known here (`db`, `build` keep that); blob_remove only unlinks.
 * All functions block on the disk and may be called from any thread (jobs); an ingest belongs to one thread at a time.
 * Digests are "sha256:<64 hex>"; a bad one is INVALID_ARGUMENT. A missing blob: see each function. */
#include "base/base.h"

struct blob_store;
/* Creates the folders (0700) where missing. */
int blob_store_open(const char *root, struct blob_store **ret, struct err *e);
void blob_store_close(struct blob_store *s); /* NULL allowed; no ingest may be under way */

char *blob_path(const struct blob_store *s, const char *digest); /* heap; NULL when the digest is bad. Need not exist */
int blob_open(const struct blob_store *s, const char *digest, struct err *e); /* read-only fd; NOT_FOUND */
bool blob_has(const struct blob_store *s, const char *digest);
/* 1 and the size, 0 when it is missing. ret_bytes may be NULL. */
int blob_stat(const struct blob_store *s, const char *digest, int64_t *ret_bytes, struct err *e);
/* Whole blob, NUL-terminated heap; more than max_bytes is RESOURCE_EXHAUSTED, missing NOT_FOUND. */
int blob_read(const struct blob_store *s, const char *digest, size_t max_bytes, uint8_t **ret, size_t *ret_len, struct err *e);
/* 1 when it was there, 0 when not. */
int blob_remove(struct blob_store *s, const char *digest, struct err *e);
/* Out of the store by one rename, so the loop may do it between two jobs: 1 when it was there, 0 when not. The bytes go with
 * blob_trash_empty, or when the store is opened next. */
int blob_trash(struct blob_store *s, const char *digest, struct err *e);
int blob_trash_empty(struct blob_store *s, struct err *e);
/* Each blob with size and mtime (seconds); each() answers < 0 to stop (blob_list then answers -1). Removing the blob at hand is
 * fine. */
int blob_list(const struct blob_store *s,
	      int (*each)(void *ctx, const char *digest, int64_t bytes, int64_t mtime, struct err *e), void *ctx,
	      struct err *e);
/* The bytes as a blob; out_digest may be NULL. Already there is fine (nothing is written then). */
int blob_put(struct blob_store *s, const void *p, size_t n, char out_digest[DIGEST_STR], struct err *e);
/* The same without the wait for the disk. Till blob_sync a power cut (not a kill) may leave a file that is short or empty. */
int blob_put_unsynced(struct blob_store *s, const void *p, size_t n, char out_digest[DIGEST_STR], struct err *e);
/* What blob_put_unsynced left out. A missing blob is no error. */
int blob_sync(struct blob_store *s, const char *digest, struct err *e);
/* Put a verified copy of a file (reflink where the disk can); size is checked when >= 0. */
int blob_put_fd(struct blob_store *s, int fd, const char *expected_digest, int64_t expected_bytes, struct err *e);

/* ---- ingest ---- */
struct blob_ingest;
/* expected_digest NULL: whatever comes; expected_bytes -1: not known. With a known size a longer input fails at once. */
int blob_ingest_begin(struct blob_store *s, const char *expected_digest, int64_t expected_bytes, struct blob_ingest **ret,
		      struct err *e);
int blob_ingest_write(struct blob_ingest *i, const void *p, size_t n, struct err *e);
/* Start over from offset 0 (a retried download). */
int blob_ingest_reset(struct blob_ingest *i, struct err *e);
/* commit does not wait for the disk: blob_sync is to follow. For what a later blob cannot be built upon (history). */
void blob_ingest_unsynced(struct blob_ingest *i);
int64_t blob_ingest_bytes(const struct blob_ingest *i);      /* so far */
const char *blob_ingest_digest(const struct blob_ingest *i); /* the expected one, NULL */
/* Verify (DATA_LOSS when digest or size differ), fsync, rename. The ingest is freed in either case; *i is NULL then. */
int blob_ingest_commit(struct blob_ingest **i, char out_digest[DIGEST_STR], int64_t *ret_bytes, struct err *e);
void blob_ingest_abort(struct blob_ingest *i); /* NULL allowed; removes the temporary file */
static inline void blob_ingest_abortp(struct blob_ingest **i) { blob_ingest_abort(*i); }
#define _cleanup_blob_ingest_ _cleanup_(blob_ingest_abortp)
/* blob_ingest_write with the signature of a tar_out: ctx is the struct blob_ingest. */
int blob_ingest_out(void *ctx, const void *p, size_t n, struct err *e);

/* ---- where a missing blob can be had ---- */
/* Filled in by `reg`, `sess` and the cache back ends. fetch writes all the bytes into the ingest and neither commits nor
 * aborts it; it may call blob_ingest_reset to try again. Called from a job, any thread, several at once. */
struct blob_source {
	int (*fetch)(struct blob_source *src, const char *digest, int64_t size, struct blob_ingest *to, struct err *e);
};
/* Fetch unless it is there. 1 fetched, 0 was there. size -1: not known. */
int blob_ensure(struct blob_store *s, struct blob_source *src, const char *digest, int64_t size, struct err *e);
#endif
