"""Print a scene's physical parameters with nominal value, range, unit and source, guesses first."""

from dataclasses import asdict, dataclass

from tyro.conf import Positional

from robo_rl.cli import Outcome
from sim.param import Param
from sim.ranges import SOURCES, read_ranges
from sim.registry import ranges_path

_RULE = {"scale": "x", "add": "+", "set": ""}
_ORDER = tuple(reversed(SOURCES))
"""Guesses, then data sheets, then what was identified from logs."""


@dataclass(frozen=True)
class Args:
    """Which scene."""

    scene: Positional[str]
    """Scene id; `robo-rl scenes` lists them."""


def run(args: Args) -> Outcome:
    """Prints a table and returns one entry per parameter."""
    ranges = read_ranges(ranges_path(args.scene))
    params = sorted(ranges.params.values(), key=lambda p: _ORDER.index(p.source))
    rows = [(p.name, f"{p.nominal:g}", _span(p), p.unit, p.source, p.group) for p in params]
    head = ("parameter", "nominal", "range", "unit", "source", "drawn if")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    guesses = sum(p.source == "guess" for p in params)
    print(f"{len(params)} parameters, {guesses} of them guesses; references in {ranges.path.name} and --json")
    return Outcome([_plain(p) for p in params])


def _span(p: Param) -> str:
    mark = _RULE[p.how]
    return f"{mark}{p.low:g} .. {mark}{p.high:g}"


def _plain(p: Param) -> dict[str, object]:
    values = asdict(p)
    return {k: (None if v in (float("inf"), float("-inf")) else v) for k, v in values.items()}
