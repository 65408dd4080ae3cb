"""Foreign recordings into logs: which importer reads a file, and how what it found is written with its provenance."""

import hashlib
import heapq
import importlib
import json
import pkgutil
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from hardware.errors import BadInput, NotFoundError
from hardware.log import importers
from hardware.log.qos import Qos
from hardware.log.reader import Log
from hardware.log.table import Row, Table
from hardware.log.types import MessageType
from hardware.log.writer import LogWriter

ENTRY_POINTS = "robo_rl.log_importers"
"""Entry points of other packages: each names a module (or object) shaped like `Importer`."""
HEAD_BYTES = 4096
"""How much of a file's beginning is shown to importers that are asked whether it is theirs."""


@dataclass(frozen=True)
class Options:
    """What a file may leave open."""

    rate_hz: float | None = None
    """Samples per second, where a file holds no time."""
    time: str = ""
    """The column that holds the time; empty: found by its name."""
    day_first: bool | None = None
    """How dates such as 03/04/2021 are read, where the file leaves it open."""


class Raw(Protocol):
    """Messages that are CDR already."""

    @property
    def topics(self) -> Sequence[tuple[str, MessageType, tuple[Qos, ...], str]]:
        """Name, type, what its publishers offered, encoding."""
        ...

    def rows(self) -> Iterable[Row]:
        """The messages, by instant."""
        ...


@dataclass(frozen=True)
class Imported:
    """What an importer found in a file."""

    tables: Sequence[Table] = ()
    conversions: Sequence[str] = ()
    """What was changed on the way, each in one sentence: units, clocks, rows left out."""
    raw: Raw | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else the file says about itself."""


class Importer(Protocol):
    """A module of `hardware/log/importers`, or what an entry point names."""

    FORMAT: str
    ABOUT: str

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether this looks like the format; `head` is the file's beginning, empty for a directory."""
        ...

    def load(self, path: Path, options: Options) -> Imported:
        """Reads the whole file; raises BadInput, in one line, for one that is not whole or not the format."""
        ...


@dataclass(frozen=True)
class Done:
    """A finished import."""

    output: Path
    format: str
    messages: int
    counts: dict[str, int]
    conversions: list[str]


@cache
def known_importers() -> dict[str, Importer]:
    """Format -> importer: the files of `hardware/log/importers`, then other packages' entry points."""
    found: dict[str, Importer] = {}
    for info in pkgutil.iter_modules(importers.__path__):
        module: Importer = importlib.import_module(f"{importers.__name__}.{info.name}")  # type: ignore[assignment]
        found[module.FORMAT] = module
    for point in entry_points(group=ENTRY_POINTS):
        plugin: Importer = point.load()
        found.setdefault(plugin.FORMAT, plugin)
    return found


def importer_of(path: Path, format: str = "") -> Importer:
    """The importer by name or, without one, by the file's content; raises NotFoundError or BadInput."""
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    known = known_importers()
    if format:
        if format not in known:
            raise NotFoundError("format", format, known)
        return known[format]
    head = b""
    if path.is_file():
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    # Text tables are what is left when nothing else fits.
    for name in sorted(known, key=lambda n: (n == "csv", n)):
        if known[name].recognises(path, head):
            return known[name]
    raise BadInput(f"{path}: the format is not recognised; name one with --format: {', '.join(sorted(known))}")


def import_log(path: Path, out: Path | None = None, format: str = "", options: Options | None = None) -> Done:
    """Writes a foreign recording as a log; `out` defaults to `<file>-imported` beside it.

    The log's custom metadata hold format, name, size and SHA-256 of the source and every conversion. A file that is
    refused leaves nothing behind. Raises BadInput, in one line, for what cannot be imported.
    """
    importer = importer_of(path, format)
    out = out or path.with_name(f"{path.name.split('.')[0]}-imported")
    if out.exists():
        raise BadInput(f"{out} exists; give a new directory with --out")
    found = importer.load(path, options or Options())
    tables = [t for t in found.tables if len(t.t_ns)]
    if not tables and found.raw is None:
        raise BadInput(f"{path}: holds no rows to import")
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with LogWriter(aside, name=out.name, custom=_provenance(path, importer, found)) as writer:
            for t in tables:
                writer.add_topic(t.topic, t.message_type, t.qos)
            if found.raw is not None:
                for topic in found.raw.topics:
                    writer.add_topic(*topic)
            for row in _by_time(tables, found.raw):
                writer.write(row.topic, row.cdr, row.t_ns, row.publish_ns)
            counts = writer.counts
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Done(out, importer.FORMAT, sum(counts.values()), counts, list(found.conversions))


def provenance(log: Log) -> dict[str, str]:
    """What an imported log says about its source, without the prefix `import.`; empty for other logs."""
    custom = log.metadata.custom if log.metadata else {}
    return {k.removeprefix("import."): v for k, v in custom.items() if k.startswith("import.")}


def _by_time(tables: Sequence[Table], raw: Raw | None) -> Iterator[Row]:
    """Rows of all topics in the order of time, so that the log's chunks follow one another."""
    sources = [t.rows() for t in tables] + ([iter(raw.rows())] if raw is not None else [])
    return heapq.merge(*sources, key=attrgetter("t_ns"))


def _provenance(path: Path, importer: Importer, found: Imported) -> dict[str, str]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    facts = {f"import.file.{k}": v for k, v in found.facts.items()}
    return {
        "import.format": importer.FORMAT,
        "import.source": path.resolve().name,
        "import.bytes": str(sum(f.stat().st_size for f in files)),
        "import.sha256": digest.hexdigest(),
        "import.conversions": json.dumps(list(found.conversions), ensure_ascii=False),
        **facts,
    }
