/* The small grammars: image references, platforms, git URLs, URLs, durations, digests, credentials' challenges, error bodies.
 */
#include "fuzz.h"
#include "reg/internal.h"
#include "spec/spec.h"

#include <string.h>

static void references(const char *s)
{
	struct spec_ref r, again, copy;
	if (spec_ref_parse_docker(s, &r, NULL) >= 0) spec_ref_fini(&r);
	if (spec_ref_parse_tagged(s, &r, NULL) >= 0) spec_ref_fini(&r);
	if (spec_ref_parse(s, &r, NULL) < 0) return;
	spec_ref_copy(&copy, &r);
	_cleanup_free_ __attribute__((unused)) char *text = spec_ref_format(&r), *familiar = spec_ref_familiar(&r),
						    *name = spec_ref_familiar_name(&r);
	if (spec_ref_parse(text, &again, NULL) < 0) bug("%s was made of %s and is no reference", text, s);
	_cleanup_free_ char *text2 = spec_ref_format(&again);
	if (strcmp(text, text2)) bug("%s became %s", text, text2);
	spec_ref_fini(&again);
	spec_ref_fini(&copy);
	spec_ref_fini(&r);
}

static void platforms(const char *s)
{
	struct spec_platform p, host;
	if (spec_platform_parse_normal(s, &p, NULL) < 0) return;
	_cleanup_free_ __attribute__((unused)) char *text = spec_platform_format(&p), *brief = spec_platform_format_short(&p);
	spec_platform_host(&host);
	spec_platform_match(&host, &p);
	spec_platform_match_strict(&p, &host);
	spec_platform_choose(&host, &p, 1);
	spec_platform_fini(&host);
	spec_platform_fini(&p);
}

static void urls(const char *s)
{
	struct spec_url u;
	struct spec_git_url g;
	struct spec_git_ref r;
	struct spec_query q = {0};
	bool is_git;
	char *text;
	if (spec_url_parse(s, &u, NULL) >= 0) {
		_cleanup_free_ __attribute__((unused)) char *whole = spec_url_format(&u), *safe = spec_url_redacted(&u),
							    *path = spec_url_escaped_path(&u);
		spec_url_fini(&u);
	}
	if (spec_git_url_parse(s, &g, NULL) >= 0) spec_git_url_fini(&g);
	if (spec_git_ref_parse(s, &r, &is_git, NULL) >= 0) spec_git_ref_fini(&r);
	free(spec_git_fragment_format(s, true));
	spec_git_is_transport(s);
	spec_query_parse(s, &q, NULL);
	spec_query_get(&q, "a");
	spec_query_fini(&q);
	free(spec_query_escape(s));
	if (spec_query_unescape(s, &text, NULL) >= 0) free(text);
	if (spec_path_unescape(s, &text, NULL) >= 0) free(text);
}

static void rest(const char *s, size_t n)
{
	struct timespec t;
	int64_t ns;
	struct reg_auth a;
	struct strvec scopes = {0};
	struct buf b = BUF_INIT;
	spec_digest_check(s, NULL);
	duration_parse(s, &ns, NULL);
	time_parse_rfc3339(s, &t, NULL);
	base64_decode(s, n, &b, NULL);
	buf_fini(&b);
	memset(&a, 0, sizeof a);
	if (reg_auth_parse(s, &a)) {
		reg_scopes_add(&scopes, reg_auth_get(&a, "scope"));
		reg_scopes_contain(&scopes, &scopes);
	}
	reg_auth_fini(&a);
	strvec_fini(&scopes);
	free(reg_error_text(s, n));
	char *host, *path;
	reg_mirror_parse(s, &host, &path);
	free(host);
	free(path);
	free(go_quote(s, n));
	free(utf8_clean(s, n));
	free(path_clean(s));
	free(path_abs_in(s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *s = xstrndup((const char *)data, size);
	references(s);
	platforms(s);
	urls(s);
	rest(s, strlen(s));
	return 0;
}
