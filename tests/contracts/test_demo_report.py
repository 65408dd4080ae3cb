"""The demo's stages and report: an interrupt reaches a stage once, and a flight that failed still gets its page."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware.errors import BadInput, RoboError
from hardware.log.writer import LogWriter
from hardware.spec import load_spec
from robo_rl.report import demo
from robo_rl.report.recording import Recording, read_flight
from robo_rl.report.stages import Stage, run_stage

TRAIN = (
    "train quadrotor/hover --num-envs 64 --processes 1 --algo.minibatches 4 --steps 100000000 --eval-episodes 0 "
    "--algo.epochs 40 --out run"
)
PROGRAM = f"""
from pathlib import Path
from robo_rl.report.stages import Stage, run_stage
run_stage(Stage("train", "training", tuple({TRAIN!r}.split())), 1, 1, Path())
"""


@pytest.mark.parametrize("whole_group", [True, False])
def test_an_interrupted_stage_leaves_a_resumable_state(tmp_path: Path, whole_group: bool) -> None:
    """A terminal signals its whole foreground group, `kill` one process: the stage hears of it once either way."""
    environment = {**os.environ, "ROBO_RL_LAUNCHED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        end = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.csv").exists() and time.monotonic() < end:
            time.sleep(0.1)
        if whole_group:
            os.killpg(child.pid, signal.SIGINT)
        else:
            child.send_signal(signal.SIGTERM)
        assert child.wait(120) not in (0, -signal.SIGTERM)
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.pt"))) == 1


def test_a_flight_that_failed_is_reported_as_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    two, ticks = np.zeros((2, 3)), np.zeros((2, 4))
    recording = Recording(np.arange(2.0), two, two, np.arange(2.0), ticks, ticks, [(0.0, "takeoff")])
    monkeypatch.setattr(demo, "read_flight", lambda path, spec: recording)
    flown: dict[str, Any] = {
        "log": "x",
        "transport": "direct",
        "success": False,
        "reason": "the motors stopped",
        "ticks": 10,
        "overruns": 0,
        "guard_interventions": 0,
        "distance_m_max": None,
        "latency_ms_p99": None,
        "observation_to_command_ms_p99": None,
    }
    plan = demo.Plan(tmp_path, 0, None, 1, 6.0, "direct")
    section = demo._flight(plan, {"deploy": flown, "log": {"messages": 1, "duration_s": 1.0}}, {"deploy": "robo-rl"})
    assert section.ok is False
    shown = {name: value for name, value, _ in section.rows}
    assert shown["ended early"] == "the motors stopped"
    assert shown["largest distance from 5 s on"] == shown["time for one command, p99"] == "not measured"


def test_a_recording_without_a_flight_is_named(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "empty"):
        pass
    with pytest.raises(BadInput, match="empty"):
        read_flight(tmp_path / "empty", load_spec("crazyflie"))


def test_a_stage_keeps_its_command_s_figures(tmp_path: Path) -> None:
    found = run_stage(Stage("runs", "listing", ("runs", "--root", str(tmp_path))), 1, 1, tmp_path)
    assert found["items"] == []
    assert found["status"] == 0
    assert found["stage_s"] > 0
    (tmp_path / "runs.json").unlink()
    with pytest.raises(RoboError, match=r"stage runs failed with status 1: .* is no run directory"):
        run_stage(Stage("runs", "listing", ("runs", str(tmp_path / "absent"))), 1, 1, tmp_path)
