/* The ExecProcess protocol: many processes on one stream, told apart by ProcessID.
 *
 * Of one process: <- Init, -> Started, then -> File{1|2}, <- File{0}, <- Resize, <- Signal, at last -> File{EOF} each, -> Exit,
 * -> Done
 *  1. Started comes before anything else of a process, Done last: after Exit and after the client closed stdin, if it has one.
 *  2. A record of each process stays until the stream ends: late signals and input for one that has ended are no error.
 *  3. What the client does not take gathers here, in few large messages; above a limit all processes of the stream are paused.
 *     Input is credited when the process has taken it, so a process that does not read stops its client.
 *  4. BuildKit's own client reads nothing while it waits for room to send, and one message between two that it sends: a
 *     process that copies its input then waits for a client that waits for it (with BuildKit's daemon it does hang). Hence
 *     the large messages; the higher limit while input waits for a process; and credit in portions, with pauses in which the
 *     client can read, while much output has gathered.
 *
 * Source: moby/buildkit frontend/gateway/gateway.go (ExecProcess, processIO), grpcclient/client.go. */
#include "build/container.h"

#include <string.h>

enum { OUT_MAX_BYTES = 256 << 10, OUT_WITH_INPUT_MAX_BYTES = 8 << 20, MESSAGE_BYTES = 1 << 20 };
enum { MUCH_BYTES = 1 << 20, PORTION_BYTES = 512 << 10, PORTION_EVERY_MS = 20 };

struct record {
	struct exec_stream *stream;
	struct process *process; /* NULL once it has ended */
	char *id;
	bool out[3];        /* descriptors that the client listens to */
	bool in_open;       /* the client has not closed fd 0 yet */
	bool exited, done;  /* Exit, Done was sent */
	size_t pending;     /* bytes of its input that it has not taken yet */
	struct buf held[3]; /* output that waits for the client, by descriptor */
	struct list link;   /* in stream->holding while there is some */
};

struct exec_stream {
	struct bridge *bridge;
	struct exec_stream_ops ops;
	void *arg;
	struct list link;
	struct map records;
	struct list holding;
	size_t held, pending; /* of all records */
	size_t owed;          /* input that was taken and is not credited yet */
	struct loop *loop;
	struct loop_timer portions;
	bool half_closed, paused, ended;
	unsigned depth; /* calls from the carrier on the stack: not freed before they return */
};

/* ---- the end ---- */

static void stream_free(struct exec_stream *s)
{
	MAP_EACH(&s->records, it)
	{
		struct record *r = it->value;
		for (int fd = 1; fd <= 2; fd++) buf_fini(&r->held[fd]);
		free(r->id);
		free(r);
	}
	map_fini(&s->records);
	free(s);
}

/* Nothing of it is used any more, except by who is on the stack. */
static void stop(struct exec_stream *s)
{
	s->ended = true;
	loop_timer_stop(&s->portions);
	list_del(&s->link);
	MAP_EACH(&s->records, it)
	{
		struct record *r = it->value;
		if (r->process) process_detach(r->process);
		r->process = NULL;
	}
	if (!s->depth) stream_free(s);
}

static void end(struct exec_stream *s, const struct err *e)
{
	if (s->ended) return;
	s->ops.end(s->arg, e);
	stop(s);
}

static void fail(struct exec_stream *s, enum code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail(struct exec_stream *s, enum code code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	va_start(ap, fmt);
	err_vset(&e, code, fmt, ap);
	va_end(ap);
	end(s, &e);
	err_fini(&e);
}

static void leave(struct exec_stream *s)
{
	if (--s->depth == 0 && s->ended) stream_free(s);
}

static void maybe_end(struct exec_stream *s)
{
	if (!s->half_closed) return;
	MAP_EACH(&s->records, it)
	{
		if (!((struct record *)it->value)->done) return;
	}
	end(s, NULL);
}

/* ---- to the client ---- */

static void pay(struct exec_stream *s, size_t max)
{
	size_t n = min_of(s->owed, max);
	s->owed -= n;
	if (n) s->ops.consumed(s->arg, n);
	if (!s->owed) loop_timer_stop(&s->portions);
}

static void pay_portion(void *arg) { pay(arg, PORTION_BYTES); }

/* Lets the processes write, and the client too, or not. */
static void regulate(struct exec_stream *s)
{
	if (s->ended) return;
	size_t out = s->ops.queued(s->arg) + s->held;
	if (out <= MUCH_BYTES)
		pay(s, s->owed);
	else if (s->owed && !s->portions.uv)
		loop_timer_start(s->loop, &s->portions, PORTION_EVERY_MS, PORTION_EVERY_MS, pay_portion, s);
	bool paused = out > (s->pending ? OUT_WITH_INPUT_MAX_BYTES : OUT_MAX_BYTES);
	if (paused == s->paused) return;
	s->paused = paused;
	MAP_EACH(&s->records, it)
	{
		struct record *r = it->value;
		if (r->process) process_pause(r->process, paused);
	}
}

static void send_msg(struct record *r, Gateway__ExecMessage *m)
{
	struct exec_stream *s = r->stream;
	m->processid = r->id;
	s->ops.send(s->arg, m);
}

static void send_file(struct record *r, int fd, const void *p, size_t n, bool eof)
{
	Gateway__ExecMessage m = GATEWAY__EXEC_MESSAGE__INIT;
	Gateway__FdMessage f = GATEWAY__FD_MESSAGE__INIT;
	f.fd = (uint32_t)fd;
	f.eof = eof;
	f.data = (ProtobufCBinaryData){n, (uint8_t *)p};
	m.input_case = GATEWAY__EXEC_MESSAGE__INPUT_FILE;
	m.file = &f;
	send_msg(r, &m);
}

static void send_done(struct record *r)
{
	if (r->done || !r->exited || r->in_open) return;
	Gateway__ExecMessage m = GATEWAY__EXEC_MESSAGE__INIT;
	Gateway__DoneMessage d = GATEWAY__DONE_MESSAGE__INIT;
	m.input_case = GATEWAY__EXEC_MESSAGE__INPUT_DONE;
	m.done = &d;
	r->done = true;
	send_msg(r, &m);
}

static void send_held(struct record *r, int fd, size_t max)
{
	struct buf *h = &r->held[fd];
	size_t n = min_of(h->n, max);
	if (!n) return;
	send_file(r, fd, h->p, n, false);
	memmove(h->p, h->p + n, h->n - n);
	h->n -= n;
	r->stream->held -= n;
	if (!h->n) buf_fini(h);
}

/* wire tells when the queue is low only after it had been high: hold nothing before. */
static bool is_slow(const struct exec_stream *s) { return s->ops.queued(s->arg) > WIRE_SEND_HIGH; }

static void send_more(struct exec_stream *s)
{
	while (!list_empty(&s->holding) && !is_slow(s)) {
		struct record *r = list_first(&s->holding, struct record, link);
		list_del(&r->link);
		for (int fd = 1; fd <= 2; fd++) send_held(r, fd, MESSAGE_BYTES);
		if (r->held[1].n || r->held[2].n) list_add_tail(&s->holding, &r->link);
	}
	regulate(s);
}

/* The process has taken n bytes. */
static void credit(struct record *r, size_t n)
{
	struct exec_stream *s = r->stream;
	r->pending -= n;
	s->pending -= n;
	s->owed += n;
	regulate(s);
}

/* ---- what a process tells ---- */

static void started(void *arg)
{
	Gateway__ExecMessage m = GATEWAY__EXEC_MESSAGE__INIT;
	Gateway__StartedMessage st = GATEWAY__STARTED_MESSAGE__INIT;
	m.input_case = GATEWAY__EXEC_MESSAGE__INPUT_STARTED;
	m.started = &st;
	send_msg(arg, &m);
}

static void output(void *arg, int fd, const void *p, size_t n)
{
	struct record *r = arg;
	struct exec_stream *s = r->stream;
	if (!r->out[fd]) return;
	if (!r->held[fd].n && !is_slow(s)) {
		send_file(r, fd, p, n, false);
	} else {
		buf_add(&r->held[fd], p, n);
		s->held += n;
		list_del(&r->link);
		list_add_tail(&s->holding, &r->link);
	}
	regulate(s);
}

static void drained(void *arg, size_t n) { credit(arg, n); }

static Rpc__Status *status_message(struct arena *a, const struct err *e)
{
	Rpc__Status *st = arena_new_of(a, Rpc__Status);
	rpc__status__init(st);
	st->code = (int32_t)e->code;
	st->message = e->msg;
	size_t n = 0;
	for (const struct err_detail *d = e->details; d; d = d->next) n++;
	st->details = arena_alloc(a, sizeof *st->details * n);
	for (const struct err_detail *d = e->details; d; d = d->next) {
		Google__Any *any = arena_new_of(a, Google__Any);
		google__any__init(any);
		any->type_url = d->type_url;
		any->value = (ProtobufCBinaryData){d->len, d->data};
		st->details[st->n_details++] = any;
	}
	return st;
}

static void exited(void *arg, unsigned code, const struct err *e)
{
	struct record *r = arg;
	_cleanup_arena_ struct arena *a = arena_new(0);
	Gateway__ExecMessage m = GATEWAY__EXEC_MESSAGE__INIT;
	Gateway__ExitMessage x = GATEWAY__EXIT_MESSAGE__INIT;
	r->process = NULL;
	credit(r, r->pending);
	list_del(&r->link);
	for (int fd = 1; fd <= 2; fd++) {
		if (!r->out[fd]) continue;
		while (r->held[fd].n) send_held(r, fd, MESSAGE_BYTES);
		send_file(r, fd, NULL, 0, true);
	}
	x.code = code;
	if (e) x.error = status_message(a, e);
	m.input_case = GATEWAY__EXEC_MESSAGE__INPUT_EXIT;
	m.exit = &x;
	send_msg(r, &m);
	r->exited = true;
	if (r->stream->half_closed) r->in_open = false;
	send_done(r);
	maybe_end(r->stream);
}

static const struct process_ops process_ops = {started, output, drained, exited};

/* ---- what the client tells ---- */

static void init(struct exec_stream *s, const char *pid, struct arena **a, Gateway__InitMessage *m)
{
	struct container *c = container_find(s->bridge, m->containerid);
	if (!c) {
		fail(s, CODE_NOT_FOUND, "container \"%s\" previously released or not created", m->containerid);
		return;
	}
	if (!m->meta || !m->meta->n_args) {
		fail(s, CODE_INVALID_ARGUMENT, "process %s has no arguments", pid);
		return;
	}
	struct record *r = xnew(struct record);
	r->stream = s;
	r->id = xstrdup(pid);
	list_init(&r->link);
	for (int fd = 1; fd <= 2; fd++) r->held[fd] = BUF_INIT;
	for (size_t i = 0; i < m->n_fds; i++) {
		r->in_open |= m->fds[i] == 0;
		if (m->fds[i] == 1 || m->fds[i] == 2) r->out[m->fds[i]] = true;
	}
	map_put(&s->records, pid, r);
	r->process = process_start(c, take_ptr(*a), m, &process_ops, r);
	if (s->paused) process_pause(r->process, true);
}

static void file(struct record *r, const Gateway__FdMessage *f, size_t message_bytes)
{
	struct exec_stream *s = r->stream;
	if (f->fd != 0 || !r->in_open) {
		fail(s, CODE_OUT_OF_RANGE, "fd %u unavailable to write", f->fd);
		return;
	}
	if (r->process && f->data.len) {
		s->ops.consumed(s->arg, message_bytes - f->data.len);
		r->pending += f->data.len;
		s->pending += f->data.len;
		process_write(r->process, f->data.data, f->data.len);
		regulate(s);
	} else {
		s->ops.consumed(s->arg, message_bytes);
	}
	if (!f->eof) return;
	r->in_open = false;
	if (r->process) process_write(r->process, NULL, 0);
	send_done(r);
	maybe_end(s);
}

static void signal_(struct record *r, const Gateway__SignalMessage *m)
{
	int n = process_signal_number(m->name);
	if (n < 0)
		fail(r->stream, CODE_INVALID_ARGUMENT, "Unknown signal %s", m->name);
	else if (r->process)
		process_signal(r->process, n);
}

static void take(struct exec_stream *s, const Gateway__ExecMessage *m, struct arena **a, size_t n)
{
	struct record *r = map_get(&s->records, m->processid);
	if (!*m->processid) {
		fail(s, CODE_INVALID_ARGUMENT, "ProcessID required");
	} else if (m->input_case == GATEWAY__EXEC_MESSAGE__INPUT_INIT) {
		s->ops.consumed(s->arg, n);
		if (r)
			fail(s, CODE_ALREADY_EXISTS, "Process %s already exists", m->processid);
		else
			init(s, m->processid, a, m->init);
	} else if (!r) {
		fail(s, CODE_NOT_FOUND, "IO for process \"%s\" not found", m->processid);
	} else if (m->input_case == GATEWAY__EXEC_MESSAGE__INPUT_FILE) {
		file(r, m->file, n);
	} else {
		s->ops.consumed(s->arg, n);
		if (m->input_case == GATEWAY__EXEC_MESSAGE__INPUT_SIGNAL)
			signal_(r, m->signal);
		else if (m->input_case == GATEWAY__EXEC_MESSAGE__INPUT_RESIZE && r->process)
			process_resize(r->process, (unsigned short)m->resize->rows, (unsigned short)m->resize->cols);
	}
}

void exec_stream_message(struct exec_stream *s, const uint8_t *p, size_t n)
{
	struct err e = ERR_INIT;
	struct arena *a = arena_new(0);
	s->depth++;
	Gateway__ExecMessage *m = wire_unpack_as(Gateway__ExecMessage, gateway__exec_message, arena_memdup(a, p, n), n, a, &e);
	if (m)
		take(s, m, &a, n);
	else
		end(s, &e);
	arena_free(a);
	err_fini(&e);
	leave(s);
}

void exec_stream_half_closed(struct exec_stream *s)
{
	s->depth++;
	s->half_closed = true;
	MAP_EACH(&s->records, it)
	{
		struct record *r = it->value;
		if (!r->in_open) continue;
		r->in_open = false;
		if (r->process) process_write(r->process, NULL, 0);
		send_done(r);
	}
	maybe_end(s);
	leave(s);
}

void exec_stream_writable(struct exec_stream *s) { send_more(s); }

/* ---- from outside ---- */

struct exec_stream *exec_stream_open(struct bridge *b, const struct exec_stream_ops *ops, void *arg)
{
	struct exec_stream *s = xnew(struct exec_stream);
	s->bridge = b;
	s->loop = b->build->engine->conf.env->loop;
	list_init(&s->holding);
	s->ops = *ops;
	s->arg = arg;
	list_add_tail(&b->streams, &s->link);
	return s;
}

void exec_stream_close(struct exec_stream *s) { stop(s); }

void exec_streams_end(struct bridge *b)
{
	LIST_EACH(&b->streams, struct exec_stream, s, link) fail(s, CODE_CANCELLED, "context canceled");
}
