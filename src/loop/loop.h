#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H
/* The event loop (libuv), jobs on worker threads, pools of slots, pipes between a job and the loop, children.
 *
 * Model. One thread, the loop thread, owns every mutable structure. Blocking work is a job: work(job) runs on a worker
 * thread on a struct that it owns alone; then done(job) runs on the loop. The only locks of the project are in here.
 *  1. work() touches its job only, never the loop (except loop_pipe's job side and loop_post).
 *  2. done() is called exactly once for each job that was started, also for a cancelled one.
 *  3. A job never waits for another job; limits are pools, admitted before the job starts.
 *  4. Cancelling sets one atomic flag that work() reads at each chunk (loop_job_cancelled).
 * All functions: loop thread, not blocking, unless said otherwise. */
#include "base/base.h"
#include <stdatomic.h>
#include <sys/types.h>
#include <uv.h>

struct loop;
struct loop *loop_new(void);
void loop_free(struct loop *l); /* nothing may be under way */
void loop_run(struct loop *l);  /* until loop_stop; blocks */
void loop_stop(struct loop *l);
uv_loop_t *loop_uv(struct loop *l);
/* Run fn(arg) on the loop thread soon. Any thread. */
void loop_post(struct loop *l, void (*fn)(void *arg), void *arg);

/* ---- jobs ---- */
enum loop_class {
	LOOP_CPU,  /* as many threads as cores: hash, compress */
	LOOP_DISK, /* 8 threads: walks, mounts, unpack, small files */
	LOOP_NET,  /* a thread of its own each: transfers, and whatever waits for a peer, child or lock */
};
struct loop_job {
	void (*work)(struct loop_job *j); /* worker thread */
	void (*done)(struct loop_job *j); /* loop thread; may free the struct around j */
	atomic_bool cancelled;
	/* private */
	struct loop *loop;
	struct list link;
	enum loop_class class_;
};
void loop_job_start(struct loop *l, struct loop_job *j, enum loop_class c);
/* Ask the job to end early. Any thread. work() sees it by loop_job_cancelled. */
static inline void loop_job_cancel(struct loop_job *j) { atomic_store(&j->cancelled, true); }
static inline bool loop_job_cancelled(const struct loop_job *j) { return atomic_load(&j->cancelled); }

/* ---- pools: admission with a waiting list ---- */
struct loop_pool {
	size_t limit, used; /* limit 0: unlimited */
	struct list waiting, holding;
	uint64_t turns; /* private */
};
struct loop_slot {
	void (*granted)(struct loop_slot *s); /* called from loop_slot_want or from another's release */
	struct loop_pool *pool;               /* set while held or waiting */
	bool held;
	struct list link;
	const void *group; /* fairness key: waiting groups (builds) take turns; NULL is a group too */
	uint64_t turn;	   /* private */
};
void loop_pool_init(struct loop_pool *p, size_t limit);
void loop_pool_set_limit(struct loop_pool *p, size_t limit); /* who holds a slot keeps it */
size_t loop_pool_waiting(const struct loop_pool *p);
void loop_slot_want(struct loop_pool *p, struct loop_slot *s); /* granted() may be called before it returns */
void loop_slot_release(struct loop_slot *s);                   /* also stops waiting; harmless when neither */

/* ---- pipe: bytes between a job and the loop, bounded ----
 * One side is the job (blocking calls), the other the loop (callbacks). Closed with an error from either end.
 * Reference counted: each side holds one; free when both dropped. */
struct loop_pipe;
/* on_event(arg) is called on the loop whenever the loop side may go on: bytes to read, room to write, or closed.
 * It is not called again until the loop side has read to empty / written to full. */
struct loop_pipe *loop_pipe_new(struct loop *l, size_t max_bytes, void (*on_event)(void *arg), void *arg);
void loop_pipe_unref(struct loop_pipe *p);            /* any thread */
struct loop_pipe *loop_pipe_ref(struct loop_pipe *p); /* any thread */
/* job side. read: > 0 bytes, 0 at a clean end, -1 with *e when it was closed with an error. write: 0 or -1. Block. */
ssize_t loop_pipe_job_read(struct loop_pipe *p, void *buf, size_t n, struct err *e);
int loop_pipe_job_write(struct loop_pipe *p, const void *buf, size_t n, struct err *e);
void loop_pipe_job_close(struct loop_pipe *p, const struct err *e); /* e NULL or unset: clean end */
/* loop side. read: bytes now there (0: none now), *ret_end set at a clean end, -1 when closed with an error.
 * write: how many bytes were taken (0: full, on_event comes), -1 when the job side has gone. */
ssize_t loop_pipe_read(struct loop_pipe *p, void *buf, size_t n, bool *ret_end, struct err *e);
ssize_t loop_pipe_write(struct loop_pipe *p, const void *buf, size_t n, struct err *e);
void loop_pipe_close(struct loop_pipe *p, const struct err *e);
void loop_pipe_detach(struct loop_pipe *p); /* loop side: no further on_event */

/* ---- timers ---- */
struct loop_timer {
	uv_timer_t *uv;
	void (*fn)(void *arg);
	void *arg;
};
void loop_timer_start(struct loop *l, struct loop_timer *t, uint64_t after_ms, uint64_t repeat_ms, void (*fn)(void *),
		      void *arg);
void loop_timer_stop(struct loop_timer *t); /* harmless when not started */

/* ---- signals ---- */
void loop_on_signal(struct loop *l, int signum, void (*fn)(void *arg, int signum), void *arg);

/* ---- children ---- */
struct loop_child {
	pid_t pid;
	void (*exited)(struct loop_child *c, int status, int term_signal); /* loop thread, once */
	struct loop *loop;
	struct list link;
	void *uv; /* private */
};
struct loop_child_spec {
	char *const *argv;
	char *const *env;          /* NULL: ours */
	const char *cwd;           /* NULL: ours */
	int stdio[3];              /* descriptors to hand over (borrowed), -1: /dev/null */
	int extra_fd;              /* handed over as descriptor 3; -1 none. 0 means 0, so set it */
	bool keep_on_parent_death; /* default: PDEATHSIG SIGKILL */
	bool new_session;
};
/* Spawn by vfork+exec with every other descriptor closed; the parent-death signal is set. A missing program is an error here.
 */
int loop_child_start(struct loop *l, struct loop_child *c, const struct loop_child_spec *spec, struct err *e);
#endif
