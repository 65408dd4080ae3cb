"""train, eval, export and runs as a user types them, on a tiny budget."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.artifact import PolicyArtifact
from robo_rl.cli import main
from sim.registry import scene_ids

TINY = ["--num-envs", "32", "--algo.rollout-steps", "8", "--algo.minibatches", "2", "--algo.epochs", "1"]
STEPS = 32 * 8
SCENES = ", ".join(scene_ids())


def command(*words: object, expect: int = 0) -> None:
    assert main([str(w) for w in words]) == expect


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    out, result = folder / "first", folder / "first.json"
    command(
        "train",
        "quadrotor/hover",
        *TINY,
        *("--steps", 4 * STEPS, "--eval-episodes", 4, "--seed", 5, "--out", out, "--json", result),
    )
    return out, json.loads(result.read_text())


def test_run_directory_holds_everything(run: tuple[Path, dict[str, Any]]) -> None:
    out, result = run
    names = {p.name for p in out.iterdir()}
    assert {
        "config.yaml",
        "meta.json",
        "metrics.csv",
        "timing.csv",
        "checkpoints",
        "policy.onnx",
        "eval.json",
        "curves.png",
        "DONE",
    } == names
    assert result["env_steps"] == 4 * STEPS
    keys = {"env_steps", "wall_s", "env_steps_per_s", "return_mean", "success_rate", "policy"}
    assert keys <= result.keys()
    meta = json.loads((out / "meta.json").read_text())
    assert {"commit", "versions", "argv", "cpu", "threads", "allocator"} <= meta.keys()
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + 4


def test_card_says_what_made_the_policy(run: tuple[Path, dict[str, Any]]) -> None:
    out, result = run
    card = PolicyArtifact.load(out / "policy.onnx").card
    assert (card.scene, card.seed, card.env_steps, card.algorithm) == ("quadrotor/hover", 5, 4 * STEPS, "ppo")
    assert card.evaluation == json.loads((out / "eval.json").read_text()) == result["evaluation"]


def test_overrides_reach_the_resolved_configuration(run: tuple[Path, dict[str, Any]]) -> None:
    config = yaml.safe_load((run[0] / "config.yaml").read_text())
    assert config["algo"]["rollout_steps"] == 8
    assert config["linear"] in ("torch", "onednn")  # the automatic choice has been made
    assert config["scene_config"]["mode"] == "attitude_thrust"


def test_dumped_configuration_repeats_the_run(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    command("train", "--config", run[0] / "config.yaml", "--eval-episodes", 0, "--out", tmp_path / "again")
    assert (tmp_path / "again/metrics.csv").read_bytes() == (run[0] / "metrics.csv").read_bytes()


def test_two_halves_on_the_command_line_equal_the_whole(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    half = tmp_path / "half"
    common = ("--eval-episodes", 0)
    command("train", "--config", run[0] / "config.yaml", "--steps", 2 * STEPS, "--out", half, *common)
    command("train", "--resume", half, "--steps", 2 * STEPS, *common)
    assert (half / "metrics.csv").read_bytes() == (run[0] / "metrics.csv").read_bytes()
    newest = f"checkpoints/{4 * STEPS:012d}-r0.pt"
    import torch

    a, b = (torch.load(r / newest, weights_only=True) for r in (half, run[0]))
    assert torch.equal(a["learner"]["parameters"], b["learner"]["parameters"])
    assert all(torch.equal(a["env"][k], b["env"][k]) for k in a["env"])


def test_evaluation_repeats_itself_and_shows_a_picture(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        command(
            *("eval", run[0], "--episodes", 8, "--baseline", "--render", tmp_path / f"{name}.png"),
            *("--scene.episode-s", 1.5, "--scene.hold-from-s", 1.0, "--json", tmp_path / f"{name}.json"),
        )
        results.append(json.loads((tmp_path / f"{name}.json").read_text()))
    a, b = results
    keys = ("success_rate", "success_ci95", "return_mean", "return_iqm", "return_cvar10", "episodes", "distance")
    assert {k: a[k] for k in keys} == {k: b[k] for k in keys}
    assert a["baseline"]["return_mean"] > a["return_mean"]  # four updates do not beat a tuned controller
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_the_policy_may_stand_behind_a_picture_that_exists(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is a file of the picture's name
        command("eval", "--render", tmp_path / "a.png", "--episodes", 2, run[0])
    policy = tmp_path / "policy"
    policy.write_bytes((run[0] / "policy.onnx").read_bytes())
    command("eval", "--episodes", 2, policy)


def test_runs_lists_and_compares(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("runs", "--root", run[0].parent, "--json", tmp_path / "list.json")
    listed = json.loads((tmp_path / "list.json").read_text())
    assert [(r["name"], r["state"], r["seed"]) for r in listed] == [(str(run[0]), "done", 5)]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.yaml").write_text("a: [")
    other = tmp_path / "other"
    command("train", "--config", run[0] / "config.yaml", "--algo.gamma", 0.9, "--eval-episodes", 0, "--out", other)
    command("runs", run[0], other, "--json", tmp_path / "compared.json")
    settings = [r["settings"] for r in json.loads((tmp_path / "compared.json").read_text())]
    assert settings == [{"algo.gamma": 0.99}, {"algo.gamma": 0.9}]
    capsys.readouterr()
    command("runs", "--root", tmp_path, "--json", tmp_path / "some.json")
    assert [r["name"] for r in json.loads((tmp_path / "some.json").read_text())] == [str(other)]
    assert f"left out: configuration {tmp_path / 'damaged/config.yaml'} is not valid YAML" in capsys.readouterr().err


def test_export_again_gives_the_same_policy(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    command("export", run[0], "--out", tmp_path / "policy.onnx")
    first, again = PolicyArtifact.load(run[0] / "policy.onnx"), PolicyArtifact.load(tmp_path / "policy.onnx")
    probe = first.probes.observation
    assert (first.run(probe) == again.run(probe)).all()
    assert again.card.evaluation == first.card.evaluation


@pytest.mark.slow
def test_bench_prints_rates_beside_the_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("bench", "quadrotor/hover", "--num-envs", 16, "--seconds", 0.01, "--json", tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["threads"] == 1
    assert {"load_average_start", "load_average_end", "cpu", "allocator", "commit"} <= found.keys()
    rates = [row for row in found["figures"] if "steps_per_s_wall" in row]
    assert len(rates) == 4  # stepping and training, in two command modes
    assert all(row["steps_per_s_wall"] > 0 for row in rates)
    assert "load" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "absent"], "scene 'absent' not found"),
        (["train", "quadrotor/hovr"], f"scene 'quadrotor/hovr' not found; known: {SCENES}"),
        (["train"], f"no scene given; scenes: {SCENES}"),
        (["train", "quadrotor/hover", "--algo", "magic"], "algorithm 'magic' not found; known: "),
        (["train", "quadrotor/hover", "--data", "x"], "takes no data"),
        (["train", "quadrotor/hover", "--num-envs", "0"], "num_envs = 0; expected at least 1"),
        (["train", "quadrotor/hover", "--scene.mode", "x"], "scene.mode = 'x'; expected one of attitude_thrust"),
        (["train", "quadrotor/hover", "--minutes", "0"], "--minutes 0: expected more than 0"),
        (["train", "quadrotor/hover", "--minutes", "nan"], "--minutes nan: expected more than 0"),
        (["train", "--num-envs", "64", "wrong/scene"], f"scene 'wrong/scene' not found; known: {SCENES}"),
        (["train", "quadrotor/hover", "--seed", "-1"], "seed = -1; expected at least 0"),
        (["train", "quadrotor/hover", "--device", "abacus"], "device 'abacus' not known; expected cpu, cuda"),
        (["train", "quadrotor/hover", "--device", "cuda:99"], "device 'cuda:99': torch finds"),
        (["train", "quadrotor/hover", "--eval-episodes", "-1"], "--eval-episodes -1: expected at least 0"),
        (["train", "quadrotor/hover", "--algo.learning-rate", "nan"], "algo.learning_rate = nan; expected a finite"),
        (["train", "quadrotor/hover", "--algo.clip", "-0.2"], "algo.clip = -0.2; expected a finite number, at least 0"),
        (["train", "quadrotor/hover", "--algo.hidden", "0"], "algo.hidden = (0,); expected widths of at least 1"),
        (["train", "quadrotor/hover", "--algo.activation", "step"], "algo.activation = 'step'; expected one of elu"),
        (["train", "quadrotor/hover", "--scene.episode-s", "nan"], "episode_s = nan: expected the holding time"),
        (["train", "quadrotor/hover", "--scene.episode-s", "2"], "hold_from_s = 3.5, episode_s = 2: expected"),
        (["train", "quadrotor/hover", "--scene.start-radius-m", "-1"], "start_radius_m = -1.0; expected a finite"),
        (["train", "--resume", "absent"], "absent is no run directory"),
        (["train", "--config", "absent.yaml"], "absent.yaml not found"),
        (["eval", "absent.onnx"], "policy absent.onnx not found"),
        (["eval", "zoo:absent"], "zoo policy 'absent' not found"),
        (["export", "absent"], "absent is no run directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command(*words, expect=1)
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_refused_resume_leaves_the_run_as_it_was(
    run: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.read_bytes() for p in run[0].iterdir() if p.is_file()}
    command("train", "--resume", run[0], "--steps", STEPS, "--algo.gamma", 0.5, expect=1)
    assert f"{run[0]} was made with another algo; resume without changing them" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in run[0].iterdir() if p.is_file()} == before


def test_a_configuration_is_not_taken_for_another_scene(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("train", "other/scene", "--config", run[0] / "config.yaml", "--out", tmp_path / "x", expect=1)
    assert "scene 'other/scene' not found" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_refusals_that_need_a_run(run: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["train", "quadrotor/hover", "--out", str(run[0])], "already holds a run"),
        (["train", "--resume", str(run[0])], "has reached its budget"),
        (["train", "--resume", str(run[0]), "--minutes", "1"], "has reached its budget"),
        (["eval", str(run[0]), "--backend", "mujoco"], "has no back end 'mujoco'; its back ends: torch"),
        (["eval", str(run[0]), "--episodes", "0"], "--episodes 0: expected at least 1"),
        (["eval", str(run[0]), "--seed", "-1"], "--seed -1: expected at least 0"),
        (["eval", str(run[0]), "--scene.episode-s", "-1"], "expected the holding time to start at 0 or later"),
        (["eval", str(run[0]), "--render", "x.bmp"], "ends in .png, .gif or .mp4"),
        (["eval", str(run[0]), "--render", "x.mp4"], "quadrotor/hover is drawn as .png or .gif"),
        (["eval", str(run[0]), "--scene.mode", "rotor_thrust"], "drives mode attitude_thrust"),
    ):
        command(*words, expect=1)
        assert message in capsys.readouterr().err
