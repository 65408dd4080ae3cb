"""Quality of service of a recorded topic, in the words and numbers of rosbag2's YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from hardware.errors import BadInput

FOREVER_NS = 9223372036 * 1_000_000_000 + 854775807
"""What rosbag2 writes for a duration without end."""

_WORDS: dict[str, tuple[str, ...]] = {
    "history": ("system_default", "keep_last", "keep_all", "unknown"),
    "reliability": ("system_default", "reliable", "best_effort", "unknown", "best_available"),
    "durability": ("system_default", "transient_local", "volatile", "unknown", "best_available"),
    "liveliness": (
        "system_default",
        "automatic",
        "manual_by_node",
        "manual_by_topic",
        "unknown",
        "best_available",
    ),
}
"""Policy -> its values by number (rmw/types.h); versions up to 8 write the number, version 9 the word."""


@dataclass(frozen=True)
class Qos:
    """What a publisher offers on a topic; the default is reliable and volatile."""

    history: str = "keep_last"
    depth: int = 10
    reliability: str = "reliable"
    durability: str = "volatile"
    deadline_ns: int = FOREVER_NS
    lifespan_ns: int = FOREVER_NS
    liveliness: str = "automatic"
    liveliness_lease_duration_ns: int = FOREVER_NS
    avoid_ros_namespace_conventions: bool = False

    def __post_init__(self) -> None:
        """Raises BadInput for a word that rosbag2 does not know."""
        for policy, words in _WORDS.items():
            if getattr(self, policy) not in words:
                raise BadInput(f"QoS {policy} '{getattr(self, policy)}' unknown; known: {', '.join(words)}")


LATCHED = Qos(depth=1, durability="transient_local")
"""A late subscriber still gets the last message: cards, e-stop, descriptions."""


def qos_to_yaml(profiles: Sequence[Qos], version: int = 9) -> str:
    """The text of a channel's `offered_qos_profiles`: words as in version 9, or numbers as before."""
    plain = qos_to_plain(profiles)
    if version < 9:
        plain = [{k: _WORDS[k].index(v) if k in _WORDS else v for k, v in p.items()} for p in plain]
    return yaml.safe_dump(plain, sort_keys=False).strip()


def qos_to_plain(profiles: Sequence[Qos]) -> list[dict[str, Any]]:
    """Profiles as the values of metadata.yaml version 9, in rosbag2's order of keys."""
    return [
        {
            "history": q.history,
            "depth": q.depth,
            "reliability": q.reliability,
            "durability": q.durability,
            "deadline": _duration(q.deadline_ns),
            "lifespan": _duration(q.lifespan_ns),
            "liveliness": q.liveliness,
            "liveliness_lease_duration": _duration(q.liveliness_lease_duration_ns),
            "avoid_ros_namespace_conventions": q.avoid_ros_namespace_conventions,
        }
        for q in profiles
    ]


def parse_qos(raw: str | Sequence[Mapping[str, Any]] | None) -> tuple[Qos, ...]:
    """Profiles from YAML text (channels, versions up to 8) or from plain values (version 9), numbers or words."""
    try:
        plain = yaml.safe_load(raw) if isinstance(raw, str) else raw
        return tuple(_profile(p) for p in plain or ())
    except (yaml.YAMLError, KeyError, TypeError, IndexError, ValueError) as e:
        raise BadInput(f"offered_qos_profiles is not a list of QoS profiles: {type(e).__name__} {e}") from e


def _profile(p: Mapping[str, Any]) -> Qos:
    return Qos(
        history=_word("history", p),
        depth=int(p["depth"]),
        reliability=_word("reliability", p),
        durability=_word("durability", p),
        deadline_ns=_nanoseconds(p["deadline"]),
        lifespan_ns=_nanoseconds(p["lifespan"]),
        liveliness=_word("liveliness", p),
        liveliness_lease_duration_ns=_nanoseconds(p["liveliness_lease_duration"]),
        avoid_ros_namespace_conventions=bool(p["avoid_ros_namespace_conventions"]),
    )


def _word(policy: str, p: Mapping[str, Any]) -> str:
    value = p[policy]
    words = _WORDS[policy]
    if isinstance(value, int):
        return words[value] if 0 <= value < len(words) else "unknown"
    return str(value)


def _duration(total_ns: int) -> dict[str, int]:
    if total_ns >= FOREVER_NS:  # 9223372036 s alone would overflow rosbag2's signed nanoseconds
        return {"sec": 9223372036, "nsec": 854775807}
    return {"sec": total_ns // 1_000_000_000, "nsec": total_ns % 1_000_000_000}


def _nanoseconds(d: Mapping[str, int]) -> int:
    """Nanoseconds of {sec, nsec}; the older DDS infinity (2147483647 s, 4294967295 ns) means forever too."""
    if d["sec"] == 2147483647 and d["nsec"] == 4294967295:
        return FOREVER_NS
    return min(d["sec"] * 1_000_000_000 + d["nsec"], FOREVER_NS)
