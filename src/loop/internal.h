#ifndef LOOP_INTERNAL_H
#define LOOP_INTERNAL_H
#include "loop/loop.h"
#include <pthread.h>

enum { LOOP_N_CLASSES = 2 }; /* LOOP_NET has no queue: a thread each */

struct loop_queue {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct list jobs;
	size_t n_threads, max_threads, idle;
	bool closing;
};

struct loop {
	uv_loop_t uv;
	uv_async_t async;
	pthread_mutex_t post_lock;
	struct list posted;
	struct list signals;
	struct loop_queue queue[LOOP_N_CLASSES];
	pthread_mutex_t net_lock; /* with net_idle: LOOP_NET threads that wait for a next job */
	struct list net_idle;
	size_t net_count;
	bool net_closing;
	struct list children;
	bool sigchld_on;
};

void loop_jobs_init(struct loop *l);
void loop_jobs_fini(struct loop *l);
#endif
