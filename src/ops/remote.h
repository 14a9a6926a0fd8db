#ifndef OPS_REMOTE_H
#define OPS_REMOTE_H
/* What the sources that move share (http, git, blobs): turns, what a build has resolved already, what an earlier build left
 * behind, and asking the client's sessions. Loop thread.
 *
 *  1. Within a build a name means one thing: what was resolved once is told again (struct ops_memo), to all vertices and to
 *     the frontend's questions, although the server says something else by now.
 *  2. One at a time resolves or fetches the same name (a turn), so the second one finds what the first one learned.
 *  3. A record names a snapshot for the next build (with an ETag, say). It goes with its snapshot. */
#include "ops/ops.h"

/* ---- turns: one holder a key ---- */
struct ops_turn {
	struct loop_slot slot;
	struct ops_env *env;
	char *key; /* NULL: not in use */
	void (*granted)(struct ops_turn *t);
};
void ops_turn_want(struct ops_env *env, const char *key, struct ops_turn *t,
		   void (*granted)(struct ops_turn *t)); /* maybe at once */
void ops_turn_end(struct ops_turn *t);                   /* also stops waiting; harmless twice */

/* ---- who asks: a node of the graph, or a frontend by way of its build ---- */
struct ops_asker {
	struct ops_env *env;
	struct solve_node *node; /* or NULL */
	void *build;             /* env->build_memo's user; NULL: none (any more) */
};
struct ops_known *ops_asker_known(const struct ops_asker *a, const char *key); /* borrowed; NULL: not resolved yet */
void ops_asker_learn(const struct ops_asker *a, const char *key, struct ops_known *k);
struct ops_memo *ops_asker_memo(const struct ops_asker *a); /* of the first build; NULL: none */
struct ops_known *ops_known_new(const char *digest, const char *name, const char *extra, struct snap *snap /* referenced */);

/* ---- records of earlier builds: key -> snapshot and a text ---- */
/* The newest: borrowed, and *ret_text (may be NULL) on the heap. NULL: none. */
struct snap *ops_record_find(struct ops_env *env, const char *key, char **ret_text);
void ops_record_put(struct ops_env *env, const char *key, struct snap *s, const char *text); /* replaces; a failure is logged */

/* ---- sessions: ids are tried one after the other ---- */
struct ops_ids {
	char *v[OPS_SESSIONS_MAX];
	size_t n;
};
void ops_ids_add(struct ops_ids *ids, const char *id); /* "" and one that is there already are left out */
void ops_ids_fini(struct ops_ids *ids);
/* The first live session from index `from` on that serves method (NULL: any). done runs once, later, with e when there is
 * none; s borrowed. */
struct ops_pick;
struct ops_pick *ops_pick(struct ops_env *env, const struct ops_ids *ids, size_t from, const char *method,
			  void (*done)(void *arg, struct sess *s, size_t index, const struct err *e), void *arg);
void ops_pick_cancel(struct ops_pick *p); /* done follows */
/* The first of the names that some session has. done once, later: which (-1: none has any; e says why, when it was more than
 * that). */
struct ops_secret;
struct ops_secret *ops_secret(struct ops_env *env, const struct ops_ids *ids, char *const *names, size_t n,
			      void (*done)(void *arg, ssize_t which, const uint8_t *p, size_t len, const struct err *e),
			      void *arg);
void ops_secret_cancel(struct ops_secret *s); /* done follows */

/* ---- log lines of a job ---- */
struct ops_joblog; /* any thread writes; lines of an ended log are dropped */
struct ops_joblog *ops_joblog_new(struct loop *l, struct solve_node *n);
void ops_joblog_write(struct ops_joblog *l, int stream, const void *p, size_t n); /* job */
void ops_joblog_end(struct ops_joblog *l, bool failed);                           /* loop; NULL allowed */
#endif
