/* .dockerignore and wildcards. Input: paths up to an empty line, then an ignore file. */
#include "fuzz.h"
#include "spec/pattern.h"

#include <string.h>

enum { PATHS_MAX = 8, FLAGS_MAX = 4096 };

static void match(const struct spec_patterns *p, const char *path)
{
	bool parent[FLAGS_MAX], info[FLAGS_MAX];
	size_t n = spec_patterns_count(p);
	spec_patterns_match(p, path, NULL);
	if (n > FLAGS_MAX) return;
	_cleanup_free_ char *dir = path_dir(path);
	if (spec_patterns_match_parents(p, dir, NULL, parent, NULL) < 0) return;
	spec_patterns_match_parents(p, path, parent, info, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size}, paths = fuzz_until(&in, "\n\n");
	struct strvec lines = {0}, names = {0};
	struct err e = ERR_INIT;
	struct spec_patterns *p = NULL;
	while (paths.n && names.n < PATHS_MAX) strvec_take(&names, fuzz_text(fuzz_until(&paths, "\n")));
	int rc = spec_ignorefile_parse((const char *)in.p, in.n, &lines, &e);
	if (rc >= 0) rc = spec_patterns_new(lines.v, lines.n, &p, &e);
	if (rc < 0 && !err_is_set(&e)) bug("failed without an error");
	for (size_t i = 0; i < names.n; i++) {
		if (p) match(p, names.v[i]);
		if (lines.n) spec_path_match(lines.v[0], names.v[i], NULL);
		spec_patterns_match_once(lines.v, min_of(lines.n, (size_t)4), names.v[i], NULL);
		spec_path_has_wildcard(names.v[i]);
	}
	spec_patterns_free(p);
	strvec_fini(&lines);
	strvec_fini(&names);
	err_fini(&e);
	return 0;
}
