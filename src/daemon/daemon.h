#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H
/* The daemon's parts and their order of life. */
#include "conf/conf.h"
#include "run/platforms.h"
#include "serve/serve.h"

struct observe;
struct daemon {
	struct conf *conf; /* the one that holds now: a reload swaps it, so nobody keeps pointers into it */
	struct loop *loop;
	char *dir; /* <root>/slipway */
	int lock_fd;
	struct db *db;
	struct blob_store *blobs;
	struct snap_store *snaps;
	struct solver *solver;
	struct run_engine *run;
	struct sess_manager *sessions;
	struct reg_pools pools;
	struct ops_env env;
	struct engine *engine;
	struct serve *serve;
	VEC(struct wire_listener *) listeners;
	struct strvec labels;
	VEC(struct run_platforms) platforms; /* the last is what is offered; older ones may still be in use */
	int64_t platforms_at_ns;             /* when they were looked for */
	char *worker_id;
	struct observe *observe;
	struct tele_exporter *traces; /* observe's */
	bool stopping;
	struct loop_timer trim;
	struct loop_timer idle;
	struct list connections; /* struct connection */
	struct loop_timer drain;
	int64_t busy_ns; /* when it was last seen busy; for --idle-exit */
};
/* Takes conf. Opens everything below conf->root; blocks. */
int daemon_open(struct daemon *d, struct conf *conf, struct err *e);
int daemon_listen(struct daemon *d, struct err *e);
/* No build runs any more: let every client read its last answer, then end the loop; after 3 s in any case. */
void daemon_drain(struct daemon *d);
void daemon_close(struct daemon *d); /* harmless on what is half open */
void daemon_platforms_init(struct daemon *d);
void daemon_platforms_look(void *d); /* tell the engine when they changed */
/* "READY=1", "STOPPING=1", "RELOADING=1\nMONOTONIC_USEC=...": one datagram to the socket that NOTIFY_SOCKET names ('@' first: an
 * abstract one); nothing without it, and a failure is a debug line. Does not block. Source: sd_notify(3). */
void daemon_notify(const char *state);
struct reg_config *daemon_registries(const struct conf *c);
#endif
