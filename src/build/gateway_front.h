#ifndef BUILD_GATEWAY_FRONT_H
#define BUILD_GATEWAY_FRONT_H
/* gateway.v0: an image that runs as frontend. Loop thread, not blocking. Private to the room. */
#include "build/bridge.h"

struct gateway_front;
/* bridge is taken: the frontend's own, with its inputs. opts are copied. done comes once, later. */
struct gateway_front *gateway_front_start(struct build *b, struct bridge *bridge, const struct strvec *opts,
					  void (*done)(void *arg, struct result *res /* taken */, const struct err *e),
					  void *arg);
/* done is not called any more; what runs is stopped and cleaned up by itself. */
void gateway_front_cancel(struct gateway_front *g);
#endif
