#ifndef BUILD_SOURCE_POLICY_H
#define BUILD_SOURCE_POLICY_H
/* Private to the room: a source held against what the request says of sources: its own rules, those that a frontend sent with
 * its request, and the verdict of a session (SourcePolicySession). Loop thread. */
#include "build/internal.h"

/* Rules that a frontend sent, copied. */
struct source_rules {
	struct arena *arena; /* NULL: none */
	VEC(const Policy__Policy *) all;
};
int source_rules_copy(struct source_rules *r, Policy__Policy *const *v, size_t n, struct err *e); /* checked too */
void source_rules_fini(struct source_rules *r);
bool source_policy_wanted(const struct build *b, const struct source_rules *extra); /* is there anything to hold sources against? */

struct source_ask;
/* src and what it points at live in `arena`, and platform with it, until done; src is changed in place. extra NULL: none. done
 * comes once: before this returns (then NULL is returned), or later. ask_session: false for what the session itself asked for.
 */
struct source_ask *source_ask_start(struct build *b, const struct source_rules *extra, Pb__SourceOp *src,
				    const Pb__Platform *platform, struct arena *arena, bool ask_session,
				    void (*done)(void *arg, bool changed, const struct err *e), void *arg);
void source_ask_cancel(struct source_ask *p); /* done does not come any more */
#endif
