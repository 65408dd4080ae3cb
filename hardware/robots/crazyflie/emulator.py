"""Emulated Crazyflies behind UDP: a client connects to `udp://host:port` as to the real drone, one port per drone.

`EmulatedSwarm` is the drones with their packet handlers and faults, stepped by whoever owns it, without sockets or
clock: tests step it at will. `Emulator` serves one over UDP in real time, or faster, on absolute deadlines.
"""

import heapq
import itertools
import selectors
import threading
import time
from collections.abc import Sequence

import numpy as np

from hardware.errors import BadInput, LinkLost, RoboError
from hardware.plant import Plant
from hardware.robots.crazyflie.autopilot import DT_S, Autopilot
from hardware.robots.crazyflie.estimator import Noise
from hardware.robots.crazyflie.faults import Fault, FaultSchedule, parse_fault
from hardware.robots.crazyflie.plant import RigidBodyPlant
from hardware.robots.crazyflie.services import Services
from hardware.robots.crazyflie.wire import NULL_PACKET
from hardware.transport import UdpServer

DEFAULT_PORT = 19850
"""Where cflib's scan looks first."""
CATCH_UP_S = 0.25
"""A process that was held up for longer lets the emulated time slip instead of racing after it."""


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
    ) -> None:
        self.plant: Plant = plant or RigidBodyPlant(num)
        plant_rng, self._link_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
        self.autopilot = Autopilot(self.plant, rng=plant_rng, noise=noise, auto_arm=auto_arm)
        self.services = [Services(self.autopilot, i) for i in range(self.plant.num_robots)]
        self._schedule = FaultSchedule(faults)
        self._dropped_until_ms = [0.0] * self.plant.num_robots
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

    def inject(self, index: int, fault: Fault) -> None:
        """Makes a fault strike drone `index` now."""
        self._set(index, fault.parameter, fault.value)

    def _handle(self, index: int, datagram: bytes) -> None:
        for reply in self.services[index].handle(datagram):
            self._send(index, reply)
        self._begin_drop(index)

    def _set(self, index: int, name: str, value: float) -> None:
        self.autopilot.set_parameter(index, name, value)
        self._begin_drop(index)

    def _begin_drop(self, index: int) -> None:
        drop_s = self._fault(index, "drop")
        if drop_s == 0.0:
            return
        self.autopilot.pilots[index].parameters["fault.drop"] = 0.0  # writing it again begins another one
        self._dropped_until_ms[index] = np.inf if drop_s < 0 else self.autopilot.now_ms + 1000.0 * drop_s

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


class Emulator:
    """Serves a swarm on consecutive UDP ports of one host; `start` and `stop` run it in a thread of this process."""

    def __init__(
        self, swarm: EmulatedSwarm, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, time_scale: float = 1.0
    ) -> None:
        if not 0.0 < time_scale < float("inf"):
            raise BadInput(f"time scale {time_scale}; expected a number above 0")
        self.swarm, self.time_scale = swarm, time_scale
        self._servers = _serve(host, port, swarm.plant.num_robots)
        self.ports = [s.port for s in self._servers]
        self.addresses = [f"udp://{host}:{p}" for p in self.ports]
        """One per drone."""
        self.slipped_s = 0.0
        """Emulated time given up because this process was held up."""
        self._peers: list[tuple[str, int] | None] = [None] * len(self._servers)
        self._stop = threading.Event()
        self._leave_s = float("inf")
        """Monotonic instant at which to stop at the latest."""
        self._thread: threading.Thread | None = None

    def request_stop(self, linger_s: float = 0.0) -> None:
        """Makes `serve` return soon; safe in a signal handler.

        With `linger_s`, it goes on for at most so long while a drone flies, so that it can still be landed; asked a
        second time, it stops at once.
        """
        if linger_s > 0.0 and self._leave_s == float("inf"):
            self._leave_s = time.monotonic() + linger_s
        else:
            self._stop.set()

    def start(self) -> None:
        """Serves in a background thread until `stop`."""
        self._thread = threading.Thread(target=self.serve, name="crazyflie-emulator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and releases the ports; idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for server in self._servers:
            server.close()

    def figures(self) -> dict[str, object]:
        """What the emulation came to."""
        return {
            "emulated_s": self.swarm.now_s,
            "packets": [s.packets for s in self.swarm.services],
            "malformed": [s.malformed for s in self.swarm.services],
        }

    def serve(self, duration_s: float = float("inf")) -> None:
        """Serves in this thread until `stop`, or for a duration of emulated time."""
        selector = selectors.DefaultSelector()
        for index, server in enumerate(self._servers):
            selector.register(server, selectors.EVENT_READ, index)
        period, ticks, begin = DT_S / self.time_scale, 0, time.monotonic()
        with selector:
            while not self._stop.is_set() and ticks * DT_S < duration_s and not self._may_leave():
                deadline = begin + ticks * period
                wait = deadline - time.monotonic()
                for key, _ in selector.select(max(wait, 0.0)):
                    self._drain(key.data)
                late = time.monotonic() - deadline
                if late >= CATCH_UP_S:
                    self.slipped_s += late * self.time_scale
                    begin += late
                elif late >= 0.0:
                    self.swarm.tick()
                    ticks += 1
                self._flush()

    def _may_leave(self) -> bool:
        """While lingering: whether every drone is down, or patience at its end."""
        if self._leave_s == float("inf"):
            return False
        flying = any(pilot.supervisor.flying for pilot in self.swarm.autopilot.pilots)
        return not flying or time.monotonic() >= self._leave_s

    def _drain(self, index: int) -> None:
        server = self._servers[index]
        while (arrived := server.receive()) is not None:
            datagram, peer = arrived
            if datagram == NULL_PACKET:  # a scan, possibly by someone else than the connected client
                server.send(NULL_PACKET, peer)
                continue
            self._peers[index] = peer
            self.swarm.receive(index, datagram)

    def _flush(self) -> None:
        for index, datagram in self.swarm.outgoing():
            peer = self._peers[index]
            if peer is not None:
                try:
                    self._servers[index].send(datagram, peer)
                except LinkLost:  # no way to that client any more; the drones fly on
                    self._peers[index] = None


def make_emulator(
    *,
    num: int = 1,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    time_scale: float = 1.0,
    faults: Sequence[str] = (),
    seed: int = 0,
    plant: Plant | None = None,
) -> Emulator:
    """An emulator from plain values, as the command line has them; faults as `name[:at_s[:value]]`."""
    if num < 1 or (plant is not None and plant.num_robots != num):
        raise BadInput(f"{num} drones given; expected at least 1, and as many as the plant has")
    rng = np.random.default_rng(seed)
    swarm = EmulatedSwarm(plant, num=num, seed=seed, faults=[parse_fault(text, rng) for text in faults])
    return Emulator(swarm, host=host, port=port, time_scale=time_scale)


def _serve(host: str, port: int, num: int) -> list[UdpServer]:
    """Consecutive ports from `port` (0: any free run); raises BadInput naming the port that is taken."""
    for _ in range(50):
        servers: list[UdpServer] = []
        try:
            for i in range(num):
                servers.append(UdpServer(host, servers[0].port + i if servers else port))
                servers[-1].open()
        except BadInput:
            for server in servers:
                server.close()
            if port != 0:
                raise
        else:
            return servers
    raise RoboError(f"no {num} consecutive free UDP ports found on {host}")
