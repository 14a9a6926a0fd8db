/* RUN: mounts up, container, mounts down, outputs committed. */
#include "ops/exec.h"
#include "ops/devices.h"
#include "ops/internal.h"
#include "ops/proxy.h"
#include "ops/steplog.h"
#include "run/platforms.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

struct exec_op {
	struct ops_node o;
	struct solve_node *node;
	struct ops_mounts *mounts;
	struct run *run;
	struct ops_steplog out, err;
	struct ops_span span;
	struct err error;
	bool cancelled;
	struct snap **written; /* by a step that failed, one a mount; held for who wants to look into it */
	size_t n_written;
	struct ops_proxy *proxy;
	struct proxy_record proxied;
	bool has_proxied;
};

static void drop_written(struct exec_op *x)
{
	for (size_t i = 0; i < x->n_written; i++) ops_mounts_drop(x->written[i]);
	free(take_ptr(x->written));
	x->n_written = 0;
}

static void op_free(void *op)
{
	struct exec_op *x = op;
	drop_written(x);
	proxy_record_fini(&x->proxied);
	ops_node_fini(&x->o);
	free(x);
}

/* ---- environment and exit ---- */

static void add_proxy(struct strvec *env, const char *upper, const char *lower, const char *value)
{
	if (str_empty(value)) return;
	strvec_addf(env, "%s=%s", upper, value);
	strvec_addf(env, "%s=%s", lower, value);
}

void ops_exec_env(const Pb__Meta *meta, const struct strvec *secrets, struct strvec *ret)
{
	for (size_t i = 0; i < meta->n_env; i++) strvec_add(ret, meta->env[i]);
	const Pb__ProxyEnv *p = meta->proxy_env;
	if (p) {
		add_proxy(ret, "HTTP_PROXY", "http_proxy", p->http_proxy);
		add_proxy(ret, "HTTPS_PROXY", "https_proxy", p->https_proxy);
		add_proxy(ret, "FTP_PROXY", "ftp_proxy", p->ftp_proxy);
		add_proxy(ret, "NO_PROXY", "no_proxy", p->no_proxy);
		add_proxy(ret, "ALL_PROXY", "all_proxy", p->all_proxy);
	}
	if (!strvec_env_get(ret, "PATH")) strvec_add(ret, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	if (secrets) strvec_copy(ret, secrets->v, secrets->n);
}

/* What a step for another platform cannot know: that nothing here runs its programs. "" or the end of a message; heap. */
static char *platform_hint(const Pb__Platform *platform)
{
	struct spec_platform p;
	llb_platform_get(platform, &p);
	_cleanup_free_ char *name = spec_platform_format(&p), *hint = NULL;
	if (!run_platforms_offer(&p))
		hint = xasprintf(" (no %s programs run on this machine: binfmt_misc has no emulator with flag F for them)",
				 name);
	spec_platform_fini(&p);
	return hint ? take_ptr(hint) : xstrdup("");
}

int ops_exec_exit_error(const Pb__Op *op, const struct run_exit *x, struct err *e)
{
	const Pb__Meta *meta = op->exec->meta;
	bool valid = !meta->n_validexitcodes && x->code == 0;
	for (size_t i = 0; i < meta->n_validexitcodes; i++) valid |= meta->validexitcodes[i] == x->code;
	if (valid) return 0;
	struct strvec args = {(char **)meta->args, meta->n_args, 0};
	_cleanup_free_ char *joined = strvec_join(&args, " ");
	_cleanup_free_ char *quoted = go_quote(joined, strlen(joined));
	if (x->oom)
		err_set(e, CODE_RESOURCE_EXHAUSTED, "process %s did not complete successfully: cannot allocate memory", quoted);
	else {
		_cleanup_free_ char *hint = platform_hint(op->platform);
		err_set(e, CODE_UNKNOWN, "process %s did not complete successfully: exit code: %d%s", quoted, x->code, hint);
	}
	char json[32];
	int n = snprintf(json, sizeof json, "{\"Code\":%d}", x->code);
	err_detail_add(e, "github.com/moby/buildkit/gatewayapi.ExitMessage+json", json, (size_t)n);
	return -1;
}

/* ---- the step ---- */

static void end(struct exec_op *x, struct snap **outputs, const struct err *e)
{
	struct err copy = ERR_INIT;
	if (err_is_set(&x->error))
		err_move(&copy, &x->error);
	else if (e)
		err_copy(&copy, e);
	ops_mounts_free(x->mounts);
	x->mounts = NULL;
	solve_exec_done(x->node, outputs, &copy);
}

static void downed(void *arg, struct snap **outputs, size_t n, const struct err *e) { end(arg, outputs, e); }

static void failed(void *arg, struct snap **outputs, size_t n, const struct err *e)
{
	struct exec_op *x = arg;
	drop_written(x);
	if (outputs) {
		x->written = xmemdup(outputs, n * sizeof *outputs);
		x->n_written = n;
	}
	end(x, NULL, e);
}

static void debris(void *op, struct solve_node *n, struct solve_debris *ret)
{
	struct exec_op *x = op;
	const Pb__ExecOp *pb = x->o.llb->op->exec;
	ret->n_inputs = ret->n_mounts = pb->n_mounts;
	ret->inputs = xcalloc(pb->n_mounts, sizeof *ret->inputs);
	ret->mounts = xcalloc(pb->n_mounts, sizeof *ret->mounts);
	for (size_t i = 0; i < pb->n_mounts; i++) {
		int64_t in = pb->mounts[i]->input;
		if (in >= 0 && (size_t)in < solve_input_count(n)) ret->inputs[i] = solve_input(n, (size_t)in);
		ret->mounts[i] = i < x->n_written && x->written[i] ? x->written[i] : ret->inputs[i];
	}
}

static void ran(struct exec_op *x)
{
	bool ok = !err_is_set(&x->error);
	ops_steplog_end(&x->out, !ok);
	ops_steplog_end(&x->err, !ok);
	if (ok)
		ops_mounts_finish(x->mounts, OPS_OUTPUTS, downed, x);
	else
		ops_mounts_finish(x->mounts, x->cancelled ? OPS_DROP : OPS_ALL, failed, x);
}

/* The requests, for people. */
static void show_proxied(struct exec_op *x)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (x->proxied.requests.n) buf_adds(&b, "proxy network requests:\n");
	for (size_t i = 0; i < x->proxied.requests.n; i++) {
		const struct proxy_request *q = &x->proxied.requests.v[i];
		buf_addf(&b, "- %s %s -> %d\n", q->method, q->url, q->status);
	}
	if (b.n) ops_steplog_write(&x->err, b.p, b.n);
}

static void proxy_ended(void *arg, struct proxy_record *r)
{
	struct exec_op *x = arg;
	x->proxied = *r;
	x->has_proxied = true;
	*r = (struct proxy_record){0};
	show_proxied(x);
	ran(x);
}

static int run_proxy(void *user, int listen_fd, const char *egress_netns, struct err *e)
{
	struct exec_op *x = user;
	return ops_proxy_start(x->o.env, x->node, listen_fd, egress_netns, &x->proxy, e);
}

static void run_exited(void *user, const struct run_exit *exit, const struct err *e)
{
	struct exec_op *x = user;
	x->run = NULL;
	if (x->cancelled)
		err_set(&x->error, CODE_CANCELLED, "context canceled");
	else if (e)
		err_copy(&x->error, e);
	else
		ops_exec_exit_error(x->o.llb->op, exit, &x->error);
	if (x->proxy)
		ops_proxy_end(take_ptr(x->proxy), proxy_ended, x);
	else
		ran(x);
}

static void run_stdout(void *user, const void *p, size_t n) { ops_steplog_write(&((struct exec_op *)user)->out, p, n); }
static void run_stderr(void *user, const void *p, size_t n) { ops_steplog_write(&((struct exec_op *)user)->err, p, n); }

static enum run_net net_of(const Pb__ExecOp *op)
{
	return op->network == PB__NET_MODE__HOST   ? RUN_NET_HOST
	       : op->network == PB__NET_MODE__NONE ? RUN_NET_NONE
						   : RUN_NET_DEFAULT;
}

static int start_run(struct exec_op *x, struct err *e)
{
	static const struct run_ops ops = {.proxy = run_proxy, .stdout_data = run_stdout, .stderr_data = run_stderr, .exited = run_exited};
	const Pb__ExecOp *op = x->o.llb->op->exec;
	const Pb__Meta *meta = op->meta;
	_cleanup_strvec_ struct strvec env = {0}, args = {0};
	_cleanup_(ops_devices_fini) struct ops_devices devices = {0};
	const char *proxy_ca = x->o.llb->proxy_network ? ops_proxy_ca(x->o.env, e) : NULL;
	if (x->o.llb->proxy_network && !proxy_ca) return -1;
	ops_exec_env(meta, ops_mounts_secret_env(x->mounts), &env);
	if (ops_devices_get(x->o.env->cdi, op->cdidevices, op->n_cdidevices, &env, &devices, e) < 0) return -1;
	strvec_copy(&args, (char *const *)meta->args, meta->n_args);
	struct run_host *hosts = xcalloc(meta->n_extrahosts, sizeof *hosts);
	struct run_ulimit *limits = xcalloc(meta->n_ulimit, sizeof *limits);
	for (size_t i = 0; i < meta->n_extrahosts; i++)
		hosts[i] = (struct run_host){meta->extrahosts[i]->host, meta->extrahosts[i]->ip};
	for (size_t i = 0; i < meta->n_ulimit; i++)
		limits[i] = (struct run_ulimit){meta->ulimit[i]->name, meta->ulimit[i]->soft, meta->ulimit[i]->hard};
	const char *sessions[OPS_SESSIONS_MAX];
	size_t n_sessions = ops_sessions(x->node, x->o.env, sessions, OPS_SESSIONS_MAX);
	struct run_spec spec = RUN_SPEC_INIT;
	spec.dns = ops_settings(x->o.env, sessions, n_sessions).dns;
	spec.rootfs = ops_mounts_rootfs(x->mounts);
	spec.rootfs_readonly = ops_mounts_root_readonly(x->mounts);
	spec.args = args.v;
	spec.env = env.v;
	spec.cwd = meta->cwd;
	spec.user = meta->user;
	spec.hostname = str_empty(meta->hostname) ? NULL : meta->hostname;
	spec.mounts = ops_mounts_list(x->mounts, &spec.n_mounts);
	ops_devices_use(&devices, &spec);
	spec.net = net_of(op);
	spec.proxy_ca = proxy_ca;
	spec.insecure = op->security == PB__SECURITY_MODE__INSECURE;
	spec.remove_stubs_recursive = meta->removemountstubsrecursive;
	spec.trace = true;
	spec.traceparent = x->span.traceparent;
	spec.extra_hosts = hosts;
	spec.n_extra_hosts = meta->n_extrahosts;
	spec.ulimits = limits;
	spec.n_ulimits = meta->n_ulimit;
	spec.cgroup_parent = str_empty(meta->cgroupparent) ? NULL : meta->cgroupparent;
	const Pb__LinuxResources *res = x->o.llb->meta ? x->o.llb->meta->linux_resources : NULL;
	if (res)
		spec.res = (struct run_resources){res->memory,
						  res->memoryswap,
						  res->cpushares,
						  res->cpuquota,
						  res->cpuperiod,
						  str_empty(res->cpusetcpus) ? NULL : res->cpusetcpus,
						  str_empty(res->cpusetmems) ? NULL : res->cpusetmems};
	int r = run_start(x->o.env->run, &spec, &ops, x, &x->run, e);
	free(hosts);
	free(limits);
	return r;
}

static void mounted(void *arg, const struct err *e)
{
	struct exec_op *x = arg;
	if (e) {
		end(x, NULL, e);
		return;
	}
	ops_steplog_init(&x->out, x->node, 1);
	ops_steplog_init(&x->err, x->node, 2);
	if (x->cancelled)
		err_set(&x->error, CODE_CANCELLED, "context canceled");
	else if (start_run(x, &x->error) >= 0)
		return;
	ops_mounts_finish(x->mounts, OPS_DROP, downed, x);
}

static void show(void *arg, const struct prog_status *s) { ops_pull_status(((struct exec_op *)arg)->node, s); }

static void exec(void *op, struct solve_node *n)
{
	struct exec_op *x = op;
	const Pb__ExecOp *pb = x->o.llb->op->exec;
	const char *sessions[OPS_SESSIONS_MAX];
	struct strvec args = {(char **)pb->meta->args, pb->meta->n_args, 0};
	_cleanup_free_ char *joined = strvec_join(&args, " "), *what = xasprintf("exec %s", joined);
	struct snap **inputs = xcalloc(pb->n_mounts, sizeof *inputs);
	for (size_t i = 0; i < pb->n_mounts; i++) {
		int64_t in = pb->mounts[i]->input;
		if (in >= 0 && (size_t)in < solve_input_count(n)) inputs[i] = solve_input(n, (size_t)in);
	}
	x->node = n;
	x->cancelled = false;
	proxy_record_fini(&x->proxied);
	x->has_proxied = false;
	ops_span_node(&x->span, x->o.env, n);
	struct ops_mounts_req req = {
		.span = x->span,
		.env = x->o.env,
		.mounts = pb->mounts,
		.n = pb->n_mounts,
		.inputs = inputs,
		.cwd = pb->meta->cwd,
		.what = what,
		.sessions = sessions,
		.n_sessions = ops_sessions(n, x->o.env, sessions, OPS_SESSIONS_MAX),
		.secret_env = pb->secretenv,
		.n_secret_env = pb->n_secretenv,
		.prune_caches = llb_node_ignore_cache(x->o.llb),
		.status = show,
		.done = mounted,
		.arg = x,
	};
	x->mounts = ops_mounts_start(&req);
	free(inputs);
}

static void cancel(void *op, struct solve_node *n)
{
	struct exec_op *x = op;
	x->cancelled = true;
	ops_content_cancel(n);
	if (x->run)
		run_kill(x->run, SIGKILL);
	else if (x->mounts)
		ops_mounts_cancel(x->mounts);
}

const struct proxy_record *ops_node_proxied(struct solve_node *n)
{
	const struct exec_op *x = solve_node_op(n);
	return x && x->o.llb->op->op_case == PB__OP__OP_EXEC && x->has_proxied ? &x->proxied : NULL;
}

const struct ops_kind ops_exec_kind = {
	.vt = {.kind = "exec",
	       .map = ops_map_by_keys,
	       .content = ops_content,
	       .exec = exec,
	       .cancel = cancel,
	       .free = op_free,
	       .debris = debris,
	       .takes_slot = true},
	.size = sizeof(struct exec_op),
};
