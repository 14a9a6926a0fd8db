/* One import: a job reads the cache's documents, then the solver gets the graph. The object stays for as long as results are
 * loaded from it (load.c). */
#include "remote/internal.h"

#include <string.h>

void remote_import_unref(struct remote_import *i)
{
	if (--i->refs) return;
	strvec_fini(&i->attrs);
	ops_ids_fini(&i->ids);
	err_fini(&i->error);
	free(i);
}

struct solve_remote *remote_import_solver(struct remote_import *i) { return i->solver; }

static void read_work(struct loop_job *j)
{
	struct remote_import *i = container_of(j, struct remote_import, job);
	if (i->place->kind->read(i->place, i->graph, &i->error) < 0) return;
	if (!cache_graph_items(i->graph)) log_debug("the cache that was imported has no records");
}

static void ended(struct remote_import *i)
{
	loop_slot_release(&i->slot);
	remote_place_free(take_ptr(i->place));
	bool failed = err_is_set(&i->error);
	if (failed && i->error.code == CODE_NOT_FOUND) err_wrap(&i->error, "failed to configure %s cache importer", i->kind->type);
	if (failed) cache_graph_free(take_ptr(i->graph));
	if (i->solver) {
		solve_remote_ready(i->solver, take_ptr(i->graph));
		if (i->done) i->done(i->arg, failed ? &i->error : NULL);
	}
	cache_graph_free(take_ptr(i->graph));
	remote_import_unref(i);
}

static void read_done(struct loop_job *j) { ended(container_of(j, struct remote_import, job)); }

static void granted(struct loop_slot *s)
{
	struct remote_import *i = container_of(s, struct remote_import, slot);
	loop_job_start(i->env->loop, &i->job, LOOP_NET);
}

static void begin(void *arg)
{
	struct remote_import *i = arg;
	if (i->solver && !err_is_set(&i->error)) {
		i->slot.granted = granted;
		remote_place_admit(i->place, &i->slot, true);
		return;
	}
	ended(i);
}

/* From the job: posted before its end is, so the import is still there. */
struct later {
	struct remote_import *i;
	char *id;
	struct timespec at;
};

static void show_later(void *arg)
{
	struct later *l = arg;
	struct prog_status s = {.id = l->id, .name = "", .started = l->at, .completed = l->at, .timestamp = l->at};
	if (l->i->solver && l->i->status) l->i->status(l->i->arg, &s);
	free(l->id);
	free(l);
}

static void note(void *arg, const char *id, bool end)
{
	struct remote_import *i = arg;
	struct later *l = xnew(struct later);
	*l = (struct later){i, xstrdup(id), time_now()};
	loop_post(i->env->loop, show_later, l);
}

struct remote_import *remote_import_start(const struct remote_req *req, void (*done)(void *arg, const struct err *e))
{
	struct remote_import *i = xnew(struct remote_import);
	*i = (struct remote_import){.refs = 2,
				    .env = req->env,
				    .kind = remote_kind_find(req->spec.type),
				    .status = req->status,
				    .done = done,
				    .arg = req->arg};
	list_init(&i->loads);
	list_init(&i->slot.link);
	for (size_t k = 0; k < req->spec.n_attrs; k++)
		strvec_addf(&i->attrs, "%s=%s", req->spec.attrs[k].key, req->spec.attrs[k].value);
	for (size_t k = 0; k < req->n_sessions; k++) ops_ids_add(&i->ids, req->sessions[k]);
	i->solver = solve_remote_new(req->env->solver, &remote_solve_ops, i);
	i->graph = cache_graph_new();
	if (remote_check_import(&req->spec, &i->error) >= 0)
		i->place = remote_place_new(i->kind, req->env, &i->attrs, &i->ids, &i->error);
	if (i->place) {
		i->place->note = note;
		i->place->note_arg = i;
	}
	i->job.work = read_work;
	i->job.done = read_done;
	loop_post(req->env->loop, begin, i);
	return i;
}

void remote_import_drop(struct remote_import *i)
{
	if (!i) return;
	if (i->place) {
		remote_place_cancel(i->place);
		if (i->slot.pool && !i->slot.held) { /* still waiting: nothing runs */
			loop_slot_release(&i->slot);
			err_set(&i->error, CODE_CANCELLED, "context canceled");
			loop_post(i->env->loop, begin, i);
		}
	}
	remote_loads_drop(i);
	solve_remote_drop(take_ptr(i->solver));
	remote_import_unref(i);
}
