#ifndef DOCKERFILE_AST_H
#define DOCKERFILE_AST_H
/* Dockerfile text -> nodes -> typed commands in stages. Pure: any thread, no I/O, no blocking.
 *
 *   struct ast file;
 *   if (ast_parse(a, text, n, &file, e) < 0) ...
 *   for each file.warnings: lint_run(lint, LINT_NO_EMPTY_CONTINUATION, w.at) is the caller's
 *   struct instr_file df;
 *   if (instr_parse(a, &file, lint, &df, e) < 0) ...
 *
 * Everything that is returned lives in the arena (uncapped: the text is capped at AST_MAX_TEXT) and the text need not outlive
 * the call. Strings are NUL-terminated; a Dockerfile with a NUL byte is refused. Errors have the peer's words, code UNKNOWN (a
 * plain Go error), and carry their places in the source, see ast_err_places.
 * Source: BuildKit frontend/dockerfile/{parser,instructions,command}. */
#include "dockerfile/lint.h"
#include "dockerfile/shell.h"

enum {
	AST_MAX_TEXT = 16 << 20,
	AST_MAX_LINE = 65535,     /* of one line, as in the peer */
	AST_MAX_JOINED = 4 << 20, /* of one instruction, continuations joined */
	AST_MAX_NODES = 1 << 16,
	AST_MAX_WORDS = 1 << 20, /* in all instructions */
	AST_MAX_HEREDOCS = 1000, /* of one instruction */
	AST_MAX_COMMENTS = 1000, /* before one instruction: of more, only the last is kept */
};

/* ---- places of errors --------------------------------------------------------------------------------------------- */

/* Add a place to an error (parser.WithLocation), or put it instead of those that are there (SetLocation). Return -1. */
int ast_err_at(struct err *e, struct ast_lines at);
int ast_err_set_at(struct err *e, struct ast_lines at);
/* The places of e in the order in which they were added, into the arena, and remove them from e: they are details of a
 * private type that must not reach the wire. */
struct ast_places {
	struct ast_lines *v;
	size_t n;
};
struct ast_places ast_err_places(struct arena *a, struct err *e);

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

struct ast_heredoc {
	const char *name;
	unsigned fd;
	bool expand, chomp;
	const char *content; /* lines as they stand, tabs too */
};
struct ast_node {
	const char *value; /* the instruction as written */
	struct ast_strs
		words; /* the rest, cut by the instruction's own rules: ENV and LABEL in threes (key, value, "=" or "") */
	struct ast_node *sub; /* ONBUILD: the trigger; then no words */
	bool json;            /* the words were a JSON array */
	struct ast_heredoc *heredocs;
	size_t n_heredocs;
	const char *original; /* the line, continuations joined */
	struct ast_strs flags;
	struct ast_lines at;
	struct ast_strs comments; /* directly before, without the # and spaces */
};
struct ast_warning { /* an empty continuation line, always */
	const char *text;
	struct ast_lines at;
};
struct ast {
	struct ast_node **nodes; /* the instructions; at least one */
	size_t n_nodes;
	char escape;
	struct ast_warning *warnings;
	size_t n_warnings;
};
int ast_parse(struct arena *a, const void *text, size_t n, struct ast *ret, struct err *e);
/* `3<<-"EOF"`: true when src is a heredoc word (content is ""); false when it is none (errors count as none). */
bool ast_heredoc(struct arena *a, const char *src, struct ast_heredoc *ret);
/* Leading tabs of every line removed. */
const char *ast_heredoc_chomp(struct arena *a, const char *content);

/* ---- directives --------------------------------------------------------------------------------------------------- */

struct ast_directive {
	const char *first; /* up to the first space */
	const char *value; /* all of it */
	struct ast_lines at;
};
/* The image of the frontend: `# syntax=`, `// syntax=` or a JSON object's "syntax"; a first line `#!` is skipped. */
bool ast_detect_syntax(struct arena *a, const void *text, size_t n, struct ast_directive *ret);
/* Only `# key=`; key is "syntax", "check" or "escape". */
bool ast_find_directive(struct arena *a, const char *key, const void *text, size_t n, struct ast_directive *ret);

/* ---- instructions ------------------------------------------------------------------------------------------------- */

enum instr_kind {
	INSTR_ADD,
	INSTR_ARG,
	INSTR_CMD,
	INSTR_COPY,
	INSTR_ENTRYPOINT,
	INSTR_ENV,
	INSTR_EXPOSE,
	INSTR_FROM, /* never in a stage's commands */
	INSTR_HEALTHCHECK,
	INSTR_LABEL,
	INSTR_MAINTAINER,
	INSTR_ONBUILD,
	INSTR_RUN,
	INSTR_SHELL,
	INSTR_STOPSIGNAL,
	INSTR_USER,
	INSTR_VOLUME,
	INSTR_WORKDIR,
	INSTR_KINDS
};
extern const char *const instr_names[INSTR_KINDS]; /* "ADD", ... */

struct instr_kv {
	const char *key, *value;
	bool no_delim; /* the old form "KEY value" */
};
struct instr_arg {
	const char *key, *value; /* value NULL: none */
	const char *doc;         /* doc comment, "" none */
};
struct instr_content { /* a heredoc as a source of COPY or ADD */
	const char *path, *data;
	bool expand;
};
enum instr_tri { INSTR_UNSET = -1, INSTR_FALSE, INSTR_TRUE };
struct instr_copy { /* COPY and ADD */
	const char *dest;
	struct ast_strs sources; /* paths, without heredocs */
	struct instr_content *contents;
	size_t n_contents;
	const char *from, *chown, *chmod, *checksum; /* "" unset */
	bool link, parents;
	enum instr_tri keep_git_dir, unpack;
	struct ast_strs exclude;
};
struct instr_file_line { /* a heredoc of RUN (or CMD, ENTRYPOINT, which ignore it) */
	const char *name, *data;
	bool chomp;
};
struct instr_cmdline {        /* CMD and ENTRYPOINT, in RUN */
	struct ast_strs args; /* shell form: one word with the whole line */
	bool shell;           /* to be run by the shell (PrependShell) */
	struct instr_file_line *files;
	size_t n_files;
};
enum instr_mount_type { INSTR_BIND, INSTR_CACHE, INSTR_TMPFS, INSTR_SECRET, INSTR_SSH };
enum instr_sharing { INSTR_SHARING_UNSET, INSTR_SHARED, INSTR_PRIVATE, INSTR_LOCKED };
struct instr_mount {
	enum instr_mount_type type;
	const char *from, *source, *target, *id; /* "" unset */
	bool readonly, required;
	int64_t size_bytes;
	enum instr_sharing sharing;
	const char *env; /* NULL: no env key; "" is the default name */
	bool has_mode, has_uid, has_gid;
	uint32_t mode, uid, gid;
};
struct instr_device {
	const char *name;
	bool required;
};
struct instr_run {
	struct instr_cmdline line;
	struct ast_strs mount_flags; /* as written */
	struct instr_mount *mounts;  /* before instr_expand only `from` is filled in */
	size_t n_mounts;
	struct instr_device *devices;
	size_t n_devices;
	const char *network;        /* "default", "none", "host" */
	const char *security;       /* "sandbox", "insecure" */
	struct ast_strs flags_used; /* names, each once, in the order of first use */
};
struct instr_health {
	struct ast_strs test; /* "NONE", or "CMD"/"CMD-SHELL" and the command */
	int64_t interval_ns, timeout_ns, start_period_ns, start_interval_ns;
	int retries;
};
struct instr {
	enum instr_kind kind;
	const char *name; /* as written: "RUN", "run" */
	const char *code; /* the whole instruction, trimmed, as dfCmd and history show it (Go's String()) */
	struct ast_lines at;
	struct ast_strs comments;
	union {
		struct { /* ENV, LABEL */
			struct instr_kv *v;
			size_t n;
			bool no_expand; /* a label that the caller made */
		} kv;
		struct {
			struct instr_arg *v;
			size_t n;
		} arg;
		struct instr_copy copy;     /* COPY, ADD */
		struct instr_cmdline line;  /* CMD, ENTRYPOINT */
		struct instr_run run;       /* RUN */
		struct instr_health health; /* HEALTHCHECK */
		struct ast_strs words;      /* EXPOSE (sorted), VOLUME, SHELL */
		const char *text;           /* MAINTAINER, ONBUILD (the trigger), WORKDIR, USER, STOPSIGNAL */
	};
};
struct instr_stage {
	const char *name;            /* lower case, "" unnamed */
	const char *base, *platform; /* platform "" unset */
	const char *orig_cmd;        /* "FROM" as written */
	const char *doc;             /* doc comment, "" none */
	const char *code;
	struct ast_lines at;
	struct ast_strs comments;
	struct instr **commands;
	size_t n_commands, cap_commands;
};
struct instr_file {
	struct instr_stage *stages;
	size_t n_stages;
	struct instr **meta_args; /* ARG before the first FROM */
	size_t n_meta_args;
};
/* Errors: "dockerfile parse error on line N: ...", or "no build stage in current context". lint NULL: no warnings. */
int instr_parse(struct arena *a, const struct ast *file, const struct lint *lint, struct instr_file *ret, struct err *e);
/* One command that is no FROM, without the words "dockerfile parse error"; for ONBUILD triggers. */
int instr_parse_command(struct arena *a, const struct ast_node *node, struct instr **ret, struct err *e);
/* `LABEL k=v` that the caller makes up (command line labels); not expanded when no_expand. */
struct instr *instr_new_label(struct arena *a, const char *k, const char *v, bool no_expand);
/* Add to a stage. */
void instr_stage_add(struct arena *a, struct instr_stage *s, struct instr *cmd);
/* Index of the stage of that name (not case-sensitive), the first one; -1 none. */
ptrdiff_t instr_stage_find(const struct instr_stage *v, size_t n, const char *name);

/* ---- expansion ---------------------------------------------------------------------------------------------------- */

/* Expand one word into *ret (in the arena or borrowed for its lifetime). */
typedef int instr_expand_fn(void *arg, const char *word, const char **ret, struct err *e);
/* Expand in place the fields that the peer's Expand methods do: ADD, ARG, COPY, ENV, LABEL, RUN (mounts, parsed with all
 * their checks), STOPSIGNAL, USER, VOLUME, WORKDIR; nothing in others. In the peer's order, since the expander may warn. */
int instr_expand(struct arena *a, struct instr *cmd, instr_expand_fn *fn, void *arg, struct err *e);
/* The contents of heredocs of ADD and COPY that are to be expanded (ExpandRaw). */
int instr_expand_raw(struct arena *a, struct instr *cmd, instr_expand_fn *fn, void *arg, struct err *e);
/* Whether cmd is one that instr_expand / instr_expand_raw has work for. */
bool instr_expands(const struct instr *cmd);
#endif
