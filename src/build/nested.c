/* Graphs that build operations bring: evaluated as references of a build that wants the step.
 * When the build ends first, done() says so in a turn of its own: the step asks another build then. */
#include "build/internal.h"

struct ops_nested {
	struct build *build; /* NULL once it has ended */
	struct ref *ref;
	struct list link; /* in build->nested */
	struct loop *loop;
	ops_nested_fn *done; /* NULL: cancelled */
	void *arg;
};

static void nested_free(struct ops_nested *n)
{
	list_del(&n->link);
	if (n->ref) ref_eval_forget(n->ref, n);
	ref_drop(n->ref);
	free(n);
}

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct ops_nested *n = arg;
	n->done(n->arg, result, false, e);
	nested_free(n);
}

struct ops_nested *build_nested_start(void *user, const Pb__Definition *def, ops_nested_fn *done, void *arg)
{
	struct build *b = user;
	if (b->state == BUILD_DONE || !b->solve) return NULL;
	struct ops_nested *n = xnew(struct ops_nested);
	n->build = b;
	n->loop = b->engine->conf.env->loop;
	n->done = done;
	n->arg = arg;
	list_add_tail(&b->nested, &n->link);
	n->ref = ref_new(b, def);
	ref_eval(n->ref, evaluated, n);
	return n;
}

void build_nested_cancel(struct ops_nested *n)
{
	n->done = NULL;
	if (n->build) nested_free(n); /* else gone() follows */
}

static void gone(void *arg)
{
	struct ops_nested *n = arg;
	struct err e = ERR_INIT;
	err_set(&e, CODE_CANCELLED, "context canceled");
	if (n->done) n->done(n->arg, NULL, true, &e);
	err_fini(&e);
	free(n);
}

void build_nested_end(struct build *b)
{
	LIST_EACH(&b->nested, struct ops_nested, n, link)
	{
		list_del(&n->link);
		ref_eval_forget(n->ref, n);
		ref_drop(take_ptr(n->ref));
		n->build = NULL;
		loop_post(n->loop, gone, n);
	}
}
