/* The manual of the file, from the rows: docs/config.md and slipwayd.toml(5). Pure. */
#include "conf/internal.h"

#include <inttypes.h>
#include <stdio.h>

struct manual {
	struct buf *out;
	bool man; /* roff; else Markdown */
};

/* Text with `code` in it. */
static void put_text(struct manual *m, const char *s)
{
	if (!m->man) {
		for (; *s; s++) buf_adds(m->out, *s == '|' ? "\\|" : (char[]){*s, 0});
		return;
	}
	bool code = false;
	for (; *s; s++) {
		if (*s == '`') {
			buf_adds(m->out, code ? "\\fR" : "\\fB");
			code = !code;
		} else if (*s == '\\') {
			buf_adds(m->out, "\\e");
		} else if (*s == '-') {
			buf_adds(m->out, "\\-");
		} else if (*s == '\n' && (s[1] == '.' || s[1] == '\'')) {
			buf_adds(m->out, "\n\\&");
		} else {
			buf_addc(m->out, *s);
		}
	}
}

static void heading(struct manual *m, const char *s)
{
	if (!m->man) {
		bool blank = m->out->n > 1 && m->out->p[m->out->n - 2] == '\n';
		buf_adds(m->out, blank ? "## " : "\n## ");
		bool code = *s == '[';
		buf_addf(m->out, code ? "`%s`\n\n" : "%s\n\n", s);
		return;
	}
	buf_adds(m->out, ".SH \"");
	for (; *s; s++) *s == '"' ? buf_adds(m->out, "\\(dq") : buf_addc(m->out, *s);
	buf_adds(m->out, "\"\n");
}

static void paragraph(struct manual *m, const char *s)
{
	if (m->man) buf_adds(m->out, ".PP\n");
	put_text(m, s);
	buf_adds(m->out, m->man ? "\n" : "\n\n");
}

static void example(struct manual *m, const char *s)
{
	buf_adds(m->out, m->man ? ".PP\n.nf\n" : "```toml\n");
	m->man ? put_text(m, s) : (void)buf_adds(m->out, s);
	buf_adds(m->out, m->man ? ".fi\n" : "```\n\n");
}

/* ---- a row ---- */

static const char *type_name(const struct conf_row *r)
{
	static const char *const names[] = {
		[T_BOOL] = "boolean", [T_TRI] = "boolean",          [T_STR] = "string",        [T_INT] = "integer",
		[T_STRS] = "strings", [T_MAP] = "table of strings", [T_DURATION] = "duration", [T_SPACE] = "space",
		[T_LIST] = "tables",  [T_NAMED] = "tables",         [T_ANY] = "table",
	};
	return r->file == FILE_DIR ? r->type == T_STRS ? "folders" : "folder"
	       : r->file           ? r->type == T_STRS ? "files" : "file"
				   : names[r->type];
}

static void put_type(struct manual *m, const struct conf_row *r)
{
	buf_adds(m->out, type_name(r));
	if ((r->min || r->max) && r->min != INT64_MIN && !(r->flags & F_SET))
		buf_addf(m->out, ", %" PRId64 " to %" PRId64, r->min, r->max);
	if (r->min == INT64_MIN && r->max) buf_addf(m->out, ", 1 to %" PRId64, r->max);
}

static void put_default(struct manual *m, const struct conf_row *r)
{
	bool words = r->def && (strchr(r->def, ' ') || strchr(r->def, '`')) && *r->def != '/';
	if (!r->def || (r->flags & F_OLD)) return;
	buf_adds(m->out, words || m->man ? "" : "`");
	put_text(m, r->def);
	buf_adds(m->out, words || m->man ? "" : "`");
}

static void put_help(struct manual *m, const struct conf_row *r)
{
	if (r->flags & F_OLD) {
		buf_adds(m->out, "Deprecated: ");
		put_text(m, r->help);
		buf_addc(m->out, '.');
		return;
	}
	put_text(m, r->help);
	if ((r->flags & F_IGNORED) && !str_starts(r->path, "worker/containerd/"))
		buf_adds(m->out, m->man ? " Not built yet." : " *Not built yet.*");
	if (r->ours) buf_adds(m->out, " BuildKit has no such key.");
}

static void put_row(struct manual *m, const struct conf_row *r, const char *name)
{
	bool live = r->flags & F_RELOAD;
	if (m->man) {
		buf_adds(m->out, ".TP\n.B ");
		put_text(m, name);
		buf_adds(m->out, "\n");
		put_help(m, r);
		buf_adds(m->out, "\n(");
		put_type(m, r);
		if (r->def && !(r->flags & F_OLD)) buf_adds(m->out, "; default ");
		put_default(m, r);
		buf_adds(m->out, live ? "; reload)\n" : ")\n");
		return;
	}
	buf_addf(m->out, "| `%s` | ", name);
	put_type(m, r);
	buf_adds(m->out, " | ");
	put_default(m, r);
	buf_addf(m->out, " | %s | ", live ? "yes" : "no");
	put_help(m, r);
	buf_adds(m->out, " |\n");
}

/* ---- sections ---- */

/* The rows directly in the section, from whichever table they are in. */
static void put_rows(struct manual *m, const struct conf_rows *rs, const char *prefix, const char *section)
{
	for (size_t i = 0; i < rs->n; i++) {
		const struct conf_row *r = &rs->rows[i];
		_cleanup_free_ char *path = *prefix ? xasprintf("%s/%s", prefix, r->path) : xstrdup(r->path);
		size_t n = strlen(section);
		const char *name = !n ? path : strncmp(path, section, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
		if (name && !strchr(name, '/') && r->type != T_NAMED) put_row(m, r, name);
		if (r->sub && strcmp(section, path) != 0 && !str_starts(section, path)) continue;
		if (r->sub) put_rows(m, r->sub, path, section);
	}
}

static void put_section(struct manual *m, const struct conf_section *s)
{
	heading(m, s->title);
	if (s->text) paragraph(m, s->text);
	if (!m->man) buf_adds(m->out, "| key | type | default | reload | |\n|---|---|---|---|---|\n");
	put_rows(m, &conf_all_rows, "", s->path);
}

static const char *const intro[] = {
	"The daemon reads buildkitd.toml, BuildKit's file, with the same keys and the same meaning. It is "
	"`/etc/buildkit/buildkitd.toml`, in rootless mode `~/.config/buildkit/buildkitd.toml`, or what `--config` names. A "
	"flag wins over "
	"the file, the file over the default. Keys match without regard to case.",
	"`slipwayd check-config [FILE]` tells what is wrong with a file, each with its line and column, and exits with status "
	"1 when there is "
	"something. `slipwayd check-config --effective [FLAGS] [FILE]` prints every value and where it comes from: file and "
	"line, flag, environment or "
	"default.",
	"The daemon itself does not start with a value of the wrong type, with a certificate or key that is missing, or with a "
	"`--config` that does not "
	"exist. What BuildKit ignores without a word is a warning in its log: an unknown key, a mirror with a scheme, a host "
	"without its quotes; with "
	"`strict = true` it does not start with these either. Other paths that are missing are warnings. A key whose feature "
	"is not built yet "
	"is named once in the log.",
	"Reload: the daemon reads the file again when it gets SIGHUP, and when the file or a certificate, key or credentials "
	"file that it names has "
	"changed. All keys marked so take effect at once, or none: when something is wrong the log says what, and the old "
	"settings stay. Builds "
	"that run keep the registries, mirrors, certificates and DNS settings that they started with; `max-parallelism` and "
	"`log.level` hold for them too. A change of any other key is named in the "
	"log and waits for the next start. Flags go on winning over the file.",
};

static void put_all(struct manual *m)
{
	for (size_t i = 0; i < array_len(intro); i++) paragraph(m, intro[i]);
	example(m, "[registry.\"docker.io\"]\n  mirrors = [\"mirror.gcr.io\"]\n\n[registry.\"myregistry.com\"]\n  ca = "
		   "[\"/etc/certs/myregistry.pem\"]\n  [[registry.\"myregistry.com\".keypair]]\n    key = "
		   "\"/etc/certs/myregistry_key.pem\"\n    "
		   "cert = \"/etc/certs/myregistry_cert.pem\"\n\n[worker.oci]\n  max-parallelism = 4\n");
	for (size_t i = 0; i < conf_n_sections; i++) put_section(m, &conf_sections[i]);
	heading(m, "Mirrors");
	paragraph(m, "Hosts are asked in this order: `mirrors`, then the tables `[[registry.\"HOST\".mirror]]`, then the "
		     "registry itself. A host that "
		     "fails (no connection, a bad certificate, 401, 403, 404, 429, 5xx, a timeout) is followed by the next "
		     "one, unless it has "
		     "`fallback = false`. A mirror is told the registry's name by `?ns=HOST`. A mirror never gets the "
		     "registry's credentials.");
	example(m, "[[registry.\"docker.io\".mirror]]\n  host = \"harbor.corp:8443\"\n  path = \"proxy.docker.io\"\n  ca = "
		   "[\"/etc/certs/corp.pem\"]\n  credentials = \"/etc/slipway/harbor.secret\"\n  fallback = false\n");
}

void conf_manual(struct buf *out)
{
	struct manual m = {out, false};
	buf_adds(out, "# buildkitd.toml\n\n<!-- Made by `slipwayd check-config --manual` from the table in src/conf/rows.c: "
		      "change that, then run "
		      "tools/make-config-doc. -->\n\n");
	put_all(&m);
	while (out->n > 1 && out->p[out->n - 1] == '\n' && out->p[out->n - 2] == '\n') out->p[--out->n] = 0;
}

void conf_man(struct buf *out)
{
	struct manual m = {out, true};
	buf_adds(out, ".\\\" Made by slipwayd check-config --man from the table in src/conf/rows.c.\n.TH SLIPWAYD.TOML 5 \"\" "
		      "slipway\n.SH NAME\n"
		      "slipwayd.toml, buildkitd.toml \\- configuration of slipwayd(8)\n.SH DESCRIPTION\n");
	put_all(&m);
}
