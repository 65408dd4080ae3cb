"""Byte transports that drivers and emulators stand on: UDP and TCP with time-outs, and errors a user can act on.

A datagram or a piece of a stream goes in and out as `bytes`; nothing here knows a protocol. Receiving never blocks
longer than asked; sending and receiving may happen in different threads.
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from hardware.errors import BadInput, LinkLost, Unreachable

RECEIVE_BUFFER_BYTES = 1 << 20
"""Asked of the kernel (which may grant less): a second of telemetry waits there while the reader is held up."""

MAX_DATAGRAM_BYTES = 65535


class Address(NamedTuple):
    """Where a machine is found."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def parse_address(uri: str, *, schemes: tuple[str, ...] = ("udp", "tcp"), port: int | None = None) -> Address:
    """The address in `scheme://host:port`; raises BadInput. `port` is used where the address names none."""
    try:
        parts = urlsplit(uri)
        found = Address(parts.scheme, parts.hostname or "", parts.port if parts.port is not None else port or 0)
    except ValueError as e:
        raise BadInput(f"address '{uri}': {e}") from e
    if found.scheme not in schemes or not found.host or not found.port:
        raise BadInput(f"address '{uri}' given; expected {' or '.join(s + '://HOST:PORT' for s in schemes)}")
    return found


class UdpLink:
    """A datagram conversation with one peer. UDP promises no answer, so a refusal by the peer's host is silence."""

    def __init__(self, host: str, port: int) -> None:
        self.address = Address("udp", host, port)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Takes a local port; raises Unreachable where the host is not known. Nothing is sent yet."""
        opened = _udp_socket()
        try:
            opened.connect(self.address[1:])
        except OSError as e:
            opened.close()
            raise Unreachable(str(self.address), 0.0, e.strerror or str(e)) from e
        self._socket = opened

    def send(self, data: bytes) -> None:
        """Sends one datagram; raises LinkLost where this machine has no way to the peer any more."""
        opened = _opened(self._socket, self.address)
        with _lost(self.address), contextlib.suppress(ConnectionRefusedError):
            opened.send(data)

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """The next datagram, or None after `timeout_s`."""
        received = _next_datagram(_opened(self._socket, self.address), self.address, timeout_s)
        return None if received is None else received[0]

    def close(self) -> None:
        """Gives the port back; idempotent."""
        self._socket = _closed(self._socket)


class UdpServer:
    """A port at which datagrams of any peer arrive. Port 0 takes a free one; `port` then tells which."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Takes the port; raises BadInput where it is in use."""
        self._socket = _bound(_udp_socket(), "udp", self.host, self.port)
        self.port = self._socket.getsockname()[1]

    def fileno(self) -> int:
        """Lets `selectors` wait for several servers at once."""
        return _opened(self._socket, Address("udp", self.host, self.port)).fileno()

    def receive(self, timeout_s: float = 0.0) -> tuple[bytes, tuple[str, int]] | None:
        """The next datagram and its sender, or None after `timeout_s`."""
        address = Address("udp", self.host, self.port)
        return _next_datagram(_opened(self._socket, address), address, timeout_s)

    def send(self, data: bytes, peer: tuple[str, int]) -> None:
        """Sends one datagram to a peer; a peer that has gone is silence."""
        address = Address("udp", self.host, self.port)
        opened = _opened(self._socket, address)
        with _lost(address), contextlib.suppress(ConnectionRefusedError):
            opened.sendto(data, peer)

    def close(self) -> None:
        """Gives the port back; idempotent."""
        self._socket = _closed(self._socket)


class TcpLink:
    """A byte stream to one peer; pieces arrive as the network cut them."""

    def __init__(self, host: str, port: int) -> None:
        self.address = Address("tcp", host, port)
        self._socket: socket.socket | None = None

    def open(self, timeout_s: float = 2.0) -> None:
        """Connects; raises Unreachable after `timeout_s` or at once where nobody listens."""
        start = time.monotonic()
        try:
            self._adopt(socket.create_connection(self.address[1:], timeout=timeout_s))
        except OSError as e:
            waited_s = time.monotonic() - start
            raise Unreachable(str(self.address), waited_s, e.strerror or str(e)) from e

    def send(self, data: bytes) -> None:
        """Sends all of it; raises LinkLost."""
        opened = _opened(self._socket, self.address)
        with _lost(self.address):
            opened.sendall(data)

    def receive(self, timeout_s: float = 0.0) -> bytes | None:
        """The bytes that have arrived, or None after `timeout_s`; raises LinkLost at the end of the stream."""
        opened = _opened(self._socket, self.address)
        with _lost(self.address):
            if not _readable(opened, timeout_s):
                return None
            data = opened.recv(MAX_DATAGRAM_BYTES)
        if not data:
            raise LinkLost(f"{self.address} closed the connection")
        return data

    def close(self) -> None:
        """Hangs up; idempotent."""
        self._socket = _closed(self._socket)

    def _adopt(self, connected: socket.socket) -> None:
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected


class TcpServer:
    """A port at which peers connect. Port 0 takes a free one; `port` then tells which."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Takes the port and listens; raises BadInput where it is in use."""
        fresh = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket = _bound(fresh, "tcp", self.host, self.port)
        self._socket.listen()
        self.port = self._socket.getsockname()[1]

    def accept(self, timeout_s: float = 0.0) -> TcpLink | None:
        """A link to the next peer, or None after `timeout_s`."""
        address = Address("tcp", self.host, self.port)
        opened = _opened(self._socket, address)
        with _lost(address):
            if not _readable(opened, timeout_s):
                return None
            connected, peer = opened.accept()
        link = TcpLink(*peer[:2])
        link._adopt(connected)
        return link

    def close(self) -> None:
        """Gives the port back; idempotent."""
        self._socket = _closed(self._socket)


def _udp_socket() -> socket.socket:
    fresh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return fresh


def _bound(fresh: socket.socket, scheme: str, host: str, port: int) -> socket.socket:
    try:
        fresh.bind((host, port))
    except (OSError, OverflowError) as e:
        fresh.close()
        address = Address(scheme, host, port)
        if isinstance(e, OSError) and e.errno == errno.EADDRINUSE:
            raise BadInput(f"{address} is in use by another process; choose another port, or 0 for a free one") from e
        raise BadInput(f"{address} cannot be served: {getattr(e, 'strerror', None) or e}") from e
    return fresh


def _opened(opened: socket.socket | None, address: Address) -> socket.socket:
    if opened is None:
        raise LinkLost(f"{address} is not open")
    return opened


def _closed(opened: socket.socket | None) -> None:
    if opened is not None:
        opened.close()


def _next_datagram(opened: socket.socket, address: Address, timeout_s: float) -> tuple[bytes, tuple[str, int]] | None:
    """Waits out the time also where the peer's host keeps refusing, so that a caller's loop does not spin."""
    deadline = time.monotonic() + timeout_s
    with _lost(address):
        while _readable(opened, deadline - time.monotonic()):
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                return opened.recvfrom(MAX_DATAGRAM_BYTES)
    return None


def _readable(opened: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    return bool(poll.poll(max(timeout_s, 0.0) * 1e3))


@contextlib.contextmanager
def _lost(address: Address) -> Iterator[None]:
    """Tells what the operating system reports as a lost link; refusals and empty reads pass through."""
    try:
        yield
    except (ConnectionRefusedError, BlockingIOError):
        raise
    except (OSError, ValueError) as e:  # ValueError: the socket was closed by another thread
        raise LinkLost(f"{address}: {getattr(e, 'strerror', None) or e}") from e
