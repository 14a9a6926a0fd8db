/* ExecProcess: a stream of messages both ways between a wire call and an exec_stream. Messages that come before the bridge was
 * found wait here: the call's credit is manual, so one stream window bounds them. */
#include "serve/internal.h"

#include <string.h>

struct waiting {
	size_t n;
	uint8_t b[];
};
struct exec_state {
	struct exec_stream *stream; /* NULL before the bridge is there, and after the end */
	VEC(struct waiting *) early;
	bool half_closed;
};

static struct exec_state *state_of(struct serve_call *c) { return c->state; }

static void drop_early(struct exec_state *x)
{
	for (size_t i = 0; i < x->early.n; i++) free(x->early.v[i]);
	vec_fini(&x->early);
}

/* ---- from the stream ---- */

static void send_msg(void *arg, const Gateway__ExecMessage *m)
{
	struct serve_call *c = arg;
	wire_call_send_msg(c->wire, &m->base);
}

static size_t queued(void *arg) { return wire_call_queued(((struct serve_call *)arg)->wire); }
static void consumed(void *arg, size_t n) { wire_call_consumed(((struct serve_call *)arg)->wire, n); }

static void end(void *arg, const struct err *e)
{
	struct serve_call *c = arg;
	state_of(c)->stream = NULL;
	if (e)
		serve_fail(c, e);
	else
		wire_call_finish(c->wire, NULL);
	serve_done(c);
}

/* ---- from the wire ---- */

static void message(struct wire_call *w, const uint8_t *p, size_t n)
{
	struct serve_call *c = w->user;
	struct exec_state *x = state_of(c);
	if (x->stream) {
		exec_stream_message(x->stream, p, n);
	} else if (c->wait) {
		struct waiting *m = xmalloc(sizeof *m + n);
		m->n = n;
		memcpy(m->b, p, n);
		vec_push(&x->early, m);
	} else {
		wire_call_consumed(w, n); /* it has ended */
	}
}

static void half_closed(struct wire_call *w)
{
	struct serve_call *c = w->user;
	struct exec_state *x = state_of(c);
	x->half_closed = true;
	if (x->stream) exec_stream_half_closed(x->stream);
}

static void writable(struct wire_call *w)
{
	struct exec_state *x = state_of(w->user);
	if (x->stream) exec_stream_writable(x->stream);
}

static void gone(struct serve_call *c)
{
	struct exec_state *x = state_of(c);
	drop_early(x);
	if (!x->stream) return;
	exec_stream_close(x->stream);
	x->stream = NULL;
	c->pending = false;
}

static void open_stream(struct serve_call *c)
{
	static const struct exec_stream_ops ops = {send_msg, queued, consumed, end};
	struct exec_state *x = state_of(c);
	c->pending = true;
	x->stream = exec_stream_open(c->bridge, &ops, c);
	for (size_t i = 0; i < x->early.n && x->stream; i++) exec_stream_message(x->stream, x->early.v[i]->b, x->early.v[i]->n);
	drop_early(x);
	if (x->stream && x->half_closed) exec_stream_half_closed(x->stream);
}

/* Called when the call comes, and again when its bridge has been found. */
void serve_exec_process(struct serve_call *c)
{
	static const struct wire_call_ops ops = {
		.message = message, .half_closed = half_closed, .writable = writable, .ended = serve_ended};
	if (!c->state) {
		c->state = xnew(struct exec_state);
		c->stop = gone;
		c->wire->ops = &ops;
		wire_call_manual_credit(c->wire);
		wire_call_send_headers(c->wire);
	}
	if (c->bridge)
		open_stream(c);
	else
		serve_find_bridge(c);
}
