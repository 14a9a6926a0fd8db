#include "cdi/doc.h"

#include <string.h>
#include <yaml.h>

enum { DEPTH_MAX = 32 };

struct reader {
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
};

static int bad(const struct reader *r, const yaml_mark_t *at, const char *what, struct err *e)
{
	return err_set(e, CODE_INVALID_ARGUMENT, "line %zu: %s", at->line + 1, what);
}

static int next(struct reader *r, struct err *e)
{
	if (r->has_event) yaml_event_delete(&r->event);
	r->has_event = yaml_parser_parse(&r->parser, &r->event);
	if (!r->has_event) return bad(r, &r->parser.problem_mark, r->parser.problem ? r->parser.problem : "this is no YAML", e);
	return 0;
}

static bool is_null(const yaml_event_t *ev)
{
	const char *s = (const char *)ev->data.scalar.value;
	return ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && (!*s || !strcmp(s, "~") || !strcasecmp(s, "null"));
}

static int read_node(struct reader *r, int depth, json_t **ret, struct err *e);

static int read_list(struct reader *r, int depth, json_t *list, struct err *e)
{
	for (;;) {
		json_t *v = NULL;
		if (next(r, e) < 0) return -1;
		if (r->event.type == YAML_SEQUENCE_END_EVENT) return 0;
		if (read_node(r, depth, &v, e) < 0) return -1;
		json_array_append_new(list, v);
	}
}

static int read_map(struct reader *r, int depth, json_t *map, struct err *e)
{
	for (;;) {
		json_t *v = NULL;
		if (next(r, e) < 0) return -1;
		if (r->event.type == YAML_MAPPING_END_EVENT) return 0;
		if (r->event.type != YAML_SCALAR_EVENT) return bad(r, &r->event.start_mark, "a key must be a word", e);
		_cleanup_free_ char *key = xstrdup((const char *)r->event.data.scalar.value);
		if (json_object_get(map, key)) return bad(r, &r->event.start_mark, "this key was there before", e);
		if (next(r, e) < 0 || read_node(r, depth, &v, e) < 0) return -1;
		if (json_object_set_new(map, key, v) < 0) return bad(r, &r->event.start_mark, "this key is not UTF-8", e);
	}
}

/* The node that the event at hand begins. */
static int read_node(struct reader *r, int depth, json_t **ret, struct err *e)
{
	json_t *v = NULL;
	int rc = 0;
	if (depth >= DEPTH_MAX) return bad(r, &r->event.start_mark, "more than 32 levels", e);
	switch (r->event.type) {
	case YAML_SCALAR_EVENT:
		v = is_null(&r->event) ? json_null()
				       : json_stringn((const char *)r->event.data.scalar.value, r->event.data.scalar.length);
		if (!v) return bad(r, &r->event.start_mark, "this is not UTF-8", e);
		break;
	case YAML_SEQUENCE_START_EVENT:
		v = json_array();
		rc = read_list(r, depth + 1, v, e);
		break;
	case YAML_MAPPING_START_EVENT:
		v = json_object();
		rc = read_map(r, depth + 1, v, e);
		break;
	default: return bad(r, &r->event.start_mark, "an alias cannot be used here, write its value", e);
	}
	if (rc < 0) {
		json_decref(v);
		return -1;
	}
	*ret = v;
	return 0;
}

static int read_document(struct reader *r, json_t **ret, struct err *e)
{
	*ret = NULL;
	for (;;) {
		if (next(r, e) < 0) return -1;
		switch (r->event.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_START_EVENT:
		case YAML_DOCUMENT_END_EVENT: break;
		case YAML_STREAM_END_EVENT: return *ret ? 0 : bad(r, &r->event.start_mark, "the file is empty", e);
		default:
			if (*ret) return bad(r, &r->event.start_mark, "a second document", e);
			if (read_node(r, 0, ret, e) < 0) return -1;
		}
	}
}

int yaml_read(const char *text, size_t n, json_t **ret, struct err *e)
{
	struct reader r = {0};
	json_t *v = NULL;
	if (!yaml_parser_initialize(&r.parser)) return err_set(e, CODE_INTERNAL, "no YAML parser");
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
	int rc = read_document(&r, &v, e);
	if (r.has_event) yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	if (rc < 0) {
		json_decref(v);
		return -1;
	}
	*ret = v;
	return 0;
}
