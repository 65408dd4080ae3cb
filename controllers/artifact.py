"""The policy file: an ONNX graph that carries its own contract and proves itself on load.

Layout: the model's bytes, followed by three protobuf entries of `ModelProto.metadata_props` (field 14), so that any
ONNX tool still reads the file: `robo_rl.card` (JSON with exact floats), `robo_rl.probes` (base64 of observations and
the commands they gave at export) and, last, `robo_rl.sha256` over every byte before it. The seal finds damage and
mix-ups; it is no signature, so load policies from people you trust.
"""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.graph import Graph
from controllers.interface import Field, Interface, fields_from_json, fields_to_json
from controllers.protobuf import METADATA_PROPS, metadata_entry, protobuf_fields
from hardware.errors import BadInput
from hardware.spec import RobotSpec, load_spec

SCHEMA = "robo_rl.policy/1"
NUM_PROBES = 16
PROBE_TOLERANCE = 1e-5
"""Largest difference of a probe's command, absolute or relative to the action's scale, whichever is larger."""

_SEAL_KEY = b"robo_rl.sha256"
_SEAL_SIZE = 2 + 2 + len(_SEAL_KEY) + 2 + 64
_SEAL = re.compile(rb"\x72\x52\x0a\x0erobo_rl\.sha256\x12\x40([0-9a-f]{64})", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """What a policy was made for, and how: its contract."""

    robot: str
    robot_digest: str
    """`RobotSpec.digest()` at export."""
    mode: str
    """Command mode of the robot that the graph's output drives."""
    rate_hz: float
    """Control rate it was trained at."""
    observation: tuple[Field, ...]
    action: tuple[Field, ...]
    scene: str
    ranges_digest: str
    """SHA-256 of the scene's `ranges.toml` in training."""
    commit: str
    seed: int
    algorithm: str
    env_steps: int
    evaluation: dict[str, Any] = field(default_factory=dict)
    """Results of `robo-rl eval` for this policy, with the family and seeds they came from."""
    command_line: str = ""
    made_utc: str = ""
    schema: str = SCHEMA

    def to_json(self) -> str:
        """The card as JSON with exact floats."""
        plain = asdict(self) | {
            "observation": fields_to_json(self.observation),
            "action": fields_to_json(self.action),
        }
        return json.dumps(plain, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "card") -> "Card":
        """The card of such JSON; raises BadInput naming the schema or the keys that do not fit."""
        try:
            raw = json.loads(text)
        except ValueError as e:
            raise BadInput(f"{source}: the card is not JSON: {e}") from e
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if schema != SCHEMA:
            raise BadInput(f"{source}: schema '{schema}'; this version reads '{SCHEMA}'")
        expected = {f.name for f in fields(cls)}
        if set(raw) != expected:
            raise BadInput(f"{source}: card keys missing or unknown: {', '.join(sorted(expected ^ set(raw)))}")
        values: dict[str, Any] = raw | {k: fields_from_json(raw[k]) for k in ("observation", "action")}
        return cls(**values)


@dataclass(frozen=True)
class Probes:
    """Sixteen observations and the commands that the graph gave for them when it was exported."""

    observation: Mapping[str, NDArray[np.float32]]
    """Group -> (16, D)."""
    command: NDArray[np.float32]
    """(16, J)."""


def write_artifact(path: Path, model: bytes, card: Card, probes: Probes) -> None:
    """Writes a policy file, atomically. `model` is a serialised ONNX ModelProto; earlier `robo_rl.*` entries go.

    Raises BadInput where card, probes and robot do not fit one another, so that no unloadable file is written.
    """
    interface = Interface(load_spec(card.robot), card.mode, card.observation, card.action)
    packed = _pack_probes(probes, interface)
    body = _without_own_entries(model, str(path))
    body += metadata_entry(b"robo_rl.card", card.to_json().encode()) + metadata_entry(
        b"robo_rl.probes", base64.b64encode(packed)
    )
    body += metadata_entry(_SEAL_KEY, hashlib.sha256(body).hexdigest().encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(body)
        PolicyArtifact.load(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_card(path: Path) -> Card:
    """The card of an undamaged policy file, whatever robot it is for; raises BadInput."""
    _, entries = _open_sealed(path)
    return Card.from_json(entries["robo_rl.card"].decode(errors="replace"), str(path))


@dataclass(frozen=True)
class PolicyArtifact:
    """A policy that passed every check of `load`."""

    path: Path
    sha256: str
    """Of the whole file: the name of this policy in logs."""
    card: Card
    probes: Probes
    interface: Interface
    graph: Graph

    @classmethod
    def load(cls, path: Path, robot: RobotSpec | None = None, rate_hz: float | None = None) -> "PolicyArtifact":
        """Opens a policy file and replays its probes; raises BadInput with the first thing that is wrong.

        `robot` (default: the installed spec of the card's robot) and `rate_hz`, where given, must be the card's.
        """
        data, entries = _open_sealed(path)
        card = Card.from_json(entries["robo_rl.card"].decode(errors="replace"), str(path))
        spec = load_spec(card.robot) if robot is None else robot
        if spec.name != card.robot:
            raise BadInput(f"{path}: is a policy for robot '{card.robot}', not for '{spec.name}'")
        if spec.digest() != card.robot_digest:
            raise BadInput(
                f"{path}: made for another version of robot '{card.robot}' (spec {card.robot_digest[:12]}, "
                f"installed {spec.digest()[:12]}); its signals, units, modes or limits have changed"
            )
        if rate_hz is not None and abs(rate_hz - card.rate_hz) > 1e-9 * card.rate_hz:
            raise BadInput(f"{path}: runs at {card.rate_hz:g} Hz, not at {rate_hz:g} Hz")
        interface = Interface(spec, card.mode, card.observation, card.action)
        graph = Graph(data, str(path))
        sizes = interface.group_sizes
        if not graph.input_sizes.items() <= sizes.items():
            raise BadInput(f"{path}: the graph takes {graph.input_sizes}, but the card's observation gives {sizes}")
        probes = _unpack_probes(entries["robo_rl.probes"], interface, str(path))
        artifact = cls(path, hashlib.sha256(data).hexdigest(), card, probes, interface, graph)
        artifact._prove()
        return artifact

    def run(self, obs: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float32]:
        """Commands (N, J), SI, of observation groups name -> (N, D)."""
        return self.graph.run(obs)

    def _prove(self) -> None:
        given = self.run(self.probes.observation)
        if given.shape != self.probes.command.shape:
            raise BadInput(f"{self.path}: the graph gives {given.shape} for probes {self.probes.command.shape}")
        scale = np.maximum(1.0, np.abs([f.scale for f in self.card.action]))
        worst = float(np.max(np.abs(given - self.probes.command) / scale))
        if not worst <= PROBE_TOLERANCE:  # NaN fails too
            raise BadInput(f"{self.path}: its probes differ by {worst:.2g} here; allowed {PROBE_TOLERANCE:g}")


def _open_sealed(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The file's bytes and its `robo_rl.*` metadata, after the seal has been checked."""
    if not path.is_file():
        raise BadInput(f"policy {path} not found")
    data = path.read_bytes()
    seal = _SEAL.fullmatch(data[-_SEAL_SIZE:])
    if seal is None:
        raise BadInput(f"{path}: {_what_it_is(data)}")
    if hashlib.sha256(data[:-_SEAL_SIZE]).hexdigest() != seal[1].decode():
        raise BadInput(f"{path}: changed after export: its bytes do not match their SHA-256")
    entries = dict(_own_entries(data, str(path)))
    missing = {"robo_rl.card", "robo_rl.probes"} - entries.keys()
    if missing:
        raise BadInput(f"{path}: holds no {', '.join(sorted(missing))}: not a policy of robo-rl")
    return data, entries


def _what_it_is(data: bytes) -> str:
    if b"\x0a\x0crobo_rl.card\x12" in data:
        return "truncated, or changed after export: it does not end with its SHA-256"
    try:
        numbers = {number for number, _, _ in protobuf_fields(data)}
    except ValueError:
        return "not a policy: expected an .onnx file written by robo-rl"
    if 7 in numbers:  # ModelProto.graph
        return "an ONNX model without a robo_rl card; export policies with robo-rl export"
    return "not a policy: expected an .onnx file written by robo-rl"


def _pack_probes(probes: Probes, interface: Interface) -> bytes:
    parts = []
    for name, size in interface.group_sizes.items():
        if name in probes.observation:
            parts.append(_checked(probes.observation[name], (NUM_PROBES, size), f"probe observation '{name}'"))
    parts.append(_checked(probes.command, (NUM_PROBES, interface.action_size), "probe commands"))
    names = [name for name in interface.group_sizes if name in probes.observation]
    return json.dumps(names).encode() + b"\n" + b"".join(part.astype("<f4").tobytes() for part in parts)


def _checked(array: Any, shape: tuple[int, int], what: str) -> NDArray[np.float32]:
    array = np.asarray(array, dtype=np.float32)
    if array.shape != shape:
        raise BadInput(f"{what} has shape {array.shape}; expected {shape}")
    return array


def _unpack_probes(raw: bytes, interface: Interface, source: str) -> Probes:
    try:
        head, _, tail = base64.b64decode(raw, validate=True).partition(b"\n")
        names, values = json.loads(head), np.frombuffer(tail, dtype="<f4").astype(np.float32)
        widths = [interface.group_sizes[name] for name in names] + [interface.action_size]
        blocks = np.split(values, np.cumsum([NUM_PROBES * w for w in widths])[:-1])
        *observation, command = (b.reshape(NUM_PROBES, w) for b, w in zip(blocks, widths, strict=True))
    except (binascii.Error, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{source}: its probes cannot be read: {e}") from e
    return Probes(dict(zip(names, observation, strict=True)), command)


def _own_entries(data: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    try:
        for number, content, _ in protobuf_fields(data):
            if number == METADATA_PROPS:
                pair = {n: c for n, c, _ in protobuf_fields(content)}
                if pair.get(1, b"").startswith(b"robo_rl."):
                    yield pair[1].decode(), pair.get(2, b"")
    except ValueError as e:
        raise BadInput(f"{source}: not a protobuf message: {e}") from e


def _without_own_entries(model: bytes, source: str) -> bytes:
    try:
        keep = [
            whole
            for number, content, whole in protobuf_fields(model)
            if number != METADATA_PROPS
            or not {n: c for n, c, _ in protobuf_fields(content)}.get(1, b"").startswith(b"robo_rl.")
        ]
    except ValueError as e:
        raise BadInput(f"{source}: the model to be written is not a protobuf message: {e}") from e
    return b"".join(keep)
