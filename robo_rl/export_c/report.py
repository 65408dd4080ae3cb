"""What a generated policy costs: compiled here and for a Cortex-M4, run on both, compared bit for bit."""

import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from hardware.errors import RoboError

STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-ffp-contract=off")
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
TICK_INSTRUCTIONS = 40
"""The board's timer runs at 25 MHz of a clock that passes 1 ns per instruction."""
PROBES = 16


def report(folder: Path) -> dict[str, Any]:
    """Figures of the C files in `folder`, for every compiler there is; raises RoboError where a result is wrong.

    `host` and `cortex_m4` hold `code_bytes`, `constant_bytes`, `ram_bytes` and `stack_bytes` of policy.c alone;
    `cortex_m4` also `instructions` per decision and `same_bits` where QEMU can run it.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        bits = _host(folder, Path(scratch), found) if shutil.which("gcc") else None
        if shutil.which("arm-none-eabi-gcc"):
            _cortex_m4(folder, Path(scratch), found, bits)
    return found


def _host(folder: Path, scratch: Path, found: dict[str, Any]) -> str:
    found["host"] = _sizes("gcc", "size", STRICT, folder, scratch)
    binary = scratch / "check"
    _run("gcc", *STRICT, folder / "policy.c", folder / "policy_check.c", "-o", binary)
    return _run(binary)


def _cortex_m4(folder: Path, scratch: Path, found: dict[str, Any], bits: str | None) -> None:
    compiler = "arm-none-eabi-gcc"
    found["cortex_m4"] = _sizes(compiler, "arm-none-eabi-size", (*STRICT, *CORTEX_M4), folder, scratch)
    if not shutil.which("qemu-system-arm"):
        return
    board = Path(str(resources.files("robo_rl.export_c"))) / "cortex_m4"
    image = scratch / "check.elf"
    sources = (folder / "policy.c", folder / "policy_check.c", board / "startup.c")
    linked = ("--specs=rdimon.specs", "-nostartfiles", "-T", board / "mps2_an386.ld")
    flags = ("-std=c99", "-O2", "-ffp-contract=off", *CORTEX_M4, "-DPOLICY_TICKS=board_ticks")
    _run(compiler, *flags, *linked, *sources, "-o", image)
    machine = ("-M", "mps2-an386", "-nographic", "-icount", "shift=0")
    said = _run(
        "qemu-system-arm", *machine, "-semihosting-config", "enable=on,target=native", "-kernel", image
    ).splitlines()
    ticks = int(said[-1].split()[0])
    found["cortex_m4"]["instructions"] = ticks * TICK_INSTRUCTIONS // PROBES
    if bits is not None:
        found["cortex_m4"]["same_bits"] = said[:-1] == bits.splitlines()


def _sizes(compiler: str, size: str, flags: tuple[str, ...], folder: Path, scratch: Path) -> dict[str, int]:
    part = scratch / "policy.o"
    _run(compiler, *flags, "-fstack-usage", "-c", folder / "policy.c", "-o", part)
    sections = dict(re.findall(r"^(\.\S+)\s+(\d+)", _run(size, "-A", part), re.MULTILINE))
    total = lambda start: sum(int(n) for name, n in sections.items() if name.startswith(start))  # noqa: E731
    stack = re.findall(r"\t(\d+)\t", part.with_suffix(".su").read_text())
    return {
        "code_bytes": total(".text"),
        "constant_bytes": total(".rodata"),
        "ram_bytes": total(".data") + total(".bss"),
        "stack_bytes": sum(map(int, stack)),
    }


def _run(*command: str | Path) -> str:
    """Standard output of a program; raises RoboError with the first line of its complaint."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()
        raise RoboError(f"{Path(command[0]).name} failed with status {done.returncode}: {said[-1]}")
    return done.stdout
