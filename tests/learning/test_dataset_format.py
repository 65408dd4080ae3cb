"""The data set format: what is written is read, broken folders are refused in one line, joining numbers anew."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hardware.errors import BadInput
from robo_rl.commands.eval import baseline_law
from robo_rl.datasets.collect import collect
from robo_rl.datasets.transitions import ARRAYS, CARD, DataSet, check_fits, joined, read, read_card, write
from sim.registry import make_env, scene_entry

SCENE = "quadrotor/hover"


@pytest.fixture(scope="module")
def hover() -> DataSet:
    """Three short hover episodes under the baseline with noise."""
    config = dataclasses.replace(scene_entry(SCENE).config, episode_s=0.5, hold_from_s=0.0)
    law = baseline_law(scene_entry(SCENE).baseline)
    return collect(SCENE, law, episodes=3, noise=0.2, seed=4, config=config, name="baseline")


def test_what_is_written_is_read_back_to_the_bit(hover: DataSet, tmp_path: Path) -> None:
    write(tmp_path / "set", hover)
    again = read(tmp_path / "set")
    assert again.card == hover.card == read_card(tmp_path / "set")
    for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode", "intervention", "weight"):
        assert np.array_equal(getattr(again, name), getattr(hover, name)), name
    assert np.array_equal(again.extra["wish"], hover.extra["wish"])
    assert [p.name for p in tmp_path.iterdir()] == ["set"]  # nothing half-written stays


def test_collected_rows_are_the_environments_own(hover: DataSet) -> None:
    """The newest command field of the next observation is the action: what was sent, not what was wished."""
    assert len(hover) == 150
    assert hover.card.kept == {"rows": 150, "episodes": 3}
    np.testing.assert_allclose(hover.next_obs[:, -4:], hover.action, atol=1e-6)
    inside = ~hover.truncated[:-1]
    np.testing.assert_array_equal(hover.next_obs[:-1][inside], hover.obs[1:][inside])
    assert hover.truncated.tolist() == ([False] * 49 + [True]) * 3
    assert not hover.terminated.any()
    wish = np.clip(hover.extra["wish"], -1, 1)
    assert 0.1 < np.abs(hover.action - wish).mean() < 0.3  # the noise is in what was sent


def test_the_rewards_are_those_that_the_same_worlds_give_again() -> None:
    config = dataclasses.replace(scene_entry(SCENE).config, episode_s=0.3, hold_from_s=0.0)
    law = baseline_law(scene_entry(SCENE).baseline)
    a, b = (collect(SCENE, law, episodes=2, seed=9, config=config) for _ in range(2))
    assert np.array_equal(a.reward, b.reward)
    assert not np.array_equal(a.obs, collect(SCENE, law, episodes=2, seed=10, config=config).obs)
    assert torch.is_grad_enabled()


def test_joining_numbers_episodes_anew_and_adds_up_the_counts(hover: DataSet) -> None:
    both = joined([hover, hover])
    assert len(both) == 300
    assert both.card.kept == {"rows": 300, "episodes": 6}
    assert len(both.card.sources) == 2
    assert both.episode[::50].tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(both.returns(), np.tile(hover.returns(), 2), rtol=1e-6)
    other = dataclasses.replace(hover, card=dataclasses.replace(hover.card, mode="rotor_thrust"))
    with pytest.raises(BadInput, match="different mode cannot be joined: attitude_thrust and rotor_thrust"):
        joined([hover, other])


def test_a_scene_with_other_fields_is_refused(hover: DataSet) -> None:
    entry = scene_entry(SCENE)
    check_fits(hover.card, entry.spec(entry.config), "set")
    rotor = dataclasses.replace(entry.config, mode="rotor_thrust")
    with pytest.raises(BadInput, match="set holds transitions of mode attitude_thrust; the scene is set to rotor_"):
        check_fits(hover.card, entry.spec(rotor), "set")
    fewer = dataclasses.replace(hover.card, observation=hover.card.observation[1:])
    with pytest.raises(BadInput, match="made with other fields than scene quadrotor/hover has now"):
        check_fits(fewer, make_env(SCENE, 1).spec, "set")


def test_folders_in_use_are_never_overwritten(hover: DataSet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="already holds something"):
        write(tmp_path, hover)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def _spoil_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / CARD).unlink(), "holds no dataset.json; expected a folder that robo-rl dataset has written"),
        (lambda f: (f / ARRAYS).unlink(), "holds no transitions.npz"),
        (lambda f: (f / CARD).write_text("{"), "is not JSON"),
        (lambda f: _spoil_card(f, schema="robo_rl.dataset/9"), "schema 'robo_rl.dataset/9'; this version reads"),
        (lambda f: _spoil_card(f, colour="red"), "keys missing or unknown: colour"),
        (lambda f: (f / ARRAYS).write_bytes((f / ARRAYS).read_bytes()[:-7]), "their hashes differ"),
    ],
)
def test_broken_folders_are_refused_in_one_line(hover: DataSet, tmp_path: Path, spoil: object, message: str) -> None:
    folder = write(tmp_path / "set", hover)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(BadInput, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


def _changed(data: DataSet, name: str, row: int, value: object) -> DataSet:
    array = getattr(data, name).copy()
    array[row] = value
    return dataclasses.replace(data, **{name: array})


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("reward", 7, np.nan, "reward of row 7 is not finite"),
        ("action", 8, 1.1, "action of row 8 lies outside"),
        ("weight", 9, -1.0, "weight of row 9 is negative"),
        ("truncated", 49, False, "episode 0 stops without terminated or truncated, at row 49"),
        ("terminated", 10, True, "episode 0 ends before its last row, at row 10"),
        ("terminated", 49, True, "row 49 is both terminated and truncated"),
    ],
)
def test_rows_that_break_the_format_are_not_written(
    hover: DataSet, tmp_path: Path, name: str, row: int, value: object, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        write(tmp_path / "set", _changed(hover, name, row, value))
    assert not list(tmp_path.iterdir())


def test_an_empty_set_says_what_was_dropped(hover: DataSet, tmp_path: Path) -> None:
    nothing = {n: getattr(hover, n)[:0] for n in ("obs", "action", "reward", "next_obs", "terminated", "truncated")}
    nothing |= {n: getattr(hover, n)[:0] for n in ("episode", "intervention", "weight")}
    card = dataclasses.replace(hover.card, dropped={"excluded": 20})
    with pytest.raises(BadInput, match="no transitions; dropped: 20 excluded"):
        write(tmp_path / "set", DataSet(card, **nothing))
