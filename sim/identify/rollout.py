"""What identification needs of a simulator: windows of a log run from measured starts under given parameters."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sim.param import Param

Array = NDArray[np.float64]


class Rollout(Protocol):
    """A scene's simulator as a function: W windows, each with its own parameters and start.

    All tensors are float64; the function must not branch on values, so that it can be differentiated.
    """

    @property
    def rate_hz(self) -> float:
        """Rate of the grid on which logs are compared."""
        ...

    @property
    def window_s(self) -> float:
        """Length of a window: long enough for the parameters to show, short enough for an open loop to stay near."""
        ...

    @property
    def history(self) -> int:
        """How many commands before a window's start it wants to know."""
        ...

    @property
    def params(self) -> Mapping[str, Param]:
        """What may be identified."""
        ...

    @property
    def signals(self) -> Mapping[str, float]:
        """What is compared -> smallest standard deviation of its noise that is believed."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Logged signals that are given, not predicted: weather, measured actuators."""
        ...

    @property
    def hidden(self) -> Mapping[str, float]:
        """What the log does not show at a window's start -> standard deviation around the function's own guess."""
        ...

    @property
    def delay(self) -> str | None:
        """The parameter that is a dead time, if any."""
        ...

    @property
    def accuracy(self) -> float:
        """Relative standard error that its own time step leaves in a parameter; no interval is narrower."""
        ...

    def __call__(
        self, params: Tensor, start: Mapping[str, Tensor], hidden: Tensor, commands: Tensor, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Signals (N, T + 1, k) from starts (N, k), with params (P, N), hidden (N, h), commands (N, history + T, J).

        `given` holds the inputs (N, T + 1, k). Row 0 of a result is the start.
        """
        ...


class Windows(NamedTuple):
    """W stretches of logs of equal length, T steps each."""

    signals: dict[str, Tensor]
    """Name -> (W, T + 1, k)."""
    commands: Tensor
    """(W, history + T, J)."""
    log: NDArray[np.int64]
    """(W,) which log a window is from."""
    start_s: Array
    """(W,) seconds into that log's grid."""

    def take(self, rows: NDArray[np.int64]) -> "Windows":
        """Some of the windows."""
        at = torch.as_tensor(rows)
        return Windows(
            {k: v[at] for k, v in self.signals.items()}, self.commands[at], self.log[rows], self.start_s[rows]
        )

    @property
    def count(self) -> int:
        """W."""
        return len(self.log)


def tangent_size(name: str, values: Tensor) -> int:
    """Numbers that describe a small change of a signal: three for an attitude."""
    return 3 if name == "quat_wxyz" else values.shape[-1]


def difference(name: str, a: Tensor, b: Tensor) -> Tensor:
    """a minus b (..., k); for attitudes the small rotation vector that turns b into a, in b's frame."""
    if name != "quat_wxyz":
        return a - b
    aw, ax, ay, az = a.unbind(-1)
    w, x, y, z = b.unbind(-1)
    real = aw * w + ax * x + ay * y + az * z
    turn = torch.stack(
        [w * ax - x * aw - y * az + z * ay, w * ay + x * az - y * aw - z * ax, w * az - x * ay + y * ax - z * aw], -1
    )
    # The short way round; 2 atan2(|v|, w) v / |v| without its singularity at zero.
    turn = torch.where(real[..., None] < 0.0, -turn, turn)
    length = torch.sqrt((turn * turn).sum(-1, keepdim=True) + 1e-24)
    return turn * (2.0 * torch.atan2(length, real.abs()[..., None]) / length)


def moved(name: str, values: Tensor, change: Tensor) -> Tensor:
    """A signal (..., k) after a small change (..., tangent)."""
    if name != "quat_wxyz":
        return values + change
    w, x, y, z = values.unbind(-1)
    a, b, c = (0.5 * change).unbind(-1)
    turned = torch.stack(
        [w - x * a - y * b - z * c, x + w * a + y * c - z * b, y + w * b - x * c + z * a, z + w * c + x * b - y * a], -1
    )
    return turned / torch.linalg.vector_norm(turned, dim=-1, keepdim=True)


def start_size(rollout: Rollout, windows: Windows) -> int:
    """Numbers that describe a window's start: corrections of the measured signals, then what is hidden."""
    return sum(tangent_size(n, windows.signals[n]) for n in rollout.signals) + len(rollout.hidden)


@torch.no_grad()
def residuals(rollout: Rollout, windows: Windows, params: Tensor, starts: Tensor) -> dict[str, Tensor]:
    """Simulated minus logged: signal -> (B, W, T + 1, tangent), for B trials of params (B, P) and starts (B, W, Z)."""
    trials, count = starts.shape[:2]
    flat = starts.reshape(trials * count, -1)
    begin, at = {}, 0
    logged = {n: v.expand(trials, *v.shape).reshape(trials * count, *v.shape[1:]) for n, v in windows.signals.items()}
    for name in rollout.signals:
        size = tangent_size(name, logged[name])
        begin[name] = moved(name, logged[name][:, 0], flat[:, at : at + size])
        at += size
    commands = windows.commands.expand(trials, *windows.commands.shape).reshape(-1, *windows.commands.shape[1:])
    each = params.repeat_interleave(count, 0).T
    given = {n: logged[n] for n in rollout.inputs}
    simulated = rollout(each, begin, flat[:, at:], commands, given)
    return {
        name: difference(name, simulated[name], logged[name]).reshape(trials, count, *logged[name].shape[1:2], -1)
        for name in rollout.signals
    }
