"""A server starts, serves crowds that come and go as they like, and lets answers end before it does."""

import asyncio
import http.client
import json
import random
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from tests.serve.strangers import Process, Told, connect, hang_up, request, serve, stream
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


def disconnect(process: Process, count: int, *, seed: int) -> None:
    """Clients ask for 900 tokens and hang up at any moment: before all is asked, or while the answer comes."""
    chance = random.Random(seed)
    for number in range(count):
        data = request({**ASK, "max_tokens": 900, "stream": bool(number % 3)})
        wire = connect(process.port)
        wire.sendall(data if chance.random() < 0.9 else data[: chance.randrange(len(data))])
        time.sleep(10 ** chance.uniform(-4, -1))
        hang_up(wire, reset=bool(number % 2))


def test_clients_that_hang_up_at_any_moment_leave_nothing_behind(process: Process) -> None:
    before = process.figures()
    disconnect(process, 40, seed=1)
    after = process.require_rest(before, megabytes=128)
    # Those that stay for a tenth of a second see some hundred tokens of their 900.
    assert after.num_generated - before.num_generated < 40 * 300
    assert after.num_cancelled - before.num_cancelled > 20


@pytest.mark.slow
def test_a_thousand_clients_that_hang_up_leave_nothing_behind(process: Process) -> None:
    disconnect(process, 100, seed=2)
    before, begin = process.figures(), time.monotonic()
    disconnect(process, 1000, seed=3)
    after = process.require_rest(before, megabytes=32)
    print(f"1,000 disconnects in {time.monotonic() - begin:.0f} s; {before} -> {after}")
    assert after.num_generated - before.num_generated < 1000 * 300
    assert after.num_cancelled - before.num_cancelled > 500


def crowd(process: Process, count: int) -> Counter[int]:
    """The statuses of streams that all come at once; each that is answered says what it says alone."""
    bodies: list[dict[str, Any]] = [{**ASK, "prompt": [1, 50 + n], "max_tokens": 20 + n} for n in range(20)]

    async def ask() -> list[Told]:
        alone = [await stream(process.port, body) for body in bodies]
        found = await asyncio.gather(*(stream(process.port, bodies[n % 20]) for n in range(count)))
        for number, told in enumerate(found):
            assert told.status in (429, 503) or told == alone[number % 20]
        assert all(told.status == 200 and told.is_whole for told in alone)
        return found

    return Counter(told.status for told in asyncio.run(ask()))


def test_a_crowd_of_streams_is_answered_as_each_is_alone(process: Process) -> None:
    before = process.figures()
    assert crowd(process, 40) == {200: 40}
    process.require_rest(before, megabytes=128)


@pytest.mark.slow
def test_500_streams_at_once_are_answered_whole_or_told_to_come_later(process: Process) -> None:
    crowd(process, 40)
    before, begin = process.figures(), time.monotonic()
    found = crowd(process, 500)
    after = process.require_rest(before, megabytes=64)
    print(f"{dict(found)} in {time.monotonic() - begin:.1f} s; {before} -> {after}")
    # As many as are answered at once and may wait.
    assert found[200] >= 32 + 256 and sum(found.values()) == 500


def drain(folder: Path, log: Path, count: int) -> None:
    """SIGTERM comes when all streams have begun, or wait: all of them end whole, and so does the server."""
    body = {**ASK, "max_tokens": 200}
    with serve(folder, log) as process:

        async def ask() -> list[Told]:
            alone = await stream(process.port, body)
            asked = [asyncio.create_task(stream(process.port, body)) for _ in range(count)]
            await asyncio.to_thread(wait_for, lambda: process.figures().num_open == count)
            process.popen.send_signal(signal.SIGTERM)
            found = await asyncio.gather(*asked)
            assert all(told == alone for told in found) and alone.is_whole
            return found

        asyncio.run(ask())
        assert process.popen.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_sigterm_lets_streams_end(folder: Path, tmp_path: Path) -> None:
    drain(folder, tmp_path / "log", 8)


@pytest.mark.slow
def test_sigterm_lets_a_hundred_streams_end(folder: Path, tmp_path: Path) -> None:
    drain(folder, tmp_path / "log", 100)


def test_a_second_ctrl_c_ends_the_answers_under_way_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(folder, log) as process:
        wires = [connect(process.port) for _ in range(3)]
        for wire in wires:
            wire.sendall(request({**ASK, "max_tokens": 1000, "n": 16, "stream": True}))
            assert wire.recv(20)
        process.popen.send_signal(signal.SIGINT)
        wait_for(lambda: "Ctrl-C again" in log.read_text(encoding="utf-8"))
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(20) == 130
        for wire in wires:
            wire.close()
    said = log.read_text(encoding="utf-8").splitlines()
    assert said == ["finishing 3 answers; Ctrl-C again ends them", "stopped by Ctrl-C"]


def test_answers_that_take_too_long_at_the_end_are_cut_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "DRAIN_SECONDS", 1)
    with listen(make_service()) as server:
        server.say("hello" * 50, pause=0.1)
        with connect(server.port) as wire:
            wire.sendall(request({**ASK, "model": "scripted", "stream": True}))
            assert wire.recv(20)
            server.server.should_exit = True
            wait_for(lambda: server.service.runner.num_open == 0)
    said = capsys.readouterr().err
    assert "Cancel 1 running task(s)" in said and "Traceback" not in said
