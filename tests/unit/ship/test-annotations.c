/* Annotation attributes: which form is one, whose it is, what counts when several are there. */
#include "ship/annotations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static int add(struct ship_annotations *s, const char *attr, const char *value, struct err *e)
{
	return ship_annotation_add(s, attr, value, strlen(value), e);
}

static void test_forms(void **state)
{
	(void)state;
	struct ship_annotations s = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	static const char *const none[] = {"annotation",     "annotations.a",        "annotation.",
					   "annotation-.a",  "annotation[].a",       "annotation[linux/amd64]a",
					   "annotation.a b", "annotation-Manifest.a"};
	for (size_t i = 0; i < array_len(none); i++)
		if (add(&s, none[i], "v", &e) != 0) fail_msg("%s is no annotation", none[i]);
	assert_int_equal(add(&s, "annotation-layer.a", "v", &e), -1);
	assert_string_equal(e.msg, "unrecognized annotation type layer");
	assert_int_equal(add(&s, "annotation[linux/amd64/v9/x].a", "v", &e), -1);
	assert_int_equal(s.all.n, 0);
	ship_annotations_fini(&s);
}

static const char *value(const struct ship_annotations *s, enum ship_annotation_type t, const char *platform, const char *key)
{
	size_t n;
	const char *last = "";
	_cleanup_free_ struct ship_kv *v = ship_annotations_of(s, t, platform, &n);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(v[i].key, key)) last = v[i].value;
	return last;
}

static void test_whose(void **state)
{
	(void)state;
	struct ship_annotations s = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(add(&s, "annotation-manifest[linux/arm64].a.b", "arm", &e), 1);
	assert_int_equal(add(&s, "annotation.a.b", "all", &e), 1);
	assert_int_equal(add(&s, "annotation-manifest-descriptor[linux/amd64].d", "amd", &e), 1);
	assert_int_equal(add(&s, "annotation-index.i", "1", &e), 1);
	assert_int_equal(add(&s, "annotation-index.i", "2", &e), 1);
	assert_string_equal(value(&s, SHIP_ANNOTATE_MANIFEST, "linux/arm64", "a.b"), "arm");
	assert_string_equal(value(&s, SHIP_ANNOTATE_MANIFEST, "linux/amd64", "a.b"), "all");
	assert_string_equal(value(&s, SHIP_ANNOTATE_MANIFEST, NULL, "a.b"), "all");
	assert_string_equal(value(&s, SHIP_ANNOTATE_MANIFEST_DESC, "linux/amd64", "d"), "amd");
	assert_string_equal(value(&s, SHIP_ANNOTATE_MANIFEST_DESC, "linux/arm64", "d"), "");
	assert_string_equal(value(&s, SHIP_ANNOTATE_INDEX, NULL, "i"), "2");
	assert_false(ship_annotations_any(&s, SHIP_ANNOTATE_INDEX_DESC));
	ship_annotations_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_whose)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
