"""The embedded launch engine with real processes: order, output, statuses, signals, and nothing left behind."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

PATIENCE_S = 60.0


class Launch:
    """One `robo-rl launch` in its own folder."""

    def __init__(self, folder: Path, actions: list[Any], *words: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        (folder / "x.launch.yaml").write_text(yaml.safe_dump({"launch": actions}, sort_keys=False))
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "robo_rl", "launch", "x.launch.yaml", *words, "--log-dir", str(self.log)],
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Status and everything printed."""
        text, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, text

    def pid_in(self, name: str) -> int:
        """The process id that a child wrote into a file of the folder."""
        wait_for(lambda: (self.folder / name).exists() and (self.folder / name).read_text().endswith("\n"))
        return int((self.folder / name).read_text())


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], str]:
    """Writes a Python script and gives the cmd that runs it."""

    def write(name: str, code: str) -> str:
        (tmp_path / name).write_text(code)
        return f"{sys.executable} {tmp_path / name}"

    return write


def exe(cmd: str, **more: Any) -> dict[str, Any]:
    return {"executable": {"cmd": cmd, "output": "screen", **more}}


NOTE_PID = "import os; open('{0}', 'w').write(f'{{os.getpid()}}\\n')\n"
STUBBORN = NOTE_PID.format("pid") + "import signal, time\n"


def test_output_is_prefixed_and_logged_by_mode(tmp_path: Path) -> None:
    say = "sh -c 'echo out; echo err >&2; printf last'"
    actions = [exe(say, name=mode, output=mode) for mode in ("screen", "log", "both", "own_log", "full")]
    status, text = Launch(tmp_path, actions).end()
    assert status == 0, text
    lines = [line for line in text.splitlines() if not line.startswith("[INFO]")]
    screen = {f"[{n}] {w}" for n in ("screen-1", "both-3", "full-5") for w in ("out", "err", "last")} | {"[log-2] err"}
    assert set(lines) == screen
    assert len(lines) == len(screen)
    log = (tmp_path / "log" / "launch.log").read_text()
    assert all(f"[{n}] {w}\n" in log for n in ("log-2", "both-3", "full-5") for w in ("out", "err", "last"))
    assert " [screen-1]" not in log
    own = {f.name: f.read_text() for f in (tmp_path / "log").iterdir() if f.name != "launch.log"}
    streams = {"stdout": "out\nlast\n", "stderr": "err\n"}
    assert own == {f"{n}-{s}.log": t for n in ("own_log-4", "full-5") for s, t in streams.items()}


def test_a_megabyte_of_output_arrives_whole(tmp_path: Path) -> None:
    status, text = Launch(tmp_path, [exe("seq 200000", name="n")]).end()
    assert status == 0
    assert [w for w in text.splitlines() if w.startswith("[n-1]")] == [f"[n-1] {i}" for i in range(1, 200001)]


def test_environment_and_folder_reach_the_child(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    actions = [
        {"set_env": {"name": "A", "value": "1"}},
        {"unset_env": {"name": "B"}},
        exe(
            "sh -c 'echo \\$A \\${B-none} \\$C; pwd'", env=[{"name": "C", "value": "3"}], cwd="$(dirname)/sub", name="n"
        ),
    ]
    status, text = Launch(tmp_path, actions, env={"B": "2"}).end()
    assert status == 0
    assert "[n-1] 1 none 3\n" in text
    assert f"[n-1] {tmp_path}/sub\n" in text


def test_python3_is_the_interpreter_that_runs_the_engine(tmp_path: Path) -> None:
    status, text = Launch(tmp_path, [exe("python3 -c 'import sys; print(sys.prefix)'", name="n")]).end()
    assert status == 0
    assert f"[n-1] {sys.prefix}\n" in text


def test_the_first_failure_is_the_status_and_the_others_go_on(tmp_path: Path) -> None:
    actions = [exe("sh -c 'sleep 0.6; exit 3'"), exe("sh -c 'sleep 0.1; exit 4'"), exe("sh -c 'sleep 1; echo done'")]
    status, text = Launch(tmp_path, actions).end()
    assert status == 4
    assert "[sh-3] done" in text


def test_a_child_killed_by_a_signal_counts(tmp_path: Path) -> None:
    status, text = Launch(tmp_path, [exe("sh -c 'kill -SEGV \\$\\$'")]).end()
    assert status == 128 + signal.SIGSEGV
    assert "process[sh-1] ended by SIGSEGV" in text


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (5, 5)])
def test_on_exit_shutdown_stops_the_rest(tmp_path: Path, code: int, expected: int) -> None:
    actions = [exe("sleep 1000"), exe(f"sh -c 'sleep 0.2; exit {code}'", on_exit="shutdown")]
    status, text = Launch(tmp_path, actions).end()
    assert status == expected
    assert "shutting down: process[sh-2] was required" in text


def test_timer_log_and_shutdown_in_order(tmp_path: Path) -> None:
    actions = [
        {"timer": {"period": 0.4, "children": [{"log": {"message": "second"}}, {"shutdown": {"reason": "enough"}}]}},
        {"timer": {"period": 1000.0, "children": [{"log": {"message": "never"}}]}},
        {"log": {"message": "first"}},
        exe("sleep 1000"),
    ]
    status, text = Launch(tmp_path, actions).end()
    assert status == 0
    assert text.index("first") < text.index("second") < text.index("shutting down: enough")
    assert "never" not in text


def test_respawn_until_shutdown(tmp_path: Path) -> None:
    """A respawned child's failures are mended, not reported; the delay is kept."""
    actions = [
        exe("sh -c 'date +%s%N; exit 7'", respawn="true", respawn_delay=0.3, name="n"),
        {"timer": {"period": 1.5, "children": [{"shutdown": {}}]}},
    ]
    status, text = Launch(tmp_path, actions).end()
    assert status == 0, text
    starts = [int(line.split()[1]) for line in text.splitlines() if line.startswith("[n-1]")]
    assert len(starts) >= 2
    assert all(b - a >= 0.3e9 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(
    ("ignored", "status", "stages"),
    [
        ((), 0, []),
        ((signal.SIGINT,), 0, ["SIGTERM"]),
        ((signal.SIGINT, signal.SIGTERM), 128 + signal.SIGKILL, ["SIGTERM", "SIGKILL"]),
    ],
)
def test_the_stop_escalates(
    tmp_path: Path, script: Callable[[str, str], str], ignored: tuple[int, ...], status: int, stages: list[str]
) -> None:
    code = STUBBORN + "".join(f"signal.signal({int(s)}, signal.SIG_IGN)\n" for s in ignored)
    if not ignored:
        code += "signal.signal(2, lambda *_: exit(0))\n"
    cmd = script("stubborn.py", code + "print('ready', flush=True)\ntime.sleep(1000)\n")
    actions = [
        exe(cmd, sigterm_timeout=0.2, sigkill_timeout=0.2),
        {"timer": {"period": 1.5, "children": [{"shutdown": {}}]}},
    ]
    launch = Launch(tmp_path, actions)
    assert launch.end()[0] == status
    log = (tmp_path / "log" / "launch.log").read_text()
    assert [s for s in ("SIGTERM", "SIGKILL") if f"escalating to {s}" in log] == stages
    assert not alive(launch.pid_in("pid"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_engine_leaves_no_orphan(
    tmp_path: Path, script: Callable[[str, str], str], number: signal.Signals
) -> None:
    """Neither the child nor what it started outlives the engine; the child could say goodbye."""
    grandchild = script("grandchild.py", NOTE_PID.format("grandchild") + "import time; time.sleep(1000)\n")
    child = (
        NOTE_PID.format("child")
        + f"import subprocess, signal\np = subprocess.Popen({grandchild.split()!r})\n"
        + "signal.signal(2, lambda *_: (print('landed', flush=True), exit(0)))\np.wait()\n"
    )
    launch = Launch(tmp_path, [exe(script("child.py", child), name="n")])
    pids = [launch.pid_in("child"), launch.pid_in("grandchild")]
    launch.process.send_signal(number)
    status, text = launch.end()
    assert status == 128 + number
    assert "[n-1] landed" in text
    assert not any(map(alive, pids))


def test_a_second_signal_does_not_wait(tmp_path: Path, script: Callable[[str, str], str]) -> None:
    code = STUBBORN + "signal.signal(2, signal.SIG_IGN)\nsignal.signal(15, signal.SIG_IGN)\n" + NOTE_PID.format("ready")
    launch = Launch(
        tmp_path, [exe(script("s.py", code + "time.sleep(1000)\n"), sigterm_timeout=1e6, sigkill_timeout=1e6)]
    )
    pid = launch.pid_in("ready")
    for _ in range(3):
        launch.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    assert launch.end()[0] == 130
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal exists on Linux only")
def test_killing_the_engine_outright_ends_its_children(tmp_path: Path, script: Callable[[str, str], str]) -> None:
    launch = Launch(tmp_path, [exe(script("child.py", NOTE_PID.format("child") + "import time; time.sleep(1000)\n"))])
    pid = launch.pid_in("child")
    launch.process.kill()
    launch.end()
    wait_for(lambda: not alive(pid))


def test_what_a_dead_leader_left_behind_is_ended(tmp_path: Path) -> None:
    launch = Launch(tmp_path, [exe("sh -c 'sleep 1000 & echo \\$! > left; exit 6'")])
    status, _ = launch.end()
    assert status == 6
    assert not alive(launch.pid_in("left"))


def test_a_reader_that_goes_away_does_not_stop_the_children(tmp_path: Path) -> None:
    launch = Launch(tmp_path, [exe("sh -c 'seq 100000; echo fine > done'", name="n")])
    assert launch.process.stdout is not None
    launch.process.stdout.close()
    assert launch.process.wait(PATIENCE_S) == 0
    assert (tmp_path / "done").read_text() == "fine\n"


def test_a_log_that_cannot_be_written_does_not_stop_the_children(tmp_path: Path) -> None:
    """A full disk, here a limit on the size of files."""
    actions = [exe("sh -c 'seq 1000; sleep 0.5; echo landed'", output="both", name="n")]
    (tmp_path / "x.launch.yaml").write_text(yaml.safe_dump({"launch": actions}))
    command = f"ulimit -f 4; exec {sys.executable} -m robo_rl launch x.launch.yaml --log-dir log"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "launch.log: File too large; nothing more is logged there" in done.stdout
    assert done.stdout.count("nothing more is logged") == 1
    assert "[n-1] landed" in done.stdout


def test_what_cannot_start_is_known_before_anything_starts(tmp_path: Path) -> None:
    first = exe("touch started")
    for bad, message in (
        (exe("no-such-program"), "launch[1].executable.cmd: executable 'no-such-program' not found"),
        (exe("true", cwd="/no/such/folder"), "launch[1].executable.cwd: '/no/such/folder' is not a directory"),
        (log_missing := {"log": {"message": "$(var x)"}}, "launch[1].log: launch configuration 'x' does not exist"),
        ({"timer": {"period": 1.0, "children": [log_missing]}}, "children[0].log: launch configuration 'x' does not"),
    ):
        status, text = Launch(tmp_path, [first, bad]).end()
        assert status == 1
        assert message in text
        assert text.count("\n") == 1
        assert not (tmp_path / "started").exists()


def test_a_program_that_vanished_fails_when_its_time_comes(tmp_path: Path) -> None:
    actions = [exe("sh -c 'echo on'"), {"timer": {"period": 0.2, "children": [exe("no-such-program")]}}]
    status, text = Launch(tmp_path, actions).end()
    assert status == 127
    assert "cannot start 'no-such-program': No such file or directory" in text
    assert "[sh-1] on" in text


def test_dry_run_and_show_args_start_nothing(tmp_path: Path) -> None:
    actions = [
        {"arg": {"name": "a", "default": "x y"}},
        exe("touch $(dirname)/started $(var a)", env=[{"name": "E", "value": "1"}]),
        {"timer": {"period": 1.5, "children": [{"shutdown": {"reason": "enough"}}]}},
    ]
    status, text = Launch(tmp_path, actions, "--show-args").end()
    assert status == 0
    assert "(default: 'x y')" in text
    status, text = Launch(tmp_path, actions, "a:=z", "--dry-run", "--json", "plan.json").end()
    assert status == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan[0]["argv"] == ["touch", f"{tmp_path}/started", "z"]
    assert plan[0]["env"] == {"E": "1"}
    assert plan[1] == {"t_s": 1.5, "stop": "shutdown: enough"}
    assert f"start touch: ['touch', '{tmp_path}/started', 'z']" in text
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["b:=1"], "launch argument 'b' not found; known: a"),
        (["a"], "'a' is not of the form key:=value"),
        ([], "argument 'a' is required: give a:=VALUE"),
    ],
)
def test_wrong_arguments_give_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    status, text = Launch(tmp_path, [{"arg": {"name": "a"}}], *words).end()
    assert status == 1
    assert message in text
    assert text.count("\n") == 1


def test_genuine_launch_is_handed_file_and_arguments(tmp_path: Path) -> None:
    """What `ros2 launch` would be given; a program of that name on the PATH writes it down."""
    status, text = Launch(tmp_path, [], "--engine", "ros").end()
    assert status == 1
    assert "ROS 2 launch is not installed here" in text
    (tmp_path / "site" / "launch").mkdir(parents=True)
    (tmp_path / "site" / "launch" / "__init__.py").write_text("")
    (tmp_path / "ros2").write_text('#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\nexit 3\n')
    (tmp_path / "ros2").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path / "site")}
    status, text = Launch(tmp_path, [], "a:=b c", "--engine", "ros", env=env).end()
    assert text.splitlines() == ["<launch>", f"<{tmp_path}/x.launch.yaml>", "<a:=b c>"]
    assert status == 3
