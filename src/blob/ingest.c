/* Writing a blob: a temporary file, hashed as it comes, verified, fsynced and renamed to its digest.
 *
 *  1. The temporary file exists exactly as long as the ingest does; commit renames it, abort and every failure remove it.
 *  2. The hash covers exactly the `bytes` bytes of the file.
 *  3. Committing over an existing blob replaces equal bytes: nobody who has it open notices. */
#include "blob/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct blob_ingest {
	struct blob_store *store;
	char *expected; /* NULL: any */
	int64_t expected_bytes, bytes;
	struct hasher h;
	int fd;
	bool unsynced;
	char name[sizeof BLOB_TMP_PREFIX + ID_STR];
};

int blob_ingest_begin(struct blob_store *s, const char *expected_digest, int64_t expected_bytes, struct blob_ingest **ret,
		      struct err *e)
{
	if (expected_digest && !blob_hex(expected_digest, e)) return -1;
	struct blob_ingest *i = xnew(struct blob_ingest);
	char id[ID_STR];
	id_new(id);
	snprintf(i->name, sizeof i->name, BLOB_TMP_PREFIX "%s", id);
	i->store = s;
	i->expected_bytes = expected_bytes;
	i->fd = openat(s->tmp, i->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (i->fd < 0) {
		int saved = errno;
		free(i);
		return err_sys(e, saved, "create a file in %s/tmp", s->root);
	}
	i->expected = xstrdup(expected_digest);
	hasher_init(&i->h);
	*ret = i;
	return 0;
}

void blob_ingest_unsynced(struct blob_ingest *i) { i->unsynced = true; }

int64_t blob_ingest_bytes(const struct blob_ingest *i) { return i->bytes; }
const char *blob_ingest_digest(const struct blob_ingest *i) { return i->expected; }

static const char *label(const struct blob_ingest *i) { return i->expected ? i->expected : "(new)"; }

int blob_ingest_write(struct blob_ingest *i, const void *p, size_t n, struct err *e)
{
	if (i->expected_bytes >= 0 && (int64_t)n > i->expected_bytes - i->bytes)
		return err_set(e, CODE_DATA_LOSS, "blob %s is longer than its %" PRId64 " bytes", label(i), i->expected_bytes);
	if (path_write_all(i->fd, p, n, e) < 0) return err_wrap(e, "write blob %s", label(i));
	hasher_update(&i->h, p, n);
	i->bytes += (int64_t)n;
	return 0;
}

int blob_ingest_out(void *ctx, const void *p, size_t n, struct err *e) { return blob_ingest_write(ctx, p, n, e); }

int blob_ingest_reset(struct blob_ingest *i, struct err *e)
{
	if (ftruncate(i->fd, 0) < 0 || lseek(i->fd, 0, SEEK_SET) < 0) return err_sys(e, errno, "rewind blob %s", label(i));
	hasher_fini(&i->h);
	hasher_init(&i->h);
	i->bytes = 0;
	return 0;
}

static void release(struct blob_ingest *i)
{
	hasher_fini(&i->h);
	close_fd(&i->fd);
	free(i->expected);
	free(i);
}

void blob_ingest_abort(struct blob_ingest *i)
{
	if (!i) return;
	unlinkat(i->store->tmp, i->name, 0);
	release(i);
}

static int verify(struct blob_ingest *i, char digest[static DIGEST_STR], struct err *e)
{
	struct digest d;
	hasher_final(&i->h, &d);
	digest_format(&d, digest);
	if (i->expected_bytes >= 0 && i->bytes != i->expected_bytes)
		return err_set(e, CODE_DATA_LOSS, "blob %s ended after %" PRId64 " of %" PRId64 " bytes", label(i), i->bytes,
			       i->expected_bytes);
	if (i->expected && strcmp(i->expected, digest))
		return err_set(e, CODE_DATA_LOSS, "blob %s: unexpected content, its digest is %s", i->expected, digest);
	return 0;
}

static int publish(struct blob_ingest *i, const char *digest, struct err *e)
{
	const char *hex = digest + strlen("sha256:");
	if (fchmod(i->fd, 0400) < 0 || (!i->unsynced && fdatasync(i->fd) < 0))
		return err_sys(e, errno, "write blob %s", digest);
	if (renameat(i->store->tmp, i->name, i->store->blobs, hex) < 0) return err_sys(e, errno, "rename blob %s", digest);
	return 0;
}

int blob_ingest_commit(struct blob_ingest **ingest, char out_digest[DIGEST_STR], int64_t *ret_bytes, struct err *e)
{
	_cleanup_blob_ingest_ struct blob_ingest *i = take_ptr(*ingest);
	char digest[DIGEST_STR];
	if (verify(i, digest, e) < 0 || publish(i, digest, e) < 0) return -1;
	if (out_digest) memcpy(out_digest, digest, DIGEST_STR);
	if (ret_bytes) *ret_bytes = i->bytes;
	release(take_ptr(i));
	return 0;
}
