#ifndef BASE_BASE_H
#define BASE_BASE_H
/* All of the base room; a file may also include what it uses singly. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/json.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/text.h"
#include "base/vec.h"
#endif
