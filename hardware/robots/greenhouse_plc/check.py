"""What a recording must show: interlocks obeyed, fail-safe reached and left. Run by `robo-rl deploy` after each run.

    python -m hardware.robots.greenhouse_plc.check LOG

Judged by what the PLC measured, not by what it was told: an actuator has the time that it needs to get there.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hardware.errors import RoboError
from hardware.log.reader import Log
from hardware.replay import recorded_states
from hardware.robot import RobotState
from hardware.robots.greenhouse_plc import climate
from hardware.spec import RobotSpec, load_spec

SETTLED_S = {"heat": 4.5 * climate.HEAT_LAG_S, "vent": climate.VENT_STROKE_S + 60.0, "co2": 60.0}
"""Time after which an actuator must be where an interlock wants it."""
TOLERANCE = 0.02
LEAVE_S = 600.0
"""A stay in fail-safe that lasts so long at the end of a recording is one that was never left."""
FAILSAFE = frozenset({"watchdog_tripped", "local"})


def check_recording(log: Log, spec: RobotSpec, namespace: str | None = None) -> dict[str, Any]:
    """Violations in words, how often each interlock acted, and every stay in fail-safe."""
    return judge([s.value for s in recorded_states(log, spec, namespace)])


def judge(states: Sequence[RobotState]) -> dict[str, Any]:
    """The same for states in order of time; incomplete ones, and repetitions of an instant, are left out."""
    states = _whole(states)
    violations: list[str] = []
    acted: dict[str, int] = {}
    for name, holds, obeyed, settled_s in _RULES:
        since: int | None = None
        for state in states:
            if not holds(state):
                since = None
                continue
            if since is None:
                since, acted[name] = state.t_ns, acted.get(name, 0) + 1
            if (state.t_ns - since) / 1e9 > settled_s and not obeyed(state):
                violations.append(f"{name} not obeyed at {_hours(states, state)}")
                since = state.t_ns  # tell it again only if it goes on
    stays = _failsafe(states)
    violations += [f"fail-safe entered at {s['at_h']} h was not left" for s in stays if s["left_after_s"] is None]
    return {"violations": violations, "interlocks": acted, "failsafe": stays}


def _whole(states: Sequence[RobotState]) -> list[RobotState]:
    whole: list[RobotState] = []
    for state in states:
        newer = not whole or state.t_ns > whole[-1].t_ns
        if newer and {"air_temperature", "co2", "outdoor", "actuators"} <= state.signals.keys():
            whole.append(state)
    return whole


def _failsafe(states: Sequence[RobotState]) -> list[dict[str, Any]]:
    """Every stay at the PLC's own control after the first remote state, while the run still wanted to act."""
    stays: list[dict[str, Any]] = []
    since: RobotState | None = None
    last_s, acted = 0.0, False
    for state in states:
        acted = acted or _remote(state)
        if since is not None and _remote(state):
            stays[-1]["left_after_s"] = round((state.t_ns - since.t_ns) / 1e9)
            since = None
        elif since is not None and "armed" in state.status:
            last_s = (state.t_ns - since.t_ns) / 1e9
        elif since is None and acted and "armed" in state.status and state.status & FAILSAFE:
            since, last_s = state, 0.0
            cause = "watchdog" if "watchdog_tripped" in state.status else "restart or key"
            stays.append({"at_h": _hours(states, state), "cause": cause, "left_after_s": None})
    return stays if since is None or last_s > LEAVE_S else stays[:-1]  # cut short by the end of the run


def _remote(state: RobotState) -> bool:
    return "remote" in state.status and not state.status & (FAILSAFE)


def _hours(states: Sequence[RobotState], state: RobotState) -> float:
    return round((state.t_ns - states[0].t_ns) / 3.6e12, 2)


def _vents_obey(state: RobotState) -> bool:
    return "ventilation_does_not_follow" not in state.status


_RULES: Iterable[tuple[str, Callable[[RobotState], bool], Callable[[RobotState], bool], float]] = (
    (
        "frost: full heating",
        lambda s: bool(s.signals["air_temperature"] < climate.FROST_C),
        lambda s: bool(s.signals["actuators"][2] > 1.0 - TOLERANCE) or "heating_does_not_follow" in s.status,
        SETTLED_S["heat"],
    ),
    (
        "heat: open vents",
        lambda s: bool(s.signals["air_temperature"] > climate.HEAT_C and s.signals["outdoor"][4] <= climate.WIND_M_S),
        lambda s: bool(s.signals["actuators"][1] > 1.0 - TOLERANCE) or not _vents_obey(s),
        SETTLED_S["vent"],
    ),
    (
        "CO2: shut valve",
        lambda s: bool(s.signals["co2"] > climate.CO2_SHUT_PPM),
        lambda s: bool(s.signals["actuators"][0] < TOLERANCE) or "co2_injection_does_not_follow" in s.status,
        SETTLED_S["co2"],
    ),
    (
        "wind: vents nearly shut",
        lambda s: bool(s.signals["outdoor"][4] > climate.WIND_M_S),
        lambda s: bool(s.signals["actuators"][1] < climate.WIND_VENT + TOLERANCE) or not _vents_obey(s),
        SETTLED_S["vent"],
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings as JSON; status 1 where something was violated."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m hardware.robots.greenhouse_plc.check LOG", file=sys.stderr)
        return 2
    try:
        found = check_recording(Log(Path(arguments[0])), load_spec("greenhouse_plc"))
    except RoboError as e:
        print(f"check: {e}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
