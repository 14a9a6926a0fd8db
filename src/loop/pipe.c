/* A bounded channel of bytes between one job and the loop. The ring is guarded by one lock; the job side waits on a
 * condition, the loop side is told by a posted callback. `told` says that a callback is under way, so there is one at most.
 * Each end may close, with or without an error; data written before a clean close is still read. */
#include "loop/internal.h"

#include <string.h>

struct loop_pipe {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct loop *loop;
	void (*on_event)(void *arg);
	void *arg;
	uint8_t *ring;
	size_t cap, head, n;
	int refs;
	bool told;       /* a callback is posted */
	bool loop_waits; /* the loop side saw empty or full and wants to be told */
	bool job_closed, loop_closed;
	struct err job_err, loop_err;
};

struct loop_pipe *loop_pipe_new(struct loop *l, size_t max_bytes, void (*on_event)(void *arg), void *arg)
{
	struct loop_pipe *p = xnew(struct loop_pipe);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	p->loop = l;
	p->on_event = on_event;
	p->arg = arg;
	p->cap = max_bytes;
	p->refs = 1;
	p->loop_waits = true;
	return p;
}

struct loop_pipe *loop_pipe_ref(struct loop_pipe *p)
{
	pthread_mutex_lock(&p->lock);
	p->refs++;
	pthread_mutex_unlock(&p->lock);
	return p;
}

void loop_pipe_unref(struct loop_pipe *p)
{
	if (!p) return;
	pthread_mutex_lock(&p->lock);
	int left = --p->refs;
	pthread_mutex_unlock(&p->lock);
	if (left) return;
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	err_fini(&p->job_err);
	err_fini(&p->loop_err);
	free(p->ring);
	free(p);
}

static void deliver(void *arg)
{
	struct loop_pipe *p = arg;
	pthread_mutex_lock(&p->lock);
	p->told = false;
	void (*fn)(void *) = p->on_event;
	pthread_mutex_unlock(&p->lock);
	if (fn) fn(p->arg);
	loop_pipe_unref(p);
}

/* lock held */
static void tell_loop(struct loop_pipe *p)
{
	if (p->told || !p->loop_waits || !p->on_event) return;
	p->told = true;
	p->loop_waits = false;
	p->refs++;
	loop_post(p->loop, deliver, p);
}

static void ring_put(struct loop_pipe *p, const uint8_t *b, size_t n)
{
	if (!p->ring) p->ring = xmalloc(p->cap);
	size_t at = (p->head + p->n) % p->cap, first = min_of(n, p->cap - at);
	memcpy(p->ring + at, b, first);
	memcpy(p->ring, b + first, n - first);
	p->n += n;
}

static size_t ring_get(struct loop_pipe *p, uint8_t *b, size_t n)
{
	n = min_of(n, p->n);
	if (!n) return 0;
	size_t first = min_of(n, p->cap - p->head);
	memcpy(b, p->ring + p->head, first);
	memcpy(b + first, p->ring, n - first);
	p->head = (p->head + n) % p->cap;
	p->n -= n;
	return n;
}

ssize_t loop_pipe_job_read(struct loop_pipe *p, void *buf, size_t n, struct err *e)
{
	ssize_t r;
	pthread_mutex_lock(&p->lock);
	while (!p->n && !p->loop_closed) pthread_cond_wait(&p->wake, &p->lock);
	if (p->loop_closed && err_is_set(&p->loop_err)) {
		err_copy(e, &p->loop_err);
		r = -1;
	} else {
		r = (ssize_t)ring_get(p, buf, n);
		if (r) tell_loop(p);
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

int loop_pipe_job_write(struct loop_pipe *p, const void *buf, size_t n, struct err *e)
{
	const uint8_t *b = buf;
	int r = 0;
	pthread_mutex_lock(&p->lock);
	while (n && r == 0) {
		while (p->n == p->cap && !p->loop_closed) pthread_cond_wait(&p->wake, &p->lock);
		if (p->loop_closed) {
			if (err_is_set(&p->loop_err))
				err_copy(e, &p->loop_err);
			else
				err_set(e, CODE_CANCELLED, "the reader has gone");
			r = -1;
			break;
		}
		size_t some = min_of(n, p->cap - p->n);
		ring_put(p, b, some);
		b += some;
		n -= some;
		tell_loop(p);
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

void loop_pipe_job_close(struct loop_pipe *p, const struct err *e)
{
	pthread_mutex_lock(&p->lock);
	if (!p->job_closed) {
		p->job_closed = true;
		if (e && err_is_set(e)) err_copy(&p->job_err, e);
		p->loop_waits = true;
		tell_loop(p);
	}
	pthread_mutex_unlock(&p->lock);
}

ssize_t loop_pipe_read(struct loop_pipe *p, void *buf, size_t n, bool *ret_end, struct err *e)
{
	pthread_mutex_lock(&p->lock);
	*ret_end = false;
	ssize_t r = 0;
	if (p->job_closed && err_is_set(&p->job_err)) {
		err_copy(e, &p->job_err);
		r = -1;
	} else {
		r = (ssize_t)ring_get(p, buf, n);
		if (r) pthread_cond_signal(&p->wake);
		if (!p->n && p->job_closed) *ret_end = r == 0;
		if (r == 0) p->loop_waits = true;
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

ssize_t loop_pipe_write(struct loop_pipe *p, const void *buf, size_t n, struct err *e)
{
	pthread_mutex_lock(&p->lock);
	ssize_t r;
	if (p->job_closed) {
		if (err_is_set(&p->job_err))
			err_copy(e, &p->job_err);
		else
			err_set(e, CODE_CANCELLED, "the reader has gone");
		r = -1;
	} else {
		size_t some = min_of(n, p->cap - p->n);
		if (some) ring_put(p, buf, some);
		if (some) pthread_cond_signal(&p->wake);
		if (some < n) p->loop_waits = true;
		r = (ssize_t)some;
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

void loop_pipe_close(struct loop_pipe *p, const struct err *e)
{
	pthread_mutex_lock(&p->lock);
	if (!p->loop_closed) {
		p->loop_closed = true;
		if (e && err_is_set(e)) err_copy(&p->loop_err, e);
		pthread_cond_broadcast(&p->wake);
	}
	pthread_mutex_unlock(&p->lock);
}

void loop_pipe_detach(struct loop_pipe *p)
{
	pthread_mutex_lock(&p->lock);
	p->on_event = NULL;
	pthread_mutex_unlock(&p->lock);
}
