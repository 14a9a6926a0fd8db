/* Manual pages, from the tables: what a page says of flags and commands follows from the rows. What rows cannot say (files,
 * signals, examples) stands in `notes`, in man(7) macros.
 *
 * 1. A page a command of slipway, one for buildctl with all of its commands, one for slipwayd.
 * 2. Every text of a row is escaped; notes are not.
 * 3. The same sources give the same bytes: no dates but the one below, no environment. */
#include "cli/manual.h"
#include "cli/internal.h"
#include "conf/conf.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MANUAL_DATE "2026-11-22"

static const struct note {
	const char *page, *title, *text;
} notes[] = {
	{"slipway", "DESCRIPTION",
	 ".B slipway\nbuilds container images by a build daemon:\n.BR slipwayd (8),\nor any other that speaks BuildKit's API.\n"
	 "Its commands and flags are those of\n.BR \"docker buildx\" .\nCalled as\n.B docker\\-buildx\nit is that plugin of "
	 "the Docker "
	 "client;\ncalled as\n.B buildctl\nit takes the command line of\n.BR buildctl (1).\n.PP\nThe daemon is found in this "
	 "order: "
	 "\\fB\\-\\-builder\\fR, \\fB$BUILDX_BUILDER\\fR,\n\\fB$BUILDKIT_HOST\\fR, the builder chosen by\n.BR \"docker buildx "
	 "use\" .\n"
	 "Where none is configured,\n.B slipwayd\nis started and leaves when it was idle for a minute.\n"},
	{"slipway", "EXAMPLES",
	 ".nf\nslipway build \\-t registry.example/app:1 \\-\\-push .\nslipway build \\-o out .            # the files, into a "
	 "folder\n"
	 "slipway build \\-\\-load \\-t app .     # into the Docker daemon\n"
	 "slipway \\-\\-builder tcp://host:1234 build \\-\\-target test .\n.fi\n"},
	{"slipway", "ENVIRONMENT",
	 ".TP\n.B BUILDKIT_HOST\nAddress of the daemon, such as unix:///run/buildkit/buildkitd.sock.\n.TP\n.B BUILDX_BUILDER\n"
	 "Name of a builder, or an address.\n.TP\n.B BUILDX_CONFIG\nFolder of the builders (default: buildx in "
	 "\\fB$DOCKER_CONFIG\\fR, or ~/.docker/buildx).\n.TP\n.B DOCKER_CONFIG\nFolder of config.json, which holds the "
	 "credentials of "
	 "registries (default: ~/.docker).\n.TP\n.B DOCKER_HOST\nThe Docker daemon that \\fB\\-\\-load\\fR loads images "
	 "into.\n"},
	{"slipway", "EXIT STATUS", "0 when it worked, 1 when it did not.\n"},
	{"slipway-build", "EXAMPLES",
	 ".nf\nslipway build \\-t app \\-\\-load .\nslipway build \\-f docker/Dockerfile \\-\\-build\\-arg VERSION=3 \\-t "
	 "r.example/app \\-\\-push .\n"
	 "slipway build \\-o type=oci,dest=app.tar .\nslipway build \\-\\-secret id=token,src=token.txt .\n"
	 "printf 'FROM alpine\\enRUN echo \"hello world\"\\en' | slipway build \\-\n.fi\n"},
	{"buildctl", "DESCRIPTION",
	 ".B buildctl\nis\n.BR slipway (1)\ncalled by this name: the commands and flags of BuildKit's own client,\nfor scripts "
	 "and for "
	 "what drives a builder in a container.\n"},
	{"buildctl", "EXAMPLES",
	 ".nf\nbuildctl build \\-\\-frontend dockerfile.v0 \\-\\-local context=. \\-\\-local dockerfile=. \\e\n"
	 "    \\-\\-output type=image,name=registry.example/app,push=true\n.fi\n"},
	{"slipwayd", "DESCRIPTION",
	 ".B slipwayd\nbuilds container images. It serves BuildKit's gRPC API, to\n.BR slipway (1),\n.B buildctl\nand\n.BR "
	 "\"docker "
	 "buildx\" ,\nand takes the flags and the configuration file of\n.BR buildkitd ,\nby which name it may be called "
	 "too.\n.PP\nIt "
	 "needs root, an OCI runtime (\\fBcrun\\fR or \\fBrunc\\fR; it tries at start which one works) and,\nfor Git sources, "
	 "\\fBgit\\fR.\nA flag wins over its environment variable, and that over the configuration file.\n"},
	{"slipwayd", "SIGNALS",
	 ".TP\n.BR SIGTERM \", \" SIGINT\nTake no more requests, let running builds end, then exit with status 0. The second "
	 "one "
	 "does not wait.\n.TP\n.B SIGHUP\nRead the configuration and the certificates again; so it does when these files change. Builds go on.\n"},
	{"slipwayd", "CHECKING THE CONFIGURATION",
	 ".B slipwayd check\\-config\n.RI [ FILE ]\ntells what is wrong with a configuration file, with line and column, and exits with "
	 "status 1 when there is\nanything.\n.B slipwayd check\\-config \\-\\-effective\nprints every value and where it comes from.\n"},
	{"slipwayd", "FILES",
	 ".TP\n.I /etc/buildkit/buildkitd.toml\nThe configuration, when \\fB\\-\\-config\\fR names no other. See\n.BR "
	 "slipwayd.toml (5).\n"
	 ".TP\n.I /var/lib/buildkit/slipway\nThe state: images, snapshots, the cache and its database. It outlives every "
	 "crash.\n"
	 ".TP\n.I /run/buildkit/buildkitd.sock\nThe socket, when \\fB\\-\\-addr\\fR names no other.\n"},
	{"slipwayd", "EXIT STATUS", "0 after a signal, 1 when it could not start; the reason is on standard error.\n"},
};

/* ---- text ---- */
static void escape(const char *s, struct buf *out)
{
	bool line_start = true;
	for (; *s; s++) {
		if (line_start && (*s == '.' || *s == '\'')) buf_adds(out, "\\&");
		if (*s == '\\')
			buf_adds(out, "\\e");
		else if (*s == '-')
			buf_adds(out, "\\-");
		else
			buf_addc(out, *s);
		if (*s == ',' && s[1] > ' ') buf_adds(out, "\\:"); /* a long word may break here */
		line_start = *s == '\n';
	}
}

/* With a capital, unless it begins with a name such as "OTEL" or "dockerfile.v0", and a full stop. */
static void sentence(const char *text, struct buf *out)
{
	_cleanup_free_ char *s = xstrdup(text);
	size_t n = strlen(s), word = strcspn(s, " ");
	if (*s >= 'a' && *s <= 'z' && strspn(s, "abcdefghijklmnopqrstuvwxyz") == word && n > word) *s -= 'a' - 'A';
	escape(s, out);
	if (n && s[n - 1] != '.') buf_addc(out, '.');
	buf_addc(out, '\n');
}

static void add_flags(const struct flag *rows, enum dialect d, struct buf *out)
{
	for (const struct flag *f = rows; f && f->name; f++) {
		if (!f->help) continue;
		const char *t = flag_type_word(f, d);
		buf_adds(out, ".TP\n");
		if (f->letter) buf_addf(out, "\\fB\\-%c\\fR, ", f->letter);
		buf_adds(out, "\\fB\\-\\-");
		escape(f->name, out);
		buf_adds(out, "\\fR");
		if (*t) buf_addf(out, f->implied ? "[=\\fI%s\\fR]" : " \\fI%s\\fR", t);
		buf_addc(out, '\n');
		sentence(f->help, out);
		if (f->kind == FLAG_LIST) buf_adds(out, "May be given several times.\n");
		if (!str_empty(f->def) && !f->hide_default && f->kind != FLAG_BOOL) {
			buf_adds(out, "Default: ");
			escape(f->def, out);
			buf_adds(out, ".\n");
		}
		if (f->env) buf_addf(out, "Environment: \\fB$%s\\fR.\n", f->env);
	}
}

static bool has_flags(const struct command *c)
{
	for (const struct flag *f = c->flags; f && f->name; f++)
		if (f->help) return true;
	return false;
}

/* ---- pages ---- */
static void head(const char *page, int section, const char *summary, struct buf *out)
{
	_cleanup_free_ char *upper = xstrdup(page);
	for (char *p = upper; *p; p++)
		if (*p >= 'a' && *p <= 'z') *p -= 'a' - 'A';
	buf_addf(out, ".TH %s %d \"%s\" \"Slipway %s\"\n.ad l\n.SH NAME\n", upper, section, MANUAL_DATE, SLIPWAY_VERSION);
	escape(page, out);
	buf_adds(out, " \\- ");
	escape(summary, out);
	buf_addc(out, '\n');
}

static void add_notes(const char *page, bool before_options, struct buf *out)
{
	for (size_t i = 0; i < array_len(notes); i++) {
		if (strcmp(notes[i].page, page) != 0 || (strcmp(notes[i].title, "DESCRIPTION") == 0) != before_options)
			continue;
		buf_addf(out, ".SH %s\n%s", notes[i].title, notes[i].text);
	}
}

static void see_also(const char *page, struct buf *out)
{
	static const char *const all[] = {"buildctl (1)", "slipway (1)", "slipway-build (1)", "slipwayd.toml (5)",
					  "slipwayd (8)"};
	const char *sep = "";
	buf_adds(out, ".SH SEE ALSO\n");
	for (size_t i = 0; i < array_len(all); i++) {
		size_t n = strcspn(all[i], " ");
		if (n == strlen(page) && memcmp(all[i], page, n) == 0) continue;
		_cleanup_free_ char *name = xstrndup(all[i], n);
		buf_adds(out, sep);
		buf_adds(out, ".BR ");
		escape(name, out);
		buf_adds(out, all[i] + n);
		sep = ",\n";
	}
	buf_addc(out, '\n');
}

static void synopsis(const char *name, const struct command *c, struct buf *out)
{
	buf_adds(out, "\\fB");
	escape(name, out);
	buf_adds(out, "\\fR ");
	const char *usage = c->usage && !strchr(c->usage, '\n') ? c->usage : NULL;
	escape(c->sub ? "[OPTIONS] COMMAND" : usage ? usage : has_flags(c) ? "[OPTIONS]" : "", out);
	buf_addc(out, '\n');
}

/* A command inside a page: its heading, flags, and those below it. */
static void subcommand(const char *prefix, const struct command *c, enum dialect d, struct buf *out)
{
	_cleanup_free_ char *name = xasprintf("%s %s", prefix, c->name);
	buf_adds(out, ".SS ");
	synopsis(name, c, out);
	sentence(c->summary, out);
	add_flags(c->flags, d, out);
	for (const struct command *s = c->sub; s && s->name; s++)
		if (s->summary) subcommand(name, s, d, out);
}

/* page: "slipway-build"; line: what one types. all: the commands in full, else a list that names their pages. */
static void page_of(const char *page, const char *line, int section, const struct command *c, enum dialect d, bool all,
		    struct buf *out)
{
	_cleanup_free_ char *summary = xstrdup(c->summary ? c->summary : "");
	if (*summary >= 'A' && *summary <= 'Z') *summary += 'a' - 'A';
	head(page, section, summary, out);
	buf_adds(out, ".SH SYNOPSIS\n");
	synopsis(line, c, out);
	add_notes(page, true, out);
	if (has_flags(c)) {
		buf_adds(out, ".SH OPTIONS\n");
		add_flags(c->flags, d, out);
	}
	if (c->sub) buf_adds(out, ".SH COMMANDS\n");
	for (const struct command *s = c->sub; s && s->name; s++) {
		if (!s->summary) continue;
		if (all) {
			subcommand(line, s, d, out);
			continue;
		}
		buf_addf(out, ".TP\n.BR %s\\-%s (1)\n", line, s->name);
		sentence(s->summary, out);
	}
	add_notes(page, false, out);
	see_also(page, out);
}

const struct command *manual_daemon(void)
{
	enum { MAX = 128 };
	static struct flag rows[MAX];
	static struct command c;
	struct conf_flag_info f;
	size_t n = 0;
	if (c.name) return &c;
	for (size_t i = 0; n < MAX - 1 && conf_flag_at(i, &f); i++)
		rows[n++] = (struct flag){
			.name = f.name,
			.kind = f.kind == 'b'   ? FLAG_BOOL
				: f.kind == 'n' ? FLAG_INT
				: f.kind == 'l' ? FLAG_LIST
						: FLAG_STRING,
			.help = f.hidden ? NULL : f.help,
			.env = f.env,
		};
	c = (struct command){.name = "slipwayd", .summary = "container image build daemon", .flags = rows, .max_args = 0};
	return &c;
}

/* ---- all of them ---- */
/* Calls take for each page; stops when it answers true. */
static bool each_page(bool (*take)(void *arg, const char *name, int section, const struct buf *text), void *arg)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	page_of("slipway", "slipway", 1, &buildx_root, DIALECT_BUILDX, false, &b);
	if (take(arg, "slipway", 1, &b)) return true;
	for (const struct command *s = buildx_root.sub; s->name; s++) {
		if (!s->summary) continue;
		_cleanup_buf_ struct buf one = BUF_INIT;
		_cleanup_free_ char *page = xasprintf("slipway-%s", s->name), *line = xasprintf("slipway %s", s->name);
		page_of(page, line, 1, s, DIALECT_BUILDX, true, &one);
		if (take(arg, page, 1, &one)) return true;
	}
	_cleanup_buf_ struct buf ctl = BUF_INIT, daemon = BUF_INIT;
	page_of("buildctl", "buildctl", 1, &buildctl_root, DIALECT_BUILDCTL, true, &ctl);
	if (take(arg, "buildctl", 1, &ctl)) return true;
	page_of("slipwayd", "slipwayd", 8, manual_daemon(), DIALECT_BUILDCTL, true, &daemon);
	if (take(arg, "slipwayd", 8, &daemon)) return true;
	_cleanup_buf_ struct buf file = BUF_INIT, other = BUF_INIT;
	conf_man(&file);
	buf_adds(&other, ".so man5/slipwayd.toml.5\n");
	return take(arg, "slipwayd.toml", 5, &file) || take(arg, "buildkitd.toml", 5, &other);
}

struct search {
	const char *name;
	struct buf *out;
};
static bool is_it(void *arg, const char *name, int section, const struct buf *text)
{
	struct search *s = arg;
	if (strcmp(name, s->name) != 0) return false;
	buf_add(s->out, text->p, text->n);
	return true;
}

int manual_page(const char *name, struct buf *out, struct err *e)
{
	struct search s = {name, out};
	if (each_page(is_it, &s)) return 0;
	return err_set(e, CODE_NOT_FOUND, "no manual page %s: there are slipway, slipway-COMMAND, buildctl, slipwayd and slipwayd.toml", name);
}

struct writing {
	const char *dir;
	struct err *e;
	int rv;
};
static bool write_page(void *arg, const char *name, int section, const struct buf *text)
{
	struct writing *w = arg;
	_cleanup_free_ char *folder = xasprintf("%s/man%d", w->dir, section),
			    *path = xasprintf("%s/%s.%d", folder, name, section);
	w->rv = path_mkdirs(folder, 0755, w->e);
	if (w->rv == 0) w->rv = path_write_file(AT_FDCWD, path, text->p, text->n, 0644, false, w->e);
	return w->rv < 0;
}

int manual_write(const char *dir, struct err *e)
{
	struct writing w = {dir, e, 0};
	each_page(write_page, &w);
	return w.rv;
}
