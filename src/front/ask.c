/* Questions and answers. A question's key is the digest of all that it asks, so that answers serve every later run and
 * equal questions are asked once. */
#include "front/convert.h"

#include <string.h>

struct front_answers {
	struct map by_key; /* struct front_answer *, owned */
};

struct front_answers *front_answers_new(void) { return xnew(struct front_answers); }

void front_answer_fini(struct front_answer *a)
{
	err_fini(&a->err);
	free(a->data);
	free(a->ref);
	free(a->digest);
	free(a->redirect);
	free(a->commit);
	*a = (struct front_answer){0};
}

void front_answers_free(struct front_answers *a)
{
	if (!a) return;
	MAP_EACH(&a->by_key, it)
	{
		front_answer_fini(it->value);
		free(it->value);
	}
	map_fini(&a->by_key);
	free(a);
}

void front_answers_put(struct front_answers *a, const char *key, struct front_answer *answer)
{
	if (map_has(&a->by_key, key)) {
		front_answer_fini(answer);
		return;
	}
	map_put(&a->by_key, key, xmemdup(answer, sizeof *answer));
	*answer = (struct front_answer){0};
}

bool front_answers_has(const struct front_answers *a, const char *key) { return a && map_has(&a->by_key, key); }

/* Each part with its length before it, so that no two questions run into the same bytes. */
static void part(struct hasher *h, const void *p, size_t n)
{
	uint64_t len = n;
	hasher_update(h, &len, sizeof len);
	hasher_update(h, p, n);
}

static void part_str(struct hasher *h, const char *s) { part(h, s ? s : "", s ? strlen(s) : 0); }

static void question_key(struct front_question *q)
{
	struct hasher h;
	hasher_init(&h);
	int64_t numbers[] = {q->ask, q->offset, q->length, q->oci_layout, q->git_object};
	part(&h, numbers, sizeof numbers);
	if (q->def && q->def->n_def) part(&h, q->def->def[q->def->n_def - 1].data, q->def->def[q->def->n_def - 1].len);
	_cleanup_free_ char *platform = q->platform ? spec_platform_format(q->platform) : NULL;
	const char *texts[] = {q->path, q->ref, platform, q->resolve_mode, q->session, q->store};
	for (size_t i = 0; i < array_len(texts); i++) part_str(&h, texts[i]);
	if (q->source) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		llb_marshal(&q->source->base, &b);
		part(&h, b.p, b.n);
	}
	struct digest d;
	hasher_final(&h, &d);
	digest_format(&d, q->key);
}

int front_ask(struct front *f, struct front_question q, const struct front_answer **ret)
{
	question_key(&q);
	if (front_answers_has(f->in->answers, q.key)) {
		*ret = map_get(&f->in->answers->by_key, q.key);
		return FOUND;
	}
	if (map_has(&f->asked, q.key)) return PENDING;
	map_put(&f->asked, q.key, f);
	LLB_PUSH(f->a, f->res->n_questions, f->res->questions, q);
	return PENDING;
}

int front_ask_file(struct front *f, const Pb__Definition *def, const char *path, int64_t length,
		   const struct front_answer **ret)
{
	return front_ask(f, (struct front_question){.ask = FRONT_READ_FILE, .def = def, .path = path, .length = length}, ret);
}

int front_marshal(struct front *f, struct output *o, const struct spec_platform *p, Pb__Definition **ret, const char **ret_head,
		  struct err *e)
{
	const struct marshal_opt opt = {
		.platform = p,
		.default_path = p != NULL, /* only what is marshalled for a target knows the daemon's capabilities */
		.unique_id = "slipway",
	};
	return graph_marshal(f->a, o, &opt, ret, ret_head, e);
}
