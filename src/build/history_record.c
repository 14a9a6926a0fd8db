/* The history record of one build. It is made in the build's arena when the build starts, completed when it ends, stored when
 * its logs and its error have become blobs; then the client gets its answer.
 *
 * ExporterResponse is the frontend's result metadata, as BuildKit has it, and not what the exporters answered. */
#include "build/history_job.h"
#include "build/internal.h"

#include <jansson.h>
#include <string.h>

static Google__Timestamp *now(struct arena *a)
{
	struct timespec t = time_now();
	Google__Timestamp *m = arena_new_of(a, Google__Timestamp);
	google__timestamp__init(m);
	m->seconds = t.tv_sec;
	m->nanos = (int32_t)t.tv_nsec;
	return m;
}

/* Text of a peer as a protobuf string: valid UTF-8 without NUL. */
static const char *clean(struct arena *a, const void *p, size_t n)
{
	_cleanup_free_ char *s = utf8_clean(p, n);
	return arena_strdup(a, s);
}

static void add_attrs(struct build *b, Control__BuildHistoryRecord *m)
{
	const Control__SolveRequest *req = b->pb;
	m->frontendattrs = arena_alloc(b->arena, sizeof *m->frontendattrs * req->n_frontendattrs);
	for (size_t i = 0; i < req->n_frontendattrs; i++) {
		Control__BuildHistoryRecord__FrontendAttrsEntry *en =
			arena_new_of(b->arena, Control__BuildHistoryRecord__FrontendAttrsEntry);
		control__build_history_record__frontend_attrs_entry__init(en);
		en->key = req->frontendattrs[i]->key;
		en->value = req->frontendattrs[i]->value;
		m->frontendattrs[m->n_frontendattrs++] = en;
	}
}

static Control__Exporter *deprecated_exporter(struct build *b)
{
	const Control__SolveRequest *req = b->pb;
	Control__Exporter *x = arena_new_of(b->arena, Control__Exporter);
	control__exporter__init(x);
	x->type = req->exporterdeprecated;
	x->attrs = arena_alloc(b->arena, sizeof *x->attrs * req->n_exporterattrsdeprecated);
	for (size_t i = 0; i < req->n_exporterattrsdeprecated; i++) {
		Control__Exporter__AttrsEntry *en = arena_new_of(b->arena, Control__Exporter__AttrsEntry);
		control__exporter__attrs_entry__init(en);
		en->key = req->exporterattrsdeprecated[i]->key;
		en->value = req->exporterattrsdeprecated[i]->value;
		x->attrs[x->n_attrs++] = en;
	}
	return x;
}

static void add_exporters(struct build *b, Control__BuildHistoryRecord *m)
{
	m->exporters = b->pb->exporters;
	m->n_exporters = b->pb->n_exporters;
	if (m->n_exporters || !*b->pb->exporterdeprecated) return;
	m->exporters = arena_alloc(b->arena, sizeof *m->exporters);
	m->exporters[m->n_exporters++] = deprecated_exporter(b);
}

void build_record_start(struct build *b)
{
	if (b->internal) return;
	Control__BuildHistoryRecord *m = arena_new_of(b->arena, Control__BuildHistoryRecord);
	control__build_history_record__init(m);
	m->ref = b->ref;
	m->frontend = b->frontend;
	m->createdat = now(b->arena);
	add_attrs(b, m);
	add_exporters(b, m);
	b->record = m;
	history_started(b->engine->history, b);
}

/* One more at the end of a message's list: `list` of n pointers becomes a new one of n + 1. */
static void *appended(struct arena *a, const void *list, size_t n, const void *x)
{
	const void **v = arena_alloc(a, sizeof *v * (n + 1));
	if (n) memcpy(v, list, sizeof *v * n);
	v[n] = x;
	return v;
}

/* ---- results ---- */

static Control__Descriptor *descriptor(struct arena *a, const char *media_type, const char *digest, int64_t bytes)
{
	Control__Descriptor *d = arena_new_of(a, Control__Descriptor);
	control__descriptor__init(d);
	d->media_type = arena_strdup(a, media_type);
	d->digest = arena_strdup(a, digest);
	d->size = bytes;
	return d;
}

static void annotate(struct arena *a, Control__Descriptor *d, const char *key, const char *value)
{
	Control__Descriptor__AnnotationsEntry *en = arena_new_of(a, Control__Descriptor__AnnotationsEntry);
	control__descriptor__annotations_entry__init(en);
	en->key = arena_strdup(a, key);
	en->value = arena_strdup(a, value);
	d->annotations = appended(a, d->annotations, d->n_annotations++, en);
}

static Control__Descriptor *descriptor_of_json(struct arena *a, const char *b64)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	if (base64_decode(b64, strlen(b64), &text, NULL) < 0) return NULL;
	json_t *j = json_loadb(buf_str(&text), text.n, 0, NULL);
	const char *type = json_string_value(json_object_get(j, "mediaType")),
		   *digest = json_string_value(json_object_get(j, "digest"));
	Control__Descriptor *d = NULL;
	if (type && digest) {
		d = descriptor(a, type, digest, json_integer_value(json_object_get(j, "size")));
		const char *k;
		json_t *v;
		json_object_foreach(json_object_get(j, "annotations"), k, v)
		{
			if (json_is_string(v)) annotate(a, d, k, json_string_value(v));
		}
	}
	json_decref(j);
	return d;
}

static Control__BuildResultInfo *result_info(struct build *b, const char *key)
{
	struct arena *a = b->arena;
	Control__BuildHistoryRecord *m = b->record;
	for (size_t i = 0; key && i < m->n_results; i++)
		if (!strcmp(m->results[i]->key, key)) return m->results[i]->value;
	if (!key && m->result) return m->result;
	Control__BuildResultInfo *info = arena_new_of(a, Control__BuildResultInfo);
	control__build_result_info__init(info);
	if (!key) return m->result = info;
	Control__BuildHistoryRecord__ResultsEntry *en = arena_new_of(a, Control__BuildHistoryRecord__ResultsEntry);
	control__build_history_record__results_entry__init(en);
	en->key = arena_strdup(a, key);
	en->value = info;
	m->results = appended(a, m->results, m->n_results++, en);
	return info;
}

void build_record_export(struct build *b, size_t exporter, const struct strvec *response)
{
	const char *b64 = strvec_env_get(response, "containerimage.descriptor");
	Control__Descriptor *d = b->record && b64 ? descriptor_of_json(b->arena, b64) : NULL;
	if (!d) return;
	Control__BuildResultInfo *info = result_info(b, NULL);
	Control__BuildResultInfo__ResultsEntry *en = arena_new_of(b->arena, Control__BuildResultInfo__ResultsEntry);
	control__build_result_info__results_entry__init(en);
	en->key = (int64_t)exporter;
	en->value = d;
	info->results = appended(b->arena, info->results, info->n_results++, en);
	if (!info->resultdeprecated) info->resultdeprecated = d;
}

void build_record_attest(struct build *b, const char *key, const char *digest, int64_t bytes, const char *media_type,
			 const char *predicate_type)
{
	if (!b->record) return;
	Control__BuildResultInfo *info = result_info(b, key);
	Control__Descriptor *d = descriptor(b->arena, media_type, digest, bytes);
	annotate(b->arena, d, "in-toto.io/predicate-type", predicate_type);
	info->attestations = appended(b->arena, info->attestations, info->n_attestations++, d);
}

/* ---- the end ---- */

static void set_error(struct build *b, const struct err *e)
{
	_cleanup_buf_ struct buf s = BUF_INIT;
	wire_status_pack(e, &s);
	b->record->error = wire_unpack_as(Rpc__Status, rpc__status, s.p, s.n, b->arena, NULL);
	if (b->record->error) b->record->error->n_details = 0; /* they are in the blob */
}

void build_record_end(struct build *b, const struct err *e)
{
	Control__BuildHistoryRecord *m = b->record;
	if (!m) return;
	m->completedat = now(b->arena);
	m->exporterresponse = arena_alloc(b->arena, sizeof *m->exporterresponse * b->result.meta.n);
	for (size_t i = 0; i < b->result.meta.n; i++) {
		const struct result_meta *r = &b->result.meta.v[i];
		Control__BuildHistoryRecord__ExporterResponseEntry *en =
			arena_new_of(b->arena, Control__BuildHistoryRecord__ExporterResponseEntry);
		control__build_history_record__exporter_response_entry__init(en);
		en->key = clean(b->arena, r->key, strlen(r->key));
		en->value = clean(b->arena, r->data, r->len);
		m->exporterresponse[m->n_exporterresponse++] = en;
	}
	if (e) set_error(b, e);
}

struct save {
	struct loop_job job;
	struct build *build; /* stays: it is not DONE */
	struct history_logs logs;
	VEC(struct prog_event *) events;
	struct buf status; /* the error with its details */
	char status_digest[DIGEST_STR];
	struct err error;
	void (*saved)(void *arg, const struct err *e);
	void *arg;
};

static struct timespec timespec_of(const Google__Timestamp *t) { return (struct timespec){t->seconds, t->nanos}; }

static int pack(struct prog_event *const *v, size_t n, struct buf *out)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	return wire_pack(&build_status_message(a, v, n)->base, out);
}

static void save_work(struct loop_job *j)
{
	struct save *s = container_of(j, struct save, job);
	if (history_logs_write(&s->logs, &s->error) < 0 || history_trace_write(&s->logs, &s->error) < 0) return;
	if (s->status.n) blob_put_unsynced(s->logs.blobs, s->status.p, s->status.n, s->status_digest, &s->error);
}

static void fill_in(struct save *s)
{
	struct build *b = s->build;
	Control__BuildHistoryRecord *m = b->record;
	m->numtotalsteps = s->logs.steps;
	m->numcachedsteps = s->logs.cached;
	m->numcompletedsteps = s->logs.completed;
	m->numwarnings = s->logs.warnings;
	if (err_is_set(&s->error)) {
		err_wrap(&s->error, "history of build %s", b->ref);
		s->error.code = CODE_INTERNAL;
		log_error("%s", s->error.msg);
		if (!m->error) set_error(b, &s->error);
	} else {
		m->logs = descriptor(b->arena, "application/vnd.buildkit.status.v0", s->logs.digest, s->logs.bytes);
		m->trace = descriptor(b->arena, "application/vnd.buildkit.otlp.json.v0", s->logs.trace_digest,
				      s->logs.trace_bytes);
	}
	if (*s->status_digest) /* the media type is misspelt on the wire */
		m->externalerror = descriptor(b->arena, "application/vnd.googeapis.google.rpc.status+proto", s->status_digest,
					      (int64_t)s->status.n);
}

static void save_done(struct loop_job *j)
{
	struct save *s = container_of(j, struct save, job);
	fill_in(s);
	if (s->logs.n_spans) tele_export(s->build->engine->conf.traces, s->logs.spans.p, s->logs.spans.n, s->logs.n_spans);
	buf_fini(&s->logs.spans);
	if (history_completed(s->build->engine->history, s->build->record, err_is_set(&s->error) ? NULL : &s->error) < 0)
		log_error("history of build %s: %s", s->build->ref, s->error.msg);
	const char *const digests[] = {s->logs.digest, s->logs.trace_digest, s->status_digest};
	for (size_t i = 0; i < array_len(digests); i++)
		if (*digests[i]) history_unsynced(s->build->engine->history, digests[i]);
	s->saved(s->arg, err_is_set(&s->error) ? &s->error : NULL);
	for (size_t i = 0; i < s->events.n; i++) prog_unref(s->events.v[i]);
	vec_fini(&s->events);
	buf_fini(&s->status);
	err_fini(&s->error);
	free(s);
}

void build_record_save(struct build *b, void (*saved)(void *arg, const struct err *e), void *arg)
{
	if (!b->record) {
		saved(arg, NULL);
		return;
	}
	struct save *s = xnew(struct save);
	s->build = b;
	s->saved = saved;
	s->arg = arg;
	for (size_t i = 0; i < b->events.n; i++) vec_push(&s->events, prog_ref(b->events.v[i]));
	if (err_is_set(&b->error)) wire_status_pack(&b->error, &s->status);
	s->logs = (struct history_logs){.blobs = b->engine->conf.env->blobs,
					.events = s->events.v,
					.n_events = s->events.n,
					.pack = pack,
					.cut = build_status_cut,
					.ref = b->ref,
					.error = b->error.msg,
					.trace = &b->trace,
					.root_span = b->root_span};
	struct tele_exporter *traces = b->engine->conf.traces;
	if (traces && tele_exporter_enabled(traces) && b->trace.sampled) s->logs.resource = tele_exporter_resource(traces);
	s->logs.started = timespec_of(b->record->createdat);
	s->logs.ended = timespec_of(b->record->completedat);
	s->job.work = save_work;
	s->job.done = save_done;
	loop_job_start(b->engine->conf.env->loop, &s->job, LOOP_DISK);
}
