/* The span that work is done for, as a value: registry jobs name it in their debug lines, steps get it in their environment. */
#include "ops/ops.h"

#include <stdio.h>
#include <string.h>

void ops_span_build(struct ops_span *s, struct ops_env *env, void *build, const char *digest, const char *name)
{
	*s = (struct ops_span){0};
	if (!env->build_span) return;
	bool sampled = env->build_span(build, digest, name, &s->log);
	ops_span_rename(s, name);
	tele_traceparent(s->log.trace_id, s->log.span_id, sampled, s->traceparent);
}

struct first {
	struct ops_span *span;
	struct ops_env *env;
	struct solve_node *node;
};

static bool take(void *arg, struct solve_build *b)
{
	struct first *f = arg;
	ops_span_build(f->span, f->env, solve_build_user(b), solve_node_digest(f->node), solve_node_name(f->node));
	return true;
}

void ops_span_node(struct ops_span *s, struct ops_env *env, struct solve_node *n)
{
	struct first f = {s, env, n};
	*s = (struct ops_span){0};
	solve_node_each_build(n, take, &f);
}

/* Names of steps are text of users, and URLs in them may hold credentials: for the log, the user before a host and the values
 * of a query become xxxxx. */
static void add_hidden(struct buf *out, const char *name)
{
	for (const char *url; (url = strstr(name, "://"));) {
		const char *host = url + 3;
		size_t n = strcspn(host, " \t\r\n\"'<>|"), authority = min_of(strcspn(host, "/?#"), n);
		const char *at = memrchr(host, '@', authority), *query = memchr(host, '?', n);
		buf_add(out, name, (size_t)(host - name));
		if (at) buf_adds(out, "xxxxx@");
		const char *from = at ? at + 1 : host;
		buf_add(out, from, (size_t)((query ? query : host + n) - from));
		if (query) buf_adds(out, "?xxxxx");
		name = host + n;
	}
	buf_adds(out, name);
}

/* Cut between characters, so that the name stays UTF-8. */
void ops_span_rename(struct ops_span *s, const char *name)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	if (name) add_hidden(&text, name);
	name = buf_str(&text);
	size_t n = min_of(strlen(name), sizeof s->name - 1);
	while (n && name[n] && ((unsigned char)name[n] & 0xc0) == 0x80) n--;
	memcpy(s->name, name, n);
	s->name[n] = 0;
}

const struct log_span *ops_span_log(struct ops_span *s)
{
	s->log.name = s->name;
	return *s->log.trace_id ? &s->log : NULL;
}
