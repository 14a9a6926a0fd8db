#ifndef TERM_TEXT_H
#define TERM_TEXT_H
/* Text as Docker's command lines print it: tables, sizes, times, templates, warnings. Any thread, no blocking but for stderr. */
#include "base/base.h"
#include <jansson.h>

#define timestamp_ns(t) ((t) ? (t)->seconds * 1000000000LL + (t)->nanos : 0) /* of a google.protobuf.Timestamp */
/* One line of CSV into *ret. Error texts are those of Go's encoding/csv. "" is an error ("EOF"). */
int csv_fields(const char *s, char comma, struct strvec *ret, struct err *e);
/* Go's text/tabwriter over the whole text (flags 0). */
void tab_format(const char *text, size_t minwidth, size_t tabwidth, size_t padding, char padchar, struct buf *out);
/* tonistiigi/units: prec >= 0 as %.<prec>f ("7.16MB"), -1 as %g. */
void bytes_format(int64_t n, int prec, char out[static 32]);
/* Go's time.Duration.String. */
void duration_format(int64_t ns, char out[static 32]);
/* Go's time.Time.String in UTC. */
void time_format_go(int64_t ns, char out[static 48]);
void time_format_rfc3339(int64_t ns, char out[static TIME_STR]);

/* A Go text/template: fields (by their JSON names, any case), json, len, index, print(f)(ln), join, if, range, end. */
int template_run(const char *format, json_t *value, struct buf *out, struct err *e);
/* To stderr, in logrus' form. */
void term_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#endif
