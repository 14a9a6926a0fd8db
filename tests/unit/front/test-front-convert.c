/* Dockerfiles against what BuildKit's own frontend makes of them. Each line of a golden file is one case: options, files,
 * what images resolve to, and the peer's result: operations byte by byte, their metadata, the source map, the image's
 * config, warnings, error texts and places. The files were written by a Go program that runs the peer's
 * frontend/dockerfile/builder with a client made of the case.
 *
 *   test-front-convert              runs the fixtures
 *   test-front-convert FILE [NAME]  compares any file of cases and prints every difference
 */
#include "front/front.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct world {
	const json_t *c;
	struct front_answers *answers;
	char *note;
	int rounds;       /* calls of front_convert */
	size_t asked[20]; /* questions each of them had */
};

/* ---- answers -------------------------------------------------------------------------------------------------------- */

static char *root_id(const Pb__Definition *def)
{
	for (size_t i = 0; i < def->n_def; i++) {
		Pb__Op *op = pb__op__unpack(NULL, def->def[i].len, def->def[i].data);
		assert_non_null(op);
		char *id = op->op_case == PB__OP__OP_SOURCE ? strdup(op->source->identifier) : NULL;
		pb__op__free_unpacked(op, NULL);
		if (id) return id;
	}
	return strdup("scratch");
}

static void answer_file(struct world *w, const struct front_question *q, struct front_answer *a)
{
	char *root = root_id(q->def), *clean = path_clean(q->path), *key = xasprintf("%s|%s", root, clean);
	const json_t *v = json_object_get(json_object_get(w->c, "files"), key);
	a->solved = true;
	if (v) {
		a->n = json_string_length(v);
		if (q->length && a->n > (size_t)q->length) a->n = (size_t)q->length;
		a->data = xmemdup(json_string_value(v), a->n);
	} else {
		err_set(&a->err, CODE_NOT_FOUND, "open %s: no such file or directory", q->path);
	}
	free(root);
	free(clean);
	free(key);
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static void answer_image(struct world *w, const struct front_question *q, struct front_answer *a)
{
	char *plat = q->platform ? spec_platform_format(q->platform) : strdup("");
	char *key = q->oci_layout ? xasprintf("oci|%s|%s|%s,%s", q->ref, plat, q->session, q->store)
				  : xasprintf("image|%s|%s|%s", q->ref, plat, q->resolve_mode ? q->resolve_mode : "");
	const json_t *v = json_object_get(json_object_get(w->c, "images"), key);
	if (!v) {
		free(w->note);
		w->note = xasprintf("the peer never asked for %s", key);
		err_set(&a->err, CODE_UNKNOWN, "%s", w->note);
	} else if (*text_of(v, "err")) {
		err_set(&a->err, CODE_UNKNOWN, "%s", text_of(v, "err"));
		if (*text_of(v, "redirect")) {
			a->redirect = strdup(text_of(v, "redirect"));
			err_set(&a->err, CODE_UNKNOWN, "ref mutated by policy to non-image: docker-image://%s -> %s", q->ref,
				a->redirect);
		}
	} else {
		a->n = strlen(text_of(v, "config"));
		a->data = xmemdup(text_of(v, "config"), a->n);
		a->ref = strdup(text_of(v, "ref"));
		a->digest = strdup(text_of(v, "digest"));
	}
	if (v && strcmp(text_of(v, "log_name"), q->log_name ? q->log_name : "") != 0) {
		free(w->note);
		w->note = xasprintf("log name is \"%s\", with the peer \"%s\"", q->log_name, text_of(v, "log_name"));
	}
	free(plat);
	free(key);
}

static void answer_source(struct world *w, const struct front_question *q, struct front_answer *a)
{
	const json_t *v = json_object_get(json_object_get(w->c, "meta"), q->source->identifier),
		     *t = json_object_get(v, "last_modified");
	if (*text_of(v, "commit") && q->git_object) {
		a->n_commit = strlen(text_of(v, "commit"));
		a->commit = xmemdup(text_of(v, "commit"), a->n_commit);
	}
	if (t) {
		a->has_last_modified = true;
		a->last_modified = json_integer_value(t);
	}
}

static void answer(struct world *w, const struct front_question *q)
{
	static void (*const how[])(struct world *, const struct front_question *, struct front_answer *) = {
		[FRONT_READ_FILE] = answer_file,
		[FRONT_IMAGE_META] = answer_image,
		[FRONT_SOURCE_META] = answer_source,
	};
	struct front_answer a = {0};
	assert_false(front_answers_has(w->answers, q->key)); /* a question is asked once */
	how[q->ask](w, q, &a);
	front_answers_put(w->answers, q->key, &a);
}

/* ---- the result as JSON --------------------------------------------------------------------------------------------- */

static json_t *json_of(const ProtobufCMessage *m)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct json_w w = JSON_W(&b);
	if (!m) return json_null();
	llb_json(&w, m);
	json_t *j = json_loads(buf_str(&b), JSON_DECODE_ANY, NULL);
	assert_non_null(j);
	return j;
}

static const Pb__OpMetadata *find_meta(const Pb__Definition *def, const char *digest)
{
	for (size_t i = 0; i < def->n_metadata; i++)
		if (strcmp(def->metadata[i]->key, digest) == 0) return def->metadata[i]->value;
	return NULL;
}

/* Group ids are random with the peer: they are numbered in the order in which they come. */
static void number_group(json_t *meta, json_t *ids)
{
	json_t *g = json_object_get(meta, "progress_group");
	if (!g) return;
	const char *id = text_of(g, "id");
	if (!json_object_get(ids, id)) {
		char *n = xasprintf("pg%zu", json_object_size(ids));
		json_object_set_new(ids, id, json_string(n));
		free(n);
	}
	json_object_set(g, "id", json_object_get(ids, id));
}

static json_t *ref_json(const char *id, const Pb__Definition *def)
{
	json_t *r = json_pack("{s:s, s:[], s:[]}", "id", id, "def", "meta"), *ids = json_object();
	for (size_t i = 0; i < def->n_def; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		char digest[DIGEST_STR];
		base64_encode(&b, def->def[i].data, def->def[i].len);
		digest_str_of(def->def[i].data, def->def[i].len, digest);
		json_array_append_new(json_object_get(r, "def"), json_string(buf_str(&b)));
		const Pb__OpMetadata *m = find_meta(def, digest);
		json_t *j = json_of(m ? &m->base : NULL);
		number_group(j, ids);
		json_array_append_new(json_object_get(r, "meta"), j);
	}
	json_object_set_new(r, "source", def->n_def ? json_of(&def->source->base) : json_string(""));
	json_decref(ids);
	return r;
}

static json_t *ranges_json(Pb__Range *const *v, size_t n)
{
	json_t *l = n ? json_array() : json_null();
	for (size_t i = 0; i < n; i++) json_array_append_new(l, json_of(&v[i]->base));
	return l;
}

static json_t *text_json(const void *p, size_t n)
{
	char *s = utf8_clean(p, n);
	json_t *j = json_string(s);
	free(s);
	return j;
}

static int by_id(const void *x, const void *y)
{
	return strcmp(((const struct front_ref *)x)->id, ((const struct front_ref *)y)->id);
}

static int by_text(const void *x, const void *y)
{
	char *a = json_dumps(*(json_t *const *)x, JSON_SORT_KEYS), *b = json_dumps(*(json_t *const *)y, JSON_SORT_KEYS);
	int c = strcmp(a, b);
	free(a);
	free(b);
	return c;
}

/* The peer warns from several threads: the order does not count. */
static void sort_list(json_t *l)
{
	size_t n = json_array_size(l);
	json_t **v = xcalloc(n + 1, sizeof *v);
	for (size_t i = 0; i < n; i++) v[i] = json_incref(json_array_get(l, i));
	qsort(v, n, sizeof *v, by_text);
	json_array_clear(l);
	for (size_t i = 0; i < n; i++) json_array_append_new(l, v[i]);
	free(v);
}

static void put_warnings(json_t *j, const struct front_result *r)
{
	for (size_t i = 0; i < r->n_warnings; i++) {
		const struct front_warning *w = &r->warnings[i];
		json_array_append_new(json_object_get(j, "warnings"),
				      json_pack("{s:s, s:s, s:s, s:s, s:i, s:o}", "digest", w->digest, "short", w->short_text,
						"detail", w->detail, "url", w->url, "level", (int)w->level, "ranges",
						ranges_json(w->ranges, w->n_ranges)));
	}
	sort_list(json_object_get(j, "warnings"));
}

static json_t *result_json(struct front_result *r)
{
	json_t *j = json_pack("{s:[], s:{}, s:[], s:s, s:[], s:n}", "refs", "metadata", "warnings", "error", "", "sources",
			      "forward");
	if (r->n_refs > 1) qsort(r->refs, r->n_refs, sizeof *r->refs, by_id);
	for (size_t i = 0; i < r->n_refs; i++) {
		json_t *x = ref_json(r->refs[i].id, r->refs[i].def);
		for (size_t k = 0; k < r->refs[i].n_attestations; k++) {
			if (!k) json_object_set_new(x, "att", json_array());
			json_array_append_new(json_object_get(x, "att"),
					      ref_json(r->refs[i].platform_id, r->refs[i].attestations[k].def));
		}
		json_array_append_new(json_object_get(j, "refs"), x);
	}
	for (size_t i = 0; i < r->n_metadata; i++)
		json_object_set_new(json_object_get(j, "metadata"), r->metadata[i].key,
				    text_json(r->metadata[i].value, r->metadata[i].n));
	put_warnings(j, r);
	if (r->state == FRONT_FORWARD) {
		json_t *o = json_object();
		for (size_t i = 0; i < r->forward.n_opts; i++) {
			char *k = strdup(r->forward.opts[i]), *eq = strchr(k, '=');
			*eq = 0;
			json_object_set_new(o, k, json_string(eq + 1));
			free(k);
		}
		json_object_set_new(j, "forward", o);
	}
	return j;
}

static json_t *error_json(const struct err *e, const struct front_result *r)
{
	json_t *j = json_pack("{s:[], s:{}, s:[], s:o, s:[], s:n}", "refs", "metadata", "warnings", "error",
			      text_json(e->msg, strlen(e->msg)), "sources", "forward");
	put_warnings(j, r);
	for (const struct err_detail *d = e->details; d; d = d->next) {
		if (strcmp(d->type_url, "github.com/moby/buildkit/errdefs.Source+json") != 0) {
			assert_null(strstr(d->type_url, "slipway"));
			continue;
		}
		json_t *o = json_loadb((const char *)d->data, d->len, 0, NULL), *ranges = json_object_get(o, "ranges");
		assert_non_null(json_object_get(o, "info"));
		json_array_insert(json_object_get(j, "sources"), 0, ranges ? ranges : json_null());
		json_decref(o);
	}
	return j;
}

/* ---- running one ---------------------------------------------------------------------------------------------------- */

static Pb__Definition *input_def(const json_t *text, struct arena *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	json_t *inner = json_loads(json_string_value(text), JSON_DECODE_ANY, NULL);
	assert_non_null(inner);
	assert_int_equal(base64_decode(json_string_value(inner), json_string_length(inner), &b, NULL), 0);
	json_decref(inner);
	return pb__definition__unpack(NULL, b.n, b.p);
}

static json_t *run_case(struct world *w)
{
	struct arena *a = arena_new(0);
	_cleanup_strvec_ struct strvec opts = {0};
	_cleanup_err_ struct err e = ERR_INIT;
	struct front_named_def inputs[8];
	struct spec_platform plats[2] = {0};
	struct front_result r = {0};
	const char *k;
	json_t *v, *out = NULL;
	assert_int_equal(spec_platform_parse_normal("linux/amd64", &plats[0], NULL), 0);
	assert_int_equal(spec_platform_parse_normal("linux/386", &plats[1], NULL), 0);
	json_object_foreach(json_object_get(w->c, "opts"), k, v) strvec_addf(&opts, "%s=%s", k, json_string_value(v));
	struct front_input in = {
		.opts = opts.v,
		.n_opts = opts.n,
		.session_id = text_of(w->c, "session"),
		.build_platforms = plats,
		.n_build_platforms = 2,
		.inputs = inputs,
		.answers = w->answers,
	};
	json_object_foreach(json_object_get(w->c, "input_defs"), k, v) inputs[in.n_inputs++] =
		(struct front_named_def){k, input_def(v, a)};
	for (int round = 0; !out; round++) {
		assert_in_range(round, 0, 19);
		w->rounds = round + 1;
		if (front_convert(&in, a, &r, &e) < 0) {
			out = error_json(&e, &r);
		} else if (r.state != FRONT_ASKS) {
			out = result_json(&r);
		} else {
			assert_true(r.n_questions > 0);
			w->asked[w->rounds - 1] = r.n_questions;
			for (size_t i = 0; i < r.n_questions; i++) answer(w, &r.questions[i]);
		}
	}
	for (size_t i = 0; i < in.n_inputs; i++) pb__definition__free_unpacked((Pb__Definition *)inputs[i].def, NULL);
	spec_platform_fini(&plats[0]);
	spec_platform_fini(&plats[1]);
	arena_free(a);
	return out;
}

/* ---- comparing ------------------------------------------------------------------------------------------------------ */

/* The peer's JSON texts inside the JSON, opened. */
static void open_texts(json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key), *x;
	if (json_is_string(v) && *json_string_value(v)) {
		x = json_loads(json_string_value(v), JSON_DECODE_ANY, NULL);
		assert_non_null(x);
		json_object_set_new(o, key, x);
		return;
	}
	for (size_t i = 0; i < json_array_size(v); i++) {
		x = json_loads(json_string_value(json_array_get(v, i)), JSON_DECODE_ANY, NULL);
		assert_non_null(x);
		json_array_set_new(v, i, x);
	}
}

static void open_want(json_t *want)
{
	size_t i, k;
	json_t *r, *att;
	open_texts(want, "sources");
	json_array_foreach(json_object_get(want, "refs"), i, r)
	{
		open_texts(r, "meta");
		open_texts(r, "source");
		json_array_foreach(json_object_get(r, "att"), k, att)
		{
			open_texts(att, "meta");
			open_texts(att, "source");
		}
	}
	json_array_foreach(json_object_get(want, "warnings"), i, r) open_texts(r, "ranges");
	sort_list(json_object_get(want, "warnings"));
	json_object_del(want, "asked");
}

static void show(const char *path, const char *side, const json_t *v)
{
	char *s = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_SORT_KEYS) : strdup("(none)");
	printf("    %s %s: %.1500s\n", path, side, s);
	free(s);
}

static char *op_text(const json_t *v)
{
	_cleanup_buf_ struct buf b = BUF_INIT, out = BUF_INIT;
	struct json_w w = JSON_W(&out);
	if (!json_is_string(v) || base64_decode(json_string_value(v), json_string_length(v), &b, NULL) < 0) return strdup("?");
	Pb__Op *op = pb__op__unpack(NULL, b.n, b.p);
	if (!op) return strdup("?");
	llb_json(&w, &op->base);
	pb__op__free_unpacked(op, NULL);
	return buf_take_str(&out);
}

static bool differ(const char *path, const json_t *want, const json_t *got)
{
	if (want && got && json_equal(want, got)) return false;
	const char *k;
	json_t *v;
	size_t i;
	if (json_is_object(want) && json_is_object(got)) {
		json_object_foreach((json_t *)want, k, v)
		{
			char *sub = xasprintf("%s.%s", path, k);
			if (!json_equal(v, json_object_get(got, k))) differ(sub, v, json_object_get(got, k));
			free(sub);
		}
		json_object_foreach((json_t *)got, k, v) if (!json_object_get(want, k))
		{
			char *sub = xasprintf("%s.%s", path, k);
			show(sub, "only here", v);
			free(sub);
		}
		return true;
	}
	if (json_is_array(want) && json_is_array(got) && json_array_size(want) == json_array_size(got)) {
		json_array_foreach((json_t *)want, i, v)
		{
			char *sub = xasprintf("%s[%zu]", path, i);
			differ(sub, v, json_array_get(got, i));
			free(sub);
		}
		return true;
	}
	if (strstr(path, ".def[")) {
		char *x = op_text(want), *y = op_text(got);
		printf("    %s want: %.1500s\n    %s got:  %.1500s\n", path, x, path, y);
		free(x);
		free(y);
		return true;
	}
	show(path, "want", want);
	show(path, "got ", got);
	return true;
}

static bool check_line(const char *line, const char *only)
{
	json_t *c = json_loads(line, JSON_ALLOW_NUL, NULL);
	assert_non_null(c);
	bool ok = true;
	if (!only || strcmp(text_of(c, "name"), only) == 0) {
		struct world w = {.c = c, .answers = front_answers_new()};
		json_t *want = json_object_get(c, "want"), *got = run_case(&w);
		open_want(want);
		if (!json_equal(want, got) || w.note) {
			printf("  differs: %s\n", text_of(c, "name"));
			if (w.note) printf("    %s\n", w.note);
			differ("", want, got);
			ok = false;
		}
		json_decref(got);
		front_answers_free(w.answers);
		free(w.note);
	}
	json_decref(c);
	return ok;
}

static size_t check_file(const char *path, const char *only, size_t *ret_n)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0, bad = 0;
	assert_non_null(f);
	*ret_n = 0;
	while (getline(&line, &cap, f) > 0) {
		bad += !check_line(line, only);
		(*ret_n)++;
	}
	free(line);
	fclose(f);
	return bad;
}

/* The Dockerfile and the ignore file first, then all images of all platforms at once. */
static void test_rounds(void **state)
{
	static const char text[] = "{\"name\":\"rounds\",\"session\":\"s\",\"opts\":{\"platform\":\"linux/amd64,linux/"
				   "arm64\"},\"meta\":{},\"files\":{"
				   "\"local://dockerfile|Dockerfile\":\"FROM a\\nFROM b AS b\\nFROM c\\nCOPY --from=b x "
				   "y\\nCOPY --from=d x y\\n\"},\"images\":{}}";
	json_t *c = json_loads(text, 0, NULL);
	struct world w = {.c = c, .answers = front_answers_new()};
	json_t *got = run_case(&w);
	assert_int_equal(w.rounds, 3);
	assert_int_equal(w.asked[0], 4); /* Dockerfile, dockerfile, Dockerfile.dockerignore, .dockerignore */
	assert_int_equal(w.asked[1], 6); /* b, c and d for two platforms; a is not needed */
	assert_non_null(strstr(text_of(got, "error"), "the peer never asked"));
	json_decref(got);
	json_decref(c);
	front_answers_free(w.answers);
	free(w.note);
}

static void test_forward(void **state)
{
	static const char detail[] = "{}", url[] = "github.com/moby/buildkit/errdefs.Source+json";
	struct front_result r = {.state = FRONT_FORWARD};
	_cleanup_err_ struct err e = ERR_INIT;
	assert_true(front_serves("docker/dockerfile:1.7-labs"));
	assert_true(front_serves("docker.io/docker/dockerfile"));
	assert_false(front_serves("docker/dockerfile2"));
	assert_false(front_serves("ghcr.io/docker/dockerfile:1"));
	r.forward.source_detail = detail;
	r.forward.n_source_detail = 2;
	err_set(&e, CODE_UNKNOWN, "boom");
	assert_int_equal(front_forward_error(&r, &e), -1);
	assert_non_null(err_detail_find(&e, url));
	r.forward.error_prefix = "failed with build-arg:BUILDKIT_SYNTAX = x";
	front_forward_error(&r, &e); /* it has a source already: left as it is */
	assert_string_equal(e.msg, "boom");
	err_set(&e, CODE_UNKNOWN, "boom");
	front_forward_error(&r, &e);
	assert_string_equal(e.msg, "failed with build-arg:BUILDKIT_SYNTAX = x: boom");
}

static void test_golden(void **state)
{
	size_t n;
	assert_int_equal(check_file(FIXTURES "/convert-golden.jsonl", NULL, &n), 0);
	assert_true(n > 50);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		size_t n, bad = check_file(argv[1], argc > 2 ? argv[2] : NULL, &n);
		printf("%zu cases, %zu differ\n", n, bad);
		return bad != 0;
	}
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_rounds),
					   cmocka_unit_test(test_forward)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
