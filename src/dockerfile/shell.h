#ifndef DOCKERFILE_SHELL_H
#define DOCKERFILE_SHELL_H
/* Word splitting and variable expansion as Dockerfiles have it. Pure: any thread, no blocking.
 * Source: BuildKit frontend/dockerfile/shell. */
#include "dockerfile/lint.h"

/* Where variables come from. get answers the value, borrowed until the call of shell_* returns, or NULL when unset. */
struct shell_env {
	const char *(*get)(void *arg, const char *name);
	void *arg;
};
extern const struct shell_env shell_no_env;
/* A list of "K=V" (the last of equal keys counts; an entry without = is an empty value), borrowed: put into .arg of a
 * shell_env with .get = shell_list_get. */
struct shell_list {
	char *const *v;
	size_t n;
};
const char *shell_list_get(void *arg, const char *name);

struct shell_opt {
	char escape;      /* '\\' or '`' */
	bool raw_quotes;  /* keep quotes */
	bool raw_escapes; /* keep escape tokens */
	bool skip_quotes; /* quotes are plain characters (SkipProcessQuotes) */
	bool skip_unset;  /* leave references to unset variables as they are */
};
struct shell_result {
	const char *word;
	struct ast_strs words;
	struct ast_strs matched, unmatched; /* names looked up, each once, sorted */
};
/* Limits against files that multiply themselves: depth of ${a:-${b:-...}}, one expanded word, all that the arena holds. */
enum { SHELL_MAX_DEPTH = 200, SHELL_MAX_WORD = 16 << 20, SHELL_MAX_ARENA = 1 << 30 }; /* of ${a:-${b:-...}} */
/* Expand and split in one pass. Errors: `failed to process "<word>": ...`. word and words of *ret are valid on success;
 * matched and unmatched always. */
int shell_process(struct arena *a, const struct shell_opt *o, const struct shell_env *env, const char *word,
		  struct shell_result *ret, struct err *e);
/* Only the word, only the words. */
int shell_word(struct arena *a, const struct shell_opt *o, const struct shell_env *env, const char *word, const char **ret,
	       struct err *e);
int shell_words(struct arena *a, const struct shell_opt *o, const struct shell_env *env, const char *word, struct ast_strs *ret,
		struct err *e);
#endif
