/* A policy for on board that is easy to predict; what it does is chosen when it is compiled. */
#include "onboard.h"

#include <math.h>
#include <string.h>

typedef struct {
  int32_t calls;
} memory_t;

static float seen[24];

int32_t onboard_abi(void) { return STUB_ABI; }
int32_t onboard_period_ms(void) { return 10; }
int32_t onboard_max_peers(void) { return 32; }
int32_t onboard_memory_bytes(void) { return (int32_t)sizeof(memory_t); }
const float *onboard_observation(void) { return seen; }
int32_t onboard_observation_size(void) { return 24; }
void onboard_init_in(void *memory) { memset(memory, 0, sizeof(memory_t)); }

int onboard_step_in(void *memory, const onboard_inputs *in, float forces[4]) {
  memory_t *m = memory;
  memcpy(seen, in, 17 * sizeof(float)); /* position to battery */
  seen[17] = (float)in->now_ms;
  seen[18] = (float)in->num_peers;
  seen[19] = (float)in->num_obstacles;
  if (in->num_peers) {
    const onboard_peer *last = &in->peers[in->num_peers - 1];
    seen[20] = last->x + 10.0f * last->y + 100.0f * last->z;
    seen[21] = (float)last->stamp_ms;
    seen[22] = (float)last->id;
  }
  if (in->num_obstacles) {
    const onboard_obstacle *last = &in->obstacles[in->num_obstacles - 1];
    seen[23] = last->x + 10.0f * last->y + 100.0f * last->radius;
  }
  m->calls++;
  for (int i = 0; i < 4; i++) forces[i] = 0.001f * (float)m->calls;
  return ONBOARD_DECIDED;
}
