/* Operations that only rearrange trees: merge, diff, passthrough. */
#include "ops/internal.h"

#include <string.h>

struct compose_op {
	struct ops_node o;
	struct solve_node *node;
	struct loop_job job;
	struct ops_fill *fill;
	struct snap *lower, *upper, *result;
	struct snap_view *views[3];
	struct err error;
};

static void op_free(void *op)
{
	struct compose_op *c = op;
	ops_node_fini(&c->o);
	free(c);
}

static struct snap *input_at(struct solve_node *n, int64_t i) { return i < 0 || (size_t)i >= solve_input_count(n) ? NULL : solve_input(n, (size_t)i); }

static void cancel(void *op, struct solve_node *n)
{
	struct compose_op *c = op;
	loop_job_cancel(&c->job);
	if (c->fill) ops_fill_cancel(c->fill);
}

/* ---- merge ---- */

static void exec_merge(void *op, struct solve_node *n)
{
	struct compose_op *c = op;
	const Pb__MergeOp *m = c->o.llb->op->merge;
	struct err e = ERR_INIT;
	struct snap **in = xcalloc(m->n_inputs, sizeof *in);
	for (size_t i = 0; i < m->n_inputs; i++) in[i] = input_at(n, m->inputs[i]->input);
	struct snap *result = snap_merge(c->o.env->snaps, in, m->n_inputs, c->o.llb->name, &e);
	free(in);
	solve_exec_done(n, &result, &e);
}

/* ---- diff ---- */

static void diff_end(struct compose_op *c)
{
	for (int i = 0; i < 3; i++) snap_view_free(c->views[i]);
	memset(c->views, 0, sizeof c->views);
	struct snap *result = c->result;
	c->result = NULL;
	struct err e = c->error;
	c->error = ERR_INIT;
	if (!err_is_set(&e)) snap_commit(result, &e);
	if (err_is_set(&e)) {
		snap_discard(result);
		result = NULL;
	}
	solve_exec_done(c->node, &result, &e);
}

static void diff_work(struct loop_job *j)
{
	struct compose_op *c = container_of(j, struct compose_op, job);
	if (snap_diff_compute(c->views[0], c->views[1], c->views[2], &j->cancelled, &c->error) >= 0) snap_view_seal(c->views[2], &c->error);
}

static void diff_done(struct loop_job *j) { diff_end(container_of(j, struct compose_op, job)); }

static void diff_start(struct compose_op *c)
{
	struct snap *snaps[3] = {c->lower, c->upper, c->result};
	for (int i = 0; i < 3; i++) c->views[i] = snaps[i] ? snap_view_new(snaps[i]) : snap_view_empty(c->o.env->snaps);
	c->job.work = diff_work;
	c->job.done = diff_done;
	loop_job_start(c->o.env->loop, &c->job, LOOP_DISK);
}

static void diff_filled(void *arg, const struct err *e)
{
	struct compose_op *c = arg;
	c->fill = NULL;
	if (!e) {
		diff_start(c);
		return;
	}
	err_copy(&c->error, e);
	diff_end(c);
}

static void exec_diff(void *op, struct solve_node *n)
{
	struct compose_op *c = op;
	const Pb__DiffOp *d = c->o.llb->op->diff;
	c->node = n;
	atomic_store(&c->job.cancelled, false);
	c->lower = input_at(n, d->lower ? d->lower->input : LLB_NONE);
	c->upper = input_at(n, d->upper ? d->upper->input : LLB_NONE);
	int r = snap_diff(c->o.env->snaps, c->lower, c->upper, c->o.llb->name, &c->result, &c->error);
	if (r != 0) {
		struct err e = c->error;
		c->error = ERR_INIT;
		struct snap *result = c->result;
		c->result = NULL;
		solve_exec_done(n, &result, &e);
		return;
	}
	const char *sessions[OPS_SESSIONS_MAX];
	struct ops_fill_req req = {.snaps = (struct snap *const[]){c->lower, c->upper}, .n = 2, .sessions = sessions, .done = diff_filled, .arg = c};
	req.n_sessions = ops_sessions(n, c->o.env, sessions, OPS_SESSIONS_MAX);
	ops_span_node(&req.span, c->o.env, n);
	c->fill = ops_fill(c->o.env, &req);
	if (!c->fill) diff_start(c);
}

/* ---- passthrough ---- */

static void exec_passthrough(void *op, struct solve_node *n)
{
	struct compose_op *c = op;
	const Pb__PassthroughOp *p = c->o.llb->op->passthrough;
	struct snap **out = xcalloc(p->n_outputs, sizeof *out);
	for (size_t i = 0; i < p->n_outputs; i++) {
		struct snap *s = input_at(n, p->outputs[i]);
		out[i] = s ? snap_ref(s) : NULL;
	}
	solve_exec_done(n, out, NULL);
	free(out);
}

#define COMPOSE(name)                                                                                                                  \
	const struct ops_kind ops_##name##_kind = {                                                                                    \
		.vt = {.kind = #name, .map = ops_map_by_keys, .content = ops_content, .exec = exec_##name, .cancel = cancel, .free = op_free}, \
		.size = sizeof(struct compose_op),                                                                                     \
	}
COMPOSE(merge);
COMPOSE(diff);
COMPOSE(passthrough);
