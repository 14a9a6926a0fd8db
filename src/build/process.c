/* One process of a gateway container: [SECRETS] -> [WAITING for the container's first process] -> RUNS -> exited.
 *
 *  1. The first process is the container (run_start), later ones join it (run_exec) and end with it at the latest.
 *  2. Every refusal comes as an exit with code 255, as BuildKit's does: the client gets Started, then Exit.
 *  3. What the client sends before the process runs (input, signals, sizes) is kept and handed over then.
 * Sources: moby/buildkit frontend/gateway/container/container.go, executor/runcexecutor/executor.go (exitError). */
#include "build/container.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- signals by name ---- */

int process_signal_number(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} table[] = {
		{"ABRT", SIGABRT},     {"ALRM", SIGALRM},   {"BUS", SIGBUS},   {"CHLD", SIGCHLD}, {"CLD", SIGCHLD},
		{"CONT", SIGCONT},     {"FPE", SIGFPE},     {"HUP", SIGHUP},   {"ILL", SIGILL},   {"INT", SIGINT},
		{"IO", SIGIO},         {"IOT", SIGABRT},    {"KILL", SIGKILL}, {"PIPE", SIGPIPE}, {"POLL", SIGIO},
		{"PROF", SIGPROF},     {"PWR", SIGPWR},     {"QUIT", SIGQUIT}, {"SEGV", SIGSEGV}, {"STKFLT", 16},
		{"STOP", SIGSTOP},     {"SYS", SIGSYS},     {"TERM", SIGTERM}, {"TRAP", SIGTRAP}, {"TSTP", SIGTSTP},
		{"TTIN", SIGTTIN},     {"TTOU", SIGTTOU},   {"URG", SIGURG},   {"USR1", SIGUSR1}, {"USR2", SIGUSR2},
		{"VTALRM", SIGVTALRM}, {"WINCH", SIGWINCH}, {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
	};
	for (size_t i = 0; i < array_len(table); i++)
		if (!strcmp(table[i].name, name)) return table[i].number;
	bool low = str_starts(name, "RTMIN");
	if (!low && !str_starts(name, "RTMAX")) return -1;
	if (!name[5]) return low ? SIGRTMIN : SIGRTMAX;
	char *end;
	long off = strtol(name + 6, &end, 10);
	if (name[5] != (low ? '+' : '-') || !name[6] || *end || off < 0 || off > (low ? 15 : 14)) return -1;
	return low ? SIGRTMIN + (int)off : SIGRTMAX - (int)off;
}

/* ---- the end ---- */

static void tell_started(struct process *p)
{
	if (p->told_started) return;
	p->told_started = true;
	if (p->ops) p->ops->started(p->arg);
}

static void wake_waiting(struct container *c);
static size_t drop_input(struct process *p);

static void end(struct process *p, unsigned code, const struct err *e)
{
	struct container *c = p->container;
	if (e && !err_is_set(&c->error)) err_copy(&c->error, e);
	if (p->is_first) {
		c->run = NULL;
		wake_waiting(c);
	}
	list_del(&p->link);
	tell_started(p);
	if (p->ops) p->ops->exited(p->arg, code, e);
	strvec_fini(&p->secret_env);
	drop_input(p);
	err_fini(&p->error);
	arena_free(p->arena);
	free(p);
	container_process_gone(c);
}

/* Not every failure is known outside of the caller's stack: refusals come in a turn of their own. */
static void refused(void *arg)
{
	struct process *p = arg;
	struct err e = p->error;
	p->error = ERR_INIT;
	end(p, RUN_EXIT_UNKNOWN, &e);
	err_fini(&e);
}

static void refuse(struct process *p, const struct err *e)
{
	err_copy(&p->error, e);
	p->state = PROCESS_REFUSED;
	loop_post(p->container->env->loop, refused, p);
}

static void add_exit_code(struct err *e, unsigned code)
{
	char json[32];
	int n = snprintf(json, sizeof json, "{\"Code\":%u}", code);
	err_detail_add(e, "github.com/moby/buildkit/gatewayapi.ExitMessage+json", json, (size_t)n);
}

/* A process that fails ends its container, as in BuildKit: they are one group there. */
static void end_container(const struct process *p)
{
	const struct container *c = p->container;
	if (!p->is_first && c->run) run_kill(c->run, SIGKILL);
}

static void run_exited(void *user, const struct run_exit *x, const struct err *err)
{
	struct process *p = user;
	p->run = NULL;
	p->runs = false;
	if (err && !p->cancelled) {
		end_container(p);
		end(p, RUN_EXIT_UNKNOWN, err);
		return;
	}
	unsigned code = err || x->killed ? 128 + SIGKILL : (unsigned)x->code;
	if (!code) {
		end(p, 0, NULL);
		return;
	}
	struct err e = ERR_INIT;
	if (p->cancelled)
		err_set(&e, CODE_CANCELLED, "exit code: %u: context canceled", code);
	else if (x->oom)
		err_set(&e, CODE_RESOURCE_EXHAUSTED, "exit code: %u: cannot allocate memory", code);
	else
		err_set(&e, CODE_UNKNOWN, "exit code: %u", code);
	add_exit_code(&e, code);
	end_container(p);
	end(p, code, &e);
	err_fini(&e);
}

/* ---- input: one piece at a time, so that it is known what has been taken ---- */

enum { PIECE_BYTES = 32 << 10 };

struct chunk {
	struct list link;
	size_t n;
	uint8_t b[];
};

static size_t drop_input(struct process *p)
{
	size_t n = 0;
	LIST_EACH(&p->input, struct chunk, c, link)
	{
		n += c->n;
		list_del(&c->link);
		free(c);
	}
	return n;
}

static void pump(struct process *p)
{
	if (!p->runs || p->writing) return;
	struct chunk *c = list_first(&p->input, struct chunk, link);
	if (c && run_write_stdin(p->run, c->b, c->n, NULL) >= 0) {
		p->writing = true;
	} else if (c) { /* it has closed its side: what comes is dropped */
		size_t n = drop_input(p);
		if (p->ops) p->ops->drained(p->arg, n);
	} else if (p->eof && !p->eof_sent) {
		p->eof_sent = true;
		run_write_stdin(p->run, NULL, 0, NULL);
	}
}

static void run_drained(void *user)
{
	struct process *p = user;
	struct chunk *c = p->writing ? list_first(&p->input, struct chunk, link) : NULL;
	p->writing = false;
	if (c) {
		list_del(&c->link);
		if (p->ops) p->ops->drained(p->arg, c->n);
		free(c);
	}
	pump(p);
}

void process_write(struct process *p, const void *data, size_t n)
{
	if (!p->has_stdin || p->eof || p->state == PROCESS_REFUSED) return;
	p->eof = !n;
	for (size_t at = 0; at < n; at += PIECE_BYTES) {
		size_t k = min_of(n - at, (size_t)PIECE_BYTES);
		struct chunk *c = xmalloc(sizeof *c + k);
		c->n = k;
		memcpy(c->b, (const char *)data + at, k);
		list_add_tail(&p->input, &c->link);
	}
	pump(p);
}

/* ---- running ---- */

static void hand_over(struct process *p)
{
	p->runs = true;
	if (p->paused) run_pause_output(p->run, true);
	if (p->rows) run_resize(p->run, p->rows, p->cols);
	for (size_t i = 0; i < p->n_signals; i++) run_signal(p->run, p->signals[i]);
	pump(p);
}

static void run_started(void *user)
{
	struct process *p = user;
	tell_started(p);
	hand_over(p);
}

static void out(struct process *p, int fd, const void *data, size_t n)
{
	if (!p->ops) return;
	tell_started(p); /* its first bytes may be quicker than its pid file */
	p->ops->output(p->arg, fd, data, n);
}

static void run_stdout(void *user, const void *data, size_t n) { out(user, 1, data, n); }
static void run_stderr(void *user, const void *data, size_t n) { out(user, 2, data, n); }

static const struct run_ops run_ops = {.started = run_started,
				       .stdout_data = run_stdout,
				       .stderr_data = run_stderr,
				       .stdin_drained = run_drained,
				       .exited = run_exited};

static void make_env(const struct process *p, struct strvec *env)
{
	const Pb__Meta *meta = p->init->meta;
	const Pb__Platform *platform = p->container->req->platform;
	bool windows = platform && !strcmp(platform->os, "windows");
	strvec_copy(env, (char *const *)meta->env, meta->n_env);
	if (!strvec_env_get(env, "PATH"))
		strvec_add(env,
			   windows ? "PATH=c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0"
				   : "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	if (p->init->tty && !strvec_env_get(env, "TERM")) strvec_add(env, "TERM=xterm");
	strvec_copy(env, p->secret_env.v, p->secret_env.n);
}

static const char *cwd_of(const struct process *p) { return *p->init->meta->cwd ? p->init->meta->cwd : "/"; }

static int start_first(struct process *p, char *const *args, char *const *env, struct err *e)
{
	struct container *c = p->container;
	struct run_spec spec = RUN_SPEC_INIT;
	struct run_host *hosts = xcalloc(c->req->n_extrahosts, sizeof *hosts);
	for (size_t i = 0; i < c->req->n_extrahosts; i++)
		hosts[i] = (struct run_host){c->req->extrahosts[i]->host, c->req->extrahosts[i]->ip};
	spec.rootfs = ops_mounts_rootfs(c->mounts);
	spec.args = args;
	spec.env = env;
	spec.dns = ops_settings(c->env, (const char *const *)c->sessions, c->n_sessions).dns;
	spec.cwd = cwd_of(p);
	spec.user = p->init->meta->user;
	spec.hostname = str_empty(c->req->hostname) ? NULL : c->req->hostname;
	spec.mounts = ops_mounts_list(c->mounts, &spec.n_mounts);
	spec.net = c->req->network == PB__NET_MODE__HOST   ? RUN_NET_HOST
		   : c->req->network == PB__NET_MODE__NONE ? RUN_NET_NONE
							   : RUN_NET_DEFAULT;
	spec.insecure = p->init->security == PB__SECURITY_MODE__INSECURE;
	spec.remove_stubs_recursive = p->init->meta->removemountstubsrecursive;
	spec.trace = true;
	spec.extra_hosts = hosts;
	spec.n_extra_hosts = c->req->n_extrahosts;
	spec.tty = p->init->tty;
	spec.tty_rows = p->rows;
	spec.tty_cols = p->cols;
	spec.open_stdin = p->has_stdin;
	int r = spec.rootfs ? run_start(c->env->run, &spec, &run_ops, p, &p->run, e)
			    : err_set(e, CODE_UNKNOWN, "container %s has no root mount", c->id);
	free(hosts);
	if (r >= 0) c->run = p->run;
	return r;
}

static int start_exec(struct process *p, char *const *args, char *const *env, struct err *e)
{
	struct run_exec_spec spec = RUN_EXEC_SPEC_INIT;
	spec.args = args;
	spec.env = env;
	spec.cwd = cwd_of(p);
	spec.user = p->init->meta->user;
	spec.tty = p->init->tty;
	spec.tty_rows = p->rows;
	spec.tty_cols = p->cols;
	spec.open_stdin = p->has_stdin;
	return run_exec(p->container->run, &spec, &run_ops, p, &p->run, e);
}

static int check(const struct process *p, struct err *e)
{
	const struct container *c = p->container;
	Pb__SecurityMode mode = p->init->security;
	if (p->cancelled) return err_set(e, CODE_CANCELLED, "context canceled");
	if (mode != PB__SECURITY_MODE__SANDBOX && mode != PB__SECURITY_MODE__INSECURE)
		return err_set(e, CODE_UNKNOWN, "invalid security mode %d", (int)mode);
	if (c->req->network == PB__NET_MODE__HOST && !c->allow_host)
		return err_set(e, CODE_UNKNOWN, "network.host is not allowed");
	if (mode == PB__SECURITY_MODE__INSECURE && !c->allow_insecure)
		return err_set(e, CODE_UNKNOWN, "security.insecure is not allowed");
	if (!p->is_first && !c->run) return err_set(e, CODE_UNKNOWN, "container %s not found", c->id);
	return 0;
}

static bool must_wait(const struct process *p)
{
	if (p->is_first || p->cancelled || p->container->run) return false;
	LIST_EACH(&p->container->processes, struct process, q, link)
	{
		if (q->is_first) return q->state == PROCESS_NEW || q->state == PROCESS_SECRETS;
	}
	return false;
}

/* Its secrets are here. */
static void go(struct process *p)
{
	struct err e = ERR_INIT;
	_cleanup_strvec_ struct strvec args = {0}, env = {0};
	if (must_wait(p)) {
		p->state = PROCESS_WAITS;
		return;
	}
	strvec_copy(&args, (char *const *)p->init->meta->args, p->init->meta->n_args);
	make_env(p, &env);
	p->state = PROCESS_STARTED;
	int r = check(p, &e);
	if (r >= 0) r = p->is_first ? start_first(p, args.v, env.v, &e) : start_exec(p, args.v, env.v, &e);
	if (r < 0) refuse(p, &e);
	err_fini(&e);
	if (p->is_first)
		wake_waiting(p->container);
	else
		tell_started(p);
}

/* The first process was started, or never will be. */
static void wake_waiting(struct container *c)
{
	LIST_EACH(&c->processes, struct process, p, link)
	{
		if (p->state == PROCESS_WAITS) go(p);
	}
}

/* ---- secrets ---- */

static void asked(void *arg, struct snap **outputs, size_t n, const struct err *e)
{
	struct process *p = arg;
	ops_mounts_free(take_ptr(p->secrets));
	go(p);
}

static void have_secrets(void *arg, const struct err *e)
{
	struct process *p = arg;
	if (e) {
		refuse(p, e);
		ops_mounts_free(take_ptr(p->secrets)); /* e is its own */
		return;
	}
	const struct strvec *env = ops_mounts_secret_env(p->secrets);
	strvec_copy(&p->secret_env, env->v, env->n);
	ops_mounts_finish(p->secrets, OPS_DROP, asked, p);
}

static void ask_secrets(struct process *p)
{
	struct container *c = p->container;
	struct ops_mounts_req req = {
		.env = c->env,
		.what = "process",
		.sessions = (const char *const *)c->sessions,
		.n_sessions = c->n_sessions,
		.secret_env = p->init->secretenv,
		.n_secret_env = p->init->n_secretenv,
		.done = have_secrets,
		.arg = p,
	};
	p->state = PROCESS_SECRETS;
	p->secrets = ops_mounts_start(&req);
}

static void begin(void *arg)
{
	struct process *p = arg;
	struct err e = ERR_INIT;
	for (size_t i = 0; i < p->init->n_secretenv; i++)
		if (!*p->init->secretenv[i]->id)
			err_set(&e, CODE_UNKNOWN, "secret ID missing for \"%s\" environment variable",
				p->init->secretenv[i]->name);
	if (err_is_set(&e))
		refuse(p, &e);
	else if (p->init->n_secretenv)
		ask_secrets(p);
	else
		go(p);
	err_fini(&e);
}

/* ---- from outside ---- */

struct process *process_start(struct container *c, struct arena *a, const Gateway__InitMessage *init,
			      const struct process_ops *ops, void *arg)
{
	struct process *p = xnew(struct process);
	p->container = c;
	p->arena = a;
	p->init = init;
	p->ops = ops;
	p->arg = arg;
	p->is_first = !c->has_first;
	list_init(&p->input);
	for (size_t i = 0; i < init->n_fds; i++) p->has_stdin |= init->fds[i] == 0;
	c->has_first = true;
	list_add_tail(&c->processes, &p->link);
	loop_post(c->env->loop, begin, p);
	return p;
}

void process_signal(struct process *p, int signum)
{
	if (p->runs)
		run_signal(p->run, signum);
	else if (p->n_signals < array_len(p->signals))
		p->signals[p->n_signals++] = signum;
}

void process_resize(struct process *p, unsigned short rows, unsigned short cols)
{
	p->rows = rows;
	p->cols = cols;
	if (p->runs) run_resize(p->run, rows, cols);
}

void process_pause(struct process *p, bool paused)
{
	p->paused = paused;
	if (p->runs) run_pause_output(p->run, paused);
}

void process_detach(struct process *p)
{
	p->ops = NULL;
	process_pause(p, false);
	process_write(p, NULL, 0); /* behind what has come */
}

void process_cancel(struct process *p)
{
	p->cancelled = true;
	if (p->secrets)
		ops_mounts_cancel(p->secrets);
	else if (p->run)
		run_kill(p->run, SIGKILL);
	else if (p->state == PROCESS_WAITS)
		go(p); /* is refused */
}
