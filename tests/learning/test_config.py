"""Configurations: round trip through YAML, wrong keys and types named, importable without torch."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from hardware.errors import BadInput
from robo_rl.config import PPOConfig, RunConfig, from_plain, read_yaml, to_plain, write_yaml


@dataclass(frozen=True)
class World:
    mode: Literal["a", "b"] = "a"
    radius: float | None = None
    count: int = 1


CONFIG = RunConfig("some/scene", algo=PPOConfig(hidden=(7, 8), learning_rate=3e-4), scene_config=World("b", 0.1, 2))


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    write_yaml(CONFIG, tmp_path / "config.yaml")
    default = RunConfig("other/scene", scene_config=World())
    assert from_plain(default, read_yaml(tmp_path / "config.yaml")) == CONFIG


def test_round_trip_keeps_none(tmp_path: Path) -> None:
    config = replace(CONFIG, scene_config=World())
    write_yaml(config, tmp_path / "config.yaml")
    assert from_plain(CONFIG, read_yaml(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"algo": {"learing_rate": 1.0}}, "config.algo: unknown key 'learing_rate'; keys: activation"),
        ({"algo": {"epochs": "five"}}, "config.algo.epochs = 'five'; expected int"),
        ({"algo": {"epochs": True}}, "config.algo.epochs = True; expected int"),
        ({"algo": 3}, "config.algo = 3; expected a mapping"),
        ({"scene_config": {"mode": "c"}}, "config.scene_config.mode = 'c'; expected one of a, b"),
    ],
)
def test_what_does_not_fit_is_named(raw: dict, words: str) -> None:
    with pytest.raises(BadInput) as e:
        from_plain(CONFIG, raw)
    assert words in str(e.value)


def test_whole_numbers_stand_for_floats() -> None:
    assert from_plain(PPOConfig(), {"gamma": 1}).gamma == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "not found"), ("a: [", "not valid YAML"), ("a: 1", "names no scene"), ("3", "names no scene")],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=words):
        read_yaml(path)


def test_plain_values_are_plain() -> None:
    plain = to_plain(CONFIG)
    assert plain["algo"]["hidden"] == [7, 8]
    assert plain["scene_config"] == {"mode": "b", "radius": 0.1, "count": 2}


def test_importable_without_torch() -> None:
    code = "import sys, robo_rl.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
