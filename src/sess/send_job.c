/* The sender of a file transfer: lists what is there, answers requests by number, parts with FIN.
 *
 * 1. The number of an entry is its place in the listing. Only regular entries may be asked for, each once.
 * 2. Listing and answering take turns on one thread: requests that have arrived are served between entries, so data flows
 *    while the listing goes on. The receiver reads always, whatever it has to send, so waiting to send here is safe.
 * 3. Files are opened beneath their root without following links; one that cannot be opened any more is sent empty.
 * 4. What a hard link names has been sent before: if the filter left it out, the first link that is sent stands for it.
 * Source: fsutil send.go, hardlinks.go, fs.go (SubDirFS), BuildKit staticfs; reference 02 §3.1. */
#include "sess/transfer.h"

#include <errno.h>
#include <fcntl.h>

enum { CHUNK = 128 << 10, PROOF_NS = 20000000, LISTED_MAX = 8 << 20 };

struct listed {
	size_t path; /* into paths, below its root */
	uint32_t root;
	int32_t extra; /* -1: on disk */
	bool open;     /* may be asked for */
};
struct send {
	const struct sess_send *o;
	const struct sess_io *io;
	const struct sess_send_root *root; /* being walked */
	size_t extra_at, root_from;        /* root_from: its first in listed */
	const size_t *extra_order;
	VEC(struct listed) listed;
	struct buf paths, packet, name, link;
	struct map firsts; /* a filtered-out link target -> the path sent for it (owned) */
	VEC(uint32_t) queue;
	size_t queue_at;
	struct sess_packet in;
	uint8_t *chunk;
	bool fin;
};

static int put(struct send *s, struct err *e)
{
	if (s->o->bytes) atomic_fetch_add(s->o->bytes, s->packet.n);
	return s->io->send(s->io->ctx, s->packet.p ? s->packet.p : (const uint8_t *)"", s->packet.n, e);
}

static int put_data(struct send *s, uint32_t id, const void *p, size_t n, struct err *e)
{
	buf_reset(&s->packet);
	sess_packet_add(&s->packet, SESS_PACKET_DATA, id, p, n);
	return put(s, e);
}

/* ---- data ---- */
static int send_fd(struct send *s, uint32_t id, int fd, struct err *e)
{
	struct stat sb;
	if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode)) return 0;
	for (;;) {
		if (s->o->cancelled && atomic_load(s->o->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
		ssize_t n = read(fd, s->chunk, CHUNK);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return err_sys(e, errno, "read %s", (char *)s->paths.p + s->listed.v[id].path);
		if (n == 0) return 0;
		if (put_data(s, id, s->chunk, (size_t)n, e) < 0) return -1;
	}
}

static int send_file(struct send *s, uint32_t id, struct err *e)
{
	const struct listed *l = &s->listed.v[id];
	const struct sess_send_root *root = &s->o->roots[l->root];
	if (l->extra >= 0) {
		const struct sess_extra_file *x = &root->extras[l->extra];
		for (size_t at = 0; at < x->n; at += CHUNK)
			if (put_data(s, id, (const uint8_t *)x->p + at, min_of((size_t)CHUNK, x->n - at), e) < 0) return -1;
	} else {
		_cleanup_close_ int fd = sess_open_beneath(root->fd, (char *)s->paths.p + l->path, O_RDONLY | O_NONBLOCK, 0);
		if (fd >= 0 && send_fd(s, id, fd, e) < 0) return -1;
	}
	return put_data(s, id, NULL, 0, e);
}

/* ---- requests ---- */
static int on_request(struct send *s, struct err *e)
{
	const uint8_t *in;
	size_t n;
	int got = s->io->next(s->io->ctx, &in, &n, e);
	if (got < 0) return -1;
	if (!got) return err_set(e, CODE_UNAVAILABLE, "file transfer: the receiver ended it early");
	if (sess_packet_read(&s->in, in, n, e) < 0) return -1;
	switch (s->in.type) {
	case SESS_PACKET_REQ:
		if (s->in.id >= s->listed.n || !s->listed.v[s->in.id].open)
			return err_set(e, CODE_INVALID_ARGUMENT, "invalid file id %u", s->in.id);
		s->listed.v[s->in.id].open = false;
		vec_push(&s->queue, s->in.id);
		return 0;
	case SESS_PACKET_FIN: s->fin = true; return 0;
	case SESS_PACKET_ERR: {
		_cleanup_free_ char *said = utf8_clean((const char *)s->in.data, min_of(s->in.n_data, (size_t)65536));
		return err_set(e, CODE_UNKNOWN, "error from receiver: %s", said);
	}
	default: return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: unexpected packet of type %d", (int)s->in.type);
	}
}

/* Serve what has been asked for so far; with wait, until the receiver has all it wants. */
static int serve(struct send *s, bool wait, struct err *e)
{
	while (!s->fin) {
		while (!s->fin && s->io->ready(s->io->ctx))
			if (on_request(s, e) < 0) return -1;
		if (s->queue_at < s->queue.n) {
			if (send_file(s, s->queue.v[s->queue_at++], e) < 0) return -1;
			continue;
		}
		s->queue.n = s->queue_at = 0;
		if (!wait) return 0;
		if (on_request(s, e) < 0) return -1;
	}
	return 0;
}

/* ---- the listing ---- */
static const char *in_top(struct send *s, struct buf *b, const char *prefix, const char *path)
{
	if (str_empty(s->root->top)) return path;
	buf_reset(b);
	buf_addf(b, "%s%s/%s", prefix, s->root->top, path);
	return buf_str(b);
}

static int list(struct send *s, const struct tree_entry *t, const char *disk_path, int32_t extra, bool proof, struct err *e)
{
	if (s->listed.n >= LISTED_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: more than %d files", LISTED_MAX);
	struct listed *l = vec_add(&s->listed);
	*l = (struct listed){.path = s->paths.n, .root = (uint32_t)(s->root - s->o->roots), .extra = extra};
	l->open = tree_is_regular(t);
	buf_add(&s->paths, disk_path, strlen(disk_path) + 1);
	buf_reset(&s->packet);
	sess_packet_add_stat(&s->packet, t, proof);
	if (s->packet.n > SESS_STAT_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "%s: its metadata is too large to send", t->path);
	if (put(s, e) < 0) return -1;
	return s->listed.n % 32 == 0 || s->queue_at < s->queue.n ? serve(s, false, e) : 0;
}

/* The extra files that come before path (NULL: all the rest). 1: one of them has that very name. */
static int list_extras(struct send *s, const char *path, struct err *e)
{
	for (; s->extra_at < s->root->n_extras; s->extra_at++) {
		size_t i = s->extra_order[s->extra_at];
		const struct sess_extra_file *x = &s->root->extras[i];
		int cmp = path ? tree_path_cmp(x->name, path) : -1;
		if (cmp > 0) return 0;
		struct tree_entry t = {.mode = 0600, .size = (int64_t)x->n, .mtime_ns = x->mtime_ns};
		t.path = (char *)(uintptr_t)in_top(s, &s->name, "", x->name);
		if (list(s, &t, x->name, (int32_t)i, false, e) < 0) return -1;
		if (cmp == 0) {
			s->extra_at++;
			return 1;
		}
	}
	return 0;
}

/* Point linkname at what the receiver has. */
static void fix_link(struct send *s, struct tree_entry *t)
{
	const char *first = map_get(&s->firsts, t->linkname);
	if (!first) {
		map_put(&s->firsts, t->linkname, xstrdup(t->path));
		t->linkname = NULL;
	} else {
		t->linkname = (char *)(uintptr_t)first;
	}
}

/* Was path, below the root at hand, listed? Its entries lie in order. */
static bool was_sent(struct send *s, const char *path)
{
	size_t lo = s->root_from, hi = s->listed.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int cmp = tree_path_cmp((char *)s->paths.p + s->listed.v[mid].path, path);
		if (cmp == 0) return true;
		if (cmp < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static int on_entry(const struct tree_entry *found, void *arg, struct err *e)
{
	struct send *s = arg;
	struct tree_entry t = *found;
	if (s->root->n_extras) {
		int same = list_extras(s, t.path, e);
		if (same) return same < 0 ? -1 : 1;
	}
	if (tree_is_hardlink(&t) && !was_sent(s, t.linkname)) fix_link(s, &t);
	if (s->o->override_mtime) t.mtime_ns = s->o->mtime_ns;
	if (t.linkname && *t.linkname && !str_empty(s->root->top)) {
		if (!tree_is_symlink(&t))
			t.linkname = (char *)(uintptr_t)in_top(s, &s->link, "", t.linkname);
		else if (*t.linkname == '/')
			t.linkname = (char *)(uintptr_t)in_top(s, &s->link, "/", t.linkname + 1);
	}
	t.path = (char *)(uintptr_t)in_top(s, &s->name, "", found->path);
	struct timespec now = time_now();
	if (t.ctime_ns > now.tv_sec * 1000000000 + now.tv_nsec - PROOF_NS) t.ctime_ns = 0;
	return list(s, &t, found->path, -1, s->o->proof, e);
}

static int top_cmp(const void *a, const void *b, void *arg)
{
	const struct sess_extra_file *x = arg;
	return tree_path_cmp(x[*(const size_t *)a].name, x[*(const size_t *)b].name);
}

static int list_root(struct send *s, const struct sess_send_root *root, struct err *e)
{
	_cleanup_free_ size_t *order = xcalloc(root->n_extras + 1, sizeof *order);
	for (size_t i = 0; i < root->n_extras; i++) order[i] = i;
	qsort_r(order, root->n_extras, sizeof *order, top_cmp, (void *)(uintptr_t)root->extras);
	s->root = root;
	s->extra_at = 0;
	s->root_from = s->listed.n;
	s->extra_order = order;
	map_fini_free(&s->firsts);
	if (!str_empty(root->top)) {
		struct tree_entry t = {
			.path = (char *)(uintptr_t)root->top, .mode = TREE_DIR | 0755, .mtime_ns = root->top_mtime_ns};
		if (list(s, &t, "", -1, false, e) < 0) return -1;
	}
	if (root->fd >= 0 && tree_walk(root->fd, &s->o->walk, on_entry, s, e) < 0) return -1;
	return list_extras(s, NULL, e) < 0 ? -1 : 0;
}

static int check_roots(const struct sess_send *o, struct err *e)
{
	for (size_t i = 0; i < o->n_roots; i++) {
		const char *top = o->roots[i].top ? o->roots[i].top : "";
		bool bad = strchr(top, '/') || strcmp(top, ".") == 0 || strcmp(top, "..") == 0 || (!*top && o->n_roots > 1);
		if (bad || (i && strcmp(o->roots[i - 1].top, top) >= 0))
			return err_set(e, CODE_INVALID_ARGUMENT, "\"%s\" cannot be a top directory of an export", top);
	}
	return 0;
}

static int list_all(struct send *s, struct err *e)
{
	if (check_roots(s->o, e) < 0) return -1;
	for (size_t i = 0; i < s->o->n_roots; i++)
		if (list_root(s, &s->o->roots[i], e) < 0) return -1;
	buf_reset(&s->packet);
	return put(s, e);
}

static int run(struct send *s, struct err *e)
{
	if (list_all(s, e) < 0 || serve(s, true, e) < 0) return -1;
	buf_reset(&s->packet);
	sess_packet_add(&s->packet, SESS_PACKET_FIN, 0, NULL, 0);
	if (put(s, e) < 0) return -1;
	return s->io->flush(s->io->ctx, e);
}

static void send_fini(struct send *s)
{
	vec_fini(&s->listed);
	vec_fini(&s->queue);
	buf_fini(&s->paths);
	buf_fini(&s->packet);
	buf_fini(&s->name);
	buf_fini(&s->link);
	map_fini_free(&s->firsts);
	sess_packet_fini(&s->in);
	free(s->chunk);
}

int sess_send_run(const struct sess_send *o, const struct sess_io *io, struct err *e)
{
	_cleanup_err_ struct err local = ERR_INIT;
	_cleanup_(send_fini) struct send s = {.o = o, .io = io, .chunk = xmalloc(CHUNK)};
	if (run(&s, &local) == 0) return 0;
	const char *msg = local.msg ? local.msg : "failed";
	buf_reset(&s.packet);
	sess_packet_add(&s.packet, SESS_PACKET_ERR, 0, msg, strlen(msg));
	if (io->send(io->ctx, s.packet.p, s.packet.n, NULL) == 0) io->flush(io->ctx, NULL);
	return err_move(e, &local);
}
