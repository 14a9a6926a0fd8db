#ifndef CLI_LOAD_H
#define CLI_LOAD_H
/* --load: what an exporter sends goes into a Docker Engine by POST /images/load. */
#include "cli/build.h"

struct load;
/* Asks the engine ($DOCKER_HOST, else unix:///var/run/docker.sock) what it is; *ret_oci: it keeps images by containerd, so an
 * OCI archive is wanted. Blocks shortly. NULL: no engine. */
struct load *load_new(struct cli *c, struct progress *p, bool *ret_oci, struct err *e);
void load_sink(struct load *l, struct sess_client_output *ret);
/* Blocks until the engine has answered; 0 at once when nothing was sent. */
int load_finish(struct load *l, struct err *e);
void load_free(struct load *l);
#endif
