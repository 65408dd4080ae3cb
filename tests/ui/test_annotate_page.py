"""The annotation page in a real Chromium, by keyboard alone, on a real server process that may be killed."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.annotate_log import CRASH_S, START_NS, write_flight
from support.annotate_page import Page, Served
from support.browser import chromium

from hardware.annotation import annotations, folder_of
from robo_rl.annotate.session import open_log

pytest.importorskip("uvicorn", reason="needs the extra [annotate]")
pytestmark = [pytest.mark.ui, pytest.mark.slow]
LENGTH_S = 45.0


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as b:
        yield b


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flight(tmp_path_factory.mktemp("logs") / "flight", LENGTH_S)


@pytest.fixture
def log(recorded: Path, tmp_path: Path) -> Path:
    """The same recording under a name of its own, without marks."""
    (tmp_path / "flight").symlink_to(recorded, target_is_directory=True)
    return tmp_path / "flight"


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(servers: ExitStack, log: Path, *arguments: str) -> Served:
    served = Served(log, *arguments)
    servers.callback(served.stop)
    return served


def test_twenty_episodes_by_keyboard_survive_a_kill(browser: Any, log: Path, servers: ExitStack) -> None:
    """e, a second on, s or f, a second on: twenty times; kill -9; every mark is there for the next server."""
    from selenium.webdriver.common.keys import Keys

    served = serve(servers, log, "--author", "anna")
    page = Page(browser, served.url)
    for i in range(20):
        page.press("e")
        page.shift(Keys.ARROW_RIGHT)
        page.press("f" if i % 3 == 2 else "s")
        page.saved(2 * (i + 1))
        page.shift(Keys.ARROW_RIGHT)
    served.kill()
    log_marks = annotations(log)
    episodes = [m for m in log_marks if m.kind == "episode"]
    outcomes = [m for m in log_marks if m.kind == "outcome"]
    assert [(m.t0_ns - START_NS) / 1e9 for m in episodes] == [2.0 * i for i in range(20)]
    assert {m.duration_s for m in episodes} == {1.0}
    assert [m.label for m in outcomes] == ["failure" if i % 3 == 2 else "success" for i in range(20)]
    assert [m.episode for m in outcomes] == [m.id for m in episodes]
    assert {m.by.who for m in log_marks} == {"anna"}
    page.until("document.getElementById('saved').textContent.includes('server')")
    page.press("e", "e")
    again = Page(browser, serve(servers, log, "--author", "anna").url)
    assert len(again.marks("episode")) == len(again.marks("outcome")) == 20
    assert again.js("document.querySelectorAll('#marks li').length") == 40


def test_a_mark_that_the_server_does_not_take_is_not_shown(browser: Any, log: Path, servers: ExitStack) -> None:
    from selenium.webdriver.common.keys import Keys

    served = serve(servers, log)
    page = Page(browser, served.url)
    served.kill()
    page.press("i")
    page.shift(Keys.ARROW_RIGHT)
    page.press("i")
    page.until("document.getElementById('saved').classList.contains('bad')")
    assert page.js("annotator.S.marks.length") == 0
    assert not folder_of(log).exists()


def test_every_kind_by_keyboard(browser: Any, log: Path, servers: ExitStack) -> None:
    """All nine kinds, with labels, numbers and reasons typed."""
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, serve(servers, log, "--author", "anna", "--subtasks", "reach,grasp").url)

    def asked(*keys: str) -> None:
        page.until("!document.getElementById('prompt').hidden")
        page.press(*keys)

    page.press("e")
    page.shift(Keys.ARROW_RIGHT)
    page.press("a")
    page.saved(2)
    page.press("1")
    page.shift(Keys.ARROW_RIGHT)
    page.press("2")
    page.saved(3)
    page.shift(Keys.ARROW_RIGHT)
    page.press("2")
    page.saved(4)
    page.press("i")
    page.shift(Keys.ARROW_RIGHT)
    page.press("i")
    page.saved(5)
    page.press("m")
    asked("2")
    page.saved(6)
    page.press("m")
    asked("t", "o", "u", "c", "h", "d", "o", "w", "n", Keys.ENTER)
    page.saved(7)
    page.press("n")
    asked(*"wind from the left", Keys.ENTER)
    page.saved(8)
    page.press("[")
    page.shift(Keys.ARROW_RIGHT)
    page.press("]", "r")
    asked("-", "0", ".", "5", Keys.ENTER)
    page.saved(9)
    page.press("x")
    page.shift(Keys.ARROW_RIGHT)
    page.press("x")
    asked(*"camera covered", Keys.ENTER)
    page.saved(10)
    page.press("y")
    page.shift(Keys.ARROW_RIGHT)
    page.press("y")
    asked("6")
    page.saved(11)
    found = [(m.kind, m.label, dict(m.value)) for m in annotations(log)]
    assert found == [
        ("episode", "", {}),
        ("outcome", "aborted", {}),
        ("subtask", "reach", {}),
        ("subtask", "grasp", {}),
        ("intervention", "human", {}),
        ("event", "slip", {}),
        ("event", "touchdown", {}),
        ("note", "wind from the left", {}),
        ("reward", "", {"reward": -0.5}),
        ("exclude", "", {"reason": "camera covered"}),
        ("sysid", "excitation", {"split": "val"}),
    ]
    assert page.errors() == []


def test_undo_redo_edit_and_delete(browser: Any, log: Path, servers: ExitStack) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, serve(servers, log, "--author", "anna").url)
    page.press("m")
    page.until("!document.getElementById('prompt').hidden")
    page.press("1")
    page.saved(1)
    page.press(Keys.ENTER)  # what the selected mark says
    page.until("!document.getElementById('prompt').hidden")
    page.press("3")
    page.until("annotator.S.marks[0].label === 'crash'")
    page.shift(Keys.ARROW_RIGHT)
    page.shift("]")  # } moves the selected mark here
    page.until("annotator.S.marks[0].t0 === 1e9")
    page.press(Keys.DELETE)
    page.saved(0)
    for label in ("crash", "crash", "contact"):
        page.press("z")
        page.until(f"annotator.S.marks.length && annotator.S.marks[0].label === '{label}'")
    page.press("z")
    page.saved(0)
    page.press("z")
    page.until("document.getElementById('saved').textContent === 'nothing to undo'")
    for _ in range(3):
        page.shift("z")
    page.until("annotator.S.marks.length && annotator.S.marks[0].t0 === 1e9")
    (mark,) = annotations(log)
    assert (mark.label, mark.t0_ns) == ("crash", START_NS + 10**9)


def test_two_annotators_see_each_other(browser: Any, log: Path, servers: ExitStack, tmp_path: Path) -> None:
    """Two browsers on one server, and a third author whose server is another process; conflicts come up for review."""
    from selenium.webdriver.common.keys import Keys

    served = serve(servers, log, "--author", "anna")
    other = serve(servers, log, "--author", "eve")
    anna = Page(browser, served.url)
    with chromium(tmp_path / "second") as second:
        ben = Page(second, served.url)
        second.execute_script("annotator.S.author = 'ben'")
        for page, key in ((anna, "s"), (ben, "f")):
            page.press("e")
            page.shift(Keys.ARROW_RIGHT)
            page.press(key)
            page.until("annotator.S.marks.some((m) => m.kind === 'outcome' && m.who === annotator.S.author)")
        for page in (anna, ben):
            page.until("annotator.S.marks.length === 4")
            page.until("annotator.S.conflicts.size === 2")
        assert {m["who"] for m in anna.marks("outcome")} == {"anna", "ben"}
        ben = Page(second, other.url)
        ben.press("i")
        ben.shift(Keys.ARROW_RIGHT)
        ben.press("i")
        anna.until("annotator.S.marks.some((m) => m.who === 'eve')")
        anna.press("0", Keys.HOME, Keys.TAB)
        anna.until("annotator.S.marks.some((m) => m.id === annotator.S.selected && m.kind === 'outcome')")
    assert {f.name for f in folder_of(log).iterdir()} == {"anna.jsonl", "ben.jsonl", "eve.jsonl"}


def test_drafts_are_proposed_and_reviewed(browser: Any, log: Path, servers: ExitStack) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, serve(servers, log, "--author", "anna").url)
    page.press("p")
    page.until("annotator.S.marks.length === 3")
    assert {m["status"] for m in page.js("annotator.S.marks")} == {"draft"}
    assert annotations(log) == []
    page.press("/", *"crash")
    page.until("document.querySelectorAll('#marks li').length === 1")
    page.press(Keys.ENTER)
    page.until(f"Math.abs(annotator.S.cursor / 1e9 - {CRASH_S}) < 0.02")
    page.press(Keys.ESCAPE, Keys.ENTER)
    page.until("annotator.S.marks.filter((m) => m.status === 'confirmed').length === 1")
    page.press(Keys.TAB, Keys.DELETE)
    page.until("annotator.S.marks.filter((m) => m.status === 'rejected').length === 1")
    (mark,) = annotations(log)
    assert (mark.label, mark.by.type, mark.t0_ns) == ("crash", "rule", START_NS + round(CRASH_S * 1e9))


def test_a_key_is_given_another_meaning(browser: Any, log: Path, servers: ExitStack) -> None:
    """In the overlay, by keyboard; the bar shows it; it lasts; the action that had the key has lost it."""
    from selenium.webdriver.common.keys import Keys

    served = serve(servers, log)
    page = Page(browser, served.url)
    try:
        page.press("?")
        page.until("!document.getElementById('help').hidden")
        steps = page.js(
            "[...document.querySelectorAll('#help button')].findIndex((b) => b.dataset.action === 'episode')"
        )
        page.press(*[Keys.ARROW_DOWN] * steps, Keys.ENTER)
        page.until("document.querySelector('#help .waiting')")
        page.press("m")
        page.until("document.querySelector('#help small').textContent.includes('has lost it')")
        page.press(Keys.ESCAPE)
        page = Page(browser, served.url)
        assert page.js("document.querySelector('#keys [data-action=episode] kbd').textContent") == "m"
        assert page.js("document.querySelector('#keys [data-action=event] kbd')") is None
        page.press("m")
        page.shift(Keys.ARROW_RIGHT)
        page.press("m")
        page.saved(1)
        assert [m.kind for m in annotations(log)] == ["episode"]
        page.press("?")
        page.until("!document.getElementById('help').hidden")
        page.press(*[Keys.ARROW_DOWN] * steps, Keys.BACKSPACE, Keys.ESCAPE)
        page.until("document.querySelector('#keys [data-action=episode] kbd').textContent === 'e'")
    finally:
        browser.execute_script("localStorage.clear()")


def test_playing_stepping_and_snapping(browser: Any, log: Path, servers: ExitStack) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, serve(servers, log, "--at", "5.01").url)
    assert page.js("annotator.S.cursor") == 5.01e9
    page.press(Keys.ARROW_RIGHT)
    page.until("annotator.S.cursor === 5.05e9")
    page.until("annotator.frames.shown.t === 5.05e9")
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    page.until("annotator.S.cursor === 4.95e9")
    page.press("l", "l")
    page.until("annotator.S.playing === 2 && annotator.S.cursor > 5.3e9")
    page.press("j")
    page.until("annotator.S.playing === -1")
    page.press("k")
    at = page.js("annotator.S.cursor")
    page.press(Keys.SPACE)
    page.until(f"annotator.S.playing === 1 && annotator.S.cursor > {at} + 1e8")
    page.press(Keys.SPACE, "c", "c")
    page.until("annotator.S.snap === 'frame'")
    page.press("i")
    page.shift(Keys.ARROW_RIGHT)
    page.press("i")
    page.saved(1)
    (mark,) = annotations(log)
    assert {(t - START_NS) % 50_000_000 for t in (mark.t0_ns, mark.t1_ns)} == {0}
    page.press("i")
    page.shift(Keys.ARROW_RIGHT)
    assert page.js("document.getElementById('live').textContent") == "● human 1.00 s"
    page.press(Keys.ESCAPE)
    assert page.js("document.getElementById('live').textContent") == ""


def test_links_of_a_report_lead_to_the_place(browser: Any, log: Path, servers: ExitStack, tmp_path: Path) -> None:
    """From a file on the disk, as reports are, to the page with the token; and on the open page by its fragment."""
    served = serve(servers, log)
    report = tmp_path / "report.html"
    report.write_text(f'<a id="worst" href="{served.url}#t=12.5,13">worst window</a>')
    browser.get(report.as_uri())
    browser.find_element("id", "worst").click()
    page = Page.__new__(Page)
    page.browser = browser
    page.until("document.body.dataset.ready === '1' && annotator.S.cursor === 12.5e9")
    assert page.js("annotator.S.t0 <= 12e9 && annotator.S.t1 >= 13.5e9 && annotator.S.t1 - annotator.S.t0 < 5e9")
    browser.execute_script("location.hash = '#t=3'")
    page.until("annotator.S.cursor === 3e9")


def test_pictures_tracks_and_pose_are_painted(browser: Any, log: Path, servers: ExitStack) -> None:
    """Pixels of each canvas, and the picture's brightness, which tells its instant."""
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, serve(servers, log).url)
    page.until("annotator.tracks.isReady()")
    for _ in range(8):
        page.shift(Keys.ARROW_RIGHT)
    page.until("annotator.frames.shown.t === 8e9")
    grey = page.js("document.querySelector('#camera canvas').getContext('2d').getImageData(40, 100, 1, 1).data[0]")
    assert abs(grey - 200) < 4
    for canvas in ("#tracks", "#tiers", "#overview", "#pose canvas"):
        colours = page.js(
            f"(() => {{ const c = document.querySelector('{canvas}'); const d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; return new Set(new Uint32Array(d.buffer)).size; })()"
        )
        assert colours > 5, canvas
    fits = "document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth"
    assert page.js(fits)
    page.press("t")
    page.until("!document.getElementById('prompt').hidden")
    page.press(*"twist.linear.y", Keys.ENTER)
    page.until("annotator.S.tracks.length === 9 || annotator.S.tracks.length === 11")
    assert page.errors() == []
    browser.execute_script("localStorage.clear()")


SAMPLES = {
    "crazyflie_arpl/log10": 4,
    "go2_sysid/traj_0.pt": 0,
    "plus_ultrasound/WaterTankBottomTranslationTrackerBuffer.igs.mha": 0,
    "px4_ulog/sample.ulg": 0,
}
"""Sample recording -> drafts that the rules propose."""


@pytest.mark.parametrize("name", SAMPLES, ids=lambda n: n.split("/")[0])
def test_sample_recordings_open(browser: Any, servers: ExitStack, tmp_path: Path, name: str) -> None:
    """Real recordings of four machines, imported: ten tracks with numbers, a pose where there is one, and the rules."""
    file = Path(__file__).resolve().parents[3] / "shared" / "data" / name
    if not file.exists():
        pytest.skip(f"sample recordings are not in {file.parent}")
    from hardware.log.imports import import_log

    if name.endswith(".ulg"):
        pytest.importorskip("pyulog", reason="needs the extra [export]")
    import_log(file, tmp_path / "log")
    page = Page(browser, serve(servers, tmp_path / "log").url)
    page.until("annotator.tracks.isReady() && annotator.tracks.hasData()")
    assert page.js("annotator.S.tracks.length") == 10
    assert page.js("document.getElementById('pose').hidden") == name.startswith("crazyflie")
    page.press("p")
    page.until(f"document.getElementById('saved').textContent.startsWith('{SAMPLES[name]} new drafts')")
    if SAMPLES[name]:
        assert page.js("annotator.S.marks.find((m) => m.label === 'crash').t0 / 1e9") == pytest.approx(42.69, abs=0.01)
    assert page.errors() == []


def test_read_only_and_stopping(browser: Any, log: Path, servers: ExitStack) -> None:
    served = serve(servers, log, "--read-only")
    page = Page(browser, served.url)
    page.press("m")
    page.until("!document.getElementById('prompt').hidden")
    page.press("1")
    page.until("document.getElementById('saved').textContent.includes('--read-only')")
    assert not folder_of(log).exists()
    assert served.stop() == 0
    assert "no confirmed marks; 0 drafts, 0 conflicts" in served.output[-1]


def test_the_command_needs_no_browser_for_the_rest(log: Path, tmp_path: Path) -> None:
    """Proposing, exporting and merging, as `robo-rl annotate` without a page."""
    import json

    from robo_rl.cli import main

    out = tmp_path / "marks.json"
    assert main(["annotate", str(log), "--propose", "--export", str(out), "--json", str(tmp_path / "r.json")]) == 0
    written = json.loads(out.read_text())
    assert written["log"] == open_log(log).content_hash
    assert sorted(m["label"] for m in written["marks"]) == ["crash", "jerk", "still"]
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["drafts"], result["episode"], result["conflicts"]) == (3, 0, 0)
    assert main(["annotate", str(log), "--export", str(tmp_path / "marks.csv")]) == 0
    rows = (tmp_path / "marks.csv").read_text().splitlines()
    assert [r for r in rows if r.startswith("event,crash,7.5,7.5,draft,rules,rule,")]
    assert main(["annotate", str(log), "--export", str(tmp_path / "marks.txt")]) == 1
