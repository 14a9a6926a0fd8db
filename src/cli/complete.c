/* Shell completion. The scripts are small and know nothing: at each tab they ask the program, which reads its tables. So they
 * are never out of date, and the same answers serve Docker's own completion (cobra's protocol).
 *
 * 1. Words are read as args_parse would, except that nothing is an error: what cannot be understood gives no candidates.
 * 2. Candidates are filtered here by what was typed; the shells show them as they come.
 * 3. Nothing is asked of a daemon: a tab key answers at once. */
#include "cli/internal.h"
#include "cli/manual.h"

#include <stdio.h>
#include <string.h>

/* ---- where we are ---- */
struct place {
	const struct command *path[6];
	size_t depth, plain; /* plain: arguments that are no command */
	const struct flag *pending;
	bool no_flags; /* behind "--" */
};

static const struct flag *flag_named(const struct place *p, const char *name, size_t n)
{
	for (size_t i = p->depth; i-- > 0;)
		for (const struct flag *f = p->path[i]->flags; f && f->name; f++)
			if ((n == 1 && f->letter == *name) || (strlen(f->name) == n && memcmp(f->name, name, n) == 0)) return f;
	return NULL;
}

static bool takes_value(const struct flag *f) { return f && f->kind != FLAG_BOOL && !f->implied; }

static void read_flag(struct place *p, enum dialect d, const char *word)
{
	const char *name = word + strspn(word, "-");
	if (strchr(name, '=')) return;
	bool letters = d == DIALECT_BUILDX && word[1] != '-';
	const struct flag *f = flag_named(p, letters ? name + strlen(name) - 1 : name, letters ? 1 : strlen(name));
	if (letters && name[1]) { /* "-tname" holds its value, "-qf" waits for it */
		const struct flag *first = flag_named(p, name, 1);
		if (takes_value(first)) return;
	}
	if (takes_value(f)) p->pending = f;
}

static void read_word(struct place *p, enum dialect d, const char *word)
{
	if (p->pending) {
		p->pending = NULL;
		return;
	}
	if (!p->no_flags && strcmp(word, "--") == 0) {
		p->no_flags = true;
		return;
	}
	if (!p->no_flags && word[0] == '-' && word[1]) {
		read_flag(p, d, word);
		return;
	}
	for (const struct command *s = p->plain ? NULL : p->path[p->depth - 1]->sub; s && s->name; s++) {
		if (strcmp(s->name, word) != 0 || p->depth == array_len(p->path)) continue;
		p->path[p->depth++] = s;
		return;
	}
	p->plain++;
}

/* ---- candidates ---- */
static void candidate(const char *word, size_t n, const char *help, const char *typed, struct buf *out)
{
	if (strlen(typed) > n || memcmp(word, typed, strlen(typed)) != 0) return;
	buf_add(out, word, n);
	if (!str_empty(help)) {
		buf_addc(out, '\t');
		for (; *help && *help != '\n'; help++) buf_addc(out, *help);
	}
	buf_addc(out, '\n');
}

/* What the row says of its values: "a|b|c", "file" or "dir"; without it, names that end in "file" are files. */
static int flag_values(const struct flag *f, const char *typed, struct buf *out)
{
	const char *v = f->values;
	if (!v && f->kind == FLAG_BOOL) v = "true|false";
	if (!v) return strstr(f->name, "file") || strstr(f->name, "tls") ? 0 : COMPLETE_NO_FILES;
	if (strcmp(v, "file") == 0) return 0;
	if (strcmp(v, "dir") == 0) return COMPLETE_DIRS;
	int directive = COMPLETE_NO_FILES;
	for (size_t n; *v; v += n + (v[n] == '|')) {
		n = strcspn(v, "|");
		if (n && (v[n - 1] == '=' || v[n - 1] == ',')) directive |= COMPLETE_NO_SPACE;
		candidate(v, n, NULL, typed, out);
	}
	return directive;
}

static int flag_names(const struct place *p, const char *typed, struct buf *out)
{
	for (size_t i = p->depth; i-- > 0;)
		for (const struct flag *f = p->path[i]->flags; f && f->name; f++) {
			if (!f->help) continue;
			_cleanup_free_ char *name = xasprintf("--%s", f->name);
			candidate(name, strlen(name), f->help, typed, out);
		}
	candidate("--help", 6, "Show help", typed, out);
	return COMPLETE_NO_FILES;
}

static int plain_words(const struct place *p, const char *typed, struct buf *out)
{
	const struct command *c = p->path[p->depth - 1];
	if (!p->plain && c->sub) {
		for (const struct command *s = c->sub; s->name; s++)
			if (s->summary) candidate(s->name, strlen(s->name), s->summary, typed, out);
		return COMPLETE_NO_FILES;
	}
	if (c->max_args >= 0 && p->plain >= (size_t)c->max_args) return COMPLETE_NO_FILES;
	return c->usage && strstr(c->usage, "PATH") ? COMPLETE_DIRS : 0;
}

void complete_words(const struct command *root, enum dialect d, char *const *words, size_t n, struct buf *out)
{
	struct place p = {.path = {root}, .depth = 1};
	for (size_t i = 0; i + 1 < n; i++) read_word(&p, d, words[i]);
	const char *typed = n ? words[n - 1] : "", *eq = strchr(typed, '=');
	int directive = COMPLETE_NO_FILES;
	if (p.pending) {
		directive = flag_values(p.pending, typed, out);
	} else if (!p.no_flags && typed[0] == '-' && eq) {
		const char *name = typed + strspn(typed, "-");
		const struct flag *f = flag_named(&p, name, (size_t)(eq - name));
		if (f) directive = flag_values(f, eq + 1, out);
	} else if (!p.no_flags && typed[0] == '-') {
		directive = flag_names(&p, typed, out);
	} else {
		directive = plain_words(&p, typed, out);
	}
	buf_addf(out, ":%d\n", directive);
}

/* ---- the scripts ---- */
/* @P is the program, @F its name in functions, @C what to ask. */
static const char bash[] = "# bash completion for @P; made by `slipway completion bash @P`.\n"
			   "_@F() {\n"
			   "\tlocal cur prev words cword line directive=0\n"
			   "\tlocal -a found=()\n"
			   "\tif declare -F _get_comp_words_by_ref >/dev/null; then\n"
			   "\t\t_get_comp_words_by_ref -n =: cur prev words cword\n"
			   "\telse\n"
			   "\t\twords=(\"${COMP_WORDS[@]}\") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}\n"
			   "\tfi\n"
			   "\twhile IFS= read -r line; do\n"
			   "\t\tcase $line in\n"
			   "\t\t:*) directive=${line#:} ;;\n"
			   "\t\t*) found+=(\"${line%%$'\\t'*}\") ;;\n"
			   "\t\tesac\n"
			   "\tdone < <(@C \"${words[@]:1:cword-1}\" \"$cur\" 2>/dev/null)\n"
			   "\t[[ $cur == --*=* ]] && cur=${cur#*=}\n"
			   "\tCOMPREPLY=(\"${found[@]}\")\n"
			   "\t((directive & 2)) && compopt -o nospace 2>/dev/null\n"
			   "\tif ((${#found[@]} == 0)); then\n"
			   "\t\tif ((directive & 16)); then\n"
			   "\t\t\tcompopt -o filenames 2>/dev/null\n"
			   "\t\t\tmapfile -t COMPREPLY < <(compgen -d -- \"$cur\")\n"
			   "\t\telif ! ((directive & 4)); then\n"
			   "\t\t\tcompopt -o filenames 2>/dev/null\n"
			   "\t\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
			   "\t\tfi\n"
			   "\telif declare -F __ltrim_colon_completions >/dev/null; then\n"
			   "\t\t__ltrim_colon_completions \"$cur\"\n"
			   "\tfi\n"
			   "}\n"
			   "complete -F _@F @P\n";
static const char zsh[] = "#compdef @P\n"
			  "# zsh completion for @P; made by `slipway completion zsh @P`.\n"
			  "_@F() {\n"
			  "\tlocal line directive=0\n"
			  "\tlocal -a found space\n"
			  "\twhile IFS= read -r line; do\n"
			  "\t\tcase $line in\n"
			  "\t\t(:*) directive=${line#:} ;;\n"
			  "\t\t(*) found+=(\"${${line//:/\\\\:}/$'\\t'/:}\") ;;\n"
			  "\t\tesac\n"
			  "\tdone < <(@C \"${(@Q)words[2,CURRENT-1]}\" \"${(Q)words[CURRENT]}\" 2>/dev/null)\n"
			  "\t[[ $PREFIX == --*=* ]] && compset -P '*='\n"
			  "\t((directive & 2)) && space=(-S '')\n"
			  "\tif (($#found)); then\n"
			  "\t\t_describe -t values '@P' found $space\n"
			  "\telif ((directive & 16)); then\n"
			  "\t\t_files -/\n"
			  "\telif ! ((directive & 4)); then\n"
			  "\t\t_files\n"
			  "\tfi\n"
			  "}\n"
			  "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n"
			  "\t_@F \"$@\"\n"
			  "else\n"
			  "\tcompdef _@F @P\n"
			  "fi\n";
static const char fish[] = "# fish completion for @P; made by `slipway completion fish @P`.\n"
			   "function __@F_complete\n"
			   "\tset -l words (commandline -opc)\n"
			   "\tset -l program $words[1]\n"
			   "\tset -e words[1]\n"
			   "\tset -l cur (commandline -ct)\n"
			   "\tset -l out (@C $words \"$cur\" 2>/dev/null)\n"
			   "\tor return\n"
			   "\tset -l directive (string replace ':' '' -- $out[-1])\n"
			   "\tset -e out[-1]\n"
			   "\tset -l prefix (string match -r -- '^--[^=]*=' $cur)\n"
			   "\tfor line in $out\n"
			   "\t\techo -- \"$prefix\"$line\n"
			   "\tend\n"
			   "\tif test (count $out) -eq 0\n"
			   "\t\tset -l typed (string replace -r -- '^--[^=]*=' '' $cur)\n"
			   "\t\tif test (math \"floor($directive / 16) % 2\") -eq 1\n"
			   "\t\t\tfor path in (__fish_complete_directories $typed '')\n"
			   "\t\t\t\techo -- \"$prefix\"$path\n"
			   "\t\t\tend\n"
			   "\t\telse if test (math \"floor($directive / 4) % 2\") -eq 0\n"
			   "\t\t\tfor path in (__fish_complete_path $typed)\n"
			   "\t\t\t\techo -- \"$prefix\"$path\n"
			   "\t\t\tend\n"
			   "\t\tend\n"
			   "\tend\n"
			   "end\n"
			   "complete -c @P -f -k -a '(__@F_complete)'\n";

static const struct shell {
	const char *name, *text, *ask, *path; /* path below a share folder */
} shells[] = {
	{"bash", bash, "\"${words[0]/#\\~/$HOME}\" __complete", "bash-completion/completions/@P"},
	{"zsh", zsh, "${(Q)words[1]/#\\~/$HOME} __complete", "zsh/site-functions/_@P"},
	{"fish", fish, "$program __complete", "fish/vendor_completions.d/@P.fish"},
};
static const char *const programs[] = {"slipway", "slipwayd"};

static void fill_in(const char *text, const char *program, const char *ask, struct buf *out)
{
	for (; *text; text++) {
		if (text[0] == '@' && text[1] == 'P')
			buf_adds(out, program), text++;
		else if (text[0] == '@' && text[1] == 'F')
			buf_adds(out, program), text++;
		else if (text[0] == '@' && text[1] == 'C')
			buf_adds(out, ask), text++;
		else
			buf_addc(out, *text);
	}
}

char *complete_script(const char *shell, const char *program)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	bool known = false;
	for (size_t i = 0; i < array_len(programs); i++) known |= strcmp(programs[i], program) == 0;
	for (size_t i = 0; known && i < array_len(shells); i++) {
		if (strcmp(shells[i].name, shell) != 0) continue;
		/* the daemon does not answer such questions: the client, which is installed beside it, does */
		fill_in(shells[i].text, program, strcmp(program, "slipwayd") == 0 ? "slipway __completeDaemon" : shells[i].ask,
			&b);
		return xstrdup(buf_str(&b));
	}
	return NULL;
}

int complete_write(const char *dir, struct err *e)
{
	for (size_t i = 0; i < array_len(shells); i++)
		for (size_t k = 0; k < array_len(programs); k++) {
			_cleanup_buf_ struct buf rel = BUF_INIT;
			_cleanup_free_ char *text = complete_script(shells[i].name, programs[k]);
			fill_in(shells[i].path, programs[k], "", &rel);
			_cleanup_free_ char *path = path_join(dir, buf_str(&rel)), *folder = path_dir(path);
			if (path_mkdirs(folder, 0755, e) < 0 ||
			    path_write_file(AT_FDCWD, path, text, strlen(text), 0644, false, e) < 0)
				return -1;
		}
	return 0;
}
