/* Regular expressions: parsed to a tree, compiled to steps, run by a set of threads in lockstep (Thompson, Pike).
 *
 *  1. A thread is a step and the places its groups begin and end. At most one thread stands on a step, so the work for one rune
 * of text is bounded by the number of steps. Threads are kept in order of preference: leftmost-first falls out of that.
 *  2. Nodes are indices into one vector, never pointers: the vector grows while the text is parsed.
 *  3. Depth of nesting, size of repetitions and number of steps are bounded when it is compiled; nothing is bounded later. */
#include "spec/regexp.h"
#include "spec/internal.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 200, GROUPS_MAX = 64, RUNE_MAX = 0x10ffff, NONE = -1 };
enum node_kind { EMPTY, SET, ASSERT, CAT, ALT, REPEAT, GROUP };
enum assertion { LINE_BEGIN, LINE_END, TEXT_BEGIN, TEXT_END, WORD_EDGE, NO_WORD_EDGE };
struct range {
	uint32_t lo, hi;
};
struct set {
	bool negated;
	VEC(struct range) ranges;
};
struct node {
	enum node_kind kind;
	int a, b; /* children; SET: a is the set; ASSERT: a says which; GROUP: b is its number, 0 when it does not capture */
	int min, max; /* REPEAT; max NONE: no end */
	bool lazy;
};
enum step_kind { STEP_SET, STEP_ASSERT, STEP_SAVE, STEP_SPLIT, STEP_JUMP, STEP_MATCH };
struct step {
	enum step_kind kind;
	int x, y; /* where to go (x is preferred); SET and ASSERT: x is which one, and the next step follows */
};
struct spec_regexp {
	VEC(struct set) sets;
	VEC(struct step) steps;
	char *names[GROUPS_MAX]; /* NULL: none */
	int n_groups;            /* with the whole match, which is group 0 */
};

/* ---- parsing ---- */

struct flags {
	bool fold, multi, dot_all, ungreedy;
};
struct parser {
	const char *text, *s, *end;
	struct spec_regexp *re;
	VEC(struct node) nodes;
	struct flags flags;
	int depth;
	bool quoted;
	struct err *e;
};

static int bad(struct parser *p, const char *what)
{
	return err_set(p->e, SPEC_BAD, "error parsing regexp: %s: `%s`", what, p->text);
}

static int node_add(struct parser *p, enum node_kind kind, int a, int b)
{
	vec_push(&p->nodes, ((struct node){.kind = kind, .a = a, .b = b}));
	return (int)p->nodes.n - 1;
}

static struct set *set_new(struct parser *p, int *ret_node)
{
	struct set *s = vec_add(&p->re->sets);
	*ret_node = node_add(p, SET, (int)p->re->sets.n - 1, 0);
	return s;
}

static void set_range(struct set *s, uint32_t lo, uint32_t hi) { vec_push(&s->ranges, ((struct range){lo, hi})); }

/* The range, and with the flag i its ASCII letters in the other case. */
static void set_add(struct set *s, uint32_t lo, uint32_t hi, bool fold)
{
	set_range(s, lo, hi);
	if (!fold) return;
	static const struct range letters[] = {{'a', 'z'}, {'A', 'Z'}};
	for (int i = 0; i < 2; i++) {
		uint32_t l = max_of(lo, letters[i].lo), h = min_of(hi, letters[i].hi);
		if (l <= h) set_range(s, l ^ 0x20, h ^ 0x20);
	}
}

static bool set_has(const struct set *s, uint32_t r)
{
	for (size_t i = 0; i < s->ranges.n; i++)
		if (s->ranges.v[i].lo <= r && r <= s->ranges.v[i].hi) return !s->negated;
	return s->negated;
}

static const struct {
	const char *name;
	struct range ranges[4]; /* ascending */
} classes[] = {
	{"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}},
	{"alpha", {{'A', 'Z'}, {'a', 'z'}}},
	{"ascii", {{0, 0x7f}}},
	{"blank", {{'\t', '\t'}, {' ', ' '}}},
	{"cntrl", {{0, 0x1f}, {0x7f, 0x7f}}},
	{"digit", {{'0', '9'}}},
	{"graph", {{'!', '~'}}},
	{"lower", {{'a', 'z'}}},
	{"print", {{' ', '~'}}},
	{"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}},
	{"space", {{'\t', '\r'}, {' ', ' '}}},
	{"upper", {{'A', 'Z'}}},
	{"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
	{"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}},
	{"d", {{'0', '9'}}},
	{"s", {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}}},
	{"w", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
};

static bool set_add_class(struct set *s, const char *name, size_t n, bool negated, bool fold)
{
	for (size_t i = 0; i < array_len(classes); i++) {
		if (strlen(classes[i].name) != n || memcmp(classes[i].name, name, n) != 0) continue;
		uint32_t from = 0;
		for (size_t k = 0; k < 4 && classes[i].ranges[k].hi; k++) {
			struct range r = classes[i].ranges[k];
			if (!negated)
				set_add(s, r.lo, r.hi, fold);
			else if (r.lo > from)
				set_range(s, from, r.lo - 1);
			from = r.hi + 1;
		}
		if (negated) set_range(s, from, RUNE_MAX);
		return true;
	}
	return false;
}

static uint32_t next_rune(struct parser *p)
{
	size_t width;
	uint32_t r = spec_rune(p->s, (size_t)(p->end - p->s), &width);
	p->s += width;
	return r;
}

static bool take(struct parser *p, const char *s)
{
	size_t n = strlen(s);
	if ((size_t)(p->end - p->s) < n || memcmp(p->s, s, n) != 0) return false;
	p->s += n;
	return true;
}

static int hex_rune(struct parser *p, uint32_t *ret)
{
	bool braces = take(p, "{");
	uint32_t r = 0;
	int n = 0;
	for (; p->s < p->end && strchr("0123456789abcdefABCDEF", *p->s) && *p->s && (braces || n < 2); p->s++, n++) {
		char c = *p->s;
		r = r * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
		if (r > RUNE_MAX) return bad(p, "invalid escape sequence");
	}
	if (!n || (!braces && n != 2) || (braces && !take(p, "}"))) return bad(p, "invalid escape sequence");
	*ret = r;
	return 0;
}

/* What follows a backslash and stands for one rune. */
static int escaped_rune(struct parser *p, uint32_t *ret)
{
	static const char from[] = "afnrtv", to[] = "\a\f\n\r\t\v";
	if (p->s == p->end) return bad(p, "trailing backslash at end of expression");
	char c = *p->s;
	const char *known = strchr(from, c);
	if (c == 'x') {
		p->s++;
		return hex_rune(p, ret);
	}
	if (c >= '0' && c <= '7' && (c == '0' || (p->end - p->s > 1 && p->s[1] >= '0' && p->s[1] <= '7'))) {
		for (*ret = 0; p->s < p->end && *p->s >= '0' && *p->s <= '7' && *ret < 64; p->s++)
			*ret = *ret * 8 + (uint32_t)(*p->s - '0');
		return 0;
	}
	if (known) {
		*ret = (uint8_t)to[known - from];
		p->s++;
		return 0;
	}
	if ((uint8_t)c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
		return bad(p, c == 'p' || c == 'P' ? "Unicode classes (\\p) are not supported" : "invalid escape sequence");
	*ret = (uint8_t)c;
	p->s++;
	return 0;
}

/* [:alpha:], \d, \S ... inside of a class: 1 taken, 0 it is none, -1. */
static int class_name(struct parser *p, struct set *s)
{
	if (p->s[0] == '\\' && p->end - p->s > 1 && strchr("dswDSW", p->s[1])) {
		char lower = (char)(p->s[1] | 0x20);
		set_add_class(s, &lower, 1, p->s[1] != lower, p->flags.fold);
		p->s += 2;
		return 1;
	}
	if (p->end - p->s < 2 || p->s[0] != '[' || p->s[1] != ':') return 0;
	const char *stop = strstr(p->s + 2, ":]");
	if (!stop) return 0;
	const char *name = p->s + 2;
	bool negated = *name == '^';
	if (negated) name++;
	if (!set_add_class(s, name, (size_t)(stop - name), negated, p->flags.fold))
		return bad(p, "invalid character class range");
	p->s = stop + 2;
	return 1;
}

static int class_rune(struct parser *p, uint32_t *ret)
{
	if (p->s == p->end) return bad(p, "missing closing ]");
	if (*p->s == '\\') {
		p->s++;
		return escaped_rune(p, ret);
	}
	*ret = next_rune(p);
	return 0;
}

static int parse_class(struct parser *p)
{
	int node;
	struct set *s = set_new(p, &node);
	s->negated = take(p, "^");
	for (bool first = true;; first = false) {
		if (p->s == p->end) return bad(p, "missing closing ]");
		if (!first && take(p, "]")) return node;
		int named = class_name(p, s);
		if (named < 0) return -1;
		if (named) continue;
		uint32_t lo, hi;
		if (class_rune(p, &lo) < 0) return -1;
		hi = lo;
		if (p->end - p->s > 1 && p->s[0] == '-' && p->s[1] != ']') {
			p->s++;
			if (class_rune(p, &hi) < 0) return -1;
			if (hi < lo) return bad(p, "invalid character class range");
		}
		set_add(s, lo, hi, p->flags.fold);
	}
}

static int literal(struct parser *p, uint32_t r)
{
	int node;
	set_add(set_new(p, &node), r, r, p->flags.fold);
	return node;
}

static int parse_escape(struct parser *p)
{
	static const struct {
		char c;
		enum assertion what;
	} assertions[] = {{'A', TEXT_BEGIN}, {'z', TEXT_END}, {'b', WORD_EDGE}, {'B', NO_WORD_EDGE}};
	char c = p->s < p->end ? *p->s : 0;
	for (size_t i = 0; i < array_len(assertions); i++) {
		if (c != assertions[i].c) continue;
		p->s++;
		return node_add(p, ASSERT, assertions[i].what, 0);
	}
	if (c && strchr("dswDSW", c)) {
		int node;
		struct set *s = set_new(p, &node);
		char lower = (char)(c | 0x20);
		set_add_class(s, &lower, 1, c != lower, p->flags.fold);
		p->s++;
		return node;
	}
	uint32_t r;
	return escaped_rune(p, &r) < 0 ? -1 : literal(p, r);
}

/* Between \Q and \E: one rune as it is. What repeats behind \E repeats the last one. */
static int parse_quoted(struct parser *p)
{
	int node = p->s == p->end || take(p, "\\E") ? NONE : literal(p, next_rune(p));
	p->quoted = node != NONE && p->s < p->end && !take(p, "\\E");
	return node == NONE ? node_add(p, EMPTY, 0, 0) : node;
}

static int parse_any(struct parser *p)
{
	int node;
	struct set *s = set_new(p, &node);
	s->negated = true;
	if (!p->flags.dot_all) set_range(s, '\n', '\n');
	return node;
}

static int parse_alternatives(struct parser *p);

static int parse_name(struct parser *p, int group)
{
	const char *stop = memchr(p->s, '>', (size_t)(p->end - p->s));
	if (!stop || stop == p->s) return bad(p, "invalid named capture");
	for (const char *c = p->s; c < stop; c++)
		if (*c != '_' && !(*c >= '0' && *c <= '9') && !((*c | 0x20) >= 'a' && (*c | 0x20) <= 'z'))
			return bad(p, "invalid named capture");
	p->re->names[group] = xstrndup(p->s, (size_t)(stop - p->s));
	p->s = stop + 1;
	return 0;
}

/* (?flags) and (?flags: ; 1: a group follows, 0: it was flags only. */
static int parse_flags(struct parser *p)
{
	bool on = true;
	for (; p->s < p->end; p->s++) {
		switch (*p->s) {
		case 'i': p->flags.fold = on; break;
		case 'm': p->flags.multi = on; break;
		case 's': p->flags.dot_all = on; break;
		case 'U': p->flags.ungreedy = on; break;
		case '-':
			if (!on) return bad(p, "invalid or unsupported Perl syntax");
			on = false;
			break;
		case ':': p->s++; return 1;
		case ')': p->s++; return 0;
		default: return bad(p, "invalid or unsupported Perl syntax");
		}
	}
	return bad(p, "missing argument to repetition operator");
}

/* Behind "(". Flags hold to the end of the group that they stand in. */
static int parse_group(struct parser *p)
{
	struct flags before = p->flags;
	int group = 0;
	if (take(p, "?P<") || take(p, "?<")) {
		if (p->re->n_groups == GROUPS_MAX) return bad(p, "too many groups");
		group = p->re->n_groups++;
		if (parse_name(p, group) < 0) return -1;
	} else if (take(p, "?")) {
		int follows = parse_flags(p);
		if (follows < 0) return -1;
		if (!follows) return node_add(p, EMPTY, 0, 0);
	} else {
		if (p->re->n_groups == GROUPS_MAX) return bad(p, "too many groups");
		group = p->re->n_groups++;
	}
	if (++p->depth > DEPTH_MAX) return bad(p, "expression nests too deeply");
	int in = parse_alternatives(p);
	if (in < 0) return -1;
	if (!take(p, ")")) return bad(p, "missing closing )");
	p->depth--;
	p->flags = before;
	return node_add(p, GROUP, in, group);
}

/* One thing that may be repeated. */
static int parse_atom(struct parser *p)
{
	if (p->quoted) return parse_quoted(p);
	switch (*p->s) {
	case '(': p->s++; return parse_group(p);
	case '[': p->s++; return parse_class(p);
	case '.': p->s++; return parse_any(p);
	case '^': p->s++; return node_add(p, ASSERT, p->flags.multi ? LINE_BEGIN : TEXT_BEGIN, 0);
	case '$': p->s++; return node_add(p, ASSERT, p->flags.multi ? LINE_END : TEXT_END, 0);
	case '*':
	case '+':
	case '?': return bad(p, "missing argument to repetition operator");
	case '\\':
		if (take(p, "\\Q")) return parse_quoted(p);
		p->s++;
		return parse_escape(p);
	default: return literal(p, next_rune(p));
	}
}

/* {n}, {n,} or {n,m}: 1; 0: it is none and stays as text. */
static int parse_count(struct parser *p, int *ret_min, int *ret_max)
{
	const char *s = p->s + 1;
	int v[2] = {NONE, NONE}, n = 0;
	for (; n < 2; n++) {
		for (; s < p->end && *s >= '0' && *s <= '9'; s++) {
			if (v[n] < 0) v[n] = 0;
			v[n] = min_of(v[n] * 10 + (*s - '0'), SPEC_REGEXP_MAX_REPEAT + 1);
		}
		if (n == 0 && v[0] < 0) return 0;
		if (n == 0 && s < p->end && *s == ',')
			s++;
		else
			break;
	}
	if (s == p->end || *s != '}') return 0;
	if (n == 0) v[1] = v[0];
	if (v[0] > SPEC_REGEXP_MAX_REPEAT || v[1] > SPEC_REGEXP_MAX_REPEAT || (v[1] >= 0 && v[1] < v[0]))
		return bad(p, "invalid repeat count");
	p->s = s + 1;
	*ret_min = v[0];
	*ret_max = v[1];
	return 1;
}

static int parse_repeated(struct parser *p)
{
	int node = parse_atom(p);
	for (bool again = false; node >= 0 && p->s < p->end && !p->quoted; again = true) {
		int min = 0, max = NONE;
		if (*p->s == '{') {
			int is = parse_count(p, &min, &max);
			if (is < 0) return -1;
			if (!is) break;
		} else if (*p->s == '*' || *p->s == '+' || *p->s == '?') {
			min = *p->s == '+';
			max = *p->s == '?' ? 1 : NONE;
			p->s++;
		} else {
			break;
		}
		if (again) return bad(p, "invalid nested repetition operator");
		bool lazy = take(p, "?");
		node = node_add(p, REPEAT, node, 0);
		p->nodes.v[node].min = min;
		p->nodes.v[node].max = max;
		p->nodes.v[node].lazy = lazy != p->flags.ungreedy;
	}
	return node;
}

static int parse_alternatives(struct parser *p)
{
	int all = NONE;
	do {
		int node = node_add(p, EMPTY, 0, 0);
		while (p->s < p->end && (p->quoted || (*p->s != '|' && *p->s != ')'))) {
			int next = parse_repeated(p);
			if (next < 0) return -1;
			node = node_add(p, CAT, node, next);
		}
		all = all == NONE ? node : node_add(p, ALT, all, node);
	} while (take(p, "|"));
	return all;
}

/* ---- compiling ---- */

static int step_add(struct parser *p, enum step_kind kind, int x, int y)
{
	if (p->re->steps.n == SPEC_REGEXP_MAX_STEPS) return bad(p, "expression is too large");
	vec_push(&p->re->steps, ((struct step){kind, x, y}));
	return (int)p->re->steps.n - 1;
}

static int compile(struct parser *p, int node);

static int compile_split(struct parser *p, bool lazy, int *ret_out)
{
	int at = step_add(p, STEP_SPLIT, 0, 0);
	if (at < 0) return -1;
	struct step *s = &p->re->steps.v[at];
	*(lazy ? &s->y : &s->x) = at + 1;
	*ret_out = lazy;
	return at;
}

static void set_out(struct parser *p, int split, int out_is_x, int to)
{
	struct step *s = &p->re->steps.v[split];
	*(out_is_x ? &s->x : &s->y) = to;
}

static bool nullable(const struct parser *p, int node)
{
	const struct node *n = &p->nodes.v[node];
	switch (n->kind) {
	case SET: return false;
	case CAT: return nullable(p, n->a) && nullable(p, n->b);
	case ALT: return nullable(p, n->a) || nullable(p, n->b);
	case REPEAT: return n->min == 0 || nullable(p, n->a);
	case GROUP: return nullable(p, n->a);
	default: return true;
	}
}

/* Once, then again and again. */
static int compile_plus(struct parser *p, struct node n)
{
	int begin = (int)p->re->steps.n, split;
	if (compile(p, n.a) < 0 || (split = step_add(p, STEP_SPLIT, 0, 0)) < 0) return -1;
	struct step *s = &p->re->steps.v[split];
	s->x = n.lazy ? split + 1 : begin;
	s->y = n.lazy ? begin : split + 1;
	return 0;
}

/* What matches the empty text is repeated as (x+)?, so that its preferences stay in order. */
static int compile_star(struct parser *p, struct node n)
{
	int begin = (int)p->re->steps.n, out, split = compile_split(p, n.lazy, &out);
	if (split < 0) return -1;
	if (nullable(p, n.a) ? compile_plus(p, n) < 0 : compile(p, n.a) < 0 || step_add(p, STEP_JUMP, begin, 0) < 0) return -1;
	set_out(p, split, out, (int)p->re->steps.n);
	return 0;
}

static int compile_repeat(struct parser *p, struct node n)
{
	VEC(int) splits = {0};
	int rc = 0, out, split;
	if (n.max == NONE && n.min == 0) return compile_star(p, n);
	for (int i = 0; i < n.min - (n.max == NONE); i++) {
		size_t before = p->re->steps.n;
		if (compile(p, n.a) < 0) return -1;
		if (p->re->steps.n == before) return 0; /* nothing, however often */
	}
	if (n.max == NONE) return compile_plus(p, n);
	for (int i = n.min; i < n.max && rc == 0; i++) {
		if ((split = compile_split(p, n.lazy, &out)) < 0 || compile(p, n.a) < 0) rc = -1;
		if (rc == 0) vec_push(&splits, split);
	}
	for (size_t i = 0; i < splits.n; i++) set_out(p, splits.v[i], n.lazy, (int)p->re->steps.n);
	vec_fini(&splits);
	return rc;
}

static int compile_alt(struct parser *p, struct node n)
{
	int split = step_add(p, STEP_SPLIT, 0, 0);
	if (split < 0) return -1;
	p->re->steps.v[split].x = split + 1;
	if (compile(p, n.a) < 0) return -1;
	int jump = step_add(p, STEP_JUMP, 0, 0);
	if (jump < 0) return -1;
	p->re->steps.v[split].y = jump + 1;
	if (compile(p, n.b) < 0) return -1;
	p->re->steps.v[jump].x = (int)p->re->steps.n;
	return 0;
}

/* A chain of CAT and ALT leans to the left and may be as long as the text: its depth is the text's length, which is bounded. */
static int compile(struct parser *p, int node)
{
	struct node n = p->nodes.v[node];
	switch (n.kind) {
	case EMPTY: return 0;
	case SET: return step_add(p, STEP_SET, n.a, 0) < 0 ? -1 : 0;
	case ASSERT: return step_add(p, STEP_ASSERT, n.a, 0) < 0 ? -1 : 0;
	case CAT: return compile(p, n.a) < 0 || compile(p, n.b) < 0 ? -1 : 0;
	case ALT: return compile_alt(p, n);
	case REPEAT: return compile_repeat(p, n);
	case GROUP:
		if (!n.b) return compile(p, n.a);
		return step_add(p, STEP_SAVE, 2 * n.b, 0) < 0 || compile(p, n.a) < 0 ||
				       step_add(p, STEP_SAVE, 2 * n.b + 1, 0) < 0
			       ? -1
			       : 0;
	}
	return -1;
}

int spec_regexp_new(const char *text, struct spec_regexp **ret, struct err *e)
{
	_cleanup_spec_regexp_ struct spec_regexp *re = xnew(struct spec_regexp);
	struct parser p = {.text = text, .s = text, .end = text + strlen(text), .re = re, .e = e};
	re->n_groups = 1;
	if (p.end - p.s > SPEC_REGEXP_MAX_BYTES)
		return err_set(e, SPEC_BAD, "error parsing regexp: expression of %zu bytes is longer than %d", strlen(text),
			       SPEC_REGEXP_MAX_BYTES);
	int node = utf8_valid(text, strlen(text)) ? parse_alternatives(&p) : bad(&p, "invalid UTF-8");
	int rc = -1;
	if (node >= 0 && p.s < p.end)
		bad(&p, "unexpected )");
	else if (node >= 0 && compile(&p, node) >= 0 && step_add(&p, STEP_MATCH, 0, 0) >= 0)
		rc = 0;
	vec_fini(&p.nodes);
	if (rc == 0) *ret = take_ptr(re);
	return rc;
}

void spec_regexp_free(struct spec_regexp *r)
{
	if (!r) return;
	for (size_t i = 0; i < r->sets.n; i++) vec_fini(&r->sets.v[i].ranges);
	for (int i = 0; i < GROUPS_MAX; i++) free(r->names[i]);
	vec_fini(&r->sets);
	vec_fini(&r->steps);
	free(r);
}

/* ---- running ---- */

struct threads { /* in order of preference */
	int *step;
	size_t n;
	ptrdiff_t *caps; /* 2 * n_groups a thread */
};
struct machine {
	const struct spec_regexp *re;
	const char *text;
	size_t len, n_caps;
	struct threads now, next;
	size_t *seen; /* a step: the position + 1 for which it was added last */
	struct todo {
		int step, cap; /* step NONE: put caps[cap] back to `old` */
		ptrdiff_t old;
	} * todo;
	void *large;            /* heap, where `small` is too small */
	max_align_t small[256]; /* of what the pointers above point to: most expressions of patterns fit */
};

static bool is_word(const struct machine *m, size_t at)
{
	if (at >= m->len) return false;
	char c = m->text[at];
	return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool holds(const struct machine *m, enum assertion a, size_t at)
{
	bool edge = (at > 0 && is_word(m, at - 1)) != is_word(m, at);
	switch (a) {
	case TEXT_BEGIN: return at == 0;
	case TEXT_END: return at == m->len;
	case LINE_BEGIN: return at == 0 || m->text[at - 1] == '\n';
	case LINE_END: return at == m->len || m->text[at] == '\n';
	case WORD_EDGE: return edge;
	case NO_WORD_EDGE: return !edge;
	}
	return false;
}

/* Follow all that takes no rune; caps is changed on the way and put back. */
static void thread_add(struct machine *m, struct threads *t, int first, size_t at, ptrdiff_t *caps)
{
	size_t n = 0;
	m->todo[n++] = (struct todo){.step = first};
	while (n) {
		struct todo d = m->todo[--n];
		if (d.step == NONE) {
			caps[d.cap] = d.old;
			continue;
		}
		if (m->seen[d.step] == at + 1) continue;
		m->seen[d.step] = at + 1;
		const struct step *s = &m->re->steps.v[d.step];
		switch (s->kind) {
		case STEP_JUMP: m->todo[n++] = (struct todo){.step = s->x}; break;
		case STEP_SPLIT:
			m->todo[n++] = (struct todo){.step = s->y};
			m->todo[n++] = (struct todo){.step = s->x};
			break;
		case STEP_ASSERT:
			if (holds(m, (enum assertion)s->x, at)) m->todo[n++] = (struct todo){.step = d.step + 1};
			break;
		case STEP_SAVE:
			m->todo[n++] = (struct todo){NONE, s->x, caps[s->x]};
			caps[s->x] = (ptrdiff_t)at;
			m->todo[n++] = (struct todo){.step = d.step + 1};
			break;
		default:
			if (m->n_caps) memcpy(t->caps + t->n * m->n_caps, caps, m->n_caps * sizeof *caps);
			t->step[t->n++] = d.step;
		}
	}
}

/* places: those of groups are wanted; else threads carry none, which is several times faster. */
static void machine_init(struct machine *m, const struct spec_regexp *re, const char *text, bool places)
{
	size_t steps = re->steps.n;
	m->re = re;
	m->text = text;
	m->len = strlen(text);
	m->n_caps = places ? 2 * (size_t)re->n_groups : 0;
	m->large = NULL;
	size_t caps = steps * m->n_caps * sizeof(ptrdiff_t), seen = steps * sizeof *m->seen,
	       todo = (2 * steps + 2) * sizeof *m->todo, step = steps * sizeof(int), all = 2 * caps + seen + todo + 2 * step;
	char *p = all <= sizeof m->small ? (char *)m->small : (m->large = xmalloc(all));
	m->now.caps = (ptrdiff_t *)(void *)p;
	m->next.caps = (ptrdiff_t *)(void *)(p += caps);
	m->seen = (size_t *)(void *)(p += caps);
	m->todo = (struct todo *)(void *)(p += seen);
	m->now.step = (int *)(void *)(p += todo);
	m->next.step = (int *)(void *)(p + step);
}

static void machine_fini(struct machine *m) { free(m->large); }

static bool begins_text(const struct spec_regexp *re)
{
	return re->steps.v[0].kind == STEP_ASSERT && re->steps.v[0].x == TEXT_BEGIN;
}

/* The leftmost match that begins at `from` or later, by preference; its places into caps. Without places: whether there is one.
 */
static bool run(struct machine *m, size_t from, ptrdiff_t *caps)
{
	bool found = false, once = begins_text(m->re);
	ptrdiff_t fresh[2 * GROUPS_MAX];
	m->now.n = m->next.n = 0;
	memset(m->seen, 0, m->re->steps.n * sizeof *m->seen);
	for (size_t at = from;;) {
		if (!found && (!once || at == 0)) {
			for (size_t i = 0; i < m->n_caps; i++) fresh[i] = NONE;
			fresh[0] = (ptrdiff_t)at;
			thread_add(m, &m->now, 0, at, fresh);
		}
		if ((found || once) && !m->now.n) break;
		size_t width = 1;
		uint32_t r = at < m->len ? spec_rune(m->text + at, m->len - at, &width) : 0;
		m->next.n = 0;
		for (size_t i = 0; i < m->now.n; i++) {
			const struct step *s = &m->re->steps.v[m->now.step[i]];
			ptrdiff_t *c = m->n_caps ? m->now.caps + i * m->n_caps : fresh;
			if (s->kind == STEP_MATCH && !m->n_caps) return true;
			if (s->kind == STEP_MATCH) {
				memcpy(caps, c, m->n_caps * sizeof *caps);
				caps[1] = (ptrdiff_t)at;
				found = true;
				break; /* what follows is preferred less */
			}
			if (at < m->len && set_has(&m->re->sets.v[s->x], r))
				thread_add(m, &m->next, m->now.step[i] + 1, at + width, c);
		}
		if (at >= m->len) break;
		at += width;
		struct threads t = m->now;
		m->now = m->next;
		m->next = t;
	}
	return found;
}

bool spec_regexp_match(const struct spec_regexp *r, const char *s)
{
	_cleanup_(machine_fini) struct machine m;
	ptrdiff_t caps[2 * GROUPS_MAX];
	machine_init(&m, r, s, false);
	return run(&m, 0, caps);
}

/* ---- templates ---- */

static bool name_char(char c) { return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'); }

/* By number, or of those with that name the first that took part. */
static int group_of(const struct spec_regexp *r, const char *name, size_t n, const ptrdiff_t *caps)
{
	int number = 0;
	for (size_t i = 0; i < n && number >= 0; i++)
		number = name[i] >= '0' && name[i] <= '9' ? min_of(number * 10 + (name[i] - '0'), 100000) : -1;
	if (number >= 0) return number < r->n_groups ? number : NONE;
	for (int i = 1; i < r->n_groups; i++)
		if (r->names[i] && strlen(r->names[i]) == n && !memcmp(r->names[i], name, n) && caps[2 * i] >= 0) return i;
	return NONE;
}

/* At a '$': the name behind it. Its length in all, 0: it is no reference. */
static size_t reference(const char *s, const char **ret_name, size_t *ret_n)
{
	bool braces = s[1] == '{';
	const char *name = s + 1 + braces;
	size_t n = 0;
	while (name_char(name[n])) n++;
	if (!n || (braces && name[n] != '}')) return 0;
	*ret_name = name;
	*ret_n = n;
	return (size_t)(name + n + braces - s);
}

static void expand(const struct spec_regexp *r, const char *text, const ptrdiff_t *caps, const char *format, struct buf *out)
{
	for (const char *s = format; *s;) {
		const char *name;
		size_t n, len = 0;
		if (*s == '$' && s[1] == '$') {
			buf_addc(out, '$');
			s += 2;
		} else if (*s == '$' && (len = reference(s, &name, &n))) {
			int g = group_of(r, name, n, caps);
			if (g >= 0 && caps[2 * g] >= 0 && caps[2 * g + 1] >= 0)
				buf_add(out, text + caps[2 * g], (size_t)(caps[2 * g + 1] - caps[2 * g]));
			s += len;
		} else {
			buf_addc(out, *s++);
		}
	}
}

bool spec_regexp_expand(const struct spec_regexp *r, const char *s, const char *format, struct buf *out)
{
	_cleanup_(machine_fini) struct machine m;
	ptrdiff_t caps[2 * GROUPS_MAX];
	machine_init(&m, r, s, true);
	if (!run(&m, 0, caps)) return false;
	expand(r, s, caps, format, out);
	return true;
}

void spec_regexp_replace(const struct spec_regexp *r, const char *s, const char *format, struct buf *out)
{
	_cleanup_(machine_fini) struct machine m;
	ptrdiff_t caps[2 * GROUPS_MAX];
	size_t copied = 0;
	machine_init(&m, r, s, true);
	for (size_t from = 0; from <= m.len && run(&m, from, caps);) {
		size_t begin = (size_t)caps[0], end = (size_t)caps[1];
		buf_add(out, s + copied, begin - copied);
		if (end > copied || begin == 0) expand(r, s, caps, format, out); /* no empty match right behind another one */
		copied = end;
		if (end > from) {
			from = end;
		} else {
			size_t width = 1;
			if (from < m.len) spec_rune(s + from, m.len - from, &width);
			from += width;
		}
	}
	buf_add(out, s + copied, m.len - copied);
}

void spec_regexp_quote(const char *s, struct buf *out)
{
	for (; *s; s++) {
		if (strchr("\\.+*?()|[]{}^$", *s)) buf_addc(out, '\\');
		buf_addc(out, *s);
	}
}
