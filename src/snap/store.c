/* The store: opening with recovery, finders, deletion in the background, and the mark of what is durable.
 *
 *  1. `all` is sorted by id; ids only grow, so parents come before children.
 *  2. Recovery: new/ is emptied; directories that no row names, and those of lazy rows, go to the trash; rows whose directory
 *     or parent is missing, or that an unclean reboot made doubtful, are deleted (rows.c).
 *  3. A record that was written waits in `pending`. After a second without another one (at most ten), a job runs syncfs; the
 *     records it covered are then marked as durable. What is written meanwhile waits for the next round.
 *  4. Long-lived sources are rewritten in place, in jobs that no row foretells. So they count as doubtful for as long as a
 * daemon runs: marked at a clean stop, unmarked (durably) at the start. */
#include "snap/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

enum { SNAP_PEND_MAX_MS = 10000 };

int64_t snap_now_ns(void)
{
	struct timespec t = time_now();

	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

const char *snap_type_intern(const char *type)
{
	static const char *const types[] = {SNAP_REGULAR,      SNAP_INTERNAL,   SNAP_FRONTEND,
					    SNAP_SOURCE_LOCAL, SNAP_SOURCE_GIT, SNAP_CACHEMOUNT};

	for (size_t i = 0; i < array_len(types); i++)
		if (type && strcmp(type, types[i]) == 0) return types[i];
	return SNAP_REGULAR;
}

/* ---- finding ---- */

/* The first place whose id is greater than `id`. */
static size_t store_place(const struct snap_store *s, int64_t id)
{
	size_t lo = 0, hi = s->all.n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (s->all.v[mid]->id > id)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

struct snap *snap_after(struct snap_store *s, int64_t id)
{
	size_t i = store_place(s, id);

	return i < s->all.n ? s->all.v[i] : NULL;
}

struct snap *snap_find(struct snap_store *s, int64_t id)
{
	struct snap *sn = snap_after(s, id - 1);

	return sn && sn->id == id ? sn : NULL;
}

struct snap *snap_find_uid(struct snap_store *s, const char *uid) { return map_get(&s->by_uid, uid); }
struct snap *snap_find_key(struct snap_store *s, const char *key) { return map_get(&s->by_key, key); }
const char *snap_store_name(const struct snap_store *s) { return s->caps.overlay ? "overlayfs" : "native"; }

void snap_store_on_remove(struct snap_store *s, void (*fn)(void *arg, struct snap *sn), void *arg)
{
	s->on_remove = fn;
	s->on_remove_arg = arg;
}

/* ---- adding and dropping records ---- */

struct snap *snap_store_add(struct snap_store *s, int64_t id, enum snap_kind kind)
{
	struct snap *sn = xnew(struct snap);

	sn->id = id ? id : s->next_id;
	ensure(!s->all.n || s->all.v[s->all.n - 1]->id < sn->id);
	s->next_id = max_of(s->next_id, sn->id + 1);
	sn->store = s;
	sn->kind = kind;
	sn->type = SNAP_REGULAR;
	sn->size_bytes = kind == SNAP_MERGE || kind == SNAP_RANGE ? 0 : -1;
	list_init(&sn->pending);
	vec_push(&s->all, sn);
	return sn;
}

static void map_del_own(struct map *m, const char *key, const struct snap *sn)
{
	if (key && map_get(m, key) == sn) map_del(m, key);
}

void snap_store_drop(struct snap *sn)
{
	struct snap_store *s = sn->store;
	size_t i = store_place(s, sn->id - 1);

	ensure(i < s->all.n && s->all.v[i] == sn && sn->children == 0);
	snap_blobs_forget(sn);
	snap_shape_del(sn);
	map_del_own(&s->by_uid, sn->uid, sn);
	map_del_own(&s->by_key, sn->key, sn);
	map_del_own(&s->by_chain, sn->chain_id, sn);
	list_del(&sn->pending);
	vec_remove(&s->all, i);
	for (size_t k = 0; k < sn->parents.n; k++) sn->parents.v[k]->children--;
	snap_mnt_unref(sn->mnt);
	vec_fini(&sn->parents);
	vec_fini(&sn->chain);
	free(sn->description);
	free(sn->key);
	free(sn->diff_id);
	free(sn->chain_id);
	free(sn);
}

/* ---- deletion ---- */

static void empty_work(struct loop_job *j)
{
	struct snap_store *s = container_of(j, struct snap_store, empty_job);
	_cleanup_err_ struct err e = ERR_INIT;

	if (snap_trash_empty(s->base, &e) < 0) log_debug("deleting snapshots: %s", e.msg); /* base does not change */
}

static void empty_done(struct loop_job *j)
{
	struct snap_store *s = container_of(j, struct snap_store, empty_job);

	s->jobs--;
	s->empty_running = false;
	if (s->empty_again) snap_empty_trash(s);
}

void snap_empty_trash(struct snap_store *s)
{
	s->empty_again = s->empty_running;
	if (s->empty_running) return;
	s->empty_job = (struct loop_job){.work = empty_work, .done = empty_done};
	if (!s->loop) {
		empty_work(&s->empty_job);
		return;
	}
	s->empty_running = true;
	s->jobs++;
	loop_job_start(s->loop, &s->empty_job, LOOP_DISK);
}

enum { LATER_MS = 1000, LATER_MAX_MS = 30000 };

static void later(void *arg)
{
	struct snap_store *s = arg;

	if (s->busy && s->busy(s->busy_arg) && time_mono_ns() - s->later_since_ns < LATER_MAX_MS * INT64_C(1000000)) return;
	s->later_since_ns = 0;
	loop_timer_stop(&s->later);
	snap_empty_trash(s);
}

void snap_empty_trash_later(struct snap_store *s)
{
	if (!s->loop) {
		snap_empty_trash(s);
		return;
	}
	if (s->later_since_ns) return;
	s->later_since_ns = time_mono_ns();
	loop_timer_start(s->loop, &s->later, LATER_MS, LATER_MS, later, s);
}

void snap_store_on_busy(struct snap_store *s, bool (*busy)(void *arg), void *arg)
{
	s->busy = busy;
	s->busy_arg = arg;
}

struct trash_job {
	struct loop_job job;
	struct snap_store *store;
	char *base;
	int64_t id;
};

static void trash_move(const char *base, int64_t id)
{
	_cleanup_err_ struct err e = ERR_INIT;

	if (snap_trash_move(base, id, &e) < 0) log_debug("deleting snapshots: %s", e.msg);
}

static void trash_work(struct loop_job *j)
{
	struct trash_job *t = container_of(j, struct trash_job, job);

	trash_move(t->base, t->id);
}

static void trash_done(struct loop_job *j)
{
	struct trash_job *t = container_of(j, struct trash_job, job);

	t->store->jobs--;
	snap_empty_trash(t->store);
	free(t->base);
	free(t);
}

void snap_store_trash(struct snap_store *s, int64_t id)
{
	struct trash_job *t;

	if (!s->loop) {
		trash_move(s->base, id);
		snap_empty_trash(s);
		return;
	}
	t = xnew(struct trash_job);
	*t = (struct trash_job){
		.job = {.work = trash_work, .done = trash_done}, .store = s, .base = xstrdup(s->base), .id = id};
	s->jobs++;
	loop_job_start(s->loop, &t->job, LOOP_DISK);
}

/* ---- durability ---- */

static void sync_work(struct loop_job *j)
{
	struct snap_store *s = container_of(j, struct snap_store, sync_job);
	_cleanup_close_ int fd = open(s->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* base does not change */

	s->sync_failed = fd < 0 || syncfs(fd) < 0;
}

static void pend_arm(struct snap_store *s);

static void sync_marked(struct snap_store *s, struct list *head)
{
	LIST_EACH(head, struct snap, sn, pending)
	{
		list_del(&sn->pending);
		snap_row_set_boot(sn, true);
	}
}

static void sync_done(struct loop_job *j)
{
	struct snap_store *s = container_of(j, struct snap_store, sync_job);

	s->sync_running = false;
	if (!s->sync_failed) sync_marked(s, &s->syncing);
	LIST_EACH(&s->syncing, struct snap, sn, pending)
	{
		list_del(&sn->pending);
		list_add_tail(&s->pending, &sn->pending);
	}
	if (!list_empty(&s->pending)) pend_arm(s);
}

static void sync_start(void *arg)
{
	struct snap_store *s = arg;

	loop_timer_stop(&s->timer);
	if (s->sync_running || list_empty(&s->pending)) return;
	LIST_EACH(&s->pending, struct snap, sn, pending)
	{
		list_del(&sn->pending);
		list_add_tail(&s->syncing, &sn->pending);
	}
	s->pending_since_ns = 0;
	s->sync_running = true;
	s->sync_job = (struct loop_job){.work = sync_work, .done = sync_done};
	loop_job_start(s->loop, &s->sync_job, LOOP_DISK);
}

static void pend_arm(struct snap_store *s)
{
	int64_t now = time_mono_ns();

	if (!s->loop || s->sync_running) return;
	if (!s->pending_since_ns) s->pending_since_ns = now;
	if (now - s->pending_since_ns > (int64_t)SNAP_PEND_MAX_MS * 1000000) return; /* the armed one shall fire */
	loop_timer_start(s->loop, &s->timer, (uint64_t)s->durable_ms, 0, sync_start, s);
}

/* A cache mount's user has to bear with a torn cache anyway, and would miss it more than he would mind. */
static bool is_doubtful(const struct snap *sn) { return sn->key && strcmp(sn->type, SNAP_CACHEMOUNT) != 0; }

void snap_store_pend(struct snap *sn)
{
	if (is_doubtful(sn)) return;
	list_del(&sn->pending);
	list_add_tail(&sn->store->pending, &sn->pending);
	pend_arm(sn->store);
}

/* ---- opening ---- */

/* The numeric names below base; those that hold `fs` are put into `dirs`. */
static int store_scan(struct snap_store *s, int fd, struct map *dirs, struct strvec *all, struct err *e)
{
	_cleanup_strvec_ struct strvec names = {0};

	if (snap_dir_names(fd, &names, e) < 0) return -1;
	for (size_t i = 0; i < names.n; i++) {
		char *end, sub[40];
		int64_t id = strtoll(names.v[i], &end, 10);
		if (id <= 0 || *end) continue;
		s->next_id = max_of(s->next_id, id + 1);
		strvec_add(all, names.v[i]);
		snprintf(sub, sizeof sub, "%jd/fs", (intmax_t)id);
		if (faccessat(fd, sub, F_OK, 0) == 0) map_put(dirs, names.v[i], s);
	}
	return 0;
}

static int store_clean(struct snap_store *s, int fd, const struct strvec *all, struct err *e)
{
	for (size_t i = 0; i < all->n; i++) {
		int64_t id = strtoll(all->v[i], NULL, 10);
		const struct snap *sn = snap_find(s, id);
		if ((!sn || sn->state == SNAP_LAZY) && snap_trash_move(s->base, id, e) < 0) return -1;
	}
	return 0;
}

/* ext4: directories in `path` have nothing to do with each other, so each gets a block group with room of its own. Without it
 * all files come from the group of our parent, where creating one gets slow when many were deleted of late. A hint: others
 * refuse. */
static void spread(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int flags;

	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || flags & FS_TOPDIR_FL) return;
	flags |= FS_TOPDIR_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* What was being made: to the trash as a whole, since deleting may take long. */
static int store_empty_new(struct snap_store *s, struct err *e)
{
	_cleanup_free_ char *dir = path_join(s->base, "new"), *to = NULL;
	char id[ID_STR];

	id_new(id);
	to = xasprintf("%s/trash/new-%s", s->base, id);
	if (rename(dir, to) < 0 && errno != ENOENT) return err_sys(e, errno, "%s", dir);
	if (path_mkdirs(dir, 0700, e) < 0) return -1;
	spread(dir);
	return 0;
}

static int store_dirs(struct snap_store *s, const char *dir, struct err *e)
{
	_cleanup_free_ char *real = NULL;

	_cleanup_free_ char *base = path_join(dir, "snapshots");
	_cleanup_free_ char *empty = path_join(base, "empty"), *trash = path_join(base, "trash");
	if (path_mkdirs(base, 0711, e) < 0 || path_mkdirs(trash, 0700, e) < 0 || path_mkdirs(empty, 0755, e) < 0) return -1;
	if (chmod(empty, 0755) < 0) return err_sys(e, errno, "%s", empty);
	if (!(real = realpath(base, NULL)))
		return err_sys(e, errno, "%s", base); /* absolute: jobs have other working directories */
	s->base = take_ptr(real);
	spread(s->base);
	return store_empty_new(s, e);
}

static int store_mode(struct snap_store *s, const char *mode, struct err *e)
{
	_cleanup_err_ struct err why = ERR_INIT;

	if (mode && strcmp(mode, "native") == 0) return 0;
	if (mode && strcmp(mode, "overlayfs") != 0 && strcmp(mode, "auto") != 0)
		return err_set(e, CODE_INVALID_ARGUMENT, "unknown snapshotter %s: auto, overlayfs and native are known", mode);
	snap_mount_probe(s->base, &s->caps, &why);
	if (s->caps.overlay) return 0;
	if (mode && strcmp(mode, "overlayfs") == 0)
		return err_set(e, CODE_FAILED_PRECONDITION, "snapshotter overlayfs cannot be used below %s: %s", s->base,
			       why.msg);
	log_info("overlayfs cannot be used below %s, files are copied instead: %s", s->base, why.msg);
	return 0;
}

static int store_load(struct snap_store *s, struct err *e)
{
	_cleanup_map_ struct map dirs = {0};
	_cleanup_strvec_ struct strvec all = {0};
	_cleanup_close_ int fd = open(s->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) return err_sys(e, errno, "%s", s->base);
	if (store_scan(s, fd, &dirs, &all, e) < 0) return -1;
	if (snap_rows_load(s, &dirs, e) < 0 || snap_blobs_load(s, e) < 0) return -1;
	return store_clean(s, fd, &all, e);
}

static int store_doubt(struct snap_store *s, struct err *e)
{
	bool any = false;

	SNAP_EACH(s, sn)
	{
		if (!is_doubtful(sn) || !sn->durable) continue;
		snap_row_set_boot(sn, false);
		any = true;
	}
	return any ? db_sync(s->db, e) : 0;
}

static int store_boot_id(struct snap_store *s, const char *given, struct err *e)
{
	uint8_t *p;
	size_t n;

	if (given) {
		s->boot_id = xstrdup(given);
		return 0;
	}
	if (path_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &p, &n, e) < 0) return -1;
	s->boot_id = (char *)p;
	s->boot_id[strcspn(s->boot_id, "\n")] = 0;
	return 0;
}

static void store_free(struct snap_store *s)
{
	while (s->all.n) snap_store_drop(s->all.v[s->all.n - 1]); /* children first */
	vec_fini(&s->all);
	map_fini(&s->by_uid);
	map_fini(&s->by_key);
	map_fini(&s->by_chain);
	map_fini(&s->by_shape);
	map_fini(&s->blobs);
	free(s->base);
	free(s->boot_id);
	free(s);
}

int snap_store_open(struct loop *loop, struct db *db, const struct snap_opts *o, struct snap_store **ret, struct err *e)
{
	struct snap_store *s = xnew(struct snap_store);

	s->loop = loop;
	s->db = db;
	s->next_id = 1;
	s->durable_ms = o->durable_ms ? o->durable_ms : 1000;
	list_init(&s->pending);
	list_init(&s->syncing);
	if (store_dirs(s, o->dir, e) < 0 || store_boot_id(s, o->boot_id, e) < 0 || store_mode(s, o->mode, e) < 0 ||
	    store_load(s, e) < 0 || store_doubt(s, e) < 0) {
		if (loop) loop_timer_stop(&s->timer);
		store_free(s);
		return err_wrap(e, "snapshots");
	}
	snap_empty_trash(s);
	*ret = s;
	return 0;
}

bool snap_store_idle(const struct snap_store *s) { return !s->jobs && !s->sync_running; }

/* Everything is on disk: say so. */
static void store_settle(struct snap_store *s)
{
	_cleanup_close_ int fd = open(s->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool any = !list_empty(&s->pending);

	SNAP_EACH(s, sn) any |= !sn->durable && sn->has_row;
	if (!any || fd < 0 || syncfs(fd) < 0) return;
	sync_marked(s, &s->pending);
	SNAP_EACH(s, sn)
	{
		if (sn->has_row) snap_row_set_boot(sn, true);
	}
}

void snap_store_close(struct snap_store *s)
{
	if (!s) return;
	ensure(snap_store_idle(s));
	if (s->loop) {
		loop_timer_stop(&s->timer);
		loop_timer_stop(&s->later);
	}
	store_settle(s);
	store_free(s);
}
