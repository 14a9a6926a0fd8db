#ifndef SPEC_SPEC_H
#define SPEC_SPEC_H
/* The field's small grammars. All pure: any thread, no I/O, no blocking (spec_platform_host reads /proc/cpuinfo once on
 * ARM). What a parser returns is heap memory that its _fini (or free) releases; arguments are borrowed. A file may also
 * include the grammar it uses singly. Error texts are those of the Go libraries named in each header,
 * and their code is UNKNOWN as a plain Go error has on the wire, so that clients print the text alone. */
#include "spec/git.h"
#include "spec/media.h"
#include "spec/pattern.h"
#include "spec/platform.h"
#include "spec/ref.h"
#include "spec/regexp.h"
#include "spec/size.h"
#include "spec/url.h"
#endif
