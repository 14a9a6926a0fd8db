#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H
/* Fuzz targets: one file each, fuzz_NAME.c, with one LLVMFuzzerTestOneInput; inputs are in corpus/NAME.
 * The same file is linked with libFuzzer (`make fuzz SECONDS=60`, clang) and with driver.c (gcc, in `make test`), which
 * runs every file of the corpus: seeds, and every input that was ever found to break something (names: `found-*`).
 * A target fails by a sanitizer's report, by an abort (ensure) or by its time; it must give the same result for the same bytes.
 */
#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The rest of an input, cut in pieces. */
struct fuzz_in {
	const uint8_t *p;
	size_t n;
};
static inline uint8_t fuzz_byte(struct fuzz_in *in)
{
	if (!in->n) return 0;
	in->n--;
	return *in->p++;
}
/* Up to the next occurrence of `end` (which is dropped), or all that is left. */
struct fuzz_in fuzz_until(struct fuzz_in *in, const char *end);
char *fuzz_text(struct fuzz_in in); /* heap, cut at a NUL by whoever reads it as a string */

/* A scratch folder: <top>/in is a target's own and emptied by fuzz_scratch_clear; beside it lies <top>/out/secret, which
 * nothing may change: fuzz_scratch_check aborts when anything but `in` is not as it was made. Removed when the process ends. */
int fuzz_scratch(void); /* a descriptor of <top>/in, borrowed */
const char *fuzz_scratch_path(void);
void fuzz_scratch_clear(void);
void fuzz_scratch_check(void);
#endif
