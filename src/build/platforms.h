#ifndef BUILD_PLATFORMS_H
#define BUILD_PLATFORMS_H
/* Private to the room; loop thread, pure. */
#include "build/internal.h"

struct result_platform {
	char *id;
	struct spec_platform platform;
};
struct result_platforms {
	struct result_platform *v;
	size_t n, cap;
};
/* From refs.platforms, else from the image config, else the host's. */
int result_platforms(const struct result *res, const struct spec_platform *host, struct result_platforms *ret, struct err *e);
void result_platforms_fini(struct result_platforms *p);
/* Bring the references into the order of refs.platforms; errors of a result that cannot be exported. */
int result_order(struct result *res, const struct spec_platform *host, struct err *e);
/* Remember what a frontend was asked for; then compare. */
void result_capture_request(struct result *res, const struct strvec *opts);
void result_platform_warnings(const struct result *res, const struct spec_platform *host, struct strvec *warnings);
#endif
