"""Over real sockets: a third-party client (plain pymodbus) at our emulator, our driver at third-party servers."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hardware.clock import MonotonicClock
from hardware.errors import BadInput, RoboError, Unreachable
from hardware.robot import Command
from hardware.robots import connect
from hardware.robots.greenhouse_plc.bus import TcpBus
from hardware.robots.greenhouse_plc.driver import Driver
from hardware.robots.greenhouse_plc.emulator import Emulator, make_emulator
from hardware.robots.greenhouse_plc.wire import encode

FLOAT = ModbusTcpClient.DATATYPE.FLOAT32


@contextmanager
def serving(**options) -> Iterator[Emulator]:
    emulator = make_emulator(port=0, **options)
    emulator.start()
    try:
        yield emulator
    finally:
        emulator.stop()


@contextmanager
def raw(port: int) -> Iterator[ModbusTcpClient]:
    client = ModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0)
    assert client.connect()
    try:
        yield client
    finally:
        client.close()


@contextmanager
def third_party(devices: list[SimDevice]) -> Iterator[int]:
    """A pymodbus server with registers that know nothing of us; gives its port."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: list[ModbusTcpServer] = []

    async def begin() -> None:
        server = ModbusTcpServer(devices, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        found.append(server)
        ready.set()

    def run() -> None:
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    transport = found[0].transport
    assert transport is not None
    try:
        yield transport.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    finally:
        asyncio.run_coroutine_threadsafe(found[0].shutdown(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_third_party_client_reads_commands_and_meets_the_watchdog() -> None:
    with serving(time_scale=500.0) as e, raw(e.ports[0]) as c:
        read = c.read_input_registers(0, count=48, device_id=1).registers
        assert len(read) == 48
        assert c.convert_from_registers(c.read_input_registers(90, count=2, device_id=1).registers, FLOAT) == 1234.5
        assert 0 < read[10] < 400
        assert c.read_coils(0, count=3, device_id=1).bits[:3] == [True, False, False]
        assert c.read_discrete_inputs(0, count=7, device_id=1).bits[:7] == [False, True] + [False] * 5
        c.write_registers(101, [2, 0, 0, 0, 0, 0, 0, 0, 0, 1500, 200, 300], device_id=1)
        c.write_register(130, 9, device_id=1)
        assert c.read_holding_registers(110, count=3, device_id=1).registers == [1000, 200, 300]  # clipped
        assert c.read_holding_registers(131, count=1, device_id=1).registers == [9]
        until(lambda: c.read_discrete_inputs(0, count=1, device_id=1).bits[0])  # nobody beats
        assert c.read_input_registers(0, count=1, device_id=1).registers[0] & 3 == 3
        c.write_coil(1, True, device_id=1)
        assert not c.read_discrete_inputs(0, count=1, device_id=1).bits[0]


def test_exceptions_are_those_of_the_protocol() -> None:
    with serving() as e, raw(e.ports[0]) as c:
        for reply, code in (
            (c.read_input_registers(400, count=1, device_id=1), 2),
            (c.write_coil(0, False, device_id=1), 2),
            (c.write_register(131, 1, device_id=1), 2),
            (c.write_registers(101, [3] + [0] * 11, device_id=1), 3),
            (c.read_input_registers(0, count=1, device_id=9), 11),
        ):
            assert reply.isError()
            assert reply.exception_code == code


def test_plant_time_begins_with_the_first_connection() -> None:
    with serving(time_scale=1000.0) as e:
        time.sleep(0.1)
        assert e.compartments.now_s == 0.0
        with raw(e.ports[0]):
            until(lambda: e.compartments.now_s > 0.0)


def test_the_driver_holds_a_greenhouse_over_tcp_through_a_restart() -> None:
    with serving(time_scale=1000.0, num=2, faults=["restart:40m:5m"]) as e:
        clock = MonotonicClock(1000.0)
        robot = connect("greenhouse_plc", e.addresses[1], clock=clock)
        robot.open()
        robot.arm()
        robot.write(Command("direct", np.array([0.12, 0.75, 15.0])))
        plc = e.compartments.plcs[1]
        until(lambda: plc.mode == 2)
        until(lambda: "no_answer" in robot.read().status)
        robot.write(Command("direct", np.array([0.12, 0.75, 15.0])))
        until(lambda: plc.mode == 2 and plc.uptime_s < 1800)
        assert e.compartments.plcs[0].mode == 0  # the other compartment is nobody's
        robot.close()
        assert plc.mode == 0
        assert not plc.tripped


def test_a_dead_client_ends_in_fail_safe() -> None:
    with serving(time_scale=1000.0) as e:
        clock = MonotonicClock(1000.0)
        robot = connect("greenhouse_plc", e.addresses[0], clock=clock)
        robot.open()
        robot.arm()
        robot.write(Command("direct", np.array([0.12, 0.75, 15.0])))
        plc = e.compartments.plcs[0]
        until(lambda: plc.mode == 2)
        driver = robot._robot
        driver._done.set()  # type: ignore[attr-defined]  # as if the process had been killed: no stop, no goodbye
        until(lambda: plc.tripped)
        assert plc.mode == 0
        robot.close()


def device(registers: dict[int, list[int]], unit: int = 1) -> SimDevice:
    blocks = [SimData(a, values=v, datatype=DataType.REGISTERS) for a, v in sorted(registers.items())]
    bits = lambda: [SimData(0, count=16, values=False, datatype=DataType.BITS)]  # noqa: E731
    return SimDevice(unit, (bits(), bits(), blocks, [SimData(0, values=[0], datatype=DataType.REGISTERS)]))


def test_a_comet_transmitter_is_read_and_cannot_be_commanded() -> None:
    """0x0031 temperature, 0x0032 humidity, 0x0034 CO2, from its manual; a sub-zero temperature is two's complement."""
    with third_party([device({0x30: [0x10000 - 43, 872, 0, 655]})]) as port:
        robot = connect("greenhouse_plc", f"modbus://127.0.0.1:{port}?profile=comet_tx5xx")
        robot.open()
        s = robot.read().signals
        assert float(s["air_temperature"]) == pytest.approx(-4.3)
        assert float(s["relative_humidity"]) == pytest.approx(0.872)
        assert float(s["co2"]) == 655
        assert "outdoor" not in s
        robot.arm()
        with pytest.raises(RoboError, match="table 'COMET Tx5xx' has no registers for mode 'direct'; modes: none"):
            robot.write(Command("direct", np.zeros(3)))
        robot.close()


def test_an_agrowtek_sensor_with_floats_and_a_unit_id_of_its_own() -> None:
    values = {200: encode(18.53, "f32") + encode(64.2, "f32") + encode(310.0, "f32") + encode(812.0, "f32")}
    with third_party([device(values, unit=17)]) as port:
        robot = connect("greenhouse_plc", f"modbus://127.0.0.1:{port}?profile=agrowtek_sxc&unit=17")
        robot.open()
        s = robot.read().signals
        assert float(s["air_temperature"]) == pytest.approx(18.53, abs=1e-5)
        assert float(s["relative_humidity"]) == pytest.approx(0.642)
        assert float(s["co2"]) == 812
        robot.close()


def test_a_sentera_controller_takes_set_points_where_they_changed() -> None:
    """40021 mode, 40022 temperature x10, 40023 CO2, 40026 humidity x10; only what differs is written."""
    written: list[tuple[int, list[int]]] = []

    async def note(function: int, start: int, address: int, count: int, registers, values):
        if values is not None:
            written.append((address, list(values)))

    d = device({20: [0, 200, 700, 700, 100, 400, 0, 0]})
    d.action = note
    with third_party([d]) as port:
        robot = connect("greenhouse_plc", f"modbus://127.0.0.1:{port}?profile=sentera_rdcv&write=on")
        robot.open()
        robot.arm()
        robot.write(Command("setpoint", np.array([12.0, 21.5, 700.0, 0.85])))
        until(lambda: len(written) >= 3)
        assert sorted(written) == [(20, [1]), (21, [215]), (25, [850])]  # CO2 stood at 700 already
        robot.close()
        assert written[-1] == (20, [0])


def test_without_write_on_a_real_device_is_only_read() -> None:
    written: list[int] = []

    async def note(function: int, start: int, address: int, count: int, registers, values):
        written.extend([address] if values is not None else [])

    d = device({20: [0, 200, 700, 700, 100, 400, 0, 0]})
    d.action = note
    with third_party([d]) as port:
        robot = connect("greenhouse_plc", f"modbus://127.0.0.1:{port}?profile=sentera_rdcv")
        robot.open()
        robot.arm()
        robot.write(Command("setpoint", np.array([12.0, 21.5, 700.0, 0.85])))
        time.sleep(0.2)
        robot.close()
    assert written == []


def open_at(port: int, options: str = "") -> None:
    connect("greenhouse_plc", f"modbus://127.0.0.1:{port}{options}").open()


def test_wrong_device_wrong_unit_wrong_order_and_nobody_are_one_line_each() -> None:
    with third_party([device({0: [0] * 200})]) as port, pytest.raises(BadInput, match="wrong register map") as e:
        open_at(port)
    assert "read input 90: illegal address (exception 2) in table 'emulated PLC'" in str(e.value)
    with serving() as emulator:
        with pytest.raises(BadInput, match=r"exception 11.*nobody answers as unit 4: set unit"):
            open_at(emulator.ports[0], "?unit=4")
        with pytest.raises(
            BadInput, match=r"read holding 200: illegal address .*'Agrowtek SXC'; the device has no such"
        ):
            open_at(emulator.ports[0], "?profile=agrowtek_sxc")
        port = emulator.ports[0]
    with pytest.raises(Unreachable, match=f"no answer from modbus://127.0.0.1:{port} after"):
        open_at(port)


def test_a_device_with_swapped_words_is_recognised() -> None:
    words = encode(1234.5, "f32")[::-1]
    d = device({0: [0] * 100})
    bits = lambda: [SimData(0, count=16, values=False, datatype=DataType.BITS)]  # noqa: E731
    inputs = [SimData(90, values=words, datatype=DataType.REGISTERS)]
    d = SimDevice(1, (bits(), bits(), d.simdata[2], inputs))  # type: ignore[index]
    words_said = r"in word order 'little', not 'big': set word_order = 'little'"
    with third_party([d]) as port, pytest.raises(BadInput, match=words_said):
        open_at(port)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x00\x00\x00\x05\x01\x04\x02\x00\x07",  # one register where two were asked for
        b"\x00\x01\x00\x00\x00\x03\x01\x84\x2a",  # an exception that the protocol does not know
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
)
def test_garbage_in_answer_is_one_line(answer: bytes) -> None:
    """Whatever speaks on that port: no traceback, no state."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def speak() -> None:
            server.settimeout(0.1)
            while not done.is_set():
                try:
                    peer, _ = server.accept()
                except TimeoutError:
                    continue
                with peer:
                    peer.settimeout(0.5)
                    with contextlib.suppress(OSError):
                        asked = peer.recv(300)
                        peer.sendall(asked[:2] + answer[2:] if answer[:2] == b"\x00\x01" else answer)

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        bus = TcpBus("127.0.0.1", server.getsockname()[1], 1, timeout_s=0.25, retries=0)
        driver = Driver(f"modbus://127.0.0.1:{server.getsockname()[1]}", bus=bus)
        try:
            with pytest.raises(RoboError) as e:
                driver.open()
            assert "\n" not in str(e.value)
        finally:
            done.set()
            thread.join()


def test_a_port_that_is_taken_is_one_line() -> None:
    with serving() as e, pytest.raises(BadInput, match=f"cannot serve at 127.0.0.1:{e.ports[0]}: the port is taken"):
        make_emulator(port=e.ports[0])


@pytest.mark.parametrize("scale", [0.0, -1.0, 1001.0, float("nan")])
def test_time_scales_beyond_a_thousand_are_refused(scale: float) -> None:
    with pytest.raises(BadInput, match="expected a number above 0, at most 1000"):
        make_emulator(port=0, time_scale=scale)
