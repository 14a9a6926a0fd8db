/* --help, from the tables. buildctl's layout is urfave/cli's, the other is that of Docker's commands. */
#include "term/flags.h"

#include <stdio.h>
#include <string.h>

const char *flag_type_word(const struct flag *f, enum dialect d)
{
	static const char *const ctl[] = {"", "string", "string", "string", "int", "float", "duration", "bytes"};
	static const char *const buildx[] = {"", "string", "stringArray", "strings", "int", "float", "duration", "bytes"};
	if (f->type) return f->type;
	return d == DIALECT_BUILDCTL ? ctl[f->kind] : buildx[f->kind];
}

static const char *default_of(const struct flag *f)
{
	const char *env = f->env ? getenv(f->env) : NULL;
	return !str_empty(env) ? env : f->def;
}

static void pad(struct buf *out, size_t n)
{
	while (n-- > 0) buf_addc(out, ' ');
}

/* ---- buildctl ---- */
static void ctl_flag_names(const struct flag *f, struct buf *out)
{
	const char *t = flag_type_word(f, DIALECT_BUILDCTL), *sp = *t ? " " : "";
	for (int turn = 0; turn < (f->kind == FLAG_LIST ? 2 : 1); turn++) {
		if (turn) buf_adds(out, " [ ");
		buf_addf(out, "--%s%s%s", f->name, sp, t);
		if (f->letter) buf_addf(out, ", -%c%s%s", f->letter, sp, t);
		if (turn) buf_adds(out, " ]");
	}
}

static void ctl_flag_help(const struct flag *f, struct buf *out)
{
	const char *def = default_of(f);
	buf_adds(out, f->help);
	if (def && (f->kind == FLAG_STRING && *def))
		buf_addf(out, " (default: \"%s\")", def);
	else if (def && f->kind != FLAG_BOOL && f->kind != FLAG_STRING)
		buf_addf(out, " (default: %s)", def);
}

static void ctl_flags(const char *title, const struct flag *rows, bool with_help, bool with_version, struct buf *out)
{
	static const struct flag help = {.name = "help", .letter = 'h', .kind = FLAG_BOOL, .help = "show help"};
	static const struct flag version = {.name = "version", .letter = 'v', .kind = FLAG_BOOL, .help = "print the version"};
	const struct flag *list[80];
	size_t n = 0, width = 0;
	for (const struct flag *f = rows; f && f->name && n < array_len(list) - 2; f++)
		if (f->help) list[n++] = f;
	if (with_help) list[n++] = &help;
	if (with_version) list[n++] = &version;
	for (int turn = 0; turn < 2; turn++) {
		if (turn) buf_addf(out, "\n%s:\n", title);
		for (size_t i = 0; i < n; i++) {
			_cleanup_buf_ struct buf names = BUF_INIT;
			ctl_flag_names(list[i], &names);
			width = max_of(width, names.n);
			if (!turn) continue;
			buf_addf(out, "   %s", buf_str(&names));
			pad(out, width - names.n + 2);
			ctl_flag_help(list[i], out);
			buf_addc(out, '\n');
		}
	}
}

static size_t ctl_command_name(const struct command *c, struct buf *out)
{
	size_t from = out->n;
	buf_addf(out, "%s%s%s", c->name, c->aliases ? ", " : "", c->aliases ? c->aliases : "");
	return out->n - from;
}

static void ctl_commands(const struct args *a, struct buf *out)
{
	static const struct command help = {
		.name = "help", .aliases = "h", .summary = "Shows a list of commands or help for one command"};
	const struct command *c = args_command(a);
	size_t width = 0;
	_cleanup_buf_ struct buf scratch = BUF_INIT;
	for (const struct command *s = c->sub; s->name; s++)
		if (s->summary) width = max_of(width, ctl_command_name(s, &scratch));
	buf_adds(out, "\nCOMMANDS:\n");
	for (const struct command *s = c->sub;; s++) {
		if (!s->name && a->depth > 1) break;
		const struct command *row = s->name ? s : &help;
		if (row->summary) {
			buf_adds(out, "   ");
			pad(out, width - ctl_command_name(row, out) + 2);
			buf_addf(out, "%s\n", row->summary);
		}
		if (!s->name) break;
	}
}

static void ctl_help(const struct args *a, const char *prog, const char *version, struct buf *out)
{
	const struct command *c = args_command(a);
	_cleanup_buf_ struct buf name = BUF_INIT;
	buf_adds(&name, prog);
	for (size_t i = 1; i < a->depth; i++) buf_addf(&name, " %s", a->path[i]->name);
	buf_addf(out, "NAME:\n   %s - %s\n\nUSAGE:\n   ", buf_str(&name), c->summary ? c->summary : "");
	if (c->usage && c->sub == NULL)
		buf_adds(out, c->usage);
	else if (a->depth == 1)
		buf_addf(out, "%s [global options] [command [command options]]\n\nVERSION:\n   %s\n", buf_str(&name), version);
	else
		buf_addf(out, c->sub ? "%s [command [command options]]\n" : "%s [options]\n", buf_str(&name));
	if (c->sub) ctl_commands(a, out);
	if (a->depth == 1) {
		ctl_flags("GLOBAL OPTIONS", c->flags, true, true, out);
		return;
	}
	ctl_flags("OPTIONS", c->flags, true, false, out);
	if (!c->sub) ctl_flags("GLOBAL OPTIONS", a->path[0]->flags, false, false, out);
}

/* ---- Docker's ---- */
static void docker_flag(const struct flag *f, size_t width, struct buf *out, size_t *ret_width)
{
	_cleanup_buf_ struct buf left = BUF_INIT;
	const char *t = flag_type_word(f, DIALECT_BUILDX), *def = default_of(f);
	if (f->letter)
		buf_addf(&left, "  -%c, --%s", f->letter, f->name);
	else
		buf_addf(&left, "      --%s", f->name);
	if (*t && !f->implied) buf_addf(&left, " %s", t);
	*ret_width = max_of(*ret_width, left.n);
	if (!width) return;
	buf_adds(out, buf_str(&left));
	pad(out, width - left.n + 3);
	buf_adds(out, f->help);
	if (!str_empty(def) && !f->hide_default && f->kind != FLAG_BOOL)
		buf_addf(out, f->kind == FLAG_STRING ? " (default \"%s\")" : " (default %s)", def);
	buf_addc(out, '\n');
}

static void docker_flags(const char *title, const struct flag *rows, struct buf *out)
{
	size_t width = 0, ignored = 0;
	for (const struct flag *f = rows; f && f->name; f++)
		if (f->help) docker_flag(f, 0, NULL, &width);
	if (!width) return;
	buf_addf(out, "\n%s:\n", title);
	for (const struct flag *f = rows; f && f->name; f++)
		if (f->help) docker_flag(f, width, out, &ignored);
}

void args_usage_line(const struct args *a, const char *prog, struct buf *out)
{
	const struct command *c = args_command(a);
	buf_adds(out, prog);
	for (size_t i = 1; i < a->depth; i++) buf_addf(out, " %s", a->path[i]->name);
	if (c->sub)
		buf_adds(out, c->run ? " [OPTIONS] COMMAND" : " COMMAND");
	else if (c->usage)
		buf_addf(out, " %s", c->usage);
	else if (c->flags)
		buf_adds(out, " [OPTIONS]");
}

static void docker_help(const struct args *a, const char *prog, struct buf *out)
{
	const struct command *c = args_command(a);
	size_t width = 0;
	buf_adds(out, "Usage:  ");
	args_usage_line(a, prog, out);
	buf_addf(out, "\n\n%s\n", c->summary ? c->summary : "");
	if (c->aliases) buf_addf(out, "\nAliases:\n  %s, %s\n", c->name, c->aliases);
	docker_flags("Options", c->flags, out);
	if (a->depth > 1) docker_flags("Global options", a->path[0]->flags, out);
	if (!c->sub) return;
	for (const struct command *s = c->sub; s->name; s++)
		if (s->summary) width = max_of(width, strlen(s->name));
	buf_adds(out, "\nCommands:\n");
	for (const struct command *s = c->sub; s->name; s++)
		if (s->summary) buf_addf(out, "  %-*s   %s\n", (int)width, s->name, s->summary);
	_cleanup_buf_ struct buf line = BUF_INIT;
	args_usage_line(a, prog, &line);
	buf_addf(out, "\nRun '%s --help' for more information on a command.\n", buf_str(&line));
}

void args_help(const struct args *a, const char *prog, const char *version, struct buf *out)
{
	if (a->dialect == DIALECT_BUILDCTL)
		ctl_help(a, prog, version, out);
	else
		docker_help(a, prog, out);
}
