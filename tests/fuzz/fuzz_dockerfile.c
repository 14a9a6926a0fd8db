/* front_convert: options, a Dockerfile, its .dockerignore and an image's config -> a graph, with canned answers.
 * Input: lines "@key=value" are options; then the Dockerfile; behind a line "====" the .dockerignore, behind another the
 * config. */
#include "front/front.h"
#include "fuzz.h"

#include <string.h>

enum { ROUNDS = 50, ASKED_MAX = 2000, OPTS_MAX = 20 };

struct world {
	struct fuzz_in dockerfile, ignore, config;
};

static const char default_config[] = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/"
				     "bin\",\"A=b\"],\"User\":\"u\",\"WorkingDir\":\"/w\","
				     "\"OnBuild\":[\"RUN echo x\",\"COPY . "
				     "/y\"],\"Labels\":{\"k\":\"v\"}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";

static void give(struct front_answer *a, struct fuzz_in x)
{
	a->data = x.n ? xmemdup(x.p, x.n) : xcalloc(1, 1);
	a->n = x.n;
}

static void answer_file(const struct world *w, const struct front_question *q, struct front_answer *a)
{
	a->solved = true;
	if (strstr(q->path, "ignore"))
		give(a, w->ignore);
	else if (strstr(q->path, "ockerfile"))
		give(a, w->dockerfile);
	else
		err_set(&a->err, CODE_NOT_FOUND, "open %s: no such file or directory", q->path);
	if (q->length && a->n > (size_t)q->length) a->n = (size_t)q->length;
}

static void answer_image(const struct world *w, const struct front_question *q, struct front_answer *a)
{
	if (strstr(q->ref, "missing")) {
		err_set(&a->err, CODE_NOT_FOUND, "%s: not found", q->ref);
		return;
	}
	give(a, w->config.n ? w->config : (struct fuzz_in){(const uint8_t *)default_config, sizeof default_config - 1});
	a->digest = xstrdup("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void answer(const struct world *w, struct front_answers *answers, const struct front_question *q)
{
	struct front_answer a = {0};
	if (front_answers_has(answers, q->key)) bug("a question was asked twice: %s", q->path ? q->path : q->ref);
	switch (q->ask) {
	case FRONT_READ_FILE: answer_file(w, q, &a); break;
	case FRONT_IMAGE_META: answer_image(w, q, &a); break;
	case FRONT_SOURCE_META: break;
	}
	front_answers_put(answers, q->key, &a);
}

static void check_result(const struct front_result *r)
{
	for (size_t i = 0; i < r->n_refs; i++) {
		struct arena *a = arena_new(0);
		struct llb_graph *g;
		struct err e = ERR_INIT;
		struct llb_load o = {.skip_caps = true};
		/* What we made ourselves must load: the rules are the peer's. */
		if (r->refs[i].def && llb_graph_load(r->refs[i].def, a, &o, &g, &e) < 0 && e.code == CODE_INTERNAL)
			bug("%s", e.msg);
		err_fini(&e);
		arena_free(a);
	}
}

static void convert(const struct world *w, struct front_input *in)
{
	struct front_answers *answers = front_answers_new();
	in->answers = answers;
	size_t asked = 0;
	for (int round = 0; round < ROUNDS && asked < ASKED_MAX; round++) {
		struct arena *a = arena_new(0);
		struct front_result r;
		struct err e = ERR_INIT;
		int rc = front_convert(in, a, &r, &e);
		if (rc < 0 && !err_is_set(&e)) bug("failed without an error");
		if (rc >= 0 && r.state == FRONT_DONE) check_result(&r);
		bool more = rc >= 0 && r.state == FRONT_ASKS;
		if (more && !r.n_questions) bug("asks nothing");
		for (size_t i = 0; more && i < r.n_questions; i++, asked++) answer(w, answers, &r.questions[i]);
		err_fini(&e);
		arena_free(a);
		if (!more) break;
	}
	front_answers_free(answers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = {0};
	struct fuzz_in in = {data, size};
	struct strvec opts = {0};
	while (in.n && *in.p == '@' && opts.n < OPTS_MAX) {
		fuzz_byte(&in);
		strvec_take(&opts, fuzz_text(fuzz_until(&in, "\n")));
	}
	w.dockerfile = fuzz_until(&in, "\n====\n");
	w.ignore = fuzz_until(&in, "\n====\n");
	w.config = in;
	struct front_input fi = {.opts = opts.v, .n_opts = opts.n, .session_id = "session"};
	struct spec_platform p = {0};
	spec_platform_init(&p, "linux", "amd64", "", "");
	fi.build_platforms = &p;
	fi.n_build_platforms = 1;
	convert(&w, &fi);
	spec_platform_fini(&p);
	strvec_fini(&opts);
	return 0;
}
