/* Small grammars and layouts that Go programs have from their library: CSV values, tabwriter, units, durations. */
#include "term/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- csv ---- */
static int csv_error(struct err *e, size_t pos, const char *what)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "parse error on line 1, column %zu: %s", pos + 1, what);
}

static int csv_quoted(const char *s, size_t *pos, char comma, struct buf *field, struct err *e)
{
	for (size_t i = *pos + 1; s[i]; i++) {
		if (s[i] != '"') {
			buf_addc(field, s[i]);
			continue;
		}
		if (s[i + 1] == '"') {
			buf_addc(field, s[++i]);
			continue;
		}
		*pos = i + 1;
		if (s[i + 1] && s[i + 1] != comma) return csv_error(e, i, "extraneous or missing \" in quoted-field");
		return 0;
	}
	return csv_error(e, strlen(s), "extraneous or missing \" in quoted-field");
}

int csv_fields(const char *s, char comma, struct strvec *ret, struct err *e)
{
	if (!*s) return err_set(e, CODE_INVALID_ARGUMENT, "EOF");
	for (size_t pos = 0;;) {
		_cleanup_buf_ struct buf field = BUF_INIT;
		if (s[pos] == '"') {
			if (csv_quoted(s, &pos, comma, &field, e) < 0) return -1;
		} else {
			for (; s[pos] && s[pos] != comma; pos++) {
				if (s[pos] == '"') return csv_error(e, pos, "bare \" in non-quoted-field");
				buf_addc(&field, s[pos]);
			}
		}
		strvec_take(ret, buf_take_str(&field));
		if (!s[pos]) return 0;
		pos++;
	}
}

/* ---- tabwriter ---- */
struct tab {
	char ***lines; /* cells of each line, NULL-terminated */
	size_t *cells;
	size_t n_lines, tabwidth, minwidth, padding;
	char padchar;
	size_t widths[64], n_widths;
	struct buf *out;
};

static size_t text_width(const char *s)
{
	size_t n = 0;
	for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void tab_pad(struct tab *t, size_t text, size_t cell)
{
	if (t->padchar != '\t') {
		for (; text < cell; text++) buf_addc(t->out, t->padchar);
		return;
	}
	cell = (cell + t->tabwidth - 1) / t->tabwidth * t->tabwidth;
	for (size_t n = (cell - text + t->tabwidth - 1) / t->tabwidth; n > 0; n--) buf_addc(t->out, '\t');
}

static void tab_write(struct tab *t, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		for (size_t j = 0; j < t->cells[i]; j++) {
			buf_adds(t->out, t->lines[i][j]);
			if (j < t->n_widths) tab_pad(t, text_width(t->lines[i][j]), t->widths[j]);
		}
		if (i + 1 < t->n_lines) buf_addc(t->out, '\n');
	}
}

/* The lines from..to have the same columns so far: find the runs that have one more. */
static void tab_block(struct tab *t, size_t from, size_t to)
{
	size_t column = t->n_widths;
	for (size_t i = from; i < to; i++) {
		if (column + 1 >= t->cells[i] || column >= array_len(t->widths)) continue;
		tab_write(t, from, i);
		from = i;
		size_t width = t->minwidth;
		for (; i < to && column + 1 < t->cells[i]; i++)
			width = max_of(width, text_width(t->lines[i][column]) + t->padding);
		t->widths[t->n_widths++] = width;
		tab_block(t, from, i);
		t->n_widths--;
		from = i--;
	}
	tab_write(t, from, to);
}

void tab_format(const char *text, size_t minwidth, size_t tabwidth, size_t padding, char padchar, struct buf *out)
{
	struct tab t = {.tabwidth = tabwidth, .minwidth = minwidth, .padding = padding, .padchar = padchar, .out = out};
	_cleanup_arena_ struct arena *mem = arena_new(0);
	t.n_lines = 1;
	for (const char *p = text; *p; p++) t.n_lines += *p == '\n';
	t.lines = arena_alloc(mem, t.n_lines * sizeof *t.lines);
	t.cells = arena_alloc(mem, t.n_lines * sizeof *t.cells);
	for (size_t i = 0; i < t.n_lines; i++) {
		size_t end = strcspn(text, "\n"), n = 1;
		for (size_t k = 0; k < end; k++) n += text[k] == '\t';
		t.lines[i] = arena_alloc(mem, n * sizeof **t.lines);
		for (t.cells[i] = 0; t.cells[i] < n;) {
			size_t len = strcspn(text, "\t\n");
			t.lines[i][t.cells[i]++] = arena_strndup(mem, text, len);
			text += len + (text[len] != 0);
		}
	}
	tab_block(&t, 0, t.n_lines);
}

/* ---- numbers and times ---- */
void bytes_format(int64_t n, int prec, char out[static 32])
{
	static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	int64_t base = 1, mag = n < 0 ? -n : n;
	size_t i = 0;
	while (i + 1 < array_len(unit) && mag / 1000 >= base) {
		base *= 1000;
		i++;
	}
	if (i == 0)
		snprintf(out, 32, "%" PRId64 "B", n);
	else if (prec < 0)
		snprintf(out, 32, "%.10g%s", (double)n / (double)base, unit[i]);
	else
		snprintf(out, 32, "%.*f%s", prec, (double)n / (double)base, unit[i]);
}

static void fraction(struct buf *b, int64_t v, int64_t unit, const char *suffix)
{
	buf_addf(b, "%" PRId64, v / unit);
	if (v % unit) {
		char s[24];
		int digits = (int)lround(log10((double)unit));
		snprintf(s, sizeof s, "%0*" PRId64, digits, v % unit);
		size_t n = strlen(s);
		while (n > 0 && s[n - 1] == '0') s[--n] = 0;
		buf_addf(b, ".%s", s);
	}
	buf_adds(b, suffix);
}

void duration_format(int64_t ns, char out[static 32])
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (ns < 0) buf_addc(&b, '-');
	int64_t v = ns < 0 ? -ns : ns;
	if (v == 0)
		buf_adds(&b, "0s");
	else if (v < 1000)
		buf_addf(&b, "%" PRId64 "ns", v);
	else if (v < 1000000)
		fraction(&b, v, 1000, "µs");
	else if (v < 1000000000)
		fraction(&b, v, 1000000, "ms");
	else {
		int64_t min = v / 60000000000LL;
		if (min >= 60) buf_addf(&b, "%" PRId64 "h", min / 60);
		if (min > 0) buf_addf(&b, "%" PRId64 "m", min % 60);
		fraction(&b, v % 60000000000LL, 1000000000, "s");
	}
	snprintf(out, 32, "%s", buf_str(&b));
}

void time_format_rfc3339(int64_t ns, char out[static TIME_STR])
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	time_rfc3339nano(t, out);
}

void time_format_go(int64_t ns, char out[static 48])
{
	char s[TIME_STR];
	time_format_rfc3339(ns, s);
	char *t = strchr(s, 'T'), *z = strchr(s, 'Z');
	if (t) *t = ' ';
	if (z) *z = 0;
	snprintf(out, 48, "%s +0000 UTC", s);
}

void term_warn(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	_cleanup_free_ char *s = xvasprintf(fmt, ap);
	va_end(ap);
	char now[TIME_STR];
	struct timespec t = time_now();
	t.tv_nsec = 0;
	time_rfc3339nano(t, now);
	_cleanup_free_ char *quoted = go_quote(s, strlen(s));
	fprintf(stderr, isatty(2) ? "WARN[%s] %s\n" : "time=\"%s\" level=warning msg=%s\n", now, isatty(2) ? s : quoted);
}
