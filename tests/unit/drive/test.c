/* The store of builders, docker's contexts, driver options, and a configuration that moves into a container. */
#include "conf/bundle.h"
#include "drive/container.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static char dir[] = "/tmp/slipway-drive.XXXXXX";

static char *at(const char *name) { return xasprintf("%s/%s", dir, name); }

static void put(const char *name, const char *text)
{
	_cleanup_free_ char *path = at(name), *parent = path_dir(path);
	assert_int_equal(path_mkdirs(parent, 0700, NULL), 0);
	assert_int_equal(path_write_file(AT_FDCWD, path, text, strlen(text), 0600, false, NULL), 0);
}

static char *get(const char *name)
{
	_cleanup_free_ char *path = at(name);
	uint8_t *p = NULL;
	size_t n;
	assert_int_equal(path_read_file(AT_FDCWD, path, 1 << 20, &p, &n, NULL), 0);
	return (char *)p;
}

/* Byte for byte what buildx 0.36 wrote for `create --name mybuilder --driver-opt network=host --platform linux/arm/v7`. */
static const char instance[] =
	"{\"Name\":\"mybuilder\",\"Driver\":\"docker-container\",\"Nodes\":[{\"Name\":\"mybuilder0\",\"Endpoint\":\"unix:///"
	"run/docker.sock\","
	"\"Platforms\":[{\"architecture\":\"arm\",\"os\":\"linux\",\"variant\":\"v7\"}],\"DriverOpts\":{\"network\":\"host\"},"
	"\"Flags\":[\"--allow-insecure-entitlement=network.host\"],\"Files\":{\"buildkitd.toml\":\"ZGVidWcgPSB0cnVlCg==\"}}],"
	"\"Dynamic\":false}";

static void test_instance(void **st)
{
	(void)st;
	struct drive_builder b = {0};
	struct drive_lock lock;
	assert_int_equal(drive_store_lock(&lock, NULL), 0);
	put("buildx/instances/mybuilder", instance);
	assert_int_equal(drive_store_load("MyBuilder", &b, NULL), 0);
	assert_string_equal(b.driver, "docker-container");
	assert_int_equal(b.nodes.n, 1);
	assert_string_equal(b.nodes.v[0].platforms.v[0], "linux/arm/v7");
	assert_string_equal(b.nodes.v[0].opts.v[0], "network=host");
	assert_int_equal(b.nodes.v[0].files.v[0].n, 13);
	assert_memory_equal(b.nodes.v[0].files.v[0].data, "debug = true\n", 13);
	assert_int_equal(drive_store_save(&b, NULL), 0);
	_cleanup_free_ char *again = get("buildx/instances/mybuilder");
	assert_string_equal(again, instance);
	drive_builder_fini(&b);
	drive_store_unlock(&lock);
}

static void test_instance_that_is_none(void **st)
{
	(void)st;
	struct drive_builder b = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(drive_store_load("nobody", &b, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	put("buildx/instances/broken", "{\"Name\": 3,");
	assert_int_equal(drive_store_load("broken", &b, &e), -1);
	assert_non_null(strstr(e.msg, "instances/broken:1:"));
	assert_int_equal(drive_store_load("../instances/broken", &b, &e), -1);
	assert_non_null(strstr(e.msg, "invalid name"));
	put("buildx/instances/odd", "{\"Name\":\"odd\",\"Nodes\":[{\"Files\":{\"a\":\"%%%\"}},{}]}");
	assert_int_equal(drive_store_load("odd", &b, &e), -1);
}

static void test_current(void **st)
{
	(void)st;
	put("buildx/instances/one", instance);
	put("buildx/instances/two", instance);
	assert_int_equal(drive_store_choose("unix:///a", "one", false, false, NULL), 0);
	_cleanup_free_ char *here = drive_store_current("unix:///a"), *elsewhere = drive_store_current("unix:///b");
	assert_string_equal(here, "one");
	assert_null(elsewhere);
	assert_int_equal(drive_store_choose("unix:///a", "two", true, false, NULL), 0);
	_cleanup_free_ char *global = drive_store_current("unix:///b");
	assert_string_equal(global, "two");
	assert_int_equal(drive_store_choose("unix:///b", "one", false, true, NULL), 0);
	assert_int_equal(drive_store_choose("unix:///a", "", false, false, NULL), 0);
	_cleanup_free_ char *by_default = drive_store_current("unix:///b");
	assert_string_equal(by_default, "one");
	assert_int_equal(drive_store_remove("one", NULL), 0);
	assert_null(drive_store_current("unix:///b"));
	_cleanup_strvec_ struct strvec names = {0};
	drive_store_names(&names);
	assert_true(strvec_find(&names, "two") >= 0 && strvec_find(&names, "one") < 0);
}

static void test_contexts(void **st)
{
	(void)st;
	struct drive_engine e = {0};
	_cleanup_err_ struct err why = ERR_INIT;
	unsetenv("DOCKER_HOST");
	unsetenv("DOCKER_CONTEXT");
	assert_int_equal(drive_engine_find(NULL, &e, NULL), 0);
	assert_string_equal(drive_engine_key(&e), "unix:///var/run/docker.sock");
	drive_engine_fini(&e);
	struct digest d = digest_of("far", 3);
	char hex[65];
	digest_hex(&d, hex);
	_cleanup_free_ char *meta = xasprintf("contexts/meta/%s/meta.json", hex);
	put(meta, "{\"Name\":\"far\",\"Endpoints\":{\"docker\":{\"Host\":\"tcp://far:2376\",\"SkipTLSVerify\":true}}}");
	put("config.json", "{\"currentContext\":\"far\"}");
	assert_int_equal(drive_engine_find("", &e, NULL), 0);
	assert_string_equal(drive_engine_key(&e), "far");
	assert_string_equal(e.host, "tcp://far:2376");
	assert_true(e.insecure);
	drive_engine_fini(&e);
	setenv("DOCKER_HOST", "unix:///x.sock", 1);
	assert_int_equal(drive_engine_find("", &e, NULL), 0);
	assert_string_equal(e.host, "unix:///x.sock");
	drive_engine_fini(&e);
	unsetenv("DOCKER_HOST");
	assert_int_equal(drive_engine_find("nowhere", &e, &why), -1);
	assert_int_equal(why.code, CODE_NOT_FOUND);
	assert_int_equal(drive_engine_find("ssh://host", &e, &why), -1);
	assert_non_null(strstr(why.msg, "ssh"));
}

static void expect_opt(const char *kv, const char *wrong)
{
	struct drive_node n = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	strvec_add(&n.opts, kv);
	int rv = drive_container_check(&n, &e);
	drive_node_fini(&n);
	assert_int_equal(rv, wrong ? -1 : 0);
	if (wrong && !strstr(e.msg, wrong)) fail_msg("%s: %s", kv, e.msg);
}

static void test_options(void **st)
{
	(void)st;
	expect_opt("memory=2g", NULL);
	expect_opt("memory-swap=-1", NULL);
	expect_opt("restart-policy=on-failure:3", NULL);
	expect_opt("env.FOO=bar", NULL);
	expect_opt("memory=much", "memory=much");
	expect_opt("cpu-shares=2x", "an integer is expected");
	expect_opt("restart-policy=often", "unless-stopped");
	expect_opt("env.=x", "expecting env.FOO=bar");
	expect_opt("networks=host", "invalid driver option networks for docker-container driver");
	expect_opt("default-load=maybe", "true or false");
}

static const struct conf_bundle_file *file_of(const struct conf_bundle *b, const char *path)
{
	for (size_t i = 0; i < b->files.n; i++)
		if (!strcmp(b->files.v[i].path, path)) return &b->files.v[i];
	fail_msg("no file %s", path);
	return NULL;
}

static void test_bundle(void **st)
{
	(void)st;
	_cleanup_conf_bundle_ struct conf_bundle b = {0};
	_cleanup_free_ char *path = at("d.toml");
	put("ca.pem", "CA");
	put("other/ca.pem", "OTHER");
	put("key.pem", "KEY");
	put("cert.pem", "CERT");
	_cleanup_free_ char *text =
		xasprintf("debug = true\ninsecure-entitlements = [\"network.host\"]\n[worker.oci]\nmax-parallelism = 4\n"
			  "[registry.\"localhost:5000\"]\nhttp = true\nca = [\"%s/ca.pem\", \"%s/other/ca.pem\"]\n"
			  "[[registry.\"localhost:5000\".keypair]]\nkey = \"%s/key.pem\"\ncert = \"%s/cert.pem\"\n",
			  dir, dir, dir, dir);
	put("d.toml", text);
	_cleanup_err_ struct err e = ERR_INIT;
	/* the certificates are none, which a load says */
	if (conf_bundle_load(path, "/etc/buildkit", &b, &e) < 0) {
		assert_non_null(strstr(e.msg, ".pem"));
		skip();
	}
	assert_true(b.network_host);
	assert_memory_equal(file_of(&b, "certs/localhost_5000/ca.pem")->data, "CA", 2);
	assert_memory_equal(file_of(&b, "certs/localhost_5000/2-ca.pem")->data, "OTHER", 5);
	const char *toml = file_of(&b, "buildkitd.toml")->data;
	assert_non_null(strstr(
		toml, "ca = ['/etc/buildkit/certs/localhost_5000/ca.pem', '/etc/buildkit/certs/localhost_5000/2-ca.pem']"));
	assert_non_null(
		strstr(toml, "[[registry.'localhost:5000'.keypair]]\ncert = '/etc/buildkit/certs/localhost_5000/cert.pem'\n"));
	assert_non_null(strstr(toml, "[worker.oci]\nmax-parallelism = 4\n"));
}

static void test_bundle_refuses(void **st)
{
	(void)st;
	_cleanup_conf_bundle_ struct conf_bundle b = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_free_ char *none = at("none.toml"), *bad = at("bad.toml");
	assert_int_equal(conf_bundle_load(none, "/etc/buildkit", &b, &e), -1);
	assert_non_null(strstr(e.msg, "buildkit configuration file not found"));
	put("bad.toml", "[worker.oci]\nmax-parallelism = \"four\"\n");
	assert_int_equal(conf_bundle_load(bad, "/etc/buildkit", &b, &e), -1);
	assert_non_null(strstr(e.msg, "bad.toml:2:"));
}

static int setup(void **st)
{
	(void)st;
	if (!mkdtemp(dir)) return -1;
	setenv("DOCKER_CONFIG", dir, 1);
	unsetenv("BUILDX_CONFIG");
	return 0;
}

static int teardown(void **st)
{
	(void)st;
	return path_remove_all(AT_FDCWD, dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_instance),       cmocka_unit_test(test_instance_that_is_none),
		cmocka_unit_test(test_current),        cmocka_unit_test(test_contexts),
		cmocka_unit_test(test_options),        cmocka_unit_test(test_bundle),
		cmocka_unit_test(test_bundle_refuses),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
