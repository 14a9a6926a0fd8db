#ifndef PROXY_PROXY_RECORD_H
#define PROXY_PROXY_RECORD_H
#include "base/base.h"

enum { PROXY_RECORDS = 16384 };

/* ---- what is written down; URLs are without credentials and default ports ---- */
struct proxy_request {
	char *method, *url, *redirect; /* redirect NULL: none */
	int status;
};
struct proxy_material { /* a GET that came whole */
	char *url, *digest;
};
struct proxy_gap { /* what came cannot be vouched for */
	char *method, *url;
	const char *reason;
};
struct proxy_record {
	VEC(struct proxy_request) requests;
	VEC(struct proxy_material) materials;
	VEC(struct proxy_gap) gaps;
};
void proxy_record_fini(struct proxy_record *r);
#endif
