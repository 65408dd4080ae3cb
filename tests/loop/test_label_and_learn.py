"""A flight is recorded, labelled, made into data, and learnt from: the whole loop in small."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.flying import make_loop

from controllers.artifact import PolicyArtifact
from controllers.flight import FlightPlan
from controllers.logsink import LogSink
from hardware.annotation import AnnotationStore
from hardware.log.reader import Log
from hardware.replay import recorded_ticks
from hardware.spec import load_spec
from robo_rl.cli import main
from robo_rl.datasets.transitions import DataSet, read
from robo_rl.zoo import resolve

POLICY = "zoo:quadrotor-hover"


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven seconds of an emulated Crazyflie under the stored policy, on a stepped clock, with two goals."""
    path = tmp_path_factory.mktemp("flights") / "flight"
    artifact = PolicyArtifact.load(resolve(POLICY))
    with LogSink(path, load_spec("crazyflie"), "crazyflie", artifact, 1_000_000_000) as sink:
        loop, *_ = make_loop(artifact.path, FlightPlan(duration_s=7.0), sink)  # type: ignore[arg-type]
        loop.tour([{"position_world": np.array([0.4, -0.2, 0.9])}, {"position_world": np.array([-0.3, 0.3, 0.6])}], 3.5)
        loop.run()
    return path


@pytest.fixture(scope="module")
def marks(flight: Path) -> dict[str, int]:
    """Two attempts, one of them good; a second that nobody may use; a hand on the sticks."""
    spec = load_spec("crazyflie")
    begin = next(iter(recorded_ticks(Log(flight), spec))).received_ns
    at = lambda s: begin + round(s * 1e9)  # noqa: E731
    store = AnnotationStore(flight, "anna")
    for t0, t1, label in ((1.0, 3.5, "success"), (3.5, 6.5, "failure")):
        episode = store.add("episode", at(t0), at(t1))
        store.add("outcome", at(t1) - 1, label=label, episode=episode.id)
    store.add("exclude", at(2.0), at(2.5), value={"reason": "somebody walked past"})
    store.add("intervention", at(5.0), at(5.3), label="human")
    return {"first": 250, "second": 300, "excluded": 51, "human": 30}


def _made(flight: Path, out: Path, *options: str) -> tuple[DataSet, dict[str, object]]:
    assert main(["dataset", str(flight), "--out", str(out), "--json", str(out.with_suffix(".json")), *options]) == 0
    return read(out), json.loads(out.with_suffix(".json").read_text())


def test_the_rows_are_what_the_policy_saw_in_flight(flight: Path, marks: dict[str, int], tmp_path: Path) -> None:
    """Bit for bit what the flight recorded as its own observation, except in the first rows of marked attempts."""
    data, _ = _made(flight, tmp_path / "set", "--for", "rlif")
    ticks = {t.received_ns: t.value for t in recorded_ticks(Log(flight), load_spec("crazyflie"))}
    recorded = np.array([ticks[t].observation["policy"] for t in data.extra["t_ns"]], dtype=np.float32)
    np.testing.assert_array_equal(data.obs, recorded)
    sent = np.array([ticks[t].sent for t in data.extra["t_ns"]])
    action = PolicyArtifact.load(resolve(POLICY)).card.action
    np.testing.assert_allclose(data.action, (sent - [f.offset for f in action]) / [f.scale for f in action], atol=1e-6)


def test_what_was_kept_and_dropped_is_told(
    flight: Path, marks: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, found = _made(flight, tmp_path / "set", "--for", "rlpd")
    assert found["dropped"] == {"outside the marked episodes": 150, "excluded": marks["excluded"]}
    assert found["kept"]["rows"] == len(data) == 550 - marks["excluded"]  # type: ignore[index]
    assert found["kept"]["interventions"] == marks["human"]  # type: ignore[index]
    assert (data.reward[data.terminated] == [1.0, -1.0]).all()
    printed = capsys.readouterr().out
    assert "dropped 51: excluded" in printed
    assert "1 successes, 1 failures" in printed


@pytest.mark.parametrize(("algorithm", "options"), [("bc", ["--for", "bc"]), ("iql", ["--reward", "scene"])])
def test_a_policy_is_learnt_from_the_labelled_flight(
    flight: Path, marks: dict[str, int], tmp_path: Path, algorithm: str, options: list[str]
) -> None:
    data, _ = _made(flight, tmp_path / "set", *options)
    out, result = tmp_path / "run", tmp_path / "train.json"
    argv = ["train", "quadrotor/hover", "--algo", algorithm, "--data", str(tmp_path / "set"), "--steps", "300"]
    argv += ["--num-envs", "1", "--algo.hidden", "64", "--algo.learning-rate", "3e-3", "--eval-episodes", "10"]
    assert main([*argv, "--out", str(out), "--no-relaunch", "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    assert found["env_steps"] == 300
    assert found["evaluation"]["episodes"] == 10
    policy = PolicyArtifact.load(out / "policy.onnx")
    assert (policy.card.algorithm, policy.card.scene) == (algorithm, "quadrotor/hover")
    scale, offset = ([getattr(f, name) for f in policy.card.action] for name in ("scale", "offset"))
    answers = (policy.run({"policy": data.obs}) - offset) / scale
    error = np.sqrt(np.mean((answers - data.action) ** 2, axis=0))
    assert (error < 0.8 * data.action.std(axis=0)).all(), error / data.action.std(axis=0)


def test_train_says_what_is_wrong_with_its_data(
    flight: Path, marks: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _made(flight, tmp_path / "set", "--for", "bc")
    rotor = ["--scene.mode", "rotor_thrust", "--no-relaunch", "--out", str(tmp_path / "run")]
    assert main(["train", "quadrotor/hover", "--algo", "bc", "--data", str(tmp_path / "set"), *rotor]) == 1
    assert "transitions of mode attitude_thrust; the scene is set to rotor_thrust" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "a refused run leaves no directory that blocks the next one"
    assert main(["train", "quadrotor/hover", "--algo", "iql", "--no-relaunch"]) == 1
    assert "algorithm iql learns from recorded transitions: give --data DIR" in capsys.readouterr().err
