#ifndef FRONT_FRONT_H
#define FRONT_FRONT_H
/* The built-in Dockerfile frontend: options and answers so far -> graphs, or further questions.
 *
 * front_convert is pure: no I/O, any thread, no blocking. The caller answers the questions (each once, its key names it for
 * ever) and calls again with all answers so far, in a job: all that can be asked at once is asked at once. Warnings and
 * metadata count in the last run only. What a result points at lives in the arena that was given to that run; inputs
 * and answers are borrowed and must outlive the run.
 *
 *   struct front_answers *ans = front_answers_new();
 *   for (;;) {
 *           if (front_convert(&in, arena, &res, &e) < 0) fail;
 *           if (res.state != FRONT_ASKS) break;
 *           for each question: answer it, front_answers_put(ans, q->key, &answer);
 *   }
 * Source: BuildKit frontend/{dockerui,dockerfile/builder,dockerfile/dockerfile2llb}, client/llb. */
#include "base/base.h"
#include "llb/llb.h"
#include "spec/platform.h"

/* ---- questions and answers --------------------------------------------------------------------------------------- */

enum front_ask {
	FRONT_READ_FILE,   /* solve def, then read path from it */
	FRONT_IMAGE_META,  /* the config of an image of a registry or of an OCI layout in a session */
	FRONT_SOURCE_META, /* what a git or http source resolves to */
};
struct front_question {
	enum front_ask ask;
	char key[DIGEST_STR]; /* digest of all that follows */
	/* FRONT_READ_FILE. A missing file is an answer with err and `solved` set; front knows which may be missing. */
	const Pb__Definition *def;
	const char *path;
	int64_t offset, length; /* length 0: all of it, at most FRONT_MAX_FILE bytes */
	/* FRONT_IMAGE_META */
	const char *ref;                      /* normalised, with tag or digest */
	const struct spec_platform *platform; /* NULL: the daemon's default */
	const char *resolve_mode;             /* "default", "pull", "local" */
	bool oci_layout;                      /* then session and store say where */
	const char *session, *store;
	/* FRONT_SOURCE_META */
	const Pb__SourceOp *source;
	bool git_object;      /* the commit object is wanted */
	const char *log_name; /* name of the progress vertex; both META kinds; NULL: the default */
};
enum { FRONT_MAX_FILE = 16 << 20 };

/* Members are heap and owned by the answer; what does not belong to the question's kind stays zero. */
struct front_answer {
	struct err err; /* set: it failed. The text as the gateway says it: front adds its own words before it */
	bool solved;    /* READ_FILE: def was solved; with err: only the file could not be read */
	uint8_t *data;  /* READ_FILE: the bytes. IMAGE_META: the config JSON */
	size_t n;
	char *ref;       /* IMAGE_META: the reference, as a policy may have rewritten it (NULL: as asked) */
	char *digest;    /* IMAGE_META: of the manifest or index; NULL or "": unknown */
	char *redirect;  /* IMAGE_META, beside err: a policy made it no image at all: the new identifier "scheme://..." */
	uint8_t *commit; /* SOURCE_META, git_object: the raw commit object */
	size_t n_commit;
	bool has_last_modified; /* SOURCE_META, http */
	int64_t last_modified;  /* seconds since 1970 */
};
struct front_answers;
struct front_answers *front_answers_new(void);
void front_answers_free(struct front_answers *a); /* NULL allowed */
/* Takes over all of *answer (it is zeroed). A second answer to the same key is dropped. */
void front_answers_put(struct front_answers *a, const char *key, struct front_answer *answer);
bool front_answers_has(const struct front_answers *a, const char *key);
void front_answer_fini(struct front_answer *a);

/* ---- in ---------------------------------------------------------------------------------------------------------- */

struct front_named_def {
	const char *name;
	const Pb__Definition *def;
};
struct front_input {
	char *const *opts; /* frontend attributes "key=value" */
	size_t n_opts;
	const char *session_id;
	const struct spec_platform *build_platforms; /* the worker's, the first is the default; none: this machine's */
	size_t n_build_platforms;
	const struct front_named_def *inputs; /* FrontendInputs */
	size_t n_inputs;
	const struct front_answers *answers; /* NULL: none yet */
};

/* ---- out --------------------------------------------------------------------------------------------------------- */

enum front_state {
	FRONT_DONE,
	FRONT_ASKS,    /* questions; nothing else of the result counts */
	FRONT_FORWARD, /* run gateway.v0 with forward.opts instead, giving it the same inputs: its result is the result */
};
struct front_kv {
	const char *key;
	const void *value; /* a NUL follows the n bytes */
	size_t n;
};
struct front_attestation { /* an in-toto bundle: an SBOM that a scanner writes while the result is solved */
	const Pb__Definition *def;
	const char *path, *predicate_type;
	const struct front_kv *metadata; /* "reason", "sbom-core", ... */
	size_t n_metadata;
};
struct front_ref {
	const char *id;          /* platform id, key in Result.refs; "" when not multi_platform */
	const char *platform_id; /* always set: key in attestations */
	Pb__Definition *def;     /* no op at all: scratch */
	struct front_attestation *attestations;
	size_t n_attestations;
};
struct front_warning {
	const char *digest; /* vertex that reads the Dockerfile */
	int64_t level;
	const char *short_text;
	const char *detail; /* one line, "" none */
	const char *url;
	const Pb__SourceInfo *info;
	Pb__Range **ranges;
	size_t n_ranges;
};
struct front_cache_import {
	const char *type;
	struct front_kv *attrs; /* values are strings */
	size_t n_attrs;
};
struct front_result {
	enum front_state state;
	struct front_question *questions;
	size_t n_questions;

	struct front_ref *refs; /* none for a subrequest */
	size_t n_refs;
	bool multi_platform;
	struct front_kv *metadata; /* Result.metadata: containerimage.config[/id], refs.platforms, result.json, ... */
	size_t n_metadata;
	struct front_warning *warnings;
	size_t n_warnings;
	struct front_cache_import *cache_imports; /* to be used for the solves of refs */
	size_t n_cache_imports;

	struct {
		const char *source; /* image of the frontend */
		char **opts;        /* "key=value", with "cmdline" and "source" */
		size_t n_opts;
		const char *error_prefix;  /* "failed with build-arg:BUILDKIT_SYNTAX = x"; NULL: none */
		const void *source_detail; /* errdefs.Source JSON of the directive; NULL: none */
		size_t n_source_detail;
	} forward;
};
/* Errors carry errdefs.Source details (the Dockerfile and the ranges) where they belong to a line; their code is UNKNOWN
 * as a Go error's, or UNIMPLEMENTED with FrontendCap and Subrequest details. After an error *ret holds the warnings that came
 * before it, and nothing else. */
int front_convert(const struct front_input *in, struct arena *a, struct front_result *ret, struct err *e);
/* Whether a frontend image is one whose place this frontend takes: docker/dockerfile in any version. Such a gateway.v0
 * request needs no container: call front_convert with its options, "source" and "cmdline" among them. */
bool front_serves(const char *image);
/* After a forwarded frontend failed with *e: add what the built-in one says of it. Returns -1. */
int front_forward_error(const struct front_result *r, struct err *e);
#endif
