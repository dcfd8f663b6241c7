"""HEAD, slashes, ids of requests, and pages of other origins."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serve.tiny_server import Running, listen, make_service

from minimind.serve.guard import Policy

PAGE = "http://localhost:3000"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with listen(make_service(), Policy(origins=[PAGE])) as server:
        yield server


def ask(
    running: Running, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given |= {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, json.dumps(body) if body else None, given)
    reply = connection.getresponse()
    found = reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    connection.close()
    return found


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/tiny"])
def test_head_is_get_without_a_body(running: Running, path: str) -> None:
    status, headers, body = ask(running, "HEAD", path)
    assert (status, body) == (200, b"") and int(headers["content-length"]) == len(ask(running, "GET", path)[2])


def test_a_path_may_end_in_a_slash(running: Running) -> None:
    assert ask(running, "GET", "/v1/models/")[2] == ask(running, "GET", "/v1/models")[2]
    assert ask(running, "POST", "/v1/chat/completions/", BODY)[0] == 200


def test_each_reply_has_an_id_and_a_clients_own_is_given_back(running: Running) -> None:
    ids = {ask(running, "GET", "/health")[1]["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert ask(running, "GET", "/health", X_Request_Id="my-id.7")[1]["x-request-id"] == "my-id.7"
    for wrong in ("a b", "x" * 200, "<script>"):
        assert ask(running, "GET", "/health", X_Request_Id=wrong)[1]["x-request-id"] != wrong


def test_a_path_that_is_not_there_is_told_what_there_is(running: Running) -> None:
    status, _, body = ask(running, "GET", "/v1/embeddings")
    assert status == 404 and "/v1/chat/completions" in json.loads(body)["error"]["message"]


def test_a_page_that_was_named_may_ask(running: Running) -> None:
    status, headers, _ = ask(
        running, "OPTIONS", "/v1/chat/completions", Origin=PAGE, Access_Control_Request_Headers="x-stainless-os"
    )
    assert (status, headers["access-control-allow-origin"]) == (204, PAGE)
    assert headers["access-control-allow-headers"] == "x-stainless-os" and headers["vary"] == "Origin"
    status, headers, _ = ask(running, "POST", "/v1/chat/completions", BODY, Origin=PAGE)
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    assert "cross-origin-resource-policy" not in headers


@pytest.mark.parametrize("origin", ["http://localhost:3001", "https://localhost:3000", "null", "http://evil.example"])
def test_any_other_page_may_not(running: Running, origin: str) -> None:
    for method, body in (("OPTIONS", None), ("POST", BODY)):
        status, headers, _ = ask(running, method, "/v1/chat/completions", body, Origin=origin)
        assert status in (403, 405) and "access-control-allow-origin" not in headers
