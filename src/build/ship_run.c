/* The exporters of a build, one after the other, each in a vertex of its own; what they answer is merged. */
#include "build/platforms.h"
#include "build/provenance.h"
#include "build/session_export.h"
#include "build/share.h"
#include "ship/ship.h"

#include <stdio.h>
#include <string.h>

struct ship_run_all {
	struct build *build;
	size_t at;
	struct ship_run *current;
	struct share_exports *shares;
	struct session_export *session; /* asked for exporters, or told the end */
	struct build_vertex *vertex;
	struct strvec response;
	bool cancelled;
	void (*done)(void *arg, const struct strvec *response, const struct err *e);
	void *arg;
};

/* Deprecated fields count when there is no list. */
static size_t exporter_count(const Control__SolveRequest *r) { return r->n_exporters ? r->n_exporters : *r->exporterdeprecated != 0; }

static const char *exporter_type(const Control__SolveRequest *r, size_t i)
{
	return r->n_exporters ? r->exporters[i]->type : r->exporterdeprecated;
}

static struct ship_kv *exporter_attrs(const Control__SolveRequest *r, size_t i, size_t *ret_n)
{
	size_t n = r->n_exporters ? r->exporters[i]->n_attrs : r->n_exporterattrsdeprecated;
	struct ship_kv *kv = xcalloc(n + 1, sizeof *kv);
	bool has_epoch = false;
	for (size_t k = 0; k < n; k++) {
		if (r->n_exporters)
			kv[k] = (struct ship_kv){r->exporters[i]->attrs[k]->key, r->exporters[i]->attrs[k]->value};
		else
			kv[k] = (struct ship_kv){r->exporterattrsdeprecated[k]->key, r->exporterattrsdeprecated[k]->value};
		has_epoch |= !strcmp(kv[k].key, "source-date-epoch");
	}
	for (size_t k = 0; !has_epoch && k < r->n_frontendattrs; k++) {
		char *end;
		const char *v = r->frontendattrs[k]->value;
		if (strcmp(r->frontendattrs[k]->key, "build-arg:SOURCE_DATE_EPOCH") || !*v) continue;
		strtoll(v, &end, 10);
		if (!*end) kv[n++] = (struct ship_kv){"source-date-epoch", v};
		break;
	}
	*ret_n = n;
	return kv;
}

int ship_check(const Control__SolveRequest *req, struct err *e)
{
	for (size_t i = 0; i < exporter_count(req); i++) {
		size_t n;
		struct ship_kv *kv = exporter_attrs(req, i, &n);
		int r = ship_check_exporter(exporter_type(req, i), kv, n, e);
		free(kv);
		if (r < 0) return -1;
	}
	return 0;
}

static void next(struct ship_run_all *s);

static void add_response(struct strvec *to, const struct strvec *from)
{
	for (size_t i = 0; i < from->n; i++) {
		const char *eq = strchr(from->v[i], '=');
		_cleanup_free_ char *k = xstrndup(from->v[i], (size_t)(eq - from->v[i]));
		strvec_env_set(to, k, eq + 1);
	}
}

static void finish(struct ship_run_all *s, const struct err *e)
{
	if (!s->cancelled) s->done(s->arg, &s->response, e);
	strvec_fini(&s->response);
	free(s);
}

static void exported(void *arg, const struct strvec *response, const struct err *e)
{
	struct ship_run_all *s = arg;
	s->current = NULL;
	if (s->cancelled) {
		finish(s, NULL);
		return;
	}
	build_vertex_end(s->vertex, e);
	s->vertex = NULL;
	if (e) {
		finish(s, e);
		return;
	}
	add_response(&s->response, response);
	build_record_export(s->build, s->at, response);
	s->at++;
	next(s);
}

static void status(void *arg, const struct prog_status *st)
{
	struct ship_run_all *s = arg;
	if (s->vertex) build_vertex_status(s->vertex, st);
}

/* Borrowed from the result. */
static struct ship_attest *attestations(const struct build *b, size_t *ret_n)
{
	size_t n = b->result.attests.n;
	struct ship_attest *v = xcalloc(n, sizeof *v);
	for (size_t i = 0; i < n; i++) {
		const struct result_attest *a = &b->result.attests.v[i];
		struct ship_attest_subject *subjects = xcalloc(a->subjects.n, sizeof *subjects);
		struct ship_meta *meta = xcalloc(a->meta.n, sizeof *meta);
		for (size_t k = 0; k < a->subjects.n; k++)
			subjects[k] = (struct ship_attest_subject){a->subjects.v[k].raw, a->subjects.v[k].name, a->subjects.v[k].digest};
		for (size_t k = 0; k < a->meta.n; k++) meta[k] = (struct ship_meta){a->meta.v[k].key, a->meta.v[k].data, a->meta.v[k].len};
		v[i] = (struct ship_attest){.key = a->key, .path = a->path, .predicate_type = a->predicate_type, .bundle = a->bundle,
					    .empty_ref = a->ref && !a->ref->result, .snap = a->ref ? a->ref->result : NULL,
					    .subjects = subjects, .n_subjects = a->subjects.n, .meta = meta, .n_meta = a->meta.n};
		if (!a->provenance) continue;
		v[i].content = provenance_write;
		v[i].content_arg = a->provenance;
	}
	*ret_n = n;
	return v;
}

static void attestations_free(struct ship_attest *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((void *)v[i].subjects);
		free((void *)v[i].meta);
	}
	free(v);
}

static void start(struct ship_run_all *s)
{
	struct build *b = s->build;
	const char *type = exporter_type(b->pb, s->at), *sessions[OPS_SESSIONS_MAX];
	_cleanup_free_ char *id = xasprintf("%s-export-%zu", b->session, s->at);
	s->vertex = build_vertex_start(b, id, ship_vertex_name(type));
	size_t n = b->result.refs.n;
	struct ship_ref *refs = xcalloc(n, sizeof *refs);
	struct result_platforms ps = {0};
	bool has_ps = result_platforms(&b->result, &b->engine->conf.platforms[0], &ps, NULL) >= 0;
	for (size_t i = 0; i < n; i++) {
		const struct result_ref *r = &b->result.refs.v[i];
		refs[i] = (struct ship_ref){r->key, r->ref ? r->ref->result : NULL, r->key};
		if (!r->key && has_ps && ps.n) refs[i].platform = ps.v[0].id;
	}
	size_t n_attests;
	struct ship_attest *attests = attestations(b, &n_attests);
	struct ship_meta *meta = xcalloc(b->result.meta.n, sizeof *meta);
	for (size_t i = 0; i < b->result.meta.n; i++)
		meta[i] = (struct ship_meta){b->result.meta.v[i].key, b->result.meta.v[i].data, b->result.meta.v[i].len};
	struct ship_req req = {.env = b->engine->conf.env, .type = type, .index = (unsigned)s->at, .refs = refs, .n_refs = n,
			       .is_map = b->result.is_map, .meta = meta, .n_meta = b->result.meta.n, .attests = attests, .n_attests = n_attests, .sessions = sessions,
			       .compatibility_version = b->pb->compatibilityversion, .status = status, .done = exported, .arg = s};
	req.n_sessions = build_sessions(b, sessions, OPS_SESSIONS_MAX);
	req.inline_cache = share_inline(b);
	req.inline_arg = b;
	ops_span_build(&req.span, b->engine->conf.env, b, NULL, ship_vertex_name(type));
	struct ship_kv *kv = exporter_attrs(b->pb, s->at, &req.n_attrs);
	req.attrs = kv;
	s->current = ship_start(&req);
	free(kv);
	attestations_free(attests, n_attests);
	if (has_ps) result_platforms_fini(&ps);
	free(refs);
	free(meta);
}

static void frontend_keys(struct ship_run_all *s)
{
	for (size_t i = 0; i < s->build->result.meta.n; i++) {
		const struct result_meta *m = &s->build->result.meta.v[i];
		if (!str_starts(m->key, "frontend.")) continue;
		_cleanup_free_ char *v = xstrndup((const char *)m->data, m->len);
		strvec_env_set(&s->response, m->key, v);
	}
}

static void session_told(void *arg, const struct err *e)
{
	struct ship_run_all *s = arg;
	s->session = NULL;
	finish(s, e);
}

static void all_done(struct ship_run_all *s, const struct err *e)
{
	if (e || !s->build->pb->enablesessionexporter)
		finish(s, e);
	else
		s->session = session_export_end(s->build, &s->response, session_told, s);
}

static void shared(void *arg, const struct strvec *response, const struct err *e)
{
	struct ship_run_all *s = arg;
	s->shares = NULL;
	if (!e) add_response(&s->response, response);
	all_done(s, e);
}

static void next(struct ship_run_all *s)
{
	if (s->at < exporter_count(s->build->pb)) {
		start(s);
		return;
	}
	frontend_keys(s);
	s->shares = share_export_start(s->build, shared, s);
	if (!s->shares) all_done(s, NULL);
}

/* What does not fit the request is a warning on the first exporter, or on a vertex of its own. */
static void warn_platforms(struct ship_run_all *s, const char *vertex)
{
	_cleanup_strvec_ struct strvec warnings = {0};
	struct build *b = s->build;
	result_platform_warnings(&b->result, &b->engine->conf.platforms[0], &warnings);
	if (!warnings.n) return;
	struct build_vertex *own = vertex ? NULL : build_vertex_start(b, "verifying build result", "Verifying build result");
	for (size_t i = 0; i < warnings.n; i++) {
		struct prog_warning w = {.level = 1, .short_ = warnings.v[i]};
		snprintf(w.vertex, sizeof w.vertex, "%s", own ? own->v.digest : vertex);
		struct prog_event *ev = prog_warning_new(&w);
		build_event(b, ev);
		prog_unref(ev);
	}
	if (own) build_vertex_end(own, NULL);
}

static void run_all(struct ship_run_all *s)
{
	if (!exporter_count(s->build->pb)) {
		warn_platforms(s, NULL);
		next(s);
		return;
	}
	next(s); /* its exporter answers later */
	warn_platforms(s, s->vertex->v.digest);
}

static void exporters_known(void *arg, const struct err *e)
{
	struct ship_run_all *s = arg;
	s->session = NULL;
	if (e)
		finish(s, e);
	else
		run_all(s);
}

static void begin(void *arg)
{
	struct ship_run_all *s = arg;
	if (s->cancelled)
		finish(s, NULL);
	else if (s->build->pb->enablesessionexporter)
		s->session = session_export_find(s->build, exporters_known, s);
	else
		run_all(s);
}

struct ship_run_all *ship_run_start(struct build *b, void (*done)(void *arg, const struct strvec *response, const struct err *e), void *arg)
{
	struct ship_run_all *s = xnew(struct ship_run_all);
	s->build = b;
	s->done = done;
	s->arg = arg;
	loop_post(b->engine->conf.env->loop, begin, s);
	return s;
}

void ship_run_cancel(struct ship_run_all *s)
{
	s->cancelled = true;
	if (s->vertex) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_CANCELLED, "context canceled");
		build_vertex_end(s->vertex, &e);
		s->vertex = NULL;
		err_fini(&e);
	}
	if (s->current) ship_cancel(s->current);
	if (s->session) {
		session_export_cancel(take_ptr(s->session));
		finish(s, NULL);
	} else if (s->shares) {
		share_export_cancel(take_ptr(s->shares));
		finish(s, NULL);
	}
}
