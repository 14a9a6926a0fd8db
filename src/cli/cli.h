#ifndef CLI_CLI_H
#define CLI_CLI_H
/* The client: one program that behaves by the name it is called. `buildctl` takes buildctl's commands and flags,
 * `docker-buildx` is a Docker CLI plugin with buildx's, anything else is `slipway`, which has buildx's and a few of its own.
 * It talks to any BuildKit daemon. */

/* Everything; answers the exit code. Main thread, blocks, prints. */
int cli_main(int argc, char **argv);
#endif
