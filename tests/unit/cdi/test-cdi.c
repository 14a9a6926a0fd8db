/* Specification files to devices, which file wins, and what a request means. */
#include "cdi/cdi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void put(const char *dir, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
}

static const char yaml[] =
	"cdiVersion: \"0.6.0\"\n"
	"kind: vendor1.com/device\n"
	"annotations:\n  org.mobyproject.buildkit.device.autoallow: true\n"
	"containerEdits:\n  env: [ALL=1]\n"
	"devices:\n"
	"- name: foo\n  annotations:\n    org.mobyproject.buildkit.device.class: class1\n"
	"  containerEdits:\n    env:\n    - FOO=injected\n"
	"    deviceNodes:\n    - {path: /dev/foo, hostPath: /dev/null, fileMode: 0660, permissions: rw}\n"
	"    hooks:\n    - {hookName: createContainer, path: /bin/true, args: [true, x], timeout: 5}\n"
	"    additionalGids: [7, 8]\n"
	"- name: bar\n  containerEdits:\n    mounts:\n    - {hostPath: /a, containerPath: /b, options: [ro]}\n";

static void test_parse(void **state)
{
	struct cdi_spec *s = NULL;
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(cdi_spec_parse(yaml, sizeof yaml - 1, true, &s, &e), 0);
	assert_int_equal(s->devices.n, 2);
	const struct cdi_device *d = &s->devices.v[0];
	assert_string_equal(d->name, "vendor1.com/device=foo");
	assert_true(d->auto_allow);
	assert_string_equal(d->edits.env.v[0], "FOO=injected");
	assert_string_equal(d->common->env.v[0], "ALL=1");
	assert_int_equal(d->edits.nodes.v[0].mode, 0660);
	assert_int_equal(d->edits.nodes.v[0].uid, -1);
	assert_int_equal(d->edits.hooks.v[0].kind, CDI_CREATE_CONTAINER);
	assert_int_equal(d->edits.hooks.v[0].timeout, 5);
	assert_string_equal(d->edits.hooks.v[0].args.v[0], "true");
	assert_int_equal(d->edits.gids.v[1], 8);
	assert_string_equal(s->devices.v[1].edits.mounts.v[0].options.v[0], "ro");
	cdi_spec_free(s);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text;
		bool yaml;
		const char *says;
	} rows[] = {
		{"", true, "empty"},
		{"{", false, "line 1"},
		{"a: &x [1]\nb: *x\n", true, "line 2: an alias"},
		{"a: 1\na: 2\n", true, "line 2: this key"},
		{"cdiVersion: 0.6.0\nkind: noclass\n", true, "VENDOR/CLASS"},
		{"{\"cdiVersion\":\"0.6.0\",\"kind\":\"a.b/c\",\"devices\":[]}", false, "no devices"},
		{"{\"cdiVersion\":\"0.6.0\",\"kind\":\"a.b/c\",\"devices\":[{\"name\":\"-\"}]}", false, "no name of a device"},
		{"{\"cdiVersion\":\"0.6.0\",\"kind\":\"a.b/c\",\"devices\":[{\"name\":\"x\"},{\"name\":\"x\"}]}", false,
		 "twice"},
		{"{\"cdiVersion\":\"0.6.0\",\"kind\":\"a.b/"
		 "c\",\"devices\":[{\"name\":\"x\",\"containerEdits\":{\"deviceNodes\":[{\"path\":"
		 "\"/dev/x\",\"type\":\"z\"}]}}]}",
		 false, "type must be"},
	};
	for (size_t i = 0; i < array_len(rows); i++) {
		struct cdi_spec *s = NULL;
		_cleanup_err_ struct err e = ERR_INIT;
		assert_int_equal(cdi_spec_parse(rows[i].text, strlen(rows[i].text), rows[i].yaml, &s, &e), -1);
		if (!strstr(e.msg, rows[i].says)) fail_msg("%s: %s", rows[i].says, e.msg);
	}
}

static void expect(const struct cdi *c, const char *request, const char *names)
{
	_cleanup_strvec_ struct strvec v = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	int r = cdi_resolve(c, request, false, &v, &e);
	_cleanup_free_ char *got = r < 0 ? xstrdup(e.msg) : strvec_join(&v, " ");
	assert_string_equal(got, names);
}

static void test_registry(void **state)
{
	char dir[] = "/tmp/test-cdi-XXXXXX";
	assert_non_null(mkdtemp(dir));
	_cleanup_free_ char *a = xasprintf("%s/a", dir), *b = xasprintf("%s/b", dir), *rm = xasprintf("rm -r %s", dir);
	mkdir(a, 0700);
	char *dirs[] = {a, b}, *allowed[] = {"json.com/x"};
	struct cdi *c = cdi_new(dirs, 2, allowed, 1);
	cdi_look(c);
	assert_int_equal(cdi_count(c), 0);
	put(a, "one.yaml", yaml);
	put(a, "bad.yaml", ":");
	put(a, "two.json", "{\"cdiVersion\":\"0.6.0\",\"kind\":\"json.com/x\",\"devices\":[{\"name\":\"0\"}]}");
	cdi_look(c);
	assert_int_equal(cdi_count(c), 3);
	assert_true(cdi_get(c, "json.com/x=0")->auto_allow);
	expect(c, "vendor1.com/device", "vendor1.com/device=bar");
	expect(c, "vendor1.com/device=*", "vendor1.com/device=bar vendor1.com/device=foo");
	expect(c, "vendor1.com/device=foo", "vendor1.com/device=foo");
	expect(c, "class1", "vendor1.com/device=foo");
	expect(c, "vendor2.com/x=y", "required device \"vendor2.com/x=y\" is not registered");
	/* a second file of the folder: nobody's; a later folder: wins */
	put(a, "three.json", "{\"cdiVersion\":\"0.6.0\",\"kind\":\"json.com/x\",\"devices\":[{\"name\":\"0\"}]}");
	cdi_look(c);
	assert_null(cdi_get(c, "json.com/x=0"));
	mkdir(b, 0700);
	put(b, "four.json",
	    "{\"cdiVersion\":\"0.6.0\",\"kind\":\"json.com/"
	    "x\",\"devices\":[{\"name\":\"0\",\"annotations\":{\"from\":\"b\"}}]}");
	cdi_look(c);
	assert_string_equal(strvec_env_get(&cdi_get(c, "json.com/x=0")->annotations, "from"), "b");
	cdi_free(c);
	assert_int_equal(system(rm), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse), cmocka_unit_test(test_refused),
					   cmocka_unit_test(test_registry)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
