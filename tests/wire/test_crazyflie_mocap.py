"""Motion capture: packed positions on the wire, peer tables on the drones, gaps and noise, frames for programs."""

import itertools
import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.crazyflie_client import Client
from support.emulator_process import served

from hardware.clock import SteppedClock
from hardware.errors import Unreachable
from hardware.robots.crazyflie import wire
from hardware.robots.crazyflie import wire_localization as wl
from hardware.robots.crazyflie.emulator import EmulatedSwarm
from hardware.robots.crazyflie.estimator import QUIET
from hardware.robots.crazyflie.faults import Fault
from hardware.robots.crazyflie.mocap import Mocap, decode_frame, encode_frame
from hardware.robots.crazyflie.motion_capture import Capture
from hardware.robots.crazyflie.peers import CAPACITY, Peers
from hardware.robots.crazyflie.wire import Frame, Port, WireError

MILLIMETRES = st.integers(-32768, 32767)
POSITIONS = st.lists(
    st.builds(
        lambda drone, *mm: wl.ExternalPosition((mm[0] / 1000, mm[1] / 1000, mm[2] / 1000), drone),
        st.integers(0, 255),
        *[MILLIMETRES] * 3,
    ),
    min_size=1,
    max_size=4,
)


@given(POSITIONS)
def test_packed_positions_survive_the_wire_exactly(positions: list[wl.ExternalPosition]) -> None:
    datagram = wire.encode(wl.encode_packed_positions(positions))
    assert list(wl.decode_localization(wire.decode(datagram))) == positions


def test_packed_positions_by_hand() -> None:
    """The firmware's struct: id, x, y, z in millimetres, little-endian, without padding; port 6, channel 2."""
    datagram = bytes([0x6E, 3, 0xE8, 0x03, 0x18, 0xFC, 0x01, 0x00])
    assert wl.decode_localization(wire.decode(datagram)) == (wl.ExternalPosition((1.0, -1.0, 0.001), 3),)


def test_packed_poses_carry_two_drones() -> None:
    poses = [wl.ExternalPose((0.1 * i, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0), i) for i in (1, 2)]
    got = wl.decode_localization(wl.encode_packed_poses(poses))
    assert [(p.drone, p.position) for p in got] == [(1, (0.1, 0.0, 1.0)), (2, (0.2, 0.0, 1.0))]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(6, 2, b""), "packed positions of 0 bytes"),
        (Frame(6, 2, b"\0" * 8), "packed positions of 8 bytes; expected 1 to 4 times 7"),
        (Frame(6, 2, b"\0" * 29), "packed positions of 29 bytes"),
        (Frame(6, 1, b"\x09"), "packed poses of 0 bytes"),
    ],
)
def test_cut_packets_are_refused(frame: Frame, message: str) -> None:
    with pytest.raises(WireError, match=message):
        wl.decode_localization(frame)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([wl.ExternalPosition((0, 0, 0), 1)] * 5, "5 positions in one packet; expected 1 to 4"),
        ([wl.ExternalPosition((0, 0, 0))], "drone None; expected an id of 0..255"),
        ([wl.ExternalPosition((0, 40.0, 0), 1)], "packed position: 40.000 does not fit"),
    ],
)
def test_what_does_not_fit_a_packet_is_refused(positions: list[wl.ExternalPosition], message: str) -> None:
    with pytest.raises(WireError, match=message):
        wl.encode_packed_positions(positions)


def test_others_go_into_the_peer_table_and_ones_own_id_into_the_estimate() -> None:
    swarm = EmulatedSwarm(num=3, noise=QUIET)
    swarm.advance(0.1)
    packet = wl.encode_packed_positions([wl.ExternalPosition((float(i), 2.0, 3.0), i) for i in (1, 2, 3)])
    for _ in range(20):
        swarm.receive(1, wire.encode(packet))
        swarm.advance(0.01)
    peers = swarm.autopilot.peers
    assert peers.ids[1].tolist()[:3] == [1, 3, 0]
    assert peers.position[1, :2].tolist() == [[1.0, 2.0, 3.0], [3.0, 2.0, 3.0]]
    assert set(peers.age_ms(swarm.autopilot.now_ms)[1, :2].tolist()) == {10}
    np.testing.assert_allclose(swarm.autopilot.estimate.position[:, 1], [2.0, 2.0, 3.0], atol=0.01)
    assert not peers.ids[0].any()
    assert abs(swarm.autopilot.estimate.position[0, 0]) < 0.01


def test_a_packed_pose_is_read_up_to_ones_own_as_by_the_firmware() -> None:
    swarm = EmulatedSwarm(num=2)
    items = {i: wl.ExternalPose((float(i), 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), i) for i in (1, 2)}
    swarm.receive(1, wire.encode(wl.encode_packed_poses([items[2], items[1]])))
    assert swarm.autopilot.peers.known(1) == 0
    swarm.receive(1, wire.encode(wl.encode_packed_poses([items[1], items[2]])))
    assert swarm.autopilot.peers.ids[1, 0] == 1


def test_the_table_holds_ten_and_drops_further_ids() -> None:
    peers = Peers(1)
    assert [peers.tell(0, i, (float(i), 0.0, 0.0), 5) for i in range(1, 13)] == [True] * CAPACITY + [False] * 2
    assert peers.tell(0, 4, (9.0, 0.0, 0.0), 8)  # an id that is known keeps its place
    assert peers.position[0, 3, 0] == 9.0
    assert peers.oldest_ms(0, 9) == 4
    assert not Peers(1).tell(0, 0, (0.0, 0.0, 0.0), 1)  # 0 marks an empty place
    peers.forget(0)
    assert peers.known(0) == 0
    assert not peers.ids.any()


def test_every_drone_hears_of_all_others_at_the_rate() -> None:
    swarm = EmulatedSwarm(num=8, capture=Capture(rate_hz=100.0, noise_m=0.0))
    swarm.advance(0.5)
    peers, truth = swarm.autopilot.peers, swarm.plant.signals()["position_world"]
    for i in range(8):
        assert set(peers.ids[i, :7].tolist()) == set(range(1, 9)) - {i + 1}
        np.testing.assert_allclose(peers.position[i, :7], truth[peers.ids[i, :7] - 1], atol=0.5e-3)
    stamps = []
    for _ in range(50):
        swarm.tick()
        stamps.append(int(peers.heard_ms[0, 0]))
    assert set(np.diff(sorted(set(stamps)))) == {10}


def test_dropouts_and_noise_are_as_asked() -> None:
    swarm = EmulatedSwarm(num=4, seed=5, capture=Capture(rate_hz=200.0, dropout=0.2, noise_m=0.003))
    frames = []
    for _ in range(1000):
        swarm.tick()
        frames += swarm.frames()
    assert len(frames) == 401  # the first one at once
    truth = swarm.plant.signals()["position_world"]
    seen = [np.array(position) - truth[drone - 1] for f in frames for drone, position in f.positions.items()]
    share = 1.0 - len(seen) / (4 * len(frames))
    print(f"seed 5: share lost {share:.3f}, noise {np.std(seen):.5f} m")
    assert share == pytest.approx(0.2, abs=0.03)  # 1,600 draws: 3 sigma
    assert np.std(seen) == pytest.approx(0.003, rel=0.05)


def test_a_drone_out_of_sight_grows_old_in_the_others_tables() -> None:
    swarm = EmulatedSwarm(num=3, capture=Capture(noise_m=0.0))
    swarm.advance(0.2)
    swarm.inject(2, Fault("mocap_loss", 0.0, 0.5))
    swarm.advance(0.4)
    age = dict(zip(*(plane[0, :2].tolist() for plane in (swarm.autopilot.peers.ids, ages(swarm))), strict=True))
    assert age[3] == pytest.approx(400, abs=12)
    assert age[2] <= 10
    swarm.advance(0.2)
    assert ages(swarm)[0, :2].max() <= 10


def ages(swarm: EmulatedSwarm) -> np.ndarray:
    return swarm.autopilot.peers.age_ms(swarm.autopilot.now_ms)


def test_packets_of_motion_capture_are_lost_and_delayed_like_all_others() -> None:
    swarm = EmulatedSwarm(num=2, seed=6, capture=Capture())
    swarm.inject(0, Fault("packet_loss", 0.0, 1.0))
    swarm.inject(1, Fault("delay", 0.0, 0.3))
    swarm.advance(0.2)
    assert swarm.autopilot.peers.known(0) == 0
    assert swarm.autopilot.peers.known(1) == 0
    swarm.advance(0.2)
    assert swarm.autopilot.peers.known(1) == 1


def test_a_reboot_empties_the_table() -> None:
    swarm = EmulatedSwarm(num=2, capture=Capture(rate_hz=1.0))
    swarm.advance(0.1)
    assert swarm.autopilot.peers.known(0) == 1
    Client(swarm).set_parameter("fault.reboot", 1)
    assert swarm.autopilot.peers.known(0) == 0


@given(st.dictionaries(st.integers(1, 255), st.tuples(*[st.floats(-50, 50)] * 3)), st.integers(0, 2**60))
def test_frames_survive_json(positions: dict[int, tuple[float, float, float]], t_ns: int) -> None:
    got = decode_frame(encode_frame(t_ns, positions))
    assert got is not None
    assert got[0] == t_ns
    assert set(got[1]) == set(positions)
    for drone, position in positions.items():
        assert got[1][drone] == pytest.approx(position, abs=0.5e-4)


@given(st.binary(max_size=60))
def test_garbage_is_no_frame(datagram: bytes) -> None:
    assert decode_frame(datagram) is None


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"t_ns": 1, "positions": {"a": [0, 0, 0]}}',
        b'{"t_ns": 1, "positions": {"1": [0, 0]}}',
        b'{"t_ns": 1, "positions": {"1": [0, 0, NaN]}}',
        b'{"t_ns": Infinity, "positions": {}}',
    ],
)
def test_json_that_is_no_frame(text: bytes) -> None:
    assert decode_frame(text) is None


def test_a_program_subscribes_and_nobody_there_is_one_line() -> None:
    with served("crazyflie", "--num", "3", "--mocap", "--mocap-noise", "0", "--duration", "60") as ready:
        clock = SteppedClock(7)
        cameras, another = Mocap(ready["mocap"], clock=clock), Mocap(ready["mocap"])
        cameras.open()
        another.open()
        deadline = time.monotonic() + 10.0
        while len(another.latest()) < 3 or len(cameras.latest()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        spots = {drone: position for drone, (_, position) in cameras.latest().items()}
        assert {t_ns for t_ns, _ in cameras.latest().values()} == {7}  # instants are the client's own
        cameras.close()
        cameras.close()
        another.close()
    for drone, y in zip((1, 2, 3), (-0.5, 0.0, 0.5), strict=True):
        assert spots[drone] == pytest.approx((0.0, y, 0.0), abs=1e-3)
    with pytest.raises(Unreachable, match="does the emulation run with --mocap"):
        Mocap(ready["mocap"]).open(timeout_s=0.1)


def test_cflib_tells_several_drones_at_once() -> None:
    """cflib has no call for packed positions; its packets carry them as Crazyswarm's server sends them."""
    pytest.importorskip("cflib.crazyflie", reason="needs the extra crazyflie")
    from cflib.crtp.crtpstack import CRTPPacket, CRTPPort

    packet = CRTPPacket()
    packet.port, packet.channel = CRTPPort.LOCALIZATION, 2
    packet.data = struct.pack("<BhhhBhhh", 1, 100, 200, 300, 2, -100, -200, 1300)
    swarm = EmulatedSwarm(num=2)
    for index in range(2):
        swarm.receive(index, bytes([packet.header]) + bytes(packet.data))
    assert Port.LOCALIZATION == CRTPPort.LOCALIZATION
    for index, other in itertools.zip_longest((0, 1), ((-0.1, -0.2, 1.3), (0.1, 0.2, 0.3))):
        assert tuple(swarm.autopilot.peers.position[index, 0]) == other
