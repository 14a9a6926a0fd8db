/* COPY and ADD: flags, sources that are paths or heredocs, the destination. */
#include "dockerfile/instr.h"

#include <string.h>

static const char *content_of(const struct instr_req *q, const struct ast_heredoc *word)
{
	for (size_t i = q->node->n_heredocs; i-- > 0;) { /* the last of a name counts */
		const struct ast_heredoc *h = &q->node->heredocs[i];
		if (!strcmp(h->name, word->name)) return word->chomp ? ast_heredoc_chomp(q->a, h->content) : h->content;
	}
	return "";
}

static int sources_parse(const struct instr_req *q, struct instr_copy *c, struct err *e)
{
	struct ast_heredoc h;
	size_t n = q->args.n - 1;
	c->dest = q->args.v[n];
	if (ast_heredoc(q->a, c->dest, &h))
		return instr_fail(e, "%s cannot accept a heredoc as a destination", instr_names[q->kind]);
	for (size_t i = 0; i < n; i++) {
		if (!ast_heredoc(q->a, q->args.v[i], &h)) {
			ast_strs_add(q->a, &c->sources, q->args.v[i]);
			continue;
		}
		if (!c->contents) c->contents = arena_alloc(q->a, n * sizeof *c->contents);
		c->contents[c->n_contents++] =
			(struct instr_content){.path = h.name, .data = content_of(q, &h), .expand = h.expand};
	}
	return 0;
}

static enum instr_tri tri(const struct instr_flag *f)
{
	if (!f->used) return INSTR_UNSET;
	return !strcmp(f->value, "true") ? INSTR_TRUE : INSTR_FALSE;
}

int instr_parse_copy(const struct instr_req *q, struct instr *ret, struct err *e)
{
	/* Those that both have come first. */
	enum { CHOWN, CHMOD, LINK, EXCLUDE, FROM, PARENTS, KEEP_GIT = FROM, CHECKSUM, UNPACK, N };
	struct instr_flag f[N] = {[CHOWN] = {"chown", FLAG_STRING, ""},
				  [CHMOD] = {"chmod", FLAG_STRING, ""},
				  [LINK] = {"link", FLAG_BOOL, "false"},
				  [EXCLUDE] = {"exclude", FLAG_STRINGS}};
	bool add = q->kind == INSTR_ADD;
	struct instr_copy *c = &ret->copy;
	if (q->args.n < 2)
		return instr_fail(e,
				  "%s requires at least two arguments, but only one was provided. Destination could not be "
				  "determined",
				  instr_names[q->kind]);
	if (add) {
		f[KEEP_GIT] = (struct instr_flag){"keep-git-dir", FLAG_BOOL, "false"};
		f[CHECKSUM] = (struct instr_flag){"checksum", FLAG_STRING, ""};
		f[UNPACK] = (struct instr_flag){"unpack", FLAG_BOOL, "false"};
	} else {
		f[FROM] = (struct instr_flag){"from", FLAG_STRING, ""};
		f[PARENTS] = (struct instr_flag){"parents", FLAG_BOOL, "false"};
	}
	if (instr_flags_parse(q->a, &q->node->flags, f, add ? N : PARENTS + 1, NULL, e) < 0) return -1;
	*c = (struct instr_copy){.from = add ? "" : f[FROM].value,
				 .chown = f[CHOWN].value,
				 .chmod = f[CHMOD].value,
				 .checksum = add ? f[CHECKSUM].value : "",
				 .link = tri(&f[LINK]) == INSTR_TRUE,
				 .parents = !add && tri(&f[PARENTS]) == INSTR_TRUE,
				 .keep_git_dir = add ? tri(&f[KEEP_GIT]) : INSTR_UNSET,
				 .unpack = add ? tri(&f[UNPACK]) : INSTR_UNSET,
				 .exclude = f[EXCLUDE].values};
	return sources_parse(q, c, e);
}
