"""The command line: every command explains itself, and every mistake gets one clear line and an honest status."""

import ast
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.spec import robot_names
from robo_rl.cli import COMMANDS, Outcome, main

FOLDER = Path(__file__).resolve().parents[2] / "robo_rl" / "commands"


def robo_rl(*argv: str) -> int:
    """The exit status, also where argument parsing exits by itself."""
    try:
        return main(list(argv))
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)


def test_commands_are_the_modules_of_the_folder() -> None:
    assert {p.stem for p in FOLDER.glob("*.py")} - {"__init__"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_every_field(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert robo_rl(name, "--help") == 0
    shown = capsys.readouterr().out
    doc = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    assert doc.split()[:4] == shown.split("\n\n")[1].split()[:4]
    assert "--json" in shown


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert robo_rl("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert robo_rl() == 2


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["fly"], 2, "command 'fly' not found; commands: scenes, robots"),
        (["robots", "--bogus"], 2, "robots: Unrecognized options"),
        (["emulate"], 2, "emulate: "),
        (["emulate", "crazyfly"], 1, "emulate: robot 'crazyfly' not found; known: "),
        (["emulate", "crazyflie", "--port", "many"], 2, "emulate: "),
        (["emulate", "crazyflie", "--port", "0", "--seed", "-1"], 1, "emulate: seed -1; expected at least 0"),
        (["demo", "--duration", "nan"], 1, "demo: --duration nan: expected at least 12 s"),
        (["demo", "--duration", "8"], 1, "demo: --duration 8: expected at least 12 s"),
        (["demo", "--episodes", "0"], 1, "demo: --episodes 0"),
        (["ranges", "quadrotor/hoover"], 1, "ranges: "),
        (["inspect", "/nowhere.onnx"], 1, "inspect: "),
        (["launch", "nowhere.launch.yaml"], 1, "launch: "),
        (["robots", "--json", "/proc/nowhere/x"], 1, "robots: "),
    ],
)
def test_a_mistake_gets_one_line(argv: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert robo_rl(*argv) == status
    shown = capsys.readouterr().err
    assert shown.startswith("robo-rl: ")
    assert words in shown
    assert shown.count("\n") == 1


def test_results_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "robots.json"
    assert robo_rl("robots", "--json", str(path)) == 0
    assert [r["name"] for r in json.loads(path.read_text())] == robot_names()
    assert [p.name for p in path.parent.iterdir()] == ["robots.json"]


def test_a_result_that_could_not_be_kept_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert robo_rl("robots", "--json", str(tmp_path)) == 1
    shown = capsys.readouterr()
    assert f"robo-rl: robots: --json {tmp_path} is a directory" in shown.err
    assert shown.out == ""


def test_numbers_that_are_none_become_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robo_rl.commands import robots

    monkeypatch.setattr(robots, "run", lambda args: Outcome({"a": [math.nan, 1.5], "b": (-math.inf,)}))
    assert robo_rl("robots", "--json", str(tmp_path / "r.json")) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": [None, 1.5], "b": [None]}


@pytest.mark.parametrize("argv", [["--help"], ["robots"]])
def test_a_reader_that_leaves_early_is_no_failure(argv: list[str]) -> None:
    """As in `robo-rl robots | true`: quiet, whether Python buffers its output or not."""
    for flags in ([], ["-u"]):
        child = subprocess.Popen(
            [sys.executable, *flags, "-m", "robo_rl", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if child.stdout is None or child.stderr is None:
            pytest.fail("no pipes")
        child.stdout.close()
        assert child.wait(60) == 141
        with child.stderr as errors:
            assert errors.read() == ""
