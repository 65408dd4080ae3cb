"""What generated C costs: compiled here and for a Cortex-M4, run on both, compared bit for bit."""

import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from hardware.errors import RoboError

STRICT = (
    *("-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-pedantic", "-Werror"),
    "-ffp-contract=off",
)
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
TICK_INSTRUCTIONS = 40
"""The board's timer runs at 25 MHz of a clock that passes 1 ns per instruction."""


class Program(NamedTuple):
    """C files that belong together."""

    sources: tuple[str, ...]
    """What is measured."""
    check: str
    """The program that runs it; its last line, on the board, counts timer ticks."""
    entry: str
    """The function whose stack is measured, with everything that it calls."""


POLICY = Program(("policy.c",), "policy_check.c", "policy_run")
ONBOARD = Program(("policy.c", "observation.c", "onboard.c"), "onboard_check.c", "onboard_step")

LIMITS = {"flash_bytes": 512 * 1024, "ram_bytes": 16 * 1024, "stack_bytes": 256, "longest_instructions": 75_000}
"""What a controller may take of a Crazyflie 2.1: half of its 1 MB of flash, an eighth of its 128 kB of main memory, a
seventh of the stabilizer task's stack of 1,800 bytes, and 0.45 to 0.71 ms of the stabilizer's period of 1 ms (168 MHz,
1.0 to 1.6 cycles per instruction). The firmware and its other tasks need the rest."""


def report(folder: Path, program: Program = POLICY) -> dict[str, Any]:
    """Figures of a program in `folder`, for every compiler there is; raises RoboError where a result is wrong.

    `host` and `cortex_m4` hold `code_bytes`, `constant_bytes`, `ram_bytes` and `stack_bytes` (of the deepest chain of
    calls, without the C library's memcpy; where the compiler is GNU's); `cortex_m4` also `instructions` per decision
    and `longest_instructions`, and `same_bits` where QEMU can run it.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        bits = _host(folder, program, Path(scratch), found) if shutil.which("gcc") else None
        if shutil.which("arm-none-eabi-gcc"):
            _cortex_m4(folder, program, Path(scratch), found, bits)
    return found


def beyond_limits(figures: dict[str, Any]) -> list[str]:
    """What of a controller's figures for the Cortex-M4 is more than the drone has to spare, in words."""
    have = figures | {"flash_bytes": figures["code_bytes"] + figures["constant_bytes"]}
    return [f"{k} {have[k]:,} (limit {v:,})" for k, v in LIMITS.items() if have.get(k, 0) > v]


def _host(folder: Path, program: Program, scratch: Path, found: dict[str, Any]) -> str:
    found["host"] = _sizes("gcc", "size", STRICT, folder, program, scratch)
    binary = scratch / "check"
    _run("gcc", *STRICT, *_files(folder, program), "-o", binary)
    return _run(binary)


def _cortex_m4(folder: Path, program: Program, scratch: Path, found: dict[str, Any], bits: str | None) -> None:
    compiler = "arm-none-eabi-gcc"
    found["cortex_m4"] = _sizes(compiler, "arm-none-eabi-size", (*STRICT, *CORTEX_M4), folder, program, scratch)
    if not shutil.which("qemu-system-arm"):
        return
    board = Path(str(resources.files("robo_rl.export_c"))) / "cortex_m4"
    image = scratch / "check.elf"
    linked = ("--specs=rdimon.specs", "-nostartfiles", "-T", board / "mps2_an386.ld")
    flags = ("-std=c99", "-O2", "-ffp-contract=off", *CORTEX_M4, "-DPOLICY_TICKS=board_ticks")
    _run(compiler, *flags, *linked, *_files(folder, program), board / "startup.c", "-o", image)
    machine = ("-M", "mps2-an386", "-nographic", "-icount", "shift=0")
    said = _run(
        "qemu-system-arm", *machine, "-semihosting-config", "enable=on,target=native", "-kernel", image
    ).splitlines()
    ticks, decisions, longest = map(int, re.findall(r"\d+", said[-1]))
    found["cortex_m4"]["instructions"] = ticks * TICK_INSTRUCTIONS // decisions
    found["cortex_m4"]["longest_instructions"] = longest * TICK_INSTRUCTIONS
    if bits is not None:
        found["cortex_m4"]["same_bits"] = said[:-1] == bits.splitlines()


def _files(folder: Path, program: Program) -> list[Path]:
    return [folder / name for name in (*program.sources, program.check)]


def _sizes(
    compiler: str, size: str, flags: tuple[str, ...], folder: Path, program: Program, scratch: Path
) -> dict[str, int]:
    sections: list[tuple[str, str]] = []
    graph = ""
    gnu = "Free Software Foundation" in _run(compiler, "--version")
    for name in program.sources:
        part = scratch / Path(name).with_suffix(".o")
        _run(compiler, *flags, *(("-fcallgraph-info=su",) if gnu else ()), "-c", folder / name, "-o", part)
        sections += re.findall(r"^(\.\S+)\s+(\d+)", _run(size, "-A", part), re.MULTILINE)
        graph += part.with_suffix(".ci").read_text() if gnu else ""
    total = lambda start: sum(int(n) for name, n in sections if name.startswith(start))  # noqa: E731
    return {
        "code_bytes": total(".text"),
        "constant_bytes": total(".rodata"),
        "ram_bytes": total(".data") + total(".bss"),
    } | ({"stack_bytes": _deepest(graph, program.entry)} if gnu else {})


def _deepest(graph: str, entry: str) -> int:
    """Bytes of the deepest chain of calls from `entry`, of gcc's call graphs; raises RoboError for recursion."""
    own = {t: int(n) for t, n in re.findall(r'node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes', graph)}
    calls: dict[str, set[str]] = {}
    for caller, callee in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', graph):
        calls.setdefault(caller, set()).add(callee)

    def below(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise RoboError(f"function {name} of the generated code calls itself")
        inner = (below(callee, (*above, name)) for callee in calls.get(name, ()))
        return own.get(name, 0) + max(inner, default=0)

    return below(entry, ())


def _run(*command: str | Path) -> str:
    """Standard output of a program; raises RoboError with the first line of its complaint."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()
        raise RoboError(f"{Path(command[0]).name} failed with status {done.returncode}: {said[-1]}")
    return done.stdout
