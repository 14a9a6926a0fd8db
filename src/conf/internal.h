#ifndef CONF_INTERNAL_H
#define CONF_INTERNAL_H
/* Inside the conf room: the tree that toml.cc makes of a text (plain C, so that one file is C++), and the tables. */
#ifdef __cplusplus
extern "C" {
#else
#include "conf/conf.h"
#endif
#include <stddef.h>
#include <stdint.h>

enum toml_kind { TOML_STR, TOML_INT, TOML_BOOL, TOML_OTHER, TOML_ARRAY, TOML_TABLE };
struct toml_node {
	enum toml_kind kind;
	const char *type_name; /* "a string", static */
	const char *tag;       /* of TOML_OTHER, toml-test's: "float", "datetime", ...; static */
	char *key;             /* in a table; else NULL */
	size_t key_len;        /* with NULs a key is longer than its string */
	char *str;             /* of TOML_OTHER: its text */
	size_t str_len;
	int64_t num; /* also a bool's */
	unsigned line, column;
	struct toml_node *kids, *next;
};
/* NULL with *msg (malloc), line and column set when the text is no TOML. */
struct toml_node *toml_parse_text(const char *text, size_t n, char **msg, unsigned *line, unsigned *column);
void toml_free(struct toml_node *t);
#ifdef __cplusplus
}
#else

enum conf_type { T_BOOL, T_TRI, T_STR, T_INT, T_STRS, T_MAP, T_DURATION, T_SPACE, T_LIST, T_NAMED, T_ANY };
enum {
	F_RELOAD = 1,  /* may change while running */
	F_IGNORED = 2, /* read, but this daemon does not act on it */
	F_OLD = 4,     /* deprecated; help says what to use */
	F_SET = 8,     /* a number of which 0 is a value: INT64_MIN or -1 (min) is unset */
};
enum conf_file { FILE_NONE, FILE_CERT, FILE_KEY, FILE_SECRET, FILE_ANY, FILE_DIR }; /* the first three: an error when missing */
struct conf_rows;
struct conf_row {
	const char *path; /* parts separated by '/' (names hold dots) */
	enum conf_type type;
	size_t off;
	const char *def;  /* as documented; NULL none */
	int64_t min, max; /* numbers; both 0: any */
	unsigned flags;
	enum conf_file file;
	bool ours;                   /* BuildKit has no such key */
	const struct conf_rows *sub; /* T_LIST, T_NAMED: of an element */
	const char *help;
};
struct conf_rows {
	const struct conf_row *rows;
	size_t n, elem_size;
};
struct conf_section { /* the manual's order and texts */
	const char *path, *title, *text;
};
struct raw_vec { /* the layout of any VEC */
	char *v;
	size_t n, cap;
};
bool conf_in_userns(void);
extern const struct conf_rows conf_all_rows;
extern const struct conf_section conf_sections[];
extern const size_t conf_n_sections;
const struct conf_row *conf_row_find(const struct conf_rows *rs, const char *path);
/* Appended to what is there: "worker/oci" as worker.oci, "dockerfile.v0" in quotes. */
void conf_show_path(struct buf *b, const char *path);
char *conf_shown(const char *prefix, const char *path); /* heap; prefix is shown already */

/* value.c */
extern const char *const conf_expected[]; /* by type: "a boolean" */
/* Set a value from text, as a flag gives it; lists and maps are appended to. -1: what is expected instead in *e. */
int conf_set_text(void *base, const struct conf_row *r, const char *text, struct err *e);
int conf_set_int(void *base, const struct conf_row *r, int64_t v, struct err *e);
int conf_set_bool(void *base, const struct conf_row *r, bool v);
int conf_bad(const struct conf_row *r, const char *found, struct err *e);
bool conf_is_unset(const void *base, const struct conf_row *r);
void conf_put_value(const struct conf_row *r, const void *base, struct buf *out);
void conf_clear(void *base, const struct conf_row *r);
void conf_rows_fini(const struct conf_rows *rs, void *base);

/* Where values come from: conf.c. path as shown; a flag's or a variable's name is static. */
enum conf_from { FROM_FILE, FROM_FLAG, FROM_ENV };
struct conf_origin {
	enum conf_from from;
	unsigned line, column;
	const char *name;
};
void conf_origin_set(struct conf *c, const char *path, struct conf_origin o);
const struct conf_origin *conf_origin_get(const struct conf *c, const char *path); /* NULL: the default */

/* Into the report. file NULL: no place. */
void conf_say(struct conf_report *r, enum conf_level level, const char *file, unsigned line, unsigned column, const char *fmt,
	      ...) __attribute__((format(printf, 6, 7)));
/* The place of the value of the shown path, or of what holds it. */
void conf_say_of(const struct conf *c, struct conf_report *r, enum conf_level level, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* read.c: t into base */
void conf_read_tree(struct conf *c, const struct toml_node *t, const char *file, struct conf_report *r);
/* hint.c: what may be meant by a key that is not there. rel: path of its table in rs; "" or ": did you mean ...". Heap. */
char *conf_hint(const struct conf_rows *rs, const char *rel, const char *key, bool is_table);
void conf_put_json(const struct toml_node *t, struct buf *out); /* print.c: toml-test's form */
/* check.c: what needs more than one value, or the disk. */
void conf_check(const struct conf *c, struct conf_report *r);
/* cert.c: what is wrong with a PEM file; NULL: nothing. Blocks. Heap. *ret_warning: it is whole, but has expired. */
char *conf_cert_fault(const char *path, char **ret_warning);
char *conf_key_fault(const char *path);
char *conf_pair_fault(const char *cert, const char *key); /* both were read without a fault */
#endif
#endif
