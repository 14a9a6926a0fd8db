/* buildkitd.toml. */
#include "conf/conf.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf *c = NULL;
	struct conf_report report = {0};
	struct err e = ERR_INIT;
	struct buf out = BUF_INIT;
	int rc = conf_parse((const char *)data, size, "fuzz.toml", &c, &report);
	if (rc < 0 && !conf_report_count(&report, CONF_ERROR)) bug("failed without an error");
	if (rc >= 0 && conf_finish(c, &report, &e) >= 0) {
		conf_effective(c, &out);
		conf_registry_find(c, "docker.io");
	}
	conf_unref(c);
	buf_fini(&out);
	conf_dump_json((const char *)data, size, "fuzz.toml", &out, NULL);
	buf_fini(&out);
	conf_report_fini(&report);
	err_fini(&e);
	return 0;
}
