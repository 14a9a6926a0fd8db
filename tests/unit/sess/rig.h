#ifndef TEST_SESS_RIG_H
#define TEST_SESS_RIG_H
/* A daemon side and a client side on one loop, joined by a socketpair; and small files. */
#include "proto/methods.h"
#include "sess/packet.h"
#include "sess/sess.h"
#include "sess/sess_client.h"
#include "tree/tree.h"
#include "wire/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct rig {
	struct loop *loop;
	struct sess_manager *manager;
	struct sess_client *client;
	struct wire_handler handler;
	struct wire_conn *conn, *server;
	struct sess *s;
	char dir[64]; /* scratch: src, dst and what a test makes */
	int dst;
	struct tree_index *index;
	/* the last thing that was waited for */
	bool done;
	struct err err;
	struct sess_filesync_stats st;
	struct buf bytes;
	int64_t number;
};
int rig_setup(void **state); /* cmocka: *state is a struct rig with a client that is not connected yet */
int rig_teardown(void **state);
void rig_connect(struct rig *r); /* starts the client's session, waits for it */
void rig_wait(struct rig *r);    /* runs the loop until done is set */
void rig_done(void *arg, const struct err *e);
void rig_bytes(void *arg, const uint8_t *p, size_t n, const struct err *e);
void rig_synced(void *arg, const struct sess_filesync_stats *st, const struct err *e);
/* Sync "src" into dst; 0 or -1 as it went. excludes may be NULL. */
int rig_sync(struct rig *r, const struct strvec *excludes);
void put_file(struct rig *r, const char *path, const char *text); /* below dir; parents are made */
char *get_file(struct rig *r, const char *path);                  /* heap, "(none)" when missing */
void set_mtime(struct rig *r, const char *path, int64_t ns);
void settle(void); /* long enough for stamps to be provable */
bool exists(struct rig *r, const char *path);
/* Does the index say what is on disk in dst? */
void check_index(struct rig *r);
#define assert_ok(r)                                                     \
	do {                                                             \
		if (err_is_set(&(r)->err)) fail_msg("%s", (r)->err.msg); \
	} while (0)
#endif
