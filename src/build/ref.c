/* Lazy references: loaded into the solver when somebody needs the result, then held as long as a frontend or the build may
 * name them. */
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

void ref_drop(struct ref *r)
{
	if (!r || --r->refs) return;
	solve_waiter_free(r->waiter);
	ops_graph_unref(r->graph);
	err_fini(&r->error);
	vec_fini(&r->waits);
	free(r->nodes);
	free(r->def);
	free(r);
}

/* ---- loading ---- */

static int check_entitlements(const struct engine_conf *conf, const struct build *b, const Pb__Op *op, struct err *e)
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
	if (x->network == PB__NET_MODE__HOST && !host) return err_set(e, CODE_UNKNOWN, "failed to load LLB: network.host is not allowed");
	if (x->security == PB__SECURITY_MODE__INSECURE && !insecure)
		return err_set(e, CODE_UNKNOWN, "failed to load LLB: security.insecure is not allowed");
	return 0;
}

static int add_nodes(struct ref *r, struct err *e)
{
	struct build *b = r->build;
	struct llb_graph *g = r->graph->graph;
	struct ops_env *env = b->engine->conf.env;
	struct solve_node **nodes = xcalloc(g->n_nodes, sizeof *nodes);
	int rc = 0;
	for (size_t i = 0; i < g->n_nodes && rc == 0; i++)
		rc = check_entitlements(&b->engine->conf, b, g->nodes[i].op, e);
	for (size_t i = 0; i < g->n_nodes && rc == 0; i++) {
		const struct llb_node *n = &g->nodes[i];
		struct solve_vertex v = {.digest = n->digest, .name = n->name, .ignore_cache = llb_node_ignore_cache(n)};
		v.n_inputs = n->op->n_inputs;
		v.inputs = xcalloc(v.n_inputs, sizeof *v.inputs);
		for (size_t k = 0; k < v.n_inputs; k++) {
			v.inputs[k].node = nodes[n->inputs[k].node];
			v.inputs[k].output = (size_t)n->inputs[k].output;
			if (v.inputs[k].output >= max_of(llb_op_outputs(g->nodes[n->inputs[k].node].op), (size_t)1))
				rc = err_set(e, CODE_UNKNOWN, "failed to load LLB: invalid input %zu of %s: output index %zu", k, n->name, v.inputs[k].output);
		}
		if (n->meta && n->meta->progress_group) {
			v.group_id = n->meta->progress_group->id;
			v.group_name = n->meta->progress_group->name;
			v.group_weak = n->meta->progress_group->weak;
		}
		if (rc == 0) rc = ops_vertex(env, r->graph, i, &v, e);
		if (rc == 0) nodes[i] = solve_add(b->solve, &v);
		free(v.inputs);
	}
	if (rc == 0) {
		r->node = nodes[g->root.node];
		r->output = (size_t)g->root.output;
		if (r->output >= max_of(llb_op_outputs(g->nodes[g->root.node].op), (size_t)1))
			rc = err_set(e, CODE_UNKNOWN, "failed to load LLB: the result names output %zu, which its vertex does not have", r->output);
	}
	free(r->nodes);
	r->nodes = nodes;
	return rc;
}

int ref_load(struct ref *r, struct err *e)
{
	if (r->node || r->scratch) return 0;
	if (r->failed) {
		err_copy(e, &r->error);
		return -1;
	}
	struct arena *a = arena_new(0);
	struct llb_graph *g = NULL;
	struct llb_load opt = {.default_platform = &r->build->engine->conf.platforms[0], .proxy_network = r->build->pb->proxynetwork};
	const Pb__Definition *def = wire_unpack_as(Pb__Definition, pb__definition, r->def, r->def_len, a, e);
	if (!def || llb_graph_load(def, a, &opt, &g, e) < 0) {
		arena_free(a);
		goto failed;
	}
	r->graph = ops_graph_new(g);
	if (!g->n_nodes) {
		r->scratch = true;
		return 0;
	}
	vec_push(&r->build->graphs, ops_graph_ref(r->graph));
	if (add_nodes(r, e) >= 0) return 0;
failed:
	r->failed = true;
	if (e) err_copy(&r->error, e);
	return -1;
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

void ref_eval(struct ref *r, void (*fn)(void *arg, struct snap *result, const struct err *e), void *arg)
{
	vec_push(&r->waits, ((struct ref_wait){fn, arg}));
	if (r->done || r->failed) {
		tell_soon(r);
		return;
	}
	if (r->waiter) return;
	struct err e = ERR_INIT;
	if (ref_load(r, &e) < 0 || r->scratch) {
		r->done = r->scratch;
		err_fini(&e);
		tell_soon(r);
		return;
	}
	r->waiter = solve_want(r->build->solve, r->node, r->output, evaluated, r);
}

void ref_eval_forget(struct ref *r, void *arg)
{
	for (size_t i = r->waits.n; i-- > 0;)
		if (r->waits.v[i].arg == arg) vec_remove(&r->waits, i);
}
