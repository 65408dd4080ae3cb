"""A flight as arrays, read from its recording."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.reader import Log
from hardware.replay import namespace_of, recorded_states, recorded_ticks
from hardware.spec import RobotSpec

Array = NDArray[Any]


class Recording(NamedTuple):
    """S states and T policy ticks of one flight; times in s from the first state."""

    t_s: Array
    """(S,)."""
    position: Array
    """(S, 3) m, world."""
    goal: Array
    """(S, 3) m, world; NaN before the policy acts."""
    tick_t_s: Array
    """(T,)."""
    command: Array
    """(T, J) what the policy wished."""
    sent: Array
    """(T, J) what left the guard."""
    phases: list[tuple[float, str]]
    """When the policy took over and gave back."""


def read_flight(path: Path, spec: RobotSpec) -> Recording:
    """Reads states and ticks; raises BadInput where the log holds no such flight."""
    log = Log(path)
    space = namespace_of(log, spec)
    states: dict[int, Array] = {}
    for _, state in recorded_states(log, spec, space):
        states.setdefault(state.t_ns, state.signals["position_world"])
    ticks = [tick for _, tick in recorded_ticks(log, spec, space)]
    if not states or not ticks:
        raise BadInput(f"{path}: {len(states)} states and {len(ticks)} ticks of a policy; expected a flight")
    t_ns = np.array(sorted(states))
    position = np.stack([states[t] for t in t_ns])
    tick_ns = np.array([tick.state_t_ns for tick in ticks])
    start = t_ns[0]
    goals = np.stack([tick.goal["position_world"] for tick in ticks])
    index = np.searchsorted(tick_ns, t_ns, side="right") - 1
    acting = (index >= 0) & (t_ns <= tick_ns[-1])
    goal = np.where(acting[:, None], goals[np.maximum(index, 0)], np.nan)
    return Recording(
        t_s=(t_ns - start) / 1e9,
        position=position,
        goal=goal,
        tick_t_s=(tick_ns - start) / 1e9,
        command=np.stack([tick.command for tick in ticks]),
        sent=np.stack([tick.sent for tick in ticks]),
        phases=[
            (0.0, "takeoff"),
            (float(tick_ns[0] - start) / 1e9, "policy"),
            (float(tick_ns[-1] - start) / 1e9, "landing"),
        ],
    )
