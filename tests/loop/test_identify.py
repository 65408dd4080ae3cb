"""The loop closed: parameters injected into an emulator's world, recorded through it, found in the log again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.excited_flight import random_truth, record_flight
from support.excited_greenhouse import random_house, record_days

from hardware.annotation import AnnotationStore
from hardware.errors import BadInput, RoboError
from hardware.log.reader import Log
from hardware.spec import load_spec
from robo_rl.cli import main
from robo_rl.commands import identify as command
from sim.identify.logs import Recording, marked, read_recording
from sim.identify.rollout import Rollout
from sim.identify.run import identify
from sim.identify.windows import split
from sim.ranges import read_ranges
from sim.registry import ranges_path, scene_entry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    truth = random_truth(np.random.default_rng(7))
    return record_flight(tmp_path_factory.mktemp("flight") / "log", truth, mode="rotor_thrust", seconds=7.0), truth


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    truth = random_house(np.random.default_rng(1))
    return record_days(tmp_path_factory.mktemp("house") / "log", truth, days=2.5), truth


def _read(path: Path, scene: str, robot: str, mode: str) -> tuple[Rollout, Recording]:
    entry = scene_entry(scene)
    assert entry.rollout is not None
    rollout = entry.rollout(mode=mode, config=entry.config)
    recording = read_recording(path, load_spec(robot), rollout, mode)
    assert recording.quality.refusals == []
    return rollout, recording


def test_a_drone_is_recovered_from_its_flight(flight: tuple[Path, dict[str, float]]) -> None:
    """Eleven parameters of a random drone, its mass weighed: all but one inside their intervals, each narrow."""
    path, truth = flight
    rollout, recording = _read(path, "quadrotor/hover", "crazyflie", "rotor_thrust")
    found = identify(rollout, split(rollout, [recording.track]), known={"mass": truth["mass"]})
    assert found.held_out.rejection == ""
    assert found.held_out.ratio < 0.3
    judged = [e for e in found.estimates if e.name in truth and e.identified]
    assert len(judged) >= 8, [(e.name, e.reason) for e in found.estimates]
    assert sum(e.low <= truth[e.name] <= e.high for e in judged) >= len(judged) - 1
    assert np.median([(e.high - e.low) / truth[e.name] for e in judged]) < 0.3


def test_rotors_in_the_wrong_order_are_rejected(flight: tuple[Path, dict[str, float]]) -> None:
    """A mapping error does not hide in parameters: the model is rejected."""
    path, truth = flight
    rollout, recording = _read(path, "quadrotor/hover", "crazyflie", "rotor_thrust")
    swapped = recording.track._replace(commands=recording.track.commands[:, [1, 0, 2, 3]])
    known = {n: v for n, v in truth.items() if n not in ("inertia_xx", "inertia_yy", "torque_per_thrust")}
    found = identify(rollout, split(rollout, [swapped]), known=known)
    assert "check the mapping" in found.held_out.rejection


def test_a_greenhouse_is_recovered_and_its_ranges_rewritten(
    house: tuple[Path, dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Leak, heat transfer and ventilation come back; --write changes their entries, and nothing but them."""
    path, truth = house
    ranges = tmp_path / "ranges.toml"
    shutil.copy(ranges_path("greenhouse/lettuce"), ranges)
    before = read_ranges(ranges).params
    report, result = tmp_path / "report.html", tmp_path / "found.json"
    argv = ["identify", "greenhouse/lettuce", str(path), "--ranges", str(ranges), "--write"]
    assert main([*argv, "--report", str(report), "--json", str(result)]) == 0
    told = json.loads(result.read_text())
    found = told["parameters"]
    for name in ("leak", "heat_transfer", "gain_ventilation"):
        assert found[name]["identified"], (name, found[name]["reason"])
        assert found[name]["fit"] == pytest.approx(truth[name], rel=0.15)
    named = [n for n, e in found.items() if e["identified"]]
    assert sum(found[n]["low"] <= truth[n] <= found[n]["high"] for n in named) >= len(named) - 1
    after = read_ranges(ranges).params
    assert {n for n in after if after[n] != before[n]} == set(named)
    assert all(after[n].source == "identified" for n in named)
    assert told["written"]
    assert "retrain with: robo-rl train greenhouse/lettuce" in capsys.readouterr().out
    page = report.read_text()
    assert "ranges.toml" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_recording_in_the_wrong_unit_ends_in_one_line(
    house: tuple[Path, dict[str, float]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Temperatures in kelvin where degC are expected: exit status 1 and why."""
    from sim.identify import logs

    real = logs.resample

    def in_kelvin(*args: object, **more: object) -> object:
        track = real(*args, **more)  # type: ignore[arg-type]
        signals = track.signals | {"air_temperature": track.signals["air_temperature"] + 273.15}
        return track._replace(signals=signals)

    monkeypatch.setattr(logs, "resample", in_kelvin)
    assert main(["identify", "greenhouse/lettuce", str(house[0])]) == 1
    assert "the model is rejected" in capsys.readouterr().err


def test_marks_of_a_person_choose_the_windows(house: tuple[Path, dict[str, float]]) -> None:
    """Annotated sysid windows, train and val, arrive as windows to fit to and to judge by."""
    path, _ = house
    rollout, recording = _read(path, "greenhouse/lettuce", "greenhouse_plc", "direct")
    log = Log(path)
    store = AnnotationStore(log, "anna")
    start, hour = recording.track.start_ns, 3600 * 10**9
    for begin, end, part in ((1, 38, "train"), (40, 56, "val")):
        store.add("sysid", start + begin * hour, start + end * hour, label="excitation", value={"split": part})
    windows, excluded = marked([recording])
    chosen = split(rollout, [recording.track], windows, excluded)
    assert chosen.rule == "annotated sysid windows"
    assert chosen.train.start_s.min() >= 3600.0
    assert chosen.held_out.start_s.min() >= 40 * 3600.0
    shutil.rmtree(store.folder)


def test_bad_orders_are_one_line() -> None:
    """No log, an unknown scene, an unreadable --known, a scene's name that is none."""
    with pytest.raises(BadInput, match="no LOG"):
        command.run(command.Args("quadrotor/hover", ()))
    with pytest.raises(BadInput, match="expected NAME=VALUE"):
        command.run(command.Args("quadrotor/hover", (Path("x"),), known=("mass",)))
    with pytest.raises(RoboError, match="not found"):
        command.run(command.Args("quadrotor/warp", (Path("x"),)))
    with pytest.raises(BadInput, match=r"no ranges\.toml to write"):
        command.run(command.Args("joint-servo", (Path("x"),), write=True))
