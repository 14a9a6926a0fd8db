/* Runs a target on files and on all files of folders: `fuzz-tar corpus/tar some-file`. Where libFuzzer is not, this is main. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { INPUT_MAX = 64 << 20, SLOW_MS = 10000 };

static int ran, failed;

static void run_file(const char *path)
{
	uint8_t *p = NULL;
	size_t n = 0;
	struct err e = ERR_INIT;
	if (path_read_file(AT_FDCWD, path, INPUT_MAX, &p, &n, &e) < 0) {
		fprintf(stderr, "%s: %s\n", path, e.msg);
		err_fini(&e);
		failed++;
		return;
	}
	uint8_t *exact = xmemdup(n ? p : (uint8_t *)"", n ? n : 1); /* no NUL behind it: the sanitizer sees a read beyond */
	free(p);
	fprintf(stderr, "%s\n", path_base(path)); /* the last line names the one that crashed */
	int64_t began = time_mono_ns();
	LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	ran++;
	int64_t ms = (time_mono_ns() - began) / 1000000;
	if (ms > SLOW_MS) {
		fprintf(stderr, "%s: took %lld ms\n", path, (long long)ms);
		failed++;
	}
}

static int visible(const struct dirent *d) { return d->d_name[0] != '.'; }

static void run_path(const char *path)
{
	struct stat st;
	struct dirent **v;
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	int n = scandir(path, &v, visible, alphasort);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *file = xasprintf("%s/%s", path, v[i]->d_name);
		run_file(file);
		free(v[i]);
	}
	if (n >= 0) free(v);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) run_path(argv[i]);
	printf("%d inputs\n", ran);
	if (!ran) fprintf(stderr, "usage: %s FILE-OR-FOLDER ...\n", argv[0]);
	return failed || !ran;
}
