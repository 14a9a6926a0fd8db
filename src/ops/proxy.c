#include "ops/proxy.h"

struct question {
	struct list link; /* in ops_proxy.open */
	struct proxy_check *check;
	struct ops_check *ask;
};
struct ops_proxy {
	struct ops_env *env;
	struct solve_node *node;
	struct proxy *proxy;
	struct list open;
	void (*done)(void *arg, struct proxy_record *r);
	void *arg;
};

const char *ops_proxy_ca(struct ops_env *env, struct err *e)
{
	if (!env->proxy_ca && proxy_ca_new(&env->proxy_ca, e) < 0) return NULL;
	return proxy_ca_pem(env->proxy_ca);
}

static void answer(struct question *q, const char *target)
{
	list_del(&q->link);
	proxy_check_answer(q->check, target);
	free(q);
}

static void asked(void *arg, const char *target, const struct err *e)
{
	struct question *q = arg;
	if (e) log_debug("proxy network: %s %s: %s", q->check->method, q->check->url, e->msg);
	answer(q, e ? NULL : target);
}

static bool first_build(void *arg, struct solve_build *b)
{
	*(void **)arg = solve_build_user(b);
	return true;
}

static void check(void *arg, struct proxy_check *c)
{
	struct ops_proxy *p = arg;
	void *build = NULL;
	struct question *q = xnew(struct question);
	q->check = c;
	list_add_tail(&p->open, &q->link);
	solve_node_each_build(p->node, first_build, &build);
	if (!build) { /* nobody wants the step any more */
		answer(q, NULL);
		return;
	}
	struct ops_check *ask = p->env->source_check(build, c->method, c->url, asked, q);
	if (ask) q->ask = ask; /* else it has been answered, and q is gone */
}

int ops_proxy_start(struct ops_env *env, struct solve_node *n, int listen_fd, const char *egress_netns, struct ops_proxy **ret,
		    struct err *e)
{
	struct ops_proxy *p = xnew(struct ops_proxy);
	struct proxy_conf c = {.loop = env->loop,
			       .ca = env->proxy_ca,
			       .listen_fd = listen_fd,
			       .egress_netns = egress_netns,
			       .check = check,
			       .arg = p};
	p->env = env;
	p->node = n;
	list_init(&p->open);
	if (proxy_start(&c, &p->proxy, e) < 0) {
		free(p);
		return -1;
	}
	*ret = p;
	return 0;
}

static void stopped(void *arg, struct proxy_record *r)
{
	struct ops_proxy *p = arg;
	p->done(p->arg, r);
	free(p);
}

void ops_proxy_end(struct ops_proxy *p, void (*done)(void *arg, struct proxy_record *r), void *arg)
{
	p->done = done;
	p->arg = arg;
	while (!list_empty(&p->open)) {
		struct question *q = container_of(p->open.next, struct question, link);
		p->env->source_check_cancel(q->ask);
		answer(q, NULL);
	}
	proxy_stop(p->proxy, stopped, p);
}
