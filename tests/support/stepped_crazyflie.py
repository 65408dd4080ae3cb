"""A Crazyflie in one process on a stepped clock: the emulator's own firmware and plant, without sockets or threads."""

import numpy as np

from hardware.clock import SteppedClock
from hardware.errors import LinkLost, RoboError
from hardware.robot import Command, RobotState
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie.autopilot import TICK_MS, Autopilot
from hardware.robots.crazyflie.estimator import Noise
from hardware.robots.crazyflie.faults import FAULTS
from hardware.robots.crazyflie.plant import RigidBodyPlant
from hardware.robots.crazyflie.wire import Info
from hardware.spec import load_spec

WORDS = {Info.ARMED: "armed", Info.FLYING: "flying", Info.TUMBLED: "tumbled", Info.LOCKED: "locked"}


class SteppedCrazyflie:
    """RobotIO; time passes in the firmware when the clock has moved on at a read. `written` keeps every command."""

    def __init__(
        self, clock: SteppedClock, *, seed: int = 0, noise: Noise | None = None, plant: RigidBodyPlant | None = None
    ) -> None:
        self.spec = load_spec("crazyflie")
        self.clock = clock
        self.autopilot = Autopilot(plant or RigidBodyPlant(), rng=np.random.default_rng(seed), noise=noise)
        self.written: list[tuple[int, Command]] = []
        self.stops: list[int] = []
        self.link_up = True
        self.stale = False
        """States stop coming, commands still get through."""
        self.loss = 0.0
        """Share of states and commands that are lost on the way."""
        self._link_rng = np.random.default_rng(seed + 1)
        self._start_ns = clock.now_ns()
        self._last = RobotState(clock.now_ns(), {})
        self._armed = False

    @property
    def position(self) -> np.ndarray:
        """The true position (3,)."""
        return self.autopilot.plant.signals()["position_world"][0].copy()

    def fault(self, name: str) -> None:
        """One of the emulator's faults that lie in the drone itself."""
        self.autopilot.set_parameter(0, FAULTS[name].parameter, FAULTS[name].value)

    def open(self) -> None:
        self.read()

    def read(self) -> RobotState:
        self.run_until(self.clock.now_ns())
        if not self.link_up:
            raise LinkLost("test: link down")
        if self.stale or self._link_rng.random() < self.loss:
            return self._last
        e = self.autopilot.estimate
        info = self.autopilot.info(0)
        words = {word for bit, word in WORDS.items() if bit in info}
        if self.autopilot.battery_state(0) == 3:
            words.add("battery_low")
        signals = {
            "position_world": e.position[:, 0].copy(),
            "quat_wxyz": e.quat[:, 0].copy(),
            "velocity_world": e.velocity[:, 0].copy(),
            "angular_velocity_body": e.gyro[:, 0].copy(),
            "battery_voltage": self.autopilot.battery_v[0].copy(),
        }
        t_ns = self._start_ns + self.autopilot.now_ms * 1_000_000
        self._last = RobotState(t_ns, signals, frozenset(words))
        return self._last

    def run_until(self, t_ns: int) -> None:
        while self._start_ns + (self.autopilot.now_ms + TICK_MS) * 1_000_000 <= t_ns:
            self.autopilot.tick()

    def write(self, command: Command) -> None:
        if not self._armed:
            raise RoboError("test robot is not armed: call arm() before write()")
        self.written.append((self.clock.now_ns(), command))
        if not self.link_up or self._link_rng.random() < self.loss:
            return
        commander, now_ms = self.autopilot.pilots[0].commander, self.autopilot.now_ms
        v = [float(x) for x in command.values]
        match command.mode:
            case "attitude_thrust":
                commander.stream(w.Attitude(v[0], v[1], v[2], v[3]), now_ms)
            case "rotor_thrust":
                commander.stream(w.RotorThrust((v[0], v[1], v[2], v[3])), now_ms)
            case "takeoff":
                commander.high_level(w.Takeoff(v[0], v[1]), now_ms)
            case "land":
                commander.stream(w.NotifyStop(), now_ms)
                commander.high_level(w.Land(v[0], v[1]), now_ms)
            case other:
                raise RoboError(f"test robot does not speak mode {other}")

    def arm(self) -> None:
        for _ in range(50):
            self.clock.advance_s(0.02)
            self.read()
            if self.autopilot.pilots[0].supervisor.request_arming(True):
                break
        else:
            raise RoboError("test robot may not be armed")
        self._armed = True
        commander = self.autopilot.pilots[0].commander
        commander.stream(w.Attitude(0.0, 0.0, 0.0, 0.0), self.autopilot.now_ms)
        commander.stream(w.NotifyStop(), self.autopilot.now_ms)

    def stop(self) -> None:
        self._armed = False
        self.stops.append(self.clock.now_ns())
        if self.link_up:
            self.autopilot.pilots[0].commander.stream(w.Stop(), self.autopilot.now_ms)
            self.autopilot.pilots[0].supervisor.request_arming(False)

    def close(self) -> None:
        self.stop()
