#ifndef CLI_INTERNAL_H
#define CLI_INTERNAL_H
/* The client's own: what a command is given, and the helpers that commands share. Main thread unless said otherwise; the
 * loop runs only inside the functions that wait, and those say "blocks". */
#include "term/flags.h"
#include "term/text.h"
#include "loop/loop.h"
#include "wire/wire.h"
#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

enum { CLI_REPLY_MAX = 64 << 20 };
/* What we are as a BuildKit: the same for `--version` of either program. */
#define CLI_VERSION "v0.32.2"
#define CLI_PACKAGE "github.com/slipway/slipway"

#ifndef SLIPWAY_REVISION
#define SLIPWAY_REVISION "unknown"
#endif
#ifndef SLIPWAY_VERSION
#define SLIPWAY_VERSION "v0.0.0"
#endif

struct drive_exec;
struct cli_pump;
struct cli {
	struct loop *loop;
	const char *prog; /* "buildctl", "docker buildx", "slipway" */
	enum dialect dialect;
	bool debug, plugin;       /* plugin: called as docker-buildx */
	uint64_t timeout_ms; /* of connecting and of a single call; 0: wire's own, and none */
	struct wire_conn *conn;   /* NULL until cli_dial, and when it broke */
	struct loop_child helper; /* of a docker-container:// address and the like */
	bool has_helper;
	struct cli_pump *pump;           /* copies to and from a process in a container; NULL: none */
	unsigned interrupts;             /* signals received */
	void (*on_interrupt)(void *arg); /* called for the first */
	void *on_interrupt_arg;
	int exit_code; /* when a command wants another than 0 or 1 */
};

/* ---- core.c ---- */
/* Turns the loop until *done. Blocks. */
void cli_wait(struct cli *c, const bool *done);
/* One call; *ret is unpacked into mem. Blocks. req NULL: empty. */
int cli_unary(struct cli *c, const char *method, const ProtobufCMessage *req, const ProtobufCMessageDescriptor *d,
	      struct arena *mem, void **ret, struct err *e);
/* One request, many replies: each is given to item() as bytes. Blocks until the stream ends. */
int cli_stream(struct cli *c, const char *method, const ProtobufCMessage *req,
	       void (*item)(void *arg, const uint8_t *p, size_t n), void *arg, struct err *e);
/* "error: ...", with source excerpts and denials before it, as the dialect's program prints them. */
void cli_print_error(const struct cli *c, const struct err *e);
/* The text a Go client would print: "<CodeName>: <message>", or the message alone for UNKNOWN. Heap. */
char *cli_error_text(const struct err *e);
/* Make an error of a call a plain one: its text as cli_error_text, code UNKNOWN, details kept. Returns -1. */
int cli_error_plain(struct err *e);

/* ---- net.c ---- */
/* Connects c->conn. addr: unix://, tcp://, and docker-container://, kube-pod://, podman-container://, nerdctl-container://,
 * ssh:// by their helper programs. Blocks; timeout_ms 0: wire's own. The text of a failure is grpc-go's. */
int cli_dial(struct cli *c, const char *addr, const struct wire_tls *tls, uint64_t timeout_ms, struct err *e);
void cli_take_conn(struct cli *c, struct wire_conn *conn);
/* Over the stdio of a process in a container, which is taken. */
int cli_dial_exec(struct cli *c, struct drive_exec *x, struct err *e);
void cli_pump_stop(struct cli *c); /* after the connection was closed; blocks, for a second at most */
/* Bytes between stdin/stdout and a unix:// address, until either ends. Blocks. */
int cli_dial_stdio(const char *addr, struct err *e);
/* The embedded daemon: an address that answers, started if need be. *ret heap. Blocks. */
int cli_embedded(struct cli *c, char **ret, struct err *e);

/* ---- commands ---- */
extern const struct command buildctl_root, buildx_root;
int buildctl_connect(struct cli *c, struct args *a, struct err *e);
int buildctl_build(struct cli *c, struct args *a);
int buildctl_du(struct cli *c, struct args *a);
int buildctl_prune(struct cli *c, struct args *a);
int buildctl_workers(struct cli *c, struct args *a);
int buildctl_info(struct cli *c, struct args *a);
int buildctl_dial_stdio(struct cli *c, struct args *a);
int buildx_build(struct cli *c, struct args *a);
int buildx_du(struct cli *c, struct args *a);
int buildx_prune(struct cli *c, struct args *a);
/* Prints the error and answers 1. Used as `return cli_fail(c, &e)`. */
int cli_fail(struct cli *c, const struct err *e);
#endif
