/* Blobs that nothing names any more go. A blob is named by a snapshot (its layers), by a history record (logs, errors,
 * manifests and what these name), or by a build that runs.
 *
 *  1. What builds that run use is not known here: so nothing is decided while one runs. A job lists and reads; then, if still
 * no build runs, the loop decides and moves the blobs out of the store, each by one rename; a job removes their bytes.
 *  2. Logs and errors of a deleted history record go without a scan, when no other record and no snapshot names them and no
 * record is just being stored (its blobs are not named yet). Its manifests, which builds may use too, go by a scan of their
 * own. */
#include "build/collect_job.h"
#include "build/internal.h"

struct collect_wait {
	void (*done)(void *arg);
	void *arg;
};
struct collect {
	struct engine *engine;
	struct loop_job job;
	bool running, again; /* again: asked for while it could not run, or a build started meanwhile */
	int64_t age_s,
		next_age_s; /* of the scan that runs; the least that is asked of the next one; INT64_MAX: only `dropped` */
	struct collect_scan scan;
	struct err error;
	VEC(struct collect_wait) waits;
	struct strvec unwanted; /* logs and errors */
	struct map dropped;     /* results, for the next scan */
	bool posted;
	struct loop_job empty_job;
	bool emptying, empty_again;
};

static struct blob_store *blobs(const struct collect *c) { return c->engine->conf.env->blobs; }

/* ---- the bytes ---- */

static void empty_work(struct loop_job *j)
{
	struct collect *c = container_of(j, struct collect, empty_job);
	struct err e = ERR_INIT;
	if (blob_trash_empty(blobs(c), &e) < 0) log_warn("removing blobs: %s", e.msg);
	err_fini(&e);
}

static void empty(struct collect *c);

static void empty_done(struct loop_job *j)
{
	struct collect *c = container_of(j, struct collect, empty_job);
	c->emptying = false;
	if (c->empty_again) empty(c);
}

static void empty(struct collect *c)
{
	c->empty_again = c->emptying;
	if (c->emptying) return;
	c->emptying = true;
	c->empty_job = (struct loop_job){.work = empty_work, .done = empty_done};
	loop_job_start(c->engine->conf.env->loop, &c->empty_job, LOOP_DISK);
}

static bool trash(struct collect *c, const char *digest)
{
	struct err e = ERR_INIT;
	int r = blob_trash(blobs(c), digest, &e);
	if (r < 0) log_warn("removing blobs: %s", e.msg);
	err_fini(&e);
	return r > 0;
}

/* ---- all of them ---- */

static void finished(struct collect *c)
{
	map_fini(&c->scan.wanted);
	map_fini(&c->scan.dropped);
	strvec_fini(&c->scan.found);
	err_fini(&c->error);
	c->running = false;
	if (c->again && !engine_running(c->engine)) return; /* the next one answers all */
	__typeof__(c->waits) waits = c->waits;
	c->waits = (__typeof__(c->waits)){0};
	for (size_t i = 0; i < waits.n; i++) waits.v[i].done(waits.v[i].arg);
	vec_fini(&waits);
}

static void decide(struct collect *c)
{
	size_t n = 0;
	for (size_t i = 0; i < c->scan.found.n; i++) {
		const char *digest = c->scan.found.v[i];
		if (!snap_store_has_blob(c->engine->conf.env->snaps, digest)) n += trash(c, digest);
	}
	log_debug("%zu blobs removed", n);
	if (n) empty(c);
}

static void scan_work(struct loop_job *j)
{
	struct collect *c = container_of(j, struct collect, job);
	if (!err_is_set(&c->error)) collect_scan(&c->scan, &c->error);
}

static void scan_done(struct loop_job *j)
{
	struct collect *c = container_of(j, struct collect, job);
	if (err_is_set(&c->error))
		log_warn("listing blobs: %s", c->error.msg);
	else if (!c->again)
		decide(c);
	else
		MAP_EACH(&c->scan.dropped, it) map_put(&c->dropped, it->key, c); /* for the next one */
	finished(c);
	collect_kick(c);
}

static void begin(struct collect *c)
{
	struct timespec now = time_now();
	c->running = true;
	c->again = false;
	c->age_s = c->next_age_s;
	c->next_age_s = INT64_MAX;
	c->scan = (struct collect_scan){.blobs = blobs(c), .dropped = c->dropped, .all = c->age_s != INT64_MAX};
	if (c->scan.all) c->scan.before = now.tv_sec - c->age_s;
	c->dropped = (struct map){0};
	history_blobs(c->engine->history, &c->scan.wanted, &c->error); /* without it nothing is removed */
	c->job = (struct loop_job){.work = scan_work, .done = scan_done};
	loop_job_start(c->engine->conf.env->loop, &c->job, LOOP_DISK);
}

void engine_collect_blobs(struct engine *g, int64_t min_age_s, void (*done)(void *arg), void *arg)
{
	struct collect *c = g->collect;
	struct collect_wait w = {done, arg};
	c->next_age_s = min_of(c->next_age_s, min_age_s);
	c->again = true; /* what a scan that runs has seen may be old already */
	if (c->running || !engine_running(g)) {
		if (done) vec_push(&c->waits, w);
		collect_kick(c);
	} else if (done) {
		done(arg);
	}
}

/* ---- of deleted records ---- */

static bool saving(const struct engine *g)
{
	LIST_EACH(&g->builds, struct build, b, all)
	{
		if (b->state == BUILD_SAVE) return true;
	}
	return false;
}

static void remove_unwanted(struct collect *c)
{
	_cleanup_map_ struct map named = {0};
	size_t n = 0;
	if (!c->unwanted.n || saving(c->engine)) return;
	if (history_blobs(c->engine->history, &named, NULL) < 0) return;
	for (size_t i = 0; i < c->unwanted.n; i++) {
		const char *digest = c->unwanted.v[i];
		if (!map_has(&named, digest) && !snap_store_has_blob(c->engine->conf.env->snaps, digest)) n += trash(c, digest);
	}
	strvec_fini(&c->unwanted);
	if (n) empty(c);
}

static void unwanted_posted(void *arg)
{
	struct collect *c = arg;
	c->posted = false;
	collect_kick(c);
}

void collect_unwanted(struct collect *c, const char *digest, bool result)
{
	if (result) {
		map_put(&c->dropped, digest, c);
		c->again = true;
	} else {
		strvec_add(&c->unwanted, digest);
	}
	if (c->posted) return;
	c->posted = true;
	loop_post(c->engine->conf.env->loop, unwanted_posted, c);
}

/* ---- when ---- */

void collect_disturb(struct collect *c)
{
	if (!c->running) return;
	c->again = true;
	c->next_age_s = min_of(c->next_age_s, c->age_s);
}

void collect_kick(struct collect *c)
{
	remove_unwanted(c);
	if (c->again && !c->running && !engine_running(c->engine)) begin(c);
}

struct collect *collect_new(struct engine *g)
{
	struct collect *c = xnew(struct collect);
	c->engine = g;
	c->next_age_s = INT64_MAX;
	return c;
}

void collect_free(struct collect *c) /* no job may be under way */
{
	strvec_fini(&c->unwanted);
	map_fini(&c->dropped);
	vec_fini(&c->waits);
	free(c);
}
