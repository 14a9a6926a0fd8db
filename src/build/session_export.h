#ifndef BUILD_SESSION_EXPORT_H
#define BUILD_SESSION_EXPORT_H
/* Private to the room: exporters that the client's session adds when the result is known, and what it is told at the end.
 * Loop thread. Source: moby/buildkit solver/llbsolver/export.go, session/exporter. */
#include "build/internal.h"

struct session_export;
/* Ask the session which exporters it wants; they are appended to the request's. done comes once, later; a session that serves
 * no such thing is no error. */
struct session_export *session_export_find(struct build *b, void (*done)(void *arg, const struct err *e), void *arg);
/* Tell it what the exporters answered ("k=v"). */
struct session_export *session_export_end(struct build *b, const struct strvec *response,
					  void (*done)(void *arg, const struct err *e), void *arg);
void session_export_cancel(struct session_export *x); /* done does not come any more */
#endif
