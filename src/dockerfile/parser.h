#ifndef DOCKERFILE_PARSER_H
#define DOCKERFILE_PARSER_H
/* Private to the room: one joined line -> a node. Any thread, no blocking. */
#include "dockerfile/ast.h"

struct line_parser {
	struct arena *a;
	char escape;
	size_t n_words; /* of the file so far */
};
/* What an instruction (and, for ONBUILD, its trigger) says; `at`, heredocs and comments are left out. line is kept. */
int line_parse(struct line_parser *p, const char *line, struct ast_node **ret, struct err *e);
#endif
