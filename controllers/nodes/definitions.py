"""Definitions of message types for a log: the standard ones, or those of the ROS 2 packages installed here."""

import os
import re
import sys
from pathlib import Path

from hardware.errors import BadInput
from hardware.log.types import MessageType, standard_type

_PRIMITIVE = re.compile(r"^(bool|byte|char|float32|float64|u?int(8|16|32|64)|w?string)\b")
_SEPARATOR = "\n" + "=" * 80 + "\n"


def definition_of(message_type: str, type_hash: str = "") -> MessageType:
    """A type as the log should store it; `type_hash` is what its publisher announced, where known.

    A type without a definition anywhere is stored without one: its bytes are kept, and readers skip it.
    """
    try:
        known = standard_type(message_type)
    except BadInput:
        return MessageType(message_type, _installed(message_type), "ros2msg", type_hash)
    if type_hash and type_hash != known.hash:  # another version of a standard type: what is installed is what was sent
        return MessageType(message_type, _installed(message_type) or known.definition, "ros2msg", type_hash)
    return known


def _installed(message_type: str) -> str:
    """The `.msg` text of an installed type and of everything it refers to; '' where it is not installed as .msg."""
    texts: dict[str, str] = {}
    waiting = [message_type]
    while waiting:
        name = waiting.pop(0)
        if name in texts:
            continue
        file = _find(name)
        if file is None:
            return ""
        texts[name] = file.read_text()
        waiting.extend(_references(name.split("/")[0], texts[name]))
    first, *rest = texts.items()
    parts = [first[1], *(f"MSG: {name.replace('/msg/', '/')}\n{text}" for name, text in rest)]
    return _SEPARATOR.join(parts)


def _find(name: str) -> Path | None:
    roots = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    package, *kind, last = name.split("/")
    for root in roots:
        file = Path(root, "share", package, *kind, f"{last}.msg")
        if file.is_file():
            return file
    return None


def _references(package: str, text: str) -> list[str]:
    """Full names of the message types that the fields of a definition refer to."""
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2 or _PRIMITIVE.match(words[0]):
            continue
        name = words[0].partition("[")[0]
        parts = name.split("/")
        found.append(f"{parts[0]}/msg/{parts[-1]}" if len(parts) > 1 else f"{package}/msg/{name}")
    return found
