"""A policy file without training: a linear law as an ONNX graph, made by the third-party `onnx` package."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from controllers.artifact import Card, Probes, write_artifact
from controllers.interface import Field
from hardware.spec import load_spec

OBSERVATION = (
    Field("position_error", "error:position_world", 3, "m", frame="yaw", clip=1.0),
    Field("velocity", "velocity_world", 3, "m/s", frame="yaw", history=2),
    Field("gravity", "gravity", 3, "1", frame="body"),
    Field("command", "command", 4, "1", history=2),
)
SCALE = {"roll": (0.5, 0.0), "pitch": (0.5, 0.0), "yaw_rate": (2.0, 0.0), "thrust": (0.35, 0.55)}
HOVER = 0.592


def linear_model(weight: np.ndarray, bias: np.ndarray) -> bytes:
    """command = observation @ weight + bias, as a serialised ONNX model with a dynamic batch."""
    sizes = weight.shape
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["policy", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["command"]),
        ],
        "linear",
        [helper.make_tensor_value_info("policy", TensorProto.FLOAT, ["N", sizes[0]])],
        [helper.make_tensor_value_info("command", TensorProto.FLOAT, ["N", sizes[1]])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def nan_model(weight: np.ndarray, bias: np.ndarray, highest: float) -> bytes:
    """The same, but not a number as soon as the first observation exceeds `highest`: sqrt of a negative number."""
    take = np.zeros((weight.shape[0], 1), dtype=np.float32)
    take[0, 0] = -1.0
    nothing = np.zeros((1, weight.shape[1]), dtype=np.float32)
    constants = {"weight": weight, "bias": bias, "take": take, "highest": np.float32([highest]), "nothing": nothing}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["policy", "weight"], ["product"]),
            helper.make_node("MatMul", ["policy", "take"], ["minus"]),
            helper.make_node("Add", ["minus", "highest"], ["room"]),
            helper.make_node("Sqrt", ["room"], ["root"]),
            helper.make_node("MatMul", ["root", "nothing"], ["zero"]),
            helper.make_node("Add", ["product", "bias"], ["wish"]),
            helper.make_node("Add", ["wish", "zero"], ["command"]),
        ],
        "nan",
        [helper.make_tensor_value_info("policy", TensorProto.FLOAT, ["N", weight.shape[0]])],
        [helper.make_tensor_value_info("command", TensorProto.FLOAT, ["N", weight.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def pd_weights(gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Proportional-derivative flight by attitude and thrust: accelerations over g are angles."""
    weight = np.zeros((20, 4), dtype=np.float32)
    error, velocity = 0, 3
    kp, kd, g = 3.0, 2.8, 9.81
    weight[error + 1, 0], weight[velocity + 1, 0] = -kp / g, kd / g  # roll moves it to the right, y points left
    weight[error + 0, 1], weight[velocity + 0, 1] = kp / g, -kd / g
    weight[error + 2, 3], weight[velocity + 2, 3] = HOVER * 5.0 / g, -HOVER * 4.0 / g
    return weight * np.float32(gain), np.array([0.0, 0.0, 0.0, HOVER], dtype=np.float32)


ROTOR_OBSERVATION = (
    Field("position_error", "error:position_world", 3, "m", frame="body", clip=1.0),
    Field("velocity", "velocity_world", 3, "m/s", frame="body"),
    Field("gravity", "gravity", 3, "1", frame="body"),
    Field("rate", "angular_velocity_body", 3, "rad/s", frame="body"),
)


def rotor_weights() -> tuple[np.ndarray, np.ndarray]:
    """Flight by rotor thrusts, linear about hover: gravity in the body shows the tilt as (pitch, -roll)."""
    kp, kd, g = 2.0, 2.2, 9.81
    # Stiffness 160 /s2 and damping 22 /s times J / (4 l F), with J 1.66e-5 kg m2, l 0.046 m / sqrt 2, F 0.12 N.
    stiff, damp = 0.17, 0.0234
    turn = np.zeros((12, 4), dtype=np.float32)  # roll, pitch, yaw, lift
    turn[1, 0], turn[4, 0], turn[7, 0], turn[9, 0] = -stiff * kp / g, stiff * kd / g, stiff, -damp
    turn[0, 1], turn[3, 1], turn[6, 1], turn[10, 1] = stiff * kp / g, -stiff * kd / g, -stiff, -damp
    turn[11, 2] = -0.03
    turn[2, 3], turn[5, 3] = HOVER * 4.0 / g, -HOVER * 3.5 / g
    mix = np.array([[-1, -1, 1, 1], [-1, 1, 1, -1], [-1, 1, -1, 1], [1, 1, 1, 1]], dtype=np.float32)
    return turn @ mix, np.full(4, HOVER, dtype=np.float32)


def write_rotor_policy(path: Path) -> Path:
    """A policy file that flies a Crazyflie by rotor thrusts."""
    weight, bias = rotor_weights()
    action = tuple(Field(f"rotor_{i}", f"rotor_{i}", 1, "1", scale=0.45, offset=0.55) for i in (1, 2, 3, 4))
    return _write(path, "rotor_thrust", ROTOR_OBSERVATION, action, linear_model(weight, bias), weight, bias)


def write_pd_policy(path: Path, *, gain: float = 1.0, nan_above: float | None = None) -> Path:
    """A policy file that flies a Crazyflie by set points; `gain` spoils it, `nan_above` breaks it far ahead."""
    mode = load_spec("crazyflie").mode("attitude_thrust")
    action = tuple(
        Field(c, c, 1, u, scale=SCALE[c][0], offset=SCALE[c][1])
        for c, u in zip(mode.components, mode.units, strict=True)
    )
    weight, bias = pd_weights(gain)
    model = linear_model(weight, bias) if nan_above is None else nan_model(weight, bias, nan_above)
    return _write(path, "attitude_thrust", OBSERVATION, action, model, weight, bias)


def _write(
    path: Path,
    mode: str,
    observation: tuple[Field, ...],
    action: tuple[Field, ...],
    model: bytes,
    weight: np.ndarray,
    bias: np.ndarray,
) -> Path:
    observations = np.random.default_rng(5).normal(size=(16, len(weight))).astype(np.float32)
    observations[:, 0] = -np.abs(observations[:, 0])
    card = Card(
        robot="crazyflie",
        robot_digest=load_spec("crazyflie").digest(),
        mode=mode,
        rate_hz=100.0,
        observation=observation,
        action=action,
        scene="quadrotor/hover",
        ranges_digest="0" * 64,
        commit="0" * 40,
        seed=0,
        algorithm="linear",
        env_steps=0,
    )
    write_artifact(path, model, card, Probes({"policy": observations}, observations @ weight + bias))
    return path


PERCEIVING = (
    *OBSERVATION,
    Field("height", "height", 1, "m"),
    Field("neighbours", "neighbour_position", 6, "m", frame="yaw", entity="neighbour", members=2),
    Field("closing", "neighbour_closing", 2, "m/s", entity="neighbour", members=2),
    Field("there", "neighbour_present", 2, "1", entity="neighbour", members=2),
    Field("grid", "obstacle_grid_yaw", 9, "m", entity="obstacle"),
    Field("clearance", "obstacle_clearance", 2, "m", clip=3.0, entity="obstacle", members=2),
)


def write_perceiving_policy(path: Path, *, seed: int = 1, size: float = 2e-3) -> Path:
    """The policy of `write_pd_policy`, swayed a little by two neighbours and two obstacles: random weights."""
    weight, bias = pd_weights()
    width = sum(f.size * f.history for f in PERCEIVING) - len(weight)
    sway = size * np.random.default_rng(seed).normal(size=(width, 4)).astype(np.float32)
    weight = np.concatenate([weight, sway])
    mode = load_spec("crazyflie").mode("attitude_thrust")
    action = tuple(
        Field(c, c, 1, u, scale=SCALE[c][0], offset=SCALE[c][1])
        for c, u in zip(mode.components, mode.units, strict=True)
    )
    return _write(path, "attitude_thrust", PERCEIVING, action, linear_model(weight, bias), weight, bias)
