"""A new `ranges.toml` from what logs identified: only the entries concerned change, everything else stays as it is."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hardware.errors import BadInput
from sim.identify.judge import Estimate
from sim.param import Param
from sim.ranges import read_ranges

_HEADER = re.compile(r"^\[param\.([A-Za-z0-9_-]+)\]\s*(#.*)?$")
_ENTRY = re.compile(r"""^(\s*)(nominal|low|high|source|reference)(\s*=\s*)("(?:[^"\\]|\\.)*"|[^#\s]+)(\s*(?:#.*)?)$""")


@dataclass(frozen=True)
class Provenance:
    """Where new numbers come from."""

    logs: Sequence[tuple[str, str]]
    """(name, content hash) of each."""
    windows: str
    """Which windows, in words."""
    date: str
    commit: str

    def reference(self) -> str:
        """One line for the entry's `reference`."""
        logs = ", ".join(f"{name} ({digest.removeprefix('sha256:')[:12]})" for name, digest in self.logs)
        return f"robo-rl identify, {self.date}, commit {self.commit}; logs {logs}; {self.windows}"


def proposal(text: str, changes: Mapping[str, Estimate], params: Mapping[str, Param], provenance: Provenance) -> str:
    """The file's text with the ranges of identified parameters; comments and the order of entries stay."""
    known = {n: e for n, e in changes.items() if e.identified and n in params}
    lines, table = [], ""
    for line in text.splitlines(keepends=True):
        header = _HEADER.match(line.rstrip("\n"))
        if header or line.startswith("["):
            table = header.group(1) if header else ""
        entry = _ENTRY.match(line.rstrip("\n"))
        if table in known and entry:
            indent, key, equals, _, comment = entry.groups()
            value = _values(known[table], params[table], provenance)[key]
            lines.append(f"{indent}{key}{equals}{value}{comment}\n")
        else:
            lines.append(line)
    return "".join(lines)


def _values(e: Estimate, p: Param, provenance: Provenance) -> dict[str, str]:
    low, high = e.range
    fit = e.fit
    if p.how == "scale":
        low, high = low / fit, high / fit
        low, high = min(low, high), max(low, high)
    elif p.how == "add":
        low, high = low - fit, high - fit
    low, high = max(low, p.minimum), min(high, p.maximum)
    reference = provenance.reference().replace("\\", "/").replace('"', "'")
    return {
        "nominal": _number(fit),
        "low": _number(low),
        "high": _number(high),
        "source": '"identified"',
        "reference": f'"{reference}"',
    }


def _number(value: float) -> str:
    """Four significant digits, in a form that TOML reads as a float."""
    text = f"{value:.4g}"
    return text if any(c in text for c in ".e") else f"{text}.0"


def diff(path: Path, before: str, after: str) -> str:
    """A unified diff with the file's own name; both texts have the same lines, some of them changed."""
    old, new = before.splitlines(), after.splitlines()
    lines = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(1):
        first, last = group[0], group[-1]
        spans = f"-{first[1] + 1},{last[2] - first[1]} +{first[3] + 1},{last[4] - first[3]}"
        lines.append(f"@@ {spans} @@ {_table(old, first[1])}".rstrip())
        for kind, i, j, k, m in group:
            if kind == "equal":
                lines += [f" {line}" for line in old[i:j]]
            else:
                lines += [f"-{line}" for line in old[i:j]] + [f"+{line}" for line in new[k:m]]
    return "\n".join([f"--- a/{path.name}", f"+++ b/{path.name}", *lines, ""]) if lines else ""


def _table(lines: Sequence[str], at: int) -> str:
    """The table that a line belongs to."""
    return next((line for line in reversed(lines[: at + 1]) if line.startswith("[")), "")


def write(path: Path, text: str) -> None:
    """Writes aside, checks that it can be read back, and renames into place."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(text)
    try:
        read_ranges(aside)
    except BadInput:
        aside.unlink()
        raise
    aside.replace(path)
