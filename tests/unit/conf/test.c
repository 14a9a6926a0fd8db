#include "conf/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct conf *parse(const char *text, struct strvec *w)
{
	struct conf *c = NULL;
	struct err e = ERR_INIT;
	if (conf_parse(text, strlen(text), "f.toml", &c, w, &e) < 0) fail_msg("%s", e.msg);
	return c;
}

static void expect_error(const char *text, const char *part)
{
	struct conf *c = NULL;
	struct err e = ERR_INIT;
	assert_int_equal(conf_parse(text, strlen(text), "f.toml", &c, NULL, &e), -1);
	if (!strstr(e.msg, part)) fail_msg("\"%s\" is not in \"%s\"", part, e.msg);
	err_fini(&e);
}

/* The shape buildx writes, with every section. */
static const char full[] =
	"debug = true\nroot = '/r'\ninsecure-entitlements = ['network.host']\n"
	"[grpc]\naddress = ['tcp://0.0.0.0:1', 'unix:///s']\nuid = 5\n[grpc.tls]\ncert = 'c'\nkey = 'k'\n"
	"[worker.oci]\nenabled = true\nmax-parallelism = 4\ngc = true\nreservedSpace = '10%'\nmaxUsedSpace = "
	"'512MB'\nminFreeSpace = 5\n"
	"networkMode = 'host'\nbinary = 'runc'\nplatforms = ['linux/amd64']\n[worker.oci.labels]\n'a.b' = 'c'\nfoo = 'bar'\n"
	"[[worker.oci.gcpolicy]]\nkeepDuration = 3600\nfilters = ['type==x']\nreservedSpace = 1\n"
	"[[worker.oci.gcpolicy]]\nall = true\nkeepDuration = '48h'\nKEEPBYTES = '1gb'\n"
	"[registry]\n[registry.'myregistry.com']\nca = ['/ca']\nhttp = false\ninsecure = true\n"
	"[[registry.'myregistry.com'.keypair]]\nkey = 'k'\ncert = 'c'\n[registry.\"docker.io\"]\nmirrors = ['m:5000']\n"
	"[dns]\nnameservers = ['1.1.1.1']\nsearchDomains = ['x']\n[history]\nmaxAge = '1h'\nmaxEntries = 3\n"
	"[frontend.\"dockerfile.v0\"]\nenabled = false\n[frontend.\"gateway.v0\"]\nallowedRepositories = ['a']\n"
	"[system]\nplatformsCacheMaxAge = '-1s'\nmaxRegistryConcurrency = 7\n[log]\nformat = "
	"'json'\n[worker.containerd]\nenabled = false\n";

static void test_full(void **st)
{
	_cleanup_strvec_ struct strvec w = {0};
	_cleanup_conf_ struct conf *c = parse(full, &w);
	struct err e = ERR_INIT;
	if (conf_finish(c, &w, &e) < 0) fail_msg("%s", e.msg);
	assert_int_equal(w.n, 2); /* debug, keepBytes */
	assert_string_equal(w.v[0], "'debug' configuration option is deprecated, use log.level = \"debug\" instead");
	assert_string_equal(c->root, "/r");
	assert_string_equal(c->log.level, "debug");
	assert_int_equal(c->grpc.address.n, 2);
	assert_int_equal(c->grpc.uid, 5);
	assert_int_equal(c->grpc.gid, getgid());
	assert_int_equal(c->oci.enabled, CONF_TRUE);
	assert_int_equal(c->oci.max_parallelism, 4);
	assert_int_equal(c->oci.reserved.percent, 10);
	assert_int_equal(c->oci.max_used.bytes, 512 << 20);
	assert_int_equal(c->oci.min_free.bytes, 5);
	assert_string_equal(strvec_env_get(&c->oci.labels, "a.b"), "c");
	assert_int_equal(c->oci.gcpolicy.n, 2);
	assert_true(c->oci.gcpolicy.v[0].keep_duration_ns == 3600 * INT64_C(1000000000));
	assert_int_equal(c->oci.gcpolicy.v[1].keep_bytes.bytes, 1 << 30);
	const struct conf_registry *r = conf_registry_find(c, "myregistry.com");
	assert_non_null(r);
	assert_int_equal(r->http, CONF_FALSE);
	assert_int_equal(r->insecure, CONF_TRUE);
	assert_string_equal(r->keypairs.v[0].cert, "c");
	assert_string_equal(conf_registry_find(c, "docker.io")->mirrors.v[0], "m:5000");
	assert_int_equal(c->frontend.dockerfile_enabled, CONF_FALSE);
	assert_true(c->system.platforms_max_age_ns == -1000000000);
	assert_int_equal(c->system.max_registry_concurrency, 7);
	_cleanup_buf_ struct buf out = BUF_INIT;
	conf_dump(c, &out);
	assert_non_null(strstr(buf_str(&out), "registry.\"docker.io\".mirrors = [\"m:5000\"]\n"));
	assert_non_null(strstr(buf_str(&out), "worker.oci.gcpolicy[1].all = true\n"));
	_cleanup_conf_ struct conf *c2 = parse("root='/r'\n", NULL);
	_cleanup_strvec_ struct strvec diff = {0};
	conf_diff_restart(c2, c2, &diff);
	assert_int_equal(diff.n, 0);
}

static void test_errors(void **st)
{
	expect_error("[worker.oci]\nmax-parallelism = \"4\"\n",
		     "f.toml:2:1: worker.oci.max-parallelism: expected an integer, found a string");
	expect_error("a = \n", "failed to parse config: f.toml:1:");
	expect_error("worker = 1\n", "worker: expected a table, found an integer");
	expect_error("[registry.\"x\"]\nmirrors = [1]\n", "registry.\"x\".mirrors");
	expect_error("[worker.oci]\ncniPoolSize = -1\n", "out of range");
	expect_error("[worker.oci]\nreservedSpace = \"ten\"\n", "found \"ten\"");
	expect_error("[[registry]]\n", "registry: expected a table of tables");
	_cleanup_buf_ struct buf deep = BUF_INIT;
	buf_adds(&deep, "a");
	for (int i = 0; i < 1000; i++) buf_adds(&deep, ".a");
	buf_adds(&deep, " = 1\n");
	expect_error(buf_str(&deep), "nested too deeply");
	for (int i = 0; i < 1000000; i++) buf_adds(&deep, ".");
	expect_error(buf_str(&deep), "too many dots");
}

static void test_unknown(void **st)
{
	_cleanup_strvec_ struct strvec w = {0};
	_cleanup_conf_ struct conf *c =
		parse("roots='x'\n[worker.oci]\nmax_parallelism=3\n[nonsense.thing]\na=1\n[ghacache]\nb=1\n", &w);
	assert_int_equal(w.n, 4);
	assert_string_equal(w.v[2], "f.toml:1:1: unknown key roots is ignored, did you mean root?"); /* in the map's order */
	assert_non_null(c);
}

static struct conf *with_flags(char **argv, int n, struct err *e)
{
	struct conf_args a = {0};
	struct conf *c = parse(
		"root='/file'\ninsecure-entitlements=['network.host']\n[grpc]\naddress=['unix:///a']\n[log]\nlevel='warn'\n",
		NULL);
	if (conf_args_parse(n, argv, &a, e) < 0 || conf_apply_flags(c, &a, NULL, e) < 0 || conf_finish(c, NULL, e) < 0) {
		conf_free(c);
		c = NULL;
	}
	conf_args_fini(&a);
	return c;
}

#define FLAGS(...)                                                        \
	char words[][80] = {"buildkitd", __VA_ARGS__};                    \
	char *argv[array_len(words)];                                     \
	for (size_t i = 0; i < array_len(words); i++) argv[i] = words[i]; \
	struct err e = ERR_INIT;                                          \
	_cleanup_conf_ struct conf *c = with_flags(argv, (int)array_len(words), &e)

static void test_flags(void **st)
{
	FLAGS("--oci-worker=true", "--containerd-worker=false", "--oci-worker-gc=false", "--oci-worker-labels=a=b", "--root",
	      "/x", "--addr=unix:///1", "--addr", "tcp://2", "--debug", "--oci-worker-gc-keepstorage", "1,2,3",
	      "--oci-max-parallelism", "2");
	if (!c) fail_msg("%s", e.msg);
	assert_string_equal(c->root, "/x");
	assert_int_equal(c->grpc.address.n, 2);
	assert_string_equal(c->grpc.address.v[1], "tcp://2");
	assert_string_equal(c->log.level, "debug");
	assert_int_equal(c->oci.gc, CONF_FALSE);
	assert_string_equal(c->oci.labels.v[0], "a=b");
	assert_int_equal(c->oci.max_parallelism, 2);
	assert_int_equal(c->oci.reserved.bytes, 1000000);
	assert_int_equal(c->oci.max_used.bytes, 3000000);
	assert_string_equal(c->entitlements.v[0], "network.host");
}

static void test_bad_flags(void **st)
{
	{
		FLAGS("--rooot=/x");
		assert_null(c);
		assert_string_equal(e.msg, "flag provided but not defined: -rooot, did you mean --root?");
		err_fini(&e);
	}
	{
		FLAGS("--allow-insecure-entitlement", "network.host,device");
		assert_null(c);
		assert_string_equal(e.msg, "invalid entitlement : network.host,device");
		err_fini(&e);
	}
	{
		FLAGS("--oci-max-parallelism=x");
		assert_null(c);
		assert_non_null(strstr(e.msg, "expected an integer"));
		err_fini(&e);
	}
}

static void test_gc(void **st)
{
	_cleanup_conf_ struct conf *c = parse("", NULL);
	struct conf_gc_rules r;
	conf_gc_rules(&c->oci, INT64_C(270000000000), &r);
	assert_int_equal(r.v.n, 4);
	assert_true(r.v.v[3].all);
	assert_true(r.v.v[1].reserved_bytes == INT64_C(10000000000));
	assert_true(r.v.v[1].max_used_bytes == INT64_C(100000000000));
	assert_true(r.v.v[1].min_free_bytes == INT64_C(51000000000)); /* observed of the peer */
	vec_fini(&r.v);
}

static void test_rows(void **st)
{
	_cleanup_buf_ struct buf help = BUF_INIT, version = BUF_INIT;
	for (size_t i = 0; i < conf_all_rows.n; i++)
		assert_ptr_equal(conf_row_find(&conf_all_rows, conf_all_rows.rows[i].path), &conf_all_rows.rows[i]);
	conf_help("buildkitd", &help);
	assert_non_null(strstr(buf_str(&help), "--allow-insecure-entitlement string [ "));
	conf_version("buildkitd", "abc", &version);
	assert_string_equal(buf_str(&version), "buildkitd github.com/moby/buildkit v0.32.2 abc\n");
}

static void test_missing_file(void **st)
{
	_cleanup_strvec_ struct strvec w = {0};
	struct conf *c = NULL;
	assert_int_equal(conf_load("/nonexistent/x.toml", true, &c, &w, NULL), 0);
	assert_int_equal(w.n, 1);
	conf_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),  cmocka_unit_test(test_errors),       cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_flags), cmocka_unit_test(test_bad_flags),    cmocka_unit_test(test_gc),
		cmocka_unit_test(test_rows),  cmocka_unit_test(test_missing_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
