/* The receiver of a client's files: packets of a peer, into a folder; nothing outside of it may change, and afterwards the
 * index says what the folder holds. Input: a flag byte, then packets, each behind two bytes of length. A packet of length 0 is
 * the end of the listing's marker; with flag 1 the packets are sent twice, the second time against the index of the first. */
#include "fuzz.h"
#include "sess/transfer.h"
#include "tree/tree.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct feed {
	struct fuzz_in in;
	uint8_t *packet;
};

static int next(void *ctx, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	struct feed *f = ctx;
	if (f->in.n < 2) return 0;
	size_t n = fuzz_byte(&f->in);
	n |= (size_t)fuzz_byte(&f->in) << 8;
	n = min_of(n, f->in.n);
	free(f->packet);
	f->packet = xmalloc(n + !n); /* exactly: the sanitizer sees a read beyond */
	if (n) memcpy(f->packet, f->in.p, n);
	f->in.p += n;
	f->in.n -= n;
	*ret = f->packet;
	*ret_n = n;
	return 1;
}
static bool ready(void *ctx) { return true; }
static int send(void *ctx, const void *p, size_t n, struct err *e)
{
	_cleanup_sess_packet_ struct sess_packet pk = {0};
	if (sess_packet_read(&pk, p, n, NULL) < 0) bug("a packet of our own cannot be read");
	return 0;
}
static int flush(void *ctx, struct err *e) { return 0; }

static int receive(struct fuzz_in in, uint8_t flags, const struct tree_index *old, struct tree_index **ret)
{
	struct feed f = {.in = in};
	struct sess_io io = {next, ready, send, flush, &f};
	static const atomic_bool cancelled;
	struct sess_filesync_stats st;
	struct err e = ERR_INIT;
	struct sess_recv o = {.dest_fd = fuzz_scratch(),
			      .old = old,
			      .differ_none = flags & 2,
			      .metadata_only = flags & 4,
			      .override_owner = flags & 8,
			      .peer = "fuzzer",
			      .cancelled = &cancelled};
	int rc = sess_recv_run(&o, &io, ret, &st, &e);
	if (rc < 0 && !err_is_set(&e)) bug("failed without an error");
	err_fini(&e);
	free(f.packet);
	return rc;
}

static void check_index(const struct tree_index *x)
{
	for (size_t i = 0; i < tree_index_count(x); i++) {
		const struct tree_entry *t = tree_index_at(x, i);
		struct stat st;
		if (fstatat(fuzz_scratch(), t->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			bug("%s is in the index and not on disk", t->path);
		if (tree_is_dir(t) != S_ISDIR(st.st_mode)) bug("%s is of another type", t->path);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t flags = fuzz_byte(&in);
	struct tree_index *first = NULL, *second = NULL, *empty = tree_index_new();
	fuzz_scratch();
	receive(in, flags, flags & 16 ? NULL : empty, &first);
	if (!(flags & 4)) check_index(first);
	if (flags & 1 && !(flags & 16)) {
		receive(in, flags, first, &second);
		if (!(flags & 4)) check_index(second);
	}
	tree_index_free(first);
	tree_index_free(second);
	tree_index_free(empty);
	fuzz_scratch_check();
	fuzz_scratch_clear();
	return 0;
}
