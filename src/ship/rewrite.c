/* rewrite-timestamp: layers that are not the base image's get archives in which no file is younger than the epoch. The layer in
 * the store stays as it is; what the image names is the new blob, with an annotation that tells the epoch. Source:
 * moby/buildkit exporter/containerimage/writer.go rewriteRemoteWithEpoch, util/converter. */
#include "ship/internal.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct ship_rewrite {
	struct ship_run *run;
	const struct ship_one *ref;
	struct snap *layer; /* held by the reference */
	int64_t epoch_s;
	struct loop_job job;
	struct layer_job work;
};

/* Diff IDs of the base image's config; NULL: none. */
static json_t *base_layers(const struct ship_run *r, const char *key)
{
	const struct image_meta_kv *base = ship_meta_find(r, "containerimage.base.config", key);
	json_t *config = base ? json_loadb((const char *)base->data, base->len, 0, NULL) : NULL;
	json_t *ids = json_incref(json_object_get(json_object_get(config, "rootfs"), "diff_ids"));
	json_decref(config);
	return ids;
}

static void add_task(struct ship_run *r, const struct ship_one *one, struct snap *layer, struct timespec epoch)
{
	struct ship_rewrite *t = &r->rewrites[r->n_rewrites++];
	const struct snap_blob *from = ship_layer_blob(r, layer);
	t->run = r;
	t->ref = one;
	t->layer = layer;
	t->epoch_s = epoch.tv_sec;
	t->work = (struct layer_job){.blobs = r->req.env->blobs,
				     .compression = r->opts.compression,
				     .level = r->opts.level,
				     .clamp = true,
				     .epoch = epoch,
				     .from = xstrdup(from->digest),
				     .cancelled = &t->job.cancelled};
}

static void add_ref(struct ship_run *r, const struct ship_one *one)
{
	struct timespec epoch;
	if (!one->snap) return;
	if (!ship_epoch(r, one->key, &epoch)) {
		if (r->req.warn) r->req.warn(r->req.arg, "rewrite-timestamp is specified, but no source-date-epoch was found");
		return;
	}
	json_t *base = base_layers(r, one->key);
	bool diverged = false;
	for (size_t i = 0; i < one->snap->chain.n; i++) {
		struct snap *layer = one->snap->chain.v[i];
		diverged = diverged || !str_eq(json_string_value(json_array_get(base, i)), layer->diff_id);
		if (diverged) add_task(r, one, layer, epoch);
	}
	json_decref(base);
}

static void show(struct ship_run *r, bool end)
{
	char text[32];
	time_t at = (time_t)r->rewrites[0].epoch_s;
	struct tm tm;
	gmtime_r(&at, &tm);
	strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
	_cleanup_free_ char *id =
		xasprintf("rewriting layers with source-date-epoch %" PRId64 " (%s +0000 UTC)", (int64_t)at, text);
	ship_show(r, id, end);
}

static void work(struct loop_job *j) { layer_job_run(&container_of(j, struct ship_rewrite, job)->work); }

static void done(struct loop_job *j)
{
	struct ship_rewrite *t = container_of(j, struct ship_rewrite, job);
	struct ship_run *r = t->run;
	if (err_is_set(&t->work.error) && !err_is_set(&r->error)) {
		err_wrap(&t->work.error, "failed to rewrite the times of layer %s", t->work.from);
		err_move(&r->error, &t->work.error);
		for (size_t i = 0; i < r->n_rewrites; i++) loop_job_cancel(&r->rewrites[i].job);
	}
	if (--r->rewrites_left) return;
	show(r, true);
	r->rewritten(r);
}

void ship_rewrite_start(struct ship_run *r, void (*then)(struct ship_run *r))
{
	size_t total = 0;
	for (size_t i = 0; i < r->n_refs; i++) total += r->refs[i].snap ? r->refs[i].snap->chain.n : 0;
	r->rewrites = xcalloc(total + 1, sizeof *r->rewrites);
	r->rewritten = then;
	for (size_t i = 0; i < r->n_refs; i++) add_ref(r, &r->refs[i]);
	if (!r->n_rewrites) {
		then(r);
		return;
	}
	show(r, false);
	r->rewrites_left = r->n_rewrites;
	for (size_t i = 0; i < r->n_rewrites; i++) {
		r->rewrites[i].job.work = work;
		r->rewrites[i].job.done = done;
		loop_job_start(r->req.env->loop, &r->rewrites[i].job, LOOP_CPU);
	}
}

bool ship_rewrite_info(const struct ship_run *r, const struct ship_one *one, const struct snap *layer,
		       struct image_layer_info *l)
{
	for (size_t i = 0; i < r->n_rewrites; i++) {
		const struct ship_rewrite *t = &r->rewrites[i];
		if (t->ref != one || t->layer != layer) continue;
		snprintf(l->digest, sizeof l->digest, "%s", t->work.sums.digest);
		snprintf(l->diff_id, sizeof l->diff_id, "%s", t->work.sums.diff_id);
		l->media_type = xstrdup(spec_media_layer(t->work.compression, true));
		l->size = t->work.sums.size;
		strvec_addf(&l->annotations, "buildkit/rewritten-timestamp=%" PRId64, t->epoch_s);
		return true;
	}
	return false;
}

void ship_rewrite_cancel(struct ship_run *r)
{
	for (size_t i = 0; i < r->n_rewrites; i++) loop_job_cancel(&r->rewrites[i].job);
}

void ship_rewrite_fini(struct ship_run *r)
{
	for (size_t i = 0; i < r->n_rewrites; i++) {
		free(r->rewrites[i].work.from);
		err_fini(&r->rewrites[i].work.error);
	}
	free(r->rewrites);
}
