"""A policy file for the greenhouse without training: a linear set-point law as an ONNX graph."""

from pathlib import Path

import numpy as np
from support.pd_policy import linear_model

from controllers.artifact import Card, Probes, write_artifact
from controllers.interface import Field
from hardware.spec import load_spec

OBSERVATION = (
    Field("temperature", "air_temperature", 1, "degC", offset=15.0, scale=0.1),
    Field("humidity", "relative_humidity", 1, "1", offset=0.8, scale=5.0),
    Field("co2", "co2", 1, "ppm", offset=800.0, scale=0.0025),
    Field("season", "season", 3, "1"),
    Field("command", "command", 3, "1"),
    Field("forecast", "forecast", 52, "W/m^2, degC, 1, ppm", scale=0.01),
)
SIZE = 61
ACTION = (
    Field("co2_injection", "co2_injection", 1, "mg/m^2/s", offset=0.6, scale=0.6),
    Field("ventilation", "ventilation", 1, "mm/s", offset=3.75, scale=3.75),
    Field("heating", "heating", 1, "W/m^2", offset=75.0, scale=75.0),
)


def greenhouse_weights() -> tuple[np.ndarray, np.ndarray]:
    """CO2 towards 800 ppm, vents half open at noon and shut at midnight, heat towards 15 degC, less in the sun."""
    weight, bias = np.zeros((SIZE, 3), dtype=np.float32), np.array([0.0, -0.5, -0.2], dtype=np.float32)
    weight[2, 0] = -2.0
    weight[4, 1], weight[0, 1] = -0.5, 0.1
    weight[0, 2] = -4.0
    weight[9, 2] = -0.05  # radiation now
    return weight, bias


def write_greenhouse_policy(path: Path) -> Path:
    """A policy file that runs a greenhouse by positions of its actuators, every half hour."""
    spec = load_spec("greenhouse_plc")
    weight, bias = greenhouse_weights()
    card = Card(
        robot=spec.name,
        robot_digest=spec.digest(),
        mode="direct",
        rate_hz=spec.mode("direct").rate_hz,
        observation=OBSERVATION,
        action=ACTION,
        scene="greenhouse/lettuce",
        ranges_digest="0" * 64,
        commit="0" * 40,
        seed=0,
        algorithm="linear",
        env_steps=0,
    )
    # The graph's output is a command, not an action: scaled by the action's fields, as the exporter does.
    scale = np.array([f.scale for f in ACTION], dtype=np.float32)
    offset = np.array([f.offset for f in ACTION], dtype=np.float32)
    weight, bias = weight * scale, bias * scale + offset
    observations = np.random.default_rng(5).normal(size=(16, SIZE)).astype(np.float32)
    model = linear_model(weight, bias)
    write_artifact(path, model, card, Probes({"policy": observations}, observations @ weight + bias))
    return path
