#ifndef BLOB_INTERNAL_H
#define BLOB_INTERNAL_H
#include "blob/blob.h"

#define BLOB_TMP_PREFIX "blob-"
#define BLOB_TRASH_PREFIX BLOB_TMP_PREFIX "trash-"
struct blob_store {
	char *root;
	int blobs, tmp; /* directories */
};
/* The hex digits inside digest, NULL and *e when it is none. */
const char *blob_hex(const char *digest, struct err *e);
#endif
