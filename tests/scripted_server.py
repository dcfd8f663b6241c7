"""A server in place of OpenAI's: it says what it is told, whole or in pieces, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Sent:
    """A reply.

    pieces:  each sent by itself
    ending:  "cut" closes the connection in the middle, "hang" sends nothing more
    """

    pieces: tuple[bytes, ...]
    status: int = 200
    kind: str = "text/event-stream"
    ending: Literal["whole", "cut", "hang"] = "whole"
    headers: tuple[tuple[str, str], ...] = ()


def whole(message: Any, finish_reason: str = "stop") -> Sent:
    """An answer that is not streamed."""
    return plain(json.dumps({"choices": [{"message": message, "finish_reason": finish_reason}]}).encode())


def plain(content: bytes, status: int = 200) -> Sent:
    return Sent((content,), status, "application/json")


def models(*names: str) -> Sent:
    return plain(json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode())


def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    value = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def streamed(*deltas: dict[str, Any] | str, finish_reason: str = "stop") -> Sent:
    """An answer in pieces; a text is a piece of content."""
    pieces = [event({"content": delta} if isinstance(delta, str) else delta) for delta in deltas]
    return Sent((*pieces, event({}, finish_reason), DONE))


class ScriptedServer(ThreadingHTTPServer):
    """Gives `replies` one after another, the last one again and again.

    asked:   path, body and key of each request
    is_left: set when a client leaves in the middle of a reply
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = [plain(b"{}")]
        self.asked: list[tuple[str, Any, str | None]] = []
        self.is_left, self.is_over = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def say(self, *replies: Sent) -> None:
        self.replies = list(replies)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.is_left.set()


@contextmanager
def listening() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.is_over.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_GET(self) -> None:
        server = self.server
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        server.asked.append((self.path, json.loads(content or "null"), self.headers["Authorization"]))
        reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        for piece in reply.pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if reply.ending == "hang":
            while not server.is_over.wait(0.01):
                self.wfile.write(b"3\r\n:.\n\r\n")
        if reply.ending == "whole":
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""
