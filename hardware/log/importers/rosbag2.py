"""Recordings of `ros2 bag`: MCAP or sqlite3, a directory or a lone file, byte for byte."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from hardware.errors import BadInput
from hardware.log.imports import Imported, Options
from hardware.log.metadata import FILE_NAME
from hardware.log.qos import Qos, parse_qos
from hardware.log.reader import Log
from hardware.log.table import Row
from hardware.log.types import MessageType, standard_type

FORMAT = "rosbag2"
ABOUT = "rosbag2 recording"
_MAGIC = (b"\x89MCAP0\r\n", b"SQLite format 3\0")
Topic = tuple[str, MessageType, tuple[Qos, ...], str]


def recognises(path: Path, head: bytes) -> bool:
    """A directory with metadata.yaml or such files, or one of the files."""
    if path.is_dir():
        return (path / FILE_NAME).exists() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))
    return head.startswith(_MAGIC)


def load(path: Path, options: Options) -> Imported:
    """All messages as they are; types without a definition get the standard one of that name."""
    files = _databases(path)
    return Imported(
        raw=_Databases(path, files) if files else _Mcap(path), conversions=["messages are kept byte for byte"]
    )


def _databases(path: Path) -> list[Path]:
    """The sqlite3 files of a recording in playing order; none where it is MCAP."""
    if path.is_file():
        with path.open("rb") as stream:
            return [path] if stream.read(16) == _MAGIC[1] else []
    if not (path / FILE_NAME).exists():
        return sorted(path.glob("*.db3"), key=lambda p: (len(p.name), p.name))
    try:
        body = yaml.safe_load((path / FILE_NAME).read_text())["rosbag2_bagfile_information"]
        storage, mode, names = body["storage_identifier"], body.get("compression_mode"), body["relative_file_paths"]
        if storage != "sqlite3":
            return []
        if mode:
            raise BadInput(f"{path}: rosbag2 compressed it per {mode}; unpack it with: ros2 bag convert")
        files = [path / str(n) for n in names]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError, AttributeError) as e:
        raise BadInput(f"{path / FILE_NAME}: not the metadata of a {ABOUT} ({type(e).__name__})") from e
    for file in files:
        if file.parent.resolve() != path.resolve() or not file.is_file():
            raise BadInput(f"{path}: {FILE_NAME} names {file.name}, which is not there")
    return files


class _Mcap:
    """Messages of an MCAP recording."""

    def __init__(self, path: Path) -> None:
        self._log = Log(path, time_base="log")
        self.topics: list[Topic] = [(t.name, t.type, t.qos, t.encoding) for t in self._log.topics.values()]

    def rows(self) -> Iterator[Row]:
        """In the order of time."""
        return (Row(m.log_ns, m.topic, m.cdr, m.publish_ns) for m in self._log.messages(raw=True))


class _Databases:
    """Messages of sqlite3 files, which are only read."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self._path, self._files = path, files
        found: dict[str, Topic] = {}
        for file in files:
            with closing(self._open(file)) as database:
                for topic in self._topics(database):
                    found.setdefault(topic[0], topic)
        self.topics: list[Topic] = list(found.values())

    def rows(self) -> Iterator[Row]:
        """In the order of time within each file."""
        for file in self._files:
            with closing(self._open(file)) as database:
                names = dict(self._query(database, "SELECT id, name FROM topics"))
                query = "SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp, id"
                for topic, t_ns, cdr in self._query(database, query):
                    if topic not in names or not isinstance(t_ns, int) or not isinstance(cdr, bytes):
                        raise BadInput(f"{file}: not a whole {ABOUT}: a message is damaged")
                    yield Row(t_ns, names[topic], cdr)

    def _open(self, file: Path) -> sqlite3.Connection:
        """Read-only, trusting nothing; its tables must be tables, not queries or code."""
        database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        list(self._query(database, "PRAGMA trusted_schema=OFF"))
        kinds = {str(n): (k, str(s)) for n, k, s in self._query(database, "SELECT name, type, sql FROM sqlite_master")}
        for table in ("topics", "messages"):
            kind, sql = kinds.get(table, ("nothing", ""))
            if kind != "table" or not sql.upper().startswith("CREATE TABLE") or "GENERATED" in sql.upper():
                database.close()
                raise BadInput(f"{file}: not a {ABOUT}: '{table}' is no plain table")
        return database

    def _topics(self, database: sqlite3.Connection) -> list[Topic]:
        columns = {row[1] for row in self._query(database, "PRAGMA table_info(topics)")}
        tables = {row[0] for row in self._query(database, "SELECT name FROM sqlite_master WHERE type='table'")}
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            definitions = {t: (e, d) for t, e, d in self._query(database, query) if e in ("ros2msg", "ros2idl")}
        hashed = "type_description_hash" if "type_description_hash" in columns else "''"
        offered = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        query = f"SELECT name, type, serialization_format, {offered}, {hashed} FROM topics"
        topics: list[Topic] = []
        for name, kind, encoding, qos, digest in self._query(database, query):
            if not all(isinstance(v, str) for v in (name, kind, encoding, qos, digest)):
                raise BadInput(f"{self._path}: not a whole {ABOUT}: a topic is damaged")
            topics.append((name, _type(kind, definitions.get(kind), digest), parse_qos(qos), encoding))
        return topics

    def _query(self, database: sqlite3.Connection, query: str) -> Any:
        try:
            yield from database.execute(query)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as e:
            raise BadInput(f"{self._path}: not a whole {ABOUT} ({e})") from e


def _type(name: str, definition: tuple[str, str] | None, digest: str) -> MessageType:
    if definition is not None:
        return MessageType(name, definition[1], definition[0], digest)
    try:
        return standard_type(name)
    except BadInput:
        return MessageType(name, "", "ros2msg", digest)
