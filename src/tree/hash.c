/* The digest of a file record: a fixed header in the old tarsum form, then the extended attributes, then the content.
 *
 * The header's texts have no separators. Name, user and group names are always empty, times do not count, so a digest
 * says what a file is and not what it is called. Attributes of the security namespace do not count but for
 * security.capability, nor do those of the system namespace. Source: BuildKit cache/contenthash/{filehash,tarsum}.go. */
#include "tree/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* tar's type flag for the entry. */
static char type_flag(const struct tree_entry *t)
{
	if (t->mode & TREE_DIR) return '5';
	if (t->mode & TREE_SYMLINK) return '2';
	if (t->mode & TREE_DEVICE) return t->mode & TREE_CHAR ? '3' : '4';
	return t->mode & TREE_PIPE ? '6' : '0';
}

static bool counts(const char *name)
{
	if (strcmp(name, "security.capability") == 0) return true;
	return !str_starts(name, "security.") && !str_starts(name, "system.");
}

void tree_hash_begin(struct tree_hasher *h, const struct tree_entry *t)
{
	char text[256];
	char type = type_flag(t);
	unsigned mode = t->mode & 0777;
	if (t->mode & TREE_SETUID) mode |= 04000;
	if (t->mode & TREE_SETGID) mode |= 02000;
	if (t->mode & TREE_STICKY) mode |= 01000;
	hasher_init(&h->h);
	snprintf(text, sizeof text, "namemode%uuid%" PRIu32 "gid%" PRIu32 "size%" PRId64 "typeflag%clinkname", mode, t->uid,
		 t->gid, type == '0' ? t->size : (int64_t)0, type);
	hasher_updates(&h->h, text);
	if (type == '2' && t->linkname) hasher_updates(&h->h, t->linkname);
	snprintf(text, sizeof text, "unamegnamedevmajor%" PRId64 "devminor%" PRId64, t->devmajor, t->devminor);
	hasher_updates(&h->h, text);
	for (size_t i = 0; i < t->n_xattrs; i++) {
		if (!counts(t->xattrs[i].name)) continue;
		hasher_updates(&h->h, t->xattrs[i].name);
		hasher_update(&h->h, t->xattrs[i].value, t->xattrs[i].len);
	}
}

void tree_hash_update(struct tree_hasher *h, const void *p, size_t n) { hasher_update(&h->h, p, n); }
void tree_hash_final(struct tree_hasher *h, struct digest *ret) { hasher_final(&h->h, ret); }
void tree_hash_fini(struct tree_hasher *h) { hasher_fini(&h->h); }

struct digest tree_hash_header(const struct tree_entry *t)
{
	struct tree_hasher h;
	struct digest d;
	tree_hash_begin(&h, t);
	tree_hash_final(&h, &d);
	return d;
}
