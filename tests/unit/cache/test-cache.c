/* The cache graph: what is written is read again as the same, and what a peer may write wrong is an error. */
#include "cache/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define L0 "sha256:0000000000000000000000000000000000000000000000000000000000000000"
#define L1 "sha256:1111111111111111111111111111111111111111111111111111111111111111"

static struct cache_graph *sample(void)
{
	struct cache_graph *g = cache_graph_new();
	struct cache_blob l0 = {.digest = (char *)L0, .media_type = (char *)"t", .diff_id = (char *)L0, .size = 5};
	struct cache_blob l1 = {.digest = (char *)L1, .media_type = (char *)"t", .diff_id = (char *)L1, .size = 6};
	size_t b[] = {cache_graph_blob(g, &l0), cache_graph_blob(g, &l1)};
	size_t root = (size_t)cache_graph_add(g, A, NULL, 0), content = (size_t)cache_graph_add(g, B, NULL, 0);
	struct cache_link in0[] = {{root, "sel"}, {content, ""}};
	struct cache_dep dep = {in0, 2};
	size_t step = (size_t)cache_graph_add(g, C, &dep, 1);
	cache_graph_result(g, step, (struct timespec){1700000000, 5}, b, 2);
	cache_graph_result(g, step, (struct timespec){1600000000, 0}, b, 1);
	return g;
}

static void test_round_trip(void **state)
{
	_cleanup_cache_graph_ struct cache_graph *g = sample(), *h = cache_graph_new();
	_cleanup_buf_ struct buf text = BUF_INIT, again = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT;
	size_t *blobs, n;
	cache_config_write(g, true, &text, &blobs, &n);
	assert_int_equal(n, 2);
	free(blobs);
	assert_string_equal(
		buf_str(&text),
		"{\"layers\":[{\"blob\":\"" L0 "\",\"parent\":-1,\"annotations\":{\"mediaType\":\"t\",\"diffID\":\"" L0
		"\",\"size\":5,\"createdAt\":\"0001-01-01T00:00:00Z\"}},{\"blob\":\"" L1
		"\",\"annotations\":{\"mediaType\":\"t\",\"diffID\":\"" L1
		"\",\"size\":6,\"createdAt\":\"0001-01-01T00:00:00Z\"}}],\"records\":[{\"digest\":\"" A "\"},{\"digest\":\"" B
		"\"},{\"layers\":[{\"layer\":1,\"createdAt\":\"2023-11-14T22:13:20.000000005Z\"}],\"digest\":\"" C
		"\",\"inputs\":[[{\"selector\":\"sel\",\"link\":0},{\"link\":1}]]}]}");
	assert_int_equal(cache_config_parse(text.p, text.n, NULL, h, &e), 0);
	cache_config_write(h, true, &again, &blobs, &n);
	free(blobs);
	assert_string_equal(buf_str(&text), buf_str(&again));
	size_t hit[4];
	size_t root = (size_t)cache_graph_root(h, A);
	assert_int_equal(cache_graph_children(h, root, 0, C, "sel", hit, 4), 1);
	assert_int_equal(cache_graph_children(h, root, 0, C, "", hit, 4), 0);
	assert_int_equal(cache_graph_children(h, root, 1, C, "sel", hit, 4), 0);
	const struct cache_result *r = cache_graph_result_at(h, hit[0], 0);
	assert_int_equal(r->n, 2);
	assert_string_equal(cache_graph_blob_at(h, r->blobs[0])->digest, L0);
	assert_null(cache_graph_result_at(h, hit[0], 1));
	assert_int_equal(cache_graph_root(h, C), -1);
}

static void test_inline(void **state)
{
	_cleanup_cache_graph_ struct cache_graph *g = sample(), *h = cache_graph_new(), *x = cache_graph_new();
	_cleanup_buf_ struct buf text = BUF_INIT, none = BUF_INIT, swapped = BUF_INIT;
	_cleanup_err_ struct err e = ERR_INIT;
	const char *layers[] = {L0, L1, A}, *other[] = {A}, *reverse[] = {L1, L0};
	assert_int_equal(cache_inline_write(g, other, 1, &none, &e), 0);
	assert_int_equal(none.n, 0);
	assert_int_equal(cache_inline_write(g, layers, 3, &text, &e), 0);
	assert_non_null(strstr(buf_str(&text), "\"layers\":[{\"layer\":1,"));
	struct cache_blob b[] = {{.digest = (char *)L0, .diff_id = (char *)L0}, {.digest = (char *)L1, .diff_id = (char *)L1}};
	assert_int_equal(cache_inline_parse(text.p, text.n, b, 2, h, &e), 0);
	assert_int_equal(cache_graph_result_at(h, 2, 0)->n, 2);
	assert_int_equal(cache_inline_write(g, reverse, 2, &swapped, &e), 0);
	assert_non_null(strstr(buf_str(&swapped), "\"chains\":[{\"layers\":[1,0],"));
	assert_int_equal(cache_inline_parse(swapped.p, swapped.n, (struct cache_blob[]){b[1], b[0]}, 2, x, &e), 0);
	assert_string_equal(cache_graph_blob_at(x, cache_graph_result_at(x, 2, 0)->blobs[0])->digest, L0);
}

/* The same operation on one of the same inputs is the same record; what would close a loop is left out. */
static void test_merge(void **state)
{
	_cleanup_cache_graph_ struct cache_graph *g = cache_graph_new();
	size_t a = (size_t)cache_graph_add(g, A, NULL, 0), b = (size_t)cache_graph_add(g, B, NULL, 0);
	struct cache_link la[] = {{a, ""}}, lab[] = {{a, ""}, {b, ""}};
	size_t c = (size_t)cache_graph_add(g, C, &(struct cache_dep){la, 1}, 1);
	assert_int_equal(cache_graph_add(g, C, &(struct cache_dep){lab, 2}, 1), c);
	assert_int_equal(cache_graph_input(g, c, 0).n, 2);
	struct cache_link lc[] = {{c, ""}, {a, ""}};
	size_t d = (size_t)cache_graph_add(g, A, &(struct cache_dep){lc, 1}, 1);
	struct cache_link loop[] = {{a, ""}, {d, ""}};
	assert_int_equal(cache_graph_add(g, C, &(struct cache_dep){loop, 2}, 1), c);
	assert_int_equal(cache_graph_input(g, c, 0).n, 2);
	assert_int_equal(cache_graph_add(g, "random:xyz", NULL, 0), -1);
	assert_int_equal(cache_graph_add(g, C, &(struct cache_dep){la, 0}, 1), -1);
}

static void expect_bad(const char *json, const char *text)
{
	_cleanup_cache_graph_ struct cache_graph *g = cache_graph_new();
	_cleanup_err_ struct err e = ERR_INIT;
	assert_int_equal(cache_config_parse(json, strlen(json), NULL, g, &e), -1);
	assert_non_null(strstr(e.msg, text));
}

static void test_bad(void **state)
{
	expect_bad("{", "not valid JSON");
	expect_bad("[]", "not a JSON object");
	expect_bad("{\"records\":[{\"digest\":\"" A "\",\"inputs\":[[{\"link\":7}]]}]}", "invalid record ID: 7");
	expect_bad("{\"records\":[{\"digest\":\"" A "\",\"inputs\":[[{\"link\":0}]]}]}", "invalid looping record");
	expect_bad("{\"records\":[{\"digest\":\"" A "\",\"inputs\":[[]]}]}", "invalid empty input for record 0");
	expect_bad("{\"records\":[{\"digest\":\"" A "\",\"layers\":[{\"layer\":3}]}]}", "invalid layer index 3");
	expect_bad("{\"layers\":[{\"blob\":\"" L0 "\",\"annotations\":{\"diffID\":\"" L0 "\"}}],\"records\":[{\"digest\":\"" A
		   "\",\"layers\":[{\"layer\":0}]}]}",
		   "invalid looping layer");
	expect_bad("{\"layers\":[{\"blob\":\"" L0 "\",\"parent\":9}]}", "invalid layer index 9");
	/* odd types are nothing, not a crash */
	_cleanup_cache_graph_ struct cache_graph *g = cache_graph_new();
	static const char odd[] = "{\"layers\":7,\"records\":[1,null,{\"digest\":[],\"inputs\":3,\"layers\":\"x\"},{\"chains\":"
				  "[{\"layers\":[]}]}]}";
	assert_int_equal(cache_config_parse(odd, sizeof odd - 1, NULL, g, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_inline),
					   cmocka_unit_test(test_merge), cmocka_unit_test(test_bad)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
