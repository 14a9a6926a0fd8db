/* EXPOSE: ports in docker run's notation, of which only the container's side counts.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/convert_expose.go. */
#include "front/stage.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

struct port {
	const char *raw, *ip, *host, *container, *proto;
	int start, end;
};

static void split(struct arena *a, struct port *p)
{
	const char *last = strrchr(p->raw, ':');
	p->ip = p->host = "";
	p->container = p->raw;
	if (!last) return;
	p->container = last + 1;
	const char *head = arena_strndup(a, p->raw, (size_t)(last - p->raw));
	last = strrchr(head, ':');
	p->host = last ? last + 1 : head;
	if (last) p->ip = arena_strndup(a, head, (size_t)(last - head));
}

static int split_proto(struct arena *a, struct port *p, struct err *e)
{
	const char *slash = strchr(p->container, '/');
	p->proto = slash ? slash + 1 : "";
	if (slash) p->container = arena_strndup(a, p->container, (size_t)(slash - p->container));
	if (!*p->container) return err_set(e, CODE_UNKNOWN, "no port specified");
	if (!*p->proto) p->proto = "tcp";
	if (strcasecmp(p->proto, "tcp") == 0 || strcasecmp(p->proto, "udp") == 0 || strcasecmp(p->proto, "sctp") == 0) return 0;
	return err_set(e, CODE_UNKNOWN, "invalid proto: %s", p->proto);
}

static bool number(const char *s, int *ret)
{
	int64_t v;
	if (!*s || go_int(s, 10, 64, &v, NULL) < 0 || v < 0 || v > 65535) return false;
	*ret = (int)v;
	return true;
}

static bool range(struct arena *a, const char *s, int *start, int *end)
{
	const char *dash = strchr(s, '-');
	if (!number(dash ? arena_strndup(a, s, (size_t)(dash - s)) : s, start)) return false;
	*end = *start;
	return !dash || (number(dash + 1, end) && *end >= *start);
}

static int check_ip(struct arena *a, const char *ip, struct err *e)
{
	unsigned char b[16];
	size_t n = strlen(ip);
	if (!n) return 0;
	if (*ip == '[') {
		if (n < 2 || ip[n - 1] != ']')
			return err_set(e, CODE_UNKNOWN, "invalid IP address %s: address %s:: missing ']' in address", ip, ip);
		ip = arena_strndup(a, ip + 1, n - 2);
	}
	if (!*ip || inet_pton(AF_INET, ip, b) == 1 || inet_pton(AF_INET6, ip, b) == 1) return 0;
	return err_set(e, CODE_UNKNOWN, "invalid IP address: %s", ip);
}

static int parse_port(struct arena *a, struct port *p, const struct instr *in, const struct lint *lint, struct err *e)
{
	int hs, he;
	split(a, p);
	if (split_proto(a, p, e) < 0) {
		_cleanup_free_ char *q = go_quote(p->raw, strlen(p->raw));
		return err_wrap(e, "invalid port: %s", q);
	}
	bool upper = false;
	for (const char *c = p->proto; *c; c++) upper |= *c >= 'A' && *c <= 'Z';
	if (upper) lint_run(lint, LINT_EXPOSE_PROTO_CASING, in->at, p->raw);
	if (*p->ip || *p->host) lint_run(lint, LINT_EXPOSE_INVALID_FORMAT, in->at, p->raw);
	if (check_ip(a, p->ip, e) < 0) return -1;
	if (!range(a, p->container, &p->start, &p->end))
		return err_set(e, CODE_UNKNOWN, "invalid containerPort: %s", p->container);
	if (!*p->host) return 0;
	if (!range(a, p->host, &hs, &he)) return err_set(e, CODE_UNKNOWN, "invalid hostPort: %s", p->host);
	if (p->end - p->start != he - hs && p->end != p->start)
		return err_set(e, CODE_UNKNOWN, "invalid ranges specified for container and host Ports: %s and %s",
			       p->container, p->host);
	return 0;
}

static void put_port(struct arena *a, const struct port *p, struct strs *out)
{
	char proto[8] = "";
	for (size_t i = 0; p->proto[i] && i < sizeof proto - 1; i++) proto[i] = (char)(p->proto[i] | 0x20);
	for (int n = p->start; n <= p->end; n++) LLB_PUSH(a, out->n, out->v, arena_printf(a, "%d/%s", n, proto));
}

static int by_text(const void *x, const void *y) { return strcmp(*(const char *const *)x, *(const char *const *)y); }

/* A set of up to 65536 ports a protocol: sorted and made unique at once. */
static void add_ports(struct arena *a, struct image *img, const struct strs *ports)
{
	struct strs all = strs_clone(a, &img->ports), out = {0};
	for (size_t i = 0; i < ports->n; i++) LLB_PUSH(a, all.n, all.v, ports->v[i]);
	if (all.n > 1) qsort(all.v, all.n, sizeof *all.v, by_text);
	for (size_t i = 0; i < all.n; i++)
		if (!i || strcmp(all.v[i], all.v[i - 1]) != 0) LLB_PUSH(a, out.n, out.v, all.v[i]);
	img->ports = out;
}

int dispatch_expose(struct conv *c, struct stage *d, const struct instr *in, const struct lint *lint, struct err *e)
{
	const struct shell_env env = env_shell(d->state.env);
	struct strs words = {0}, ports = {0};
	for (size_t i = 0; i < in->words.n; i++) {
		struct ast_strs w;
		if (shell_words(c->a, &c->shell, &env, in->words.v[i], &w, e) < 0) return -1;
		for (size_t k = 0; k < w.n; k++) strs_add(c->a, &words, w.v[k]);
	}
	for (size_t i = 0; i < words.n; i++) {
		struct port p = {.raw = words.v[i]};
		if (parse_port(c->a, &p, in, lint, e) < 0) return -1;
		put_port(c->a, &p, &ports);
	}
	add_ports(c->a, &d->image, &ports);
	stage_commit(c, d, arena_printf(c->a, "EXPOSE %s", go_list(c->a, ports.v, ports.n)), false);
	return 0;
}
