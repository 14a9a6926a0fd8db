/* One Dockerfile as text: everything that the parsing half makes of it, or its error. The oracle in Go prints the same. */
#include "dockerfile/ast.h"
char *dump_dockerfile(const char *text, size_t n);
