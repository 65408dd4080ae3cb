"""Dates as people write them into tables, all rows of a column together: what one row leaves open, others tell."""

import datetime
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput

_DATE = re.compile(
    r"\s*(\d{1,4})([-./])(\d{1,2})\2(\d{1,4})"
    r"(?:(?:\s*T\s*|[\s,]+)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9})\d*)?)?\s*([AaPp][Mm])?)?"
    r"\s*(Z|UTC|[+-]\d{2}:?\d{2})?\s*"
)
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_DAY_NS = 86_400 * 10**9


def is_date(text: str) -> bool:
    """Whether a cell looks like a date, with or without a time of day."""
    return _DATE.fullmatch(text) is not None


def parse_dates(cells: Sequence[str], what: str, day_first: bool | None = None) -> tuple[NDArray[np.int64], list[str]]:
    """Instants (ns since 1970) and what was assumed; formats may change from row to row.

    Years of four digits in front and dates with dots are unambiguous. Of the others, `03/04/2021`, all rows with one
    separator have one order: the one that `day_first` says, that makes every date possible, or in which time never
    goes back. Times without a zone are UTC. Raises BadInput for a cell that is no date and where the order stays open.
    """
    matches = []
    for row, cell in enumerate(cells):
        match = _DATE.fullmatch(cell)
        if match is None:
            raise BadInput(f"{what}: {cell[:40]!r} in row {row + 1} is not a date that is understood")
        matches.append(match)
    notes = ["times without a zone are taken as UTC"] if any(m[10] is None for m in matches) else []
    orders: dict[str, bool] = {".": True}
    for separator in ("/", "-"):
        open_ones = [m for m in matches if m[2] == separator and len(m[1]) < 3]
        if open_ones:
            orders[separator] = _day_first(open_ones, matches, separator, orders, what, day_first)
            notes.append(f"dates with '{separator}' are {'day' if orders[separator] else 'month'} first")
    if len({_kind(m) for m in matches}) > 1:
        notes.append(f"{len({_kind(m) for m in matches})} ways to write a date are mixed")
    return np.array([_ns(m, orders, what) for m in matches], dtype=np.int64), notes


def _kind(m: re.Match[str]) -> tuple[str, bool]:
    return m[2], len(m[1]) > 2


def _day_first(
    open_ones: list[re.Match[str]],
    matches: list[re.Match[str]],
    separator: str,
    orders: dict[str, bool],
    what: str,
    wanted: bool | None,
) -> bool:
    possible = [
        order
        for order in (True, False)
        if all(int(m[3] if order else m[1]) <= 12 for m in open_ones) and (wanted is None or wanted == order)
    ]
    if not possible:
        raise BadInput(f"{what}: dates with '{separator}' are neither all day first nor all month first")
    if len(possible) == 1:
        return possible[0]
    rising = []
    for order in possible:
        known = orders | {separator: order}
        times = [_ns(m, known, what) for m in matches if m[2] in known or len(m[1]) > 2]
        if all(a <= b for a, b in pairwise(times)):
            rising.append(order)
    if len(rising) != 1:
        example = open_ones[0][0].strip()
        raise BadInput(f"{what}: whether {example!r} may be day or month first; say --dates day-first or month-first")
    return rising[0]


def _ns(m: re.Match[str], orders: dict[str, bool], what: str) -> int:
    if len(m[1]) > 2:
        year, month, day = m[1], m[3], m[4]
    elif orders[m[2]]:
        day, month, year = m[1], m[3], m[4]
    else:
        month, day, year = m[1], m[3], m[4]
    full_year = int(year) + (2000 if len(year) == 2 else 0)
    hour, minute, second = (int(v or 0) for v in (m[5], m[6], m[7]))
    if m[9]:
        hour = hour % 12 + (12 if m[9].lower() == "pm" else 0)
    try:
        days = datetime.date(full_year, int(month), int(day)).toordinal() - _EPOCH
    except ValueError as e:
        raise BadInput(f"{what}: {m[0].strip()!r} is not a day of the calendar") from e
    if hour > 23 or minute > 59 or second > 60:
        raise BadInput(f"{what}: {m[0].strip()!r} is not a time of day")
    zone_min = 0
    if m[10] and m[10][0] in "+-":
        digits = m[10][1:].replace(":", "")
        zone_min = int(m[10][0] + "1") * (int(digits[:2]) * 60 + int(digits[2:]))
    total_s = hour * 3600 + (minute - zone_min) * 60 + second
    t_ns = days * _DAY_NS + total_s * 10**9 + int((m[8] or "0").ljust(9, "0"))
    if not 0 <= t_ns < 2**63:
        raise BadInput(f"{what}: {m[0].strip()!r} lies outside 1970 to 2262")
    return t_ns
