#ifndef CLI_MANUAL_H
#define CLI_MANUAL_H
/* Manual pages and shell completion of our programs, from the tables of commands and flags. Any thread; manual_write blocks. */
#include "term/flags.h"

/* slipwayd's command line in the form of the client's tables (conf's rows). Static; made once. */
const struct command *manual_daemon(void);
/* One page in man(7) macros: "slipway", "slipway-build", "slipwayd", "buildctl". NOT_FOUND for another name. */
int manual_page(const char *name, struct buf *out, struct err *e);
/* Every page as DIR/man1/NAME.1 and DIR/man8/NAME.8. */
int manual_write(const char *dir, struct err *e);

/* ---- completion ---- */
/* What cobra's programs answer to `__complete WORD... LAST`, so that Docker's own completion works with our plugin: a line
 * "CANDIDATE<tab>DESCRIPTION" each, then ":DIRECTIVE". words does not hold the program; the last is the one to be completed. */
void complete_words(const struct command *root, enum dialect d, char *const *words, size_t n, struct buf *out);
enum { COMPLETE_ERROR = 1, COMPLETE_NO_SPACE = 2, COMPLETE_NO_FILES = 4, COMPLETE_DIRS = 16 };
/* The script for "bash", "zsh" or "fish" that asks the program: "slipway" or "slipwayd". NULL: no such shell or program. Heap.
 */
char *complete_script(const char *shell, const char *program);
/* All scripts below DIR (a share folder), where the shells look for them. */
int complete_write(const char *dir, struct err *e);
#endif
