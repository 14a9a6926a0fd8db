/* Pure parsing of reg: hosts and mirrors, challenges, scopes, error bodies, URLs. */
#include "reg/internal.h"
#include "reg/reg_pools.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void mirrors(void **state)
{
	static const struct {
		const char *in, *host, *path;
	} t[] = {
		{"mirror.gcr.io", "mirror.gcr.io", "/v2"},
		{"mirror.gcr.io:5000", "mirror.gcr.io:5000", "/v2"},
		{"https://mirror.gcr.io", "mirror.gcr.io", "/v2"},
		{"http://m.example:81/", "m.example:81", "/v2"},
		{"core.harbor.domain/proxy.docker.io", "core.harbor.domain", "/v2/proxy.docker.io"},
		{"https://core.harbor.domain/a/b/?q#f", "core.harbor.domain", "/v2/a/b"},
		{"user:pw@m.example/x", "m.example", "/v2/x"},
		{"//m.example", "m.example", "/v2"},
		{"[::1]:5000/x", "[::1]:5000", "/v2/x"},
		{"/nothing", "/nothing", "/v2"},
		{"", "", "/v2"},
	};
	for (size_t i = 0; i < array_len(t); i++) {
		_cleanup_free_ char *host = NULL, *path = NULL;
		reg_mirror_parse(t[i].in, &host, &path);
		assert_string_equal(host, t[i].host);
		assert_string_equal(path, t[i].path);
	}
}

static void localhost(void **state)
{
	static const char *const yes[] = {"localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1",
					  "::1",       "[::1]",          "[::1]:5000"};
	static const char *const no[] = {"localhost.example", "128.0.0.1", "[::2]:5000", "example.com:127", ""};
	for (size_t i = 0; i < array_len(yes); i++) assert_true(reg_is_localhost(yes[i]));
	for (size_t i = 0; i < array_len(no); i++) assert_false(reg_is_localhost(no[i]));
	assert_true(reg_has_port("a:1"));
	assert_true(reg_has_port("[::1]:1"));
	assert_false(reg_has_port("a"));
	assert_false(reg_has_port("[::1]"));
	assert_false(reg_has_port("::1"));
}

static void hosts(void **state)
{
	char *mirror_list[] = {(char *)"https://mirror.gcr.io/sub", (char *)"plain.example:81", (char *)"docker.io"};
	struct reg_host_conf conf[] = {
		{.name = "docker.io", .mirrors = mirror_list, .mirror_count = 3},
		{.name = "plain.example:81", .http = REG_YES},
		{.name = "self.example", .insecure = REG_YES},
		{.name = "both.example", .insecure = REG_YES, .http = REG_YES},
		{.name = "localhost:5001", .http = REG_NO},
	};
	struct reg_config *c = reg_config_new(conf, array_len(conf));
	static const struct {
		const char *domain, *shape; /* host path http insecure fallback mirror ns; */
	} t[] = {
		{"docker.io",
		 "mirror.gcr.io /v2/sub 00011;plain.example:81 /v2 10011;docker.io /v2 00010;registry-1.docker.io /v2 00000;"},
		{"quay.io", "quay.io /v2 00000;"},
		{"localhost:5000", "localhost:5000 /v2 10000;"},
		{"localhost:5001", "localhost:5001 /v2 00000;"},
		{"self.example", "self.example /v2 01000;"},
		{"both.example", "both.example /v2 01100;"},
	};
	for (size_t i = 0; i < array_len(t); i++) {
		_cleanup_reg_hosts_ struct reg_hosts h;
		_cleanup_buf_ struct buf b = BUF_INIT;
		reg_hosts_of(c, t[i].domain, &h);
		for (size_t k = 0; k < h.n; k++)
			buf_addf(&b, "%s %s %d%d%d%d%d;", h.v[k].host, h.v[k].path, h.v[k].http, h.v[k].insecure,
				 h.v[k].fallback, h.v[k].mirror, h.v[k].ns);
		assert_string_equal(buf_str(&b), t[i].shape);
	}
	reg_config_unref(c);
}

static void challenges(void **state)
{
	struct reg_auth a;
	assert_true(reg_auth_parse("Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\", "
				   "scope=\"repository:a/b:pull,push\" , error=insufficient_scope",
				   &a));
	assert_true(a.bearer);
	assert_string_equal(reg_auth_get(&a, "realm"), "https://auth.docker.io/token");
	assert_string_equal(reg_auth_get(&a, "scope"), "repository:a/b:pull,push");
	assert_string_equal(reg_auth_get(&a, "error"), "insufficient_scope");
	assert_string_equal(reg_auth_get(&a, "nonce"), "");
	reg_auth_fini(&a);
	assert_true(reg_auth_parse("bAsIc Realm=\"a \\\"quoted\\\" one", &a));
	assert_false(a.bearer);
	assert_string_equal(reg_auth_get(&a, "realm"), "a \"quoted\" one");
	reg_auth_fini(&a);
	assert_false(reg_auth_parse("Digest realm=x", &a));
	assert_false(reg_auth_parse("", &a));
	assert_true(reg_auth_parse("Bearer", &a));
	reg_auth_fini(&a);
	assert_true(reg_auth_parse("Bearer =,,=\"", &a));
	reg_auth_fini(&a);
}

static void scopes(void **state)
{
	struct strvec sv = {0}, want = {0};
	reg_scopes_add(&sv, "repository:b:push,pull repository:a:pull");
	reg_scopes_add(&sv, "repository:b:pull");
	reg_scopes_add(&sv, "registry:catalog:*");
	_cleanup_free_ char *s = strvec_join(&sv, " ");
	assert_string_equal(s, "registry:catalog:* repository:a:pull repository:b:pull,push");
	reg_scopes_add(&want, "repository:b:push");
	assert_true(reg_scopes_contain(&sv, &want));
	reg_scopes_add(&want, "repository:a:push");
	assert_false(reg_scopes_contain(&sv, &want));
	reg_scopes_add(&want, "  x  ");
	strvec_fini(&sv);
	strvec_fini(&want);
}

static void error_bodies(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = {
		{"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"requested access to the resource is "
		 "denied\",\"detail\":null}]}",
		 "denied"},
		{"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"go away\"}]}", "denied: go away"},
		{"{\"errors\":[{\"code\":\"NAME_UNKNOWN\",\"message\":\"no\"},{\"code\":\"UNAUTHORIZED\"}]}",
		 "errors:\nunknown: no\nunauthorized\n"},
		{"{\"errors\":[]}", NULL},
		{"{\"errors\":null}", NULL},
		{"[null, {\"a\": null}]", NULL},
		{"<html>", NULL},
		{"", NULL},
	};
	for (size_t i = 0; i < array_len(t); i++) {
		_cleanup_free_ char *s = reg_error_text(t[i].in, strlen(t[i].in));
		if (t[i].out)
			assert_string_equal(s, t[i].out);
		else
			assert_null(s);
	}
}

static void check_str(char *got, const char *want)
{
	if (want)
		assert_string_equal(got, want);
	else
		assert_null(got);
	free(got);
}

static void urls(void **state)
{
	check_str(reg_url_origin("https://A.example:443/x"), "https://a.example");
	check_str(reg_url_origin("http://a:81/x?y"), "http://a:81");
	check_str(reg_url_origin("ftp://a/x"), NULL);
	check_str(reg_url_origin("nothing"), NULL);
	check_str(reg_url_host("https://u:p@h:1/x@y"), "h:1");
	check_str(reg_url_join("https://h/v2/a?b=c", "/x?y=z"), "https://h/x?y=z");
	check_str(reg_url_join("https://h/v2/a", "http://i:8/x#frag"), "http://i:8/x");
	check_str(reg_url_join("https://h/v2/a", "rel"), "https://h/v2/rel");
	check_str(reg_url_show("https://u:p@h/x?ns=docker.io&sig=secret&empty=&plain"),
		  "https://xxxxx@h/x?ns=docker.io&sig=REDACTED&empty=&plain");
	check_str(reg_url_show("https://h/x"), "https://h/x");
	assert_int_equal(reg_retry_after_ms("2", 0), 2000);
	assert_int_equal(reg_retry_after_ms("99999999999999999999", 0), 60000);
	assert_int_equal(reg_retry_after_ms("-5", 0), 0);
	assert_int_equal(reg_retry_after_ms("Thu, 01 Jan 1970 00:00:10 GMT", 3), 7000);
	assert_int_equal(reg_retry_after_ms("soon", 0), 0);
	assert_int_equal(reg_retry_after_ms(NULL, 0), 0);
}

static void granted(struct loop_slot *s) {}

static void pools(void **state)
{
	struct reg_pools p;
	struct loop_slot s[8] = {0};
	struct reg_host_conf conf = {.name = "c", .max_concurrency = 1};
	struct reg_config *config = reg_config_new(&conf, 1);
	reg_pools_init(&p, 2);
	reg_pools_configure(&p, 2, config);
	for (size_t i = 0; i < array_len(s); i++) s[i].granted = granted;
	loop_slot_want(reg_pools_get(&p, "a", false), &s[0]);
	loop_slot_want(reg_pools_get(&p, "a", false), &s[1]);
	loop_slot_want(reg_pools_get(&p, "a", false), &s[2]); /* waits: two at once */
	loop_slot_want(reg_pools_get(&p, "a", true), &s[3]);  /* documents do not wait for blobs */
	loop_slot_want(reg_pools_get(&p, "b", false), &s[4]); /* another domain */
	loop_slot_want(reg_pools_get(&p, "c", false), &s[5]); /* with a limit of its own */
	loop_slot_want(reg_pools_get(&p, "c", false), &s[6]);
	assert_true(s[0].held && s[1].held && !s[2].held && s[3].held && s[4].held && s[5].held && !s[6].held);
	loop_slot_release(&s[0]);
	assert_true(s[2].held);
	reg_pools_configure(&p, 2, NULL);
	assert_true(s[6].held); /* the global limit now */
	for (size_t i = 0; i < array_len(s); i++) loop_slot_release(&s[i]);
	reg_pools_fini(&p);
	reg_config_unref(config);
	assert_true(reg_media_is_json("application/vnd.oci.image.config.v1+json"));
	assert_false(reg_media_is_json("application/vnd.oci.image.layer.v1.tar+gzip"));
	assert_false(reg_media_is_json(NULL));
}

/* One build wants many slots, another one: it gets the second that becomes free, not the last. */
static void turns(void **state)
{
	struct reg_pools p;
	struct loop_slot s[6] = {0};
	reg_pools_init(&p, 2);
	for (size_t i = 0; i < array_len(s); i++) {
		s[i].granted = granted;
		s[i].group = reg_pools_group(i < 5 ? "first" : "second");
		loop_slot_want(reg_pools_get(&p, "a", false), &s[i]);
	}
	assert_true(s[0].held && s[1].held && !s[5].held);
	loop_slot_release(&s[0]);
	assert_true(s[5].held && !s[2].held);
	for (size_t i = 0; i < array_len(s); i++) loop_slot_release(&s[i]);
	reg_pools_fini(&p);
}

static void wildcards(void **state)
{
	char *any[] = {(char *)"any.example"}, *corp[] = {(char *)"corp.example"}, *deep[] = {(char *)"deep.example"};
	const struct reg_keypair pair = {"k", "c"};
	const struct reg_mirror_conf own[] = {
		{.host = "own.corp:81", .path = "proxy/docker.io", .http = REG_YES, .credentials = "/file"},
		{.host = "tls.example", .no_fallback = true, .keypairs = &pair, .keypair_count = 1},
	};
	struct reg_host_conf conf[] = {
		{.name = "*", .mirrors = any, .mirror_count = 1},
		{.name = "*.corp", .mirrors = corp, .mirror_count = 1},
		{.name = "*.deep.corp", .mirrors = deep, .mirror_count = 1},
		{.name = "docker.io", .own_mirrors = own, .own_mirror_count = 2},
		{.name = "Own.Corp:81", .insecure = REG_YES},
	};
	static const struct {
		const char *domain, *shape;
	} t[] = {
		{"quay.io", "any.example quay.io"},
		{"a.corp", "corp.example a.corp"},
		{"a.corp:5000", "corp.example a.corp:5000"},
		{"x.deep.corp", "deep.example x.deep.corp"},
		{"corp", "any.example corp"},
		{"docker.io", "own.corp:81 tls.example registry-1.docker.io"},
	};
	struct reg_config *c = reg_config_new(conf, array_len(conf));
	for (size_t i = 0; i < array_len(t); i++) {
		_cleanup_reg_hosts_ struct reg_hosts h;
		_cleanup_buf_ struct buf b = BUF_INIT;
		reg_hosts_of(c, t[i].domain, &h);
		for (size_t k = 0; k < h.n; k++) buf_addf(&b, "%s%s", k ? " " : "", h.v[k].host);
		assert_string_equal(buf_str(&b), t[i].shape);
	}
	_cleanup_reg_hosts_ struct reg_hosts h;
	reg_hosts_of(c, "docker.io", &h);
	assert_string_equal(h.v[0].path, "/v2/proxy/docker.io");
	assert_string_equal(h.v[0].credentials, "/file");
	assert_true(h.v[0].insecure && h.v[0].fallback && h.v[0].ns && !h.v[0].no_fallback);
	assert_true(h.v[1].no_fallback && h.v[1].entry->keys.n == 1 && !h.v[1].insecure);
	assert_null(h.v[2].credentials);
	reg_config_unref(c);
}

static void proxies(void **state)
{
	static const struct {
		const char *list, *host;
		bool none;
	} t[] = {
		{"example.com", "example.com", true},
		{"example.com", "a.example.com:443", true},
		{"example.com", "notexample.com", false},
		{".example.com", "example.com", false},
		{".example.com", "a.example.com", true},
		{"*.example.com", "a.example.com", true},
		{"a, b c", "c", true},
		{"*", "anything", true},
		{"example.com:8080", "example.com", false},
		{"example.com:443", "example.com", true},
		{"example.com:8080", "example.com:8080", true},
		{"10.0.0.0/8", "10.1.2.3:5000", true},
		{"10.0.0.0/8", "11.1.2.3", false},
		{"10.1.2.3", "10.1.2.3", true},
		{"fd00::/8", "[fd12::1]:443", true},
		{"[fd12::1]", "[fd12::1]:443", true},
		{"fd12::1", "[fd12::2]:443", false},
		{"", "a", false},
		{NULL, "a", false},
	};
	for (size_t i = 0; i < array_len(t); i++)
		if (reg_no_proxy(t[i].list, t[i].host, "443") != t[i].none) fail_msg("%s %s", t[i].list, t[i].host);
	static const char *const names[] = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
					    "http_proxy", "https_proxy", "all_proxy", "no_proxy"};
	for (size_t i = 0; i < array_len(names); i++) unsetenv(names[i]);
	assert_null(reg_proxy_for("https://a/v2/"));
	setenv("all_proxy", "http://all:1", 1);
	setenv("HTTPS_PROXY", "http://tls:1", 1);
	setenv("NO_PROXY", "inside.example", 1);
	_cleanup_free_ char *a = reg_proxy_for("http://a/v2/"), *b = reg_proxy_for("https://a/v2/");
	assert_string_equal(a, "http://all:1");
	assert_string_equal(b, "http://tls:1");
	assert_null(reg_proxy_for("https://r.inside.example/v2/"));
	assert_null(reg_proxy_for("http://localhost:5000/v2/"));
	assert_null(reg_proxy_for("http://127.0.0.1:5000/v2/"));
	for (size_t i = 0; i < array_len(names); i++) unsetenv(names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mirrors),    cmocka_unit_test(localhost), cmocka_unit_test(hosts),
		cmocka_unit_test(challenges), cmocka_unit_test(scopes),    cmocka_unit_test(error_bodies),
		cmocka_unit_test(urls),       cmocka_unit_test(pools),     cmocka_unit_test(turns),
		cmocka_unit_test(wildcards),  cmocka_unit_test(proxies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
