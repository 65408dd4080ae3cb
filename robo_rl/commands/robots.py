"""List the robots there are, with their signals and command modes."""

from dataclasses import dataclass

from hardware.spec import load_spec, robot_names
from robo_rl.cli import Outcome


@dataclass(frozen=True)
class Args:
    """No arguments."""


def run(args: Args) -> Outcome:
    """Prints and returns one entry per robot."""
    rows = []
    for name in robot_names():
        spec = load_spec(name)
        modes = {m.name: list(m.components) for m in spec.modes.values()}
        rows.append(
            {
                "name": name,
                "summary": spec.summary,
                "address": spec.address,
                "rate_hz": spec.rate_hz,
                "signals": {s.name: s.unit for s in spec.signals.values()},
                "modes": modes,
                "digest": spec.digest(),
            }
        )
        print(f"{name}: {spec.summary}")
        print(f"  signals: {', '.join(spec.signals)}")
        print(f"  command modes: {', '.join(modes)}")
    return Outcome(rows)
