/* The libuv loop: posting from other threads, timers, signals. Jobs, pools, pipes and children have files of their own.
 * Invariant: `posted` is guarded by post_lock; everything else belongs to the loop thread. */
#include "loop/internal.h"

#include <signal.h>

struct post {
	void (*fn)(void *arg);
	void *arg;
	struct list link;
};

struct on_signal {
	uv_signal_t uv;
	void (*fn)(void *arg, int signum);
	void *arg;
	struct list link;
};

static void run_posted(uv_async_t *a)
{
	struct loop *l = a->data;
	struct list batch = LIST_INIT(batch);
	pthread_mutex_lock(&l->post_lock);
	while (!list_empty(&l->posted)) {
		struct list *n = l->posted.next;
		list_del(n);
		list_add_tail(&batch, n);
	}
	pthread_mutex_unlock(&l->post_lock);
	LIST_EACH(&batch, struct post, p, link)
	{
		list_del(&p->link);
		p->fn(p->arg);
		free(p);
	}
}

struct loop *loop_new(void)
{
	struct loop *l = xnew(struct loop);
	uv_loop_init(&l->uv);
	pthread_mutex_init(&l->post_lock, NULL);
	list_init(&l->posted);
	list_init(&l->signals);
	uv_async_init(&l->uv, &l->async, run_posted);
	l->async.data = l;
	loop_jobs_init(l);
	return l;
}

static void nothing(uv_handle_t *h) {}

static void close_handle(uv_handle_t *h, void *arg)
{
	if (!uv_is_closing(h)) uv_close(h, nothing);
}

void loop_free(struct loop *l)
{
	loop_jobs_fini(l);
	run_posted(&l->async);
	LIST_EACH(&l->signals, struct on_signal, s, link)
	{
		list_del(&s->link);
		uv_close((uv_handle_t *)&s->uv, (uv_close_cb)free);
	}
	if (!uv_is_closing((uv_handle_t *)&l->async)) uv_close((uv_handle_t *)&l->async, nothing);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	if (uv_loop_close(&l->uv) == UV_EBUSY) { /* somebody left a handle behind: close it, its owner is gone */
		uv_walk(&l->uv, close_handle, NULL);
		uv_run(&l->uv, UV_RUN_DEFAULT);
		uv_loop_close(&l->uv);
	}
	pthread_mutex_destroy(&l->post_lock);
	free(l);
}

void loop_run(struct loop *l) { uv_run(&l->uv, UV_RUN_DEFAULT); }
void loop_stop(struct loop *l) { uv_stop(&l->uv); }
uv_loop_t *loop_uv(struct loop *l) { return &l->uv; }

void loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct post *p = xnew(struct post);
	p->fn = fn;
	p->arg = arg;
	pthread_mutex_lock(&l->post_lock);
	list_add_tail(&l->posted, &p->link);
	pthread_mutex_unlock(&l->post_lock);
	uv_async_send(&l->async);
}

static void timer_fired(uv_timer_t *uv)
{
	struct loop_timer *t = uv->data;
	if (!uv_timer_get_repeat(uv)) loop_timer_stop(t);
	t->fn(t->arg);
}

void loop_timer_start(struct loop *l, struct loop_timer *t, uint64_t after_ms, uint64_t repeat_ms, void (*fn)(void *),
		      void *arg)
{
	loop_timer_stop(t);
	t->uv = xnew(uv_timer_t);
	t->uv->data = t;
	t->fn = fn;
	t->arg = arg;
	uv_timer_init(&l->uv, t->uv);
	uv_update_time(&l->uv);
	uv_timer_start(t->uv, timer_fired, after_ms, repeat_ms);
}

void loop_timer_stop(struct loop_timer *t)
{
	if (!t->uv) return;
	uv_timer_stop(t->uv);
	uv_close((uv_handle_t *)t->uv, (uv_close_cb)free);
	t->uv = NULL;
}

static void signal_fired(uv_signal_t *uv, int signum)
{
	struct on_signal *s = uv->data;
	s->fn(s->arg, signum);
}

void loop_on_signal(struct loop *l, int signum, void (*fn)(void *arg, int signum), void *arg)
{
	struct on_signal *s = xnew(struct on_signal);
	s->fn = fn;
	s->arg = arg;
	s->uv.data = s;
	uv_signal_init(&l->uv, &s->uv);
	uv_signal_start(&s->uv, signal_fired, signum);
	uv_unref((uv_handle_t *)&s->uv);
	list_add_tail(&l->signals, &s->link);
}
