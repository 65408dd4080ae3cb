"""Transports against real sockets on the loopback interface."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.errors import BadInput, LinkLost, Unreachable
from hardware.transport import Address, TcpLink, TcpServer, UdpLink, UdpServer, parse_address

HOST = "127.0.0.1"
PATIENCE_S = 10.0


@contextlib.contextmanager
def udp_pair() -> Iterator[tuple[UdpLink, UdpServer]]:
    """A link and the server it talks to."""
    server = UdpServer(HOST, 0)
    server.open()
    link = UdpLink(HOST, server.port)
    link.open()
    try:
        yield link, server
    finally:
        link.close()
        server.close()


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[TcpLink, TcpLink]]:
    """Both ends of a connection."""
    server = TcpServer(HOST, 0)
    server.open()
    near = TcpLink(HOST, server.port)
    near.open()
    far = server.accept(PATIENCE_S)
    assert far is not None
    try:
        yield near, far
    finally:
        near.close()
        far.close()
        server.close()


@settings(max_examples=30)
@given(data=st.binary(max_size=2000))
def test_datagrams_go_round_unchanged(data: bytes) -> None:
    with udp_pair() as (link, server):
        link.send(data)
        received = server.receive(PATIENCE_S)
        assert received is not None
        assert received[0] == data
        server.send(data[::-1], received[1])
        assert link.receive(PATIENCE_S) == data[::-1]


def test_a_held_up_reader_finds_a_second_of_telemetry() -> None:
    """The receive buffer holds 100 Hz of three small log blocks while nobody reads."""
    with udp_pair() as (link, server):
        link.send(b"hello")
        received = server.receive(PATIENCE_S)
        assert received is not None
        for i in range(300):
            server.send(i.to_bytes(2, "big") * 16, received[1])
        found = [link.receive(PATIENCE_S) for _ in range(300)]
        assert found == [i.to_bytes(2, "big") * 16 for i in range(300)]
        assert link.receive() is None


def test_receive_waits_as_long_as_asked() -> None:
    with udp_pair() as (link, server):
        start = time.monotonic()
        assert link.receive(0.05) is None
        assert server.receive(0.05) is None
        assert time.monotonic() - start >= 0.1


def test_nobody_there_is_silence_for_udp() -> None:
    """The peer's refusals (ICMP) neither raise nor stop the conversation once the peer is up."""
    server = UdpServer(HOST, 0)
    server.open()
    server.close()
    link = UdpLink(HOST, server.port)
    link.open()
    start = time.monotonic()
    for _ in range(3):
        link.send(b"anybody?")
        assert link.receive(0.02) is None
    assert time.monotonic() - start >= 0.06  # a refusal does not make a caller's loop spin
    server.open()
    link.send(b"now?")
    received = server.receive(PATIENCE_S)
    assert received is not None
    assert received[0] == b"now?"
    server.send(b"yes", received[1])
    assert link.receive(PATIENCE_S) == b"yes"
    link.close()
    server.close()


@pytest.mark.parametrize("server", [UdpServer, TcpServer])
def test_port_in_use(server: type[UdpServer] | type[TcpServer]) -> None:
    first = server(HOST, 0)
    first.open()
    with pytest.raises(BadInput, match=rf"//127\.0\.0\.1:{first.port} is in use by another process"):
        server(HOST, first.port).open()
    first.close()
    again = server(HOST, first.port)
    again.open()
    again.close()


def test_host_that_does_not_exist() -> None:
    with pytest.raises(Unreachable, match=r"no answer from udp://no\.such\.host\.invalid:7 after 0\.0 s; "):
        UdpLink("no.such.host.invalid", 7).open()
    with pytest.raises(Unreachable, match=r"no answer from tcp://no\.such\.host\.invalid:7"):
        TcpLink("no.such.host.invalid", 7).open()
    with pytest.raises(BadInput, match="cannot be served"):
        UdpServer("192.0.2.1", 0).open()  # an address of nobody (RFC 5737)


def test_nobody_listens_on_tcp() -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))  # held, but not listening
        with pytest.raises(Unreachable, match="Connection refused"):
            TcpLink(HOST, holder.getsockname()[1]).open()


@settings(max_examples=10)
@given(data=st.binary(min_size=1, max_size=300_000))
def test_a_stream_arrives_whole_in_whatever_pieces(data: bytes) -> None:
    with tcp_pair() as (near, far):
        sender = threading.Thread(target=near.send, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            piece = far.receive(PATIENCE_S)
            assert piece is not None
            received += piece
        sender.join()
        assert received == data
        assert far.receive(0.01) is None


def test_the_end_of_a_stream_is_a_lost_link() -> None:
    with tcp_pair() as (near, far):
        near.close()
        with pytest.raises(LinkLost, match="closed the connection"):
            far.receive(PATIENCE_S)
        with pytest.raises(LinkLost):
            _send_for_ever(far)


def _send_for_ever(link: TcpLink) -> None:
    while True:  # the first write after the peer has gone may still be taken
        link.send(b"x" * 100_000)


def test_closed_is_lost_and_closing_twice_is_fine() -> None:
    link = UdpLink(HOST, 9)
    for use in (lambda: link.send(b""), link.receive):
        with pytest.raises(LinkLost, match=r"udp://127\.0\.0\.1:9 is not open"):
            use()
    link.open()
    link.close()
    link.close()
    with pytest.raises(LinkLost, match="is not open"):
        link.receive()


def test_close_while_another_thread_receives() -> None:
    with udp_pair() as (link, _):
        seen: list[object] = []

        def wait() -> None:
            try:
                while True:
                    seen.append(link.receive(0.02))
            except LinkLost as e:
                seen.append(e)

        reader = threading.Thread(target=wait)
        reader.start()
        link.close()
        reader.join(PATIENCE_S)
        assert isinstance(seen[-1], LinkLost)


def test_addresses() -> None:
    assert parse_address("udp://127.0.0.1:19850") == Address("udp", HOST, 19850)
    assert parse_address("tcp://robot", port=502) == Address("tcp", "robot", 502)
    assert str(parse_address("udp://h:1")) == "udp://h:1"


@pytest.mark.parametrize(
    "uri", ["", "19850", "127.0.0.1:19850", "udp://", "udp://h", "udp://:5", "udp://h:x", "udp://h:99999", "http://h:1"]
)
def test_bad_addresses(uri: str) -> None:
    with pytest.raises(BadInput, match="address '"):
        parse_address(uri)
