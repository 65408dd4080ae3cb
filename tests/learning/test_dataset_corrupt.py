"""Spoiling data: the right share of the right numbers, by the stated size."""

import dataclasses

import numpy as np
import pytest

from hardware.errors import BadInput, NotFoundError
from robo_rl.datasets.corrupt import corrupted
from robo_rl.datasets.transitions import DataSet, card_of, check
from sim.registry import scene_entry

ROWS = 4000
COLUMN = {"states": "obs", "actions": "action", "rewards": "reward", "dynamics": "next_obs"}


@pytest.fixture(scope="module")
def data() -> DataSet:
    entry, rng = scene_entry("quadrotor/hover"), np.random.default_rng(3)
    card = card_of(entry.spec(entry.config))
    size = sum(f.size * f.history for f in card.observation)
    ends = np.arange(ROWS) % 100 == 99
    draw = lambda *shape, s=1.0: (s * rng.normal(size=shape)).astype(np.float32)  # noqa: E731
    ones = np.ones(ROWS, dtype=np.float32)
    return DataSet(
        card,
        obs=draw(ROWS, size, s=3.0),
        action=draw(ROWS, 4, s=0.1).clip(-1, 1),
        reward=draw(ROWS, s=0.5),
        next_obs=draw(ROWS, size, s=3.0),
        terminated=~ends & False,
        truncated=ends,
        episode=np.arange(ROWS) // 100,
        intervention=~ends & False,
        weight=ones,
    )


@pytest.mark.parametrize("kind", list(COLUMN))
def test_three_tenths_of_the_rows_are_wrong_by_the_stated_size(data: DataSet, kind: str) -> None:
    spoilt = corrupted(data, kind, seed=1)
    check(spoilt, kind)
    name = COLUMN[kind]
    before, after = getattr(data, name), getattr(spoilt, name)
    wrong = (before != after).reshape(ROWS, -1).any(axis=1)
    assert wrong.sum() == 1200
    for other in set(COLUMN.values()) - {name}:
        assert np.array_equal(getattr(spoilt, other), getattr(data, other))
    size = before.std(axis=0)
    error = after[wrong] if kind == "rewards" else after[wrong] - before[wrong]
    span = 30.0 if kind == "rewards" else 1.0
    assert np.abs(error / size).max() == pytest.approx(span, rel=0.01)
    assert (error / size).std() == pytest.approx(span / np.sqrt(3), rel=0.05)  # of a uniform distribution
    assert spoilt.card.settings["corrupted"] == kind
    assert np.array_equal(getattr(corrupted(data, kind, seed=1), name), after)


def test_what_cannot_be_spoilt_is_said(data: DataSet) -> None:
    with pytest.raises(
        NotFoundError, match="corruption 'colours' not found; known: actions, dynamics, rewards, states"
    ):
        corrupted(data, "colours")
    with pytest.raises(BadInput, match=r"share = 1.5"):
        corrupted(data, "states", share=1.5)
    assert dataclasses.replace(corrupted(data, "states", share=0.0)).obs is not data.obs
