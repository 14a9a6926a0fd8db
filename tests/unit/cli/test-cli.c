/* Option parsing, the small grammars, and the displays. statuses.txt is what BuildKit's own progressui printed for
 * statuses.json; rawjson.txt is lines of a real `buildctl --progress rawjson`. */
#include "term/flags.h"
#include "cli/internal.h"
#include "progress/model.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#ifndef FIXTURES
#define FIXTURES "."
#endif

/* ---- command lines ---- */
static struct args parse(enum dialect d, const char *line, struct err *e)
{
	struct strvec v = {0};
	struct args a;
	_cleanup_free_ char *copy = xstrdup(line);
	for (char *s = strtok(copy, " "); s; s = strtok(NULL, " ")) strvec_add(&v, s);
	args_parse(&a, d, d == DIALECT_BUILDCTL ? &buildctl_root : &buildx_root, v.v, v.n, e);
	strvec_fini(&v);
	return a;
}

static void test_buildctl_flags(void **state)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct args a = parse(DIALECT_BUILDCTL,
			      "--addr=tcp://x:1 build --frontend dockerfile.v0 -local context=. --local=dockerfile=d -o "
			      "type=oci --no-cache=false "
			      "--opt a=b,c --tlskey k",
			      &e);
	assert_false(err_is_set(&e));
	assert_string_equal(args_command(&a)->name, "build");
	assert_string_equal(args_str(&a, "addr"), "tcp://x:1");
	assert_string_equal(args_str(&a, "tlskey"), "k"); /* an outer flag inside */
	assert_int_equal(args_list(&a, "local")->n, 2);
	assert_string_equal(args_list(&a, "local")->v[1], "dockerfile=d");
	assert_string_equal(args_list(&a, "opt")->v[0], "a=b,c");
	assert_string_equal(args_list(&a, "output")->v[0], "type=oci");
	assert_false(args_bool(&a, "no-cache"));
	assert_string_equal(args_str(&a, "progress"), "auto");
	assert_int_equal(args_int(&a, "timeout"), 5);
	args_fini(&a);
}

static void test_letters(void **state)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct args a = parse(DIALECT_BUILDX,
			      "build -qf Some.Dockerfile -tname:1 -t=other . --add-host a:1,b:2 --add-host c:3 --pull", &e);
	assert_false(err_is_set(&e));
	assert_true(args_bool(&a, "quiet"));
	assert_true(args_bool(&a, "pull"));
	assert_string_equal(args_str(&a, "file"), "Some.Dockerfile");
	assert_string_equal(args_list(&a, "tag")->v[0], "name:1");
	assert_string_equal(args_list(&a, "tag")->v[1], "other");
	assert_int_equal(args_list(&a, "add-host")->n, 3);
	assert_int_equal(a.rest.n, 1);
	args_fini(&a);
	a = parse(DIALECT_BUILDX, "build -- -x", &e);
	assert_string_equal(a.rest.v[0], "-x");
	args_fini(&a);
	a = parse(DIALECT_BUILDX, "build -", &e);
	assert_string_equal(a.rest.v[0], "-");
	args_fini(&a);
	assert_false(err_is_set(&e));
}

static void test_bad_flags(void **state)
{
	static const struct {
		enum dialect d;
		const char *line, *text;
	} cases[] = {
		{DIALECT_BUILDCTL, "build --bogus", "flag provided but not defined: -bogus"},
		{DIALECT_BUILDCTL, "build --frontent x", "flag provided but not defined: -frontent (did you mean --frontend?)"},
		{DIALECT_BUILDCTL, "build --frontend", "flag needs an argument: --frontend"},
		{DIALECT_BUILDCTL, "prune --keep-duration abc",
		 "invalid value \"abc\" for flag -keep-duration: time: invalid duration \"abc\""},
		{DIALECT_BUILDCTL, "--timeout x du",
		 "invalid value \"x\" for flag -timeout: strconv.ParseInt: parsing \"x\": invalid syntax"},
		{DIALECT_BUILDCTL, "biuld", "No help topic for 'biuld' (did you mean build?)"},
		{DIALECT_BUILDX, "build --bogus .", "unknown flag: --bogus"},
		{DIALECT_BUILDX, "build --lable a=b .", "unknown flag: --lable (did you mean --label?)"},
		{DIALECT_BUILDX, "build -Z .", "unknown shorthand flag: 'Z' in -Z"},
		{DIALECT_BUILDX, "build --shm-size many .", NULL},
		{DIALECT_BUILDX, "build", "'build' requires 1 argument"},
		{DIALECT_BUILDX, "build a b", "'build' requires 1 argument"},
	};
	for (size_t i = 0; i < array_len(cases); i++) {
		_cleanup_err_ struct err e = ERR_INIT;
		struct args a = parse(cases[i].d, cases[i].line, &e);
		assert_true(err_is_set(&e));
		if (cases[i].text) assert_string_equal(e.msg, cases[i].text);
		args_fini(&a);
	}
}

static void test_help(void **state)
{
	_cleanup_err_ struct err e = ERR_INIT;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct args a = parse(DIALECT_BUILDCTL, "du -help", &e);
	assert_true(a.want_help);
	unsetenv("BUILDKIT_HOST");
	args_help(&a, "buildctl", "v1", &b);
	args_fini(&a);
	assert_true(str_starts(buf_str(&b),
			       "NAME:\n   buildctl du - disk usage\n\nUSAGE:\n   buildctl du [options]\n\nOPTIONS:\n"
			       "   --filter string, -f string [ --filter string, -f string ]  Filter records\n"
			       "   --verbose, -v                                              Verbose output\n"));
	assert_non_null(
		strstr(buf_str(&b),
		       "   --addr string           buildkitd address (default: \"unix:///run/buildkit/buildkitd.sock\")\n"));
	a = parse(DIALECT_BUILDCTL, "-v", &e);
	assert_true(a.want_version);
	args_fini(&a);
	a = parse(DIALECT_BUILDCTL, "du -v", &e);
	assert_false(a.want_version);
	assert_true(args_bool(&a, "verbose"));
	args_fini(&a);
}

/* ---- grammars ---- */
static void check_csv(const char *in, const char *joined)
{
	struct strvec v = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	int rv = csv_fields(in, ',', &v, &e);
	_cleanup_free_ char *s = rv < 0 ? xstrdup(e.msg) : strvec_join(&v, "|");
	assert_string_equal(s, joined);
	strvec_fini(&v);
}

static void test_csv(void **state)
{
	check_csv("type=oci,dest=a", "type=oci|dest=a");
	check_csv("a,\"b,c\",,d", "a|b,c||d");
	check_csv("\"say \"\"hi\"\"\"", "say \"hi\"");
	check_csv("a,", "a|");
	check_csv("", "EOF");
	check_csv("a\"b", "parse error on line 1, column 2: bare \" in non-quoted-field");
	check_csv("\"a\"b", "parse error on line 1, column 3: extraneous or missing \" in quoted-field");
	check_csv("\"a", "parse error on line 1, column 3: extraneous or missing \" in quoted-field");
}

static void test_tabs(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	tab_format("ID\tPLATFORMS\nabcdefghijkl\tlinux\n", 1, 8, 1, '\t', &b);
	assert_string_equal(buf_str(&b), "ID\t\tPLATFORMS\nabcdefghijkl\tlinux\n");
	buf_reset(&b);
	tab_format("a\tb\tc\naaa\tb\tc\n\nlong cell\tx\n", 0, 1, 3, ' ', &b);
	assert_string_equal(buf_str(&b), "a     b   c\naaa   b   c\n\nlong cell   x\n");
}

static void check_text(const char *got, const char *want) { assert_string_equal(got, want); }

static void test_units(void **state)
{
	char s[48];
	bytes_format(999, 2, s), check_text(s, "999B");
	bytes_format(1000, 2, s), check_text(s, "1.00kB");
	bytes_format(7160000, 2, s), check_text(s, "7.16MB");
	bytes_format(51000000000, -1, s), check_text(s, "51GB");
	bytes_format(1234000, -1, s), check_text(s, "1.234MB");
	bytes_format(0, 2, s), check_text(s, "0B");
	duration_format(172800000000000, s), check_text(s, "48h0m0s");
	duration_format(1500000, s), check_text(s, "1.5ms");
	duration_format(61250000000, s), check_text(s, "1m1.25s");
	duration_format(0, s), check_text(s, "0s");
	time_format_go(1795312832966724561, s), check_text(s, "2026-11-22 02:00:32.966724561 +0000 UTC");
}

static void check_template(const char *format, const char *want)
{
	json_t *v = json_loads("{\"id\":\"x\",\"list\":[{\"n\":1,\"s\":\"a\"},{\"n\":2,\"s\":\"\"}],\"yes\":true,\"none\":null,"
			       "\"m\":{\"k.v\":\"w\"}}",
			       0, NULL);
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT;
	int rv = template_run(format, v, &b, &e);
	assert_string_equal(rv < 0 ? e.msg : buf_str(&b), want);
	json_decref(v);
}

static void test_templates(void **state)
{
	check_template("{{.ID}} {{json .List}}", "x [{\"n\":1,\"s\":\"a\"},{\"n\":2,\"s\":\"\"}]");
	check_template("{{range .list}}{{.n}}{{if .s}}={{.s}}{{else}}!{{end}};{{end}}", "1=a;2!;");
	check_template("{{range .none}}x{{else}}empty{{end}}", "empty");
	check_template("{{ len .list }}{{println}}{{index .m \"k.v\"}}", "2\nw");
	check_template("{{printf \"%s-%d\" .id (len .list)}}", "x-2");
	check_template("{{.id | printf \"<%s>\"}}", "<x>");
	check_template("a {{- .id -}} b", "axb");
	check_template("{{if .yes}}{{if .none}}1{{else}}2{{end}}{{end}}", "2");
	check_template("{{.Foo}}", "template: :1:3: executing \"\" at <.Foo>: can't evaluate field Foo");
	check_template("{{range .list}}", "template: :1:15: unexpected EOF");
	check_template("{{", "template: :1:2: missing value for command");
	check_template("{{nope .}}", "template: :1:2: function \"nope\" not defined");
}

/* ---- displays ---- */
static int64_t fake_ns;
static int64_t fake_now(void) { return fake_ns; }

static Google__Timestamp *time_of(struct arena *mem, json_t *v)
{
	struct timespec t;
	if (!json_is_string(v)) return NULL;
	assert_int_equal(time_parse_rfc3339(json_string_value(v), &t, NULL), 0);
	Google__Timestamp *g = arena_new_of(mem, Google__Timestamp);
	google__timestamp__init(g);
	g->seconds = t.tv_sec;
	g->nanos = (int32_t)t.tv_nsec;
	return g;
}

static const char *str_of(struct arena *mem, json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? arena_strdup(mem, s) : "";
}

static ProtobufCBinaryData bytes_of(struct arena *mem, json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (s) base64_decode(s, strlen(s), &b, NULL);
	return (ProtobufCBinaryData){.len = b.n, .data = b.n ? arena_memdup(mem, b.p, b.n) : NULL};
}

static Control__Vertex *vertex_of(struct arena *mem, json_t *o)
{
	Control__Vertex *v = arena_new_of(mem, Control__Vertex);
	json_t *inputs = json_object_get(o, "inputs"), *g = json_object_get(o, "progressGroup");
	control__vertex__init(v);
	v->digest = str_of(mem, o, "digest");
	v->name = str_of(mem, o, "name");
	v->error = str_of(mem, o, "error");
	v->cached = json_is_true(json_object_get(o, "cached"));
	v->started = time_of(mem, json_object_get(o, "started"));
	v->completed = time_of(mem, json_object_get(o, "completed"));
	v->inputs = arena_alloc(mem, (json_array_size(inputs) + 1) * sizeof *v->inputs);
	for (size_t i = 0; i < json_array_size(inputs); i++)
		v->inputs[v->n_inputs++] = arena_strdup(mem, json_string_value(json_array_get(inputs, i)));
	if (g) {
		v->progressgroup = arena_new_of(mem, Pb__ProgressGroup);
		pb__progress_group__init(v->progressgroup);
		v->progressgroup->id = str_of(mem, g, "id");
		v->progressgroup->name = str_of(mem, g, "name");
		v->progressgroup->weak = json_is_true(json_object_get(g, "weak"));
	}
	return v;
}

static Control__VertexStatus *status_of(struct arena *mem, json_t *o)
{
	Control__VertexStatus *s = arena_new_of(mem, Control__VertexStatus);
	control__vertex_status__init(s);
	s->id = str_of(mem, o, "id");
	s->vertex = str_of(mem, o, "vertex");
	s->name = str_of(mem, o, "name");
	s->current = json_integer_value(json_object_get(o, "current"));
	s->total = json_integer_value(json_object_get(o, "total"));
	s->timestamp = time_of(mem, json_object_get(o, "timestamp"));
	s->started = time_of(mem, json_object_get(o, "started"));
	s->completed = time_of(mem, json_object_get(o, "completed"));
	return s;
}

static Control__VertexLog *log_of(struct arena *mem, json_t *o)
{
	Control__VertexLog *l = arena_new_of(mem, Control__VertexLog);
	control__vertex_log__init(l);
	l->vertex = str_of(mem, o, "vertex");
	l->stream = json_integer_value(json_object_get(o, "stream"));
	l->msg = bytes_of(mem, o, "data");
	l->timestamp = time_of(mem, json_object_get(o, "timestamp"));
	return l;
}

static Control__VertexWarning *warning_of(struct arena *mem, json_t *o)
{
	Control__VertexWarning *w = arena_new_of(mem, Control__VertexWarning);
	control__vertex_warning__init(w);
	w->vertex = str_of(mem, o, "vertex");
	w->level = json_integer_value(json_object_get(o, "level"));
	w->short_ = bytes_of(mem, o, "short");
	return w;
}

#define LIST_OF(field, key, fn)                                                            \
	do {                                                                               \
		json_t *_l = json_object_get(o, key);                                      \
		m->field = arena_alloc(mem, (json_array_size(_l) + 1) * sizeof *m->field); \
		for (size_t _i = 0; _i < json_array_size(_l); _i++)                        \
			m->field[m->n_##field++] = fn(mem, json_array_get(_l, _i));        \
	} while (0)

static Control__StatusResponse *message_of(struct arena *mem, const char *line, size_t n)
{
	json_t *o = json_loadb(line, n, 0, NULL);
	Control__StatusResponse *m = arena_new_of(mem, Control__StatusResponse);
	assert_non_null(o);
	control__status_response__init(m);
	LIST_OF(vertexes, "vertexes", vertex_of);
	LIST_OF(statuses, "statuses", status_of);
	LIST_OF(logs, "logs", log_of);
	LIST_OF(warnings, "warnings", warning_of);
	json_decref(o);
	return m;
}

static char *read_fixture(const char *name)
{
	_cleanup_free_ char *path = path_join(FIXTURES, name);
	uint8_t *p;
	size_t n;
	assert_int_equal(path_read_file(AT_FDCWD, path, 1 << 20, &p, &n, NULL), 0);
	return (char *)p;
}

static void test_plain(void **state)
{
	_cleanup_free_ char *in = read_fixture("statuses.json"), *want = read_fixture("statuses.txt");
	_cleanup_arena_ struct arena *mem = arena_new(0);
	_cleanup_free_ uint8_t *got = NULL;
	size_t n;
	char path[] = "/tmp/test-cli-XXXXXX";
	int fd = mkstemp(path);
	struct progress *p;
	setenv("TTY_DISPLAY_RATE", "1", 1);
	fake_ns = 1795312833000000000;
	assert_int_equal(progress_new("plain", fd, fake_now, &p, NULL), 0);
	progress_title(p, "building", "");
	for (const char *s = in; *s;) {
		size_t len = strcspn(s, "\n");
		progress_update(p, message_of(mem, s, len));
		fake_ns += 4000000;
		s += len + 1;
	}
	progress_done(p);
	progress_free(p);
	close(fd);
	assert_int_equal(path_read_file(AT_FDCWD, path, 1 << 20, &got, &n, NULL), 0);
	unlink(path);
	assert_string_equal((char *)got, want);
}

static void test_rawjson(void **state)
{
	_cleanup_free_ char *in = read_fixture("rawjson.txt");
	_cleanup_arena_ struct arena *mem = arena_new(0);
	size_t lines = 0;
	for (const char *s = in; *s; lines++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		size_t len = strcspn(s, "\n");
		_cleanup_free_ char *want = xstrndup(s, len + 1);
		progress_json(message_of(mem, s, len), &b);
		assert_string_equal(buf_str(&b), want);
		s += len + 1;
	}
	assert_true(lines > 20);
}

static void test_terminal(void **state)
{
	struct vt *v = vt_new(3, 10);
	_cleanup_buf_ struct buf b = BUF_INIT;
	static const char text[] = "one\ntwo\r2wo\n\x1b[31mthree\x1b[0m\nfo\bXr \xc3\xa9\x1b[K\nwraps at ten";
	vt_write(v, (const uint8_t *)text, strlen(text));
	assert_true(vt_line(v, 0, &b));
	assert_string_equal(buf_str(&b), "fXr \xc3\xa9     ");
	buf_reset(&b);
	assert_true(vt_line(v, 1, &b));
	assert_string_equal(buf_str(&b), "wraps at t");
	assert_int_equal(vt_used(v), 3);
	vt_resize(v, 2, 4);
	buf_reset(&b);
	assert_true(vt_line(v, 1, &b));
	assert_string_equal(buf_str(&b), "en  ");
	vt_write(v, (const uint8_t *)"\x1b[99999999999;1H\x1b[2J\x1b[A\xff\xf0\x9f", 24); /* out of range, cut runes: no harm */
	vt_free(v);
}

static void test_tty(void **state)
{
	_cleanup_free_ char *in = read_fixture("statuses.json");
	_cleanup_arena_ struct arena *mem = arena_new(0);
	struct trace t = {.now = fake_now, .keep_terms = true, .width = 60};
	struct tty d = {0};
	_cleanup_buf_ struct buf b = BUF_INIT;
	fake_ns = 1795312833000000000;
	for (const char *s = in; *s;) {
		size_t len = strcspn(s, "\n");
		trace_update(&t, message_of(mem, s, len));
		fake_ns += 4000000;
		buf_reset(&b);
		tty_print(&d, &t, 60, 12, false, &b);
		/* no line is wider than the terminal, and no more of them than fit */
		size_t lines = 0;
		for (const char *p = buf_str(&b); *p; lines++) {
			size_t n = strcspn(p, "\n"), cols = 0;
			for (size_t i = 0; i < n; i++) {
				if (p[i] == '\x1b') {
					while (i < n && !((p[i] >= 'A' && p[i] <= 'Z') || (p[i] >= 'a' && p[i] <= 'z'))) i++;
					continue;
				}
				cols += ((unsigned char)p[i] & 0xc0) != 0x80;
			}
			assert_true(cols <= 60);
			p += n + (p[n] == '\n');
		}
		assert_true(lines <= 24);
		s += len + 1;
	}
	buf_reset(&b);
	tty_print(&d, &t, 60, 12, true, &b);
	assert_non_null(strstr(buf_str(&b), "ERROR [4/4] RUN test"));
	assert_non_null(strstr(buf_str(&b), "CACHED [2/4] WORKDIR /src"));
	assert_non_null(strstr(buf_str(&b), "FINISHED"));
	trace_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buildctl_flags), cmocka_unit_test(test_letters),   cmocka_unit_test(test_bad_flags),
		cmocka_unit_test(test_help),           cmocka_unit_test(test_csv),       cmocka_unit_test(test_tabs),
		cmocka_unit_test(test_units),          cmocka_unit_test(test_templates), cmocka_unit_test(test_plain),
		cmocka_unit_test(test_rawjson),        cmocka_unit_test(test_terminal),  cmocka_unit_test(test_tty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
