/* The parsing half of front against what BuildKit's own packages answer: shell.jsonl and parser.jsonl are samples of the
 * conformance data, instr.jsonl holds everything that is read from a Dockerfile (dump.c and an oracle in Go print it alike).
 * FRONT_DATA=DIR runs DIR's whole shell.jsonl and parser.jsonl too. Arguments: files in instr.jsonl's form. */
#include "dump.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <cmocka.h>

typedef void case_fn(json_t *c);

static size_t each(const char *path, case_fn *fn)
{
	FILE *f = fopen(path, "re");
	if (!f) fail_msg("no fixture %s", path);
	char *line = NULL;
	size_t cap = 0, n = 0;
	ssize_t len;
	while ((len = getline(&line, &cap, f)) > 0) {
		json_error_t je;
		json_t *c = json_loadb(line, (size_t)len, JSON_ALLOW_NUL, &je);
		if (!c) fail_msg("%s: %s", path, je.text);
		fn(c);
		json_decref(c);
		n++;
	}
	free(line);
	fclose(f);
	return n;
}

static void golden(const char *name, size_t at_least, case_fn *fn)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", FIXTURES, name);
	assert_true(each(path, fn) >= at_least);
	const char *dir = getenv("FRONT_DATA");
	_cleanup_free_ char *more = dir ? xasprintf("%s/%s", dir, name) : NULL;
	if (more && !access(more, R_OK)) print_message("%s: %zu cases\n", more, each(more, fn));
}

static const char *str(json_t *c, const char *key)
{
	json_t *v = json_object_get(c, key);
	return json_is_string(v) ? json_string_value(v) : "";
}

static bool truth(json_t *c, const char *key) { return json_is_true(json_object_get(c, key)); }

#define same(what, want, got)                                                                           \
	do {                                                                                            \
		if (strcmp(want, got) != 0) fail_msg("%s: %s: want %s, got %s", what, #got, want, got); \
	} while (0)

static void same_strs(const char *what, json_t *want, struct ast_strs got)
{
	if (json_array_size(want) != got.n) {
		_cleanup_free_ char *w = json_dumps(want, JSON_COMPACT | JSON_ENCODE_ANY);
		fail_msg("%s: want %s, got %zu: %s", what, w, got.n, got.n ? got.v[0] : "");
	}
	for (size_t i = 0; i < got.n; i++) same(what, json_string_value(json_array_get(want, i)), got.v[i]);
}

/* ---- shell ---- */

static void shell_case(json_t *c)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct err e = ERR_INIT;
	struct strvec env = {0};
	json_t *v;
	size_t i;
	json_array_foreach(json_object_get(c, "env"), i, v) strvec_add(&env, json_string_value(v));
	struct shell_list list = {env.v, env.n};
	struct shell_env get = {shell_list_get, &list};
	struct shell_opt o = {.escape = '\\',
			      .raw_quotes = truth(c, "raw_quotes"),
			      .raw_escapes = truth(c, "raw_escapes"),
			      .skip_unset = truth(c, "skip_unset")};
	struct shell_result r;
	const char *in = str(c, "input"), *want = str(c, "error");
	if (shell_process(a, &o, &get, in, &r, &e) < 0) {
		same(in, want, e.msg);
		err_fini(&e);
	} else {
		same(in, want, "");
		same(in, str(c, "word"), r.word);
		same_strs(in, json_object_get(c, "words"), r.words);
		same_strs(in, json_object_get(c, "unmatched"), r.unmatched);
	}
	strvec_fini(&env);
}

static void test_shell(void **state) { golden("shell.jsonl", 200, shell_case); }

/* ---- nodes ---- */

static void node_dump(struct arena *a, const struct ast_node *n, struct buf *b)
{
	for (const char *p = n->value; *p; p++) buf_addc(b, (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p));
	for (size_t i = 0; i < n->flags.n; i++) {
		_cleanup_free_ char *q = go_quote(n->flags.v[i], strlen(n->flags.v[i]));
		buf_addf(b, "%s%s%s", i ? " " : " [", q, i + 1 == n->flags.n ? "]" : "");
	}
	if (n->sub) {
		buf_adds(b, " (");
		node_dump(a, n->sub, b);
		buf_addc(b, ')');
	}
	for (size_t i = 0; i < n->words.n; i++) {
		_cleanup_free_ char *q = go_quote(n->words.v[i], strlen(n->words.v[i]));
		buf_addf(b, " %s", q);
	}
}

/* A NUL of JSON is kept as JSON_NUL. */
static void nul_dump(struct buf *b)
{
	static const char kept[] = "\\xc0\\x80";
	for (char *at; b->p && (at = strstr((char *)b->p, kept));) {
		memmove(at, "\\x00", 4);
		memmove(at + 4, at + 8, strlen(at + 8) + 1);
		b->n -= 4;
	}
}

static void node_case(const char *name, json_t *want, const struct ast_node *n)
{
	json_t *v, *attrs = json_object_get(want, "attributes"), *docs = json_object_get(want, "heredocs");
	size_t i;
	bool nul = strstr(n->original, "\\u0000");
	same(name, str(want, "instruction"), n->value);
	same(name, str(want, "original"), n->original);
	assert_int_equal(json_integer_value(json_object_get(want, "start")), n->at.start);
	assert_int_equal(json_integer_value(json_object_get(want, "end")), n->at.end);
	assert_int_equal(json_array_size(attrs), n->json);
	same_strs(name, json_object_get(want, "flags"), n->flags);
	same_strs(name, json_object_get(want, "comments"), n->comments);
	if (!n->sub && !nul) same_strs(name, json_object_get(want, "words"), n->words);
	assert_int_equal(json_array_size(docs), n->n_heredocs);
	json_array_foreach(docs, i, v)
	{
		same(name, str(v, "name"), n->heredocs[i].name);
		same(name, str(v, "content"), n->heredocs[i].content);
		assert_int_equal(truth(v, "chomp"), n->heredocs[i].chomp);
		assert_int_equal(truth(v, "expand"), n->heredocs[i].expand);
		assert_int_equal(json_integer_value(json_object_get(v, "fd")), n->heredocs[i].fd);
	}
}

static void stages_case(const char *name, json_t *c, struct arena *a, const struct ast *f)
{
	struct err e = ERR_INIT;
	struct instr_file df;
	json_t *stages = json_object_get(c, "stages"), *meta = json_object_get(c, "meta_args"), *v, *w;
	size_t i, j;
	if (instr_parse(a, f, NULL, &df, &e) < 0) {
		same(name, str(c, "instructions_error"), e.msg);
		assert_true(ast_err_places(a, &e).n > 0);
		err_fini(&e);
		return;
	}
	same(name, str(c, "instructions_error"), "");
	assert_int_equal(json_array_size(meta), df.n_meta_args);
	json_array_foreach(meta, i, v) same(name, json_string_value(v), df.meta_args[i]->code);
	assert_int_equal(json_array_size(stages), df.n_stages);
	json_array_foreach(stages, i, v)
	{
		const struct instr_stage *s = &df.stages[i];
		json_t *commands = json_object_get(v, "commands");
		same(name, str(v, "base"), s->base);
		same(name, str(v, "name"), s->name);
		same(name, str(v, "platform"), s->platform);
		assert_int_equal(json_array_size(commands), s->n_commands);
		json_array_foreach(commands, j, w)
		{
			same(name, str(w, "name"), s->commands[j]->name);
			same(name, str(w, "string"), s->commands[j]->code);
		}
	}
}

static void parser_case(json_t *c)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	struct ast f;
	struct ast_directive d = {.first = ""};
	const char *name = str(c, "name"), *text = str(c, "dockerfile");
	ast_find_directive(a, "syntax", text, strlen(text), &d);
	same(name, str(c, "syntax"), d.first);
	if (ast_parse(a, text, strlen(text), &f, &e) < 0) {
		same(name, str(c, "parse_error"), e.msg);
		err_fini(&e);
		return;
	}
	same(name, str(c, "parse_error"), "");
	json_t *v, *nodes = json_object_get(c, "nodes"), *warnings = json_object_get(c, "warnings");
	size_t i;
	assert_int_equal(*str(c, "escape"), f.escape);
	assert_int_equal(json_array_size(nodes), f.n_nodes);
	json_array_foreach(nodes, i, v)
	{
		node_case(name, v, f.nodes[i]);
		buf_adds(&b, i ? "\n(" : "(");
		node_dump(a, f.nodes[i], &b);
		buf_addc(&b, ')');
	}
	nul_dump(&b);
	same(name, str(c, "ast"), buf_str(&b));
	assert_int_equal(json_array_size(warnings), f.n_warnings);
	json_array_foreach(warnings, i, v) same(name, json_string_value(v), f.warnings[i].text);
	stages_case(name, c, a, &f);
}

static void test_parser(void **state) { golden("parser.jsonl", 60, parser_case); }

/* ---- everything ---- */

static void instr_case(json_t *c)
{
	json_t *in = json_object_get(c, "in");
	_cleanup_free_ char *got = dump_dockerfile(json_string_value(in), json_string_length(in));
	if (strcmp(str(c, "out"), got) != 0) {
		const char *w = str(c, "out"), *g = got;
		while (*w && *w == *g) w++, g++;
		fail_msg("--- in\n%s\n--- want\n%s\n--- got\n%s\n--- from\n%.80s\n%.80s", json_string_value(in), str(c, "out"),
			 got, w, g);
	}
}

static int n_files;
static char **files;

static void test_instr(void **state)
{
	golden("instr.jsonl", 100, instr_case);
	for (int i = 0; i < n_files; i++) print_message("%s: %zu cases\n", files[i], each(files[i], instr_case));
}

/* ---- what no golden case holds ---- */

static int parse(struct arena *a, const char *text, size_t n, struct err *e)
{
	struct ast f;
	struct instr_file df;
	return ast_parse(a, text, n, &f, e) < 0 ? -1 : instr_parse(a, &f, NULL, &df, e);
}

static void refused(const char *text, size_t n, const char *why)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(parse(a, text, n, &e), -1);
	if (!strstr(e.msg, why)) fail_msg("want ...%s..., got %.200s", why, e.msg);
	assert_true(arena_used_bytes(a) < 400 << 20);
}

static char *repeat(const char *head, const char *s, size_t total)
{
	struct buf b = BUF_INIT;
	buf_adds(&b, head);
	while (b.n < total) buf_adds(&b, s);
	return buf_take_str(&b);
}

static void test_limits(void **state)
{
	_cleanup_free_ char *big = repeat("FROM x\n", "# c\n", AST_MAX_TEXT + 10);
	refused(big, strlen(big), "greater than max allowed size of 16777216");
	_cleanup_free_ char *wide = repeat("FROM x\n", "a", 70000);
	refused(wide, strlen(wide), "dockerfile line greater than max allowed size of 65535");
	_cleanup_free_ char *joined = repeat("FROM x\nRUN x", " aaaaaaaaaaaaaaaaaaaa\\\n", 5 << 20);
	refused(joined, strlen(joined), "instruction greater than");
	_cleanup_free_ char *words = repeat("FROM x\n", "EXPOSE 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n", 4 << 20);
	refused(words, strlen(words), "words");
	_cleanup_free_ char *lines = repeat("FROM x\n", "RUN a\n", 4 << 20);
	refused(lines, strlen(lines), "instructions");
	_cleanup_free_ char *triggers = repeat("FROM x\n", "ONBUILD ", 60000);
	refused(triggers, strlen(triggers), "ONBUILD");
	_cleanup_free_ char *args = repeat("FROM x\nARG ", " a a a a a a a a a a a a a a a a\\\n", 3 << 20);
	refused(args, strlen(args), "words");
	_cleanup_free_ char *docs = repeat("FROM x\nRUN a", " <<a\\\n", 16000);
	refused(docs, strlen(docs), "heredocs");
	_cleanup_free_ char *deep = repeat("FROM x\nCMD ", "[", 60000);
	_cleanup_arena_ struct arena *a = arena_new(0);
	assert_int_equal(parse(a, deep, strlen(deep), NULL), 0); /* no JSON: a shell command */
	refused("FROM x\nRUN a\0b\n", 15, "NUL byte on line 2");
	refused("F\0R\0", 4, "UTF-16");
	refused("", 0, "file with no instructions");
}

static void test_shell_limits(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	struct shell_opt o = {.escape = '\\'};
	const char *ret;
	_cleanup_free_ char *deep = repeat("", "${a:-", 60000);
	assert_int_equal(shell_word(a, &o, &shell_no_env, deep, &ret, &e), -1);
	_cleanup_free_ char *value = repeat("A=", "x", 1 << 20), *many = repeat("", "$A", 1 << 20);
	struct shell_list list = {&value, 1};
	struct shell_env env = {shell_list_get, &list};
	assert_int_equal(shell_word(a, &o, &env, many, &ret, &e), -1);
	assert_non_null(strstr(e.msg, "longer than"));
	_cleanup_free_ char *stars = repeat("${A#", "*y", 60000), *closed = xasprintf("%s}", stars);
	assert_int_equal(shell_word(a, &o, &env, closed, &ret, &e), -1);
	assert_non_null(strstr(e.msg, "too long"));
}

static void test_lint(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	struct lint_config c;
	assert_int_equal(lint_config_parse(a, " skip=A, B ; error = true;experimental=all", &c, &e), 0);
	assert_true(c.skip.n == 2 && !strcmp(c.skip.v[1], "B") && c.error && c.experimental_all && !c.skip_all);
	assert_int_equal(lint_config_parse(a, "skip", &c, &e), -1);
	assert_string_equal(e.msg, "invalid check option \"skip\"");
	assert_int_equal(lint_config_parse(a, "error=x", &c, &e), -1);
	assert_string_equal(e.msg,
			    "failed to parse check option \"error=x\": strconv.ParseBool: parsing \"x\": invalid syntax");
	assert_int_equal(lint_config_parse(a, "a;b;c;d", &c, &e), -1);
	for (int i = 0; i < LINT_COUNT; i++) assert_non_null(lint_rules[i].name);
}

static size_t spoken;
static void speak(void *arg, const struct lint_rule *r, const char *message, struct ast_lines at) { spoken++; }

static void test_lint_skip(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	struct lint_config c;
	assert_int_equal(lint_config_parse(a, "skip=StageNameCasing;error=true", &c, &e), 0);
	struct lint l = lint_new(a, &c, speak, NULL);
	struct ast_lines at = {1, 1};
	lint_run(&l, LINT_STAGE_NAME_CASING, at, "X");
	lint_run(&l, LINT_INVALID_DEFINITION_DESCRIPTION, at, "ARG", "x"); /* experimental */
	assert_int_equal(spoken, 0);
	assert_int_equal(lint_error(&l, &e), 0);
	const char *comment[] = {"check=skip=FromAsCasing"};
	struct lint here = lint_with_comments(&l, (struct ast_strs){comment, 1});
	lint_run(&here, LINT_FROM_AS_CASING, at, "as", "FROM");
	assert_int_equal(spoken, 0);
	lint_run(&l, LINT_FROM_AS_CASING, at, "as", "FROM");
	lint_run(&here, LINT_MAINTAINER_DEPRECATED, at);
	assert_int_equal(spoken, 2);
	assert_int_equal(lint_error(&l, &e), -1);
	assert_string_equal(e.msg, "lint violation found for rules: FromAsCasing, MaintainerDeprecated");
}

int main(int argc, char **argv)
{
	n_files = argc - 1;
	files = argv + 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shell),     cmocka_unit_test(test_parser),       cmocka_unit_test(test_instr),
		cmocka_unit_test(test_limits),    cmocka_unit_test(test_shell_limits), cmocka_unit_test(test_lint),
		cmocka_unit_test(test_lint_skip),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
