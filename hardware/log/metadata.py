"""`metadata.yaml` of a rosbag2 recording: versions 9 and, for ROS 2 Humble, 5 are written, versions 1 to 9 are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hardware.errors import BadInput
from hardware.log.qos import Qos, parse_qos, qos_to_plain, qos_to_yaml

FILE_NAME = "metadata.yaml"
ROS_DISTRO = "kilted"
"""The distribution whose definitions and type hashes are written."""


@dataclass(frozen=True)
class TopicEntry:
    """One topic of a recording."""

    name: str
    type: str
    message_count: int
    qos: tuple[Qos, ...] = ()
    type_hash: str = ""
    serialization_format: str = "cdr"


@dataclass(frozen=True)
class FileEntry:
    """One MCAP file of a recording."""

    path: str
    starting_ns: int
    duration_ns: int
    message_count: int


@dataclass(frozen=True)
class Metadata:
    """What `metadata.yaml` says about a recording."""

    topics: tuple[TopicEntry, ...]
    files: tuple[FileEntry, ...]
    """Files in playing order; recordings before version 5 give only their names, with counts of -1."""
    starting_ns: int
    duration_ns: int
    message_count: int
    custom: Mapping[str, str] = field(default_factory=dict)
    ros_distro: str = ROS_DISTRO
    version: int = 9

    def body(self, version: int = 9) -> dict[str, Any]:
        """The plain values, in rosbag2's order of keys (yaml.hpp); version 5 knows less."""
        body = {
            "version": version,
            "storage_identifier": "mcap",
            "duration": {"nanoseconds": self.duration_ns},
            "starting_time": {"nanoseconds_since_epoch": self.starting_ns},
            "message_count": self.message_count,
            "topics_with_message_count": [_topic_to_plain(t, version) for t in self.topics],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [f.path for f in self.files],
            "files": [
                {
                    "path": f.path,
                    "starting_time": {"nanoseconds_since_epoch": f.starting_ns},
                    "duration": {"nanoseconds": f.duration_ns},
                    "message_count": f.message_count,
                }
                for f in self.files
            ],
        }
        if version < 9:
            return body
        # rosbag2 writes an empty map as null
        return body | {"custom_data": dict(self.custom) or None, "ros_distro": self.ros_distro}

    def serialized(self, version: int = 9) -> str:
        """The body as YAML text, for the MCAP Metadata record by which a lone file can be played."""
        return yaml.safe_dump(self.body(version), sort_keys=False).strip()

    def write(self, directory: Path, version: int = 9) -> None:
        """Writes `metadata.yaml` aside and renames it: it is there whole or not at all."""
        aside = directory / (FILE_NAME + ".part")
        aside.write_text(yaml.safe_dump({"rosbag2_bagfile_information": self.body(version)}, sort_keys=False))
        aside.replace(directory / FILE_NAME)


def read_metadata(directory: Path) -> Metadata:
    """The metadata of a recording; raises BadInput where the file is not what rosbag2 writes."""
    path = directory / FILE_NAME
    try:
        return parse_metadata(yaml.safe_load(path.read_text())["rosbag2_bagfile_information"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError) as e:
        raise BadInput(f"{path}: not the metadata of a rosbag2 recording ({type(e).__name__}: {e})") from e


def parse_metadata(body: Mapping[str, Any]) -> Metadata:
    """Metadata from the plain values below `rosbag2_bagfile_information`, any version."""
    if body["storage_identifier"] != "mcap":
        raise BadInput(f"recording is stored as '{body['storage_identifier']}'; expected mcap")
    if body.get("compression_mode"):
        raise BadInput(f"recording is compressed per {body['compression_mode']} by rosbag2; MCAP compresses chunks")
    files = [
        FileEntry(
            f["path"],
            f["starting_time"]["nanoseconds_since_epoch"],
            f["duration"]["nanoseconds"],
            f["message_count"],
        )
        for f in body.get("files") or ()
    ]
    return Metadata(
        topics=tuple(_topic(t) for t in body["topics_with_message_count"] or ()),
        files=tuple(files or [FileEntry(p, 0, 0, -1) for p in body["relative_file_paths"]]),
        starting_ns=body["starting_time"]["nanoseconds_since_epoch"],
        duration_ns=body["duration"]["nanoseconds"],
        message_count=body["message_count"],
        custom=body.get("custom_data") or {},
        ros_distro=body.get("ros_distro", ""),
        version=body["version"],
    )


def describe(topics: Sequence[TopicEntry], files: Sequence[FileEntry], custom: Mapping[str, str]) -> Metadata:
    """Metadata of a recording, from what its topics and files hold."""
    filled = [f for f in files if f.message_count]
    start_ns = min((f.starting_ns for f in filled), default=0)
    end_ns = max((f.starting_ns + f.duration_ns for f in filled), default=0)
    return Metadata(
        topics=tuple(topics),
        files=tuple(files),
        starting_ns=start_ns,
        duration_ns=end_ns - start_ns,
        message_count=sum(f.message_count for f in files),
        custom=dict(custom),
    )


def _topic_to_plain(t: TopicEntry, version: int) -> dict[str, Any]:
    topic: dict[str, Any] = {"name": t.name, "type": t.type, "serialization_format": t.serialization_format}
    if version < 9:
        topic["offered_qos_profiles"] = qos_to_yaml(t.qos, version)
    else:
        topic |= {"offered_qos_profiles": qos_to_plain(t.qos), "type_description_hash": t.type_hash}
    return {"topic_metadata": topic, "message_count": t.message_count}


def _topic(raw: Mapping[str, Any]) -> TopicEntry:
    m = raw["topic_metadata"]
    return TopicEntry(
        name=m["name"],
        type=m["type"],
        message_count=raw["message_count"],
        qos=parse_qos(m.get("offered_qos_profiles")),
        type_hash=m.get("type_description_hash", ""),
        serialization_format=m["serialization_format"],
    )
