/* The OTEL_* variables as values. Those for traces alone win over the general ones. Source: opentelemetry.io/docs/specs/otel
 * configuration/sdk-environment-variables, protocol/exporter; which of them switch the export on: BuildKit util/tracing/detect.
 */
#include "tele/tele.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define GRPC_PATH "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
typedef const char *env_fn(const char *name);

static const char *get(env_fn *env, const char *name)
{
	const char *v = env(name);
	return str_empty(v) ? NULL : v;
}

/* OTEL_EXPORTER_OTLP_TRACES_<name>, else OTEL_EXPORTER_OTLP_<name>. */
static const char *either(env_fn *env, const char *name)
{
	char full[64];
	snprintf(full, sizeof full, "OTEL_EXPORTER_OTLP_TRACES_%s", name);
	const char *v = get(env, full);
	if (v) return v;
	snprintf(full, sizeof full, "OTEL_EXPORTER_OTLP_%s", name);
	return get(env, full);
}

static bool truth(const char *v) { return v && !strcasecmp(v, "true"); }

static int positive(env_fn *env, const char *name, const char *v, int64_t fallback, int64_t *ret, struct err *e)
{
	char *end = NULL;
	*ret = fallback;
	if (!v) return 0;
	errno = 0;
	long long n = strtoll(v, &end, 10);
	if (errno || *end || n <= 0 || n > 86400000)
		return err_set(e, CODE_INVALID_ARGUMENT, "%s=%s: expected a whole number above 0", name, v);
	*ret = n;
	return 0;
}

static char *decoded(const char *s, size_t n)
{
	while (n && (*s == ' ' || *s == '\t')) s++, n--;
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) n--;
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < n; i++) {
		unsigned c;
		if (s[i] == '%' && i + 2 < n && sscanf(s + i + 1, "%2x", &c) == 1 && c) {
			buf_addc(&b, (char)c);
			i += 2;
		} else {
			buf_addc(&b, s[i]);
		}
	}
	char *text = buf_take_str(&b);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 32) *p = ' '; /* no second header by a line break */
	return text;
}

/* "k=v,k2=v2", percent-encoded; a later value of a name replaces the earlier one. */
static void pairs(const char *list, const char *format, struct strvec *out)
{
	while (list && *list) {
		size_t n = strcspn(list, ","), key = strcspn(list, "=");
		if (key && key < n) {
			_cleanup_free_ char *k = decoded(list, key), *v = decoded(list + key + 1, n - key - 1);
			if (format)
				strvec_addf(out, format, k, v);
			else
				strvec_env_set(out, k, v);
		}
		list += n;
		if (*list) list++;
	}
}

static void set_resource(env_fn *env, const char *service, const char *version, struct strvec *out)
{
	strvec_env_set(out, "service.name", service);
	strvec_env_set(out, "service.version", version);
	pairs(get(env, "OTEL_RESOURCE_ATTRIBUTES"), NULL, out);
	const char *name = get(env, "OTEL_SERVICE_NAME");
	if (name) strvec_env_set(out, "service.name", name);
}

static int set_url(env_fn *env, struct tele_otlp *o, struct err *e)
{
	const char *own = get(env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
		   *v = own ? own : get(env, "OTEL_EXPORTER_OTLP_ENDPOINT");
	const char *name = own ? "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" : "OTEL_EXPORTER_OTLP_ENDPOINT";
	_cleanup_free_ char *url = NULL;
	if (!v) v = o->grpc ? "http://localhost:4317" : "http://localhost:4318";
	if (str_starts(v, "unix://")) {
		if (!o->grpc)
			return err_set(e, CODE_INVALID_ARGUMENT, "%s=%s: a unix socket is for the protocol grpc only", name, v);
		o->unix_path = xstrdup(v + strlen("unix://"));
		url = xstrdup("http://localhost");
	} else if (str_starts(v, "http://") || str_starts(v, "https://")) {
		url = xstrdup(v);
	} else if (o->grpc && !strstr(v, "://")) { /* host:port, as grpc has it */
		url = xasprintf("%s://%s", truth(either(env, "INSECURE")) ? "http" : "https", v);
	} else {
		return err_set(e, CODE_INVALID_ARGUMENT, "%s=%s: expected http://HOST:PORT or https://HOST:PORT", name, v);
	}
	while (str_ends(url, "/")) url[strlen(url) - 1] = 0;
	const char *host = strstr(url, "://") + 3;
	if (!*host || *host == ':') return err_set(e, CODE_INVALID_ARGUMENT, "%s=%s: there is no host in it", name, v);
	if (o->grpc) {
		url[(size_t)(host - url) + strcspn(host, "/?#")] = 0; /* the path is the method's */
		o->url = xasprintf("%s" GRPC_PATH, url);
	} else if (own) {
		o->url = strchr(host, '/') ? take_ptr(url) : xasprintf("%s/", url);
	} else {
		o->url = xasprintf("%s/v1/traces", url);
	}
	return 0;
}

static int set_protocol(env_fn *env, struct tele_otlp *o, struct err *e)
{
	const char *v = either(env, "PROTOCOL");
	if (!v || !strcmp(v, "grpc"))
		o->grpc = true;
	else if (strcmp(v, "http/protobuf"))
		return err_set(e, CODE_INVALID_ARGUMENT,
			       "unsupported otlp protocol %s in OTEL_EXPORTER_OTLP_PROTOCOL: use grpc or http/protobuf", v);
	return 0;
}

static int wanted(env_fn *env, bool *ret, struct err *e)
{
	const char *exporter = get(env, "OTEL_TRACES_EXPORTER");
	*ret = false;
	if (truth(get(env, "OTEL_SDK_DISABLED")) || (exporter && !strcmp(exporter, "none"))) return 0;
	if (exporter && strcmp(exporter, "otlp")) {
		bool ignore = false;
		const char *v = get(env, "OTEL_IGNORE_ERROR");
		if (v && str_bool(v, &ignore) && ignore) return 0;
		return err_set(e, CODE_INVALID_ARGUMENT,
			       "unsupported opentelemetry exporter %s in OTEL_TRACES_EXPORTER: use otlp or none", exporter);
	}
	*ret = exporter || get(env, "OTEL_EXPORTER_OTLP_ENDPOINT") || get(env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
	return 0;
}

static int fill(env_fn *env, struct tele_otlp *o, struct err *e)
{
	if (wanted(env, &o->enabled, e) < 0) return -1;
	if (!o->enabled) return 0;
	if (set_protocol(env, o, e) < 0 || set_url(env, o, e) < 0) return -1;
	if (positive(env, "OTEL_EXPORTER_OTLP_TIMEOUT", either(env, "TIMEOUT"), 10000, &o->timeout_ms, e) < 0 ||
	    positive(env, "OTEL_BSP_SCHEDULE_DELAY", get(env, "OTEL_BSP_SCHEDULE_DELAY"), 5000, &o->delay_ms, e) < 0 ||
	    positive(env, "OTEL_BSP_MAX_QUEUE_SIZE", get(env, "OTEL_BSP_MAX_QUEUE_SIZE"), 2048, &o->max_spans, e) < 0)
		return -1;
	pairs(either(env, "HEADERS"), "%s: %s", &o->headers);
	o->ca = xstrdup(either(env, "CERTIFICATE"));
	o->cert = xstrdup(either(env, "CLIENT_CERTIFICATE"));
	o->key = xstrdup(either(env, "CLIENT_KEY"));
	return 0;
}

int tele_otlp_from_env(const char *(*env)(const char *name), const char *service, const char *version, struct tele_otlp *ret,
		       struct err *e)
{
	struct tele_otlp o = {0};
	set_resource(env, service, version, &o.resource);
	if (fill(env, &o, e) < 0) {
		tele_otlp_fini(&o);
		return -1;
	}
	*ret = o;
	return 0;
}

void tele_otlp_fini(struct tele_otlp *o)
{
	free(o->url);
	free(o->unix_path);
	free(o->ca);
	free(o->cert);
	free(o->key);
	strvec_fini(&o->headers);
	strvec_fini(&o->resource);
	*o = (struct tele_otlp){0};
}
