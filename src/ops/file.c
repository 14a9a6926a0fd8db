/* COPY, ADD, mkdir and the like: a list of actions. Actions that continue each other's result write one layer, in one job (a
 * segment); a result that is used more than once, or is an output, is committed.
 *
 * Index space of inputs: 0..n-1 are the op's inputs, n+k is the result of action k. */
#include "ops/file_job.h"
#include "ops/internal.h"
#include "ops/mounts.h"

#include <fcntl.h>
#include <string.h>

struct segment_action {
	const Pb__FileAction *action;
	struct snap_view *source, *user, *group;
	bool share; /* files may be hard links to the source's (adr/0006) */
};

struct file_op {
	struct ops_node o;
	struct solve_node *node;
	struct ops_fill *fill;
	struct snap **results; /* of each action, committed; NULL before */
	bool *has_result;
	unsigned *uses;
	size_t at; /* the next action */
	/* the segment under way */
	struct loop_job job;
	struct segment_action *segment;
	size_t n_segment;
	struct snap *active;
	struct snap_view *view;
	struct err error;
	bool cancelled, sealed;
	/* after a failure: what the actions had written, for who wants to look into it */
	size_t failed_at; /* the action; an index into debris */
	struct snap **debris;
};

static void drop_debris(struct file_op *f)
{
	for (size_t k = 0; f->debris && k < f->o.llb->op->file->n_actions; k++) ops_mounts_drop(f->debris[k]);
	free(take_ptr(f->debris));
}

static void op_free(void *op)
{
	struct file_op *f = op;
	drop_debris(f);
	ops_node_fini(&f->o);
	free(f);
}

static const Pb__FileOp *pb_of(const struct file_op *f) { return f->o.llb->op->file; }

static void end(struct file_op *f)
{
	const Pb__FileOp *pb = pb_of(f);
	size_t n_out = max_of(llb_op_outputs(f->o.llb->op), (size_t)1);
	struct snap **out = xcalloc(n_out, sizeof *out);
	struct err e = f->error;
	f->error = ERR_INIT;
	for (size_t k = 0; k < pb->n_actions; k++) {
		int64_t o = pb->actions[k]->output;
		if (!err_is_set(&e) && o >= 0 && (size_t)o < n_out && f->results[k]) out[o] = snap_ref(f->results[k]);
		if (!f->debris) snap_unref(f->results[k]);
	}
	if (!f->debris) free(f->results);
	free(f->has_result);
	free(f->uses);
	f->results = NULL;
	f->has_result = NULL;
	f->uses = NULL;
	solve_exec_done(f->node, out, &e);
	free(out);
}

/* ---- inputs by index ---- */

static struct snap *snap_at(const struct file_op *f, int64_t index)
{
	size_t n = solve_input_count(f->node);
	if (index < 0) return NULL;
	return (size_t)index < n ? solve_input(f->node, (size_t)index) : f->results[(size_t)index - n];
}

static bool is_ready(const struct file_op *f, int64_t index)
{
	size_t n = solve_input_count(f->node);
	return index < 0 || (size_t)index < n || f->has_result[(size_t)index - n];
}

static const Pb__ChownOpt *owner_of(const Pb__FileAction *a)
{
	switch (a->action_case) {
	case PB__FILE_ACTION__ACTION_COPY: return a->copy->owner;
	case PB__FILE_ACTION__ACTION_MKFILE: return a->mkfile->owner;
	case PB__FILE_ACTION__ACTION_MKDIR: return a->mkdir->owner;
	case PB__FILE_ACTION__ACTION_SYMLINK: return a->symlink->owner;
	default: return NULL;
	}
}

static int64_t name_input(const Pb__UserOpt *u)
{
	return u && u->user_case == PB__USER_OPT__USER_BY_NAME ? u->byname->input : LLB_NONE;
}

static void use(struct file_op *f, int64_t index)
{
	size_t n = solve_input_count(f->node);
	if (index >= 0 && (size_t)index >= n && (size_t)index - n < pb_of(f)->n_actions) f->uses[(size_t)index - n]++;
}

static void count_uses(struct file_op *f)
{
	for (size_t k = 0; k < pb_of(f)->n_actions; k++) {
		const Pb__FileAction *a = pb_of(f)->actions[k];
		const Pb__ChownOpt *o = owner_of(a);
		use(f, a->input);
		use(f, a->secondaryinput);
		use(f, name_input(o ? o->user : NULL));
		use(f, name_input(o ? o->group : NULL));
		if (a->output >= 0) f->uses[k]++;
	}
}

/* ---- a segment ---- */

static struct snap_view *view_at(struct file_op *f, int64_t index)
{
	struct snap *s = snap_at(f, index);
	return s ? snap_view_new(s) : NULL;
}

/* The source is a tree whose files are replaced and never written, and the layer is not made upon it. */
static bool may_share(const struct file_op *f, const struct snap *source)
{
	if (!source || source->kind != SNAP_LAYER) return false;
	if (strcmp(source->type, SNAP_SOURCE_LOCAL) && strcmp(source->type, SNAP_SOURCE_GIT)) return false;
	for (size_t i = 0; i < f->active->chain.n; i++)
		if (f->active->chain.v[i] == source) return false;
	return true;
}

/* What may write into files that are there already, or change their metadata (an archive's hard links). */
static bool writes_in_place(const Pb__FileAction *a)
{
	return a->action_case == PB__FILE_ACTION__ACTION_MKFILE ||
	       (a->action_case == PB__FILE_ACTION__ACTION_COPY && a->copy->attemptunpackdockercompatibility);
}

static void judge_sharing(struct file_op *f)
{
	bool later = false;
	for (size_t i = f->n_segment; i-- > 0;) {
		struct segment_action *s = &f->segment[i];
		s->share = !later && s->action->action_case == PB__FILE_ACTION__ACTION_COPY &&
			   may_share(f, snap_at(f, s->action->secondaryinput));
		later |= writes_in_place(s->action);
	}
}

static void add_to_segment(struct file_op *f, const Pb__FileAction *a)
{
	struct segment_action *s = &f->segment[f->n_segment++];
	const Pb__ChownOpt *o = owner_of(a);
	s->action = a;
	s->source = view_at(f, a->secondaryinput);
	s->user = view_at(f, name_input(o ? o->user : NULL));
	s->group = view_at(f, name_input(o ? o->group : NULL));
}

static bool inputs_ready(const struct file_op *f, const Pb__FileAction *a)
{
	const Pb__ChownOpt *o = owner_of(a);
	return is_ready(f, a->secondaryinput) && is_ready(f, name_input(o ? o->user : NULL)) &&
	       is_ready(f, name_input(o ? o->group : NULL));
}

/* Action k goes on in the layer of the one before it. */
static bool continues(const struct file_op *f, size_t k)
{
	const Pb__FileAction *a = pb_of(f)->actions[k];
	size_t n = solve_input_count(f->node);
	return k > 0 && a->input == (int64_t)(n + k - 1) && f->uses[k - 1] == 1 && inputs_ready(f, a);
}

static int run_action(struct file_op *f, const struct segment_action *s, int rootfd, struct err *e)
{
	_cleanup_close_ int source = s->source ? snap_view_open_root(s->source, false, e) : -1;
	_cleanup_close_ int user = s->user ? snap_view_open_root(s->user, false, e) : -1;
	_cleanup_close_ int group = s->group ? snap_view_open_root(s->group, false, e) : -1;
	if ((s->source && source < 0) || (s->user && user < 0) || (s->group && group < 0)) return -1;
	struct file_job_ctx ctx = {rootfd, source, user, group, &f->job.cancelled, .share = s->share};
	_cleanup_close_ int upper = -1;
	if (s->share) ctx.share = snap_view_open_upper(f->view, &upper, NULL) == 0;
	ctx.upperfd = max_of(upper, 0);
	return file_job_action(&ctx, s->action, e);
}

static void segment_work(struct loop_job *j)
{
	struct file_op *f = container_of(j, struct file_op, job);
	f->sealed = false;
	int rootfd = snap_view_open_root(f->view, true, &f->error);
	if (rootfd < 0) return;
	int r = 0;
	size_t first = f->at - f->n_segment;
	for (size_t i = 0; i < f->n_segment && r == 0; i++) {
		f->failed_at = first + i;
		r = run_action(f, &f->segment[i], rootfd, &f->error);
	}
	close(rootfd);
	struct err later = ERR_INIT;
	f->sealed = snap_view_seal(f->view, r == 0 ? &f->error : &later) >= 0;
	err_fini(&later);
}

/* What was written up to the failure stays, as far as it can be had. */
static void keep_debris(struct file_op *f, struct snap *active)
{
	if (f->cancelled || !f->sealed || snap_commit(active, NULL) < 0) {
		snap_discard(active);
		return;
	}
	f->debris = f->results;
	f->debris[f->failed_at] = active;
}

static void debris(void *op, struct solve_node *n, struct solve_debris *ret)
{
	struct file_op *f = op;
	ret->n_inputs = solve_input_count(n);
	ret->inputs = xcalloc(ret->n_inputs, sizeof *ret->inputs);
	for (size_t i = 0; i < ret->n_inputs; i++) ret->inputs[i] = solve_input(n, i);
	ret->n_mounts = pb_of(f)->n_actions;
	ret->mounts = xcalloc(ret->n_mounts, sizeof *ret->mounts);
	for (size_t k = 0; f->debris && k < ret->n_mounts; k++) ret->mounts[k] = f->debris[k];
	ret->action = (ptrdiff_t)f->failed_at;
}

static void advance(struct file_op *f);

static void segment_done(struct loop_job *j)
{
	struct file_op *f = container_of(j, struct file_op, job);
	for (size_t i = 0; i < f->n_segment; i++) {
		snap_view_free(f->segment[i].source);
		snap_view_free(f->segment[i].user);
		snap_view_free(f->segment[i].group);
	}
	free(f->segment);
	snap_view_free(f->view);
	struct snap *s = f->active;
	f->segment = NULL;
	f->view = NULL;
	f->active = NULL;
	if (f->cancelled && !err_is_set(&f->error)) err_set(&f->error, CODE_CANCELLED, "context canceled");
	if (!err_is_set(&f->error)) snap_commit(s, &f->error);
	if (err_is_set(&f->error)) {
		keep_debris(f, s);
		end(f);
		return;
	}
	f->results[f->at - 1] = s;
	f->has_result[f->at - 1] = true;
	advance(f);
}

static void advance(struct file_op *f)
{
	const Pb__FileOp *pb = pb_of(f);
	if (f->at == pb->n_actions) {
		end(f);
		return;
	}
	const Pb__FileAction *a = pb->actions[f->at];
	if (!inputs_ready(f, a) || !is_ready(f, a->input)) {
		err_set(&f->error, CODE_INVALID_ARGUMENT, "loop from index %lld", (long long)a->input);
		end(f);
		return;
	}
	f->active = snap_create(f->o.env->snaps, snap_at(f, a->input), f->o.llb->name, SNAP_REGULAR);
	f->view = snap_view_new(f->active);
	f->segment = xcalloc(pb->n_actions - f->at, sizeof *f->segment);
	f->n_segment = 0;
	do add_to_segment(f, pb->actions[f->at++]);
	while (f->at < pb->n_actions && continues(f, f->at));
	judge_sharing(f);
	f->job.work = segment_work;
	f->job.done = segment_done;
	loop_job_start(f->o.env->loop, &f->job, LOOP_DISK);
}

static void filled(void *arg, const struct err *e)
{
	struct file_op *f = arg;
	f->fill = NULL;
	if (e) {
		err_copy(&f->error, e);
		end(f);
		return;
	}
	advance(f);
}

static void show(void *arg, const struct prog_status *s) { ops_pull_status(((struct file_op *)arg)->node, s); }

static void exec(void *op, struct solve_node *n)
{
	struct file_op *f = op;
	size_t n_actions = pb_of(f)->n_actions, n_in = solve_input_count(n);
	f->node = n;
	drop_debris(f);
	f->at = 0;
	f->failed_at = 0;
	f->cancelled = false;
	atomic_store(&f->job.cancelled, false);
	f->results = xcalloc(n_actions, sizeof *f->results);
	f->has_result = xcalloc(n_actions, sizeof *f->has_result);
	f->uses = xcalloc(n_actions, sizeof *f->uses);
	count_uses(f);
	const char *sessions[OPS_SESSIONS_MAX];
	struct snap **in = xcalloc(n_in, sizeof *in);
	for (size_t i = 0; i < n_in; i++) in[i] = solve_input(n, i);
	struct ops_fill_req req = {.snaps = in, .n = n_in, .sessions = sessions, .status = show, .done = filled, .arg = f};
	req.n_sessions = ops_sessions(n, f->o.env, sessions, OPS_SESSIONS_MAX);
	ops_span_node(&req.span, f->o.env, n);
	f->fill = ops_fill(f->o.env, &req);
	free(in);
	if (!f->fill) advance(f);
}

static void cancel(void *op, struct solve_node *n)
{
	struct file_op *f = op;
	f->cancelled = true;
	loop_job_cancel(&f->job);
	ops_content_cancel(n);
	if (f->fill) ops_fill_cancel(f->fill);
}

const struct ops_kind ops_file_kind = {
	.vt = {.kind = "file",
	       .map = ops_map_by_keys,
	       .content = ops_content,
	       .exec = exec,
	       .cancel = cancel,
	       .free = op_free,
	       .debris = debris},
	.size = sizeof(struct file_op),
};
