#include "dump.h"

#include <string.h>

static struct arena *A;
static struct buf *out;

static void line(const char *key, const char *v)
{
	_cleanup_free_ char *q = go_quote(v, strlen(v));
	buf_addf(out, " %s=%s", key, q);
}

static void strs(const char *key, struct ast_strs s)
{
	buf_addf(out, " %s=[", key);
	for (size_t i = 0; i < s.n; i++) {
		_cleanup_free_ char *q = go_quote(s.v[i], strlen(s.v[i]));
		buf_addf(out, "%s%s", i ? " " : "", q);
	}
	buf_addc(out, ']');
}

static void failure(struct err *e)
{
	struct ast_places p = ast_err_places(A, e);
	buf_addf(out, "error %s", e->msg);
	for (size_t i = 0; i < p.n; i++) buf_addf(out, " @%d-%d", p.v[i].start, max_of(p.v[i].start, p.v[i].end));
	buf_addc(out, '\n');
	if (e->details) buf_adds(out, "details left\n");
	err_fini(e);
}

static void warned(void *arg, const struct lint_rule *r, const char *message, struct ast_lines at)
{
	buf_addf(out, "lint %s %s @%d-%d\n", r->name, message, at.start, at.end);
}

static void directive(const char *key, bool found, const struct ast_directive *d)
{
	if (!found) return;
	buf_addf(out, "directive %s", key);
	line("first", d->first);
	line("value", d->value);
	buf_addf(out, " @%d\n", d->at.start);
}

static void cmdline(const struct instr_cmdline *l)
{
	strs("args", l->args);
	buf_addf(out, " shell=%d", l->shell);
	for (size_t i = 0; i < l->n_files; i++) {
		line("file", l->files[i].name);
		line("data", l->files[i].data);
		buf_addf(out, " chomp=%d", l->files[i].chomp);
	}
}

static void copy(const struct instr_copy *c)
{
	strs("src", c->sources);
	line("dest", c->dest);
	for (size_t i = 0; i < c->n_contents; i++) {
		line("path", c->contents[i].path);
		line("data", c->contents[i].data);
		buf_addf(out, " expand=%d", c->contents[i].expand);
	}
	line("from", c->from);
	line("chown", c->chown);
	line("chmod", c->chmod);
	line("checksum", c->checksum);
	strs("exclude", c->exclude);
	buf_addf(out, " link=%d parents=%d keep=%d unpack=%d", c->link, c->parents, c->keep_git_dir, c->unpack);
}

static void run(const struct instr_run *r)
{
	static const char *const types[] = {"bind", "cache", "tmpfs", "secret", "ssh"}, *const sharing[] = {"", "shared",
													    "private",
													    "locked"};
	cmdline(&r->line);
	line("network", r->network);
	line("security", r->security);
	struct strvec used = {0};
	strvec_copy(&used, (char *const *)r->flags_used.v, r->flags_used.n);
	strvec_sort(&used);
	strs("used", (struct ast_strs){(const char **)used.v, used.n});
	for (size_t i = 0; i < r->n_mounts; i++) {
		const struct instr_mount *m = &r->mounts[i];
		buf_addf(out, " mount{%s %s", types[m->type], sharing[m->sharing]);
		line("from", m->from);
		line("source", m->source);
		line("target", m->target);
		line("id", m->id);
		if (m->env) line("env", m->env);
		if (m->has_mode) buf_addf(out, " mode=%o", m->mode);
		if (m->has_uid) buf_addf(out, " uid=%u", m->uid);
		if (m->has_gid) buf_addf(out, " gid=%u", m->gid);
		buf_addf(out, " ro=%d required=%d size=%lld}", m->readonly, m->required, (long long)m->size_bytes);
	}
	for (size_t i = 0; i < r->n_devices; i++) {
		line("device", r->devices[i].name);
		buf_addf(out, " required=%d", r->devices[i].required);
	}
	strvec_fini(&used);
}

static void command(const struct instr *c)
{
	buf_addf(out, "%s @%d-%d", c->name, c->at.start, c->at.end);
	line("code", c->code);
	switch (c->kind) {
	case INSTR_ENV:
	case INSTR_LABEL:
		for (size_t i = 0; i < c->kv.n; i++) {
			line("k", c->kv.v[i].key);
			line("v", c->kv.v[i].value);
			buf_addf(out, " nodelim=%d", c->kv.v[i].no_delim);
		}
		break;
	case INSTR_ARG:
		for (size_t i = 0; i < c->arg.n; i++) {
			line("k", c->arg.v[i].key);
			if (c->arg.v[i].value) line("v", c->arg.v[i].value);
			line("doc", c->arg.v[i].doc);
		}
		break;
	case INSTR_ADD:
	case INSTR_COPY: copy(&c->copy); break;
	case INSTR_CMD:
	case INSTR_ENTRYPOINT: cmdline(&c->line); break;
	case INSTR_RUN: run(&c->run); break;
	case INSTR_HEALTHCHECK:
		strs("test", c->health.test);
		buf_addf(out, " %lld %lld %lld %lld %d", (long long)c->health.interval_ns, (long long)c->health.timeout_ns,
			 (long long)c->health.start_period_ns, (long long)c->health.start_interval_ns, c->health.retries);
		break;
	case INSTR_EXPOSE:
	case INSTR_VOLUME:
	case INSTR_SHELL: strs("words", c->words); break;
	default: line("text", c->text);
	}
	buf_addc(out, '\n');
}

static char *const env_list[] = {(char *)"A=1",
				 (char *)"B=two words",
				 (char *)"EMPTY=",
				 (char *)"PATH=/usr/bin:/bin",
				 (char *)"V=$A",
				 (char *)"X=/x/y/z.tar.gz",
				 (char *)"T=cache",
				 (char *)"M=0755",
				 (char *)"N=ab\nab*c?\\d\naübab"};
static struct shell_list list = {env_list, array_len(env_list)};
struct expander {
	struct shell_opt opt;
	struct ast_strs missing;
};

static int expand(void *arg, const char *word, const char **ret, struct err *e)
{
	struct expander *x = arg;
	struct shell_env env = {shell_list_get, &list};
	struct shell_result r;
	int res = shell_process(A, &x->opt, &env, word, &r, e);
	for (size_t i = 0; i < r.unmatched.n; i++) ast_strs_add(A, &x->missing, r.unmatched.v[i]);
	if (res < 0) return -1;
	*ret = r.word;
	return 0;
}

static void expanded(struct instr *c, char escape)
{
	struct err e = ERR_INIT;
	struct expander x = {.opt = {.escape = escape}}, raw = {.opt = {.escape = escape, .skip_quotes = true}};
	if (!instr_expands(c)) return;
	if (instr_expand(A, c, expand, &x, &e) < 0 || instr_expand_raw(A, c, expand, &raw, &e) < 0)
		failure(&e);
	else
		command(c);
	if (x.missing.n) strs("missing", x.missing);
	if (raw.missing.n) strs("rawmissing", raw.missing);
	buf_addc(out, '\n');
}

static void stages(const struct ast *f)
{
	struct err e = ERR_INIT;
	struct lint_config all = {.experimental_all = true, .error = true};
	struct lint lint = lint_new(A, &all, warned, NULL);
	struct instr_file df;
	if (instr_parse(A, f, &lint, &df, &e) < 0) {
		failure(&e);
		return;
	}
	for (size_t i = 0; i < df.n_meta_args; i++) command(df.meta_args[i]);
	for (size_t i = 0; i < df.n_stages; i++) {
		const struct instr_stage *s = &df.stages[i];
		buf_adds(out, "stage");
		line("name", s->name);
		line("base", s->base);
		line("platform", s->platform);
		line("orig", s->orig_cmd);
		line("doc", s->doc);
		line("code", s->code);
		buf_addf(out, " @%d-%d\n", s->at.start, s->at.end);
		for (size_t j = 0; j < s->n_commands; j++) {
			command(s->commands[j]);
			expanded(s->commands[j], f->escape);
		}
	}
}

char *dump_dockerfile(const char *text, size_t n)
{
	struct buf b = BUF_INIT;
	struct err e = ERR_INIT;
	struct ast f;
	struct ast_directive d;
	A = arena_new(0);
	out = &b;
	directive("syntax", ast_detect_syntax(A, text, n, &d), &d);
	directive("check", ast_find_directive(A, "check", text, n, &d), &d);
	directive("escape", ast_find_directive(A, "escape", text, n, &d), &d);
	if (ast_parse(A, text, n, &f, &e) < 0) {
		failure(&e);
	} else {
		buf_addf(out, "escape %c\n", f.escape);
		for (size_t i = 0; i < f.n_warnings; i++)
			buf_addf(out, "warning %s @%d\n", f.warnings[i].text, f.warnings[i].at.start);
		for (size_t i = 0; i < f.n_nodes; i++) {
			buf_addf(out, "node %s @%d-%d", f.nodes[i]->value, f.nodes[i]->at.start, f.nodes[i]->at.end);
			strs("flags", f.nodes[i]->flags);
			strs("comments", f.nodes[i]->comments);
			for (size_t k = 0; k < f.nodes[i]->n_heredocs; k++) line("heredoc", f.nodes[i]->heredocs[k].name);
			buf_addc(out, '\n');
		}
		stages(&f);
	}
	arena_free(A);
	buf_addc(&b, 0);
	return buf_take_str(&b);
}
