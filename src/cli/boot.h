#ifndef CLI_BOOT_H
#define CLI_BOOT_H
/* Booting a builder's daemon, shown as buildx shows it. Main thread; blocks. */
#include "progress/progress.h"
#include "drive/container.h"

int boot_container(struct progress *p, const struct drive_node *n, struct err *e);
/* With a display of its own on stderr. */
int boot_container_alone(const struct drive_node *n, struct err *e);
#endif
