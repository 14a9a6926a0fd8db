#ifndef TELE_EXPORT_JOB_H
#define TELE_EXPORT_JOB_H
/* One request to the collector. Worker thread; blocks for at most the timeout. */
#include "base/base.h"
#include <stdatomic.h>

struct tele_send {
	/* in, borrowed */
	bool grpc;
	const char *url, *unix_path, *ca, *cert, *key;
	const struct strvec *headers;
	const void *body; /* ExportTraceServiceRequest */
	size_t n;
	int64_t timeout_ms;
	void *curl; /* kept for the next one, so that its connection is; NULL at first */
	/* out */
	bool again; /* it failed in a way that may pass */
	struct err error;
};
void tele_send(struct tele_send *s);
void tele_send_fini(struct tele_send *s);
#endif
