#ifndef TAR_TAR_H
#define TAR_TAR_H
/* Tar archives and the compression around them, as byte filters.
 *
 * A stream is a callback and its context: tar_in pulls, tar_out pushes. A filter is itself a tar_in or tar_out, so they
 * chain: blob file -> tar_decomp -> tar_reader -> tar_apply; tar_diff -> tar_writer -> tar_comp -> blob ingest.
 * All functions here block (on the streams and the disk) and may be called from any thread, one thread at a time an
 * object: they belong in jobs. A cancelled job ends by its own callback answering -1.
 * Sources: POSIX pax, Go's archive/tar writer (layout of headers), OCI image-spec layer.md, containerd pkg/archive. */
#include "base/base.h"

/* ---- streams ---- */
/* read: up to n bytes, 0 at the end, -1 error. It may answer short. */
struct tar_in {
	ssize_t (*read)(void *ctx, void *buf, size_t n, struct err *e);
	void *ctx;
};
/* write: all n bytes or -1. */
struct tar_out {
	int (*write)(void *ctx, const void *p, size_t n, struct err *e);
	void *ctx;
};
struct tar_in tar_in_fd(const int *fd); /* fd stays the caller's; *fd must outlive the stream */
struct tar_out tar_out_fd(const int *fd);
struct tar_out tar_out_buf(struct buf *b); /* RESOURCE_EXHAUSTED past the buffer's maximum */
struct tar_mem {
	const uint8_t *p;
	size_t n;
};
struct tar_in tar_in_mem(struct tar_mem *m);                                           /* consumes *m */
int tar_copy(struct tar_in in, struct tar_out out, int64_t *ret_bytes, struct err *e); /* ret_bytes may be NULL */

/* What went through a stream. Fill in `in` or `out`, init, use the stream, then final. */
struct tar_tee {
	struct tar_in in;
	struct tar_out out;
	struct hasher h;
	int64_t bytes;
};
void tar_tee_init(struct tar_tee *t);
struct tar_in tar_tee_in(struct tar_tee *t);
struct tar_out tar_tee_out(struct tar_tee *t);
void tar_tee_final(struct tar_tee *t, char out[static DIGEST_STR]); /* releases the hasher */
void tar_tee_fini(struct tar_tee *t);                               /* without a result; harmless after final */

/* ---- compression ---- */
enum tar_kind { TAR_PLAIN, TAR_GZIP, TAR_ZSTD, TAR_XZ, TAR_BZIP2 };
enum { TAR_LEVEL_DEFAULT = INT32_MIN, TAR_MAGIC_BYTES = 8 };
const char *tar_kind_name(enum tar_kind k);           /* "uncompressed", "gzip", "zstd", "xz", "bzip2" */
enum tar_kind tar_detect(const void *head, size_t n); /* by magic; TAR_PLAIN when none is known */

/* Decompressor: detects the kind from the first bytes. gzip may have several members, zstd several frames; what follows
 * the last one must be zeros or nothing (else INVALID_ARGUMENT). A truncated stream is DATA_LOSS. max_bytes bounds what
 * comes out (0: no bound; RESOURCE_EXHAUSTED). */
struct tar_decomp;
int tar_decomp_new(struct tar_in in, int64_t max_bytes, struct tar_decomp **ret, struct err *e);
enum tar_kind tar_decomp_kind(const struct tar_decomp *d);
struct tar_in tar_decomp_in(struct tar_decomp *d);
void tar_decomp_free(struct tar_decomp *d); /* NULL allowed */
static inline void tar_decomp_freep(struct tar_decomp **d) { tar_decomp_free(*d); }
#define _cleanup_tar_decomp_ _cleanup_(tar_decomp_freep)

/* Compressor for TAR_PLAIN, TAR_GZIP and TAR_ZSTD; hashes both sides in the same pass. The bytes that come out depend on
 * the input, kind and level only, never on `threads` (0: as many as cores) nor on how the input was cut into writes:
 * gzip is one member for each MiB of input, compressed on threads of its own (valid for every reader that takes
 * concatenated members: gzip(1), Go, zlib). Levels: gzip 0..9 (-1, -2 as Go), zstd 1..22; TAR_LEVEL_DEFAULT is 6 and 3. */
struct tar_sums {
	char digest[DIGEST_STR];  /* of what was written out */
	char diff_id[DIGEST_STR]; /* of what was put in */
	int64_t size, diff_size;
};
struct tar_comp;
int tar_comp_new(struct tar_out out, enum tar_kind kind, int level, int threads, struct tar_comp **ret, struct err *e);
struct tar_out tar_comp_out(struct tar_comp *c);
int tar_comp_finish(struct tar_comp *c, struct tar_sums *ret, struct err *e);
void tar_comp_free(struct tar_comp *c); /* NULL allowed; without finish it drops what is buffered */
static inline void tar_comp_freep(struct tar_comp **c) { tar_comp_free(*c); }
#define _cleanup_tar_comp_ _cleanup_(tar_comp_freep)

/* ---- entries ---- */
enum tar_type {
	TAR_REG = '0',
	TAR_LINK = '1',
	TAR_SYMLINK = '2',
	TAR_CHAR = '3',
	TAR_BLOCK = '4',
	TAR_DIR = '5',
	TAR_FIFO = '6',
};
struct tar_xattr {
	const char *name; /* "security.capability" */
	const void *value;
	size_t len;
};
struct tar_entry {
	const char *name;     /* as in the archive: a directory may end in '/' */
	const char *linkname; /* "" when none */
	const char *uname, *gname;
	enum tar_type type;
	uint32_t mode;    /* permission bits with setuid, setgid, sticky */
	int64_t uid, gid; /* never negative from the reader */
	int64_t size;     /* of the data; for TAR_REG only */
	struct timespec mtime;
	/* PAX atime and ctime; absent (and not written) when has_ is false. */
	struct timespec atime, ctime;
	bool has_atime, has_ctime;
	uint32_t devmajor, devminor;
	const struct tar_xattr *xattrs;
	size_t n_xattrs;
};

/* ---- writer: the bytes Go's archive/tar writes with Format unset-or-PAX, i.e. ustar wherever it fits, else PAX ---- */
struct tar_writer;
struct tar_writer *tar_writer_new(struct tar_out out); /* buffers; nothing is lost only after finish */
/* NULL strings count as "". A sub-second mtime is written as a PAX record: truncate it first where BuildKit does. */
int tar_write_header(struct tar_writer *w, const struct tar_entry *t, struct err *e);
int tar_write_data(struct tar_writer *w, const void *p, size_t n, struct err *e); /* in all exactly entry.size bytes */
/* The whole data from a file; a file that is shorter than promised is ABORTED ("changed while it was read"). */
int tar_write_data_fd(struct tar_writer *w, int fd, int64_t size, struct err *e);
int tar_writer_finish(struct tar_writer *w, struct err *e); /* trailer and flush */
void tar_writer_free(struct tar_writer *w);
static inline void tar_writer_freep(struct tar_writer **w) { tar_writer_free(*w); }
#define _cleanup_tar_writer_ _cleanup_(tar_writer_freep)

/* ---- reader: v7, ustar, GNU (long names, base-256, sparse) and PAX (sparse 0.0, 0.1, 1.0; global
 * records are read over, as Go does) ---- */
enum { TAR_NAME_MAX = 65536, TAR_PAX_MAX = 1 << 20 };
struct tar_reader;
struct tar_reader *tar_reader_new(struct tar_in in);
/* 1 and the next entry, 0 at the end. Unread data of the previous entry is skipped. What *ret points at lives until the
 * next call. Vendor types (GNU 'V', 'M', unknown letters) are INVALID_ARGUMENT, as in BuildKit. A bad header is
 * INVALID_ARGUMENT, a cut archive DATA_LOSS. */
int tar_read_next(struct tar_reader *r, struct tar_entry *ret, struct err *e);
/* Data of the entry at hand, holes of sparse files as zeros. 0 at its end. */
ssize_t tar_read_data(struct tar_reader *r, void *buf, size_t n, struct err *e);
/* The same without a copy: *ret points at the bytes until the next call on r; *ret NULL is a hole of that many bytes. */
ssize_t tar_read_span(struct tar_reader *r, const uint8_t **ret, struct err *e);
/* Read the stream behind the end of the archive to its end (padding), so that hashes cover every byte. */
int tar_reader_drain(struct tar_reader *r, struct err *e);
void tar_reader_free(struct tar_reader *r);
static inline void tar_reader_freep(struct tar_reader **r) { tar_reader_free(*r); }
#define _cleanup_tar_reader_ _cleanup_(tar_reader_freep)

/* ---- apply ---- */
enum tar_apply_mode {
	TAR_APPLY_OVERLAY, /* an OCI layer into an overlay lower directory: whiteouts become 0/0 devices and opaque xattrs */
	TAR_APPLY_MERGED,  /* an OCI layer onto a full tree (native snapshots): whiteouts remove what is there */
	TAR_APPLY_PLAIN,   /* any archive into a tree (ADD): whiteouts are names like others */
};
/* What could not be done without the layers below: kept by tar_apply, done by tar_apply_fixup. */
struct tar_pending {
	struct strvec parents;        /* directories that were made but that the archive did not name */
	struct strvec names, targets; /* hard links whose target is not in this layer, pairwise */
	struct strvec dir_names;      /* directories whose mtime the fixup must set again, pairwise with dir_mtimes */
	VEC(struct timespec) dir_mtimes;
};
void tar_pending_fini(struct tar_pending *p);
#define _cleanup_tar_pending_ _cleanup_(tar_pending_fini)
struct tar_stats {
	uint64_t entries, regular_bytes, whiteouts;
};
struct tar_apply_opts {
	enum tar_apply_mode mode;
	bool userxattr;          /* user.overlay.opaque instead of trusted.overlay.opaque */
	bool rootless;           /* skip devices that may not be made, owners that may not be set are errors still */
	bool best_effort_xattrs; /* ADD: EPERM on an xattr is ignored */
	bool override_owner;     /* everything is owned by uid, gid (ADD --chown) */
	uint32_t uid, gid;
	int lower_rootfd; /* a mounted view of the layers below, or -1 */
};
#define TAR_APPLY_OPTS(m) ((struct tar_apply_opts){.mode = (m), .lower_rootfd = -1})
/* Unpack below dirfd (the layer's directory, or the destination inside a rootfs). Every path is resolved inside dirfd:
 * links are followed as if it were "/", "/a" counts as "a", a name that climbs out by ".." is INVALID_ARGUMENT naming
 * the entry. An existing file is replaced; an existing directory is merged with a directory. Owner, mode, mtime, xattrs
 * (not trusted.* nor *.overlay.*), devices, fifos, hard links, holes. Directories' mtimes are set at the end.
 * With lower_rootfd < 0, links and parents that belong to lower layers go into *ret_pending (may be NULL: then such a
 * link is an error and parents keep 0755 root). ret_stats may be NULL. The archive is read to the stream's end.
 * On error the directory is left half filled: the caller removes it. */
int tar_apply(struct tar_reader *r, int dirfd, const struct tar_apply_opts *o, struct tar_pending *ret_pending,
	      struct tar_stats *ret_stats, struct err *e);
/* The ordered second pass, once the layers below are there; lower_rootfd -1 when there are none. */
int tar_apply_fixup(const struct tar_pending *p, int dirfd, int lower_rootfd, const struct tar_apply_opts *o, struct err *e);
/* Is this the beginning of something ADD would unpack: tar, plain or in a compression that tar_decomp knows? */
bool tar_is_archive(struct tar_in in);

/* ---- diff ---- */
/* Write the layer that an overlay upper directory is, in the order and bytes of BuildKit's overlay differ: lexical walk,
 * whiteouts `.wh.X` (mode 0, time 0) for what is in the lower, an opaque directory as the comparison of both trees below it,
 * parents before their children, unchanged entries left out, hard links within the layer, sockets skipped, security.capability
 * as the only xattr, mtime cut to seconds. lower_rootfd: a mounted view of the parents, -1: none. The writer is not finished.
 */
int tar_diff_overlay(int upperfd, int lower_rootfd, struct tar_writer *w, struct err *e);
/* The same layer from two full trees (native snapshots, or merged views). lower -1: everything is new. */
int tar_diff_trees(int lowerfd, int upperfd, struct tar_writer *w, struct err *e);
/* A whole tree as the tar exporter writes it (fsutil.WriteTar): every entry with all its xattrs but overlay's, hard
 * links to the first name, a socket as an empty file; mtime rounded to seconds, or `epoch` for all when it is set. Names get
 * `prefix` in front ("" or "linux_amd64/"; the directory itself is written by the caller). */
int tar_write_tree(int rootfd, const char *prefix, const struct timespec *epoch, struct tar_writer *w, struct err *e);
/* rewrite-timestamp: copy an archive, mtime, atime and ctime clamped down to epoch. The writer is finished. */
int tar_clamp(struct tar_reader *r, struct timespec epoch, struct tar_writer *w, struct err *e);
#endif
