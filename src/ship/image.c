/* image, oci, docker: layers' blobs, documents, then archive or push. */
#include "proto/methods.h"
#include "ship/internal.h"

#include <stdio.h>
#include <string.h>

/* ---- layers ---- */

const struct snap_blob *ship_layer_blob(const struct ship_run *r, const struct snap *layer)
{
	if (r->opts.force_compression) return snap_blob_find(layer, spec_compression_name(r->opts.compression));
	const struct snap_blob *b = snap_blob_find(layer, spec_compression_name(r->opts.compression));
	return b ? b : snap_blob_find(layer, NULL);
}

static void make_documents(struct ship_run *r);

static void layer_work(struct loop_job *j) { layer_job_run(&container_of(j, struct layer_task, job)->work); }

static int keep_blob(struct layer_task *t, struct err *e)
{
	struct layer_job *w = &t->work;
	struct snap_blob b = {.compression = (char *)spec_compression_name(w->compression), .digest = w->sums.digest,
			      .media_type = (char *)spec_media_layer(w->compression, true), .size = w->sums.size};
	struct timespec now = time_now();
	b.created_at_ns = now.tv_sec * 1000000000 + now.tv_nsec;
	if (!t->layer->diff_id && snap_set_diff_id(t->layer, w->sums.diff_id, e) < 0) return -1;
	if (snap_blob_find_digest(t->layer, w->sums.digest)) return 0;
	return snap_blob_add(t->layer, &b, e);
}

static void ready(struct ship_run *r)
{
	if (err_is_set(&r->error) || r->cancelled)
		ship_end(r, NULL);
	else
		make_documents(r);
}

static void layers_ready(struct ship_run *r)
{
	ship_show(r, "exporting layers", true);
	if (r->opts.rewrite_timestamp && !err_is_set(&r->error) && !r->cancelled)
		ship_rewrite_start(r, ready);
	else
		ready(r);
}

static void layer_done(struct loop_job *j)
{
	struct layer_task *t = container_of(j, struct layer_task, job);
	struct ship_run *r = t->run;
	t->ended = true;
	if (!err_is_set(&t->work.error)) keep_blob(t, &t->work.error);
	if (err_is_set(&t->work.error) && !err_is_set(&r->error)) {
		err_move(&r->error, &t->work.error);
		for (size_t i = 0; i < r->n_layers; i++) loop_job_cancel(&r->layers[i].job);
	}
	if (--r->layers_left) return;
	layers_ready(r);
}

static void add_task(struct ship_run *r, struct snap *layer)
{
	for (size_t i = 0; i < r->n_layers; i++)
		if (r->layers[i].layer == layer) return;
	if (ship_layer_blob(r, layer)) return;
	struct layer_task *t = &r->layers[r->n_layers++];
	const struct snap_blob *any = snap_blob_find(layer, NULL);
	struct snap *lower = snap_layer_lower(layer);
	t->run = r;
	t->layer = snap_ref(layer);
	t->work = (struct layer_job){.blobs = r->req.env->blobs, .view = snap_view_new(layer), .lower = lower ? snap_view_new(lower) : NULL,
				     .compression = r->opts.compression, .level = r->opts.level, .cancelled = &t->job.cancelled,
				     .from = any ? xstrdup(any->digest) : NULL};
}

void ship_image_start(struct ship_run *r)
{
	size_t total = 0;
	for (size_t i = 0; i < r->n_refs; i++) total += r->refs[i].snap ? r->refs[i].snap->chain.n : 0;
	r->layers = xcalloc(total, sizeof *r->layers);
	for (size_t i = 0; i < r->n_refs; i++)
		for (size_t k = 0; r->refs[i].snap && k < r->refs[i].snap->chain.n; k++) add_task(r, r->refs[i].snap->chain.v[k]);
	ship_show(r, "exporting layers", false);
	r->layers_left = r->n_layers;
	for (size_t i = 0; i < r->n_layers; i++) {
		struct layer_task *t = &r->layers[i];
		t->job.work = layer_work;
		t->job.done = layer_done;
		loop_job_start(r->req.env->loop, &t->job, LOOP_CPU);
	}
	if (!r->n_layers) layers_ready(r);
}

/* ---- documents ---- */

static void layer_info(const struct ship_run *r, const struct ship_one *one, const struct snap *layer, struct image_layer_info *l)
{
	const struct snap_blob *b = ship_layer_blob(r, layer);
	l->description = xstrdup(layer->description);
	l->created = (struct timespec){layer->created_at_ns / 1000000000, layer->created_at_ns % 1000000000};
	if (ship_rewrite_info(r, one, layer, l)) return;
	snprintf(l->digest, sizeof l->digest, "%s", b->digest);
	snprintf(l->diff_id, sizeof l->diff_id, "%s", layer->diff_id);
	l->media_type = xstrdup(b->media_type);
	l->mount_from = xstrdup(b->source);
	l->size = b->size;
	strvec_copy(&l->annotations, b->annotations.v, b->annotations.n);
}

bool ship_epoch(const struct ship_run *r, const char *key, struct timespec *ret)
{
	if (r->opts.epoch_given) {
		*ret = r->opts.epoch;
		return r->opts.has_epoch;
	}
	const struct image_meta_kv *m = key ? ship_meta_find(r, "source.date.epoch", key) : NULL;
	if (!m) m = ship_meta_find(r, "source.date.epoch", NULL);
	if (!m || !m->len) return false;
	_cleanup_free_ char *text = xstrndup((const char *)m->data, m->len);
	*ret = (struct timespec){strtoll(text, NULL, 10), 0};
	return true;
}

/* ---- annotations ---- */

static int collect_annotations(struct ship_run *r, struct err *e)
{
	for (size_t i = 0; i < r->opts.annotations.n; i++) {
		const struct ship_kv *kv = &r->opts.annotations.v[i];
		if (ship_annotation_add(&r->annotations, kv->key, kv->value, strlen(kv->value), e) < 0) return -1;
	}
	for (size_t i = 0; i < r->meta.n; i++) /* of the result: they count more */
		if (ship_annotation_add(&r->annotations, r->meta.v[i].key, r->meta.v[i].data, r->meta.v[i].len, e) < 0) return -1;
	return 0;
}

static bool has_platform(const struct image_job *j, const char *platform)
{
	for (size_t i = 0; i < j->n_refs; i++) {
		_cleanup_free_ char *own = spec_platform_format(&j->refs[i].platform);
		if (str_eq(own, platform)) return true;
	}
	return false;
}

static int check_annotations(const struct ship_run *r, const struct image_job *j, struct err *e)
{
	const struct ship_annotations *s = &r->annotations;
	bool index = ship_annotations_any(s, SHIP_ANNOTATE_INDEX) || ship_annotations_any(s, SHIP_ANNOTATE_INDEX_DESC);
	for (size_t i = 0; i < s->all.n && r->req.is_map; i++)
		if (s->all.v[i].platform && !has_platform(j, s->all.v[i].platform))
			return err_set(e, CODE_UNKNOWN, "invalid annotation: no platform %s found in source", s->all.v[i].platform);
	if (j->docker_types && (index || ship_annotations_any(s, SHIP_ANNOTATE_MANIFEST_DESC)))
		return err_set(e, CODE_UNKNOWN, "cannot export annotations with \"oci-mediatypes=false\"");
	if (index && !j->is_map) return err_set(e, CODE_UNKNOWN, "index annotations not supported for single platform export");
	return 0;
}

static int add_annotations(struct ship_run *r, struct err *e)
{
	struct image_job *j = &r->image;
	if (collect_annotations(r, e) < 0 || check_annotations(r, j, e) < 0) return -1;
	for (size_t i = 0; i < j->n_refs; i++) {
		struct image_ref_info *ref = &j->refs[i];
		_cleanup_free_ char *platform = j->is_map ? spec_platform_format(&ref->platform) : NULL;
		ref->annotations = ship_annotations_of(&r->annotations, SHIP_ANNOTATE_MANIFEST, platform, &ref->n_annotations);
		ref->desc_annotations = ship_annotations_of(&r->annotations, SHIP_ANNOTATE_MANIFEST_DESC, platform, &ref->n_desc_annotations);
	}
	j->index_annotations = ship_annotations_of(&r->annotations, SHIP_ANNOTATE_INDEX, NULL, &j->n_index_annotations);
	j->index_desc_annotations = ship_annotations_of(&r->annotations, SHIP_ANNOTATE_INDEX_DESC, NULL, &j->n_index_desc_annotations);
	return 0;
}

static int add_ref(struct ship_run *r, const struct ship_one *one, struct image_ref_info *info, struct err *e)
{
	info->key = one->key;
	info->platform_id = one->platform;
	info->scratch = one->snap == NULL;
	info->config = ship_meta_find(r, "containerimage.config", one->key);
	info->base_config = ship_meta_find(r, "containerimage.base.config", one->key);
	info->has_epoch = ship_epoch(r, one->key, &info->epoch);
	if (one->platform || one->key) {
		if (spec_platform_parse_normal(one->platform ? one->platform : one->key, &info->platform, e) < 0) return -1;
	} else {
		spec_platform_copy(&info->platform, &r->req.env->host);
	}
	size_t n = one->snap ? one->snap->chain.n : 0;
	info->layers = xcalloc(n, sizeof *info->layers);
	for (size_t k = 0; k < n; k++) layer_info(r, one, one->snap->chain.v[k], &info->layers[info->n_layers++]);
	return 0;
}

static int add_inline(struct ship_run *r, size_t at, struct image_ref_info *info, struct err *e)
{
	if (!r->req.inline_cache || at >= r->n_refs) return 0;
	const char **digests = xcalloc(info->n_layers, sizeof *digests);
	for (size_t i = 0; i < info->n_layers; i++) digests[i] = info->layers[i].digest;
	ship_show(r, "preparing layers for inline cache", false);
	int rc = r->req.inline_cache(r->req.inline_arg, at, digests, info->n_layers, &info->inline_cache, e);
	ship_show(r, "preparing layers for inline cache", true);
	free(digests);
	return rc;
}

static int add_names(struct ship_run *r, struct err *e)
{
	const char *name = r->opts.name ? r->opts.name : "";
	_cleanup_free_ char *from_meta = NULL;
	if (!strcmp(name, "*")) {
		const struct image_meta_kv *m = ship_meta_find(r, "image.name", NULL);
		name = from_meta = m ? xstrndup((const char *)m->data, m->len) : xstrdup("");
	}
	strvec_addf(&r->response, "image.name=%s", name);
	_cleanup_free_ char *copy = xstrdup(name);
	for (char *save, *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
		struct spec_ref ref;
		int rc = r->opts.push_by_digest ? spec_ref_parse(s, &ref, e) : spec_ref_parse_tagged(s, &ref, e);
		if (rc < 0) return err_wrap(e, "failed to parse %s", s);
		strvec_take(&r->image.names, spec_ref_format(&ref));
		spec_ref_fini(&ref);
	}
	if (!r->image.names.n || r->opts.kind != SHIP_IMAGE) {
		free(r->response.v[r->response.n - 1]);
		r->response.v[--r->response.n] = NULL;
	}
	if (r->opts.kind != SHIP_IMAGE && r->image.names.n) {
		_cleanup_free_ char *joined = strvec_join(&r->image.names, ",");
		strvec_addf(&r->response, "image.name=%s", joined);
	}
	return 0;
}

static void deliver(struct ship_run *r);

static void made_work(struct loop_job *j) { image_job_make(&container_of(j, struct ship_run, job)->image); }

static void respond(struct ship_run *r)
{
	struct buf b64 = BUF_INIT;
	base64_encode(&b64, r->image.descriptor.p, r->image.descriptor.n);
	strvec_addf(&r->response, "containerimage.digest=%s", r->image.digest);
	if (!r->image.is_map) strvec_addf(&r->response, "containerimage.config.digest=%s", r->image.config_digest);
	strvec_addf(&r->response, "containerimage.descriptor=%s", buf_str(&b64));
	buf_fini(&b64);
}

static void made_done(struct loop_job *j)
{
	struct ship_run *r = container_of(j, struct ship_run, job);
	r->job_runs = false;
	for (size_t i = 0; i < r->image.made.n; i++) ship_show(r, r->image.made.v[i], true);
	if (err_is_set(&r->image.error) || r->cancelled) {
		ship_end(r, &r->image.error);
		return;
	}
	respond(r);
	deliver(r);
}

static void run_job(struct ship_run *r, void (*work)(struct loop_job *), void (*done)(struct loop_job *), enum loop_class c)
{
	r->job.work = work;
	r->job.done = done;
	r->job_runs = true;
	loop_job_start(r->req.env->loop, &r->job, c);
}

static void make_documents(struct ship_run *r)
{
	struct err e = ERR_INIT;
	struct image_job *j = &r->image;
	*j = (struct image_job){.blobs = r->req.env->blobs, .is_map = r->req.is_map || ship_attests_any(r, !r->opts.attest_inline),
				.artifact = r->opts.oci_artifact, .attests = r->att_in.v, .n_attests = r->att_in.n, .docker_types = !r->opts.oci_types,
				.keep_nondist = r->opts.prefer_nondist, .docker_archive = r->opts.kind == SHIP_DOCKER,
				.by_digest = r->opts.push_by_digest, .dated = r->opts.kind != SHIP_IMAGE, .cancelled = &r->job.cancelled};
	bool ok = true;
	if (r->opts.kind == SHIP_DOCKER && r->req.is_map)
		ok = err_set(&e, CODE_UNKNOWN, "docker exporter does not currently support exporting manifest lists") >= 0;
	size_t n = r->n_refs ? r->n_refs : 1; /* no reference at all is an empty image */
	j->refs = xcalloc(n, sizeof *j->refs);
	j->n_refs = n;
	static const struct ship_one nothing;
	for (size_t i = 0; i < n && ok; i++) ok = add_ref(r, r->n_refs ? &r->refs[i] : &nothing, &j->refs[i], &e) >= 0 && add_inline(r, i, &j->refs[i], &e) >= 0;
	if (ok) ok = add_annotations(r, &e) >= 0 && add_names(r, &e) >= 0;
	if (ok && j->is_map) ok = ship_attests_content(r, &e) >= 0;
	if (!ok) {
		ship_end(r, &e);
		return;
	}
	run_job(r, made_work, made_done, LOOP_DISK);
}

/* ---- archive ---- */

static int pipe_write(void *ctx, const void *p, size_t n, struct err *e) { return loop_pipe_job_write(ctx, p, n, e); }

static void archive_work(struct loop_job *j)
{
	struct ship_run *r = container_of(j, struct ship_run, job);
	image_job_archive(&r->image);
	loop_pipe_job_close(r->pipe, &r->image.error);
}

static void both_done(struct ship_run *r)
{
	if (r->job_runs || r->send) return;
	ship_show(r, "sending tarball", true);
	if (r->image.error.code == CODE_ALREADY_EXISTS) err_fini(&r->image.error); /* the client has it: the job was told to stop */
	ship_end(r, &r->image.error);
}

static void archive_done(struct loop_job *j)
{
	struct ship_run *r = container_of(j, struct ship_run, job);
	r->job_runs = false;
	both_done(r);
}

static void sent(void *arg, const struct err *e)
{
	struct ship_run *r = arg;
	r->send = NULL;
	if (e && !err_is_set(&r->error)) err_copy(&r->error, e);
	both_done(r);
}

static void send_archive(struct ship_run *r)
{
	char **md = xcalloc(r->response.n * 2, sizeof *md);
	size_t n = 0;
	for (size_t i = 0; i < r->response.n; i++) {
		char *eq = strchr(r->response.v[i], '=');
		md[n++] = xstrndup(r->response.v[i], (size_t)(eq - r->response.v[i]));
		md[n++] = xstrdup(eq + 1);
	}
	ship_show(r, "sending tarball", false);
	r->send = sess_filesend_file(r->session, r->req.index, md, n, &r->pipe, sent, r);
	for (size_t i = 0; i < n; i++) free(md[i]);
	free(md);
	r->image.out = (struct tar_out){pipe_write, r->pipe};
	run_job(r, archive_work, archive_done, LOOP_NET);
}

/* ---- push ---- */

static void pushed_name(void *arg, const char *name)
{
	struct ship_run *r = arg;
	_cleanup_free_ char *id = xasprintf("pushing manifest for %s@%s", name, r->image.digest);
	ship_show(r, id, true);
}

static void pushed(void *arg, struct err *e)
{
	struct ship_run *r = arg;
	r->push = NULL;
	ship_show(r, "pushing layers", true);
	ship_end(r, e);
}

static const char *mount_source(void *arg, const char *digest, const struct spec_ref *to)
{
	struct ship_run *r = arg;
	return image_job_mount_source(&r->image, digest, to);
}

static void push(struct ship_run *r)
{
	struct ops_env *env = r->req.env;
	if (!r->image.names.n) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_UNKNOWN, "tag is needed when pushing to registry");
		ship_end(r, &e);
		return;
	}
	struct spec_ref first;
	spec_ref_parse(r->image.names.v[0], &first, NULL);
	r->reg_config = r->opts.insecure ? reg_config_new_insecure(first.domain) : reg_config_ref(ops_settings(env, r->session_ids, r->n_sessions).registries);
	spec_ref_fini(&first);
	struct ship_desc root = image_job_root(&r->image);
	struct ship_push_req req = {.env = env, .config = r->reg_config, .sessions = r->session_ids, .n_sessions = r->n_sessions,
				    .names = &r->image.names, .by_digest = r->image.by_digest, .root = &root, .mount_source = mount_source,
				    .named = pushed_name, .done = pushed, .arg = r, .span = r->req.span};
	ship_show(r, "pushing layers", false);
	r->push = ship_push_start(&req);
}

static void deliver(struct ship_run *r)
{
	if (r->opts.kind == SHIP_IMAGE) {
		if (r->opts.push)
			push(r);
		else
			ship_end(r, NULL);
		return;
	}
	if (r->opts.tar)
		ship_with_session(r, METHOD_FILESEND_DIFF_COPY, send_archive);
	else
		ship_with_session(r, METHOD_CONTENT_WRITE, ship_store_start);
}
