"""The annotation page's server as any program on this machine meets it: who is refused, and what is answered."""

import contextlib
import http.client
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from support.annotate_log import START_NS, write_flight
from support.annotate_page import Served

from hardware.annotation import AnnotationStore, annotations, folder_of

pytest.importorskip("uvicorn", reason="needs the extra [annotate]")
pytest.importorskip("starlette", reason="needs the extra [annotate]")
from robo_rl.annotate.server import PageServer
from robo_rl.annotate.session import Session

TOKEN = "a-token-for-tests"


class Client:
    """A program that talks HTTP."""

    def __init__(self, server: PageServer) -> None:
        self.server, self.host = server, f"127.0.0.1:{server.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers); the headers of a page of our own unless others are given, None leaves one out."""
        sent: dict[str, str | None] = {"Host": self.host, "X-Token": TOKEN}
        data = None
        if method == "POST":
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
        sent |= {k.replace("_", "-"): v for k, v in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(method, path, data, {k: v for k, v in sent.items() if v is not None})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        status, body, _ = self.ask("GET", f"{path}?{urlencode(query)}")
        assert status == 200, body
        return json.loads(body)

    def post(self, **request: Any) -> Any:
        status, body, _ = self.ask("POST", "/api/marks", request)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flight(tmp_path_factory.mktemp("log") / "flight", 3.0)


def serve(log: Path, **options: Any) -> Iterator[Client]:
    session = Session(log, "anna")
    server = PageServer(session, TOKEN, **options)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    assert ready.wait(30)
    yield Client(server)
    server.stop()
    thread.join(30)
    session.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(log: Path) -> Iterator[Client]:
    yield from serve(log)


# --- who is refused ------------------------------------------------------------------------------------------------

ADD = {"op": "add", "kind": "note", "t0": 5, "label": "x"}
REFUSED: dict[str, tuple[str, str, dict[str, str | None], str]] = {
    "no token": ("GET", "/api/log", {"X_Token": None}, "token is wrong or missing"),
    "wrong token": ("GET", "/api/log", {"X_Token": TOKEN + "x"}, "token is wrong or missing"),
    "token in the address of the interface": ("GET", f"/api/log?token={TOKEN}", {"X_Token": None}, "token is wrong"),
    "page without token": ("GET", "/", {"X_Token": TOKEN}, "token is wrong or missing"),
    "page with a wrong token": ("GET", "/?token=x", {}, "token is wrong or missing"),
    "another host (DNS rebinding)": ("GET", "/api/log", {"Host": "evil.example"}, "its own loopback address only"),
    "another port": ("GET", "/api/log", {"Host": "127.0.0.1:1"}, "its own loopback address only"),
    "the page's code for another host": ("GET", "/page/main.js", {"Host": "evil.example"}, "its own loopback"),
    "another origin": ("GET", "/api/log", {"Origin": "http://evil.example"}, "from other pages are refused"),
    "origin null": ("GET", "/api/log", {"Origin": "null"}, "from other pages are refused"),
    "another site": ("GET", "/api/log", {"Sec_Fetch_Site": "cross-site"}, "from other sites are refused"),
    "a link to what is not the page": (
        "GET",
        "/api/log",
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
        "from other sites are refused",
    ),
    "a link to the page without the token": (
        "GET",
        "/",
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
        "token is wrong",
    ),
    "the page inside of another": (
        "GET",
        f"/?token={TOKEN}",
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        "from other sites are refused",
    ),
    "post without token": ("POST", "/api/marks", {"X_Token": None}, "token is wrong or missing"),
    "post without origin": ("POST", "/api/marks", {"Origin": None}, "from the page itself"),
    "post of another origin": ("POST", "/api/marks", {"Origin": "http://127.0.0.1:1"}, "other pages are refused"),
    "post as a form": ("POST", "/api/marks", {"Content_Type": "application/x-www-form-urlencoded"}, "as JSON"),
    "post as plain text": ("POST", "/api/marks", {"Content_Type": "text/plain"}, "as JSON"),
    "post that is too long": ("POST", "/api/marks", {"Content_Length": "1048577"}, "at most 1 MiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client: Client, log: Path, case: str) -> None:
    method, path, headers, words = REFUSED[case]
    status, body, answered = client.ask(method, path, ADD, **headers)
    assert status == 403
    assert words in body.decode()
    assert body.count(b"\n") == 1
    assert "access-control-allow-origin" not in answered
    assert annotations(log) == []


def test_the_page_is_locked_down(client: Client) -> None:
    for path in (f"/?token={TOKEN}", "/page/main.js", "/page/style.css", "/api/log"):
        status, body, headers = client.ask("GET", path, X_Token=TOKEN if path == "/api/log" else None)
        assert status == 200
        assert body
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "set-cookie" not in headers
    assert urlsplit(client.server.url).hostname == "127.0.0.1"
    assert client.server.socket.getsockname()[0] == "127.0.0.1"


def test_answers_do_not_wait_for_acknowledgements(client: Client) -> None:
    """asyncio switches off Nagle's delay (40 ms per answer) only for sockets whose protocol is named."""
    assert client.server.socket.proto == socket.IPPROTO_TCP


def test_the_page_refers_to_nothing_elsewhere() -> None:
    """No address of another server in the page's code, and every module that is imported is there."""
    folder = Path(__file__).resolve().parents[2] / "robo_rl" / "annotate" / "page"
    for file in folder.iterdir():
        if file.suffix == ".png":
            continue
        text = file.read_text()
        assert re.findall(r"https?://", text) == [], file.name
        for name in re.findall(r'from "\./([^"]+)"|(?:src|href)="/page/([^"]+)"', text):
            assert (folder / "".join(name)).is_file(), f"{file.name}: {name}"
        assert len(text.splitlines()) <= 250, file.name


@pytest.mark.parametrize("path", ["/page/../server.py", "/page/%2e%2e/server.py", "/page/server.py", "/page/x.js"])
def test_only_the_page_is_served(client: Client, path: str) -> None:
    status, body, _ = client.ask("GET", path)
    assert status in (403, 404)
    assert b"import" not in body


# --- what is answered ----------------------------------------------------------------------------------------------


def test_signals_pictures_and_poses(client: Client) -> None:
    found = client.get("/api/log")
    assert found["start_ns"] == str(START_NS)
    assert found["bodies"] == ["/drone/odom"]
    names = [s["name"] for s in found["signals"]]
    number = names.index("/drone/odom.pose.pose.position.z")
    query = urlencode({"s": f"{number},{number}", "t0": 0, "t1": 10**9, "n": 20})
    client.server.session.signals.request([names[number]])
    client.server.session.signals.wait()
    status, body, headers = client.ask("GET", f"/api/tracks?{query}")
    assert (status, headers["x-ready"]) == (200, "1")
    rows = np.frombuffer(body, np.float32).reshape(2, 44)
    assert np.array_equal(rows[0], rows[1], equal_nan=True)
    assert rows[0, 4] == 1.0
    assert client.get("/api/values", s=number, t=0) == [1.0]
    status, body, headers = client.ask("GET", "/api/frame?i=0&t=120000000")
    assert (status, body[:3], headers["x-time"]) == (200, b"\xff\xd8\xff", "100000000")
    assert client.get("/api/snap", topic="/drone/odom", t=12_000_000, steps=1) == {"t": 20_000_000}
    client.server.session.signals.wait()
    status, body, _ = client.ask("GET", "/api/path?body=0&t0=0&t1=1000000000")
    assert status == 200
    assert len(body) % 32 == 0


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/tracks?s=99999&t0=0&t1=1&n=1", 400, "expected numbers of signals"),
        ("/api/tracks?s=-1x&t0=0&t1=1&n=1", 400, "expected numbers of signals"),
        ("/api/tracks?s=0&t0=5&t1=5&n=1", 400, "expected a length above 0"),
        ("/api/tracks?s=0&t0=0&t1=1&n=0", 400, "n=0; expected 1 to 4096"),
        ("/api/tracks?s=0&t0=0&t1=1&n=1000000000", 400, "expected 1 to 4096"),
        ("/api/tracks?s=0&t0=zero&t1=1&n=5", 400, "expected a whole number"),
        ("/api/values?s=0", 400, "t=''; expected a whole number"),
        ("/api/frame?i=7&t=0", 400, "i=7; expected 0 to 0"),
        ("/api/path?body=3&t0=0&t1=1", 400, "body=3"),
        ("/api/snap?topic=/nothing&t=0&steps=0", 404, "topic of"),
        ("/api/nothing", 404, "Not Found"),
    ],
)
def test_questions_that_make_no_sense(client: Client, path: str, status: int, words: str) -> None:
    found, body, _ = client.ask("GET", path)
    assert found == status
    assert words in body.decode()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"{", "expected a JSON object"),
        (b"[]", "expected a JSON object"),
        ({"op": "format"}, "operation 'format' not known; known: add, replace"),
        ({"op": "add"}, "needs kind and t0"),
        ({"op": "add", "kind": "note", "t0": 1.5, "label": "x"}, "expected whole nanoseconds"),
        ({"op": "add", "kind": "note", "t0": True, "label": "x"}, "expected whole nanoseconds"),
        ({"op": "add", "kind": "episode", "t0": 5, "t1": 4}, "before it begins"),
        ({"op": "add", "kind": "note", "t0": 5, "label": "x", "author": "../../etc/x"}, "author '../../etc/x'"),
        ({"op": "delete", "id": "nobody"}, "mark 'nobody' not found"),
    ],
)
def test_changes_that_make_no_sense(client: Client, log: Path, request_: Any, words: str) -> None:
    status, body, _ = client.ask("POST", "/api/marks", request_)
    assert status in (400, 404)
    assert words in body.decode()
    assert annotations(log) == []


def test_what_is_answered_is_on_the_disk(log: Path, tmp_path: Path) -> None:
    (tmp_path / "f").symlink_to(log, target_is_directory=True)
    for client in serve(tmp_path / "f"):
        answer = client.post(op="add", kind="episode", t0=5, t1=10**9, author="ben")
        line = (folder_of(tmp_path / "f") / "ben.jsonl").read_text()
        assert json.loads(line)["id"] == answer["id"]
        assert (answer["marks"][0]["t0"], answer["marks"][0]["who"]) == (5, "ben")
        assert json.loads(line)["t0_ns"] == START_NS + 5
        client.post(op="add", kind="outcome", label="success", episode=answer["id"], t0=5, t1=10**9)
        rejected = client.post(op="review", id=answer["id"], status="rejected")
        assert rejected["marks"][0]["status"] == "rejected"
        assert client.post(op="undo")["id"] == answer["id"]
        assert client.post(op="replace", id=answer["id"], t1=2 * 10**9)["marks"][0]["t1"] == 2 * 10**9
        assert client.post(op="delete", id=answer["id"])["marks"] == []


def test_news_of_other_processes_arrive(log: Path, tmp_path: Path) -> None:
    """Server-sent events tell of marks that another program has appended to the files."""
    (tmp_path / "f").symlink_to(log, target_is_directory=True)
    for client in serve(tmp_path / "f"):
        _ = client.server.session.store
        connection = http.client.HTTPConnection("127.0.0.1", client.server.port, timeout=30)
        connection.request("GET", "/api/events", headers={"Host": client.host, "X-Token": TOKEN})
        stream = connection.getresponse()
        assert stream.status == 200

        def news(stream: http.client.HTTPResponse = stream) -> dict[str, Any]:
            line = stream.readline()
            assert stream.readline() == b"\n"
            return json.loads(line.removeprefix(b"data: "))

        version = news()["version"]
        made = AnnotationStore(tmp_path / "f", "eve").add("note", START_NS + 7, label="from elsewhere")
        while (heard := news()["version"]) <= version:
            continue
        marks = client.get("/api/marks")
        assert marks["version"] >= heard
        assert [m["id"] for m in marks["marks"]] == [made.id]
        connection.close()


def test_read_only(log: Path) -> None:
    for client in serve(log, read_only=True):
        status, body, _ = client.ask("POST", "/api/marks", ADD)
        assert (status, b"--read-only" in body) == (409, True)
        assert client.get("/api/log")["read_only"] is True
    assert not folder_of(log).exists()


def test_marks_of_another_log_are_told_and_not_touched(log: Path, tmp_path: Path) -> None:
    (tmp_path / "f").symlink_to(log, target_is_directory=True)
    other = write_flight(tmp_path / "other", 0.5, pictures=False)
    AnnotationStore(other, "anna").add("note", 5, label="x")
    folder_of(other).rename(folder_of(tmp_path / "f"))
    for client in serve(tmp_path / "f"):
        for method in ("GET", "POST"):
            status, body, _ = client.ask(method, "/api/marks", ADD)
            assert status == 400
            assert b"this log is sha256:" in body
        assert client.get("/api/log")["name"] == "flight"


def test_what_is_missing_is_named_in_one_line(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robo_rl.cli import main

    monkeypatch.delitem(sys.modules, "robo_rl.annotate.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["annotate", str(log), "--no-browser"]) == 1
    said = capsys.readouterr().err
    assert said == "robo-rl: annotate: needs the package 'uvicorn'; pip install 'robo_rl[annotate]'\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port 70000; expected 0 to 65535"),
        (["--author", "a b"], "author 'a b'"),
        (["--export", "marks.xml"], "a name that ends in .json or .csv"),
        (["--merge", "/nowhere.jsonl"], "No such file"),
    ],
)
def test_mistakes_of_the_command_get_one_line(
    log: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from robo_rl.cli import main

    assert main(["annotate", str(log), "--no-browser", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 40])
def test_a_kill_in_the_middle_loses_no_acknowledged_mark(log: Path, tmp_path: Path, after: int) -> None:
    """Two writers set marks as fast as they can; after so many answers the server is killed without warning."""
    (tmp_path / "f").symlink_to(log, target_is_directory=True)
    served = Served(tmp_path / "f")
    address = urlsplit(served.url)
    acknowledged: list[str] = []
    enough = threading.Event()

    def write(author: str) -> None:
        headers = {"X-Token": address.query.removeprefix("token="), "Content-Type": "application/json"}
        headers["Origin"] = f"http://{address.netloc}"
        connection = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=30)
        with contextlib.suppress(OSError, http.client.HTTPException):
            for i in range(10_000):
                mark = {"op": "add", "kind": "note", "t0": i, "label": "x", "author": author}
                connection.request("POST", "/api/marks", json.dumps(mark), headers)
                acknowledged.append(json.loads(connection.getresponse().read())["id"])
                if len(acknowledged) >= after:
                    enough.set()
        enough.set()

    writers = [threading.Thread(target=write, args=(a,)) for a in ("anna", "ben")]
    for w in writers:
        w.start()
    assert enough.wait(60)
    served.kill()
    for w in writers:
        w.join(60)
    kept = {m.id for m in annotations(tmp_path / "f")}
    assert len(acknowledged) >= after
    assert set(acknowledged) <= kept
    assert len(kept) <= len(acknowledged) + len(writers)
