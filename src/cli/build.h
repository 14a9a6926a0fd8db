#ifndef CLI_BUILD_H
#define CLI_BUILD_H
/* One build, driven as BuildKit's client does: a session, Control.Solve with neither definition nor frontend, Control.Status,
 * and the frontend run through LLBBridge (Ping, Solve, Return), all at once on one connection. Main thread; strings are copied;
 * lists of attributes are "key=value". */
#include "cli/internal.h"
#include "progress/progress.h"
#include "proto/ops.pb-c.h"
#include "proto/policy.pb-c.h"
#include "sess/sess_client.h"

struct build_export {
	char *type;
	struct strvec attrs;
	int fd;    /* one stream goes here (owned), -1: none */
	char *dir; /* files, or an OCI layout with store */
	bool store, delete_rest;
	/* Bytes for a program or socket of ours instead of fd: see sess_client_output. */
	struct sess_client_output *sink;
};
struct build_cache {
	char *type;
	struct strvec attrs;
};
struct build {
	struct cli *cli;
	char ref[ID_STR];
	struct arena *mem; /* of def, policy and the replies */
	struct sess_client *sess;
	struct progress *progress;
	const char *frontend;   /* "" with def */
	struct strvec attrs;    /* of the frontend */
	Pb__Definition *def;    /* NULL: none */
	Policy__Policy *policy; /* NULL: none */
	struct strvec entitlements;
	VEC(struct build_export) exports;
	VEC(struct build_cache) cache_to, cache_from;
	VEC(struct local_cache) stores; /* private: index.json to write afterwards */
	bool proxy_network, list_workers, internal;
	int (*finish)(void *arg, struct err *e); /* after a good Solve, before the display ends; NULL: nothing */
	void *finish_arg;
	int trace_fd;           /* -1: none */
	struct strvec response; /* out: exporter response; what the frontend returned: */
	struct strvec metadata; /* keys "result.*" only when it is a subrequest */
};
struct local_cache {
	char *dir, *tag, *response_key;
};
void build_init(struct build *b, struct cli *c, const char *shared_key);
void build_fini(struct build *b);
/* Blocks until all is over, progress shown. The error begins with "failed to solve: " where the daemon said it. */
int build_run(struct build *b, struct err *e);
/* Ends the progress display; build_run does it, unless it was never come to. */

/* ---- build_args.c: values of flags that both programs take ---- */
/* "type=oci,dest=x": buildctl's --output. Opens the destination. */
int build_add_output(struct build *b, const char *spec, struct err *e);
/* Where the bytes of an exporter of this type go; deletes "dest" from the attributes. */
int build_set_dest(struct build_export *x, struct err *e);
int build_add_cache(struct build *b, bool to, const char *flag, const char *spec, struct err *e);
int build_add_secret(struct build *b, const char *spec, struct err *e);
int build_add_ssh(struct build *b, const char *spec, struct err *e);
int build_add_allow(struct build *b, const char *spec, struct err *e);
int build_add_local(struct build *b, const char *name, const char *dir, struct err *e);
int build_add_oci_layout(struct build *b, const char *id, const char *dir);
int build_read_policy(struct build *b, const char *path, struct err *e);
/* "k=v" of a CSV field, the key in lower case. */
int build_key_value(const char *field, char **ret_key, const char **ret_value, struct err *e);

/* ---- build_files.c: what is left behind ---- */
/* --metadata-file: the exporter response as JSON. */
int build_write_metadata(const char *path, const struct strvec *response, struct err *e);
/* Adds a descriptor to DIR/index.json under a tag, or under image names (with_names). */
int build_index_put(const char *dir, const char *descriptor_json, const char *const *names, size_t n, bool are_tags,
		    struct err *e);
/* The digest that DIR/index.json has for a tag; NULL when there is none. Heap. */
char *build_index_get(const char *dir, const char *tag, struct err *e);
/* Directories of local caches: offers them to the daemon; imports that are not there are left out with a warning. */
int build_offer_caches(struct build *b, struct err *e);
int build_write_indexes(struct build *b, struct err *e);
#endif
