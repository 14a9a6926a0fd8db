/* ListenBuildHistory, UpdateBuildHistory, and Status of builds that are over. */
#include "serve/internal.h"

#define REQ(T) ((const T *)c->req)

static void send_timestamp(struct serve_call *c)
{
	char now[TIME_STR];
	time_rfc3339nano(time_now(), now);
	wire_call_set_header(c->wire, "buildkit-current-timestamp", now);
	wire_call_send_headers(c->wire);
}

static void finish(struct serve_call *c, const struct err *e)
{
	if (!c->wire) return;
	if (e)
		serve_fail(c, e);
	else
		wire_call_finish(c->wire, NULL);
}

/* ---- ListenBuildHistory ---- */

static void event(void *arg, const Control__BuildHistoryEvent *ev)
{
	struct serve_call *c = arg;
	if (c->wire) wire_call_send_msg(c->wire, &ev->base);
}

static void listen_end(void *arg)
{
	struct serve_call *c = arg;
	c->state = NULL;
	c->stop = NULL;
	finish(c, NULL);
	serve_done(c);
}

static void listen_stop(struct serve_call *c)
{
	struct history_listener *l = take_ptr(c->state);
	c->pending = false;
	if (l) history_listener_stop(l);
}

void serve_history_listen(struct serve_call *c)
{
	struct engine *g = c->serve->engine;
	const Control__BuildHistoryRequest *req = REQ(Control__BuildHistoryRequest);
	struct err e = ERR_INIT;
	send_timestamp(c);
	if (history_list(g, req, event, c, &e) < 0 || req->earlyexit) {
		finish(c, err_is_set(&e) ? &e : NULL);
		err_fini(&e);
		return;
	}
	c->pending = true;
	c->stop = listen_stop;
	c->state = history_listen(g, req->ref, event, listen_end, c);
}

void serve_history_update(struct serve_call *c)
{
	history_update(c->serve->engine, REQ(Control__UpdateBuildHistoryRequest), serve_reply(c));
}

/* ---- Status of what is over ---- */

static void replay_message(void *arg, const uint8_t *p, size_t n)
{
	struct serve_call *c = arg;
	wire_call_send(c->wire, p, n);
	if (wire_call_congested(c->wire)) history_replay_pause(c->state, true);
}

static void replay_end(void *arg, const struct err *e)
{
	struct serve_call *c = arg;
	c->state = NULL;
	c->stop = NULL;
	c->writable = NULL;
	finish(c, e);
	serve_done(c);
}

static void replay_writable(struct serve_call *c) { history_replay_pause(c->state, false); }

static void replay_stop(struct serve_call *c)
{
	c->pending = false;
	history_replay_stop(take_ptr(c->state));
}

bool serve_history_replay(struct serve_call *c, const char *ref)
{
	c->state = history_replay(c->serve->engine, ref, replay_message, replay_end, c);
	if (!c->state) return false;
	c->pending = true;
	c->stop = replay_stop;
	c->writable = replay_writable;
	return true;
}
