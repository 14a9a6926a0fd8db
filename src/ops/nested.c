/* The build operation: a graph whose definition lies in a file of an input. The file is read by a job; then a build that wants
 * this step evaluates the graph as one of its own, and what that gives is the result. When that build ends first, another one
 * that wants the step is asked. It takes no slot: what it waits for takes them. Source: moby/buildkit
 * solver/llbsolver/ops/build.go. */
#include "ops/internal.h"
#include "ops/nested_job.h"
#include "wire/wire.h"

#include <string.h>

struct nested_op {
	struct ops_node o;
	struct solve_node *node;
	struct ops_fill *fill;
	struct loop_job job;
	struct snap_view *view;
	struct ops_nested *nested;
	uint8_t *bytes;
	size_t len;
	struct err error;
	bool cancelled;
};

static const Pb__BuildOp *pb_of(const struct nested_op *x) { return x->o.llb->op->build; }

static void op_free(void *op)
{
	struct nested_op *x = op;
	free(x->bytes);
	ops_node_fini(&x->o);
	free(x);
}

static void end(struct nested_op *x, struct snap *result)
{
	struct err e = x->error;
	x->error = ERR_INIT;
	snap_view_free(take_ptr(x->view));
	free(take_ptr(x->bytes));
	struct snap *out = err_is_set(&e) || !result ? NULL : snap_ref(result);
	solve_exec_done(x->node, &out, &e);
}

static void fail(struct nested_op *x, const struct err *e)
{
	err_copy(&x->error, e);
	end(x, NULL);
}

/* ---- evaluating ---- */

static const char *file_name(const struct nested_op *x)
{
	for (size_t i = 0; i < pb_of(x)->n_attrs; i++)
		if (!strcmp(pb_of(x)->attrs[i]->key, "llbbuild.filename")) return pb_of(x)->attrs[i]->value;
	return LLB_DEFINITION_FILE;
}

static void ask_build(struct nested_op *x);

static void evaluated(void *arg, struct snap *result, bool build_ended, const struct err *e)
{
	struct nested_op *x = arg;
	x->nested = NULL;
	if (build_ended && !x->cancelled)
		ask_build(x);
	else if (e)
		fail(x, e);
	else
		end(x, result);
}

struct start {
	struct nested_op *op;
	const Pb__Definition *def;
};

static bool start_in(void *arg, struct solve_build *b)
{
	struct start *s = arg;
	s->op->nested = s->op->o.env->nested_start(solve_build_user(b), s->def, evaluated, s->op);
	return s->op->nested != NULL;
}

static void ask_build(struct nested_op *x)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	struct err e = ERR_INIT;
	struct start s = {x, wire_unpack_as(Pb__Definition, pb__definition, x->bytes, x->len, a, &e)};
	if (!s.def) {
		err_wrap(&e, "failed to parse the definition in %s", file_name(x));
		e.code = CODE_UNKNOWN;
	} else if (x->cancelled || !solve_node_each_build(x->node, start_in, &s))
		err_set(&e, CODE_CANCELLED, "context canceled");
	if (err_is_set(&e)) fail(x, &e);
	err_fini(&e);
}

/* ---- reading ---- */

static void read_work(struct loop_job *j)
{
	struct nested_op *x = container_of(j, struct nested_op, job);
	nested_job_read(x->view, file_name(x), &x->bytes, &x->len, &x->error);
}

static void read_done(struct loop_job *j)
{
	struct nested_op *x = container_of(j, struct nested_op, job);
	if (err_is_set(&x->error))
		end(x, NULL);
	else
		ask_build(x);
}

static void start_reading(struct nested_op *x, struct snap *input)
{
	x->view = input ? snap_view_new(input) : snap_view_empty(x->o.env->snaps);
	x->job.work = read_work;
	x->job.done = read_done;
	loop_job_start(x->o.env->loop, &x->job, LOOP_DISK);
}

static int find_input(const struct nested_op *x, struct snap **ret, struct err *e)
{
	const Pb__BuildOp *pb = pb_of(x);
	if (pb->builder != LLB_NONE) return err_set(e, CODE_UNKNOWN, "only LLB builder is currently allowed");
	for (size_t i = 0; i < pb->n_inputs; i++) {
		if (strcmp(pb->inputs[i]->key, LLB_DEFINITION_FILE) || !pb->inputs[i]->value) continue;
		int64_t at = pb->inputs[i]->value->input;
		if (at < 0 || (size_t)at >= solve_input_count(x->node))
			return err_set(e, CODE_UNKNOWN, "invalid index %lld", (long long)at);
		*ret = solve_input(x->node, (size_t)at);
		return 0;
	}
	return err_set(e, CODE_UNKNOWN, "no llb definition input %s found", LLB_DEFINITION_FILE);
}

static void filled(void *arg, const struct err *e)
{
	struct nested_op *x = arg;
	struct snap *input = NULL;
	x->fill = NULL;
	if (e)
		fail(x, e);
	else if (find_input(x, &input, &x->error) < 0)
		end(x, NULL);
	else
		start_reading(x, input);
}

static void exec(void *op, struct solve_node *n)
{
	struct nested_op *x = op;
	struct snap *input = NULL;
	const char *sessions[OPS_SESSIONS_MAX];
	x->node = n;
	x->cancelled = false;
	if (find_input(x, &input, &x->error) < 0) {
		end(x, NULL);
		return;
	}
	struct ops_fill_req req = {.snaps = &input, .n = 1, .sessions = sessions, .done = filled, .arg = x};
	req.n_sessions = ops_sessions(n, x->o.env, sessions, OPS_SESSIONS_MAX);
	ops_span_node(&req.span, x->o.env, n);
	x->fill = ops_fill(x->o.env, &req);
	if (!x->fill) start_reading(x, input);
}

static void cancel(void *op, struct solve_node *n)
{
	struct nested_op *x = op;
	x->cancelled = true;
	ops_content_cancel(n);
	if (x->fill) ops_fill_cancel(x->fill);
	if (!x->nested) return;
	struct err e = ERR_INIT;
	x->o.env->nested_cancel(take_ptr(x->nested));
	err_set(&e, CODE_CANCELLED, "context canceled");
	fail(x, &e);
	err_fini(&e);
}

const struct ops_kind ops_build_kind = {
	.vt = {.kind = "build",
	       .map = ops_map_by_keys,
	       .content = ops_content,
	       .exec = exec,
	       .cancel = cancel,
	       .free = op_free},
	.size = sizeof(struct nested_op),
};
