/* Pushing: see push.h. A name is planned by a job; then each of its parts is a job of its own, admitted by the registry's pool.
 */
#include "ship/push.h"
#include "ship/push_job.h"

#include <stdio.h>
#include <string.h>

struct part {
	struct ship_push *push;
	struct loop_job job;
	struct loop_slot slot;
	struct reg_io io;
	struct push_one work;
	enum { PART_WAITING, PART_RUNNING, PART_ENDED } state;
};
struct ship_push {
	struct ship_push_req req;
	struct ship_desc root;
	struct reg_config *config;
	struct ops_auth auth;
	struct loop_job job; /* of the plan */
	struct push_plan plan;
	bool planning, cancelled;
	size_t at; /* which name */
	struct part *parts;
	size_t n, left;      /* left: of those under way */
	size_t next;         /* manifest to send */
	char *domain, *path; /* of the name before: what it has can be mounted */
	struct err error;
};

static void finish(void *arg)
{
	struct ship_push *p = arg;
	struct err e = p->error;
	p->error = (struct err){0};
	void (*done)(void *, struct err *) = p->req.done;
	void *done_arg = p->req.arg;
	ops_auth_fini(&p->auth);
	reg_config_unref(p->config);
	free(p->domain);
	free(p->path);
	free(p);
	done(done_arg, &e);
	err_fini(&e);
}

static void parts_free(struct ship_push *p)
{
	for (size_t i = 0; i < p->n; i++) {
		reg_io_fini(&p->parts[i].io);
		err_fini(&p->parts[i].work.error);
	}
	free(p->parts);
	p->parts = NULL;
	p->n = 0;
	push_plan_fini(&p->plan);
}

static void plan_start(struct ship_push *p);

static void fail(struct ship_push *p, struct err *e)
{
	if (err_is_set(&p->error)) return;
	err_move(&p->error, e);
	if (!p->cancelled) err_wrap(&p->error, "failed to push %s", p->req.names->v[p->at]);
	for (size_t i = 0; i < p->n; i++) {
		struct part *t = &p->parts[i];
		if (t->state == PART_RUNNING) {
			loop_job_cancel(&t->job);
			reg_io_cancel(&t->io);
		} else if (t->state == PART_WAITING && t->slot.pool) {
			loop_slot_release(&t->slot);
			t->state = PART_ENDED;
			p->left--;
		}
	}
}

static void step(struct ship_push *p);

static void part_work(struct loop_job *j) { push_job_one(&container_of(j, struct part, job)->work); }

static void part_done(struct loop_job *j)
{
	struct part *t = container_of(j, struct part, job);
	struct ship_push *p = t->push;
	t->state = PART_ENDED;
	p->left--;
	loop_slot_release(&t->slot);
	if (err_is_set(&t->work.error)) fail(p, &t->work.error);
	step(p);
}

static void granted(struct loop_slot *s)
{
	struct part *t = container_of(s, struct part, slot);
	t->state = PART_RUNNING;
	t->job.work = part_work;
	t->job.done = part_done;
	loop_job_start(t->push->req.env->loop, &t->job, LOOP_NET);
}

static void part_start(struct part *t)
{
	struct ship_push *p = t->push;
	bool json = t->work.manifest || reg_media_is_json(t->work.media_type);
	p->left++;
	loop_slot_want(reg_pools_get(p->req.env->reg_pools, p->plan.ref.domain, json), &t->slot);
}

/* Nothing of this name is under way: the next manifest, the next name, or the end. */
static void step(struct ship_push *p)
{
	if (p->left) return;
	while (p->next < p->n && !p->parts[p->next].work.manifest) p->next++;
	if (!err_is_set(&p->error) && p->next < p->n) {
		part_start(&p->parts[p->next++]);
		return;
	}
	if (!err_is_set(&p->error)) {
		if (p->req.named) p->req.named(p->req.arg, p->req.names->v[p->at]);
		free(p->domain);
		free(p->path);
		p->domain = xstrdup(p->plan.ref.domain);
		p->path = xstrdup(p->plan.ref.path);
	}
	parts_free(p);
	if (!err_is_set(&p->error) && ++p->at < p->req.names->n)
		plan_start(p);
	else
		finish(p);
}

static const char *mount_source(const struct ship_push *p, const char *digest)
{
	const struct spec_ref *to = &p->plan.ref;
	const char *from = p->req.mount_source ? p->req.mount_source(p->req.arg, digest, to) : NULL;
	if (from) return from;
	return str_eq(p->domain, to->domain) && !str_eq(p->path, to->path) ? p->path : NULL;
}

static void part_init(struct ship_push *p, size_t i)
{
	const struct ship_blobs *what = &p->plan.what;
	struct part *t = &p->parts[i];
	bool root = strcmp(what->digests.v[i], p->root.digest) == 0;
	t->push = p;
	t->slot.granted = granted;
	t->slot.group = ops_auth_group(&p->auth);
	list_init(&t->slot.link);
	reg_io_init(&t->io, p->req.env->reg, p->config);
	t->io.span = ops_span_log(&p->req.span);
	ops_auth_use(&p->auth, &t->io);
	t->io.cancelled = &t->job.cancelled;
	t->work = (struct push_one){.blobs = p->req.env->blobs,
				    .io = &t->io,
				    .digest = what->digests.v[i],
				    .media_type = what->media_types.v[i],
				    .size = what->sizes.v[i],
				    .manifest = push_is_manifest(what->media_types.v[i])};
	t->work.ref = t->work.manifest && root ? &p->plan.ref : &p->plan.bare;
	if (!t->work.manifest) t->work.mount_from = mount_source(p, t->work.digest);
}

static void plan_work(struct loop_job *j) { push_job_plan(&container_of(j, struct ship_push, job)->plan); }

static void plan_done(struct loop_job *j)
{
	struct ship_push *p = container_of(j, struct ship_push, job);
	p->planning = false;
	if (err_is_set(&p->plan.error)) fail(p, &p->plan.error);
	p->n = err_is_set(&p->error) ? 0 : p->plan.what.digests.n;
	p->parts = xcalloc(p->n + 1, sizeof *p->parts);
	p->next = 0;
	for (size_t i = 0; i < p->n; i++) part_init(p, i);
	p->left++; /* so that no part that ends at once ends it all */
	for (size_t i = 0; i < p->n; i++)
		if (!p->parts[i].work.manifest) part_start(&p->parts[i]);
	p->left--;
	step(p);
}

static void plan_start(struct ship_push *p)
{
	p->plan = (struct push_plan){
		.blobs = p->req.env->blobs, .name = p->req.names->v[p->at], .by_digest = p->req.by_digest, .root = &p->root};
	p->planning = true;
	p->job.work = plan_work;
	p->job.done = plan_done;
	loop_job_start(p->req.env->loop, &p->job, LOOP_DISK);
}

struct ship_push *ship_push_start(const struct ship_push_req *req)
{
	struct ship_push *p = xnew(struct ship_push);
	p->req = *req;
	p->root = (struct ship_desc){.media_type = req->root->media_type, .size = req->root->size};
	snprintf(p->root.digest, sizeof p->root.digest, "%s", req->root->digest);
	p->config = reg_config_ref(req->config);
	ops_auth_init(&p->auth, req->env, req->sessions, req->n_sessions);
	if (req->names->n)
		plan_start(p);
	else
		loop_post(req->env->loop, finish, p);
	return p;
}

void ship_push_cancel(struct ship_push *p)
{
	if (p->cancelled) return;
	p->cancelled = true;
	struct err e = ERR_INIT;
	err_set(&e, CODE_CANCELLED, "context canceled");
	size_t waited = p->left;
	fail(p, &e);
	err_fini(&e);
	if (waited && !p->left && !p->planning) { /* all waited for slots: nothing will come back */
		parts_free(p);
		loop_post(p->req.env->loop, finish, p);
	}
}
