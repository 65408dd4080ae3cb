"""List the scenes there are."""

from dataclasses import dataclass

from robo_rl.cli import Outcome
from sim.registry import summaries


@dataclass(frozen=True)
class Args:
    """No arguments."""


def run(args: Args) -> Outcome:
    """Prints and returns one entry per scene; reads only their ranges.toml, so it works without torch."""
    found = summaries()
    rows = [{"name": name, "summary": table["summary"], "robot": table["robot"]} for name, table in found.items()]
    for row in rows:
        print(f"{row['name']} ({row['robot']}): {row['summary']}")
    return Outcome(rows)
