/* The documents of an image: an index, a manifest and a config, divided by lines "----". They lie in a blob store under fixed
 * names (the digests 1, 2 and 3), so that a changed byte is still found. Then the config as the frontend and the exporter read
 * it. */
#include "front/image_config.h"
#include "fuzz.h"
#include "ops/image_job.h"
#include "ship/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int no_fetch(struct blob_source *src, const char *digest, int64_t size, struct blob_ingest *to, struct err *e)
{
	return err_set(e, CODE_NOT_FOUND, "%s: not found", digest);
}

static struct blob_store *blobs;

static void put(int number, struct fuzz_in doc)
{
	char digest[DIGEST_STR];
	snprintf(digest, sizeof digest, "sha256:%064d", number);
	_cleanup_free_ char *path = blob_path(blobs, digest);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ensure(fd >= 0 && write(fd, doc.p, doc.n) == (ssize_t)doc.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size}, index = fuzz_until(&in, "\n----\n"), manifest = fuzz_until(&in, "\n----\n"),
		       config = in;
	struct blob_source src = {no_fetch};
	struct image_job_req r = {.source = &src};
	struct ops_image m = {0};
	struct err e = ERR_INIT;
	if (!blobs) ensure(blob_store_open(fuzz_scratch_path(), &blobs, NULL) >= 0);
	put(1, index);
	put(2, manifest);
	put(3, config);
	r.blobs = blobs;
	ensure(spec_ref_parse("localhost:1/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000001", &r.ref,
			      NULL) >= 0);
	spec_platform_init(&r.platform, "linux", "arm", "v7", "");
	if (image_job_fetch(&r, &m, &e) < 0 && !err_is_set(&e)) bug("failed without an error");
	ops_image_fini(&m);
	err_fini(&e);
	struct arena *a = arena_new(0);
	struct image img;
	struct buf out = BUF_MAX(64 << 20);
	if (image_parse(a, config.p, config.n, &img, &e) >= 0) {
		struct image copy = image_clone(a, &img);
		image_json(&copy, &out);
	}
	err_fini(&e);
	buf_fini(&out);
	arena_free(a);
	spec_platform_fini(&r.platform);
	spec_ref_fini(&r.ref);
	return 0;
}
