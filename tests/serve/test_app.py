"""A server starts, serves, and lets answers end before it does."""

import http.client
import json
import re
import threading

import pytest
from fastapi import APIRouter
from tests.serve.tiny_server import Running, listen, make_service, wait_for

from minimind.serve import api, app
from minimind.serve.api import Service
from minimind.serve.guard import Policy

ASK = {"model": "tiny", "prompt": [1, 50], "max_tokens": 300, "temperature": 0, "logit_bias": {"2": -100, "0": -100}}


def post(running: Running, body: dict) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


def test_answers_under_way_end_before_the_server_does() -> None:
    found = {}
    with listen(make_service()) as server:
        threads = [
            threading.Thread(target=lambda n=n: found.update({n: post(server, {**ASK, "stream": bool(n % 2)})}))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.service.runner.num_open == 4)
        server.server.should_exit = True
        for thread in threads:
            thread.join(20)
    assert [found[n][0] for n in range(4)] == [200] * 4
    assert found[1][1].endswith(b"data: [DONE]\n\n")
    assert json.loads(found[0][1])["usage"]["completion_tokens"] == 300


def test_many_streams_at_once_complete(running: Running) -> None:
    """More than there are slots; the rest wait."""
    found: list[tuple[int, bytes]] = []
    body = {**ASK, "max_tokens": 8, "stream": True}
    threads = [threading.Thread(target=lambda: found.append(post(running, body))) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 60 and all(status == 200 and b"[DONE]" in content for status, content in found)
    texts = {"".join(re.findall('"text":"([^"]*)"', content.decode())) for _, content in found}
    assert len(texts) == 1


def test_further_routes_are_closed_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_router(service: Service) -> APIRouter:
        router = api.make_router(service)

        @router.get("/runs")
        async def runs() -> dict[str, str]:
            return {}

        return router

    monkeypatch.setattr(app, "make_router", make_router)
    with listen(make_service(), Policy(key="k" * 32)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/runs")
        reply = connection.getresponse()
        assert (reply.status, reply.read()[:9]) == (401, b'{"error":')
        connection.request("GET", "/runs", headers={"Authorization": f"Bearer {'k' * 32}"})
        assert connection.getresponse().status == 200
        connection.close()
