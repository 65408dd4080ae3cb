"""README and docs say what is true: every snippet runs, every link leads somewhere, every flag exists.

Snippets are the fenced blocks marked bash, python or yaml-launch. All blocks of a page run in order, in one empty
folder, as a reader would type them. An HTML comment directly above a block changes that:

    <!-- run: COMMAND -->          runs this instead (a smaller budget, a free port), lines joined by newlines
    <!-- not run: REASON -->       is not run; counted and listed as a skip

A comment behind a print(...) of a Python block is what it must print.
"""

import contextlib
import functools
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "sim" / "scenes").glob("*/README.md")),
]
BLOCK_TIMEOUT_S = 240.0
_COMMENT = re.compile(r"^<!--\s*(run|not run):\s*(.*?)\s*-->$", re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)|!\[[^\]\n]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str
    run_instead: str | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page with the comment above them."""
    lines = page.read_text(encoding="utf-8").splitlines()
    comment, i = "", 0
    while i < len(lines):
        line = lines[i].strip()
        if line.startswith("<!--"):
            start = i
            while "-->" not in lines[i]:
                i += 1
            comment = "\n".join(w.strip() for w in lines[start : i + 1])
        elif line.startswith("```"):
            start, indent = i, len(lines[i]) - len(lines[i].lstrip())
            i += 1
            body = []
            while not lines[i].strip().startswith("```"):
                body.append(lines[i][indent:])
                i += 1
            kind, text = m.groups() if (m := _COMMENT.match(comment)) else ("", "")
            yield Block(
                page,
                start + 1,
                line.removeprefix("```").strip(),
                "\n".join(body),
                run_instead=text if kind == "run" else None,
                reason=text if kind == "not run" else None,
            )
            comment = ""
        elif line:
            comment = ""
        i += 1


BLOCKS = [b for page in PAGES for b in blocks_of(page)]
RUN = [b for b in BLOCKS if b.language in ("bash", "python") and b.reason is None]
NOT_RUN = [b for b in BLOCKS if b.language in ("bash", "python") and b.reason is not None]


@functools.cache
def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PORT": str(free_port()),
        "ROBO_RL_LAUNCHED": "1",  # no restart with another allocator
        "PYTHONWARNINGS": "default",
    }


def run_block(block: Block, folder: Path) -> None:
    """Runs one block; whatever it leaves running in the background stays until the page's end."""
    if block.language == "python" and block.run_instead is None:
        command = [sys.executable, "-c", block.text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.run_instead or block.text]
    out = folder / f".block-{block.line}.txt"
    with out.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _groups.append(process.pid)
        status = process.wait(BLOCK_TIMEOUT_S)
    printed = out.read_text()
    assert status == 0, f"{block.name} ended with {status}:\n{printed[-3000:]}"
    if block.language == "python" and block.run_instead is None:
        promised = re.findall(r"^print\(.*\) +# (.+)$", block.text, flags=re.MULTILINE)
        missing = [line for line in promised if line not in printed.splitlines()]
        assert not missing, f"{block.name} printed\n{printed}\nand not {missing}"


_groups: list[int] = []


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder with the repository's examples; whatever was started in it is ended."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    _groups.clear()
    yield tmp_path
    for group in _groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("page", dict.fromkeys(b.page for b in RUN), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_snippet_of_a_page_runs(page: Path, folder: Path) -> None:
    for block in RUN:
        if block.page == page:
            run_block(block, folder)


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda b: b.name)
def test_snippets_that_are_not_run_say_why(block: Block) -> None:
    assert block.reason
    pytest.skip(f"{block.name}: {block.reason}")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "bash"], ids=lambda b: b.name)
def test_shell_snippets_parse(block: Block) -> None:
    """Also those that are not run."""
    checked = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{block.name}: {checked.stderr}"


# --- links ---------------------------------------------------------------------------------------------------------


def links() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        targets = [a or b for a, b in _LINK.findall(text)]
        found += [(page, t) for t in targets if not re.match(r"[a-z]+:", t)]
    return found


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for source, target in links():
        if source != page:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken, f"{page.relative_to(ROOT)}: {broken}"


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / t.partition("#")[0]).resolve() for p, t in links() if p == page]
        waiting += [t for t in targets if t in PAGES]
    assert set(PAGES) - reached == set()


# --- commands and flags --------------------------------------------------------------------------------------------


def command_lines() -> dict[tuple[str, ...], set[tuple[str, str]]]:
    """(command, subcommand) -> (flag, where) for every `robo-rl ...` in a fenced block or inline code."""
    found: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        joined = re.sub(r"\\\n\s*", " ", text)
        for line in re.findall(r"(?:robo-rl|-m robo_rl) ([a-z][^`\n|;&]*)", joined):
            words = _words(line)
            key = (words[0], words[1]) if words[0] in ("log", "replay") and len(words) > 1 else (words[0],)
            flags = {(w.partition("=")[0], str(page.relative_to(ROOT))) for w in words if re.match(r"--[a-z]", w)}
            found.setdefault(key, set()).update(flags)
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line.split(" #")[0].rstrip("`.,:;)*"))
    except ValueError:
        return line.split()


@functools.cache
def help_of(key: tuple[str, ...]) -> str:
    from robo_rl.cli import main

    out = io.StringIO()
    for named in _NAMED.get(key, [[]]):
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([*key, *named, "--help"])
    return out.getvalue()


_NAMED = {
    ("train",): [
        ["quadrotor/hover"],
        ["quadrotor/swarm"],
        ["greenhouse/lettuce"],
        ["greenhouse/lettuce", "--algo", "robust-apg"],
    ],
    ("eval",): [["zoo:quadrotor-hover"], ["zoo:quadrotor-swarm"]],
    ("dataset",): [["--collect", "quadrotor/hover"]],
}
"""What a scene's settings become flags by."""


def test_every_command_and_flag_that_the_pages_name_exists() -> None:
    from robo_rl.cli import COMMANDS

    wrong = []
    for key, flags in command_lines().items():
        if key[0] not in COMMANDS and key[0] not in ("help",):
            wrong.append(f"robo-rl {key[0]}")
            continue
        known = set(re.findall(r"--[a-z][\w.\-]*", help_of(key)))
        wrong += [f"{where}: robo-rl {' '.join(key)} {flag}" for flag, where in sorted(flags) if flag not in known]
    assert not wrong, wrong


def test_stored_policies_that_the_pages_name_exist() -> None:
    from robo_rl.zoo import names

    found = {(n, p.name) for p in PAGES for n in re.findall(r"zoo:([a-z][\w-]*[a-z])", p.read_text())}
    assert [f"{page}: zoo:{name}" for name, page in sorted(found) if name not in names()] == []


def test_the_reference_names_every_command() -> None:
    from robo_rl.cli import COMMANDS

    text = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    assert [c for c in COMMANDS if f"robo-rl {c}" not in text] == []


# --- tables that repeat what the code says ---------------------------------------------------------------------------


def test_the_topics_page_names_every_topic_service_and_parameter() -> None:
    """Robot topics from the spec, the rest from where the nodes declare them."""
    from controllers import channels
    from hardware.messages import STATUS_TOPIC, TICK_TOPIC, state_topics
    from hardware.spec import load_spec

    text = (ROOT / "docs" / "reference" / "topics.md").read_text()
    spec = load_spec("crazyflie")
    wanted = {*state_topics(spec), STATUS_TOPIC, TICK_TOPIC, "command/stop"}
    wanted |= {m.topic.name for m in spec.modes.values() if m.topic is not None}
    wanted |= {c[0] for c in (channels.GOAL, channels.CARD, channels.ESTOP, channels.HEARTBEAT, channels.DIAGNOSTICS)}
    for node in ("robot_node", "policy_node"):
        source = (ROOT / "controllers" / "nodes" / f"{node}.py").read_text()
        wanted |= set(re.findall(r'create_service\(\w+, "([^"]+)"', source))
        wanted |= set(re.findall(r'declare(?:_parameter)?\(\s*"([^"]+)"', source))
    assert len(wanted) > 25
    assert [w for w in sorted(wanted) if f"`{w}`" not in text] == []
    assert [m for m in spec.modes if f"`{m}`" not in text] == []


def test_bounds_and_faults_are_described_with_their_defaults() -> None:
    import dataclasses

    from controllers.supervisor import FAULTS, Bounds

    topics = (ROOT / "docs" / "reference" / "topics.md").read_text()
    wrong = [f.name for f in dataclasses.fields(Bounds) if f"| `bounds.{f.name}` | {f.default} |" not in topics]
    safety = (ROOT / "docs" / "explanation" / "safety.md").read_text()
    assert wrong == []
    assert [f for f in FAULTS if f"| `{f}` |" not in safety] == []


def test_the_launch_page_names_every_tag_key_and_substitution() -> None:
    from robo_rl.launch_engine.parse import TAGS
    from robo_rl.launch_engine.substitutions import ARITY

    text = (ROOT / "docs" / "reference" / "launch-subset.md").read_text()
    assert [t for t in TAGS if f"`{t}`" not in text] == []
    assert [k for keys in TAGS.values() for k in keys if k not in text] == []
    assert [s for s in ARITY if f"$({s}" not in text] == []


def test_the_policy_card_page_names_every_key() -> None:
    import dataclasses

    from controllers.artifact import Card
    from controllers.interface import Field

    text = (ROOT / "docs" / "reference" / "policy-card.md").read_text()
    names = [f.name for c in (Card, Field) for f in dataclasses.fields(c)]
    assert [n for n in names if f"`{n}`" not in text] == []
