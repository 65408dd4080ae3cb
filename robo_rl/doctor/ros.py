"""Checks of ROS 2: which build is used, whether two are mixed, its middleware, its traces in shared memory."""

import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from robo_rl.doctor.check import Check, install_line, probe

_SHM = Path("/dev/shm")
_DDS_BASE, _DDS_PER_DOMAIN = 7400, 250  # DDSI-RTPS 2.2, 9.6.1.4: PB and DG
_DDS_PORTS = 118  # discovery (10) and two ports for each of 54 processes, as the ROS 2 page on ROS_DOMAIN_ID counts


def build() -> Check:
    """Which rclpy would be imported, and from where."""
    origin = _rclpy()
    settings = ", ".join(f"{k}={os.environ[k]}" for k in ("ROS_DISTRO", "RMW_IMPLEMENTATION") if k in os.environ)
    if origin is None:
        mend = f"{install_line('ros2')}; elsewhere source a ROS 2 installation; or use --transport direct"
        return Check(
            "rclpy", False, "not installed", mend if _has_wheels() else "use --transport direct, or apt's ROS 2"
        )
    kind = "wheels" if _from_wheels() else "installation"
    return Check("rclpy", True, f"{kind}: {origin}{'; ' + settings if settings else ''}")


def mixture() -> Check:
    """Refuses two builds of ROS 2 in one process: their libraries would load in a random mix."""
    others = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p and _is_foreign_ros(Path(p))]
    libraries = [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if "/opt/ros/" in p]
    clash = others + libraries
    if _from_wheels() and clash:
        return Check(
            "one ROS 2",
            False,
            f"the wheels in {sys.prefix} and a sourced installation ({clash[0]}) at once",
            "use a shell that sources no setup.bash, or a venv made with --system-site-packages without [ros2]",
            core=True,
        )
    return Check("one ROS 2", True, "no second build in sight", core=True)


def ament_prefix() -> Check:
    """AMENT_PREFIX_PATH, which rclpy does not need but ament tools do."""
    value = os.environ.get("AMENT_PREFIX_PATH", "")
    missing = [p for p in value.split(os.pathsep) if p and not Path(p).is_dir()]
    if missing:
        return Check(
            "AMENT_PREFIX_PATH", False, f"names folders that do not exist: {missing[0]}", "unset AMENT_PREFIX_PATH"
        )
    return Check("AMENT_PREFIX_PATH", True, value or "not set; rclpy does not need it")


def node() -> Check:
    """Whether a node really starts."""
    if _rclpy() is None:
        return Check("ROS 2 node", False, "not tried: no rclpy", install_line("ros2") if _has_wheels() else "")
    ok, said = probe(
        "import rclpy\nfrom rclpy.utilities import get_rmw_implementation_identifier as rmw\n"
        "rclpy.init(); n = rclpy.create_node('robo_rl_doctor'); n.destroy_node(); rclpy.shutdown(); print(rmw())",
        {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
    )
    mend = ""
    if not ok:
        lost = "_ROS_WHEELS_BOOTSTRAP_COMPLETE" in os.environ and "LD_LIBRARY_PATH" not in os.environ
        mend = "unset _ROS_WHEELS_BOOTSTRAP_COMPLETE" if lost else install_line("ros2")
    return Check("ROS 2 node", ok, f"starts with {said}" if ok else said, mend)


def profile() -> Check:
    """The Fast DDS profile for messages beyond half a megabyte."""
    chosen = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE")
    if chosen and not Path(chosen).is_file():
        detail = f"FASTDDS_DEFAULT_PROFILES_FILE names no file: {chosen}"
        return Check("Fast DDS profile", False, detail, "unset FASTDDS_DEFAULT_PROFILES_FILE")
    nodes = importlib.util.find_spec("controllers.nodes")
    folders = list(nodes.submodule_search_locations or []) if nodes else []
    shipped = [str(f) for folder in folders for f in sorted(Path(folder).glob("*.xml"))]
    if chosen or shipped:
        return Check("Fast DDS profile", True, chosen or shipped[0])
    return Check("Fast DDS profile", False, "not shipped in this install", install_line(""))


def shared_memory() -> Check:
    """What killed ROS 2 processes have left in shared memory."""
    if not _SHM.is_dir():
        return Check("shared memory", True, f"no {_SHM} on this platform")
    names = [p.name for p in _SHM.iterdir() if re.match(r"(sem\.)?fastdds_", p.name)]
    used = _mapped(names) if names else set()
    left = [n for n in names if n not in used and not n.startswith("sem.")]
    if left:
        size = sum((_SHM / n).stat().st_size for n in left if (_SHM / n).exists())
        mend = f"once no ROS 2 program runs: rm -f {_SHM}/fastdds_* {_SHM}/sem.fastdds_*"
        return Check("shared memory", False, f"{len(left)} segments without a process, {size / 1e6:.1f} MB", mend)
    return Check("shared memory", True, f"{len(names)} segments in use" if names else "clean")


def ports() -> Check:
    """Whether the UDP ports of this DDS domain can collide with those the kernel hands out."""
    text = os.environ.get("ROS_DOMAIN_ID", "0")
    if not text.isdigit() or int(text) > 232:
        return Check(
            "DDS ports", False, f"ROS_DOMAIN_ID={text} is not a number from 0 to 232", "export ROS_DOMAIN_ID=0"
        )
    low = _DDS_BASE + _DDS_PER_DOMAIN * int(text)
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(ephemeral.read_text().split()[0]) if ephemeral.is_file() else 32768
    last = int(ephemeral.read_text().split()[1]) if ephemeral.is_file() else 60999
    ok = low + _DDS_PORTS <= first or low > last
    detail = f"domain {text}: UDP {low} to {low + _DDS_PORTS - 1}"
    mend = (
        "" if ok else f"export ROS_DOMAIN_ID=N with N from 0 to {(first - _DDS_PORTS - _DDS_BASE) // _DDS_PER_DOMAIN}"
    )
    return Check("DDS ports", ok, detail if ok else f"{detail}, inside the kernel's {first} to {last}", mend)


def checks() -> list[Callable[[], Check]]:
    """All checks of this file, in the order in which they are shown."""
    return [build, mixture, ament_prefix, node, profile, shared_memory, ports]


def _rclpy() -> str | None:
    spec = importlib.util.find_spec("rclpy")
    return spec.origin if spec else None


def _from_wheels() -> bool:
    """Whether the pip build of rclpy is installed in this environment (first on the path or not)."""
    try:
        where = importlib.metadata.distribution("ros-rclpy").locate_file("")
    except importlib.metadata.PackageNotFoundError:
        return False
    return Path(str(where)).resolve().is_relative_to(Path(sys.prefix).resolve())


def _has_wheels() -> bool:
    return sys.platform.startswith("linux") and os.uname().machine == "x86_64"


def _is_foreign_ros(prefix: Path) -> bool:
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "rmw_implementation"
    return marker.exists() and prefix.resolve() != Path(sys.prefix).resolve()


def _mapped(names: list[str]) -> set[str]:
    """Which of the segments some process that we may look into has mapped."""
    used: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:  # the process has ended, or is somebody else's
            continue
        used.update(n for n in names if f"{_SHM}/{n}" in text)
    return used
