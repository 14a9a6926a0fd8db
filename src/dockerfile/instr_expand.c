/* Expansion of variables in the fields of a command, in place.
 *
 * Which fields, and in which order, is the peer's: the expander reports variables that are not defined. What is not here
 * (RUN's command line, CMD, ENTRYPOINT, EXPOSE, HEALTHCHECK, SHELL) is not expanded, or the conversion does it. */
#include "dockerfile/instr.h"

#include <string.h>

struct expansion {
	struct arena *a;
	instr_expand_fn *fn;
	void *arg;
	struct err *e;
};

static int one(struct expansion *x, const char **s) { return x->fn(x->arg, *s, s, x->e); }

static int each(struct expansion *x, struct ast_strs *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (one(x, &s->v[i]) < 0) return -1;
	return 0;
}

static int expand_pairs(struct expansion *x, struct instr *c)
{
	for (size_t i = 0; !c->kv.no_expand && i < c->kv.n; i++)
		if (one(x, &c->kv.v[i].key) < 0 || one(x, &c->kv.v[i].value) < 0) return -1;
	return 0;
}

static int expand_args(struct expansion *x, struct instr *c)
{
	for (size_t i = 0; i < c->arg.n; i++) {
		if (one(x, &c->arg.v[i].key) < 0) return -1;
		if (c->arg.v[i].value && one(x, &c->arg.v[i].value) < 0) return -1;
	}
	return 0;
}

static int expand_copy(struct expansion *x, struct instr *c)
{
	struct instr_copy *k = &c->copy;
	if (one(x, &k->chown) < 0 || one(x, &k->chmod) < 0) return -1;
	if (c->kind == INSTR_ADD && one(x, &k->checksum) < 0) return -1;
	return each(x, &k->sources) < 0 ? -1 : one(x, &k->dest);
}

static int expand_run(struct expansion *x, struct instr *c)
{
	for (size_t i = 0; i < c->run.n_mounts; i++)
		if (instr_mount_parse(x->a, c->run.mount_flags.v[i], x->fn, x->arg, &c->run.mounts[i], x->e) < 0) return -1;
	return 0;
}

static int expand_words(struct expansion *x, struct instr *c) { return each(x, &c->words); }
static int expand_text(struct expansion *x, struct instr *c) { return one(x, &c->text); }

static int (*const expansions[INSTR_KINDS])(struct expansion *x, struct instr *c) = {
	[INSTR_ADD] = expand_copy,        [INSTR_ARG] = expand_args,    [INSTR_COPY] = expand_copy,
	[INSTR_ENV] = expand_pairs,       [INSTR_LABEL] = expand_pairs, [INSTR_RUN] = expand_run,
	[INSTR_STOPSIGNAL] = expand_text, [INSTR_USER] = expand_text,   [INSTR_VOLUME] = expand_words,
	[INSTR_WORKDIR] = expand_text,
};

bool instr_expands(const struct instr *cmd) { return expansions[cmd->kind] != NULL; }

int instr_expand(struct arena *a, struct instr *cmd, instr_expand_fn *fn, void *arg, struct err *e)
{
	struct expansion x = {a, fn, arg, e};
	return expansions[cmd->kind] ? expansions[cmd->kind](&x, cmd) : 0;
}

int instr_expand_raw(struct arena *a, struct instr *cmd, instr_expand_fn *fn, void *arg, struct err *e)
{
	struct expansion x = {a, fn, arg, e};
	if (cmd->kind != INSTR_ADD && cmd->kind != INSTR_COPY) return 0;
	for (size_t i = 0; i < cmd->copy.n_contents; i++)
		if (cmd->copy.contents[i].expand && one(&x, &cmd->copy.contents[i].data) < 0) return -1;
	return 0;
}
