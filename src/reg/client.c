/* What transfers share: idle connections, tokens, hosts known to speak plain http; and stopping a transfer.
 *
 *  1. A handle (easy + multi, so one connection) belongs to one transfer while out, to the list while idle, bounded by
 *     IDLE_MAX; the oldest go first.
 *  2. A lane is one host:port. At most N + 1 of its connections are open, idle ones counted, and at most N of them carry
 *     blobs: who wants one more waits here, those for documents first. Jobs are admitted by domain before (reg_pools), so
 *     waiting is rare: several domains behind one mirror, a blob store that redirects lead to.
 *  3. A handle's key names everything that decides whether its connection may be used again: origin, configuration,
 *     verification, client certificates.
 *  4. Tokens are values; one that a server refused is dropped by value, so that a newer one stays.
 * The mutex is held for list and map operations only, never across I/O. Any thread. */
#include "reg/internal.h"
#include <string.h>
#include <time.h>

enum {
	IDLE_MAX = 30,
	TOKENS_MAX = 2048,
	CLOSE_AFTER_MS = 118000,
	DOWN_MS = 60000,
	SAID_MS = 60000,
	LANES_MAX = 256,
	DEFAULT_LIMIT = 4
};

struct timed {
	char *value;
	int64_t until_ms;
};
struct lane {
	size_t out, blobs;   /* connections in use; of these, with blobs */
	struct list waiting; /* struct waiter: those for documents first */
};
struct waiter {
	struct list link;
	pthread_cond_t cond;
	enum reg_lane_kind kind;
};
struct reg_client {
	pthread_mutex_t lock;
	size_t limit;     /* N where the configuration says nothing */
	struct map lanes; /* host:port -> struct lane */
	struct list idle; /* the longest idle first */
	size_t idle_count;
	struct map tokens;
	struct map http_hosts;
	struct map down; /* host -> struct timed: the error and how long it counts */
	struct map said; /* what was logged lately */
};

static int64_t now_ms(void) { return time_mono_ns() / 1000000; }

static void curl_setup(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

struct reg_client *reg_client_new(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, curl_setup);
	struct reg_client *c = xnew(struct reg_client);
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->idle);
	c->limit = DEFAULT_LIMIT;
	return c;
}

void reg_client_set_limit(struct reg_client *c, size_t limit)
{
	pthread_mutex_lock(&c->lock);
	c->limit = limit ? limit : DEFAULT_LIMIT;
	pthread_mutex_unlock(&c->lock);
}

static void handle_free(struct reg_handle *h)
{
	curl_easy_cleanup(h->easy);
	curl_multi_cleanup(h->multi);
	reg_tls_free(h->tls);
	free(h->key);
	free(h->host);
	free(h);
}

static void timed_free(struct timed *t)
{
	if (!t) return;
	explicit_bzero(t->value, strlen(t->value));
	free(t->value);
	free(t);
}

static void timed_clear(struct map *m)
{
	MAP_EACH(m, it) timed_free(it->value);
	map_fini(m);
	*m = (struct map){0};
}

/* Take out what was idle since before then; the caller frees it without the lock. */
static void take_older(struct reg_client *c, int64_t then_ms, struct list *out)
{
	LIST_EACH(&c->idle, struct reg_handle, h, link)
	{
		if (h->idle_since_ms > then_ms) break;
		list_del(&h->link);
		list_add_tail(out, &h->link);
		c->idle_count--;
	}
}

static void free_all(struct list *l)
{
	LIST_EACH(l, struct reg_handle, h, link)
	{
		list_del(&h->link);
		handle_free(h);
	}
}

void reg_client_trim(struct reg_client *c, int64_t older_than_ms)
{
	struct list old = LIST_INIT(old);
	pthread_mutex_lock(&c->lock);
	take_older(c, now_ms() - older_than_ms, &old);
	pthread_mutex_unlock(&c->lock);
	free_all(&old);
}

void reg_client_free(struct reg_client *c)
{
	if (!c) return;
	free_all(&c->idle);
	timed_clear(&c->tokens);
	timed_clear(&c->down);
	timed_clear(&c->said);
	map_fini_free(&c->lanes);
	map_fini(&c->http_hosts);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct reg_handle *handle_new(void)
{
	struct reg_handle *h = xnew(struct reg_handle);
	list_init(&h->link);
	h->easy = curl_easy_init();
	h->multi = curl_multi_init();
	if (!h->easy || !h->multi) bug("out of memory in curl");
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 1L);
	return h;
}

/* ---- lanes; with the mutex ---- */

static struct lane *lane_of(struct reg_client *c, const char *host)
{
	struct lane *l = map_get(&c->lanes, host);
	if (l) return l;
	if (c->lanes.count >= LANES_MAX) MAP_EACH(&c->lanes, it)
		{
			struct lane *old = it->value;
			if (old->out || !list_empty(&old->waiting)) continue;
			free(map_del(&c->lanes, it->key));
		}
	l = xnew(struct lane);
	list_init(&l->waiting);
	map_put(&c->lanes, host, l);
	return l;
}

static bool has_room(const struct lane *l, enum reg_lane_kind kind, size_t limit)
{
	return l->out <= limit && (kind == REG_LANE_DOC || l->blobs < limit);
}

/* The first one waiting that there is room for; documents stand in front of blobs. */
static void wake(const struct lane *l) { LIST_EACH(&l->waiting, struct waiter, w, link) pthread_cond_signal(&w->cond); }

static bool is_next(const struct lane *l, const struct waiter *w, size_t limit)
{
	LIST_EACH(&l->waiting, struct waiter, it, link)
	{
		if (it == w) return has_room(l, w->kind, limit);
		if (has_room(l, it->kind, limit)) return false;
	}
	return false;
}

static void stand_in_line(struct lane *l, struct waiter *w)
{
	struct list *at = &l->waiting;
	if (w->kind == REG_LANE_DOC)
		for (at = l->waiting.next; at != &l->waiting && container_of(at, struct waiter, link)->kind == REG_LANE_DOC;)
			at = at->next;
	list_add_tail(at, &w->link); /* in front of at */
}

/* In slices of 100 ms, because a cancelled job wakes nobody. */
static void wait_slice(struct reg_client *c, struct waiter *w)
{
	int64_t until = time_mono_ns() + 100 * 1000000;
	struct timespec ts = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
	pthread_cond_timedwait(&w->cond, &c->lock, &ts);
}

static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

static int lane_enter(struct reg_client *c, struct lane *l, const struct reg_want *want, size_t limit, struct err *e)
{
	struct waiter w = {.kind = want->kind};
	bool stopped = false;
	if (!list_empty(&l->waiting) || !has_room(l, w.kind, limit)) {
		cond_init(&w.cond);
		stand_in_line(l, &w);
		while (!is_next(l, &w, limit) && !stopped) {
			wait_slice(c, &w);
			pthread_mutex_unlock(&c->lock);
			stopped = reg_io_stopped(want->io);
			pthread_mutex_lock(&c->lock);
		}
		list_del(&w.link);
		pthread_cond_destroy(&w.cond);
		if (stopped) wake(l);
	}
	if (stopped) return err_set(e, CODE_CANCELLED, "context canceled");
	l->out++;
	l->blobs += w.kind == REG_LANE_BLOB;
	wake(l); /* there may be room for one more */
	return 0;
}

static void lane_leave(struct reg_client *c, const char *host, enum reg_lane_kind kind)
{
	struct lane *l = map_get(&c->lanes, host);
	if (kind == REG_LANE_NONE || !l) return;
	l->out--;
	l->blobs -= kind == REG_LANE_BLOB;
	wake(l);
}

/* An idle handle with that key, or room for a new one: what is idle for the host beyond its limit goes to old. */
static struct reg_handle *take_idle(struct reg_client *c, const char *key, const char *host, size_t out, size_t limit,
				    struct list *old)
{
	struct reg_handle *found = NULL, *oldest = NULL;
	size_t idle = 0;
	take_older(c, now_ms() - CLOSE_AFTER_MS, old);
	LIST_EACH(&c->idle, struct reg_handle, h, link)
	{
		if (strcmp(h->key, key) == 0) found = h; /* the latest: its connection lives most likely */
		if (strcmp(h->host, host) != 0) continue;
		if (!oldest) oldest = h;
		idle++;
	}
	struct reg_handle *gone = found ? found : limit && out + idle > limit + 1 ? oldest : NULL;
	if (!gone) return NULL;
	list_del(&gone->link);
	c->idle_count--;
	if (!found) list_add_tail(old, &gone->link);
	return found;
}

int reg_handle_get(struct reg_client *c, const struct reg_want *want, struct reg_handle **ret, struct err *e)
{
	struct list old = LIST_INIT(old);
	const struct reg_entry *entry = want->entry;
	struct reg_handle *h = NULL;
	_cleanup_free_ char *host = reg_url_host(want->origin);
	_cleanup_free_ char *key = xasprintf("%s %llu %s %d%d", want->origin,
					     (unsigned long long)(entry && want->config ? want->config->serial : 0),
					     entry ? entry->name : "", want->with_keys, want->insecure);
	int r = 0;
	pthread_mutex_lock(&c->lock);
	size_t limit = want->limit ? want->limit : c->limit;
	struct lane *l = want->kind == REG_LANE_NONE ? NULL : lane_of(c, host);
	if (l) r = lane_enter(c, l, want, limit, e);
	if (r == 0) h = take_idle(c, key, host, l ? l->out : 0, l ? limit : 0, &old);
	pthread_mutex_unlock(&c->lock);
	free_all(&old);
	if (r < 0) return -1;
	if (!h) {
		struct reg_tls *tls = NULL;
		if (str_starts(want->origin, "https:") && reg_tls_load(entry, want->with_keys, want->insecure, &tls, e) < 0) {
			pthread_mutex_lock(&c->lock);
			lane_leave(c, host, want->kind);
			pthread_mutex_unlock(&c->lock);
			return -1;
		}
		h = handle_new();
		h->key = take_ptr(key);
		h->host = take_ptr(host);
		h->tls = tls;
	}
	h->kind = want->kind;
	*ret = h;
	return 0;
}

void reg_handle_put(struct reg_client *c, struct reg_handle *h)
{
	struct list old = LIST_INIT(old);
	if (!h) return;
	curl_easy_reset(h->easy); /* options only; the connection stays with the multi handle */
	h->idle_since_ms = now_ms();
	pthread_mutex_lock(&c->lock);
	lane_leave(c, h->host, h->kind);
	list_add_tail(&c->idle, &h->link);
	c->idle_count++;
	if (c->idle_count > IDLE_MAX) take_older(c, list_first(&c->idle, struct reg_handle, link)->idle_since_ms, &old);
	pthread_mutex_unlock(&c->lock);
	free_all(&old);
}

/* Values that count for a time, by key; with the mutex. */
static char *timed_get(struct reg_client *c, struct map *m, const char *key)
{
	char *v = NULL;
	pthread_mutex_lock(&c->lock);
	struct timed *t = map_get(m, key);
	if (t && t->until_ms > now_ms())
		v = xstrdup(t->value);
	else if (t)
		timed_free(map_del(m, key));
	pthread_mutex_unlock(&c->lock);
	return v;
}

static void timed_shrink(struct map *m)
{
	int64_t now = now_ms();
	MAP_EACH(m, it)
	{
		struct timed *t = it->value;
		if (t->until_ms <= now) timed_free(map_del(m, it->key));
	}
	if (m->count >= TOKENS_MAX) timed_clear(m);
}

static void timed_put(struct reg_client *c, struct map *m, const char *key, const char *value, int64_t valid_ms)
{
	struct timed *t = xnew(struct timed);
	t->value = xstrdup(value);
	t->until_ms = now_ms() + valid_ms;
	pthread_mutex_lock(&c->lock);
	if (m->count >= TOKENS_MAX) timed_shrink(m);
	timed_free(map_put(m, key, t));
	pthread_mutex_unlock(&c->lock);
}

char *reg_token_get(struct reg_client *c, const char *key) { return timed_get(c, &c->tokens, key); }

void reg_token_put(struct reg_client *c, const char *key, const char *authorization, int64_t valid_ms)
{
	timed_put(c, &c->tokens, key, authorization, valid_ms);
}

char *reg_host_down(struct reg_client *c, const char *host) { return timed_get(c, &c->down, host); }

void reg_host_set_down(struct reg_client *c, const char *host, const char *error)
{
	timed_put(c, &c->down, host, error, DOWN_MS);
}

bool reg_token_any(struct reg_client *c, const char *host)
{
	size_t n = strlen(host);
	bool r = false;
	pthread_mutex_lock(&c->lock);
	MAP_EACH(&c->tokens, it) r |= strncmp(it->key, host, n) == 0 && it->key[n] == '\n';
	pthread_mutex_unlock(&c->lock);
	return r;
}

bool reg_say_once(struct reg_client *c, const char *what)
{
	_cleanup_free_ char *before = timed_get(c, &c->said, what);
	if (before) return false;
	timed_put(c, &c->said, what, "", SAID_MS);
	return true;
}

void reg_token_drop(struct reg_client *c, const char *key, const char *authorization)
{
	pthread_mutex_lock(&c->lock);
	struct timed *t = map_get(&c->tokens, key);
	if (t && strcmp(t->value, authorization) == 0) timed_free(map_del(&c->tokens, key));
	pthread_mutex_unlock(&c->lock);
}

bool reg_fell_back(struct reg_client *c, const char *host)
{
	pthread_mutex_lock(&c->lock);
	bool r = map_has(&c->http_hosts, host);
	pthread_mutex_unlock(&c->lock);
	return r;
}

void reg_fall_back(struct reg_client *c, const char *host)
{
	pthread_mutex_lock(&c->lock);
	map_put(&c->http_hosts, host, c);
	pthread_mutex_unlock(&c->lock);
}

/* ---- struct reg_io ---- */

void reg_io_init(struct reg_io *io, struct reg_client *client, const struct reg_config *config)
{
	*io = (struct reg_io){.client = client, .config = config, .retry_first_ms = 1000, .retry_stop_ms = 8000};
	pthread_mutex_init(&io->lock, NULL);
	cond_init(&io->cond);
}

void reg_io_fini(struct reg_io *io)
{
	pthread_cond_destroy(&io->cond);
	pthread_mutex_destroy(&io->lock);
}

void reg_io_cancel(struct reg_io *io)
{
	pthread_mutex_lock(&io->lock);
	io->stop = true;
	if (io->multi) curl_multi_wakeup(io->multi);
	pthread_cond_broadcast(&io->cond);
	pthread_mutex_unlock(&io->lock);
}

bool reg_io_stopped(struct reg_io *io)
{
	if (io->cancelled && atomic_load(io->cancelled)) return true;
	pthread_mutex_lock(&io->lock);
	bool stop = io->stop;
	pthread_mutex_unlock(&io->lock);
	return stop;
}

/* In slices of 100 ms, because the job's own flag wakes nobody. */
int reg_io_sleep(struct reg_io *io, int64_t ms, struct err *e)
{
	for (int64_t end = now_ms() + ms, left; (left = end - now_ms()) > 0 && !reg_io_stopped(io);) {
		int64_t until = time_mono_ns() + min_of(left, (int64_t)100) * 1000000;
		struct timespec ts = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
		pthread_mutex_lock(&io->lock);
		if (!io->stop) pthread_cond_timedwait(&io->cond, &io->lock, &ts);
		pthread_mutex_unlock(&io->lock);
	}
	return reg_io_stopped(io) ? err_set(e, CODE_CANCELLED, "context canceled") : 0;
}
