"""Strangers, raw sockets in hand: refused, bounded or dropped, and nothing of them stays behind."""

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from tests.serve.strangers import Process, connect, listen_to, request, statuses
from tests.serve.tiny_server import Running, listen, make_service, wait_for

from minimind.serve import connection, guard
from minimind.serve.guard import Policy

KEY = "0123456789abcdef0123456789abcdef"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """With a key, and little patience."""
    patience = pytest.MonkeyPatch()
    patience.setattr(connection, "HEADER_SECONDS", 0.4)
    patience.setattr(connection, "KEEP_ALIVE_SECONDS", 1)
    with listen(make_service(), Policy(key=KEY, body_seconds=0.4)) as server:
        yield server
    patience.undo()


def ask(
    running: Running, method: str, path: str, body: Any = None, *, key: str | None = KEY, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    given = {"Content-Type": "application/json"} if method == "POST" else {}
    given |= {"Authorization": f"Bearer {key}"} if key else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, content, given)
    reply = connection.getresponse()
    found = reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    connection.close()
    return found


def raw(running: Running, data: bytes, *, seconds: float = 10) -> bytes:
    """What the server says to these bytes until it hangs up; "" when it only hangs up."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=seconds) as wire:
        wire.sendall(data)
        found = b""
        try:
            while part := wire.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "0", "x" * 32])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/metrics", "/openapi.json", "/nothing", "/v1"])
def test_without_the_key_everything_is_closed(running: Running, key: str | None, path: str) -> None:
    status, headers, content = ask(running, "GET", path, key=key)
    assert (status, json.loads(content)["error"]["code"]) == (401, "invalid_api_key")
    assert headers["www-authenticate"] == "Bearer"


def test_health_is_open(running: Running) -> None:
    status, headers, found = ask(running, "GET", "/health", key=None)
    assert (status, found) == (200, b'{"status":"ok"}')
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_with_the_key_the_routes_are_open(running: Running) -> None:
    assert ask(running, "GET", "/v1/models")[0] == 200
    assert ask(running, "POST", "/v1/chat/completions", BODY)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 400, "invalid_host"),
        ({"Host": "evil.example:80"}, 400, "invalid_host"),
        ({"Host": "[::1"}, 400, "invalid_host"),
        ({"Origin": "http://evil.example"}, 403, "invalid_origin"),
        ({"Origin": "null"}, 403, "invalid_origin"),
        ({"Content_Type": "text/plain"}, 400, "invalid_content_type"),
        ({"Content_Type": "multipart/form-data; boundary=a"}, 400, "invalid_content_type"),
    ],
)
def test_what_a_foreign_page_could_send_is_refused(
    running: Running, headers: dict[str, str], status: int, code: str
) -> None:
    found, given, content = ask(running, "POST", "/v1/chat/completions", BODY, **headers)
    assert (found, json.loads(content)["error"]["code"]) == (status, code)
    assert not [name for name in given if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_names_of_this_machine_are_welcome_and_so_is_its_own_page(running: Running, host: str) -> None:
    assert ask(running, "GET", "/v1/models", Host=host, Origin=f"http://{host}")[0] == 200


def test_a_server_that_listens_everywhere_is_called_by_any_address_and_by_no_foreign_name(running: Running) -> None:
    with listen(make_service(), Policy(by_address=True)) as everywhere:
        for host in ("192.0.2.2:8000", "[2001:db8::1]:8000"):
            assert ask(everywhere, "GET", "/v1/models", Host=host)[0] == 200
            assert ask(running, "GET", "/v1/models", Host=host)[0] == 400
        for host in ("evil.example", "192.0.2.2.evil.example"):
            assert ask(everywhere, "GET", "/v1/models", Host=host)[0] == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b'"a"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', 400),
        (b'{"model": "tiny", "prompt": "a", "temperature": 1e999}', 400),
        (b'{"model": "tiny", "prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}", 400),
        (b'{"model": "tiny", "prompt": "\\ud800"}', 400),
        (b'{"model": "\\ud800", "prompt": "a"}', 400),
        (b"{" + b",".join(b'"%d":1' % n for n in range(1025)) + b"}", 400),
        (
            b'{"model": "tiny", "prompt": "a", "metadata": {' + b",".join(b'"%d":{}' % n for n in range(1025)) + b"}}",
            400,
        ),
        (b" " * (2**20 + 1), 413),
    ],
)
def test_bodies_that_are_no_request_are_answered(running: Running, body: bytes, status: int) -> None:
    found, _, content = ask(running, "POST", "/v1/completions", body)
    assert found == status
    assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}


def test_objects_have_a_thousand_keys_at_most(running: Running) -> None:
    """A field that is not known costs an error, and a body has room for a hundred thousand of them."""
    for count, code in ((1024, "invalid_value"), (1025, "invalid_json")):
        body = {"model": "tiny", "prompt": "a", "metadata": {}} | {str(n): 1 for n in range(count - 3)}
        status, _, content = ask(running, "POST", "/v1/completions", body)
        assert (status, json.loads(content)["error"]["code"]) == (400, code)


def filled(before: str, item: str, behind: str) -> bytes:
    """As many items as the largest body has room for."""
    count = (2**20 - len(before) - len(behind)) // (len(item) + 1)
    return (before + ",".join([item] * count) + behind).encode()


COSTLY = {
    "keys": filled("{", '"a":1', "}"),
    "words as ids": filled('{"model": "tiny", "prompt": [', '"a"', "]}"),
    "negative ids": filled('{"model": "tiny", "prompt": [', "-1", "]}"),
    "lists of ids": filled('{"model": "tiny", "prompt": [', "[-1]", "]}"),
    "empty lists": filled('{"model": "tiny", "prompt": "a", "metadata": {"a": [', "[]", "]}}"),
    "empty objects": filled('{"model": "tiny", "prompt": "a", "metadata": {"a": [', "{}", "]}}"),
    "stops": filled('{"model": "tiny", "prompt": "a", "stop": [', "{}", "]}"),
    "biases": filled('{"model": "tiny", "prompt": "a", "logit_bias": {', '"1":"a"', "}}"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_no_body_costs_half_a_second_of_the_processor(process: Process, name: str) -> None:
    """In which no stream would go on. It was several seconds once, and a tenth of one is enough."""
    server = psutil.Process(process.popen.pid)
    before = sum(server.cpu_times()[:2])
    with connect(process.port) as wire:
        wire.sendall(request(COSTLY[name], "/v1/completions", "Connection: close"))
        assert statuses(listen_to(wire, 60))[0] in (200, 400)
    assert sum(server.cpu_times()[:2]) - before < 0.5


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/completions", 405), ("DELETE", "/v1/models", 405), ("GET", "/nothing/here", 404)],
)
def test_other_paths_and_methods_have_openais_shape(running: Running, method: str, path: str, status: int) -> None:
    found, _, content = ask(running, method, path)
    assert found == status and "message" in json.loads(content)["error"]


def test_headers_are_bounded(running: Running) -> None:
    assert b" 400 " in raw(running, b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 70_000)[:20]


@pytest.mark.parametrize("data", [b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"])
def test_who_never_finishes_headers_is_dropped(running: Running, data: bytes) -> None:
    assert raw(running, data) == b""


def test_who_never_finishes_a_second_request_is_dropped_too(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in wire.recv(65536)
        wire.sendall(b"GET /hea")
        while wire.recv(65536):
            pass


def test_who_never_finishes_a_body_is_told_so(running: Running) -> None:
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    assert b" 408 " in raw(running, head.encode())[:20]
    chunked = head.replace("Content-Length: 100", "Transfer-Encoding: chunked")[:-1]
    assert b" 413 " in raw(running, chunked.encode() + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 17)[:20]


def test_two_hosts_are_none(running: Running) -> None:
    found = raw(running, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b" 400 " in found[:20]


@pytest.mark.parametrize("stream", [False, True])
def test_50_disconnects_leave_nothing_behind(running: Running, stream: bool) -> None:
    """Each asks for a long answer and hangs up; half of them with a reset."""
    service = running.service
    body = json.dumps({**BODY, "max_tokens": 900, "logit_bias": {"2": -100, "0": -100}, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    threads = threading.active_count()
    engine = service.runner.engines["tiny"]
    before = engine.counters.ends["cancelled"]
    for number in range(50):
        wire = socket.create_connection(("127.0.0.1", running.port), timeout=10)
        if number % 2:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        wire.sendall(head.encode() + body)
        if stream:
            assert wire.recv(10)
        else:
            wait_for(lambda: service.runner.num_open > 0)
        wire.close()
    wait_for(lambda: service.runner.num_open == 0 and engine.is_idle)
    assert engine.slots.num_free == 32 and engine.counters.ends["cancelled"] - before >= 25
    # The loop's pool, in which bodies are read, has a thread more for each core, and four.
    assert threading.active_count() <= threads + 4 + (os.cpu_count() or 1)
    assert ask(running, "POST", "/v1/chat/completions", BODY)[0] == 200


def test_an_error_of_the_server_is_500_without_its_words(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    engine = running.service.runner.engines["tiny"]
    engine.submit, submit = (lambda request: {}["secret"]), engine.submit  # type: ignore[method-assign]
    status, _, content = ask(running, "POST", "/v1/chat/completions", BODY)
    engine.submit = submit  # type: ignore[method-assign]
    assert status == 500 and b"secret" not in content
    # The reply leaves before the log is written.
    wait_for(lambda: "secret" in caplog.text)
    assert guard.MAX_BODY_BYTES == 2**20
