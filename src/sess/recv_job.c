/* The receiver of a file transfer: compares a listing with what is there, asks for what it cannot prove, writes it.
 *
 * 1. `old` says what dest held, `now` what the listing says it will hold; both are in listing order, so a merge of the two
 *    finds what is new, what is the same and what is gone. items[i] is the progress of the i-th entry of `now`.
 * 2. Regular files never change in place: a new version gets a temporary name and is renamed when it is complete. So hard
 *    links cannot carry bytes to a wrong name, and until then the old entry is true. Hard links and the times of
 *    directories come last.
 * 3. Whatever goes wrong, recover() leaves an index that says what dest holds.
 * 4. No more than OUTSTANDING requests are unanswered, and that many fit into the channel: sending never waits, so this
 *    side always reads and the two sides cannot wait for each other.
 * 5. A parent is a directory that this listing has made or found: nothing is reached through a link.
 * 6. Never stale: an entry like before is kept only if its stamp proves it (stamp_proves); otherwise the bytes are asked
 *    for and compared with the file, which is left alone while they are equal.
 * Source: fsutil receive.go, diff_containerd.go, diskwriter.go, validator.go; reference 02 §3; design §5. */
#include "sess/recv.h"

#include <errno.h>
#include <fcntl.h>

static size_t old_count(const struct recv *r) { return r->o->old ? tree_index_count(r->o->old) : 0; }

/* ---- comparing ---- */
static bool same_xattrs(const struct tree_entry *a, const struct tree_entry *b)
{
	if (a->n_xattrs != b->n_xattrs) return false;
	for (size_t i = 0; i < a->n_xattrs; i++)
		if (!str_eq(a->xattrs[i].name, b->xattrs[i].name) || a->xattrs[i].len != b->xattrs[i].len ||
		    (a->xattrs[i].len && memcmp(a->xattrs[i].value, b->xattrs[i].value, a->xattrs[i].len) != 0))
			return false;
	return true;
}

bool recv_same_meta(const struct tree_entry *a, const struct tree_entry *b)
{
	const char *la = a->linkname ? a->linkname : "", *lb = b->linkname ? b->linkname : "";
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || !same_xattrs(a, b)) return false;
	if (tree_is_dir(a)) return true;
	return a->size == b->size && a->mtime_ns == b->mtime_ns && a->devmajor == b->devmajor && a->devminor == b->devminor &&
	       strcmp(la, lb) == 0;
}

static size_t stamp_slot(const struct recv *r, int64_t mtime_ns)
{
	size_t i = ((uint64_t)mtime_ns * 0x9e3779b97f4a7c15u) >> 20 & (r->stamps.cap - 1);
	while (r->stamps.item[i] && r->stamps.key[i] != mtime_ns) i = (i + 1) & (r->stamps.cap - 1);
	return i;
}

static void stamps_grow(struct recv *r)
{
	size_t cap = r->stamps.cap;
	int64_t *key = r->stamps.key;
	uint32_t *item = r->stamps.item;
	r->stamps.cap = cap ? cap * 2 : 1024;
	r->stamps.key = xcalloc(r->stamps.cap, sizeof *key);
	r->stamps.item = xcalloc(r->stamps.cap, sizeof *item);
	for (size_t i = 0; i < cap; i++) {
		if (!item[i]) continue;
		size_t at = stamp_slot(r, key[i]);
		r->stamps.key[at] = key[i];
		r->stamps.item[at] = item[i];
	}
	free(key);
	free(item);
}

static void want(struct recv *r, uint32_t item)
{
	vec_push(&r->queue, item);
	r->st->requested++;
	if (r->items.v[item].state == ITEM_VERIFY) r->st->requested_again++;
}

/* Note the mtime of a file that has nothing better. False when another file of the listing has it too; that one, if it was
 * kept because of it, has to prove itself as well. */
static bool stamp_is_unique(struct recv *r, int64_t mtime_ns, uint32_t item)
{
	if (r->stamps.n * 2 >= r->stamps.cap) stamps_grow(r);
	size_t at = stamp_slot(r, mtime_ns);
	uint32_t other = r->stamps.item[at];
	if (!other) {
		r->stamps.key[at] = mtime_ns;
		r->stamps.item[at] = item + 1;
		r->stamps.n++;
		return true;
	}
	if (other != SHARED && r->items.v[other - 1].state == ITEM_KEPT) {
		r->items.v[other - 1].state = ITEM_VERIFY;
		want(r, other - 1);
	}
	r->stamps.item[at] = SHARED;
	return false;
}

static bool stamp_proves(struct recv *r, const struct tree_entry *t, bool has_proof, const struct tree_entry *old,
			 uint32_t item)
{
	if (has_proof)
		return t->ctime_ns && t->ctime_ns == old->ctime_ns && t->ino == old->ino && t->dev == old->dev &&
		       !(old->flags & SESS_ENTRY_RACY);
	bool unique = stamp_is_unique(r, t->mtime_ns, item);
	return unique && t->mtime_ns % 1000000000 != 0 && t->mtime_ns < r->started_ns && !(old->flags & SESS_ENTRY_RACY);
}

/* ---- what is gone ---- */
static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static void skip_below(struct recv *r, const char *dir)
{
	while (r->old_at < old_count(r) && is_below(tree_index_at(r->o->old, r->old_at)->path, dir)) r->old_at++;
}

static int remove_path(struct recv *r, const char *path, struct err *e)
{
	_cleanup_free_ char *dir = path_dir(path);
	_cleanup_close_ int fd = sess_open_beneath(r->o->dest_fd, dir, O_PATH | O_DIRECTORY, 0);
	if (fd < 0) return errno == ENOENT ? 0 : err_sys(e, errno, "remove %s", path);
	size_t at = tree_index_lower(r->now, dir);
	if (at < r->items.n && strcmp(entry_of(r, (uint32_t)at)->path, dir) == 0) recv_touch(r, (uint32_t)at);
	return recv_discard(r, fd, path_base(path), e) < 0 ? err_wrap(e, "remove %s", path) : 0;
}

/* Remove what the old index has before `path` and the listing has not; NULL: to the end. Answers the index of path's old
 * entry, or NONE. */
static int drop_until(struct recv *r, const char *path, uint32_t *ret_old, struct err *e)
{
	*ret_old = NONE;
	while (r->old_at < old_count(r)) {
		const struct tree_entry *t = tree_index_at(r->o->old, r->old_at);
		int cmp = path ? tree_path_cmp(t->path, path) : -1;
		if (cmp > 0) return 0;
		if (cmp == 0) {
			*ret_old = (uint32_t)r->old_at++;
			return 0;
		}
		if (remove_path(r, t->path, e) < 0) return -1;
		r->st->changed++;
		r->old_at++;
		skip_below(r, t->path);
	}
	return 0;
}
static void want_file(struct recv *r, uint32_t item, const struct tree_entry *t, bool has_proof)
{
	struct item *it = &r->items.v[item];
	const struct tree_entry *old = old_of(r, it);
	bool same = old && recv_same_meta(old, t);
	it->state = !old ? ITEM_NEW : same ? ITEM_VERIFY : ITEM_OLD;
	if (!same && !has_proof) stamp_is_unique(r, t->mtime_ns, item);
	if (same && stamp_proves(r, t, has_proof, old, item) && !r->o->differ_none) {
		it->state = ITEM_KEPT;
		return;
	}
	want(r, item);
}

/* ---- the listing ---- */
static int check_path(const char *p, struct err *e)
{
	const char *why = NULL;
	if (*p == '/') why = "absolute path";
	for (const char *s = p; !why; s++) {
		size_t n = strcspn(s, "/");
		if (n == 2 && s[0] == '.' && s[1] == '.')
			why = "path that leaves the directory";
		else if (n == 0 || (n == 1 && *s == '.') || n > 255)
			why = "unclean path";
		s += n;
		if (!*s) break;
	}
	if (!why) return 0;
	_cleanup_free_ char *q = go_quote(p, strlen(p));
	return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: %s: %s", why, q);
}

static void above_pop(struct recv *r)
{
	struct above *a = &r->above.v[--r->above.n];
	free(a->path);
	tree_entry_fini(&a->entry);
}

/* Order, and parents before their children. Leaves in `above` the directories above path. */
static int check_order(struct recv *r, const char *path, struct err *e)
{
	if (check_path(path, e) < 0) return -1;
	bool in_order = !r->last || tree_path_cmp(r->last, path) < 0;
	size_t keep = r->above.n;
	while (keep && !is_below(path, r->above.v[keep - 1].path)) keep--;
	size_t dir = keep ? strlen(r->above.v[keep - 1].path) + 1 : 0;
	if (!in_order || strchr(path + dir, '/'))
		return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: changes out of order: \"%s\" \"%s\"", path,
			       r->last ? r->last : "");
	return 0;
}

static void above_enter(struct recv *r, const char *path)
{
	while (r->above.n && !is_below(path, r->above.v[r->above.n - 1].path)) above_pop(r);
	free(r->last);
	r->last = xstrdup(path);
}

static int check_type(struct recv *r, const struct tree_entry *t, struct err *e)
{
	uint32_t type = t->mode & TREE_TYPE;
	static const uint32_t known[] = {0, TREE_DIR, TREE_SYMLINK, TREE_PIPE, TREE_DEVICE, TREE_DEVICE | TREE_CHAR};
	bool ok = false;
	for (size_t i = 0; i < array_len(known); i++) ok |= type == known[i];
	if (!ok || t->size < 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: %s: unknown file type %#x", t->path, t->mode);
	if (tree_is_symlink(t) && !*t->linkname)
		return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: %s: a symbolic link to nothing", t->path);
	return 0;
}

/* The entry a hard link names: a file of this listing that is none itself. */
static int check_link(struct recv *r, const struct tree_entry *t, struct err *e)
{
	const struct tree_entry *to = check_path(t->linkname, NULL) < 0 ? NULL : tree_index_find(r->now, t->linkname);
	if (to && !tree_is_dir(to) && !tree_is_symlink(to) && !tree_is_hardlink(to)) return 0;
	return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: invalid link %s to unknown path: \"%s\"", t->path,
		       t->linkname);
}

static uint32_t parent_item(const struct recv *r) { return r->above.n ? r->above.v[r->above.n - 1].item : NONE; }

static int materialise(struct recv *r, const struct tree_entry *t, bool has_proof, uint32_t id, uint32_t parent, uint32_t *ret,
		       struct err *e)
{
	uint32_t old, at = (uint32_t)r->items.n;
	if (at >= ENTRIES_MAX) return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: more than %d files", ENTRIES_MAX);
	if (drop_until(r, t->path, &old, e) < 0) return -1;
	struct tree_entry *mine = tree_index_put(r->now, t);
	mine->has_digest = false;
	mine->flags = !has_proof && t->mtime_ns > r->started_ns - RACY_NS ? SESS_ENTRY_RACY : 0;
	vec_push(&r->items, ((struct item){.id = id, .parent = parent, .old = old}));
	ensure(tree_index_count(r->now) == r->items.n);
	struct item *it = &r->items.v[at];
	const struct tree_entry *was = old_of(r, it);
	*ret = at;
	if (was && tree_is_dir(was) && !tree_is_dir(t)) {
		it->old = NONE;
		skip_below(r, t->path);
		if (remove_path(r, t->path, e) < 0) return -1;
	}
	int rc = 0;
	if (tree_is_dir(t))
		rc = recv_make_dir(r, it, t, e);
	else if (tree_is_hardlink(t))
		it->state = ITEM_LINK;
	else if (tree_is_regular(t))
		want_file(r, at, t, has_proof);
	else
		rc = recv_make_special(r, it, t, e);
	it = &r->items.v[at];
	if (it->state != ITEM_KEPT && it->state != ITEM_VERIFY && it->state != ITEM_LINK) r->st->changed++;
	if (it->state == ITEM_KEPT && was && was->has_digest) mine->digest = was->digest, mine->has_digest = true;
	if (!mine->has_digest && !tree_is_regular(t)) mine->digest = tree_hash_header(t), mine->has_digest = true;
	return rc;
}

/* metadata_only: is t among what shall be there? Then the directories above it are too. */
static int replay_above(struct recv *r, struct err *e)
{
	for (size_t i = 0; i < r->above.n; i++) {
		struct above *a = &r->above.v[i];
		if (a->item != NONE) continue;
		if (materialise(r, &a->entry, false, NONE, i ? r->above.v[i - 1].item : NONE, &a->item, e) < 0) return -1;
	}
	return 0;
}

static int add_metadata(struct recv *r, const struct tree_entry *t, struct err *e)
{
	size_t at = r->metadata.n;
	buf_add(&r->metadata, "\0\0\0\0", 4);
	sess_stat_add(&r->metadata, t, false);
	if (r->metadata.overflow) return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: too much metadata");
	uint32_t n = (uint32_t)(r->metadata.n - at - 4);
	for (int i = 0; i < 4; i++) r->metadata.p[at + (size_t)i] = (uint8_t)(n >> (8 * i));
	return 0;
}

/* 1: leave it out. */
static int metadata_filter(struct recv *r, const struct tree_entry *t, struct err *e)
{
	if (add_metadata(r, t, e) < 0) return -1;
	int match = r->o->exceptions ? spec_patterns_match(r->o->exceptions, t->path, e) : 0;
	return match < 0 ? -1 : !match;
}

static int on_stat(struct recv *r, struct sess_packet *p, struct err *e)
{
	struct tree_entry *t = &p->stat;
	if (r->by_id.n >= ENTRIES_MAX)
		return err_set(e, CODE_RESOURCE_EXHAUSTED, "file transfer: more than %d files", ENTRIES_MAX);
	uint32_t id = (uint32_t)r->by_id.n, item = NONE;
	vec_push(&r->by_id, NONE);
	r->st->entries++;
	if (r->o->metadata_only && strcmp(t->path, METADATA_NAME) == 0) return 0;
	if (check_type(r, t, e) < 0 || check_order(r, t->path, e) < 0) return -1;
	if (r->o->override_owner) t->uid = r->o->uid, t->gid = r->o->gid;
	int out = r->o->metadata_only ? metadata_filter(r, t, e) : 0;
	if (out < 0) return -1;
	if (!out) {
		/* what is gone is looked for below the directories of the entry before */
		uint32_t parent = NONE;
		for (size_t i = 0; i < r->above.n; i++)
			if (is_below(t->path, r->above.v[i].path)) parent = r->above.v[i].item;
		if (r->o->metadata_only) {
			above_enter(r, t->path);
			if (replay_above(r, e) < 0) return -1;
			parent = parent_item(r);
			if (tree_is_hardlink(t) && check_link(r, t, NULL) < 0) t->linkname = (char *)(uintptr_t) "";
		}
		if (tree_is_hardlink(t) && check_link(r, t, e) < 0) return -1;
		if (materialise(r, t, p->has_proof, id, parent, &item, e) < 0) return -1;
		r->by_id.v[id] = item;
	}
	above_enter(r, t->path);
	if (tree_is_dir(t)) {
		struct above *a = vec_add(&r->above);
		a->path = xstrdup(t->path);
		a->item = item;
		if (item == NONE) tree_entry_copy(&a->entry, t);
	}
	return 0;
}
/* ---- the data ---- */
static int on_data(struct recv *r, const struct sess_packet *p, struct err *e)
{
	uint32_t item = p->id < r->by_id.n ? r->by_id.v[p->id] : NONE;
	struct item *it = item == NONE ? NULL : &r->items.v[item];
	if (!it || !it->asked) return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: invalid file request %u", p->id);
	if (!p->n_data) {
		it->asked = false;
		r->n_asked--;
	}
	return recv_file_data(r, item, p->data, p->n_data, e);
}

static int ask(struct recv *r, struct err *e)
{
	while (r->queue_at < r->queue.n && r->n_asked < OUTSTANDING) {
		struct item *it = &r->items.v[r->queue.v[r->queue_at++]];
		buf_reset(&r->packet);
		sess_packet_add(&r->packet, SESS_PACKET_REQ, it->id, NULL, 0);
		if (r->io->send(r->io->ctx, r->packet.p, r->packet.n, e) < 0) return -1;
		it->asked = true;
		r->n_asked++;
	}
	return 0;
}

/* ---- the end ---- */
static int write_metadata(struct recv *r, struct err *e)
{
	if (path_remove_all(r->o->dest_fd, METADATA_NAME, e) < 0) return -1;
	_cleanup_close_ int fd = sess_open_beneath(r->o->dest_fd, METADATA_NAME, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0) return err_sys(e, errno, "create " METADATA_NAME);
	return path_write_all(fd, r->metadata.p, r->metadata.n, e);
}

static int finish(struct recv *r, struct err *e)
{
	for (uint32_t i = 0; i < r->items.n; i++)
		if (r->items.v[i].state == ITEM_LINK && recv_make_link(r, i, e) < 0) return -1;
	for (uint32_t i = (uint32_t)r->items.n; i-- > 0;) {
		if (!r->items.v[i].touched) continue;
		if (recv_finish_dir(r, i, e) < 0) return -1;
	}
	return r->o->metadata_only ? write_metadata(r, e) : 0;
}

/* ---- when it goes wrong ---- */
enum { FROM_OLD = 1u << 31 }; /* flags, inside recover() only */

static void recover_item(struct recv *r, struct tree_index *z, uint32_t at)
{
	struct item *it = &r->items.v[at];
	const struct tree_entry *old = old_of(r, it);
	struct tree_entry *put = NULL;
	if (it->state == ITEM_KEPT || it->state == ITEM_DONE) {
		put = tree_index_put(z, entry_of(r, at));
		if (it->touched) put->uid = UINT32_MAX, put->mtime_ns = 0; /* a directory; its attributes are not set yet */
		if (it->state == ITEM_KEPT) put->flags |= FROM_OLD;
	} else if (old && (it->state == ITEM_OLD || it->state == ITEM_VERIFY || it->state == ITEM_LINK)) {
		put = tree_index_put(z, old);
		put->flags |= FROM_OLD;
	} else if (it->state == ITEM_BROKEN) {
		remove_path(r, entry_of(r, at)->path, NULL);
	}
}

/* A hard link to what has been replaced meanwhile is a stranger now. */
static void recover_links(struct recv *r, struct tree_index *z)
{
	for (size_t i = tree_index_count(z); i-- > 0;) {
		const struct tree_entry *t = tree_index_at(z, i);
		if (!tree_is_hardlink(t) || !(t->flags & FROM_OLD)) continue;
		const struct tree_entry *to = tree_index_find(z, t->linkname);
		if (to && (to->flags & FROM_OLD)) continue;
		_cleanup_free_ char *path = xstrdup(t->path);
		remove_path(r, path, NULL);
		tree_index_remove(z, path);
	}
	for (size_t i = 0; i < tree_index_count(z); i++) tree_index_at(z, i)->flags &= ~(uint32_t)FROM_OLD;
}

static struct tree_index *recover(struct recv *r)
{
	struct tree_index *z = tree_index_new();
	LIST_EACH(&r->files, struct rfile, f, link)
	{
		int dfd = recv_dir_fd(r, r->items.v[f->item].parent, NULL);
		if (f->fd >= 0 && dfd >= 0) unlinkat(dfd, *f->tmp ? f->tmp : path_base(entry_of(r, f->item)->path), 0);
	}
	for (uint32_t i = 0; i < r->items.n; i++) recover_item(r, z, i);
	for (; r->old_at < old_count(r); r->old_at++) tree_index_put(z, tree_index_at(r->o->old, r->old_at))->flags |= FROM_OLD;
	recover_links(r, z);
	return z;
}

/* ---- the run ---- */
enum { GOODBYE_BYTES = 2 }; /* of the packet FIN */
static int on_packet(struct recv *r, struct sess_packet *p, struct err *e)
{
	uint32_t none;
	switch (p->type) {
	case SESS_PACKET_STAT:
		if (r->listed) return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: a file after the end of the listing");
		if (p->has_stat) return on_stat(r, p, e);
		r->listed = true;
		return drop_until(r, NULL, &none, e);
	case SESS_PACKET_DATA: return on_data(r, p, e);
	case SESS_PACKET_ERR: {
		_cleanup_free_ char *said = utf8_clean((const char *)p->data, min_of(p->n_data, (size_t)65536));
		return err_set(e, CODE_UNKNOWN, "error from %s: %s", r->o->peer ? r->o->peer : "sender", said);
	}
	default: return err_set(e, CODE_INVALID_ARGUMENT, "file transfer: unexpected packet of type %d", (int)p->type);
	}
}

static int next_packet(struct recv *r, struct sess_packet *p, struct err *e)
{
	const uint8_t *in;
	size_t n;
	if (r->o->cancelled && atomic_load(r->o->cancelled)) return err_set(e, CODE_CANCELLED, "context canceled");
	int got = r->io->next(r->io->ctx, &in, &n, e);
	if (got <= 0) return got;
	r->st->bytes += n;
	if (r->o->bytes) atomic_store(r->o->bytes, r->st->bytes);
	return sess_packet_read(p, in, n, e) < 0 ? -1 : 1;
}

static int receive(struct recv *r, struct sess_packet *p, struct err *e)
{
	while (!r->listed || r->queue_at < r->queue.n || r->n_asked) {
		int got = next_packet(r, p, e);
		if (got < 0) return -1;
		if (!got) return err_set(e, CODE_UNAVAILABLE, "file transfer: the other side ended it early");
		if (on_packet(r, p, e) < 0 || ask(r, e) < 0) return -1;
	}
	return finish(r, e);
}

static void tell_error(struct recv *r, const struct err *e)
{
	const char *msg = e && e->msg ? e->msg : "failed";
	buf_reset(&r->packet);
	sess_packet_add(&r->packet, SESS_PACKET_ERR, 0, msg, strlen(msg));
	if (r->io->send(r->io->ctx, r->packet.p, r->packet.n, NULL) == 0) r->io->flush(r->io->ctx, NULL);
}

/* All is in place: say so; unless told to leave, wait for the same, then for the end. The result stands whatever comes. */
static int part(struct recv *r, struct sess_packet *p, struct err *e)
{
	buf_reset(&r->packet);
	sess_packet_add(&r->packet, SESS_PACKET_FIN, 0, NULL, 0);
	if (r->io->send(r->io->ctx, r->packet.p, r->packet.n, e) < 0 || r->io->flush(r->io->ctx, e) < 0) return -1;
	if (r->o->leave) { /* its answer, which nobody waits for, is counted: people know "2B" as the sign of no change */
		r->st->bytes += GOODBYE_BYTES;
		if (r->o->bytes) atomic_store(r->o->bytes, r->st->bytes);
	}
	while (!r->o->leave) {
		int got = next_packet(r, p, e);
		if (got <= 0) return got;
		if (p->type == SESS_PACKET_ERR && on_packet(r, p, e) < 0) return -1;
	}
	return 0;
}

static void recv_fini(struct recv *r)
{
	while (!list_empty(&r->files)) recv_file_free(r, list_first(&r->files, struct rfile, link));
	while (r->above.n) above_pop(r);
	for (size_t i = 0; i < OPEN_DIRS; i++) close_fd(&r->dirs[i].fd);
	if (r->trash_fd > 0) close(r->trash_fd);
	vec_fini(&r->above);
	vec_fini(&r->items);
	vec_fini(&r->by_id);
	vec_fini(&r->queue);
	free(r->last);
	free(r->stamps.key);
	free(r->stamps.item);
	buf_fini(&r->packet);
	buf_fini(&r->metadata);
	tree_index_free(r->now);
}

int sess_recv_run(const struct sess_recv *o, const struct sess_io *io, struct tree_index **ret_index,
		  struct sess_filesync_stats *st, struct err *e)
{
	_cleanup_err_ struct err local = ERR_INIT;
	_cleanup_sess_packet_ struct sess_packet p = {0};
	struct timespec t = time_now();
	_cleanup_(recv_fini) struct recv r = {
		.o = o, .io = io, .st = st, .now = tree_index_new(), .metadata = BUF_MAX(256 << 20)};
	r.started_ns = t.tv_sec * 1000000000 + t.tv_nsec;
	list_init(&r.files);
	for (size_t i = 0; i < OPEN_DIRS; i++) r.dirs[i].fd = -1;
	*st = (struct sess_filesync_stats){0};
	int rc = receive(&r, &p, &local);
	if (rc < 0) {
		tell_error(&r, &local);
		*ret_index = recover(&r);
		return err_move(e, &local);
	}
	rc = part(&r, &p, e);
	*ret_index = take_ptr(r.now);
	return rc;
}
