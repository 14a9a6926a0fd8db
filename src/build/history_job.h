#ifndef BUILD_HISTORY_JOB_H
#define BUILD_HISTORY_JOB_H
/* What is left of a build's progress: its log blob and how many steps it had. Job thread; blocks on the disk. */
#include "blob/blob.h"
#include "solve/progress.h"
#include "tele/tele.h"

struct history_logs {
	/* in; the events are immutable and held by the caller */
	struct blob_store *blobs;
	struct prog_event *const *events;
	size_t n_events;
	/* Appends the events as one packed StatusResponse. */
	int (*pack)(struct prog_event *const *v, size_t n, struct buf *out);
	size_t (*cut)(struct prog_event *const *v, size_t n); /* how many events make one message */
	const char *ref;                                      /* of the build, for its trace */
	struct timespec started, ended;                       /* of the build */
	const char *error;                                    /* NULL: success */
	const struct tele_context *trace;                     /* its span_id "": no parent */
	const char *root_span;
	const struct strvec *resource;                        /* NULL: spans are not packed */
	/* out */
	char digest[DIGEST_STR], trace_digest[DIGEST_STR];
	int64_t bytes, trace_bytes;
	struct buf spans; /* ExportTraceServiceRequest */
	size_t n_spans;
	int32_t steps, cached, completed, warnings;
};
/* Blobs are put unsynced, as a client waits for them (history_unsynced). */
/* The blob: uint32 little-endian length and StatusResponse, again and again (reference 01 §7.4). */
int history_logs_write(struct history_logs *h, struct err *e);
/* The trace: a span for the build and one for each step that ran, as OpenTelemetry's SpanStub in JSON, one after the other;
 * what `buildx history trace` reads. */
int history_trace_write(struct history_logs *h, struct err *e);
void history_trace_json(const struct history_logs *h, struct buf *out);
#endif
