"""Who may talk to the page's server: this machine's browser, by the right name, from the right page, with the token."""

import secrets
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
     b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]  # fmt: skip
LARGEST_BODY = 1 << 20


class Guard:
    """Refuses foreign hosts (DNS rebinding), foreign origins (CSRF) and callers without the token.

    The page itself takes the token from its URL; everything below /api wants it in a header, which another site's page
    cannot send. The page's own code (/page/...) is no secret.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: set[str]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            await _answer(send, 403, refusal)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return "this server answers to its own loopback address only"
        if origin is not None and origin not in {f"http://{h}" for h in self._hosts}:
            return "requests from other pages are refused"
        link = scope["path"] == "/" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not link:
            return "requests from other sites are refused"  # a link to the page, as in a report, needs the token only
        if scope["method"] == "POST":
            if origin is None or headers.get("content-type", "").split(";")[0] != "application/json":
                return "a change must come from the page itself, as JSON"
            length = headers.get("content-length", "")
            if not length.isdigit() or int(length) > LARGEST_BODY:
                return "a change must say its length, at most 1 MiB"
        if scope["path"].startswith("/page/"):
            return ""
        given = headers.get("x-token", "")
        if scope["path"] == "/":
            given = (parse_qs(scope["query_string"].decode("latin-1")).get("token") or [""])[0]
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return "the token is wrong or missing: open the address that robo-rl annotate has printed"
        return ""


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode() + b"\n"})
