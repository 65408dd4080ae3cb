"""The emulated drone's answers, packet by packet: logs, parameters, supervisor, link, and what is not understood."""

import errno
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.crazyflie_client import Client

from hardware.robots.crazyflie import logs, parameters, wire
from hardware.robots.crazyflie.emulator import EmulatedSwarm
from hardware.robots.crazyflie.estimator import QUIET
from hardware.robots.crazyflie.wire import LOG_TYPES, Frame, Info, LogCommand, Port

IDS = {name: i for i, name in enumerate(logs.VARIABLES)}
FLOAT, FP16, UINT16 = (LOG_TYPES[name].code for name in ("float", "fp16", "uint16"))


@pytest.fixture
def client() -> Client:
    return Client(EmulatedSwarm(seed=7))


def control(client: Client, *data: int) -> int:
    """The error code of a request on the log's control channel."""
    answer = client.ask(Port.LOG, 1, bytes(data))
    assert answer[:2] == bytes(data[:1]) + (bytes(data[1:2]) or b"\0")
    return answer[2]


def create(client: Client, block: int, *variables: tuple[int, int], command: LogCommand = LogCommand.CREATE) -> int:
    return control(client, *wire.pack_log_variables(command, block, variables))


def samples(client: Client, duration_s: float) -> list[tuple[int, int, bytes]]:
    client.collect()
    client.received.clear()
    client.advance(duration_s)
    client.collect()
    return [wire.unpack_log_data(f.data) for f in client.received if (f.port, f.channel) == (Port.LOG, 2)]


@pytest.mark.parametrize(("period_ms", "expected"), [(10, 100), (20, 50), (5, 200), (2, 500), (1, 500), (100, 10)])
def test_blocks_come_at_their_period(client: Client, period_ms: int, expected: int) -> None:
    assert create(client, 3, (FLOAT, IDS["pm.vbat"])) == 0
    assert samples(client, 0.1) == []
    assert control(client, LogCommand.START_MS, 3, *struct.pack("<H", period_ms)) == 0
    got = samples(client, 1.0)
    assert len(got) == expected
    assert control(client, LogCommand.STOP, 3) == 0
    assert samples(client, 0.1) == []


def test_blocks_of_one_period_are_of_one_instant(client: Client) -> None:
    for block in (1, 2):
        create(client, block, (FLOAT, IDS["stateEstimate.x"]))
        control(client, LogCommand.START, block, 1)
        client.advance(0.004)
    stamps: dict[int, list[int]] = {1: [], 2: []}
    for block, t_ms, _ in samples(client, 0.5):
        stamps[block].append(t_ms)
    assert stamps[1] == stamps[2]
    assert set(np.diff(stamps[1])) == {10}


def test_values_are_fetched_as_asked(client: Client) -> None:
    client.advance(0.1)
    create(client, 9, (FLOAT, IDS["pm.vbat"]), (FP16, IDS["pm.vbat"]), (UINT16, IDS["pm.vbatMV"]))
    create(client, 9, (UINT16, IDS["supervisor.info"]), command=LogCommand.APPEND)
    control(client, LogCommand.START, 9, 1)
    _, _, values = samples(client, 0.01)[0]
    volts, half, millivolts, info = struct.unpack("<feHH", values)
    assert volts == pytest.approx(float(client.autopilot.battery_v[0]), rel=1e-6)
    assert half == pytest.approx(volts, rel=1e-3)
    assert millivolts == pytest.approx(1000 * volts, abs=1)
    assert Info(info) == client.info == Info.CAN_BE_ARMED


def test_log_variables_have_the_firmwares_units_and_signs() -> None:
    client = Client(EmulatedSwarm(noise=QUIET))
    plant = client.swarm.plant
    plant.position[:, 0] = (1.0, 2.0, 30.0)  # type: ignore[attr-defined]
    plant.quat[:, 0] = (math.cos(0.1), 0.0, math.sin(0.1), 0.0)  # type: ignore[attr-defined]
    plant.rates[:, 0] = (0.0, 0.1, 0.0)  # type: ignore[attr-defined]
    client.advance(0.002)
    read = {name: get(client.autopilot, 0) for name, (_, get) in logs.VARIABLES.items()}
    assert read["stateEstimate.x"] == pytest.approx(1.0, abs=1e-6)
    assert read["stateEstimateZ.y"] == pytest.approx(2000.0, abs=0.1)
    assert read["stabilizer.pitch"] == pytest.approx(-math.degrees(0.2), abs=0.05)  # nose down is negative
    assert read["stateEstimate.qy"] == pytest.approx(math.sin(0.1), abs=1e-3)
    assert read["gyro.y"] == pytest.approx(math.degrees(0.1), rel=1e-3)
    assert read["kalman.varPX"] > 0.9


def test_log_requests_fail_with_the_firmwares_codes(client: Client) -> None:
    x = (FLOAT, IDS["stateEstimate.x"])
    assert create(client, 1, x) == 0
    assert create(client, 1, x) == errno.EEXIST
    assert create(client, 2, (FLOAT, 9999)) == errno.ENOENT
    assert create(client, 2, (15, x[1])) == errno.ENOENT
    assert create(client, 2, *[x] * 7) == errno.E2BIG
    assert create(client, 1, *[x] * 6, command=LogCommand.APPEND) == errno.E2BIG
    assert create(client, 7, x, command=LogCommand.APPEND) == errno.ENOENT
    assert control(client, LogCommand.START, 7, 1) == errno.ENOENT
    assert control(client, LogCommand.START, 1, 0) == errno.EINVAL
    assert control(client, LogCommand.DELETE, 1) == 0
    assert control(client, LogCommand.DELETE, 1) == errno.ENOENT
    for block in range(logs.MAX_BLOCKS):
        assert create(client, block, x) == 0
    assert create(client, 99, x) == errno.ENOMEM
    assert control(client, LogCommand.RESET) == 0
    byte = (LOG_TYPES["uint8"].code, IDS["sys.armed"])
    for block in range(14):
        assert create(client, block, *[byte] * 9) == 0
    assert create(client, 14, *[byte] * 2) == 0
    assert create(client, 15, byte) == errno.ENOMEM  # 128 variables


def test_tables_are_told_entry_by_entry(client: Client) -> None:
    for port, toc in ((Port.LOG, logs.toc()), (Port.PARAM, parameters.toc())):
        count, crc = wire.unpack_toc_info(client.ask(port, 0, b"\x03"))
        assert count == len(toc)
        assert crc == wire.toc_crc(toc)
        got = [wire.unpack_toc_item(client.ask(port, 0, struct.pack("<BH", 2, i))) for i in range(count)]
        assert tuple(got) == toc
        assert client.ask(port, 0, struct.pack("<BH", 2, count)) == b"\x02"


def test_parameters_by_id_and_by_name(client: Client) -> None:
    ident = struct.pack("<H", parameters.INDEX["posCtlPid.zKp"])
    assert client.ask(Port.PARAM, 1, ident) == ident + b"\0" + struct.pack("<f", 2.0)
    assert client.ask(Port.PARAM, 2, ident + struct.pack("<f", 3.0)) == ident + struct.pack("<f", 3.0)
    assert client.ask(Port.PARAM, 1, b"\xff\xff") == b"\xff\xff" + bytes([errno.ENOENT])
    assert client.ask(Port.PARAM, 2, b"\xff\xff\0") == b"\xff\xff" + bytes([errno.ENOENT])
    name = b"\0posCtlPid\0zKp\0"
    assert client.ask(Port.PARAM, 3, name + b"\x06" + struct.pack("<f", 4.0)) == name + b"\0"
    assert client.pilot.parameters["posCtlPid.zKp"] == 4.0
    assert client.ask(Port.PARAM, 3, name + b"\x08\x01") == name + bytes([errno.EINVAL])  # it is no byte
    assert client.ask(Port.PARAM, 3, b"\0no\0such\0\x08\x01") == b"\0no\0such\0" + bytes([errno.ENOENT])
    locked = b"\0deck\0bcFlow2\0"
    assert client.ask(Port.PARAM, 3, locked + b"\x08\x01") == locked + bytes([errno.EACCES])
    assert client.ask(Port.PARAM, 3, b"\x08" + ident) == b"\x08" + ident + b"\0" + struct.pack("<f", 2.0)
    assert client.ask(Port.PARAM, 3, b"\x06" + ident) == b"\x06" + ident + struct.pack("<f", 2.0)
    assert client.ask(Port.PARAM, 3, b"\x07" + ident) == b"\x07" + ident + bytes([errno.ENOENT])


def test_link_platform_memory_and_supervisor_answer(client: Client) -> None:
    assert client.ask(Port.LINK, 0, b"ping") == b"ping"
    assert client.ask(Port.LINK, 1, b"\0").startswith(b"Bitcraze Crazyflie\0")
    assert client.ask(Port.PLATFORM, 1, b"\0") == b"\0\x0c"
    assert client.ask(Port.PLATFORM, 1, b"\x01")[1:].endswith(b"\0")
    assert client.ask(Port.PLATFORM, 1, b"\x02") == b"\x02CF21\0"
    assert client.ask(Port.MEMORY, 0, b"\x01") == b"\x01\0"
    client.advance(0.1)
    assert wire.unpack_bitfield(client.ask(Port.SUPERVISOR, 0, b"\x0c")) == Info.CAN_BE_ARMED
    assert client.ask(Port.SUPERVISOR, 0, b"\x01") == b"\x81\x01"
    assert client.ask(Port.SUPERVISOR, 0, b"\x02") == b"\x82\x00"
    assert client.ask(Port.PLATFORM, 0, b"\x01\x01") == b"\x01\x01\x01"  # the old way to arm
    assert client.ask(Port.PLATFORM, 0, b"\x02") == b"\x02\x01\x01"


@pytest.mark.parametrize(
    ("port", "channel", "data", "reason"),
    [
        (1, 0, b"", "nothing listens on port 1, channel 0"),
        (Port.MEMORY, 1, b"\0", "nothing listens on port 4, channel 1"),
        (Port.MEMORY, 0, b"\x02\0", "has no memories"),
        (Port.PLATFORM, 0, b"\x63", "is not emulated"),
        (Port.PLATFORM, 1, b"\x63", "version request"),
        (Port.LOG, 0, b"\x01", "protocol version 2 is spoken"),
        (Port.LOG, 0, b"\x02\x01", "2 bytes; expected 3"),
        (Port.PARAM, 1, b"\x01", "1 bytes; expected 2"),
        (Port.PARAM, 2, b"\x01", "parameter write of 1 bytes"),
        (Port.PARAM, 2, b"\0\0\0", "pid_attitude.roll_kp holds 1 bytes; expected 4"),
        (Port.PARAM, 3, b"", "parameter request None unknown"),
        (Port.PARAM, 3, b"\x63", "parameter request 99 unknown"),
        (Port.PARAM, 3, b"\0a\0", "without group, name, type and value"),
        (Port.PARAM, 3, b"\0posCtlPid\0zKp\0\x06\0", "1 bytes; expected 4"),
        (Port.PARAM, 3, b"\0posCtlPid\0zKp\0\x0f\0", "type code 0x0f unknown"),
        (Port.SUPERVISOR, 0, b"\x63", "supervisor request 99 unknown"),
        (Port.SUPERVISOR, 0, b"", "0 bytes; expected 1"),
    ],
)
def test_what_is_not_understood_is_counted_and_dropped(
    client: Client, port: int, channel: int, data: bytes, reason: str
) -> None:
    client.swarm.receive(0, wire.encode(Frame(port, channel, data)))
    assert client.collect() == []
    services = client.swarm.services[0]
    assert services.malformed == 1
    assert reason in services.last_error


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=35), max_size=20))
def test_no_bytes_bring_the_emulator_down(datagrams: list[bytes]) -> None:
    swarm = EmulatedSwarm(noise=QUIET)
    for datagram in datagrams:
        swarm.receive(0, datagram)
    swarm.advance(0.02)
    assert np.isfinite(swarm.plant.signals()["position_world"]).all()
    for _, reply in swarm.outgoing():
        wire.decode(reply)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([2, 3, 5, 6, 7, 8, 9, 13]), st.integers(0, 3), st.binary(max_size=30)), max_size=20
    )
)
def test_no_frames_on_its_ports_bring_the_emulator_down(frames: list[tuple[int, int, bytes]]) -> None:
    swarm = EmulatedSwarm(noise=QUIET, auto_arm=True)
    swarm.advance(0.1)
    for port, channel, data in frames:
        swarm.receive(0, wire.encode(Frame(port, channel, data)))
    swarm.advance(0.05)
    assert np.isfinite(swarm.plant.signals()["position_world"]).all()
