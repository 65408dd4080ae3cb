"""`robo-rl launch greenhouse`: one day at a thousand times real time, in real processes over real Modbus TCP."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.greenhouse_policy import write_greenhouse_policy

from hardware.log.reader import Log
from hardware.replay import recorded_states, recorded_ticks
from hardware.robots.greenhouse_plc.check import check_recording
from hardware.robots.greenhouse_plc.check import main as check_main
from hardware.spec import load_spec
from robo_rl.cli import main

pytestmark = pytest.mark.xdist_group("greenhouse")  # one day serves many tests
SPEC = load_spec("greenhouse_plc")


class Season(NamedTuple):
    status: int
    out: str
    result: dict[str, Any]
    log: Path
    policy: Path


def run(*argv: object, cwd: Path, timeout_s: float = 250.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robo_rl", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Season:
    folder = tmp_path_factory.mktemp("season")
    policy, log, result = write_greenhouse_policy(folder / "p.onnx"), folder / "log", folder / "result.json"
    faults = {"restart": "3h:20m", "network": "8h:40m", "stuck": "14h:4h", "storm": "20h:1h"}
    arguments = {"python": sys.executable, "policy": policy, "scene": "None", "duration": "86400.0"}
    arguments |= faults | {"log": log, "result": result}
    launch = Path(__file__).parents[2] / "launch" / "greenhouse.launch.yaml"
    done = run("launch", launch, *(f"{k}:={v}" for k, v in arguments.items()), cwd=folder)
    found = json.loads(result.read_text()) if result.exists() else {}
    return Season(done.returncode, done.stdout + done.stderr, found, log, policy)


def test_a_day_with_faults_ends_well_and_says_how(season: Season) -> None:
    assert season.status == 0, season.out
    r = season.result
    assert r["success"] is True
    assert (r["transport"], r["phase"], r["fault"]) == ("direct", "done", None)
    assert r["policy_ticks"] >= 40
    assert r["check"]["violations"] == []
    assert r["check"]["interlocks"] == {"wind: vents nearly shut": 1}
    causes = [s["cause"] for s in r["check"]["failsafe"]]
    assert {"restart or key", "watchdog"} <= set(causes)
    assert all(s["left_after_s"] <= 600 for s in r["check"]["failsafe"])


def test_the_recording_holds_the_day_and_passes_the_check_again(season: Season, capsys: pytest.CaptureFixture) -> None:
    log = Log(season.log)
    counts = {t.name: t.count for t in log.topics.values()}
    assert counts["/greenhouse_plc/policy/tick"] == season.result["policy_ticks"]
    assert 1100 < counts["/greenhouse_plc/climate/temperature"] <= 1450
    assert counts["/greenhouse_plc/cmd_setpoint"] > 0  # the fallback, while the network was gone
    states = [s.value for s in recorded_states(log, SPEC)]
    assert {name for s in states for name in s.signals} == set(SPEC.signals)
    assert any("ventilation_does_not_follow" in s.status for s in states)
    known = {s.t_ns for s in states}
    assert all(t.value.state_t_ns in known for t in recorded_ticks(log, SPEC))
    hours = (states[-1].t_ns - states[0].t_ns) / 3.6e12
    assert hours == pytest.approx(24.0, abs=0.3)
    weight = np.array([s.signals["crop_dry_weight"] for s in states if "crop_dry_weight" in s.signals])
    assert weight[-1] > weight[0]
    found = check_recording(log, SPEC)
    assert found == season.result["check"]
    assert check_main([str(season.log)]) == 0
    assert json.loads(capsys.readouterr().out)["violations"] == []


def test_the_recording_run_through_the_policy_gives_the_same_commands(season: Season, tmp_path: Path) -> None:
    out = tmp_path / "parity.json"
    assert main(["replay", "policy", str(season.policy), str(season.log), "--json", str(out)]) == 0
    parity = json.loads(out.read_text())
    assert parity["parity"] is True
    assert parity["compared"] == parity["ticks"] == season.result["policy_ticks"]
    assert parity["max_observation_difference"] <= 1e-6


def test_the_recording_can_be_lived_through_again(season: Season, tmp_path: Path) -> None:
    again, out = tmp_path / "again", tmp_path / "r.json"
    argv = ["deploy", str(season.policy), "--mode", "replay", "--uri", str(season.log), "--log", str(again)]
    assert main([*argv, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["policy_ticks"] == pytest.approx(season.result["policy_ticks"], abs=4)


def test_a_rehearsal_connects_decides_and_commands_nothing(season: Season, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert main(["deploy", str(season.policy), "--dry-run", "--time-scale", "100", "--json", str(out)]) == 0
    r = json.loads(out.read_text())
    assert r["dry_run"] is True
    assert set(r["command"]) == {"co2_injection", "ventilation", "heating"}
    assert {"local", "remote_enabled"} <= set(r["status"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--time-scale", "5000"), "time scale 5000; expected a number above 0, at most 1000"),
        (("--fault", "meteor:1h"), "fault of robot greenhouse_plc 'meteor' not found"),
        (("--goal", "1,2,3"), "this policy takes no goal"),
        (("--mode", "real"), "--mode real needs --uri: the address of the greenhouse_plc, such as modbus://"),
        (("--mode", "real", "--uri", "modbus://127.0.0.1:9"), "no answer from modbus://127.0.0.1:9"),
        (("--mode", "real", "--uri", "modbus://x", "--scene", "greenhouse/lettuce"), "--scene is for the emulator"),
        (("--scene", "quadrotor/hover"), "simulates robot 'crazyflie', not 'greenhouse_plc'"),
    ],
)
def test_bad_input_is_one_clear_line(
    season: Season, tmp_path: Path, argv: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    assert main(["deploy", str(season.policy), "--transport", "direct", *argv, "--log", str(log)]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]
