"""Text tables: CSV with any delimiter, decimal point or comma, and dates as people write them."""

import csv
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.errors import BadInput
from hardware.log.dates import is_date, parse_dates
from hardware.log.imports import Imported, Options
from hardware.log.named_arrays import is_time_name, scaled_to_ns, time_unit
from hardware.log.table import Column, Table, field_names, nanoseconds

FORMAT = "csv"
ABOUT = "text table"
DELIMITERS = (";", "\t", "|", ",", " ")
DATE_WORDS = ("date", "datetime", "date_time", "datum", "date time", "time stamp", "zeitstempel", "%time", "tijd")
HOUR_WORDS = ("time", "hour", "uhrzeit", "zeit", "time of day")
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "#n/a")
EXCEL_EPOCH_DAYS = 25_569
"""Days from Excel's day 0 to 1970."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+([eE][+-]?\d+)?")
_POINT_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d*)\.\d+([eE][+-]?\d+)?")
_CLOCK = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp][Mm])?\s*")
_UNIT = re.compile(r"(.*?)\s*(?:\[([^\]]*)\]|\(([^)]*)\))\s*")


class _Text(NamedTuple):
    """A table as text."""

    names: list[str]
    units: list[str]
    columns: list[list[str]]
    notes: list[str]


def recognises(path: Path, head: bytes) -> bool:
    """Text whose first lines hold a delimiter, or a file that is named like a table."""
    if not head or (b"\0" in head and head[:2] not in (b"\xff\xfe", b"\xfe\xff")):
        return False
    lines = _decode(head).splitlines()[:5]
    return path.suffix.lower() in (".csv", ".tsv", ".txt") or any(sum(d in line for line in lines) > 1 for d in ",;\t|")


def load(path: Path, options: Options) -> Imported:
    """One topic named after the file; units from `name [unit]`, `name (unit)` or a row of units, as they are."""
    text = _read(path)
    comma = _uses_comma(text.columns)
    if comma:
        text.notes.append("numbers: decimal comma")
    t_ns, used = _time(path, text, comma, options)
    if (np.diff(t_ns) < 0).any():
        text.notes.append(f"{int((np.diff(t_ns) < 0).sum())} rows go back in time; rows are sorted")
    columns = {}
    for i, (name, unit, cells) in enumerate(zip(text.names, text.units, text.columns, strict=True)):
        if i not in used:
            columns[name if name not in columns else f"{name}_{i}"] = Column(_values(cells, comma), unit)
    if not columns:
        raise BadInput(f"{path}: holds nothing but the time")
    return Imported([Table(f"/{field_names([path.name.split('.')[0]])[0]}", t_ns, columns)], text.notes)


def _decode(raw: bytes) -> str:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        # The head of a file may end inside a character; anything else is the old encoding of Windows.
        return raw.decode("utf-8-sig" if e.start > len(raw) - 4 else "cp1252", "replace")


def _read(path: Path) -> _Text:
    raw = path.read_bytes()
    if b"\0" in raw and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(f"{path}: not a {ABOUT}: it holds zero bytes")
    # EuRoC and TUM write the names of the columns as a comment.
    lines = [line.lstrip("# ") if line[:1] == "#" else line for line in _decode(raw).splitlines()]
    lines = [line for line in lines if line.strip(" \t,;|")]
    if not lines:
        raise BadInput(f"{path}: not a {ABOUT}: it is empty")
    delimiter, width = _sniff(lines[:100])
    notes = [f"delimiter: {delimiter!r}"]
    rows = _rows(path, lines, delimiter, width, notes)
    head, units = rows[0], [""] * width
    if any(_is_value(c) for c in head):
        names = [f"column_{i + 1}" for i in range(width)]
        notes.append("no row of names: columns are numbered")
    else:
        del rows[0]
        names = [c.strip() or f"column_{i + 1}" for i, c in enumerate(head)]
    for i, name in enumerate(names):
        match = _UNIT.fullmatch(name)
        if match:
            names[i], units[i] = match[1] or f"column_{i + 1}", (match[2] or match[3] or "").strip()
    if not any(units) and len(rows) > 1 and _are_units(rows[0], rows[1]):
        units = [c.strip().strip("[]()") for c in rows.pop(0)]
    if not rows:
        raise BadInput(f"{path}: holds no rows")
    return _Text(names, units, [list(c) for c in zip(*rows, strict=True)], notes)


def _sniff(lines: list[str]) -> tuple[str, int]:
    """The delimiter that parts most lines into the same number of cells, and that number."""
    best = (0, ",", 1)
    for delimiter in DELIMITERS:
        try:
            counts = Counter(len(r) for r in csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        except csv.Error:
            continue
        width, times = max(counts.items(), key=lambda c: (c[1], c[0]))
        if width > 1 and times > best[0]:
            best = (times, delimiter, width)
    return best[1], best[2]


def _rows(path: Path, lines: list[str], delimiter: str, width: int, notes: list[str]) -> list[list[str]]:
    """Rows of equal length; lines before the table are left out, later ones must fit."""
    rows: list[list[str]] = []
    skipped = 0
    try:
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter, skipinitialspace=True), 1):
            cells = row[:-1] if len(row) == width + 1 and not row[-1].strip() else row
            if len(cells) == width:
                rows.append(cells)
            elif rows:
                raise BadInput(f"{path}: line {number} has {len(row)} cells, not {width}; it was cut off or damaged")
            else:
                skipped += 1
    except csv.Error as e:
        raise BadInput(f"{path}: not a {ABOUT} ({e})") from e
    if skipped:
        notes.append(f"{skipped} lines before the table are left out")
    return rows


def _is_value(cell: str) -> bool:
    cell = cell.strip()
    return bool(_NUMBER.fullmatch(cell) or _COMMA_NUMBER.fullmatch(cell) or is_date(cell) or _CLOCK.fullmatch(cell))


def _are_units(row: list[str], following: list[str]) -> bool:
    """Whether a row under the names holds units: short words where the next row holds values."""
    if any(_is_value(c) or len(c) > 15 for c in row) or not any(c.strip() for c in row):
        return False
    return sum(_is_value(c) for c in following) > len(following) / 2


def _uses_comma(columns: list[list[str]]) -> bool:
    """Whether numbers have a decimal comma: more cells can only be read so than only with a point."""
    commas = points = 0
    for cells in columns:
        for c in cells[:1000]:
            commas += bool(_COMMA_NUMBER.fullmatch(c.strip()))
            points += bool(_POINT_NUMBER.fullmatch(c.strip()))
    return commas > points


def _plain(cell: str, comma: bool) -> str:
    """A number's text with a decimal point and without separators of thousands."""
    cell = cell.strip()
    if comma and _COMMA_NUMBER.fullmatch(cell):
        return cell.replace(".", "").replace(",", ".")
    return cell.replace(",", "") if not comma and _POINT_NUMBER.fullmatch(cell) else cell


def _values(cells: list[str], comma: bool) -> NDArray:
    """Numbers where every cell is one or missing; else text."""
    together = "".join(cells)
    if not comma and "_" not in together and not re.fullmatch(r"[\d\s+-]*", together):
        with suppress(ValueError):  # most columns of most tables; the rest is looked at cell by cell
            return np.array(cells, dtype=np.float64)
    plain = [_plain(c, comma) for c in cells]
    missing = [c.lower() in MISSING for c in plain]
    if not all(m or _NUMBER.fullmatch(c) for m, c in zip(missing, plain, strict=True)) or all(missing):
        if all(c.lower() in ("true", "false") for c in plain):
            return np.array([c.lower() == "true" for c in plain])
        return np.array([c.strip() for c in cells])
    if not any(missing) and all(re.fullmatch(r"[+-]?\d{1,19}", c) for c in plain):
        whole = [int(c) for c in plain]
        if max(map(abs, whole)) < 2**63:
            return np.array(whole, dtype=np.int64)
    return np.array([np.nan if m else float(c) for m, c in zip(missing, plain, strict=True)])


def _time(path: Path, text: _Text, comma: bool, options: Options) -> tuple[NDArray[np.int64], set[int]]:
    """The instants, and the columns that hold them."""
    names = [n.strip().lower() for n in text.names]
    if options.time and options.time not in text.names:
        raise BadInput(f"{path}: no column '{options.time}'; columns: {', '.join(text.names)[:300]}")
    chosen = [text.names.index(options.time)] if options.time else []
    chosen = chosen or [i for i, n in enumerate(names) if n in DATE_WORDS or is_time_name(n) or n in HOUR_WORDS][:2]
    if not chosen and all(is_date(c) for c in text.columns[0]):
        chosen = [0]
    if not chosen:
        if options.rate_hz is None:
            raise BadInput(f"{path}: no time among {', '.join(text.names)[:200]}; give --time COLUMN or --rate HZ")
        text.notes.append(f"time: rows counted at {options.rate_hz:g} Hz")
        return nanoseconds(np.arange(len(text.columns[0])) / options.rate_hz, str(path)), set()
    first = chosen[0]
    cells, used = text.columns[first], {first}
    if len(chosen) == 2 and all(_CLOCK.fullmatch(c) for c in text.columns[chosen[1]]):
        cells, used = [f"{d} {h}" for d, h in zip(cells, text.columns[chosen[1]], strict=True)], set(chosen)
    what = f"{path}: {text.names[first]}"
    if any(is_date(c) for c in cells):
        t_ns, notes = parse_dates(cells, what, options.day_first)
        text.notes.extend(["time: dates", *notes])
        return t_ns, used
    values = _values(cells, comma)
    if values.dtype.kind not in "if":
        raise BadInput(f"{what}: {cells[0][:40]!r} is neither a number nor a date")
    if names[first] == "%time":
        text.notes.append("time: days since 1899-12-30, UTC, as spreadsheets count")
        return nanoseconds(np.round((values - EXCEL_EPOCH_DAYS) * 86_400.0, 3), what), used
    unit = text.units[first] if text.units[first] in ("s", "ms", "us", "ns") else time_unit(names[first], values)
    text.notes.append(f"time: {text.names[first]} in {unit}")
    return scaled_to_ns(values, unit, what), used
