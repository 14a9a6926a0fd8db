#ifndef PROXY_RECORD_H
#define PROXY_RECORD_H
/* Writing down. Private to the room. Any thread. */
#include "base/base.h"
#include "proxy/proxy_record.h"

char *proxy_url(const char *url); /* as policies are asked and as it is written down; heap */
void proxy_note_request(struct proxy_record *r, const char *method, const char *url, int status, const char *redirect);
void proxy_note_material(struct proxy_record *r, const char *url, const struct digest *d);
void proxy_note_gap(struct proxy_record *r, const char *method, const char *url, const char *reason);
void proxy_record_move(struct proxy_record *to, struct proxy_record *from); /* append */
void proxy_record_redirects(struct proxy_record *r);                        /* what leads to a material is one */
#endif
