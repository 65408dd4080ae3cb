"""Incremental worst-case search: a robust policy from a sequence of problems with fixed parameters.

Zouitine, Geist and Rachelson 2024 (arXiv 2410.06212). Q_0 solves the nominal world. The policy of round i acts by the
most pessimistic of all values so far, argmax_a min_j Q_j(s, a). The world psi in which it earns least becomes the next
problem, until no world is worse for it, by more than a tolerance, than the worst value that a specialist reached.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Solution(NamedTuple):
    """One fixed world, solved."""

    context: Any
    """The world's parameters."""
    values: Any
    """Q: a table, critics, or whatever `combine` takes."""
    worth: float
    """V: the return of this world's own specialist."""


class Outcome(NamedTuple):
    """What the search found."""

    policy: Any
    solutions: tuple[Solution, ...]
    worst: tuple[tuple[Any, float], ...]
    """The worst world of each round's policy, and its return there."""
    settled: bool
    """Whether the last policy met the stop rule."""


def settled(worst_return: float, worths: Sequence[float], tolerance: float) -> bool:
    """Whether no world is worse than the specialists' worst by more than the tolerance."""
    return worst_return >= min(worths) - tolerance


def search(
    solve: Callable[[Any], tuple[Any, float]],
    combine: Callable[[Sequence[Any]], Any],
    worst: Callable[[Any], tuple[Any, float]],
    nominal: Any,
    *,
    rounds: int,
    tolerance: float,
) -> Outcome:
    """Runs rounds until the policy is settled or the rounds are over.

    `solve(context)` gives values Q and the return V of the specialist in that world; `combine(all Q)` the policy that
    is greedy on their minimum; `worst(policy)` the world in which it earns least, and that return.
    """
    solutions: list[Solution] = []
    found: list[tuple[Any, float]] = []
    context, policy, done = nominal, None, False
    while len(solutions) < rounds and not done:
        solutions.append(Solution(context, *solve(context)))
        policy = combine([s.values for s in solutions])
        found.append(worst(policy))
        context = found[-1][0]
        done = settled(found[-1][1], [s.worth for s in solutions], tolerance)
    return Outcome(policy, tuple(solutions), tuple(found), done)
