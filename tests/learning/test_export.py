"""From actor to policy file: the graph says what torch says, on ordinary and on absurd observations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from controllers.artifact import Card, PolicyArtifact
from controllers.interface import Interface
from hardware.errors import RoboError
from hardware.spec import load_spec
from robo_rl import export_policy as exporter
from robo_rl.nets import MLP, Actor
from robo_rl.norm import RunningNorm
from sim.registry import scene_entry

SPEC = scene_entry("quadrotor/hover").spec(scene_entry("quadrotor/hover").config)
INTERFACE = Interface(load_spec(SPEC.robot), SPEC.mode, SPEC.observation, SPEC.action)
SIZE = INTERFACE.group_sizes["policy"]


def trained() -> tuple[Actor, RunningNorm]:
    """A network with weights of the size training leaves, and a normaliser that has seen something."""
    weights = torch.Generator().manual_seed(5)
    actor = Actor(MLP((SIZE, 64, 64, 4), last_gain=1.0, generator=weights), 4, 0.4)
    norm = RunningNorm(SIZE)
    norm.update(2.0 * torch.randn(500, SIZE, generator=weights) + 1.0)
    return actor, norm


def card() -> Card:
    return Card(
        robot=SPEC.robot,
        robot_digest=load_spec(SPEC.robot).digest(),
        mode=SPEC.mode,
        rate_hz=SPEC.rate_hz,
        observation=SPEC.observation,
        action=SPEC.action,
        scene=SPEC.id,
        ranges_digest="0" * 64,
        commit="unknown",
        seed=0,
        algorithm="ppo",
        env_steps=0,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    path = tmp_path_factory.mktemp("export") / "policy.onnx"
    return path, exporter.export_policy(path, trained()[0].net, trained()[1], INTERFACE, card())


def by_hand(obs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The policy in numpy and double precision, from the same parameters."""
    actor, norm = trained()
    std = np.sqrt((norm.m2 / norm.count).numpy()) + 1e-2
    x = np.clip((obs - norm.mean.numpy()) / std, -10, 10)
    parameters = list(zip(actor.net.weights, actor.net.biases, strict=True))
    for i, (w, b) in enumerate(parameters):
        x = x @ w.detach().double().numpy().T + b.detach().double().numpy()
        if i < len(parameters) - 1:
            x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    scale, offset = (np.array([getattr(f, k) for f in SPEC.action]) for k in ("scale", "offset"))
    return offset + scale * np.clip(x, -1, 1)


def test_difference_from_torch_is_below_1e_5_on_a_thousand_observations(exported: tuple[Path, float]) -> None:
    assert exported[1] <= 1e-5


def test_graph_agrees_with_the_same_policy_in_numpy(exported: tuple[Path, float]) -> None:
    obs = exporter.trial_observations(trained()[1])
    assert obs.shape == (1000, SIZE)
    assert np.abs(obs).max() == pytest.approx(2e6, rel=0.2)  # extreme ones are among them
    given = PolicyArtifact.load(exported[0]).run({"policy": obs})
    np.testing.assert_allclose(given, by_hand(obs), atol=2e-5)


def test_commands_stay_within_the_actions_range(exported: tuple[Path, float]) -> None:
    wild = np.full((1, SIZE), 1e30, np.float32)
    given = PolicyArtifact.load(exported[0]).run({"policy": np.concatenate([wild, -wild])})
    high = np.array([f.offset + abs(f.scale) for f in SPEC.action])
    low = np.array([f.offset - abs(f.scale) for f in SPEC.action])
    assert np.isfinite(given).all()
    assert (given <= high + 1e-6).all()
    assert (given >= low - 1e-6).all()


def test_one_file_of_a_pinned_opset(exported: tuple[Path, float]) -> None:
    import onnx

    model = onnx.load(str(exported[0]))
    onnx.checker.check_model(model)
    assert [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")] == [exporter.OPSET]
    assert not any(t.external_data for t in model.graph.initializer)
    assert list(exported[0].parent.iterdir()) == [exported[0]]


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor, norm = trained()
    other = Actor(MLP((SIZE, 64, 64, 4), last_gain=0.9, generator=torch.Generator().manual_seed(6)), 4, 0.4)
    model = exporter.to_onnx(exporter.DeployedPolicy(other.net, norm, INTERFACE))
    monkeypatch.setattr(exporter, "to_onnx", lambda module: model)
    with pytest.raises(RoboError, match="differs from torch by"):
        exporter.export_policy(tmp_path / "policy.onnx", actor.net, norm, INTERFACE, card())
    assert not list(tmp_path.iterdir())
