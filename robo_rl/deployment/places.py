"""Where the robots of a swarm are reached, and where they are sent."""

import numpy as np
from numpy.typing import NDArray

from controllers.formation import formation, nearest_pair
from controllers.goals import Goal, checked_goal, fence_of
from controllers.policy import goal_signals, signals_perceived
from hardware.errors import BadInput
from robo_rl.deployment.flags import SwarmFlags
from robo_rl.deployment.order import Order

BLIND_SPACING_M = 0.3
"""Goals of a policy that does not see other robots must be so far apart."""


def addresses_of(uri: str, num: int) -> list[str]:
    """The addresses of a swarm: given one by one with commas, or counted on from the first one.

    UDP and TCP count ports, the radio counts its hexadecimal addresses as Crazyswarm numbers drones; raises BadInput.
    """
    given = uri.split(",")
    if len(given) == num:
        return given
    if len(given) > 1:
        raise BadInput(f"--uri has {len(given)} addresses for {num} robots; give one each, or the first one")
    head, separator, last = uri.rpartition("/" if uri.startswith("radio:") else ":")
    hexadecimal = uri.startswith("radio:")
    try:
        first = int(last, 16 if hexadecimal else 10)
    except ValueError:
        raise BadInput(f"--uri {uri}: cannot count on from it; give {num} addresses, separated by commas") from None
    shown = (lambda n: f"{n:0{len(last)}X}") if hexadecimal else str
    return [f"{head}{separator}{shown(first + i)}" for i in range(num)]


def goals_of_swarm(order: Order, wanted: SwarmFlags, starts: NDArray[np.float64]) -> list[Goal | None]:
    """A goal for each robot, or None where it is to stay where it takes over; raises BadInput."""
    if wanted.formation is None and not order.goals:
        return [None] * wanted.num
    signal = goal_signals(order.artifact.interface)[0]
    goals = list(order.goals)
    if wanted.formation is not None:
        places = formation(wanted.formation, starts, spacing_m=wanted.spacing, height_m=wanted.height)
        robot = order.artifact.interface.robot
        goals = [checked_goal(signal, place, robot, fence_of(robot)) for place in places]
    sees = any(name.startswith("neighbour") for name in signals_perceived(order.artifact.interface))
    apart, i, j = nearest_pair([g[signal] for g in goals])
    if not sees and apart < BLIND_SPACING_M:
        raise BadInput(
            f"goals of robots {i + 1} and {j + 1} are {apart:.2f} m apart, and this policy does not see other robots; "
            f"expected at least {BLIND_SPACING_M:g} m"
        )
    if not sees and wanted.formation == "swap":
        print("warning: this policy does not see other robots, and their paths cross", flush=True)
    return list(goals)
