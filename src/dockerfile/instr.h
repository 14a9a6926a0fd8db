#ifndef DOCKERFILE_INSTR_H
#define DOCKERFILE_INSTR_H
/* Private to the room: what the instruction parsers share. Any thread, no blocking. */
#include "dockerfile/ast.h"

enum instr_flag_type { FLAG_BOOL, FLAG_STRING, FLAG_STRINGS };
struct instr_flag {
	const char *name;
	enum instr_flag_type type;
	const char *value; /* the default before; "true" or "false" for FLAG_BOOL */
	struct ast_strs values;
	bool used;
};
/* `--name=value` words into the flags. *ret_used: the names in order of first use; NULL: not wanted. */
int instr_flags_parse(struct arena *a, const struct ast_strs *args, struct instr_flag *flags, size_t n,
		      struct ast_strs *ret_used, struct err *e);
/* One line of comma-separated values as encoding/csv reads it; "" is the error EOF. */
int instr_csv(struct arena *a, const char *line, struct ast_strs *ret, struct err *e);
/* One --mount value. fn NULL: only `from` is read, all else waits for the expansion. */
int instr_mount_parse(struct arena *a, const char *text, instr_expand_fn *fn, void *arg, struct instr_mount *ret,
		      struct err *e);
int instr_device_parse(struct arena *a, const char *text, struct instr_device *ret, struct err *e);

/* What an instruction's parser gets. */
struct instr_req {
	struct arena *a;
	const struct ast_node *node;
	struct ast_strs args;
	enum instr_kind kind;
};
int instr_parse_run(const struct instr_req *q, struct instr *ret, struct err *e);
int instr_parse_copy(const struct instr_req *q, struct instr *ret, struct err *e); /* and ADD */
int instr_parse_healthcheck(const struct instr_req *q, struct instr *ret, struct err *e);
int instr_parse_line(const struct instr_req *q, struct instr_cmdline *ret); /* the words of RUN, CMD, ENTRYPOINT */
struct ast_strs instr_json_args(const struct instr_req *q, size_t from);    /* handleJSONArgs */
int instr_no_flags(const struct instr_req *q, struct err *e);
int instr_fail(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* err_set, code UNKNOWN */
#endif
