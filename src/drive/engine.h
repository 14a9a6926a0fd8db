#ifndef DRIVE_ENGINE_H
#define DRIVE_ENGINE_H
/* A container engine with Docker's API (dockerd, Podman's socket): where it is and how it is asked. libcurl speaks HTTP and
 * TLS; what is ours is the connection that an exec takes over, which carries raw bytes and no HTTP. All functions: main thread
 * or a job, never on a loop; they block. No libuv in here. Sources: Docker Engine API v1.41; docker/cli cli/context (contexts
 * on disk), reference 07 §2 for what buildx asks. */
#include "base/base.h"
#include <curl/curl.h>
#include <jansson.h>

/* Where: `docker context`s live in $DOCKER_CONFIG (~/.docker). */
struct drive_engine {
	char *name;            /* of the context; "default": from the environment */
	char *host;            /* unix:///path, tcp://host:port */
	char *ca, *cert, *key; /* paths, NULL none; any set: TLS */
	bool insecure;         /* the server's name is not checked */
};
void drive_engine_fini(struct drive_engine *at);
void drive_engine_copy(struct drive_engine *dst, const struct drive_engine *src);
/* what: the name of a context, an address, or NULL or "": the current one ($DOCKER_HOST, $DOCKER_CONTEXT, docker's
 * config.json). NOT_FOUND: no such context; INVALID_ARGUMENT: an address of another kind (ssh:// is not taken). */
int drive_engine_find(const char *what, struct drive_engine *ret, struct err *e);
/* How builders remember which engine they were chosen for: the context's name, or the host for the default. Borrowed. */
const char *drive_engine_key(const struct drive_engine *at);

/* One request. Status 400 and above is an error with the engine's message; its code is NOT_FOUND (404), ALREADY_EXISTS (409),
 * or UNKNOWN; no connection: UNAVAILABLE. */
struct drive_request {
	const char *method, *path; /* "/containers/NAME/json": escape what is not yours */
	const char *type;          /* of the body; NULL: application/json */
	const void *body;
	size_t n_body;
	const char *auth;   /* X-Registry-Auth, NULL none */
	unsigned timeout_s; /* 0: 60; a pull wants more */
	struct buf *raw;    /* gets the answer as it is, up to its maximum; then there is no JSON */
};
/* *ret: the answer, NULL when it was none or no JSON. With ret NULL it is dropped. Of an answer of many messages (a pull) the
 * last; an "error" among them is the error. */
int drive_engine_call(const struct drive_engine *at, const struct drive_request *q, json_t **ret, struct err *e);
/* The body is *body, which is freed. */
int drive_engine_post(const struct drive_engine *at, const char *path, json_t *body, json_t **ret, struct err *e);

/* For what is neither: a handle for a path of the engine, for the caller to set up and clean up; and the error that a status with its
 * answer means (-1). */
CURL *drive_engine_curl(const struct drive_engine *at, const char *path, struct err *e);
int drive_engine_status(long status, const char *answer, size_t n, struct err *e);

/* A process started in a container, its stdin, stdout and stderr on one connection. */
struct drive_exec;
int drive_exec_start(const struct drive_engine *at, const char *container, const char *const *argv, struct drive_exec **ret,
		     struct err *e);
/* Copy infd to its stdin, its stdout to outfd and its stderr to errfd, until it ends. infd and outfd may be one socket; at the
 * end of infd the other direction goes on. stop (may be NULL) is looked at each second. */
int drive_exec_copy(struct drive_exec *x, int infd, int outfd, int errfd, bool (*stop)(void *arg), void *arg, struct err *e);
/* Its output and exit code, without input. out is capped by its owner. */
int drive_exec_output(struct drive_exec *x, struct buf *out, int *ret_code, struct err *e);
void drive_exec_free(struct drive_exec *x);
#endif
