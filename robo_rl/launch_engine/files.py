"""Where launch files are found, and what the user may say on the command line."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from hardware.errors import BadInput, NotFoundError
from robo_rl.launch_engine.resolve import STOP_TIMEOUTS, Argument

SUFFIX = ".launch.yaml"


def folders() -> list[Path]:
    """Folders searched, in order: ./launch, the repository of an editable install, <prefix>/share/robo_rl/launch."""
    repository = Path(__file__).resolve().parents[2]
    found = [Path.cwd() / "launch", Path(sys.prefix) / "share" / "robo_rl" / "launch"]
    if (repository / "pyproject.toml").is_file():
        found.insert(1, repository / "launch")
    return found


def shipped() -> list[str]:
    """Names of the launch files in those folders, without suffix."""
    return sorted({p.name.removesuffix(SUFFIX) for folder in folders() for p in folder.glob(f"*{SUFFIX}")})


def find(name: str) -> Path:
    """The launch file of that path or name; raises NotFoundError listing the shipped files."""
    given = Path(name).expanduser()
    if given.is_file():
        return given.resolve()
    if given.parent == Path():
        for folder in folders():
            for candidate in (folder / name, folder / f"{name}{SUFFIX}"):
                if candidate.is_file():
                    return candidate.resolve()
    raise NotFoundError("launch file", name, shipped())


def given_arguments(words: Iterable[str]) -> dict[str, str]:
    """`key:=value` words as a mapping; raises BadInput for a word of another shape or a key given twice."""
    values: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition(":=")
        if not sign or not key:
            raise BadInput(f"'{word}' is not of the form key:=value")
        if key in values:
            raise BadInput(f"argument '{key}' is given twice")
        values[key] = value
    return values


def check_known(given: Mapping[str, str], declared: Iterable[str]) -> None:
    """Raises NotFoundError for a given argument that nothing declares (genuine launch ignores it silently)."""
    names = set(declared)
    for key in given:
        if key not in names and key not in STOP_TIMEOUTS:
            raise NotFoundError("launch argument", key, names)


def describe_arguments(arguments: Iterable[Argument]) -> str:
    """The text of `--show-args`."""
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for a in arguments:
        choices = f" One of: {', '.join(a.choices)}." if a.choices else ""
        default = "(required)" if a.default is None else f"(default: '{a.default}')"
        lines += ["", f"    {a.name}", f"        {a.description}{choices}", f"        {default}"]
    if len(lines) == 1:
        lines.append("    (none)")
    return "\n".join(lines)
