/* Nodes -> typed commands, gathered into stages.
 *
 * One parser a kind, in a table; each checks its arguments and flags in the peer's order, since the first complaint is what
 * users see. ARG before the first FROM belongs to the file, everything else to the stage that was opened last. Invariant: an
 * error carries the place of its instruction exactly once. */
#include "dockerfile/instr.h"
#include "dockerfile/json.h"
#include "dockerfile/rune.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *const instr_names[INSTR_KINDS] = {
	[INSTR_ADD] = "ADD",
	[INSTR_ARG] = "ARG",
	[INSTR_CMD] = "CMD",
	[INSTR_COPY] = "COPY",
	[INSTR_ENTRYPOINT] = "ENTRYPOINT",
	[INSTR_ENV] = "ENV",
	[INSTR_EXPOSE] = "EXPOSE",
	[INSTR_FROM] = "FROM",
	[INSTR_HEALTHCHECK] = "HEALTHCHECK",
	[INSTR_LABEL] = "LABEL",
	[INSTR_MAINTAINER] = "MAINTAINER",
	[INSTR_ONBUILD] = "ONBUILD",
	[INSTR_RUN] = "RUN",
	[INSTR_SHELL] = "SHELL",
	[INSTR_STOPSIGNAL] = "STOPSIGNAL",
	[INSTR_USER] = "USER",
	[INSTR_VOLUME] = "VOLUME",
	[INSTR_WORKDIR] = "WORKDIR",
};

int instr_fail(struct err *e, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	err_vset(e, CODE_UNKNOWN, fmt, ap);
	va_end(ap);
	return -1;
}

/* ---- what many share ---- */

static const char *trimmed(struct arena *a, const char *s)
{
	struct rune_text t = rune_trim(s, strlen(s));
	return arena_strndup(a, t.s, t.n);
}

int instr_no_flags(const struct instr_req *q, struct err *e)
{
	return instr_flags_parse(q->a, &q->node->flags, NULL, 0, NULL, e);
}

static int exactly_one(const struct instr_req *q, struct err *e)
{
	return q->args.n == 1 ? 0 : instr_fail(e, "%s requires exactly one argument", instr_names[q->kind]);
}

static int at_least_one(const struct instr_req *q, struct err *e)
{
	return q->args.n ? 0 : instr_fail(e, "%s requires at least one argument", instr_names[q->kind]);
}

static int blank_name(const struct instr_req *q, struct err *e)
{
	return instr_fail(e, "%s names can not be blank", instr_names[q->kind]);
}

static const char *doc_comment(const struct instr_req *q, const char *name)
{
	size_t n = strlen(name);
	const struct ast_strs *c = &q->node->comments;
	for (size_t i = 0; n && i < c->n; i++)
		if (!strncmp(c->v[i], name, n) && c->v[i][n] == ' ') return c->v[i] + n + 1;
	return "";
}

struct ast_strs instr_json_args(const struct instr_req *q, size_t from)
{
	struct ast_strs out = {0};
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = from; i < q->args.n; i++) {
		if (q->node->json) {
			ast_strs_add(q->a, &out, q->args.v[i]);
		} else {
			if (i > from) buf_addc(&b, ' ');
			buf_adds(&b, q->args.v[i]);
		}
	}
	if (!q->node->json && q->args.n > from) ast_strs_add(q->a, &out, arena_strdup(q->a, buf_str(&b)));
	return out;
}

int instr_parse_line(const struct instr_req *q, struct instr_cmdline *ret)
{
	*ret = (struct instr_cmdline){.args = instr_json_args(q, 0), .shell = !q->node->json, .n_files = q->node->n_heredocs};
	if (ret->n_files) ret->files = arena_alloc(q->a, ret->n_files * sizeof *ret->files);
	for (size_t i = 0; i < ret->n_files; i++) {
		const struct ast_heredoc *h = &q->node->heredocs[i];
		ret->files[i] = (struct instr_file_line){.name = h->name, .data = h->content, .chomp = h->chomp};
	}
	return 0;
}

/* ---- the kinds ---- */

static int parse_pairs(const struct instr_req *q, struct instr *c, struct err *e) /* ENV, LABEL */
{
	if (instr_no_flags(q, e) < 0 || at_least_one(q, e) < 0) return -1;
	size_t n = q->args.n / 3;
	ensure(q->args.n == n * 3);
	c->kv.n = n;
	c->kv.v = arena_alloc(q->a, n * sizeof *c->kv.v);
	for (size_t i = 0; i < n; i++) {
		const char **w = &q->args.v[i * 3];
		if (!*w[0]) return blank_name(q, e);
		c->kv.v[i] = (struct instr_kv){.key = w[0], .value = w[1], .no_delim = !*w[2]};
	}
	return 0;
}

static int parse_arg(const struct instr_req *q, struct instr *c, struct err *e)
{
	if (at_least_one(q, e) < 0) return -1;
	c->arg.n = q->args.n;
	c->arg.v = arena_alloc(q->a, c->arg.n * sizeof *c->arg.v);
	for (size_t i = 0; i < c->arg.n; i++) {
		struct instr_arg *v = &c->arg.v[i];
		const char *w = q->args.v[i], *eq = strchr(w, '=');
		if (eq == w) return blank_name(q, e);
		v->key = eq ? arena_strndup(q->a, w, (size_t)(eq - w)) : w;
		v->value = eq ? eq + 1 : NULL;
		v->doc = doc_comment(q, v->key);
	}
	return 0;
}

static int parse_text(const struct instr_req *q, struct instr *c, struct err *e) /* MAINTAINER, USER, WORKDIR */
{
	if (exactly_one(q, e) < 0 || instr_no_flags(q, e) < 0) return -1;
	c->text = q->args.v[0];
	return 0;
}

static int parse_stopsignal(const struct instr_req *q, struct instr *c, struct err *e)
{
	if (exactly_one(q, e) < 0) return -1;
	c->text = q->args.v[0];
	return 0;
}

static int parse_line(const struct instr_req *q, struct instr *c, struct err *e) /* CMD, ENTRYPOINT */
{
	return instr_no_flags(q, e) < 0 ? -1 : instr_parse_line(q, &c->line);
}

static int word_cmp(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static int parse_expose(const struct instr_req *q, struct instr *c, struct err *e)
{
	if (at_least_one(q, e) < 0 || instr_no_flags(q, e) < 0) return -1;
	c->words = q->args;
	qsort(c->words.v, c->words.n, sizeof *c->words.v, word_cmp);
	return 0;
}

static int parse_volume(const struct instr_req *q, struct instr *c, struct err *e)
{
	if (at_least_one(q, e) < 0 || instr_no_flags(q, e) < 0) return -1;
	for (size_t i = 0; i < q->args.n; i++) {
		const char *v = trimmed(q->a, q->args.v[i]);
		if (!*v) return instr_fail(e, "VOLUME specified can not be an empty string");
		ast_strs_add(q->a, &c->words, v);
	}
	return 0;
}

static int parse_shell(const struct instr_req *q, struct instr *c, struct err *e)
{
	if (instr_no_flags(q, e) < 0 || at_least_one(q, e) < 0) return -1;
	if (!q->node->json) return instr_fail(e, "SHELL requires the arguments to be in JSON form");
	c->words = q->args;
	return 0;
}

/* The text of the trigger: the line behind ONBUILD, with its heredocs. */
static const char *trigger_text(const struct instr_req *q)
{
	static const char space[] = " \t\n\f\r";
	const char *s = q->node->original + strspn(q->node->original, space);
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (!strncasecmp(s, "ONBUILD", 7))
		s += 7 + strspn(s + 7, space);
	else
		s = q->node->original;
	buf_adds(&b, s);
	for (size_t i = 0; i < q->node->n_heredocs; i++)
		buf_addf(&b, "\n%s%s", q->node->heredocs[i].content, q->node->heredocs[i].name);
	return arena_strdup(q->a, buf_str(&b));
}

static int parse_onbuild(const struct instr_req *q, struct instr *c, struct err *e)
{
	if (at_least_one(q, e) < 0 || instr_no_flags(q, e) < 0) return -1;
	const char *trigger = rune_upper(q->a, trimmed(q->a, q->args.v[0]));
	if (!strcmp(trigger, "ONBUILD")) return instr_fail(e, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
	if (!strcmp(trigger, "MAINTAINER") || !strcmp(trigger, "FROM"))
		return instr_fail(e, "%s isn't allowed as an ONBUILD trigger", trigger);
	c->text = trigger_text(q);
	return 0;
}

/* ---- HEALTHCHECK ---- */

static int interval(const struct instr_flag *f, int64_t *ret, struct err *e)
{
	*ret = 0;
	if (!*f->value) return 0;
	if (duration_parse(f->value, ret, e) < 0) {
		if (e) e->code = CODE_UNKNOWN;
		return -1;
	}
	if (*ret && *ret < 1000000) return instr_fail(e, "Interval \"%s\" cannot be less than 1ms", f->name);
	return 0;
}

static int retries(struct arena *a, const char *s, int *ret, struct err *e)
{
	const char *d = s + (*s == '-' || *s == '+');
	int64_t v = 0;
	if (!*s) return 0;
	if (!*d || d[strspn(d, "0123456789")])
		return instr_fail(e, "strconv.ParseInt: parsing %s: invalid syntax", rune_quote(a, s));
	for (; *d; d++) v = min_of(v * 10 + (*d - '0'), (int64_t)1 << 40);
	if (*s == '-') v = -v;
	if (v > INT32_MAX || v < INT32_MIN)
		return instr_fail(e, "strconv.ParseInt: parsing %s: value out of range", rune_quote(a, s));
	if (v < 0) return instr_fail(e, "--retries cannot be negative (%d)", (int)v);
	*ret = (int)v;
	return 0;
}

static int health_test(const struct instr_req *q, const char *type, struct ast_strs *test, struct err *e)
{
	struct ast_strs cmd = instr_json_args(q, 1);
	if (strcmp(type, "CMD")) return instr_fail(e, "Unknown type %s in HEALTHCHECK (try CMD)", rune_quote(q->a, type));
	if (!cmd.n) return instr_fail(e, "Missing command after HEALTHCHECK CMD");
	ast_strs_add(q->a, test, q->node->json ? "CMD" : "CMD-SHELL");
	for (size_t i = 0; i < cmd.n; i++) ast_strs_add(q->a, test, cmd.v[i]);
	return 0;
}

int instr_parse_healthcheck(const struct instr_req *q, struct instr *c, struct err *e)
{
	enum { INTERVAL, TIMEOUT, START_PERIOD, START_INTERVAL, RETRIES, N };
	struct instr_flag f[N] = {[INTERVAL] = {"interval", FLAG_STRING, ""},
				  [TIMEOUT] = {"timeout", FLAG_STRING, ""},
				  [START_PERIOD] = {"start-period", FLAG_STRING, ""},
				  [START_INTERVAL] = {"start-interval", FLAG_STRING, ""},
				  [RETRIES] = {"retries", FLAG_STRING, ""}};
	struct instr_health *h = &c->health;
	if (at_least_one(q, e) < 0) return -1;
	const char *type = rune_upper(q->a, q->args.v[0]);
	if (!strcmp(type, "NONE")) {
		if (q->args.n > 1) return instr_fail(e, "HEALTHCHECK NONE takes no arguments");
		ast_strs_add(q->a, &h->test, type);
		return 0;
	}
	if (instr_flags_parse(q->a, &q->node->flags, f, N, NULL, e) < 0 || health_test(q, type, &h->test, e) < 0) return -1;
	if (interval(&f[INTERVAL], &h->interval_ns, e) < 0 || interval(&f[TIMEOUT], &h->timeout_ns, e) < 0 ||
	    interval(&f[START_PERIOD], &h->start_period_ns, e) < 0 ||
	    interval(&f[START_INTERVAL], &h->start_interval_ns, e) < 0)
		return -1;
	return retries(q->a, f[RETRIES].value, &h->retries, e);
}

/* ---- FROM ---- */

static bool stage_name_valid(const char *s)
{
	return *s >= 'a' && *s <= 'z' && !s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.")];
}

static int parse_from(const struct instr_req *q, struct instr_stage *ret, struct err *e)
{
	struct instr_flag platform = {"platform", FLAG_STRING, ""};
	const struct ast_node *n = q->node;
	const char *name = "";
	if (q->args.n == 3 && !strcasecmp(q->args.v[1], "as")) {
		name = rune_lower(q->a, q->args.v[2]);
		if (!stage_name_valid(name))
			return instr_fail(e,
					  "invalid name for build stage: %s, name can't start with a number or contain symbols",
					  rune_quote(q->a, q->args.v[2]));
	} else if (q->args.n != 1) {
		return instr_fail(e, "FROM requires either one or three arguments");
	}
	if (instr_flags_parse(q->a, &n->flags, &platform, 1, NULL, e) < 0) return -1;
	*ret = (struct instr_stage){.name = name,
				    .base = q->args.v[0],
				    .platform = platform.value,
				    .orig_cmd = n->value,
				    .doc = doc_comment(q, name),
				    .code = trimmed(q->a, n->original),
				    .at = n->at,
				    .comments = n->comments};
	return 0;
}

/* ---- what is warned of here ---- */

static void lint_from(const struct instr_req *q, const struct lint *l)
{
	const char **w = q->args.v, *cmd = q->node->value;
	if (q->args.n < 3) return;
	if (q->args.n == 3 && strcmp(w[2], rune_lower(q->a, w[2]))) lint_run(l, LINT_STAGE_NAME_CASING, q->node->at, w[2]);
	bool lower = !strcmp(cmd, rune_lower(q->a, cmd)), upper = !strcmp(cmd, rune_upper(q->a, cmd));
	if (!lower && !upper) return; /* then another rule complains */
	if (strcmp(w[1], lower ? rune_lower(q->a, w[1]) : rune_upper(q->a, w[1])))
		lint_run(l, LINT_FROM_AS_CASING, q->node->at, w[1], cmd);
}

static void lint_description(const struct instr_req *q, const struct lint *l, const char *const *keys, size_t n)
{
	const struct ast_strs *c = &q->node->comments;
	if (!c->n || !n) return;
	const char *last = c->v[c->n - 1];
	size_t len = strcspn(last, " ");
	for (size_t i = 0; i < n; i++)
		if (strlen(keys[i]) == len && !memcmp(keys[i], last, len)) return;
	lint_run(l, LINT_INVALID_DEFINITION_DESCRIPTION, q->node->at, instr_names[q->kind], n > 1 ? "<arg_key>" : keys[0]);
}

static void lint_arg(const struct instr_req *q, const struct lint *l, const struct instr *c)
{
	struct ast_strs keys = {0};
	if (!q->node->comments.n) return;
	for (size_t i = 0; i < c->arg.n; i++) ast_strs_add(q->a, &keys, c->arg.v[i].key);
	lint_description(q, l, keys.v, keys.n);
}

/* ---- nodes ---- */

typedef int parse_fn(const struct instr_req *q, struct instr *c, struct err *e);
static parse_fn *const parsers[INSTR_KINDS] = {
	[INSTR_ADD] = instr_parse_copy,  [INSTR_ARG] = parse_arg,
	[INSTR_CMD] = parse_line,        [INSTR_COPY] = instr_parse_copy,
	[INSTR_ENTRYPOINT] = parse_line, [INSTR_ENV] = parse_pairs,
	[INSTR_EXPOSE] = parse_expose,   [INSTR_HEALTHCHECK] = instr_parse_healthcheck,
	[INSTR_LABEL] = parse_pairs,     [INSTR_MAINTAINER] = parse_text,
	[INSTR_ONBUILD] = parse_onbuild, [INSTR_RUN] = instr_parse_run,
	[INSTR_SHELL] = parse_shell,     [INSTR_STOPSIGNAL] = parse_stopsignal,
	[INSTR_USER] = parse_text,       [INSTR_VOLUME] = parse_volume,
	[INSTR_WORKDIR] = parse_text,
};

/* The words of a node; those of a trigger stand behind its name. */
static struct ast_strs args_of(struct arena *a, const struct ast_node *n)
{
	if (!n->sub) return n->words;
	struct ast_strs out = {0};
	for (const struct ast_node *s = n->sub; s; s = s->sub) {
		ast_strs_add(a, &out, s->value);
		for (size_t i = 0; i < s->words.n; i++) ast_strs_add(a, &out, s->words.v[i]);
	}
	return out;
}

static int kind_of(struct arena *a, const struct ast_node *n, enum instr_kind *ret, struct err *e)
{
	for (int k = 0; k < INSTR_KINDS; k++)
		if (!strcasecmp(n->value, instr_names[k])) {
			*ret = (enum instr_kind)k;
			return 0;
		}
	const char *match = lint_suggest(a, n->value, instr_names, INSTR_KINDS, false);
	return instr_fail(e, "unknown instruction: %s%s", n->value, lint_mean(a, "", match));
}

/* Either a stage or a command; *ret_cmd NULL: a stage. */
static int node_parse(const struct instr_req *q, const struct lint *lint, struct instr **ret_cmd, struct instr_stage *ret_stage,
		      struct err *e)
{
	const struct ast_node *n = q->node;
	struct lint l = lint_with_comments(lint, n->comments);
	*ret_cmd = NULL;
	if (q->kind == INSTR_FROM) {
		lint_from(q, &l);
		if (parse_from(q, ret_stage, e) < 0) return -1;
		if (*ret_stage->name) lint_description(q, &l, &ret_stage->name, 1);
		return 0;
	}
	if (q->kind == INSTR_MAINTAINER) lint_run(&l, LINT_MAINTAINER_DEPRECATED, n->at);
	struct instr *c = arena_new_of(q->a, struct instr);
	*c = (struct instr){
		.kind = q->kind, .name = n->value, .code = trimmed(q->a, n->original), .at = n->at, .comments = n->comments};
	if (parsers[q->kind](q, c, e) < 0) return -1;
	if (q->kind == INSTR_ARG) lint_arg(q, &l, c);
	*ret_cmd = c;
	return 0;
}

/* Only JSON can say it, and nothing can run it. */
static int no_nul(const struct ast_node *n, struct err *e)
{
	if (n->sub) n = n->sub;
	for (size_t i = 0; n->json && i < n->words.n; i++)
		if (strstr(n->words.v[i], JSON_NUL)) return instr_fail(e, "argument %zu of %s holds a NUL", i + 1, n->value);
	return 0;
}

static int instruction(struct arena *a, const struct ast_node *n, const struct lint *lint, struct instr **ret_cmd,
		       struct instr_stage *ret_stage, struct err *e)
{
	struct instr_req q = {.a = a, .node = n, .args = args_of(a, n)};
	if (kind_of(a, n, &q.kind, e) < 0 || no_nul(n, e) < 0 || node_parse(&q, lint, ret_cmd, ret_stage, e) < 0)
		return ast_err_at(e, n->at);
	return 0;
}

int instr_parse_command(struct arena *a, const struct ast_node *node, struct instr **ret, struct err *e)
{
	struct instr_stage stage;
	struct instr *c;
	if (instruction(a, node, NULL, &c, &stage, e) < 0) return -1;
	if (!c) {
		instr_fail(e, "*instructions.Stage is not a command type");
		return ast_err_at(e, node->at);
	}
	*ret = c;
	return 0;
}

/* ---- the file ---- */

static struct instr_stage *stage_open(struct arena *a, struct instr_file *f, const struct instr_stage *s)
{
	if (!(f->n_stages & (f->n_stages - 1))) {
		struct instr_stage *v = arena_alloc(a, (f->n_stages ? f->n_stages * 2 : 1) * sizeof *v);
		if (f->n_stages) memcpy(v, f->stages, f->n_stages * sizeof *v);
		f->stages = v;
	}
	f->stages[f->n_stages] = *s;
	return &f->stages[f->n_stages++];
}

static void meta_arg_add(struct arena *a, struct instr_file *f, struct instr *c)
{
	size_t n = f->n_meta_args;
	if (!(n & (n - 1))) {
		struct instr **v = arena_alloc(a, (n ? n * 2 : 1) * sizeof *v);
		if (n) memcpy(v, f->meta_args, n * sizeof *v);
		f->meta_args = v;
	}
	f->meta_args[f->n_meta_args++] = c;
}

void instr_stage_add(struct arena *a, struct instr_stage *s, struct instr *cmd)
{
	if (s->n_commands == s->cap_commands) {
		s->cap_commands = s->cap_commands ? s->cap_commands * 2 : 8;
		struct instr **v = arena_alloc(a, s->cap_commands * sizeof *v);
		if (s->n_commands) memcpy(v, s->commands, s->n_commands * sizeof *v);
		s->commands = v;
	}
	s->commands[s->n_commands++] = cmd;
}

int instr_parse(struct arena *a, const struct ast *file, const struct lint *lint, struct instr_file *ret, struct err *e)
{
	struct instr_file f = {0};
	for (size_t i = 0; i < file->n_nodes; i++) {
		const struct ast_node *n = file->nodes[i];
		struct instr_stage stage;
		struct instr *c;
		if (instruction(a, n, lint, &c, &stage, e) < 0)
			return err_wrap(e, "dockerfile parse error on line %d", n->at.start);
		if (!c) {
			stage_open(a, &f, &stage);
		} else if (f.n_stages) {
			instr_stage_add(a, &f.stages[f.n_stages - 1], c);
		} else if (c->kind == INSTR_ARG) {
			meta_arg_add(a, &f, c);
		} else {
			instr_fail(e, "no build stage in current context");
			return ast_err_at(e, n->at);
		}
	}
	*ret = f;
	return 0;
}

struct instr *instr_new_label(struct arena *a, const char *k, const char *v, bool no_expand)
{
	struct instr *c = arena_new_of(a, struct instr);
	*c = (struct instr){.kind = INSTR_LABEL, .name = "label", .code = arena_printf(a, "LABEL %s=%s", k, v)};
	c->kv.v = arena_new_of(a, struct instr_kv);
	*c->kv.v = (struct instr_kv){.key = arena_strdup(a, k), .value = arena_strdup(a, v)};
	c->kv.n = 1;
	c->kv.no_expand = no_expand;
	return c;
}

ptrdiff_t instr_stage_find(const struct instr_stage *v, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcasecmp(v[i].name, name)) return (ptrdiff_t)i;
	return -1;
}
