/* Types that the stabilizer loop hands to a controller. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef uint32_t stabilizerStep_t;

typedef struct {
  float x, y, z;
} Axis3f;

typedef struct attitude_s {
  uint32_t timestamp;
  float roll, pitch, yaw;
} attitude_t;

typedef struct vec3_s {
  uint32_t timestamp;
  float x, y, z;
} point_t;
typedef struct vec3_s velocity_t;
typedef struct vec3_s acc_t;
typedef struct vec3_s jerk_t;

typedef struct quaternion_s {
  float x, y, z, w;
} quaternion_t;

typedef struct baro_s {
  float pressure, temperature, asl;
} baro_t;

typedef struct sensorData_s {
  Axis3f acc;  /* g */
  Axis3f gyro; /* deg/s */
  Axis3f mag;
  baro_t baro;
  uint64_t interruptTimestamp;
} sensorData_t;

typedef struct state_s {
  attitude_t attitude; /* deg, pitch inverted */
  quaternion_t attitudeQuaternion;
  point_t position;    /* m */
  velocity_t velocity; /* m/s */
  acc_t acc;
} state_t;

#define STABILIZER_NR_OF_MOTORS 4

typedef enum control_mode_e { controlModeLegacy = 0, controlModeForceTorque = 1, controlModeForce = 2 } control_mode_t;

typedef struct control_s {
  union {
    struct {
      int16_t roll, pitch, yaw;
      float thrust;
    } legacy; /* without a name in the firmware, which is no C99 */
    float normalizedForces[STABILIZER_NR_OF_MOTORS];
  };
  control_mode_t controlMode;
} control_t;

typedef enum mode_e { modeDisable = 0, modeAbs, modeVelocity } stab_mode_t;

typedef struct setpoint_s {
  uint32_t timestamp;
  attitude_t attitude;
  attitude_t attitudeRate;
  quaternion_t attitudeQuaternion;
  float thrust;
  point_t position; /* m */
  velocity_t velocity;
  acc_t acceleration;
  jerk_t jerk;
  bool velocity_body;
  struct {
    stab_mode_t x, y, z, roll, pitch, yaw, quat;
  } mode;
} setpoint_t;
