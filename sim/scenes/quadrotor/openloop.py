"""Nominal drones that start where a log says and fly what a log commanded; see sim.replay.OpenLoop."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardware.robots.crazyflie.firmware import start_cascade
from sim.dynamics import quadrotor as body
from sim.scenes.quadrotor.hover import HoverTask
from sim.scenes.quadrotor.world import pack_cascade
from sim.spec import SceneSpec


class OpenLoopDrones:
    """N worlds of the nominal family.

    What a log does not show is assumed: rotors at the last commanded thrust, the firmware's integrals at zero.
    """

    inputs: tuple[str, ...] = ()

    def __init__(self, task: HoverTask, spec: SceneSpec) -> None:
        self._worlds, self._attitude = task.worlds, spec.mode == "attitude_thrust"
        self._generator = torch.Generator().manual_seed(0)
        task.restart(None, self._generator)

    def place(self, signals: Mapping[str, Tensor], commands: Tensor) -> None:
        """See OpenLoop.place."""
        state = self._worlds.state
        last = commands[:, 0].T
        rotor = last[3:].expand(4, -1) if self._attitude else last
        names = ("position_world", "velocity_world", "quat_wxyz", "angular_velocity_body")
        planes = torch.cat([*(signals[name].T for name in names), rotor.clamp(0.0, 1.0)])
        state["body"] = planes.contiguous()
        angles = body.euler_angles(body.rotation_forms(planes[body.QUAT]))
        state["cascade"] = pack_cascade(start_cascade(angles, planes[body.RATE]))
        kept = state["commands"].shape[0]
        state["commands"] = commands[:, :kept].permute(1, 2, 0).contiguous()

    def advance(self, command: Tensor, given: Mapping[str, Tensor]) -> None:
        """See OpenLoop.advance."""
        self._worlds.advance(command, self._generator)

    def signals(self) -> Mapping[str, Tensor]:
        """See OpenLoop.signals."""
        return self._worlds.truth()
