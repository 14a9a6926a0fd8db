#ifndef CLI_INPUTS_H
#define CLI_INPUTS_H
/* What a build reads: its context (a folder, "-", a URL), its Dockerfile, further named contexts, and what git says of them. */
#include "cli/build.h"

struct inputs {
	char *temp[4]; /* folders to remove at the end */
	size_t n_temp;
	char *dockerfile_said; /* as people know it: for lint messages */
};
/* Sets frontend attributes and offers folders; reads stdin when asked. named: "name=value" pairs. Main thread; may block on
 * stdin and the disk. */
int inputs_load(struct inputs *in, struct build *b, const char *context, const char *dockerfile, const struct strvec *named,
		struct err *e);
void inputs_fini(struct inputs *in);
/* "vcs:..." attributes, when the context is in a git checkout. */
void inputs_add_git(struct build *b, const char *context, const char *dockerfile);
#endif
