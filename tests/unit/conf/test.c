#include "conf/internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct conf *parse(const char *text, struct conf_report *r)
{
	struct conf *c = NULL;
	_cleanup_conf_report_ struct conf_report mine = {0};
	if (!r) r = &mine;
	if (conf_parse(text, strlen(text), "f.toml", &c, r) < 0 || conf_report_count(r, CONF_ERROR))
		fail_msg("%s", r->v.v[0].text);
	return c;
}

/* Some note of that level holds the part. */
static void expect(const struct conf_report *r, enum conf_level level, const char *part)
{
	for (size_t i = 0; i < r->v.n; i++)
		if (r->v.v[i].level == level && strstr(r->v.v[i].text, part)) return;
	for (size_t i = 0; i < r->v.n; i++) print_error("%d %s\n", r->v.v[i].level, r->v.v[i].text);
	fail_msg("\"%s\" is not said", part);
}

static void expect_note(enum conf_level level, const char *text, const char *part)
{
	struct conf *c = NULL;
	_cleanup_conf_report_ struct conf_report r = {0};
	conf_parse(text, strlen(text), "f.toml", &c, &r);
	if (c) conf_finish(c, &r, NULL);
	expect(&r, level, part);
	conf_unref(c);
}

static void expect_error(const char *text, const char *part) { expect_note(CONF_ERROR, text, part); }

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
	_cleanup_conf_report_ struct conf_report w = {0};
	_cleanup_conf_ struct conf *c = parse(full, &w);
	struct err e = ERR_INIT;
	assert_int_equal(w.v.n, 2); /* debug, keepBytes */
	expect(&w, CONF_WARN, "f.toml:1:1: 'debug' configuration option is deprecated, use log.level = \"debug\" instead");
	expect(&w, CONF_WARN,
	       "f.toml:30:1: 'worker.oci.gcpolicy[1].keepBytes' configuration option is deprecated, use reservedSpace");
	if (conf_finish(c, &w, &e) < 0) fail_msg("%s", e.msg);
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
	conf_effective(c, &out);
	assert_non_null(strstr(buf_str(&out), "registry.\"docker.io\".mirrors = [\"m:5000\"]  # f.toml:40\n"));
	assert_non_null(strstr(buf_str(&out), "worker.oci.gcpolicy[1].all = true  # f.toml:28\n"));
	assert_non_null(strstr(buf_str(&out), "log.level = \"debug\"  # f.toml:1\n"));
	assert_non_null(strstr(buf_str(&out), "worker.oci.cniPoolSize = 0  # default\n"));
}

static void test_diff(void **st)
{
	_cleanup_conf_ struct conf *a = parse("root='/r'\n[log]\nlevel='info'\n", NULL),
				   *b = parse("root='/s'\n[log]\nlevel='debug'\n", NULL);
	_cleanup_strvec_ struct strvec live = {0}, restart = {0}, none = {0};
	conf_diff(a, a, &none, &none);
	assert_int_equal(none.n, 0);
	conf_diff(a, b, &live, &restart);
	assert_int_equal(live.n, 1);
	assert_string_equal(live.v[0], "log.level");
	assert_int_equal(restart.n, 1);
	assert_string_equal(restart.v[0], "root");
}

static void test_errors(void **st)
{
	expect_error("[worker.oci]\nmax-parallelism = \"4\"\n",
		     "f.toml:2:1: worker.oci.max-parallelism: expected an integer, found a string");
	expect_error("a = \n", "f.toml:1:");
	expect_error("worker = 1\n", "worker: expected a table, found an integer");
	expect_error("[registry.\"x\"]\nmirrors = [1]\n", "registry.\"x\".mirrors");
	expect_note(CONF_FAULT, "[worker.oci]\ncniPoolSize = -1\n",
		    "f.toml:2:1: worker.oci.cniPoolSize: -1 is out of range (0 to 1024), 0 is used");
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

static void test_kindly(void **st)
{
	static const struct {
		const char *text, *part;
	} cases[] = {
		{"roots='x'\n", "f.toml:1:1: unknown key roots is ignored, did you mean root?"},
		{"[worker.oci]\nmax_parallelism=3\n",
		 "f.toml:2:1: unknown key worker.oci.max_parallelism is ignored, did you mean max-parallelism?"},
		{"[worker.oci]\n max-paralelism=3\n",
		 ":2:2: unknown key worker.oci.max-paralelism is ignored, did you mean max-parallelism?"},
		{"max-parallelism=3\n", "unknown key max-parallelism is ignored, it belongs to [worker.oci]"},
		{"[log]\ndebug=true\n", "it belongs to the top level: before the first [section]"},
		{"[workers.oci]\nmax-parallelism=3\n", "unknown section workers is ignored, did you mean worker?"},
		{"[registry.\"a\"]\nmirror_s=['x']\n", "unknown key registry.\"a\".mirror_s is ignored, did you mean mirrors?"},
		{"[ghacache.sign]\ncmd=''\n", "the section is [cache.gha]"},
		{"[registry.docker.io]\nmirrors=['x']\n", "write [registry.\"docker.io\"]"},
		{"[registry.\"docker.io\"]\nmirrors=['https://m.corp/x']\n",
		 "f.toml:2:10: registry.\"docker.io\".mirrors: the scheme of https://m.corp/x is dropped: write \"m.corp/x\""},
		{"[registry.\"docker.io\"]\nmirrors=['http://m:5000']\n", "http = true in [registry.\"m:5000\"]"},
		{"[registry.\"https://r.corp\"]\nhttp=false\n", "write [registry.\"r.corp\"]"},
		{"[registry.\"index.docker.io\"]\nmirrors=['x']\n", "write [registry.\"docker.io\"]"},
		{"[registry.\"a*b\"]\nhttp=true\n", "matches no registry"},
		{"root='/a'\nRoot='/b'\n", "is set twice"},
		{"[log]\nlevels='x'\n[log.level2]\n", "unknown section log.level2"},
	};
	for (size_t i = 0; i < array_len(cases); i++) expect_note(CONF_FAULT, cases[i].text, cases[i].part);
	expect_note(CONF_WARN, "[worker.containerd]\nenabled=true\n", "there is no containerd worker");
	expect_note(CONF_WARN, "[worker.oci]\nselinux=true\n", "f.toml:2:1: worker.oci.selinux is not built yet and has no effect");
	expect_note(CONF_WARN, "[worker.oci]\ncniConfigPath='/nonexistent/x'\n",
		    "f.toml:2:1: worker.oci.cniConfigPath: /nonexistent/x: No such file");
	expect_note(CONF_WARN, "[registry.\"a\"]\ntlsconfigdir=['/nonexistent/x']\n", "f.toml:2:15:");
	expect_note(CONF_ERROR, "[registry.\"a\"]\nca=['/nonexistent/x']\n",
		    "f.toml:2:5: registry.\"a\".ca: certificate /nonexistent/x: No such file");
	expect_note(CONF_ERROR, "[grpc.tls]\ncert='/c'\n", "you must specify key and cert");
	expect_note(CONF_ERROR, "[log]\nlevel='loud'\n", "f.toml:2:1: log.level: unsupported log level: loud");
	expect_note(CONF_ERROR, "[[registry.\"a\".mirror]]\npath='x'\n", "registry.\"a\".mirror: host is missing");
	_cleanup_conf_report_ struct conf_report quiet = {0};
	_cleanup_conf_ struct conf *c =
		parse("proxyNetwork=false\n[worker.oci]\nselinux=false\n[worker.containerd]\nenabled=false\n", &quiet);
	assert_int_equal(quiet.v.n, 0);
}

static void test_hosts(void **st)
{
	_cleanup_conf_ struct conf *c =
		parse("[registry.\"*\"]\nhttp=true\n[registry.\"*.corp\"]\nhttp=true\n[registry.\"*.eu.corp\"]\nhttp=true\n"
		      "[registry.\"*.corp:5000\"]\nhttp=true\n[registry.\"a.eu.corp\"]\nhttp=true\n",
		      NULL);
	static const char *const cases[][2] = {
		{"docker.io", "*"},
		{"x.corp", "*.corp"},
		{"corp", "*"},
		{"x.eu.corp", "*.eu.corp"},
		{"a.eu.corp", "a.eu.corp"},
		{"x.corp:5000", "*.corp:5000"},
		{"x.corp:1", "*.corp"},
		{"X.EU.corp:5000", "*.corp:5000"},
		{"X.EU.corp:1", "*.eu.corp"},
	};
	for (size_t i = 0; i < array_len(cases); i++)
		assert_string_equal(conf_registry_find(c, cases[i][0])->name, cases[i][1]);
}

static int finish(struct conf *c, struct err *e)
{
	_cleanup_conf_report_ struct conf_report r = {0};
	if (conf_finish(c, &r, e) < 0) return -1;
	return conf_report_count(&r, CONF_ERROR) ? err_set(e, CODE_INVALID_ARGUMENT, "%s", r.v.v[0].text) : 0;
}

static struct conf *with_flags(char **argv, int n, struct err *e)
{
	struct conf_args a = {0};
	struct conf *c = parse(
		"root='/file'\ninsecure-entitlements=['network.host']\n[grpc]\naddress=['unix:///a']\n[log]\nlevel='warn'\n",
		NULL);
	if (conf_args_parse(n, argv, &a, e) < 0 || conf_apply_flags(c, &a, NULL, e) < 0 || finish(c, e) < 0) {
		conf_unref(c);
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
		assert_string_equal(e.msg, "--allow-insecure-entitlement: invalid entitlement : network.host,device");
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
	_cleanup_conf_report_ struct conf_report r = {0};
	struct conf *c = NULL;
	assert_int_equal(conf_load("/nonexistent/x.toml", &c, &r), -1);
	expect(&r, CONF_ERROR, "/nonexistent/x.toml: the configuration file does not exist");
}

static void test_json(void **st)
{
	static const char text[] = "a = 1\n[b]\nc = [1.5, inf, -nan, 'x\\u0001', 2026-01-02T03:04:05.25Z, 2026-01-02, "
				   "03:04:05]\n\"d\\u0000\" = \"\\u0000\"\n";
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	if (conf_dump_json(text, sizeof text - 1, "f", &b, &e) < 0) fail_msg("%s", e.msg);
	assert_non_null(strstr(buf_str(&b), "\"a\":{\"type\":\"integer\",\"value\":\"1\"}"));
	assert_non_null(strstr(buf_str(&b), "{\"type\":\"float\",\"value\":\"1.5\"},{\"type\":\"float\",\"value\":\"inf\"}"));
	assert_non_null(strstr(buf_str(&b), "{\"type\":\"datetime\",\"value\":\"2026-01-02T03:04:05.25Z\"}"));
	assert_non_null(strstr(buf_str(&b), "\"d\\u0000\":{\"type\":\"string\",\"value\":\"\\u0000\"}"));
}

/* docs/config.md is what the table says. */
static void test_manual(void **st)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint8_t *text = NULL;
	size_t n = 0;
	conf_manual(&b);
	assert_int_equal(path_read_file(AT_FDCWD, CONFIG_MD, 1 << 20, &text, &n, NULL), 0);
	if (n != b.n || memcmp(text, b.p, n) != 0)
		fail_msg("docs/config.md differs from src/conf/rows.c: run tools/make-config-doc");
	free(text);
	for (size_t i = 0; i < conf_all_rows.n; i++) { /* every key is in it */
		const char *name = strrchr(conf_all_rows.rows[i].path, '/');
		_cleanup_free_ char *cell = xasprintf("| `%s` |", name ? name + 1 : conf_all_rows.rows[i].path);
		if (!strstr(buf_str(&b), cell) && conf_all_rows.rows[i].type != T_NAMED)
			fail_msg("%s is not in the manual", cell);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),         cmocka_unit_test(test_errors), cmocka_unit_test(test_kindly),
		cmocka_unit_test(test_hosts),        cmocka_unit_test(test_diff),   cmocka_unit_test(test_flags),
		cmocka_unit_test(test_bad_flags),    cmocka_unit_test(test_gc),     cmocka_unit_test(test_rows),
		cmocka_unit_test(test_missing_file), cmocka_unit_test(test_json),   cmocka_unit_test(test_manual),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
