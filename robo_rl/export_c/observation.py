"""A card's observation fields as C99: what `controllers.interface.Interface.observe` does, in single precision."""

import re
from dataclasses import dataclass

from controllers.artifact import Card
from controllers.interface import Field
from controllers.surroundings import FAR_M, GRID_M, PERCEIVED, TINY
from hardware.errors import BadInput
from robo_rl.export_c.parts import literal, only_used, template

STATE = {
    "position_world": "in->position",
    "velocity_world": "in->velocity",
    "quat_wxyz": "quat",
    "angular_velocity_body": "in->gyro",
    "battery_voltage": "&in->battery_v",
}
"""Signals that the interface on board carries, and where they are."""
WORLD = ("position_world", "velocity_world")
NO_HEADING = 1e-12
ABSURD = 1e6
"""Numbers from here on count as not finite: their squares must not overflow, nor swamp what is near."""


@dataclass(frozen=True)
class Observation:
    """The generated code."""

    header: str
    source: str
    size: int
    offsets: dict[str, int]
    """Group -> where its vector begins in the whole observation."""


def write_observation(card: Card, groups: dict[str, int]) -> Observation:
    """C of the fields of `groups` (name -> length); raises BadInput for a source that is not known on board."""
    fields = {g: [f for f in card.observation if f.group == g] for g in groups}
    every = [f for g in groups for f in fields[g]]
    values = _Values(every, len(card.action))
    lines, offsets, at = [], {}, 0
    for group in groups:
        offsets[group] = at
        for f in fields[group]:
            lines += _field(f, values.of(f), at)
            at += f.size * f.history
    body = [*values.before, *lines]
    if any(f.history > 1 for f in every):
        body.append("memory->fresh = 0;")
    return Observation(_header(card, every, values, at), _source(card, values, body), at, offsets)


class _Values:
    """Where the fields' values come from; those that differ only in scale share one."""

    def __init__(self, fields: list[Field], commands: int) -> None:
        self.before: list[str] = []
        """Statements that come first, once each."""
        self.commands, self.work = commands, 0
        self.neighbours = _members(fields, "neighbour")
        self.obstacles = _members(fields, "obstacle")
        self._seen: dict[tuple[str, str], str] = {}

    def of(self, f: Field) -> str:
        """C expression of the address of the field's value."""
        key = (f.source, f.frame)
        if key not in self._seen:
            self._seen[key] = self._value(f)
        return self._seen[key]

    def _value(self, f: Field) -> str:
        kind, _, signal = f.source.rpartition(":")
        if f.source in PERCEIVED:
            return self._perceived(f)
        if f.source == "command":
            return self._make(f"obs_command({{to}}, memory->command, {self.commands});", self.commands)
        if f.source == "rotation":
            return self._make(f"obs_rotation({{to}}, {self._quat()});", 9)
        if f.source == "gravity" and f.frame == "body":
            return self._make(f"obs_gravity_in_body({{to}}, {self._quat()});", 3)
        if f.source == "gravity":
            return "obs_down"  # the same in every frame that is aligned with gravity
        if kind and signal != "position_world":
            raise BadInput(f"field {f.name}: on board a goal is a position, not '{signal}'")
        if signal not in STATE:
            raise BadInput(f"field {f.name}: '{f.source}' is not known on board; known: {', '.join(STATE)}")
        if kind == "error":
            value = self._once("error", "obs_difference({to}, in->goal, in->position);", 3)
        else:
            value = "in->goal" if kind == "goal" else self._quat() if signal == "quat_wxyz" else STATE[signal]
        return self._turned(f, value) if signal in WORLD else value

    def _turned(self, f: Field, value: str) -> str:
        if f.frame == "body":
            return self._make(f"obs_into_body({{to}}, {self._quat()}, {value});", 3)
        if f.frame == "yaw":
            return self._make(f"obs_into_heading({{to}}, {self._heading()}, {value}, 3, 1);", 3)
        return value

    def _perceived(self, f: Field) -> str:
        entity, _, what = f.source.partition("_")
        if f.source == "height":
            return "in->position + 2"
        if what == "grid_world":
            return self._make("obs_grid({to}, in, 1.0f, 0.0f);", 9)
        if what == "grid_yaw":
            h = self._heading()
            return self._make(f"obs_grid({{to}}, in, {h}[0], {h}[1]);", 9)
        statement = "obs_neighbours(&peers_seen, in, peers);" if entity == "neighbour" else "obs_obstacles(&seen, in);"
        if statement not in self.before:
            self.before.append(statement)
        value = f"{'peers_seen' if entity == 'neighbour' else 'seen'}.{what}"
        size = PERCEIVED[f.source].size
        if f.frame == "yaw" and PERCEIVED[f.source].frame == "world":
            turn = f"obs_into_heading({{to}}, {self._heading()}, {value}, {size}, {f.members});"
            return self._make(turn, size * f.members)
        return value

    def _quat(self) -> str:
        return self._once("quat", "obs_normalised({to}, in->quat_wxyz);", 4)

    def _heading(self) -> str:
        quat = self._quat()
        return self._once("heading", f"obs_heading({{to}}, {quat});", 2)

    def _once(self, name: str, statement: str, size: int) -> str:
        key = (name, "")
        if key not in self._seen:
            self._seen[key] = self._make(statement, size)
        return self._seen[key]

    def _make(self, statement: str, size: int) -> str:
        to = f"work + {self.work}"
        self.work += size
        self.before.append(statement.format(to=to))
        return f"({to})"


def _members(fields: list[Field], entity: str) -> int:
    """How many members of an entity are looked for; the grids have none."""
    return max((f.members for f in fields if f.source in PERCEIVED and _counted(f, entity)), default=0)


def _counted(f: Field, entity: str) -> bool:
    return PERCEIVED[f.source].entity == entity and "_grid_" not in f.source


def _field(f: Field, value: str, at: int) -> list[str]:
    numbers = f"{literal(f.offset)}, {literal(f.scale)}, {literal(f.clip)}"
    lines = [f"obs_put(obs + {at}, {value}, {f.size}, {numbers}); /* {f.name} */"]
    if f.history > 1:
        past = f"memory->{_past(f)}"
        lines.append(f"obs_remember(obs + {at}, {past}, {f.size}, {f.history - 1}, memory->fresh);")
    return lines


def _past(f: Field) -> str:
    return "past_" + re.sub(r"\W", "_", f.name)


def _header(card: Card, fields: list[Field], values: _Values, size: int) -> str:
    past = "".join(f"  float {_past(f)}[{(f.history - 1) * f.size}];\n" for f in fields if f.history > 1)
    return template(
        "observation.h.in",
        SIZE=size,
        NEIGHBOURS=values.neighbours,
        OBSTACLES=values.obstacles,
        COMMANDS=values.commands,
        PAST=past,
        POLICY=f"{card.scene}, seed {card.seed}, commit {card.commit}",
    )


def _source(card: Card, values: _Values, body: list[str]) -> str:
    used = "\n".join(body)
    declared = []
    if "peers_seen" in used:
        declared.append("static obs_neighbours_seen peers_seen;")
    if "obs_obstacles" in used:
        declared.append("static obs_obstacles_seen seen;")
    if values.work:
        declared.append(f"static float work[{values.work}];")
    if "obs_down" in used:
        declared.append("static const float obs_down[3] = {0.0f, 0.0f, -1.0f};")
    functions = only_used(template("observation.c.in"), used)
    math = only_used(template("math.c.in"), functions)
    unused = [f"(void){name};" for name in ("in", "peers", "memory") if f"{name}" not in used]
    command = _command(card) if "obs_command" in used else ""
    constants = {
        "OBS_TINY": literal(TINY),
        "OBS_FAR": literal(FAR_M),
        "OBS_GRID": literal(GRID_M),
        "OBS_ABSURD": literal(ABSURD),
        "OBS_NO_HEADING": literal(NO_HEADING),
    }
    defines = "\n".join(f"#define {n} {v}" for n, v in constants.items() if n in functions)
    inner = "\n".join(f"  {line}" for line in [*unused, *body])
    return f"""/* Generated by robo-rl export --crazyflie; do not edit. See observation.h. */
#include "observation.h"

#ifdef __FAST_MATH__
#error "observation.c needs IEEE arithmetic: compile it without -ffast-math"
#endif
#define POLICY_INFINITY (1.0f / 0.0f)
{defines}

{math if "policy_" in functions else ""}
{_types(values, used)}{functions}
{command}
{chr(10).join(declared)}

void observation_make(const onboard_inputs *in, const observation_peer *peers, observation_memory *memory,
                      float *obs) {{
{inner}
}}
"""


def _types(values: _Values, used: str) -> str:
    """Types of what is perceived."""
    text = ""
    if "peers_seen" in used:
        k = values.neighbours
        text += (
            f"typedef struct {{\n  float position[{3 * k}], velocity[{3 * k}], distance[{k}], closing[{k}], "
            f"present[{k}];\n}} obs_neighbours_seen;\n\n"
        )
    if "obs_obstacles" in used:
        k = values.obstacles
        text += (
            f"typedef struct {{\n  float direction[{2 * k}], clearance[{k}], closing[{k}], present[{k}];\n"
            "} obs_obstacles_seen;\n\n"
        )
    return text


def _command(card: Card) -> str:
    offset = ", ".join(literal(a.offset) for a in card.action)
    scale = ", ".join(literal(a.scale) for a in card.action)
    return f"""/* The command last sent, in action units. */
static void obs_command(float *to, const float *command, int size) {{
  static const float offset[] = {{{offset}}};
  static const float scale[] = {{{scale}}};
  for (int i = 0; i < size; i++) to[i] = (command[i] - offset[i]) / scale[i];
}}
"""
