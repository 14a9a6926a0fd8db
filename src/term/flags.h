#ifndef TERM_FLAGS_H
#define TERM_FLAGS_H
/* Command lines from tables: a row a flag, a row a command. Parsing, --help, errors and the manual page follow from the rows.
 *
 * Two dialects: buildctl's (urfave/cli: -name is --name, flags of outer commands are known inside) and buildx's (pflag:
 * --name=value, -nvalue, -qf x). A flag may stand before or behind plain arguments in both; "--" ends the flags.
 * Everything: any thread, no blocking. */
#include "base/base.h"

enum flag_kind {
	FLAG_BOOL,
	FLAG_STRING,
	FLAG_LIST, /* may be given several times */
	FLAG_CSV,  /* the same, and each value is split at its commas */
	FLAG_INT,
	FLAG_FLOAT,
	FLAG_DURATION,
	FLAG_BYTES, /* "64m": checked, kept as text */
};
struct flag {
	const char *name;
	char letter; /* 0: none */
	enum flag_kind kind;
	const char *help;    /* NULL: hidden */
	const char *def;     /* value when not given, NULL: none */
	const char *env;     /* variable that gives the default, NULL: none */
	const char *type;    /* shown instead of the kind's own word */
	const char *implied; /* value when the flag stands alone ("--check"): then "=" is needed for another */
	bool hide_default;
	const char *values; /* for completion: "auto|plain|tty", "file" or "dir"; NULL: by the kind and the name */
};
struct args;
struct cli;
struct command {
	const char *name;
	const char *aliases; /* "b, bu"; NULL: none */
	const char *summary; /* NULL: hidden */
	const char *usage;   /* what follows the name in the usage line (buildx), or the whole usage text (buildctl) */
	const struct flag *flags;
	const struct command *sub; /* ends with a NULL name */
	int (*run)(struct cli *c, struct args *a);
	int min_args, max_args; /* max -1: any; not looked at in buildctl's dialect */
};
enum dialect { DIALECT_BUILDCTL, DIALECT_BUILDX };

struct args {
	const struct command *path[6]; /* from the program to the command found */
	size_t depth;
	enum dialect dialect;
	struct map values; /* flag name -> struct strvec *, given ones only */
	struct strvec rest;
	bool want_help, want_version;
};
/* Reads argv behind the program's name. -1 with INVALID_ARGUMENT; the struct is to be freed in any case. */
int args_parse(struct args *a, enum dialect d, const struct command *root, char *const *argv, size_t n, struct err *e);
void args_fini(struct args *a);
const struct command *args_command(const struct args *a);
bool args_given(const struct args *a, const char *name);
const char *args_str(const struct args *a, const char *name);           /* the last, the default, or "" */
const struct strvec *args_list(const struct args *a, const char *name); /* may be empty, never NULL */
bool args_bool(const struct args *a, const char *name);
int64_t args_int(const struct args *a, const char *name);
double args_float(const struct args *a, const char *name);
/* Help of the command found, as the dialect's own program lays it out. prog: "buildctl", "docker buildx", "slipway". */
void args_help(const struct args *a, const char *prog, const char *version, struct buf *out);
/* The usage line: "slipway build [OPTIONS] PATH | URL | -". */
void args_usage_line(const struct args *a, const char *prog, struct buf *out);
/* What stands for a value in help: "string", "stringArray", "" for a bool. */
const char *flag_type_word(const struct flag *f, enum dialect d);
#endif
