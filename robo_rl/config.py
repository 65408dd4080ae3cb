"""What a training run is made of, as frozen dataclasses: importable, printable and dumped as YAML without torch."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware.errors import BadInput

ACTIVATIONS = ("elu", "relu", "tanh")
"""Names that `--algo.activation` accepts."""
NETWORKS = ("mlp", "two_token", "typed", "deep_sets")
"""Names that `--algo.network` accepts."""
FREE = ("steps", "checkpoint_every", "compile")
"""Settings that a resumed run may change; all others belong to its checkpoints."""


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017) with the learning rate steered by the policy's change."""

    rollout_steps: int = 24
    """Steps T that every environment takes between two updates."""
    epochs: int = 5
    """Passes over each rollout."""
    minibatches: int = 4
    """Equal parts into which each pass is divided."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Decay of the generalised advantage estimate (Schulman et al. 2016, eq. 16)."""
    clip: float = 0.2
    """Half-width of the interval around 1 in which the probability ratio still pays."""
    clip_value: bool = False
    """Limit each update of the value to the same half-width around the value at collection. Slows a critic whose values
    are large beside that width."""
    value_coef: float = 1.0
    """Weight of the critic's loss."""
    entropy_coef: float = 0.0
    """Weight of the policy's entropy."""
    learning_rate: float = 1e-3
    """Learning rate at the start."""
    learning_rate_max: float = 2e-3
    """Ceiling of the adaptive learning rate; the ceiling itself is annealed."""
    learning_rate_min: float = 1e-5
    """Floor of the adaptive learning rate."""
    anneal_steps: int = 0
    """Environment steps over which the ceiling falls linearly to a twentieth; 0 leaves it where it is. It belongs to
    the schedule, not to the budget: a run cut in two parts stays the run it would have been."""
    target_kl: float = 0.016
    """Wanted change of the policy per minibatch (nats): the learning rate shrinks above twice and grows below half of
    it; 0 keeps the learning rate constant."""
    max_grad_norm: float = 1.0
    """Largest gradient norm, applied to actor and critic separately."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of actor and critic."""
    network: str = "mlp"
    """Kind of the policy's network: mlp; or, over the entities that an observation tells apart (other robots,
    obstacles), two_token (one token per entity, attention among them), typed (one token per member, attention with
    weights per type, absent members masked) or deep_sets (masked mean over the members). The critic stays an MLP."""
    token_width: int = 16
    """Numbers per token of an entity network; its last hidden layer is twice as wide."""
    heads: int = 4
    """Attention heads of an entity network, each of token_width / heads numbers, rounded up."""
    parameters: int = 0
    """Size of the policy's network in weights and biases, to compare kinds at equal cost; 0 takes the widths as given.
    Otherwise all widths (`hidden`, keeping its number of layers, or `token_width`) are the largest whose network has at
    most so many, and the rest goes to the last hidden layer."""
    activation: str = "elu"
    """Nonlinearity between layers: elu, relu or tanh."""
    init_std: float = 0.4
    """Standard deviation of the policy at the start, in action units."""
    std_floor: float = 0.1
    """Floor under the standard deviation of the policy."""
    ema: float = 0.9
    """Decay per update of the averaged policy that is evaluated and exported; 0 exports the newest one."""
    obs_clip: float = 10.0
    """Bound of a normalised observation's absolute value."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a training run computes; `config.yaml` holds exactly this."""

    scene: str
    """Scene id, `folder/task`."""
    seed: int = 0
    """Root of every random stream of the run."""
    num_envs: int = 1024
    """Environments N stepped as one batch, over all processes."""
    steps: int = 5_000_000
    """Budget in environment steps."""
    family: str = "train"
    """Family of worlds to train in: nominal, train or wide."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:0, ..."""
    processes: int = 1
    """Training processes of one thread each; the environments are divided among them."""
    compile: bool = False
    """Compile losses and policy with torch.compile (10 to 20 s at the start)."""
    linear: str = "auto"
    """Matrix products of the networks: torch, onednn, or auto, which times both at the start."""
    checkpoint_every: int = 50
    """Updates between two checkpoints."""
    algorithm: str = "ppo"
    """Learning algorithm."""
    data: str = ""
    """Folder of recorded transitions, for algorithms that learn from data."""
    init: str = ""
    """Run directory whose networks and normalisers training begins with, instead of fresh ones."""
    algo: Any = PPOConfig()
    """Hyper-parameters of the algorithm: its recipe's configuration."""
    scene_config: Any = None
    """The scene's own configuration."""


def check(config: RunConfig) -> None:
    """Raises BadInput with one line for values that cannot work together, whatever the algorithm."""
    for name in ("num_envs", "steps", "processes", "checkpoint_every"):
        if getattr(config, name) < 1:
            raise BadInput(f"{name} = {getattr(config, name)}; expected at least 1")
    if config.seed < 0:
        raise BadInput(f"seed = {config.seed}; expected at least 0")
    if config.linear not in ("auto", "torch", "onednn"):
        raise BadInput(f"linear = '{config.linear}'; expected auto, torch or onednn")
    if config.num_envs % config.processes:
        raise BadInput(f"num_envs = {config.num_envs} is not divisible by processes = {config.processes}")


def check_numbers(algo: Any) -> None:
    """Raises BadInput for hyper-parameters that are negative, infinite or no number; flags are left alone."""
    for field in dataclasses.fields(algo):
        value = getattr(algo, field.name)
        if isinstance(value, float) and not 0.0 <= value < math.inf:  # NaN fails too
            raise BadInput(f"algo.{field.name} = {value}; expected a finite number, at least 0")


def check_network(hidden: tuple[int, ...], activation: str) -> None:
    """Raises BadInput for widths or a nonlinearity that make no network."""
    if min(hidden, default=1) < 1:
        raise BadInput(f"algo.hidden = {hidden}; expected widths of at least 1")
    if activation not in ACTIVATIONS:
        raise BadInput(f"algo.activation = '{activation}'; expected one of {', '.join(ACTIVATIONS)}")


def fixed_part(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a dumped configuration that a resumed run must share."""
    return {name: value for name, value in plain.items() if name not in FREE}


def check_policy(network: str, token_width: int, heads: int, parameters: int) -> None:
    """Raises BadInput for a policy network that does not exist or has no width."""
    if network not in NETWORKS:
        raise BadInput(f"algo.network = '{network}'; expected one of {', '.join(NETWORKS)}")
    for name, value, least in (("token_width", token_width, 1), ("heads", heads, 1), ("parameters", parameters, 0)):
        if value < least:
            raise BadInput(f"algo.{name} = {value}; expected at least {least}")


def to_plain(value: Any) -> Any:
    """Nested dataclasses as plain dictionaries and lists, for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def from_plain(default: Any, raw: Mapping[str, Any], where: str = "config") -> Any:
    """A copy of the dataclass instance `default` with the values of `raw`; raises BadInput for what does not fit."""
    hints = typing.get_type_hints(type(default))
    known = {f.name for f in dataclasses.fields(default)}
    changes: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            raise BadInput(f"{where}: unknown key '{name}'; keys: {', '.join(sorted(known))}")
        current = getattr(default, name)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise BadInput(f"{where}.{name} = {value!r}; expected a mapping")
            changes[name] = from_plain(current, value, f"{where}.{name}")
        else:
            changes[name] = _converted(value, hints[name], f"{where}.{name}")
    return dataclasses.replace(default, **changes)


def _converted(value: Any, hint: Any, where: str) -> Any:
    """A plain value as the annotated type; only the types that configurations use."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _converted(value, next(t for t in inner if t is not type(None)), where)
    if origin is typing.Literal:
        if value not in inner:
            raise BadInput(f"{where} = {value!r}; expected one of {', '.join(map(str, inner))}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_converted(v, inner[0], where) for v in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is Any or (isinstance(hint, type) and isinstance(value, hint) and not (hint is int and value is True)):
        return value
    raise BadInput(f"{where} = {value!r}; expected {getattr(hint, '__name__', hint)}")


def write_yaml(config: RunConfig, path: Path) -> None:
    """Writes the resolved configuration."""
    import yaml

    path.write_text(yaml.safe_dump(to_plain(config), sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain values of a dumped configuration; raises BadInput with one line where there is none."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError as e:
        raise BadInput(f"configuration {path} not found; expected a config.yaml as a run directory holds") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadInput(f"configuration {path} is not valid YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(raw, dict) or "scene" not in raw:
        raise BadInput(f"configuration {path} names no scene; expected a config.yaml as a run directory holds")
    return raw
