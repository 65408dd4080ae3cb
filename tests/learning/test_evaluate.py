"""Evaluation counts exactly one episode per world, and pictures are what their names say."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from robo_rl import evaluate, pictures
from robo_rl.evaluate import run_episodes, summarise
from robo_rl.seeds import EVALUATION, child_seed
from sim.spec import Step


class Staircase:
    """World i ends after i + 1 steps (at most 5) and pays 1 per step; even worlds succeed, odd ones crash."""

    device = "cpu"
    spec = SimpleNamespace(episode_s=0.5, rate_hz=10.0)

    def __init__(self, num_envs: int, seed: int) -> None:
        self.num_envs, self.seed = num_envs, seed
        self.number = torch.arange(num_envs)

    def reset(self) -> dict[str, Tensor]:
        self.age = torch.zeros(self.num_envs, dtype=torch.long)
        return {"policy": torch.zeros(self.num_envs, 1)}

    def step(self, action: Tensor) -> Step:
        self.age += 1
        over = self.age >= (self.number + 1).clamp(max=5)
        distance = self.age.float()
        self.age = torch.where(over, 0, self.age)  # starts anew: what follows must not count
        odd = self.number % 2 == 1
        obs = {"policy": torch.zeros(self.num_envs, 1)}
        metrics = {"distance": distance, "success": over & ~odd}
        ones = torch.ones(self.num_envs)
        return Step(obs, ones, 0 * ones, over & odd, over & ~odd, obs, metrics)


def idle(env: Staircase) -> evaluate.Law:
    return lambda obs: torch.zeros(len(obs["policy"]), 1)


def test_each_world_counts_once() -> None:
    found = run_episodes(Staircase, idle, 7, 0)
    assert found.returns.tolist() == [1, 2, 3, 4, 5, 5, 5]
    assert found.lengths.tolist() == [1, 2, 3, 4, 5, 5, 5]
    assert found.success.tolist() == [True, False, True, False, True, False, True]
    assert found.metrics["distance"].tolist() == [1, 2, 3, 4, 5, 5, 5]  # at the end of the episode
    assert found.distance.shape == (5, 7)
    assert np.isnan(found.distance[2, :2]).all()  # over by then
    assert found.distance[2, 2:].tolist() == [3] * 5


def test_many_episodes_run_in_batches_of_their_own_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "BATCH", 3)
    seeds: list[tuple[int, int]] = []

    def make(count: int, seed: int) -> Staircase:
        seeds.append((count, seed))
        return Staircase(count, seed)

    found = run_episodes(make, idle, 7, 11)
    assert found.returns.tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert seeds == [
        (3, child_seed(11, EVALUATION, 0)),
        (3, child_seed(11, EVALUATION, 1)),
        (1, child_seed(11, EVALUATION, 2)),
    ]


def test_summary_by_hand() -> None:
    result = summarise(run_episodes(Staircase, idle, 7, 0), 0)
    assert result["episodes"] == 7
    assert result["success_rate"] == pytest.approx(4 / 7)
    assert result["return_mean"] == pytest.approx(25 / 7)
    assert result["return_iqm"] == pytest.approx((2 + 3 + 4 + 5 + 5) / 5)
    assert result["return_cvar10"] == 1.0
    assert result["distance"] == pytest.approx(25 / 7)


def test_seeds_of_evaluation_and_training_differ() -> None:
    training = {
        child_seed(s, p, r) for s in range(20) for p in ("env", "policy", "shuffle", "weights") for r in range(4)
    }
    assert len(training) == 320
    assert training.isdisjoint({child_seed(s, EVALUATION, r) for s in range(20) for r in range(4)})


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.gif", b"GIF8")])
def test_pictures_of_paths_and_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, magic: bytes
) -> None:
    monkeypatch.setattr(pictures, "FRAMES", 3)
    found = run_episodes(Staircase, idle, 5, 0, track=lambda env: env.number[:, None].float() * torch.ones(1, 3))
    pictures.draw_episodes(tmp_path / name, found, None, "title", 10.0)
    assert (tmp_path / name).read_bytes()[:4] == magic
