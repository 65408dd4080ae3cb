"""One folder per robot, and the one way to get hold of one: `connect`."""

import importlib
from typing import Any

from hardware.clock import Clock, MonotonicClock
from hardware.guard import GuardedRobot
from hardware.spec import load_spec


def connect(name: str, uri: str | None = None, *, clock: Clock | None = None, **options: Any) -> GuardedRobot:
    """The robot of that name at `uri` (default: its spec's address), behind the guard; `open()` it next.

    `options` go to the robot's driver. Raises NotFoundError listing the robots, and BadInput for an address that the
    driver does not understand.
    """
    spec = load_spec(name)
    clock = clock or MonotonicClock()
    driver = importlib.import_module(f"hardware.robots.{name}.driver")
    return GuardedRobot(driver.Driver(uri or spec.address, clock=clock, **options), clock)
