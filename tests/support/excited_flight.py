"""A flight that shows a drone's parameters: the emulator's firmware and plant, a policy that keeps it in the air, and
steps added to its commands; recorded on the channels that a deployment records."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from support.stepped_crazyflie import SteppedCrazyflie

from controllers.artifact import PolicyArtifact
from controllers.logsink import LogSink
from controllers.policy import Policy
from hardware.clock import SteppedClock
from hardware.guard import GuardedRobot
from hardware.robot import Command, RobotState
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.estimator import Noise
from hardware.robots.crazyflie.plant import RigidBodyPlant, load_airframe
from robo_rl.zoo import resolve

G = 9.81
STEP_S = 0.01
TICK_S = 0.002
"""From a set point to the motors."""
STEPS = {"attitude_thrust": (0.15, 0.15, 1.0, 0.10), "rotor_thrust": (0.10, 0.10, 0.10, 0.10)}
"""Size of the added steps per command component."""


def random_truth(rng: np.random.Generator) -> dict[str, float]:
    """Parameters of one drone, by their names in ranges.toml, drawn from the task's ranges."""
    return {
        "mass": 0.029 * rng.uniform(0.85, 1.15),
        "inertia_xx": 1.657e-5 * rng.uniform(0.6, 1.4),
        "inertia_yy": 1.666e-5 * rng.uniform(0.6, 1.4),
        "inertia_zz": 2.926e-5 * rng.uniform(0.6, 1.4),
        "thrust_to_weight": rng.uniform(1.5, 2.2),
        "thrust_curve": rng.uniform(0.0, 1.0),
        "motor_tau_up": rng.uniform(0.03, 0.07),
        "motor_tau_down": rng.uniform(0.03, 0.15),
        "torque_per_thrust": rng.uniform(0.0045, 0.0075),
        "drag_xy": rng.uniform(0.005, 0.025),
        "drag_z": rng.uniform(0.005, 0.025),
        "command_delay": 0.002 * rng.integers(2, 10),
    }


class FinePlant(RigidBodyPlant):
    """The emulator's own world in steps of half a millisecond, second order: its discretisation no longer shows.

    The plant lets a command act half a step early; commands that change half a step late make up for it.
    """

    _last: NDArray[np.float64] | None = None

    def step(self, actuators: NDArray[np.float64], dt_s: float) -> None:
        before = actuators if self._last is None else self._last
        super().step(0.5 * (before + actuators), dt_s / 4.0)
        for _ in range(3):
            super().step(actuators, dt_s / 4.0)
        self._last = actuators.copy()


def plant_of(truth: dict[str, float]) -> RigidBodyPlant:
    """The emulator's own world with these parameters, high over the floor."""
    airframe = replace(
        load_airframe(),
        mass_kg=truth["mass"],
        inertia_kg_m2=(truth["inertia_xx"], truth["inertia_yy"], truth["inertia_zz"]),
        arm_m=0.046,
        thrust_max_n=truth["thrust_to_weight"] * truth["mass"] * G / 4.0,
        thrust_curve=truth["thrust_curve"],
        tau_up_s=truth["motor_tau_up"],
        tau_down_s=truth["motor_tau_down"],
        torque_per_thrust_m=truth["torque_per_thrust"],
        drag_kg_s=(truth["drag_xy"], truth["drag_xy"], truth["drag_z"]),
    )
    return FinePlant(1, airframe)


class DelayedCrazyflie(SteppedCrazyflie):
    """Commands reach the firmware `delay_s` after they were written, to its tick of 2 ms."""

    delay_s = 0.0

    def read(self) -> RobotState:
        due = self.clock.now_ns() - round(self.delay_s * 1e9)
        while self._waiting and self._waiting[0][0] <= due:
            written_ns, command = self._waiting.pop(0)
            self.run_until(written_ns + round(self.delay_s * 1e9))
            v = [float(x) for x in command.values]
            attitude = command.mode == "attitude_thrust"
            message = w.Attitude(v[0], v[1], v[2], v[3]) if attitude else w.RotorThrust((v[0], v[1], v[2], v[3]))
            self.autopilot.stream(0, message)
        return super().read()

    def write(self, command: Command) -> None:
        if command.mode in STEPS:
            self._waiting.append((self.clock.now_ns(), command))
        else:
            super().write(command)

    def open(self) -> None:
        self._waiting: list[tuple[int, Command]] = []
        super().open()


def record_flight(
    directory: Path, truth: dict[str, float], *, mode: str, seconds: float, seed: int = 0, noise: Noise | None = None
) -> Path:
    """Takes off, flies with steps in every command for `seconds`, and returns the recording."""
    rng = np.random.default_rng(seed)
    clock = SteppedClock(1_700_000_000_000_000_000)
    robot = DelayedCrazyflie(clock, seed=seed, noise=noise, plant=plant_of(truth))
    guarded = GuardedRobot(robot, clock)
    artifact = PolicyArtifact.load(resolve("zoo:quadrotor-hover" + ("" if mode == "attitude_thrust" else "-rotor")))
    policy = Policy(artifact)
    with LogSink(directory, robot.spec, "crazyflie", artifact, clock.now_ns()) as sink:
        guarded.open()
        clock.advance_s(0.1)
        guarded.read()
        guarded.arm()
        guarded.write(Command("takeoff", np.array([1.0, 1.5])))
        for _ in range(250):
            clock.advance_s(STEP_S)
            guarded.read()
        robot.delay_s = truth["command_delay"] - TICK_S
        policy.start()
        goal, step = np.array([0.0, 0.0, 1.5]), np.zeros(4)
        for n in range(round(seconds / STEP_S)):
            state = guarded.read()
            sink.state(state, clock.now_ns())
            if n % 120 == 0:
                goal = np.array([0.0, 0.0, 2.0]) + rng.uniform(-0.7, 0.7, 3)
            if n % 8 == 0:
                step = _steps(mode, rng)
            wished = policy.decide(state.signals, {"position_world": goal}).command + step
            guarded.write(Command(mode, wished))
            sent = guarded.sent
            assert sent is not None
            policy.sent(sent.values)
            sink.sent(sent, clock.now_ns())
            clock.advance_s(STEP_S)
        guarded.stop()
    return directory


def _steps(mode: str, rng: np.random.Generator) -> NDArray[np.float64]:
    size = np.array(STEPS[mode])
    return size * rng.choice([-1.0, 0.0, 1.0], 4)
