"""The one interpreter: robot state -> observation, action -> command, equal in the simulator and on the robot.

A scene declares its observation and action as `Field`s; the exporter writes them into the policy's card; this module
is the only code that applies them. Everything is array-API style: batched torch in the environment, numpy on the robot.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from controllers.surroundings import PERCEIVED
from hardware.arrays import constant, namespace
from hardware.errors import BadInput
from hardware.geometry import quat_to_matrix, rotate_inverse
from hardware.spec import RobotSpec

FRAMES = ("", "world", "body", "yaw")


@dataclass(frozen=True)
class Field:
    """One part of an observation or of a command."""

    name: str
    source: str
    """Observation: a signal of the robot, `goal:SIGNAL`, `error:SIGNAL` (goal minus state), `gravity` (unit vector),
    `rotation` (body to world, nine numbers, row by row), `command` (the commands last sent, in action units), or a
    signal that is perceived of the surroundings, see
    `controllers.surroundings.PERCEIVED`. Action: a component of the command mode."""
    size: int
    unit: str
    frame: str = ""
    """Frame in which a world vector is expressed: 'world', 'body', or 'yaw' (gravity-aligned, turned with the
    heading)."""
    scale: float = 1.0
    offset: float = 0.0
    """Observation = scale * (value - offset); command = offset + scale * action."""
    clip: float = math.inf
    """Bound of the scaled observation's absolute value; an action is always clipped to +-1."""
    history: int = 1
    """How many of the newest values are shown, newest first."""
    group: str = "policy"
    """Input of the policy's graph that this field belongs to."""
    dtype: str = "float32"
    preprocessor: str = ""
    """Named pure function for images and clouds; none yet."""
    entity: str = ""
    """What the numbers describe: "" is the robot itself, anything else others of one kind ('neighbour', 'obstacle')."""
    members: int = 1
    """The value is this many equal parts, one per member of the entity: all of member 0, then all of member 1, ..."""


class Memory(NamedTuple):
    """What the interpreter carries from tick to tick; all arrays share the batch dimensions."""

    command: Any
    """(..., J) command last sent."""
    past: dict[str, Any]
    """Field name -> (..., history - 1, size) older values, newest first."""
    fresh: Any
    """(..., 1) bool: no observation made yet; the first one fills the history with itself."""


class Interface:
    """Fields bound to a robot and a command mode. Raises BadInput for a field the robot cannot serve."""

    def __init__(self, robot: RobotSpec, mode: str, observation: tuple[Field, ...], action: tuple[Field, ...]) -> None:
        self.robot, self.mode = robot, robot.mode(mode)
        self.observation, self.action = observation, action
        self._check_names()
        check_members(observation)
        for f in observation:
            self._check_observation(f)
        sources = tuple(f.source for f in action)
        if sources != self.mode.components:
            raise BadInput(f"action fields {sources} do not match mode {mode}: {self.mode.components}")

    @property
    def group_sizes(self) -> dict[str, int]:
        """Observation group -> length D of its vector."""
        sizes: dict[str, int] = {}
        for f in self.observation:
            sizes[f.group] = sizes.get(f.group, 0) + f.size * f.history
        return sizes

    @property
    def action_size(self) -> int:
        """Length A of the action, equal to the number J of command components."""
        return len(self.action)

    def start(self, batch: tuple[int, ...], like: Any) -> Memory:
        """Empty memory for a batch: the last command is the neutral one (action zero)."""
        xp = namespace(like)
        zeros = xp.zeros((*batch, self.action_size), dtype=like.dtype, device=like.device)
        past = {
            f.name: xp.zeros((*batch, f.history - 1, f.size), dtype=like.dtype, device=like.device)
            for f in self.observation
            if f.history > 1
        }
        return Memory(self.command(zeros), past, xp.ones((*batch, 1), dtype=xp.bool, device=like.device))

    def observe(
        self, state: Mapping[str, Any], goal: Mapping[str, Any], memory: Memory
    ) -> tuple[dict[str, Any], Memory]:
        """Observation groups name -> (..., D) of a state and goal (signal name -> (..., k)), and the new memory."""
        xp = namespace(memory.command)
        parts: dict[str, list[Any]] = {}
        past: dict[str, Any] = {}
        seen: dict[tuple[str, str], Any] = {}  # fields that differ only in scale share their value
        for f in self.observation:
            key = (f.source, f.frame)
            if key not in seen:
                seen[key] = self._value(f, state, goal, memory, seen)
            value = seen[key] if f.offset == 0.0 else seen[key] - f.offset
            value = value if f.scale == 1.0 else f.scale * value
            if not math.isinf(f.clip):
                value = xp.clip(value, -f.clip, f.clip)
            group = parts.setdefault(f.group, [])
            group.append(value)
            if f.history > 1:
                older = memory.past[f.name]
                older = xp.where(memory.fresh[..., None], xp.zeros_like(older) + value[..., None, :], older)
                group.extend(older[..., i, :] for i in range(f.history - 1))
                past[f.name] = xp.concat([value[..., None, :], older[..., : f.history - 2, :]], axis=-2)
        obs = {name: xp.concat(values, axis=-1) for name, values in parts.items()}
        return obs, Memory(memory.command, past, xp.zeros_like(memory.fresh))

    def command(self, action: Any) -> Any:
        """Command (..., J), in the mode's units, of an action (..., A) clipped to +-1."""
        xp = namespace(action)
        scale, offset = self._action_scale(action)
        return offset + scale * xp.clip(action, -1.0, 1.0)

    def remember(self, memory: Memory, command: Any) -> Memory:
        """Memory after a command (..., J) has really been sent (behind the guard)."""
        return Memory(command, memory.past, memory.fresh)

    def _value(
        self,
        f: Field,
        state: Mapping[str, Any],
        goal: Mapping[str, Any],
        memory: Memory,
        seen: dict[tuple[str, str], Any],
    ) -> Any:
        kind, _, signal = f.source.rpartition(":")
        if f.source == "command":
            scale, offset = self._action_scale(memory.command)
            return (memory.command - offset) / scale
        if f.source == "rotation":
            matrix = quat_to_matrix(state["quat_wxyz"])
            return namespace(matrix).reshape(matrix, (*matrix.shape[:-2], 9))
        if f.source == "gravity":
            if f.frame == "body":
                return _gravity_in_body(state["quat_wxyz"])
            value = _down(state["quat_wxyz"])
        elif kind == "goal":
            value = goal[signal]
        elif kind == "error":
            value = goal[signal] - state[signal]
        else:
            value = state[signal]
        if f.frame == "body" and self._is_world(f):
            return rotate_inverse(state["quat_wxyz"], value)
        if f.frame == "yaw" and self._is_world(f):
            if ("heading", "") not in seen:
                seen["heading", ""] = _heading(state["quat_wxyz"])
            if f.source in PERCEIVED:
                return _members_into_heading(seen["heading", ""], value, PERCEIVED[f.source].size)
            return _into_heading(seen["heading", ""], value)
        return value if value.ndim == memory.command.ndim else value[..., None]

    def _action_scale(self, like: Any) -> tuple[Any, Any]:
        return constant([a.scale for a in self.action], like), constant([a.offset for a in self.action], like)

    def _is_world(self, f: Field) -> bool:
        signal = f.source.rpartition(":")[2]
        if f.source in PERCEIVED:
            return PERCEIVED[f.source].frame == "world"
        return f.source == "gravity" or self.robot.signals[signal].frame == "world"

    def _check_names(self) -> None:
        for fields in (self.observation, self.action):
            names = [f.name for f in fields]
            if twice := sorted({n for n in names if names.count(n) > 1}):
                raise BadInput(f"field names {', '.join(twice)} are used more than once")
        for f in (*self.observation, *self.action):
            if not (math.isfinite(f.scale) and f.scale != 0.0 and math.isfinite(f.offset)):
                raise BadInput(f"field {f.name}: scale {f.scale}, offset {f.offset}; expected finite and scale not 0")
            if f.history < 1 or not f.clip > 0.0:
                raise BadInput(f"field {f.name}: history {f.history}, clip {f.clip}; expected at least 1 and positive")

    def _check_observation(self, f: Field) -> None:
        kind, _, signal = f.source.rpartition(":")
        if f.frame not in FRAMES:
            raise BadInput(f"field {f.name}: frame '{f.frame}' unknown; frames: {', '.join(FRAMES[1:])}")
        if kind not in ("", "goal", "error"):
            raise BadInput(f"field {f.name}: source '{f.source}' unknown; kinds: goal:SIGNAL, error:SIGNAL")
        if f.source in PERCEIVED:
            self._check_perceived(f)
            return
        if kind == "" and f.source in ("command", "gravity", "rotation"):
            size, frame = {"command": (self.action_size, ""), "gravity": (3, "world"), "rotation": (9, "")}[f.source]
        elif signal in self.robot.signals:
            size, frame = math.prod(self.robot.signals[signal].shape), self.robot.signals[signal].frame
        else:
            known = ", ".join(self.robot.signals)
            raise BadInput(f"field {f.name}: robot {self.robot.name} has no signal '{signal}'; signals: {known}")
        if size != f.size:
            raise BadInput(f"field {f.name}: size {f.size}, but '{f.source}' has {size} components")
        turned = f.frame in ("body", "yaw") and frame == "world"
        if turned and (size != 3 or "quat_wxyz" not in self.robot.signals):
            raise BadInput(f"field {f.name}: only a vector of 3 on a robot with quat_wxyz turns into frame '{f.frame}'")
        if f.frame not in ("", frame) and not turned:
            raise BadInput(f"field {f.name}: '{f.source}' is given in frame '{frame}', not '{f.frame}'")

    def _check_perceived(self, f: Field) -> None:
        what = PERCEIVED[f.source]
        if f.size != what.size * f.members:
            raise BadInput(
                f"field {f.name}: size {f.size}, but '{f.source}' of {f.members} members has {what.size * f.members}"
            )
        if f.frame not in ("", what.frame) and not (f.frame == "yaw" and what.frame == "world"):
            raise BadInput(f"field {f.name}: '{f.source}' is given in frame '{what.frame}', not '{f.frame}'")


def check_members(fields: tuple[Field, ...]) -> None:
    """Raises BadInput where a field does not split into its members, or fields of one entity count them differently."""
    counts: dict[str, Field] = {}
    for f in fields:
        if f.members < 1 or f.size % f.members:
            raise BadInput(f"field {f.name}: size {f.size} does not split into {f.members} members")
        if f.members == 1:
            continue
        if not f.entity:
            raise BadInput(f"field {f.name}: {f.members} members of no entity; expected a name such as 'neighbour'")
        first = counts.setdefault(f.entity, f)
        if first.members != f.members:
            raise BadInput(
                f"field {f.name}: {f.members} members of '{f.entity}', but field {first.name} has {first.members}"
            )


def _down(quat: Any) -> Any:
    """The unit vector of gravity in the world (..., 3)."""
    return namespace(quat).zeros_like(quat[..., :3]) - constant([0.0, 0.0, 1.0], quat)


def _gravity_in_body(quat: Any) -> Any:
    """The unit vector of gravity in the body (..., 3): minus the third row of the rotation matrix."""
    w, x, y, z = (quat[..., i] for i in range(4))
    return namespace(quat).stack([2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1], axis=-1)


def _heading(quat: Any) -> tuple[Any, Any]:
    """Cosine and sine (...) of the heading: the direction of the body's x axis on the ground."""
    xp = namespace(quat)
    w, x, y, z = (quat[..., i] for i in range(4))
    c, s = 1 - 2 * (y * y + z * z), 2 * (w * z + x * y)
    norm = xp.sqrt(c * c + s * s) + 1e-12
    return c / norm, s / norm


def _into_heading(heading: tuple[Any, Any], v: Any) -> Any:
    """World vectors (..., 3) in the gravity-aligned frame that turns with the body's heading."""
    c, s = heading
    x, y = v[..., 0], v[..., 1]
    return namespace(v).stack([c * x + s * y, c * y - s * x, v[..., 2]], axis=-1)


def _members_into_heading(heading: tuple[Any, Any], v: Any, size: int) -> Any:
    """World vectors of `size` 2 or 3, one behind the other (..., members * size), in the frame of the heading."""
    c, s = heading
    planes = []
    for i in range(0, v.shape[-1], size):
        x, y = v[..., i], v[..., i + 1]
        planes += [c * x + s * y, c * y - s * x, *(v[..., i + j] for j in range(2, size))]
    return namespace(v).stack(planes, axis=-1)


def fields_to_json(fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    """Fields as plain values for a card; an infinite clip becomes null."""
    return [{k: (None if v == math.inf else v) for k, v in asdict(f).items()} for f in fields]


def fields_from_json(raw: list[dict[str, Any]]) -> tuple[Field, ...]:
    """Fields from a card; raises BadInput naming the entry that is not a field."""
    try:
        values: list[dict[str, Any]] = [{k: (math.inf if v is None else v) for k, v in f.items()} for f in raw]
        return tuple(Field(**v) for v in values)
    except (TypeError, AttributeError) as e:
        raise BadInput(f"card holds a field that this version does not know: {e}") from e
