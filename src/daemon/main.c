/* slipwayd, also called buildkitd: command line, configuration, signals. */
#include "daemon/check_config.h"
#include "daemon/daemon.h"
#include "daemon/reload.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static void all_ended(void *arg)
{
	struct daemon *d = arg;
	if (!d->stopping) return;
	history_release(d->engine); /* who listens to history is told that it ends */
	daemon_drain(d);
}

/* First signal: take no more calls, let builds end. Second: go. */
static void on_stop(void *arg, int signum)
{
	struct daemon *d = arg;
	if (d->stopping) {
		loop_stop(d->loop);
		return;
	}
	d->stopping = true;
	log_info("stopping server");
	daemon_notify("STOPPING=1");
	for (size_t i = 0; i < d->listeners.n; i++) wire_listener_close(d->listeners.v[i]);
	vec_fini(&d->listeners);
	engine_on_idle(d->engine, all_ended, d);
	if (!engine_running(d->engine)) all_ended(d);
}

/* The warnings come when the level and the form of the log are known; the error is printed by main. */
static int load_conf(const struct conf_args *args, struct conf **ret, struct err *e)
{
	_cleanup_conf_report_ struct conf_report report = {0};
	if (conf_read(args, ret, &report, e) < 0) return -1;
	daemon_log_setup(*ret);
	for (size_t i = 0; i < report.v.n; i++) log_warn("%s", report.v.v[i].text);
	return 0;
}

static int serve_until_stopped(struct conf *conf, const struct conf_args *args, struct err *e)
{
	struct daemon d = {.lock_fd = -1};
	int r = -1;
	if (daemon_open(&d, conf, e) >= 0) {
		loop_on_signal(d.loop, SIGTERM, on_stop, &d); /* before READY=1 is told */
		loop_on_signal(d.loop, SIGINT, on_stop, &d);
		reload_start(&d, args);
		r = daemon_listen(&d, e);
		if (r >= 0) loop_run(d.loop);
	}
	daemon_close(&d);
	return r;
}

static void raise_file_limit(void)
{
	struct rlimit lim;
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct conf_args args = {0};
	_cleanup_buf_ struct buf text = BUF_INIT;
	const char *program = path_base(argv[0]);
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	if (argc > 1 && strcmp(argv[1], "check-config") == 0) return check_config(argc - 1, argv + 1);
	int r = conf_args_parse(argc, argv, &args, &e);
	if (r >= 0 && (args.help || args.version)) {
		if (args.help)
			conf_help(program, &text);
		else
			conf_version("buildkitd", SLIPWAY_REVISION, &text);
		fputs(buf_str(&text), stdout);
		conf_args_fini(&args);
		return 0;
	}
	struct conf *conf = NULL;
	if (r >= 0) r = load_conf(&args, &conf, &e);
	if (r >= 0) r = serve_until_stopped(conf, &args, &e);
	conf_args_fini(&args);
	if (r < 0) fprintf(stderr, "%s: %s\n", program, e.msg);
	err_fini(&e);
	_exit(r < 0); /* jobs may still run: exit handlers would take libraries away under them */
}
