"""Checks of Python and of the installed packages, by the extras of this distribution."""

import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

from robo_rl.doctor.check import Check, install_line, probe, repository

DISTRIBUTION = "robo_rl"
EXTRAS = ("train", "ros2", "crazyflie", "logging", "dev")
"""Extras that this version makes use of."""

_NATIVE = "import numpy, scipy, cv2, onnxruntime, mcap, rosbags, pymodbus; print('all load')"


def python() -> Check:
    """The interpreter."""
    ok = sys.version_info >= (3, 11)
    mend = "" if ok else "install Python 3.11 or newer and make the virtual environment with it"
    return Check("python", ok, f"{platform.python_version()} at {sys.executable}", mend, core=True)


def core() -> Check:
    """The packages of the plain install, present and loadable."""
    missing = _unmet("")
    if missing:
        return Check("core packages", False, f"missing: {', '.join(missing)}", install_line(""), core=True)
    ok, said = probe(_NATIVE)
    mend = "" if ok else f"{sys.executable} -m pip install --force-reinstall PACKAGE, for the package named"
    return Check("core packages", ok, said, mend, core=True)


def extra(name: str) -> Check:
    """One extra's packages."""
    missing = _unmet(name)
    if missing:
        return Check(f"extra [{name}]", False, f"missing: {', '.join(missing)}", install_line(name))
    return Check(f"extra [{name}]", True, "all packages are there" if _wanted(name) else "nothing for this platform")


def constraints() -> Check:
    """Whether the installed versions are those this repository is tested with."""
    root = repository()
    if root is None or not (root / "constraints.txt").is_file():
        return Check("versions", True, "no constraints.txt in an installed package; nothing to compare with")
    pins = _pins((root / "constraints.txt").read_text())
    others = [f"{n} {v} (tested: {pins[n]})" for n, v in _installed().items() if n in pins and v != pins[n]]
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        mend = f"make -B install  # in {root}"
        return Check("versions", False, shown, mend)
    return Check("versions", True, "all as in constraints.txt")


def torch() -> Check:
    """The learner's tensor library, its threads and devices."""
    ok, said = probe(
        "import torch; print(f'{torch.__version__}, {torch.get_num_threads()} threads, '"
        'f\'oneDNN {"yes" if torch.backends.mkldnn.is_available() else "no"}, \''
        "f'CUDA {torch.cuda.get_device_name() if torch.cuda.is_available() else \"no\"}')"
    )
    return Check("torch", ok, said, "" if ok else install_line("train"))


def allocator() -> Check:
    """The allocator training runs on; the default one costs page faults at every step."""
    launcher = Path(__file__).parents[1] / "launcher.py"
    if not sys.platform.startswith("linux") or not launcher.is_file():
        return Check("allocator", True, "not tuned on this platform")
    from robo_rl.launcher import find_jemalloc

    found = find_jemalloc()
    mend = "" if found else "apt-get install -y libjemalloc2"
    detail = str(found) if found else "no jemalloc: glibc with larger thresholds is used, which is nearly as fast"
    return Check("allocator", found is not None, detail, mend)


def zstd() -> Check:
    """The compression of recordings."""
    ok, said = probe(
        "import io\nfrom mcap.writer import Writer, CompressionType\nfrom mcap.reader import make_reader\n"
        "f = io.BytesIO(); w = Writer(f, compression=CompressionType.ZSTD); w.start()\n"
        "c = w.register_channel('a', 'b', w.register_schema('s', 'ros2msg', b''))\n"
        "w.add_message(c, 1, b'x', 1); w.finish(); f.seek(0)\n"
        "print(len(list(make_reader(f).iter_messages())), 'message written and read back')"
    )
    return Check("zstd recordings", ok, said, "" if ok else f"{sys.executable} -m pip install zstandard", core=True)


def checks() -> list[Callable[[], Check]]:
    """All checks of this file, in the order in which they are shown."""
    return [python, core, *(lambda n=n: extra(n) for n in EXTRAS), constraints, torch, allocator, zstd]


def _wanted(extra_name: str) -> list[tuple[str, str]]:
    """(package, requirement) of an extra, or of the plain install for '', that apply to this platform."""
    from packaging.requirements import Requirement

    found = []
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        plain = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        with_extra = requirement.marker is None or requirement.marker.evaluate({"extra": extra_name})
        if plain if extra_name == "" else with_extra and not plain:
            found.append((requirement.name, line))
    return found


def _unmet(extra_name: str) -> list[str]:
    """Requirements that are not there, or there in another version."""
    from packaging.requirements import Requirement

    unmet = []
    for name, line in _wanted(extra_name):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(name)
            continue
        if not Requirement(line).specifier.contains(version, prereleases=True):
            unmet.append(f"{name}{Requirement(line).specifier} (there is {version})")
    return unmet


def _installed() -> dict[str, str]:
    names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return {_canonical(n): v.split("+")[0] for n, v in names.items()}


def _pins(text: str) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    pairs = [line.partition("==") for line in lines if "==" in line]
    return {_canonical(name): version.strip() for name, _, version in pairs}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
