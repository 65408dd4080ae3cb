"""The emulated drone's parameters: names, types and defaults of the firmware, and what a write does.

The group `fault` is ours: it lets any client, cflib included, inject faults at run time (`faults.py`).
"""

import struct
from dataclasses import dataclass

from hardware.errors import BadInput
from hardware.robots.crazyflie.wire import PARAM_TYPES, READ_ONLY, TocItem, pack_value


@dataclass(frozen=True)
class Parameter:
    """One parameter as the firmware declares it."""

    name: str
    """group.name"""
    type: str
    default: float
    read_only: bool = False


def _floats(group: str, **values: float) -> tuple[Parameter, ...]:
    return tuple(Parameter(f"{group}.{name}", "float", value) for name, value in values.items())


def _bytes(group: str, **values: int) -> tuple[Parameter, ...]:
    return tuple(Parameter(f"{group}.{name}", "uint8", value) for name, value in values.items())


PARAMETERS: tuple[Parameter, ...] = (
    # platform_defaults_cf2.h; read by the attitude and rate loops
    *_floats("pid_attitude", roll_kp=6.0, roll_ki=3.0, roll_kd=0.0),
    *_floats("pid_attitude", pitch_kp=6.0, pitch_ki=3.0, pitch_kd=0.0),
    *_floats("pid_attitude", yaw_kp=6.0, yaw_ki=1.0, yaw_kd=0.35),
    *_floats("pid_rate", roll_kp=250.0, roll_ki=500.0, roll_kd=2.5),
    *_floats("pid_rate", pitch_kp=250.0, pitch_ki=500.0, pitch_kd=2.5),
    *_floats("pid_rate", yaw_kp=120.0, yaw_ki=16.7, yaw_kd=0.0),
    # read by the position and velocity loops
    *_floats("posCtlPid", xKp=2.0, xKi=0.0, yKp=2.0, yKi=0.0, zKp=2.0, zKi=0.5),
    *_floats("posCtlPid", rLimit=20.0, pLimit=20.0, xVelMax=1.0, yVelMax=1.0, zVelMax=1.0),
    Parameter("posCtlPid.thrustBase", "uint16", 36000),
    Parameter("posCtlPid.thrustMin", "uint16", 20000),
    *_floats("velCtlPid", vxKp=25.0, vxKi=1.0, vyKp=25.0, vyKi=1.0, vzKp=25.0, vzKi=15.0),
    # controller 1 is the PID controller, 6 a policy on board where there is one (`onboard.py`; everything else is flown
    # as by 1); estimator 2 is the Kalman filter, and the emulator has no other
    *_bytes("stabilizer", estimator=2, controller=1, stop=0),
    *_bytes("kalman", resetEstimation=0),
    # no longer has an effect in the firmware either
    *_bytes("commander", enHighLevel=0),
    *_floats("locSrv", extPosStdDev=0.01, extQuatStdDev=0.0045),
    *_floats("pm", lowVoltage=3.2, criticalLowVoltage=3.0),
    Parameter("supervisor.prefltTimeout", "uint16", 30000),
    Parameter("supervisor.landedTimeout", "uint16", 3000),
    Parameter("supervisor.tmblChckEn", "uint8", 1),
    *(
        Parameter(f"deck.{name}", "uint8", 0, read_only=True)
        for name in ("bcLighthouse4", "bcLoco", "bcFlow2", "bcZRanger2", "bcMultiranger", "bcAI")
    ),
    Parameter("system.selftestPassed", "int8", 1, read_only=True),
    Parameter("firmware.revision0", "uint32", 0x524F424F, read_only=True),
    Parameter("firmware.modified", "uint8", 1, read_only=True),
    # ours: 0 is healthy
    *_floats("fault", loss=0.0, delay=0.0, drop=0.0, vbat=0.0, mocap=0.0),
    *_bytes("fault", motor=0, gyro=0, freeze=0, reboot=0),
)
"""All parameters, in the order of their ids."""

INDEX = {p.name: i for i, p in enumerate(PARAMETERS)}


def toc() -> tuple[TocItem, ...]:
    """The parameters' table of contents."""
    return tuple(
        TocItem(i, PARAM_TYPES[p.type].code | (READ_ONLY if p.read_only else 0), *p.name.split("."))
        for i, p in enumerate(PARAMETERS)
    )


def defaults() -> dict[str, float]:
    """Name -> default value."""
    return {p.name: p.default for p in PARAMETERS}


def stored(name: str, value: float) -> float:
    """The value as the drone keeps it after its type; raises BadInput for an unknown or read-only name."""
    if name not in INDEX:
        raise BadInput(f"robot crazyflie has no parameter '{name}'")
    p = PARAMETERS[INDEX[name]]
    if p.read_only:
        raise BadInput(f"parameter '{name}' of robot crazyflie is read-only")
    t = PARAM_TYPES[p.type]
    return struct.unpack(t.layout, pack_value(t, value))[0]
