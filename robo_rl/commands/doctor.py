"""Say what works on this machine, and the one line that mends what does not.

Exit status 0 when the core works (robot side, command line, recordings, no mixture of two ROS 2 builds); what is
optional is listed without changing the status.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from robo_rl.cli import Outcome
from robo_rl.doctor import machine, packages, ros
from robo_rl.doctor.check import Check

_AT_ONCE = 4


@dataclass(frozen=True)
class Args:
    """No arguments."""


def run(args: Args) -> Outcome:
    """Performs all checks, prints them in order, and returns them as a list."""
    todo = [*packages.checks(), *ros.checks(), *machine.checks()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # most of them wait for a process of their own
        found = list(pool.map(lambda check: check(), todo))
    for check in found:
        _show(check)
    broken = [c for c in found if c.core and not c.ok]
    if broken:
        print(f"robo-rl: doctor: the core does not work: {', '.join(c.name for c in broken)}", file=sys.stderr)
    return Outcome([asdict(c) for c in found], 1 if broken else 0)


def _show(check: Check) -> None:
    mark = "ok  " if check.ok else ("FAIL" if check.core else "no  ")
    print(f"{mark}  {check.name:<18}  {check.detail}")
    if check.mend:
        print(f"{'':<26}mend: {check.mend}")
