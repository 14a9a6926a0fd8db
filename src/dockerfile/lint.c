/* The lint rules and who may speak.
 *
 * The table is the whole of the rules: what a rule says is its format with the arguments of lint_run. Whether it speaks
 * depends on the configuration that holds at the instruction: that of the file (`# check=` or the build argument) and
 * that of a `check=` comment directly before it. The record of called rules is shared by all copies of a linter, because
 * `error=true` of the file makes the build fail for any of them.
 * Not here: where the rules are checked (instr.c, the conversion). */
#include "dockerfile/directive.h"
#include "dockerfile/rune.h"

#include <string.h>
#include <strings.h>

#define RULE_URL "https://docs.docker.com/go/dockerfile/rule/"
const struct lint_rule lint_rules[LINT_COUNT] = {
	[LINT_STAGE_NAME_CASING] = {"StageNameCasing", "Stage names should be lowercase", RULE_URL "stage-name-casing/",
				    .format = "Stage name '%s' should be lowercase"},
	[LINT_FROM_AS_CASING] = {"FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword",
				 RULE_URL "from-as-casing/", .format = "'%s' and '%s' keywords' casing do not match"},
	[LINT_NO_EMPTY_CONTINUATION] = {"NoEmptyContinuation",
					"Empty continuation lines will become errors in a future release",
					RULE_URL "no-empty-continuation/", .format = "Empty continuation line"},
	[LINT_CONSISTENT_INSTRUCTION_CASING] =
		{"ConsistentInstructionCasing",
		 "All commands within the Dockerfile should use the same casing (either upper or lower)",
		 RULE_URL "consistent-instruction-casing/",
		 .format = "Command '%s' should match the case of the command majority (%s)"},
	[LINT_DUPLICATE_STAGE_NAME] = {"DuplicateStageName", "Stage names should be unique", RULE_URL "duplicate-stage-name/",
				       .format = "Duplicate stage name %q, stage names should be unique"},
	[LINT_RESERVED_STAGE_NAME] = {"ReservedStageName", "Reserved words should not be used as stage names",
				      RULE_URL "reserved-stage-name/",
				      .format = "Stage name should not use the same name as reserved stage %q"},
	[LINT_JSON_ARGS_RECOMMENDED] =
		{"JSONArgsRecommended",
		 "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
		 RULE_URL "json-args-recommended/",
		 .format = "JSON arguments recommended for %s to prevent unintended behavior related to OS signals"},
	[LINT_MAINTAINER_DEPRECATED] =
		{"MaintainerDeprecated",
		 "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
		 RULE_URL "maintainer-deprecated/", .format = "Maintainer instruction is deprecated in favor of using label"},
	[LINT_UNDEFINED_ARG_IN_FROM] = {"UndefinedArgInFrom", "FROM command must use declared ARGs",
					RULE_URL "undefined-arg-in-from/", .format = "FROM argument '%s' is not declared%s"},
	[LINT_WORKDIR_RELATIVE_PATH] =
		{"WorkdirRelativePath",
		 "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
		 "base image changes",
		 RULE_URL "workdir-relative-path/",
		 .format = "Relative workdir %q can have unexpected results if the base image changes"},
	[LINT_UNDEFINED_VAR] = {"UndefinedVar", "Variables should be defined before their use", RULE_URL "undefined-var/",
				.format = "Usage of undefined variable '$%s'%s"},
	[LINT_MULTIPLE_INSTRUCTIONS_DISALLOWED] =
		{"MultipleInstructionsDisallowed",
		 "Multiple instructions of the same type should not be used in the same stage",
		 RULE_URL "multiple-instructions-disallowed/",
		 .format = "Multiple %s instructions should not be used in the same stage because only the last one will be "
			   "used"},
	[LINT_LEGACY_KEY_VALUE_FORMAT] = {"LegacyKeyValueFormat",
					  "Legacy key/value format with whitespace separator should not be used",
					  RULE_URL "legacy-key-value-format/",
					  .format =
						  "\"%s key=value\" should be used instead of legacy \"%s key value\" format"},
	[LINT_INVALID_BASE_IMAGE_PLATFORM] =
		{"InvalidBaseImagePlatform", "Base image platform does not match expected target platform", "",
		 .format = "Base image %s was pulled with platform %q, expected %q for current build"},
	[LINT_REDUNDANT_TARGET_PLATFORM] =
		{"RedundantTargetPlatform",
		 "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
		 RULE_URL "redundant-target-platform/",
		 .format = "Setting platform to predefined %s in FROM is redundant as this is the default behavior"},
	[LINT_SECRETS_USED_IN_ARG_OR_ENV] = {"SecretsUsedInArgOrEnv",
					     "Sensitive data should not be used in the ARG or ENV commands",
					     RULE_URL "secrets-used-in-arg-or-env/",
					     .format = "Do not use ARG or ENV instructions for sensitive data (%s %q)"},
	[LINT_INVALID_DEFAULT_ARG_IN_FROM] = {"InvalidDefaultArgInFrom",
					      "Default value for global ARG results in an empty or invalid base image name",
					      RULE_URL "invalid-default-arg-in-from/",
					      .format = "Default value for ARG %s results in empty or invalid base image name"},
	[LINT_FROM_PLATFORM_FLAG_CONST_DISALLOWED] = {"FromPlatformFlagConstDisallowed",
						      "FROM --platform flag should not use a constant value",
						      RULE_URL "from-platform-flag-const-disallowed/",
						      .format = "FROM --platform flag should not use constant value %q"},
	[LINT_COPY_IGNORED_FILE] = {"CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore",
				    RULE_URL "copy-ignored-file/",
				    .format = "Attempting to %s file %q that is excluded by .dockerignore"},
	[LINT_INVALID_DEFINITION_DESCRIPTION] =
		{"InvalidDefinitionDescription",
		 "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
		 "not intended to be a description comment, add an empty line or comment between the instruction and the "
		 "comment.",
		 RULE_URL "invalid-definition-description/", .experimental = true,
		 .format = "Comment for %s should follow the format: `# %s <description>`"},
	[LINT_EXPOSE_PROTO_CASING] = {"ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase",
				      RULE_URL "expose-proto-casing/",
				      .format = "Defined protocol '%s' in EXPOSE instruction should be lowercase"},
	[LINT_EXPOSE_INVALID_FORMAT] =
		{"ExposeInvalidFormat",
		 "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
		 "future release",
		 RULE_URL "expose-invalid-format/",
		 .format = "EXPOSE instruction should not define an IP address or host-port mapping, found '%s'"},
};

struct lint_called {
	bool rule[LINT_COUNT];
	enum lint_id order[LINT_COUNT];
	size_t n;
};

void ast_strs_add(struct arena *a, struct ast_strs *s, const char *v)
{
	/* The capacity is the power of two at or above n. */
	if (!(s->n & (s->n - 1))) {
		const char **grown = arena_alloc(a, (s->n ? s->n * 2 : 1) * sizeof *grown);
		if (s->n) memcpy(grown, s->v, s->n * sizeof *grown);
		s->v = grown;
	}
	s->v[s->n++] = v;
}

static bool strs_has(const struct ast_strs *s, const char *v)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i], v)) return true;
	return false;
}

/* ---- options ---- */

static const char *trimmed(struct arena *a, const char *s, size_t n)
{
	struct rune_text t = rune_trim(s, n);
	return arena_strndup(a, t.s, t.n);
}

static void rule_names(struct arena *a, const char *v, bool *all, struct ast_strs *set)
{
	if (!strcmp(v, "all")) {
		*all = true;
		return;
	}
	*set = (struct ast_strs){0};
	for (const char *p = v;; p++) {
		size_t n = strcspn(p, ",");
		ast_strs_add(a, set, trimmed(a, p, n));
		p += n;
		if (!*p) break;
	}
}

static int option_parse(struct arena *a, const char *p, struct lint_config *c, struct err *e)
{
	const char *eq = strchr(p, '=');
	if (!eq) return err_set(e, CODE_UNKNOWN, "invalid check option %s", rune_quote(a, p));
	const char *k = trimmed(a, p, (size_t)(eq - p)), *v = trimmed(a, eq + 1, strlen(eq + 1));
	if (!strcmp(k, "skip")) {
		rule_names(a, v, &c->skip_all, &c->skip);
	} else if (!strcmp(k, "experimental")) {
		rule_names(a, v, &c->experimental_all, &c->experimental);
	} else if (!strcmp(k, "error")) {
		if (!str_bool(v, &c->error))
			return err_set(e, CODE_UNKNOWN,
				       "failed to parse check option %s: strconv.ParseBool: parsing %s: invalid syntax",
				       rune_quote(a, p), rune_quote(a, v));
	} else {
		return err_set(e, CODE_UNKNOWN, "invalid check option %s", rune_quote(a, k));
	}
	return 0;
}

int lint_config_parse(struct arena *a, const char *text, struct lint_config *ret, struct err *e)
{
	struct lint_config c = {0};
	const char *p = trimmed(a, text, strlen(text));
	for (int part = 1; *p && part <= 3; part++) {
		size_t n = part < 3 ? strcspn(p, ";") : strlen(p);
		if (option_parse(a, arena_strndup(a, p, n), &c, e) < 0) return -1;
		if (!p[n]) break;
		p += n + 1;
		if (!*p) return err_set(e, CODE_UNKNOWN, "invalid check option \"\"");
	}
	*ret = c;
	return 0;
}

/* ---- linters ---- */

struct lint lint_new(struct arena *a, const struct lint_config *config, lint_warn_fn *warn, void *arg)
{
	return (struct lint){.a = a,
			     .warn = warn,
			     .arg = arg,
			     .config = config ? *config : (struct lint_config){0},
			     .called = arena_new_of(a, struct lint_called)};
}

static void merge_set(struct arena *a, struct ast_strs *to, struct ast_strs more)
{
	if (!more.n) return;
	struct ast_strs all = {0};
	for (size_t i = 0; i < to->n; i++) ast_strs_add(a, &all, to->v[i]);
	for (size_t i = 0; i < more.n; i++) ast_strs_add(a, &all, more.v[i]);
	*to = all;
}

struct lint lint_merge(const struct lint *l, const struct lint_config *more)
{
	struct lint m = *l;
	m.config.skip_all |= more->skip_all;
	m.config.experimental_all |= more->experimental_all;
	merge_set(l->a, &m.config.skip, more->skip);
	merge_set(l->a, &m.config.experimental, more->experimental);
	return m;
}

struct lint lint_with_comments(const struct lint *l, struct ast_strs comments)
{
	if (!l || !l->warn) return l ? *l : (struct lint){0};
	for (size_t i = 0; i < comments.n; i++) {
		struct directive_line d;
		if (directive_match(l->a, comments.v[i], strlen(comments.v[i]), &d) <= 0 || strcmp(d.key, "check")) continue;
		struct lint_config c;
		const char *v = arena_strndup(l->a, d.value, strcspn(d.value, " "));
		return lint_config_parse(l->a, v, &c, NULL) < 0 ? *l : lint_merge(l, &c);
	}
	return *l;
}

static bool speaks(const struct lint *l, const struct lint_rule *r)
{
	if (r->deprecated) return false;
	if (r->experimental) return l->config.experimental_all || strs_has(&l->config.experimental, r->name);
	return !l->config.skip_all && !strs_has(&l->config.skip, r->name);
}

static const char *message(struct arena *a, const char *format, va_list ap)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (const char *p = format; *p; p++) {
		if (*p != '%') {
			buf_addc(&b, *p);
			continue;
		}
		const char *arg = va_arg(ap, const char *);
		buf_adds(&b, *++p == 'q' ? rune_quote(a, arg) : arg);
	}
	return arena_strdup(a, buf_str(&b));
}

void lint_run(const struct lint *l, enum lint_id id, struct ast_lines at, ...)
{
	if (!l || !l->warn || !speaks(l, &lint_rules[id])) return;
	if (!l->called->rule[id]) l->called->order[l->called->n++] = id;
	l->called->rule[id] = true;
	va_list ap;
	va_start(ap, at);
	const char *text = message(l->a, lint_rules[id].format, ap);
	va_end(ap);
	l->warn(l->arg, &lint_rules[id], text, at);
}

const char *lint_mean(struct arena *a, const char *mark, const char *match)
{
	return str_empty(match) ? "" : arena_printf(a, " (did you mean %s%s?)", mark, match);
}

int lint_error(const struct lint *l, struct err *e)
{
	if (!l || !l->config.error || !l->called || !l->called->n) return 0;
	_cleanup_buf_ struct buf b = BUF_INIT;
	for (size_t i = 0; i < l->called->n; i++) buf_addf(&b, "%s%s", i ? ", " : "", lint_rules[l->called->order[i]].name);
	return err_set(e, CODE_UNKNOWN, "lint violation found for rules: %s", buf_str(&b));
}

const char *lint_short(struct arena *a, const struct lint_rule *rule, const char *text, int line)
{
	if (line <= 0) return arena_printf(a, "%s: %s", rule->name, text);
	return arena_printf(a, "%s: %s (line %d)", rule->name, text, line);
}

/* ---- suggestions ---- */

static const char *match_case(struct arena *a, const char *opt, const char *like)
{
	if (!strcmp(like, rune_lower(a, like))) return rune_lower(a, opt);
	if (!strcmp(like, rune_upper(a, like))) return rune_upper(a, opt);
	return opt;
}

const char *lint_suggest(struct arena *a, const char *v, const char *const *options, size_t n, bool case_sensitive)
{
	const char *match = NULL, *orig = v;
	size_t least = 3, len = strlen(v);
	if (len > 200) return NULL;
	if (!case_sensitive) v = rune_lower(a, v);
	for (size_t i = 0; i < n; i++) {
		const char *opt = case_sensitive ? options[i] : rune_lower(a, options[i]);
		if (!strcmp(v, opt)) return NULL;
		size_t d = text_distance(v, opt);
		if (d >= least) continue;
		match = case_sensitive ? opt : match_case(a, opt, orig);
		least = d;
	}
	return match;
}
