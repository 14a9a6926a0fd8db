/* A request of the proxy network, held against the source policy as an http source would be. It may go where the policy sends
 * it when it is a GET and nothing but the URL changes. When the build ends first the answer is no. Source: moby/buildkit
 * util/network/proxyprovider (check). */
#include "build/source_policy.h"

#include <string.h>

struct ops_check {
	struct list link; /* in build->checks */
	struct arena *arena;
	Pb__SourceOp src;
	struct source_ask *ask;
	char *method, *url;
	ops_check_fn *done;
	void *arg;
	bool starting, ended;
};

static void check_free(struct ops_check *c)
{
	list_del(&c->link);
	arena_free(c->arena);
	free(c->method);
	free(c->url);
	free(c);
}

static int judge(const struct ops_check *c, struct err *e)
{
	const char *to = c->src.identifier;
	if (strcmp(c->method, "GET"))
		return err_set(e, CODE_UNKNOWN,
			       "source policy converted proxy request \"%s\", but conversion is only supported for GET",
			       c->url);
	if (c->src.n_attrs)
		return err_set(e, CODE_UNKNOWN,
			       "source policy converted proxy request \"%s\" with attrs, but proxy conversion only supports "
			       "URL updates",
			       c->url);
	if (!str_starts(to, "http://") && !str_starts(to, "https://"))
		return err_set(e, CODE_UNKNOWN, "source policy converted proxy request to unsupported URL \"%s\"", to);
	return 0;
}

static void verdict(void *arg, bool changed, const struct err *e)
{
	struct ops_check *c = arg;
	struct err bad = ERR_INIT;
	c->ask = NULL;
	if (!e && changed && (strcmp(c->src.identifier, c->url) || c->src.n_attrs) && judge(c, &bad) < 0) e = &bad;
	c->done(c->arg, e ? NULL : changed ? c->src.identifier : c->url, e);
	err_fini(&bad);
	c->ended = true;
	if (!c->starting) check_free(c);
}

struct ops_check *build_source_check(void *user, const char *method, const char *url, ops_check_fn *done, void *arg)
{
	struct build *b = user;
	struct ops_check *c = xnew(struct ops_check);
	list_init(&c->link);
	c->arena = arena_new(0);
	c->method = xstrdup(method);
	c->url = xstrdup(url);
	c->done = done;
	c->arg = arg;
	c->starting = true;
	pb__source_op__init(&c->src);
	c->src.identifier = arena_strdup(c->arena, url);
	if (b->state == BUILD_DONE) {
		struct err e = ERR_INIT;
		err_set(&e, CODE_CANCELLED, "context canceled");
		verdict(c, false, &e);
		err_fini(&e);
	} else if (!source_policy_wanted(b, NULL)) {
		verdict(c, false, NULL);
	} else {
		list_add_tail(&b->checks, &c->link);
		c->ask = source_ask_start(b, NULL, &c->src, NULL, c->arena, true, verdict, c);
	}
	c->starting = false;
	if (!c->ended) return c;
	check_free(c);
	return NULL;
}

void build_source_check_cancel(struct ops_check *c)
{
	if (c->ask) source_ask_cancel(take_ptr(c->ask));
	check_free(c);
}

void build_checks_end(struct build *b)
{
	while (!list_empty(&b->checks)) {
		struct ops_check *c = container_of(b->checks.next, struct ops_check, link);
		struct err e = ERR_INIT;
		if (c->ask) source_ask_cancel(take_ptr(c->ask));
		err_set(&e, CODE_CANCELLED, "context canceled");
		c->done(c->arg, NULL, &e);
		err_fini(&e);
		check_free(c);
	}
}
