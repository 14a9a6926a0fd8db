/* A cache config as a registry serves it, and the records inside an image's config. First byte: which, see below. What was read
 * and is written again can be read again. */
#include "cache/cache.h"
#include "fuzz.h"

#include <stdio.h>

enum { LAYERS = 4 };

static void fill(struct cache_blob *b, size_t i)
{
	char digest[DIGEST_STR];
	snprintf(digest, sizeof digest, "sha256:%064zu", i);
	*b = (struct cache_blob){.digest = xstrdup(digest), .media_type = xstrdup("x"), .diff_id = xstrdup(digest), .size = 5};
}

/* Follow every link and result: ends, by invariant 2. */
static void walk(struct cache_graph *g)
{
	for (size_t i = 0; i < cache_graph_items(g); i++) {
		cache_graph_root(g, cache_graph_digest(g, i));
		for (size_t k = 0; k < cache_graph_inputs(g, i); k++) {
			struct cache_dep d = cache_graph_input(g, i, k);
			for (size_t l = 0; l < d.n; l++)
				if (d.links[l].item >= cache_graph_items(g)) bug("a link to nowhere");
		}
		const struct cache_result *r;
		for (size_t k = 0; (r = cache_graph_result_at(g, i, k)); k++)
			for (size_t b = 0; b < r->n; b++)
				if (!cache_graph_blob_at(g, r->blobs[b])->digest) bug("a layer without a digest");
	}
}

static void write_again(struct cache_graph *g)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_cache_graph_ struct cache_graph *again = cache_graph_new();
	_cleanup_free_ size_t *blobs = NULL;
	size_t n;
	struct err e = ERR_INIT;
	cache_config_write(g, true, &out, &blobs, &n);
	if (cache_config_parse(buf_str(&out), out.n, NULL, again, &e) < 0) bug("what was written cannot be read: %s", e.msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t kind = fuzz_byte(&in); /* 1: of an image; 2: a manifest lists the layers */
	struct cache_blob layers[LAYERS];
	struct map by_digest = {0};
	struct err e = ERR_INIT;
	_cleanup_cache_graph_ struct cache_graph *g = cache_graph_new();
	for (size_t i = 0; i < LAYERS; i++) {
		fill(&layers[i], i);
		map_put(&by_digest, layers[i].digest, &layers[i]);
	}
	int rc = kind == 1 ? cache_inline_parse(in.p, in.n, layers, LAYERS, g, &e)
			   : cache_config_parse(in.p, in.n, kind == 2 ? &by_digest : NULL, g, &e);
	if (rc < 0 && !err_is_set(&e)) bug("failed without an error");
	walk(g);
	if (rc >= 0) write_again(g);
	err_fini(&e);
	map_fini(&by_digest);
	for (size_t i = 0; i < LAYERS; i++) {
		free(layers[i].digest);
		free(layers[i].media_type);
		free(layers[i].diff_id);
	}
	return 0;
}
