"""The page's server: signals, pictures and marks over HTTP on the loopback interface, news by server-sent events."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hardware.errors import BadInput, NotFoundError, RoboError
from robo_rl.annotate.pose import path_of
from robo_rl.annotate.security import Guard
from robo_rl.annotate.session import Session

MEDIA = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".png": "image/png"}
MOST_COLUMNS, MOST_SIGNALS = 4096, 64
_HEARTBEAT_S = 15.0
Answer = Callable[[Request], Awaitable[Response]]


class PageServer:
    """Serves one session until it is asked to stop."""

    def __init__(
        self, session: Session, token: str, port: int = 0, *, read_only: bool = False, author: str = ""
    ) -> None:
        """Binds to 127.0.0.1 at once, port 0 meaning any free one; raises OSError where the port is taken."""
        self.session, self.read_only, self.author = session, read_only, author
        # With its protocol named, asyncio switches off Nagle's delay, which costs 40 ms per answer.
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port = int(self.socket.getsockname()[1])
        hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        self.url = f"http://127.0.0.1:{self.port}/?token={token}"
        self._waiting: set[asyncio.Event] = set()
        self.app = Guard(Starlette(routes=self._routes()), token, hosts)
        config = uvicorn.Config(self.app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        self._server = _Server(config)

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves until SIGINT, SIGTERM or `stop`."""
        asyncio.run(self._serve(ready))

    def stop(self) -> None:
        """Ends `run`, from any thread."""
        self._server.should_exit = True

    async def _serve(self, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self.stop)
            except (ValueError, RuntimeError):  # not in the main thread: whoever runs us stops us
                break

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake)

        self.session.listeners.append(tell)
        try:
            self.socket.listen(64)
            ready()
            await self._server.serve(sockets=[self.socket])
        finally:
            self.session.listeners.remove(tell)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    def _routes(self) -> list[Route]:
        s = self.session
        return [
            Route("/", self._page),
            Route("/page/{name}", self._page),
            Route(
                "/api/log", self._get(lambda q: {**s.describe(), "read_only": self.read_only, "author": self.author})
            ),
            Route("/api/marks", self._get(lambda q: s.marks())),
            Route("/api/tracks", self._get(self._tracks)),
            Route("/api/values", self._get(lambda q: s.signals.values(self._names(q), self._instant(q, "t")))),
            Route("/api/path", self._get(self._path)),
            Route("/api/frame", self._get(self._frame)),
            Route("/api/snap", self._get(self._snap)),
            Route("/api/events", self._events),
            Route("/api/marks", self._post(s.apply), methods=["POST"]),
            Route("/api/propose", self._post(lambda _: s.propose()), methods=["POST"]),
        ]

    def _get(self, act: Callable[[Any], Any]) -> Answer:
        """A route that answers questions: what `act` returns, as JSON, or as it is where it is a Response."""

        async def answer(request: Request) -> Response:
            with self.session.signals.ahead():
                return await _answered(act, request.query_params)

        return answer

    def _post(self, act: Callable[[dict[str, Any]], Any]) -> Answer:
        """A route that changes marks."""

        async def answer(request: Request) -> Response:
            if self.read_only:
                return PlainTextResponse("opened with --read-only: marks cannot be changed", 409)
            try:
                values = json.loads(await request.body())
            except ValueError:
                values = None
            if not isinstance(values, dict):
                return PlainTextResponse("expected a JSON object", 400)
            return await _answered(act, values)

        return answer

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        file = resources.files("robo_rl.annotate") / "page" / name
        suffix = name[name.rfind(".") :]
        if suffix not in MEDIA or not file.is_file():
            return PlainTextResponse("not found", 404)
        return Response(file.read_bytes(), media_type=MEDIA[suffix])

    def _tracks(self, query: Any) -> Response:
        names, count = self._names(query), _whole(query, "n", 1, MOST_COLUMNS)
        self.session.signals.request(names)
        start, end = self._window(query)
        data = self.session.signals.query(names, start, end, count)
        ready = all(self.session.signals.is_ready(n) for n in names)
        return Response(data, media_type="application/octet-stream", headers={"X-Ready": str(int(ready))})

    def _path(self, query: Any) -> Response:
        body = self.session.bodies[_whole(query, "body", 0, len(self.session.bodies) - 1)]
        return Response(path_of(self.session.signals, body, *self._window(query)).tobytes())

    def _frame(self, query: Any) -> Response:
        topic = self.session.frames.topics[_whole(query, "i", 0, len(self.session.frames.topics) - 1)]
        found = self.session.frames.frame(topic, self._instant(query, "t"))
        headers = {"X-Time": str(found.t_ns - self.session.log.start_ns)}
        return Response(found.data, media_type=found.media_type, headers=headers)

    def _snap(self, query: Any) -> dict[str, int]:
        steps = _whole(query, "steps", -1_000_000, 1_000_000)
        t_ns = self.session.frames.neighbour(query.get("topic", ""), self._instant(query, "t"), steps)
        return {"t": t_ns - self.session.log.start_ns}

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._stream(request), media_type="text/event-stream")

    async def _stream(self, request: Request) -> AsyncIterator[str]:
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while not self._server.should_exit and not await request.is_disconnected():
                event.clear()
                yield f"data: {json.dumps(self.session.news())}\n\n"
                waited = 0.0
                while not event.is_set() and waited < _HEARTBEAT_S and not self._server.should_exit:
                    try:
                        await asyncio.wait_for(event.wait(), 0.5)
                    except TimeoutError:
                        waited += 0.5
        finally:
            self._waiting.discard(event)

    def _names(self, query: Any) -> list[str]:
        names = self.session.names
        try:
            return [names[int(i)] for i in query.get("s", "").split(",") if i][:MOST_SIGNALS]
        except (ValueError, IndexError):
            raise BadInput(f"s={query.get('s')!r}; expected numbers of signals, 0 to {len(names) - 1}") from None

    def _window(self, query: Any) -> tuple[int, int]:
        start, end = self._instant(query, "t0"), self._instant(query, "t1")
        if end <= start:
            raise BadInput(f"window from {start} to {end} ns; expected a length above 0")
        return start, end

    def _instant(self, query: Any, key: str) -> int:
        return self.session.log.start_ns + _whole(query, key, -(2**60), 2**60)


class _Server(uvicorn.Server):
    """Leaves the signals to us: uvicorn would raise them again after it has stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _answered(act: Callable[[Any], Any], argument: Any) -> Response:
    """What an action returns; its complaint in one line where it has one."""
    try:
        result = await run_in_threadpool(act, argument)
    except NotFoundError as e:
        return PlainTextResponse(str(e), 404)
    except BadInput as e:
        return PlainTextResponse(str(e), 400)
    except (RoboError, OSError) as e:
        return PlainTextResponse(str(e), 500)
    return result if isinstance(result, Response) else JSONResponse(result)


def _whole(query: Any, key: str, low: int, high: int) -> int:
    text = query.get(key, "")
    try:
        value = int(text)
    except ValueError:
        raise BadInput(f"{key}={text!r}; expected a whole number") from None
    if not low <= value <= high:
        raise BadInput(f"{key}={value}; expected {low} to {high}")
    return value
