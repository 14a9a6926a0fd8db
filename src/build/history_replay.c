/* Progress of a build that is over, from the log that was kept: records of a length and a packed StatusResponse (reference 01
 * §7.4). */
#include "build/internal.h"

#include <string.h>

struct history_replay {
	struct blob_flow *flow; /* NULL: there is no log */
	struct loop *loop;
	struct loop_timer none; /* its end, when there is no log */
	struct buf partial;
	struct err error;
	bool failed;
	void (*message)(void *arg, const uint8_t *p, size_t n);
	void (*end)(void *arg, const struct err *e);
	void *arg;
};

enum { MESSAGE_MAX = 64 << 20, HEAD = 4 };

static void replay_free(struct history_replay *r)
{
	loop_timer_stop(&r->none);
	buf_fini(&r->partial);
	err_fini(&r->error);
	free(r);
}

static void data(void *arg, const uint8_t *p, size_t n)
{
	struct history_replay *r = arg;
	if (r->failed) return;
	buf_add(&r->partial, p, n);
	size_t at = 0;
	while (!r->failed && r->partial.n - at >= HEAD) {
		const uint8_t *h = r->partial.p + at;
		uint32_t len = h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
		if (len > MESSAGE_MAX) {
			r->failed = true;
			err_set(&r->error, CODE_DATA_LOSS, "the log of this build is damaged: a message of %u bytes", len);
			break;
		}
		if (r->partial.n - at - HEAD < len) break;
		r->message(r->arg, h + HEAD, len);
		at += HEAD + len;
	}
	buf_consume(&r->partial, at);
}

static void ended(void *arg, const struct err *e)
{
	struct history_replay *r = arg;
	if (!e && !r->failed && r->partial.n) err_set(&r->error, CODE_DATA_LOSS, "the log of this build is cut off");
	if (e && !r->failed) err_copy(&r->error, e);
	r->end(r->arg, err_is_set(&r->error) ? &r->error : NULL);
	replay_free(r);
}

static void no_log(void *arg) { ended(arg, NULL); }

struct history_replay *history_replay(struct engine *g, const char *ref, void (*message)(void *arg, const uint8_t *p, size_t n),
				      void (*end)(void *arg, const struct err *e), void *arg)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	const Control__BuildHistoryRecord *rec = engine_find(g, ref) ? NULL : history_get(g->history, ref, a, NULL);
	if (!rec) return NULL;
	struct history_replay *r = xnew(struct history_replay);
	r->loop = g->conf.env->loop;
	r->message = message;
	r->end = end;
	r->arg = arg;
	if (rec->logs)
		r->flow = blob_flow_start(r->loop, g->conf.env->blobs, rec->logs->digest, 0, 0, data, ended, r);
	else
		loop_timer_start(r->loop, &r->none, 0, 0, no_log, r);
	return r;
}

void history_replay_pause(struct history_replay *r, bool paused)
{
	if (r->flow) blob_flow_pause(r->flow, paused);
}

void history_replay_stop(struct history_replay *r)
{
	if (r->flow) blob_flow_stop(r->flow);
	replay_free(r);
}
