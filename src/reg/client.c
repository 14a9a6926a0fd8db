/* What transfers share: idle connections, tokens, hosts known to speak plain http; and stopping a transfer.
 *
 *  1. A handle (easy + multi, so one connection) belongs to one transfer while out, to the list while idle. How many are out
 *     at once is bounded by admission (reg_pools), how many are idle by IDLE_MAX; the oldest go first.
 *  2. A handle's key names everything that decides whether its connection may be used again: origin, configuration,
 *     verification, client certificates.
 *  3. Tokens are values; one that a server refused is dropped by value, so that a newer one stays.
 * The mutex is held for list and map operations only, never across I/O. Any thread. */
#include "reg/internal.h"
#include <string.h>
#include <time.h>

enum { IDLE_MAX = 30, TOKENS_MAX = 2048, CLOSE_AFTER_MS = 118000, DOWN_MS = 30000 };

struct timed {
	char *value;
	int64_t until_ms;
};
struct reg_client {
	pthread_mutex_t lock;
	struct list idle; /* the longest idle first */
	size_t idle_count;
	struct map tokens;
	struct map http_hosts;
	struct map down; /* host -> struct timed: the error and how long it counts */
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
	return c;
}

static void handle_free(struct reg_handle *h)
{
	curl_easy_cleanup(h->easy);
	curl_multi_cleanup(h->multi);
	reg_tls_free(h->tls);
	free(h->key);
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

static struct reg_handle *take_idle(struct reg_client *c, const char *key, struct list *old)
{
	struct reg_handle *found = NULL;
	pthread_mutex_lock(&c->lock);
	take_older(c, now_ms() - CLOSE_AFTER_MS, old);
	LIST_EACH(&c->idle, struct reg_handle, h, link)
	if (strcmp(h->key, key) == 0) found = h; /* the latest: its connection lives most likely */
	if (found) {
		list_del(&found->link);
		c->idle_count--;
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

int reg_handle_get(struct reg_client *c, const char *origin, const struct reg_config *config, const struct reg_entry *entry,
		   bool with_keys, bool insecure, struct reg_handle **ret, struct err *e)
{
	struct list old = LIST_INIT(old);
	_cleanup_free_ char *key =
		xasprintf("%s %llu %s %d%d", origin, (unsigned long long)(entry && config ? config->serial : 0),
			  entry ? entry->name : "", with_keys, insecure);
	struct reg_handle *h = take_idle(c, key, &old);
	free_all(&old);
	if (!h) {
		struct reg_tls *tls = NULL;
		if (entry && str_starts(origin, "https:") && reg_tls_load(entry, with_keys, &tls, e) < 0) return -1;
		h = handle_new();
		h->key = take_ptr(key);
		h->tls = tls;
	}
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
	pthread_condattr_t attr;
	*io = (struct reg_io){.client = client, .config = config, .retry_first_ms = 1000, .retry_stop_ms = 8000};
	pthread_mutex_init(&io->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&io->cond, &attr);
	pthread_condattr_destroy(&attr);
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
