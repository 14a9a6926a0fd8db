#include "build/history_job.h"

/* What a vertex has been, in the pointers of a map from digests. */
enum { SEEN = 1, CACHED = 2, COMPLETED = 4 };

static void see(struct map *steps, const struct prog_vertex *v)
{
	uintptr_t was = (uintptr_t)map_get(steps, v->digest);
	was |= SEEN | (v->cached ? CACHED : 0) | (v->completed.tv_sec ? COMPLETED : 0);
	map_put(steps, v->digest, (void *)was);
}

static void count(struct history_logs *h)
{
	_cleanup_map_ struct map steps = {0};
	for (size_t i = 0; i < h->n_events; i++) {
		if (h->events[i]->type == PROG_VERTEX) see(&steps, &h->events[i]->vertex);
		h->warnings += h->events[i]->type == PROG_WARNING;
	}
	MAP_EACH(&steps, it)
	{
		uintptr_t was = (uintptr_t)it->value;
		h->steps++;
		h->cached += (was & CACHED) != 0;
		h->completed += (was & COMPLETED) != 0;
	}
}

static int write_message(struct history_logs *h, size_t at, size_t n, struct blob_ingest *to, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	static const uint8_t room[4];
	buf_add(&b, room, sizeof room);
	if (h->pack(h->events + at, n, &b) < 0 || b.n > UINT32_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "a message of the build's progress is too long");
	uint32_t len = (uint32_t)(b.n - sizeof room);
	for (size_t i = 0; i < sizeof room; i++) b.p[i] = (uint8_t)(len >> (8 * i));
	return blob_ingest_write(to, b.p, b.n, e);
}

int history_logs_write(struct history_logs *h, struct err *e)
{
	enum { EVENTS_MAX = 512 };
	_cleanup_blob_ingest_ struct blob_ingest *to = NULL;
	count(h);
	if (blob_ingest_begin(h->blobs, NULL, -1, &to, e) < 0) return -1;
	blob_ingest_unsynced(to);
	for (size_t at = 0; at < h->n_events;) {
		size_t n = h->cut(h->events + at, min_of(h->n_events - at, (size_t)EVENTS_MAX));
		if (write_message(h, at, n, to, e) < 0) return -1;
		at += n;
	}
	return blob_ingest_commit(&to, h->digest, &h->bytes, e);
}
