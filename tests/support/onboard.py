"""Policies for the drone itself, made without training, and the exported C of them as a library of this process."""

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.pd_policy import linear_model
from torch import nn

from controllers.artifact import NUM_PROBES, Card, PolicyArtifact, Probes, write_artifact
from controllers.graph import Graph
from controllers.interface import Field, Interface
from hardware.spec import load_spec
from robo_rl.export_c.onboard import write_onboard
from robo_rl.export_c.report import ONBOARD, STRICT
from robo_rl.export_policy import DeployedPolicy, to_onnx
from robo_rl.norm import RunningNorm

SPEC = load_spec("crazyflie")
ACTION = tuple(Field(f"rotor_{i}", f"rotor_{i}", 1, "1", offset=0.55, scale=0.45) for i in range(1, 5))
K, M = 2, 3
_NEAR: dict[str, Any] = {"entity": "neighbour", "members": K}
_FAR: dict[str, Any] = {"entity": "obstacle", "members": M}
EVERYTHING = (
    Field("error", "error:position_world", 3, "m", "yaw", scale=0.5, clip=1.25),
    Field("error_near", "error:position_world", 3, "m", "body", scale=4.0, clip=1.0, history=2),
    Field("error_world", "error:position_world", 3, "m"),
    Field("goal", "goal:position_world", 3, "m", "world", offset=1.0),
    Field("position", "position_world", 3, "m", "world", scale=0.1),
    Field("velocity", "velocity_world", 3, "m/s", "yaw", scale=0.5, clip=3.0, history=3),
    Field("velocity_body", "velocity_world", 3, "m/s", "body"),
    Field("attitude", "quat_wxyz", 4, "1"),
    Field("rotation", "rotation", 9, "1", history=2),
    Field("gravity", "gravity", 3, "1", "body"),
    Field("down", "gravity", 3, "1", "yaw"),
    Field("rate", "angular_velocity_body", 3, "rad/s", "body", scale=0.2, clip=4.0, history=3),
    Field("command", "command", 4, "1", clip=2.0, history=4),
    Field("battery", "battery_voltage", 1, "V", offset=3.7, scale=2.0),
    Field("height", "height", 1, "m", scale=0.5),
    Field("neighbour_position", "neighbour_position", 3 * K, "m", "yaw", clip=8.0, **_NEAR),
    Field("neighbour_position_world", "neighbour_position", 3 * K, "m", "world", **_NEAR),
    Field("neighbour_velocity", "neighbour_velocity", 3 * K, "m/s", "yaw", history=2, **_NEAR),
    Field("neighbour_distance", "neighbour_distance", K, "m", **_NEAR),
    Field("neighbour_closing", "neighbour_closing", K, "m/s", **_NEAR),
    Field("neighbour_present", "neighbour_present", K, "1", **_NEAR),
    Field("grid_yaw", "obstacle_grid_yaw", 9, "m", clip=3.0, entity="obstacle"),
    Field("grid_world", "obstacle_grid_world", 9, "m", entity="obstacle"),
    Field("obstacle_direction", "obstacle_direction", 2 * M, "1", "yaw", **_FAR),
    Field("obstacle_direction_world", "obstacle_direction", 2 * M, "1", "world", **_FAR),
    Field("obstacle_clearance", "obstacle_clearance", M, "m", scale=2.5, clip=6.0, **_FAR),
    Field("obstacle_closing", "obstacle_closing", M, "m/s", **_FAR),
    Field("obstacle_present", "obstacle_present", M, "1", **_FAR),
)
"""Every source in every frame that it has, with histories, offsets and clips among them."""


def policy_file(
    path: Path,
    fields: tuple[Field, ...] = EVERYTHING,
    net: nn.Module | bytes | None = None,
    *,
    rate_hz: float = 100.0,
    mode: str = "rotor_thrust",
) -> PolicyArtifact:
    """A policy file of these fields; network or ONNX model untrained (default: linear, weights from seed 7)."""
    action = ACTION if mode == "rotor_thrust" else tuple(Field(c, c, 1, "1") for c in SPEC.mode(mode).components)
    interface = Interface(SPEC, mode, fields, action)
    size = interface.group_sizes["policy"]
    rng = np.random.default_rng(7)
    if net is None:
        weight = rng.normal(0.0, 0.3 / np.sqrt(size), (size, 4)).astype(np.float32)
        model = linear_model(weight, np.full(4, 0.55, np.float32))
    elif isinstance(net, bytes):
        model = net
    else:
        model = to_onnx(DeployedPolicy(net, RunningNorm(size), interface).eval())
    obs = rng.uniform(-0.4, 0.4, (NUM_PROBES, size)).astype(np.float32)
    card = Card(
        robot=SPEC.name,
        robot_digest=SPEC.digest(),
        mode=mode,
        rate_hz=rate_hz,
        observation=fields,
        action=action,
        scene="quadrotor/test",
        ranges_digest="",
        commit="none",
        seed=7,
        algorithm="none",
        env_steps=0,
    )
    write_artifact(path, model, card, Probes({"policy": obs}, Graph(model, str(path)).run({"policy": obs})))
    return PolicyArtifact.load(path)


class Peer(ctypes.Structure):
    """onboard_peer."""

    _fields_ = (
        *((axis, ctypes.c_float) for axis in "xyz"),
        ("stamp_ms", ctypes.c_uint32),
        ("id", ctypes.c_int32),
    )


class Obstacle(ctypes.Structure):
    """onboard_obstacle."""

    _fields_ = (("x", ctypes.c_float), ("y", ctypes.c_float), ("radius", ctypes.c_float))


class Inputs(ctypes.Structure):
    """onboard_inputs."""

    _fields_ = (
        ("position", ctypes.c_float * 3),
        ("velocity", ctypes.c_float * 3),
        ("quat_wxyz", ctypes.c_float * 4),
        ("gyro", ctypes.c_float * 3),
        ("goal", ctypes.c_float * 3),
        ("battery_v", ctypes.c_float),
        ("now_ms", ctypes.c_uint32),
        ("num_peers", ctypes.c_int32),
        ("num_obstacles", ctypes.c_int32),
        ("peers", ctypes.POINTER(Peer)),
        ("obstacles", ctypes.POINTER(Obstacle)),
    )


class Onboard:
    """The exported C of a policy, with one memory block."""

    def __init__(self, artifact: PolicyArtifact, folder: Path) -> None:
        write_onboard(artifact, folder)
        sources = [str(folder / s) for s in ONBOARD.sources]
        command = ["gcc", *STRICT, "-shared", "-fPIC", *sources, "-o", str(folder / "onboard.so")]
        subprocess.run(command, check=True, timeout=60)
        self._library = ctypes.CDLL(str(folder / "onboard.so"))
        self._library.onboard_observation.restype = ctypes.POINTER(ctypes.c_float)
        self.period_ms = self._library.onboard_period_ms()
        self.max_peers = self._library.onboard_max_peers()
        self._memory = (ctypes.c_uint64 * (self._library.onboard_memory_bytes() // 8 + 1))()
        self.start()

    def start(self) -> None:
        """onboard_init_in."""
        self._library.onboard_init_in(self._memory)

    def step(self, inputs: Inputs) -> tuple[int, NDArray[np.float32]]:
        """onboard_step_in: what it says, and the forces (4,)."""
        forces = np.full(4, np.nan, np.float32)
        said = self._library.onboard_step_in(
            self._memory, ctypes.byref(inputs), forces.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        )
        return said, forces

    @property
    def observation(self) -> NDArray[np.float32]:
        """(D,) of the newest decision."""
        return np.array(self._library.onboard_observation()[: self._library.onboard_observation_size()], np.float32)


def inputs_of(
    state: dict[str, NDArray[np.float32]],
    goal: NDArray[np.float32],
    now_ms: int,
    peers: list[tuple[int, int, NDArray[np.float32]]],
    obstacles: NDArray[np.float32],
) -> Inputs:
    """The inputs of a state (signal -> value), peers (id, stamp, position) and obstacles (L, 3)."""
    value = Inputs(battery_v=float(state["battery_voltage"]), now_ms=now_ms % 2**32)
    value.position[:] = state["position_world"].tolist()
    value.velocity[:] = state["velocity_world"].tolist()
    value.quat_wxyz[:] = state["quat_wxyz"].tolist()
    value.gyro[:] = state["angular_velocity_body"].tolist()
    value.goal[:] = goal.tolist()
    value.num_peers, value.num_obstacles = len(peers), len(obstacles)
    value.peers = (Peer * max(len(peers), 1))(*(Peer(*p.tolist(), stamp % 2**32, i) for i, stamp, p in peers))
    value.obstacles = (Obstacle * max(len(obstacles), 1))(*(Obstacle(*o) for o in obstacles.tolist()))
    return value
