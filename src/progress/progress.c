/* The display that was chosen: takes messages, decides when to draw, writes. */
#include "progress/progress.h"
#include "term/text.h"
#include "progress/model.h"
#include "llb/llb.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum kind { KIND_PLAIN, KIND_TTY, KIND_JSON, KIND_QUIET };
enum { RATE_MS = 100, WIDTH = 80, HEIGHT = 10 };

struct own_step {
	char *digest;
	int64_t started;
};
struct progress {
	enum kind kind;
	int fd;
	struct trace trace;
	struct plain plain;
	struct tty tty;
	int64_t last_draw; /* 0: never */
	int64_t rate_ms;
	size_t width, height;
	bool own, heard;                         /* own: the message at hand is ours; heard: the daemon's first is there */
	struct map steps;                        /* id -> struct own_step * */
	struct strvec warnings, warning_details; /* what was warned of, in order */
	struct map metrics;                      /* digest -> struct metric * */
};
struct metric {
	bool cached, completed, from;
	char *name;
};

static int64_t clock_now(void)
{
	struct timespec t = time_now();
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int choose(const char *mode, int fd, enum kind *ret, struct err *e)
{
	static const struct {
		const char *name;
		enum kind kind;
	} modes[] = {
		{"plain", KIND_PLAIN}, {"tty", KIND_TTY}, {"rawjson", KIND_JSON}, {"quiet", KIND_QUIET}, {"none", KIND_QUIET}};
	const char *env = getenv("BUILDKIT_PROGRESS");
	if (strcmp(mode, "auto") == 0 && !str_empty(env)) mode = env;
	if (str_empty(mode) || strcmp(mode, "auto") == 0) {
		*ret = isatty(fd) ? KIND_TTY : KIND_PLAIN;
		return 0;
	}
	for (size_t i = 0; i < array_len(modes); i++) {
		if (strcmp(modes[i].name, mode) != 0) continue;
		if (modes[i].kind == KIND_TTY && !isatty(fd))
			return err_set(e, CODE_UNKNOWN, "failed to get console: provided file is not a console");
		*ret = modes[i].kind;
		return 0;
	}
	return err_set(e, CODE_UNKNOWN, "invalid progress mode %s", mode);
}

int progress_new(const char *mode, int fd, int64_t (*now)(void), struct progress **ret, struct err *e)
{
	enum kind kind = KIND_PLAIN;
	if (choose(mode, fd, &kind, e) < 0) return -1;
	struct progress *p = xnew(struct progress);
	p->kind = kind;
	p->fd = fd;
	p->trace.now = now ? now : clock_now;
	p->trace.keep_terms = kind == KIND_TTY;
	p->trace.width = WIDTH;
	const char *rate = getenv("TTY_DISPLAY_RATE");
	p->rate_ms = rate && *rate ? strtoll(rate, NULL, 10) : RATE_MS;
	*ret = p;
	return 0;
}

void progress_title(struct progress *p, const char *plain, const char *tty)
{
	free(p->plain.title);
	p->plain.title = xstrdup(plain);
	free(p->tty.title);
	p->tty.title = xstrdup(tty);
}

static void put(struct progress *p, const struct buf *b) { path_write_all(p->fd, b->p, b->n, NULL); }

static void draw(struct progress *p, bool all)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (p->kind == KIND_PLAIN) plain_print(&p->plain, &p->trace, &b);
	if (p->kind == KIND_TTY) {
		struct winsize ws = {0};
		bool known = ioctl(p->fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col && ws.ws_row;
		p->trace.width = known ? ws.ws_col : WIDTH;
		tty_print(&p->tty, &p->trace, p->trace.width, known ? ws.ws_row : HEIGHT, all, &b);
	}
	if (b.n) put(p, &b);
}

/* ---- JSON ---- */
static void json_time(struct json_w *w, const char *k, const Google__Timestamp *t)
{
	char s[TIME_STR];
	if (!t) return;
	time_format_rfc3339(timestamp_ns(t), s);
	json_kstr(w, k, s);
}

static void json_bytes_omit(struct json_w *w, const char *k, const ProtobufCBinaryData *d)
{
	if (!d->len) return;
	json_key(w, k);
	json_base64(w, d->data, d->len);
}

static void json_message(struct json_w *w, const char *k, const ProtobufCMessage *m)
{
	if (!m) return;
	json_key(w, k);
	llb_json(w, m);
}

static void json_vertex(struct json_w *w, const Control__Vertex *v)
{
	json_obj(w);
	json_kstr_omit(w, "digest", v->digest);
	json_kstrs_omit(w, "inputs", (char *const *)v->inputs, v->n_inputs);
	json_kstr_omit(w, "name", v->name);
	json_time(w, "started", v->started);
	json_time(w, "completed", v->completed);
	json_kbool_omit(w, "cached", v->cached);
	json_kstr_omit(w, "error", v->error);
	json_message(w, "progressGroup", v->progressgroup ? &v->progressgroup->base : NULL);
	json_obj_end(w);
}

static void json_status(struct json_w *w, const Control__VertexStatus *s)
{
	static const Google__Timestamp zero = GOOGLE__TIMESTAMP__INIT;
	json_obj(w);
	json_kstr(w, "id", s->id);
	json_kstr_omit(w, "vertex", s->vertex);
	json_kstr_omit(w, "name", s->name);
	json_kint_omit(w, "total", s->total);
	json_kint(w, "current", s->current);
	json_time(w, "timestamp", s->timestamp ? s->timestamp : &zero);
	json_time(w, "started", s->started);
	json_time(w, "completed", s->completed);
	json_obj_end(w);
}

static void json_log(struct json_w *w, const Control__VertexLog *l)
{
	static const Google__Timestamp zero = GOOGLE__TIMESTAMP__INIT;
	json_obj(w);
	json_kstr_omit(w, "vertex", l->vertex);
	json_kint_omit(w, "stream", l->stream);
	json_key(w, "data");
	if (l->msg.len)
		json_base64(w, l->msg.data, l->msg.len);
	else
		json_nil(w);
	json_time(w, "timestamp", l->timestamp ? l->timestamp : &zero);
	json_obj_end(w);
}

static void json_warning(struct json_w *w, const Control__VertexWarning *x)
{
	json_obj(w);
	json_kstr_omit(w, "vertex", x->vertex);
	json_kint_omit(w, "level", x->level);
	json_bytes_omit(w, "short", &x->short_);
	if (x->n_detail) {
		json_key(w, "detail");
		json_arr(w);
		for (size_t i = 0; i < x->n_detail; i++) json_base64(w, x->detail[i].data, x->detail[i].len);
		json_arr_end(w);
	}
	json_kstr_omit(w, "url", x->url);
	json_message(w, "sourceInfo", x->info ? &x->info->base : NULL);
	if (x->n_ranges) {
		json_key(w, "range");
		json_arr(w);
		for (size_t i = 0; i < x->n_ranges; i++) llb_json(w, &x->ranges[i]->base);
		json_arr_end(w);
	}
	json_obj_end(w);
}

#define JSON_ITEMS(w, key, items, n, fn)                                  \
	do {                                                              \
		if (!(n)) break;                                          \
		json_key((w), (key));                                     \
		json_arr(w);                                              \
		for (size_t _i = 0; _i < (n); _i++) fn((w), (items)[_i]); \
		json_arr_end(w);                                          \
	} while (0)

void progress_json(const Control__StatusResponse *m, struct buf *out)
{
	struct json_w w = JSON_W(out);
	json_obj(&w);
	JSON_ITEMS(&w, "vertexes", m->vertexes, m->n_vertexes, json_vertex);
	JSON_ITEMS(&w, "statuses", m->statuses, m->n_statuses, json_status);
	JSON_ITEMS(&w, "logs", m->logs, m->n_logs, json_log);
	JSON_ITEMS(&w, "warnings", m->warnings, m->n_warnings, json_warning);
	json_obj_end(&w);
	buf_addc(out, '\n');
}

/* ---- cache metrics ---- */
static bool is_from(const char *name)
{
	const char *close = *name == '[' ? strstr(name, "] FROM") : NULL;
	return close != NULL;
}

static void count_vertexes(struct progress *p, const Control__StatusResponse *m)
{
	for (size_t i = 0; i < m->n_vertexes; i++) {
		const Control__Vertex *v = m->vertexes[i];
		struct metric *x = map_get(&p->metrics, v->digest);
		if (!x) {
			map_put(&p->metrics, v->digest, x = xnew(struct metric));
			x->name = xstrdup(v->name);
		}
		x->from |= is_from(v->name);
		x->cached |= v->cached;
		x->completed |= v->completed != NULL;
	}
}

static bool not_of_the_user(const char *name)
{
	static const char *const prefixes[] = {"[internal]", "[auth]", "importing cache", "exporting "};
	for (size_t i = 0; i < array_len(prefixes); i++)
		if (str_starts(name, prefixes[i])) return true;
	return false;
}

void progress_cache_metrics(const struct progress *p, int64_t duration_ms, struct buf *out)
{
	int64_t total = 0, completed = 0, user = 0, cached = 0, user_completed = 0, cacheable = 0, from = 0, miss = 0;
	MAP_EACH(&p->metrics, it)
	{
		const struct metric *x = it->value;
		total++;
		completed += x->completed;
		if (not_of_the_user(x->name)) continue;
		user++;
		cacheable += !x->from;
		cached += x->cached;
		if (!x->cached && !x->from) {
			miss++;
			buf_addf(out, "cache miss: %s\n", x->name);
		}
		user_completed += x->completed;
		from += x->from;
	}
	struct json_w w = JSON_W(out);
	const struct {
		const char *key;
		int64_t value;
	} rows[] = {{"total", total},
		    {"completed", completed},
		    {"user_total", user},
		    {"user_cached", cached},
		    {"user_completed", user_completed},
		    {"user_cacheable", cacheable},
		    {"from", from},
		    {"miss", miss},
		    {"client_duration_ms", duration_ms}};
	json_obj(&w);
	for (size_t i = 0; i < array_len(rows); i++) json_kint(&w, rows[i].key, rows[i].value);
	json_obj_end(&w);
	buf_addc(out, '\n');
}

/* ---- warnings ---- */
static void keep_warnings(struct progress *p, const Control__StatusResponse *m)
{
	for (size_t i = 0; i < m->n_warnings; i++) {
		const Control__VertexWarning *x = m->warnings[i];
		struct buf b = BUF_INIT, detail = BUF_INIT;
		buf_add(&b, x->short_.data, x->short_.len);
		for (size_t k = 0; k < x->n_detail; k++) {
			buf_add(&detail, x->detail[k].data, x->detail[k].len);
			buf_addc(&detail, '\n');
		}
		if (*x->url) buf_addf(&detail, "More info: %s\n", x->url);
		if (x->info && x->n_ranges)
			buf_addf(&detail, "%s:%d\n", x->info->filename, x->ranges[0]->start ? x->ranges[0]->start->line : 0);
		strvec_take(&p->warnings, buf_take_str(&b));
		strvec_take(&p->warning_details, buf_take_str(&detail));
	}
}

void progress_print_warnings(const struct progress *p, bool with_details)
{
	size_t n = p->warnings.n;
	if (!n || p->kind == KIND_JSON || p->kind == KIND_QUIET) return;
	fprintf(stderr, "\n \x1b[33m%zu warning%s found%s:\n\x1b[0m", n, n == 1 ? "" : "s",
		with_details ? "" : " (use docker --debug to expand)");
	for (size_t i = 0; i < n; i++) {
		fprintf(stderr, " - %s\n", p->warnings.v[i]);
		if (with_details) fprintf(stderr, "%s\n", p->warning_details.v[i]);
	}
}

/* ---- messages ---- */
void progress_update(struct progress *p, const Control__StatusResponse *m)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	count_vertexes(p, m);
	p->heard |= !p->own;
	keep_warnings(p, m);
	switch (p->kind) {
	case KIND_QUIET: return;
	case KIND_JSON:
		progress_json(m, &b);
		put(p, &b);
		return;
	default: break;
	}
	trace_update(&p->trace, m);
	int64_t now = p->trace.now();
	if (p->last_draw && now - p->last_draw < p->rate_ms * 1000000LL) return;
	p->last_draw = now;
	draw(p, false);
}

void progress_tick(struct progress *p)
{
	if (p->kind == KIND_PLAIN || p->kind == KIND_TTY) draw(p, false);
}

/* When it was first heard of; a digest for its id. */
static const struct own_step *own_step(struct progress *p, const char *id)
{
	struct own_step *x = map_get(&p->steps, id);
	if (x) return x;
	char digest[DIGEST_STR];
	digest_str_of(id, strlen(id), digest);
	map_put(&p->steps, id, x = xnew(struct own_step));
	x->digest = xstrdup(digest);
	x->started = p->trace.now();
	return x;
}

static Google__Timestamp timestamp_of(int64_t ns)
{
	Google__Timestamp t = GOOGLE__TIMESTAMP__INIT;
	t.seconds = ns / 1000000000;
	t.nanos = (int32_t)(ns % 1000000000);
	return t;
}

void progress_step(struct progress *p, const struct progress_step *s)
{
	_cleanup_free_ char *part_id = s->part ? xasprintf("%s/%s", s->id, s->part) : NULL;
	const struct own_step *x = own_step(p, s->id), *part = part_id ? own_step(p, part_id) : NULL;
	if (!p->heard && !s->completed && !s->leads) return; /* it would be shown before the steps it follows upon */
	Google__Timestamp now = timestamp_of(p->trace.now()), started = timestamp_of(x->started),
			  part_started = timestamp_of(part ? part->started : 0);
	Control__Vertex v = CONTROL__VERTEX__INIT, *vertexes = &v;
	Control__VertexStatus st = CONTROL__VERTEX_STATUS__INIT, *statuses = &st;
	Control__StatusResponse m = CONTROL__STATUS_RESPONSE__INIT;
	v.digest = x->digest;
	v.name = s->name;
	v.started = &started;
	if (s->completed) v.completed = &now;
	if (s->error) v.error = s->error;
	m.vertexes = &vertexes;
	m.n_vertexes = 1;
	if (part) {
		st.id = s->part;
		st.vertex = x->digest;
		st.name = "";
		st.timestamp = &now;
		st.started = &part_started;
		if (s->part_completed) st.completed = &now;
		m.statuses = &statuses;
		m.n_statuses = 1;
	}
	p->own = true;
	progress_update(p, &m);
	p->own = false;
}

void progress_done(struct progress *p)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	if (p->kind == KIND_JSON || p->kind == KIND_QUIET) return;
	draw(p, true);
	trace_print_error_logs(&p->trace, &b);
	if (b.n) put(p, &b);
}

void progress_free(struct progress *p)
{
	if (!p) return;
	trace_fini(&p->trace);
	plain_fini(&p->plain);
	strvec_fini(&p->warnings);
	strvec_fini(&p->warning_details);
	free(p->tty.phase);
	free(p->tty.title);
	MAP_EACH(&p->steps, it) free(((struct own_step *)it->value)->digest);
	MAP_EACH(&p->metrics, it) free(((struct metric *)it->value)->name);
	map_fini_free(&p->steps);
	map_fini_free(&p->metrics);
	free(p);
}
