/* The program: who it is by argv[0], its command line, the command. */
#include "cli/cli.h"
#include "cli/internal.h"
#include "cli/manual.h"

#include <signal.h>
#include <string.h>

static const struct persona {
	const char *name, *prog;
	enum dialect dialect;
	const struct command *root;
	bool plugin;
} personas[] = {
	{"buildctl", "buildctl", DIALECT_BUILDCTL, &buildctl_root},
	{"docker-buildx", "docker buildx", DIALECT_BUILDX, &buildx_root, true},
	{"slipway", "slipway", DIALECT_BUILDX, &buildx_root},
};

static const struct persona *persona_of(const char *argv0)
{
	for (size_t i = 0; i < array_len(personas); i++)
		if (strcmp(path_base(argv0), personas[i].name) == 0) return &personas[i];
	return &personas[array_len(personas) - 1];
}

static void on_signal(void *arg, int signum)
{
	struct cli *c = arg;
	if (++c->interrupts >= 3 || !c->on_interrupt) _exit(128 + signum);
	if (c->interrupts == 1) c->on_interrupt(c->on_interrupt_arg);
}

static int bad_usage(struct cli *c, const struct args *a, const struct err *e)
{
	if (c->dialect == DIALECT_BUILDCTL) {
		if (e->code == CODE_NOT_FOUND) {
			fprintf(stderr, "%s\n", e->msg);
			return 3;
		}
		fprintf(stderr, "Incorrect Usage: %s\n\nerror: %s\n", e->msg, e->msg);
		return 1;
	}
	_cleanup_buf_ struct buf usage = BUF_INIT;
	args_usage_line(a, c->prog, &usage);
	fprintf(stderr, "ERROR: %s\n\nUsage:  %s\n\nRun '%s", e->msg, buf_str(&usage), c->prog);
	for (size_t i = 1; i < a->depth; i++) fprintf(stderr, " %s", a->path[i]->name);
	fprintf(stderr, " --help' for more information\n");
	return 1;
}

static int print_help(struct cli *c, const struct args *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	args_help(a, c->prog, CLI_VERSION, &b);
	fputs(buf_str(&b), stdout);
	return 0;
}

static int print_version(struct cli *c)
{
	printf("%s %s %s %s\n", c->prog, CLI_PACKAGE, CLI_VERSION, SLIPWAY_REVISION);
	return 0;
}

static int run(struct cli *c, struct args *a)
{
	const struct command *cmd = args_command(a);
	if (a->want_help) return print_help(c, a);
	if (a->want_version) return print_version(c);
	if (!cmd->run) return print_help(c, a);
	c->debug = args_bool(a, "debug");
	c->loop = loop_new();
	loop_on_signal(c->loop, SIGINT, on_signal, c);
	loop_on_signal(c->loop, SIGTERM, on_signal, c);
	int rv = cmd->run(c, a);
	if (c->conn) wire_conn_close(c->conn);
	cli_pump_stop(c);
	loop_free(c->loop);
	return c->exit_code ? c->exit_code : rv;
}

/* As a plugin we are called `docker-buildx [docker's flags] buildx COMMAND ...`: leave that word out. */
static void drop_plugin_name(int *argc, char **argv)
{
	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "buildx") == 0) {
			memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv);
			--*argc;
			return;
		}
		if (argv[i][0] != '-') {
			static const char *const valued[] = {"--config", "--context", "--host",      "--log-level", "-c",
							     "-H",       "-l",        "--tlscacert", "--tlscert",   "--tlskey"};
			bool is_value = false;
			for (size_t k = 0; k < array_len(valued); k++) is_value |= strcmp(argv[i - 1], valued[k]) == 0;
			if (!is_value) return;
		}
	}
}

/* `__complete WORD...`: what the shells' scripts and Docker ask at each tab. -1: it is another command. */
static int completion(const struct persona *p, int argc, char **argv)
{
	bool daemon = argc > 1 && strcmp(argv[1], "__completeDaemon") == 0;
	if (argc < 2 || (!daemon && strcmp(argv[1], "__complete") != 0)) return -1;
	int skip = 2 + (p->plugin && argc > 2 && strcmp(argv[2], "buildx") == 0);
	_cleanup_buf_ struct buf b = BUF_INIT;
	complete_words(daemon ? manual_daemon() : p->root, daemon ? DIALECT_BUILDCTL : p->dialect, argv + skip,
		       (size_t)(argc - skip), &b);
	fputs(buf_str(&b), stdout);
	return fflush(stdout) != 0;
}

int cli_main(int argc, char **argv)
{
	const struct persona *p = persona_of(argc > 0 ? argv[0] : "");
	struct cli c = {.prog = p->prog, .dialect = p->dialect, .plugin = p->plugin};
	struct args a;
	_cleanup_err_ struct err e = ERR_INIT;
	signal(SIGPIPE, SIG_IGN);
	int answered = completion(p, argc, argv);
	if (answered >= 0) return answered;
	if (p->plugin) drop_plugin_name(&argc, argv);
	int rv = args_parse(&a, p->dialect, p->root, argv + 1, argc > 0 ? (size_t)argc - 1 : 0, &e);
	rv = rv < 0 && !a.want_help ? bad_usage(&c, &a, &e) : run(&c, &a);
	args_fini(&a);
	fflush(stdout);
	return rv;
}
