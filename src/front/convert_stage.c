/* The commands of a stage, one after the other: each changes the state, the image's config and its history.
 * A table says what each instruction does; RUN, COPY, ADD and EXPOSE have files of their own.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/convert.go. */
#include "front/stage.h"

#include <math.h>
#include <string.h>
#include <strings.h>

void paths_add(struct arena *a, struct strs *s, const char *path) { strs_add_once(a, s, path_joined(a, "/", path)); }

struct note stage_note(struct conv *c, const char *command, struct ast_lines at)
{
	struct note n = note_new(c->a);
	if (command) llb_meta_describe(c->a, n.meta, "com.docker.dockerfile.v1.command", command);
	n.file = &c->f->file;
	n.ranges = ranges_of(c->a, at, &n.n_ranges);
	return n;
}

void stage_commit(struct conv *c, struct stage *d, const char *created_by, bool layer)
{
	image_commit(c->a, &d->image, arena_strdup(c->a, created_by), layer, c->epoch);
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

static const char *upper_first(struct arena *a, const char *s)
{
	char *u = arena_strdup(a, s);
	for (char *p = u; *p && *p != ' '; p++)
		if (*p >= 'a' && *p <= 'z') *p += 'A' - 'a';
	return u;
}

const char *stage_expand_name(struct conv *c, const struct shell_opt *o, const char *text, const struct shell_env *env)
{
	const char *w;
	return upper_first(c->a, shell_word(c->a, o, env, text, &w, NULL) < 0 ? text : w);
}

/* The platform that TARGET* variables name. */
static bool env_platform(struct conv *c, const struct env *env, struct spec_platform *ret)
{
	struct keys k = env_keys(c->a, env);
	bool set = false;
	for (size_t i = 0; i < k.n; i++) {
		const char *v = env_get(env, k.v[i]);
		if (strcmp(k.v[i], "TARGETPLATFORM") == 0) {
			_cleanup_spec_platform_ struct spec_platform p = {0};
			if (spec_platform_parse(v, &p, NULL) < 0) continue;
			*ret = *platform_dup(c->a, &p);
			return true;
		}
		char **to = strcmp(k.v[i], "TARGETOS") == 0        ? &ret->os
			    : strcmp(k.v[i], "TARGETARCH") == 0    ? &ret->arch
			    : strcmp(k.v[i], "TARGETVARIANT") == 0 ? &ret->variant
								   : NULL;
		if (!to) continue;
		*to = arena_strdup(c->a, v);
		set = true;
	}
	return set;
}

/* "->arm64" when the stage builds for another platform than it runs on. */
static const char *cross_text(struct conv *c, const struct spec_platform *base, const struct env *env)
{
	struct spec_platform want = {.os = (char *)"", .arch = (char *)"", .variant = (char *)"", .os_version = (char *)""};
	if (!env_platform(c, env, &want)) return "";
	if (!*want.os) want.os = base->os;
	if (!*want.arch) want.arch = base->arch;
	const struct spec_platform *p = platform_normal(c->a, &want);
	if (!str_eq(p->os, base->os)) return arena_printf(c->a, "->%s", platform_text(c->a, p));
	if (str_eq(p->arch, base->arch)) return "";
	return arena_printf(c->a, "->%s%s%s", p->arch, *p->variant ? "/" : "", p->variant);
}

const char *stage_prefix(struct conv *c, struct stage *d, const char *text, const struct spec_platform *p,
			 const struct env *env)
{
	const char *plat = "", *name = "";
	if (!d->cmd_total) return text;
	if (c->f->cfg.multi_platform && p && !d->unregistered)
		plat = arena_printf(c->a, "%s%s ", platform_text(c->a, p), cross_text(c, p, env));
	if (*d->name) name = arena_printf(c->a, "%s ", d->name);
	d->cmd_index++;
	return arena_printf(c->a, "[%s%s%*d/%d] %s%s", plat, name, (int)(1 + log10(d->cmd_total)), d->cmd_index, d->cmd_total,
			    d->cmd_onbuild ? "ONBUILD " : "", text);
}

/* ---- expansion ------------------------------------------------------------------------------------------------------ */

void stage_unmatched(struct conv *c, struct stage *d, const struct lint *lint, const struct instr *in, const struct env *env,
		     struct ast_strs unmatched)
{
	for (size_t i = 0; i < unmatched.n; i++) {
		const char *name = unmatched.v[i];
		bool known = strcmp(name, "BUILDKIT_SBOM_SCAN_CONTEXT") == 0 || strcmp(name, "BUILDKIT_SBOM_SCAN_STAGE") == 0;
		for (size_t k = 0; k < d->n_build_args && !known; k++) known = strcmp(d->build_args[k].key, name) == 0;
		if (known) continue;
		struct keys keys = env_keys(c->a, env);
		const char *near = lint_suggest(c->a, name, keys.v, keys.n, true);
		lint_run(lint, LINT_UNDEFINED_VAR, in->at, name, lint_mean(c->a, "$", near));
	}
}

struct expander {
	struct conv *c;
	struct stage *d;
	const struct lint *lint;
	const struct instr *in;
	const struct shell_opt *opt;
};

static int expand(void *arg, const char *word, const char **ret, struct err *e)
{
	struct expander *x = arg;
	struct shell_result r = {0};
	const struct env *env = x->d->state.env;
	const struct shell_env se = env_shell(env);
	int ok = shell_process(x->c->a, x->opt, &se, word, &r, e);
	stage_unmatched(x->c, x->d, x->lint, x->in, env, r.unmatched);
	if (ok < 0) return -1;
	*ret = r.word;
	return 0;
}

static int expand_all(struct conv *c, struct stage *d, struct instr *in, const struct lint *lint, struct err *e)
{
	static const struct shell_opt raw = {.escape = '\\', .skip_quotes = true};
	struct expander x = {c, d, lint, in, &c->shell};
	/* the value of an ARG may not count, so it is expanded later */
	if (in->kind != INSTR_ARG && instr_expand(c->a, in, expand, &x, e) < 0) return -1;
	x.opt = &raw;
	return instr_expand_raw(c->a, in, expand, &x, e);
}

/* ---- instructions --------------------------------------------------------------------------------------------------- */

struct step {
	struct conv *c;
	struct stage *d;
	const struct command *cmd;
	struct instr *in;
	const struct lint *lint;
};

static const char *kv_text(struct arena *a, const char *word, const struct instr_kv *v, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_adds(&b, word);
	for (size_t i = 0; i < n; i++) buf_addf(&b, " %s=%s", v[i].key, v[i].value);
	return arena_strdup(a, buf_str(&b));
}

static int do_env(const struct step *s, struct err *e)
{
	for (size_t i = 0; i < s->in->kv.n; i++) {
		const struct instr_kv *kv = &s->in->kv.v[i];
		if (kv->no_delim) lint_run(s->lint, LINT_LEGACY_KEY_VALUE_FORMAT, s->in->at, s->in->name, s->in->name);
		validate_secret_key(s->lint, "ENV", kv->key, s->in->at);
		s->d->state = state_env(s->c->a, s->d->state, kv->key, kv->value);
		image_env(s->c->a, &s->d->image, kv->key, kv->value);
	}
	stage_commit(s->c, s->d, kv_text(s->c->a, "ENV", s->in->kv.v, s->in->kv.n), false);
	return 0;
}

static int do_label(const struct step *s, struct err *e)
{
	for (size_t i = 0; i < s->in->kv.n; i++) {
		const struct instr_kv *kv = &s->in->kv.v[i];
		if (kv->no_delim) lint_run(s->lint, LINT_LEGACY_KEY_VALUE_FORMAT, s->in->at, s->in->name, s->in->name);
		image_label(s->c->a, &s->d->image, kv->key, kv->value);
	}
	stage_commit(s->c, s->d, kv_text(s->c->a, "LABEL", s->in->kv.v, s->in->kv.n), false);
	return 0;
}

static int do_maintainer(const struct step *s, struct err *e)
{
	s->d->image.author = s->in->text;
	stage_commit(s->c, s->d, arena_printf(s->c->a, "MAINTAINER %s", s->in->text), false);
	return 0;
}

static int do_onbuild(const struct step *s, struct err *e)
{
	strs_add(s->c->a, &s->d->image.onbuild, s->in->text);
	return 0;
}

static struct strs cmdline(const struct step *s)
{
	const struct instr_cmdline *l = &s->in->line;
	struct image *img = &s->d->image;
	if (!l->shell) {
		struct strs in = strs_of(l->args);
		return strs_clone(s->c->a, &in);
	}
	if (!img->shell.n) lint_run(s->lint, LINT_JSON_ARGS_RECOMMENDED, s->in->at, s->in->name);
	struct strs v = strs_clone(s->c->a, &img->shell);
	if (!v.n && str_eq(img->platform.os, "windows")) {
		strs_add(s->c->a, &v, "cmd");
		strs_add(s->c->a, &v, "/S");
		strs_add(s->c->a, &v, "/C");
	} else if (!v.n) {
		strs_add(s->c->a, &v, "/bin/sh");
		strs_add(s->c->a, &v, "-c");
	}
	strs_add(s->c->a, &v, text_join(s->c->a, l->args.v, l->args.n, " "));
	return v;
}

static int do_cmd(const struct step *s, struct err *e)
{
	validate_used_once(s->lint, s->in, &s->d->cmd);
	struct strs v = s->d->image.cmd = cmdline(s);
	s->d->image.args_escaped = true;
	stage_commit(s->c, s->d, arena_printf(s->c->a, "CMD %s", go_quoted_list(s->c->a, v.v, v.n)), false);
	return 0;
}

static int do_entrypoint(const struct step *s, struct err *e)
{
	validate_used_once(s->lint, s->in, &s->d->entrypoint);
	struct strs v = s->d->image.entrypoint = cmdline(s);
	if (!s->d->cmd.set) s->d->image.cmd = (struct strs){0};
	stage_commit(s->c, s->d, arena_printf(s->c->a, "ENTRYPOINT %s", go_quoted_list(s->c->a, v.v, v.n)), false);
	return 0;
}

static int do_healthcheck(const struct step *s, struct err *e)
{
	const struct instr_health *h = &s->in->health;
	struct arena *a = s->c->a;
	validate_used_once(s->lint, s->in, &s->d->healthcheck);
	struct image_health *x = s->d->image.health = arena_new_of(a, struct image_health);
	*x = (struct image_health){
		.test = strs_of(h->test),
		.interval = h->interval_ns,
		.timeout = h->timeout_ns,
		.start_period = h->start_period_ns,
		.start_interval = h->start_interval_ns,
		.retries = h->retries,
	};
	stage_commit(s->c, s->d,
		     arena_printf(a, "HEALTHCHECK {Test:%s Interval:%s Timeout:%s StartPeriod:%s StartInterval:%s Retries:%d}",
				  go_list(a, h->test.v, h->test.n), go_duration(a, h->interval_ns),
				  go_duration(a, h->timeout_ns), go_duration(a, h->start_period_ns),
				  go_duration(a, h->start_interval_ns), h->retries),
		     false);
	return 0;
}

static int do_user(const struct step *s, struct err *e)
{
	s->d->state.user = s->d->image.user = s->in->text;
	stage_commit(s->c, s->d, arena_printf(s->c->a, "USER %s", s->in->text), false);
	return 0;
}

static int do_volume(const struct step *s, struct err *e)
{
	const struct ast_strs *w = &s->in->words;
	for (size_t i = 0; i < w->n; i++) {
		if (!*w->v[i]) return err_set(e, CODE_UNKNOWN, "VOLUME specified can not be an empty string");
		strs_add_once(s->c->a, &s->d->image.volumes, w->v[i]);
	}
	stage_commit(s->c, s->d, arena_printf(s->c->a, "VOLUME %s", go_list(s->c->a, w->v, w->n)), false);
	return 0;
}

static bool signal_valid(const char *s)
{
	static const char *const names[] = {"ABRT", "ALRM", "BUS",   "CHLD", "CLD",  "CONT",  "FPE",   "HUP",    "ILL",
					    "INT",  "IO",   "IOT",   "KILL", "PIPE", "POLL",  "PROF",  "PWR",    "QUIT",
					    "SEGV", "STOP", "SYS",   "TERM", "TRAP", "TSTP",  "TTIN",  "TTOU",   "URG",
					    "USR1", "USR2", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX", "VTALRM", "STKFLT"};
	int64_t n;
	if (go_int(s, 10, 64, &n, NULL) >= 0) return n != 0;
	if (strncasecmp(s, "SIG", 3) == 0) s += 3;
	for (size_t i = 0; i < array_len(names); i++)
		if (strcasecmp(s, names[i]) == 0) return true;
	bool min = strncasecmp(s, "RTMIN+", 6) == 0, max = strncasecmp(s, "RTMAX-", 6) == 0;
	if ((!min && !max) || s[6] == '0' || s[6] == '+' || s[6] == '-' || go_int(s + 6, 10, 64, &n, NULL) < 0) return false;
	return n >= 1 && n <= (min ? 15 : 14);
}

static int do_stopsignal(const struct step *s, struct err *e)
{
	if (!signal_valid(s->in->text)) return err_set(e, CODE_UNKNOWN, "invalid signal: %s", s->in->text);
	s->d->image.stop_signal = s->in->text;
	stage_commit(s->c, s->d, arena_printf(s->c->a, "STOPSIGNAL %s", s->in->text), false);
	return 0;
}

static int do_shell(const struct step *s, struct err *e)
{
	s->d->image.shell = strs_of(s->in->words);
	stage_commit(s->c, s->d, arena_printf(s->c->a, "SHELL %s", go_list(s->c->a, s->in->words.v, s->in->words.n)), false);
	return 0;
}

static int one_arg(const struct step *s, struct instr_arg *arg, struct err *e)
{
	struct conv *c = s->c;
	struct stage *d = s->d;
	const char *given = map_get(&c->build_args, arg->key);
	const char *inherited = !given && !arg->value ? env_get(c->global_args, arg->key) : NULL;
	validate_secret_key(s->lint, "ARG", arg->key, s->in->at);
	if (given) {
		arg->value = given;
	} else if (inherited) {
		arg->value = inherited;
	} else if (arg->value) {
		struct expander x = {c, d, s->lint, s->in, &c->shell};
		if (expand(&x, arg->value, &arg->value, e) < 0) return -1;
	}
	bool env = strcmp(arg->key, "BUILDKIT_SBOM_SCAN_CONTEXT") != 0 && strcmp(arg->key, "BUILDKIT_SBOM_SCAN_STAGE") != 0;
	if (arg->value && env) d->state = state_env(c->a, d->state, arg->key, arg->value);
	const struct arg_info info = {.key = arg->key, .value = arg->value ? arg->value : "", .doc = arg->doc, .at = s->in->at};
	if (!inherited) outline_put_arg(c->a, &d->outline, &info);
	outline_use(c->a, &d->outline, arg->key);
	LLB_PUSH(c->a, d->n_build_args, d->build_args, *arg);
	return 0;
}

static int do_arg(const struct step *s, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_adds(&b, "ARG");
	if (!s->in->arg.n) buf_addc(&b, ' ');
	for (size_t i = 0; i < s->in->arg.n; i++) {
		struct instr_arg arg = s->in->arg.v[i];
		if (one_arg(s, &arg, e) < 0) return -1;
		buf_addf(&b, " %s%s%s", arg.key, arg.value ? "=" : "", arg.value ? arg.value : "");
	}
	stage_commit(s->c, s->d, buf_str(&b), false);
	return 0;
}

static int do_workdir(const struct step *s, struct err *e)
{
	return dispatch_workdir(s->c, s->d, s->in, s->in->text, true, s->lint, e);
}

static int make_workdir(struct conv *c, struct stage *d, const struct instr *in, const char *wd)
{
	struct actions l = {0};
	struct chown owner = {0};
	const struct shell_env env = env_shell(d->state.env);
	if (*d->image.user) owner = chown_parse(c->a, d->image.user);
	action_mkdir(c->a, &l, wd, 0755, true, owner, c->epoch ? c->epoch_s * 1000000000 + c->epoch_ns : -1);
	struct note note = stage_note(c, NULL, in->at);
	note.platform = d->platform;
	note_name(c->a, &note, stage_prefix(c, d, stage_expand_name(c, &c->shell, in->code, &env), d->platform, d->state.env));
	d->state = state_file(c->a, d->state, &l, &note);
	return 0;
}

int dispatch_workdir(struct conv *c, struct stage *d, const struct instr *in, const char *path, bool commit,
		     const struct lint *lint, struct err *e)
{
	const char *os = d->platform->os;
	if (commit) {
		if (!d->workdir_set && !os_is_abs(c->a, path, os)) lint_run(lint, LINT_WORKDIR_RELATIVE_PATH, in->at, path);
		d->workdir_set = true;
	}
	const char *wd = os_workdir(c->a, d->image.working_dir, path, os, e);
	if (!wd) return err_wrap(e, "normalizing workdir");
	d->image.working_dir = wd;
	wd = os_to_slash(c->a, wd, os);
	d->state = state_dir(c->a, d->state, wd);
	if (!commit) return 0;
	bool layer = strcmp(wd, "/") != 0;
	if (layer) make_workdir(c, d, in, wd);
	stage_commit(c, d, arena_printf(c->a, "WORKDIR %s", wd), layer);
	return 0;
}

static int do_run(const struct step *s, struct err *e) { return dispatch_run(s->c, s->d, s->cmd, e); }
static int do_copy(const struct step *s, struct err *e) { return dispatch_copy(s->c, s->d, s->cmd, s->lint, e); }
static int do_expose(const struct step *s, struct err *e) { return dispatch_expose(s->c, s->d, s->in, s->lint, e); }

int stage_dispatch(struct conv *c, struct stage *d, struct err *e)
{
	static int (*const todo[INSTR_KINDS])(const struct step *, struct err *) = {
		[INSTR_ADD] = do_copy,
		[INSTR_ARG] = do_arg,
		[INSTR_CMD] = do_cmd,
		[INSTR_COPY] = do_copy,
		[INSTR_ENTRYPOINT] = do_entrypoint,
		[INSTR_ENV] = do_env,
		[INSTR_EXPOSE] = do_expose,
		[INSTR_HEALTHCHECK] = do_healthcheck,
		[INSTR_LABEL] = do_label,
		[INSTR_MAINTAINER] = do_maintainer,
		[INSTR_ONBUILD] = do_onbuild,
		[INSTR_RUN] = do_run,
		[INSTR_SHELL] = do_shell,
		[INSTR_STOPSIGNAL] = do_stopsignal,
		[INSTR_USER] = do_user,
		[INSTR_VOLUME] = do_volume,
		[INSTR_WORKDIR] = do_workdir,
	};
	for (size_t i = 0; i < d->n_commands; i++) {
		struct command *cmd = &d->commands[i];
		const struct lint l = lint_with_comments(&c->lint, cmd->in->comments);
		const struct step s = {c, d, cmd, cmd->in, &l};
		d->cmd_onbuild = cmd->onbuild;
		if (expand_all(c, d, cmd->in, &l, e) < 0 || (todo[cmd->in->kind] && todo[cmd->in->kind](&s, e) < 0))
			return ast_err_at(e, cmd->in->at);
	}
	return 0;
}
