"""R emulated drones in flight: plant, estimators, supervisors, commanders and control loops, without any link.

`tick()` is one period of the firmware's stabilizer, 2 ms. The fast part is batched numpy over all drones; the 100 Hz
part (commander, position control) and the 25 Hz part (supervisor) run drone by drone.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hardware.plant import Plant
from hardware.robots.crazyflie import parameters
from hardware.robots.crazyflie.commander import OFF, STREAMED, Commander
from hardware.robots.crazyflie.estimator import Estimate, Estimator, Noise
from hardware.robots.crazyflie.firmware import (
    COUNTS,
    RATE_HZ,
    Gains,
    cascade,
    gains_on,
    per_tick,
    rotor_ceiling,
    start_cascade,
)
from hardware.robots.crazyflie.onboard import OUT_OF_TREE, OnboardFlight, OnboardPolicy
from hardware.robots.crazyflie.peers import CAPACITY, Peers
from hardware.robots.crazyflie.position import PositionController
from hardware.robots.crazyflie.supervisor import MOTORS_RUN, State, Supervisor, Timings
from hardware.robots.crazyflie.target import Target
from hardware.robots.crazyflie.wire import Info
from hardware.robots.crazyflie.wire_commands import NotifyStop, Setpoint

Array = NDArray[np.float64]

DT_S = 1.0 / RATE_HZ
TICK_MS = round(1000 * DT_S)
POSITION_TICKS = 5
"""RATE_POSITION and RATE_HL_COMMANDER: 100 Hz."""
SUPERVISOR_TICKS = 20
"""RATE_SUPERVISOR: 25 Hz."""
BATTERY_LOW_MS = 5000
"""DEFAULT_BAT_LOW_DURATION_TO_TRIGGER_SEC."""
NOMINAL_BATTERY_V = 4.0
"""Where the injected plant says nothing about its battery."""

_DEG = 180.0 / np.pi
_AXES = ("roll", "pitch", "yaw")


@dataclass
class Pilot:
    """The per-drone part of the firmware."""

    parameters: dict[str, float] = field(default_factory=parameters.defaults)
    commander: Commander = field(default_factory=Commander)
    supervisor: Supervisor = field(default_factory=Supervisor)
    position: PositionController = field(default_factory=PositionController)
    target: Target = OFF
    setpoint: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Roll, pitch, yaw rate, thrust that the attitude loop follows."""
    low_since_ms: int | None = None


class Autopilot:
    """R drones' firmware over one plant; instants are integer milliseconds since the start."""

    def __init__(
        self,
        plant: Plant,
        *,
        rng: np.random.Generator,
        noise: Noise | None = None,
        auto_arm: bool = False,
        onboard: OnboardPolicy | None = None,
    ) -> None:
        self.plant, self.num_robots, self.auto_arm = plant, plant.num_robots, auto_arm
        r = self.num_robots
        self.onboard = None if onboard is None else OnboardFlight(onboard, r)
        self.estimator = Estimator(r, rng, noise or Noise(), DT_S)
        self.estimate: Estimate = self.estimator.update(plant.signals())
        self.pilots = [self._new_pilot() for _ in range(r)]
        self.motors = np.zeros((4, r))
        """Commands to the motors, normalised force."""
        # Firmware with a policy in it is built by whoever exports that: its table is as long as the swarm needs.
        self.peers = Peers(r, CAPACITY if onboard is None else max(CAPACITY, r - 1))
        self.now_ms = 0
        self.battery_v = np.full(r, NOMINAL_BATTERY_V)
        self._setpoint = np.zeros((4, r))
        self._rotors, self._by_rotors = np.zeros((4, r)), np.zeros(r, dtype=bool)
        self._allowed = np.zeros(r, dtype=bool)
        self._motor_gain = np.ones((4, r))
        self._voltage_cap, self._voltage_capped = np.full(r, np.inf), False
        gains = gains_on(np.zeros((3, r)))
        self._gains = Gains(*(np.repeat(g, r, axis=1) for g in gains))
        self._tick_gains = per_tick(self._gains, DT_S)
        self._cascade = start_cascade(self.estimate.angles, self.estimate.gyro)

    def tick(self) -> None:
        """2 ms of everything."""
        applied = self.motors * self._motor_gain
        if self._voltage_capped:  # the plant knows nothing of this fault
            applied = np.minimum(applied, rotor_ceiling(self.battery_v))
        self.plant.step(applied.T, DT_S)
        self.now_ms += TICK_MS
        signals = self.plant.signals()
        self.estimate = self.estimator.update(signals)
        voltage = signals.get("battery_voltage")
        self.battery_v = np.minimum(NOMINAL_BATTERY_V if voltage is None else voltage, self._voltage_cap)
        ticks = self.now_ms // TICK_MS
        if ticks % SUPERVISOR_TICKS == 0:
            for i in range(self.num_robots):
                self._supervise(i)
        if ticks % POSITION_TICKS == 0:
            self._outer_loops()
        self._inner_loop()

    def stream(self, i: int, message: Setpoint | NotifyStop) -> bool:
        """Gives drone `i` a streamed set point; False for a kind that is not emulated.

        One that needs no position control acts from the next tick on, as in the firmware.
        """
        pilot = self.pilots[i]
        if not pilot.commander.stream(message, self.now_ms):
            return False
        target, state = pilot.commander.target, pilot.supervisor.state
        direct = target.xy == "off" and target.z == "off" and pilot.commander.priority == STREAMED
        if direct and state in MOTORS_RUN and state is not State.LEVEL_OUT:
            if self.onboard is not None:
                self.onboard.leave(i)
            self._follow(i, target, target.roll, target.pitch, target.thrust)
        return True

    def _inner_loop(self) -> None:
        e = self.estimate
        on_board = np.zeros(self.num_robots, dtype=bool) if self.onboard is None else self.onboard.active
        if on_board.all():  # the cascade stands still, as it does at zero thrust
            motors, self._cascade = self.motors, start_cascade(e.angles, e.gyro)
        else:
            # A NaN gyro makes NaN motors; the firmware's cast to an integer makes them zero.
            motors, self._cascade = cascade(self._setpoint, e.angles, e.gyro, self._cascade, gains=self._tick_gains)
        if self._by_rotors.any():
            motors = np.where(self._by_rotors, self._rotors, motors)
        if self.onboard is not None and on_board.any():
            forces = self.onboard.forces(e, self.battery_v, self.peers, self.now_ms)
            motors = np.where(on_board, forces, motors)
        self.motors = np.where(self._allowed & np.isfinite(motors), motors, 0.0)

    def _outer_loops(self) -> None:
        positions, velocities = self.estimate.position.T.tolist(), self.estimate.velocity.T.tolist()
        yaws = self.estimate.angles[2].tolist()
        for i, (pilot, position, velocity, yaw) in enumerate(
            zip(self.pilots, positions, velocities, yaws, strict=True)
        ):
            state = pilot.supervisor.state
            lapse = 0 if pilot.supervisor.flying else pilot.supervisor.timings.shutdown_ms
            target = pilot.commander.update(self.now_ms, np.array(position), np.array(velocity), yaw, lapse_ms=lapse)
            self._allowed[i] = pilot.supervisor.motors_allowed
            if not self._allowed[i]:
                target = OFF
            elif state is State.LEVEL_OUT:
                target = target.levelled()
            if self._by_policy(i, target):
                roll = pitch = thrust = 0.0
            else:
                roll, pitch, thrust = pilot.position.update(target, position, velocity, yaw, pilot.parameters)
            if thrust <= 0.0:
                pilot.position.reset()
            self._follow(i, target, roll, pitch, thrust)

    def _by_policy(self, i: int, target: Target) -> bool:
        """Whether the policy on board flies drone `i` to this target; if so, it has been told."""
        if self.onboard is None:
            return False
        wanted = self.pilots[i].parameters["stabilizer.controller"] == OUT_OF_TREE
        if wanted and target.xy == "position" and target.z == "position":
            self.onboard.take(i, target.position)
            return True
        self.onboard.leave(i)
        return False

    def _follow(self, i: int, target: Target, roll: float, pitch: float, thrust: float) -> None:
        """Hands drone `i`'s target to the attitude loop, or its rotor forces to the motors."""
        self._by_rotors[i] = target.rotors is not None
        if target.rotors is not None:
            self._rotors[:, i] = target.rotors
        if target.yaw_mode == "angle":
            self._cascade.yaw_setpoint[i] = target.yaw
        pilot, rate = self.pilots[i], target.yaw if target.yaw_mode == "rate" else 0.0
        pilot.target, pilot.setpoint = target, (roll, pitch, rate, thrust)
        self._setpoint[:, i] = pilot.setpoint

    def _supervise(self, i: int) -> None:
        pilot = self.pilots[i]
        x, y, z = self.estimate.acceleration_g[:, i].tolist()
        age = pilot.commander.age_ms(self.now_ms)
        thrust = bool((self.motors[:, i] > 0.0).any())
        pilot.supervisor.update(self.now_ms, acc_g=(x, y, z), thrust=thrust, setpoint_age_ms=age)
        if self.battery_v[i] > pilot.parameters["pm.lowVoltage"]:
            pilot.low_since_ms = None
        elif pilot.low_since_ms is None:
            pilot.low_since_ms = self.now_ms
        # The motors stop with the supervisor, not only at the next turn of the outer loop.
        self._allowed[i] = pilot.supervisor.motors_allowed

    def info(self, i: int) -> Info:
        """The supervisor's information bits of drone `i`."""
        pilot = self.pilots[i]
        active = pilot.commander.planning
        finished = active and pilot.commander.planner.finished(self.now_ms / 1000.0)
        return pilot.supervisor.info(high_level_active=active, high_level_finished=finished)

    def battery_state(self, i: int) -> int:
        """pm.state: 0 on battery, 3 low power (below pm.lowVoltage for five seconds)."""
        since = self.pilots[i].low_since_ms
        return 3 if since is not None and self.now_ms - since > BATTERY_LOW_MS else 0

    def set_parameter(self, i: int, name: str, value: float) -> float:
        """Writes a parameter of drone `i`, with its effect; returns the value kept. Raises BadInput."""
        pilot, value = self.pilots[i], parameters.stored(name, value)
        pilot.parameters[name] = value
        group = name.split(".")[0]
        if group in ("pid_rate", "pid_attitude"):
            self._set_gain(i, name, value)
        elif name == "kalman.resetEstimation" and value:
            self.estimator.reset(i)
        elif name == "stabilizer.stop":
            pilot.supervisor.emergency |= bool(value)
        elif group == "supervisor":
            self._set_timings(pilot)
        elif name == "fault.motor":
            self._motor_gain[:, i] = np.where(np.arange(1, 5) == value, 0.0, 1.0)
        elif name == "fault.vbat":
            self._voltage_cap[i] = value if value > 0.0 else np.inf
            self._voltage_capped = bool(np.isfinite(self._voltage_cap).any())
        elif name == "fault.gyro":
            self.estimator.gyro_fault[i] = bool(value)
        elif name == "fault.freeze":
            self.estimator.frozen[i] = bool(value)
        elif name == "fault.reboot" and value:
            self.reboot(i)
        return pilot.parameters[name] if name != "fault.reboot" else 0.0

    def reboot(self, i: int) -> None:
        """Puts drone `i` back to its start with fresh firmware; its faults and parameters are gone."""
        self.plant.reset(i)
        self.pilots[i] = self._new_pilot()
        self.estimator.reset(i)
        self.peers.forget(i)
        if self.onboard is not None:
            self.onboard.leave(i)
        self.estimator.settle(i, np.zeros(3))
        self.estimator.gyro_fault[i] = self.estimator.frozen[i] = False
        self._motor_gain[:, i], self._voltage_cap[i] = 1.0, np.inf
        self._voltage_capped = bool(np.isfinite(self._voltage_cap).any())
        self.motors[:, i] = self._setpoint[:, i] = 0.0
        for gains, fresh in zip(self._gains, gains_on(np.zeros((3, 1))), strict=True):
            gains[:, i] = fresh[:, 0]
        self._tick_gains = per_tick(self._gains, DT_S)
        fresh = start_cascade(np.zeros((3, 1)), np.zeros((3, 1)))
        for plane, start in zip(self._cascade, fresh, strict=True):
            plane[..., i] = start[..., 0]

    def _new_pilot(self) -> Pilot:
        pilot = Pilot(supervisor=Supervisor(auto_arm=self.auto_arm))
        if self.onboard is not None:
            pilot.parameters["stabilizer.controller"] = OUT_OF_TREE
        return pilot

    def _set_gain(self, i: int, name: str, value: float) -> None:
        group, key = name.split(".")
        axis, term = key.split("_")
        plane = getattr(self._gains, ("rate_" if group == "pid_rate" else "angle_") + term[1])
        plane[_AXES.index(axis), i] = value * (_DEG / COUNTS if group == "pid_rate" else 1.0)
        self._tick_gains = per_tick(self._gains, DT_S)

    def _set_timings(self, pilot: Pilot) -> None:
        p, supervisor = pilot.parameters, pilot.supervisor
        never = -1e9 if not p["supervisor.tmblChckEn"] else None
        supervisor.timings = replace(
            supervisor.timings,
            preflight_ms=int(p["supervisor.prefltTimeout"]),
            landing_ms=int(p["supervisor.landedTimeout"]),
            tilt_g=Timings().tilt_g if never is None else never,
        )
