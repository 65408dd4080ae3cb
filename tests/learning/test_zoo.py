"""The policies that ship: they load, their cards are complete, and their evaluation comes out again."""

import re
from pathlib import Path

import pytest

from controllers.artifact import PolicyArtifact
from hardware.errors import BadInput, NotFoundError
from robo_rl import zoo
from robo_rl.config import from_plain
from robo_rl.evaluate import scene_config
from robo_rl.job import evaluate_policy
from sim.registry import scene_entry, scene_ids


def test_names_resolve(tmp_path: Path) -> None:
    assert zoo.names(), "the zoo is empty"
    for name in zoo.names():
        assert zoo.resolve(f"zoo:{name}").is_file()
    (tmp_path / "policy.onnx").write_bytes(b"x")
    assert zoo.resolve(tmp_path) == zoo.resolve(tmp_path / "policy.onnx") == tmp_path / "policy.onnx"
    with pytest.raises(NotFoundError, match="zoo policy 'no-such' not found; known: "):
        zoo.resolve("zoo:no-such")
    with pytest.raises(BadInput, match="policy absent not found; expected a "):
        zoo.resolve("absent")


@pytest.mark.parametrize("name", zoo.names())
def test_card_and_readme_say_how_it_was_made(name: str) -> None:
    card = PolicyArtifact.load(zoo.resolve(f"zoo:{name}")).card
    assert card.scene in scene_ids()
    assert re.fullmatch(r"[0-9a-f]{40}", card.commit), "trained from files that no commit holds"
    readme = (zoo.resolve(f"zoo:{name}").parent / "README.md").read_text()
    assert name in readme
    assert card.command_line in readme
    assert card.commit[:12] in readme


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_evaluation_is_reproduced(name: str) -> None:
    path = zoo.resolve(f"zoo:{name}")
    artifact = PolicyArtifact.load(path)
    said = artifact.card.evaluation
    world = scene_config(artifact, scene_entry(artifact.card.scene).config)
    world = from_plain(world, said.get("world", {}))  # settings other than the scene's own that it was made for
    found = evaluate_policy(path, episodes=said["episodes"], seed=said["seed"], family=said["family"], world=world)
    assert found["success_rate"] == pytest.approx(said["success_rate"], abs=0.004)  # four episodes of 1,000
    assert found["return_mean"] == pytest.approx(said["return_mean"], rel=0.01)
