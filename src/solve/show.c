/* Progress of nodes: events go to every build that has the node and are kept for those that join later.
 * Of statuses with the same id only the newest is kept; logs are bounded by their writer (reference 01 §7.2). */
#include "solve/internal.h"

#include <string.h>

static void publish(struct solve_node *n, struct prog_event *ev /* taken */)
{
	vec_push(&n->events, ev);
	LIST_EACH(&n->members, struct solve_member, m, in_node)
	{
		if (m->build->ops->event) m->build->ops->event(m->build->user, ev);
	}
}

static struct prog_event *vertex_event(struct solve_node *n, bool started, bool completed, const char *error)
{
	struct prog_vertex v = {.name = n->name, .error = error, .cached = n->cached, .group_id = n->group_id,
				.group_name = n->group_name, .group_weak = n->group_weak};
	memcpy(v.digest, n->digest, sizeof v.digest);
	for (size_t i = 0; i < n->n_in; i++) strvec_add(&v.inputs, n->in[i].node->digest);
	if (started) n->started = time_now();
	if (started || completed) v.started = n->started;
	if (completed) v.completed = time_now();
	struct prog_event *ev = prog_vertex_new(&v);
	strvec_fini(&v.inputs);
	return ev;
}

static struct prog_event *spared_event(struct solve_node *n, struct timespec at)
{
	struct prog_vertex v = {.name = n->name, .cached = true, .started = at, .completed = at, .group_id = n->group_id,
				.group_name = n->group_name, .group_weak = n->group_weak};
	memcpy(v.digest, n->digest, sizeof v.digest);
	for (size_t i = 0; i < n->n_in; i++) strvec_add(&v.inputs, n->in[i].node->digest);
	struct prog_event *ev = prog_vertex_new(&v);
	strvec_fini(&v.inputs);
	return ev;
}

/* What a step that starts did not need of its inputs was as good as cached: clients count it so. */
static void show_spared(struct solve_node *n, struct timespec at)
{
	for (size_t i = 0; i < n->n_in; i++) {
		struct solve_node *in = n->in[i].node;
		if (in->shown || in->exec == SOLVE_BUSY || in->exec == SOLVE_FAILED) continue;
		in->shown = true;
		show_spared(in, at);
		publish(in, spared_event(in, at));
	}
}

void solve_show_vertex(struct solve_node *n, bool started, bool completed, const char *error)
{
	if (started) show_spared(n, time_now());
	n->shown |= completed;
	publish(n, vertex_event(n, started, completed, error));
}

void solve_show_announce(struct solve_node *n, struct solve_build *b)
{
	if (!b->ops->event) return;
	struct prog_event *ev = vertex_event(n, false, false, NULL);
	b->ops->event(b->user, ev);
	prog_unref(ev);
	for (size_t i = 0; i < n->events.n; i++) b->ops->event(b->user, n->events.v[i]);
}

void solve_log(struct solve_node *n, int stream, const void *p, size_t len)
{
	if (len) publish(n, prog_log_new(n->digest, stream, p, len));
}

static void forget_status(struct solve_node *n, const char *id)
{
	for (size_t i = n->events.n; i-- > 0;) {
		struct prog_event *ev = n->events.v[i];
		if (ev->type != PROG_STATUS || strcmp(ev->status.id, id)) continue;
		prog_unref(ev);
		vec_remove(&n->events, i);
		return;
	}
}

void solve_status(struct solve_node *n, const struct prog_status *s)
{
	struct prog_status copy = *s;
	memcpy(copy.vertex, n->digest, sizeof copy.vertex);
	if (!copy.timestamp.tv_sec) copy.timestamp = time_now();
	forget_status(n, s->id);
	publish(n, prog_status_new(&copy));
}
