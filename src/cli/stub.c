#include "cli/internal.h"
const struct command buildx_root = {"slipway", 0, "x"};
