/* The small part of Go's regexp (RE2) that moby/patternmatcher's translation of a pattern can come to.
 *
 * The translation gives literals, escapes, "[^/]*", "[^/]", ".*", the optional group of any directories and what the pattern's
 * own brackets turn into, which may be odd ("[*]" becomes "[[^/]*]"). So the text is parsed as RE2 does it and then simulated
 * as an automaton: time is pattern times path, never exponential. Edges go forward only, so one pass in order closes a set of
 * states.
 * 1. States 0..n-1 are nodes, state n is acceptance; the whole path must match.
 * Not supported: \p classes; such a pattern counts as one that regexp does not compile. */
#include "spec/internal.h"
#include "base/vec.h"

#include <string.h>

enum kind { ONE, MANY, DIRS, DIRS_IN, BEGIN, END, WORD_EDGE, NO_WORD_EDGE };
struct range {
	uint32_t lo, hi;
};
struct set {
	bool negated;
	VEC(struct range) ranges;
};
struct node {
	enum kind kind;
	struct set set; /* ONE, MANY */
};
struct spec_regex {
	VEC(struct node) nodes;
};

struct parser {
	const char *s, *end;
	struct spec_regex *re;
};

static void set_add(struct set *s, uint32_t lo, uint32_t hi) { vec_push(&s->ranges, ((struct range){lo, hi})); }

static bool set_has(const struct set *s, uint32_t r)
{
	for (size_t i = 0; i < s->ranges.n; i++)
		if (s->ranges.v[i].lo <= r && r <= s->ranges.v[i].hi) return !s->negated;
	return s->negated;
}

static const struct {
	const char *name;
	struct range ranges[4];
} classes[] = {
	{"[:alnum:]", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}},
	{"[:alpha:]", {{'A', 'Z'}, {'a', 'z'}}},
	{"[:ascii:]", {{0, 0x7f}}},
	{"[:blank:]", {{'\t', '\t'}, {' ', ' '}}},
	{"[:cntrl:]", {{0, 0x1f}, {0x7f, 0x7f}}},
	{"[:digit:]", {{'0', '9'}}},
	{"[:graph:]", {{'!', '~'}}},
	{"[:lower:]", {{'a', 'z'}}},
	{"[:print:]", {{' ', '~'}}},
	{"[:punct:]", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}},
	{"[:space:]", {{'\t', '\r'}, {' ', ' '}}},
	{"[:upper:]", {{'A', 'Z'}}},
	{"[:word:]", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}}},
	{"[:xdigit:]", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}},
	{"\\d", {{'0', '9'}}},
	{"\\s", {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}}},
	{"\\w", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}, {'_', '_'}}},
};

/* The complement of sorted ranges, for \D, \S, \W and [:^alpha:]. */
static void set_add_class(struct set *s, const struct range *v, bool negated)
{
	uint32_t from = 0;
	for (size_t i = 0; i < 4 && (v[i].hi || v[i].lo); i++) {
		if (!negated)
			set_add(s, v[i].lo, v[i].hi);
		else if (v[i].lo > from)
			set_add(s, from, v[i].lo - 1);
		from = v[i].hi + 1;
	}
	if (negated) set_add(s, from, 0x10ffff);
}

static uint32_t next_rune(struct parser *p)
{
	size_t w;
	uint32_t r = spec_rune(p->s, (size_t)(p->end - p->s), &w);
	p->s += w;
	return r;
}

static bool at(const struct parser *p, char c) { return p->s < p->end && *p->s == c; }

static int hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool octal_at(const struct parser *p) { return p->s < p->end && *p->s >= '0' && *p->s <= '7'; }

/* Behind a backslash: an escaped character. */
static bool parse_escape(struct parser *p, uint32_t *ret)
{
	if (p->s == p->end) return false;
	uint32_t c = next_rune(p);
	static const char from[] = "afnrtv", to[] = "\a\f\n\r\t\v";
	const char *letter = c && c < 0x80 ? strchr(from, (int)c) : NULL;
	if (letter) {
		*ret = (uint32_t)to[letter - from];
	} else if (c == '0' || (c >= '1' && c <= '7' && octal_at(p))) {
		uint32_t r = c - '0';
		for (int i = 1; i < 3 && octal_at(p); i++) r = r * 8 + next_rune(p) - '0';
		*ret = r;
	} else if (c == 'x') {
		if (p->end - p->s < 2 || hex_value(p->s[0]) < 0 || hex_value(p->s[1]) < 0) return false;
		*ret = (uint32_t)(hex_value(p->s[0]) * 16 + hex_value(p->s[1]));
		p->s += 2;
	} else if (c < 0x80 && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z')) {
		*ret = c;
	} else {
		return false;
	}
	return true;
}

/* A \d \D \s \S \w \W at p: takes it. */
static bool parse_perl_class(struct parser *p, struct set *s)
{
	if (p->end - p->s < 2 || p->s[0] != '\\') return false;
	const char letter = p->s[1];
	char name[3] = {'\\', (char)(letter >= 'A' && letter <= 'Z' ? letter + 32 : letter), 0};
	for (size_t i = 0; i < array_len(classes); i++) {
		if (strcmp(classes[i].name, name) != 0) continue;
		set_add_class(s, classes[i].ranges, letter != name[1]);
		p->s += 2;
		return true;
	}
	return false;
}

/* 1: a [:name:] was taken, 0: there is none, -1: an unknown name. */
static int parse_posix_class(struct parser *p, struct set *s)
{
	if (p->end - p->s < 3 || p->s[0] != '[' || p->s[1] != ':') return 0;
	const char *close = memmem(p->s + 2, (size_t)(p->end - p->s - 2), ":]", 2);
	if (!close) return 0;
	bool negated = p->s[2] == '^';
	const char *name = p->s + 2 + negated;
	for (size_t i = 0; i < array_len(classes); i++) {
		size_t n = strlen(classes[i].name);
		if (n < 5 || (size_t)(close - name) != n - 4 || memcmp(name, classes[i].name + 2, n - 4) != 0) continue;
		set_add_class(s, classes[i].ranges, negated);
		p->s = close + 2;
		return 1;
	}
	return -1;
}

static bool parse_class_char(struct parser *p, uint32_t *ret)
{
	if (p->s == p->end) return false;
	*ret = next_rune(p);
	return *ret != '\\' || parse_escape(p, ret);
}

/* Behind '[', up to and with ']'. */
static bool parse_class(struct parser *p, struct set *s)
{
	if (at(p, '^')) {
		s->negated = true;
		p->s++;
	}
	for (bool first = true; first || !at(p, ']'); first = false) {
		int posix = parse_posix_class(p, s);
		if (posix < 0) return false;
		if (posix || parse_perl_class(p, s)) continue;
		uint32_t lo, hi;
		if (!parse_class_char(p, &lo)) return false;
		hi = lo;
		if (p->end - p->s >= 2 && p->s[0] == '-' && p->s[1] != ']') {
			p->s++;
			if (!parse_class_char(p, &hi) || hi < lo) return false;
		}
		set_add(s, lo, hi);
	}
	p->s++;
	return true;
}

static struct node *add_node(struct parser *p, enum kind kind)
{
	struct node *n = vec_add(&p->re->nodes);
	n->kind = kind;
	return n;
}

static void add_rune(struct parser *p, uint32_t r) { set_add(&add_node(p, ONE)->set, r, r); }

/* Behind an atom of one rune: a star makes it many. */
static void parse_star(struct parser *p)
{
	if (!at(p, '*')) return;
	p->s++;
	p->re->nodes.v[p->re->nodes.n - 1].kind = MANY;
}

/* \A \b \B \z and \Q...\E at p: 1 taken, 0 none, as parse_posix_class. */
static bool parse_special(struct parser *p)
{
	static const struct {
		char letter;
		enum kind kind;
	} edges[] = {{'A', BEGIN}, {'z', END}, {'b', WORD_EDGE}, {'B', NO_WORD_EDGE}};
	if (p->end - p->s < 2) return false;
	for (size_t i = 0; i < array_len(edges); i++) {
		if (p->s[1] != edges[i].letter) continue;
		add_node(p, edges[i].kind);
		p->s += 2;
		return true;
	}
	if (p->s[1] != 'Q') return false;
	p->s += 2;
	const char *close = memmem(p->s, (size_t)(p->end - p->s), "\\E", 2);
	const char *stop = close ? close : p->end;
	while (p->s < stop) add_rune(p, next_rune(p));
	if (close) p->s += 2;
	return true;
}

static bool parse_atom(struct parser *p)
{
	static const char dirs[] = "(.*/)?";
	uint32_t r;
	switch (*p->s) {
	case '(':
		if (!str_starts(p->s, dirs)) return false;
		p->s += sizeof dirs - 1;
		add_node(p, DIRS);
		add_node(p, DIRS_IN);
		return true;
	case '^': p->s++; return add_node(p, BEGIN) != NULL;
	case '$': p->s++; return add_node(p, END) != NULL;
	case ')':
	case '?':
	case '+':
	case '*':
	case '|':
	case '{': return false;
	case '.':
		p->s++;
		set_add(&add_node(p, ONE)->set, '\n', '\n');
		p->re->nodes.v[p->re->nodes.n - 1].set.negated = true;
		break;
	case '[':
		p->s++;
		if (!parse_class(p, &add_node(p, ONE)->set)) return false;
		break;
	case '\\':
		if (parse_special(p)) return true;
		{
			struct set s = {0};
			if (parse_perl_class(p, &s)) {
				add_node(p, ONE)->set = s;
				break;
			}
		}
		p->s++;
		if (!parse_escape(p, &r)) return false;
		add_rune(p, r);
		break;
	default: add_rune(p, next_rune(p)); break;
	}
	parse_star(p);
	return true;
}

struct spec_regex *spec_regex_new(const char *re)
{
	struct spec_regex *r = xnew(struct spec_regex);
	struct parser p = {.s = re, .end = re + strlen(re), .re = r};
	while (p.s < p.end) {
		if (parse_atom(&p)) continue;
		spec_regex_free(r);
		return NULL;
	}
	return r;
}

void spec_regex_free(struct spec_regex *r)
{
	if (!r) return;
	for (size_t i = 0; i < r->nodes.n; i++) vec_fini(&r->nodes.v[i].set.ranges);
	vec_fini(&r->nodes);
	free(r);
}

static bool is_word(uint32_t r)
{
	return (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || r == '_';
}

enum { NONE = 0x110000 }; /* the rune before the first and behind the last */

/* Follow the edges that take nothing, between the runes before and after. */
static void close_states(const struct spec_regex *re, uint8_t *on, uint32_t before, uint32_t after)
{
	bool edge = is_word(before) != is_word(after);
	for (size_t i = 0; i < re->nodes.n; i++) {
		if (!on[i]) continue;
		switch (re->nodes.v[i].kind) {
		case MANY: on[i + 1] = 1; break;
		case DIRS: on[i + 1] = on[i + 2] = 1; break;
		case BEGIN: on[i + 1] |= before == NONE; break;
		case END: on[i + 1] |= after == NONE; break;
		case WORD_EDGE: on[i + 1] |= edge; break;
		case NO_WORD_EDGE: on[i + 1] |= !edge; break;
		default: break;
		}
	}
}

/* Take r from each state that is on; what is on afterwards goes to next. */
static bool take(const struct spec_regex *re, const uint8_t *on, uint8_t *next, uint32_t r)
{
	memset(next, 0, re->nodes.n + 1);
	for (size_t i = 0; i < re->nodes.n; i++) {
		const struct node *n = &re->nodes.v[i];
		if (!on[i]) continue;
		if (n->kind == ONE) next[i + 1] |= set_has(&n->set, r);
		if (n->kind == MANY) next[i] |= set_has(&n->set, r);
		if (n->kind == DIRS_IN) next[i] |= r != '\n';
		if (n->kind == DIRS_IN) next[i + 1] |= r == '/';
	}
	return memchr(next, 1, re->nodes.n + 1) != NULL;
}

bool spec_regex_match(const struct spec_regex *re, const char *s)
{
	size_t n = re->nodes.n + 1, left = strlen(s), w;
	uint8_t small[512];
	_cleanup_free_ uint8_t *large = 2 * n > sizeof small ? xmalloc(2 * n) : NULL;
	uint8_t *on = large ? large : small, *next = on + n;
	memset(on, 0, n);
	on[0] = 1;
	uint32_t before = NONE;
	for (; left; s += w, left -= w) {
		uint32_t r = spec_rune(s, left, &w);
		close_states(re, on, before, r);
		if (!take(re, on, next, r)) return false;
		uint8_t *t = on;
		on = next;
		next = t;
		before = r;
	}
	close_states(re, on, before, NONE);
	return on[n - 1];
}
