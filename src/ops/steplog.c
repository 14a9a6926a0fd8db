#include "ops/steplog.h"

#include <stdio.h>
#include <stdlib.h>

enum { TAIL_BYTES = 256 << 10, SIZE_DEFAULT = 2 << 20, SPEED_DEFAULT = 200 << 10 };

static int64_t limit(const char *name, int64_t fallback)
{
	const char *s = getenv(name);
	char *end;
	long long v = s ? strtoll(s, &end, 10) : 0;
	return s && *s && !*end ? v : fallback;
}

static int64_t max_size(void)
{
	static int64_t v;
	if (!v) v = limit("BUILDKIT_STEP_LOG_MAX_SIZE", SIZE_DEFAULT);
	return v;
}

static int64_t max_speed(void)
{
	static int64_t v;
	if (!v) v = limit("BUILDKIT_STEP_LOG_MAX_SPEED", SPEED_DEFAULT);
	return v;
}

void ops_steplog_init(struct ops_steplog *l, struct solve_node *n, int stream)
{
	*l = (struct ops_steplog){.node = n, .stream = stream, .since_ns = time_mono_ns()};
}

static void bytes_text(int64_t n, char out[32])
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB"};
	double v = (double)n;
	size_t i = 0;
	while (v >= 1024 && i + 1 < array_len(unit)) v /= 1024, i++;
	snprintf(out, 32, "%.4g%s", v, unit[i]);
}

/* How many of n bytes may go now; *ret_why says which limit stood in the way. */
static size_t allowed(const struct ops_steplog *l, size_t n, const char **ret_unit, int64_t *ret_limit)
{
	int64_t size = max_size(), speed = max_speed(), room = INT64_MAX;
	*ret_unit = "";
	*ret_limit = size;
	if (size >= 0) room = size - l->written;
	if (speed >= 0) {
		int64_t seconds = (time_mono_ns() - l->since_ns) / 1000000000 + 1;
		int64_t by_speed = seconds * speed - l->written;
		if (by_speed < room) {
			room = by_speed;
			*ret_unit = "/s";
			*ret_limit = speed;
		}
	}
	return room <= 0 ? 0 : min_of(n, (size_t)room);
}

static void keep_tail(struct ops_steplog *l, const uint8_t *p, size_t n)
{
	if (n > TAIL_BYTES) {
		p += n - TAIL_BYTES;
		n = TAIL_BYTES;
	}
	buf_add(&l->tail, p, n);
	if (l->tail.n > 2 * TAIL_BYTES) buf_consume(&l->tail, l->tail.n - TAIL_BYTES);
}

void ops_steplog_write(struct ops_steplog *l, const void *p, size_t n)
{
	const char *unit;
	int64_t lim;
	size_t some = allowed(l, n, &unit, &lim);
	l->written += (int64_t)n;
	if (some) {
		l->clipping = false;
		solve_log(l->node, l->stream, p, some);
	}
	if (some == n) return;
	if (!l->clipping) {
		char text[32], note[96];
		bytes_text(lim, text);
		int len = snprintf(note, sizeof note, "\n[output clipped, log limit %s%s reached]\n", text, unit);
		solve_log(l->node, l->stream, note, (size_t)len);
	}
	l->clipping = true;
	keep_tail(l, (const uint8_t *)p + some, n - some);
}

void ops_steplog_end(struct ops_steplog *l, bool failed)
{
	if (failed && l->tail.n) {
		size_t from = l->tail.n > TAIL_BYTES ? l->tail.n - TAIL_BYTES : 0;
		solve_log(l->node, l->stream, l->tail.p + from, l->tail.n - from);
	}
	buf_fini(&l->tail);
}
