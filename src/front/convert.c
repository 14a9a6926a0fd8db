/* The conversion of one platform: stages from FROM lines, who needs whom, base images, dispatching, the result's image.
 * See stage.h. Source: BuildKit frontend/dockerfile/dockerfile2llb/{convert,convert_runmount}.go. */
#include "front/stage.h"

#include <stdatomic.h>
#include <string.h>
#include <strings.h>

#define SCRATCH "scratch"

static int fail_at(struct err *e, struct ast_lines at) { return ast_err_at(e, at); }

static const char *lower(struct arena *a, const char *s)
{
	char *c = arena_strdup(a, s);
	for (char *p = c; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p += 'a' - 'A';
	return c;
}

/* ---- stages --------------------------------------------------------------------------------------------------------- */

static struct stage *stage_new(struct conv *c, const char *base, struct ast_lines at)
{
	struct stage *d = arena_new_of(c->a, struct stage);
	d->st = (struct instr_stage){.name = "", .base = base, .platform = "", .orig_cmd = "", .doc = "", .code = "", .at = at};
	d->name = "";
	d->state = state_scratch();
	d->image = image_zero();
	d->paths = arena_new_of(c->a, struct paths);
	return d;
}

static int stage_add(struct conv *c, struct stage *d, struct err *e)
{
	if (c->n_stages >= MAX_STAGES)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "more than %d stages in the Dockerfile", MAX_STAGES);
	LLB_PUSH(c->a, c->n_stages, c->stages, d);
	struct stage *base = map_get(&c->by_name, d->st.base);
	if (base) {
		d->base = base;
		d->outline = outline_clone(c->a, &base->outline);
	}
	if (*d->st.name) map_put(&c->by_name, lower(c->a, d->st.name), d);
	return 0;
}

struct stage *conv_stage_find(const struct conv *c, const char *name)
{
	_cleanup_free_ char *low = xstrdup(name);
	for (char *p = low; *p; p++)
		if (*p >= 'A' && *p <= 'Z') *p += 'a' - 'A';
	return map_get(&c->by_name, low);
}

static void add_dep(struct conv *c, struct stage *d, struct stage *on, const struct instr *by)
{
	for (size_t i = 0; i < d->n_deps; i++) {
		if (d->deps[i].stage != on) continue;
		d->deps[i].by = by;
		return;
	}
	struct dep x = {on, by};
	LLB_PUSH(c->a, d->n_deps, d->deps, x);
}

/* ---- FROM lines ----------------------------------------------------------------------------------------------------- */

static struct strs all_arg_names(struct conv *c)
{
	struct strs s = {0};
	struct keys k = env_keys(c->a, c->global_args);
	for (size_t i = 0; i < c->outline.n_args; i++) strs_add_once(c->a, &s, c->outline.args[i].key);
	for (size_t i = 0; i < k.n; i++) strs_add_once(c->a, &s, k.v[i]);
	return s;
}

static void warn_undeclared(struct conv *c, struct ast_strs unmatched, struct ast_lines at, const struct lint *l)
{
	if (!unmatched.n) return;
	struct strs names = all_arg_names(c);
	for (size_t i = 0; i < unmatched.n; i++) {
		bool known = false;
		for (size_t k = 0; k < names.n; k++) known |= strcmp(names.v[k], unmatched.v[i]) == 0;
		if (known) continue;
		const char *near = lint_suggest(c->a, unmatched.v[i], names.v, names.n, true);
		lint_run(l, LINT_UNDEFINED_ARG_IN_FROM, at, unmatched.v[i], lint_mean(c->a, "", near));
	}
}

static bool has_word(struct ast_strs s, const char *w)
{
	for (size_t i = 0; i < s.n; i++)
		if (strcmp(s.v[i], w) == 0) return true;
	return false;
}

static void warn_platform(struct conv *c, const struct instr_stage *st, const struct shell_result *r, const struct lint *l)
{
	_cleanup_spec_platform_ struct spec_platform p = {0};
	if (r->matched.n == 1 && !r->unmatched.n && has_word(r->matched, "TARGETPLATFORM") &&
	    strcmp(r->word, env_get(c->global_args, "TARGETPLATFORM")) == 0)
		lint_run(l, LINT_REDUNDANT_TARGET_PLATFORM, st->at, st->platform);
	if (r->matched.n || r->unmatched.n || spec_platform_parse(r->word, &p, NULL) < 0) return;
	if (strstr(st->name, p.os) || strstr(st->name, p.arch)) return;
	lint_run(l, LINT_FROM_PLATFORM_FLAG_CONST_DISALLOWED, st->at, r->word);
}

/* The platform's name was probably meant to be one of the arguments. */
static int mean_arg(struct conv *c, struct ast_strs unmatched, struct err *e)
{
	struct keys k = env_keys(c->a, c->global_args);
	for (size_t i = 0; i < unmatched.n; i++) {
		const char *near = lint_suggest(c->a, unmatched.v[i], k.v, k.n, true);
		if (near) return err_mean(e, near);
	}
	return -1;
}

static int from_platform(struct conv *c, struct stage *d, struct strs *used, const struct lint *l, struct err *e)
{
	const struct instr_stage *st = &d->st;
	const struct shell_env env = env_shell(c->global_args);
	struct shell_result r = {0};
	_cleanup_spec_platform_ struct spec_platform p = {0};
	if (!*st->platform) return 0;
	int ok = shell_process(c->a, &c->shell, &env, st->platform, &r, e);
	warn_undeclared(c, r.unmatched, st->at, l);
	if (ok < 0) {
		err_wrap(e, "failed to process arguments for platform ");
		return fail_at(e, st->at);
	}
	warn_platform(c, st, &r, l);
	if (!*r.word) {
		err_set(e, CODE_UNKNOWN, "empty platform value from expression %s", st->platform);
		fail_at(e, st->at);
		return mean_arg(c, r.unmatched, e);
	}
	if (spec_platform_parse(r.word, &p, e) < 0) {
		fail_at(e, st->at);
		mean_arg(c, r.unmatched, e);
		err_wrap(e, "failed to parse platform %s", st->platform);
		return fail_at(e, st->at);
	}
	for (size_t i = 0; i < r.matched.n; i++) strs_add_once(c->a, used, r.matched.v[i]);
	d->platform = platform_dup(c->a, &p);
	return 0;
}

static int from_base(struct conv *c, struct stage *d, struct strs *used, const struct lint *l, struct err *e)
{
	const struct shell_env env = env_shell(c->global_args);
	struct shell_result r = {0};
	int ok = shell_process(c->a, &c->shell, &env, d->st.base, &r, e);
	warn_undeclared(c, r.unmatched, d->st.at, l);
	if (ok < 0) return fail_at(e, d->st.at);
	if (!*r.word) {
		err_set(e, CODE_UNKNOWN, "base name (%s) should not be blank", d->st.base);
		return fail_at(e, d->st.at);
	}
	for (size_t i = 0; i < r.matched.n; i++) strs_add_once(c->a, used, r.matched.v[i]);
	d->st.base = r.word;
	return 0;
}

static void filter_paths(struct arena *a, const struct strs *in, struct strs *ret);

static void stage_paths(struct arena *a, void *arg, struct strs *ret)
{
	const struct stage *d = arg;
	filter_paths(a, &d->paths->v, ret);
}

/* A context by that name, unless the name has a meaning of its own. *ret NULL: none. */
static int find_context(struct conv *c, struct stage *d, const char *name, const struct spec_platform *p, struct named **ret,
			struct err *e)
{
	*ret = NULL;
	if (strcasecmp(name, SCRATCH) == 0 || strcasecmp(name, "context") == 0) return 0;
	if (!p && !c->implicit_target) p = c->target;
	if (named_find(c->f, name, p, ret, e) < 0) return -1;
	if (!*ret) return 0;
	(*ret)->resolve_mode = c->f->cfg.resolve_mode;
	(*ret)->paths = stage_paths;
	(*ret)->arg = d;
	return 0;
}

static int count_steps(const struct stage *d)
{
	int n = strcmp(d->st.base, SCRATCH) != 0 && !d->base;
	for (size_t i = 0; i < d->st.n_commands; i++) {
		enum instr_kind k = d->st.commands[i]->kind;
		n += k == INSTR_ADD || k == INSTR_COPY || k == INSTR_RUN || k == INSTR_WORKDIR;
	}
	return n;
}

static int make_stage(struct conv *c, const struct instr_stage *st, size_t index, struct err *e)
{
	const struct lint l = lint_with_comments(&c->lint, st->comments);
	struct stage *d = stage_new(c, st->base, st->at);
	struct strs used = {0};
	d->st = *st;
	d->name = st->name;
	d->outline = outline_clone(c->a, &c->outline);
	if (from_base(c, d, &used, &l, e) < 0 || from_platform(c, d, &used, &l, e) < 0) return -1;
	if (*st->name) {
		if (find_context(c, d, st->name, d->platform, &d->context, e) < 0) return -1;
		if (d->context) {
			if (stage_add(c, d, e) < 0) return -1;
			d->base = NULL;
			return 0;
		}
	} else {
		d->name = arena_printf(c->a, "stage-%zu", index);
	}
	if (stage_add(c, d, e) < 0) return -1;
	for (size_t i = 0; i < used.n; i++) outline_use(c->a, &d->outline, used.v[i]);
	d->cmd_total = count_steps(d);
	d->ignore_cache = config_no_cache(c->f, st->name);
	return 0;
}

/* ---- who needs whom ------------------------------------------------------------------------------------------------- */

static int copy_source(struct conv *c, struct instr *in, struct stage **ret, struct err *e)
{
	const char *from = in->copy.from, *word;
	if (shell_word(c->a, &c->shell, &shell_no_env, from, &word, e) < 0) return -1;
	if (strcmp(word, from) != 0)
		return err_set(e, CODE_UNKNOWN,
			       "variable expansion is not supported for --from, define a new stage with FROM using ARG from "
			       "global scope as a workaround");
	int64_t index;
	if (go_int(from, 10, 64, &index, NULL) >= 0) {
		if (index < 0 || (uint64_t)index >= c->n_stages)
			return err_set(e, CODE_UNKNOWN, "invalid stage index %lld", (long long)index);
		*ret = c->stages[index];
		return 0;
	}
	if ((*ret = conv_stage_find(c, from))) return 0;
	*ret = stage_new(c, from, in->at);
	(*ret)->unregistered = true;
	return 0;
}

static void mount_sources(struct conv *c, const struct instr *in, struct command *cmd)
{
	for (size_t i = 0; i < in->run.n_mounts; i++) {
		const char *from = *in->run.mounts[i].from ? in->run.mounts[i].from : SCRATCH;
		struct stage *s = conv_stage_find(c, from);
		if (!s) {
			s = stage_new(c, from, (struct ast_lines){0});
			s->unregistered = true;
		}
		LLB_PUSH(c->a, cmd->n_sources, cmd->sources, s);
	}
}

int conv_command(struct conv *c, struct instr *in, struct command *ret, struct err *e)
{
	*ret = (struct command){.in = in};
	if (in->kind == INSTR_COPY && *in->copy.from) {
		struct stage *s;
		if (copy_source(c, in, &s, e) < 0) return -1;
		LLB_PUSH(c->a, ret->n_sources, ret->sources, s);
	}
	if (in->kind == INSTR_RUN) mount_sources(c, in, ret);
	return 0;
}

static int take_sources(struct conv *c, struct stage *d, const struct command *cmd, struct err *e)
{
	for (size_t i = 0; i < cmd->n_sources; i++) {
		add_dep(c, d, cmd->sources[i], cmd->in);
		if (cmd->sources[i]->unregistered && stage_add(c, cmd->sources[i], e) < 0) return -1;
	}
	return 0;
}

static int make_commands(struct conv *c, struct err *e)
{
	for (size_t i = 0; i < c->n_stages; i++) { /* grows meanwhile: what is added has no commands */
		struct stage *d = c->stages[i];
		for (size_t k = 0; k < d->st.n_commands; k++) {
			struct command cmd;
			if (conv_command(c, d->st.commands[k], &cmd, e) < 0) return -1;
			LLB_PUSH(c->a, d->n_commands, d->commands, cmd);
			if (take_sources(c, d, &cmd, e) < 0) return -1;
		}
	}
	if (validate_cycles(c, e) < 0) return -1;
	if (c->n_stages == 1) c->stages[0]->name = "";
	return 0;
}

static void reach(struct conv *c, struct stage *d)
{
	if (d->reached == c->walk) return;
	d->reached = c->walk;
	if (d->base) reach(c, d->base);
	for (size_t i = 0; i < d->n_deps; i++) reach(c, d->deps[i].stage);
}

void conv_reach(struct conv *c, struct stage *target)
{
	c->walk++;
	reach(c, target);
}

/* ---- base images ---------------------------------------------------------------------------------------------------- */

static int load_context(struct conv *c, struct stage *d, struct err *e)
{
	struct image img;
	bool has;
	int r = named_load(c->f, d->context, &d->state, &img, &has, e);
	if (r != FOUND) return r;
	d->dispatched = true;
	if (!has) return FOUND;
	img.created = NULL;
	d->image = img;
	if (*img.platform.os && *img.platform.arch) d->platform = platform_dup(c->a, &img.platform);
	return FOUND;
}

static int load_base_context(struct conv *c, struct stage *d, struct named *nc, const struct spec_platform *p, struct err *e)
{
	struct image img;
	bool has;
	int r = named_load(c->f, nc, &d->state, &img, &has, e);
	if (r != FOUND) return r;
	if (!has) img = image_empty(c->a, p);
	d->base_image = arena_memdup(c->a, &(struct image[1]){image_clone(c->a, &img)}, sizeof img);
	img.created = NULL;
	d->image = img;
	d->state = state_platform(c->a, d->state, p);
	d->platform = p;
	return FOUND;
}

static struct strs stage_and_image_names(struct conv *c)
{
	static const char *const repos[] = {"alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"};
	struct strs s = {0};
	for (size_t i = 0; i < c->n_stages; i++)
		if (*c->stages[i]->name) strs_add(c->a, &s, c->stages[i]->name);
	for (size_t i = 0; i < array_len(repos); i++) {
		strs_add(c->a, &s, repos[i]);
		strs_add(c->a, &s, arena_printf(c->a, "docker.io/library%s", repos[i]));
		strs_add(c->a, &s, arena_printf(c->a, "%s:latest", repos[i]));
		strs_add(c->a, &s, arena_printf(c->a, "docker.io/library%s:latest", repos[i]));
	}
	return s;
}

/* The build platform when the image is for that and nobody asked for a target. */
static const struct spec_platform *detect_platform(const struct conv *c, const struct image *img, const struct spec_platform *p)
{
	const struct spec_platform *b = c->f->cfg.build_platform, *have = &img->platform;
	if (str_eq(p->os, have->os) && str_eq(p->arch, have->arch)) return p;
	return str_eq(b->os, have->os) && str_eq(b->arch, have->arch) ? b : p;
}

static bool is_scratch(const struct image *img)
{
	if (img->diff_ids.n) return false;
	for (size_t i = 0; i < img->n_history; i++)
		if (!img->history[i].empty_layer) return false;
	return true;
}

static int take_image(struct conv *c, struct stage *d, const struct front_answer *ans, struct spec_ref *ref, struct err *e)
{
	_cleanup_free_ char *before = spec_ref_format(ref);
	const char *got = ans->ref ? ans->ref : d->st.base;
	if (strcmp(before, got) != 0) {
		spec_ref_fini(ref);
		*ref = (struct spec_ref){0};
		if (spec_ref_parse(got, ref, e) < 0) return err_wrap(e, "failed to parse ref \"%s\"", got);
	}
	if (image_parse(c->a, ans->data, ans->n, &d->image, e) < 0) return err_wrap(e, "failed to parse image config");
	d->base_image = arena_memdup(c->a, &(struct image[1]){image_clone(c->a, &d->image)}, sizeof d->image);
	d->image.created = NULL;
	if (!str_empty(ans->digest) && spec_ref_set_digest(ref, ans->digest, e) < 0) return -1;
	_cleanup_free_ char *full = spec_ref_format(ref);
	d->st.base = arena_strdup(c->a, full);
	return FOUND;
}

static int ask_image(struct conv *c, struct stage *d, const char *orig, struct spec_ref *ref, const struct spec_platform *p,
		     struct err *e)
{
	const char *plat = c->f->cfg.multi_platform ? arena_printf(c->a, "%s ", platform_text(c->a, p)) : "";
	const struct front_question q = {
		.ask = FRONT_IMAGE_META,
		.ref = d->st.base,
		.platform = p,
		.resolve_mode = c->f->cfg.resolve_mode,
		.log_name = arena_printf(c->a, "[%sinternal] load metadata for %s", plat, d->st.base),
	};
	const struct front_answer *ans;
	if (front_ask(c->f, q, &ans) == PENDING) return PENDING;
	if (!err_is_set(&ans->err)) return take_image(c, d, ans, ref, e);
	struct strs names = stage_and_image_names(c);
	err_copy(e, &ans->err);
	err_wrap(e, "%s", orig);
	return err_mean(e, lint_suggest(c->a, orig, names.v, names.n, true));
}

static int resolve_image(struct conv *c, struct stage *d, bool reachable, struct err *e)
{
	const char *orig = d->st.base;
	const struct spec_platform *p = d->platform ? d->platform : c->target;
	_cleanup_spec_ref_ struct spec_ref ref = {0}, tagged = {0};
	if (spec_ref_parse(orig, &ref, e) < 0) {
		_cleanup_free_ char *q = go_quote(orig, strlen(orig));
		return err_wrap(e, "failed to parse stage name %s", q);
	}
	spec_ref_copy(&tagged, &ref);
	spec_ref_tag_name_only(&tagged);
	_cleanup_free_ char *base = spec_ref_format(&tagged);
	d->st.base = arena_strdup(c->a, base);
	bool scratch = false;
	if (reachable) {
		struct named *nc;
		if (d->context) return load_context(c, d, e);
		if (find_context(c, d, d->st.base, p, &nc, e) < 0) return -1;
		if (nc) return load_base_context(c, d, nc, p, e);
		int r = ask_image(c, d, orig, &ref, p, e);
		if (r != FOUND) return r;
		if (!d->platform && c->implicit_target) p = detect_platform(c, &d->image, p);
		scratch = is_scratch(&d->image);
	}
	if (scratch) {
		d->state = state_scratch();
	} else {
		struct note note = stage_note(c, d->st.code, d->st.at);
		note.platform = p;
		note_name(c->a, &note, stage_prefix(c, d, arena_printf(c->a, "FROM %s", d->st.base), p, NULL));
		d->state = state_of(c->a, image_output(c->a, d->st.base, c->f->cfg.resolve_mode, &note));
		if (reachable) validate_base_platform(c, d, orig, p);
	}
	d->platform = p;
	return FOUND;
}

static int resolve_one(struct conv *c, struct stage *d, bool reachable, struct err *e)
{
	int r = FOUND;
	if (strcmp(d->st.base, SCRATCH) == 0 && !d->context) {
		d->state = state_scratch();
		d->image = image_empty(c->a, c->target);
		d->platform = c->target;
	} else {
		r = resolve_image(c, d, reachable, e);
		if (r < 0) fail_at(e, d->st.at);
	}
	if (d->unregistered) d->dispatched = true;
	return r;
}

/* All that are needed are asked for at once. */
static int resolve_reachable(struct conv *c, struct stage *target, struct err *e)
{
	int all = FOUND;
	conv_reach(c, target);
	for (size_t i = 0; i < c->n_stages; i++) {
		struct stage *d = c->stages[i];
		bool reachable = d->reached == c->walk || c->all_stages;
		if (d->base || d->dispatched || d->resolved) continue;
		d->resolved = reachable;
		int r = resolve_one(c, d, reachable, e);
		if (r < 0) return -1;
		if (r == PENDING) all = PENDING;
	}
	return all;
}

/* ---- ONBUILD -------------------------------------------------------------------------------------------------------- */

static void inherit(struct conv *c, struct stage *d)
{
	if (!d->base) return;
	d->state = d->base->state;
	d->platform = d->base->platform;
	d->image = image_clone(c->a, &d->base->image);
	d->image.onbuild = (struct strs){0};
	d->base_image = d->base->base_image;
	d->paths = d->base->paths;
	d->workdir_set = d->base->workdir_set;
	for (size_t i = 0; i < d->base->n_build_args; i++)
		LLB_PUSH(c->a, d->n_build_args, d->build_args, d->base->build_args[i]);
}

static int trigger(struct conv *c, struct stage *d, const char *text, struct command *ret, struct err *e)
{
	struct ast file;
	struct instr *in;
	if (ast_parse(c->a, text, strlen(text), &file, e) < 0) return -1;
	if (file.n_nodes != 1) return err_set(e, CODE_UNKNOWN, "onbuild trigger should be a single expression");
	file.nodes[0]->at = d->st.at;
	if (instr_parse_command(c->a, file.nodes[0], &in, e) < 0 || conv_command(c, in, ret, e) < 0) return -1;
	ret->onbuild = true;
	return take_sources(c, d, ret, e);
}

/* Answers whether a trigger needs another stage or image. */
static int triggers(struct conv *c, struct stage *d, const struct strs *list, struct err *e)
{
	struct command *all = NULL;
	size_t n = 0;
	bool deps = false;
	for (size_t i = 0; i < list->n; i++) {
		struct command cmd;
		if (trigger(c, d, list->v[i], &cmd, e) < 0) return ast_err_set_at(e, d->st.at);
		deps |= cmd.n_sources > 0;
		LLB_PUSH(c->a, n, all, cmd);
	}
	for (size_t i = 0; i < d->n_commands; i++) LLB_PUSH(c->a, n, all, d->commands[i]);
	d->commands = all;
	d->n_commands = n;
	d->cmd_total += (int)list->n;
	return deps;
}

static int init_triggers(struct conv *c, struct stage *d, struct err *e)
{
	inherit(c, d);
	struct strs list = strs_clone(c->a, &d->image.onbuild);
	if (d->base && !d->onbuild_init) {
		for (size_t i = 0; i < d->base->n_commands; i++)
			if (d->base->commands[i].in->kind == INSTR_ONBUILD)
				strs_add(c->a, &list, d->base->commands[i].in->text);
		d->onbuild_init = true;
	}
	if (!list.n) return 0;
	int r = triggers(c, d, &list, e);
	d->image.onbuild = (struct strs){0};
	return r;
}

static int resolve_stages(struct conv *c, struct stage *target, struct err *e)
{
	for (;;) {
		bool more = false;
		int r = resolve_reachable(c, target, e);
		if (r != FOUND) return r;
		unsigned walk = c->walk;
		for (size_t i = 0; i < c->n_stages; i++) {
			if (c->stages[i]->reached != walk) continue;
			r = init_triggers(c, c->stages[i], e);
			if (r < 0) return -1;
			more |= r;
		}
		if (!more) return FOUND;
	}
}

/* ---- dispatching ---------------------------------------------------------------------------------------------------- */

static bool enabled_for(const char *stage, const char *value)
{
	bool b;
	size_t n = strlen(stage);
	if (str_bool(value, &b)) return b;
	for (const char *p = value;; p++) {
		size_t k = strcspn(p, ",");
		if (k == n && strncmp(p, stage, n) == 0) return true;
		p += k;
		if (!*p) return false;
	}
}

static bool scan_wanted(const struct conv *c, const struct stage *d, const char *name)
{
	const char *v = env_get(c->global_args, name);
	bool b = v && enabled_for(d->name, v);
	for (size_t i = 0; i < d->n_build_args; i++)
		if (strcmp(d->build_args[i].key, name) == 0 && d->build_args[i].value)
			b = enabled_for(d->name, d->build_args[i].value);
	return b;
}

static void begin_stage(struct conv *c, struct stage *d)
{
	inherit(c, d);
	d->dispatched = true;
	/* of a context that brought no image nothing is known: the peer goes on with an empty platform, and so PATH is set */
	if (!d->platform) d->platform = platform_dup(c->a, &(struct spec_platform){0});
	if (!image_env_get(&d->image, "PATH") && !str_eq(d->platform->os, "windows"))
		strs_add(c->a, &d->image.env, arena_printf(c->a, "PATH=%s", default_path(d->platform->os)));
	for (size_t i = 0; i < d->image.env.n; i++) {
		const char *kv = d->image.env.v[i], *eq = strchr(kv, '=');
		d->state = state_env(c->a, d->state, eq ? arena_strndup(c->a, kv, (size_t)(eq - kv)) : kv, eq ? eq + 1 : "");
	}
	if (*c->f->cfg.hostname) d->state.hostname = c->f->cfg.hostname;
}

static int dispatch_all(struct conv *c, struct stage *d, struct err *e)
{
	begin_stage(c, d);
	if (*d->image.working_dir && dispatch_workdir(c, d, NULL, d->image.working_dir, false, NULL, e) < 0)
		return fail_at(e, d->st.at);
	if (*d->image.user) d->state.user = d->image.user;
	d->state.network = c->f->cfg.network;
	if (stage_dispatch(c, d, e) < 0) return -1;
	d->scan_context |= scan_wanted(c, d, "BUILDKIT_SBOM_SCAN_CONTEXT");
	d->scan_stage |= scan_wanted(c, d, "BUILDKIT_SBOM_SCAN_STAGE");
	return 0;
}

static int load_ignore(struct conv *c, struct err *e)
{
	_cleanup_strvec_ struct strvec patterns = {0};
	int r = context_ignore(c->f, &patterns, e);
	if (r != FOUND || !patterns.n) return r;
	return spec_patterns_new(patterns.v, patterns.n, &c->ignore, e) < 0 ? -1 : FOUND;
}

static int dispatch_stages(struct conv *c, struct stage *target, struct strs *ctx_paths, struct err *e)
{
	for (size_t i = 0; i < c->n_stages; i++) {
		struct stage *d = c->stages[i];
		if (!c->all_stages && (d->reached != c->walk || d->dispatched)) continue;
		if (dispatch_all(c, d, e) < 0) return -1;
		for (size_t k = 0; k < d->ctx_paths.n; k++) strs_add_once(c->a, ctx_paths, d->ctx_paths.v[k]);
	}
	strs_add_once(c->a, &target->paths->v, "/");
	return FOUND;
}

/* ---- the result ----------------------------------------------------------------------------------------------------- */

static int by_text(const void *x, const void *y) { return strcmp(*(const char *const *)x, *(const char *const *)y); }

/* What of a directory is to be sent: nothing said when all of it is used. */
static void filter_paths(struct arena *a, const struct strs *in, struct strs *ret)
{
	struct strs out = {0};
	for (size_t i = 0; i < in->n; i++) {
		if (strcmp(in->v[i], "/") == 0) return;
		strs_add(a, &out, path_joined(a, ".", in->v[i]));
	}
	if (out.n > 1) qsort(out.v, out.n, sizeof *out.v, by_text);
	*ret = out;
}

static void set_platform(struct conv *c, struct stage *t)
{
	struct spec_platform *p = &t->image.platform;
	const struct spec_platform *want = c->target;
	if (!c->implicit_target) {
		bool same = str_eq(want->os, p->os) && str_eq(want->arch, p->arch);
		p->os = want->os;
		p->arch = want->arch;
		if (!str_empty(want->variant) || !same) p->variant = want->variant;
		if (!str_empty(want->os_version) || !same) p->os_version = want->os_version;
		if (want->os_features.n) p->os_features = want->os_features;
	}
	t->image.platform = *platform_normal(c->a, p);
}

static int finish(struct conv *c, struct stage *target, const struct strs *ctx_paths, struct err *e)
{
	MAP_EACH(&c->f->cfg.labels, it) image_label(c->a, &target->image, it->key, it->value);
	if (lint_error(&c->lint, e) < 0) return -1;
	struct strs follow = {0};
	struct output *o;
	filter_paths(c->a, ctx_paths, &follow);
	int r = context_main(c->f, &follow, &o, e);
	if (r != FOUND) return r;
	c->build_context = o ? *o : (struct output){0};
	c->build_context.platform = NULL;
	set_platform(c, target);
	return FOUND;
}

static const Pb__ProxyEnv *proxy_env(struct conv *c)
{
	Pb__ProxyEnv *p = llb_new(c->a, Pb__ProxyEnv, pb__proxy_env__init);
	const struct {
		const char *name;
		const char **to;
	} vars[] = {
		{"http_proxy", (const char **)&p->http_proxy}, {"https_proxy", (const char **)&p->https_proxy},
		{"ftp_proxy", (const char **)&p->ftp_proxy},   {"no_proxy", (const char **)&p->no_proxy},
		{"all_proxy", (const char **)&p->all_proxy},
	};
	struct strs keys = {0};
	bool any = false;
	MAP_EACH(&c->build_args, it) strs_add(c->a, &keys, it->key);
	if (keys.n > 1) qsort(keys.v, keys.n, sizeof *keys.v, by_text);
	for (size_t i = 0; i < keys.n; i++) {
		for (size_t k = 0; k < array_len(vars); k++) {
			if (strcasecmp(keys.v[i], vars[k].name) != 0) continue;
			*vars[k].to = map_get(&c->build_args, keys.v[i]);
			any = true;
		}
	}
	return any ? p : NULL;
}

static int make_lint(struct conv *c, struct err *e)
{
	struct lint_config cfg = {0};
	struct ast_directive d;
	if (c->f->cfg.check)
		cfg = *c->f->cfg.check;
	else if (ast_find_directive(c->a, "check", c->f->file.data, c->f->file.n, &d) &&
		 lint_config_parse(c->a, d.first, &cfg, e) < 0)
		return err_wrap(e, "failed to parse check options");
	c->lint = lint_new(c->a, &cfg, c->warn, c->warn_arg);
	return 0;
}

static int parse(struct conv *c, struct instr_file *ret, struct err *e)
{
	struct ast file;
	if (!c->f->file.n) return err_set(e, CODE_UNKNOWN, "the Dockerfile cannot be empty");
	if (make_lint(c, e) < 0 || ast_parse(c->a, c->f->file.data, c->f->file.n, &file, e) < 0) return -1;
	c->shell = (struct shell_opt){.escape = file.escape};
	for (size_t i = 0; i < file.n_warnings; i++) lint_run(&c->lint, LINT_NO_EMPTY_CONTINUATION, file.warnings[i].at);
	if (instr_parse(c->a, &file, &c->lint, ret, e) < 0) return -1;
	if (!ret->n_stages) return err_set(e, CODE_UNKNOWN, "dockerfile contains no stages to build");
	validate_names(c, ret);
	validate_casing(c, ret);
	return 0;
}

static int find_target(struct conv *c, struct stage **ret, struct err *e)
{
	const char *t = c->f->cfg.target;
	if (!*t) {
		*ret = c->stages[c->n_stages - 1];
		return 0;
	}
	if ((*ret = conv_stage_find(c, t))) return 0;
	struct strs names = {0};
	for (size_t i = 0; i < c->n_stages; i++)
		if (*c->stages[i]->name) strs_add(c->a, &names, c->stages[i]->name);
	_cleanup_free_ char *q = go_quote(t, strlen(t));
	err_set(e, CODE_UNKNOWN, "target stage %s could not be found", q);
	return err_mean(e, lint_suggest(c->a, t, names.v, names.n, true));
}

int conv_run(struct conv *c, struct stage **ret, struct err *e)
{
	struct instr_file df;
	struct stage *target;
	struct strs ctx_paths = {0};
	MAP_EACH(&c->f->cfg.build_args, it) map_put(&c->build_args, it->key, it->value);
	if (parse(c, &df, e) < 0) return -1;
	const char *name = c->f->cfg.target;
	args_default(c, *name ? name : df.stages[df.n_stages - 1].name);
	validate_default_args(c, &df);
	if (args_meta(c, df.meta_args, df.n_meta_args, &c->build_args, &c->global_args, &c->outline, e) < 0) return -1;
	int ignore = load_ignore(c, e), r = epoch_resolve(c, &df, e);
	if (r != FOUND || ignore < 0) return r == FOUND ? -1 : r;
	c->proxy = proxy_env(c);
	for (size_t i = 0; i < df.n_stages; i++)
		if (make_stage(c, &df.stages[i], i, e) < 0) return -1;
	if (find_target(c, &target, e) < 0 || make_commands(c, e) < 0) return -1;
	int stages = resolve_stages(c, target, e);
	if (stages != FOUND) return stages;
	if (ignore == PENDING) return PENDING;
	conv_reach(c, target);
	if (dispatch_stages(c, target, &ctx_paths, e) < 0) return -1;
	r = finish(c, target, &ctx_paths, e);
	if (r == FOUND) *ret = target;
	return r;
}

void conv_fini(struct conv *c)
{
	map_fini(&c->build_args);
	map_fini(&c->by_name);
	spec_patterns_free(c->ignore);
}
