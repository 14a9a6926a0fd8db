#include "solve/progress.h"

#include <stdio.h>

static struct prog_event *event_new(enum prog_type type)
{
	struct prog_event *ev = xnew(struct prog_event);
	ev->type = type;
	ev->refs = 1;
	return ev;
}

struct prog_event *prog_vertex_new(const struct prog_vertex *v)
{
	struct prog_event *ev = event_new(PROG_VERTEX);
	ev->vertex = *v;
	ev->vertex.name = xstrdup(v->name);
	ev->vertex.error = xstrdup(v->error);
	ev->vertex.group_id = xstrdup(v->group_id);
	ev->vertex.group_name = xstrdup(v->group_name);
	ev->vertex.inputs = (struct strvec){0};
	strvec_copy(&ev->vertex.inputs, v->inputs.v, v->inputs.n);
	return ev;
}

struct prog_event *prog_status_new(const struct prog_status *s)
{
	struct prog_event *ev = event_new(PROG_STATUS);
	ev->status = *s;
	ev->status.id = xstrdup(s->id);
	ev->status.name = xstrdup(s->name);
	return ev;
}

struct prog_event *prog_log_new(const char *vertex, int stream, const void *p, size_t n)
{
	struct prog_event *ev = event_new(PROG_LOG);
	snprintf(ev->log.vertex, DIGEST_STR, "%s", vertex);
	ev->log.stream = stream;
	ev->log.timestamp = time_now();
	ev->log.data = xmemdup(p, n);
	ev->log.len = n;
	return ev;
}

struct prog_event *prog_warning_new(const struct prog_warning *w)
{
	struct prog_event *ev = event_new(PROG_WARNING);
	ev->warning = *w;
	ev->warning.short_ = xstrdup(w->short_);
	ev->warning.url = xstrdup(w->url);
	ev->warning.detail = (struct strvec){0};
	strvec_copy(&ev->warning.detail, w->detail.v, w->detail.n);
	ev->warning.source_info = w->source_info ? xmemdup(w->source_info, w->source_info_len) : NULL;
	ev->warning.ranges = xmemdup(w->ranges, w->n_ranges * sizeof *w->ranges);
	return ev;
}

struct prog_event *prog_ref(struct prog_event *ev)
{
	ev->refs++;
	return ev;
}

void prog_unref(struct prog_event *ev)
{
	if (!ev || --ev->refs) return;
	switch (ev->type) {
	case PROG_VERTEX:
		free(ev->vertex.name);
		free((char *)ev->vertex.error);
		free(ev->vertex.group_id);
		free(ev->vertex.group_name);
		strvec_fini(&ev->vertex.inputs);
		break;
	case PROG_STATUS:
		free((char *)ev->status.id);
		free((char *)ev->status.name);
		break;
	case PROG_LOG: free(ev->log.data); break;
	case PROG_WARNING:
		free(ev->warning.short_);
		free(ev->warning.url);
		free(ev->warning.source_info);
		free(ev->warning.ranges);
		strvec_fini(&ev->warning.detail);
		break;
	}
	free(ev);
}
