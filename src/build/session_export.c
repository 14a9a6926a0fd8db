#include "build/session_export.h"
#include "proto/exporter.pb-c.h"
#include "proto/methods.h"
#include "ship/ship.h"

#include <string.h>

enum { EXPORTERS_MAX = 64 };

struct session_export {
	struct build *build; /* NULL: cancelled */
	const char *method;
	struct sess_op *op;
	struct buf request;
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

static void end(struct session_export *x, const struct err *e)
{
	if (x->build) x->done(x->arg, e);
	buf_fini(&x->request);
	free(x);
}

static Control__Exporter *exporter_copy(struct arena *a, const Exporter__ExporterRequest *from)
{
	Control__Exporter *to = llb_new(a, Control__Exporter, control__exporter__init);
	to->type = arena_strdup(a, from->type);
	for (size_t i = 0; i < from->n_attrs; i++) {
		Control__Exporter__AttrsEntry *kv =
			llb_new(a, Control__Exporter__AttrsEntry, control__exporter__attrs_entry__init);
		kv->key = arena_strdup(a, from->attrs[i]->key);
		kv->value = arena_strdup(a, from->attrs[i]->value);
		LLB_PUSH(a, to->n_attrs, to->attrs, kv);
	}
	return to;
}

/* The request's own ones first: in a list of their own, also when they came in the deprecated fields. */
static Control__Exporter **own_exporters(struct build *b, size_t more, size_t *ret_n)
{
	Control__SolveRequest *r = b->pb;
	Control__Exporter **v = arena_alloc(b->arena, (r->n_exporters + 1 + more) * sizeof *v);
	size_t n = 0;
	for (; n < r->n_exporters; n++) v[n] = r->exporters[n];
	if (!n && *r->exporterdeprecated) {
		Control__Exporter *old = llb_new(b->arena, Control__Exporter, control__exporter__init);
		old->type = r->exporterdeprecated;
		for (size_t i = 0; i < r->n_exporterattrsdeprecated; i++) {
			Control__Exporter__AttrsEntry *kv =
				llb_new(b->arena, Control__Exporter__AttrsEntry, control__exporter__attrs_entry__init);
			kv->key = r->exporterattrsdeprecated[i]->key;
			kv->value = r->exporterattrsdeprecated[i]->value;
			LLB_PUSH(b->arena, old->n_attrs, old->attrs, kv);
		}
		v[n++] = old;
	}
	*ret_n = n;
	return v;
}

static int check_exporter(const Control__Exporter *x, struct err *e)
{
	struct ship_kv *kv = xcalloc(x->n_attrs + 1, sizeof *kv);
	for (size_t i = 0; i < x->n_attrs; i++) kv[i] = (struct ship_kv){x->attrs[i]->key, x->attrs[i]->value};
	int r = ship_check_exporter(x->type, kv, x->n_attrs, e);
	free(kv);
	return r;
}

static int take_exporters(struct build *b, const Exporter__FindExportersResponse *m, struct err *e)
{
	if (m->n_exporters > EXPORTERS_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "the session adds %zu exporters, at most %d are allowed",
			       m->n_exporters, EXPORTERS_MAX);
	if (!m->n_exporters) return 0;
	size_t n;
	Control__Exporter **v = own_exporters(b, m->n_exporters, &n);
	for (size_t i = 0; i < m->n_exporters; i++) {
		v[n] = exporter_copy(b->arena, m->exporters[i]);
		if (check_exporter(v[n++], e) < 0) return -1;
	}
	b->pb->exporters = v;
	b->pb->n_exporters = n;
	return 0;
}

static void answered(void *arg, const uint8_t *p, size_t n, const struct err *e)
{
	struct session_export *x = arg;
	struct err bad = ERR_INIT;
	x->op = NULL;
	if (!x->build || e) {
		bool none = e && (e->code == CODE_UNAVAILABLE || e->code == CODE_UNIMPLEMENTED);
		end(x, none ? NULL : e);
		return;
	}
	if (!strcmp(x->method, METHOD_EXPORTER_FIND_EXPORTERS)) {
		_cleanup_arena_ struct arena *a = arena_new(0);
		const Exporter__FindExportersResponse *m =
			wire_unpack_as(Exporter__FindExportersResponse, exporter__find_exporters_response, p, n, a, &bad);
		if (m) take_exporters(x->build, m, &bad);
	}
	end(x, err_is_set(&bad) ? &bad : NULL);
	err_fini(&bad);
}

static void got_session(void *arg, struct sess *s, const struct err *e)
{
	struct session_export *x = arg;
	x->op = NULL;
	if (!x->build || e)
		end(x, e);
	else
		x->op = sess_call(s, x->method, x->request.p ? x->request.p : (const uint8_t *)"", x->request.n, NULL, 0, 0,
				  answered, x);
}

static struct session_export *start(struct build *b, const char *method, const ProtobufCMessage *m,
				    void (*done)(void *arg, const struct err *e), void *arg)
{
	struct session_export *x = xnew(struct session_export);
	x->build = b;
	x->method = method;
	x->done = done;
	x->arg = arg;
	wire_pack(m, &x->request);
	x->op = sess_wait(b->engine->conf.env->sessions, b->session, SESS_WAIT_MS, got_session, x);
	return x;
}

struct session_export *session_export_find(struct build *b, void (*done)(void *arg, const struct err *e), void *arg)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Exporter__FindExportersRequest m = EXPORTER__FIND_EXPORTERS_REQUEST__INIT;
	for (size_t i = 0; i < b->result.meta.n; i++) {
		const struct result_meta *r = &b->result.meta.v[i];
		Exporter__FindExportersRequest__MetadataEntry *en =
			llb_new(a, Exporter__FindExportersRequest__MetadataEntry,
				exporter__find_exporters_request__metadata_entry__init);
		en->key = r->key;
		en->value = (ProtobufCBinaryData){r->len, r->data};
		LLB_PUSH(a, m.n_metadata, m.metadata, en);
	}
	for (size_t i = 0; i < b->result.refs.n; i++) {
		struct ref *r = b->result.refs.v[i].ref;
		if (!r) continue;
		/* The client may look into it by the build's bridge. */
		if (b->bridge && !map_has(&b->bridge->refs, r->id)) bridge_add(b->bridge, ref_hold(r));
		const char *id = r->id;
		LLB_PUSH(a, m.n_refs, m.refs, id);
	}
	return start(b, METHOD_EXPORTER_FIND_EXPORTERS, &m.base, done, arg);
}

struct session_export *session_export_end(struct build *b, const struct strvec *response,
					  void (*done)(void *arg, const struct err *e), void *arg)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Exporter__FinalizeExportRequest m = EXPORTER__FINALIZE_EXPORT_REQUEST__INIT;
	for (size_t i = 0; i < response->n; i++) {
		const char *kv = response->v[i], *eq = strchr(kv, '=');
		Exporter__FinalizeExportRequest__ExporterResponseEntry *en =
			llb_new(a, Exporter__FinalizeExportRequest__ExporterResponseEntry,
				exporter__finalize_export_request__exporter_response_entry__init);
		en->key = arena_strndup(a, kv, (size_t)(eq - kv));
		en->value = eq + 1;
		LLB_PUSH(a, m.n_exporter_response, m.exporter_response, en);
	}
	return start(b, METHOD_EXPORTER_FINALIZE_EXPORT, &m.base, done, arg);
}

void session_export_cancel(struct session_export *x)
{
	x->build = NULL;
	if (x->op) sess_op_cancel(x->op);
}
