#ifndef SESS_LANE_H
#define SESS_LANE_H
/* What lies between a gRPC call and a job: messages of the call go into a loop_pipe for the job, what the job writes into
 * another goes out as messages. Back-pressure is passed through both ways: the call's window is credited as the job's pipe
 * takes the bytes, and the job's bytes are fetched while the call is not congested.
 * Loop thread, unless said otherwise. Embedded by its owner. */
#include "loop/loop.h"
#include "sess/transfer.h"
#include "wire/wire.h"

enum { LANE_PIPE = 512 << 10 };
/* The shape of messages: whole ones behind a length each (packets), or a BytesMessage around each chunk of a byte stream. */
enum lane_shape { LANE_PACKETS, LANE_BYTES };

struct lane {
	struct loop *loop;
	struct wire_call *call; /* NULL once it has ended */
	enum lane_shape shape;
	bool server;
	/* BYTES: the data in a message; default: a BytesMessage */
	int (*extract)(const uint8_t *p, size_t n, const uint8_t **ret, size_t *ret_n, struct err *e);
	/* Owner's, each may be NULL. In `ended` the call is gone already; the job's end of `in` is closed accordingly. */
	void (*ended)(struct lane *l, const struct err *status);
	void (*out_ended)(struct lane *l,
			  const struct err *e); /* once: all that the job wrote is sent; e: it closed with an error */
	void (*drained)(struct lane *l);        /* the call is over and the job's pipe has all of it */
	struct loop_job *job;                   /* the owner's, may be NULL: cancelled by lane_break */
	struct list link;                       /* the owner's: in a list of lanes; left by lane_fini */
	/* private */
	struct loop_pipe *in, *out;
	_Atomic uint64_t in_bytes; /* ever put into `in`; read by the job */
	struct buf backlog, parcel;
	size_t owed; /* message bytes not yet credited */
	bool in_closed, peer_done, out_done;
};
/* Take over a call (its ops and user). With in: messages are kept for a job; without: they are dropped. */
void lane_init(struct lane *l, struct loop *loop, struct wire_call *call, bool server, enum lane_shape shape, bool in,
	       bool out);
void lane_in_close(struct lane *l, const struct err *e);  /* nothing more for the job; later messages are dropped */
void lane_out_close(struct lane *l, const struct err *e); /* the job's writes fail */
/* Both at once, ahead of the call's end: whatever the job waits for fails with e. For an owner that runs no further turns. */
void lane_break(struct lane *l, const struct err *e);
void lane_fini(struct lane *l); /* the call must be over (NULL), or is left alone */

/* ---- the job's end, for packets ---- */
struct lane_io {
	struct loop_pipe *in, *out;
	const _Atomic uint64_t *in_bytes;
	uint64_t got;
	struct buf inbuf, outbuf;
	size_t at; /* in inbuf */
};
struct sess_io lane_io_init(struct lane_io *io, struct lane *l); /* loop thread, before the job starts */
void lane_io_fini(struct lane_io *io);

/* ---- a job over a lane of packets ---- */
struct lane_job {
	struct loop_job job;
	struct lane lane;
	struct lane_io io_state;
	struct sess_io io;
	struct err err; /* of run */
	_Atomic uint64_t bytes;
	/* Set by the owner before lane_job_start. */
	int (*run)(struct lane_job *j, struct err *e); /* job thread */
	void (*finished)(struct lane_job *j);          /* loop, once: run has ended with j->err; take what is needed */
	void (*gone)(struct lane_job *j);              /* loop, once, last: free the struct around it */
	/* private */
	bool job_done;
	struct loop_timer linger;
};
void lane_job_start(struct lane_job *j, struct loop *l, struct wire_call *call, bool server);
void lane_job_cancel(struct lane_job *j);
#endif
