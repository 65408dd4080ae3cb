"""What a launch file does, in order: walks its actions in a context and yields what is to be done.

The walk changes the context as genuine launch does: `arg`, `let`, `set_env` and the arguments of an `include` stay
visible behind it ("leak"), except at the end of a scoped group. A timer's actions are walked when it fires, in the
context of that moment.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware.errors import BadInput
from robo_rl.launch_engine.parse import Action, Description, all_actions, load, plain_choices
from robo_rl.launch_engine.substitutions import Context, Template, as_bool, as_condition, calls, perform

OUTPUTS = ("screen", "log", "both", "own_log", "full")
MAX_DEPTH = 50
"""Includes within includes; a file that includes itself reaches it."""
STOP_TIMEOUTS = ("sigterm_timeout", "sigkill_timeout")
"""Launch configurations that genuine launch reads without anybody declaring them (s)."""


@dataclass(frozen=True)
class Process:
    """One child to start."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """The child's whole environment."""
    where: str
    cwd: str | None = None
    output: str = "log"
    respawn: bool = False
    respawn_delay_s: float = 0.0
    shutdown_on_exit: bool = False
    sigterm_s: float = 5.0
    """Patience after SIGINT before SIGTERM."""
    sigkill_s: float = 5.0
    """Patience after SIGTERM before SIGKILL."""


@dataclass(frozen=True)
class Timer:
    """Actions to be walked later."""

    period_s: float
    actions: tuple[Action, ...]
    file: Path


@dataclass(frozen=True)
class Message:
    """A line for the screen and the log."""

    text: str


@dataclass(frozen=True)
class Stop:
    """The end of the whole launch."""

    reason: str


Effect = Process | Timer | Message | Stop


@dataclass(frozen=True)
class Argument:
    """One argument a launch file takes."""

    name: str
    description: str
    default: str | None
    """As written in the file, None where a value must be given."""
    choices: tuple[str, ...]


def walk(actions: tuple[Action, ...], context: Context) -> Iterator[Effect]:
    """Performs actions in order, changing `context`; raises BadInput naming the file and the action."""
    for action in actions:
        try:
            if _wanted(action, context):
                yield from _DO[action.tag](action, context)
        except _Located:
            raise
        except BadInput as e:
            raise _Located(f"{action.where}: {e}") from None


def plan(description: Description, context: Context) -> list[tuple[float, Effect]]:
    """All effects with their time after the start (s), timers expanded; `context` is used up, so pass a copy."""
    ticket = itertools.count()
    queue: list[tuple[float, int, Path, tuple[Action, ...]]] = [
        (0.0, next(ticket), description.file, description.actions)
    ]
    effects: list[tuple[float, Effect]] = []
    while queue:
        t, _, context.file, actions = heapq.heappop(queue)
        for effect in walk(actions, context):
            if isinstance(effect, Timer):
                heapq.heappush(queue, (t + effect.period_s, next(ticket), effect.file, effect.actions))
            else:
                effects.append((t, effect))
            if isinstance(effect, Stop):
                return effects
    return effects


def arguments_of(description: Description, context: Context) -> list[Argument]:
    """The arguments a launch file declares, those of its includes too, in order of appearance."""
    found: dict[str, Argument] = {}
    seen: set[Path] = set()

    def collect(d: Description) -> None:
        seen.add(d.file)
        for action in all_actions(d.actions):
            if action.tag == "arg":
                argument = _argument(action)
                found.setdefault(argument.name, argument)
            elif action.tag == "include" and (file := _static_file(action, d, context)) not in (None, *seen):
                collect(load(file))

    collect(description)
    return list(found.values())


class _Located(BadInput):
    """A BadInput that already says where it happened."""


def _wanted(action: Action, context: Context) -> bool:
    if "if" in action.values:
        return as_condition(perform(action.values["if"], context))
    if "unless" in action.values:
        return not as_condition(perform(action.values["unless"], context))
    return True


def _arg(action: Action, context: Context) -> Iterator[Effect]:
    name = action.values["name"]
    context.declared.add(name)
    if name not in context.configurations:
        if "default" not in action.values:
            raise BadInput(f"argument '{name}' is required: give {name}:=VALUE ({_described(action)})")
        context.configurations[name] = perform(action.values["default"], context)
    choices = plain_choices(action.values)
    value = context.configurations[name]
    if choices and value not in choices:
        raise BadInput(f"argument '{name}' cannot be '{value}'; choices: {', '.join(choices)}")
    return iter(())


def _let(action: Action, context: Context) -> Iterator[Effect]:
    name, value = _text(action, "name", context), _text(action, "value", context)
    context.configurations[name] = value
    return iter(())


def _set_env(action: Action, context: Context) -> Iterator[Effect]:
    name, value = _text(action, "name", context), _text(action, "value", context)
    context.environment[name] = value
    return iter(())


def _unset_env(action: Action, context: Context) -> Iterator[Effect]:
    context.environment.pop(_text(action, "name", context), None)
    return iter(())


def _executable(action: Action, context: Context) -> Iterator[Effect]:
    values = action.values
    argv = tuple(perform(argument, context) for argument in values["cmd"])
    pairs = {perform(k, context): perform(v, context) for k, v in values.get("env", ())}
    output = _text(action, "output", context) if "output" in values else "log"
    if output not in OUTPUTS:
        raise BadInput(f"output '{output}' not known; outputs: {', '.join(OUTPUTS)}")
    yield Process(
        name=_text(action, "name", context) if "name" in values else Path(argv[0]).name,
        argv=argv,
        environment={**context.environment, **pairs},
        where=action.where,
        cwd=_text(action, "cwd", context) if "cwd" in values else None,
        output=output,
        respawn=as_bool(_text(action, "respawn", context)) if "respawn" in values else False,
        respawn_delay_s=values.get("respawn_delay", 0.0),
        shutdown_on_exit="on_exit" in values,
        sigterm_s=_patience(action, "sigterm_timeout", context),
        sigkill_s=_patience(action, "sigkill_timeout", context),
    )


def _group(action: Action, context: Context) -> Iterator[Effect]:
    scoped = action.values.get("scoped", True)
    before = (dict(context.configurations), dict(context.environment))
    yield from walk(action.values["children"], context)
    if scoped:
        context.configurations, context.environment = before


def _include(action: Action, context: Context) -> Iterator[Effect]:
    description = load(Path(_text(action, "file", context)))
    for name, value in action.values.get("arg", ()):
        context.configurations[perform(name, context)] = perform(value, context)
    if context.depth == MAX_DEPTH:
        raise BadInput(f"{description.file.name}: includes are nested more than {MAX_DEPTH} deep; a file in a circle?")
    outer, context.file = context.file, description.file
    context.depth += 1
    yield from walk(description.actions, context)
    context.file = outer
    context.depth -= 1


def _log(action: Action, context: Context) -> Iterator[Effect]:
    yield Message(_text(action, "message", context))


def _timer(action: Action, context: Context) -> Iterator[Effect]:
    yield Timer(action.values["period"], action.values["children"], context.file)


def _shutdown(action: Action, context: Context) -> Iterator[Effect]:
    yield Stop(_text(action, "reason", context) if "reason" in action.values else "reason not given")


_DO: Mapping[str, Callable[[Action, Context], Iterator[Effect]]] = {
    "arg": _arg,
    "let": _let,
    "set_env": _set_env,
    "unset_env": _unset_env,
    "executable": _executable,
    "group": _group,
    "include": _include,
    "log": _log,
    "timer": _timer,
    "shutdown": _shutdown,
}


def _text(action: Action, key: str, context: Context) -> str:
    return perform(action.values[key], context)


def _patience(action: Action, key: str, context: Context) -> float:
    text = action.values.get(key, context.configurations.get(key, "5"))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0.0:
        raise BadInput(f"{key} '{text}' is not a duration in seconds")
    return seconds


def _argument(action: Action) -> Argument:
    default = action.values.get("default")
    text = None if default is None else source_text(default)
    return Argument(action.values["name"], _described(action), text, plain_choices(action.values))


def _described(action: Action) -> str:
    return action.values.get("description", "No description given.")


def source_text(template: Template) -> str:
    """A template as it is written in a file."""
    parts = []
    for part in template:
        if isinstance(part, str):
            parts.append(part)
        else:
            parts.append(f"$({' '.join([part.name, *map(source_text, part.arguments)])})")
    return "".join(parts)


def _static_file(action: Action, description: Description, context: Context) -> Path | None:
    """The file an include names, where that is known before the walk; None otherwise."""
    template: Any = action.values["file"]
    if any(c.name not in ("dirname", "env") for c in calls(template)):
        return None
    try:
        here = Context({}, context.environment, description.file)
        file = Path(perform(template, here)).resolve()
    except BadInput:
        return None
    return file if file.is_file() else None
