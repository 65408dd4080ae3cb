"""Quadrotors whose rigid bodies PyBullet moves: rotors, drag and all that pushes stay the scene's own equations."""

import torch
from torch import Tensor

from sim.backends.bullet import GRAVITY, BulletBodies, Contacts
from sim.dynamics import quadrotor as body

BODY = slice(0, 13)


class BulletStep:
    """`sim.dynamics.quadrotor.step_semi_implicit` with PyBullet as the integrator.

    A row of the state that is not what the last step returned has been put there by somebody (a new episode, a resumed
    run), and its body is moved; so the engine needs no hooks in the task.
    """

    def __init__(self, bodies: BulletBodies) -> None:
        self.bodies = bodies
        self.inertia = torch.zeros(3, bodies.num)
        """(3, N) principal moments, kg m^2, to be set by the owner of the worlds."""
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
        mass = 1.0 / c.inverse_mass
        self._match(state, mass)
        # Bullet adds w x (J w) and gravity by itself.
        linear, angular = body.accelerations(
            state, c._replace(gyro=torch.zeros_like(c.gyro)), forms, rotor_gyro=rotor_gyro
        )
        linear[2] += GRAVITY
        force, torque = (mass * linear).double().numpy(), (self.inertia * angular).double().numpy()
        self.contacts.append(self.bodies.step(force, torque, dt_s))
        decay = body.lag_decay(c, dt_s) if decay is None else decay
        rotor = state[body.ROTOR]
        gap = command - rotor
        rotor = torch.addcmul(rotor, gap, torch.where(gap > 0.0, decay[0], decay[1]))
        self._returned = torch.from_numpy(self.bodies.state).to(state)
        return torch.cat([self._returned, rotor])

    def _match(self, state: Tensor, mass: Tensor) -> None:
        """Gives the bodies the masses and inertias, and those that were moved the places, of the planes."""
        weights = torch.cat([mass, self.inertia])
        rows = _changed(weights, self._weighed)
        if len(rows) > 0:
            planes = weights[:, rows].double().numpy()
            self.bodies.weigh(rows.numpy(), planes[0], planes[1:])
            self._weighed = weights.clone()
        rows = _changed(state[BODY], self._returned)
        if len(rows) > 0:
            self.bodies.place(rows.numpy(), state[BODY][:, rows].double().numpy())


def _changed(planes: Tensor, before: Tensor | None) -> Tensor:
    """Rows (batch entries) that differ."""
    if before is None:
        return torch.arange(planes.shape[-1])
    return (planes != before).any(0).nonzero()[:, 0]
