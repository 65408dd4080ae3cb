"""What the annotation page shows: pyramids that lose no spike, numbers at the right offsets, pictures, poses, rules."""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.annotate_log import CRASH_S, START_NS, write_flight
from support.log_samples import random_messages, write

from hardware.annotation import AnnotationStore
from hardware.errors import BadInput, NotFoundError, RoboError
from hardware.log.reader import Log
from hardware.log.types import encode, new_message, standard_store
from hardware.log.writer import LogWriter
from robo_rl.annotate.chunks import Chunks, spread
from robo_rl.annotate.frames import Frames
from robo_rl.annotate.layout import at_path, layout_of
from robo_rl.annotate.pose import bodies, path_of
from robo_rl.annotate.proposals import add_proposals, propose
from robo_rl.annotate.pyramid import FACTOR, build
from robo_rl.annotate.session import open_log
from robo_rl.annotate.signals import Signals

CRAZYFLIE = Path(__file__).resolve().parents[3] / "shared" / "data" / "crazyflie_arpl" / "log10"


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return open_log(write_flight(tmp_path_factory.mktemp("log") / "flight"))


@pytest.fixture
def signals(flight: Log) -> Iterator[Signals]:
    made = Signals(flight, Chunks(flight))
    yield made
    made.close()


# --- pyramid -------------------------------------------------------------------------------------------------------

VALUES = hnp.arrays(np.float32, st.integers(1, 3000), elements=st.floats(-1e6, 1e6, width=32))


@given(VALUES, st.integers(1, 40), st.data())
def test_columns_of_samples_are_exact(values: np.ndarray, count: int, data: st.DataObject) -> None:
    """At few samples per column, each column holds exactly the lowest and highest of its samples."""
    t_ns = np.cumsum(np.ones(len(values), np.int64) * 7)
    start = data.draw(st.integers(-50, int(t_ns[-1])))
    end = start + data.draw(st.integers(count, 50 * count))
    found = build(t_ns, values).columns(start, end, count)
    edges = start + np.arange(count + 1) * (end - start) // count
    for k in range(count):
        inside = values[(t_ns >= edges[k]) & (t_ns < edges[k + 1])]
        assert np.isnan(found[k]).all() if not len(inside) else (found[k] == [inside.min(), inside.max()]).all()


@given(st.integers(2_000, 200_000), st.integers(1, 20), st.randoms(use_true_random=False))
def test_no_spike_vanishes_and_none_is_invented(samples: int, count: int, chance: Any) -> None:
    """At any zoom the picture spans what the window holds; a spike is drawn at most half a column away."""
    values = np.zeros(samples, np.float32)
    spike = chance.randrange(samples)
    values[spike] = 5.0
    t_ns = np.arange(samples, dtype=np.int64) * 1000
    start = chance.randrange(samples - 1) * 1000
    end = start + (chance.randrange(samples) + count) * 1000
    found = build(t_ns, values).columns(start, end, count)
    edges = np.linspace(start, end, count + 1)
    shown = np.flatnonzero(found[:, 1] == 5.0)
    if start <= t_ns[spike] < end:
        assert len(shown) == 1
        column, width = shown[0], (end - start) / count
        assert edges[column] - width / 2 <= t_ns[spike] <= edges[column + 1] + width / 2
    else:
        assert not len(shown) or min(abs(t_ns[spike] - start), abs(t_ns[spike] - end)) <= (end - start) / count


def test_pyramid_levels_by_hand() -> None:
    pyramid = build(np.arange(40, dtype=np.int64), np.arange(40, dtype=np.float32))
    assert [len(low) for low, _ in pyramid.levels] == [40, 3]
    assert pyramid.levels[1][0].tolist() == [0, 16, 32]
    assert pyramid.levels[1][1].tolist() == [15, 31, 39]
    assert pyramid.beside(10, 20) == ((9, 9.0), (20, 20.0))
    assert pyramid.beside(0, 40) == (None, None)
    assert FACTOR == 16


def test_missing_values_and_disorder() -> None:
    t_ns = np.array([30, 10, 20, 40], np.int64)
    pyramid = build(t_ns, np.array([3, 1, np.nan, 4], np.float32))
    assert pyramid.t_ns.tolist() == [10, 20, 30, 40]
    found = pyramid.columns(0, 50, 5)
    assert np.isnan(found[0]).all()
    assert np.isnan(found[2]).all()
    assert found[[1, 3, 4], 0].tolist() == [1, 3, 4]
    assert np.isnan(pyramid.columns(100, 200, 3)).all()


@given(st.integers(0, 300))
def test_spread_visits_all_and_soon_everywhere(count: int) -> None:
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    if count >= 64:
        first = sorted(order[:16])
        assert max(np.diff([0, *first, count])) <= count / 8


# --- layout --------------------------------------------------------------------------------------------------------


def test_numbers_are_where_the_decoder_finds_them() -> None:
    """Every column of every message equals what rosbags decodes there, alignment, texts and sequences included."""
    store = standard_store()
    names = ["JointState", "Imu", "BatteryState", "CompressedImage", "MultiDOFJointState", "PointCloud2", "LaserScan"]
    messages = [new_message(f"sensor_msgs/msg/{n}") for n in names] + [new_message("tf2_msgs/msg/TFMessage")]
    rng = np.random.default_rng(3)
    messages[0].name = ["hip", "thigh_joint", "é"]
    messages[0].position, messages[0].effort = rng.normal(size=(2, 3))
    messages[3].format, messages[3].data = "jpeg", rng.integers(0, 255, 500, dtype=np.uint8)
    messages[4].twist = [new_message("geometry_msgs/msg/Twist") for _ in range(2)]
    messages[4].twist[1].angular.y = 0.25
    messages[5].fields = [new_message("sensor_msgs/msg/PointField")]
    messages[5].fields[0].name, messages[5].fields[0].count = "x", 3
    messages[6].ranges = rng.normal(size=7).astype(np.float32)
    messages[7].transforms = [new_message("geometry_msgs/msg/TransformStamped") for _ in range(2)]
    messages[7].transforms[1].child_frame_id = "probe"
    messages[7].transforms[1].transform.translation.z = -4.5
    seen = 0
    for m in messages:
        if hasattr(m, "header"):
            m.header.frame_id, m.header.stamp.nanosec = "base"[: rng.integers(5)], 123
        cdr = encode(m)
        layout = layout_of(store, m.__msgtype__, cdr)
        rows = np.frombuffer(cdr + cdr, np.uint8).reshape(2, -1)
        assert layout.fits(rows)
        for path in layout.columns:
            expected = np.float32(at_path(m, path))
            assert (layout.take(rows, path) == expected).all(), f"{m.__msgtype__}.{path}"
            seen += 1
    assert seen > 100
    assert layout_of(store, messages[0].__msgtype__, encode(messages[0])).names == ["hip", "thigh_joint", "é"]
    assert "data[0]" not in layout_of(store, messages[3].__msgtype__, encode(messages[3])).columns


@given(st.integers(0, 10_000), st.binary(max_size=80))
def test_bytes_of_another_type_are_no_layout(cut: int, noise: bytes) -> None:
    """Truncated and random messages end in a ValueError or in columns that lie inside of the message."""
    message = new_message("sensor_msgs/msg/JointState")
    message.name, message.position = ["a", "b"], np.zeros(2)
    for cdr in (encode(message)[:cut], b"\x00\x01\x00\x00" + noise):
        try:
            layout = layout_of(standard_store(), message.__msgtype__, cdr)
        except ValueError:
            continue
        assert all(c.offset + np.dtype(c.dtype).itemsize <= len(cdr) for c in layout.columns.values())


def test_signals_equal_the_reader(tmp_path: Path) -> None:
    """Across chunks, with messages of changing shape: the same values as `Log.channels`, missing elements as NaN."""
    write(tmp_path / "x", random_messages(np.random.default_rng(5), 3000))
    log = open_log(tmp_path / "x")
    signals = Signals(log, Chunks(log))
    try:
        for name in ("/crazyflie/odom.pose.pose.position.x", "/crazyflie/odom.header.stamp.nanosec"):
            series = log.channels[name]
            t_ns, values = signals.samples(name)
            assert (t_ns == series.t_ns).all()
            assert (values == series.values.astype(np.float32)).all()
        ticks = log.channels["/crazyflie/policy/tick.data"]
        name = next(n for n in signals.catalogue if n.startswith("/crazyflie/policy/tick.data["))
        i = int(name[name.index("[") + 1 : -1])
        expected = [v[i] if i < len(v) else math.nan for v in ticks.values]
        assert np.array_equal(signals.samples(name)[1], np.array(expected, np.float32), equal_nan=True)
        covariance = signals.samples("/crazyflie/odom.pose.covariance[7]")[1]
        assert (covariance == log.channels["/crazyflie/odom.pose.covariance"].values[:, 7].astype(np.float32)).all()
        with pytest.raises(NotFoundError, match=r"signal '/nothing\.x' not found"):
            signals.request(["/nothing.x"])
        assert signals.failure == ""
    finally:
        signals.close()


def test_what_is_shown_first(signals: Signals) -> None:
    first = signals.first()
    assert len(first) == 10
    assert {signals.catalogue[n].topic for n in first} == {"/drone/imu", "/drone/odom"}
    assert not [n for n in signals.catalogue if ".orientation." in n and n.startswith("/drone/imu")]  # covariance -1


def test_answers_are_rows_of_columns(flight: Log, signals: Signals) -> None:
    name = "/drone/odom.pose.pose.position.z"
    signals.request([name])
    signals.wait()
    start, end = START_NS + 10**9, START_NS + 2 * 10**9
    row = np.frombuffer(signals.query([name], start, end, 50), np.float32)
    assert row.shape == (104,)
    assert row[0] == pytest.approx(-0.01)
    assert row[2] == pytest.approx(1.0)
    z = flight.channels[name].values[100:200].reshape(50, 2).astype(np.float32)
    assert (row[4::2] == z.min(1)).all()
    assert (row[5::2] == z.max(1)).all()
    (value,) = signals.values([name], START_NS + 10**9 + 3)
    assert value == pytest.approx(float(z[0, 0]))
    assert signals.values([name], START_NS - 1) == [None]


# --- pictures ------------------------------------------------------------------------------------------------------


def test_the_picture_at_an_instant(flight: Log) -> None:
    frames = Frames(flight, Chunks(flight))
    topic = "/camera/image/compressed"
    assert frames.topics == [topic]
    for t in (0.0, 3.02, 9.99):
        frame = frames.frame(topic, START_NS + round(t * 1e9))
        shown_s = (frame.t_ns - START_NS) / 1e9
        assert 0 <= t - shown_s < 0.05
        pixels = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert abs(float(pixels[:, :150].mean()) - round(25 * shown_s) % 256) < 3
    assert frames.frame(topic, 0).t_ns == START_NS
    with pytest.raises(NotFoundError, match="topic with pictures"):
        frames.frame("/drone/imu", START_NS)


def test_steps_and_snapping(flight: Log) -> None:
    frames, topic, ms = Frames(flight, Chunks(flight)), "/camera/image/compressed", 1_000_000

    def at(t_ms: float, steps: int) -> float:
        return (frames.neighbour(topic, START_NS + round(t_ms * ms), steps) - START_NS) / ms

    assert [at(120, 0), at(130, 0), at(-5, 0), at(1e9, 0)] == [100, 150, 0, 9950]
    assert [at(100, 1), at(120, 1), at(120, 2)] == [150, 150, 200]
    assert [at(100, -1), at(120, -1), at(0, -1), at(9950, 1)] == [50, 100, 0, 9950]


ENCODINGS: dict[str, tuple[str, list[int]]] = {
    "rgb8": ("u1", [200, 100, 50]),
    "bgr8": ("u1", [50, 100, 200]),
    "rgba8": ("u1", [200, 100, 50, 255]),
    "bgra8": ("u1", [50, 100, 200, 255]),
    "mono8": ("u1", [77]),
    "mono16": ("<u2", [0, 1000]),
    "32FC1": ("<f4", [1, 3]),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_of_raw_pictures(tmp_path: Path, encoding: str) -> None:
    """A plain picture keeps its colour; a deep one is stretched from black to white; rows may be padded."""
    dtype, pixel = ENCODINGS[encoding]
    deep = len(pixel) == 2
    row = np.array(pixel * (8 if deep else 16), dtype)
    image = new_message("sensor_msgs/msg/Image")
    image.encoding, image.width, image.height = encoding, 16, 12
    data = np.concatenate([row.view(np.uint8), np.zeros(5, np.uint8)])
    image.step, image.data = len(data), np.tile(data, 12)
    pixels = _shown(tmp_path, image)
    assert pixels.shape == (12, 16, 3)
    if deep:
        assert pixels[:, 0].mean() < 40
        assert pixels[:, 1].mean() > 215
    else:
        expected = [77] * 3 if encoding == "mono8" else [50, 100, 200]
        assert np.abs(pixels.mean((0, 1)) - expected).max() < 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "yuv422"}, "encoding 'yuv422' is not shown; shown: rgb8"),
        ({"width": 99}, "do not hold 99 x 12 mono8"),
        ({"height": 13}, "do not hold 16 x 13 mono8"),
        ({"width": 0}, "do not hold 0 x 12"),
    ],
)
def test_pictures_that_are_none(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    image = new_message("sensor_msgs/msg/Image")
    image.encoding, image.width, image.height, image.step = "mono8", 16, 12, 16
    image.data = np.zeros(192, np.uint8)
    for key, value in changes.items():
        setattr(image, key, value)
    with pytest.raises(BadInput, match=words):
        _shown(tmp_path, image)


def _shown(folder: Path, image: Any) -> np.ndarray:
    with LogWriter(folder / "x") as writer:
        writer.write_message("/image", image, 1)
    log = open_log(folder / "x")
    frame = Frames(log, Chunks(log)).frame("/image", 1)
    pixels = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


# --- poses and rules -----------------------------------------------------------------------------------------------


def test_a_body_and_its_path(flight: Log, signals: Signals) -> None:
    (body,) = bodies(signals.catalogue.values())
    assert body.name == "/drone/odom"
    assert path_of(signals, body, flight.start_ns, flight.end_ns).shape[1] == 8
    signals.wait()
    path = path_of(signals, body, flight.start_ns, flight.end_ns, 200)
    assert len(path) <= 200
    t = path[:, 0] * flight.duration_s
    assert np.allclose(path[:, 1], np.cos(t), atol=1e-4)
    assert np.allclose(path[:, 4], np.cos(t / 2), atol=1e-4)
    assert np.allclose(path[:, 7], np.sin(t / 2), atol=1e-4)


def test_rules_find_what_was_put_there(flight: Log, signals: Signals) -> None:
    found = {(p.kind, p.label): ((p.t0_ns - START_NS) / 1e9, (p.t1_ns - START_NS) / 1e9) for p in propose(signals)}
    assert found[("event", "crash")] == (CRASH_S, CRASH_S)
    assert found[("event", "jerk")][0] == pytest.approx(CRASH_S, abs=0.05)
    assert found[("exclude", "still")] == pytest.approx((0.0, 3.0), abs=0.5)
    assert set(found) == {("event", "crash"), ("event", "jerk"), ("exclude", "still")}


def test_contact_from_force(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "x") as writer:
        for i in range(300):
            wrench = new_message("geometry_msgs/msg/WrenchStamped")
            wrench.wrench.force.z = 1.0 + (4.0 if 100 <= i < 130 else 0.0)
            writer.write_message("/wrist", wrench, i * 10_000_000)
    log = open_log(tmp_path / "x")
    signals = Signals(log, Chunks(log))
    try:
        assert [(p.label, p.t0_ns) for p in propose(signals)] == [("contact", 1_000_000_000)]
    finally:
        signals.close()


def test_drafts_are_proposed_once(flight: Log, signals: Signals) -> None:
    store = AnnotationStore(flight, "anna")
    found = propose(signals)
    assert add_proposals(store, found) == len(found) == 3
    assert {(m.status, m.by.type, m.by.who) for m in store.marks()} == {("draft", "rule", "rules")}
    first, second, third = (m.id for m in store.marks())
    store.review(first, "rejected")
    store.delete(second)
    store.replace(third, t0_ns=START_NS + 1, t1_ns=START_NS + 1, status="confirmed")
    assert add_proposals(store, found) == 0
    assert add_proposals(AnnotationStore(flight, "ben"), found) == 0


def test_crash_of_a_real_crazyflie(tmp_path: Path) -> None:
    """The recording's documented crash: above 5 g from 42.69 s on; still before the take-off at 5.1 s and after it."""
    if not CRAZYFLIE.is_file():
        pytest.skip(f"sample recordings are not in {CRAZYFLIE.parent}")
    from hardware.log.imports import import_log

    import_log(CRAZYFLIE, tmp_path / "log")
    log = open_log(tmp_path / "log")
    signals = Signals(log, Chunks(log))
    try:
        found = [(p.label, (p.t0_ns - log.start_ns) / 1e9, (p.t1_ns - log.start_ns) / 1e9) for p in propose(signals)]
    finally:
        signals.close()
    assert [label for label, _, _ in found] == ["still", "jerk", "crash", "still"]
    assert found[2][1] == pytest.approx(42.69, abs=0.01)
    assert found[0][2] == pytest.approx(5.1, abs=0.2)
    assert found[3][1] == pytest.approx(43.5, abs=0.5)


def test_a_file_without_index_is_refused_with_the_way_out(tmp_path: Path) -> None:
    from mcap.writer import IndexType, Writer

    with (tmp_path / "x.mcap").open("wb") as stream:
        writer = Writer(stream, index_types=IndexType.NONE)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/Bool", "ros2msg", b"bool data")
        channel = writer.register_channel("/x", "cdr", schema)
        writer.add_message(channel, 1, b"\x00\x01\x00\x00\x01", 1)
        writer.finish()
    with pytest.raises(BadInput, match="has no message index; make a copy that has: robo-rl log recover"):
        Chunks(open_log(tmp_path / "x.mcap"))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_file_is_refused_or_read(damaged: bytes, changes: list[tuple[float, int]]) -> None:
    """Any bytes changed anywhere: our own error or numbers, never a crash and never a reader that hangs."""
    data = bytearray(damaged)
    for place, byte in changes:
        data[min(len(data) - 1, int(place * len(data)))] = byte
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.mcap"
        file.write_bytes(data)
        try:
            log = open_log(file)
            chunks = Chunks(log)
            signals = Signals(log, chunks)
        except RoboError:
            return
        try:
            signals.request(list(signals.catalogue)[:5])
            signals.wait(20)
            frames = Frames(log, chunks)
            for topic in frames.topics:
                with contextlib.suppress(RoboError):
                    frames.frame(topic, START_NS)
        finally:
            signals.close()
            chunks.close()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small file, to be damaged."""
    folder = write_flight(tmp_path_factory.mktemp("small") / "flight", 0.3)
    return next(folder.glob("*.mcap")).read_bytes()
