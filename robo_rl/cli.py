"""The command `robo-rl`: finds the command's module, parses its arguments, runs it, reports honestly.

`robo-rl --help` and the parsing of the first word import nothing but the standard library.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

COMMANDS: dict[str, str] = {
    "scenes": "list the scenes there are",
    "robots": "list the robots there are",
    "ranges": "print a scene's parameters, ranges and sources, guesses first",
    "train": "train a policy in a scene",
    "eval": "evaluate a policy over a family of worlds",
    "export": "export a run's policy again",
    "inspect": "print a policy's contract card",
    "runs": "list and compare runs",
    "emulate": "serve an emulated robot that speaks the real protocol",
    "deploy": "run a policy on an emulated, real or replayed robot",
    "log": "record, inspect, play, recover or export recordings",
    "dataset": "turn annotated logs, or simulated episodes, into transitions to learn from",
    "annotate": "mark a log in a browser",
    "replay": "run a log through a policy or a simulator, or judge a policy by recorded data",
    "identify": "find physical parameters in recordings, propose new ranges",
    "launch": "run a launch file",
    "bench": "measure speed on this machine",
    "doctor": "say what works on this machine and how to mend what does not",
    "demo": "the whole loop in a few minutes, ending in a report",
}
"""Command -> one-line help. The module is robo_rl.commands.<command>, with a dataclass `Args` and `run(args)`."""


class Outcome(NamedTuple):
    """What a command found, and whether that counts as success."""

    result: Any
    """Plain values for `--json`."""
    status: int = 0
    """Exit status; a command that ran but did not succeed gives 1 and says why on stderr."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command line; returns the exit status (0 success, 1 failure, 2 bad usage, 130 interrupted)."""
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"robo-rl {version('robo_rl')}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        return _fail(f"command '{name}' not found; commands: {', '.join(COMMANDS)}", 2)
    return _run(name, rest)


def _run(name: str, argv: list[str]) -> int:
    from hardware.errors import RoboError

    try:
        module = importlib.import_module(f"robo_rl.commands.{name}")
        args, json_path = _parse(name, module, argv)
        if json_path is not None:
            _check_writable(json_path)
        outcome = module.run(args)
        if json_path is not None:
            _write_json(json_path, outcome.result)
    except RoboError as e:
        return _fail(f"{name}: {e}", 1)
    except ModuleNotFoundError as e:
        return _fail(f"{name}: needs the package '{e.name}'; pip install 'robo_rl[{_extra_of(e.name or '')}]'", 1)
    except KeyboardInterrupt:
        return _fail(f"{name}: interrupted", 130)
    except BrokenPipeError:
        raise
    except OSError as e:
        return _fail(f"{name}: {e}", 1)
    return outcome.status


def _parse(name: str, module: Any, argv: list[str]) -> tuple[Any, Path | None]:
    """The command's Args and the `--json` path; exits with 0 after --help and with 2 and one line on bad usage."""
    import tyro

    prepare = getattr(module, "prepare", None)  # a command may take defaults from a file named in argv
    default = prepare(argv) if prepare else dataclasses.MISSING
    kwargs = {} if default is dataclasses.MISSING else {"default": default}
    command = dataclasses.field(**kwargs) if kwargs else dataclasses.field()
    invocation = dataclasses.make_dataclass(
        "Invocation",
        [
            ("command", Annotated[module.Args, tyro.conf.arg(name="")], command),
            (
                "json",
                Annotated[Path | None, tyro.conf.arg(help="Write the result as JSON to this file.")],
                dataclasses.field(default=None),
            ),
        ],
        kw_only=True,
    )
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                invocation,
                args=argv,
                prog=f"robo-rl {name}",
                description=module.__doc__,
                config=_spelling(module),
            )
    except SystemExit as e:
        if e.code in (0, None):
            raise
        raise SystemExit(_fail(f"{name}: {_one_line(errors.getvalue())}; see robo-rl {name} --help", 2)) from None
    return parsed.command, parsed.json


def _spelling(module: Any) -> tuple[Any, ...]:
    """How options are spelled: a module that sets `NESTED` keeps prefixes such as `--algo.learning-rate`."""
    import tyro

    flat = () if getattr(module, "NESTED", False) else (tyro.conf.OmitArgPrefixes,)
    return (*flat, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)


def _one_line(boxed: str) -> str:
    """The words of tyro's framed message, without the frame and without the repeated usage."""
    lines = [line.strip("│╭╮╰╯─ \t") for line in boxed.splitlines()]
    words = [w for w in lines if w and not w.startswith(("Parsing error", "Required options", "For full helptext"))]
    return " ".join(words) or "bad arguments"


def _check_writable(path: Path) -> None:
    """Raises OSError before the work begins where its result could not be kept; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"--json {path} is a directory; expected a file name")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"--json {path}: no right to write in {path.parent}")


def _write_json(path: Path, result: Any) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(_strict(result), indent=2, default=str, allow_nan=False) + "\n")
    aside.replace(path)


def _strict(value: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    return [_strict(v) for v in value] if isinstance(value, (list, tuple)) else value


_EXTRAS = {
    "cflib": "crazyflie",
    "pyulog": "export",
    "h5py": "export",
    "pyarrow": "export",
    "starlette": "annotate",
    "uvicorn": "annotate",
    "casadi": "greenhouse",
    "pvlib": "greenhouse",
    "cma": "identify",
}


def _extra_of(package: str) -> str:
    root = package.split(".")[0]
    if root in _EXTRAS:
        return _EXTRAS[root]
    return "ros2" if root in ("rclpy", "std_msgs", "nav_msgs", "geometry_msgs", "diagnostic_msgs") else "train"


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: robo-rl COMMAND [ARGUMENTS]\n\n"
        "Train policies in simulated scenes, deploy them on robots over ROS 2, replay and learn from logs.\n\n"
        f"commands:\n{lines}\n\n"
        "robo-rl COMMAND --help explains a command; every command takes --json FILE for machine-readable results."
    )


def _fail(message: str, status: int) -> int:
    print(f"robo-rl: {message}", file=sys.stderr)
    return status
