#ifndef BUILD_CONTAINER_H
#define BUILD_CONTAINER_H
/* Gateway containers: mounts that a frontend asked for, and the processes that it starts in them.
 * Loop thread, not blocking. Private to the room. */
#include "build/bridge.h"
#include "ops/mounts.h"

struct container;
struct process;

/* ---- container.c ---- */
struct container {
	char *id;
	struct bridge *bridge; /* NULL: released, or the frontend has gone */
	struct ops_env *env;
	struct arena *arena; /* of req and its mounts */
	Gateway__NewContainerRequest *req;
	struct snap **inputs; /* of each mount, held until the mounts hold them */
	struct ops_mounts *mounts;
	char *sessions[OPS_SESSIONS_MAX];
	size_t n_sessions;
	bool allow_host, allow_insecure; /* what the build was granted */
	struct list processes;
	bool has_first;  /* the process that it lives and ends with was started */
	struct run *run; /* that one's: NULL before and after */
	bool releasing, finishing;
	struct err error;            /* of the process that failed first */
	struct container_call *call; /* NewContainer's, then ReleaseContainer's */
};
struct container *container_find(const struct bridge *b, const char *id); /* NULL when absent */
/* All of a bridge that goes: they are stopped and cleaned up by themselves. */
void containers_discard(struct bridge *b);
void container_process_gone(struct container *c);

/* ---- process.c ---- */
struct process_ops {
	void (*started)(void *arg); /* once, before any output, also when it could not be started */
	void (*output)(void *arg, int fd, const void *p, size_t n);
	void (*drained)(void *arg, size_t n);                          /* so many bytes of what process_write took have gone */
	void (*exited)(void *arg, unsigned code, const struct err *e); /* once, the last one; e NULL: well, code 0 */
};
enum process_state {
	PROCESS_NEW,
	PROCESS_SECRETS, /* the client is being asked */
	PROCESS_WAITS,   /* for the container's first process */
	PROCESS_STARTED, /* there is a run: exited follows */
	PROCESS_REFUSED, /* error is set, exited follows */
};
struct process {
	struct container *container;
	struct list link;
	struct arena *arena;
	const Gateway__InitMessage *init; /* in arena */
	const struct process_ops *ops;    /* NULL: nobody listens */
	void *arg;
	enum process_state state;
	struct ops_mounts *secrets; /* asks the client for secretenv; no mounts */
	struct strvec secret_env;
	struct run *run;
	bool is_first, told_started, runs, cancelled, paused, has_stdin, eof;
	struct list input; /* struct chunk: what it has not taken yet */
	bool writing, eof_sent;
	int signals[8];
	size_t n_signals;
	unsigned short rows, cols;
	struct err error;
};
/* The arena with init is taken. Callbacks come later, never from within. */
struct process *process_start(struct container *c, struct arena *a, const Gateway__InitMessage *init,
			      const struct process_ops *ops, void *arg);
void process_write(struct process *p, const void *data, size_t n); /* n 0 closes its stdin */
void process_signal(struct process *p, int signum);
void process_resize(struct process *p, unsigned short rows, unsigned short cols);
void process_pause(struct process *p, bool paused);
void process_detach(struct process *p);      /* nobody listens any more: no callbacks, no input */
void process_cancel(struct process *p);      /* killed; its exit says "context canceled" */
int process_signal_number(const char *name); /* "INT", "RTMIN+3"; -1 when there is none */

/* ---- exec_stream.c ---- */
void exec_streams_end(struct bridge *b); /* the bridge goes */
#endif
