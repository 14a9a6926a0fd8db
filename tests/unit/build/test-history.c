/* What is pure in history: filters, the log blob, which blobs a scan finds. */
#include "build/collect_job.h"
#include "build/history_job.h"
#include "build/internal.h"
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>

static char dir[64];
static struct blob_store *store;

static int setup(void **st)
{
	snprintf(dir, sizeof dir, "/tmp/test-history.XXXXXX");
	return mkdtemp(dir) ? blob_store_open(dir, &store, NULL) : -1;
}

static int teardown(void **st)
{
	blob_store_close(store);
	return path_remove_all(AT_FDCWD, dir, NULL);
}

/* ---- filters ---- */

static int matches(const Control__BuildHistoryRecord *r, const char *filter)
{
	struct history_filter *f;
	if (history_filter_new(&filter, 1, &f, NULL) < 0) return -1;
	bool ok = history_filter_match(f, r);
	history_filter_free(f);
	return ok;
}

static void filters(void **st)
{
	struct timespec now = time_now();
	Google__Timestamp from = GOOGLE__TIMESTAMP__INIT, to = GOOGLE__TIMESTAMP__INIT;
	Control__BuildHistoryRecord r = CONTROL__BUILD_HISTORY_RECORD__INIT;
	Control__BuildHistoryRecord__FrontendAttrsEntry context = CONTROL__BUILD_HISTORY_RECORD__FRONTEND_ATTRS_ENTRY__INIT,
							*attrs = &context;
	Rpc__Status error = RPC__STATUS__INIT;
	from.seconds = now.tv_sec - 600;
	to.seconds = now.tv_sec - 590;
	to.nanos = 500000000;
	r.ref = "abc1";
	r.createdat = &from;
	context.key = "context";
	context.value = "https://github.com/moby/buildkit.git#main";
	r.frontendattrs = &attrs;
	r.n_frontendattrs = 1;

	assert_int_equal(matches(&r, "status==running"), 1);
	r.completedat = &to;
	assert_int_equal(matches(&r, "status==completed"), 1);
	assert_int_equal(matches(&r, "status!=completed"), 0);
	r.error = &error;
	error.message = "it broke";
	assert_int_equal(matches(&r, "status==error"), 1);
	error.message = "failed: context canceled";
	assert_int_equal(matches(&r, "status==canceled"), 1);

	assert_int_equal(matches(&r, "ref==abc1,status==canceled"), 1);
	assert_int_equal(matches(&r, "ref==abc1,status==error"), 0);
	assert_int_equal(matches(&r, "ref~=^abc"), 1);
	assert_int_equal(matches(&r, "ref~=^bc"), 0);
	assert_int_equal(matches(&r, "repository==\"https://github.com/moby/buildkit.git\""), -1); /* a bare quote in CSV */
	assert_int_equal(matches(&r, "repository==https://github.com/moby/buildkit.git"), 1);
	assert_int_equal(matches(&r, "nothing==x"), 0);
	assert_int_equal(matches(&r, "nothing"), 0);
	assert_int_equal(matches(&r, "ref"), 1);

	assert_int_equal(matches(&r, "startedAt>1h"), 1); /* later than an hour ago */
	assert_int_equal(matches(&r, "startedAt>5m"), 0);
	assert_int_equal(matches(&r, "startedAt<5m,completedAt<5m"), 1);
	assert_int_equal(matches(&r, "startedAt>=2001-02-03T04:05:06Z"), 1);
	assert_int_equal(matches(&r, "duration>10s"), 1);
	assert_int_equal(matches(&r, "duration<=10s"), 0);
	assert_int_equal(matches(&r, "duration<=10.5s"), 1);

	assert_int_equal(matches(&r, "startedAt>soon"), -1);
	assert_int_equal(matches(&r, "duration>x"), -1);
	assert_int_equal(matches(&r, "ref=abc1"), -1);
	assert_int_equal(matches(&r, "ref=="), -1);
	assert_int_equal(matches(&r, "==abc1"), -1);
}

/* ---- the log blob ---- */

static int pack(struct prog_event *const *v, size_t n, struct buf *out)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	return wire_pack(&build_status_message(a, v, n)->base, out);
}

static struct prog_event *vertex(const char *of, bool done, bool cached)
{
	struct prog_vertex v = {.name = (char *)of, .started = {100, 0}, .cached = cached};
	if (done) v.completed = (struct timespec){101, 5};
	digest_str_of(of, strlen(of), v.digest);
	return prog_vertex_new(&v);
}

static void logs(void **st)
{
	static const struct tele_context trace_context = {"b60f6ce61cc3ad279d68e1cac4214723", "", true};
	static const struct strvec resource = {0};
	enum { BIG = 700 << 10 };
	_cleanup_free_ char *big = xcalloc(1, BIG);
	VEC(struct prog_event *) v = {0};
	struct err e = ERR_INIT;
	vec_push(&v, vertex("a", false, false));
	vec_push(&v, vertex("b", true, true));
	for (int i = 0; i < 5; i++) vec_push(&v, prog_log_new(v.v[0]->vertex.digest, 1, big, BIG));
	vec_push(&v, vertex("a", true, false));
	vec_push(&v, vertex("c", false, false));
	struct history_logs h = {.blobs = store,
				 .events = v.v,
				 .n_events = v.n,
				 .pack = pack,
				 .cut = build_status_cut,
				 .ref = "r",
				 .started = {100, 0},
				 .ended = {102, 0},
				 .trace = &trace_context,
				 .root_span = "ee6e4aa668101211",
				 .resource = &resource};
	assert_int_equal(history_logs_write(&h, &e), 0);
	assert_int_equal(h.steps, 3);
	assert_int_equal(h.cached, 1);
	assert_int_equal(h.completed, 2);

	_cleanup_free_ uint8_t *p = NULL;
	size_t n, vertexes = 0, messages = 0, bytes = 0;
	assert_int_equal(blob_read(store, h.digest, 16 << 20, &p, &n, &e), 0);
	assert_int_equal(n, h.bytes);
	for (size_t at = 0; at < n; messages++) {
		size_t len = p[at] | (size_t)p[at + 1] << 8 | (size_t)p[at + 2] << 16 | (size_t)p[at + 3] << 24;
		_cleanup_arena_ struct arena *a = arena_new(0);
		assert_true(at + 4 + len <= n);
		Control__StatusResponse *m =
			wire_unpack_as(Control__StatusResponse, control__status_response, p + at + 4, len, a, &e);
		assert_non_null(m);
		vertexes += m->n_vertexes;
		for (size_t i = 0; i < m->n_logs; i++) bytes += m->logs[i]->msg.len;
		at += 4 + len;
	}
	assert_int_equal(vertexes, 4);
	assert_int_equal(bytes, 5 * BIG);
	assert_true(messages > 1 && messages < 6);

	_cleanup_buf_ struct buf trace = BUF_INIT;
	size_t spans = 0;
	history_trace_json(&h, &trace);
	for (const char *at = buf_str(&trace); *at; spans++) { /* one object after the other */
		json_error_t je;
		json_t *j = json_loads(at, JSON_DISABLE_EOF_CHECK, &je);
		assert_non_null(j);
		assert_int_equal(json_string_length(json_object_get(json_object_get(j, "SpanContext"), "SpanID")), 16);
		json_decref(j);
		at += je.position;
		while (*at == '\n') at++;
	}
	assert_int_equal(spans, 3); /* the build, a and b; c never ended */
	assert_int_equal(history_trace_write(&h, &e), 0);
	assert_int_equal(h.n_spans, 3);
	assert_non_null(memmem(h.spans.p, h.spans.n, "moby.buildkit.v1.Control/Solve", 30));
	buf_fini(&h.spans);
	for (size_t i = 0; i < v.n; i++) prog_unref(v.v[i]);
	vec_fini(&v);
}

/* ---- blobs ---- */

static void put(const char *text, char digest[static DIGEST_STR])
{
	assert_int_equal(blob_put(store, text, strlen(text), digest, NULL), 0);
}

static char *image(const char *config, const char *layer)
{
	return xasprintf("{\"config\":{\"digest\":\"%s\"},\"layers\":[{\"mediaType\":\"application/"
			 "vnd.oci.image.layer.v1.tar\",\"digest\":\"%s\"}]}",
			 config, layer);
}

static void scan(void **st)
{
	char log[DIGEST_STR], lost[DIGEST_STR], layer[DIGEST_STR], shared[DIGEST_STR], other[DIGEST_STR], m1[DIGEST_STR],
		m2[DIGEST_STR], index[DIGEST_STR];
	put("log", log);
	put("lost", lost);
	put("layer", layer);
	put("{}", shared);
	put("{\"os\":\"linux\"}", other);
	_cleanup_free_ char *t1 = image(shared, layer), *t2 = image(other, layer);
	put(t1, m1);
	put(t2, m2);
	_cleanup_free_ char *ti = xasprintf("{\"manifests\":[{\"digest\":\"%s\"},{\"digest\":\"%s\"}]}", m1, m2);
	put(ti, index);

	/* Everything but what a record names, by way of its index; layers are the snapshots' business. */
	struct collect_scan c = {.blobs = store, .all = true, .before = INT64_MAX};
	map_put(&c.wanted, index, &c);
	map_put(&c.wanted, log, &c);
	assert_int_equal(collect_scan(&c, NULL), 0);
	assert_true(strvec_find(&c.found, lost) >= 0 && strvec_find(&c.found, layer) >= 0);
	assert_true(strvec_find(&c.found, log) < 0 && strvec_find(&c.found, index) < 0 && strvec_find(&c.found, m1) < 0 &&
		    strvec_find(&c.found, m2) < 0 && strvec_find(&c.found, shared) < 0 && strvec_find(&c.found, other) < 0);
	map_fini(&c.wanted);
	strvec_fini(&c.found);

	/* A record with the index is deleted, another one still has m1. */
	c = (struct collect_scan){.blobs = store};
	map_put(&c.wanted, m1, &c);
	map_put(&c.dropped, index, &c);
	assert_int_equal(collect_scan(&c, NULL), 0);
	assert_int_equal(c.found.n, 3);
	assert_true(strvec_find(&c.found, index) >= 0 && strvec_find(&c.found, m2) >= 0 && strvec_find(&c.found, other) >= 0);
	assert_int_equal(blob_trash(store, other, NULL), 1);
	assert_false(blob_has(store, other));
	assert_int_equal(blob_trash(store, other, NULL), 0);
	assert_int_equal(blob_trash_empty(store, NULL), 0);
	map_fini(&c.wanted);
	map_fini(&c.dropped);
	strvec_fini(&c.found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(filters),
		cmocka_unit_test_setup_teardown(logs, setup, teardown),
		cmocka_unit_test_setup_teardown(scan, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
