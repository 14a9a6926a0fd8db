#ifndef SHIP_ANNOTATIONS_H
#define SHIP_ANNOTATIONS_H
/* Annotations that a request wants on the documents of an image: "annotation[-TYPE][\[PLATFORM\]].KEY", as exporter attributes
 * and as metadata of the result. Any thread. Source: moby/buildkit
 * exporter/containerimage/{annotations.go,exptypes/annotations.go}. */
#include "ship/manifest.h"

enum ship_annotation_type {
	SHIP_ANNOTATE_INDEX,
	SHIP_ANNOTATE_INDEX_DESC,
	SHIP_ANNOTATE_MANIFEST,
	SHIP_ANNOTATE_MANIFEST_DESC,
	SHIP_ANNOTATE_TYPES,
};
struct ship_annotation {
	enum ship_annotation_type type;
	char *platform; /* normal form; NULL: of all */
	char *key, *value;
};
struct ship_annotations {
	VEC(struct ship_annotation) all; /* of equal ones the last counts */
};
/* 1: it is one and was added; 0: it is none; -1 "unrecognized annotation type X", or a bad platform. */
int ship_annotation_add(struct ship_annotations *s, const char *attr, const void *value, size_t n, struct err *e);
bool ship_annotations_any(const struct ship_annotations *s, enum ship_annotation_type type);
/* Those of a type for a platform (NULL: those for all; index types have none). Heap array of borrowed strings. */
struct ship_kv *ship_annotations_of(const struct ship_annotations *s, enum ship_annotation_type type, const char *platform,
				    size_t *ret_n);
void ship_annotations_fini(struct ship_annotations *s);
#endif
