/* Against golden.txt: definitions and ops that BuildKit's Go client marshalled, with the JSON and the cache map that its
 * solver made of each. What must agree: bytes after a round trip, JSON, the cache digest, and per input the selector's
 * digest and whether content counts; and that what Go refuses is refused. Then what the file cannot show. */
#include "llb/llb.h"
#include "wire/wire.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char *golden_path;

struct golden {
	bool is_def;
	char *name, *json, *cache;
	bool refused;
	struct buf bytes;
	struct strvec deps, vertices;
};

static void golden_fini(struct golden *g)
{
	free(g->name);
	free(g->json);
	free(g->cache);
	buf_fini(&g->bytes);
	strvec_fini(&g->deps);
	strvec_fini(&g->vertices);
	*g = (struct golden){0};
}

static void unhex(const char *s, struct buf *out)
{
	for (; s[0] && s[1]; s += 2) {
		unsigned v;
		assert_int_equal(sscanf(s, "%2x", &v), 1);
		buf_addc(out, (char)v);
	}
}

/* Calls f for each record; the number of records. */
static size_t each_golden(void (*f)(const struct golden *g))
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t len, count = 0;
	assert_int_equal(path_read_file(AT_FDCWD, golden_path, 16 << 20, &text, &len, NULL), 0);
	struct golden g = {0};
	char *save;
	for (char *line = strtok_r((char *)text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *v = strchr(line, ' ');
		if (v) *v++ = 0;
		if (strcmp(line, "def") == 0 || strcmp(line, "op") == 0) {
			g.is_def = line[0] == 'd';
			g.name = xstrdup(v);
		} else if (strcmp(line, "bytes") == 0) {
			unhex(v, &g.bytes);
		} else if (strcmp(line, "json") == 0) {
			g.json = xstrdup(v);
		} else if (strcmp(line, "cache") == 0) {
			g.cache = xstrdup(v);
		} else if (strcmp(line, "dep") == 0) {
			strvec_add(&g.deps, v);
		} else if (strcmp(line, "vertex") == 0) {
			strvec_add(&g.vertices, v);
		} else if (strcmp(line, "error") == 0) {
			g.refused = true;
		} else if (strcmp(line, "end") == 0) {
			f(&g);
			golden_fini(&g);
			count++;
		}
	}
	return count;
}

static void assert_bytes(const struct golden *g, const struct buf *got)
{
	if (got->n != g->bytes.n || memcmp(got->p, g->bytes.p, got->n) != 0) fail_msg("%s: other bytes", g->name);
}

static void check_cache(const struct golden *g, const Pb__Op *op, struct arena *a)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct llb_cache_map m;
	int r = llb_cache_map(op, a, &m, &e);
	if (g->refused) {
		if (r == 0) fail_msg("%s: was taken", g->name);
		return;
	}
	if (!g->cache) return;
	if (r < 0) fail_msg("%s: %s", g->name, e.msg);
	_cleanup_buf_ struct buf text = BUF_INIT;
	llb_cache_text(op, &text, NULL);
	if (strcmp(m.digest, g->cache) != 0) fail_msg("%s: other cache digest of %s", g->name, buf_str(&text));
	assert_int_equal(m.n_deps, g->deps.n);
	for (size_t i = 0; i < m.n_deps; i++) {
		_cleanup_free_ char *got = xasprintf("%s %s", m.deps[i].selector[0] ? m.deps[i].selector : "-",
						     m.deps[i].content ? "content" : "-");
		if (strcmp(got, g->deps.v[i]) != 0) fail_msg("%s dep %zu: %s, not %s", g->name, i, got, g->deps.v[i]);
	}
}

static void check_op(const struct golden *g)
{
	if (g->is_def) return;
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	Pb__Op *op = wire_unpack(&pb__op__descriptor, g->bytes.p, g->bytes.n, a, &e);
	if (!op) fail_msg("%s: %s", g->name, e.msg);
	_cleanup_buf_ struct buf out = BUF_INIT, json = BUF_INIT;
	llb_marshal_op(op, &out);
	assert_bytes(g, &out);
	struct json_w w = JSON_W(&json);
	llb_json(&w, &op->base);
	assert_string_equal(buf_str(&json), g->json);
	check_cache(g, op, a);
}

static void check_def(const struct golden *g)
{
	if (!g->is_def) return;
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	Pb__Definition *def = wire_unpack(&pb__definition__descriptor, g->bytes.p, g->bytes.n, a, &e);
	if (!def) fail_msg("%s: %s", g->name, e.msg);
	_cleanup_buf_ struct buf out = BUF_INIT;
	llb_marshal(&def->base, &out);
	assert_bytes(g, &out);

	struct llb_graph *gr;
	const struct llb_load opt = {.skip_caps = true};
	if (llb_graph_load(def, a, &opt, &gr, &e) < 0) fail_msg("%s: %s", g->name, e.msg);
	assert_int_equal(gr->n_nodes, g->vertices.n - 1);
	for (size_t i = 0; i < gr->n_nodes; i++) {
		if (strvec_find(&g->vertices, gr->nodes[i].digest) < 0) fail_msg("%s: node %zu has another digest", g->name, i);
		for (size_t k = 0; k < gr->nodes[i].op->n_inputs; k++) assert_true(gr->nodes[i].inputs[k].node < i);
	}
	/* nothing changed, so nothing may change */
	assert_int_equal(llb_graph_redigest(gr, NULL), 0);
	for (size_t i = 0; i < gr->n_nodes; i++) assert_false(gr->nodes[i].changed);
	/* taken in and given out again it is the same graph, with the same metadata and places */
	struct llb_def *d = llb_def_new(a);
	const char *root;
	int64_t output;
	assert_int_equal(llb_def_import(d, def, &root, &output, NULL), 0);
	_cleanup_buf_ struct buf again = BUF_INIT;
	llb_marshal(&llb_def_finish(d, root, output)->base, &again);
	assert_int_equal(again.n, out.n);
	if (gr->n_nodes <= 2) assert_bytes(g, &again); /* one order only */
}

static void test_golden_ops(void **state) { assert_true(each_golden(check_op) > 40); }
static void test_golden_defs(void **state) { assert_true(each_golden(check_def) > 40); }

/* ---- made by hand ---- */

struct made {
	struct arena *a;
	struct llb_def *d;
	const char *alpine, *run;
};

static struct made make(void)
{
	struct made m = {.a = arena_new(0)};
	m.d = llb_def_new(m.a);
	Pb__Platform *p = llb_new(m.a, Pb__Platform, pb__platform__init);
	p->os = "linux";
	p->architecture = "amd64";
	Pb__Op *src = llb_op_source(m.a, "docker-image://docker.io/library/alpine:latest", p);
	Pb__OpMetadata *meta = llb_meta(m.a);
	llb_meta_cap(m.a, meta, "source.image");
	m.alpine = llb_def_add(m.d, src, meta, -1, NULL, 0);
	Pb__Op *run = llb_op_exec(m.a, p);
	const char *const args[] = {"/bin/sh", "-c", "echo <a> & b > /x\u2028"};
	for (size_t i = 0; i < array_len(args); i++) LLB_PUSH(m.a, run->exec->meta->n_args, run->exec->meta->args, args[i]);
	run->exec->meta->cwd = "/";
	Pb__Mount *root = llb_exec_mount(m.a, run, "/");
	root->input = llb_op_input(m.a, run, m.alpine, 0);
	root->output = 0;
	int file = llb_def_file(m.d, "Dockerfile", "Dockerfile", "FROM alpine\nRUN true\n", 21, NULL);
	m.run = llb_def_add(m.d, run, NULL, file, &(struct llb_range){2, 0, 2, 8}, 1);
	return m;
}

static void test_builder(void **state)
{
	struct made m = make();
	/* what the Go client gives this image and run: plainrun in golden.txt */
	assert_string_equal(m.alpine, "sha256:a7f9733e307dd352c82d43053b783dd17bb2ec2c36214908ce393e41545c8b51");
	assert_string_equal(m.run, "sha256:8efc600d8afbea967bb22b2727050188711adf89cac0a0fae4e210ddf6533607");
	struct llb_graph *g;
	assert_int_equal(llb_graph_load(llb_def_finish(m.d, m.run, 0), m.a, NULL, &g, NULL), 0);
	assert_int_equal(g->n_nodes, 2);
	assert_string_equal(g->nodes[g->root.node].name, "/bin/sh -c echo <a> & b > /x\u2028");
	Pb__Location **l;
	assert_int_equal(llb_graph_locations(g, &g->nodes[1], &l), 1);
	assert_int_equal(l[0]->ranges[0]->start->line, 2);
	assert_int_equal(llb_graph_locations(g, &g->nodes[0], &l), 0);
	assert_int_equal(llb_op_outputs(g->nodes[1].op), 1);
	/* another root needs less */
	assert_int_equal(llb_def_finish(m.d, m.alpine, 0)->n_def, 2);
	assert_int_equal(llb_def_finish(m.d, NULL, 0)->n_def, 0);
	assert_int_equal(llb_graph_load(llb_def_finish(m.d, NULL, 0), m.a, NULL, &g, NULL), 0);
	assert_int_equal(g->n_nodes, 0);
	arena_free(m.a);
}

static void test_policy_change(void **state)
{
	struct made m = make();
	struct llb_graph *g;
	assert_int_equal(llb_graph_load(llb_def_finish(m.d, m.run, 0), m.a, NULL, &g, NULL), 0);
	g->nodes[0].op->source->identifier = "docker-image://docker.io/library/busybox:latest";
	assert_int_equal(llb_graph_redigest(g, NULL), 0);
	assert_true(g->nodes[0].changed && g->nodes[1].changed);
	assert_string_equal(g->nodes[1].client_digest, m.run);
	assert_string_not_equal(g->nodes[1].digest, m.run);
	assert_string_equal(g->nodes[0].name, "docker-image://docker.io/library/busybox:latest");
	assert_ptr_equal(llb_graph_find(g, m.run), &g->nodes[1]);
	/* the proxy network marks the exec only */
	const struct llb_load opt = {.proxy_network = true};
	assert_int_equal(llb_graph_load(llb_def_finish(m.d, m.run, 0), m.a, &opt, &g, NULL), 0);
	assert_false(g->nodes[0].changed);
	assert_true(g->nodes[1].changed && g->nodes[1].proxy_network);
	arena_free(m.a);
}

static void expect_load_error(Pb__Definition *def, struct arena *a, const char *want)
{
	_cleanup_err_ struct err e = ERR_INIT;
	struct llb_graph *g;
	assert_int_equal(llb_graph_load(def, a, NULL, &g, &e), -1);
	assert_string_equal(e.msg, want);
}

static void test_load_errors(void **state)
{
	struct made m = make();
	Pb__Definition *def = llb_def_finish(m.d, m.run, 0);
	Pb__Definition cut = *def;
	cut.def++, cut.n_def--;
	_cleanup_free_ char *missing = xasprintf("failed to load LLB: invalid missing input digest %s", m.alpine);
	expect_load_error(&cut, m.a, missing);
	cut = *def;
	cut.n_def = 1;
	expect_load_error(&cut, m.a, "failed to load LLB: invalid LLB with 1 vertexes");
	ProtobufCBinaryData two[] = {def->def[1], def->def[0]};
	cut.def = (ProtobufCBinaryData[]){def->def[0], def->def[1], def->def[0]};
	cut.n_def = 3;
	expect_load_error(&cut, m.a, "failed to load LLB: invalid LLB with no inputs on last vertex");
	two[0] = (ProtobufCBinaryData){3, (uint8_t *)"\x0a\xff\x01"};
	cut.def = two;
	cut.n_def = 2;
	_cleanup_err_ struct err e = ERR_INIT;
	struct llb_graph *g;
	assert_int_equal(llb_graph_load(&cut, m.a, NULL, &g, &e), -1);
	assert_true(str_starts(e.msg, "failed to load LLB: failed to parse llb proto op: "));

	llb_meta_cap(m.a, def->metadata[0]->value, "no.such.thing");
	expect_load_error(def, m.a, "failed to load LLB: unknown API capability no.such.thing");
	Pb__Op *bare = llb_op_exec(m.a, NULL);
	struct llb_def *d = llb_def_new(m.a);
	const char *x = llb_def_add(d, bare, NULL, -1, NULL, 0);
	expect_load_error(llb_def_finish(d, x, 0), m.a, "failed to load LLB: invalid exec op with no args");
	/* a small arena ends it without a crash */
	_cleanup_arena_ struct arena *small = arena_new(600);
	llb_meta_cap(m.a, def->metadata[0]->value, "source.image");
	assert_int_equal(llb_graph_load(llb_def_finish(m.d, m.run, 0), small, NULL, &g, &e), -1);
	assert_int_equal(e.code, CODE_RESOURCE_EXHAUSTED);
	arena_free(m.a);
}

/* A chain as deep as is allowed must not need a deep stack, and merges of merges no endless name. */
static void test_deep(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct llb_def *d = llb_def_new(a);
	const char *x = llb_def_add(d, llb_op_source(a, "local://x", NULL), NULL, -1, NULL, 0);
	for (int i = 0; i < 60; i++) {
		Pb__Op *op = llb_op_merge(a);
		for (int k = 0; k < 2; k++) {
			Pb__MergeInput *in = llb_new(a, Pb__MergeInput, pb__merge_input__init);
			in->input = llb_op_input_new(a, op, x, 0);
			LLB_PUSH(a, op->merge->n_inputs, op->merge->inputs, in);
		}
		x = llb_def_add(d, op, NULL, -1, NULL, 0);
	}
	struct llb_graph *g;
	assert_int_equal(llb_graph_load(llb_def_finish(d, x, 0), a, NULL, &g, NULL), 0);
	assert_int_equal(g->n_nodes, 61);
	assert_true(strlen(g->nodes[g->root.node].name) < 10000);

	enum { DEEP = 3000 };
	Pb__Definition def = PB__DEFINITION__INIT;
	char digest[DIGEST_STR] = "";
	for (int i = 0; i <= DEEP; i++) {
		Pb__Op *op = i == 0 ? llb_op_source(a, "local://y", NULL) : llb_op_passthrough(a, "p");
		if (i) {
			llb_op_input(a, op, digest, 0);
			LLB_PUSH(a, op->passthrough->n_outputs, op->passthrough->outputs, 0);
		}
		_cleanup_buf_ struct buf b = BUF_INIT;
		llb_marshal_op(op, &b);
		ProtobufCBinaryData bytes = {b.n, arena_memdup(a, b.p, b.n)};
		LLB_PUSH(a, def.n_def, def.def, bytes);
		digest_str_of(b.p, b.n, digest);
	}
	assert_int_equal(llb_graph_load(&def, a, NULL, &g, NULL), 0);
	assert_int_equal(g->n_nodes, DEEP);
}

static void test_selectors(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	const char *in = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	Pb__Op *op = llb_op_file(a);
	const char *src[] = {"/b", "/a/x", "/a", "/c*", "/a-b", "/b"};
	for (size_t i = 0; i < array_len(src); i++) {
		Pb__FileAction *fa = llb_file_action(a, op);
		fa->action_case = PB__FILE_ACTION__ACTION_COPY;
		fa->copy = llb_new(a, Pb__FileActionCopy, pb__file_action_copy__init);
		fa->copy->src = src[i];
		fa->copy->allowwildcard = true;
		fa->secondaryinput = llb_op_input(a, op, in, 0);
		fa->output = i + 1 == array_len(src) ? 0 : LLB_NONE;
	}
	struct llb_cache_map m;
	assert_int_equal(llb_cache_map(op, a, &m, NULL), 0);
	assert_int_equal(m.n_deps, 1);
	assert_int_equal(m.deps[0].n_selectors, 4);
	const char *want[] = {"/a", "/a-b", "/b", "/c*"};
	for (size_t i = 0; i < 4; i++) {
		assert_string_equal(m.deps[0].selectors[i].path, want[i]);
		assert_int_equal(m.deps[0].selectors[i].wildcard, i == 3);
		assert_false(m.deps[0].selectors[i].follow_links);
	}
	/* exec: below "/" nothing is listed, the whole tree counts */
	Pb__Op *x = llb_op_exec(a, NULL);
	LLB_PUSH(a, x->exec->meta->n_args, x->exec->meta->args, "t");
	llb_exec_mount(a, x, "/");
	const char *sel[] = {"../x/y", "x", "z"};
	for (size_t i = 0; i < 3; i++) {
		Pb__Mount *mt = llb_exec_mount(a, x, "/m");
		mt->input = llb_op_input(a, x, in, 0);
		mt->selector = sel[i];
	}
	assert_int_equal(llb_cache_map(x, a, &m, NULL), 0);
	assert_true(m.deps[0].content);
	assert_int_equal(m.deps[0].n_selectors, 2);
	assert_string_equal(m.deps[0].selectors[0].path, "/x");
	assert_string_equal(m.deps[0].selectors[1].path, "/z");
	assert_true(m.deps[0].selectors[0].follow_links);
	Pb__Mount *all = llb_exec_mount(a, x, "/all");
	all->input = 0;
	assert_int_equal(llb_cache_map(x, a, &m, NULL), 0);
	assert_true(m.deps[0].content);
	assert_int_equal(m.deps[0].n_selectors, 0);
}

/* ---- sources ---- */

static int parse(struct arena *a, struct llb_source *s, struct err *e, const char *id, ...)
{
	Pb__Op *op = llb_op_source(a, id, NULL);
	va_list ap;
	va_start(ap, id);
	for (const char *k; (k = va_arg(ap, const char *));) llb_op_attr(a, op, k, va_arg(ap, const char *));
	va_end(ap);
	return llb_source_parse(op->source, NULL, a, s, e);
}

static void test_sources(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct llb_source s;
	assert_int_equal(parse(a, &s, NULL, "docker-image://localhost:5000/x/y:1.2@sha256:ab", "image.resolvemode", "local",
			       "image.recordtype", "frontend", "image.layerlimit", "2", "other", "z", NULL),
			 0);
	assert_int_equal(s.scheme, LLB_IMAGE);
	assert_string_equal(s.image.ref.locator, "localhost:5000/x/y");
	assert_string_equal(s.image.ref.host, "localhost:5000");
	assert_string_equal(s.image.ref.tag, "1.2");
	assert_string_equal(s.image.ref.digest, "sha256:ab");
	assert_string_equal(s.identifier, "docker-image://localhost:5000/x/y:1.2@sha256:ab");
	assert_int_equal(s.image.mode, LLB_RESOLVE_LOCAL);
	assert_int_equal(s.image.layer_limit, 2);
	assert_string_equal(s.image.record_type, "frontend");

	assert_int_equal(parse(a, &s, NULL, "git://github.com/moby/buildkit.git#v1:sub/../dir", "git.fullurl",
			       "git@github.com:moby/buildkit.git", "git.keepgitdir", "true", NULL),
			 0);
	assert_string_equal(s.git.remote, "git@github.com:moby/buildkit.git");
	assert_string_equal(s.git.ref, "v1");
	assert_string_equal(s.git.subdir, "dir");
	assert_string_equal(s.identifier, "git://github.com/moby/buildkit.git#v1:dir");
	_cleanup_buf_ struct buf key = BUF_INIT;
	llb_source_git_key(&s, "c0ffee", "refs/tags/v1", &key);
	assert_string_equal(buf_str(&key), "c0ffee.git#refs/tags/v1:dir");

	assert_int_equal(parse(a, &s, NULL, "https://example.com/a", "http.perm", "0644", "http.uid", "0x10",
			       "http.header.accept", "x", NULL),
			 0);
	assert_string_equal(s.http.url, "https://example.com/a");
	assert_int_equal(s.http.perm, 0644);
	assert_int_equal(s.http.uid, 16);
	assert_true(s.http.has_accept && !s.http.has_user_agent);

	assert_int_equal(parse(a, &s, NULL, "local://context", "local.session", "pre:id1", "local.includepattern",
			       "[\"a\",\"b\"]", "local.excludepatterns", "null", "local.followpaths", "[]", NULL),
			 0);
	assert_string_equal(s.local.name, "pre-context");
	assert_string_equal(s.local.session, "id1");
	assert_int_equal(s.local.include_patterns.n, 2);
	assert_false(s.local.exclude_patterns.set);
	assert_true(s.local.follow_paths.set);

	assert_int_equal(
		parse(a, &s, NULL, "oci-layout+blob://x/y@sha256:ab", "oci.store", "st", "http.filename", " a/b.txt ", NULL),
		0);
	assert_string_equal(s.blob.filename, "b.txt");
	assert_string_equal(s.blob.store, "st");
}

static void test_source_keys(void **state)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct llb_source s;
	char got[DIGEST_STR + 8], want[DIGEST_STR];
	_cleanup_buf_ struct buf key = BUF_INIT;
	assert_int_equal(parse(a, &s, NULL, "local://context", "local.followpaths", "[]", NULL), 0);
	llb_source_local_key(&s, "s1", &key);
	const char *json = "{\"SessionID\":\"s1\",\"IncludePatterns\":null,\"ExcludePatterns\":null,\"FollowPaths\":[]}";
	digest_str_of(json, strlen(json), want);
	assert_true(str_starts(buf_str(&key), "session:context:sha256:"));
	assert_true(str_ends(buf_str(&key), want));
	llb_source_digest(buf_str(&key), got);
	assert_true(str_starts(got, "random:"));
	llb_source_digest("x", got);
	digest_str_of("buildkit.source.v0:x", 20, want);
	assert_string_equal(got, want);
}

static void test_source_errors(void **state)
{
	static const struct {
		const char *id, *key, *value, *want;
	} bad[] = {
		{"nothing", NULL, NULL, "failed to parse nothing: invalid"},
		{"ftp://x", NULL, NULL, "unknown scheme ftp: not found"},
		{"docker-image://docker.io/library/alpine", NULL, NULL, "object required"},
		{"docker-image://x/y:1", "image.layerlimit", "0", "invalid layer limit 0"},
		{"docker-image://x/y:1", "image.layerlimit", "a",
		 "invalid layer limit a: strconv.Atoi: parsing \"a\": invalid syntax"},
		{"docker-image://x/y:1", "image.resolvemode", "maybe", "invalid resolvemode: maybe"},
		{"docker-image://x/y:1", "image.recordtype", "odd", "invalid record type odd"},
		{"https://x/y", "http.perm", "9z", "strconv.ParseInt: parsing \"9z\": invalid syntax"},
		{"https://x/y", "http.perm", "99999999999999999999",
		 "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"},
		{"https://x/y", "http.sig.pubkey", "k", "http signature verification requires both pubkey and signature"},
		{"oci-layout+blob://x/y@sha256:ab", NULL, NULL, "oci-layout blob source requires store id"},
		{"git://x/y#-o", NULL, NULL, "invalid git ref \"-o\""},
		{"local://x", "local.metadatatransfer", "maybe",
		 "invalid value for local.metadatatransfer \"maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax"},
	};
	for (size_t i = 0; i < array_len(bad); i++) {
		_cleanup_arena_ struct arena *a = arena_new(0);
		_cleanup_err_ struct err e = ERR_INIT;
		struct llb_source s;
		assert_int_equal(parse(a, &s, &e, bad[i].id, bad[i].key, bad[i].value, NULL), -1);
		assert_string_equal(e.msg, bad[i].want);
	}
}

static void test_caps(void **state)
{
	for (size_t i = 1; llb_caps[i].id; i++) assert_true(strcmp(llb_caps[i - 1].id, llb_caps[i].id) < 0);
	for (size_t i = 1; llb_gateway_caps[i].id; i++)
		assert_true(strcmp(llb_gateway_caps[i - 1].id, llb_gateway_caps[i].id) < 0);
	assert_int_equal(llb_cap_check("exec.mount.bind", NULL), 0);
	assert_true(llb_cap_has(llb_gateway_caps, "readfile"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden_ops),    cmocka_unit_test(test_golden_defs), cmocka_unit_test(test_builder),
		cmocka_unit_test(test_policy_change), cmocka_unit_test(test_load_errors), cmocka_unit_test(test_deep),
		cmocka_unit_test(test_selectors),     cmocka_unit_test(test_sources),     cmocka_unit_test(test_source_keys),
		cmocka_unit_test(test_source_errors), cmocka_unit_test(test_caps),
	};
	if (argc < 2) return 77;
	golden_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
