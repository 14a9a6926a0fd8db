/* Gateway containers: signal names, files of a mount, and the JSON of errdefs.Solve against what Go's protojson wrote. */
#include "build/container.h"
#include "build/container_files_job.h"
#include "build/protojson.h"
#include "proto/errdefs.pb-c.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

static void test_protojson(void **state)
{
	static const struct {
		const char *hex, *json;
	} cases[] = {
		{"0a01610a001201631a8f010a0d0a097368613235363a3030100352140a05616d64363412056c696e75782201312a01665a030a0178126"
		 "30a360a0273680a022d630a0b6563686f20223cc3bc3e221203413d421a012f2a030a01784a0c0a066e6f66696c651001180258016202"
		 "0102122508ffffffffffffffffff011a012f3001a201050a01711002aa010a0a0173100420800228011801200132130a0e6c6c622e637"
		 "573746f6d6e616d6512016e2a00",
		 "{\"inputIDs\":[\"a\",\"\"],\"mountIDs\":[\"c\"],\"op\":{\"inputs\":[{\"digest\":\"sha256:00\",\"index\":"
		 "\"3\"}],\"exec\":{\"meta\":{\"args\":[\"sh\",\"-c\",\"echo "
		 "\\\"<ü>\\\"\"],\"env\":[\"A=B\"],\"cwd\":\"/"
		 "\",\"proxyEnv\":{\"httpProxy\":\"x\"},\"ulimit\":[{\"Name\":\"nofile\",\"Soft\":\"1\",\"Hard\":\"2\"}],"
		 "\"removeMountStubsRecursive\":true,\"validExitCodes\":[1,2]},\"mounts\":[{\"input\":\"-1\",\"dest\":\"/"
		 "\",\"mountType\":\"SECRET\",\"cacheOpt\":{\"ID\":\"q\",\"sharing\":\"LOCKED\"},\"secretOpt\":{\"ID\":\"s\","
		 "\"uid\":4,\"mode\":256,\"optional\":true}}],\"network\":\"HOST\",\"security\":\"INSECURE\"},\"platform\":{"
		 "\"Architecture\":\"amd64\",\"OS\":\"linux\",\"OSVersion\":\"1\",\"OSFeatures\":[\"f\"]},\"constraints\":{"
		 "\"filter\":[\"x\"]}},\"cache\":{},\"description\":{\"llb.customname\":\"n\"}}"},
		{"1a382236123408ffffffffffffffffff0118052a250a022f6110ffffffffffffffffff011a0300ff0122040a02100028fffffffffffff"
		 "fffff0122020802",
		 "{\"op\":{\"file\":{\"actions\":[{\"input\":\"-1\",\"output\":\"5\",\"mkfile\":{\"path\":\"/"
		 "a\",\"mode\":-1,\"data\":\"AP8B\",\"owner\":{\"user\":{\"byID\":0}},\"timestamp\":\"-1\"}}]}},\"file\":{"
		 "\"index\":\"2\"}}"},
		{"1a1c1a1a0a10646f636b65722d696d6167653a2f2f7812060a016b120176",
		 "{\"op\":{\"source\":{\"identifier\":\"docker-image://x\",\"attrs\":{\"k\":\"v\"}}}}"},
	};
	for (size_t i = 0; i < array_len(cases); i++) {
		_cleanup_arena_ struct arena *a = arena_new(0);
		_cleanup_buf_ struct buf out = BUF_INIT;
		struct json_w w = JSON_W(&out);
		size_t n = strlen(cases[i].hex) / 2;
		uint8_t *p = arena_alloc(a, n);
		for (size_t k = 0; k < n; k++) sscanf(cases[i].hex + 2 * k, "%2hhx", &p[k]);
		Errdefs__Solve *m = wire_unpack_as(Errdefs__Solve, errdefs__solve, p, n, a, NULL);
		assert_non_null(m);
		protojson(&w, &m->base);
		json_t *have = json_loads(buf_str(&out), 0, NULL), *want = json_loads(cases[i].json, 0, NULL);
		assert_non_null(have);
		assert_non_null(want);
		if (!json_equal(have, want)) print_error("%s\n", buf_str(&out));
		assert_true(json_equal(have, want));
		json_decref(have);
		json_decref(want);
	}
}

static void test_signals(void **state)
{
	assert_int_equal(process_signal_number("INT"), SIGINT);
	assert_int_equal(process_signal_number("WINCH"), SIGWINCH);
	assert_int_equal(process_signal_number("RTMIN"), 34);
	assert_int_equal(process_signal_number("RTMIN+15"), 49);
	assert_int_equal(process_signal_number("RTMAX-14"), 50);
	assert_int_equal(process_signal_number("RTMAX"), 64);
	static const char *const bad[] = {"",        "SIGINT", "int",      "RTMIN+16", "RTMAX-15", "RTMIN-1",
					  "RTMAX+1", "RTMIN+", "RTMIN+1x", "RTMINX",   "15"};
	for (size_t i = 0; i < array_len(bad); i++) assert_int_equal(process_signal_number(bad[i]), -1);
}

/* ---- files ---- */

static char dir[] = "/tmp/test-gateway-XXXXXX";

static int make_tree(void **state)
{
	struct err e = ERR_INIT;
	assert_non_null(mkdtemp(dir));
	int fd = open(dir, O_PATH | O_DIRECTORY);
	assert_int_equal(mkdirat(fd, "d", 0755), 0);
	assert_int_equal(path_write_file(fd, "d/f", "data", 4, 0640, false, &e), 0);
	assert_int_equal(symlinkat("f", fd, "d/in"), 0);
	assert_int_equal(symlinkat("../../../etc/passwd", fd, "d/out"), 0);
	assert_int_equal(symlinkat("/etc/passwd", fd, "d/abs"), 0);
	close(fd);
	return 0;
}

static int drop_tree(void **state)
{
	path_remove_all(AT_FDCWD, dir, NULL);
	return 0;
}

static void run(struct files_job *j, enum files_kind kind, const char *path)
{
	*j = (struct files_job){.kind = kind, .path = xstrdup(path)};
	container_files_run(j, dir);
}

static void expect_error(enum files_kind kind, const char *path, const char *text)
{
	struct files_job j;
	run(&j, kind, path);
	assert_true(err_is_set(&j.error));
	if (!strstr(j.error.msg, text)) print_error("%s\n", j.error.msg);
	assert_non_null(strstr(j.error.msg, text));
	assert_int_equal(j.error.code, CODE_UNKNOWN);
	files_job_fini(&j);
}

static void test_read(void **state)
{
	struct files_job j;
	run(&j, FILES_READ, "/d/in");
	assert_false(err_is_set(&j.error));
	assert_int_equal(j.data.n, 4);
	assert_memory_equal(j.data.p, "data", 4);
	files_job_fini(&j);
	expect_error(FILES_READ, "/d/out", "path escapes from parent");
	expect_error(FILES_READ, "/d/abs", "path escapes from parent");
	expect_error(FILES_READ, "/d/none", "no such file or directory");
	expect_error(FILES_READ, "/d", "is a directory");
	expect_error(FILES_READ, "d/f", "can't make d/f relative to /");
	run(&j, FILES_READ, "/../d/f"); /* cleaned to /d/f */
	assert_false(err_is_set(&j.error));
	files_job_fini(&j);
}

static void test_list(void **state)
{
	static const char *const names[] = {"abs", "f", "in", "out"};
	struct files_job j;
	run(&j, FILES_DIR, "/d");
	assert_false(err_is_set(&j.error));
	assert_int_equal(j.entries.n, array_len(names));
	for (size_t i = 0; i < array_len(names); i++) assert_string_equal(j.entries.v[i].path, names[i]);
	assert_string_equal(j.entries.v[0].linkname, "/etc/passwd");
	assert_int_equal(j.entries.v[1].size, 4);
	files_job_fini(&j);
}

static void test_stat(void **state)
{
	struct files_job j;
	run(&j, FILES_STAT, "/d/in"); /* links are followed ... */
	assert_int_equal(j.entries.v[0].mode, 0640);
	assert_string_equal(j.entries.v[0].path, "in");
	files_job_fini(&j);
	run(&j, FILES_STAT, "/d/out"); /* ... but those that lead out are shown */
	assert_false(err_is_set(&j.error));
	assert_string_equal(j.entries.v[0].linkname, "../../../etc/passwd");
	files_job_fini(&j);
	expect_error(FILES_STAT, "/d/none", "no such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_protojson), cmocka_unit_test(test_signals),
					   cmocka_unit_test(test_read), cmocka_unit_test(test_list),
					   cmocka_unit_test(test_stat)};
	return cmocka_run_group_tests(tests, make_tree, drop_tree);
}
