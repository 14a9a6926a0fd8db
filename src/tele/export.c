/* The way of spans to the collector: a queue of requests, sent together every few seconds by one job at a time.
 *
 *  1. An ExportTraceServiceRequest is a list, so that requests one behind the other are one request: what a client sent goes on
 * as it came, with its own resource.
 *  2. The queue holds at most max_spans spans and QUEUE_BYTES; what comes on top is dropped and counted.
 *  3. A batch that failed in a way that may pass is sent again, after 1, 2, 4, 8 s; then it is dropped and counted.
 *  4. Failures are logged once until it works again. */
#include "tele/export_job.h"
#include "tele/tele.h"

#include <string.h>

enum { QUEUE_BYTES = 4 << 20, TRIES = 5, FIRST_PAUSE_MS = 1000, BATCH_SPANS = 512, CLOSE_POLL_US = 5000 };

struct tele_exporter {
	struct loop *loop;
	struct tele_otlp conf;
	struct buf queue; /* what is to go next */
	size_t spans;
	struct buf batch; /* what is being sent */
	size_t batch_spans;
	unsigned tries;
	bool sending, complained;
	atomic_bool worked; /* the job has left tele_send */
	struct loop_job job;
	struct tele_send send;
	struct loop_timer timer;
};

const struct strvec *tele_exporter_resource(const struct tele_exporter *x) { return &x->conf.resource; }
bool tele_exporter_enabled(const struct tele_exporter *x) { return x->conf.enabled; }

static void flush(void *arg);

static void work(struct loop_job *j)
{
	struct tele_exporter *x = container_of(j, struct tele_exporter, job);
	tele_send(&x->send);
	atomic_store(&x->worked, true);
}

static void complain(struct tele_exporter *x)
{
	if (!x->complained) log_warn("traces: %s", x->send.error.msg);
	x->complained = true;
}

/* True when the batch is through, one way or the other. */
static bool settle(struct tele_exporter *x)
{
	x->sending = false;
	if (!err_is_set(&x->send.error)) {
		tele_count(TELE_SPANS_EXPORTED, x->batch_spans);
		x->complained = false;
	} else {
		tele_count(TELE_SPAN_FAILURES, 1);
		complain(x);
		if (x->send.again && ++x->tries < TRIES) return false;
		tele_count(TELE_SPANS_DROPPED, x->batch_spans);
	}
	buf_reset(&x->batch);
	x->batch_spans = 0;
	x->tries = 0;
	return true;
}

static void plan(struct tele_exporter *x, int64_t after_ms)
{
	loop_timer_start(x->loop, &x->timer, (uint64_t)after_ms, 0, flush, x);
}

static void done(struct loop_job *j)
{
	struct tele_exporter *x = container_of(j, struct tele_exporter, job);
	if (!settle(x))
		plan(x, (int64_t)FIRST_PAUSE_MS << (x->tries - 1));
	else if (x->spans)
		plan(x, x->spans >= BATCH_SPANS ? 0 : x->conf.delay_ms);
	else
		buf_fini(&x->queue), buf_fini(&x->batch); /* idle: give the memory back */
}

/* The queue becomes the batch, unless one is to be sent again. */
static bool fill_batch(struct tele_exporter *x)
{
	if (!x->batch.n) {
		struct buf empty = x->batch;
		x->batch = x->queue;
		x->queue = empty;
		x->batch_spans = x->spans;
		x->spans = 0;
	}
	x->send.body = x->batch.p;
	x->send.n = x->batch.n;
	return x->batch.n > 0;
}

static void flush(void *arg)
{
	struct tele_exporter *x = arg;
	if (x->sending || !fill_batch(x)) return;
	x->sending = true;
	atomic_store(&x->worked, false);
	x->job = (struct loop_job){.work = work, .done = done};
	loop_job_start(x->loop, &x->job, LOOP_NET);
}

struct tele_exporter *tele_exporter_new(struct loop *l, struct tele_otlp *conf)
{
	struct tele_exporter *x = xnew(struct tele_exporter);
	x->loop = l;
	x->conf = *conf;
	*conf = (struct tele_otlp){0};
	const struct tele_otlp *c = &x->conf;
	x->send = (struct tele_send){.grpc = c->grpc,
				     .url = c->url,
				     .unix_path = c->unix_path,
				     .ca = c->ca,
				     .cert = c->cert,
				     .key = c->key,
				     .headers = &c->headers,
				     .timeout_ms = c->timeout_ms};
	return x;
}

void tele_export(struct tele_exporter *x, const void *request, size_t n, size_t spans)
{
	if (!x->conf.enabled || !n) return;
	if ((int64_t)(x->spans + x->batch_spans + spans) > x->conf.max_spans || x->queue.n + x->batch.n + n > QUEUE_BYTES) {
		tele_count(TELE_SPANS_DROPPED, spans);
		return;
	}
	buf_add(&x->queue, request, n);
	x->spans += spans;
	if (x->sending || x->batch.n) return; /* done() plans the next one */
	if (x->spans >= BATCH_SPANS)
		plan(x, 0);
	else if (!x->timer.uv)
		plan(x, x->conf.delay_ms);
}

static bool wait_for_job(struct tele_exporter *x, int64_t until_ns)
{
	while (x->sending && !atomic_load(&x->worked)) {
		if (time_mono_ns() > until_ns) return false;
		usleep(CLOSE_POLL_US);
	}
	return true;
}

void tele_exporter_close(struct tele_exporter *x, int64_t max_ms)
{
	if (!x) return;
	int64_t until = time_mono_ns() + max_ms * 1000000;
	loop_timer_stop(&x->timer);
	if (!wait_for_job(x, until)) return; /* its thread still uses all of it: the process ends */
	if (x->sending) settle(x);
	while (fill_batch(x)) {
		int64_t left_ms = (until - time_mono_ns()) / 1000000;
		if (left_ms <= 0) break;
		x->send.timeout_ms = min_of(left_ms, x->conf.timeout_ms);
		x->tries = TRIES; /* once */
		tele_send(&x->send);
		settle(x);
	}
	tele_send_fini(&x->send);
	buf_fini(&x->queue);
	buf_fini(&x->batch);
	tele_otlp_fini(&x->conf);
	free(x);
}
