"""Trained policies that ship with the package; `zoo:<scene>-<task>` works wherever a policy is expected."""

from importlib import resources
from pathlib import Path

from hardware.errors import BadInput, NotFoundError

PREFIX = "zoo:"


def names() -> list[str]:
    """Names of the policies there are, without prefix."""
    return sorted(p.stem for p in _folder().glob("*.onnx"))


def resolve(policy: str | Path) -> Path:
    """The file behind what a user calls a policy: `zoo:NAME`, a run directory, or a file.

    Raises NotFoundError for an unknown zoo name (listing the known) and BadInput where nothing is there.
    """
    text = str(policy)
    if text.startswith(PREFIX):
        name = text.removeprefix(PREFIX)
        if name not in names():
            raise NotFoundError("zoo policy", name, names())
        return _folder() / f"{name}.onnx"
    path = Path(policy)
    if path.is_dir():
        path = path / "policy.onnx"
    if not path.is_file():
        raise BadInput(f"policy {policy} not found; expected a .onnx file, a run directory, or zoo:NAME")
    return path


def _folder() -> Path:
    return Path(str(resources.files("robo_rl.zoo")))
