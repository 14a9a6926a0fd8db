/* RUN: the command line with its heredocs, mounts, network, security and limits.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/{convert,convert_runmount,convert_secrets,convert_ssh}.go. */
#include "front/stage.h"

#include <string.h>

struct run {
	struct conv *c;
	struct stage *d;
	const struct command *cmd;
	const struct instr *in;
	struct exec *x;
	const char *name; /* for people, still with variables */
	struct strs args;
};

/* ---- the command line ----------------------------------------------------------------------------------------------- */

static const char *summary(struct arena *a, const char *doc)
{
	_cleanup_free_ char *t = spec_trim(doc, strlen(doc));
	size_t n = strcspn(t, "\n");
	bool more = t[n] != 0;
	if (more && n && t[n - 1] == '\r') n--;
	return arena_printf(a, "%.*s%s", (int)n, t, more ? "..." : "");
}

/* A heredoc that begins with #! becomes a file that is run. */
static void run_script(struct run *r, const char *name, const char *data)
{
	struct arena *a = r->c->a;
	struct actions l = {0};
	struct note note = note_new(a);
	note_internal(a, &note, "preparing inline document");
	note.platform = r->d->platform;
	action_mkfile(a, &l, name, 0755, data, strlen(data));
	struct state st = state_file(a, state_scratch(), &l, &note);
	struct mount *m = exec_mount(a, r->x, "/dev/pipes/", st.out);
	m->selector = "/";
	m->readonly = true;
	r->args = (struct strs){0};
	strs_add(a, &r->args, path_joined(a, "/dev/pipes/", name));
}

static void run_one_heredoc(struct run *r, const struct instr_file_line *file)
{
	struct arena *a = r->c->a;
	const char *data = file->chomp ? ast_heredoc_chomp(a, file->data) : file->data;
	if (!str_eq(r->d->image.platform.os, "windows") && str_starts(data, "#!")) {
		run_script(r, file->name, data);
	} else {
		r->args = (struct strs){0};
		strs_add(a, &r->args, data);
	}
	r->name = arena_printf(a, "%s (%s)", r->name, summary(a, file->data));
}

static int run_heredocs(struct run *r, struct err *e)
{
	const struct instr_cmdline *l = &r->in->run.line;
	struct ast_heredoc doc;
	if (!l->n_files) return 0;
	if (l->args.n != 1 || !l->shell)
		return err_set(e, CODE_UNKNOWN, "parsing produced an invalid run command: %s",
			       go_list(r->c->a, l->args.v, l->args.n));
	if (ast_heredoc(r->c->a, l->args.v[0], &doc)) {
		run_one_heredoc(r, &l->files[0]);
		return 0;
	}
	_cleanup_buf_ struct buf b = BUF_INIT;
	buf_adds(&b, l->args.v[0]);
	for (size_t i = 0; i < l->n_files; i++) buf_addf(&b, "\n%s%s", l->files[i].data, l->files[i].name);
	r->args = (struct strs){0};
	strs_add(r->c->a, &r->args, buf_str(&b));
	return 0;
}

static void with_shell(struct run *r)
{
	static const char *const unix_shell[] = {"/bin/sh", "-c"}, *const windows_shell[] = {"cmd", "/S", "/C"};
	struct arena *a = r->c->a;
	const char *line = text_join(a, r->args.v, r->args.n, " ");
	struct strs v = strs_clone(a, &r->d->image.shell);
	bool win = str_eq(r->d->image.platform.os, "windows");
	for (size_t i = 0, n = v.n; !n && i < (win ? 3 : 2); i++) strs_add(a, &v, win ? windows_shell[i] : unix_shell[i]);
	strs_add(a, &v, line);
	r->args = v;
}

/* ---- mounts --------------------------------------------------------------------------------------------------------- */

static void note_mount(struct arena *a, struct mount_info **v, size_t *n, const char *id, bool required, struct ast_lines at)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp((*v)[i].id, id) == 0) return;
	struct mount_info m = {id, required, at};
	LLB_PUSH(a, *n, *v, m);
}

static int add_secret(struct run *r, const struct instr_mount *m, struct err *e)
{
	struct arena *a = r->c->a;
	const char *id = *m->source ? m->source : m->id;
	if (!*id && !*m->target) return err_set(e, CODE_UNKNOWN, "one of source, target required");
	if (!*id) {
		_cleanup_free_ char *clean = path_clean(m->target);
		id = arena_strdup(a, path_base(clean));
	}
	struct secret s = {.id = id, .mode = 0400, .optional = !m->required, .env = m->env};
	if (*m->target)
		s.target = m->target;
	else if (!m->env) {
		_cleanup_free_ char *clean = path_clean(id);
		s.target = arena_printf(a, "/run/secrets/%s", path_base(clean));
	}
	note_mount(a, &r->d->outline.secrets, &r->d->outline.n_secrets, id, m->required, r->in->at);
	if (m->has_mode) s.mode = m->mode;
	if (m->has_uid) s.uid = m->uid;
	if (m->has_gid) s.gid = m->gid;
	LLB_PUSH(a, r->x->n_secrets, r->x->secrets, s);
	return 0;
}

static int add_ssh(struct run *r, const struct instr_mount *m, struct err *e)
{
	if (*m->source) return err_set(e, CODE_UNKNOWN, "ssh does not support source");
	struct ssh s = {.id = m->id, .target = m->target, .mode = 0600, .optional = !m->required};
	note_mount(r->c->a, &r->d->outline.sshs, &r->d->outline.n_sshs, *m->id ? m->id : "default", m->required, r->in->at);
	if (m->has_mode) s.mode = m->mode;
	if (m->has_uid) s.uid = m->uid;
	if (m->has_gid) s.gid = m->gid;
	LLB_PUSH(r->c->a, r->x->n_sshs, r->x->sshs, s);
	return 0;
}

/* A directory of its own, so that the mount begins with the wanted owner and mode. */
static struct state owned_cache(struct arena *a, const struct instr_mount *m, struct state st)
{
	struct actions l = {0};
	struct note note = note_new(a);
	const struct chown owner = {
		.set = true,
		.has_user = true,
		.has_group = true,
		.uid = m->has_uid ? m->uid : 0,
		.gid = m->has_gid ? m->gid : 0,
	};
	note_internal(a, &note, "setting cache mount permissions");
	action_mkdir(a, &l, "/cache", m->has_mode ? m->mode : 0755, false, owner, -1);
	return state_file(a, st, &l, &note);
}

static const char *mount_target(struct run *r, const char *target)
{
	if (*target == '/') return target;
	return path_joined(r->c->a, path_joined(r->c->a, "/", r->d->state.dir), target);
}

static void cache_mount(struct run *r, struct mount *mt, const struct instr_mount *m)
{
	_cleanup_free_ char *clean = path_clean(m->target);
	mt->cache_id = arena_printf(r->c->a, "%s/%s", r->c->f->cfg.cache_ns, *m->id ? m->id : clean);
	mt->sharing = m->sharing == INSTR_PRIVATE  ? PB__CACHE_SHARING_OPT__PRIVATE
		      : m->sharing == INSTR_LOCKED ? PB__CACHE_SHARING_OPT__LOCKED
						   : PB__CACHE_SHARING_OPT__SHARED;
}

static int add_mount(struct run *r, const struct instr_mount *m, struct stage *src, struct err *e)
{
	struct arena *a = r->c->a;
	bool from_stage = *m->from || m->type == INSTR_CACHE;
	struct state st = state_of(a, &r->c->build_context);
	if (from_stage) {
		st = src->state;
		if (!src->dispatched) {
			_cleanup_free_ char *from = go_quote(m->from, strlen(m->from)),
					    *to = go_quote(m->target, strlen(m->target));
			return err_set(e, CODE_UNKNOWN,
				       "cannot mount from stage %s to %s, stage needs to be defined before current command",
				       from, to);
		}
	}
	if (m->type == INSTR_TMPFS) st = state_scratch();
	if (m->type == INSTR_SECRET) return add_secret(r, m, e);
	if (m->type == INSTR_SSH) return add_ssh(r, m, e);
	const char *target = mount_target(r, m->target);
	if (strcmp(target, "/") == 0) return err_set(e, CODE_UNKNOWN, "invalid mount target \"/\"");
	const char *selector = path_joined(a, "/", m->source);
	if (strcmp(selector, "/") == 0) {
		selector = NULL;
		if (m->has_uid || m->has_gid || m->has_mode) {
			st = owned_cache(a, m, st);
			selector = "/cache";
		}
	}
	struct mount *mt = exec_mount(a, r->x, target, st.out);
	mt->selector = selector;
	mt->tmpfs = m->type == INSTR_TMPFS;
	mt->tmpfs_size = mt->tmpfs ? m->size_bytes : 0;
	mt->readonly = m->readonly;
	mt->no_output = !m->readonly && m->type == INSTR_BIND;
	if (m->type == INSTR_CACHE) cache_mount(r, mt, m);
	paths_add(a, from_stage ? &src->paths->v : &r->d->ctx_paths, m->source);
	return 0;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------- */

static int set_modes(struct run *r, struct err *e)
{
	const struct instr_run *in = &r->in->run;
	if (strcmp(in->security, "insecure") == 0)
		r->x->security = PB__SECURITY_MODE__INSECURE;
	else if (strcmp(in->security, "sandbox") != 0)
		return err_set(e, CODE_UNKNOWN, "unsupported security mode \"%s\"", in->security);
	if (strcmp(in->network, "none") == 0)
		r->x->base.network = PB__NET_MODE__NONE;
	else if (strcmp(in->network, "host") == 0)
		r->x->base.network = PB__NET_MODE__HOST;
	else if (strcmp(in->network, "default") != 0)
		return err_set(e, CODE_UNKNOWN, "unsupported network mode \"%s\"", in->network);
	return 0;
}

static int set_devices(struct run *r, struct err *e)
{
	const struct instr_run *in = &r->in->run;
	if (in->n_devices && !r->c->f->labs)
		return err_set(e, CODE_UNKNOWN, "device feature is only supported in Dockerfile frontend 1.14.0-labs or later");
	for (size_t i = 0; i < in->n_devices; i++) {
		Pb__CDIDevice *d = llb_new(r->c->a, Pb__CDIDevice, pb__cdidevice__init);
		d->name = in->devices[i].name;
		d->optional = !in->devices[i].required;
		LLB_PUSH(r->c->a, r->x->n_devices, r->x->devices, d);
	}
	return 0;
}

static void set_limits(struct run *r, struct note *note)
{
	const struct front_config *cfg = &r->c->f->cfg;
	r->x->ulimits = cfg->ulimits;
	r->x->n_ulimits = cfg->n_ulimits;
	r->x->hosts = cfg->hosts;
	r->x->n_hosts = cfg->n_hosts;
	if (cfg->shm_size > 0) {
		struct mount *m = exec_mount(r->c->a, r->x, "/dev/shm", NULL);
		m->tmpfs = true;
		m->tmpfs_size = cfg->shm_size;
	}
	if (*cfg->cgroup_parent) r->x->cgroup_parent = cfg->cgroup_parent;
	note->meta->linux_resources = cfg->resources;
}

struct masked {
	const struct instr_run *run;
	const struct env *env;
};

/* Variables that come from secrets show as stars in the name. */
static const char *masked_get(void *arg, const char *name)
{
	const struct masked *m = arg;
	for (size_t i = 0; i < m->run->n_mounts; i++)
		if (m->run->mounts[i].type == INSTR_SECRET && m->run->mounts[i].env && strcmp(m->run->mounts[i].env, name) == 0)
			return "****";
	return env_get(m->env, name);
}

static const char *command_text(struct run *r)
{
	struct arena *a = r->c->a;
	struct strs args = {0}, keys = {0};
	for (size_t i = 0; i < r->d->n_build_args; i++) {
		const struct instr_arg *arg = &r->d->build_args[i];
		const char *v = env_get(r->d->state.env, arg->key);
		if (!v) v = arg->value ? arg->value : "";
		size_t k = 0;
		while (k < keys.n && strcmp(keys.v[k], arg->key) != 0) k++;
		const char *text = arena_printf(a, "%s=%s", arg->key, v);
		if (k < keys.n) {
			args.v[k] = text;
			continue;
		}
		strs_add(a, &keys, arg->key);
		LLB_PUSH(a, args.n, args.v, text);
	}
	const char *line = text_join(a, r->args.v, r->args.n, " ");
	if (!args.n) return line;
	return arena_printf(a, "|%zu %s %s", args.n, text_join(a, args.v, args.n, " "), line);
}

int dispatch_run(struct conv *c, struct stage *d, const struct command *cmd, struct err *e)
{
	struct run r = {.c = c, .d = d, .cmd = cmd, .in = cmd->in, .name = cmd->in->code};
	struct masked mask = {&cmd->in->run, d->state.env};
	const struct shell_env env = {masked_get, &mask};
	struct shell_opt opt = c->shell;
	struct strs line = strs_of(cmd->in->run.line.args);
	r.x = arena_new_of(c->a, struct exec);
	r.x->base = d->state;
	r.args = strs_clone(c->a, &line);
	strs_add_once(c->a, &d->paths->v, "/");
	if (run_heredocs(&r, e) < 0) return -1;
	if (cmd->in->run.line.shell) with_shell(&r);
	struct note note = stage_note(c, cmd->in->code, cmd->in->at);
	note.meta->ignore_cache = d->ignore_cache;
	r.x->args = r.args.v;
	r.x->n_args = r.args.n;
	r.x->proxy = c->proxy;
	for (size_t i = 0; i < cmd->in->run.n_mounts; i++)
		if (add_mount(&r, &cmd->in->run.mounts[i], cmd->sources[i], e) < 0) return -1;
	if (set_modes(&r, e) < 0 || set_devices(&r, e) < 0) return -1;
	opt.raw_quotes = opt.skip_unset = true;
	note_name(c->a, &note, stage_prefix(c, d, stage_expand_name(c, &opt, r.name, &env), d->state.platform, d->state.env));
	set_limits(&r, &note);
	const char *text = arena_printf(c->a, "RUN %s # buildkit", command_text(&r));
	struct state after = state_run(c->a, r.x, &note);
	d->state.out = after.out;
	if (after.out->platform) d->state = state_platform(c->a, d->state, after.out->platform);
	stage_commit(c, d, text, true);
	return 0;
}
