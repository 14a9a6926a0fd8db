/* Arguments of the whole file: the platform's, those before the first FROM, and what the outline tells of them.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/{platform,outline,convert}.go. */
#include "front/stage.h"

#include <string.h>

const char *env_shell_get(void *arg, const char *name) { return env_get(arg, name); }

int args_default(struct conv *c, const char *target)
{
	const struct spec_platform *bp = c->f->cfg.build_platform, *tp = c->target;
	_cleanup_free_ char *build = spec_platform_format_short(bp), *want = spec_platform_format(tp);
	const struct pair pairs[] = {
		{"BUILDPLATFORM", build},
		{"BUILDOS", bp->os},
		{"BUILDOSVERSION", bp->os_version},
		{"BUILDARCH", bp->arch},
		{"BUILDVARIANT", bp->variant},
		{"TARGETPLATFORM", want},
		{"TARGETOS", tp->os},
		{"TARGETOSVERSION", tp->os_version},
		{"TARGETARCH", tp->arch},
		{"TARGETVARIANT", tp->variant},
		{"TARGETSTAGE", *target ? target : "default"},
	};
	for (size_t i = 0; i < array_len(pairs); i++) {
		const char *over = map_get(&c->build_args, pairs[i].key);
		const char *v = over ? over : pairs[i].value ? pairs[i].value : "";
		c->global_args = env_add(c->a, c->global_args, pairs[i].key, v);
	}
	return 0;
}

/* ---- the outline's record ---- */

const struct arg_info *outline_arg(const struct outline *o, const char *key)
{
	for (size_t i = 0; i < o->n_args; i++)
		if (strcmp(o->args[i].key, key) == 0) return &o->args[i];
	return NULL;
}

void outline_put_arg(struct arena *a, struct outline *o, const struct arg_info *i)
{
	struct arg_info *old = (struct arg_info *)outline_arg(o, i->key);
	if (old)
		*old = *i;
	else
		LLB_PUSH(a, o->n_args, o->args, *i);
}

void outline_use(struct arena *a, struct outline *o, const char *key) { strs_add_once(a, &o->used, key); }

struct outline outline_clone(struct arena *a, const struct outline *o)
{
	struct outline c = {.used = strs_clone(a, &o->used)};
	for (size_t i = 0; i < o->n_args; i++) LLB_PUSH(a, c.n_args, c.args, o->args[i]);
	for (size_t i = 0; i < o->n_secrets; i++) LLB_PUSH(a, c.n_secrets, c.secrets, o->secrets[i]);
	for (size_t i = 0; i < o->n_sshs; i++) LLB_PUSH(a, c.n_sshs, c.sshs, o->sshs[i]);
	return c;
}

/* ---- ARG before FROM ---- */

static struct ast_strs deps_of(struct arena *a, const struct outline *o, const char *key, struct ast_strs matched)
{
	struct strs d = {0};
	bool self = false;
	for (size_t i = 0; i < matched.n; i++) {
		if (strcmp(matched.v[i], key) == 0)
			self = true;
		else
			strs_add_once(a, &d, matched.v[i]);
	}
	const struct arg_info *old = self ? outline_arg(o, key) : NULL;
	for (size_t i = 0; old && i < old->deps.n; i++) strs_add_once(a, &d, old->deps.v[i]);
	return (struct ast_strs){d.v, d.n};
}

static int meta_arg(struct conv *c, const struct instr *in, const struct instr_arg *arg, const struct map *build_args,
		    const struct env **env, struct outline *o, struct err *e)
{
	struct arg_info info = {.key = arg->key, .value = "", .doc = arg->doc, .at = in->at};
	const char *value = build_args ? map_get(build_args, arg->key) : NULL;
	if (!value && arg->value) {
		struct shell_result r;
		const struct shell_env se = env_shell(*env);
		if (shell_process(c->a, &c->shell, &se, arg->value, &r, e) < 0) return ast_err_at(e, in->at);
		value = r.word;
		info.deps = deps_of(c->a, o, arg->key, r.matched);
	}
	if (value) {
		*env = env_add(c->a, *env, arg->key, value);
		info.value = value;
	}
	outline_put_arg(c->a, o, &info);
	return 0;
}

int args_meta(struct conv *c, struct instr *const *cmds, size_t n, const struct map *build_args, const struct env **env,
	      struct outline *o, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < cmds[i]->arg.n; k++)
			if (meta_arg(c, cmds[i], &cmds[i]->arg.v[k], build_args, env, o, e) < 0) return -1;
	return 0;
}
