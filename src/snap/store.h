#ifndef SNAP_STORE_H
#define SNAP_STORE_H
/* Of the snap room's loop side only. */
#include "db/db.h"
#include "loop/loop.h"
#include "snap/internal.h"

struct snap_store {
	struct loop *loop;
	struct db *db;
	char *base, *boot_id;
	struct snap_caps caps;
	VEC(struct snap *) all; /* ascending ids */
	struct map by_uid, by_key, by_chain, by_shape;
	struct map blobs; /* digest -> count, as a pointer */
	int64_t next_id;
	void (*on_remove)(void *arg, struct snap *sn);
	void *on_remove_arg;
	/* durability */
	struct list pending, syncing;
	struct loop_timer timer;
	struct loop_job sync_job;
	int64_t durable_ms, pending_since_ns;
	bool sync_running, sync_failed;
	/* deletion: one job at a time */
	struct loop_job empty_job;
	bool empty_running, empty_again;
	struct loop_timer later;
	int64_t later_since_ns; /* 0: not asked for */
	bool (*busy)(void *arg);
	void *busy_arg;
	size_t jobs;
};

/* store.c */
struct snap *snap_store_add(struct snap_store *s, int64_t id, enum snap_kind kind); /* id 0: the next */
void snap_store_drop(struct snap *sn); /* out of all tables and freed; its directory is left */
void snap_store_trash(struct snap_store *s, int64_t id);
void snap_store_pend(struct snap *sn); /* to be marked as durable, if it is of the kind that is */
const char *snap_type_intern(const char *type);
int64_t snap_now_ns(void);
/* snap.c */
void snap_make_chain(struct snap *sn);   /* from kind and parents */
char *snap_shape(const struct snap *sn); /* heap; NULL for kinds that are not shared by shape */
void snap_shape_add(struct snap *sn);
void snap_shape_del(struct snap *sn);
/* rows.c */
int snap_row_put(struct snap *sn, struct err *e);
int snap_row_delete(struct snap *sn, struct err *e);
void snap_row_set_boot(struct snap *sn, bool durable);
int snap_rows_load(struct snap_store *s, struct map *dirs, struct err *e); /* dirs: "<id>" of directories that have fs */
/* blobs.c */
int snap_blobs_put(struct snap *layer, struct err *e); /* rows of all its blobs */
int snap_blobs_load(struct snap_store *s, struct err *e);
void snap_blobs_forget(struct snap *sn); /* memory only */
void snap_chain_index(struct snap *sn);
#endif
