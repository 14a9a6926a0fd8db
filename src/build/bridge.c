/* LLBBridge: the requests of one frontend. References are known by their ids, per bridge. */
#include "build/container.h"
#include "build/platforms.h"
#include "build/provenance.h"
#include "build/share.h"

#include <string.h>

struct packed {
	size_t n;
	uint8_t b[];
};

struct bridge *build_bridge_new(struct build *b)
{
	struct bridge *br = xnew(struct bridge);
	br->build = b;
	br->scope = b->prov;
	list_init(&br->calls);
	list_init(&br->streams);
	return br;
}

void build_bridge_free(struct bridge *b)
{
	if (!b) return;
	struct err e = ERR_INIT;
	err_set(&e, CODE_CANCELLED, "context canceled");
	LIST_EACH(&b->calls, struct bridge_call, c, link) bridge_call_end(c, NULL, &e);
	err_fini(&e);
	exec_streams_end(b);
	containers_discard(b);
	MAP_EACH(&b->results, it) snap_unref(it->value);
	map_fini(&b->results);
	MAP_EACH(&b->refs, it) ref_drop(it->value);
	map_fini(&b->refs);
	map_fini_free(&b->inputs);
	free(b);
}

struct ref *bridge_add(struct bridge *b, struct ref *r)
{
	map_put(&b->refs, r->id, r);
	return r;
}

/* ---- calls under way ---- */

struct bridge_call *bridge_call_new(struct bridge *b, struct build_reply r, size_t size)
{
	struct bridge_call *c = xcalloc(1, size);
	c->bridge = b;
	c->reply = r;
	list_add_tail(&b->calls, &c->link);
	return c;
}

void bridge_call_end(struct bridge_call *c, const ProtobufCMessage *m, const struct err *e)
{
	list_del(&c->link);
	if (c->ref) ref_eval_forget(c->ref, c);
	struct err plain = ERR_INIT;
	if (e) {
		err_copy(&plain, e);
		build_error_code(&plain);
	}
	c->reply.done(c->reply.arg, m, e ? &plain : NULL); /* m may point into what stop() frees */
	err_fini(&plain);
	if (c->stop) c->stop(c);
	ref_drop(c->ref);
	c->ended = true;
	if (!c->busy) free(c);
}

void bridge_refuse(struct build_reply r, enum code code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	va_start(ap, fmt);
	err_vset(&e, code, fmt, ap);
	va_end(ap);
	r.done(r.arg, NULL, &e);
	err_fini(&e);
}

struct ref *bridge_find(struct bridge *b, const char *id, struct err *e)
{
	struct ref *r = map_get(&b->refs, id);
	if (!r) err_set(e, CODE_UNKNOWN, "no such ref: %s, all [%zu]", id, b->refs.count);
	return r;
}

/* ---- Ping ---- */

static size_t caps(struct arena *a, const struct llb_cap *table, Caps__APICap ***ret)
{
	size_t n = 0, c = 0;
	while (table[n].id) n++;
	Caps__APICap **v = arena_alloc(a, sizeof *v * n);
	for (size_t i = 0; i < n; i++) {
		if (!table[i].implemented) continue;
		v[c] = arena_new_of(a, Caps__APICap);
		caps__apicap__init(v[c]);
		v[c]->id = table[i].id;
		v[c]->enabled = true;
		v[c++]->deprecated = table[i].deprecated;
	}
	*ret = v;
	return c;
}

void bridge_ping(struct bridge *b, struct build_reply r)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Gateway__PongResponse m = GATEWAY__PONG_RESPONSE__INIT;
	m.n_frontendapicaps = caps(a, llb_gateway_caps, &m.frontendapicaps);
	m.n_llbcaps = caps(a, llb_caps, &m.llbcaps);
	Types__WorkerRecord *w = engine_worker(b->build->engine, a, true);
	m.n_workers = 1;
	m.workers = &w;
	r.done(r.arg, &m.base, NULL);
}

/* ---- Solve ---- */

static Gateway__Ref *ref_message(struct arena *a, struct bridge *b, const struct ref *r)
{
	Gateway__Ref *m = arena_new_of(a, Gateway__Ref);
	gateway__ref__init(m);
	if (!r) return m;
	m->id = r->id;
	if (r->def) m->def = wire_unpack_as(Pb__Definition, pb__definition, r->def, r->def_len, a, NULL);
	return m;
}

static Gateway__Attestations *attestations_of(struct arena *a, Gateway__Result *m, char *key)
{
	for (size_t i = 0; i < m->n_attestations; i++)
		if (!strcmp(m->attestations[i]->key, key)) return m->attestations[i]->value;
	Gateway__Result__AttestationsEntry *en = arena_new_of(a, Gateway__Result__AttestationsEntry);
	gateway__result__attestations_entry__init(en);
	en->key = key;
	en->value = arena_new_of(a, Gateway__Attestations);
	gateway__attestations__init(en->value);
	m->attestations[m->n_attestations++] = en;
	return en->value;
}

static void attestation_message(struct arena *a, struct bridge *b, const struct result_attest *t, Gateway__Result *m)
{
	Gateway__Attestations *list = attestations_of(a, m, t->key);
	Gateway__Attestation *x = arena_new_of(a, Gateway__Attestation);
	gateway__attestation__init(x);
	x->kind = t->bundle ? GATEWAY__ATTESTATION_KIND__Bundle : GATEWAY__ATTESTATION_KIND__InToto;
	if (t->ref) x->ref = ref_message(a, b, t->ref);
	x->path = t->path;
	x->intotopredicatetype = t->predicate_type;
	for (size_t i = 0; i < t->meta.n; i++) {
		Gateway__Attestation__MetadataEntry *en = arena_new_of(a, Gateway__Attestation__MetadataEntry);
		gateway__attestation__metadata_entry__init(en);
		en->key = t->meta.v[i].key;
		en->value = (ProtobufCBinaryData){t->meta.v[i].len, t->meta.v[i].data};
		LLB_PUSH(a, x->n_metadata, x->metadata, en);
	}
	for (size_t i = 0; i < t->subjects.n; i++) {
		const struct result_subject *s = &t->subjects.v[i];
		Gateway__InTotoSubject *y = arena_new_of(a, Gateway__InTotoSubject);
		gateway__in_toto_subject__init(y);
		y->kind = s->raw ? GATEWAY__IN_TOTO_SUBJECT_KIND__Raw : GATEWAY__IN_TOTO_SUBJECT_KIND__Self;
		if (s->name) y->name = s->name;
		if (s->digest) {
			const char *digest = s->digest;
			LLB_PUSH(a, y->n_digest, y->digest, digest);
		}
		LLB_PUSH(a, x->n_intotosubjects, x->intotosubjects, y);
	}
	LLB_PUSH(a, list->n_attestation, list->attestation, x);
}

static void result_message(struct arena *a, struct bridge *b, const struct result *res, Gateway__Result *m)
{
	if (res->is_map) {
		Gateway__RefMap *map = arena_new_of(a, Gateway__RefMap);
		gateway__ref_map__init(map);
		map->refs = arena_alloc(a, sizeof *map->refs * res->refs.n);
		for (size_t i = 0; i < res->refs.n; i++) {
			Gateway__RefMap__RefsEntry *en = arena_new_of(a, Gateway__RefMap__RefsEntry);
			gateway__ref_map__refs_entry__init(en);
			en->key = res->refs.v[i].key;
			en->value = ref_message(a, b, res->refs.v[i].ref);
			map->refs[map->n_refs++] = en;
		}
		m->result_case = GATEWAY__RESULT__RESULT_REFS;
		m->refs = map;
	} else {
		m->result_case = GATEWAY__RESULT__RESULT_REF;
		m->ref = ref_message(a, b, res->refs.n ? res->refs.v[0].ref : NULL);
	}
	m->attestations = arena_alloc(a, sizeof *m->attestations * (res->attests.n + 1));
	for (size_t i = 0; i < res->attests.n; i++) attestation_message(a, b, &res->attests.v[i], m);
	m->metadata = arena_alloc(a, sizeof *m->metadata * res->meta.n);
	for (size_t i = 0; i < res->meta.n; i++) {
		Gateway__Result__MetadataEntry *en = arena_new_of(a, Gateway__Result__MetadataEntry);
		gateway__result__metadata_entry__init(en);
		en->key = res->meta.v[i].key;
		en->value = (ProtobufCBinaryData){res->meta.v[i].len, res->meta.v[i].data};
		m->metadata[m->n_metadata++] = en;
	}
}

/* The frontend may name these references from now on. */
static void adopt(struct bridge *b, const struct result *res)
{
	for (size_t i = 0; i < res->refs.n; i++)
		if (res->refs.v[i].ref && !map_has(&b->refs, res->refs.v[i].ref->id)) bridge_add(b, ref_hold(res->refs.v[i].ref));
	for (size_t i = 0; i < res->attests.n; i++)
		if (res->attests.v[i].ref && !map_has(&b->refs, res->attests.v[i].ref->id)) bridge_add(b, ref_hold(res->attests.v[i].ref));
}

struct solve_call {
	struct bridge_call c;
	struct result result;
	struct front_run *front;
	bool evaluate;
	size_t left;
	struct strvec opts;
};

static void solve_stop(struct bridge_call *c)
{
	struct solve_call *s = (struct solve_call *)c;
	if (s->front) front_run_cancel(s->front);
	for (size_t i = 0; i < s->result.refs.n; i++)
		if (s->result.refs.v[i].ref) ref_eval_forget(s->result.refs.v[i].ref, s);
	result_fini(&s->result);
	strvec_fini(&s->opts);
}

static void solve_reply(struct solve_call *s)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Gateway__SolveResponse m = GATEWAY__SOLVE_RESPONSE__INIT;
	Gateway__Result res = GATEWAY__RESULT__INIT;
	adopt(s->c.bridge, &s->result);
	result_message(a, s->c.bridge, &s->result, &res);
	m.result = &res;
	struct bridge_call *c = &s->c;
	/* The message points into the result: reply before it goes. */
	list_del(&c->link);
	c->reply.done(c->reply.arg, &m.base, NULL);
	solve_stop(c);
	free(c);
}

static void solve_failed(struct solve_call *s, const struct err *e) { bridge_call_failed(&s->c, e); }

static void solve_evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct solve_call *s = arg;
	if (e)
		solve_failed(s, e);
	else if (--s->left == 0)
		solve_reply(s);
}

static void solve_have_result(struct solve_call *s)
{
	s->left = 0;
	if (s->evaluate)
		for (size_t i = 0; i < s->result.refs.n; i++) s->left += s->result.refs.v[i].ref != NULL;
	if (!s->left) {
		solve_reply(s);
		return;
	}
	for (size_t i = 0, n = s->result.refs.n; i < n; i++)
		if (s->result.refs.v[i].ref) ref_eval(s->result.refs.v[i].ref, solve_evaluated, s);
}

static void solve_frontend_done(void *arg, struct result *res, const struct err *e)
{
	struct solve_call *s = arg;
	s->front = NULL;
	if (e) {
		solve_failed(s, e);
		return;
	}
	s->result = *res;
	*res = (struct result){0};
	result_capture_request(&s->result, &s->opts);
	solve_have_result(s);
}

/* An input without a definition is none at all: the scratch tree has one, without operations. */
static int check_inputs(const Gateway__SolveRequest *req, struct err *e)
{
	for (size_t i = 0; i < req->n_frontendinputs; i++) {
		const Pb__Definition *d = req->frontendinputs[i]->value;
		if (!d || (!d->n_def && !d->n_metadata && !d->source))
			return err_set(e, CODE_UNKNOWN, "failed to read input %s: invalid nil input definition to definition op",
				       req->frontendinputs[i]->key);
	}
	return 0;
}

void bridge_solve(struct bridge *b, const Gateway__SolveRequest *req, struct build_reply r)
{
	bool has_def = req->definition && req->definition->n_def;
	if (has_def && *req->frontend) {
		bridge_refuse(r, CODE_UNKNOWN, "cannot solve with both Definition and Frontend specified");
		return;
	}
	struct solve_call *s = (struct solve_call *)bridge_call_new(b, r, sizeof *s);
	s->c.stop = solve_stop;
	s->evaluate = req->evaluate;
	if (*req->frontend) {
		struct err nil = ERR_INIT;
		if (check_inputs(req, &nil) < 0) {
			solve_failed(s, &nil);
			err_fini(&nil);
			return;
		}
		for (size_t i = 0; i < req->n_frontendopt; i++) strvec_addf(&s->opts, "%s=%s", req->frontendopt[i]->key, req->frontendopt[i]->value);
		struct bridge *inputs = build_bridge_new(b->build); /* copied from by what is started */
		inputs->scope = b->scope;
		for (size_t i = 0; i < req->n_frontendinputs; i++)
			if (req->frontendinputs[i]->value) bridge_add_input(inputs, req->frontendinputs[i]->key, req->frontendinputs[i]->value);
		s->front = front_run_start(b->build, inputs, req->frontend, &s->opts, solve_frontend_done, s);
		build_bridge_free(inputs);
		return;
	}
	share_import_gateway(b->build, req->cacheimports, req->n_cacheimports);
	struct result_ref x = {NULL, has_def ? ref_new(b->build, req->definition) : NULL};
	prov_scope_ref(b->scope, x.ref);
	vec_push(&s->result.refs, x);
	struct err e = ERR_INIT;
	if (x.ref && ref_rules(x.ref, req->sourcepolicies, req->n_sourcepolicies, &e) < 0)
		solve_failed(s, &e);
	else
		solve_have_result(s);
	err_fini(&e);
}

/* ---- Evaluate, Return, Inputs, Warn ---- */

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	Gateway__EvaluateResponse m = GATEWAY__EVALUATE_RESPONSE__INIT;
	if (e)
		bridge_call_failed(arg, e);
	else
		bridge_call_end(arg, &m.base, NULL);
}

void bridge_evaluate(struct bridge *b, const Gateway__EvaluateRequest *req, struct build_reply r)
{
	struct err e = ERR_INIT;
	struct ref *ref = bridge_find(b, req->ref, &e);
	if (!ref) {
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return;
	}
	struct bridge_call *c = bridge_call_new(b, r, sizeof *c);
	c->ref = ref_hold(ref);
	ref_eval(ref, evaluated, c);
}

static int take_ref(struct bridge *b, const char *key, const Gateway__Ref *m, const char *deprecated_id, struct result *res, struct err *e)
{
	const char *id = m ? m->id : deprecated_id;
	struct result_ref x = {key ? xstrdup(key) : NULL, NULL};
	if (id && *id) {
		struct ref *r = map_get(&b->refs, id);
		if (!r) {
			free(x.key);
			return err_set(e, CODE_UNKNOWN, "return reference %s not found", id);
		}
		x.ref = ref_hold(r);
	}
	vec_push(&res->refs, x);
	return 0;
}

static int take_attestation(struct bridge *b, const char *key, const Gateway__Attestation *m, struct result *res, struct err *e)
{
	bool bundle = m->kind == GATEWAY__ATTESTATION_KIND__Bundle;
	struct ref *r = NULL;
	if (m->ref && *m->ref->id && !(r = map_get(&b->refs, m->ref->id))) return err_set(e, CODE_UNKNOWN, "return reference %s not found", m->ref->id);
	struct result_attest *a = result_attest_add(res, key, bundle, m->path, m->intotopredicatetype);
	a->ref = r ? ref_hold(r) : NULL;
	for (size_t i = 0; i < m->n_metadata; i++)
		result_attest_meta(a, m->metadata[i]->key, m->metadata[i]->value.data, m->metadata[i]->value.len);
	for (size_t i = 0; i < m->n_intotosubjects; i++) {
		const Gateway__InTotoSubject *s = m->intotosubjects[i];
		struct result_subject x = {s->kind == GATEWAY__IN_TOTO_SUBJECT_KIND__Raw, xstrdup(s->name), s->n_digest ? xstrdup(s->digest[0]) : NULL};
		vec_push(&a->subjects, x);
	}
	return 0;
}

static int take_result(struct bridge *b, const Gateway__Result *m, struct result *res, struct err *e)
{
	switch (m->result_case) {
	case GATEWAY__RESULT__RESULT_REF:
		if (take_ref(b, NULL, m->ref, NULL, res, e) < 0) return -1;
		break;
	case GATEWAY__RESULT__RESULT_REF_DEPRECATED:
		if (take_ref(b, NULL, NULL, m->refdeprecated, res, e) < 0) return -1;
		break;
	case GATEWAY__RESULT__RESULT_REFS:
		res->is_map = true;
		for (size_t i = 0; i < m->refs->n_refs; i++)
			if (take_ref(b, m->refs->refs[i]->key, m->refs->refs[i]->value, NULL, res, e) < 0) return -1;
		break;
	case GATEWAY__RESULT__RESULT_REFS_DEPRECATED:
		res->is_map = true;
		for (size_t i = 0; i < m->refsdeprecated->n_refs; i++)
			if (take_ref(b, m->refsdeprecated->refs[i]->key, NULL, m->refsdeprecated->refs[i]->value, res, e) < 0) return -1;
		break;
	default: break;
	}
	for (size_t i = 0; i < m->n_attestations; i++) {
		const Gateway__Attestations *list = m->attestations[i]->value;
		for (size_t k = 0; list && k < list->n_attestation; k++)
			if (take_attestation(b, m->attestations[i]->key, list->attestation[k], res, e) < 0) return -1;
	}
	for (size_t i = 0; i < m->n_metadata; i++)
		result_meta_set(res, m->metadata[i]->key, m->metadata[i]->value.data, m->metadata[i]->value.len);
	return 0;
}

static void status_to_err(const Rpc__Status *st, struct err *e)
{
	err_set(e, st->code ? (enum code)st->code : CODE_UNKNOWN, "%s", st->message);
	for (size_t i = 0; i < st->n_details; i++)
		err_detail_add(e, st->details[i]->type_url, st->details[i]->value.data, st->details[i]->value.len);
}

void bridge_return(struct bridge *b, const Gateway__ReturnRequest *req, struct build_reply r)
{
	if (b->returned) {
		bridge_refuse(r, CODE_UNKNOWN, "gateway result is already set");
		return;
	}
	if (!req->result == !req->error) {
		bridge_refuse(r, CODE_UNKNOWN, "gateway return must be either result or err");
		return;
	}
	struct err e = ERR_INIT;
	struct result res = {0};
	if (req->error) {
		status_to_err(req->error, &e);
	} else if (take_result(b, req->result, &res, &e) < 0) {
		result_fini(&res);
		r.done(r.arg, NULL, &e);
		err_fini(&e);
		return;
	}
	b->returned = true;
	Gateway__ReturnResponse m = GATEWAY__RETURN_RESPONSE__INIT;
	r.done(r.arg, &m.base, NULL);
	b->on_return(b, &res, req->error ? &e : NULL);
	result_fini(&res);
	err_fini(&e);
}

void bridge_add_input(struct bridge *b, const char *name, const Pb__Definition *def)
{
	size_t n = protobuf_c_message_get_packed_size(&def->base);
	struct packed *p = xmalloc(sizeof *p + n);
	p->n = n;
	protobuf_c_message_pack(&def->base, p->b);
	free(map_put(&b->inputs, name, p));
}

Pb__Definition *bridge_input(const struct bridge *b, const char *name, struct arena *a)
{
	const struct packed *p = map_get(&b->inputs, name);
	return p ? wire_unpack_as(Pb__Definition, pb__definition, p->b, p->n, a, NULL) : NULL;
}

void bridge_inputs(struct bridge *b, struct build_reply r)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	Gateway__InputsResponse m = GATEWAY__INPUTS_RESPONSE__INIT;
	m.definitions = arena_alloc(a, sizeof *m.definitions * b->inputs.count);
	MAP_EACH(&b->inputs, it)
	{
		Gateway__InputsResponse__DefinitionsEntry *en = arena_new_of(a, Gateway__InputsResponse__DefinitionsEntry);
		gateway__inputs_response__definitions_entry__init(en);
		en->key = it->key;
		en->value = bridge_input(b, it->key, a);
		m.definitions[m.n_definitions++] = en;
	}
	r.done(r.arg, &m.base, NULL);
}

void bridge_warn(struct bridge *b, const Gateway__WarnRequest *req, struct build_reply r)
{
	struct prog_warning w = {.level = req->level ? req->level : 1, .url = (char *)req->url};
	snprintf(w.vertex, sizeof w.vertex, "%s", req->digest);
	_cleanup_free_ char *text = xstrndup(req->short_.data ? (const char *)req->short_.data : "", req->short_.len);
	w.short_ = text;
	for (size_t i = 0; i < req->n_detail; i++) strvec_take(&w.detail, xstrndup(req->detail[i].data ? (const char *)req->detail[i].data : "", req->detail[i].len));
	_cleanup_buf_ struct buf info = BUF_INIT;
	if (req->info) {
		wire_pack(&req->info->base, &info);
		w.source_info = info.p;
		w.source_info_len = info.n;
	}
	w.ranges = xcalloc(req->n_ranges, sizeof *w.ranges);
	bool bad = false;
	for (size_t i = 0; i < req->n_ranges; i++) {
		const Pb__Range *rg = req->ranges[i];
		if (!rg || !rg->start || !rg->end) {
			bad = true;
			break;
		}
		w.ranges[w.n_ranges++] = (struct prog_range){{rg->start->line, rg->start->character}, {rg->end->line, rg->end->character}};
	}
	if (bad) {
		bridge_refuse(r, CODE_INVALID_ARGUMENT, "invalid source range");
	} else {
		struct prog_event *ev = prog_warning_new(&w);
		build_event(b->build, ev);
		prog_unref(ev);
		Gateway__WarnResponse m = GATEWAY__WARN_RESPONSE__INIT;
		r.done(r.arg, &m.base, NULL);
	}
	free(w.ranges);
	strvec_fini(&w.detail);
}
