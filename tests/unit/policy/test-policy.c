/* Rules over sources: who wins, what becomes of a converted one, what is refused. */
#include "llb/llb.h"
#include "policy/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define ALLOW POLICY__POLICY_ACTION__ALLOW
#define DENY POLICY__POLICY_ACTION__DENY
#define CONVERT POLICY__POLICY_ACTION__CONVERT
#define EXACT POLICY__MATCH_TYPE__EXACT
#define WILD POLICY__MATCH_TYPE__WILDCARD
#define REGEX POLICY__MATCH_TYPE__REGEX

struct row {
	int action, type;
	const char *selector, *to;
};

static Policy__Policy *policy_of(struct arena *a, const struct row *rows)
{
	Policy__Policy *p = llb_new(a, Policy__Policy, policy__policy__init);
	for (; rows->selector; rows++) {
		Policy__Rule *r = llb_new(a, Policy__Rule, policy__rule__init);
		r->action = (Policy__PolicyAction)rows->action;
		r->selector = llb_new(a, Policy__Selector, policy__selector__init);
		r->selector->identifier = rows->selector;
		r->selector->match_type = (Policy__MatchType)rows->type;
		if (rows->to) {
			r->updates = llb_new(a, Policy__Update, policy__update__init);
			r->updates->identifier = rows->to;
		}
		LLB_PUSH(a, p->n_rules, p->rules, r);
	}
	return p;
}

/* want: the identifier afterwards; "!text": an error with that text. */
static void check(const struct row *rows, const char *source, const char *want)
{
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	const Policy__Policy *p = policy_of(a, rows);
	Pb__SourceOp op = PB__SOURCE_OP__INIT;
	op.identifier = source;
	int rc = policy_apply(&p, 1, &op, a, &e);
	if (*want == '!') {
		assert_int_equal(rc, -1);
		if (!strstr(e.msg, want + 1)) fail_msg("%s: want %s, got %s", source, want, e.msg);
		return;
	}
	if (rc < 0) fail_msg("%s: %s", source, e.msg);
	assert_string_equal(op.identifier, want);
	assert_int_equal(rc, strcmp(source, want) != 0);
}
#define CHECK(source, want, ...) check((const struct row[]){__VA_ARGS__, {0}}, source, want)

static void test_rules(void **state)
{
	(void)state;
	CHECK("x://a", "!source \"x://a\" denied by policy: source denied by policy", {DENY, EXACT, "x://a", NULL});
	CHECK("x://b", "x://b", {DENY, EXACT, "x://a", NULL});
	CHECK("x://a", "x://a", {DENY, WILD, "*", NULL}, {ALLOW, EXACT, "x://a", NULL});
	CHECK("x://a", "!denied", {ALLOW, EXACT, "x://a", NULL}, {DENY, WILD, "x://*", NULL});
	CHECK("x://golang:1.19", "x://golang:1.19-alpine", {CONVERT, WILD, "x://golang:1.*9", "x://golang:1.${1}9-alpine"});
	CHECK("x://h/p/q", "y://q@h", {CONVERT, REGEX, "^x://(?P<host>[^/]+)/p/(\\w+)$", "y://$2@${host}"});
	/* what it became is looked at again */
	CHECK("x://a", "!\"x://b\" denied", {CONVERT, EXACT, "x://a", "x://b"}, {DENY, EXACT, "x://b", NULL});
	CHECK("x://a", "!too many mutations", {CONVERT, WILD, "x://*", "x://${1}a"});
	CHECK("x://a", "x://a", {CONVERT, WILD, "x://*", ""});
	CHECK("x://a", "!missing destination for convert rule", {CONVERT, EXACT, "x://a", NULL});
	CHECK("x://a", "!rule 9000 x://a: unknown type \"x://a\"", {9000, EXACT, "x://a", NULL});
	CHECK("x://a", "!unknown match type", {DENY, 7, "x://", NULL});
	CHECK("x://a", "!invalid wildcard", {DENY, WILD, "x://**", NULL});
	CHECK("x://a", "!error parsing regexp", {DENY, REGEX, "(", NULL});
}

static void test_attributes(void **state)
{
	(void)state;
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	Policy__Policy *p = policy_of(a, (const struct row[]){{CONVERT, WILD, "https://*", ""}, {0}});
	Policy__Update__AttrsEntry *set = llb_new(a, Policy__Update__AttrsEntry, policy__update__attrs_entry__init);
	set->key = "http.checksum";
	set->value = "sha256:1";
	LLB_PUSH(a, p->rules[0]->updates->n_attrs, p->rules[0]->updates->attrs, set);
	Policy__AttrConstraint *c = llb_new(a, Policy__AttrConstraint, policy__attr_constraint__init);
	c->key = "http.filename";
	c->value = "^a[0-9]$";
	c->condition = POLICY__ATTR_MATCH__MATCHES;
	LLB_PUSH(a, p->rules[0]->selector->n_constraints, p->rules[0]->selector->constraints, c);
	Pb__Op *op = llb_op_source(a, "https://h/f", NULL);
	assert_int_equal(policy_apply((const Policy__Policy *const *)&p, 1, op->source, a, &e), 0);
	llb_op_attr(a, op, "http.filename", "a1");
	Pb__Op *before = llb_op_source(a, "https://h/f", NULL);
	llb_op_attr(a, before, "http.filename", "a1");
	assert_int_equal(policy_same_attrs(op->source, before->source, &e), 0);
	assert_int_equal(policy_apply((const Policy__Policy *const *)&p, 1, op->source, a, &e), 1);
	assert_string_equal(policy_attr(op->source, "http.checksum"), "sha256:1");
	assert_string_equal(op->source->identifier, "https://h/f");
	assert_int_equal(policy_same_attrs(op->source, before->source, &e), -1);
}

static void test_validate(void **state)
{
	(void)state;
	_cleanup_arena_ struct arena *a = arena_new(0);
	_cleanup_err_ struct err e = ERR_INIT;
	Policy__Policy *p = policy_of(a, (const struct row[]){{DENY, EXACT, "x", NULL}, {0}});
	assert_int_equal(policy_validate(p, &e), 0);
	p->rules[0]->selector = NULL;
	assert_int_equal(policy_validate(p, &e), -1);
	assert_string_equal(e.msg, "invalid nil selector in policy");
	assert_int_equal(policy_validate(NULL, &e), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules), cmocka_unit_test(test_attributes),
					   cmocka_unit_test(test_validate)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
