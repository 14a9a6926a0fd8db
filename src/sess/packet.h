#ifndef SESS_PACKET_H
#define SESS_PACKET_H
/* The messages of a file transfer, fsutil.types.Packet and Stat, read and written by hand: a context has some 80,000 of
 * them, and none needs memory of its own. Reading refuses what is malformed, NULs in strings and sizes beyond the bounds
 * below; unknown fields are skipped. Names on disk need not be UTF-8, so neither need these strings.
 * `mode` is Go's os.FileMode. Any thread, no blocking. Source: fsutil types/{wire,stat}.proto. */
#include "base/base.h"
#include "tree/tree.h"

enum {
	SESS_PACKET_MAX = 5 << 20, /* of any packet */
	SESS_STAT_MAX = 1 << 20,   /* of a Stat, xattrs included */
	SESS_PATH_MAX = 4095,
	SESS_XATTRS_MAX = 256,
};
enum sess_packet_type {
	SESS_PACKET_STAT,
	SESS_PACKET_REQ,
	SESS_PACKET_DATA,
	SESS_PACKET_FIN,
	SESS_PACKET_ERR,
};
struct sess_packet {
	enum sess_packet_type type;
	bool has_stat;
	uint32_t id;
	const uint8_t *data; /* into the bytes that were read */
	size_t n_data;
	/* With has_stat; borrows from what follows. dev, ino and ctime_ns are the proof: what our own client adds (field 1000
	 * of Stat, which others skip): while the three stay, the bytes stayed. ctime_ns is 0 when the file changed so shortly
	 * before it was looked at that a later change might bear the same ctime: that proves nothing. */
	struct tree_entry stat;
	bool has_proof;
	/* private, reused from packet to packet */
	VEC(struct tree_xattr) xattrs;
	struct buf text;
};
void sess_packet_fini(struct sess_packet *p);
#define _cleanup_sess_packet_ __attribute__((cleanup(sess_packet_fini)))
/* The packet's pointers live until the next read into p, and as long as the bytes. */
int sess_packet_read(struct sess_packet *p, const uint8_t *in, size_t n, struct err *e);
/* with_proof: say dev, ino and ctime_ns. st NULL: the end of the listing. */
void sess_packet_add_stat(struct buf *out, const struct tree_entry *st, bool with_proof);
void sess_packet_add(struct buf *out, enum sess_packet_type type, uint32_t id, const void *data, size_t n);
void sess_stat_add(struct buf *out, const struct tree_entry *st, bool with_proof); /* the Stat alone */
/* The last value of bytes field `number` of any message; empty when it is not there. *ret points into p. */
int sess_bytes_field(const uint8_t *p, size_t n, unsigned number, const uint8_t **ret, size_t *ret_n, struct err *e);
#endif
