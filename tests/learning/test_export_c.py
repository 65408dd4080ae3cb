"""Policies as C: against onnxruntime, against numpy in double precision, and bit for bit on another processor."""

import ctypes
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.reference
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from controllers.artifact import NUM_PROBES, Card, PolicyArtifact, Probes, write_artifact
from controllers.graph import Graph
from controllers.interface import Interface
from hardware.errors import BadInput
from hardware.spec import load_spec
from robo_rl import cli
from robo_rl.export_c.report import STRICT, report
from robo_rl.export_c.source import write_c
from robo_rl.export_policy import DeployedPolicy, to_onnx, trial_observations
from robo_rl.norm import RunningNorm
from robo_rl.zoo import resolve

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
needs_board = pytest.mark.skipif(
    not (shutil.which("arm-none-eabi-gcc") and shutil.which("qemu-system-arm")),
    reason="needs Debian's gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm",
)


def _compiled(folder: Path, inputs: int, outputs: int) -> Any:
    """The folder's policy_run as a function of one observation, through a shared library."""
    library = folder / "policy.so"
    command = ["gcc", *STRICT, "-shared", "-fPIC", str(folder / "policy.c"), "-o", str(library)]
    subprocess.run(command, check=True, timeout=60)
    function = ctypes.CDLL(str(library)).policy_run
    floats = lambda n: np.ctypeslib.ndpointer(np.float32, shape=(n,), flags="C_CONTIGUOUS")  # noqa: E731
    function.argtypes, function.restype = [floats(inputs), floats(outputs)], None

    def run(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        command = np.zeros(outputs, np.float32)
        function(np.ascontiguousarray(observation), command)
        return command

    return run


class Attention(nn.Module):
    """Every operator that attention policies are made of: tokens, heads, softmax, layer norm, masked mean, tanh."""

    def __init__(self, size: int, actions: int) -> None:
        super().__init__()
        self.tokens = nn.Linear(size, 3 * 8)
        self.query, self.key, self.value = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(24, actions)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.tokens(x)).reshape(-1, 3, 8)
        split = lambda y: y.reshape(-1, 3, 2, 4).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.query(t)), split(self.key(t)), split(self.value(t))
        mixed = (torch.softmax(q @ k.transpose(-1, -2) / 2.0, -1) @ v).transpose(1, 2).reshape(-1, 3, 8)
        t = self.norm(t + mixed)
        pooled = torch.cat([t.mean(1), t.amax(1), torch.where(t[:, 0] > 0, t[:, 0], t[:, 1].exp() - 1.0)], -1)
        return torch.tanh(self.out(pooled))


def _attention_policy(path: Path) -> PolicyArtifact:
    """A policy file with an untrained attention network in place of the stored hover policy's."""
    stored = PolicyArtifact.load(resolve("zoo:quadrotor-hover-rotor"))
    card: Card = stored.card
    interface = Interface(load_spec(card.robot), card.mode, card.observation, card.action)
    size = interface.group_sizes["policy"]
    torch.manual_seed(5)
    norm = RunningNorm(size)
    norm.update(torch.randn(256, size))
    model = to_onnx(DeployedPolicy(Attention(size, 4), norm, interface).eval())
    graph = Graph(model, "attention")
    obs = trial_observations(norm)[:NUM_PROBES]
    write_artifact(path, model, replace(card, evaluation={}), Probes({"policy": obs}, graph.run({"policy": obs})))
    return PolicyArtifact.load(path)


def _in_double(path: Path, obs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The file's graph, run by onnx's reference implementation with all numbers in double precision."""
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float64), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    evaluator = onnx.reference.ReferenceEvaluator(model)
    return np.asarray(evaluator.run(None, {"policy": obs.astype(np.float64)})[0])


@needs_gcc
@pytest.mark.parametrize("name", ["quadrotor-hover", "quadrotor-hover-rotor", "attention"])
def test_c_says_what_onnxruntime_says(name: str, tmp_path: Path) -> None:
    """1,000 observations: within 1e-6 of the graph in double precision, in action units; onnxruntime, which rounds by
    as much (0.8e-6), is within 2e-6."""
    if name == "attention":
        artifact = _attention_policy(tmp_path / "attention.onnx")
    else:
        artifact = PolicyArtifact.load(resolve(f"zoo:{name}"))
    write_c(artifact, tmp_path / "c")
    size = artifact.graph.input_sizes["policy"]
    run = _compiled(tmp_path / "c", size, len(artifact.card.action))
    spread = artifact.probes.observation["policy"].std(axis=0)
    obs = np.random.default_rng(3).standard_normal((1000, size)).astype(np.float32) * np.minimum(spread, 10.0)
    obs[::50] *= 100.0
    expected = artifact.graph.run({"policy": obs})
    scale = np.maximum(1.0, np.abs([f.scale for f in artifact.card.action]))
    got = np.stack([run(o) for o in obs])
    from_exact = np.max(np.abs(got - _in_double(artifact.path, obs)) / scale)
    from_ort = np.max(np.abs(got - expected) / scale)
    print(f"{name}: {from_exact:.2g} from double precision, {from_ort:.2g} from onnxruntime")
    assert from_exact <= 1e-6
    assert from_ort <= 2e-6
    assert np.ptp(expected, axis=0).min() > 0.0


@needs_gcc
def test_elementary_functions_against_double_precision(tmp_path: Path) -> None:
    """exp to 2 ulp, tanh and sqrt to 2 ulp of float32, over their whole range, edges included."""
    template = Path(__file__).resolve().parents[2] / "robo_rl/export_c/math.c.in"
    wrap = "\n".join(f"float {n}(float x) {{ return policy_{n}(x); }}" for n in ("exp", "tanh", "sqrt"))
    (tmp_path / "m.c").write_text(f"#include <stdint.h>\n#define POLICY_APART\n{template.read_text()}\n{wrap}\n")
    built = ["gcc", "-std=c99", "-O2", "-ffp-contract=off", "-fno-builtin", "-shared", "-fPIC"]
    subprocess.run([*built, str(tmp_path / "m.c"), "-o", str(tmp_path / "m.so")], check=True, timeout=60)
    library = ctypes.CDLL(str(tmp_path / "m.so"))
    ranges = {"exp": (-87.0, 88.7), "tanh": (-12.0, 12.0), "sqrt": (1e-30, 1e30)}
    for name, (low, high) in ranges.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
        x = np.concatenate([np.linspace(low, high, 20_000), np.geomspace(1e-30, min(high, 1.0), 2_000)])
        x = x.astype(np.float32)
        exact = getattr(np, name)(x.astype(np.float64))
        got = np.array([function(float(v)) for v in x])
        ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        assert np.max(np.abs(got - exact) / ulp) <= 2.0, name
    assert library.exp(ctypes.c_float(-1000.0)) == 0.0
    assert np.isfinite(library.exp(ctypes.c_float(1000.0)))


@needs_gcc
def test_the_check_program_notices_a_wrong_constant(tmp_path: Path) -> None:
    write_c(PolicyArtifact.load(resolve("zoo:quadrotor-hover")), tmp_path)
    source = (tmp_path / "policy.c").read_text()
    begin = source.index("static const float c0[")
    first = source.index("0x", begin)
    (tmp_path / "policy.c").write_text(source[:first] + "0x1.8p+3f" + source[source.index("f", first + 4) + 1 :])
    subprocess.run(["gcc", *STRICT, "policy.c", "policy_check.c", "-o", "check"], cwd=tmp_path, check=True, timeout=60)
    assert subprocess.run(["./check"], cwd=tmp_path, capture_output=True, check=False).returncode > 0


@needs_gcc
@needs_board
def test_a_cortex_m4_gives_the_same_bits(tmp_path: Path) -> None:
    """Attention included; the emulated board runs the very files that the firmware would compile."""
    for artifact in (_attention_policy(tmp_path / "a.onnx"), PolicyArtifact.load(resolve("zoo:quadrotor-hover-rotor"))):
        write_c(artifact, tmp_path / "c")
        found = report(tmp_path / "c")["cortex_m4"]
        assert found["same_bits"]
        assert 1_000 < found["instructions"] < 1_000_000
        assert found["stack_bytes"] < 1_000


def test_command_writes_c_and_says_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_file = tmp_path / "result.json"
    arguments = ["export", "zoo:quadrotor-hover", "--c", str(tmp_path / "c"), "--json", str(json_file)]
    assert cli.main(arguments) == 0
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"policy.h", "policy.c", "policy_check.c"}
    assert json.loads(json_file.read_text())["c"]["parameters"] > 5000
    assert cli.main(["export", "zoo:quadrotor-hover"]) != 0
    assert "zoo:quadrotor-hover is no run directory" in capsys.readouterr().err


def test_an_operator_without_a_c_form_is_named(tmp_path: Path) -> None:
    artifact = _attention_policy(tmp_path / "policy.onnx")
    model = onnx.load(str(artifact.path))
    node = next(n for n in model.graph.node if n.op_type == "Tanh")
    node.op_type = "Sin"
    onnx.save(model, str(tmp_path / "sine.onnx"))
    artifact = replace(artifact, path=tmp_path / "sine.onnx")
    with pytest.raises(BadInput, match="operator Sin of this policy has no C form; operators: Abs, "):
        write_c(artifact, tmp_path / "c")
    assert not (tmp_path / "c").exists()
