"""Quadrotors whose rigid bodies PyBullet moves: rotors, drag and all that pushes stay the scene's own equations."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hardware.errors import BadInput
from sim.backends.bullet import GRAVITY, BulletBodies, Contacts, Room
from sim.dynamics import quadrotor as body
from sim.randomization import Family
from sim.scenes.quadrotor.hover import HoverConfig, HoverTask
from sim.spec import SceneSpec

BODY = slice(0, 13)
INERTIA = ("inertia_xx", "inertia_yy", "inertia_zz")
LONGEST_S = 0.0025
"""Longer steps are split: contacts overlap less, and a flight is twice as exact as in the scene's own steps of 5 ms."""


class BulletStep:
    """`sim.dynamics.quadrotor.step_semi_implicit` with PyBullet as the integrator.

    A row of the state that is not what the last step returned has been put there by somebody (a new episode, a resumed
    run), and its body is moved; so the engine needs no hooks in the task.
    """

    def __init__(self, bodies: BulletBodies, inertia: Callable[[], Tensor]) -> None:
        """`inertia()` gives the present principal moments (3, N), kg m^2."""
        self.bodies, self._inertia = bodies, inertia
        self.contacts: list[Contacts] = []
        """Of the steps since somebody emptied the list."""
        self._returned: Tensor | None = None
        self._weighed: Tensor | None = None

    def __call__(
        self,
        state: Tensor,
        command: Tensor,
        c: body.Coefficients,
        *,
        dt_s: float,
        decay: Tensor | None = None,
        forms: Tensor | None = None,
        rotor_gyro: bool = True,
    ) -> Tensor:
        """The state (17, N) after `dt_s` under rotor commands (4, N)."""
        mass, inertia = 1.0 / c.inverse_mass, self._inertia()
        self._match(state, torch.cat([mass, inertia]))
        parts = math.ceil(dt_s / LONGEST_S - 1e-9)
        if parts > 1 or decay is None:
            decay = body.lag_decay(c, dt_s / parts)
        still = c._replace(gyro=torch.zeros_like(c.gyro))  # Bullet adds w x (J w) and gravity by itself
        for part in range(parts):
            shape = forms if part == 0 else None
            linear, angular = body.accelerations(state, still, shape, rotor_gyro=rotor_gyro)
            linear[2] += GRAVITY
            force, torque = (mass * linear).double().numpy(), (inertia * angular).double().numpy()
            self.contacts.append(self.bodies.step(force, torque, dt_s / parts))
            rotor = state[body.ROTOR]
            gap = command - rotor
            rotor = torch.addcmul(rotor, gap, torch.where(gap > 0.0, decay[0], decay[1]))
            self._returned = torch.from_numpy(self.bodies.state).to(state)
            state = torch.cat([self._returned, rotor])
        return state

    def _match(self, state: Tensor, weights: Tensor) -> None:
        """Gives the bodies the masses and inertias (4, N), and those that were moved the places, of the planes."""
        rows = _changed(weights, self._weighed)
        if len(rows) > 0:
            planes = weights[:, rows].double().numpy()
            self.bodies.weigh(rows.numpy(), planes[0], planes[1:])
            self._weighed = weights.clone()
        rows = _changed(state[BODY], self._returned)
        if len(rows) > 0:
            self.bodies.place(rows.numpy(), state[BODY][:, rows].double().numpy())


def hover_task(
    num_envs: int, *, spec: SceneSpec, config: HoverConfig, family: Family, device: str | torch.device
) -> HoverTask:
    """The hover task with drones that PyBullet moves; raises BadInput for a device other than the CPU."""
    check_device(device)
    known = list(spec.params)
    moments = [known.index(name) for name in INERTIA]
    step = BulletStep(BulletBodies(num_envs, 1, Room(radius_m=0.046)), lambda: task.parameters[moments])
    # PyBullet cannot be recorded or compiled.
    task = HoverTask(num_envs, spec=spec, config=replace(config, engine="eager"), family=family, step=step)
    return task


def check_device(device: str | torch.device) -> None:
    """Raises BadInput for a device other than the CPU, where PyBullet runs."""
    if torch.device(device).type != "cpu":
        raise BadInput(f"back end pybullet runs on the cpu, not on {device}")


def _changed(planes: Tensor, before: Tensor | None) -> Tensor:
    """Rows (batch entries) that differ."""
    if before is None:
        return torch.arange(planes.shape[-1])
    return (planes != before).any(0).nonzero()[:, 0]
