/* buildkitd.toml. */
#include "conf/conf.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf *c = NULL;
	struct strvec warnings = {0};
	struct err e = ERR_INIT;
	struct buf out = BUF_INIT;
	int rc = conf_parse((const char *)data, size, "fuzz.toml", &c, &warnings, &e);
	if (rc >= 0) rc = conf_finish(c, &warnings, &e);
	if (rc < 0 && !err_is_set(&e)) bug("failed without an error");
	if (rc >= 0) {
		conf_dump(c, &out);
		conf_registry_find(c, "docker.io");
	}
	conf_free(c);
	buf_fini(&out);
	strvec_fini(&warnings);
	err_fini(&e);
	return 0;
}
