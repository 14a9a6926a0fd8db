/* One container (or a further process in one) as a state machine on the loop.
 *
 *   PREPARING --job--> [WAITING] --spawn--> RUNNING --child exited--> DRAINING --output ended--> CLEANING --job--> gone
 *       \____________ failed or killed ______________________________________________________/
 *   An exec begins in QUEUED when its container is still PREPARING.
 *  1. exited() is called exactly once, from finish(), and nothing after it.
 *  2. WAITING: an exec whose container has not started yet. A container stays in DRAINING until its execs are gone.
 *  3. Killing is a wish that is repeated until the child has gone: on cgroup v2 by cgroup.kill, else by the runtime's
 *     `kill`; an exec by its pid file. After ten seconds the runtime process itself is killed.
 *  4. "Started" is the runtime's pid file; it is watched only when somebody wants to know. */
#include "run/internal.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

enum { KILL_EVERY_MS = 25, KILL_TRIES = 400, DRAIN_MS = 1000 };
enum state { QUEUED, PREPARING, WAITING, RUNNING, DRAINING, CLEANING };

struct run {
	struct run_engine *g;
	struct arena *arena;
	struct run_spec spec;       /* a container's */
	struct run_exec_spec xspec; /* an exec's */
	struct run *container;      /* of an exec; NULL for a container */
	struct run_ops ops;
	void *user;
	char id[RUN_ID_MAX + 1];
	enum state state;
	struct box box;
	struct exec_box xbox;
	struct list execs, link; /* link: in container->execs */
	struct list probe_link;  /* in engine->waiting */
	unsigned exec_seq;
	struct loop_child child, killer;
	bool child_running, killer_running, started, killed, done, new_ns;
	int kill_tries;
	struct run_stdio *io;
	struct loop_timer kill_timer, drain_timer;
	uv_fs_event_t *watch;
	struct err err;
	struct run_exit exit;
};

const char *run_id(const struct run *r) { return r->id; }
bool run_is_started(const struct run *r) { return r->started; }
static const char *pid_file(const struct run *r) { return r->container ? r->xbox.pid_file : r->box.pid_file; }

/* ---- copies of what the caller gave ---- */
static char *const *copy_strs(struct arena *a, char *const *v, size_t n)
{
	if (!v) return NULL;
	if (n == SIZE_MAX)
		for (n = 0; v[n]; n++) continue;
	char **c = arena_alloc(a, (n + 1) * sizeof *c);
	for (size_t i = 0; i < n; i++) c[i] = arena_strdup(a, v[i]);
	return c;
}

static const char *copy_str(struct arena *a, const char *s) { return s ? arena_strdup(a, s) : NULL; }

static void copy_lists(struct arena *a, struct run_spec *d, const struct run_spec *s)
{
	struct run_mount *m = arena_alloc(a, (s->n_mounts + 1) * sizeof *m);
	for (size_t i = 0; i < s->n_mounts; i++) {
		m[i] = s->mounts[i];
		m[i].source = arena_strdup(a, s->mounts[i].source);
		m[i].dest = arena_strdup(a, s->mounts[i].dest);
		m[i].type = arena_strdup(a, s->mounts[i].type);
		m[i].options = copy_strs(a, s->mounts[i].options, s->mounts[i].n_options);
	}
	d->mounts = m;
	struct run_host *h = arena_alloc(a, (s->n_extra_hosts + 1) * sizeof *h);
	for (size_t i = 0; i < s->n_extra_hosts; i++)
		h[i] = (struct run_host){arena_strdup(a, s->extra_hosts[i].host), arena_strdup(a, s->extra_hosts[i].ip)};
	d->extra_hosts = h;
	struct run_ulimit *u = arena_alloc(a, (s->n_ulimits + 1) * sizeof *u);
	for (size_t i = 0; i < s->n_ulimits; i++) {
		u[i] = s->ulimits[i];
		u[i].name = arena_strdup(a, s->ulimits[i].name);
	}
	d->ulimits = u;
	struct run_device *dev = arena_alloc(a, (s->n_devices + 1) * sizeof *dev);
	for (size_t i = 0; i < s->n_devices; i++) {
		dev[i] = s->devices[i];
		dev[i].path = arena_strdup(a, s->devices[i].path);
		dev[i].host_path = copy_str(a, s->devices[i].host_path);
		dev[i].access = copy_str(a, s->devices[i].access);
	}
	d->devices = dev;
	struct run_hook *hook = arena_alloc(a, (s->n_hooks + 1) * sizeof *hook);
	for (size_t i = 0; i < s->n_hooks; i++) {
		hook[i] = (struct run_hook){.kind = arena_strdup(a, s->hooks[i].kind),
					    .path = arena_strdup(a, s->hooks[i].path),
					    .args = copy_strs(a, s->hooks[i].args, SIZE_MAX),
					    .env = copy_strs(a, s->hooks[i].env, SIZE_MAX),
					    .timeout_s = s->hooks[i].timeout_s};
	}
	d->hooks = hook;
	uint32_t *gids = arena_alloc(a, (s->n_gids + 1) * sizeof *gids);
	for (size_t i = 0; i < s->n_gids; i++) gids[i] = s->gids[i];
	d->gids = gids;
}

static void copy_spec(struct arena *a, struct run_spec *d, const struct run_spec *s)
{
	*d = *s;
	d->rootfs = arena_strdup(a, s->rootfs);
	d->args = copy_strs(a, s->args, SIZE_MAX);
	d->env = copy_strs(a, s->env, SIZE_MAX);
	d->cwd = copy_str(a, s->cwd);
	d->user = copy_str(a, s->user);
	d->hostname = copy_str(a, s->hostname);
	d->traceparent = copy_str(a, s->traceparent);
	d->cgroup_parent = copy_str(a, s->cgroup_parent);
	d->proxy_ca = copy_str(a, s->proxy_ca);
	d->res.cpuset_cpus = copy_str(a, s->res.cpuset_cpus);
	d->res.cpuset_mems = copy_str(a, s->res.cpuset_mems);
	copy_lists(a, d, s);
}

static void copy_exec_spec(struct arena *a, struct run_exec_spec *d, const struct run_exec_spec *s)
{
	*d = *s;
	d->args = copy_strs(a, s->args, SIZE_MAX);
	d->env = copy_strs(a, s->env, SIZE_MAX);
	d->cwd = copy_str(a, s->cwd);
	d->user = copy_str(a, s->user);
}

/* ---- the end ---- */
static void watch_closed(uv_handle_t *h) { free(h); }

static void watch_stop(struct run *r)
{
	if (r->watch) uv_close((uv_handle_t *)take_ptr(r->watch), watch_closed);
}

static void run_free(struct run *r)
{
	r->g->n_runs--;
	free(r->box.bundle);
	free(r->box.cgroup_wrapper);
	free(r->box.pid_file);
	free(r->box.proxy_ns);
	free(r->box.proxy_addr);
	free(r->box.ca_path);
	run_dns_unref(r->spec.dns);
	strvec_fini(&r->box.stubs);
	err_fini(&r->box.err);
	free(r->xbox.process_file);
	free(r->xbox.pid_file);
	err_fini(&r->xbox.err);
	err_fini(&r->err);
	arena_free(r->arena);
	free(r);
}

static void maybe_clean(struct run *r);

static void finish(struct run *r)
{
	struct run *container = r->container;
	loop_timer_stop(&r->kill_timer);
	loop_timer_stop(&r->drain_timer);
	watch_stop(r);
	run_stdio_close(take_ptr(r->io));
	list_del(&r->link);
	r->done = true;
	r->exit.killed = r->killed;
	if (r->box.netns) {
		if (r->new_ns) r->g->n_ns++;
		engine_ns_give(r->g, take_ptr(r->box.netns));
	}
	r->ops.exited(r->user, &r->exit, err_is_set(&r->err) ? &r->err : NULL);
	run_free(r);
	if (container) maybe_clean(container);
}

static void cleaned(struct loop_job *j)
{
	struct run *r = container_of(j, struct box, job)->owner;
	r->exit.oom = r->box.exit.oom;
	r->exit.usage = r->box.exit.usage;
	finish(r);
}

static void clean(struct run *r)
{
	r->state = CLEANING;
	watch_stop(r);
	if (r->container) {
		finish(r);
		return;
	}
	/* a namespace with a hostname of its own, or one whose container never ran, is not used again */
	r->box.release_netns = r->box.netns && (r->box.netns->hostname || err_is_set(&r->err)) && r->new_ns;
	r->box.job = (struct loop_job){.work = box_clean, .done = cleaned};
	loop_job_start(r->g->loop, &r->box.job, r->box.release_netns ? LOOP_NET : LOOP_DISK);
}

static void maybe_clean(struct run *r)
{
	bool quiet = !r->io || run_stdio_has_ended(r->io);
	if (r->state == DRAINING && quiet && list_empty(&r->execs) && !r->killer_running) clean(r);
}

static void stop_execs(struct run *r);

static void fail(struct run *r, struct err *e)
{
	err_move(&r->err, e);
	r->state = DRAINING;
	run_stdio_close(take_ptr(r->io));
	stop_execs(r);
	maybe_clean(r);
}

/* The first exec in that state, or NULL; callbacks may take any of them off the list. */
static struct run *exec_in(struct run *r, enum state s)
{
	LIST_EACH(&r->execs, struct run, x, link)
	if (x->state == s) return x;
	return NULL;
}

/* The container will not run (any more): execs that have not begun never will. */
static void stop_execs(struct run *r)
{
	struct run *x;
	while ((x = exec_in(r, WAITING)) || (x = exec_in(r, QUEUED))) {
		struct err e = ERR_INIT;
		if (err_is_set(&r->err))
			err_set(&e, CODE_FAILED_PRECONDITION, "container %s has exited with error: %s", r->id, r->err.msg);
		else
			err_set(&e, CODE_FAILED_PRECONDITION, "container %s has stopped", r->id);
		fail(x, &e);
	}
}

/* ---- output ---- */
static void on_data(void *arg, int fd, const void *p, size_t n)
{
	struct run *r = arg;
	void (*fn)(void *, const void *, size_t) = fd == 2 ? r->ops.stderr_data : r->ops.stdout_data;
	if (fn) fn(r->user, p, n);
}

static void on_ended(void *arg) { maybe_clean(arg); }

static void on_drained(void *arg)
{
	struct run *r = arg;
	if (r->ops.stdin_drained) r->ops.stdin_drained(r->user);
}

static void drain_over(void *arg)
{
	struct run *r = arg;
	run_stdio_cut(r->io); /* a process outside the container's pid namespace still holds the pipe */
}

/* ---- started ---- */
static void spawn(struct run *r);

static void set_started(struct run *r)
{
	if (r->started) return;
	r->started = true;
	watch_stop(r);
	if (r->ops.started) r->ops.started(r->user);
	for (struct run *x; (x = exec_in(r, WAITING));) spawn(x);
}

static bool pid_file_is_there(const struct run *r)
{
	struct stat st;
	return stat(pid_file(r), &st) == 0 && st.st_size > 0;
}

static void watch_event(uv_fs_event_t *w, const char *name, int events, int status)
{
	struct run *r = w->data;
	(void)name, (void)events, (void)status;
	if (pid_file_is_there(r)) set_started(r);
}

static void watch_start(struct run *r)
{
	if (r->started || r->watch || !r->child_running) return;
	_cleanup_free_ char *dir = path_dir(pid_file(r));
	r->watch = xnew(uv_fs_event_t);
	uv_fs_event_init(loop_uv(r->g->loop), r->watch);
	r->watch->data = r;
	uv_fs_event_start(r->watch, watch_event, dir, 0);
	if (pid_file_is_there(r)) set_started(r);
}

/* ---- the child ---- */
static void child_exited(struct loop_child *c, int status, int term_signal)
{
	struct run *r = container_of(c, struct run, child);
	(void)term_signal;
	r->child_running = false;
	r->exit.code = status & 0xff;
	if (!r->started && pid_file_is_there(r)) set_started(r);
	watch_stop(r);
	if (r->io) run_stdio_child_gone(r->io);
	r->state = DRAINING;
	stop_execs(r);
	if (r->io && !run_stdio_has_ended(r->io)) loop_timer_start(r->g->loop, &r->drain_timer, DRAIN_MS, 0, drain_over, r);
	maybe_clean(r);
}

static const char *bundle_of(const struct run *r) { return r->container ? r->container->box.bundle : r->box.bundle; }

/* The terminal comes by a socket in the bundle, whose path is given to crun relative to its working directory. */
static bool wants_console(const struct run *r) { return (r->container ? r->xspec.tty : r->spec.tty) && r->g->facts.is_crun; }

static void console_name(const struct run *r, char out[static 24]) { snprintf(out, 24, "tty-%u", r->xbox.seq); }

static int open_stdio(struct run *r, struct err *e)
{
	static const struct run_stdio_ops ops = {.data = on_data, .ended = on_ended, .drained = on_drained};
	struct run_stdio_conf c = {r->spec.tty,
				   r->spec.open_stdin,
				   r->spec.tty_rows,
				   r->spec.tty_cols,
				   {r->spec.stdin_fd, r->spec.stdout_fd, r->spec.stderr_fd}};
	if (r->container)
		c = (struct run_stdio_conf){r->xspec.tty,
					    r->xspec.open_stdin,
					    r->xspec.tty_rows,
					    r->xspec.tty_cols,
					    {r->xspec.stdin_fd, r->xspec.stdout_fd, r->xspec.stderr_fd}};
	char name[24];
	console_name(r, name);
	if (wants_console(r)) c.console_dir = bundle_of(r), c.console_name = name;
	return run_stdio_open(r->g, &c, &ops, r, &r->io, e);
}

static void exec_prepare(struct run *x);

static void make_argv(const struct run *r, struct strvec *argv)
{
	const char *bundle = bundle_of(r);
	char name[24];
	_cleanup_free_ char *log = xasprintf("%s/log", bundle);
	runtime_argv(&r->g->facts, log, argv);
	strvec_add(argv, r->container ? "exec" : "run");
	strvec_add(argv, r->container ? "--process" : "--bundle");
	strvec_add(argv, r->container ? r->xbox.process_file : bundle);
	strvec_add(argv, "--pid-file");
	strvec_add(argv, pid_file(r));
	if (wants_console(r)) {
		console_name(r, name);
		strvec_add(argv, "--console-socket");
		strvec_add(argv, name);
	}
	strvec_add(argv, r->id);
}

static void spawn(struct run *r)
{
	_cleanup_strvec_ struct strvec argv = {0};
	struct err e = ERR_INIT;
	if (open_stdio(r, &e) < 0) {
		fail(r, &e);
		return;
	}
	const int *fds = run_stdio_child_fds(r->io);
	make_argv(r, &argv);
	r->child = (struct loop_child){.exited = child_exited};
	struct loop_child_spec cs = {
		.argv = argv.v, .cwd = bundle_of(r), .stdio = {fds[0], fds[1], fds[2]}, .extra_fd = -1, .new_session = true};
	if (loop_child_start(r->g->loop, &r->child, &cs, &e) < 0) {
		fail(r, &e);
		return;
	}
	r->state = RUNNING;
	r->child_running = true;
	run_stdio_started(r->io);
	LIST_EACH(&r->execs, struct run, x, link)
	if (x->state == QUEUED) exec_prepare(x);
	if (r->ops.started || !list_empty(&r->execs)) watch_start(r);
}

static void cancelled(struct run *r)
{
	struct err e = ERR_INIT;
	err_set(&e, CODE_CANCELLED, "context canceled");
	fail(r, &e);
}

static void exec_prepared(struct loop_job *j)
{
	struct run *r = container_of(j, struct exec_box, job)->owner;
	struct err e = ERR_INIT;
	if (r->killed) {
		cancelled(r);
	} else if (err_is_set(&r->xbox.err)) {
		fail(r, &r->xbox.err);
	} else if (r->container->state > RUNNING) {
		err_set(&e, CODE_FAILED_PRECONDITION, "container %s has stopped", r->container->id);
		fail(r, &e);
	} else if (r->container->started) {
		spawn(r);
	} else {
		r->state = WAITING;
		watch_start(r->container);
	}
}

static void exec_prepare(struct run *x)
{
	struct run *c = x->container;
	x->state = PREPARING;
	x->xbox = (struct exec_box){.job = {.work = exec_box_prepare, .done = exec_prepared},
				    .owner = x,
				    .facts = &c->g->facts,
				    .container = &c->spec,
				    .spec = &x->xspec,
				    .bundle = c->box.bundle,
				    .seq = ++c->exec_seq};
	loop_job_start(c->g->loop, &x->xbox.job, LOOP_DISK);
}

static int give_proxy(struct run *r, struct err *e)
{
	return r->ops.proxy(r->user, take_fd(r->box.proxy_fd), r->box.netns ? r->box.netns->path : NULL, e);
}

static void prepared(struct loop_job *j)
{
	struct run *r = container_of(j, struct box, job)->owner;
	if (r->killed)
		cancelled(r);
	else if (err_is_set(&r->box.err))
		fail(r, &r->box.err);
	else if (r->box.proxy_fd >= 0 && give_proxy(r, &r->box.err) < 0)
		fail(r, &r->box.err);
	else
		spawn(r);
}

/* ---- start ---- */
static int check_id(const char *id, struct err *e)
{
	size_t n = 0;
	for (; id[n]; n++)
		if (!isalnum((unsigned char)id[n])) break;
	if (n == 0 || id[n] || n > RUN_ID_MAX) return err_set(e, CODE_INVALID_ARGUMENT, "invalid container ID \"%s\"", id);
	return 0;
}

static int check_args(char *const *args, struct err *e)
{
	return args && args[0] ? 0 : err_set(e, CODE_INVALID_ARGUMENT, "no arguments");
}

static struct run *new_run(struct run_engine *g, const struct run_ops *ops, void *user)
{
	struct run *r = xnew(struct run);
	r->g = g;
	r->arena = arena_new(0);
	r->state = PREPARING;
	r->ops = *ops;
	r->user = user;
	list_init(&r->execs);
	list_init(&r->link);
	g->n_runs++;
	return r;
}

static void no_runtime(void *arg)
{
	struct run *r = arg;
	err_copy(&r->box.err, &r->g->probe_err);
	prepared(&r->box.job);
}

int run_start(struct run_engine *g, const struct run_spec *spec, const struct run_ops *ops, void *user, struct run **ret,
	      struct err *e)
{
	char id[ID_STR];
	if (!spec->id) id_new(id);
	if (check_id(spec->id ? spec->id : id, e) < 0 || check_args(spec->args, e) < 0) return -1;
	if (!spec->rootfs || *spec->rootfs != '/')
		return err_set(e, CODE_INVALID_ARGUMENT, "the root filesystem must be an absolute path");
	if (spec->proxy_ca && (!ops->proxy || spec->net == RUN_NET_NONE))
		return err_set(e, CODE_INVALID_ARGUMENT, "a proxy needs a network, and somebody who is it");
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (str_empty(spec->mounts[i].dest) || !spec->mounts[i].source || !spec->mounts[i].type)
			return err_set(e, CODE_INVALID_ARGUMENT, "mount %zu has no destination, source or type", i);
	struct run *r = new_run(g, ops, user);
	snprintf(r->id, sizeof r->id, "%s", spec->id ? spec->id : id);
	copy_spec(r->arena, &r->spec, spec);
	r->spec.dns = run_dns_ref(spec->dns ? spec->dns : g->dns);
	r->box = (struct box){.job = {.work = box_prepare, .done = prepared},
			      .owner = r,
			      .facts = &g->facts,
			      .spec = &r->spec,
			      .id = r->id,
			      .rootfd = -1,
			      .proxy_fd = -1,
			      .wants_netns = g->facts.cni && spec->net == RUN_NET_DEFAULT};
	if (r->box.wants_netns && str_empty(spec->hostname)) r->box.netns = engine_ns_take(g);
	r->new_ns = r->box.wants_netns && !r->box.netns;
	*ret = r;
	if (g->probed && !err_is_set(&g->probe_err))
		loop_job_start(g->loop, &r->box.job, r->new_ns ? LOOP_NET : LOOP_DISK);
	else if (!g->probed)
		list_add_tail(&g->waiting, &r->probe_link);
	else
		loop_post(g->loop, no_runtime, r);
	return 0;
}

void run_probed(struct list *link)
{
	struct run *r = container_of(link, struct run, probe_link);
	if (err_is_set(&r->g->probe_err))
		no_runtime(r);
	else
		loop_job_start(r->g->loop, &r->box.job, r->new_ns ? LOOP_NET : LOOP_DISK);
}

/* ---- exec ---- */
int run_exec(struct run *c, const struct run_exec_spec *spec, const struct run_ops *ops, void *user, struct run **ret,
	     struct err *e)
{
	if (check_args(spec->args, e) < 0) return -1;
	if (c->container || c->state > RUNNING || c->killed)
		return err_set(e, CODE_FAILED_PRECONDITION, "container %s has stopped", c->id);
	struct run *r = new_run(c->g, ops, user);
	snprintf(r->id, sizeof r->id, "%s", c->id);
	copy_exec_spec(r->arena, &r->xspec, spec);
	r->container = c;
	r->state = QUEUED;
	list_add_tail(&c->execs, &r->link);
	if (c->state == RUNNING) exec_prepare(r);
	*ret = r;
	return 0;
}

/* ---- signals ---- */
static void killer_exited(struct loop_child *c, int status, int term_signal)
{
	struct run *r = container_of(c, struct run, killer);
	(void)status, (void)term_signal;
	r->killer_running = false;
	maybe_clean(r);
}

static void kill_by_runtime(struct run *r)
{
	_cleanup_strvec_ struct strvec argv = {0};
	if (r->killer_running) return;
	runtime_argv(&r->g->facts, NULL, &argv);
	strvec_add(&argv, "kill");
	strvec_add(&argv, r->id);
	strvec_add(&argv, "KILL");
	r->killer = (struct loop_child){.exited = killer_exited};
	struct loop_child_spec cs = {.argv = argv.v, .stdio = {-1, -1, -1}, .extra_fd = -1, .new_session = true};
	if (loop_child_start(r->g->loop, &r->killer, &cs, NULL) == 0) r->killer_running = true;
}

static void kill_by_pid_file(struct run *r)
{
	char text[32];
	_cleanup_close_ int fd = open(pid_file(r), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0) return;
	text[n] = 0;
	long pid = strtol(text, NULL, 10);
	if (pid > 1) kill((pid_t)pid, SIGKILL);
}

static void kill_again(void *arg)
{
	struct run *r = arg;
	if (!r->child_running) return;
	if (++r->kill_tries > KILL_TRIES) {
		kill(r->child.pid, SIGKILL);
		return;
	}
	if (r->container)
		kill_by_pid_file(r);
	else if (!cgroup_kill(r->box.cgroup_wrapper))
		kill_by_runtime(r);
	if (!r->kill_timer.uv) loop_timer_start(r->g->loop, &r->kill_timer, KILL_EVERY_MS, KILL_EVERY_MS, kill_again, r);
}

void run_kill(struct run *r, int signum)
{
	if (signum != SIGKILL) {
		run_signal(r, signum);
		return;
	}
	if (r->killed || r->done) return;
	r->killed = true;
	if (r->state == PREPARING)
		loop_job_cancel(r->container ? &r->xbox.job : &r->box.job);
	else if (r->state == WAITING || r->state == QUEUED)
		cancelled(r);
	else
		kill_again(r);
}

void run_signal(struct run *r, int signum)
{
	if (signum == SIGKILL)
		run_kill(r, signum);
	else if (r->child_running) /* the runtime hands it on */
		kill(r->child.pid, signum);
}

/* ---- streams ---- */
void run_pause_output(struct run *r, bool paused)
{
	if (r->io) run_stdio_pause(r->io, paused);
}

int run_write_stdin(struct run *r, const void *p, size_t n, struct err *e)
{
	if (!r->io) return err_set(e, CODE_FAILED_PRECONDITION, "stdin is closed");
	return run_stdio_write(r->io, p, n, e);
}

void run_resize(struct run *r, unsigned short rows, unsigned short cols)
{
	if (!r->io) return;
	run_stdio_resize(r->io, rows, cols);
	if (r->child_running && !wants_console(r)) kill(r->child.pid, SIGWINCH);
}
