/* Lanes: see lane.h. Invariants:
 * 1. Bytes reach the job in the order of the messages: while there is a backlog everything goes behind it.
 * 2. What a message cost is credited once, at the latest when the backlog is empty; a lane whose job has gone credits at once.
 * 3. A lane's pipes outlive its call: the job sees the call's end as the end, or the error, of `in`. */
#include "sess/lane.h"

static void put_le32(uint8_t b[4], uint32_t v)
{
	for (int i = 0; i < 4; i++) b[i] = (uint8_t)(v >> (8 * i));
}

/* ---- from the call to the job ---- */
static void credit(struct lane *l, size_t n)
{
	n = min_of(n, l->owed);
	l->owed -= n;
	if (n && l->call) wire_call_consumed(l->call, n);
}

void lane_in_close(struct lane *l, const struct err *e)
{
	if (l->in && !l->in_closed) loop_pipe_close(l->in, e);
	l->in_closed = true;
	buf_reset(&l->backlog);
	credit(l, l->owed);
}

static size_t offer(struct lane *l, const uint8_t *p, size_t n)
{
	ssize_t took = loop_pipe_write(l->in, p, n, NULL);
	if (took < 0) { /* the job has closed its end: the rest is for nobody */
		l->in_closed = true;
		return n;
	}
	atomic_fetch_add(&l->in_bytes, (uint64_t)took);
	return (size_t)took;
}

static void push(struct lane *l, const uint8_t *p, size_t n)
{
	size_t took = l->backlog.n || l->in_closed ? 0 : offer(l, p, n);
	if (took < n && !l->in_closed) buf_add(&l->backlog, p + took, n - took);
}

static void drain(struct lane *l)
{
	if (l->backlog.n && !l->in_closed) {
		size_t took = offer(l, l->backlog.p, l->backlog.n);
		buf_consume(&l->backlog, min_of(took, l->backlog.n));
		credit(l, took);
	}
	if (l->backlog.n && !l->in_closed) return;
	credit(l, l->owed);
	if (!l->peer_done) return;
	lane_in_close(l, NULL);
	if (l->drained && !l->call) l->drained(l);
}

static void on_message(struct wire_call *c, const uint8_t *p, size_t n)
{
	struct lane *l = c->user;
	_cleanup_err_ struct err e = ERR_INIT;
	uint8_t head[4];
	l->owed += n;
	if (!l->in || l->in_closed) {
		credit(l, l->owed);
		return;
	}
	if (l->shape == LANE_PACKETS) {
		put_le32(head, (uint32_t)n);
		push(l, head, sizeof head);
		push(l, p, n);
	} else {
		const uint8_t *data;
		size_t len;
		if ((l->extract ? l->extract : wire_bytes_get)(p, n, &data, &len, &e) < 0)
			lane_in_close(l, &e);
		else
			push(l, data, len);
	}
	if (!l->backlog.n || l->in_closed) credit(l, l->owed);
}

static void on_half_closed(struct wire_call *c)
{
	struct lane *l = c->user;
	l->peer_done = true;
	drain(l);
}

static void in_event(void *arg) { drain(arg); }

/* ---- from the job to the call ---- */
static void out_finished(struct lane *l, const struct err *e)
{
	if (l->out_done) return;
	l->out_done = true;
	if (l->out_ended) l->out_ended(l, e);
}

static uint32_t get_le32(const uint8_t *b) { return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24; }

/* Send the whole packets among what was fetched. */
static void send_parcels(struct lane *l)
{
	size_t at = 0;
	while (l->parcel.n - at >= 4) {
		size_t n = get_le32(l->parcel.p + at);
		if (l->parcel.n - at - 4 < n) break;
		if (l->call) wire_call_send(l->call, l->parcel.p + at + 4, n);
		at += 4 + n;
	}
	buf_consume(&l->parcel, at);
}

static void pump(struct lane *l)
{
	enum { FETCH = 256 << 10 };
	while (l->out && !l->out_done && (!l->call || !wire_call_congested(l->call))) {
		_cleanup_err_ struct err e = ERR_INIT;
		bool end;
		uint8_t *room = buf_reserve(&l->parcel, FETCH);
		ssize_t n = loop_pipe_read(l->out, room, FETCH, &end, &e);
		if (n < 0) {
			out_finished(l, &e);
			return;
		}
		l->parcel.n += (size_t)n;
		if (l->shape == LANE_PACKETS) {
			send_parcels(l);
		} else {
			if (n && l->call) wire_call_send_bytes(l->call, l->parcel.p, l->parcel.n);
			buf_reset(&l->parcel);
		}
		if (end) out_finished(l, NULL);
		if (n == 0) return;
	}
}

static void on_writable(struct wire_call *c) { pump(c->user); }
static void out_event(void *arg) { pump(arg); }

void lane_out_close(struct lane *l, const struct err *e)
{
	if (!l->out) return;
	loop_pipe_close(l->out, e);
	l->out_done = true;
}

/* ---- both ---- */
static void on_ended(struct wire_call *c, const struct err *status)
{
	struct lane *l = c->user;
	bool clean = status->code == CODE_OK;
	l->call = NULL;
	l->owed = 0;
	l->peer_done = true;
	if (clean && !l->server)
		drain(l);
	else if (!clean || !l->in_closed)
		lane_in_close(l, clean ? NULL : status);
	if (l->ended) l->ended(l, status);
}

static const struct wire_call_ops lane_ops = {
	.message = on_message, .half_closed = on_half_closed, .writable = on_writable, .ended = on_ended};

void lane_init(struct lane *l, struct loop *loop, struct wire_call *call, bool server, enum lane_shape shape, bool in, bool out)
{
	l->loop = loop;
	l->call = call;
	l->server = server;
	l->shape = shape;
	list_init(&l->link);
	if (in) l->in = loop_pipe_new(loop, LANE_PIPE, in_event, l);
	if (out) l->out = loop_pipe_new(loop, LANE_PIPE, out_event, l);
	if (!call) return;
	call->ops = &lane_ops;
	call->user = l;
	wire_call_manual_credit(call);
}

static void pipe_drop(struct loop_pipe **p)
{
	if (!*p) return;
	loop_pipe_detach(*p);
	loop_pipe_unref(*p);
	*p = NULL;
}

void lane_break(struct lane *l, const struct err *e)
{
	if (l->job) loop_job_cancel(l->job);
	lane_in_close(l, e);
	lane_out_close(l, e);
}

void lane_fini(struct lane *l)
{
	list_del(&l->link);
	pipe_drop(&l->in);
	pipe_drop(&l->out);
	buf_fini(&l->backlog);
	buf_fini(&l->parcel);
}

/* ---- the job's end ---- */
static int io_flush(void *ctx, struct err *e)
{
	struct lane_io *io = ctx;
	size_t n = io->outbuf.n;
	int rc = n ? loop_pipe_job_write(io->out, io->outbuf.p, n, e) : 0;
	buf_reset(&io->outbuf);
	return rc;
}

static int io_send(void *ctx, const void *p, size_t n, struct err *e)
{
	struct lane_io *io = ctx;
	uint8_t head[4];
	put_le32(head, (uint32_t)n);
	buf_add(&io->outbuf, head, sizeof head);
	buf_add(&io->outbuf, p, n);
	return io->outbuf.n >= 64 << 10 ? io_flush(io, e) : 0;
}

static bool have_packet(const struct lane_io *io, size_t *ret_n)
{
	size_t left = io->inbuf.n - io->at;
	if (left < 4) return false;
	*ret_n = get_le32(io->inbuf.p + io->at);
	return left - 4 >= *ret_n;
}

static bool io_ready(void *ctx)
{
	struct lane_io *io = ctx;
	size_t n;
	return have_packet(io, &n) || atomic_load(io->in_bytes) > io->got;
}

static int io_next(void *ctx, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	enum { FETCH = 256 << 10 };
	struct lane_io *io = ctx;
	size_t n;
	while (!have_packet(io, &n)) {
		if (io->outbuf.n && io_flush(io, e) < 0) return -1;
		buf_consume(&io->inbuf, io->at);
		io->at = 0;
		uint8_t *room = buf_reserve(&io->inbuf, FETCH);
		ssize_t got = loop_pipe_job_read(io->in, room, FETCH, e);
		if (got < 0) return -1;
		if (got == 0 && io->inbuf.n) return err_set(e, CODE_DATA_LOSS, "file transfer: cut packet");
		if (got == 0) return 0;
		io->inbuf.n += (size_t)got;
		io->got += (uint64_t)got;
	}
	*ret = io->inbuf.p + io->at + 4;
	*ret_n = n;
	io->at += 4 + n;
	return 1;
}

struct sess_io lane_io_init(struct lane_io *io, struct lane *l)
{
	*io = (struct lane_io){.in = loop_pipe_ref(l->in), .out = loop_pipe_ref(l->out), .in_bytes = &l->in_bytes};
	return (struct sess_io){.next = io_next, .ready = io_ready, .send = io_send, .flush = io_flush, .ctx = io};
}

void lane_io_fini(struct lane_io *io)
{
	loop_pipe_unref(io->in);
	loop_pipe_unref(io->out);
	buf_fini(&io->inbuf);
	buf_fini(&io->outbuf);
}

/* ---- a job over a lane ---- */
enum { LINGER_MS = 5000 };

static void job_gone(struct lane_job *j)
{
	if (!j->job_done || j->lane.call) return;
	loop_timer_stop(&j->linger);
	lane_fini(&j->lane);
	err_fini(&j->err);
	j->gone(j);
}

static void linger_over(void *arg)
{
	struct lane_job *j = arg;
	if (j->lane.call) wire_call_cancel(j->lane.call);
}

/* The job is done and its last packet is out: part with the peer. */
static void job_part(struct lane_job *j)
{
	struct lane *l = &j->lane;
	if (!j->job_done || !l->out_done || !l->call) return;
	if (l->server) {
		wire_call_finish(l->call, err_is_set(&j->err) ? &j->err : NULL);
	} else {
		wire_call_close_send(l->call);
		loop_timer_start(l->loop, &j->linger, LINGER_MS, 0, linger_over, j);
	}
}

static void job_work(struct loop_job *job)
{
	struct lane_job *j = container_of(job, struct lane_job, job);
	j->run(j, &j->err);
	j->io.flush(j->io.ctx, NULL); /* fails when the call has gone: nobody to tell then */
	loop_pipe_job_close(j->io_state.out, NULL);
	loop_pipe_job_close(j->io_state.in, NULL);
}

static void job_done(struct loop_job *job)
{
	struct lane_job *j = container_of(job, struct lane_job, job);
	j->job_done = true;
	lane_io_fini(&j->io_state);
	lane_in_close(&j->lane, NULL);
	j->finished(j);
	if (!loop_job_cancelled(job))
		job_part(j);
	else if (j->lane.call)
		wire_call_cancel(j->lane.call);
	job_gone(j);
}

static void job_call_ended(struct lane *l, const struct err *status)
{
	struct lane_job *j = container_of(l, struct lane_job, lane);
	_cleanup_err_ struct err e = ERR_INIT;
	if (!j->job_done) {
		err_set(&e, status->code == CODE_OK ? CODE_UNAVAILABLE : status->code, "%s",
			status->code == CODE_OK ? "the other side ended the transfer" : status->msg);
		lane_out_close(l, &e);
	}
	job_gone(j);
}

static void job_out_ended(struct lane *l, const struct err *e) { job_part(container_of(l, struct lane_job, lane)); }

void lane_job_start(struct lane_job *j, struct loop *loop, struct wire_call *call, bool server)
{
	lane_init(&j->lane, loop, call, server, LANE_PACKETS, true, true);
	j->lane.ended = job_call_ended;
	j->lane.out_ended = job_out_ended;
	j->io = lane_io_init(&j->io_state, &j->lane);
	j->job.work = job_work;
	j->job.done = job_done;
	loop_job_start(loop, &j->job, LOOP_NET);
}

void lane_job_cancel(struct lane_job *j)
{
	_cleanup_err_ struct err e = ERR_INIT;
	if (j->job_done) return;
	err_set(&e, CODE_CANCELLED, "context canceled");
	loop_job_cancel(&j->job);
	lane_in_close(&j->lane, &e);
	lane_out_close(&j->lane, &e);
}
