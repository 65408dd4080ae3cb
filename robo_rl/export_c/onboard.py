"""A policy with everything it needs on board: observation, network, guard, behind a plain interface (onboard.h)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controllers.artifact import PolicyArtifact
from controllers.neighbourhood import AGE_LIMIT_S, LOW_PASS_S
from hardware.errors import BadInput
from robo_rl.export_c.observation import ABSURD, write_observation
from robo_rl.export_c.parts import INFINITY, literal, template
from robo_rl.export_c.source import Footprint, write_c, write_files

MODE = "rotor_thrust"
"""The command mode that is flown on board: the firmware's controlModeForce."""
MAX_PEERS = 32
PEER_AGE_MS, TAU_MS = round(1e3 * AGE_LIMIT_S), round(1e3 * LOW_PASS_S)
"""The peers are followed by the same law as off board: `controllers.neighbourhood.SharedPositions`."""


@dataclass(frozen=True)
class Onboard:
    """What was written."""

    footprint: Footprint
    observation_size: int
    period_ms: int


def write_onboard(artifact: PolicyArtifact, folder: Path) -> Onboard:
    """Writes policy.[ch], observation.[ch], onboard.[ch] and the check programs.

    Raises BadInput for a policy of another mode, of a rate that is not a whole number of milliseconds, or that looks
    at what is not known on board.
    """
    card = artifact.card
    if card.mode != MODE or len(card.action) != 4:
        raise BadInput(f"a policy of mode {card.mode} does not fly on board; expected mode {MODE}")
    period_ms = _period_ms(card.rate_hz)
    groups = {g: n for g, n in artifact.interface.group_sizes.items() if g in artifact.graph.input_sizes}
    observation = write_observation(card, groups)
    banner = f"Made by robo-rl export of {card.scene}, seed {card.seed}, commit {card.commit}; do not edit."
    header = template(
        "onboard.h.in",
        BANNER=banner,
        RATE=f"{card.rate_hz:g}",
        PERIOD_MS=period_ms,
        MAX_PEERS=MAX_PEERS,
        PEER_AGE_MS=PEER_AGE_MS,
    )
    footprint = write_c(artifact, folder)
    order = [observation.offsets[g] for g in artifact.graph.input_sizes]
    write_files(
        folder,
        {
            "observation.h": observation.header,
            "observation.c": observation.source,
            "onboard.h": header,
            "onboard.c": _source(artifact, period_ms, order),
            "onboard_check.c": template("onboard_check.c.in"),
        },
    )
    return Onboard(footprint, observation.size, period_ms)


def _period_ms(rate_hz: float) -> int:
    period_ms = round(1000.0 / rate_hz)
    if period_ms < 1 or not math.isclose(period_ms * rate_hz, 1000.0, rel_tol=1e-9):
        raise BadInput(f"a policy at {rate_hz:g} Hz does not fly on board; expected a period of whole milliseconds")
    return period_ms


def _source(artifact: PolicyArtifact, period_ms: int, offsets: Sequence[int]) -> str:
    mode, action = artifact.interface.mode, artifact.card.action
    low = [max(p[0], -e) for p, e in zip(mode.limits.position, mode.limits.effort, strict=True)]
    high = [min(p[1], e) for p, e in zip(mode.limits.position, mode.limits.effort, strict=True)]
    change = [r * period_ms / 1000.0 for r in mode.limits.rate]
    return template(
        "onboard.c.in",
        ABSURD=literal(ABSURD),
        TAU_MS=TAU_MS,
        LOW=_list(low),
        HIGH=_list(high),
        SAFE=_list(mode.safe),
        CHANGE=_list(change),
        NEUTRAL=_list([a.offset for a in action]),
        INFINITY=f"#define {INFINITY} (1.0f / 0.0f)\n" if math.inf in change else "",
        RUN="".join(f"observation + {at}, " for at in offsets),
    )


def _list(values: Sequence[float]) -> str:
    return "{" + ", ".join(literal(v) for v in values) + "}"
