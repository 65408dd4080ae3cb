"""Learning curves of several runs: windows worked out by hand, groups by folder, refusals in one line."""

from pathlib import Path

import numpy as np
import pytest

from hardware.errors import BadInput
from robo_rl import comparison
from robo_rl.commands import runs as command
from robo_rl.runs import RunDir


def run_at(folder: Path, name: str, gain: float = 1.0, setting: int = 1, rows: int = 50) -> RunDir:
    """A run whose success grows linearly to `gain`."""
    path = folder / name
    path.mkdir()
    (path / "config.yaml").write_text(f"scene: other/scene\nseed: {name[-1]}\nalgo:\n  epochs: {setting}\n")
    lines = [f"{1000 * (i + 1)},{i % 3},{gain * i / rows if i else ''}" for i in range(rows)]
    (path / "metrics.csv").write_text("\n".join(["env_steps,episodes,success", *lines]) + "\n")
    return RunDir(path)


def test_windows_weigh_updates_by_their_episodes() -> None:
    """By hand: at the third of five steps a window of 2.4 steps sees updates 2, 3 and 4, of which 3 is not known."""
    steps, values = np.arange(1.0, 6.0), np.array([9.0, 2.0, np.nan, 8.0, 9.0])
    weights = np.array([1.0, 3.0, 5.0, 1.0, 1.0])
    at, means = comparison.smoothed(steps, values, weights, 2.4)
    assert means[np.argmin(np.abs(at - 3.0))] == pytest.approx((3 * 2 + 8) / 4)
    assert np.isnan(comparison.smoothed(steps, np.full(5, np.nan), weights, 2.0)[1]).all()
    assert comparison.smoothed(steps, np.full(5, 4.0), weights, 3.0)[1] == pytest.approx(4.0)


def test_seeds_of_a_setting_are_one_group(tmp_path: Path) -> None:
    names = ("20261120T190000Z-full-s0", "20261120T200000Z-full-s1", "no-replay-s0", "no-replay_seed1", "12")
    found = comparison.group_by_name([RunDir(tmp_path / name) for name in names])
    assert {name: len(members) for name, members in found.items()} == {"full": 2, "no-replay": 2, "12": 1}


def test_curves_of_seeds_and_settings_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [run_at(tmp_path, "full-s0"), run_at(tmp_path, "full-s1", 0.8, rows=40), run_at(tmp_path, "short-s0", 0.3)]
    out = tmp_path / "pictures" / "curves.png"
    command.run(command.Args(compare=tuple(run.path for run in made), plot=out, metric=("success", "episodes")))
    assert out.read_bytes()[:4] == b"\x89PNG"
    told = capsys.readouterr()
    assert f"picture: {out}" in told.out
    assert not told.err
    mixed = run_at(tmp_path, "short-s1", setting=2)
    command.run(command.Args(compare=(made[2].path, mixed.path), plot=out, metric=("success",)))
    assert "'short' mixes settings: algo.epochs" in capsys.readouterr().err


def test_refusals_are_one_line(tmp_path: Path) -> None:
    run = run_at(tmp_path, "full-s0")
    bare = run_at(tmp_path, "bare-s0", rows=0)
    for changes, message in (
        ({"compare": ()}, "--plot needs the runs to draw: robo-rl runs RUN... --plot FILE.png"),
        ({"metric": ("sucess",)}, "--metric sucess: .*metrics.csv has env_steps, episodes, success$"),
        ({"metric": ()}, "--metric needs at least one column"),
        ({"plot": tmp_path / "x.gif"}, "x.gif: expected a name that ends in .png"),
        ({"smooth": 0.0}, "--smooth 0.0: expected above 0 and at most 1"),
        ({"compare": (bare.path,)}, "metrics.csv holds no update yet"),
    ):
        arguments = {"compare": (run.path,), "plot": tmp_path / "x.png", "metric": ("success",)} | changes
        with pytest.raises(BadInput, match=message):
            command.run(command.Args(**arguments))
