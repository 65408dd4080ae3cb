"""Motion capture for whoever asks: the emulation's frames over UDP, and a small client of them.

A subscriber sends any datagram to the port, and again at least every second; frames then come to where it was sent
from, until three seconds after the last one. A frame is one datagram, a JSON object:

    {"t_ns": 1230000000, "positions": {"1": [x, y, z], "3": [x, y, z]}}

`t_ns` is emulated time since the start, positions are metres in the world by drone id (the first port's drone is 1);
a drone that was not recognised in this frame is missing.
"""

import contextlib
import json
import math
import threading
import time

from hardware.clock import Clock, MonotonicClock
from hardware.errors import LinkLost, Unreachable
from hardware.transport import UdpLink, UdpServer, parse_address

DEFAULT_PORT = 19840
ADDRESS = f"udp://127.0.0.1:{DEFAULT_PORT}"
RENEW_S, EXPIRY_S = 1.0, 3.0

Vec3 = tuple[float, float, float]


def encode_frame(t_ns: int, positions: dict[int, Vec3]) -> bytes:
    """The datagram of a frame; coordinates in tenths of a millimetre."""
    rounded = {str(drone): [round(v, 4) for v in position] for drone, position in positions.items()}
    return json.dumps({"t_ns": t_ns, "positions": rounded}, separators=(",", ":")).encode()


def decode_frame(datagram: bytes) -> tuple[int, dict[int, Vec3]] | None:
    """(t_ns, positions) of a frame, or None for anything that is not one."""
    try:
        raw = json.loads(datagram)
        positions = {int(k): (float(x), float(y), float(z)) for k, (x, y, z) in raw["positions"].items()}
        if not all(math.isfinite(v) for position in positions.values() for v in position):
            return None
        return int(raw["t_ns"]), positions
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


class MocapServer:
    """The port that frames are sent from; whoever owns it calls `serve` when there is something to read."""

    def __init__(self, host: str, port: int) -> None:
        self._server = UdpServer(host, port)
        self._server.open()
        self.port = self._server.port
        self.address = f"udp://{host}:{self.port}"
        self._subscribers: dict[tuple[str, int], float] = {}

    def fileno(self) -> int:
        """Lets `selectors` wait for it."""
        return self._server.fileno()

    def serve(self) -> None:
        """Takes the subscriptions that have arrived."""
        while (arrived := self._server.receive()) is not None:
            self._subscribers[arrived[1]] = time.monotonic() + EXPIRY_S

    def publish(self, t_ns: int, positions: dict[int, Vec3]) -> None:
        """Sends a frame to all subscribers."""
        if not self._subscribers:
            return
        now, datagram = time.monotonic(), encode_frame(t_ns, positions)
        self._subscribers = {peer: until for peer, until in self._subscribers.items() if until > now}
        for peer in self._subscribers:
            with contextlib.suppress(LinkLost):  # no way there any more; it will expire
                self._server.send(datagram, peer)

    def close(self) -> None:
        """Gives the port back; idempotent."""
        self._server.close()


class Mocap:
    """A subscriber: where every drone was last seen. A thread receives; `latest` never blocks."""

    def __init__(self, uri: str = ADDRESS, *, clock: Clock | None = None) -> None:
        address = parse_address(uri, schemes=("udp",))
        self._link, self._clock = UdpLink(address.host, address.port), clock or MonotonicClock()
        self._latest: dict[int, tuple[int, Vec3]] = {}
        self._heard, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._receive, name="mocap", daemon=True)

    def open(self, timeout_s: float = 2.0) -> None:
        """Subscribes and waits for the first frame; raises Unreachable."""
        self._link.open()
        self._thread.start()
        if not self._heard.wait(timeout_s):
            self.close()
            raise Unreachable(str(self._link.address), timeout_s, "does the emulation run with --mocap?")

    def latest(self) -> dict[int, tuple[int, Vec3]]:
        """Drone id -> (instant at which the newest position arrived, on this client's clock; position in m, world)."""
        return dict(self._latest)

    def close(self) -> None:
        """Stops receiving; idempotent."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        self._link.close()

    def _receive(self) -> None:
        renew = 0.0
        while not self._closing.is_set():
            try:
                if time.monotonic() >= renew:
                    renew = time.monotonic() + RENEW_S
                    self._link.send(b"subscribe")
                datagram = self._link.receive(0.02)
            except LinkLost:
                return
            frame = None if datagram is None else decode_frame(datagram)
            if frame is not None:
                now_ns = self._clock.now_ns()
                new = {drone: (now_ns, position) for drone, position in frame[1].items()}
                self._latest = self._latest | new
                self._heard.set()
