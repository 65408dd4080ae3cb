"""Emulated Crazyflies behind UDP: a client connects to `udp://host:port` as to the real drone, one port per drone.

`Emulator` serves a swarm over UDP in real time, or faster, on absolute deadlines; its motion capture has a port of its
own (`mocap.py`).
"""

import selectors
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from hardware.errors import BadInput, LinkLost, RoboError
from hardware.plant import Plant
from hardware.robots.crazyflie.autopilot import DT_S
from hardware.robots.crazyflie.faults import parse_fault
from hardware.robots.crazyflie.mocap import DEFAULT_PORT as MOCAP_PORT
from hardware.robots.crazyflie.mocap import MocapServer
from hardware.robots.crazyflie.motion_capture import Capture
from hardware.robots.crazyflie.obstacles import NOTHING, Obstacles
from hardware.robots.crazyflie.onboard import OnboardPolicy
from hardware.robots.crazyflie.plant import RigidBodyPlant, load_airframe
from hardware.robots.crazyflie.swarm import EmulatedSwarm
from hardware.robots.crazyflie.wire import NULL_PACKET
from hardware.transport import UdpServer

DEFAULT_PORT = 19850
"""Where cflib's scan looks first."""
CATCH_UP_S = 0.25
"""A process that was held up for longer lets the emulated time slip instead of racing after it."""


class Emulator:
    """Serves a swarm on consecutive UDP ports of one host; `start` and `stop` run it in a thread of this process."""

    def __init__(
        self,
        swarm: EmulatedSwarm,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        time_scale: float = 1.0,
        mocap_port: int | None = None,
        obstacles: Obstacles = NOTHING,
    ) -> None:
        if not 0.0 < time_scale < float("inf"):
            raise BadInput(f"time scale {time_scale}; expected a number above 0")
        self.swarm, self.time_scale = swarm, time_scale
        self._servers = _serve(host, port, swarm.plant.num_robots)
        self.ports = [s.port for s in self._servers]
        self.addresses = [f"udp://{host}:{p}" for p in self.ports]
        """One per drone."""
        self.obstacles = obstacles
        self._mocap = self._open_mocap(host, mocap_port)
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
        for server in self._all_servers():
            server.close()

    @property
    def also(self) -> dict[str, object]:
        """What else there is to know: the address of motion capture, the obstacles [x, y, radius] of the world."""
        told: dict[str, object] = {} if self._mocap is None else {"mocap": self._mocap.address}
        if len(self.obstacles.radius):
            told["obstacles"] = np.column_stack(self.obstacles).round(4).tolist()
        return told

    def figures(self) -> dict[str, object]:
        """What the emulation came to."""
        return {
            "emulated_s": self.swarm.now_s,
            "packets": [s.packets for s in self.swarm.services],
            "malformed": [s.malformed for s in self.swarm.services],
            "contacts": getattr(self.swarm.plant, "contacts", None),
        }

    def serve(self, duration_s: float = float("inf")) -> None:
        """Serves in this thread until `stop`, or for a duration of emulated time."""
        selector = selectors.DefaultSelector()
        for index, server in enumerate(self._servers):
            selector.register(server, selectors.EVENT_READ, index)
        if self._mocap is not None:
            selector.register(self._mocap, selectors.EVENT_READ, None)
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

    def _drain(self, index: int | None) -> None:
        if index is None:
            if self._mocap is not None:
                self._mocap.serve()
            return
        server = self._servers[index]
        while (arrived := server.receive()) is not None:
            datagram, peer = arrived
            if datagram == NULL_PACKET:  # a scan, possibly by someone else than the connected client
                server.send(NULL_PACKET, peer)
                continue
            self._peers[index] = peer
            self.swarm.receive(index, datagram)

    def _open_mocap(self, host: str, port: int | None) -> MocapServer | None:
        try:
            return None if port is None else MocapServer(host, port)
        except BadInput:
            for server in self._servers:
                server.close()
            raise

    def _all_servers(self) -> list[UdpServer | MocapServer]:
        return [*self._servers, *([] if self._mocap is None else [self._mocap])]

    def _flush(self) -> None:
        for frame in self.swarm.frames():
            if self._mocap is not None:
                self._mocap.publish(frame.t_ms * 1_000_000, frame.positions)
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
    capture: Capture | None = None,
    mocap_port: int = MOCAP_PORT,
    onboard: Callable[[Obstacles], OnboardPolicy] | None = None,
    obstacles: Obstacles | None = None,
    airframe: str = "",
) -> Emulator:
    """An emulator from plain values, as the command line has them; faults as `name[:at_s[:value]]`.

    `capture` adds motion capture, published at `mocap_port` (0: a free one); `onboard` makes a policy that
    flies on board and knows the obstacles: those given, which the built-in world then has, or the plant's own.
    `airframe` is a preset for the built-in world.
    """
    if num < 1 or (plant is not None and plant.num_robots != num):
        raise BadInput(f"{num} drones given; expected at least 1, and as many as the plant has")
    rng = np.random.default_rng(seed)
    strikes = [parse_fault(text, rng) for text in faults]
    plant, known = _world(plant, num, obstacles, airframe)
    policy = None if onboard is None else onboard(known)
    swarm = EmulatedSwarm(plant, num=num, seed=seed, faults=strikes, capture=capture, onboard=policy)
    published = None if capture is None else mocap_port
    return Emulator(swarm, host=host, port=port, time_scale=time_scale, mocap_port=published, obstacles=known)


def _world(plant: Plant | None, num: int, obstacles: Obstacles | None, airframe: str) -> tuple[Plant, Obstacles]:
    """The world, and the obstacles in it; raises BadInput where both the plant and the caller bring some."""
    if plant is None:
        known = obstacles or NOTHING
        return RigidBodyPlant(num, load_airframe(airframe), obstacles=known), known
    own = getattr(plant, "obstacles", None)
    if own is not None and obstacles is not None:
        raise BadInput(f"the scene has {len(own.radius)} obstacles of its own; leave out --obstacles")
    return plant, Obstacles(*own) if own is not None else obstacles or NOTHING


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
