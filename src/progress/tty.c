/* Progress on a terminal: a heading, a line a step with its timer, its transfers below it, the tail of what running steps say.
 * The picture is drawn over the last one; lines are exactly as wide as the terminal.
 *
 * When it does not fit, the last lines are kept, and of those above them the ones that still run.
 * Source: BuildKit util/progress/progressui/display.go; BUILDKIT_COLORS, NO_COLOR and BUILDKIT_TTY_LOG_LINES as there. */
#include "term/text.h"
#include "progress/model.h"

#include <string.h>
#include <strings.h>

enum { TERM_PAD = 10, TERM_MIN = 6 };
enum color { COLOR_RUN, COLOR_CANCEL, COLOR_ERROR, COLOR_WARNING, N_COLORS };

struct row {
	char *name, *status;
	double seconds;
	bool completed, error, canceled, show_term;
	struct shown_vertex *vertex; /* NULL: a transfer or warning below one */
};
struct rows {
	VEC(struct row) v;
	size_t total, finished;
};

/* ---- colours ---- */
static const struct {
	const char *name;
	int code;
} color_names[] = {
	{"default", 39},     {"black", 30},        {"blue", 34},        {"cyan", 36},          {"green", 32},
	{"magenta", 35},     {"red", 31},          {"white", 37},       {"yellow", 33},        {"light-black", 90},
	{"light-blue", 94},  {"light-cyan", 96},   {"light-green", 92}, {"light-magenta", 95}, {"light-red", 91},
	{"light-white", 97}, {"light-yellow", 93},
};

static bool color_code(const char *s, char out[static 32])
{
	unsigned r, g, b;
	char rest;
	for (size_t i = 0; i < array_len(color_names); i++) {
		if (strcasecmp(color_names[i].name, s) != 0) continue;
		snprintf(out, 32, "\x1b[%dm", color_names[i].code);
		return true;
	}
	if (sscanf(s, "%u,%u,%u%c", &r, &g, &b, &rest) != 3 || r > 255 || g > 255 || b > 255) return false;
	snprintf(out, 32, "\x1b[38;5;%um", 16 + 36 * (r * 6 / 256) + 6 * (g * 6 / 256) + b * 6 / 256);
	return true;
}

static const char *color(enum color which)
{
	static const char *const keys[N_COLORS] = {"run", "cancel", "error", "warning"};
	static char codes[N_COLORS][32] = {"\x1b[34m", "\x1b[33m", "\x1b[31m", "\x1b[33m"};
	static bool loaded;
	if (!loaded) {
		struct strvec v = {0};
		const char *env = getenv("BUILDKIT_COLORS");
		if (!str_empty(env)) csv_fields(env, ':', &v, NULL);
		for (size_t i = 0; i < v.n; i++)
			for (size_t k = 0; k < N_COLORS; k++) {
				size_t n = strlen(keys[k]);
				if (strncasecmp(v.v[i], keys[k], n) == 0 && v.v[i][n] == '=' &&
				    !color_code(v.v[i] + n + 1, codes[k]))
					term_warn("Unknown color value found in BUILDKIT_COLORS: %s", v.v[i]);
			}
		strvec_fini(&v);
		loaded = true;
	}
	return str_empty(getenv("NO_COLOR")) ? codes[which] : "";
}

/* ---- rows ---- */
static void add_row(struct rows *r, struct row row) { vec_push(&r->v, row); }

static char *clean_name(const char *prefix, const char *name)
{
	char *s = xasprintf("%s%s", prefix, name);
	for (char *p = s; *p; p++)
		if ((unsigned char)*p < 0x20) *p = ' ';
	return s;
}

static void status_row(struct rows *r, const struct trace *t, const struct shown_status *s)
{
	char a[32], b[32];
	int64_t stop = s->completed ? s->completed : t->now() - t->time_diff;
	struct row row = {.seconds = (double)(stop - s->started) / 1e9, .completed = s->completed != 0};
	row.name = clean_name("=> ", s->id);
	bytes_format(s->current, 2, a);
	bytes_format(s->total, 2, b);
	if (s->total)
		row.status = xasprintf("%s / %s", a, b);
	else if (s->current)
		row.status = xstrdup(a);
	add_row(r, row);
}

static void vertex_rows(struct rows *r, const struct trace *t, struct shown_vertex *v)
{
	bool cancel = *v->error && error_is_cancel(v->error);
	struct row row = {.vertex = v,
			  .completed = vertex_completed(v),
			  .seconds = vertex_seconds(t, v),
			  .canceled = cancel,
			  .error = *v->error && !cancel};
	_cleanup_free_ char *prefix = xasprintf("%s%s", v->cached ? "CACHED " : "",
						cancel      ? "CANCELED "
						: *v->error ? "ERROR "
							    : "");
	row.name = clean_name(prefix, v->name);
	add_row(r, row);
	for (size_t i = 0; i < v->statuses.n; i++) status_row(r, t, v->statuses.v[i]);
	for (size_t i = 0; i < v->warnings.n; i++) {
		struct row w = {.name = clean_name("WARN: ", v->warnings.v[i]), .canceled = true, .seconds = row.seconds};
		add_row(r, w);
	}
}

static void collect(struct trace *t, struct rows *r)
{
	for (size_t i = 0; i < t->all.n; i++) {
		if (t->all.v[i]->hidden) continue;
		r->total++;
		r->finished += vertex_completed(t->all.v[i]);
	}
	for (size_t i = 0; i < t->shown.n; i++) vertex_rows(r, t, t->shown.v[i]);
}

static void rows_fini(struct rows *r)
{
	for (size_t i = 0; i < r->v.n; i++) {
		free(r->v.v[i].name);
		free(r->v.v[i].status);
	}
	vec_fini(&r->v);
}

/* ---- what fits ---- */
static size_t term_lines(size_t height)
{
	const char *env = getenv("BUILDKIT_TTY_LOG_LINES");
	size_t want = env && atoi(env) > 0 ? (size_t)atoi(env) : TERM_MIN,
	       room = height > TERM_MIN + 1 ? height - TERM_MIN - 1 : 0;
	return max_of((size_t)TERM_MIN, min_of(want, room));
}

static size_t talk(const struct row *r) { return r->vertex->term_bytes + r->vertex->term_count * 50; }

/* Choose the steps whose output is shown; answers how many lines that takes. */
static size_t choose_terms(struct rows *r, size_t height)
{
	size_t lines = term_lines(height), used = 0, running = 0;
	for (size_t i = 0; i < r->v.n; i++) running += !r->v.v[i].completed;
	ptrdiff_t room = (ptrdiff_t)height - 2 - (ptrdiff_t)running;
	while (room > (ptrdiff_t)lines + 3) {
		struct row *best = NULL;
		for (size_t i = 0; i < r->v.n; i++) {
			struct row *x = &r->v.v[i];
			if (!x->vertex || !x->vertex->term || !x->vertex->term_bytes || x->completed || x->show_term) continue;
			if (!best || talk(x) > talk(best)) best = x;
		}
		if (!best) break;
		best->show_term = true;
		used += vt_used(best->vertex->term);
		room -= (ptrdiff_t)lines + 3;
	}
	return used;
}

/* Which rows to draw when only `limit` fit: the last ones, but running ones above them take the place of finished ones. */
static void choose_rows(const struct rows *r, size_t limit, bool *show)
{
	size_t n = r->v.n, first = n > limit ? n - limit : 0, hidden_running = 0;
	for (size_t i = 0; i < n; i++) show[i] = i >= first;
	for (size_t i = 0; i < first; i++) hidden_running += !r->v.v[i].completed;
	for (size_t i = first; i < n && hidden_running; i++) {
		if (!r->v.v[i].completed) continue;
		show[i] = false;
		hidden_running--;
		for (size_t k = first; k-- > 0;)
			if (!r->v.v[k].completed && !show[k]) {
				show[k] = true;
				break;
			}
	}
}

/* ---- drawing ---- */
static size_t columns(const char *s, size_t n)
{
	size_t c = 0;
	for (size_t i = 0; i < n; i++) c += ((unsigned char)s[i] & 0xc0) != 0x80;
	return c;
}

/* At most `width` columns of s. */
static size_t cut(const char *s, size_t width)
{
	size_t i = 0, c = 0;
	for (; s[i]; i++) {
		if (((unsigned char)s[i] & 0xc0) == 0x80) continue;
		if (c++ == width) break;
	}
	return i;
}

static void align(struct buf *out, const char *left, const char *right, size_t width)
{
	size_t l = columns(left, strlen(left)), r = columns(right, strlen(right));
	buf_adds(out, left);
	for (size_t i = l + r; i < width; i++) buf_addc(out, ' ');
	buf_adds(out, right);
}

static size_t draw_term(struct row *r, size_t width, size_t lines, struct buf *out)
{
	size_t n = 0;
	vt_resize(r->vertex->term, lines, width > TERM_PAD ? width - TERM_PAD : 1);
	for (size_t y = 0; y < vt_rows(r->vertex->term); y++) {
		_cleanup_buf_ struct buf line = BUF_INIT;
		if (!vt_line(r->vertex->term, y, &line)) continue;
		buf_addf(out, "\x1b[2m => => # %s\x1b[0m\n", buf_str(&line));
		n++;
	}
	r->vertex->term_count++;
	return n;
}

static size_t draw_row(struct row *r, size_t width, size_t lines, struct buf *out)
{
	_cleanup_buf_ struct buf left = BUF_INIT;
	char timer[32];
	snprintf(timer, sizeof timer, " %3.1fs", r->seconds < 0.05 ? 0.0 : r->seconds);
	size_t status = r->status ? strlen(r->status) : 0, taken = 4 + strlen(timer) + 2;
	if (width < taken) return 0;
	size_t room = width - taken;
	bool show = status && room + status > 20 && room > status + 1;
	if (show) room -= status + 1;
	if (room < 12) return 0;
	buf_adds(&left, " => ");
	buf_add(&left, r->name, cut(r->name, room));
	if (show) buf_addf(&left, " %s", r->status);
	const char *paint = !r->completed ? "" : color(r->canceled ? COLOR_CANCEL : r->error ? COLOR_ERROR : COLOR_RUN);
	buf_adds(out, paint);
	align(out, buf_str(&left), timer, width);
	buf_adds(out, *paint ? "\x1b[0m\n" : "\n");
	return 1 + (r->show_term ? draw_term(r, width, lines, out) : 0);
}

static void draw_heading(struct tty *d, const struct trace *t, const struct rows *r, size_t width, bool all, struct buf *out)
{
	int64_t start = t->start ? t->start + t->time_diff : t->now();
	bool finished = r->finished && r->finished == r->total && all;
	_cleanup_free_ char *s =
		xasprintf("[+] %s %.1fs (%zu/%zu)%s", d->phase ? d->phase : "Building", (double)(t->now() - start) / 1e9,
			  r->finished, r->total, finished ? " FINISHED" : "");
	_cleanup_buf_ struct buf line = BUF_INIT;
	align(&line, s, d->title ? d->title : "", width);
	buf_add(out, line.p, cut(buf_str(&line), width));
	buf_addc(out, '\n');
}

void tty_print(struct tty *d, struct trace *t, size_t width, size_t height, bool all, struct buf *out)
{
	struct rows r = {0};
	collect(t, &r);
	size_t lines = term_lines(height), terms = choose_terms(&r, height), drawn = 0;
	size_t limit = height > 2 + terms ? height - 2 - terms : 0;
	_cleanup_free_ bool *show = xcalloc(r.v.n + 1, sizeof *show);
	choose_rows(&r, all ? r.v.n : limit, show);
	if (d->repeated) buf_addf(out, "\x1b[%zuA", d->lines + 1);
	d->repeated = true;
	buf_adds(out, "\x1b[0G\x1b[?25l");
	draw_heading(d, t, &r, width, all, out);
	for (size_t i = 0; i < r.v.n; i++)
		if (show[i]) drawn += draw_row(&r.v.v[i], width, lines, out);
	if (d->lines > drawn) { /* what the last picture had below */
		size_t more = d->lines - drawn;
		for (size_t i = 0; i < more; i++) buf_addf(out, "%*s\n", (int)width, "");
		buf_addf(out, "\x1b[%zuA\x1b[0G", more);
	}
	buf_adds(out, "\x1b[?25h");
	d->lines = drawn;
	rows_fini(&r);
}
