"""Allocator and threads, which must be set before a process starts: the command restarts itself once with them.

What the default allocator costs: it maps and unmaps every large activation, 1,000 to 3,000 page faults per training
step. jemalloc with its decay switched off keeps them, as does glibc with larger thresholds. OpenMP workers that spin
while they wait slow each other down on a busy machine.
"""

import os
import sys
from pathlib import Path

MARKER = "ROBO_RL_LAUNCHED"
"""Set in the restarted process; set it yourself to prevent the restart."""

JEMALLOC_CONF = "dirty_decay_ms:-1,muzzy_decay_ms:-1"
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def relaunch() -> None:
    """Replaces this process by itself with the environment of `tuned`, once, where it is the command line's own.

    Does nothing in a process that has been restarted, that somebody else started (a test, a notebook), or where the
    platform has no such allocator settings.
    """
    if MARKER in os.environ or not sys.platform.startswith("linux") or not _is_command():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], tuned(dict(os.environ)))


def tuned(environment: dict[str, str], jemalloc: Path | None = None) -> dict[str, str]:
    """A copy of the environment with allocator and thread settings added; what the user has set stays."""
    added = {MARKER: "1"} | THREADS
    preload = environment.get("LD_PRELOAD", "")
    jemalloc = jemalloc or find_jemalloc()
    if "jemalloc" in preload or jemalloc:
        added["MALLOC_CONF"] = JEMALLOC_CONF
        if jemalloc and "malloc" not in preload:
            environment = environment | {"LD_PRELOAD": f"{jemalloc} {preload}".strip()}
    elif "malloc" not in preload:
        added |= GLIBC
    return added | environment


def find_jemalloc() -> Path | None:
    """The shared library of the Debian package libjemalloc2 and its like, or None."""
    for folder in ("/usr/lib/*", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        found = sorted(Path("/").glob(f"{folder.lstrip('/')}/libjemalloc.so.2"))
        if found:
            return found[0]
    return None


def allocator() -> str:
    """Name of the allocator this process runs on."""
    preload = os.environ.get("LD_PRELOAD", "")
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in preload:
            return name
    return "glibc, tuned" if "MALLOC_MMAP_THRESHOLD_" in os.environ else "default"


def _is_command() -> bool:
    program = Path(sys.argv[0])
    return program.name == "robo-rl" or (program.name == "__main__.py" and program.parent.name == "robo_rl")
