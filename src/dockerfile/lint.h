#ifndef DOCKERFILE_LINT_H
#define DOCKERFILE_LINT_H
/* The lint rules of Dockerfiles, the check options and the decision whether a rule speaks.
 *
 * A linter is a value with a shared record: copies made by lint_merge see the same warnings and the same record of rules
 * that were called. Nothing here blocks; any thread; what is allocated lives in the arena given to lint_new.
 * Source: BuildKit frontend/dockerfile/linter. */
#include "base/base.h"

/* Where something stands in the source: the peer's ranges are one for each line from start to end, columns 0. Lines count from
 * 1; {0, 0} is no location. */
struct ast_lines {
	int start, end;
};

struct ast_strs {
	const char **v; /* not NULL-terminated; NULL when n is 0 */
	size_t n;
};

void ast_strs_add(struct arena *a, struct ast_strs *s, const char *v); /* v borrowed; s was built by this alone */

struct lint_rule {
	const char *name, *description, *url; /* url "" where the peer has none */
	bool deprecated, experimental;
	const char *format; /* of lint_run's arguments; conversions are %s and %q (Go's) only */
};
enum lint_id {
	LINT_STAGE_NAME_CASING,                   /* stage name */
	LINT_FROM_AS_CASING,                      /* as word, from word */
	LINT_NO_EMPTY_CONTINUATION,               /* - */
	LINT_CONSISTENT_INSTRUCTION_CASING,       /* command, casing */
	LINT_DUPLICATE_STAGE_NAME,                /* stage name */
	LINT_RESERVED_STAGE_NAME,                 /* stage name */
	LINT_JSON_ARGS_RECOMMENDED,               /* instruction */
	LINT_MAINTAINER_DEPRECATED,               /* - */
	LINT_UNDEFINED_ARG_IN_FROM,               /* arg, then lint_mean(.., "", suggestion) */
	LINT_WORKDIR_RELATIVE_PATH,               /* workdir */
	LINT_UNDEFINED_VAR,                       /* name, then lint_mean(.., "$", suggestion) */
	LINT_MULTIPLE_INSTRUCTIONS_DISALLOWED,    /* instruction */
	LINT_LEGACY_KEY_VALUE_FORMAT,             /* instruction, instruction */
	LINT_INVALID_BASE_IMAGE_PLATFORM,         /* image, actual, expected */
	LINT_REDUNDANT_TARGET_PLATFORM,           /* variable */
	LINT_SECRETS_USED_IN_ARG_OR_ENV,          /* instruction, key */
	LINT_INVALID_DEFAULT_ARG_IN_FROM,         /* base name */
	LINT_FROM_PLATFORM_FLAG_CONST_DISALLOWED, /* platform */
	LINT_COPY_IGNORED_FILE,                   /* instruction, file */
	LINT_INVALID_DEFINITION_DESCRIPTION,      /* instruction, name; experimental */
	LINT_EXPOSE_PROTO_CASING,                 /* port */
	LINT_EXPOSE_INVALID_FORMAT,               /* port */
	LINT_COUNT
};
extern const struct lint_rule lint_rules[LINT_COUNT];

/* Called for each warning; message is borrowed from the linter's arena and lives as long as it. */
typedef void lint_warn_fn(void *arg, const struct lint_rule *rule, const char *message, struct ast_lines at);

/* "skip=A,B;error=true;experimental=all". */
struct lint_config {
	bool skip_all, experimental_all, error;
	struct ast_strs skip, experimental;
};
/* Errors as ParseLintOptions. */
int lint_config_parse(struct arena *a, const char *text, struct lint_config *ret, struct err *e);

struct lint {
	struct arena *a;
	lint_warn_fn *warn; /* NULL: never speaks */
	void *arg;
	struct lint_config config;
	struct lint_called *called; /* shared with copies */
};
struct lint lint_new(struct arena *a, const struct lint_config *config, lint_warn_fn *warn, void *arg);
/* A copy with more skipped and more experimental rules; `error` is not taken over. */
struct lint lint_merge(const struct lint *l, const struct lint_config *more);
/* A copy with what a `check=` line among the comments before an instruction says; comments that do not parse are ignored.
 * l may be NULL, then a linter that never speaks. */
struct lint lint_with_comments(const struct lint *l, struct ast_strs comments);
/* Speak, when the rule is on. The arguments are strings, one for each conversion of the rule's format. l may be NULL. */
void lint_run(const struct lint *l, enum lint_id id, struct ast_lines at, ...);
/* " (did you mean <mark><match>?)", or "" when match is NULL or "". */
const char *lint_mean(struct arena *a, const char *mark, const char *match);
/* "lint violation found for rules: A, B" when `error` is set and a rule spoke (in the order of their first call), else 0. */
int lint_error(const struct lint *l, struct err *e);
/* "<Rule>: <message> (line N)"; without the line when it is 0. */
const char *lint_short(struct arena *a, const struct lint_rule *rule, const char *message, int line);

/* The option that v was probably meant to be: the first of the smallest edit distance below 3, or NULL; also NULL when v is
 * one of them. Not case-sensitive: the match is given in v's case. Source: util/suggest. */
const char *lint_suggest(struct arena *a, const char *v, const char *const *options, size_t n, bool case_sensitive);
#endif
