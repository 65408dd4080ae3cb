"""One self-contained HTML page from sections of text, tables and pictures."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    text: str
    """What the reader sees below, in a sentence or two."""
    command: str = ""
    """The command line that produced it, so that the reader can run it again."""
    rows: Sequence[tuple[str, str, str]] = ()
    """(name, value, target or remark) of each figure."""
    pictures: Sequence[tuple[bytes, str]] = field(default_factory=tuple)
    """(PNG bytes, caption)."""
    links: Sequence[tuple[str, str]] = ()
    """(words, address) of places to go to."""
    ok: bool | None = None
    """Whether this part reached its targets; None where it has none."""


def write_page(path: Path, *, title: str, verdict: str, ok: bool, facts: str, sections: Sequence[Section]) -> None:
    """Writes the page aside and renames it into place."""
    template = Template((resources.files("robo_rl.report") / "page.html").read_text())
    page = template.substitute(
        title=html.escape(title),
        verdict=html.escape(verdict),
        verdict_class="good" if ok else "bad",
        facts=html.escape(facts),
        contents="\n".join(f'<a href="#s{i}">{html.escape(s.title)}</a>' for i, s in enumerate(sections)),
        sections="\n".join(_section(i, s) for i, s in enumerate(sections)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".html.part")
    aside.write_text(page)
    aside.replace(path)


def _section(index: int, s: Section) -> str:
    mark = (
        ""
        if s.ok is None
        else f'<span class="mark {"good" if s.ok else "bad"}">{"reached" if s.ok else "missed"}</span>'
    )
    parts = [f'<section id="s{index}"><h2>{html.escape(s.title)} {mark}</h2><p>{html.escape(s.text)}</p>']
    if s.rows:
        cells = "".join(
            f"<tr><td>{html.escape(a)}</td><td class='value'>{html.escape(b)}</td><td>{html.escape(c)}</td></tr>"
            for a, b, c in s.rows
        )
        parts.append(f"<table><tr><th>figure</th><th>measured</th><th>target or remark</th></tr>{cells}</table>")
    for png, caption in s.pictures:
        data = base64.b64encode(png).decode()
        alt = html.escape(caption, quote=True)
        parts.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    if s.links:
        places = [
            f'<li><a href="{html.escape(href, quote=True)}">{html.escape(words)}</a></li>' for words, href in s.links
        ]
        parts.append(f"<ul>{''.join(places)}</ul>")
    if s.command:
        parts.append(f"<pre>{html.escape(s.command)}</pre>")
    return "\n".join([*parts, "</section>"])
