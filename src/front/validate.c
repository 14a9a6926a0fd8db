/* What is only warned of while converting, and stages that need each other in a circle.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/validations.go. */
#include "front/stage.h"

#include <string.h>
#include <strings.h>

void validate_names(const struct conv *c, const struct instr_file *df)
{
	_cleanup_map_ struct map seen = {0};
	for (size_t i = 0; i < df->n_stages; i++) {
		const struct instr_stage *s = &df->stages[i];
		if (!*s->name) continue;
		if (strcmp(s->name, "context") == 0 || strcmp(s->name, "scratch") == 0)
			lint_run(&c->lint, LINT_RESERVED_STAGE_NAME, s->at, s->name);
		if (map_has(&seen, s->name)) lint_run(&c->lint, LINT_DUPLICATE_STAGE_NAME, s->at, s->name);
		map_put(&seen, s->name, (void *)s);
	}
}

/* ---- casing --------------------------------------------------------------------------------------------------------- */

static bool has_case(const char *s, char from)
{
	for (; *s; s++)
		if (*s >= from && *s <= from + 25) return true;
	return false;
}

static void count(const char *s, int *lower, int *upper)
{
	bool up = has_case(s, 'A'), low = has_case(s, 'a');
	if (up && low) return;
	if (up)
		(*upper)++;
	else
		(*lower)++;
}

static void check_case(const struct lint *l, const char *name, bool lower, struct ast_lines at)
{
	if (lower ? has_case(name, 'A') : has_case(name, 'a'))
		lint_run(l, LINT_CONSISTENT_INSTRUCTION_CASING, at, name, lower ? "lowercase" : "uppercase");
}

void validate_casing(const struct conv *c, const struct instr_file *df)
{
	int lower = 0, upper = 0;
	for (size_t i = 0; i < df->n_stages; i++) {
		const struct instr_stage *s = &df->stages[i];
		count(s->orig_cmd, &lower, &upper);
		for (size_t k = 0; k < s->n_commands; k++) count(s->commands[k]->name, &lower, &upper);
	}
	for (size_t i = 0; i < df->n_stages; i++) {
		const struct instr_stage *s = &df->stages[i];
		check_case(&c->lint, s->orig_cmd, lower > upper, s->at);
		for (size_t k = 0; k < s->n_commands; k++)
			check_case(&c->lint, s->commands[k]->name, lower > upper, s->commands[k]->at);
	}
}

/* ---- base images ---------------------------------------------------------------------------------------------------- */

void validate_default_args(struct conv *c, const struct instr_file *df)
{
	const struct env *env = c->global_args;
	struct outline o = {0};
	if (args_meta(c, df->meta_args, df->n_meta_args, NULL, &env, &o, NULL) < 0) return;
	const struct shell_env se = env_shell(env);
	for (size_t i = 0; i < df->n_stages; i++) {
		const struct instr_stage *s = &df->stages[i];
		_cleanup_spec_ref_ struct spec_ref ref = {0};
		const char *word;
		if (shell_word(c->a, &c->shell, &se, s->base, &word, NULL) < 0) return;
		if (spec_ref_parse(word, &ref, NULL) < 0) lint_run(&c->lint, LINT_INVALID_DEFAULT_ARG_IN_FROM, s->at, s->base);
	}
}

void validate_base_platform(const struct conv *c, const struct stage *d, const char *name, const struct spec_platform *expected)
{
	const struct spec_platform *actual = &d->image.platform;
	if (str_eq(expected->os, actual->os) && str_eq(expected->arch, actual->arch)) return;
	const char *want = platform_text(c->a, platform_normal(c->a, expected)),
		   *have = platform_text(c->a, platform_normal(c->a, actual));
	lint_run(&c->lint, LINT_INVALID_BASE_IMAGE_PLATFORM, d->st.at, name, have, want);
}

/* ---- instructions --------------------------------------------------------------------------------------------------- */

static bool has_token(const char *key, const char *const *tokens, size_t n)
{
	for (const char *p = key;; p++) {
		for (size_t i = 0; i < n; i++) {
			size_t k = strlen(tokens[i]);
			if (strncasecmp(p, tokens[i], k) == 0 && (!p[k] || p[k] == '_')) return true;
		}
		p = strchr(p, '_');
		if (!p) return false;
	}
}

void validate_secret_key(const struct lint *l, const char *instruction, const char *key, struct ast_lines at)
{
	static const char *const deny[] = {"apikey",   "auth",  "credential", "credentials", "key",
					   "password", "pword", "passwd",     "secret",      "token"};
	static const char *const allow[] = {"public", "file", "version"};
	if (has_token(key, deny, array_len(deny)) && !has_token(key, allow, array_len(allow)))
		lint_run(l, LINT_SECRETS_USED_IN_ARG_OR_ENV, at, instruction, key);
}

void validate_used_once(const struct lint *l, const struct instr *in, struct tracker *t)
{
	if (t->set) lint_run(l, LINT_MULTIPLE_INSTRUCTIONS_DISALLOWED, t->at, in->name);
	*t = (struct tracker){.at = in->at, .set = true};
}

static bool root_ignored(const struct spec_patterns *p)
{
	for (size_t i = 0; i < spec_patterns_count(p); i++) {
		const char *s = spec_patterns_text(p, i);
		if (strcmp(s, "*") == 0 || strcmp(s, "**") == 0 || strcmp(s, "**/*") == 0) return true;
	}
	return false;
}

void validate_copy_source(const struct conv *c, const struct lint *l, const struct instr *in, const char *src)
{
	if (!c->ignore || spec_patterns_exclusions(c->ignore)) return;
	_cleanup_free_ char *clean = path_clean(src);
	if ((strcmp(clean, ".") == 0 || strcmp(clean, "/") == 0) && !root_ignored(c->ignore)) return;
	if (spec_patterns_match(c->ignore, clean, NULL) == 1)
		lint_run(l, LINT_COPY_IGNORED_FILE, in->at, in->kind == INSTR_ADD ? "Add" : "Copy", clean);
}

/* ---- cycles --------------------------------------------------------------------------------------------------------- */

enum { UNSEEN, ON_PATH, SEEN };
struct instr_path {
	const struct instr **v;
	size_t n, cap;
};

/* The commands that lead round the circle are put into *ret, the first one first. */
static bool visit(struct conv *c, struct stage *s, struct instr_path *path)
{
	if (s->visit == SEEN) return false;
	s->visit = ON_PATH;
	for (size_t i = 0; i < s->n_deps; i++) {
		struct stage *dep = s->deps[i].stage;
		vec_push(path, s->deps[i].by);
		if (dep->visit == ON_PATH || visit(c, dep, path)) return true;
		path->n--;
	}
	s->visit = SEEN;
	return false;
}

int validate_cycles(struct conv *c, struct err *e)
{
	struct instr_path path = {0};
	int r = 0;
	for (size_t i = 0; i < c->n_stages && !r; i++) {
		path.n = 0;
		if (!visit(c, c->stages[i], &path)) continue;
		r = err_set(e, CODE_UNKNOWN, "circular dependency detected on stage: %s", c->stages[i]->name);
		for (size_t k = 0; k < path.n; k++) ast_err_at(e, path.v[k]->at);
	}
	vec_fini(&path);
	return r;
}
