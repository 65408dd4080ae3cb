"""The environment a training process is restarted with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robo_rl import launcher

JEMALLOC = Path("/usr/lib/libjemalloc.so.2")


def test_jemalloc_is_preloaded_where_it_exists() -> None:
    env = launcher.tuned({"PATH": "/bin"}, JEMALLOC)
    assert env["LD_PRELOAD"] == str(JEMALLOC)
    assert env["MALLOC_CONF"] == launcher.JEMALLOC_CONF
    assert (env["OMP_WAIT_POLICY"], env["OMP_NUM_THREADS"]) == ("passive", "1")
    assert "MALLOC_MMAP_THRESHOLD_" not in env


def test_glibc_thresholds_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "find_jemalloc", lambda: None)
    env = launcher.tuned({})
    assert "LD_PRELOAD" not in env
    assert int(env["MALLOC_MMAP_THRESHOLD_"]) >= 4e9


def test_what_the_user_has_set_stays() -> None:
    env = launcher.tuned({"OMP_NUM_THREADS": "4", "MALLOC_CONF": "x", "LD_PRELOAD": "/opt/libtcmalloc.so"}, JEMALLOC)
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["MALLOC_CONF"] == "x"
    assert env["LD_PRELOAD"] == "/opt/libtcmalloc.so"


def test_other_preloaded_libraries_are_kept() -> None:
    assert launcher.tuned({"LD_PRELOAD": "/opt/x.so"}, JEMALLOC)["LD_PRELOAD"] == f"{JEMALLOC} /opt/x.so"


def test_a_process_of_somebody_elses_is_not_replaced() -> None:
    launcher.relaunch()  # this very process: pytest would end here


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="restarts on Linux only")
def test_the_command_restarts_itself_once_with_its_arguments(tmp_path: Path) -> None:
    package = tmp_path / "robo_rl"
    package.mkdir()
    root = Path(launcher.__file__).resolve().parent.parent
    script = package / "__main__.py"
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(root)!r})\n"
        "from robo_rl import launcher\nprint('start', os.getpid(), flush=True)\nlauncher.relaunch()\n"
        "print('end', os.getpid(), sys.argv[1:], os.environ['OMP_WAIT_POLICY'])\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in (launcher.MARKER, "OMP_WAIT_POLICY")}
    for env, starts in ((clean, 2), (clean | {launcher.MARKER: "1", "OMP_WAIT_POLICY": "passive"}, 1)):
        done = subprocess.run(
            [sys.executable, str(script), "a b", "--c"], env=env, capture_output=True, text=True, check=True
        )
        lines = done.stdout.splitlines()
        assert len(lines) == starts + 1
        assert len({line.split()[1] for line in lines}) == 1  # replaced, not spawned
        assert lines[-1].endswith("['a b', '--c'] passive")
