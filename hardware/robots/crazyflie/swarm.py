"""R emulated Crazyflies with their packet handlers, links, faults and motion capture, without sockets or clock.

Whoever owns an `EmulatedSwarm` steps it: the UDP emulator in real time, tests at will. Everything random comes from
its seed.
"""

import heapq
import itertools
from collections.abc import Sequence

import numpy as np

from hardware.plant import Plant
from hardware.robots.crazyflie.autopilot import DT_S, Autopilot
from hardware.robots.crazyflie.estimator import Noise
from hardware.robots.crazyflie.faults import Fault, FaultSchedule
from hardware.robots.crazyflie.motion_capture import Capture, Frame, MotionCapture
from hardware.robots.crazyflie.onboard import OnboardPolicy
from hardware.robots.crazyflie.plant import RigidBodyPlant
from hardware.robots.crazyflie.services import Services


class EmulatedSwarm:
    """R emulated drones and the links to them; everything random comes from `seed`."""

    def __init__(
        self,
        plant: Plant | None = None,
        *,
        num: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        faults: Sequence[Fault] = (),
        auto_arm: bool = False,
        capture: Capture | None = None,
        onboard: OnboardPolicy | None = None,
    ) -> None:
        self.plant: Plant = plant or RigidBodyPlant(num)
        r = self.plant.num_robots
        seeds = np.random.SeedSequence(seed).spawn(3)
        plant_rng, self._link_rng, mocap_rng = (np.random.default_rng(s) for s in seeds)
        self.autopilot = Autopilot(self.plant, rng=plant_rng, noise=noise, auto_arm=auto_arm, onboard=onboard)
        self.services = [Services(self.autopilot, i) for i in range(r)]
        self._mocap = None if capture is None else MotionCapture(r, capture, mocap_rng)
        self._schedule = FaultSchedule(faults)
        self._dropped_until_ms, self._hidden_until_ms = [0.0] * r, np.zeros(r)
        self._frames: list[Frame] = []
        self._order = itertools.count()
        self._arriving: list[tuple[float, int, int, bytes]] = []
        self._leaving: list[tuple[float, int, int, bytes]] = []

    @property
    def now_s(self) -> float:
        """Emulated time since the start."""
        return self.autopilot.now_ms / 1000.0

    def receive(self, index: int, datagram: bytes) -> None:
        """A datagram reaches the link of drone `index`; it is handled at once, or later or never by its faults."""
        if self._lost(index):
            return
        delay_s = self._fault(index, "delay")
        if delay_s > 0.0:
            self._queue(self._arriving, delay_s, index, datagram)
        else:
            self._handle(index, datagram)

    def tick(self) -> None:
        """Advances 2 ms: faults that are due, packets that arrive now, the drones, and their log blocks."""
        for fault in self._schedule.due(self.now_s):
            for i in range(self.plant.num_robots):
                self.inject(i, fault)
        while self._arriving and self._arriving[0][0] <= self.autopilot.now_ms:
            _, _, index, datagram = heapq.heappop(self._arriving)
            self._handle(index, datagram)
        self.autopilot.tick()
        if self._mocap is not None:
            self._share_positions(self._mocap)
        for index, services in enumerate(self.services):
            for datagram in services.samples():
                self._send(index, datagram)

    def advance(self, duration_s: float) -> None:
        """Ticks through a duration."""
        for _ in range(round(duration_s / DT_S)):
            self.tick()

    def outgoing(self) -> list[tuple[int, bytes]]:
        """(drone, datagram) to be sent by now, oldest first."""
        out = []
        while self._leaving and self._leaving[0][0] <= self.autopilot.now_ms:
            _, _, index, datagram = heapq.heappop(self._leaving)
            out.append((index, datagram))
        return out

    def frames(self) -> list[Frame]:
        """Motion capture's frames since the last call."""
        out, self._frames = self._frames, []
        return out

    def inject(self, index: int, fault: Fault) -> None:
        """Makes a fault strike drone `index` now."""
        self._set(index, fault.parameter, fault.value)

    def _share_positions(self, mocap: MotionCapture) -> None:
        now_ms = self.autopilot.now_ms
        if not mocap.due(now_ms):
            return
        frame = mocap.look(now_ms, self.plant.signals()["position_world"], self._hidden_until_ms > now_ms)
        self._frames = [*self._frames[-10:], frame]
        for packet in frame.packets():
            for index in range(self.plant.num_robots):
                self.receive(index, packet)

    def _handle(self, index: int, datagram: bytes) -> None:
        for reply in self.services[index].handle(datagram):
            self._send(index, reply)
        self._begin_silence(index)

    def _set(self, index: int, name: str, value: float) -> None:
        self.autopilot.set_parameter(index, name, value)
        self._begin_silence(index)

    def _begin_silence(self, index: int) -> None:
        """Starts what a written `fault.drop` or `fault.mocap` asks for; writing it again begins another one."""
        for name, until_ms in (("drop", self._dropped_until_ms), ("mocap", self._hidden_until_ms)):
            seconds = self._fault(index, name)
            if seconds != 0.0:
                self.autopilot.pilots[index].parameters[f"fault.{name}"] = 0.0
                until_ms[index] = np.inf if seconds < 0 else self.autopilot.now_ms + 1000.0 * seconds

    def _send(self, index: int, datagram: bytes) -> None:
        if not self._lost(index):
            self._queue(self._leaving, self._fault(index, "delay"), index, datagram)

    def _queue(self, queue: list[tuple[float, int, int, bytes]], delay_s: float, index: int, datagram: bytes) -> None:
        heapq.heappush(queue, (self.autopilot.now_ms + 1000.0 * delay_s, next(self._order), index, datagram))

    def _lost(self, index: int) -> bool:
        if self.autopilot.now_ms < self._dropped_until_ms[index]:
            return True
        loss = self._fault(index, "loss")
        return loss > 0.0 and self._link_rng.random() < loss

    def _fault(self, index: int, name: str) -> float:
        return self.autopilot.pilots[index].parameters[f"fault.{name}"]
