/* The trace context of a build: the client's, when its call carried one, else one made of the build's reference. The ids of
 * spans follow from the reference and the steps' digests, so that log lines, the environment of steps, what goes to a collector
 * and the stored trace name the same spans without anything being kept. Source of the names: moby/buildkit solver/jobs.go. */
#include "build/internal.h"

#include <string.h>

void build_trace_init(struct build *b)
{
	b->trace.sampled = true;
	tele_trace_id(b->ref, b->trace.trace_id);
	tele_span_id(b->ref, "", b->root_span);
}

void build_trace(struct build *b, const char *traceparent) { tele_traceparent_parse(traceparent, &b->trace); }

bool build_span(void *user, const char *digest, const char *name, struct log_span *ret)
{
	const struct build *b = user;
	ret->name = name;
	memcpy(ret->trace_id, b->trace.trace_id, sizeof ret->trace_id);
	if (digest)
		tele_span_id(b->ref, digest, ret->span_id);
	else
		memcpy(ret->span_id, b->root_span, sizeof ret->span_id);
	return b->trace.sampled;
}
