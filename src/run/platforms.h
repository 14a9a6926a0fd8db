#ifndef RUN_PLATFORMS_H
#define RUN_PLATFORMS_H
/* Which platforms a container can have on this machine: the host's own, its lower variants and 32-bit relative, and each
 * architecture that binfmt_misc gives an emulator. Reads a few small files of the kernel's own: any thread, blocks for
 * microseconds. Source: the order is that of moby/buildkit util/archutil/detect.go, which finds out by running a program of
 * each architecture; we compare the head of such a program with the rules of binfmt_misc, as the kernel does. */
#include "spec/platform.h"

struct run_platforms {
	struct spec_platform *v; /* the first is the host's own */
	size_t n;
};
void run_platforms_find(struct run_platforms *ret);
void run_platforms_fini(struct run_platforms *p);
bool run_platforms_equal(const struct run_platforms *a, const struct run_platforms *b);
/* Whether programs of the platform run here, or some of its kind do: variants are not told apart. */
bool run_platforms_offer(const struct spec_platform *p);
/* Whether one rule of binfmt_misc, as the file of its name shows it, runs programs of the architecture in a container: it is
 * on, has the flag F (its interpreter was opened when it was made, so it need not be in the container), and its magic matches.
 */
bool run_binfmt_runs(const char *rule, const char *arch);
#endif
