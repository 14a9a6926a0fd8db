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
	char *key;             /* in a table; else NULL */
	char *str;
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
struct conf_rows;
struct conf_row {
	const char *path; /* parts separated by '/' (names hold dots) */
	enum conf_type type;
	size_t off;
	const char *def;  /* as documented; NULL none */
	int64_t min, max; /* numbers; both 0: any */
	unsigned flags;
	const struct conf_rows *sub; /* T_LIST, T_NAMED: of an element */
	const char *help;
};
struct conf_rows {
	const struct conf_row *rows;
	size_t n, elem_size;
};
bool conf_in_userns(void);
extern const struct conf_rows conf_all_rows;
const struct conf_row *conf_row_find(const struct conf_rows *rs, const char *path);
/* Set a value from text, as a flag gives it; lists and maps are appended to. -1: what is expected instead in *e. */
int conf_set_text(void *base, const struct conf_row *r, const char *text, struct err *e);
void conf_clear(void *base, const struct conf_row *r);
void conf_rows_fini(const struct conf_rows *rs, void *base);
void conf_read_table(const struct conf_rows *rs, void *base, const struct toml_node *t, const char *prefix, const char *file,
		     struct strvec *warnings, struct err *e);
#endif
#endif
