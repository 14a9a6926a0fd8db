/* Package URLs as BuildKit writes them into provenance, and attestations' subjects. */
#include "ship/attest_job.h"
#include "ship/purl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#define SUM "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void images(void **state)
{
	static const struct {
		const char *ref, *platform, *want;
	} rows[] = {
		{"alpine:3.20", "linux/amd64", "pkg:docker/alpine@3.20?platform=linux%2Famd64"},
		{"alpine", NULL, "pkg:docker/alpine@latest"},
		{"localhost:5000/a/b:c", "linux/arm64", "pkg:docker/localhost%3A5000/a/b@c?platform=linux%2Farm64"},
		{"docker.io/library/x@" SUM, "linux/amd64", "pkg:docker/x?digest=" SUM "&platform=linux%2Famd64"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct spec_platform p = {0};
		struct err e = ERR_INIT;
		if (rows[i].platform) assert_int_equal(spec_platform_parse_normal(rows[i].platform, &p, &e), 0);
		char *got = ship_purl("docker", rows[i].ref, rows[i].platform ? &p : NULL, NULL, 0, &e);
		assert_string_equal(got, rows[i].want);
		free(got);
		if (rows[i].platform) spec_platform_fini(&p);
	}
	struct err e = ERR_INIT;
	assert_null(ship_purl("docker", "UPPER", NULL, NULL, 0, &e));
	err_fini(&e);
}

static struct attest_in given(const char *type, const char *content)
{
	struct attest_in a = {.key = xstrdup("linux/amd64"),
			      .path = xstrdup("p.json"),
			      .predicate_type = xstrdup(type),
			      .has_content = content != NULL};
	if (content) buf_adds(&a.content, content);
	return a;
}

static void without_content(void **state)
{
	struct attest_in a = given("https://slsa.dev/provenance/v1", NULL), *list[] = {&a};
	struct attest_outs outs = {0};
	struct err e = ERR_INIT;
	assert_int_equal(attest_job_read(list, 1, "linux/arm64", false, &outs, &e), 0); /* another platform's */
	assert_int_equal(outs.n, 0);
	assert_int_equal(attest_job_read(list, 1, "linux/amd64", false, &outs, &e), -1); /* nothing to read at all */
	assert_string_equal(e.msg, "attestation does not have available content");
	err_fini(&e);
	attest_in_fini(&a);
	attest_outs_fini(&outs);
}

static void subjects_and_inline(void **state)
{
	struct attest_in a = given("t", "{\"x\":1}"), *list[] = {&a};
	struct attest_outs outs = {0};
	struct err e = ERR_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT;
	struct ship_subject self = {.name = "me"};
	strcpy(self.digest, SUM);
	a.inline_only = true;
	assert_int_equal(attest_job_read(list, 1, "linux/amd64", true, &outs, &e), 0);
	assert_int_equal(outs.n, 0);
	assert_int_equal(attest_job_read(list, 1, "linux/amd64", false, &outs, &e), 0);
	assert_int_equal(outs.n, 1);
	assert_int_equal(attest_job_statement(&outs.v[0], &self, 1, false, &text, &e), 0);
	assert_string_equal(
		buf_str(&text),
		"{\"_type\":\"https://in-toto.io/Statement/"
		"v1\",\"predicateType\":\"t\",\"subject\":[{\"name\":\"me\",\"digest\":{"
		"\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}}],\"predicate\":{\"x\":1}}");
	attest_outs_fini(&outs);
	attest_in_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(images), cmocka_unit_test(without_content),
					   cmocka_unit_test(subjects_and_inline)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
