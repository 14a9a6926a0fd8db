/* Places in the Dockerfile, as clients show them: errdefs.Source details on errors, ranges on vertices and warnings. */
#include "front/convert.h"

#include <string.h>

#define SOURCE_URL "github.com/moby/buildkit/errdefs.Source+json"

struct llb_range *ranges_of(struct arena *a, struct ast_lines at, size_t *n)
{
	*n = 0;
	if (at.start <= 0) return NULL;
	int end = max_of(at.start, at.end);
	*n = (size_t)(end - at.start) + 1;
	struct llb_range *r = arena_alloc(a, *n * sizeof *r);
	for (size_t i = 0; i < *n; i++) r[i].start_line = r[i].end_line = at.start + (int)i;
	return r;
}

Pb__SourceInfo *source_info(struct arena *a, const struct source_file *s)
{
	Pb__SourceInfo *info = llb_new(a, Pb__SourceInfo, pb__source_info__init);
	info->filename = s->filename;
	info->language = s->language;
	info->data = (ProtobufCBinaryData){s->n, (uint8_t *)s->data};
	info->definition = s->def;
	return info;
}

void source_json(struct arena *a, const struct source_file *s, struct ast_lines at, struct buf *out)
{
	struct json_w w = JSON_W(out);
	size_t n;
	struct llb_range *r = ranges_of(a, at, &n);
	json_obj(&w);
	json_key(&w, "info");
	llb_json(&w, &source_info(a, s)->base);
	if (n) {
		json_key(&w, "ranges");
		json_arr(&w);
		for (size_t i = 0; i < n; i++) {
			json_obj(&w);
			for (int side = 0; side < 2; side++) {
				json_key(&w, side ? "end" : "start");
				json_obj(&w);
				json_kint_omit(&w, "line", side ? r[i].end_line : r[i].start_line);
				json_kint_omit(&w, "character", side ? r[i].end_character : r[i].start_character);
				json_obj_end(&w);
			}
			json_obj_end(&w);
		}
		json_arr_end(&w);
	}
	json_obj_end(&w);
}

int err_to_source(struct front *f, struct err *e)
{
	struct ast_places places = ast_err_places(f->a, e);
	for (size_t i = 0; i < places.n; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		source_json(f->a, &f->file, places.v[i], &b);
		err_detail_push(e, SOURCE_URL, b.p, b.n);
	}
	return -1;
}
