"""Print a policy's contract card: what it was made for, what it sees, what it commands, how it was evaluated.

The file's seal is always checked. Whether it can fly the installed robot is said in the last line: a policy for
another version of a robot can still be inspected.
"""

import hashlib
import json
import math
from dataclasses import dataclass

from tyro.conf import Positional

from controllers.artifact import Card, PolicyArtifact, read_card
from controllers.interface import Field
from hardware.errors import RoboError
from robo_rl.cli import Outcome
from robo_rl.zoo import resolve


@dataclass(frozen=True)
class Args:
    """What to inspect."""

    policy: Positional[str]
    """A .onnx file, a run directory, or zoo:NAME."""


def run(args: Args) -> Outcome:
    """Prints the card; `--json` gives it, with the file's hash and whether it loads here."""
    path = resolve(args.policy)
    card = read_card(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        PolicyArtifact.load(path)
        problem = ""
    except RoboError as e:
        problem = str(e)
    print("\n".join([str(path), *_lines(card, sha256)]))
    print(f"does not load here: {problem}" if problem else "loads here: hash, robot and all 16 probes agree")
    result = json.loads(card.to_json()) | {"policy": str(path), "policy_sha256": sha256, "loads": not problem}
    return Outcome(result | ({"problem": problem} if problem else {}))


def _lines(card: Card, sha256: str) -> list[str]:
    width = sum(f.size * f.history for f in card.observation)
    lines = [
        f"  sha256      {sha256}",
        f"  scene       {card.scene} (ranges {card.ranges_digest[:12]})",
        f"  robot       {card.robot}, mode {card.mode} at {card.rate_hz:g} Hz (spec {card.robot_digest[:12]})",
        f"  trained     {card.algorithm}, seed {card.seed}, {card.env_steps:,} steps, commit {card.commit[:12]}",
        f"  made        {card.made_utc or 'unknown'} by {card.command_line or 'unknown'}",
        f"  observation {width} numbers",
        *(f"    {_observed(f)}" for f in card.observation),
        f"  command     {len(card.action)} numbers",
        *(f"    {f.name} = {f.offset:g} + {f.scale:g} x action {_unit(f)}" for f in card.action),
        "  evaluation  " + ("none" if not card.evaluation else ""),
    ]
    return lines + [f"    {key}: {_value(value)}" for key, value in card.evaluation.items()]


def _observed(f: Field) -> str:
    parts = [f"{f.name}: {f.source}", f"x{f.size}", _unit(f)]
    parts += [f"in {f.frame} frame"] if f.frame else []
    parts += [f"offset {f.offset:g}"] if f.offset else []
    parts += [f"scale {f.scale:g}"] if f.scale != 1.0 else []
    parts += [f"clipped to {f.clip:g}"] if not math.isinf(f.clip) else []
    parts += [f"newest {f.history}"] if f.history > 1 else []
    parts += [f"group {f.group}"] if f.group != "policy" else []
    return " ".join(p for p in parts if p)


def _unit(f: Field) -> str:
    return "" if f.unit in ("", "1") else f.unit


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
