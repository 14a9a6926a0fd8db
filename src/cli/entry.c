/* main(), apart from the rest so that tests may link the room. */
#include "cli/cli.h"

int main(int argc, char **argv) { return cli_main(argc, argv); }
