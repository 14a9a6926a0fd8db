#include "proxy/record.h"
#include "spec/url.h"

#include <string.h>

static void request_fini(struct proxy_request *q)
{
	free(q->method);
	free(q->url);
	free(q->redirect);
}

void proxy_record_fini(struct proxy_record *r)
{
	for (size_t i = 0; i < r->requests.n; i++) request_fini(&r->requests.v[i]);
	for (size_t i = 0; i < r->materials.n; i++) {
		free(r->materials.v[i].url);
		free(r->materials.v[i].digest);
	}
	for (size_t i = 0; i < r->gaps.n; i++) {
		free(r->gaps.v[i].method);
		free(r->gaps.v[i].url);
	}
	vec_fini(&r->requests);
	vec_fini(&r->materials);
	vec_fini(&r->gaps);
}

static void hide(char **word)
{
	free(*word);
	*word = xstrdup("xxxxx");
}

char *proxy_url(const char *url)
{
	_cleanup_spec_url_ struct spec_url u = {0};
	if (spec_url_parse(url, &u, NULL) < 0) return xstrdup(url);
	if (u.has_user && *u.user) hide(&u.user);
	if (u.has_user && u.has_password) hide(&u.password);
	if (((!strcmp(u.scheme, "http") && str_ends(u.host, ":80")) ||
	     (!strcmp(u.scheme, "https") && str_ends(u.host, ":443"))))
		*strrchr(u.host, ':') = 0;
	return spec_url_format(&u);
}

void proxy_note_gap(struct proxy_record *r, const char *method, const char *url, const char *reason)
{
	if (r->gaps.n > PROXY_RECORDS) return;
	vec_push(&r->gaps, ((struct proxy_gap){xstrdup(method), proxy_url(url), reason}));
}

void proxy_note_request(struct proxy_record *r, const char *method, const char *url, int status, const char *redirect)
{
	if (r->requests.n >= PROXY_RECORDS) return;
	vec_push(&r->requests,
		 ((struct proxy_request){xstrdup(method), proxy_url(url), redirect ? proxy_url(redirect) : NULL, status}));
}

void proxy_note_material(struct proxy_record *r, const char *url, const struct digest *d)
{
	char text[DIGEST_STR];
	if (r->materials.n >= PROXY_RECORDS) {
		proxy_note_gap(r, "GET", url, "too_many_requests");
		return;
	}
	digest_format(d, text);
	vec_push(&r->materials, ((struct proxy_material){proxy_url(url), xstrdup(text)}));
}

#define move(list)                                                                                  \
	do {                                                                                        \
		for (size_t _i = 0; _i < from->list.n; _i++) vec_push(&to->list, from->list.v[_i]); \
		vec_fini(&from->list);                                                              \
	} while (0)

void proxy_record_move(struct proxy_record *to, struct proxy_record *from)
{
	move(requests);
	move(materials);
	move(gaps);
}

static const char *digest_for(const struct proxy_record *r, const char *url)
{
	for (size_t i = 0; i < r->materials.n; i++)
		if (!strcmp(r->materials.v[i].url, url)) return r->materials.v[i].digest;
	return NULL;
}

void proxy_record_redirects(struct proxy_record *r)
{
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < r->requests.n; i++) {
			const struct proxy_request *q = &r->requests.v[i];
			if (!q->redirect || !strcmp(q->redirect, q->url) || digest_for(r, q->url)) continue;
			const char *d = digest_for(r, q->redirect);
			if (!d) continue;
			vec_push(&r->materials, ((struct proxy_material){xstrdup(q->url), xstrdup(d)}));
			more = true;
		}
	}
}
