#ifndef SNAP_SNAP_H
#define SNAP_SNAP_H
/* Snapshots: trees of files as chains of layer directories, their records, and their mounts.
 *
 * A snapshot's chain (bottom to top) is made of layers; a layer is the snapshot that owns the directory
 * `<dir>/snapshots/<id>/fs`. A layer is in overlayfs' format: a deleted name is a 0/0 character device, an opaque
 * directory has the xattr trusted.overlay.opaque (user.overlay.opaque in a user namespace).
 *	SNAP_LAYER  parent's chain + its own directory
 *	SNAP_MERGE  the chains of its parents, one after the other; no directory
 *	SNAP_RANGE  the upper end of its parent's chain (a diff whose lower is a prefix); no directory
 *	SNAP_DIFF   its own directory alone: what a comparison of two trees found; parents are lower and upper
 *
 * Invariants
 *  1. `struct snap` lives on the loop thread. Jobs get a `struct snap_view`: paths, copied.
 *  2. A committed layer's directory never changes while anyone refers to it.
 *  3. Holding a snapshot holds its parents: refs > 0 is BuildKit's InUse. Records outlive refs: they are the cache.
 *     snap_remove takes a record away, for one without refs and children.
 *  4. A row is written after its directory is whole; a directory goes (by one rename) after its row. What a kill leaves, rows
 *     without directories and the reverse, is dropped by the next snap_store_open.
 *  5. Rows carry the boot id until a syncfs covered them; after an unclean reboot such rows are dropped, with their children.
 *     Long-lived ones other than cache mounts change again and again, and what they hold must be right: only a clean stop marks
 *them.
 *  6. Nothing is left mounted by a kill: roots are detached mounts, and attached ones live in the daemon's own namespace.
 *
 * Directories are made by the first view that writes, so loop-side calls touch only memory and the database. */
#include "base/base.h"
#include <stdatomic.h>

struct db;
struct loop;
struct snap_store;
struct snap_view;

/* ---- records (loop thread; read the fields, change them by the functions) ---- */
enum snap_kind { SNAP_LAYER, SNAP_MERGE, SNAP_RANGE, SNAP_DIFF };
enum snap_state {
	SNAP_ACTIVE,    /* being written */
	SNAP_LAZY,      /* whole, but its own directory is not unpacked yet: blobs say where from (snap_filled ends this) */
	SNAP_COMMITTED, /* whole and on disk */
};
/* BuildKit's record types (api UsageRecord.RecordType); NULL counts as regular. */
#define SNAP_REGULAR "regular"
#define SNAP_INTERNAL "internal"
#define SNAP_FRONTEND "frontend"
#define SNAP_SOURCE_LOCAL "source.local"
#define SNAP_SOURCE_GIT "source.git.checkout"
#define SNAP_CACHEMOUNT "exec.cachemount"

/* One compressed form of a layer. Strings are owned by the record that holds it; a caller's are copied. */
struct snap_blob {
	char *compression; /* "uncompressed", "gzip", "estargz", "zstd" */
	char *digest;      /* "sha256:..." */
	char *media_type;
	int64_t size;
	struct strvec annotations; /* "key=value" */
	char *source;              /* the repository where it can be had ("docker.io/library/alpine"), NULL: local only */
	int64_t created_at_ns;
};

struct snap {
	int64_t id;
	char uid[ID_STR]; /* the API's id */
	enum snap_kind kind;
	enum snap_state state;
	const char *type; /* one of the above */
	char *description;
	VEC(struct snap *) parents; /* LAYER: none or one; MERGE: in order; RANGE: the upper one; DIFF: lower?, upper? */
	VEC(struct snap *) chain;   /* layers, bottom to top, itself included */
	int64_t created_at_ns, last_used_at_ns; /* last_used 0: never */
	int64_t usage_count;
	int64_t size_bytes; /* of its own layer; -1 unknown; 0 for MERGE and RANGE */
	char *key;          /* long-lived: what it is found by */
	bool is_mutable;    /* long-lived and now not frozen */
	char *diff_id;      /* of its own layer */
	char *chain_id;     /* see snap_chain_id */
	VEC(struct snap_blob) blobs;

	/* private */
	struct snap_store *store;
	size_t refs, children, locks;
	bool has_row, durable;
	size_t range_from; /* RANGE: how many layers of its parent are left out */
	struct snap *diff_lower;
	struct snap_mnt *mnt;
	struct list pending;
};

/* ---- the store ---- */
struct snap_opts {
	const char *dir;     /* "<root>/slipway"; snapshots/ is made below it */
	const char *mode;    /* "auto" (NULL), "overlayfs", "native" */
	const char *boot_id; /* NULL: the kernel's; for tests */
	int64_t durable_ms;  /* 0: 1000 */
};
/* Loads the records, drops what a crash left (the directories' deletion goes on in a job), finds out whether overlay can be
 * mounted here. loop NULL (tests, tools): no background work. Blocks; call it at start. "overlayfs" where it cannot be is
 * FAILED_PRECONDITION. */
int snap_store_open(struct loop *loop, struct db *db, const struct snap_opts *o, struct snap_store **ret, struct err *e);
/* Marks everything as durable (syncfs; blocks) and frees the records. Views must be gone; jobs must have ended
 * (snap_store_idle). */
void snap_store_close(struct snap_store *s);
bool snap_store_idle(const struct snap_store *s);
const char *snap_store_name(const struct snap_store *s); /* "overlayfs" or "native": the worker's snapshotter label */
void snap_empty_trash(struct snap_store *s);             /* soon, in a job */
/* The same for what a sync replaced, when nobody waits for its space: freeing files takes the disk from a build (1 ms each where it
 * discards blocks), so this waits until busy() says no, but not for longer than half a minute. */
void snap_empty_trash_later(struct snap_store *s);
void snap_store_on_busy(struct snap_store *s, bool (*busy)(void *arg), void *arg);
/* Told before a record goes away, whoever removes it. One listener. */
void snap_store_on_remove(struct snap_store *s, void (*fn)(void *arg, struct snap *sn), void *arg);
/* All records, active ones too, oldest first. `it` may be removed inside. */
#define SNAP_EACH(s, it) \
	for (struct snap *it = snap_after((s), 0), *it##_n; it && (it##_n = snap_after((s), it->id), 1); it = it##_n)
struct snap *snap_after(struct snap_store *s, int64_t id); /* the record with the next greater id, NULL at the end */

struct snap *snap_ref(struct snap *s);
void snap_unref(struct snap *s); /* NULL allowed. An active one without a key that nobody holds is discarded */
static inline bool snap_in_use(const struct snap *s) { return s->refs > 0; }
struct snap *snap_find(struct snap_store *s, int64_t id); /* finders borrow: ref what you keep; NULL when absent */
struct snap *snap_find_uid(struct snap_store *s, const char *uid);
struct snap *snap_find_key(struct snap_store *s, const char *key);
struct snap *snap_find_chain(struct snap_store *s, const char *chain_id);

/* ---- making them. Results are referenced: the caller unrefs. Inputs are held by the new one ---- */
/* An active layer upon parent (NULL: upon nothing). Write through a view; then snap_view_seal in a job; then commit. */
struct snap *snap_create(struct snap_store *s, struct snap *parent, const char *description, const char *type);
/* The row is written; its state is COMMITTED from here on. Needs a snap_view_seal that succeeded and no view that writes. */
int snap_commit(struct snap *active, struct err *e);
/* The caller's reference is taken; the directory goes. For active ones. */
void snap_discard(struct snap *active);
/* A lazy layer: committed at once, its directory comes later. At least one blob should be added. The one that is there already
 * when parent's chain ID and diff_id name it. */
struct snap *snap_create_lazy(struct snap_store *s, struct snap *parent, const char *diff_id, const char *description,
			      const char *type, struct err *e);
int snap_filled(struct snap *lazy, struct err *e); /* after snap_fill_commit: COMMITTED from here on */
/* Layers that still have to be filled, bottom to top; each has to be filled after those before it. Borrowed. */
size_t snap_lazy_layers(const struct snap *s, struct snap **ret, size_t max);
/* The chains one after the other; of a layer that comes twice the upper place counts. n == 1 answers the input itself. NULL
 * inputs (scratch) are left out; NULL is the answer when none remains. An equal merge that exists is reused. */
struct snap *snap_merge(struct snap_store *s, struct snap *const *in, size_t n, const char *description, struct err *e);
/* What upper has over lower. 1: *ret is done (NULL: nothing at all, scratch). 0: *ret is an active SNAP_DIFF; run
 * snap_diff_compute on the three views in a job, then snap_commit it (no seal). NULL inputs are scratch. */
int snap_diff(struct snap_store *s, struct snap *lower, struct snap *upper, const char *description, struct snap **ret,
	      struct err *e);

/* ---- long-lived mutable ones: local sources, cache mounts ---- */
/* Give an active snapshot a key: its row is written now and it outlives its refs and the daemon. A key names one record:
 * ALREADY_EXISTS otherwise. key NULL takes it away. */
int snap_set_key(struct snap *s, const char *key, struct err *e);
/* Use by one (exclusive) or together (shared); false when it cannot be had now. One snap_unlock each. */
bool snap_lock(struct snap *s, bool exclusive);
void snap_unlock(struct snap *s);
bool snap_locked(const struct snap *s);
/* Freeze: the mutable becomes an immutable layer, usable as parent and result, that keeps its key. After snap_view_seal. */
int snap_freeze(struct snap *s, struct err *e);
/* Thaw: 1: it is mutable again (nobody but the caller held it; result rows that name it are deleted). 0: others use it;
 * *ret_copy is a new active one (it took the key): run snap_copy_tree(view of s, view of *ret_copy) in a job before writing. -1
 * error. */
int snap_thaw(struct snap *s, struct snap **ret_copy, struct err *e);

/* ---- record keeping ---- */
void snap_used(struct snap *s); /* last used now, usage_count + 1 */
void snap_set_size(struct snap *s, int64_t bytes);
void snap_set_description(struct snap *s, const char *text);
void snap_set_type(struct snap *s, const char *type);
void snap_set_created(struct snap *s, int64_t at_ns);
/* FAILED_PRECONDITION while it is in use or has children. The directory is renamed away and deleted by a job. */
int snap_remove(struct snap *s, struct err *e);
bool snap_removable(const struct snap *s);

/* ---- layers and their blobs ---- */
int snap_set_diff_id(struct snap *layer, const char *diff_id, struct err *e);
/* Adds or replaces (by digest). */
int snap_blob_add(struct snap *layer, const struct snap_blob *b, struct err *e);
int snap_blob_drop(struct snap *layer, const char *digest, struct err *e); /* its bytes are gone and have no source */
/* compression NULL: any (the oldest). Borrowed; NULL when absent. */
const struct snap_blob *snap_blob_find(const struct snap *layer, const char *compression);
const struct snap_blob *snap_blob_find_digest(const struct snap *layer, const char *digest);
bool snap_store_has_blob(struct snap_store *s, const char *digest); /* does any record name it? For the blobs' GC */
/* The layers of an export, bottom to top: s->chain. What to compare a layer with: the tree of snap_layer_lower (NULL: nothing).
 */
struct snap *snap_layer_lower(const struct snap *layer);
/* The OCI chain ID once every layer below has a diff ID, else NULL; kept and found by snap_find_chain. */
const char *snap_chain_id(struct snap *s);

/* ---- views: values for jobs (none of their code includes loop) ----
 * snap_view_new and _free on the loop thread; all else in jobs, blocking. A view does not hold its snapshot: keep a reference.
 * At most one job at a time uses one view; views of one snapshot may be used side by side. */
struct snap_view *snap_view_new(struct snap *s);
struct snap_view *snap_view_empty(struct snap_store *s); /* scratch: an empty tree, read-only */
void snap_view_free(struct snap_view *v);                /* NULL allowed */
/* The whole tree as a directory fd on a detached mount, or on the directory itself where that shows the same. Paths below it
 * are a peer's: path_open_in. It stays usable until closed. writable: active snapshots only (FAILED_PRECONDITION). */
int snap_view_open_root(const struct snap_view *v, bool writable, struct err *e);
/* Where a file of the active layer can be made behind its mount's back, after open_root: 0, with *ret_fd the upper directory of
 * that mount, or -1 there when the root is the layer's directory itself. -1: there is no such place (native). */
int snap_view_open_upper(const struct snap_view *v, int *ret_fd, struct err *e);
/* The layer's own directory (for tar_diff_overlay and usage); NOT_FOUND while lazy or nothing was written. */
int snap_view_open_layer(const struct snap_view *v, struct err *e);
/* The tree at path target (which exists). An active one is writable unless read_only; others are always read-only. */
int snap_view_mount(const struct snap_view *v, const char *target, bool read_only, struct err *e);
int snap_view_umount(const char *target, struct err *e); /* lazily (MNT_DETACH); not mounted is fine */
/* The writer is done: makes the layer directory what commit promises (native: compare with the parents' tree). */
int snap_view_seal(const struct snap_view *v, struct err *e);
/* Before the seal, for what a container wrote (tidy_job.c): lower is the opened tree of the parent. */
int snap_view_tidy(const struct snap_view *v, int lower, struct err *e);
bool snap_view_plain(const struct snap_view *v); /* nothing is below: whiteouts in it mean nothing */
/* Bytes on disk of the own layer (blocks * 512, a hard linked file once). 0 when there is none. */
int64_t snap_view_usage(const struct snap_view *v, const atomic_bool *cancelled, struct err *e);
bool snap_view_userxattr(const struct snap_view *v);

/* Where the writer of v may put what it has no more use of: the path (heap) of a directory that is not there yet, on the same
 * disk. snap_view_trash_give takes the path and hands what is there to the next snap_empty_trash: was there anything? What a
 * kill leaves goes at the next start. */
char *snap_view_trash(const struct snap_view *v);
bool snap_view_trash_give(const struct snap_view *v, char *path);

/* Fill a lazy layer: unpack into a directory beside its place, then rename. Jobs. */
struct snap_fill {
	int dirfd;
	char *name;
	const struct snap_view *view;
};
int snap_fill_begin(const struct snap_view *lazy, struct snap_fill *ret, struct err *e);
/* Two jobs that filled the same layer: the second one's is dropped. */
int snap_fill_commit(struct snap_fill *f, struct err *e);
void snap_fill_abort(struct snap_fill *f); /* harmless after commit and on {.dirfd = -1} */

/* Compare the trees and write what upper has over lower into diff's own directory, in overlay format. */
int snap_diff_compute(const struct snap_view *lower, const struct snap_view *upper, const struct snap_view *diff,
		      const atomic_bool *cancelled, struct err *e);
/* The whole tree of `from` into the active `to`, reflinked where the disk can; no hard links to the source. */
int snap_copy_tree(const struct snap_view *from, const struct snap_view *to, const atomic_bool *cancelled, struct err *e);
#endif
