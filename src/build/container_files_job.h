#ifndef BUILD_CONTAINER_FILES_JOB_H
#define BUILD_CONTAINER_FILES_JOB_H
/* Reading files of a mount of a gateway container, while its processes may write. Job; no loop. */
#include "build/files_job.h"

/* Uses kind, path, and the outputs of files_job; root is the mount's host path. Paths lead nowhere out of it: links that would
 * are errors ("path escapes from parent"), as with Go's os.Root. */
void container_files_run(struct files_job *j, const char *root);
#endif
