"""Substitutions of launch files: `$(name argument ...)` inside strings, parsed once and performed in a context.

The grammar is that of ROS 2 launch 3.7.1 (launch/frontend/grammar.lark), restricted to the substitutions that are
portable from Humble to Kilted and run no code.
"""

import random
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hardware.errors import BadInput

ARITY: Mapping[str, tuple[int, int]] = {
    "var": (1, 2),
    "env": (1, 2),
    "dirname": (0, 0),
    "filename": (0, 0),
    "find-exec": (1, 1),
    "anon": (1, 1),
    "and": (2, 2),
    "or": (2, 2),
    "not": (1, 1),
}
"""Substitution -> least and most arguments."""

REFUSED: Mapping[str, str] = {
    "eval": "it runs Python code; compute the value with let, and, or, not",
    "command": "it runs a program while the file is being read; start the program with executable",
    **dict.fromkeys(
        ("find-pkg-share", "find-pkg-prefix", "exec-in-pkg", "param", "file-content", "path-join"),
        "it needs ROS 2 launch (--engine ros)",
    ),
    **dict.fromkeys(
        ("equals", "not-equals", "if", "any", "all", "for-var"),
        "ROS 2 Humble lacks it (--engine ros runs it with a newer launch)",
    ),
}
"""Substitutions of genuine launch that this engine does not perform -> why, or what to do instead."""


@dataclass(frozen=True)
class Call:
    """One `$(name argument ...)`."""

    name: str
    arguments: "tuple[Template, ...]"


Template = tuple[str | Call, ...]
"""A parsed string: literal pieces and substitutions, in order."""


@dataclass
class Context:
    """What substitutions see while a launch file is walked through; `set_env`, `let` and `arg` change it."""

    configurations: dict[str, str]
    """Launch configurations: the values of arg and let."""
    environment: dict[str, str]
    file: Path
    """Launch file being walked through, absolute."""
    rng: random.Random = field(default_factory=random.Random)
    """Draws the names of `$(anon ...)`."""
    anonymous: dict[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    """Names of the arguments met so far."""
    depth: int = 0
    """How many includes the walk is inside of."""

    def copy(self) -> "Context":
        """An independent copy that draws the same anonymous names."""
        rng = random.Random()
        rng.setstate(self.rng.getstate())
        configurations, environment = dict(self.configurations), dict(self.environment)
        return Context(configurations, environment, self.file, rng, dict(self.anonymous), set(self.declared))


def parse_template(text: str) -> Template:
    """A string with its substitutions found; raises BadInput saying what is wrong with the text."""
    parts, end = _parts(text, 0, stop="")
    if end != len(text):
        raise BadInput(f"unexpected '{text[end]}' in {text!r}")
    return parts


def perform(template: Template, context: Context) -> str:
    """The string that a template stands for in a context; raises BadInput where something is missing."""
    return "".join(part if isinstance(part, str) else _call(part, context) for part in template)


def split_command(text: str) -> tuple[Template, ...]:
    """The arguments of a `cmd` string, split on white space before any substitution is performed.

    So `$(var a)` stays one argument whatever its value holds, and an empty value stays an empty argument. Quotes work
    around literal text only, as in genuine launch.
    """
    arguments: list[Template] = []
    current: list[str | Call] = []
    for part in parse_template(text):
        if isinstance(part, Call):
            current.append(part)
            continue
        if current and part[0].isspace():
            arguments.append(tuple(current))
            current = []
        tokens = _tokens(part, text)
        for i, token in enumerate(tokens):
            if i > 0:
                arguments.append(tuple(current))
                current = []
            current.append(token)
        if tokens and part[-1].isspace():
            arguments.append(tuple(current))
            current = []
    if current:
        arguments.append(tuple(current))
    return tuple(arguments)


def as_condition(text: str) -> bool:
    """The truth of an `if` or `unless`; raises BadInput for anything but true, false, 1 and 0."""
    word = text.strip().lower()
    if word not in ("true", "false", "1", "0"):
        raise BadInput(f"condition '{text}' is not one of true, false, 1, 0")
    return word in ("true", "1")


def as_bool(text: str) -> bool:
    """The truth of an argument of and, or, not (and of respawn): a YAML boolean, so 1 and 0 are refused."""
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        value = None
    if not isinstance(value, bool):
        raise BadInput(f"'{text}' is not a boolean; use true or false")
    return value


def calls(template: Template) -> Iterator[Call]:
    """All substitutions in a template, inner ones too."""
    for part in template:
        if isinstance(part, Call):
            yield part
            for argument in part.arguments:
                yield from calls(argument)


def _tokens(part: str, whole: str) -> list[str]:
    if "'" in part and '"' in part:
        raise BadInput(f"both kinds of quotes in one piece of text are not portable: {whole!r}")
    try:
        return shlex.split(part)
    except ValueError:
        raise BadInput(f"quotes cannot span a substitution (it stays one argument without them): {whole!r}") from None


def _parts(text: str, at: int, stop: str) -> tuple[Template, int]:
    """Pieces from `at` to the end or to an unescaped character of `stop`; returns them and where they end."""
    parts: list[str | Call] = []
    literal = ""
    while at < len(text) and text[at] not in stop:
        if text[at] == "\\" and at + 1 < len(text):
            literal, at = literal + text[at + 1], at + 2
        elif text.startswith("$(", at):
            if literal:
                parts.append(literal)
            call, at = _parse_call(text, at)
            parts.append(call)
            literal = ""
        elif text[at] == "$":
            raise BadInput(f"a plain '$' must be written '\\$' in {text!r}")
        else:
            literal, at = literal + text[at], at + 1
    if literal:
        parts.append(literal)
    return tuple(parts), at


def _parse_call(text: str, at: int) -> tuple[Call, int]:
    """The substitution that starts with `$(` at `at`, and the position behind its `)`."""
    start, at = at, at + 2
    begin = at
    while at < len(text) and (text[at].isalnum() or text[at] in "_-"):
        at += 1
    name = text[begin:at]
    if name in REFUSED:
        raise BadInput(f"substitution '{name}' is refused: {REFUSED[name]}")
    if name not in ARITY:
        raise BadInput(f"substitution '{name}' not known; substitutions: {', '.join(sorted(ARITY))}")
    arguments: list[Template] = []
    while at < len(text) and text[at] == " ":
        argument, at = _argument(text, at + 1)
        arguments.append(argument)
    if at >= len(text) or text[at] != ")":
        raise BadInput(f"'{text[start:]}' is not closed, or its arguments are not separated by single blanks")
    least, most = ARITY[name]
    if not least <= len(arguments) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise BadInput(f"substitution '{name}' takes {wanted} arguments, got {len(arguments)}")
    return Call(name, tuple(arguments)), at + 1


def _argument(text: str, at: int) -> tuple[Template, int]:
    if text[at : at + 1] in ("'", '"'):
        quote = text[at]
        parts, end = _parts(text, at + 1, stop=quote)
        if end >= len(text):
            raise BadInput(f"quote {quote} is not closed in {text!r}")
        return parts, end + 1
    parts, end = _parts(text, at, stop=" )('\"")
    if not parts:
        raise BadInput(f"empty argument in {text!r}")
    return parts, end


def _call(call: Call, context: Context) -> str:
    values = [perform(a, context) for a in call.arguments]
    table: Mapping[str, Any] = {
        "var": lambda: _lookup(context.configurations, values, "launch configuration"),
        "env": lambda: _lookup(context.environment, values, "environment variable"),
        "dirname": lambda: str(context.file.parent),
        "filename": lambda: str(context.file),
        "find-exec": lambda: _find_executable(values[0], context),
        "anon": lambda: _anonymous(values[0], context),
        "and": lambda: str(as_bool(values[0]) and as_bool(values[1])).lower(),
        "or": lambda: str(as_bool(values[0]) or as_bool(values[1])).lower(),
        "not": lambda: str(not as_bool(values[0])).lower(),
    }
    return table[call.name]()


def _lookup(known: Mapping[str, str], values: list[str], kind: str) -> str:
    if values[0] in known:
        return known[values[0]]
    if len(values) == 2:
        return values[1]
    raise BadInput(f"{kind} '{values[0]}' does not exist")


def _find_executable(name: str, context: Context) -> str:
    found = shutil.which(name, path=context.environment.get("PATH"))
    if found is None:
        raise BadInput(f"executable '{name}' not found on the PATH")
    return found


def _anonymous(name: str, context: Context) -> str:
    if name not in context.anonymous:
        context.anonymous[name] = f"{name}_{context.rng.getrandbits(63)}"
    return context.anonymous[name]
