/* Worker threads. LOOP_CPU and LOOP_DISK are queues served by a bounded number of threads, made when first needed.
 * LOOP_NET gives each job a thread at once (an idle one if there is one), because it may wait for a peer for long.
 * done() is posted to the loop, so it always runs there, after work() and never from loop_job_start(). */
#include "loop/internal.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

enum { STACK_BYTES = 512 * 1024, NET_IDLE_S = 10 };

static void finish(void *arg)
{
	struct loop_job *j = arg;
	j->done(j);
}

static void run_job(struct loop_job *j)
{
	j->work(j);
	loop_post(j->loop, finish, j);
}

static void thread_start(void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t t;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop thread's */
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &attr, fn, arg)) bug("cannot make a thread");
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void *queue_thread(void *arg)
{
	struct loop_queue *q = arg;
	pthread_mutex_lock(&q->lock);
	for (;;) {
		while (list_empty(&q->jobs) && !q->closing) {
			q->idle++;
			pthread_cond_wait(&q->wake, &q->lock);
			q->idle--;
		}
		if (list_empty(&q->jobs)) break;
		struct loop_job *j = list_first(&q->jobs, struct loop_job, link);
		list_del(&j->link);
		pthread_mutex_unlock(&q->lock);
		run_job(j);
		pthread_mutex_lock(&q->lock);
	}
	q->n_threads--;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static void queue_add(struct loop_queue *q, struct loop_job *j)
{
	bool more = false;
	pthread_mutex_lock(&q->lock);
	size_t waiting = 1;
	for (struct list *n = q->jobs.next; n != &q->jobs; n = n->next) waiting++;
	list_add_tail(&q->jobs, &j->link);
	if (q->idle < waiting && q->n_threads < q->max_threads) {
		q->n_threads++;
		more = true;
	}
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
	if (more) thread_start(queue_thread, q);
}

/* A LOOP_NET thread: runs its job, then waits a while for another one. */
struct net_thread {
	struct loop *loop;
	struct loop_job *job;
	pthread_cond_t wake;
	struct list link;
};

static void *net_thread(void *arg)
{
	struct net_thread *t = arg;
	struct loop *l = t->loop;
	while (t->job) {
		struct loop_job *j = t->job;
		t->job = NULL;
		run_job(j);
		pthread_mutex_lock(&l->net_lock);
		list_add_head(&l->net_idle, &t->link);
		struct timespec until = time_now();
		until.tv_sec += NET_IDLE_S;
		while (!t->job && !l->net_closing)
			if (pthread_cond_timedwait(&t->wake, &l->net_lock, &until)) break;
		list_del(&t->link);
		if (!t->job) l->net_count--;
		pthread_mutex_unlock(&l->net_lock);
	}
	pthread_cond_destroy(&t->wake);
	free(t);
	return NULL;
}

static void net_add(struct loop *l, struct loop_job *j)
{
	pthread_mutex_lock(&l->net_lock);
	struct net_thread *t = list_first(&l->net_idle, struct net_thread, link);
	if (t) {
		list_del(&t->link);
		t->job = j;
		pthread_cond_signal(&t->wake);
		pthread_mutex_unlock(&l->net_lock);
		return;
	}
	l->net_count++;
	pthread_mutex_unlock(&l->net_lock);
	t = xnew(struct net_thread);
	t->loop = l;
	t->job = j;
	list_init(&t->link);
	pthread_cond_init(&t->wake, NULL);
	thread_start(net_thread, t);
}

void loop_job_start(struct loop *l, struct loop_job *j, enum loop_class c)
{
	j->loop = l;
	j->class_ = c;
	if (c == LOOP_NET)
		net_add(l, j);
	else
		queue_add(&l->queue[c], j);
}

void loop_jobs_init(struct loop *l)
{
	cpu_set_t set;
	size_t cores = sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 2;
	for (int i = 0; i < LOOP_N_CLASSES; i++) {
		struct loop_queue *q = &l->queue[i];
		pthread_mutex_init(&q->lock, NULL);
		pthread_cond_init(&q->wake, NULL);
		list_init(&q->jobs);
		q->max_threads = i == LOOP_CPU ? cores : 8;
	}
	pthread_mutex_init(&l->net_lock, NULL);
	list_init(&l->net_idle);
	list_init(&l->children);
}

void loop_jobs_fini(struct loop *l)
{
	for (int i = 0; i < LOOP_N_CLASSES; i++) {
		struct loop_queue *q = &l->queue[i];
		pthread_mutex_lock(&q->lock);
		q->closing = true;
		pthread_cond_broadcast(&q->wake);
		while (q->n_threads) pthread_cond_wait(&q->wake, &q->lock);
		pthread_mutex_unlock(&q->lock);
		pthread_cond_destroy(&q->wake);
		pthread_mutex_destroy(&q->lock);
	}
	pthread_mutex_lock(&l->net_lock);
	l->net_closing = true;
	LIST_EACH(&l->net_idle, struct net_thread, t, link) pthread_cond_signal(&t->wake);
	pthread_mutex_unlock(&l->net_lock);
	for (;;) { /* they are detached: wait until the last one has counted itself out */
		pthread_mutex_lock(&l->net_lock);
		size_t left = l->net_count;
		pthread_mutex_unlock(&l->net_lock);
		if (!left) break;
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
}
