#ifndef CLI_BUILDERS_H
#define CLI_BUILDERS_H
/* The commands that make, choose, show, stop and remove builders. Main thread; they block. */
#include "cli/internal.h"

int builders_create(struct cli *c, struct args *a);
int builders_use(struct cli *c, struct args *a);
int builders_stop(struct cli *c, struct args *a);
int builders_rm(struct cli *c, struct args *a);
int builders_ls(struct cli *c, struct args *a);
int builders_inspect(struct cli *c, struct args *a);
#endif
