"""`robo-rl log` as a user calls it: tables, JSON, exit statuses, one line per failure; and the exported tables."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.log_samples import START_NS, fixture

from hardware.errors import BadInput
from hardware.log.exporters.tables import export_csv, export_npz
from hardware.log.qos import LATCHED
from hardware.log.reader import Log
from hardware.log.timeline import Timeline
from hardware.log.types import new_message
from hardware.log.writer import LogWriter
from hardware.messages import RosbagsMessages, Tick, command_message, pack_tick
from hardware.robot import Command
from hardware.spec import load_spec
from robo_rl.cli import main

MAKE = RosbagsMessages()


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    """Two seconds of odometry at 100 Hz received 3 ms late, with a gap of 0.2 s, commands, ticks and a card."""
    spec = load_spec("crazyflie")
    with LogWriter(tmp_path / "flight") as writer:
        writer.add_topic("/cf/policy/card", "std_msgs/msg/String", (LATCHED,))
        card = new_message("std_msgs/msg/String")
        card.data = '{"robot": "crazyflie"}'
        writer.write_message("/cf/policy/card", card, START_NS)
        for i in [*range(100), *range(119, 200)]:
            t_ns = START_NS + i * 10_000_000
            odometry = new_message("nav_msgs/msg/Odometry")
            odometry.header.stamp.sec, odometry.header.stamp.nanosec = divmod(t_ns, 10**9)
            odometry.pose.pose.position.z = i / 100
            writer.write_message("/cf/odom", odometry, t_ns + 3_000_000)
            command = Command("attitude_thrust", np.array([0.1, -0.2, 0.3, i / 200]))
            writer.write_message("/cf/cmd_vel_legacy", command_message(spec, command, MAKE)[1], t_ns + 4_000_000)
            tick = Tick(i, t_ns, {"position_world": np.ones(3)}, {"policy": np.full(2, i)}, np.zeros(4), np.ones(4))
            writer.write_message("/cf/policy/tick", pack_tick(tick, MAKE), t_ns + 4_000_000)
    return tmp_path / "flight"


def _command(*argv: str) -> tuple[int, dict]:
    """Exit status and JSON of a command run in this process."""
    out = Path(argv[-1])
    return main(["log", *argv]), json.loads(out.read_text()) if out.exists() else {}


def test_info_tells_counts_rates_gaps_and_skew(
    flight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers by hand: 181 samples in 1.99 s, the longest pause 0.2 s, 3 ms between stamp and reception."""
    status, result = _command("info", str(flight), "--json", str(tmp_path / "info.json"))
    assert status == 0
    assert result["messages"] == 3 * 181 + 1
    assert result["duration_s"] == pytest.approx(1.994)
    odometry = result["channels"]["/cf/odom"]
    assert odometry["messages"] == 181
    assert odometry["rate_hz"] == pytest.approx(180 / 1.99)
    assert odometry["longest_gap_s"] == pytest.approx(0.2)
    assert odometry["skew_ms"] == pytest.approx(3.0)
    assert odometry["type"] == "nav_msgs/msg/Odometry"
    assert result["channels"]["/cf/policy/card"]["qos"] == ["reliable, transient_local"]
    assert result["channels"]["/cf/cmd_vel_legacy"]["skew_ms"] is None
    assert result["fields"]["/cf/odom"]["twist.twist.linear.x"] == "m/s"
    assert result["content_hash"] == Log(flight).content_hash
    shown = capsys.readouterr().out
    assert "/cf/policy/tick" in shown
    assert "544 messages in 1.994 s" in shown


def test_csv_holds_si_values_with_units(flight: Path, tmp_path: Path) -> None:
    """Hand-computed rows; commands in the mode's units, not the message's degrees; every digit kept."""
    status, result = _command("export", str(flight), "--out", str(tmp_path / "tables"), "--json", str(tmp_path / "x"))
    assert status == 0
    assert sorted(Path(p).name for p in result["channels"]) == [
        *("cf__cmd_vel_legacy.csv", "cf__odom.csv", "cf__policy__card.csv", "cf__policy__tick.csv"),
    ]
    with (tmp_path / "tables" / "cf__cmd_vel_legacy.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["t_ns", "t_s [s]", "roll [rad]", "pitch [rad]", "yaw_rate [rad/s]", "thrust [1]"]
    assert rows[1][0] == str(START_NS + 4_000_000)
    np.testing.assert_allclose([float(v) for v in rows[-1][2:]], [0.1, -0.2, 0.3, 199 / 200], rtol=1e-15)
    with (tmp_path / "tables" / "cf__odom.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(r["pose.pose.position.z [m]"]) for r in table][:3] == [0.0, 0.01, 0.02]
    assert table[1]["t_ns"] == str(START_NS + 10_000_000)  # the header's stamp
    with (tmp_path / "tables" / "cf__policy__tick.csv").open() as stream:
        ticks = list(csv.DictReader(stream))
    assert [ticks[5][k] for k in ("sequence", "goal.position_world.2", "observation.policy.1", "sent.3")] == [
        *("5", "1.0", "5.0", "1.0"),
    ]


def test_npz_needs_no_pickle(flight: Path, tmp_path: Path) -> None:
    """Loads with pickles forbidden; values and units as in the log."""
    rows = export_npz(Log(flight), tmp_path / "x.npz")
    assert rows["/cf/odom"] == 181
    with np.load(tmp_path / "x.npz", allow_pickle=False) as data:
        assert data["cf/odom/pose.pose.position.z"].tolist()[:2] == [0.0, 0.01]
        assert data["cf/odom/t_ns"][0] == START_NS
        assert data["cf/cmd_vel_legacy/pitch"][7] == pytest.approx(-0.2)
        assert data["cf/policy/tick/observation.policy"].shape == (181, 2)
        assert data["cf/policy/card/data"][0] == '{"robot": "crazyflie"}'
        units = json.loads(str(data["units"]))
    assert (units["cf/odom/pose.pose.position.z"], units["cf/cmd_vel_legacy/thrust"]) == ("m", "1")


def test_sequences_of_changing_length_are_padded(tmp_path: Path) -> None:
    """Empty cells in CSV, NaN in npz."""
    with LogWriter(tmp_path / "log") as writer:
        for i in range(3):
            message = new_message("sensor_msgs/msg/JointState")
            message.name = [f"joint{k}" for k in range(i)]
            message.position = np.arange(float(i))
            writer.write_message("/joints", message, START_NS + i)
    log = Log(tmp_path / "log")
    export_csv(log, tmp_path / "csv")
    with (tmp_path / "csv" / "joints.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [[r["name.0"], r["position.0 [rad]"], r["position.1 [rad]"]] for r in rows] == [
        ["", "", ""],
        ["joint0", "0.0", ""],
        ["joint0", "0.0", "1.0"],
    ]
    export_npz(log, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["joints/position"], [[np.nan, np.nan], [0.0, np.nan], [0.0, 1.0]])
        assert data["joints/name"].tolist() == [["", ""], ["joint0", ""], ["joint0", "joint1"]]


def test_an_export_that_fails_leaves_no_half_table(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log") as writer:
        writer.write_message("/battery", new_message("sensor_msgs/msg/BatteryState"), START_NS)
        writer.write("/battery", b"\0\1\0\0", START_NS + 1)
    log = Log(tmp_path / "log")
    with pytest.raises(BadInput, match="4 bytes do not decode"):
        export_csv(log, tmp_path / "csv")
    with pytest.raises(BadInput, match="4 bytes do not decode"):
        export_npz(log, tmp_path / "x.npz")
    assert not list((tmp_path / "csv").iterdir())
    assert [p.name for p in tmp_path.iterdir() if p.name != "csv"] == ["log"]


def test_genuine_recordings_are_shown_and_exported(tmp_path: Path) -> None:
    """rosbag2's own files, through the command."""
    for name, count in {"convert_a": 150, "convert_b": 75, "talker": 20}.items():
        status, result = _command("info", str(fixture(name)), "--json", str(tmp_path / f"{name}.json"))
        assert (status, result["messages"]) == (0, count)
        out = ("--out", str(tmp_path / f"{name}-tables"), "--json", str(tmp_path / f"{name}-export.json"))
        status, result = _command("export", str(fixture(name)), *out)
        assert (status, sum(result["channels"].values())) == (0, count)


def test_a_truncated_log_is_one_line_and_recover_mends_it(
    flight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the command that helps; that command works; the original stays as it is."""
    cut = tmp_path / "cut"
    cut.mkdir()
    raw = (flight / "flight_0.mcap").read_bytes()
    (cut / "cut_0.mcap").write_bytes(raw[:-100])
    status, _ = _command("info", str(cut), "--json", str(tmp_path / "none.json"))
    error = capsys.readouterr().err
    assert status == 1
    assert error.count("\n") == 1
    assert error.endswith(f"robo-rl log recover {cut}\n")
    status, result = _command("recover", str(cut), "--json", str(tmp_path / "recover.json"))
    assert (status, result["messages"]) == (0, 544)
    assert result["lost_bytes"] >= 0
    assert "stops at byte" in capsys.readouterr().out
    assert (cut / "cut_0.mcap").read_bytes() == raw[:-100]
    assert _command("info", result["output"], "--json", str(tmp_path / "mended.json"))[1]["messages"] == 544
    status, _ = _command("recover", str(cut), "--json", str(tmp_path / "again.json"))
    assert status == 1
    assert "cut-recovered exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "says", "status"),
    [
        (["info", "nowhere"], "nowhere does not exist", 1),
        (["info"], "LOG", 2),
        (["export", "{flight}", "--topics", "/nix"], "'/nix' not found; known: /cf/cmd_vel_legacy", 1),
        (["export", "{flight}", "--format", "xls"], "xls", 2),
        (["record", "{flight}", "--duration", "-1"], "--duration -1: expected seconds above 0", 1),
        (["dance"], "dance", 2),
    ],
)
def test_bad_usage_is_one_line(
    flight: Path, argv: list[str], says: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status and reason."""
    try:
        got = main(["log", *(a.format(flight=flight) for a in argv)])
    except SystemExit as e:
        got = e.code
    error = capsys.readouterr().err
    assert got == status
    assert says in error
    assert error.count("\n") == 1


def test_exports_overwrite_nothing(flight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice into the same place: refused."""
    arguments = ("export", str(flight), "--format", "npz", "--out", str(tmp_path / "x.npz"))
    assert main(["log", *arguments]) == 0
    assert main(["log", *arguments]) == 1
    assert "exists" in capsys.readouterr().err


def test_without_rclpy_record_and_play_say_what_is_missing(flight: Path, tmp_path: Path) -> None:
    """A process in which rclpy cannot be imported."""
    for arguments in (["log", "record", str(tmp_path / "new")], ["log", "play", str(flight)]):
        code = f"import sys; sys.modules['rclpy'] = None; from robo_rl.cli import main; sys.exit(main({arguments}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "rclpy" in done.stderr
        assert "robo_rl[ros2]" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_timeline_keeps_time() -> None:
    """Hand-computed: rate, pause, resume, seek and a change of rate, with passed-in time."""
    line = Timeline(position_ns=1_000_000_000, rate=2.0, since_s=100.0)
    assert line.due_s(1_000_000_000) == 100.0
    assert line.due_s(3_000_000_000) == 101.0
    assert line.now_ns(100.5) == 2_000_000_000
    line.pause(100.5)
    assert (line.due_s(2_500_000_000), line.now_ns(999.0)) == (None, 2_000_000_000)
    line.resume(200.0)
    assert line.due_s(3_000_000_000) == 200.5
    line.set_rate(0.5, 200.5)
    assert line.now_ns(200.5) == 3_000_000_000
    assert line.due_s(4_000_000_000) == 202.5
    line.seek(500_000_000, 300.0)
    assert line.due_s(500_000_000) == 300.0
    assert line.due_s(1_000_000_000) == 301.0
