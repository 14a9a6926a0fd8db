/* Wiring of telemetry: gauges are asked for when somebody looks, counters are where things happen. */
#include "daemon/observe.h"
#include "daemon/daemon.h"
#include "daemon/memory.h"

#include <stdio.h>
#include <string.h>

enum { LAST_SPANS_MS = 3000 };

struct observe {
	struct tele_exporter *traces;
	struct tele_http *http;
	struct wire_listener *socket; /* for steps */
};

static const char *env(const char *name) { return getenv(name); }

int observe_open(struct daemon *d, struct err *e)
{
	struct tele_otlp otlp;
	if (tele_otlp_from_env(env, "slipwayd", SLIPWAY_REVISION, &otlp, e) < 0) return -1;
	d->observe = xnew(struct observe);
	if (otlp.enabled) log_info("traces go to %s", otlp.url);
	d->observe->traces = tele_exporter_new(d->loop, &otlp);
	d->traces = d->observe->traces;
	tele_gauge(TELE_BUILD_INFO, 1, SLIPWAY_VERSION, SLIPWAY_REVISION, CONF_BUILDKIT_VERSION);
	return 0;
}

/* ---- the debug address ---- */

static void set_gauges(void *arg)
{
	struct daemon *d = arg;
	size_t running, waiting, connections = 0;
	for (const struct list *i = d->connections.next; i != &d->connections; i = i->next) connections++;
	solver_load(d->solver, &running, &waiting);
	tele_gauge(TELE_BUILDS_RUNNING, engine_running(d->engine));
	tele_gauge(TELE_EXEC_RUNNING, running);
	tele_gauge(TELE_EXEC_WAITING, waiting);
	tele_gauge(TELE_EXEC_LIMIT, max_of(d->conf->oci.max_parallelism, (int64_t)0));
	tele_gauge(TELE_CONNECTIONS, connections);
}

static void show_builds(void *arg, struct buf *out)
{
	struct daemon *d = arg;
	engine_describe(d->engine, out);
}

static void give_back(void *arg, struct buf *out)
{
	memory_give_back();
	buf_adds(out, "ok\n");
}

static const struct tele_page pages[] = {
	{"/debug/requests", "text/plain; charset=utf-8", "the builds that run, and their steps", show_builds},
	{"/debug/gc", "text/plain; charset=utf-8", "gives memory back that is not needed", give_back},
	{0},
};

/* ---- the socket of steps ---- */

static void open_socket(struct daemon *d)
{
	struct err e = ERR_INIT;
	const char *path = d->conf->otel.socket_path;
	if (str_empty(path)) return;
	_cleanup_free_ char *dir = path_dir(path), *addr = xasprintf("unix://%s", path);
	struct wire_listen_opts o = {.handler = serve_traces(d->serve), .mode = 0666, .uid = (uid_t)-1, .gid = (gid_t)-1};
	if (path_mkdirs(dir, 0711, &e) < 0 || wire_listen(d->loop, addr, &o, &d->observe->socket, &e) < 0)
		log_warn("steps cannot send traces: otel.socketPath: %s", e.msg);
	err_fini(&e);
}

int observe_listen(struct daemon *d, struct err *e)
{
	const char *addr = d->conf->grpc.debug_address;
	const struct tele_http_conf conf = {.before = set_gauges, .pages = pages, .arg = d};
	open_socket(d);
	if (str_empty(addr)) return 0;
	if (tele_http_open(d->loop, addr, &conf, &d->observe->http, e) < 0) return err_wrap(e, "debug address %s", addr);
	log_debug("debug handlers listening at %s", tele_http_addr(d->observe->http));
	return 0;
}

void observe_close(struct daemon *d)
{
	if (!d->observe) return;
	tele_http_close(d->observe->http);
	wire_listener_close(d->observe->socket);
	tele_exporter_close(d->observe->traces, LAST_SPANS_MS);
	free(take_ptr(d->observe));
}
