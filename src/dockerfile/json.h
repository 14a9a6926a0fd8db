#ifndef DOCKERFILE_JSON_H
#define DOCKERFILE_JSON_H
/* Private to the room: the little JSON that Dockerfiles hold, as Go's encoding/json takes it (lone surrogates and bad
 * bytes become U+FFFD, where jansson fails). Any thread, no blocking; nesting is bounded. */
#include "dockerfile/lint.h"

enum json_list { JSON_NOT_LIST, JSON_LIST_OF_STRINGS, JSON_LIST_OF_OTHERS };
/* A NUL (\u0000) inside a string; instr.c refuses words that hold one. */
#define JSON_NUL "\xc0\x80"
/* An array and nothing behind it. */
enum json_list json_list_strings(struct arena *a, const char *s, size_t n, struct ast_strs *ret);
/* The whole text an object whose last member `key` is a string. */
bool json_object_string(struct arena *a, const char *s, size_t n, const char *key, const char **ret);
#endif
