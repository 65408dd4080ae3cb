"""The networks over neighbours and obstacles as C: against double precision, and bit for bit on another processor."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, load, numpy_helper
from onnx.reference import ReferenceEvaluator
from support.onboard import EVERYTHING, policy_file

from controllers.artifact import PolicyArtifact
from robo_rl.entity_nets import Widths
from robo_rl.export_c.onboard import write_onboard
from robo_rl.export_c.report import LIMITS, ONBOARD, STRICT, report
from robo_rl.layout import layout_of
from robo_rl.policy_nets import NetShape, build

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
WIDTHS = Widths(token=10, heads=2, dense=24)
FIELDS = tuple(f for f in EVERYTHING if f.history == 1)


@pytest.fixture(scope="module", params=["two_token", "typed", "deep_sets"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PolicyArtifact, Path]:
    """A network with random weights that uses the whole range of its actions, as a policy file and as C."""
    folder = tmp_path_factory.mktemp(request.param)
    net = build(NetShape(request.param, layout_of(FIELDS), 4, "elu", widths=WIDTHS))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    artifact = policy_file(folder / "policy.onnx", FIELDS, net)
    write_onboard(artifact, folder / "c")
    return artifact, folder / "c"


def _observations(rows: int) -> NDArray[np.float32]:
    """Made-up observations, with every set of members present or absent, and what is far away at times."""
    rng, layout = np.random.default_rng(4), layout_of(FIELDS)
    obs = rng.standard_normal((rows, layout.size))
    obs[:, list(layout.flags)] = rng.integers(0, 2, (rows, len(layout.flags)))
    obs[::20] *= 10.0
    return obs.astype(np.float32)


def _in_double(path: Path, obs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The file's graph, run by onnx's reference implementation with all numbers in double precision."""
    model = load(str(path))
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del model.graph.value_info[:]
    (command,) = tuple(ReferenceEvaluator(model).run(None, {"policy": obs.astype(np.float64)}))
    return np.asarray(command)


def test_c_says_what_the_network_says(exported: tuple[PolicyArtifact, Path]) -> None:
    """400 observations, some of them ten times as large: within 1e-6 of double precision, in units of the command."""
    artifact, folder = exported
    command = ["gcc", *STRICT, "-shared", "-fPIC", str(folder / "policy.c"), "-o", str(folder / "policy.so")]
    subprocess.run(command, check=True, timeout=60)
    run = ctypes.CDLL(str(folder / "policy.so")).policy_run
    obs = _observations(400)
    got = np.zeros((len(obs), 4), np.float32)
    floats = ctypes.POINTER(ctypes.c_float)
    for row, out in zip(obs, got, strict=True):
        run(row.ctypes.data_as(floats), out.ctypes.data_as(floats))
    exact, graph = _in_double(artifact.path, obs), artifact.graph.run({"policy": obs})
    print(f"{np.abs(got - exact).max():.2g} from double precision, {np.abs(got - graph).max():.2g} from onnxruntime")
    np.testing.assert_allclose(got, exact, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(got, graph, rtol=0.0, atol=2e-6)
    assert np.ptp(got, axis=0).min() > 0.1


@pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="needs Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm",
)
def test_a_cortex_m4_gives_the_same_bits(exported: tuple[PolicyArtifact, Path]) -> None:
    """The whole controller, from made-up states of the drone to forces, on the stack that it is granted."""
    found = report(exported[1], ONBOARD)["cortex_m4"]
    print(found)
    assert found["same_bits"]
    assert found["stack_bytes"] + 64 <= LIMITS["stack_bytes"]  # controllerOutOfTree itself takes less than 64
