"""`robo-rl deploy` over direct transport: real processes, the emulator's real protocol, a real recording."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.pd_policy import write_pd_policy

from hardware.log.reader import Log
from hardware.replay import recorded_commands, recorded_states, recorded_ticks
from hardware.spec import load_spec
from robo_rl.cli import main

pytestmark = pytest.mark.xdist_group("deploy")  # one flight serves many tests
SPEC = load_spec("crazyflie")
PATIENT = ("--transport", "direct", "--stale-s", "2", "--overruns", "2")
"""A machine that is busy with other tests must not look like a fault."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pd_policy(tmp_path_factory.mktemp("deploy") / "p.onnx")


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
def flight(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    folder = tmp_path_factory.mktemp("flight")
    log = folder / "log"
    return run(folder, "deploy", policy, *PATIENT, "--goal", "0.4,-0.2,0.9", "--duration", "7", "--log", log), log


def test_a_flight_succeeds_and_says_how(flight: tuple[Ran, Path]) -> None:
    ran, log = flight
    assert ran.status == 0, ran
    r = ran.result
    assert r is not None
    assert r["success"] is True
    assert (r["transport"], r["mode"], r["log"]) == ("direct", "emulated", str(log))
    assert 400 < r["policy_ticks"] <= 701
    assert 0 < r["latency_ms_p50"] <= r["latency_ms_p99"]
    assert r["distance_m_max"] < 0.15
    assert [line for line in ran.out.splitlines() if line.startswith("phase")] == [
        f"phase {p}" for p in ("arm", "takeoff", "handover", "policy", "take_back", "land", "done")
    ]


def test_the_recording_tells_the_same_story(flight: tuple[Ran, Path]) -> None:
    ran, path = flight
    log = Log(path)
    counts = {t.name: t.count for t in log.topics.values()}
    assert ran.result is not None
    assert counts["/crazyflie/policy/tick"] == ran.result["policy_ticks"]
    assert counts["/crazyflie/policy/card"] == 1
    assert counts["/crazyflie/command/takeoff"] == 1
    assert counts["/crazyflie/command/land"] >= 3
    assert counts["/crazyflie/odom"] == counts["/crazyflie/battery"] > counts["/crazyflie/policy/tick"]
    assert counts["/diagnostics"] >= 8
    latched = {"goal", "status", "policy/card"}  # as the nodes publish them: a player gives them to whoever comes late
    assert {t: log.topics[f"/crazyflie/{t}"].qos[0].durability for t in latched} == dict.fromkeys(
        latched, "transient_local"
    )
    states = {s.value.t_ns: s.value for s in recorded_states(log, SPEC)}
    ticks = [t.value for t in recorded_ticks(log, SPEC)]
    assert [t.sequence for t in ticks] == list(range(len(ticks)))
    assert all(t.state_t_ns in states for t in ticks)
    sent = [c.value.values for c in recorded_commands(log, SPEC)]
    np.testing.assert_allclose(sent[: len(ticks)], [t.sent for t in ticks], atol=1e-12)
    end = states[max(states)]
    assert abs(end.signals["position_world"][2]) < 0.1


def test_the_recording_run_through_the_policy_gives_the_same_commands(flight: tuple[Ran, Path], policy: Path) -> None:
    _, log = flight
    ran = run(log.parent, "replay", "policy", policy, log)
    assert ran.status == 0, ran
    assert ran.result is not None
    assert ran.result["parity"] is True
    assert ran.result["max_action_difference"] <= 1e-5
    assert ran.result["max_observation_difference"] <= 1e-6
    assert ran.result["compared"] == ran.result["ticks"]


def test_another_policy_is_compared_and_not_called_the_same(flight: tuple[Ran, Path], tmp_path: Path) -> None:
    _, log = flight
    ran = run(tmp_path, "replay", "policy", write_pd_policy(tmp_path / "other.onnx", gain=0.5), log)
    assert ran.status == 0
    assert ran.result is not None
    assert ran.result["parity"] is None
    assert ran.result["max_action_difference"] > 0.01
    assert ran.result["rmse"]["pitch"] > 0


def test_a_tampered_recording_has_no_parity(flight: tuple[Ran, Path], policy: Path, tmp_path: Path) -> None:
    from hardware.log.writer import LogWriter

    _, path = flight
    log = Log(path)
    with LogWriter(tmp_path / "bent") as writer:
        for m in log.messages():
            if m.topic == "/crazyflie/odom":
                m.message.pose.pose.position.x += 0.001
            writer.write_message(m.topic, m.message, m.log_ns, m.publish_ns)
    ran = run(tmp_path, "replay", "policy", policy, tmp_path / "bent")
    assert ran.status == 1
    assert "parity FAILS" in ran.out


def test_the_simulator_follows_the_recording_for_a_while(flight: tuple[Ran, Path]) -> None:
    _, log = flight
    ran = run(log.parent, "replay", "sim", "quadrotor/hover", log)
    assert ran.status == 0, ran
    r = ran.result
    assert r is not None
    assert r["rmse"]["position_world"]["10"] < 0.02  # a tenth of a second of flight
    assert r["rmse"]["position_world"]["1"] < r["rmse"]["position_world"]["50"] < r["rmse"]["position_world"]["200"]
    assert r["rmse"]["quat_wxyz"]["10"] < 0.05
    assert r["delay_s"] is None or abs(r["delay_s"]) < 0.03


def test_the_recording_can_be_flown_through_again(flight: tuple[Ran, Path], policy: Path, tmp_path: Path) -> None:
    _, log = flight
    ran = run(tmp_path, "deploy", policy, "--mode", "replay", "--uri", log, "--log", tmp_path / "again")
    assert ran.status == 0, ran
    assert ran.result is not None
    assert ran.result["policy_ticks"] > 400
    assert Log(tmp_path / "again").topics["/crazyflie/policy/tick"].count == ran.result["policy_ticks"]


def test_a_fault_ends_in_a_landing_a_reason_and_a_failure(policy: Path, tmp_path: Path) -> None:
    ran = run(tmp_path, "deploy", policy, *PATIENT, "--fault", "battery_low:4", "--log", tmp_path / "log")
    assert ran.status == 1
    assert ran.error.strip().splitlines()[-1] == "robo-rl: deploy: battery low: 3.10 V"
    assert ran.result is not None
    assert (ran.result["fault"], ran.result["success"]) == ("battery_low", False)
    log = Log(tmp_path / "log")
    told = [m.message.status[0] for m in log.messages(["/diagnostics"])]
    assert (2, "battery low: 3.10 V") in [(s.level, s.message) for s in told]
    height = log.series("/crazyflie/odom", ["pose.pose.position.z"])["pose.pose.position.z"].values
    assert height.max() > 0.4
    assert abs(height[-1]) < 0.1


def test_an_interrupt_lands_the_drone_and_completes_the_recording(policy: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "result.json"
    argv = command("deploy", policy, *PATIENT, "--duration", "60", "--log", log, "--json", out)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("phase policy"):
                break
        time.sleep(0.3)
        os.kill(child.pid, signal.SIGINT)
        _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "the robot has landed" in error
    assert json.loads(out.read_text())["phase"] == "done"
    height = Log(log).series("/crazyflie/odom", ["pose.pose.position.z"])["pose.pose.position.z"].values
    assert abs(height[-1]) < 0.1


def test_a_dry_run_arms_nothing_and_records_nothing(policy: Path, tmp_path: Path) -> None:
    ran = run(tmp_path, "deploy", policy, "--dry-run", "--goal", "0,0,1", "--log", tmp_path / "log")
    assert ran.status == 0, ran
    assert ran.result is not None
    assert "armed" not in ran.result["status"]
    assert ran.result["command"]["thrust"] > 0.6  # it would climb
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--goal", "0,nan,1"), "goal 0,nan,1 refused: not finite"),
        (("--goal", "0,0"), "has 2 values; position_world needs 3"),
        (("--goal", "0,0,9"), "outside the fence"),
        (("--goal", "here"), "not a list of numbers"),
        (("--robot", "panda"), "robot 'panda' not found; known: crazyflie"),
        (("--mode", "real"), "--mode real needs --uri"),
        (("--mode", "replay"), "--mode replay needs --uri LOG"),
        (("--mode", "replay", "--uri", "nowhere"), "nowhere"),
        (("--duration", "nan"), "--duration nan"),
        (("--stale-s", "-1"), "--stale-s -1: expected a number from 0 to 1e+06"),
        (("--overruns", "nan"), "--overruns nan: expected a number from 0 to 1e+06"),
        (("--name", "two words"), "--name 'two words': expected letters"),
        (("--time-scale", "0"), "--time-scale 0"),
        (("--mode", "real", "--uri", "udp://127.0.0.1:9", "--time-scale", "2"), "--time-scale is for emulated"),
        (("--transport", "ros2", "--time-scale", "2"), "real time"),
        (("--uri", "carrier-pigeon://1", "--transport", "direct"), "carrier-pigeon"),
        (("--fault", "hiccup"), "hiccup"),
    ],
)
def test_bad_input_is_one_clear_line(
    policy: Path, tmp_path: Path, argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert main(["deploy", str(policy), *argv, "--log", str(tmp_path / "log"), "--json", str(out)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]
    assert not out.exists()


def test_a_file_in_the_place_of_the_recording_is_kept(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("mine")
    assert main(["deploy", str(policy), "--log", str(tmp_path / "log")]) == 1
    assert f"--log {tmp_path / 'log'} is not an empty directory" in capsys.readouterr().err
    assert (tmp_path / "log").read_text() == "mine"


def test_nobody_there_is_said_in_one_line(policy: Path, tmp_path: Path) -> None:
    ran = run(tmp_path, "deploy", policy, "--transport", "direct", "--mode", "real", "--uri", "udp://127.0.0.1:9")
    assert ran.status == 1
    assert "no answer from udp://127.0.0.1:9 after" in ran.error
    assert len(ran.error.strip().splitlines()) == 1
