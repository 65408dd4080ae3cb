/* What the exported controller calls, for tests: a clock, a battery, peers, and a PID controller that leaves a mark. */
#include <string.h>

#include "controller.h"
#include "controller_pid.h"
#include "peer_localization.h"
#include "pm.h"
#include "task.h"
#include "usec_time.h"

#define PID_MARK 1234

static peerLocalizationOtherPosition_t peers[PEER_LOCALIZATION_MAX_NEIGHBORS];
static uint32_t ticks;
static int pid_calls;

TickType_t xTaskGetTickCount(void) { return ticks; }
void vTaskDelay(const TickType_t t) { (void)t; }
uint64_t usecTimestamp(void) { return 1000ull * ticks; }
float pmGetBatteryVoltage(void) { return 3.75f; }
peerLocalizationOtherPosition_t *peerLocalizationGetPositionByIdx(uint8_t idx) { return &peers[idx]; }
void controllerPidInit(void) {}
bool controllerPidTest(void) { return true; }

void controllerPid(control_t *control, const setpoint_t *setpoint, const sensorData_t *sensors, const state_t *state,
                   const stabilizerStep_t step) {
  (void)setpoint, (void)sensors, (void)state, (void)step;
  pid_calls++;
  control->controlMode = controlModeLegacy;
  control->legacy.roll = PID_MARK;
}

/* Handles for the tests. */
void firmware_tell(int place, int id, const float *position, uint32_t stamp) {
  peers[place].id = (uint8_t)id;
  peers[place].pos = (point_t){stamp, position[0], position[1], position[2]};
}

int firmware_pid_calls(void) { return pid_calls; }

/* One call of the loop: 17 numbers of state (position, velocity, quaternion x y z w, gyro in deg/s, goal, and the mode
   of the set point), the time of the operating system, the loop's own step -> mode and forces. */
int firmware_step(const float *x, uint32_t os_ticks, uint32_t step, float *forces) {
  control_t control;
  setpoint_t setpoint;
  sensorData_t sensors;
  state_t state;
  memset(&control, 0, sizeof control);
  memset(&setpoint, 0, sizeof setpoint);
  memset(&sensors, 0, sizeof sensors);
  memset(&state, 0, sizeof state);
  ticks = os_ticks;
  state.position = (point_t){0, x[0], x[1], x[2]};
  state.velocity = (velocity_t){0, x[3], x[4], x[5]};
  state.attitudeQuaternion = (quaternion_t){x[6], x[7], x[8], x[9]};
  sensors.gyro = (Axis3f){x[10], x[11], x[12]};
  setpoint.position = (point_t){0, x[13], x[14], x[15]};
  setpoint.mode.x = setpoint.mode.y = setpoint.mode.z = x[16] > 0.0f ? modeAbs : modeDisable;
  controllerOutOfTree(&control, &setpoint, &sensors, &state, step);
  memcpy(forces, control.normalizedForces, sizeof control.normalizedForces);
  return (int)control.controlMode;
}
