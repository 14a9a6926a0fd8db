#ifndef SHIP_INTERNAL_H
#define SHIP_INTERNAL_H
#include "ship/annotations.h"
#include "ship/attest_files_job.h"
#include "ship/image_job.h"
#include "ship/layer_job.h"
#include "ship/opts.h"
#include "ship/push.h"

struct ship_one { /* a reference being exported */
	char *key;
	struct snap *snap;
	char *platform; /* id or NULL */
};
struct ship_att {
	struct attest_in in; /* its view is on snap */
	struct snap *snap;
	int (*content)(void *arg, struct buf *ret, struct err *e);
	void *content_arg;
};
struct layer_task {
	struct ship_run *run;
	struct snap *layer;
	struct loop_job job;
	struct layer_job work;
	bool started, ended;
};
struct ship_run {
	struct ship_req req;
	struct ship_opts opts;
	struct ship_kv *attrs; /* copies */
	size_t n_attrs;
	struct ship_one *refs;
	size_t n_refs;
	VEC(struct image_meta_kv) meta;
	VEC(struct ship_att *) atts;
	VEC(struct attest_in *) att_in; /* the same, for jobs */
	void (*attests_filled)(struct ship_run *r);
	char *sessions[OPS_SESSIONS_MAX];
	const char *session_ids[OPS_SESSIONS_MAX];
	size_t n_sessions;
	struct ops_fill *fill;
	struct layer_task *layers; /* distinct layers without a fitting blob */
	size_t n_layers, layers_left;
	struct ship_rewrite *rewrites; /* rewrite.c */
	size_t n_rewrites, rewrites_left;
	void (*rewritten)(struct ship_run *r);
	struct ship_annotations annotations;
	struct loop_job job;
	bool job_runs;
	struct image_job image;
	struct reg_config *reg_config;
	struct ship_push *push;
	struct sess *session;
	struct sess_op *wait, *send;
	struct loop_pipe *pipe;
	struct strvec response;
	struct err error;
	bool cancelled;
	struct timespec since;
	/* local */
	struct ship_dir *dirs; /* files.c: one a reference */
	struct sess_send_root *roots;
	size_t at;
	uint64_t sent_bytes; /* of the directory under way */
};

void ship_show(struct ship_run *r, const char *id, bool end);
void ship_end(struct ship_run *r, struct err *e /* taken; NULL or unset: success */);
/* The moment that a reference (key NULL: the single one) counts as made at; false: none was given. */
bool ship_epoch(const struct ship_run *r, const char *key, struct timespec *ret);
const struct snap_blob *ship_layer_blob(const struct ship_run *r, const struct snap *layer); /* the one that fits; NULL: none */
/* rewrite.c: then(r) at once or later; r->error tells whether it went well. */
void ship_rewrite_start(struct ship_run *r, void (*then)(struct ship_run *r));
void ship_rewrite_cancel(struct ship_run *r);
void ship_rewrite_fini(struct ship_run *r);
/* A layer of a reference as it was rewritten: false when it was not. */
bool ship_rewrite_info(const struct ship_run *r, const struct ship_one *one, const struct snap *layer, struct image_layer_info *l);
void ship_dirs_fini(struct ship_run *r); /* files.c */
/* attest.c */
void ship_attests_copy(struct ship_run *r, const struct ship_req *req);
void ship_attests_fini(struct ship_run *r);
int ship_attests_content(struct ship_run *r, struct err *e); /* ask for the daemon's own contents */
bool ship_attests_any(const struct ship_run *r, bool skip_inline);
void ship_attests_fill(struct ship_run *r, void (*go)(struct ship_run *r)); /* have the bytes of their references */
void ship_image_start(struct ship_run *r); /* image.c: layers have been filled */
void ship_store_start(struct ship_run *r); /* store.c: into the client's content store */
void ship_files_start(struct ship_run *r); /* files.c: local and tar */
/* The session that gets the bytes, then go(r); failing ends the run. */
void ship_with_session(struct ship_run *r, const char *method, void (*go)(struct ship_run *r));
const struct image_meta_kv *ship_meta_find(const struct ship_run *r, const char *key, const char *platform);
#endif
