"""A policy compiled for this machine, as the emulated drones' on-board controller: the C that a real drone would run.

Interface: `export_c/onboard.h.in`. Every drone has a memory block of its own; the library and its work buffers are
shared, because the drones of an emulation are stepped one after the other.
"""

import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput, RoboError
from hardware.robots.crazyflie.obstacles import NOTHING, Obstacles
from hardware.robots.crazyflie.onboard import Senses

ABI = 1
SOURCES = ("policy.c", "observation.c", "onboard.c")
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC")

PEER = np.dtype([("position", "f4", 3), ("stamp_ms", "u4"), ("id", "i4")], align=True)
OBSTACLE = np.dtype([("centre", "f4", 2), ("radius", "f4")], align=True)
INPUTS = np.dtype(
    [
        ("position", "f4", 3),
        ("velocity", "f4", 3),
        ("quat_wxyz", "f4", 4),
        ("gyro", "f4", 3),
        ("goal", "f4", 3),
        ("battery_v", "f4"),
        ("now_ms", "u4"),
        ("num_peers", "i4"),
        ("num_obstacles", "i4"),
        ("peers", np.uintp),
        ("obstacles", np.uintp),
    ],
    align=True,
)
"""onboard_peer, onboard_obstacle and onboard_inputs of onboard.h, laid out as this machine's C compiler does."""


class CompiledPolicy:
    """A `hardware.robots.crazyflie.onboard.OnboardPolicy` for R drones over a shared library."""

    def __init__(self, library: Path, num_robots: int, obstacles: Obstacles = NOTHING) -> None:
        """Raises RoboError for a library that cannot be loaded or has another interface."""
        try:
            # A call takes microseconds: it is not worth letting other threads in.
            self._library = ctypes.PyDLL(str(library.resolve()))
            self._step, self._init = self._library.onboard_step_in, self._library.onboard_init_in
            abi, size = self._library.onboard_abi(), self._library.onboard_memory_bytes()
        except (OSError, AttributeError) as e:
            raise RoboError(f"{library} is no policy for on board: {e}") from e
        if abi != ABI:
            raise RoboError(f"{library} has interface version {abi}; expected {ABI}")
        self._step.argtypes, self._init.argtypes = [ctypes.c_void_p] * 3, [ctypes.c_void_p]
        self.period_ms = int(self._library.onboard_period_ms())
        self._memory = np.zeros((num_robots, -(-size // 8)), np.uint64)
        self._inputs = np.zeros(num_robots, INPUTS)
        self._forces = np.zeros((num_robots, 4), np.float32)
        self._peers = np.zeros((num_robots, 0), PEER)
        self._obstacles = np.zeros(len(obstacles.radius), OBSTACLE)
        self._obstacles["centre"], self._obstacles["radius"] = obstacles
        self._inputs["num_obstacles"] = len(self._obstacles)
        self._inputs["obstacles"] = self._obstacles.ctypes.data
        places = (self._memory, self._inputs, self._forces)
        self._places = [tuple(p.ctypes.data + i * p.strides[0] for p in places) for i in range(num_robots)]
        for i in range(num_robots):
            self.restart(i)

    def restart(self, index: int) -> None:
        """Drone `index` forgets everything."""
        self._init(self._places[index][0])
        self._forces[index] = 0.0

    def step(self, active: NDArray[np.bool_], senses: Senses) -> NDArray[np.float64]:
        """Rotor forces (4, R) of the active drones, 0..1, NaN where it refuses; other columns mean nothing."""
        to, estimate = self._inputs, senses.estimate
        to["position"], to["velocity"] = estimate.position.T, estimate.velocity.T
        to["quat_wxyz"], to["gyro"] = estimate.quat.T, estimate.gyro.T
        to["goal"], to["battery_v"], to["now_ms"] = senses.goal.T, senses.battery_v, senses.now_ms
        peers = senses.peers
        if self._peers.shape != peers.ids.shape:
            self._peers = np.zeros(peers.ids.shape, PEER)
            to["peers"] = self._peers.ctypes.data + self._peers.strides[0] * np.arange(len(self._peers))
        self._peers["position"], self._peers["stamp_ms"], self._peers["id"] = peers.position, peers.heard_ms, peers.ids
        to["num_peers"] = np.count_nonzero(peers.ids, axis=1)  # places are filled from the first on
        for i in np.flatnonzero(active).tolist():
            if self._step(*self._places[i]) < 0:  # ONBOARD_REFUSED
                self._forces[i] = np.nan
        return self._forces.T.astype(np.float64)


def compiled(policy: str) -> Path:
    """The shared library of a policy (a file, a run, zoo:NAME) or of a folder that `robo-rl export` wrote.

    Kept in the user's cache under the hash of its sources. Raises BadInput for a policy that does not fly on board,
    RoboError where gcc is missing or fails.
    """
    if (Path(policy) / "onboard.c").is_file():
        return _library(Path(policy))
    from controllers.artifact import PolicyArtifact
    from robo_rl.export_c.onboard import write_onboard
    from robo_rl.zoo import resolve

    with tempfile.TemporaryDirectory() as scratch:
        write_onboard(PolicyArtifact.load(resolve(policy)), Path(scratch))
        return _library(Path(scratch))


def cache_folder() -> Path:
    """Where compiled policies are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robo_rl" / "onboard"


def _library(folder: Path) -> Path:
    if missing := [name for name in SOURCES if not (folder / name).is_file()]:
        raise BadInput(f"{folder} lacks {', '.join(missing)}; robo-rl export writes them")
    texts = {p.name: p.read_bytes() for p in sorted(folder.glob("*.[ch]"))}
    digest = hashlib.sha256(repr((FLAGS, texts)).encode()).hexdigest()[:24]
    library = cache_folder() / f"{digest}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as aside:
        made = Path(aside) / "onboard.so"
        command = ["gcc", *FLAGS, *(str(folder / name) for name in SOURCES), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except FileNotFoundError as e:
            raise RoboError("gcc not found: it compiles the policy for on board; on Debian: apt-get install gcc") from e
        if done.returncode:
            raise RoboError(f"gcc failed with status {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
        made.replace(library)
    return library
