/* The engine of source policies.
 *
 *  1. A policy is run until it changes nothing any more; more than POLICY_MAX_CHANGES rounds are an error, so rules cannot
 * chase each other for ever.
 *  2. Within a round the first CONVERT that changes something ends it: what is denied is what the last round says.
 * Where an update names no identifier the source keeps its own. (BuildKit puts the selector's text there, which is the same
 * thing for an exact selector, and for a wildcard no name of anything.) */
#include "policy/policy.h"
#include "llb/llb.h"
#include "spec/regexp.h"

#include <stdio.h>
#include <string.h>

enum { IDENTIFIER_MAX = 64 << 10 };

static const char *const action_names[] = {"ALLOW", "DENY", "CONVERT"};

static void action_name(Policy__PolicyAction a, char out[static 16])
{
	if ((unsigned)a < array_len(action_names))
		snprintf(out, 16, "%s", action_names[a]);
	else
		snprintf(out, 16, "%d", (int)a);
}

int policy_validate(const Policy__Policy *p, struct err *e)
{
	if (!p) return err_set(e, CODE_UNKNOWN, "invalid nil policy");
	for (size_t i = 0; i < p->n_rules; i++) {
		if (!p->rules[i]) return err_set(e, CODE_UNKNOWN, "invalid nil rule in policy");
		const Policy__Selector *s = p->rules[i]->selector;
		if (!s) return err_set(e, CODE_UNKNOWN, "invalid nil selector in policy");
		for (size_t k = 0; k < s->n_constraints; k++)
			if (!s->constraints[k]) return err_set(e, CODE_UNKNOWN, "invalid nil constraint in policy");
	}
	return 0;
}

const char *policy_attr(const Pb__SourceOp *op, const char *key)
{
	for (size_t i = 0; i < op->n_attrs; i++)
		if (strcmp(op->attrs[i]->key, key) == 0) return op->attrs[i]->value;
	return "";
}

/* ---- matching ---- */

/* A wildcard as an expression: every '*' is a group of its own. */
static int wildcard(const char *text, struct spec_regexp **ret, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (strstr(text, "**"))
		return err_set(e, CODE_UNKNOWN, "failed to translate wildcard \"%s\" to regexp: invalid wildcard: \"**\"",
			       text);
	buf_addc(&b, '^');
	for (const char *s = text; *s;) {
		size_t n = strcspn(s, "*");
		_cleanup_free_ char *plain = xstrndup(s, n);
		spec_regexp_quote(plain, &b);
		s += n;
		if (*s == '*') {
			buf_adds(&b, "(.*)");
			s++;
		}
	}
	buf_addc(&b, '$');
	return spec_regexp_new(buf_str(&b), ret, e);
}

/* The selector's expression; NULL for an exact one. */
static int expression(const Policy__Selector *s, struct spec_regexp **ret, struct err *e)
{
	switch (s->match_type) {
	case POLICY__MATCH_TYPE__EXACT: *ret = NULL; return 0;
	case POLICY__MATCH_TYPE__REGEX: return spec_regexp_new(s->identifier, ret, e);
	case POLICY__MATCH_TYPE__WILDCARD: return wildcard(s->identifier, ret, e);
	default: return err_set(e, CODE_UNKNOWN, "unknown match type: %d", (int)s->match_type);
	}
}

static int constraint_holds(const Policy__AttrConstraint *c, const Pb__SourceOp *op, struct err *e)
{
	const char *value = policy_attr(op, c->key);
	switch (c->condition) {
	case POLICY__ATTR_MATCH__EQUAL: return strcmp(value, c->value) == 0;
	case POLICY__ATTR_MATCH__NOTEQUAL: return strcmp(value, c->value) != 0;
	case POLICY__ATTR_MATCH__MATCHES: {
		_cleanup_spec_regexp_ struct spec_regexp *r = NULL;
		_cleanup_err_ struct err why = ERR_INIT;
		if (spec_regexp_new(c->value, &r, &why) < 0)
			return err_set(e, CODE_UNKNOWN, "invalid regex \"%s\": %s", c->value, why.msg);
		return spec_regexp_match(r, value);
	}
	default: return err_set(e, CODE_UNKNOWN, "unknown attr condition: %d", (int)c->condition);
	}
}

/* 1, 0 or -1. */
static int matches(const Policy__Selector *s, const Pb__SourceOp *op, struct err *e)
{
	for (size_t i = 0; i < s->n_constraints; i++) {
		int holds = constraint_holds(s->constraints[i], op, e);
		if (holds <= 0) return holds;
	}
	if (strcmp(s->identifier, op->identifier) == 0) return 1;
	_cleanup_spec_regexp_ struct spec_regexp *r = NULL;
	if (expression(s, &r, e) < 0) return -1;
	return r ? spec_regexp_match(r, op->identifier) : 0;
}

/* ---- changing ---- */

static int destination(const Policy__Rule *rule, const Pb__SourceOp *op, struct buf *ret, struct err *e)
{
	_cleanup_spec_regexp_ struct spec_regexp *r = NULL;
	const char *format = rule->updates->identifier;
	if (!*format) {
		buf_adds(ret, op->identifier);
		return 0;
	}
	if (expression(rule->selector, &r, e) < 0) return err_wrap(e, "error formatting destination");
	if (!r)
		buf_adds(ret, format);
	else if (rule->selector->match_type == POLICY__MATCH_TYPE__REGEX)
		spec_regexp_replace(r, op->identifier, format, ret);
	else if (!spec_regexp_expand(r, op->identifier, format, ret))
		buf_adds(ret, op->identifier);
	return 0;
}

static bool attr_set(Pb__SourceOp *op, const char *key, const char *value, struct arena *a)
{
	for (size_t i = 0; i < op->n_attrs; i++) {
		if (strcmp(op->attrs[i]->key, key) != 0) continue;
		if (strcmp(op->attrs[i]->value, value) == 0) return false;
		op->attrs[i]->value = arena_strdup(a, value);
		return true;
	}
	if (!*value) return false; /* absent reads as "" */
	Pb__SourceOp__AttrsEntry *x = llb_new(a, Pb__SourceOp__AttrsEntry, pb__source_op__attrs_entry__init);
	x->key = arena_strdup(a, key);
	x->value = arena_strdup(a, value);
	/* The array is a decoder's, of exactly n entries. */
	Pb__SourceOp__AttrsEntry **v = arena_alloc(a, (op->n_attrs + 1) * sizeof *v);
	if (op->n_attrs) memcpy(v, op->attrs, op->n_attrs * sizeof *v);
	v[op->n_attrs++] = x;
	op->attrs = v;
	return true;
}

static int convert(const Policy__Rule *rule, Pb__SourceOp *op, struct arena *a, struct err *e)
{
	_cleanup_buf_ struct buf to = BUF_MAX(IDENTIFIER_MAX);
	bool changed = false;
	if (!rule->updates) return err_set(e, CODE_UNKNOWN, "missing destination for convert rule");
	if (destination(rule, op, &to, e) < 0) return -1;
	if (to.overflow) /* an expression that matches everywhere makes it many times longer in each round */
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "a convert rule makes an identifier of more than %d bytes", IDENTIFIER_MAX);
	if (to.n && strcmp(buf_str(&to), op->identifier) != 0) {
		op->identifier = arena_strdup(a, buf_str(&to));
		changed = true;
	}
	for (size_t i = 0; i < rule->updates->n_attrs; i++)
		changed |= attr_set(op, rule->updates->attrs[i]->key, rule->updates->attrs[i]->value, a);
	return changed;
}

/* ---- one round ---- */

/* 1: changed, 0: allowed, -1. */
static int apply_one(const Policy__Policy *p, Pb__SourceOp *op, struct arena *a, struct err *e)
{
	bool deny = false;
	for (size_t i = 0; i < p->n_rules; i++) {
		const Policy__Rule *rule = p->rules[i];
		int matched = matches(rule->selector, op, e);
		if (matched < 0) return err_wrap(e, "error matching source policy");
		if (!matched) continue;
		if (rule->action == POLICY__POLICY_ACTION__CONVERT) {
			int changed = convert(rule, op, a, e);
			if (changed < 0) return err_wrap(e, "error mutating source policy");
			if (changed) return 1;
			continue;
		}
		char action[16];
		action_name(rule->action, action);
		if (rule->action != POLICY__POLICY_ACTION__ALLOW && rule->action != POLICY__POLICY_ACTION__DENY)
			return err_set(e, CODE_UNKNOWN, "source policy: rule %s %s: unknown type \"%s\"", action,
				       rule->selector->identifier, op->identifier);
		deny = rule->action == POLICY__POLICY_ACTION__DENY;
	}
	return deny ? err_set(e, CODE_UNKNOWN, "source \"%s\" denied by policy: source denied by policy", op->identifier) : 0;
}

int policy_apply(const Policy__Policy *const *policies, size_t n, Pb__SourceOp *op, struct arena *a, struct err *e)
{
	int changed = 0;
	for (int round = 0;; round++) {
		if (round > POLICY_MAX_CHANGES)
			return err_set(e, CODE_UNKNOWN, "too many mutations on a single source: too many operations");
		int now = 0;
		for (size_t i = 0; i < n && now == 0; i++) now = apply_one(policies[i], op, a, e);
		if (now < 0) return -1;
		if (!now) return changed;
		changed = 1;
	}
}

int policy_same_attrs(const Pb__SourceOp *x, const Pb__SourceOp *y, struct err *e)
{
	if (x->n_attrs != y->n_attrs)
		return err_set(e, CODE_UNKNOWN, "map length mismatch: %zu != %zu", x->n_attrs, y->n_attrs);
	for (size_t i = 0; i < x->n_attrs; i++) {
		const Pb__SourceOp__AttrsEntry *in = NULL;
		for (size_t k = 0; k < y->n_attrs && !in; k++)
			if (strcmp(x->attrs[i]->key, y->attrs[k]->key) == 0) in = y->attrs[k];
		if (!in) return err_set(e, CODE_UNKNOWN, "key %s missing from second map", x->attrs[i]->key);
		if (strcmp(in->value, x->attrs[i]->value) != 0)
			return err_set(e, CODE_UNKNOWN, "value mismatch for key %s: %s != %s", in->key, x->attrs[i]->value,
				       in->value);
	}
	return 0;
}
