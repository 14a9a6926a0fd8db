/* In-process frontends: the built-in Dockerfile frontend is asked again and again, with more answers each time, until it needs
 * nothing more. */
#include "build/bridge.h"

#include <string.h>

struct front_run {
	struct build *build;
	void (*done)(void *arg, struct result *res, const struct err *e);
	void *arg;
	bool cancelled;
	struct err error;
};

static void refuse(void *arg)
{
	struct front_run *f = arg;
	if (!f->cancelled) f->done(f->arg, NULL, &f->error);
	err_fini(&f->error);
	free(f);
}

struct front_run *front_run_start(struct build *b, struct bridge *parent, const char *frontend, const struct strvec *opts,
				  void (*done)(void *arg, struct result *res, const struct err *e), void *arg)
{
	struct front_run *f = xnew(struct front_run);
	f->build = b;
	f->done = done;
	f->arg = arg;
	err_set(&f->error, CODE_UNKNOWN, "invalid frontend: %s", frontend);
	loop_post(b->engine->conf.env->loop, refuse, f);
	return f;
}

void front_run_cancel(struct front_run *f) { f->cancelled = true; }
