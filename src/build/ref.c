/* Lazy references: loaded into the solver when somebody needs the result, then held as long as a frontend or the build may
 * name them. */
#include "build/source_policy.h"
#include "build/devices.h"
#include "build/provenance.h"

#include <stdio.h>
#include <string.h>

struct ref *ref_new(struct build *b, const Pb__Definition *def)
{
	struct ref *r = xnew(struct ref);
	id_new(r->id);
	r->build = b;
	r->refs = 1;
	r->scratch = !def || !def->n_def;
	if (!r->scratch) {
		r->def_len = protobuf_c_message_get_packed_size(&def->base);
		r->def = xmalloc(r->def_len);
		protobuf_c_message_pack(&def->base, r->def);
	}
	return r;
}

struct ref *ref_hold(struct ref *r)
{
	r->refs++;
	return r;
}

static void checks_cancel(struct ref *r);

void ref_drop(struct ref *r)
{
	if (!r || --r->refs) return;
	solve_waiter_free(r->waiter);
	checks_cancel(r);
	if (r->rules) source_rules_fini(r->rules);
	free(r->rules);
	ops_graph_unref(r->graph);
	err_fini(&r->error);
	vec_fini(&r->waits);
	free(r->nodes);
	free(r->def);
	free(r);
}

/* ---- loading ---- */

static int check_entitlements(const struct engine_conf *conf, const struct build *b, const Pb__Op *op, struct arena *a,
			      struct err *e)
{
	if (op->op_case != PB__OP__OP_EXEC) return 0;
	const Pb__ExecOp *x = op->exec;
	bool host = false, insecure = false;
	for (size_t i = 0; i < b->pb->n_entitlements; i++) {
		host |= !strcmp(b->pb->entitlements[i], "network.host");
		insecure |= !strcmp(b->pb->entitlements[i], "security.insecure");
	}
	if (x->security != PB__SECURITY_MODE__SANDBOX && x->security != PB__SECURITY_MODE__INSECURE)
		return err_set(e, CODE_UNKNOWN, "failed to load LLB: invalid security mode %d", (int)x->security);
	if (x->network == PB__NET_MODE__HOST && !host)
		return err_set(e, CODE_UNKNOWN, "failed to load LLB: network.host is not allowed");
	if (x->security == PB__SECURITY_MODE__INSECURE && !insecure)
		return err_set(e, CODE_UNKNOWN, "failed to load LLB: security.insecure is not allowed");
	return devices_allow(conf->env->cdi, b->pb, op->exec, a, e);
}

static int add_nodes(struct ref *r, struct err *e)
{
	struct build *b = r->build;
	struct llb_graph *g = r->graph->graph;
	struct ops_env *env = b->engine->conf.env;
	struct solve_node **nodes = xcalloc(g->n_nodes, sizeof *nodes);
	int rc = 0;
	for (size_t i = 0; i < g->n_nodes && rc == 0; i++)
		rc = check_entitlements(&b->engine->conf, b, g->nodes[i].op, g->arena, e);
	for (size_t i = 0; i < g->n_nodes && rc == 0; i++) {
		const struct llb_node *n = &g->nodes[i];
		struct solve_vertex v = {.digest = n->digest, .name = n->name, .ignore_cache = llb_node_ignore_cache(n)};
		v.n_inputs = n->op->n_inputs;
		v.inputs = xcalloc(v.n_inputs, sizeof *v.inputs);
		for (size_t k = 0; k < v.n_inputs; k++) {
			v.inputs[k].node = nodes[n->inputs[k].node];
			v.inputs[k].output = (size_t)n->inputs[k].output;
			if (v.inputs[k].output >= max_of(llb_op_outputs(g->nodes[n->inputs[k].node].op), (size_t)1))
				rc = err_set(e, CODE_UNKNOWN, "failed to load LLB: invalid input %zu of %s: output index %zu",
					     k, n->name, v.inputs[k].output);
		}
		if (n->meta && n->meta->progress_group) {
			v.group_id = n->meta->progress_group->id;
			v.group_name = n->meta->progress_group->name;
			v.group_weak = n->meta->progress_group->weak;
		}
		if (n->meta && n->meta->export_cache) v.no_export = !n->meta->export_cache->value;
		if (rc == 0) rc = ops_vertex(env, r->graph, i, &v, e);
		if (rc == 0) nodes[i] = solve_add(b->solve, &v);
		free(v.inputs);
	}
	if (rc == 0) {
		r->node = nodes[g->root.node];
		r->output = (size_t)g->root.output;
		if (r->output >= max_of(llb_op_outputs(g->nodes[g->root.node].op), (size_t)1))
			rc = err_set(e, CODE_UNKNOWN,
				     "failed to load LLB: the result names output %zu, which its vertex does not have",
				     r->output);
	}
	free(r->nodes);
	r->nodes = nodes;
	return rc;
}

static int decode(struct ref *r, struct err *e)
{
	struct arena *a = arena_new(0);
	struct llb_graph *g = NULL;
	struct llb_load opt = {.default_platform = &r->build->engine->conf.platforms[0],
			       .proxy_network = r->build->pb->proxynetwork || r->build->policy->proxy_network};
	const Pb__Definition *def = wire_unpack_as(Pb__Definition, pb__definition, r->def, r->def_len, a, e);
	if (!def || llb_graph_load(def, a, &opt, &g, e) < 0) {
		arena_free(a);
		return -1;
	}
	r->graph = ops_graph_new(g);
	r->scratch = !g->n_nodes;
	return 0;
}

static void load_failed(struct ref *r, const struct err *e)
{
	r->failed = true;
	err_copy(&r->error, e);
}

static void loaded(struct ref *r);

/* ---- sources held against policies: all at once ---- */

struct ref_check {
	struct ref *ref;
	struct source_ask *ask;
};

static void checks_cancel(struct ref *r)
{
	for (size_t i = 0; i < r->n_checks; i++)
		if (r->checks[i].ask) source_ask_cancel(r->checks[i].ask);
	free(r->checks);
	r->checks = NULL;
	r->n_checks = r->checks_left = 0;
}

static void checks_ended(struct ref *r)
{
	struct err e = ERR_INIT;
	checks_cancel(r);
	if (!r->failed && r->sources_changed && llb_graph_redigest(r->graph->graph, &e) < 0) load_failed(r, &e);
	err_fini(&e);
	loaded(r);
}

static void checked(void *arg, bool changed, const struct err *e)
{
	struct ref_check *c = arg;
	struct ref *r = c->ref;
	c->ask = NULL;
	r->sources_changed |= changed;
	if (e && !r->failed) {
		load_failed(r, e);
		err_wrap(&r->error, "error evaluating the source policy");
		err_wrap(&r->error, "failed to load LLB");
	}
	if (--r->checks_left == 0 || (r->failed && !r->checks_starting)) checks_ended(r);
}

static void check_sources(struct ref *r)
{
	struct llb_graph *g = r->graph->graph;
	r->checks = xcalloc(g->n_nodes, sizeof *r->checks);
	r->checks_starting = true;
	r->checks_left = 1; /* ours, so that it does not end within the loop */
	for (size_t i = 0; i < g->n_nodes && !r->failed; i++) {
		Pb__Op *op = g->nodes[i].op;
		if (op->op_case != PB__OP__OP_SOURCE) continue;
		struct ref_check *c = &r->checks[r->n_checks++];
		c->ref = r;
		r->checks_left++;
		c->ask = source_ask_start(r->build, r->rules, op->source, op->platform, g->arena, true, checked, c);
	}
	r->checks_starting = false;
	if (--r->checks_left == 0 || r->failed) checks_ended(r);
}

int ref_rules(struct ref *r, Policy__Policy *const *v, size_t n, struct err *e)
{
	if (!n) return 0;
	r->rules = xnew(struct source_rules);
	return source_rules_copy(r->rules, v, n, e);
}

/* ---- evaluating ---- */

static void tell(void *arg)
{
	struct ref *r = arg;
	while (r->waits.n) {
		struct ref_wait w = r->waits.v[0];
		vec_remove(&r->waits, 0);
		w.fn(w.arg, r->failed ? NULL : r->result, r->failed ? &r->error : NULL);
	}
	ref_drop(r);
}

static void tell_soon(struct ref *r)
{
	ref_hold(r);
	loop_post(r->build->engine->conf.env->loop, tell, r);
}

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct ref *r = arg;
	if (e) {
		r->failed = true;
		err_copy(&r->error, e);
		build_error_details(r->build, &r->error);
	} else {
		r->done = true;
		r->result = result;
		prov_ref_done(r);
	}
	tell_soon(r);
}

/* The graph is as it counts: into the solver with it. */
static void loaded(struct ref *r)
{
	struct err e = ERR_INIT;
	if (!r->failed && !r->scratch) {
		vec_push(&r->build->graphs, ops_graph_ref(r->graph));
		if (add_nodes(r, &e) < 0) load_failed(r, &e);
	}
	err_fini(&e);
	if (r->failed || r->scratch) {
		r->done = !r->failed;
		tell_soon(r);
		return;
	}
	r->waiter = solve_want(r->build->solve, r->node, r->output, evaluated, r);
}

static void load(struct ref *r)
{
	struct err e = ERR_INIT;
	r->loading = true;
	if (!r->scratch && decode(r, &e) < 0) load_failed(r, &e);
	err_fini(&e);
	if (!r->failed && !r->scratch && source_policy_wanted(r->build, r->rules))
		check_sources(r);
	else
		loaded(r);
}

void ref_eval(struct ref *r, void (*fn)(void *arg, struct snap *result, const struct err *e), void *arg)
{
	vec_push(&r->waits, ((struct ref_wait){fn, arg}));
	if (r->done || r->failed)
		tell_soon(r);
	else if (!r->loading)
		load(r);
}

void ref_eval_forget(struct ref *r, void *arg)
{
	for (size_t i = r->waits.n; i-- > 0;)
		if (r->waits.v[i].arg == arg) vec_remove(&r->waits, i);
}
