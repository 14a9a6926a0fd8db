#ifndef DAEMON_CHECK_CONFIG_H
#define DAEMON_CHECK_CONFIG_H
/* The words behind "slipwayd check-config", that one as argv[0]; the exit status. */
int check_config(int argc, char **argv);
#endif
