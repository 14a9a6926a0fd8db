#ifndef FRONT_IMAGE_CONFIG_H
#define FRONT_IMAGE_CONFIG_H
/* Private to the room: an image's config document, as a stage changes it and as it is printed.
 * Source: OCI image-spec config.md, moby/docker-image-spec; the bytes are those of Go's encoding/json. */
#include "base/base.h"
#include "spec/platform.h"

struct strs {
	const char **v;
	size_t n;
};
struct pair {
	const char *key, *value;
};
struct image_history {
	const char *created, *created_by, *author, *comment; /* NULL or "": left out */
	bool empty_layer;
};
struct image_health {
	struct strs test;
	int64_t interval, timeout, start_period, start_interval; /* ns */
	int64_t retries;
};
struct image {
	const char *created, *author;
	struct spec_platform platform; /* members never NULL; features set or not */
	bool has_features;
	const char *rootfs_type;
	struct strs diff_ids;
	bool has_diff_ids; /* not null */
	struct image_history *history;
	size_t n_history;
	/* config */
	const char *user, *working_dir, *stop_signal;
	struct strs env, entrypoint, cmd, ports, volumes, onbuild, shell;
	struct pair *labels;
	size_t n_labels;
	bool args_escaped;
	struct image_health *health;
};
/* Heap-free: everything in the arena. "failed to parse image config: ..." is left to the caller. */
int image_parse(struct arena *a, const void *json, size_t n, struct image *ret, struct err *e);
struct image image_clone(struct arena *a, const struct image *src);
struct image image_zero(void);
struct image image_empty(struct arena *a, const struct spec_platform *p); /* what FROM scratch begins with */
void image_json(const struct image *img, struct buf *out);
void image_env(struct arena *a, struct image *img, const char *k, const char *v); /* replaces in place or appends */
void image_label(struct arena *a, struct image *img, const char *k, const char *v);
const char *image_env_get(const struct image *img, const char *k);
void image_commit(struct arena *a, struct image *img, const char *created_by, bool layer, const char *created);

void strs_add(struct arena *a, struct strs *s, const char *v);      /* copied */
void strs_add_once(struct arena *a, struct strs *s, const char *v); /* a set */
struct strs strs_clone(struct arena *a, const struct strs *s);
const char *default_path(const char *os);
#endif
