/* Sources held against policies. First the rules (room policy), then, when the request names a session for it, that session's
 * verdict: it allows, denies, converts (then all begins again), or asks what the source resolves to and is asked once more with
 * the answer.
 *
 *  1. One question is under way at a time: a session's call (`op`), or a lookup of ours . An ask that was cancelled stays
 *     until that has ended and touches the build no more.
 *  2. At most ASKS_MAX questions a source, conversions included: a session cannot keep a build for ever. */
#include "build/source_policy.h"
#include "build/bridge.h"
#include "policy/policy.h"
#include "proto/methods.h"
#include "proto/policysession.pb-c.h"
#include "spec/spec.h"

#include <string.h>

enum { ASKS_MAX = 10 };

struct source_ask {
	struct build *build; /* NULL: cancelled */
	struct loop *loop;
	const struct source_rules *extra;
	Pb__SourceOp *src;
	const Pb__Platform *platform;
	struct arena *arena;
	bool changed, asks_session;
	int left;
	struct sess *session;
	struct sess_op *op;
	struct buf answer; /* packed ResolveSourceMetaResponse: what the session is told of the source */
	struct err error;  /* of a lookup */
	void (*done)(void *arg, bool changed, const struct err *e);
	void *arg;
};

/* ---- rules ---- */

int source_rules_copy(struct source_rules *r, Policy__Policy *const *v, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		_cleanup_buf_ struct buf packed = BUF_INIT;
		if (policy_validate(v[i], e) < 0) return -1;
		if (!r->arena) r->arena = arena_new(0);
		wire_pack(&v[i]->base, &packed);
		const Policy__Policy *copy = wire_unpack_as(Policy__Policy, policy__policy, packed.p, packed.n, r->arena, e);
		if (!copy) return -1;
		vec_push(&r->all, copy);
	}
	return 0;
}

void source_rules_fini(struct source_rules *r)
{
	vec_fini(&r->all);
	arena_free(take_ptr(r->arena));
}

bool source_policy_wanted(const struct build *b, const struct source_rules *extra)
{
	return b->pb->sourcepolicy || *b->pb->sourcepolicysession || (extra && extra->all.n);
}

/* The identifier in its one canonical form: rules are written for that. */
static void canonical(struct source_ask *p)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct llb_source parsed;
	if (llb_source_parse(p->src, NULL, a, &parsed, NULL) >= 0 && strcmp(parsed.identifier, p->src->identifier) != 0)
		p->src->identifier = arena_strdup(p->arena, parsed.identifier);
}

static int apply_rules(struct source_ask *p, struct err *e)
{
	VEC(const Policy__Policy *) all = {0};
	if (p->build->pb->sourcepolicy) vec_push(&all, p->build->pb->sourcepolicy);
	for (size_t i = 0; p->extra && i < p->extra->all.n; i++) vec_push(&all, p->extra->all.v[i]);
	canonical(p);
	int rc = policy_apply(all.v, all.n, p->src, p->arena, e);
	vec_fini(&all);
	return rc;
}

/* ---- the end ---- */

static void ask_free(struct source_ask *p)
{
	sess_unref(p->session);
	buf_fini(&p->answer);
	err_fini(&p->error);
	free(p);
}

static void finish(struct source_ask *p, const struct err *e)
{
	p->done(p->arg, p->changed, e);
	ask_free(p);
}

void source_ask_cancel(struct source_ask *p)
{
	p->build = NULL;
	if (p->op) sess_op_cancel(p->op);
}

/* ---- the session's verdict ---- */

static bool evaluate(struct source_ask *p);

static int check_request(const struct source_ask *p, const Gateway__ResolveSourceMetaRequest *req, struct err *e)
{
	if (!req->source || strcmp(req->source->identifier, p->src->identifier) != 0)
		return err_set(e, CODE_UNKNOWN, "policy requested different source identifier: \"%s\" != \"%s\"",
			       req->source ? req->source->identifier : "", p->src->identifier);
	return policy_same_attrs(p->src, req->source, e) < 0 ? err_wrap(e, "policy requested different source attrs") : 0;
}

static void send_question(struct source_ask *p);

static void looked(void *arg)
{
	struct source_ask *p = arg;
	if (!p->build)
		ask_free(p);
	else if (err_is_set(&p->error)) {
		err_wrap(&p->error, "error resolving source metadata from policy request");
		finish(p, &p->error);
	} else
		send_question(p);
}

/* May come at once, and from within the end of a bridge: go on in a turn of its own. */
static void look_answered(void *arg, const ProtobufCMessage *m, const struct err *e)
{
	struct source_ask *p = arg;
	if (e)
		err_copy(&p->error, e);
	else {
		buf_reset(&p->answer);
		wire_pack(m, &p->answer);
	}
	loop_post(p->loop, looked, p);
}

static void look(struct source_ask *p, const Gateway__ResolveSourceMetaRequest *req)
{
	struct err e = ERR_INIT;
	if (check_request(p, req, &e) < 0 || !p->build->bridge) {
		if (!err_is_set(&e)) err_set(&e, CODE_CANCELLED, "context canceled");
		finish(p, &e);
		err_fini(&e);
		return;
	}
	bridge_resolve_for_policy(p->build->bridge, req, (struct build_reply){look_answered, p});
}

static void deny(struct source_ask *p, const Policysession__DecisionResponse *d)
{
	static const char *const names[] = {"ALLOW", "DENY", "CONVERT"};
	struct err e = ERR_INIT;
	err_set(&e, CODE_UNKNOWN, "source \"%s\" not allowed by policy: action %s", p->src->identifier,
		(unsigned)d->action < array_len(names) ? names[d->action] : "unknown");
	if (d->n_denymessages) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		struct json_w w = JSON_W(&b);
		json_obj(&w);
		json_kstr(&w, "action", "DENY");
		json_key(&w, "denyMessages");
		json_arr(&w);
		for (size_t i = 0; i < d->n_denymessages; i++) {
			json_obj(&w);
			json_kstr(&w, "message", d->denymessages[i]->message);
			json_obj_end(&w);
		}
		json_arr_end(&w);
		json_obj_end(&w);
		err_detail_add(&e, "github.com/moby/buildkit/policysession.DecisionResponse+json", b.p, b.n);
	}
	finish(p, &e);
	err_fini(&e);
}

/* Take the update over: its bytes live in a message that goes. */
static int take_update(struct source_ask *p, const Pb__SourceOp *update, struct err *e)
{
	_cleanup_buf_ struct buf packed = BUF_INIT;
	if (!update) return err_set(e, CODE_UNKNOWN, "convert action requires updated source");
	wire_pack(&update->base, &packed);
	const Pb__SourceOp *copy = wire_unpack_as(Pb__SourceOp, pb__source_op, packed.p, packed.n, p->arena, e);
	if (!copy) return -1;
	p->src->identifier = copy->identifier;
	p->src->attrs = copy->attrs;
	p->src->n_attrs = copy->n_attrs;
	return 0;
}

static void decided(struct source_ask *p, const Policysession__DecisionResponse *d)
{
	struct err e = ERR_INIT;
	if (d->action == POLICY__POLICY_ACTION__ALLOW) {
		finish(p, NULL);
	} else if (d->action != POLICY__POLICY_ACTION__CONVERT) {
		deny(p, d);
	} else if (take_update(p, d->update, &e) < 0) {
		finish(p, &e);
		err_fini(&e);
	} else {
		p->changed = true;
		evaluate(p);
	}
}

static void verdict(void *arg, const uint8_t *bytes, size_t n, const struct err *e)
{
	struct source_ask *p = arg;
	p->op = NULL;
	if (!p->build) {
		ask_free(p);
		return;
	}
	struct err bad = ERR_INIT;
	_cleanup_arena_ struct arena *a = arena_new(0);
	Policysession__CheckPolicyResponse *r = NULL;
	if (!e) r = wire_unpack_as(Policysession__CheckPolicyResponse, policysession__check_policy_response, bytes, n, a, &bad);
	if (!r) {
		finish(p, e ? e : &bad);
	} else if (r->result_case == POLICYSESSION__CHECK_POLICY_RESPONSE__RESULT_REQUEST) {
		look(p, r->request);
	} else if (r->result_case == POLICYSESSION__CHECK_POLICY_RESPONSE__RESULT_DECISION) {
		decided(p, r->decision);
	} else {
		err_set(&bad, CODE_UNKNOWN, "no decision in policy response");
		finish(p, &bad);
	}
	err_fini(&bad);
}

static void send_question(struct source_ask *p)
{
	struct err e = ERR_INIT;
	if (p->left-- == 0) {
		err_set(&e, CODE_UNKNOWN, "too many policy requests");
		finish(p, &e);
		err_fini(&e);
		return;
	}
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_buf_ struct buf packed = BUF_INIT;
	Policysession__CheckPolicyRequest req = POLICYSESSION__CHECK_POLICY_REQUEST__INIT;
	Gateway__ResolveSourceMetaResponse plain = GATEWAY__RESOLVE_SOURCE_META_RESPONSE__INIT;
	plain.source = p->src;
	req.platform = (Pb__Platform *)p->platform;
	req.source = &plain;
	if (p->answer.n)
		req.source = wire_unpack_as(Gateway__ResolveSourceMetaResponse, gateway__resolve_source_meta_response,
					    p->answer.p, p->answer.n, a, NULL);
	wire_pack(&req.base, &packed);
	p->op = sess_call(p->session, METHOD_POLICY_CHECK_POLICY, packed.p, packed.n, NULL, 0, 0, verdict, p);
}

static void got_session(void *arg, struct sess *s, const struct err *e)
{
	struct source_ask *p = arg;
	p->op = NULL;
	if (!p->build) {
		ask_free(p);
	} else if (e) {
		finish(p, e);
	} else {
		p->session = sess_ref(s);
		send_question(p);
	}
}

/* From the beginning: what was known of the source is not known of what it became. false: it is done, and p is gone. */
static bool evaluate(struct source_ask *p)
{
	struct err e = ERR_INIT;
	int rc = apply_rules(p, &e);
	bool on = rc >= 0 && p->asks_session;
	buf_reset(&p->answer);
	p->changed |= rc > 0;
	if (!on)
		finish(p, rc < 0 ? &e : NULL);
	else if (p->session)
		send_question(p);
	else
		p->op = sess_wait(p->build->engine->conf.env->sessions, p->build->pb->sourcepolicysession, SESS_WAIT_MS,
				  got_session, p);
	err_fini(&e);
	return on;
}

struct source_ask *source_ask_start(struct build *b, const struct source_rules *extra, Pb__SourceOp *src,
				    const Pb__Platform *platform, struct arena *arena, bool ask_session,
				    void (*done)(void *arg, bool changed, const struct err *e), void *arg)
{
	struct source_ask *p = xnew(struct source_ask);
	p->build = b;
	p->loop = b->engine->conf.env->loop;
	p->extra = extra;
	p->src = src;
	p->platform = platform;
	p->arena = arena;
	p->asks_session = ask_session && *b->pb->sourcepolicysession;
	p->left = ASKS_MAX;
	p->done = done;
	p->arg = arg;
	return evaluate(p) ? p : NULL;
}
