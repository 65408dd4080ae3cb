"""Foreign recordings become logs: values by hand, by other libraries and by what is known of the sample recordings."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.foreign import crazyflie_log, plus_sequence, sample, small_archive, sqlite_bag, ulog
from support.log_samples import START_NS, by_mcap, by_ours, random_messages, write

from hardware.errors import BadInput, NotFoundError
from hardware.log.exporters.tables import export_npz
from hardware.log.imports import Options, import_log, importer_of, known_importers, provenance
from hardware.log.reader import Log
from hardware.log.table import field_names
from robo_rl.cli import main


def _imported(path: Path, raw: bytes | None = None, options: Options | None = None) -> Log:
    if raw is not None:
        path.write_bytes(raw)
    return Log(import_log(path, path.with_name("log"), options=options).output)


def _said(log: Log) -> str:
    return " | ".join(json.loads(provenance(log)["conversions"]))


def test_the_crazyflie_recording(tmp_path: Path) -> None:
    """Counts, duration, crash and the samples beyond 1000 deg/s as they are known of this file; rest is 1 g."""
    path = sample("crazyflie_arpl/log10")
    done = import_log(path, tmp_path / "log")
    log = Log(done.output)
    assert done.counts == {"/crazyflie/imu": 50_496, "/crazyflie/motor": 50_496}
    assert log.duration_s == pytest.approx(50.0, abs=0.01)
    names = [f"{q}.{a}" for q in ("linear_acceleration", "angular_velocity") for a in "xyz"]
    series = log.series("/crazyflie/imu", names)
    assert [series[n].unit for n in names] == ["m/s^2"] * 3 + ["rad/s"] * 3
    acc = np.stack([series[n].values for n in names[:3]], axis=1)
    rates = np.stack([series[n].values for n in names[3:]], axis=1)
    t_s = (series[names[0]].t_ns - log.start_ns) / 1e9
    assert np.median(np.linalg.norm(acc[t_s < 4.0], axis=1)) == pytest.approx(9.80665, rel=0.02)
    assert t_s[np.linalg.norm(acc, axis=1) > 5 * 9.80665].min() == pytest.approx(42.69, abs=0.01)
    tumbling = t_s[(np.abs(rates) > np.deg2rad(1000.0)).any(axis=1)]
    assert len(tumbling) == 89
    assert tumbling[[0, -1]] == pytest.approx([42.69, 42.94], abs=0.01)
    motor = log.series("/crazyflie/motor")
    spinning = t_s[np.stack([motor[f"m{i}"].values for i in range(1, 5)]).max(axis=0) > 0]
    assert 4.0 < spinning[0] < 5.2
    found = provenance(log)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["format"], found["source"], found["bytes"]) == ("crazyflie", "log10", "2524933")
    assert "g to m/s^2 (x 9.80665)" in _said(log)
    assert by_ours(done.output) == by_mcap(done.output)


@pytest.mark.parametrize(("version", "unit_ns"), [(1, 1_000_000), (2, 1_000)])
def test_crazyflie_events_by_hand(tmp_path: Path, version: int, unit_ns: int) -> None:
    """Both versions, two event types, interleaved; g become m/s^2, other units are kept."""
    log = _imported(tmp_path / "log07", crazyflie_log([(1000, 1.0, 5), (1010, -2.0, 65535)], version))
    acc = log.channels["/crazyflie/imu.linear_acceleration.x"]
    assert acc.values.tolist() == [9.80665, -19.6133]
    assert acc.t_ns.tolist() == [1000 * unit_ns, 1010 * unit_ns]
    assert log.channels["/crazyflie/motor.m1"].values.tolist() == [5, 65535]
    battery = log.channels["/crazyflie/land/pm.vbat"]
    assert (battery.unit, battery.values.tolist(), battery.t_ns[0]) == ("V", [3.5, 3.5], 1001 * unit_ns)


def test_the_go2_recording_reads_as_torch_reads_it(tmp_path: Path) -> None:
    """Another library: torch itself, with its own restricted loader. Joints stay numbered."""
    torch = pytest.importorskip("torch")
    path = sample("go2_sysid/traj_0.pt")
    log = Log(import_log(path, tmp_path / "log").output)
    expected = torch.load(path, weights_only=True)
    for topic, name in {"/joint_states": "dof_pos", "/joint_command": "des_dof_pos"}.items():
        position = log.channels[f"{topic}.position"]
        assert position.unit == "rad"
        np.testing.assert_array_equal(position.values, expected[name].numpy().astype(np.float64))
        np.testing.assert_allclose(position.t_ns / 1e9, expected["time"].numpy(), atol=1e-6)
    assert log.channels["/joint_states.name"].values[0] == [f"joint_{i}" for i in range(12)]
    assert "joint_0 to joint_11" in _said(log)


def test_archives_are_read_without_torch(tmp_path: Path) -> None:
    """A process in which torch cannot be imported."""
    (tmp_path / "a.pt").write_bytes(small_archive())
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path\n"
        "from hardware.log.imports import import_log\n"
        f"print(import_log(Path({str(tmp_path / 'a.pt')!r})).counts)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{'/joint_states': 3}\n", "")
    values = Log(tmp_path / "a-imported").channels["/joint_states.position"].values
    assert values.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_the_plus_recording(tmp_path: Path) -> None:
    """5,000 poses; the first one by hand from the file's text; rotations are rotations, metres are metres."""
    path = sample("plus_ultrasound/WaterTankBottomTranslationTrackerBuffer.igs.mha")
    log = Log(import_log(path, tmp_path / "log").output)
    assert {n: t.count for n, t in log.topics.items()} == dict.fromkeys(
        ("/plus/frame", "/plus/probe_to_tracker", "/plus/reference_to_tracker", "/plus/stylus_to_tracker"), 5000
    )
    first = next(log.messages(["/plus/probe_to_tracker"]))
    assert first.t_ns == 7_356_711_700_000
    assert (first.message.header.frame_id, first.message.child_frame_id) == ("Tracker", "Probe")
    translation = first.message.transform.translation
    assert (translation.x, translation.y, translation.z) == pytest.approx((0.224358, -0.0261193, 0.0665262))
    rotation = first.message.transform.rotation
    x, y, z, w = rotation.x, rotation.y, rotation.z, rotation.w
    assert 2 * (x * y - z * w) == pytest.approx(-0.226229, abs=2e-5)  # R12 of the file
    frame = log.series("/plus/frame")
    assert frame["unfiltered_timestamp"].values[0] == 7356.699
    assert frame["unfiltered_timestamp"].unit == "s"
    assert not frame["image_valid"].values.any()
    assert frame["probe_to_tracker_transform_valid"].values.all()


@pytest.mark.parametrize("packed", [False, True])
def test_plus_pixels_and_status_by_hand(tmp_path: Path, packed: bool) -> None:
    """Pixels row by row, compressed or not; a pose whose status is not OK is left out and said."""
    log = _imported(tmp_path / "scan.igs.mha", plus_sequence(packed=packed, status="INVALID"))
    pictures = [m.message for m in log.messages(["/plus/image"])]
    assert [(p.height, p.width, p.encoding) for p in pictures] == [(3, 4, "mono8")] * 2
    assert np.concatenate([p.data for p in pictures]).tolist() == list(range(24))
    [pose] = log.messages(["/plus/probe_to_tracker"])
    assert pose.message.transform.translation.x == 0.01
    rotation = pose.message.transform.rotation
    assert (rotation.z, rotation.w) == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))
    assert log.channels["/plus/frame.probe_to_tracker_transform_valid"].values.tolist() == [True, False]
    assert "1 poses whose status is not OK are left out" in _said(log)


def test_the_px4_recording(tmp_path: Path) -> None:
    """Counts and values as pyulog gives them; gyroscope and accelerometer with units; gravity is 9.8 m/s^2."""
    pyulog = pytest.importorskip("pyulog")
    path = sample("px4_ulog/sample.ulg")
    log = Log(import_log(path, tmp_path / "log").output)
    for data in pyulog.ULog(str(path)).data_list:
        stamped = int((data.data["timestamp"] > 0).sum())
        assert (log.topics[f"/px4/{data.name}"].count if stamped else 0) == stamped
        if data.name == "sensor_combined":
            acc = log.channels["/px4/sensor_combined.accelerometer_m_s2"]
            expected = np.stack([data.data[f"accelerometer_m_s2[{i}]"] for i in range(3)], axis=1)
            np.testing.assert_array_equal(acc.values, expected)
            np.testing.assert_array_equal(acc.t_ns, data.data["timestamp"].astype(np.int64) * 1000)
            assert acc.unit == "m/s^2"
            assert np.median(np.linalg.norm(acc.values, axis=1)) == pytest.approx(9.8, abs=0.3)
    assert log.channels["/px4/sensor_combined.gyro_rad"].unit == "rad/s"
    assert log.topics["/px4/dropout"].count == 4
    assert log.duration_s == pytest.approx(181.493506 - 112.500176), "commander_state is stamped 2.07 s throughout"
    assert provenance(log)["file.ver_hw"] == "AUAV_X21"
    assert "sensor_preflight: 17072 messages without an instant are left out" in _said(log)


def test_px4_fields_by_hand(tmp_path: Path) -> None:
    """A log of three messages, written from the format's description."""
    pytest.importorskip("pyulog")
    log = _imported(tmp_path / "a.ulg", ulog([(1_000_000, 11.5, False), (1_100_000, 11.25, True), (0, 9.0, True)]))
    voltage = log.channels["/px4/battery.voltage_v"]
    assert (voltage.values.tolist(), voltage.unit) == ([11.5, 11.25], "V")
    assert voltage.t_ns.tolist() == [10**9, 11 * 10**8]
    assert log.channels["/px4/battery.armed"].values.tolist() == [False, True]
    assert log.channels["/px4/battery.cells"].values.tolist() == [[1, 2], [1, 2]]


def test_px4_messages_older_than_their_file_are_received_at_its_start(tmp_path: Path) -> None:
    """The file begins at 1 s; a message stamped 2 ms stays ahead of the others, and its own stamp is kept."""
    pytest.importorskip("pyulog")
    done = _imported(tmp_path / "a.ulg", ulog([(1_500_000, 2.0, False), (2_000, 1.0, True)]))
    received = [(m.log_ns, m.publish_ns, m.message.voltage_v) for m in done.messages()]
    assert received == [(10**9, 2 * 10**6, 1.0), (15 * 10**8, 15 * 10**8, 2.0)]
    assert done.duration_s == 0.5
    assert "battery: 1 messages stamped before the file starts are received at its start" in _said(done)


@pytest.mark.parametrize("name", ["convert_a", "convert_b", "talker"])
def test_genuine_rosbag2_recordings_are_copied_byte_for_byte(tmp_path: Path, name: str) -> None:
    """As the mcap library reads both."""
    path = sample(f"rosbag2_fixtures/{name}")
    done = import_log(path, tmp_path / "log")
    assert sorted(by_mcap(done.output)) == sorted(by_mcap(path))
    before, after = Log(path), Log(done.output)
    assert {n: (t.type, t.qos) for n, t in after.topics.items()} == {
        n: (t.type, t.qos) for n, t in before.topics.items()
    }


def test_sqlite_recordings(tmp_path: Path) -> None:
    """A directory written by rosbags (another library) and a lone file written here; types get their definitions."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    text = store.types["std_msgs/msg/String"]
    sent = [bytes(store.serialize_cdr(text(f"message {i}"), "std_msgs/msg/String")) for i in range(5)]
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=store)
        for i, cdr in enumerate(sent):
            writer.write(connection, START_NS + i, cdr)
    log = Log(import_log(tmp_path / "bag", tmp_path / "out").output)
    assert [(m.t_ns, m.cdr) for m in log.messages(raw=True)] == [(START_NS + i, cdr) for i, cdr in enumerate(sent)]
    assert provenance(log)["format"] == "rosbag2"
    sqlite_bag(tmp_path / "lone.db3", ["one", "two"])
    log = Log(import_log(tmp_path / "lone.db3", tmp_path / "lone").output)
    assert log.channels["/chatter.data"].values.tolist() == ["one", "two"]


TABLES = {
    "german.csv": (
        "Datum;Uhrzeit;T [°C];RH (%)\r\n01.02.2021;12:00;12,5;80\r\n01.02.2021;12:05;1.012,75;81\r\n",
        [1612180800 * 10**9, 1612181100 * 10**9],
        {"t": ([12.5, 1012.75], "°C"), "rh": ([80, 81], "%")},
    ),
    "mixed_dates.csv": (  # ISO, then day first: only so time never goes back
        "time,x\n2021-01-31 23:55,1\n2021-01-31 23:59,2\n01/02/2021 00:05,3\n",
        [1612137300 * 10**9, 1612137540 * 10**9, 1612137900 * 10**9],
        {"x": ([1, 2, 3], "")},
    ),
    "american.csv": (  # the 25 can only be a day
        '"date","v"\n"01/25/2021 1:30 PM","1,5"\n"02/03/2021 12:00 AM","2"\n',
        [1611581400 * 10**9, 1612310400 * 10**9],
        {"v": ([1.5, 2.0], "")},
    ),
    "euroc.csv": (
        "#timestamp [ns],w_RS_S_x [rad s^-1]\n1403636579758555392,-0.09\n1403636579763555584,-0.08\n",
        [1403636579758555392, 1403636579763555584],
        {"w_rs_s_x": ([-0.09, -0.08], "rad s^-1")},
    ),
    "tum.txt": (
        "# ground truth trajectory\n# timestamp tx ty tz qx qy qz qw\n1.5 0.5 -1 2 0 0 0 1\n1.75 1 -1 2e-3 0 0 0 1\n",
        [1_500_000_000, 1_750_000_000],
        {"tx": ([0.5, 1.0], ""), "ty": ([-1, -1], ""), "tz": ([2.0, 0.002], "")}
        | {f"q{a}": ([int(a == "w")] * 2, "") for a in "xyzw"},
    ),
    "excel_days.csv": (
        "%time,a\n43815.5,1\n43815.75,\n",
        [1576497600 * 10**9, 1576519200 * 10**9],
        {"a": ([1, None], "")},
    ),
    "units_row.tsv": (
        "logger 7\nt\ta\tstate\ns\tm\t-\n0.5\t1\ton\n0.25\t2\toff\n",
        [250_000_000, 500_000_000],
        {"a": ([2, 1], "m"), "state": (["off", "on"], "-")},
    ),
    "zones.csv": (
        "Time Stamp;ok;import\n2021-02-01T12:00:00.123456789+01:00;true;1\n2021-02-01T11:00:01Z;false;2\n",
        [1612177200 * 10**9 + 123456789, 1612177201 * 10**9],
        {"ok": ([True, False], ""), "import_value": ([1, 2], "")},
    ),
    "latin.csv": ("t;Höhe [m]\n0;1,5\n1;2,5\n", [0, 10**9], {"h_he": ([1.5, 2.5], "m")}),
}
"""Name -> text, instants, columns."""


@pytest.mark.parametrize("name", TABLES)
def test_text_tables_by_hand(tmp_path: Path, name: str) -> None:
    """Delimiters, decimal commas, dates, units and encodings as they occur; every value by hand."""
    text, instants, columns = TABLES[name]
    path = tmp_path / name
    path.write_bytes(text.encode("cp1252" if name == "latin.csv" else "utf-8"))
    log = _imported(path)
    [topic] = log.topics
    assert topic == f"/{name.split('.')[0]}"
    series = log.series(topic)
    assert {n: s.unit for n, s in series.items()} == {n: unit for n, (_, unit) in columns.items()}
    for field, (values, _) in columns.items():
        found = [None if isinstance(v, float) and np.isnan(v) else v for v in series[field].values.tolist()]
        assert found == values
        assert series[field].t_ns.tolist() == instants


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "no time among a, b; give --time COLUMN or --rate HZ"),
        ("date,v\n03/04/2021,1\n03/05/2021,2\n", "'03/04/2021' may be day or month first; say --dates day-first"),
        ("date,v\n13/04/2021,1\n04/13/2021,2\n", "neither all day first nor all month first"),
        ("date,v\n31.02.2021,1\n", "'31.02.2021' is not a day of the calendar"),
        ("date,v\n01.02.2021,1\nsoon,2\n", "'soon' in row 2 is not a date"),
        ("t,v\n1,1\n2,2\n3\n", "line 4 has 1 cells"),
        ("t,v\n-1,1\n", "instants lie outside 0 to 2^63 ns"),
        ("t,v\n1.5,1\n,2\n", "instant nan s at row 1"),
        ("time,v\n", "holds no rows"),
    ],
)
def test_tables_that_leave_something_open_are_refused(tmp_path: Path, text: str, says: str) -> None:
    """One line that names the column or line and what to do; nothing is left behind."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInput) as caught:
        import_log(tmp_path / "a.csv")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_what_a_table_leaves_open_can_be_said(tmp_path: Path) -> None:
    """`--rate`, `--time` and `--dates`."""
    log = _imported(tmp_path / "a.csv", b"a,b\n1,2\n3,4\n5,6\n", Options(rate_hz=4.0))
    assert log.channels["/a.b"].t_ns.tolist() == [0, 250_000_000, 500_000_000]
    (tmp_path / "b").mkdir()
    log = _imported(tmp_path / "b" / "b.csv", b"frame,clock\n7,1.5\n8,2.5\n", Options(time="clock"))
    assert log.channels["/b.frame"].t_ns.tolist() == [1_500_000_000, 2_500_000_000]
    for day_first, day in ((True, 3), (False, 4)):
        (tmp_path / str(day)).mkdir()
        log = _imported(tmp_path / str(day) / "d.csv", b"date,v\n03/04/2021,1\n", Options(day_first=day_first))
        assert log.start_ns == np.datetime64(f"2021-0{7 - day}-0{day}", "ns").astype(np.int64)


def test_our_own_export_comes_back(tmp_path: Path) -> None:
    """Log -> npz -> log: instants, values and units."""
    write(tmp_path / "log", random_messages(np.random.default_rng(3), 200))
    before = Log(tmp_path / "log")
    export_npz(before, tmp_path / "x.npz", ["/crazyflie/odom"])
    after = Log(import_log(tmp_path / "x.npz", tmp_path / "again").output)
    for name in ("pose.pose.position.x", "twist.twist.linear.y"):
        old, new = (
            before.channels[f"/crazyflie/odom.{name}"],
            after.channels[f"/crazyflie/odom.{field_names([name])[0]}"],
        )
        assert (old.t_ns.tolist(), old.values.tolist(), old.unit) == (new.t_ns.tolist(), new.values.tolist(), new.unit)


def test_hdf5_groups_units_text_and_pictures(tmp_path: Path) -> None:
    """A robomimic-like file; what cannot be rows over time is left out and said; links are not followed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.arange(12.0).reshape(4, 3)
        demo["actions"].attrs["unit"] = "rad"
        demo["obs/camera_image"] = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
        demo["note"] = ["a", "b", "c", "d"]
        demo["odd"] = np.zeros(3)
        demo["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(BadInput, match="holds no time"):
        import_log(tmp_path / "demo.hdf5")
    log = _imported(tmp_path / "demo.hdf5", options=Options(rate_hz=20.0))
    actions = log.channels["/data/demo_0.actions"]
    assert (actions.values.tolist()[1], actions.unit, actions.t_ns[1]) == ([3.0, 4.0, 5.0], "rad", 50_000_000)
    assert log.channels["/data/demo_0.note"].values.tolist() == ["a", "b", "c", "d"]
    picture = list(log.messages(["/data/demo_0/obs/camera_image"]))[1].message
    assert (picture.height, picture.width, picture.encoding, picture.data[0]) == (2, 3, "rgb8", 18)
    assert "data/demo_0/odd: float64 of shape (3,) has no row per instant; left out" in _said(log)
    assert "data/demo_0/elsewhere: a link; left out" in _said(log)


def test_openigtlink_captures(tmp_path: Path) -> None:
    """A stream packed by pyigtl, and one transform whose bytes are written here."""
    import struct

    from pyigtl.messages import CRC64, ImageMessage, PointMessage, StringMessage, TransformMessage

    moved = np.eye(4)
    moved[:3, 3] = (10.0, 0.0, -250.0)
    body = struct.pack(">12f", 0, 1, 0, -1, 0, 0, 0, 0, 1, 1000, 0, 0)  # columns of the rotation, then mm
    header = struct.pack(">H12s20sIIQQ", 1, b"TRANSFORM", b"ToolToBase", 100, 1 << 31, len(body), CRC64(body))
    raw = b"".join(
        [
            TransformMessage(moved, timestamp=100.25, device_name="ProbeToTracker").pack(),
            ImageMessage(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), timestamp=100.5, device_name="US").pack(),
            StringMessage("begin", timestamp=101.0, device_name="Note").pack(),
            PointMessage([1.0, 2.0, 3.0], timestamp=102.0, device_name="P").pack(),
            header + body,
        ]
    )
    log = _imported(tmp_path / "capture.igtl", raw)
    pose = next(log.messages(["/igtl/probetotracker"])).message
    assert (pose.transform.translation.x, pose.transform.translation.z) == (0.01, -0.25)
    assert (pose.header.frame_id, pose.child_frame_id) == ("Tracker", "Probe")
    tool = next(log.messages(["/igtl/tooltobase"]))
    assert tool.t_ns == 100_500_000_000
    rotation = tool.message.transform.rotation
    assert (tool.message.transform.translation.x, rotation.z, rotation.w) == pytest.approx((1.0, 0.5**0.5, 0.5**0.5))
    picture = next(log.messages(["/igtl/us"]))
    assert (picture.t_ns, picture.message.height, picture.message.data.tolist()) == (
        100_500_000_000,
        3,
        list(range(12)),
    )
    assert log.channels["/igtl/note.data"].values.tolist() == ["begin"]
    assert "1 messages of type POINT are left out" in _said(log)


def test_formats_are_known_by_their_content(tmp_path: Path) -> None:
    """Whatever a file is called; an unknown format or file says what there is."""
    for raw, name in [
        (crazyflie_log([(1, 1.0, 1)]), "crazyflie"),
        (small_archive(), "torch"),
        (plus_sequence(), "plus"),
        (ulog([(1, 1.0, True)]), "ulog"),
        (b"time,a,b\n1,2,3\n", "csv"),
        (b"\x89HDF\r\n\x1a\nrest", "hdf5"),
    ]:
        (tmp_path / "file").write_bytes(raw)
        assert importer_of(tmp_path / "file") is known_importers()[name]
    (tmp_path / "file").write_bytes(b"\0\1\2\3" * 50)
    with pytest.raises(BadInput, match="format is not recognised; name one with --format: crazyflie, csv, hdf5"):
        importer_of(tmp_path / "file")
    with pytest.raises(NotFoundError, match="format 'xls' not found; known: crazyflie, csv"):
        importer_of(tmp_path / "file", "xls")
    assert all(i.ABOUT and callable(i.load) for i in known_importers().values())


def test_another_package_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with the entry point, made here: it is found, recognises its file and loads it."""
    (tmp_path / "site" / "lab-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "lab-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n"
    )
    (tmp_path / "site" / "lab-1.0.dist-info" / "entry_points.txt").write_text(
        "[robo_rl.log_importers]\nlab = lab_importer\n"
    )
    (tmp_path / "site" / "lab_importer.py").write_text(
        "import numpy as np\n"
        "from hardware.log.imports import Imported\n"
        "from hardware.log.table import Column, Table\n"
        "FORMAT, ABOUT = 'lab', 'our lab'\n"
        "def recognises(path, head): return head.startswith(b'LAB')\n"
        "def load(path, options):\n"
        "    values = np.frombuffer(path.read_bytes()[3:], dtype=np.uint8)\n"
        "    return Imported([Table('/lab', np.arange(len(values)), {'byte': Column(values, 'K')})])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    known_importers.cache_clear()
    try:
        channel = _imported(tmp_path / "x.lab", b"LAB\x01\x02").channels["/lab.byte"]
    finally:
        known_importers.cache_clear()
    assert (channel.values.tolist(), channel.unit) == ([1, 2], "K")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status, JSON, what info says of an imported log, and one line where it cannot be done."""
    (tmp_path / "run.csv").write_text("t,a [m]\n0,1\n1,2\n")
    assert main(["log", "import", str(tmp_path / "run.csv"), "--json", str(tmp_path / "x.json")]) == 0
    result = json.loads((tmp_path / "x.json").read_text())
    assert (result["messages"], result["duration_s"], result["channels"], result["format"]) == (
        2,
        1.0,
        {"/run": 2},
        "csv",
    )
    assert result["log"] == str(tmp_path / "run-imported")
    assert main(["log", "info", result["log"]]) == 0
    assert "imported from run.csv (csv), sha256 " in capsys.readouterr().out
    (tmp_path / "days.csv").write_text("date,v\n03/04/2021,1\n")
    assert main(["log", "import", str(tmp_path / "days.csv"), "--dates", "month-first"]) == 0
    assert Log(tmp_path / "days-imported").start_ns == np.datetime64("2021-03-04", "ns").astype(np.int64)
    capsys.readouterr()
    for argv, says in [
        ([str(tmp_path / "run.csv")], "run-imported exists"),
        ([str(tmp_path / "nix")], "nix does not exist"),
        ([str(tmp_path / "run.csv"), "--rate", "-1"], "--rate -1: expected samples per second above 0"),
        ([str(tmp_path / "run.csv"), "--format", "ulog", "--out", str(tmp_path / "o")], "not a PX4 flight log"),
    ]:
        assert main(["log", "import", *argv]) == 1
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Reading logs needs no extra; a format that does says which one."""
    (tmp_path / "a.ulg").write_bytes(ulog([(1, 1.0, True)]))
    code = (
        "import sys; sys.modules.update(pyulog=None, h5py=None, pyarrow=None); from robo_rl.cli import main; "
        f"sys.exit(main(['log', 'import', {str(tmp_path / 'a.ulg')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "robo-rl: log: needs the package 'pyulog'; pip install 'robo_rl[export]'\n"
