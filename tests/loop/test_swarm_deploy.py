"""`robo-rl deploy --num`: real processes, the emulator's real protocol, a recording for every drone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.emulator_process import emulated
from support.pd_policy import write_pd_policy, write_perceiving_policy, write_rotor_policy

from controllers.artifact import PolicyArtifact
from hardware.log.reader import Log
from hardware.replay import recorded_commands, recorded_states, recorded_ticks
from hardware.robots.crazyflie.wire import PARAM_TYPES, Frame, Port, encode, pack_value
from hardware.spec import load_spec
from robo_rl.cli import main
from robo_rl.datasets.logsteps import interpret, recorded_steps
from robo_rl.deployment.places import addresses_of

pytestmark = pytest.mark.xdist_group("deploy")  # one flight serves many tests
SPEC = load_spec("crazyflie")
PATIENT = ("--stale-s", "2", "--overruns", "2")
"""A machine that is busy with other tests must not look like a fault."""


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("policy") / "p.onnx")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perceiving_policy(tmp_path_factory.mktemp("policy") / "p.onnx")


@pytest.fixture(scope="module")
def obstacles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("room") / "room.toml"
    path.write_text("centres_m = [[1.5, 0.0], [-1.5, 1.0]]\nradius_m = 0.3\n")
    return path


class Ran(NamedTuple):
    status: int
    out: str
    error: str
    result: dict[str, Any] | None


def command(*argv: object) -> list[str]:
    return [sys.executable, "-m", "robo_rl", *map(str, argv)]


def run(folder: Path, *argv: object) -> Ran:
    out = folder / "result.json"
    done = subprocess.run(
        command(*argv, "--json", out), capture_output=True, text=True, timeout=120, cwd=folder, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr, json.loads(out.read_text()) if out.exists() else None)


@pytest.fixture(scope="module")
def flight(seeing: Path, obstacles: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """Eight drones on a circle that see one another with dropouts, and two obstacles."""
    folder = tmp_path_factory.mktemp("flight")
    argv = ["--num", 8, "--formation", "circle", "--obstacles", obstacles, "--share-dropout", 0.1, "--duration", 7]
    return run(folder, "deploy", seeing, *PATIENT, *argv, "--log", folder / "log"), folder / "log"


def test_eight_drones_fly_in_formation_and_say_how(flight: tuple[Ran, Path]) -> None:
    ran, log = flight
    assert ran.status == 0, ran
    r = ran.result
    assert r is not None
    assert (r["success"], r["num"], r["at_goal"], r["fault"]) == (True, 8, 8, None)
    assert 0.3 < r["min_separation_m"] < 0.6  # they start half a metre apart
    assert r["distance_m_max"] < 0.25
    assert [d["name"] for d in r["drones"]] == [f"cf{i}" for i in range(1, 9)]
    assert len({d["uri"] for d in r["drones"]}) == 8
    for d in r["drones"]:
        assert d["log"] == str(log / d["name"])
        last = list(recorded_states(Log(Path(d["log"])), SPEC))[-1].value
        assert abs(last.signals["position_world"][2]) < 0.1
        np.testing.assert_allclose(last.signals["position_world"][:2], d["goal"]["position_world"][:2], atol=0.3)


def test_each_recording_run_through_the_policy_gives_the_same_commands_bit_for_bit(
    flight: tuple[Ran, Path], seeing: Path
) -> None:
    """Decided eight at a time, replayed one by one, from what was recorded as perceived."""
    _, log = flight
    for name in ("cf1", "cf8"):
        ran = run(log.parent, "replay", "policy", seeing, log / name)
        assert ran.status == 0, ran
        assert ran.result is not None
        assert ran.result["parity"] is True
        assert ran.result["max_action_difference"] == 0.0
        assert ran.result["max_observation_difference"] == 0.0
        assert ran.result["compared"] == ran.result["ticks"]


def test_what_was_perceived_agrees_with_the_other_recordings(flight: tuple[Ran, Path]) -> None:
    """The nearest neighbour that cf4 saw is the nearest of the seven others by their own recordings."""
    _, log = flight
    tracks = {}
    for i in range(1, 9):
        states = [s.value for s in recorded_states(Log(log / f"cf{i}"), SPEC)]
        tracks[i] = np.array([s.t_ns for s in states]), np.array([s.signals["position_world"] for s in states])
    ticks = [t.value for t in recorded_ticks(Log(log / "cf4"), SPEC)]
    off = []
    for tick in ticks[:: len(ticks) // 50]:
        at = {i: p[min(np.searchsorted(t, tick.state_t_ns), len(t) - 1)] for i, (t, p) in tracks.items()}
        relative = [at[i] - at[4] for i in range(1, 9) if i != 4]
        seen = tick.perceived["neighbour_position"].reshape(2, 3)
        off += [min(float(np.linalg.norm(r - s)) for r in relative) for s in seen]
    assert np.median(off) < 0.03
    assert ticks[0].perceived["obstacle_clearance"].min() > 0.5


def test_observations_are_rebuilt_from_a_recording_for_learning(flight: tuple[Ran, Path], seeing: Path) -> None:
    """As `robo-rl dataset` does it: each row shows just what the policy saw, and so does the row after it."""
    _, path = flight
    artifact, log = PolicyArtifact.load(seeing), Log(path / "cf2")
    steps = recorded_steps(log, artifact.interface, 100.0)
    begins = np.zeros(len(steps.steps), dtype=np.bool_)
    begins[0] = True
    seen = interpret(steps, artifact.interface, begins, 100.0)
    saw = np.array([t.value.observation["policy"] for t in recorded_ticks(log, SPEC)], dtype=np.float32)
    np.testing.assert_array_equal(seen.obs, saw)
    np.testing.assert_array_equal(seen.next_obs[:-1][seen.has_next[:-1]], saw[1:][seen.has_next[:-1]])
    assert not seen.has_next[-1]  # nobody recorded what was around it then
    assert not steps.dropped


def break_gyro(uri: str) -> None:
    """Somebody else writes a fault into one drone's parameters."""
    host, port = uri.removeprefix("udp://").split(":")
    kind = PARAM_TYPES["uint8"]
    data = b"\0fault\0gyro\0" + bytes([kind.code]) + pack_value(kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(encode(Frame(Port.PARAM, 3, data)), (host, int(port)))


def test_a_fault_of_one_drone_is_its_own(blind: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "result.json"
    with emulated("crazyflie", "--num", "3") as uris:
        argv = command("deploy", blind, *PATIENT, "--num", 3, "--uri", uris[0], "--duration", "6")
        argv += ["--log", str(log), "--json", str(out)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("phase policy"):
                    break
            break_gyro(uris[1])
            said, error = child.communicate(timeout=60)
    assert child.returncode == 1
    assert error.strip().splitlines()[-1].startswith("robo-rl: deploy: cf2: ")
    assert "error: cf2: the robot's state is not finite" in said
    r = json.loads(out.read_text())
    assert [d["fault"] for d in r["drones"]] == [None, "not_finite_state", None]
    assert [d["success"] for d in r["drones"]] == [True, False, True]
    assert r["at_goal"] == 2


def test_the_policy_on_board_flies_to_the_goals_and_gives_way_for_the_landing(tmp_path: Path) -> None:
    """Rotor thrusts inside the drones; over the link go goals only."""
    policy = write_rotor_policy(tmp_path / "rotor.onnx")
    argv = ["--num", 2, "--onboard", "--goal", "0.3,-0.5,0.8", "0.3,0.5,0.8", "--duration", 7]
    ran = run(tmp_path, "deploy", policy, *PATIENT, *argv, "--log", tmp_path / "log")
    assert ran.status == 0, ran
    log = Log(tmp_path / "log" / "cf1")
    assert {c.value.mode for c in recorded_commands(log, SPEC)} == set()
    assert log.topics["/cf1/command/position"].count > 200
    assert "/cf1/policy/tick" not in log.topics
    states = [s.value.signals["position_world"] for s in recorded_states(log, SPEC)]
    assert abs(states[-1][2]) < 0.1


def test_positions_from_motion_capture(seeing: Path, tmp_path: Path) -> None:
    """What cf1 perceives of cf2 by the cameras is where cf2 saw itself; velocities are made of positions."""
    argv = ["--num", 2, "--mocap", "emulated", "--goal", "0.2,-0.4,0.9", "0.2,0.4,0.9", "--duration", 3]
    ran = run(tmp_path, "deploy", seeing, *PATIENT, *argv, "--log", tmp_path / "log")
    assert ran.status == 0, ran
    other = [s.value for s in recorded_states(Log(tmp_path / "log" / "cf2"), SPEC)]
    t_ns = np.array([s.t_ns for s in other])
    own = {s.value.t_ns: s.value for s in recorded_states(Log(tmp_path / "log" / "cf1"), SPEC)}
    off, closing = [], []
    for tick in (t.value for t in recorded_ticks(Log(tmp_path / "log" / "cf1"), SPEC)):
        assert tick.perceived["neighbour_present"].tolist() == [1.0, 0.0]
        there = other[min(int(np.searchsorted(t_ns, tick.state_t_ns)), len(other) - 1)].signals["position_world"]
        off.append(
            np.linalg.norm(
                tick.perceived["neighbour_position"][:3] + own[tick.state_t_ns].signals["position_world"] - there
            )
        )
        closing.append(abs(tick.perceived["neighbour_closing"][0]))
    assert np.median(off) < 0.03
    assert np.median(closing) < 0.5


def test_dry_runs_of_one_and_of_several_move_nothing(seeing: Path, obstacles: Path, tmp_path: Path) -> None:
    argv = ("deploy", seeing, "--obstacles", obstacles, "--dry-run", "--log", tmp_path / "log")
    one = run(tmp_path, *argv)
    assert one.status == 0, one
    assert one.result is not None
    assert one.result["transport"] == "direct"  # no topic tells what is around
    several = run(tmp_path, *argv, "--num", 2, "--formation", "line")
    assert several.status == 0, several
    assert several.result is not None
    assert [d["name"] for d in several.result["drones"]] == ["cf1", "cf2"]
    assert not (tmp_path / "log").exists()


def test_an_interrupt_lands_all(blind: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "result.json"
    argv = command("deploy", blind, *PATIENT, "--num", 3, "--duration", "60", "--log", log, "--json", out)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("phase policy"):
                break
        time.sleep(0.3)
        os.kill(child.pid, signal.SIGINT)
        _, error = child.communicate(timeout=60)
    assert child.returncode == 130, error
    assert [d["phase"] for d in json.loads(out.read_text())["drones"]] == ["done"] * 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--num", "0"), "--num 0: expected at least 1 robot"),
        (("--formation", "circle"), "--formation is for several robots: give --num"),
        (("--share-dropout", "0.1"), "--share-dropout is for several robots: give --num"),
        (
            ("--num", "2", "--goal", "0,0,1"),
            "1 goals for 2 robots; give one each as in --goal='0,0,1 -1,0,1', or --formation",
        ),
        (("--num", "2", "--goal", "0,0,1", "--formation", "line"), "--goal and --formation were both given"),
        (("--num", "2", "--share-dropout", "1"), "--share-dropout 1: expected a share from 0 to less than 1"),
        (("--num", "2", "--formation", "line", "--spacing", "0.1"), "--spacing 0.1: expected 0.3..5 m"),
        (("--num", "2", "--mode", "replay", "--uri", "x"), "--mode replay is for one robot"),
        (("--num", "3", "--uri", "udp://a:1,udp://a:2"), "--uri has 2 addresses for 3 robots"),
        (("--num", "2", "--uri", "udp://127.0.0.1:x"), "cannot count on from it; give 2 addresses"),
        (("--obstacles", "nowhere.toml"), "nowhere.toml: cannot be read"),
    ],
)
def test_bad_input_is_one_clear_line(
    blind: Path, tmp_path: Path, argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", str(blind), "--transport", "direct", *argv, "--log", str(tmp_path / "log")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]


def test_rotor_thrusts_are_not_streamed_over_the_air(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = write_rotor_policy(tmp_path / "rotor.onnx")
    argv = ["--mode", "real", "--num", "2", "--uri", "radio://0/80/2M/E7E7E7E701"]
    assert main(["deploy", str(policy), *argv, "--log", str(tmp_path / "log")]) == 1
    assert "rotor thrusts cannot be streamed over the air" in capsys.readouterr().err


def test_addresses_are_counted_on_from_the_first() -> None:
    assert addresses_of("udp://127.0.0.1:19850", 3) == [f"udp://127.0.0.1:{19850 + i}" for i in range(3)]
    assert addresses_of("radio://0/80/2M/E7E7E7E70F", 2) == ["radio://0/80/2M/E7E7E7E70F", "radio://0/80/2M/E7E7E7E710"]
    assert addresses_of("udp://a:5,udp://b:7", 2) == ["udp://a:5", "udp://b:7"]
