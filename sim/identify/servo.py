"""A position-controlled joint as identification sees it: a stiff, damped, rubbing servo behind a dead time.

    q'' = stiffness (u(t - delay) + offset - q) - damping q' - friction tanh(q' / 0.05)

per unit of inertia; q is the joint's angle, u the commanded one. Semi-implicit Euler, four substeps per sample, with
damping and friction taken at the new speed: explicit friction of 200 rad/s^2 would chatter.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from sim.param import Param

SUBSTEPS = 4
SLIP_RAD_S = 0.05
"""Speed below which friction is proportional to speed."""


def _param(name: str, nominal: float, unit: str, low: float, high: float) -> Param:
    return Param(name, nominal, unit, low, high, "set", "guess", "starts and bounds of the servo model", low, high)


PARAMS = {
    p.name: p
    for p in (
        _param("stiffness", 2500.0, "1/s^2", 100.0, 20000.0),
        _param("damping", 60.0, "1/s", 1.0, 500.0),
        _param("friction", 5.0, "rad/s^2", 0.0, 200.0),
        _param("offset", 0.0, "rad", -0.3, 0.3),
        _param("delay", 0.005, "s", 0.0, 0.05),
    )
}


class ServoRollout:
    """One joint; signal `position` (1,), command the wanted angle (1,). See sim.identify.rollout.Rollout."""

    inputs: tuple[str, ...] = ()
    delay = "delay"
    accuracy = 0.002

    def __init__(self, rate_hz: float, *, window_s: float = 0.5, resolution_rad: float = 2e-5) -> None:
        self.rate_hz, self.window_s = rate_hz, window_s
        self.params: Mapping[str, Param] = PARAMS
        self.signals = {"position": resolution_rad}
        self.hidden = {"velocity": 2.0}
        self.history = 1 + int(PARAMS["delay"].high * rate_hz + 0.999)

    def __call__(
        self, params: Tensor, start: Mapping[str, Tensor], hidden: Tensor, commands: Tensor, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See Rollout."""
        stiffness, damping, friction, offset, delay = params
        q = start["position"][:, 0]
        v = hidden[:, 0] + (commands[:, self.history, 0] - commands[:, self.history - 1, 0]) * self.rate_hz
        wanted = commands[..., 0]
        dt_s = 1.0 / (self.rate_hz * SUBSTEPS)
        path = [q]
        for k in range(commands.shape[1] - self.history):
            for j in range(SUBSTEPS):
                u = held(wanted, self.history + k + j / SUBSTEPS - delay * self.rate_hz)
                drag = damping + friction * _over(v)
                v = (v + dt_s * stiffness * (u + offset - q)) / (1.0 + dt_s * drag)
                q = q + dt_s * v
            path.append(q)
        return {"position": torch.stack(path, 1)[..., None]}


def _over(v: Tensor) -> Tensor:
    """tanh(v / slip) / v, also at rest."""
    x = v / SLIP_RAD_S
    small = x.abs() < 1e-4
    safe = torch.where(small, torch.ones_like(x), x)
    return torch.where(small, 1.0 - x * x / 3.0, torch.tanh(safe) / safe) / SLIP_RAD_S


def held(values: Tensor, at: Tensor) -> Tensor:
    """values (N, H) at fractional places (N,), linear in between."""
    at = at.clamp(0.0, values.shape[1] - 1.0)
    low = at.detach().floor().clamp(max=values.shape[1] - 2).long()
    share = at - low
    a, b = values.gather(1, low[:, None])[:, 0], values.gather(1, low[:, None] + 1)[:, 0]
    return a + share * (b - a)
