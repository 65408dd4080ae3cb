"""Which numbers of an observation describe the robot itself, and which describe others: what entity networks are told.

An observation vector is the concatenation of its fields (`controllers.interface`); a field says which entity it
describes and of how many members. Here that becomes columns, and nothing else of a scene is known.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from controllers.interface import Field, check_members
from hardware.errors import BadInput

PRESENT = "_present"
"""A field whose source ends so holds one flag per member, 1 where it exists and 0 where its numbers mean nothing."""


@dataclass(frozen=True)
class Part:
    """Others of one kind: M members, each described by the same d numbers."""

    entity: str
    columns: tuple[tuple[int, ...], ...]
    """(M, d) columns of the observation, member by member."""
    present: tuple[int, ...] = ()
    """(M) columns of the members' presence flags; empty where they always exist."""

    @property
    def members(self) -> int:
        """M."""
        return len(self.columns)

    @property
    def numbers(self) -> int:
        """d."""
        return len(self.columns[0])


@dataclass(frozen=True)
class Layout:
    """The columns of one observation vector of length `size`."""

    size: int
    own: tuple[int, ...]
    """Columns that describe the robot itself."""
    parts: tuple[Part, ...] = ()

    @property
    def entities(self) -> tuple[str, ...]:
        """Names of the entities, in order of appearance."""
        return tuple(dict.fromkeys(p.entity for p in self.parts))

    @property
    def flags(self) -> tuple[int, ...]:
        """Columns that are presence flags: 0 or 1, which a normaliser must leave alone."""
        return tuple(c for p in self.parts for c in p.present)

    @property
    def alike(self) -> tuple[tuple[int, ...], ...]:
        """Groups of columns that say the same of different members, which a normaliser must scale alike."""
        return tuple(group for p in self.parts if p.members > 1 for group in zip(*p.columns, strict=True))


def layout_of(fields: Iterable[Field], group: str = "policy") -> Layout:
    """The layout of one observation group; a part holds the fields of one entity with one number of members.

    Raises BadInput for a flag that does not count members, and for members without numbers.
    """
    chosen = tuple(f for f in fields if f.group == group)
    check_members(chosen)
    own: list[int] = []
    columns: dict[tuple[str, int], list[list[int]]] = {}
    present: dict[tuple[str, int], tuple[int, ...]] = {}
    begin = 0
    for f in chosen:
        per_member = f.size // f.members
        cells = [begin + i for i in range(f.size * f.history)]
        begin += len(cells)
        if not f.entity:
            own += cells
            continue
        key = f.entity, f.members
        numbers = columns.setdefault(key, [[] for _ in range(f.members)])
        if f.source.endswith(PRESENT):
            if per_member != 1 or f.history != 1 or (f.scale, f.offset) != (1.0, 0.0) or key in present:
                raise BadInput(f"field {f.name}: expected one unscaled flag per member of '{f.entity}', given once")
            present[key] = tuple(cells)
            continue
        for h in range(f.history):
            for m in range(f.members):
                at = h * f.size + m * per_member
                numbers[m] += cells[at : at + per_member]
    for (entity, members), numbers in columns.items():
        if not numbers[0]:
            raise BadInput(f"{members} members of '{entity}' have a presence flag and no other number")
    parts = tuple(Part(e, tuple(map(tuple, c)), present.get((e, m), ())) for (e, m), c in columns.items())
    return Layout(begin, tuple(own), parts)
