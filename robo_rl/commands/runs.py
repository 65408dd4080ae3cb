"""List the runs below a folder, or compare the runs that are named."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from hardware.errors import BadInput
from robo_rl.cli import Outcome


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl runs`."""

    compare: Positional[tuple[Path, ...]] = ()
    """Run directories to compare; none lists all below --root."""
    root: Path = Path("runs")
    """Folder to search."""
    plot: Path | None = None
    """Draw the learning curves of the named runs, .png. Runs whose folders differ only in time stamp and `-s<seed>` are
    seeds of one setting: a mean and a band."""
    metric: tuple[str, ...] = ("return_mean",)
    """Columns of metrics.csv to draw."""
    smooth: float = 0.02
    """Window over which the curves are averaged, as a share of the longest run."""


def run(args: Args) -> Outcome:
    """A table; the result is a list of runs."""
    from robo_rl import runs

    if args.compare:
        rows = [runs.summary(runs.open_run(p)) for p in args.compare]
    else:
        rows = list(_readable(runs.find(args.root)))
    if args.plot and not args.compare:
        raise BadInput("--plot needs the runs to draw: robo-rl runs RUN... --plot FILE.png")
    if not rows:
        print(f"no runs below {args.root}")
        return Outcome([])
    _table(rows)
    differences = settings_that_differ(rows) if args.compare else {}
    for name, values in differences.items():
        print(f"  {name}: {'  |  '.join(map(str, values))}")
    if args.plot:
        _plot(args, args.plot)
    keep = [{k: v for k, v in row.items() if k != "config"} for row in rows]
    if args.compare:
        for i, row in enumerate(keep):
            row["settings"] = {name: values[i] for name, values in differences.items()}
    return Outcome(keep)


def _readable(found: list[Any]) -> Iterator[dict[str, Any]]:
    """The summaries of all runs that have one; a damaged run is named on stderr and does not hide the others."""
    from robo_rl.runs import summary

    for run_dir in found:
        try:
            yield summary(run_dir)
        except BadInput as e:
            print(f"robo-rl: runs: left out: {e}", file=sys.stderr)


def _plot(args: Args, out: Path) -> None:
    """Draws the named runs; says on stderr where one group is not the same setting throughout."""
    from robo_rl import comparison, runs

    if not args.metric:
        raise BadInput("--metric needs at least one column of metrics.csv")
    found = [runs.open_run(path) for path in args.compare]
    for name, members in comparison.group_by_name(found).items():
        differ = comparison.unlike(settings_that_differ([runs.summary(run) for run in members]))
        if differ:
            print(f"robo-rl: runs: '{name}' mixes settings: {', '.join(differ)}", file=sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)
    scenes = sorted({runs.summary(run)["scene"] for run in found})
    comparison.draw_comparison(out, found, args.metric, args.smooth, ", ".join(scenes))
    print(f"picture: {out}")


def settings_that_differ(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Dotted name of each setting that is not the same in all runs -> its value in each."""
    flat = [dict(_flatten(row["config"])) for row in rows]
    names = sorted({name for one in flat for name in one})
    values = {name: [one.get(name) for one in flat] for name in names}
    return {name: v for name, v in values.items() if any(x != v[0] for x in v)}


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return leaves


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, side in (
        ("run", "left"),
        ("state", "left"),
        ("steps", "right"),
        ("success", "right"),
        ("return", "right"),
    ):
        table.add_column(name, justify=side, overflow="fold")  # pyright: ignore[reportArgumentType]
    for row in rows:
        success = "-" if row["success_rate"] is None else f"{row['success_rate']:.1%}"
        gain = "-" if row["return_mean"] is None else f"{row['return_mean']:.2f}"
        table.add_row(row["name"], row["state"], f"{row['env_steps']:,}", success, gain)
    Console().print(table)
