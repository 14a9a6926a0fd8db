/* Which pages may go: those of private file mappings that are not writable and hold no anonymous page. The last matters: RELRO
 * sections are read-only mappings too, but their pages were relocated and exist nowhere else. */
#include "daemon/memory.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

void memory_give_back(void)
{
	char line[1024];
	uintptr_t from = 0, to = 0;
	bool clean = false;
	malloc_trim(0);
	FILE *maps = fopen("/proc/self/smaps", "re");
	while (maps && fgets(line, sizeof line, maps)) {
		char perms[5], path[2];
		unsigned long kib, a, b;
		if (sscanf(line, "%lx-%lx %4s", &a, &b, perms) == 3) {
			from = a;
			to = b;
			clean = perms[0] == 'r' && perms[1] == '-' && perms[3] == 'p' &&
				sscanf(line, "%*s %*s %*s %*s %*s %1s", path) == 1 && path[0] == '/';
		} else if (clean && sscanf(line, "Anonymous: %lu kB", &kib) == 1 && kib == 0) {
			madvise((void *)from, to - from, MADV_DONTNEED);
		}
	}
	if (maps) fclose(maps);
}
