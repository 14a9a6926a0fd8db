/* Compression as a tar_out, with both digests in the same pass.
 *
 * gzip: the input is cut into pieces of MEMBER bytes, each becomes a gzip member of its own on a worker thread; the
 * members are written in order. So the bytes depend on input and level only.
 *  1. Pieces form a ring of `n_slots`; `head` is the next to fill, `tail` the next to write out. head - tail <= n_slots.
 *  2. A slot goes FREE -> QUEUED (the caller filled it) -> BUSY (a worker) -> DONE -> FREE (the caller wrote it out).
 *  3. Only the caller hashes and writes out; workers compress. One lock guards the states; the bytes belong to whoever
 *     the state says.
 *  4. An empty input is one empty member. Input below one piece is compressed by the caller without any thread.
 * zstd: libzstd with its own workers; its output does not depend on their number as long as there is at least one, so
 * there is always one. */
#include "tar/tar.h"
#include <libdeflate.h>
#include <pthread.h>
#include <string.h>
#include <sched.h>
#include <zstd.h>

enum { MEMBER = 1 << 20, MAX_THREADS = 64 };
enum slot_state { SLOT_FREE, SLOT_QUEUED, SLOT_BUSY, SLOT_DONE };

struct slot {
	enum slot_state state;
	uint8_t *in, *out;
	size_t in_n, out_n;
};

struct tar_comp {
	struct tar_out out;
	enum tar_kind kind;
	int level, n_threads;
	struct tar_tee in_tee, out_tee;
	bool finished;
	/* gzip */
	struct slot *slots;
	size_t n_slots, head, tail, next_job;
	size_t member_cap;
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	pthread_t *threads;
	int n_running;
	bool stop;
	/* zstd */
	ZSTD_CCtx *zs;
	uint8_t *zout;
};

static int cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
	return min_of(max_of(n, 1), MAX_THREADS);
}

static int emit(struct tar_comp *c, const void *p, size_t n, struct err *e)
{
	struct tar_out o = tar_tee_out(&c->out_tee);
	return n ? o.write(o.ctx, p, n, e) : 0;
}

/* ---- gzip ---- */
static void compress_slot(const struct tar_comp *c, struct libdeflate_compressor *z, struct slot *s)
{
	if (!s->out) s->out = xmalloc(c->member_cap);
	s->out_n = libdeflate_gzip_compress(z, s->in, s->in_n, s->out, c->member_cap);
	ensure(s->out_n);
}

static struct libdeflate_compressor *deflater(const struct tar_comp *c)
{
	struct libdeflate_compressor *z = libdeflate_alloc_compressor(c->level);
	if (!z) bug("out of memory");
	return z;
}

static void *gzip_worker(void *arg)
{
	struct tar_comp *c = arg;
	struct libdeflate_compressor *z = deflater(c);
	pthread_mutex_lock(&c->lock);
	for (;;) {
		while (!c->stop && c->next_job == c->head) pthread_cond_wait(&c->work, &c->lock);
		if (c->stop) break;
		struct slot *s = &c->slots[c->next_job++ % c->n_slots];
		s->state = SLOT_BUSY;
		pthread_mutex_unlock(&c->lock);
		compress_slot(c, z, s);
		pthread_mutex_lock(&c->lock);
		s->state = SLOT_DONE;
		pthread_cond_signal(&c->done);
	}
	pthread_mutex_unlock(&c->lock);
	libdeflate_free_compressor(z);
	return NULL;
}

static void gzip_start(struct tar_comp *c)
{
	c->threads = xcalloc((size_t)c->n_threads, sizeof *c->threads);
	while (c->n_running < c->n_threads && !pthread_create(&c->threads[c->n_running], NULL, gzip_worker, c)) c->n_running++;
}

/* Write out the oldest piece, waiting for it. */
static int gzip_drain_one(struct tar_comp *c, struct err *e)
{
	struct slot *s = &c->slots[c->tail % c->n_slots];
	pthread_mutex_lock(&c->lock);
	while (s->state != SLOT_DONE) pthread_cond_wait(&c->done, &c->lock);
	pthread_mutex_unlock(&c->lock);
	if (emit(c, s->out, s->out_n, e) < 0) return -1;
	s->state = SLOT_FREE;
	s->in_n = 0;
	c->tail++;
	return 0;
}

/* The piece being filled is handed to the workers; without threads (none could be made) it is done here. */
static int gzip_submit(struct tar_comp *c, struct err *e)
{
	struct slot *s = &c->slots[c->head % c->n_slots];
	if (!c->threads) gzip_start(c);
	if (!c->n_running) {
		struct libdeflate_compressor *z = deflater(c);
		compress_slot(c, z, s);
		libdeflate_free_compressor(z);
		s->state = SLOT_DONE;
		c->head++;
		return gzip_drain_one(c, e);
	}
	pthread_mutex_lock(&c->lock);
	s->state = SLOT_QUEUED;
	c->head++;
	pthread_cond_signal(&c->work);
	pthread_mutex_unlock(&c->lock);
	return c->head - c->tail == c->n_slots ? gzip_drain_one(c, e) : 0;
}

static int gzip_write(struct tar_comp *c, const uint8_t *p, size_t n, struct err *e)
{
	while (n) {
		struct slot *s = &c->slots[c->head % c->n_slots];
		if (s->in_n == MEMBER) { /* a full piece waits here until more comes, so that the last is never empty */
			if (gzip_submit(c, e) < 0) return -1;
			continue;
		}
		if (!s->in) s->in = xmalloc(MEMBER);
		size_t k = min_of(n, (size_t)MEMBER - s->in_n);
		memcpy(s->in + s->in_n, p, k);
		s->in_n += k;
		p += k;
		n -= k;
	}
	return 0;
}

static int gzip_finish(struct tar_comp *c, struct err *e)
{
	struct slot *s = &c->slots[c->head % c->n_slots];
	if (!c->threads) { /* one piece, perhaps empty */
		struct libdeflate_compressor *z = deflater(c);
		if (!s->in) s->in = xmalloc(1);
		compress_slot(c, z, s);
		libdeflate_free_compressor(z);
		return emit(c, s->out, s->out_n, e);
	}
	if (s->in_n && gzip_submit(c, e) < 0) return -1;
	while (c->tail < c->head)
		if (gzip_drain_one(c, e) < 0) return -1;
	return 0;
}

static int gzip_open(struct tar_comp *c, int level, struct err *e)
{
	c->level = level == TAR_LEVEL_DEFAULT || level == -1 ? 6 : level == -2 ? 1 : level;
	if (c->level < 0 || c->level > 9)
		return err_set(e, CODE_INVALID_ARGUMENT, "gzip: invalid compression level: %d", level);
	c->n_slots = (size_t)c->n_threads + 2;
	c->slots = xcalloc(c->n_slots, sizeof *c->slots);
	struct libdeflate_compressor *z = deflater(c);
	c->member_cap = libdeflate_gzip_compress_bound(z, MEMBER);
	libdeflate_free_compressor(z);
	return 0;
}

static void gzip_fini(struct tar_comp *c)
{
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_broadcast(&c->work);
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < c->n_running; i++) pthread_join(c->threads[i], NULL);
	for (size_t i = 0; i < c->n_slots; i++) {
		free(c->slots[i].in);
		free(c->slots[i].out);
	}
	free(c->threads);
	free(c->slots);
}

/* ---- zstd ---- */
static int zstd_run(struct tar_comp *c, const void *p, size_t n, ZSTD_EndDirective end, struct err *e)
{
	ZSTD_inBuffer in = {p, n, 0};
	for (;;) {
		ZSTD_outBuffer out = {c->zout, ZSTD_CStreamOutSize(), 0};
		size_t left = ZSTD_compressStream2(c->zs, &out, &in, end);
		if (ZSTD_isError(left)) return err_set(e, CODE_INTERNAL, "zstd: %s", ZSTD_getErrorName(left));
		if (emit(c, c->zout, out.pos, e) < 0) return -1;
		if (end == ZSTD_e_end ? !left : in.pos == in.size) return 0;
	}
}

static int zstd_open(struct tar_comp *c, int level, struct err *e)
{
	c->level = level == TAR_LEVEL_DEFAULT ? 3 : level;
	if (c->level < ZSTD_minCLevel() || c->level > ZSTD_maxCLevel())
		return err_set(e, CODE_INVALID_ARGUMENT, "zstd: invalid compression level: %d", level);
	c->zs = ZSTD_createCCtx();
	if (!c->zs) return err_set(e, CODE_RESOURCE_EXHAUSTED, "zstd: out of memory");
	c->zout = xmalloc(ZSTD_CStreamOutSize());
	size_t rc = ZSTD_CCtx_setParameter(c->zs, ZSTD_c_compressionLevel, c->level);
	if (!ZSTD_isError(rc)) rc = ZSTD_CCtx_setParameter(c->zs, ZSTD_c_checksumFlag, 1);
	if (!ZSTD_isError(rc)) rc = ZSTD_CCtx_setParameter(c->zs, ZSTD_c_nbWorkers, c->n_threads);
	return ZSTD_isError(rc) ? err_set(e, CODE_INTERNAL, "zstd: %s", ZSTD_getErrorName(rc)) : 0;
}

/* ---- the filter ---- */
static int comp_write(void *ctx, const void *p, size_t n, struct err *e)
{
	struct tar_comp *c = ctx;
	struct tar_out t = tar_tee_out(&c->in_tee);
	if (t.write(t.ctx, p, n, e) < 0) return -1;
	switch (c->kind) {
	case TAR_GZIP: return gzip_write(c, p, n, e);
	case TAR_ZSTD: return zstd_run(c, p, n, ZSTD_e_continue, e);
	default: return emit(c, p, n, e);
	}
}

int tar_comp_new(struct tar_out out, enum tar_kind kind, int level, int threads, struct tar_comp **ret, struct err *e)
{
	_cleanup_tar_comp_ struct tar_comp *c = xnew(struct tar_comp);
	c->kind = kind;
	c->n_threads = threads > 0 ? min_of(threads, MAX_THREADS) : cores();
	c->out_tee.out = out;
	tar_tee_init(&c->in_tee);
	tar_tee_init(&c->out_tee);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	pthread_cond_init(&c->done, NULL);
	if (kind == TAR_GZIP && gzip_open(c, level, e) < 0) return -1;
	if (kind == TAR_ZSTD && zstd_open(c, level, e) < 0) return -1;
	if (kind == TAR_XZ || kind == TAR_BZIP2)
		return err_set(e, CODE_UNIMPLEMENTED, "cannot compress as %s", tar_kind_name(kind));
	*ret = take_ptr(c);
	return 0;
}

struct tar_out tar_comp_out(struct tar_comp *c) { return (struct tar_out){comp_write, c}; }

int tar_comp_finish(struct tar_comp *c, struct tar_sums *ret, struct err *e)
{
	ensure(!c->finished);
	if (c->kind == TAR_GZIP && gzip_finish(c, e) < 0) return -1;
	if (c->kind == TAR_ZSTD && zstd_run(c, NULL, 0, ZSTD_e_end, e) < 0) return -1;
	c->finished = true;
	ret->diff_size = c->in_tee.bytes;
	ret->size = c->out_tee.bytes;
	tar_tee_final(&c->in_tee, ret->diff_id);
	tar_tee_final(&c->out_tee, ret->digest);
	return 0;
}

void tar_comp_free(struct tar_comp *c)
{
	if (!c) return;
	gzip_fini(c);
	ZSTD_freeCCtx(c->zs);
	free(c->zout);
	tar_tee_fini(&c->in_tee);
	tar_tee_fini(&c->out_tee);
	pthread_cond_destroy(&c->work);
	pthread_cond_destroy(&c->done);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
