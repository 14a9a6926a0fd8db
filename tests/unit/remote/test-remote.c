/* What is said of wrong options, and which two are the same. */
#include "remote/remote.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

/* "type k=v k=v" */
static struct remote_spec spec(char *text, struct ship_kv *kv)
{
	struct remote_spec s = {.attrs = kv};
	for (char *save, *t = strtok_r(text, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		char *eq = strchr(t, '=');
		if (!s.type) {
			s.type = t;
			continue;
		}
		*eq = 0;
		kv[s.n_attrs++] = (struct ship_kv){t, eq + 1};
	}
	return s;
}

static void expect(const char *text, bool import, const char *wrong /* NULL: it is right */)
{
	struct ship_kv kv[16];
	_cleanup_free_ char *copy = xstrdup(text);
	_cleanup_err_ struct err e = ERR_INIT;
	struct remote_spec s = spec(copy, kv);
	int r = import ? remote_check_import(&s, &e) : remote_check_export(&s, &e);
	if ((r < 0) != (wrong != NULL) || (wrong && !strstr(e.msg, wrong)))
		fail_msg("%s: %s", text, e.msg ? e.msg : "no error");
}

static void test_exports(void **state)
{
	static const struct {
		const char *text, *wrong;
	} rows[] = {
		{"registry ref=localhost:5000/a", NULL},
		{"inline", NULL},
		{"local dest=/x compression=zstd compression-level=3 force-compression=", NULL},
		{"s3 bucket=b region=r access_key_id=a secret_access_key=s", NULL},
		{"azblob account_url=https://x.blob.core.windows.net secret_access_key=aGk=", NULL},
		{"nonsense", "unknown cache exporter: \"nonsense\""},
		{"registry", "failed to configure registry cache exporter: missing ref"},
		{"registry ref=UPPER", "must be lowercase"},
		{"registry ref=a image-manifest=true oci-mediatypes=false", "OCI mediatypes are required"},
		{"registry ref=a oci-mediatypes=false", NULL},
		{"registry ref=a oci-mediatypes=maybe", "failed to parse oci-mediatypes: strconv.ParseBool: parsing \"maybe\""},
		{"registry ref=a compression=lzma", "unsupported compression type lzma"},
		{"registry ref=a compression=estargz", "estargz is not supported"},
		{"registry ref=a compression-level=x", "non-integer value x"},
		{"local", "local cache exporter requires dest"},
		{"s3 region=r", "bucket ($AWS_BUCKET) not set for s3 cache"},
		{"s3 bucket=b region=r endpoint_url=ftp://x use_path_style=true", "not an http or https URL"},
		{"s3 bucket=b region=r upload_parallelism=0", "upload_parallelism must be a positive integer"},
		{"s3 bucket=b region=r retry_mode=x", "retry_mode must be"},
		{"azblob", "account_url attribute is required"},
		{"azblob account_url=https://x", "needs secret_access_key"},
	};
	for (size_t i = 0; i < array_len(rows); i++) expect(rows[i].text, false, rows[i].wrong);
}

static void test_imports(void **state)
{
	expect("registry ref=a", true, NULL);
	expect("inline", true, "unknown cache importer: inline");
	expect("local src=x", true, "local cache importer requires explicit digest");
	expect("local src=x digest=../../etc/passwd", true, "is not a digest");
	expect("local digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true, "requires src");
}

static void test_equal(void **state)
{
	struct ship_kv a[] = {{"ref", "x"}, {"mode", "max"}}, b[] = {{"mode", "max"}, {"ref", "x"}}, c[] = {{"ref", "y"}};
	struct remote_spec sa = {"registry", a, 2}, sb = {"registry", b, 2}, sc = {"registry", c, 1}, sl = {"local", a, 2};
	assert_true(remote_spec_equal(&sa, &sb));
	assert_false(remote_spec_equal(&sa, &sc));
	assert_false(remote_spec_equal(&sa, &sl));
	_cleanup_free_ char *name = remote_import_name(&sa), *other = remote_import_name(&sl), *same = remote_import_name(&sl);
	assert_string_equal(name, "x");
	assert_true(str_starts(other, "local:"));
	assert_string_equal(other, same);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_exports), cmocka_unit_test(test_imports),
					   cmocka_unit_test(test_equal)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
