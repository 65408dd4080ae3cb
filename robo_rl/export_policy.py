"""From a trained network to a policy file: one graph that turns raw observations into SI commands."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from controllers.artifact import NUM_PROBES, Card, Probes, write_artifact
from controllers.graph import OUTPUT, Graph
from controllers.interface import Interface
from hardware.errors import RoboError
from robo_rl.norm import RunningNorm

OPSET = 18
PARITY_ROWS = 1000
TOLERANCE = 1e-5
"""Largest difference between the graph and torch that an export may have, relative to the action's scale."""


class DeployedPolicy(nn.Module):
    """Observation -> normaliser -> network -> `Interface.command`: what the graph holds."""

    def __init__(self, net: nn.Module, norm: RunningNorm, interface: Interface) -> None:
        super().__init__()
        self.net, self.interface = net, interface
        self.clip = norm.clip
        self.scale, self.shift = nn.Buffer(norm.scale.cpu().clone()), nn.Buffer(norm.shift.cpu().clone())

    def forward(self, policy: Tensor) -> Tensor:
        """Command (N, J) of the observation group `policy` (N, D)."""
        seen = torch.clamp(torch.addcmul(self.shift, policy, self.scale), -self.clip, self.clip)
        return self.interface.command(self.net(seen))


def export_policy(path: Path, net: nn.Module, norm: RunningNorm, interface: Interface, card: Card) -> float:
    """Writes the policy file and returns the largest difference from torch over 1,000 observations.

    Raises RoboError where that exceeds the tolerance, before anything is written.
    """
    module = DeployedPolicy(net.cpu(), norm, interface).eval()
    model = to_onnx(module)
    graph = Graph(model, str(path))
    obs = trial_observations(norm)
    with torch.no_grad():
        expected = module(torch.from_numpy(obs)).numpy()
    scale = np.maximum(1.0, np.abs([f.scale for f in interface.action]))
    difference = float(np.max(np.abs(graph.run({"policy": obs}) - expected) / scale))
    if not difference <= TOLERANCE:  # NaN fails too
        raise RoboError(f"the exported graph differs from torch by {difference:.2g}; allowed {TOLERANCE:g}")
    probes = obs[np.linspace(0, len(obs) - 1, NUM_PROBES).astype(int)]
    write_artifact(path, model, card, Probes({"policy": probes}, graph.run({"policy": probes})))
    return difference


def to_onnx(module: DeployedPolicy) -> bytes:
    """The module as a serialised ONNX model with a free batch size."""
    example = torch.zeros(2, module.scale.shape[0])
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter warns about its own dependencies
            program = torch.onnx.export(
                module,
                (example,),
                input_names=["policy"],
                output_names=[OUTPUT],
                dynamic_shapes={"policy": {0: torch.export.Dim("rows")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    if program is None:
        raise RoboError("torch.onnx.export gave no program")
    return program.model_proto.SerializeToString()


def trial_observations(norm: RunningNorm, rows: int = PARITY_ROWS) -> NDArray[np.float32]:
    """Observations to compare implementations on: spread as in training, +-10 standard deviations, and far beyond."""
    rng = np.random.default_rng(0)
    mean, std = norm.mean.cpu().numpy(), np.sqrt((norm.m2 / norm.count.clamp(min=1.0)).cpu().numpy())
    std = np.where(std > 0, std, 1.0)
    spread = rng.standard_normal((rows, len(mean)))
    spread[1::4] = 10.0 * rng.choice([-1.0, 1.0], size=spread[1::4].shape)
    spread[3::4] *= 10.0
    spread[0], spread[-1] = 1e6, -1e6
    return (mean + std * spread).astype(np.float32)
