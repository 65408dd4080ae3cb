"""Mark a log in a browser: episodes, outcomes, interventions, events and more, on synchronous tracks.

The page is served on this machine's loopback address only. Marks lie beside the log, in LOG.annotations, one file per
author; each one is on the disk before the page shows it. With --export, --merge or --propose no page is opened.
"""

import csv
import json
import secrets
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hardware.annotation import Annotation, AnnotationStore
from hardware.annotation.agreement import agreement
from hardware.annotation.operations import conflicts
from hardware.annotation.store import check_author, default_author
from hardware.errors import BadInput
from robo_rl.annotate.session import Session, open_log
from robo_rl.cli import Outcome

COLUMNS = ("kind", "label", "t0_s", "t1_s", "status", "who", "type", "value", "id", "episode", "t0_ns", "t1_ns")


@dataclass(frozen=True)
class Args:
    """Arguments of `robo-rl annotate`."""

    log: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOG")]
    """Directory of a recording, or an .mcap file."""
    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one."""
    author: str | None = None
    """Whose marks these are; by default the user of this computer."""
    subtasks: str = ""
    """Names of the subtasks of the keys 1 to 9, separated by commas."""
    at: float | None = None
    """Show this instant, seconds after the log's start."""
    read_only: bool = False
    """Show marks, change none."""
    browser: bool = True
    """Open the page in the default browser."""
    propose: bool = False
    """Let the rules propose marks (crash, contact, jerk, stillness) as drafts, and end."""
    merge: Path | None = None
    """Take over the marks of another copy, a .jsonl file of the same log, and end."""
    export: Path | None = None
    """Write the marks to this .json or .csv file, and end."""


def run(args: Args) -> Outcome:
    """Serves the page until Ctrl-C, or does what was asked instead; the result counts the confirmed marks."""
    if args.author is not None:
        check_author(args.author)
    if not 0 <= args.port <= 65535:
        raise BadInput(f"--port {args.port}; expected 0 to 65535")
    if args.export is not None and args.export.suffix not in (".json", ".csv"):
        raise BadInput(f"--export {args.export}: expected a name that ends in .json or .csv")
    if args.propose or args.merge is not None or args.export is not None:
        return _without_page(args)
    return _serve(args)


def _without_page(args: Args) -> Outcome:
    if args.propose:
        session = Session(args.log, args.author)
        try:
            added = session.propose()["added"]
            print(f"{added} new drafts; review them on the page with Tab")
        finally:
            session.close()
    store = AnnotationStore(open_log(args.log), args.author)
    if args.merge is not None:
        print(f"{store.merge(args.merge)} new operations from {args.merge}")
    if args.export is not None:
        _export(args.export, store)
        print(f"{len(store.marks())} marks in {args.export}")
    return _report(store)


def _serve(args: Args) -> Outcome:
    try:
        from robo_rl.annotate.server import PageServer
    except ModuleNotFoundError as e:
        raise BadInput(f"needs the package '{e.name}'; pip install 'robo_rl[annotate]'") from e
    sys.setswitchinterval(0.0005)  # answers come while the log is read: ten times as many turns as usual
    token = secrets.token_urlsafe(24)
    session = Session(args.log, args.author, tuple(s.strip() for s in args.subtasks.split(",") if s.strip()))
    try:
        author = args.author or default_author()
        server = PageServer(session, token, args.port, read_only=args.read_only, author=author)
        url = server.url + (f"#t={args.at:g}" if args.at is not None else "")

        def ready() -> None:
            print(f"marks lie in {args.log.resolve()}.annotations; stop with Ctrl-C")
            print(f"open {url}", flush=True)
            if args.browser and not webbrowser.open(url):
                print("no browser could be opened: copy the address", file=sys.stderr)

        server.run(ready)
        return _report(session.store)
    finally:
        session.close()


def _report(store: AnnotationStore) -> Outcome:
    """Prints and returns the confirmed marks per kind, what waits for review, and how well annotators agree."""
    marks, counts = store.marks(), store.counts()
    drafts = sum(m.status == "draft" for m in marks)
    clashing = conflicts(marks)
    print(", ".join(f"{n} {kind}" for kind, n in counts.items() if n) or "no confirmed marks", end="")
    print(f"; {drafts} drafts, {len(clashing)} conflicts")
    people = [a for a in store.authors() if any(m.by.type == "human" for m in store.of(a))]
    figures: dict[str, Any] = {}
    start = min((m.t0_ns for m in marks), default=0)
    end = max((m.t1_ns for m in marks), default=0) + 1
    for i, a in enumerate(people):
        for b in people[i + 1 :]:
            found = agreement(store.of(a), store.of(b), start, end)
            figures[f"{a}, {b}"] = {kind: f._asdict() for kind, f in found.items()}
            for kind, f in found.items():
                kappa = "-" if f.kappa is None else f"{f.kappa:.2f}"
                edge = "-" if f.boundary_ms is None else f"{f.boundary_ms:.0f} ms"
                print(f"  {a} and {b}, {kind}: kappa {kappa}, F1 {f.f1:.2f}, boundaries {edge}")
    return Outcome({**counts, "drafts": drafts, "conflicts": len(clashing), "agreement": figures})


def _export(path: Path, store: AnnotationStore) -> None:
    """Writes all marks that are not deleted, drafts and rejected ones with their status."""
    marks = store.marks()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        whole = {"schema": "robo_rl.marks/1", "log": store.log_hash, "marks": [m.to_json() for m in marks]}
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    start = open_log(store.folder.with_name(store.folder.name.removesuffix(".annotations"))).start_ns
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        table.writerows(_row(m, start) for m in marks)


def _row(m: Annotation, start_ns: int) -> list[Any]:
    t = [(m.t0_ns - start_ns) / 1e9, (m.t1_ns - start_ns) / 1e9]
    value = json.dumps(dict(m.value), ensure_ascii=False) if m.value else ""
    return [m.kind, m.label, *t, m.status, m.by.who, m.by.type, value, m.id, m.episode or "", m.t0_ns, m.t1_ns]
