"""Who may come in, and how much they may bring: everything in front of the routes.

A browser on the same machine is the stranger to think of. Any page that it shows may send requests to this address, so
a request must name this host (no rebinding of foreign names), must not come from another origin, and must declare JSON,
which a page cannot do elsewhere without asking first, and that is granted to origins alone that were named at the start
(`manners.py`). Without a key only paths that are listed are open, and a new route is closed until it is listed.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minimind.serve.problems import TWO_LENGTHS, Problem, problem_reply

__all__ = ["LOOPBACK", "SERVER_ERROR", "Guard", "Policy"]

log = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_BODY_BYTES = 2**20
# A field that is not known costs an error.
MAX_KEYS = 1024
BODY_SECONDS = 15.0
SERVER_ERROR = Problem(500, "an error of the server; its log says more")
# The page's own scripts and styles, and nothing from anywhere else; no text becomes HTML, where a browser knows how.
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        b"font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Policy:
    """hosts:       names by which this server may be called, without port
    by_address:  whether any address will do, too, for a server that listens on all of its machine's: names can be
                 made to lead here by strangers, addresses cannot
    key:         what a client has to show; None on loopback
    open:        paths that need no key
    origins:     pages of other servers that may send requests, such as http://localhost:3000
    """

    hosts: Collection[str] = LOOPBACK
    by_address: bool = False
    key: str | None = None
    open: Collection[str] = ("/health",)
    origins: Collection[str] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    body_seconds: float = BODY_SECONDS


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Refuses a WebSocket before it is one.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = ended = False

        async def sending(message: Message) -> None:
            nonlocal begun, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _replayed(body, receive), sending)
        except Problem as problem:
            await problem_reply(problem)(scope, receive, sending)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not begun:
                await problem_reply(SERVER_ERROR)(scope, receive, sending)
            elif not ended:
                # What was begun cannot be taken back: only a closed connection says that it is not whole.
                raise

    def _check(self, scope: Scope) -> None:
        """Errors: Problem"""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # Where a proxy reads the one and this server the other, the rest of the body is a request of its own.
            raise Problem(400, "Content-Length and Transfer-Encoding are given both", code=TWO_LENGTHS)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_own(_host_name(hosts[0])):
            raise Problem(
                400,
                "the Host header does not name this server, which may be started with --hosts NAME",
                code="invalid_host",
            )
        own = (f"http://{hosts[0]}", f"https://{hosts[0]}", *self._policy.origins)
        if any(origin not in own for origin in headers.get(b"origin", [])):
            words = "requests from other origins are not served, but for those that --origins names"
            raise Problem(403, words, code="invalid_origin")
        if self._policy.key is not None and scope["path"] not in self._policy.open:
            shown = headers.get(b"authorization") or [f"Bearer {key}" for key in headers.get(b"x-api-key", [])]
            _require_key(shown, self._policy.key)
        kinds = headers.get(b"content-type", [""])
        if scope["method"] in ("POST", "PUT", "PATCH") and kinds[0].split(";")[0].strip().lower() != "application/json":
            raise Problem(400, "Content-Type: expected application/json", code="invalid_content_type")

    def _is_own(self, host: str) -> bool:
        return host in self._policy.hosts or (self._policy.by_address and _is_address(host))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of the body, bounded in size and time. Errors: Problem"""
        limit = self._policy.max_body_bytes
        declared = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
        too_large = Problem(413, f"the body is larger than {limit:,} bytes", code="body_too_large")
        if declared and declared[0].isdigit() and int(declared[0][:18]) > limit:
            raise too_large
        content = bytearray()
        try:
            async with asyncio.timeout(self._policy.body_seconds):
                while True:
                    message = await receive()
                    content += message.get("body", b"")
                    if len(content) > limit:
                        raise too_large
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        break
        except TimeoutError:
            raise Problem(408, "the body did not come in time", code="timeout") from None
        if content and scope["method"] != "GET":
            _require_json(content)
        return bytes(content)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, and then what really comes."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _require_key(given: Iterable[str], key: str) -> None:
    scheme, _, shown = next(iter(given), "").partition(" ")
    if not hmac.compare_digest(shown.strip().encode(), key.encode()) or scheme.lower() != "bearer":
        raise Problem(401, "this server wants a key: Authorization: Bearer KEY", code="invalid_api_key")


def _require_json(content: bytearray) -> None:
    """JSON that can be read, and that costs no more than its size. Errors: Problem"""
    try:
        json.loads(content, parse_constant=_no_constant, object_pairs_hook=_require_few)
    except (ValueError, RecursionError) as error:
        message = str(error) if isinstance(error, _TooManyKeys) else "the body is not JSON"
        raise Problem(400, message, code="invalid_json") from None


class _TooManyKeys(ValueError):
    pass


def _require_few(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > MAX_KEYS:
        raise _TooManyKeys(f"an object of the body has {len(pairs):,} keys; expected at most {MAX_KEYS:,}")


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _host_name(host: str) -> str:
    """Without the port, and without the brackets of an IPv6 address."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
