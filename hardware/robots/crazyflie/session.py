"""A CRTP conversation with one drone: background reception, questions with repeated asking, keep-alive.

`CflibLink` carries the same packets over anything cflib has a link for, the radio above all.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from hardware.clock import Clock
from hardware.errors import LinkLost, RoboError, Unreachable
from hardware.robots.crazyflie.wire import Frame, Port, WireError, decode, encode

ASK_AGAIN_S = 0.1
"""UDP loses packets without a word: an unanswered question is repeated after this."""
KEEP_ALIVE_S = 0.1


class Link(Protocol):
    """Carries datagrams of one CRTP packet each."""

    def open(self) -> None:
        """Takes what it needs; nothing is said yet."""
        ...

    def send(self, data: bytes) -> None:
        """Sends one datagram; raises LinkLost."""
        ...

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """The next datagram, or None after the time-out; raises LinkLost."""
        ...

    def close(self) -> None:
        """Gives everything back; idempotent."""
        ...


class CflibLink:
    """Packets through cflib's own link drivers (radio, USB, ...); needs the optional extra `crazyflie`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._driver: Any = None
        self._packet: Any = None
        self._error = ""

    def open(self) -> None:
        """Opens the radio; raises RoboError without cflib and Unreachable without radio."""
        try:
            import cflib.crtp
            from cflib.crtp.crtpstack import CRTPPacket
        except ImportError as e:
            scheme = self._uri.split(":")[0]
            raise RoboError(f"{scheme}:// needs cflib, which is not installed; pip install 'robo_rl[crazyflie]'") from e
        if not cflib.crtp.CLASSES:
            cflib.crtp.init_drivers()
        self._packet, self._error = CRTPPacket, ""
        try:
            self._driver = cflib.crtp.get_link_driver(self._uri, lambda statistics: None, self._lost)
        except Exception as e:  # cflib raises bare Exception for a missing dongle
            raise Unreachable(self._uri, 0.0, str(e).splitlines()[0]) from e
        if self._driver is None:
            raise RoboError(f"cflib has no link for address '{self._uri}'")

    def send(self, data: bytes) -> None:
        """Sends one packet; raises LinkLost once cflib has given the link up."""
        if self._driver is None or self._error:
            raise LinkLost(f"{self._uri}: {self._error or 'not open'}")
        self._driver.send_packet(self._packet(data[0], data[1:]))

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """The next packet, or None after the time-out."""
        if self._driver is None or self._error:
            raise LinkLost(f"{self._uri}: {self._error or 'not open'}")
        packet = self._driver.receive_packet(timeout_s)
        return None if packet is None else bytes([packet.header]) + bytes(packet.data)

    def close(self) -> None:
        """Closes the link; idempotent."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()

    def _lost(self, message: str) -> None:
        self._error = message.splitlines()[0]


class Session:
    """One open link with a receiving thread; `on_frame` gets every packet that answers no question."""

    def __init__(self, link: Link, clock: Clock, on_frame: Callable[[Frame, int], None]) -> None:
        self._link, self._clock, self._on_frame = link, clock, on_frame
        self.heard_ns: int | None = None
        """When the last packet came."""
        self.malformed = 0
        self.lost = ""
        """Why the link is gone, where the link itself said so."""
        self._questions: list[tuple[Callable[[Frame], bool], list[Frame], threading.Event]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="crazyflie-driver", daemon=True)
        self.every_turn: Callable[[], None] = lambda: None
        """Called by the receiving thread at least every 20 ms, for what must be repeated until it is answered."""

    def open(self) -> None:
        """Opens the link and starts receiving."""
        self._link.open()
        self._thread.start()

    def close(self) -> None:
        """Stops receiving and closes the link; idempotent."""
        self._closing.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)
        self._link.close()

    def send(self, frame: Frame) -> None:
        """Sends one packet; raises LinkLost."""
        self._link.send(encode(frame))

    def ask(self, frame: Frame, prefix: bytes, *, timeout_s: float = 1.0, channel: int | None = None) -> bytes:
        """The data of the packet that answers `frame`: same port and channel, beginning with `prefix`.

        Asks again every 0.1 s; raises LinkLost after `timeout_s`.
        """
        port, channel = frame.port, frame.channel if channel is None else channel
        event, answers = threading.Event(), []

        def matches(f: Frame) -> bool:
            return f.port == port and f.channel == channel and f.data.startswith(prefix)

        question = (matches, answers, event)
        with self._lock:
            self._questions.append(question)
        try:
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0.0:
                self.send(frame)
                if event.wait(min(ASK_AGAIN_S, left)):
                    return answers[0].data
        finally:
            with self._lock:
                self._questions.remove(question)
        raise LinkLost(f"no answer on port {port}, channel {channel} within {timeout_s:.1f} s")

    def _receive(self) -> None:
        next_ping = 0.0
        while not self._closing.is_set():
            try:
                if time.monotonic() >= next_ping:
                    next_ping = time.monotonic() + KEEP_ALIVE_S
                    self.send(Frame(Port.LINK, 0, b"\0keep"))
                datagram = self._link.receive(0.02)
                if datagram is not None:
                    self._take(datagram)
                with contextlib.suppress(WireError):
                    self.every_turn()
            except LinkLost as e:
                self.lost = str(e)
                return

    def _take(self, datagram: bytes) -> None:
        now_ns = self._clock.now_ns()
        try:
            frame = decode(datagram)
            with self._lock:
                for matches, answers, event in self._questions:
                    if matches(frame):
                        answers.append(frame)
                        event.set()
            self.heard_ns = now_ns
            self._on_frame(frame, now_ns)
        except WireError:
            self.malformed += 1
