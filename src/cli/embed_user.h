#ifndef CLI_EMBED_USER_H
#define CLI_EMBED_USER_H
/* A user namespace for the embedded daemon of an ordinary user. Blocks shortly. */
#include "base/base.h"

struct embed_user {
	char *name, *home, *rootlesskit /* NULL: not installed */, *newuidmap, *newgidmap;
	unsigned first_uid, uids, first_gid, gids;
};
void embed_user_fini(struct embed_user *u);
/* What is missing is FAILED_PRECONDITION, with what to do. */
int embed_user_find(struct embed_user *u, struct err *e);
/* In a child, after fork: become root of a user namespace with these ids and of a mount namespace. Says nothing itself: -1. */
int embed_user_enter(const struct embed_user *u);
char *embed_find_program(const char *name); /* in PATH; heap or NULL */
#endif
