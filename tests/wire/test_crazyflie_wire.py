"""CRTP on the wire: round trips, garbage, every malformed shape, and the bytes that unmodified cflib sends."""

import contextlib
import math
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.robots.crazyflie import logs, parameters, wire
from hardware.robots.crazyflie import wire_commands as w
from hardware.robots.crazyflie import wire_localization as wl
from hardware.robots.crazyflie.quatcompress import compress_quat, decompress_quat
from hardware.robots.crazyflie.wire import Frame, LogCommand, Port, WireError

cflib_crazyflie = pytest.importorskip("cflib.crazyflie", reason="cflib (extra crazyflie) is the third-party witness")

QUAT_ERROR = math.radians(0.28)
"""Three components err by half a step, 1/(2 511 sqrt 2), and the fourth by as much as all: 2 sqrt(12) half steps."""
FLOATS = st.floats(-500, 500, width=32)
SHORT = st.floats(-30, 30)
ANGLES = st.floats(-3, 3, width=32)
FRACTION = st.floats(0, 1)
DURATION = st.floats(0, 60, width=32)
VEC = st.tuples(FLOATS, FLOATS, FLOATS)
SHORT_VEC = st.tuples(SHORT, SHORT, SHORT)
UNIT = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: sum(v * v for v in q) > 0.1)
    .map(lambda q: tuple(v / math.sqrt(sum(u * u for u in q)) for v in q))
)
GROUP = st.integers(0, 255)
YAW = st.one_of(st.none(), ANGLES)

SETPOINTS = st.one_of(
    st.builds(w.Attitude, ANGLES, ANGLES, FLOATS, FRACTION),
    st.just(w.Stop()),
    st.builds(w.FullState, SHORT_VEC, SHORT_VEC, SHORT_VEC, UNIT, SHORT_VEC),
    st.builds(w.Position, FLOATS, FLOATS, FLOATS, ANGLES),
    st.builds(w.VelocityWorld, FLOATS, FLOATS, FLOATS, FLOATS),
    st.builds(w.ZDistance, ANGLES, ANGLES, FLOATS, FLOATS),
    st.builds(w.Hover, FLOATS, FLOATS, FLOATS, FLOATS),
    st.builds(w.Manual, ANGLES, ANGLES, FLOATS, FRACTION, st.booleans()),
    st.builds(w.NotifyStop, st.integers(0, 2**32 - 1)),
    st.builds(w.RotorThrust, st.tuples(*[st.floats(0, 1, width=32)] * 4)),
)
HIGH_LEVEL = st.one_of(
    st.builds(w.GroupMask, GROUP),
    st.builds(w.HighLevelStop, GROUP),
    st.builds(w.Takeoff, FLOATS, DURATION, YAW, GROUP),
    st.builds(w.Land, FLOATS, DURATION, YAW, GROUP),
    st.builds(w.GoTo, VEC, ANGLES, DURATION, st.booleans(), st.booleans(), GROUP),
)
LOCALIZATION = st.one_of(
    st.builds(wl.ExternalPosition, VEC, st.none()),
    st.builds(wl.ExternalPosition, SHORT_VEC, GROUP),
    st.builds(wl.ExternalPose, VEC, UNIT, st.none()),
    st.builds(wl.ExternalPose, SHORT_VEC, UNIT, GROUP),
    st.just(wl.EmergencyStop()),
    st.just(wl.EmergencyStopWatchdog()),
)


def numbers(message: object) -> list[float]:
    """All numbers of a message, in order; None counts as a marker that must stay."""
    flat: list[float] = []
    for value in vars(message).values():
        flat += [math.inf if v is None else float(v) for v in (value if isinstance(value, tuple) else (value,))]
    return flat


def assert_same(sent: object, got: object, tolerance: float) -> None:
    assert type(sent) is type(got)
    np.testing.assert_allclose(numbers(got), numbers(sent), rtol=1e-5, atol=tolerance)


@given(SETPOINTS)
def test_setpoints_survive_the_wire(message: w.Setpoint | w.NotifyStop) -> None:
    frame = wire.decode(wire.encode(w.encode_setpoint(message)))
    got = w.decode_setpoint(frame)
    if isinstance(message, w.FullState):
        assert isinstance(got, w.FullState)
        assert abs(np.dot(got.quat_wxyz, message.quat_wxyz)) > math.cos(QUAT_ERROR / 2)
        got = w.FullState(got.position, got.velocity, got.acceleration, message.quat_wxyz, got.angular_velocity)
        assert_same(message, got, 0.5e-3 + 1e-9)  # thousandths
    else:
        assert_same(message, got, 1.6e-5 if isinstance(message, w.Attitude | w.Manual) else 1e-6)  # 1/65535 of thrust


@given(HIGH_LEVEL)
def test_high_level_commands_survive_the_wire(message: w.HighLevel) -> None:
    frame = wire.decode(wire.encode(w.encode_high_level(message)))
    assert frame.port == Port.HIGH_LEVEL
    assert_same(message, w.decode_high_level(frame.data), 1e-6)


@given(LOCALIZATION)
def test_localization_survives_the_wire(message: wl.Localization) -> None:
    (got,) = wl.decode_localization(wire.decode(wire.encode(wl.encode_localization(message))))
    if isinstance(message, wl.ExternalPose):
        assert isinstance(got, wl.ExternalPose)
        assert abs(np.dot(got.quat_wxyz, message.quat_wxyz)) > math.cos(QUAT_ERROR / 2)
        got = wl.ExternalPose(got.position, message.quat_wxyz, got.drone)
    assert_same(message, got, 0.5e-3 + 1e-9)


@given(UNIT)
def test_compressed_quaternion_is_that_of_cflib(quat: w.Quat) -> None:
    from cflib.utils.encoding import compress_quaternion, decompress_quaternion

    qw, qx, qy, qz = quat
    ours, theirs = compress_quat(quat), compress_quaternion([qx, qy, qz, qw])
    x, y, z, scalar = decompress_quaternion(ours)
    assert abs(np.dot((scalar, x, y, z), quat)) > math.cos(QUAT_ERROR / 2)
    np.testing.assert_allclose(decompress_quat(ours), (scalar, x, y, z), atol=1e-12)
    if len({round(abs(v), 6) for v in quat}) == 4:  # ties may be broken either way
        assert ours == theirs


@given(st.binary(max_size=40))
def test_garbage_is_a_wire_error_or_a_message(datagram: bytes) -> None:
    def survives(decoder: object, *args: object) -> None:
        with contextlib.suppress(WireError):  # anything else, struct.error above all, fails the test
            decoder(*args)  # type: ignore[operator]

    survives(wire.decode, datagram)
    for port, channel in ((3, 0), (7, 0), (7, 1), (13, 2), (0, 0)):
        survives(w.decode_setpoint, Frame(port, channel, datagram))
    for channel in range(4):
        survives(wl.decode_localization, Frame(6, channel, datagram))
    for decoder in (
        w.decode_high_level,
        wire.unpack_log_control,
        wire.unpack_log_data,
        wire.unpack_toc_item,
        wire.unpack_toc_info,
        wire.unpack_supervisor_command,
        wire.unpack_supervisor_reply,
        wire.unpack_bitfield,
    ):
        survives(decoder, datagram)


def generic(kind: int, layout: str, *values: float) -> Frame:
    return Frame(7, 0, struct.pack("<B" + layout, kind, *values))


MALFORMED_SETPOINTS = {
    "attitude too short": (Frame(3, 0, b"\0" * 13), "13 bytes; expected 14"),
    "attitude NaN": (Frame(3, 0, struct.pack("<fffH", math.nan, 0, 0, 0)), "not finite"),
    "attitude infinite": (Frame(3, 0, struct.pack("<fffH", 0, math.inf, 0, 0)), "not finite"),
    "attitude on channel 1": (Frame(3, 1, b"\0" * 14), "no set points on port 3, channel 1"),
    "empty generic": (Frame(7, 0, b""), "type None unknown"),
    "unknown generic": (Frame(7, 0, b"\x0c"), "type 12 unknown"),
    "legacy generic": (generic(5, "4f", 0, 0, 0, 0), "type 5 unknown"),
    "stop with data": (Frame(7, 0, b"\0\0"), "2 bytes; expected 1"),
    "position too short": (generic(7, "3f", 0, 0, 0), "13 bytes; expected 17"),
    "position too long": (generic(7, "5f", 0, 0, 0, 0, 0), "21 bytes; expected 17"),
    "velocity NaN": (generic(8, "4f", 0, 0, math.nan, 0), "not finite"),
    "height NaN": (generic(9, "4f", 0, 0, 0, math.nan), "not finite"),
    "hover infinite": (generic(10, "4f", math.inf, 0, 0, 0), "not finite"),
    "manual too short": (generic(11, "fffH", 0, 0, 0, 0), "15 bytes; expected 16"),
    "full state too short": (Frame(7, 0, b"\x06" + b"\0" * 27), "28 bytes; expected 29"),
    "full state, no quaternion": (Frame(7, 0, b"\x06" + b"\0" * 18 + b"\xff" * 4 + b"\0" * 6), "compressed quaternion"),
    "meta unknown": (Frame(7, 1, b"\x01\0\0\0\0"), "meta command 1 unknown"),
    "meta too short": (Frame(7, 1, b"\0"), "1 bytes; expected 5"),
    "rotors too short": (Frame(13, 2, b"\x01" + b"\0" * 12), "13 bytes; expected 17"),
    "rotors NaN": (Frame(13, 2, struct.pack("<B4f", 1, 0, 0, 0, math.nan)), "not finite"),
    "another application": (Frame(13, 2, struct.pack("<B4f", 9, 0, 0, 0, 0)), "type 9; expected 1"),
}


@pytest.mark.parametrize("name", MALFORMED_SETPOINTS)
def test_malformed_setpoint(name: str) -> None:
    frame, message = MALFORMED_SETPOINTS[name]
    with pytest.raises(WireError, match=message):
        w.decode_setpoint(frame)


MALFORMED = {
    "empty datagram": (wire.decode, b"", "0 bytes; expected 1..31"),
    "long datagram": (wire.decode, b"\0" * 32, "32 bytes; expected 1..31"),
    "high level, empty": (w.decode_high_level, b"", "command None unknown"),
    "high level, unknown": (w.decode_high_level, b"\x63\0", "command 99 unknown"),
    "takeoff too short": (w.decode_high_level, b"\x07" + b"\0" * 13, "14 bytes; expected 15"),
    "takeoff NaN": (w.decode_high_level, struct.pack("<BBff?f", 7, 0, math.nan, 0, True, 1), "not finite"),
    "go-to too short": (w.decode_high_level, b"\x0c" + b"\0" * 20, "21 bytes; expected 24"),
    "old go-to too long": (w.decode_high_level, b"\x04" + b"\0" * 23, "24 bytes; expected 23"),
    "high-level stop too long": (w.decode_high_level, b"\x03\0\0", "3 bytes; expected 2"),
    "log, empty": (wire.unpack_log_control, b"", "missing unknown"),
    "log, version 1 create": (wire.unpack_log_control, b"\0\x01\x07\x00", "log command 0 unknown"),
    "log variable cut": (wire.unpack_log_control, b"\x06\x01\x07\x00", "4 bytes; expected 2 \\+ 3 per variable"),
    "log start without period": (wire.unpack_log_control, b"\x03\x01", "2 bytes; expected 3"),
    "log stop without block": (wire.unpack_log_control, b"\x04", "1 bytes; expected 2"),
    "log start in ms cut": (wire.unpack_log_control, b"\x08\x01\x01", "3 bytes; expected 4"),
    "log sample too short": (wire.unpack_log_data, b"\0\0\0", "3 bytes; expected at least 4"),
    "table entry too short": (wire.unpack_toc_item, b"\x02\0\0\x07", "is none"),
    "table entry without name": (wire.unpack_toc_item, b"\x02\0\0\x07pm\0\0", "expected group"),
    "table entry unterminated": (wire.unpack_toc_item, b"\x02\0\0\x07pm\0vbat", "expected group"),
    "table entry not ASCII": (wire.unpack_toc_item, b"\x02\0\0\x07p\xff\0vbat\0", "expected group"),
    "table information too short": (wire.unpack_toc_info, b"\x03\0\0\0\0\0", "6 bytes; expected 7 or 9"),
    "table information of another kind": (wire.unpack_toc_info, b"\x01\0\0\0\0\0\0", "beginning with 3"),
    "supervisor, empty": (wire.unpack_supervisor_command, b"", "missing unknown"),
    "supervisor, unknown": (wire.unpack_supervisor_command, b"\x05", "command 5 unknown"),
    "arm without argument": (wire.unpack_supervisor_command, b"\x01", "ARM holds 1 bytes; expected 2"),
    "emergency with argument": (wire.unpack_supervisor_command, b"\x03\x01", "holds 2 bytes; expected 1"),
    "supervisor reply cut": (wire.unpack_supervisor_reply, b"\x81\x01", "2 bytes; expected 3"),
    "supervisor reply to nothing": (wire.unpack_supervisor_reply, b"\x84\x01\x01", "expected ARM or RECOVER"),
    "bit field cut": (wire.unpack_bitfield, b"\x8c\x01", "2 bytes; expected 3"),
    "bit field of another kind": (wire.unpack_bitfield, b"\x81\x01\x00", "begins with 129"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_packet(name: str) -> None:
    decoder, data, message = MALFORMED[name]
    with pytest.raises(WireError, match=message):
        decoder(data)


MALFORMED_LOCALIZATION = {
    "position too short": (Frame(6, 0, b"\0" * 11), "11 bytes; expected 12"),
    "position NaN": (Frame(6, 0, struct.pack("<fff", math.nan, 0, 0)), "not finite"),
    "empty": (Frame(6, 1, b""), "packet None"),
    "unknown": (Frame(6, 1, b"\x63"), "packet 99"),
    "another channel": (Frame(6, 2, b"\x08"), "1 to 4 times 7"),
    "channel 3": (Frame(6, 3, b"\x08"), "channel 3 unknown"),
    "emergency with data": (Frame(6, 1, b"\x03\0"), "2 bytes; expected 1"),
    "pose too short": (Frame(6, 1, b"\x08" + b"\0" * 27), "28 bytes; expected 29"),
    "pose without rotation": (Frame(6, 1, b"\x08" + b"\0" * 28), "quaternion of norm 0"),
    "packed pose cut": (Frame(6, 1, b"\x09" + b"\0" * 10), "10 bytes; expected 1 to 2 times 11"),
}


@pytest.mark.parametrize("name", MALFORMED_LOCALIZATION)
def test_malformed_localization(name: str) -> None:
    frame, message = MALFORMED_LOCALIZATION[name]
    with pytest.raises(WireError, match=message):
        wl.decode_localization(frame)


TOO_MUCH = {
    "port": (lambda: wire.encode(Frame(16, 0, b"")), "port 16"),
    "channel": (lambda: wire.encode(Frame(0, 4, b"")), "channel 4"),
    "data": (lambda: wire.encode(Frame(0, 0, b"\0" * 31)), "at most 30"),
    "thrust": (lambda: w.encode_setpoint(w.Attitude(0, 0, 0, 1.5)), "thrust 1.5; expected 0..1"),
    "thrust NaN": (lambda: w.encode_setpoint(w.Attitude(0, 0, 0, math.nan)), "thrust nan"),
    "position in mm": (
        lambda: w.encode_setpoint(w.FullState((40, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0, 0), (0, 0, 0))),
        "40.000 does not fit",
    ),
    "quaternion": (lambda: compress_quat((0, 0, 0, 0)), "norm 0; expected 1"),
    "ten variables": (lambda: wire.pack_log_variables(LogCommand.CREATE, 1, [(7, 1)] * 10), "at most 9"),
    "sample": (lambda: wire.pack_log_data(1, 0, b"\0" * 27), "at most 26"),
    "poses": (lambda: wl.encode_packed_poses([wl.ExternalPose((0, 0, 0), (1, 0, 0, 0), 1)] * 3), "3 poses"),
    "name": (lambda: wire.pack_toc_item(wire.TocItem(0, 7, "a" * 20, "b" * 10)), "a packet holds 30"),
    "type": (lambda: wire.type_name(wire.LOG_TYPES, 99), "type code 0x63 unknown"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_does_not_fit_is_refused(name: str) -> None:
    make, message = TOO_MUCH[name]
    with pytest.raises(WireError, match=message):
        make()


class Wire:
    """Stands where cflib's Crazyflie holds its link, and keeps the frames that it sends."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.platform = SimpleNamespace(get_protocol_version=lambda: wire.PROTOCOL_VERSION)

    def send_packet(self, packet: object, **_: object) -> None:
        header, data = packet.get_header(), bytes(packet.data)  # type: ignore[attr-defined]
        self.frames.append(wire.decode(bytes([header]) + data))

    def add_port_callback(self, *_: object) -> None:
        pass

    add_header_callback = add_port_callback


def test_cflib_setpoints_mean_what_it_documents() -> None:
    from cflib.crazyflie.commander import Commander

    link = Wire()
    c = Commander(link)
    r = math.radians
    c.send_setpoint(10.0, 20.0, 30.0, 32768)
    c.send_velocity_world_setpoint(0.1, 0.2, 0.3, 40.0)
    c.send_hover_setpoint(0.1, 0.2, 40.0, 0.5)
    c.send_position_setpoint(1.0, 2.0, 3.0, 90.0)
    c.send_stop_setpoint()
    c.send_notify_setpoint_stop(7)
    c.send_setpoint_manual(1.0, 2.0, 3.0, 100, False)
    c.send_full_state_setpoint([1, 2, 3], [0.1, 0.2, 0.3], [1, 0, -1], [0, 0, math.sqrt(0.5), math.sqrt(0.5)], 1, 2, 3)
    got = [w.decode_setpoint(f) for f in link.frames]
    # Positive pitch lowers the nose and moves the drone forward, in cflib's arguments as in REP-103.
    assert_same(w.Attitude(r(10), r(20), r(30), 32768 / 65535), got[0], 1e-6)
    assert_same(w.VelocityWorld(0.1, 0.2, 0.3, r(40)), got[1], 1e-6)
    assert_same(w.Hover(0.1, 0.2, r(40), 0.5), got[2], 1e-6)
    assert_same(w.Position(1, 2, 3, r(90)), got[3], 1e-6)
    assert got[4:6] == [w.Stop(), w.NotifyStop(7)]
    assert_same(w.Manual(r(1), r(2), r(3), 60000 / 65535, False), got[6], 1e-6)
    half = math.sqrt(0.5)
    # The firmware reads the rates as milliradians per second, whatever cflib's documentation says.
    full = w.FullState((1, 2, 3), (0.1, 0.2, 0.3), (1, 0, -1), (half, 0, 0, half), (1, 2, 3))
    assert_same(full, got[7], 2e-3)


def test_our_bytes_are_cflibs_bytes() -> None:
    from cflib.crazyflie.commander import Commander
    from cflib.crazyflie.high_level_commander import HighLevelCommander
    from cflib.crazyflie.localization import Localization

    link = Wire()
    c, h, loc = Commander(link), HighLevelCommander(link), Localization(link)
    r = math.radians
    pairs = [
        (lambda: c.send_setpoint(8, -4, 16, 65535), w.encode_setpoint(w.Attitude(r(8), r(-4), r(16), 1.0))),
        (lambda: c.send_zdistance_setpoint(8, 4, 16, 0.5), w.encode_setpoint(w.ZDistance(r(8), -r(4), r(16), 0.5))),
        (lambda: c.send_hover_setpoint(0.5, 0.25, 16, 0.5), w.encode_setpoint(w.Hover(0.5, 0.25, r(16), 0.5))),
        (lambda: c.send_position_setpoint(1, 2, 3, 32), w.encode_setpoint(w.Position(1, 2, 3, r(32)))),
        (lambda: h.takeoff(0.5, 2.0, yaw=None), w.encode_high_level(w.Takeoff(0.5, 2.0))),
        (lambda: h.land(0.0, 2.0, yaw=1.0), w.encode_high_level(w.Land(0.0, 2.0, yaw=1.0))),
        (
            lambda: h.go_to(1, 2, 3, 0.5, 2.0, True, True, 3),
            w.encode_high_level(w.GoTo((1, 2, 3), 0.5, 2.0, True, True, 3)),
        ),
        (lambda: h.stop(), w.encode_high_level(w.HighLevelStop())),
        (lambda: h.set_group_mask(3), w.encode_high_level(w.GroupMask(3))),
        (lambda: loc.send_extpos([1, 2, 3]), wl.encode_localization(wl.ExternalPosition((1, 2, 3)))),
        (
            lambda: loc.send_extpose([1, 2, 3], [0, 0, 1, 0]),
            wl.encode_localization(wl.ExternalPose((1, 2, 3), (0, 0, 0, 1))),
        ),
    ]
    for send, ours in pairs:
        link.frames.clear()
        send()
        assert [wire.encode(f) for f in link.frames] == [wire.encode(ours)]


def test_cflib_reads_our_tables() -> None:
    from cflib.crazyflie.log import LogTocElement
    from cflib.crazyflie.param import ParamTocElement

    for item in logs.toc():
        element = LogTocElement(item.ident, wire.pack_toc_item(item)[3:])
        assert (element.group, element.name) == (item.group, item.name)
        assert wire.LOG_TYPES[logs.VARIABLES[f"{item.group}.{item.name}"][0]].layout == element.pytype.replace("L", "I")
    for item, p in zip(parameters.toc(), parameters.PARAMETERS, strict=True):
        element = ParamTocElement(item.ident, wire.pack_toc_item(item)[3:])
        assert f"{element.group}.{element.name}" == p.name
        assert element.pytype.replace("L", "I") == wire.PARAM_TYPES[p.type].layout
        assert (element.access == ParamTocElement.RO_ACCESS) == p.read_only
        assert wire.unpack_toc_item(wire.pack_toc_item(item)) == item


def test_check_sum_follows_the_content() -> None:
    items = list(logs.toc())
    crc = wire.toc_crc(items)
    assert wire.toc_crc(items) == crc
    for i, changed in enumerate(
        (items[0]._replace(name="xx"), items[0]._replace(group="g"), items[0]._replace(type_code=6), None)
    ):
        other = items[1:] if changed is None else [changed, *items[1:]]
        assert wire.toc_crc(other) != crc, i


@given(st.sampled_from(sorted(wire.LOG_TYPES)), st.floats(allow_nan=True, allow_infinity=True))
def test_values_are_held_at_the_bounds_of_their_type(name: str, value: float) -> None:
    t = wire.LOG_TYPES[name]
    (got,) = struct.unpack(t.layout, wire.pack_value(t, value))
    if name in ("float", "fp16"):
        limit = 3.5e38 if name == "float" else 65520
        assert math.isnan(got) if math.isnan(value) else abs(got) <= abs(value) * 1.001 + 1e-7 or abs(value) >= limit
    else:
        bits = 8 * t.size
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if name.startswith("int") else (0, 2**bits - 1)
        assert got == (0 if math.isnan(value) else round(min(max(value, low), high)))


@given(st.integers(0, 255), st.integers(0, 2**40), st.binary(max_size=26))
def test_log_samples_survive_the_wire(block: int, t_ms: int, values: bytes) -> None:
    assert wire.unpack_log_data(wire.pack_log_data(block, t_ms, values)) == (block, t_ms % 2**24, values)
