#ifndef CLI_BUILDER_H
#define CLI_BUILDER_H
/* Which daemon a command of `slipway` talks to: an address or the name of one of buildx's builders (--builder,
 * $BUILDX_BUILDER), $BUILDKIT_HOST, a socket that answers, or an embedded daemon. Main thread. */
#include "cli/internal.h"
#include "progress/progress.h"
#include "drive/store.h"

struct builder {
	char *name, *driver, *node; /* "cli", "remote", "cli0" */
	char *addr;                 /* "": embedded */
	char *ca, *cert, *key, *server_name;
	char *status;                /* why it cannot be used, NULL: it can */
	struct drive_builder stored; /* its name NULL: it is none of buildx's */
};
void builder_fini(struct builder *b);
int builder_find(struct cli *c, struct args *a, struct builder *ret, struct err *e); /* reads files */
/* Blocks. A container that does not run is booted, shown by p; NULL: it is an error. */
int builder_connect(struct cli *c, struct builder *b, struct progress *p, struct err *e);
/* --timeout, for the time it takes to learn a daemon's state, into c->timeout_ms. */
int builder_timeout(struct cli *c, const struct args *a, struct err *e);
/* A node of a stored builder (NULL: it has none) by itself; `stored` stays empty. */
void builder_of_node(const struct drive_builder *stored, const struct drive_node *n, struct builder *ret);
/* All of buildx's, in the order of their names, behind the one that would be used now. Caller frees each and the list. */
struct builders {
	struct builder *v;
	size_t n, cap;
};
int builder_list(struct cli *c, struct args *a, struct builders *ret, struct err *e);
/* 16 hexadecimal digits that name this client's machine; made when missing. Heap. */
char *builder_node_id(void);
#endif
