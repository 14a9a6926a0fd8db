/* NewContainer and ReleaseContainer.
 *
 * Life: references evaluated -> mounts made -> in bridge->containers, processes come and go -> releasing: processes are
 * killed, and when the last one is gone the mounts go down and what was written is dropped.
 *  1. A container outlives its bridge: then nobody is told how it ended.
 *  2. It takes no slot of max-parallelism: the frontend that waits for it may hold up what holds the slots.
 *  3. Whoever ends a call takes it from its container first, so that the call's stop() only runs when the bridge goes.
 * Source of texts and rules: moby/buildkit frontend/gateway/{gateway,container/container}.go. */
#include "build/container.h"

#include <arpa/inet.h>
#include <string.h>

struct container_call {
	struct bridge_call c;
	struct container *container; /* NULL once it has been answered */
	size_t at;                   /* the mount whose reference is being evaluated */
};

static void container_free(struct container *c)
{
	for (size_t i = 0; c->inputs && i < c->req->n_mounts; i++) snap_unref(c->inputs[i]);
	for (size_t i = 0; i < c->n_sessions; i++) free(c->sessions[i]);
	free(c->inputs);
	ops_mounts_free(c->mounts);
	arena_free(c->arena);
	err_fini(&c->error);
	free(c->id);
	free(c);
}

struct container *container_find(const struct bridge *b, const char *id) { return map_get(&b->containers, id); }

static void answer(struct container *c, const ProtobufCMessage *m, const struct err *e)
{
	struct container_call *call = take_ptr(c->call);
	if (!call) return;
	call->container = NULL;
	bridge_call_end(&call->c, e ? NULL : m, e);
}

static void call_new(struct container *c, struct bridge *b, struct build_reply r, void (*stop)(struct bridge_call *))
{
	c->call = (struct container_call *)bridge_call_new(b, r, sizeof *c->call);
	c->call->container = c;
	c->call->c.stop = stop;
}

/* ---- release ---- */

static void unmounted(void *arg, struct snap **outputs, size_t n, const struct err *e)
{
	struct container *c = arg;
	Gateway__ReleaseContainerResponse m = GATEWAY__RELEASE_CONTAINER_RESPONSE__INIT;
	answer(c, &m.base, err_is_set(&c->error) ? &c->error : e);
	container_free(c);
}

void container_process_gone(struct container *c)
{
	if (!c->releasing || c->finishing || !list_empty(&c->processes)) return;
	c->finishing = true;
	ops_mounts_finish(c->mounts, OPS_DROP, unmounted, c);
}

static void release(struct container *c)
{
	c->bridge = NULL;
	c->releasing = true;
	LIST_EACH(&c->processes, struct process, p, link) process_cancel(p);
	container_process_gone(c);
}

void containers_discard(struct bridge *b)
{
	MAP_EACH(&b->containers, it) release(it->value);
	map_fini(&b->containers);
}

static void release_stopped(struct bridge_call *call)
{
	struct container *c = ((struct container_call *)call)->container;
	if (c) c->call = NULL;
}

void bridge_release_container(struct bridge *b, const Gateway__ReleaseContainerRequest *req, struct build_reply r)
{
	struct container *c = map_del(&b->containers, req->containerid);
	if (!c) {
		bridge_refuse(r, CODE_UNKNOWN, "container details for %s not found", req->containerid);
		return;
	}
	call_new(c, b, r, release_stopped);
	release(c);
}

/* ---- mounts ---- */

static void mounted(void *arg, const struct err *e)
{
	struct container *c = arg;
	if (e) {
		answer(c, NULL, e);
		container_free(c);
		return;
	}
	if (!c->call) { /* the frontend has gone meanwhile */
		release(c);
		return;
	}
	if (map_has(&c->bridge->containers, c->id)) {
		struct err twice = ERR_INIT;
		err_set(&twice, CODE_ALREADY_EXISTS, "Container %s already exists", c->id);
		answer(c, NULL, &twice);
		err_fini(&twice);
		release(c);
		return;
	}
	map_put(&c->bridge->containers, c->id, c);
	Gateway__NewContainerResponse m = GATEWAY__NEW_CONTAINER_RESPONSE__INIT;
	answer(c, &m.base, NULL);
}

static void start_mounts(struct container *c)
{
	struct ops_mounts_req req = {
		.env = c->env,
		.mounts = c->req->mounts,
		.n = c->req->n_mounts,
		.inputs = c->inputs,
		.cwd = "/",
		.what = arena_printf(c->arena, "container %s", c->id),
		.sessions = (const char *const *)c->sessions,
		.n_sessions = c->n_sessions,
		.done = mounted,
		.arg = c,
	};
	c->mounts = ops_mounts_start(&req);
}

/* ---- references, one after the other ---- */

static void next_input(struct container_call *call);

static void have_input(struct container_call *call, struct snap *s)
{
	call->container->inputs[call->at++] = s ? snap_ref(s) : NULL;
	ref_drop(take_ptr(call->c.ref));
	next_input(call);
}

static void evaluated(void *arg, struct snap *result, const struct err *e)
{
	struct container_call *call = arg;
	struct container *c = call->container;
	if (!e) {
		have_input(call, result);
		return;
	}
	answer(c, NULL, e);
	container_free(c);
}

static void next_input(struct container_call *call)
{
	struct container *c = call->container;
	if (call->at == c->req->n_mounts) {
		start_mounts(c);
		return;
	}
	const Pb__Mount *m = c->req->mounts[call->at];
	struct ref *ref = map_get(&c->bridge->refs, m->resultid);
	if (map_has(&c->bridge->results, m->resultid)) {
		have_input(call, map_get(&c->bridge->results, m->resultid));
	} else if (!*m->resultid) {
		have_input(call, NULL);
	} else if (ref) {
		call->c.ref = ref_hold(ref);
		ref_eval(ref, evaluated, call);
	} else {
		struct err e = ERR_INIT;
		err_set(&e, CODE_UNKNOWN, "failed to find ref %s for \"%s\" mount: return reference %s not found", m->resultid,
			m->dest, m->resultid);
		answer(c, NULL, &e);
		err_fini(&e);
		container_free(c);
	}
}

static void new_stopped(struct bridge_call *call)
{
	struct container *c = ((struct container_call *)call)->container;
	if (!c) return;
	c->call = NULL;
	c->bridge = NULL;
	if (c->mounts)
		ops_mounts_cancel(c->mounts); /* mounted() follows */
	else
		container_free(c);
}

/* ---- the request ---- */

/* Only what a gateway container knows of a mount counts. What it writes is a copy that goes with it. */
static int check_mount(struct container *c, Pb__Mount *m, struct err *e)
{
	m->output = 0;
	m->tmpfsopt = NULL;
	m->contentcache = PB__MOUNT_CONTENT_CACHE__DEFAULT;
	if (*m->dest != '/') {
		_cleanup_free_ char *abs = path_abs_in(m->dest);
		m->dest = arena_strdup(c->arena, abs);
	}
	const ProtobufCEnumValue *type = protobuf_c_enum_descriptor_get_value(&pb__mount_type__descriptor, (int)m->mounttype);
	if (!type) return err_set(e, CODE_UNKNOWN, "mount type %d not implemented", (int)m->mounttype);
	if (!strcmp(m->dest, LLB_ROOT_MOUNT) && m->mounttype != PB__MOUNT_TYPE__BIND)
		return err_set(e, CODE_UNKNOWN, "invalid mount type %s for %s", type->name, m->dest);
	return 0;
}

static int check(struct container *c, struct err *e)
{
	for (size_t i = 0; i < c->req->n_mounts; i++)
		if (check_mount(c, c->req->mounts[i], e) < 0) return -1;
	for (size_t i = 0; i < c->req->n_extrahosts; i++) {
		const char *ip = c->req->extrahosts[i]->ip;
		unsigned char bin[sizeof(struct in6_addr)];
		if (inet_pton(AF_INET, ip, bin) != 1 && inet_pton(AF_INET6, ip, bin) != 1)
			return err_set(e, CODE_UNKNOWN, "failed to parse IP %s", ip);
	}
	return 0;
}

static struct container *container_new(struct bridge *b, const Gateway__NewContainerRequest *req, struct err *e)
{
	struct build *build = b->build;
	struct container *c = xnew(struct container);
	_cleanup_buf_ struct buf bytes = BUF_INIT;
	const char *sessions[OPS_SESSIONS_MAX];
	wire_pack(&req->base, &bytes);
	c->arena = arena_new(0);
	c->req = wire_unpack_as(Gateway__NewContainerRequest, gateway__new_container_request,
				arena_memdup(c->arena, bytes.p, bytes.n), bytes.n, c->arena, e);
	ensure(c->req);
	c->id = xstrdup(req->containerid);
	c->bridge = b;
	c->env = build->engine->conf.env;
	c->inputs = xcalloc(c->req->n_mounts, sizeof *c->inputs);
	c->n_sessions = build_sessions(build, sessions, OPS_SESSIONS_MAX);
	for (size_t i = 0; i < c->n_sessions; i++) c->sessions[i] = xstrdup(sessions[i]);
	for (size_t i = 0; i < build->pb->n_entitlements; i++) {
		c->allow_host |= !strcmp(build->pb->entitlements[i], "network.host");
		c->allow_insecure |= !strcmp(build->pb->entitlements[i], "security.insecure");
	}
	list_init(&c->processes);
	return c;
}

void bridge_new_container(struct bridge *b, const Gateway__NewContainerRequest *req, struct build_reply r)
{
	struct err e = ERR_INIT;
	struct container *c = container_new(b, req, &e);
	call_new(c, b, r, new_stopped);
	if (check(c, &e) >= 0) {
		next_input(c->call);
		return;
	}
	answer(c, NULL, &e);
	err_fini(&e);
	container_free(c);
}
