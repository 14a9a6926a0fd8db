/* The blob store on a real directory: what is committed is right, what is not leaves nothing. */
#include "blob/blob.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define HELLO "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" /* "hello" */
static char dir[64];
static struct blob_store *store;

static int setup(void **st)
{
	snprintf(dir, sizeof dir, "/tmp/test-blob.XXXXXX");
	return mkdtemp(dir) ? blob_store_open(dir, &store, NULL) : -1;
}

static int teardown(void **st)
{
	blob_store_close(store);
	return path_remove_all(AT_FDCWD, dir, NULL);
}

static int files_in(const char *sub)
{
	_cleanup_free_ char *p = path_join(dir, sub);
	DIR *d = opendir(p);
	int n = -2;
	while (readdir(d)) n++;
	closedir(d);
	return n;
}

static int sum(void *ctx, const char *digest, int64_t bytes, int64_t mtime, struct err *e)
{
	*(int64_t *)ctx += bytes;
	return blob_remove(store, digest, e);
}

static void puts_and_reads(void **st)
{
	char digest[DIGEST_STR];
	_cleanup_free_ uint8_t *p = NULL;
	size_t n;
	int64_t size;
	struct err e = ERR_INIT;
	assert_int_equal(blob_put(store, "hello", 5, digest, NULL), 0);
	assert_string_equal(digest, HELLO);
	assert_int_equal(blob_put(store, "hello", 5, NULL, NULL), 0);
	assert_int_equal(blob_read(store, HELLO, 100, &p, &n, NULL), 0);
	assert_true(n == 5 && !memcmp(p, "hello", 5));
	assert_int_equal(blob_read(store, HELLO, 4, &p, &n, &e), -1);
	assert_int_equal(e.code, CODE_RESOURCE_EXHAUSTED);
	assert_int_equal(blob_stat(store, HELLO, &size, NULL), 1);
	assert_int_equal(size, 5);
	char unsynced[DIGEST_STR];
	assert_int_equal(blob_put_unsynced(store, "later", 5, unsynced, NULL), 0);
	assert_int_equal(blob_sync(store, unsynced, NULL), 0);
	assert_int_equal(blob_remove(store, unsynced, NULL), 1);
	assert_int_equal(blob_sync(store, unsynced, NULL), 0); /* gone meanwhile */
	assert_int_equal(blob_put(store, "", 0, digest, NULL), 0);
	int64_t total = 0;
	assert_int_equal(blob_list(store, sum, &total, NULL), 0);
	assert_int_equal(total, 5);
	assert_false(blob_has(store, HELLO));
	assert_int_equal(blob_open(store, HELLO, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	assert_int_equal(blob_stat(store, "sha256:../../etc/passwd", &size, &e), -1);
	assert_int_equal(e.code, CODE_INVALID_ARGUMENT);
	assert_null(blob_path(store, "md5:x"));
	err_fini(&e);
}

static void wrong_bytes(void **st)
{
	const struct {
		const char *data;
		int64_t size;
	} cases[] = {{"hellO", -1}, {"hellO", 5}, {"hell", 5}, {"hello!", 5}, {"hello!", -1}};
	for (size_t i = 0; i < array_len(cases); i++) {
		struct err e = ERR_INIT;
		_cleanup_blob_ingest_ struct blob_ingest *in = NULL;
		assert_int_equal(blob_ingest_begin(store, HELLO, cases[i].size, &in, NULL), 0);
		int r = blob_ingest_write(in, cases[i].data, strlen(cases[i].data), &e);
		if (r == 0) r = blob_ingest_commit(&in, NULL, NULL, &e);
		assert_int_equal(r, -1);
		assert_int_equal(e.code, CODE_DATA_LOSS);
		err_fini(&e);
	}
	assert_false(blob_has(store, HELLO));
	assert_int_equal(files_in("tmp"), 0);
	_cleanup_blob_ingest_ struct blob_ingest *in = NULL;
	assert_int_equal(blob_ingest_begin(store, HELLO, 5, &in, NULL), 0);
	assert_int_equal(blob_ingest_write(in, "hel", 3, NULL), 0);
	assert_int_equal(blob_ingest_reset(in, NULL), 0);
	assert_int_equal(blob_ingest_write(in, "hello", 5, NULL), 0);
	assert_int_equal(blob_ingest_commit(&in, NULL, NULL, NULL), 0);
	assert_true(blob_has(store, HELLO));
	blob_remove(store, HELLO, NULL);
}

static void *ingest_thread(void *arg)
{
	for (int i = 0; i < 50; i++) {
		_cleanup_blob_ingest_ struct blob_ingest *in = NULL;
		if (blob_ingest_begin(store, HELLO, 5, &in, NULL) || blob_ingest_write(in, "hello", 5, NULL) ||
		    blob_ingest_commit(&in, NULL, NULL, NULL))
			return arg;
	}
	return NULL;
}

static void in_parallel(void **st)
{
	pthread_t t[4];
	for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, ingest_thread, store), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	assert_true(blob_has(store, HELLO));
	assert_int_equal(files_in("tmp"), 0);
	blob_remove(store, HELLO, NULL);
}

/* A process that dies in the middle of an ingest. */
static void killed(void **st)
{
	pid_t pid = fork();
	if (!pid) {
		struct blob_ingest *in;
		if (blob_ingest_begin(store, NULL, -1, &in, NULL) == 0) blob_ingest_write(in, "half", 4, NULL);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	assert_int_equal(files_in("tmp"), 1);
	_cleanup_free_ char *other = path_join(dir, "tmp/other");
	assert_int_equal(path_write_file(AT_FDCWD, other, "x", 1, 0600, false, NULL), 0);
	blob_store_close(store);
	assert_int_equal(blob_store_open(dir, &store, NULL), 0);
	assert_int_equal(files_in("tmp"), 1); /* what is not ours stays */
	assert_int_equal(files_in("blobs/sha256"), 0);
}

struct counting {
	struct blob_source src;
	int calls;
	const char *data;
};

static int fetch(struct blob_source *src, const char *digest, int64_t size, struct blob_ingest *to, struct err *e)
{
	struct counting *c = container_of(src, struct counting, src);
	c->calls++;
	return c->data ? blob_ingest_write(to, c->data, strlen(c->data), e) : err_set(e, CODE_UNAVAILABLE, "no network");
}

static void sources(void **st)
{
	struct counting c = {.src = {fetch}};
	struct err e = ERR_INIT;
	assert_int_equal(blob_ensure(store, &c.src, HELLO, 5, &e), -1);
	assert_int_equal(e.code, CODE_UNAVAILABLE);
	c.data = "jello";
	assert_int_equal(blob_ensure(store, &c.src, HELLO, 5, &e), -1);
	assert_int_equal(e.code, CODE_DATA_LOSS);
	err_fini(&e);
	c.data = "hello";
	assert_int_equal(blob_ensure(store, &c.src, HELLO, -1, NULL), 1);
	assert_int_equal(blob_ensure(store, &c.src, HELLO, 5, NULL), 0);
	assert_int_equal(c.calls, 3);
	assert_int_equal(blob_ensure(store, NULL, HELLO, 5, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(puts_and_reads), cmocka_unit_test(wrong_bytes), cmocka_unit_test(in_parallel),
		cmocka_unit_test(killed),         cmocka_unit_test(sources),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
