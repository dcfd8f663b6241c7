"""What clients expect of any server over HTTP: HEAD, paths that end in a slash, an id for each request, and pages of
other origins where they were named."""

import re
import secrets
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Manners"]

# An id that a client chose is given back, if it is one: it ends in logs.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
CORS = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
    (b"access-control-expose-headers", b"x-request-id"),
    (b"access-control-max-age", b"600"),
)
SAME_ORIGIN = (b"cross-origin-resource-policy", b"same-origin")


class Manners:
    """An ASGI application around another.

    origins:  whose pages may call this server, such as http://localhost:3000; none by default
    """

    def __init__(self, app: ASGIApp, origins: Collection[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = {name.lower(): value for name, value in scope["headers"]}
        extra = [(b"x-request-id", _request_id(given.get(b"x-request-id", b"")))]
        origin = given.get(b"origin", b"")
        is_welcome = origin.decode("latin-1") in self._origins
        if is_welcome:
            asked = given.get(b"access-control-request-headers", b"authorization, content-type")
            extra += [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), *CORS]
            extra += [(b"access-control-allow-headers", asked)]
        if is_welcome and scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": extra})
            await send({"type": "http.response.body", "body": b""})
            return
        is_head = scope["method"] == "HEAD"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if not (is_welcome and pair == SAME_ORIGIN)]
                message = {**message, "headers": [*headers, *extra]}
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        path = scope["path"].rstrip("/") or "/"
        inner = {**scope, "path": path, "method": "GET" if is_head else scope["method"]}
        await self._app(inner, receive, sending)


def _request_id(given: bytes) -> bytes:
    return given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}".encode()
