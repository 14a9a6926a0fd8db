/* The grammars against what the Go libraries answer: the .jsonl files here were written by them (one case a line).
 * SPEC_DATA=DIR runs DIR's whole patternmatch.jsonl, dockerignore.jsonl and gitref.jsonl too. */
#include "spec/spec.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

typedef void case_fn(json_t *c);

static size_t each(const char *dir, const char *name, case_fn *fn)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "re");
	if (!f) fail_msg("no fixture %s", path);
	char *line = NULL;
	size_t cap = 0, n = 0;
	ssize_t len;
	while ((len = getline(&line, &cap, f)) > 0) {
		json_error_t je;
		json_t *c = json_loadb(line, (size_t)len, 0, &je);
		if (!c) fail_msg("%s: %s", name, je.text);
		fn(c);
		json_decref(c);
		n++;
	}
	free(line);
	fclose(f);
	return n;
}

static void golden(const char *name, size_t at_least, case_fn *fn) { assert_true(each(FIXTURES, name, fn) >= at_least); }

static const char *str(json_t *c, const char *key)
{
	json_t *v = json_object_get(c, key);
	return json_is_string(v) ? json_string_value(v) : "";
}

#define same(c, in, want, got)                                                                                \
	do {                                                                                                  \
		if (strcmp(want, got) != 0) fail_msg("%s: %s: want %s, got %s", str(c, in), #got, want, got); \
	} while (0)

/* -1 went with this very text. */
static bool failed_as(json_t *c, const char *in, const char *key, int r, struct err *e)
{
	const char *want = str(c, key);
	if (r >= 0) {
		if (*want) fail_msg("%s: should fail: %s", str(c, in), want);
		return false;
	}
	if (strcmp(want, e->msg) != 0) fail_msg("%s: want error \"%s\", got \"%s\"", str(c, in), want, e->msg);
	err_fini(e);
	return true;
}

static void same_free(json_t *c, const char *in, const char *key, char *got)
{
	if (strcmp(str(c, key), got) != 0) fail_msg("%s: %s: want %s, got %s", str(c, in), key, str(c, key), got);
	free(got);
}

static void ref_case(json_t *c)
{
	struct spec_ref r = {0}, copy;
	struct err e = ERR_INIT;
	if (failed_as(c, "in", "error", spec_ref_parse(str(c, "in"), &r, &e), &e)) return;
	same(c, "in", str(c, "domain"), r.domain);
	same(c, "in", str(c, "path"), r.path);
	same_free(c, "in", "string", spec_ref_format(&r));
	same_free(c, "in", "familiar", spec_ref_familiar(&r));
	same_free(c, "in", "familiar_name", spec_ref_familiar_name(&r));
	spec_ref_copy(&copy, &r);
	spec_ref_tag_name_only(&copy);
	same_free(c, "in", "tagged", spec_ref_format(&copy));
	spec_ref_fini(&copy);
	assert_int_equal(spec_ref_parse_docker(str(c, "in"), &copy, &e), 0);
	same_free(c, "in", "docker", spec_ref_format(&copy));
	spec_ref_fini(&copy);
	spec_ref_fini(&r);
}

static void test_ref(void **state)
{
	(void)state;
	golden("ref.jsonl", 70, ref_case);
	_cleanup_spec_ref_ struct spec_ref r = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(spec_ref_parse_tagged("alpine", &r, &e), 0);
	assert_string_equal(r.tag, "latest");
	assert_int_equal(spec_ref_set_tag(&r, "a b", &e), -1);
	assert_string_equal(e.msg, "invalid tag format");
	assert_string_equal(r.tag, "latest");
	assert_int_equal(spec_ref_set_digest(&r, "sha256:abc", &e), -1);
	assert_string_equal(e.msg, "invalid digest format");
}

static void platform_case(json_t *c)
{
	_cleanup_spec_platform_ struct spec_platform p = {0};
	struct err e = ERR_INIT;
	if (failed_as(c, "in", "error", spec_platform_parse(str(c, "in"), &p, &e), &e)) return;
	same(c, "in", str(c, "os"), p.os);
	same(c, "in", str(c, "arch"), p.arch);
	same(c, "in", str(c, "variant"), p.variant);
	same(c, "in", str(c, "osversion"), p.os_version);
	same_free(c, "in", "format", spec_platform_format(&p));
	same_free(c, "in", "short", spec_platform_format_short(&p));
	spec_platform_normalize(&p);
	same_free(c, "in", "normal", spec_platform_format(&p));
}

static struct spec_platform platforms[64];
static size_t n_platforms;

static void platform_add(json_t *c)
{
	assert_int_equal(spec_platform_parse(str(c, "want"), &platforms[n_platforms++], NULL), 0);
}

static void match_case(json_t *c)
{
	_cleanup_spec_platform_ struct spec_platform want = {0};
	assert_int_equal(spec_platform_parse(str(c, "want"), &want, NULL), 0);
	_cleanup_buf_ struct buf only = BUF_INIT, strict = BUF_INIT, less = BUF_INIT;
	for (size_t i = 0; i < n_platforms; i++) {
		buf_addc(&only, spec_platform_match(&want, &platforms[i]) ? '1' : '0');
		buf_addc(&strict, spec_platform_match_strict(&want, &platforms[i]) ? '1' : '0');
		for (size_t j = 0; j < n_platforms; j++)
			buf_addc(&less, spec_platform_less(&want, &platforms[i], &platforms[j]) ? '1' : '0');
	}
	same(c, "want", str(c, "only"), buf_str(&only));
	same(c, "want", str(c, "strict"), buf_str(&strict));
	same(c, "want", str(c, "less"), buf_str(&less));
}

static void test_platform(void **state)
{
	(void)state;
	golden("platform.jsonl", 60, platform_case);
	golden("match.jsonl", 30, platform_add);
	golden("match.jsonl", 30, match_case);
	_cleanup_spec_platform_ struct spec_platform want = {0};
	spec_platform_init(&want, "linux", "arm", "v7", NULL);
	assert_string_equal(platforms[spec_platform_choose(&want, platforms, n_platforms)].arch, "arm");
	/* only v6 and v5 are there: the best of them, wherever it stands */
	struct spec_platform few[3];
	spec_platform_init(&few[0], "linux", "arm", "v5", "");
	spec_platform_init(&few[1], "linux", "arm", "v6", "");
	spec_platform_init(&few[2], "linux", "amd64", "", "");
	assert_int_equal(spec_platform_choose(&want, few, 3), 1);
	assert_int_equal(spec_platform_choose(&want, few + 2, 1), -1);
	for (size_t i = 0; i < 3; i++) spec_platform_fini(&few[i]);
	for (size_t i = 0; i < n_platforms; i++) spec_platform_fini(&platforms[i]);
	n_platforms = 0;
}

static void size_case(json_t *c)
{
	int64_t v;
	struct err e = ERR_INIT;
	if (!failed_as(c, "in", "ram_error", spec_size_parse(str(c, "in"), &v, &e), &e))
		assert_int_equal(v, json_integer_value(json_object_get(c, "ram")));
	if (!failed_as(c, "in", "human_error", spec_size_parse_decimal(str(c, "in"), &v, &e), &e))
		assert_int_equal(v, json_integer_value(json_object_get(c, "human")));
}

static void test_size(void **state)
{
	(void)state;
	golden("size.jsonl", 40, size_case);
	struct err e = ERR_INIT;
	int64_t v;
	assert_int_equal(spec_size_parse("9999999p", &v, &e), -1); /* Go's int64(float) is undefined there */
	err_fini(&e);
}

static void glob_case(json_t *c)
{
	static const char *const names[] = {"",       "a",     "b",   "ab",      "abc", "aXc",   "a/b",  "a/b/c", "a/",
					    "/",      "*",     "\\",  "é",       "éa",  "]",     "[",    "-",     "x.go",
					    "d/x.go", "axbyc", "xyz", "1x2y3z4", "a]b", "a/x/c", "\xff", "a\xff"};
	_cleanup_buf_ struct buf got = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT;
	for (size_t i = 0; i < array_len(names); i++) {
		int r = spec_path_match(str(c, "pattern"), names[i], &e);
		buf_addc(&got, r < 0 ? 'E' : r ? '1' : '0');
	}
	same(c, "pattern", str(c, "result"), buf_str(&got));
	same(c, "pattern", str(c, "error"), e.msg ? e.msg : "");
}

static void pattern_case(json_t *c)
{
	json_t *list = json_object_get(c, "patterns");
	char *v[64];
	size_t n = json_array_size(list);
	assert_true(n <= array_len(v));
	for (size_t i = 0; i < n; i++) v[i] = (char *)(uintptr_t)json_string_value(json_array_get(list, i));
	_cleanup_err_ struct err e = ERR_INIT;
	int r = spec_patterns_match_once(v, n, str(c, "path"), &e);
	_cleanup_free_ char *dump = json_dumps(c, JSON_COMPACT);
	const char *error = str(c, "error");
	if (r < 0 ? !*error || strcmp(error, e.msg) != 0 : *error || r != json_is_true(json_object_get(c, "match")))
		fail_msg("%s: got %d %s", dump, r, e.msg ? e.msg : "");
}

static void odd_case(json_t *c)
{
	static const char *const files[] = {
		"a",      "b",        "c",  "d",  "ab",  "abc",    "a/b",    "a/b/c", "x/a", "x/y/a", "x/ba", "*", "?",  ".",
		"[",      "]",        "^",  "^a", "a^",  "5",      "5a",     "w_1",   "q",   "A",     "AA",   "é", "éx", "a.go",
		"x/a.go", "x/y/z.go", "a$", "$b", "a+b", "(a|b)c", "{a,b}c", "a.b",   "aXb", "a]",    "\\",   "-", "!a", "/a/b",
		"..",     "../x",     "b]", "[]", "a*b", "\xff",   "a\nb",   "\n\n",  "x/[", "x/[b",  "a\\"};
	_cleanup_buf_ struct buf got = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT;
	char *pattern = (char *)(uintptr_t)str(c, "pattern");
	for (size_t i = 0; i < array_len(files); i++) {
		_cleanup_spec_patterns_ struct spec_patterns *pm = NULL;
		int r = spec_patterns_new(&pattern, 1, &pm, &e) < 0 ? -2 : spec_patterns_match(pm, files[i], &e);
		buf_addc(&got, r == -2 ? 'N' : r < 0 ? 'E' : r ? '1' : '0');
	}
	same(c, "pattern", str(c, "result"), buf_str(&got));
	same(c, "pattern", str(c, "error"), e.msg ? e.msg : "");
}

static void ignorefile_case(json_t *c)
{
	json_t *want = json_object_get(c, "patterns");
	_cleanup_strvec_ struct strvec got = {0};
	assert_int_equal(spec_ignorefile_parse(str(c, "input"), strlen(str(c, "input")), &got, NULL), 0);
	assert_int_equal(got.n, json_array_size(want));
	for (size_t i = 0; i < got.n; i++) assert_string_equal(got.v[i], json_string_value(json_array_get(want, i)));
}

/* Walking with what is known of the parents gives what asking for each path alone gives. */
static void test_parents(void **state)
{
	(void)state;
	char v1[] = "a/**", v2[] = "!a/keep", v3[] = "**/x", v4[] = "!b/x", v5[] = "c*", *v[] = {v1, v2, v3, v4, v5};
	static const char *const chains[][3] = {
		{"a", "a/keep", "a/keep/x"}, {"b", "b/x", "b/x/y"}, {"c1", "c1/x", "c1/y"}, {"d", "d/e", "d/e/x"}};
	_cleanup_spec_patterns_ struct spec_patterns *pm = NULL;
	assert_int_equal(spec_patterns_new(v, array_len(v), &pm, NULL), 0);
	assert_true(spec_patterns_exclusions(pm));
	for (size_t i = 0; i < array_len(chains); i++) {
		bool info[2][5] = {0};
		for (size_t d = 0; d < 3; d++) {
			int r = spec_patterns_match_parents(pm, chains[i][d], d ? info[(d - 1) % 2] : NULL, info[d % 2], NULL);
			assert_int_equal(r, spec_patterns_match(pm, chains[i][d], NULL));
		}
	}
}

static void test_pattern(void **state)
{
	(void)state;
	golden("glob.jsonl", 40, glob_case);
	golden("patternmatch.jsonl", 200, pattern_case);
	golden("patternodd.jsonl", 70, odd_case);
	golden("patternrandom.jsonl", 300, pattern_case);
	golden("dockerignore.jsonl", 12, ignorefile_case);
	if (getenv("SPEC_DATA")) each(getenv("SPEC_DATA"), "patternmatch.jsonl", pattern_case);
	/* time is pattern times path, also for patterns that a backtracking matcher dies of */
	char evil_text[] = "**a**a**a**a**a**a**a**a**a**a**a**a**b*c", *evil = evil_text;
	char path[2001];
	memset(path, 'a', 2000);
	path[2000] = 0;
	assert_int_equal(spec_patterns_match_once(&evil, 1, path, NULL), 0);
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_free_ char *line = xmalloc(70000);
	_cleanup_strvec_ struct strvec out = {0};
	memset(line, 'x', 70000);
	assert_int_equal(spec_ignorefile_parse(line, 70000, &out, &e), -1);
}

static void same_tristate(json_t *c, const char *key, int got)
{
	json_t *v = json_object_get(json_object_get(c, "result"), key);
	assert_int_equal(got, json_is_boolean(v) ? json_is_true(v) : -1);
}

static void git_case(json_t *c)
{
	_cleanup_spec_git_ref_ struct spec_git_ref r = {0};
	struct err e = ERR_INIT;
	bool is_git;
	json_t *w = json_object_get(c, "result");
	int ret = spec_git_ref_parse(str(c, "ref"), &r, &is_git, &e);
	bool failed = failed_as(c, "ref", "error", ret, &e);
	if (is_git != json_is_true(json_object_get(c, "is_git"))) fail_msg("%s: is_git is %d", str(c, "ref"), is_git);
	if (json_object_get(c, "fragment")) {
		char *f = spec_git_fragment_format(str(c, "ref"), true);
		same_free(c, "ref", "fragment", f ? f : xstrdup(str(c, "ref")));
		assert_int_equal(spec_git_is_transport(str(c, "ref")), json_is_true(json_object_get(c, "transport")));
	}
	if (failed) return;
	same(c, "ref", str(w, "Remote"), r.remote);
	same(c, "ref", str(w, "ShortName"), r.short_name);
	same(c, "ref", str(w, "Ref"), r.ref);
	same(c, "ref", str(w, "Checksum"), r.checksum);
	same(c, "ref", str(w, "SubDir"), r.subdir);
	same(c, "ref", str(w, "MTime"), r.mtime);
	assert_int_equal(r.indistinguishable_from_local, json_is_true(json_object_get(w, "IndistinguishableFromLocal")));
	assert_int_equal(r.unencrypted_tcp, json_is_true(json_object_get(w, "UnencryptedTCP")));
	assert_int_equal(r.fetch_by_commit, json_is_true(json_object_get(w, "FetchByCommit")));
	same_tristate(c, "KeepGitDir", r.keep_git_dir);
	same_tristate(c, "Submodules", r.submodules);
}

static void url_case(json_t *c)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	struct err e = ERR_INIT;
	if (failed_as(c, "in", "error", spec_url_parse(str(c, "in"), &u, &e), &e)) return;
	same(c, "in", str(c, "scheme"), u.scheme);
	same(c, "in", str(c, "host"), u.host);
	same(c, "in", str(c, "path"), u.path);
	same(c, "in", str(c, "opaque"), u.opaque);
	same(c, "in", str(c, "query"), u.raw_query);
	same(c, "in", str(c, "fragment"), u.fragment);
	same(c, "in", str(c, "user"), u.user);
	same_free(c, "in", "string", spec_url_format(&u));
	same_free(c, "in", "redacted", spec_url_redacted(&u));
}

static void test_git(void **state)
{
	(void)state;
	golden("url.jsonl", 40, url_case);
	golden("gitref.jsonl", 33, git_case);
	golden("gitmore.jsonl", 30, git_case);
	if (getenv("SPEC_DATA")) {
		each(getenv("SPEC_DATA"), "gitref.jsonl", git_case);
		each(getenv("SPEC_DATA"), "dockerignore.jsonl", ignorefile_case);
	}
}

static void test_media(void **state)
{
	(void)state;
	enum spec_compression z;
	assert_int_equal(spec_media_compression(SPEC_DOCKER_LAYER_ZSTD, &z, NULL), 0);
	assert_int_equal(z, SPEC_ZSTD);
	assert_int_equal(spec_media_compression("text/plain", &z, NULL), -1);
	assert_string_equal(spec_media_convert_layer(SPEC_OCI_NONDIST_GZIP, false), SPEC_DOCKER_FOREIGN_GZIP);
	assert_string_equal(spec_media_convert_layer(SPEC_DOCKER_LAYER_GZIP, true), SPEC_OCI_LAYER_GZIP);
	assert_string_equal(spec_media_convert_layer("x/y", true), "x/y");
	assert_string_equal(spec_media_distributable(SPEC_DOCKER_FOREIGN_GZIP), SPEC_DOCKER_LAYER_GZIP);
	assert_true(spec_media_is_layer(SPEC_OCI_LAYER_GZIP "+encrypted"));
	assert_true(spec_media_is_nondist(SPEC_OCI_NONDIST_ZSTD));
	assert_false(spec_media_is_layer(SPEC_OCI_CONFIG));
	assert_true(spec_media_is_index(SPEC_DOCKER_INDEX) && spec_media_is_manifest(SPEC_OCI_MANIFEST));
	/* sha256("sha256:aa.. sha256:bb..") of image-spec's ChainID */
	struct digest d[2] = {digest_of("a", 1), digest_of("b", 1)}, chain[2];
	char a[DIGEST_STR], b[DIGEST_STR];
	digest_format(&d[0], a);
	digest_format(&d[1], b);
	_cleanup_free_ char *text = xasprintf("%s %s", a, b);
	struct digest want = digest_of(text, strlen(text));
	spec_chain_ids(d, 2, chain);
	assert_true(digest_eq(&chain[0], &d[0]) && digest_eq(&chain[1], &want));
	spec_chain_ids(d, 2, d);
	assert_true(digest_eq(&d[1], &want));
}

/* Written by Go's regexp: matches, ReplaceAllString, ExpandString. */
static void regexp_case(json_t *c)
{
	_cleanup_spec_regexp_ struct spec_regexp *r = NULL;
	_cleanup_buf_ struct buf replaced = BUF_INIT, expanded = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT;
	int rc = spec_regexp_new(str(c, "re"), &r, &e);
	if (json_is_true(json_object_get(c, "bad"))) {
		if (rc == 0) fail_msg("%s: should not compile", str(c, "re"));
		return;
	}
	if (rc < 0) fail_msg("%s: %s", str(c, "re"), e.msg);
	if (spec_regexp_match(r, str(c, "s")) != json_is_true(json_object_get(c, "match")))
		fail_msg("%s in \"%s\": wrong about a match", str(c, "re"), str(c, "s"));
	spec_regexp_replace(r, str(c, "s"), str(c, "f"), &replaced);
	same(c, "re", str(c, "replaced"), buf_str(&replaced));
	spec_regexp_expand(r, str(c, "s"), str(c, "f"), &expanded);
	same(c, "re", str(c, "expanded"), buf_str(&expanded));
}

static void test_regexp(void **state)
{
	(void)state;
	golden("regexp.jsonl", 200, regexp_case);
	const char *dir = getenv("SPEC_DATA");
	if (dir) each(dir, "regexp-big.jsonl", regexp_case);
	struct spec_regexp *r;
	struct err e = ERR_INIT;
	assert_int_equal(spec_regexp_new("((a{900}){900}){900}", &r, &e), -1); /* bounded, at once */
	assert_non_null(strstr(e.msg, "too large"));
	err_fini(&e);
	assert_int_equal(spec_regexp_new("(?:(?:(?:(?:){1000}){1000}){1000}){1000}", &r, &e), 0);
	spec_regexp_free(r);
	assert_int_equal(spec_regexp_new("(a*)*b", &r, &e), 0);
	_cleanup_buf_ struct buf as = BUF_INIT;
	for (int i = 0; i < 2000; i++) buf_addc(&as, 'a');
	assert_false(spec_regexp_match(r, buf_str(&as)));
	spec_regexp_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ref),     cmocka_unit_test(test_platform), cmocka_unit_test(test_size),
		cmocka_unit_test(test_pattern), cmocka_unit_test(test_parents),  cmocka_unit_test(test_git),
		cmocka_unit_test(test_media),   cmocka_unit_test(test_regexp),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
