/* The log's lines, beside what logrus prints (transcripts of the real daemon, and logrus' own rules). */
#include "base/base.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

static const struct log_span span = {"[2/2] RUN echo", "62656df30f8fa779b9249f0c4fc05773", "6d1546da850d9941"};
enum { T = 1795302544 }; /* 2026-11-21T23:09:04Z */

static char *line(enum log_form form, const struct log_span *s, const char *msg, const struct log_field *f, size_t n)
{
	struct buf b = BUF_INIT;
	log_format(&b, form, T, LOG_DEBUG, s, msg, f, n);
	return buf_take_str(&b);
}

static void same(enum log_form form, const struct log_span *s, const char *msg, const struct log_field *f, size_t n,
		 const char *want)
{
	_cleanup_free_ char *got = line(form, s, msg, f, n);
	assert_string_equal(got, want);
}

static void test_text(void **state)
{
	const struct log_field f[] = {
		{"url", "https://a/v2/x?ns=docker.io"},   {"request.method", "HEAD"}, {"empty", ""}, {"none", NULL},
		{"response.header.etag", "\"sha256:1\""}, {"ua", "buildkit/v0.32"}};
	same(LOG_TEXT, &span, "do request", f, array_len(f),
	     "time=\"2026-11-21T23:09:04Z\" level=debug msg=\"do request\" empty= request.method=HEAD "
	     "response.header.etag=\"\\\"sha256:1\\\"\" span=\"[2/2] RUN echo\" spanID=6d1546da850d9941 "
	     "traceID=62656df30f8fa779b9249f0c4fc05773 ua=buildkit/v0.32 url=\"https://a/v2/x?ns=docker.io\"\n");
	same(LOG_TEXT, NULL, "resolving", NULL, 0, "time=\"2026-11-21T23:09:04Z\" level=debug msg=resolving\n");
	struct log_span nameless = span;
	nameless.name = NULL;
	same(LOG_TEXT, &nameless, "session started", NULL, 0,
	     "time=\"2026-11-21T23:09:04Z\" level=debug msg=\"session started\" spanID=6d1546da850d9941 "
	     "traceID=62656df30f8fa779b9249f0c4fc05773\n");
}

/* What a peer chose can neither end the line nor forge a field. */
static void test_hostile(void **state)
{
	const struct log_field f[] = {{"v", "a\nlevel=error msg=forged\x1b[2J"}};
	same(LOG_TEXT, NULL, "x\ny", f, 1,
	     "time=\"2026-11-21T23:09:04Z\" level=debug msg=\"x\\ny\" v=\"a\\nlevel=error msg=forged\\x1b[2J\"\n");
	_cleanup_free_ char *tty = line(LOG_COLOUR, NULL, "x\x1b[2J", f, 1);
	assert_null(strstr(tty, "\x1b[2J"));
}

static void test_json(void **state)
{
	const struct log_field f[] = {{"zebra", "<1>"}, {"msg", "mine"}, {"a", "b"}};
	same(LOG_JSON, &span, "m", f, array_len(f),
	     "{\"a\":\"b\",\"fields.msg\":\"mine\",\"level\":\"debug\",\"msg\":\"m\",\"span\":\"[2/2] RUN "
	     "echo\",\"spanID\":\"6d1546da850d9941\","
	     "\"time\":\"2026-11-21T23:09:04Z\",\"traceID\":\"62656df30f8fa779b9249f0c4fc05773\",\"zebra\":\"\\u003c1\\u003e\"}"
	     "\n");
}

static void test_colour(void **state)
{
	const struct log_field f[] = {{"k", "v w"}};
	same(LOG_COLOUR, NULL, "hello", f, 1,
	     "\x1b[37mDEBU\x1b[0m[2026-11-21T23:09:04Z] hello                                         \x1b[37mk\x1b[0m=\"v "
	     "w\"\n");
}

static void test_levels(void **state)
{
	enum log_level l;
	assert_true(log_level_parse("WARN", &l) && l == LOG_WARN);
	assert_true(log_level_parse("warning", &l) && l == LOG_WARN);
	assert_true(log_level_parse("Panic", &l) && l == LOG_PANIC);
	assert_false(log_level_parse("verbose", &l));
	log_setup(LOG_WARN, false);
	assert_false(log_enabled(LOG_INFO));
	log_setup(LOG_TRACE, true);
	assert_true(log_enabled(LOG_TRACE));
	log_setup(LOG_INFO, false);
	int evaluated = 0;
	log_with(LOG_DEBUG, NULL, "off", {"k", evaluated++ ? "" : ""});
	assert_int_equal(evaluated, 0);
}

int main(void)
{
	setenv("TZ", "UTC", 1);
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_hostile),
					   cmocka_unit_test(test_json), cmocka_unit_test(test_colour),
					   cmocka_unit_test(test_levels)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
