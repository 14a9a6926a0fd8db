/* Modes as chmod(1) writes them: octal, or clauses such as "u=rwX,go=u-w". A mode is parsed once into a list of bit commands,
 * which are applied to each file in turn. No umask counts. Differences to GNU's: an octal mode clears setgid of
 * directories too, 'X' looks at the mode before any clause.
 * Sources: FreeBSD setmode(3), as dchapes/mode (which BuildKit uses) follows it. */
#include "ops/file_parts_job.h"

#include <string.h>

enum {
	UGO = 0777,
	SUID_SGID = 06000,
	STICKY = 01000,
	STANDARD = SUID_SGID | UGO,
	/* what a copy of bits does (clear first, set) and to which classes */
	COPY_CLEAR = 1,
	COPY_SET = 2,
	TO_U = 4,
	TO_G = 8,
	TO_O = 16,
};

void file_mode_fini(struct file_mode *m) { vec_fini(&m->cmds); }

static void add(struct file_mode *m, char op, unsigned bits)
{
	vec_push(&m->cmds, ((struct file_mode_cmd){op, 0, (uint16_t)bits}));
}

/* `who` 0: nobody was named. */
static void add_bits(struct file_mode *m, char op, unsigned who, unsigned bits)
{
	if (op == '=') {
		add(m, '-', who ? who : STANDARD);
		op = '+';
	}
	add(m, op, who ? who & bits : bits);
}

static void add_copy(struct file_mode *m, char from, unsigned who, char op)
{
	unsigned what = op == '+' ? COPY_SET : op == '-' ? COPY_CLEAR : COPY_SET | COPY_CLEAR;
	if (!who || who & 0400) what |= TO_U;
	if (!who || who & 0040) what |= TO_G;
	if (!who || who & 0004) what |= TO_O;
	vec_push(&m->cmds, ((struct file_mode_cmd){from, (uint8_t)what, 07777}));
}

static int parse_octal(const char *s, struct file_mode *ret, struct err *e)
{
	long v = 0;
	for (const char *p = s; *p; p++) {
		if (*p < '0' || *p > '7')
			return err_set(e, CODE_INVALID_ARGUMENT, "strconv.ParseInt: parsing \"%s\": invalid syntax", s);
		v = min_of(v * 8 + (*p - '0'), 0100000L);
	}
	if (v > 077777) return err_set(e, CODE_INVALID_ARGUMENT, "strconv.ParseInt: parsing \"%s\": value out of range", s);
	if (v & ~07777) return err_set(e, CODE_INVALID_ARGUMENT, "invalid syntax");
	add_bits(ret, '=', STANDARD | STICKY, (unsigned)v);
	return 0;
}

static const char *parse_who(const char *s, unsigned *who)
{
	for (;; s++) {
		switch (*s) {
		case 'a': *who |= STANDARD; break;
		case 'u': *who |= 04700; break;
		case 'g': *who |= 02070; break;
		case 'o': *who |= 00007; break;
		default: return s;
		}
	}
}

/* What follows one of + - =, up to the next one or the end of the clause. */
static const char *parse_perms(const char *s, char op, unsigned *who, bool *equal_done, struct file_mode *m)
{
	unsigned perm = 0, perm_x = 0;
	*who &= ~(unsigned)STICKY;
	for (;; s++) {
		bool sets = !*who || *who & ~7u; /* "o" alone has no set-id and no sticky bit */
		switch (*s) {
		case 'r': perm |= 0444; break;
		case 'w': perm |= 0222; break;
		case 'x': perm |= 0111; break;
		case 's': perm |= sets ? SUID_SGID : 0; break;
		case 't':
			if (sets) {
				*who |= STICKY;
				perm |= STICKY;
			}
			break;
		case 'X':
			if (op == '-')
				perm |= 0111;
			else
				perm_x = 0111;
			break;
		case 'u':
		case 'g':
		case 'o':
			if (perm) add_bits(m, op, *who, perm);
			if (perm_x) add_bits(m, 'X', *who, perm_x);
			if (op == '=') *equal_done = true;
			add_copy(m, *s, *who, op);
			perm = perm_x = 0;
			break;
		default:
			if (perm || (op == '=' && !*equal_done)) {
				*equal_done |= op == '=';
				add_bits(m, op, *who, perm);
			}
			if (perm_x) add_bits(m, 'X', *who, perm_x);
			return s;
		}
	}
}

static int parse_symbolic(const char *s, struct file_mode *m, struct err *e)
{
	bool equal_done = false;
	for (;; s++) {
		unsigned who = 0;
		s = parse_who(s, &who);
		do {
			char op = *s;
			if (op != '+' && op != '-' && op != '=') return err_set(e, CODE_INVALID_ARGUMENT, "invalid syntax");
			if (op == '=') equal_done = false;
			s = parse_perms(s + 1, op, &who, &equal_done, m);
		} while (*s && *s != ',');
		if (!*s) return 0;
	}
}

int file_mode_parse(const char *s, struct file_mode *ret, struct err *e)
{
	struct file_mode m = {0};
	int r = *s >= '0' && *s <= '9' ? parse_octal(s, &m, e) : parse_symbolic(s, &m, e);
	if (r < 0)
		file_mode_fini(&m);
	else
		*ret = m;
	return r;
}

static unsigned spread(unsigned three, unsigned what)
{
	return (what & TO_U ? three << 6 : 0) | (what & TO_G ? three << 3 : 0) | (what & TO_O ? three : 0);
}

static unsigned apply_copy(const struct file_mode_cmd *c, unsigned mode)
{
	unsigned value = (c->op == 'u' ? mode >> 6 : c->op == 'g' ? mode >> 3 : mode) & 7;
	if (c->what & COPY_CLEAR) mode &= ~spread(c->what & COPY_SET ? 7 : value, c->what);
	if (c->what & COPY_SET) mode |= spread(value, c->what);
	return mode;
}

mode_t file_mode_apply(const struct file_mode *m, mode_t old)
{
	unsigned mode = old & 07777;
	for (size_t i = 0; i < m->cmds.n; i++) {
		const struct file_mode_cmd *c = &m->cmds.v[i];
		switch (c->op) {
		case '+': mode |= c->bits; break;
		case '-': mode &= ~(unsigned)c->bits; break;
		case 'X':
			if (old & 0111 || S_ISDIR(old)) mode |= c->bits;
			break;
		default: mode = apply_copy(c, mode);
		}
	}
	return mode;
}
