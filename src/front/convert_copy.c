/* COPY and ADD: from the context, from stages, from git and http, from heredocs; as a layer of its own with --link.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/convert_copy.go. */
#include "front/stage.h"

#include <string.h>

struct copying {
	struct conv *c;
	struct stage *d;
	const struct instr *in;
	const struct instr_copy *cp;
	const struct lint *lint;
	bool add, from_context;
	struct state source;
	const char *dest, *checksum, *name; /* name: of the vertices */
	enum instr_tri keep_git_dir;
	struct copy_opt base; /* owner, mode, excludes */
	struct actions actions;
};

/* ---- flags ---------------------------------------------------------------------------------------------------------- */

/* chmod's symbolic modes: who, operators, permissions; as github.com/tonistiigi/dchapes-mode reads them. */
static bool symbolic_mode(const char *s)
{
	for (;;) {
		s += strspn(s, "augo");
		if (!*s || !strchr("+-=", *s)) return false;
		while (*s && strchr("+-=", *s)) s += 1 + strspn(s + 1, "rstwXxugo");
		if (!*s) return true;
		if (*s != ',') return false;
		s++;
	}
}

static int parse_chmod(struct copying *x, struct err *e)
{
	const char *s = x->cp->chmod;
	uint64_t mode;
	if (!*s) return 0;
	x->base.has_mode = true;
	bool numeric = *s >= '0' && *s <= '9';
	if (go_uint(s, 8, 32, &mode, NULL) >= 0 ? mode <= 07777 : !numeric && symbolic_mode(s)) {
		if (numeric)
			x->base.mode = (uint32_t)mode;
		else
			x->base.mode_text = s;
		return 0;
	}
	if (!numeric) return err_set(e, CODE_UNKNOWN, "invalid syntax");
	return err_set(e, CODE_UNKNOWN, "invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", s);
}

static bool is_git(const char *src)
{
	_cleanup_spec_git_ref_ struct spec_git_ref g = {0};
	return spec_git_ref_parse(src, &g, NULL, NULL) >= 0;
}

static bool is_http(const char *src) { return (str_starts(src, "http://") || str_starts(src, "https://")) && !is_git(src); }

static int check_checksum(const struct copying *x, struct err *e)
{
	const struct ast_strs *s = &x->cp->sources;
	if (!*x->cp->checksum) return 0;
	if (!x->add) return err_set(e, CODE_UNKNOWN, "checksum can't be specified for COPY");
	if (s->n != 1) return err_set(e, CODE_UNKNOWN, "checksum can't be specified for multiple sources");
	if (!is_http(s->v[0]) && !is_git(s->v[0])) return err_set(e, CODE_UNKNOWN, "checksum requires HTTP(S) or Git sources");
	return 0;
}

static const char *relative_to_dir(struct conv *c, struct stage *d, const char *p, struct err *e)
{
	const char *os = d->platform->os;
	if (!(p = os_strip_drive(c->a, p, os, true, e))) {
		err_wrap(e, "removing drive letter");
		return NULL;
	}
	if (os_is_abs(c->a, p, os)) return os_normalize(c->a, "/", p, os, true, e);
	if (strcmp(p, ".") == 0 || !*p) p = "./";
	return os_normalize(c->a, d->state.dir, p, os, true, e);
}

/* ---- sources -------------------------------------------------------------------------------------------------------- */

static int copy_git(struct copying *x, const struct spec_git_ref *g, struct err *e)
{
	struct arena *a = x->c->a;
	if (!x->add) return err_set(e, CODE_UNKNOWN, "source can't be a git ref for COPY");
	if (x->keep_git_dir != INSTR_UNSET && g->keep_git_dir >= 0 && (x->keep_git_dir == INSTR_TRUE) != (g->keep_git_dir == 1))
		return err_set(e, CODE_UNKNOWN, "inconsistent keep-git-dir configuration");
	if (g->keep_git_dir >= 0) x->keep_git_dir = g->keep_git_dir ? INSTR_TRUE : INSTR_FALSE;
	if (*x->checksum && *g->checksum && strcmp(x->checksum, g->checksum) != 0) {
		_cleanup_free_ char *p = go_quote(x->checksum, strlen(x->checksum)),
				    *q = go_quote(g->checksum, strlen(g->checksum));
		return err_set(e, CODE_UNKNOWN, "checksum mismatch %s != %s", p, q);
	}
	if (*g->checksum) x->checksum = arena_strdup(a, g->checksum);
	struct note note = note_new(a);
	note_name(a, &note, x->name);
	const struct git_opt o = {
		.remote = g->remote,
		.ref = g->ref,
		.subdir = g->subdir,
		.checksum = x->checksum,
		.keep_git_dir = x->keep_git_dir == INSTR_TRUE,
		.skip_submodules = g->submodules == 0,
		.fetch_by_commit = g->fetch_by_commit,
	};
	struct copy_opt opt = x->base;
	opt.create_dest = true;
	action_copy(a, &x->actions, state_of(a, git_output(a, &o, &note)), "/", x->dest, &opt);
	return 0;
}

static const char *url_file(struct arena *a, const char *src)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(src, &u, NULL) < 0 || !*u.path) return "__unnamed__";
	_cleanup_free_ char *clean = path_clean(u.path);
	const char *base = path_base(clean);
	return *base && strcmp(base, ".") != 0 ? arena_strdup(a, base) : "__unnamed__";
}

static int copy_http(struct copying *x, const char *src, struct err *e)
{
	struct arena *a = x->c->a;
	if (!x->add) return err_set(e, CODE_UNKNOWN, "source can't be a URL for COPY");
	const char *file = url_file(a, src);
	if (*x->checksum && spec_digest_check(x->checksum, e) < 0) return -1;
	struct note note = note_new(a);
	note_name(a, &note, x->name);
	llb_meta_describe(a, note.meta, "com.docker.dockerfile.v1.command", ""); /* empty with the peer too */
	struct copy_opt opt = x->base;
	opt.create_dest = true;
	opt.unpack = x->cp->unpack == INSTR_TRUE;
	action_copy(a, &x->actions, state_of(a, http_output(a, src, file, x->checksum, &note)), file, x->dest, &opt);
	return 0;
}

static bool has_wildcards(const char *s)
{
	for (; *s; s++) {
		if (*s == '\\' && s[1])
			s++;
		else if (strchr("*?[", *s))
			return true;
	}
	return false;
}

static int split_parents(struct copying *x, const char **src, struct copy_opt *o, struct err *e)
{
	struct arena *a = x->c->a;
	const char *pivot = strstr(*src, "/./"), *os = x->d->platform->os;
	const char *pattern = pivot ? pivot + 3 : *src;
	*src = pivot ? arena_strndup(a, *src, (size_t)(pivot - *src)) : "/";
	if (!(pattern = os_normalize(a, "/", pattern, os, false, e))) return err_wrap(e, "removing drive letter");
	const char *p = *pattern == '/' ? pattern + 1 : pattern;
	LLB_PUSH(a, o->n_include, o->include, p);
	if (has_wildcards(*src) || has_wildcards(pattern)) return 0;
	const char *need = path_joined(a, *src, pattern);
	if (!(need = os_normalize(a, "/", need, os, false, e))) return err_wrap(e, "removing drive letter");
	LLB_PUSH(a, o->n_required, o->required, need);
	return 0;
}

static int copy_path(struct copying *x, const char *src, struct err *e)
{
	struct copy_opt o = x->base;
	if (x->from_context) validate_copy_source(x->c, x->lint, x->in, src);
	if (x->cp->parents && split_parents(x, &src, &o, e) < 0) return -1;
	if (!(src = os_normalize(x->c->a, "/", src, x->d->platform->os, false, e))) return err_wrap(e, "removing drive letter");
	o.follow_symlinks = o.contents_only = o.create_dest = o.wildcard = o.empty_wildcard = true;
	o.unpack = x->cp->unpack == INSTR_UNSET ? x->add : x->cp->unpack == INSTR_TRUE;
	action_copy(x->c->a, &x->actions, x->source, src, x->dest, &o);
	return 0;
}

static int copy_source(struct copying *x, const char *src, struct err *e)
{
	_cleanup_spec_git_ref_ struct spec_git_ref g = {0};
	_cleanup_err_ struct err err = ERR_INIT;
	bool git = false;
	int r = spec_git_ref_parse(src, &g, &git, &err);
	if (r < 0 && git) return err_move(e, &err);
	if (r >= 0 && !g.indistinguishable_from_local) return copy_git(x, &g, e);
	return is_http(src) ? copy_http(x, src, e) : copy_path(x, src, e);
}

static int copy_content(struct copying *x, const struct instr_content *f, struct err *e)
{
	struct arena *a = x->c->a;
	const char *path = os_strip_drive(a, f->path, x->d->platform->os, false, e);
	if (!path) return err_wrap(e, "removing drive letter");
	struct actions l = {0};
	struct note note = note_new(a);
	note_internal(a, &note, "preparing inline document");
	note.platform = x->d->platform;
	action_mkfile(a, &l, path, 0644, f->data, strlen(f->data));
	struct copy_opt o = x->base;
	o.create_dest = true;
	struct state st = state_file(a, state_scratch(), &l, &note);
	action_copy(a, &x->actions, st, os_to_slash(a, path, x->d->platform->os), x->dest, &o);
	return 0;
}

/* ---- the operation -------------------------------------------------------------------------------------------------- */

static const char *group_id(struct conv *c)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	struct hasher h;
	struct digest d;
	char id[ID_STR];
	hasher_init(&h);
	hasher_updates(&h, c->group_seed);
	hasher_update(&h, &c->n_groups, sizeof c->n_groups);
	hasher_final(&h, &d);
	c->n_groups++;
	for (int i = 0; i < ID_STR - 1; i++) id[i] = digits[d.b[i] % 36];
	id[ID_STR - 1] = 0;
	return arena_strdup(c->a, id);
}

static void put_linked(struct copying *x, const struct note *note, const char *text)
{
	struct conv *c = x->c;
	struct stage *d = x->d;
	const char *id = group_id(c);
	d->cmd_index--;
	const char *group = stage_prefix(c, d, text, d->platform, d->state.env);
	struct note copy = note_clone(c->a, note), merge = note_clone(c->a, note);
	copy.platform = d->platform;
	note_group(c->a, &copy, id, group, true);
	d->cmd_index--;
	note_group(c->a, &merge, id, group, false);
	note_name(c->a, &merge, stage_prefix(c, d, arena_printf(c->a, "LINK %s", text), d->platform, d->state.env));
	const struct state both[] = {d->state, state_file(c->a, state_scratch(), &x->actions, &copy)};
	struct state m = state_merge(c->a, both, 2, merge);
	d->state = state_with_output(c->a, d->state, m.out);
}

static const char *history(const struct copying *x)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const struct instr_copy *cp = x->cp;
	buf_adds(&b, x->add ? "ADD" : "COPY");
	if (cp->parents) buf_adds(&b, " --parents");
	if (*cp->chown) buf_addf(&b, " --chown=%s", cp->chown);
	if (*cp->chmod) buf_addf(&b, " --chmod=%s", cp->chmod);
	for (size_t i = 0; i < cp->sources.n; i++) buf_addf(&b, " %s", cp->sources.v[i]);
	for (size_t i = 0; i < cp->n_contents; i++) buf_addf(&b, " <<%s", cp->contents[i].path);
	buf_addf(&b, " %s # buildkit", cp->dest);
	return arena_strdup(x->c->a, buf_str(&b));
}

static int put_copy(struct copying *x, struct err *e)
{
	struct conv *c = x->c;
	struct stage *d = x->d;
	const struct instr_copy *cp = x->cp;
	if (!(x->dest = relative_to_dir(c, d, cp->dest, e))) return -1;
	if (*cp->chown) x->base.owner = chown_parse(c->a, cp->chown);
	x->base.exclude = cp->exclude.v;
	x->base.n_exclude = cp->exclude.n;
	if (parse_chmod(x, e) < 0 || check_checksum(x, e) < 0) return -1;
	const struct shell_env env = env_shell(d->state.env);
	const char *text = stage_expand_name(c, &c->shell, x->in->code, &env);
	x->name = stage_prefix(c, d, text, d->platform, d->state.env);
	for (size_t i = 0; i < cp->sources.n; i++)
		if (copy_source(x, cp->sources.v[i], e) < 0) return -1;
	for (size_t i = 0; i < cp->n_contents; i++)
		if (copy_content(x, &cp->contents[i], e) < 0) return -1;
	struct note note = stage_note(c, NULL, x->in->at);
	note.meta->ignore_cache = d->ignore_cache;
	note_name(c->a, &note, x->name);
	if (cp->link && !*cp->chmod)
		put_linked(x, &note, text);
	else
		d->state = state_file(c->a, d->state, &x->actions, &note);
	stage_commit(c, d, history(x), true);
	return 0;
}

static void note_paths(struct copying *x, struct stage *src)
{
	for (size_t i = 0; i < x->cp->sources.n; i++) {
		const char *p = x->cp->sources.v[i];
		if (x->add && (str_starts(p, "http://") || str_starts(p, "https://"))) continue;
		paths_add(x->c->a, src ? &src->paths->v : &x->d->ctx_paths, p);
	}
}

int dispatch_copy(struct conv *c, struct stage *d, const struct command *cmd, const struct lint *lint, struct err *e)
{
	struct copying x = {
		.c = c,
		.d = d,
		.in = cmd->in,
		.cp = &cmd->in->copy,
		.lint = lint,
		.add = cmd->in->kind == INSTR_ADD,
		.from_context = !cmd->n_sources,
		.source = state_of(c->a, &c->build_context),
		.checksum = cmd->in->copy.checksum,
		.keep_git_dir = cmd->in->copy.keep_git_dir,
	};
	struct stage *src = cmd->n_sources ? cmd->sources[0] : NULL;
	if (src && !src->dispatched) {
		_cleanup_free_ char *from = go_quote(x.cp->from, strlen(x.cp->from)),
				    *name = go_quote(d->name, strlen(d->name));
		return err_set(e, CODE_UNKNOWN, "cannot copy from stage %s, it needs to be defined before current stage %s",
			       from, name);
	}
	if (src) x.source = src->state;
	if (put_copy(&x, e) < 0) return -1;
	note_paths(&x, src);
	return 0;
}
