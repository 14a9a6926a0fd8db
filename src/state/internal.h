#ifndef STATE_INTERNAL_H
#define STATE_INTERNAL_H
/* What a vertex is. */
#include "state/state.h"
#include "spec/spec.h"

enum vertex_kind { VERTEX_SOURCE, VERTEX_EXEC, VERTEX_FILE, VERTEX_MERGE, VERTEX_IMPORT };
struct attr {
	const char *key, *value;
};
enum action_kind { ACTION_COPY, ACTION_MKDIR, ACTION_MKFILE };
struct action {
	enum action_kind kind;
	struct state from;      /* copy */
	const char *src, *path; /* path: the destination */
	struct copy_opt copy;
	uint32_t mode;
	bool parents;
	struct chown owner;
	int64_t time_ns;
	const void *data;
	size_t n_data;
};
struct vertex {
	enum vertex_kind kind;
	struct note note;
	struct {
		const char *id;
		struct attr *attrs;
		size_t n_attrs;
	} source;
	struct exec *exec;
	struct {
		struct state base;
		struct actions actions;
	} file;
	struct output **merge;
	size_t n_merge;
	const Pb__Definition *import;

	const char *digest; /* once marshalled */
	int64_t import_output;
	const Pb__Op *op;
	unsigned seen; /* number of the walk that met it last */
};
struct vertex *vertex_new(struct arena *a, enum vertex_kind kind, const struct note *note); /* note copied; NULL: empty */
struct output *output_real(struct output *o);                                               /* filled in; NULL for scratch */
int64_t output_index(const struct output *o);
void exec_sort_mounts(struct exec *x);
/* The operation and its metadata; inputs are marshalled already. */
const Pb__Op *exec_op(struct arena *a, struct vertex *v, const struct marshal_opt *opt);
const Pb__Op *file_op(struct arena *a, struct vertex *v);
void file_inputs(struct arena *a, const struct vertex *v, struct output ***ret, size_t *n);
Pb__Platform *op_platform(struct arena *a, const struct note *n, const struct marshal_opt *opt);
#endif
