/* SOURCE_DATE_EPOCH: seconds, "context", a named context, or a stage that is nothing but one remote ADD; the time of a git
 * commit or of an http source's Last-Modified header. A reproducible build without knowing the number.
 * Source: BuildKit frontend/dockerfile/dockerfile2llb/epoch.go, util/gitutil/gitobject. */
#include "front/stage.h"
#include "tar/tar.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define KEY "SOURCE_DATE_EPOCH"

/* ---- times ---------------------------------------------------------------------------------------------------------- */

static void set_epoch(struct conv *c, int64_t seconds, long ns, int offset_s)
{
	time_t t = (time_t)(seconds + offset_s);
	struct tm tm;
	gmtime_r(&t, &tm);
	const char *zone = "Z";
	int off = offset_s < 0 ? -offset_s : offset_s;
	if (offset_s) zone = arena_printf(c->a, "%c%02d:%02d", offset_s < 0 ? '-' : '+', off / 3600, off / 60 % 60);
	char fraction[12] = "";
	if (ns) {
		snprintf(fraction, sizeof fraction, ".%09ld", ns);
		for (size_t n = strlen(fraction); fraction[n - 1] == '0';) fraction[--n] = 0;
	}
	c->epoch = arena_printf(c->a, "%04d-%02d-%02dT%02d:%02d:%02d%s%s", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
				tm.tm_hour, tm.tm_min, tm.tm_sec, fraction, zone);
	c->epoch_ns = ns;
	c->epoch_s = seconds;
}

static bool digits(const char *s, size_t n) { return strspn(s, "0123456789") >= n; }

/* "committer Name <mail> 1700000000 +0100" among the headers; false when there is no time in it. */
static bool committer_time(const char *raw, int64_t *ret, int *ret_offset)
{
	const char *p = str_starts(raw, "committer ") ? raw : strstr(raw, "\ncommitter ");
	const char *body = strstr(raw, "\n\n");
	if (!p || (body && p > body)) return false;
	p += *p == '\n';
	_cleanup_free_ char *line = xstrndup(p, strcspn(p, "\n"));
	char *gt = strrchr(line, '>');
	char seconds[24], zone[8];
	if (!gt || sscanf(gt + 1, " %23s %7s", seconds, zone) != 2 || go_int(seconds, 10, 64, ret, NULL) < 0) return false;
	if (strlen(zone) != 5 || !strchr("+-", zone[0]) || !digits(zone + 1, 4)) return false;
	int hh = (zone[1] - '0') * 10 + zone[2] - '0', mm = (zone[3] - '0') * 10 + zone[4] - '0';
	*ret_offset = (hh * 3600 + mm * 60) * (zone[0] == '-' ? -1 : 1);
	return true;
}

static int from_commit(struct conv *c, const struct front_answer *ans, struct err *e)
{
	static const char *const need[] = {"tree", "author", "committer"};
	_cleanup_free_ char *raw = xstrndup((const char *)ans->commit, ans->n_commit);
	for (size_t i = 0; i < array_len(need); i++) {
		_cleanup_free_ char *inner = xasprintf("\n%s ", need[i]);
		bool first = str_starts(raw, need[i]) && raw[strlen(need[i])] == ' ';
		if (!first && !strstr(raw, inner))
			return err_set(e, CODE_UNKNOWN, "invalid commit object: missing %s header", need[i]);
	}
	int64_t seconds;
	int offset;
	if (committer_time(raw, &seconds, &offset)) set_epoch(c, seconds, 0, offset);
	return FOUND;
}

/* ---- archives ------------------------------------------------------------------------------------------------------- */

enum { MAX_ARCHIVE_GIB = 4 };

/* The latest time of a file in the archive; none when the bytes are no archive. */
static bool latest(const struct front_answer *ans, struct timespec *ret)
{
	struct tar_mem mem = {ans->data, ans->n};
	_cleanup_tar_decomp_ struct tar_decomp *d = NULL;
	_cleanup_err_ struct err err = ERR_INIT;
	struct tar_entry t;
	bool found = false;
	int r;
	if (tar_decomp_new(tar_in_mem(&mem), (int64_t)MAX_ARCHIVE_GIB << 30, &d, &err) < 0) return false;
	_cleanup_tar_reader_ struct tar_reader *reader = tar_reader_new(tar_decomp_in(d));
	while ((r = tar_read_next(reader, &t, &err)) > 0) {
		if (t.type != TAR_REG && t.type != TAR_LINK) continue;
		bool later = !found || t.mtime.tv_sec > ret->tv_sec ||
			     (t.mtime.tv_sec == ret->tv_sec && t.mtime.tv_nsec > ret->tv_nsec);
		if (later) *ret = t.mtime;
		found = true;
	}
	return r == 0 && found;
}

static const char *attr_of(const Pb__SourceOp *src, const char *key)
{
	for (size_t i = 0; i < src->n_attrs; i++)
		if (strcmp(src->attrs[i]->key, key) == 0) return src->attrs[i]->value;
	return "";
}

static int from_archive(struct conv *c, const Pb__SourceOp *src, struct err *e)
{
	const char *filename = attr_of(src, "http.filename");
	struct vertex *v = source_new(c->a, src->identifier, NULL);
	Pb__Definition *def;
	const struct front_answer *ans;
	struct timespec t;
	if (!*filename) return FOUND;
	for (size_t i = 0; i < src->n_attrs; i++) source_attr(c->a, v, src->attrs[i]->key, src->attrs[i]->value);
	if (front_marshal(c->f, vertex_output(c->a, v), NULL, &def, NULL, e) < 0) return -1;
	if (front_ask_file(c->f, def, filename, 0, &ans) == PENDING) return PENDING;
	if (err_is_set(&ans->err)) {
		err_copy(e, &ans->err);
		return -1;
	}
	if (latest(ans, &t)) set_epoch(c, t.tv_sec, t.tv_nsec, 0);
	return FOUND;
}

static int from_state(struct conv *c, const struct state *st, const char *log_name, struct err *e)
{
	Pb__Definition *def;
	if (front_marshal(c->f, st->out, NULL, &def, NULL, e) < 0) return -1;
	const Pb__SourceOp *src = def->n_def ? graph_only_source(def, c->a) : NULL;
	bool git = src && str_starts(src->identifier, "git://");
	bool http = src && (str_starts(src->identifier, "http://") || str_starts(src->identifier, "https://"));
	const struct front_answer *ans;
	if (!git && !http) return FOUND;
	const struct front_question q = {.ask = FRONT_SOURCE_META, .source = src, .git_object = git, .log_name = log_name};
	if (front_ask(c->f, q, &ans) == PENDING) return PENDING;
	if (err_is_set(&ans->err)) {
		err_copy(e, &ans->err);
		return -1;
	}
	if (git && ans->n_commit) return from_commit(c, ans, e);
	if (http && ans->has_last_modified)
		set_epoch(c, ans->last_modified, 0, 0);
	else if (http)
		return from_archive(c, src, e);
	return FOUND;
}

/* ---- a stage as the source ------------------------------------------------------------------------------------------ */

static const struct env *stage_args(struct conv *c, const struct instr *in, const struct env *env, struct err *e)
{
	for (size_t i = 0; i < in->arg.n; i++) {
		const struct instr_arg *arg = &in->arg.v[i];
		const char *v = map_get(&c->build_args, arg->key);
		const struct shell_env se = env_shell(env);
		if (!v && !arg->value) continue;
		if (!v && shell_word(c->a, &c->shell, &se, arg->value, &v, e) < 0) return NULL;
		env = env_add(c->a, env, arg->key, v);
	}
	return env;
}

static const char *http_file(struct arena *a, const char *src)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(src, &u, NULL) < 0 || !*u.path) return "__unnamed__";
	_cleanup_free_ char *clean = path_clean(u.path);
	const char *base = path_base(clean);
	return *base && strcmp(base, ".") != 0 ? arena_strdup(a, base) : "__unnamed__";
}

static int add_source(struct conv *c, const struct instr *in, const struct env *env, struct state *ret, struct err *e)
{
	const struct instr_copy *cp = &in->copy;
	const struct shell_env se = env_shell(env);
	const char *src, *sum;
	const struct note note = note_new(c->a);
	_cleanup_spec_git_ref_ struct spec_git_ref g = {0};
	_cleanup_err_ struct err err = ERR_INIT;
	bool git = false;
	if (cp->n_contents || cp->sources.n != 1)
		return err_set(e, CODE_UNKNOWN, KEY " stage must contain exactly one remote ADD source");
	if (shell_word(c->a, &c->shell, &se, cp->sources.v[0], &src, e) < 0 ||
	    shell_word(c->a, &c->shell, &se, cp->checksum, &sum, e) < 0)
		return -1;
	int r = spec_git_ref_parse(src, &g, &git, &err);
	if (r < 0 && git) return err_move(e, &err);
	if (r >= 0 && !g.indistinguishable_from_local) {
		const struct git_opt o = {
			.remote = g.remote,
			.ref = g.ref,
			.subdir = g.subdir,
			.checksum = *cp->checksum ? sum : g.checksum,
			.keep_git_dir = cp->keep_git_dir == INSTR_TRUE || g.keep_git_dir == 1,
			.skip_submodules = g.submodules == 0,
		};
		*ret = state_of(c->a, git_output(c->a, &o, &note));
		return 0;
	}
	if (!str_starts(src, "http://") && !str_starts(src, "https://"))
		return err_set(e, CODE_UNKNOWN, KEY " stage source must be a single HTTP(S) or Git ADD");
	if (*sum && spec_digest_check(sum, e) < 0) return -1;
	*ret = state_of(c->a, http_output(c->a, src, http_file(c->a, src), sum, &note));
	return 0;
}

static int stage_source(struct conv *c, const struct instr_stage *st, struct state *ret, struct err *e)
{
	const struct env *env = env_get(c->global_args, KEY) ? env_add(c->a, c->global_args, KEY, NULL) : c->global_args;
	const struct shell_env se = env_shell(env);
	const char *base;
	bool found = false;
	if (shell_word(c->a, &c->shell, &se, st->base, &base, e) < 0) {
		_cleanup_free_ char *q = go_quote(st->base, strlen(st->base));
		return err_wrap(e, "failed to process source stage base name %s", q);
	}
	if (strcmp(base, "scratch") != 0) return err_set(e, CODE_UNKNOWN, KEY " stage must use FROM scratch");
	for (size_t i = 0; i < st->n_commands; i++) {
		const struct instr *in = st->commands[i];
		if (in->kind == INSTR_ARG) {
			if (!(env = stage_args(c, in, env, e)) && err_is_set(e)) return -1;
		} else if (in->kind != INSTR_ADD) {
			return err_set(e, CODE_UNKNOWN,
				       KEY " stage does not meet source-only requirements: unsupported %s instruction",
				       in->name);
		} else {
			if (found) return err_set(e, CODE_UNKNOWN, KEY " stage must contain exactly one remote ADD");
			if (add_source(c, in, env, ret, e) < 0) return -1;
			found = true;
		}
	}
	return found ? 0 : err_set(e, CODE_UNKNOWN, KEY " stage must contain exactly one remote ADD");
}

/* ---- all kinds ------------------------------------------------------------------------------------------------------ */

static int from_name(struct conv *c, const struct instr_file *df, const char *v, struct err *e)
{
	struct state st;
	if (strcmp(v, "context") == 0) {
		return c->f->ctx.remote ? from_state(c, &c->f->ctx.context, "[internal] resolve main build context metadata", e)
					: FOUND;
	}
	struct named *nc;
	struct image img;
	bool has;
	if (named_find(c->f, v, NULL, &nc, e) < 0) return -1;
	if (nc) {
		int r = named_load(c->f, nc, &st, &img, &has, e);
		return r == FOUND ? from_state(c, &st, arena_printf(c->a, "[internal] resolve " KEY " named context %s", v), e)
				  : r;
	}
	for (size_t i = 0; i < df->n_stages; i++) {
		if (strcasecmp(df->stages[i].name, v) != 0) continue;
		if (stage_source(c, &df->stages[i], &st, e) < 0) return ast_err_at(e, df->stages[i].at);
		return from_state(c, &st, arena_printf(c->a, "[internal] resolve " KEY " source stage %s", df->stages[i].name),
				  e);
	}
	return err_set(e, CODE_UNKNOWN, "invalid " KEY ": %s", v);
}

/* What ARG SOURCE_DATE_EPOCH gives from here on is the number. */
static void put_value(struct conv *c)
{
	const char *text = c->epoch ? arena_printf(c->a, "%lld", (long long)c->epoch_s) : NULL;
	if (map_has(&c->build_args, KEY)) {
		if (text)
			map_put(&c->build_args, KEY, (void *)text);
		else
			map_del(&c->build_args, KEY);
	}
	if (env_get(c->global_args, KEY)) c->global_args = env_add(c->a, c->global_args, KEY, text);
}

int epoch_resolve(struct conv *c, const struct instr_file *df, struct err *e)
{
	const char *v = map_get(&c->build_args, KEY);
	int64_t seconds;
	int r = FOUND;
	if (!v) v = env_get(c->global_args, KEY);
	if (!v || (!*v && !map_has(&c->build_args, KEY))) return FOUND;
	if (*v && go_int(v, 10, 64, &seconds, NULL) >= 0)
		set_epoch(c, seconds, 0, 0);
	else if (*v)
		r = from_name(c, df, v, e);
	if (r == FOUND) put_value(c);
	return r;
}
