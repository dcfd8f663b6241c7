"""Strangers with raw sockets: what is no HTTP is refused, who sends or reads too slowly is dropped, others go on."""

import asyncio
import importlib
import inspect
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn
from tests.serve.strangers import ENDLESS, Process, connect, hang_up, listen_to, request, statuses, stream
from tests.serve.tiny_server import Running, listen, make_service, wait_for

from minimind.serve import connection

# What `Connection` overrides and reads: no part of what uvicorn promises to keep.
PRIVATE_PARTS = {
    "uvicorn.protocols.http.h11_impl.H11Protocol": (
        "def connection_made(",
        "def data_received(self, data: bytes) -> None:",
        "def connection_lost(self, exc: Exception | None) -> None:",
        "def on_response_complete(self) -> None:",
        "def send_400_response(self, msg: str) -> None:",
        "def pause_writing(self) -> None:",
        "def resume_writing(self) -> None:",
        "self.loop =",
        "self.transport",
        "self.conn = h11.Connection(",
        "self.flow",
        "self.cycle = RequestResponseCycle(",
    ),
    "uvicorn.protocols.http.h11_impl.RequestResponseCycle": ("self.more_body =", "self.response_complete ="),
    "uvicorn.protocols.http.flow_control.FlowControl": ("self.write_paused =", "def resume_reading(self) -> None:"),
}
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GOOD = request({"model": "tiny", "prompt": "hello", "max_tokens": 2})
LAST = GOOD.replace(b"Host", b"Connection: close\r\nHost")
LONG = {"model": "tiny", "prompt": [1, 50], "max_tokens": 900, "temperature": 0, "logit_bias": ENDLESS}
# Some eight megabytes of answer, more than the buffers between two processes hold.
HUGE = {"model": "tiny", "prompt": [[5] * 300] * 40, "echo": True, "logprobs": 20, "max_tokens": 0}

NO_HTTP = {
    "nothing but an end": b"\r\n\r\n",
    "no method": b" /health HTTP/1.1\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2 + b"\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "NULs": b"\0" * 1000 + b"\r\n\r\n",
    "NUL in the path": b"GET /hea\0lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in a header": HEAD + b"A: b\0c\r\n\r\n",
    "a path beyond ASCII": "GET /你好 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "a broken header": HEAD + b"no colon here\r\n\r\n",
    "a space before the colon": HEAD + b"A : b\r\n\r\n",
    "a header without a name": HEAD + b": b\r\n\r\n",
    "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a large header": HEAD + b"A: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": HEAD + b"".join(b"A%d: b\r\n" % n for n in range(10_000)) + b"\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length in words": POST + b"Content-Length: two\r\n\r\n{}",
    "an enormous length": POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n{}",
    "lengths that differ": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "lengths in one header": POST + b"Content-Length: 2, 3\r\n\r\n{} ",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked in disguise": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of negative size": POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk of enormous size": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n{}",
    "a chunk longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "both lengths": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HEAD + b"\r\n",
    "both, in disorder": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n" + HEAD + b"\r\n",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HEAD + b"\r\n",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\nhello",
}  # fmt: skip

NO_REQUEST = {
    "not UTF-8": b'{"model": "\xff\xfe\xfd", "prompt": "a"}',
    "half of UTF-16": '{"model": "tiny"'.encode("utf-16"),
    "depth in lists": b"[" * 100_000,
    "depth in objects": b'{"a":' * 100_000,
    "depth, closed": b"[" * 100_000 + b"]" * 100_000,
    "depth in a field": b'{"model": "tiny", "prompt": ' + b"[" * 990 + b"]" * 990 + b"}",
    "a hundred thousand keys": b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}",
    "numbers beyond floats": b'{"model": "tiny", "prompt": "a", "temperature": 1e999}',
    "numbers below floats": b'{"model": "tiny", "prompt": "a", "temperature": -1e999}',
    "no number": b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
    "digits without end": b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 1_000_000 + b"}",
    "lone surrogates": b'{"model": "tiny", "prompt": "\\ud800", "stop": "\\udfff"}',
    "a key that is a lone surrogate": b'{"model": "tiny", "prompt": "a", "\\ud800": 1}',
    "the last of equal keys": b'{"prompt": "a", "model": "tiny", "model": 7}',
    "a comment": b'{"model": "tiny", /* why */ "prompt": "a"}',
    "two values": b'{"model": "tiny", "prompt": "a"} {}',
    "nothing": b"",
    "NULs": b"\0" * 1000,
    "a million keys": b"{" + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}",
}


@pytest.fixture(scope="module")
def hurried() -> Iterator[Running]:
    """A server with little patience, and room for all who are told to come later elsewhere."""
    patience = pytest.MonkeyPatch()
    patience.setattr(connection, "HEADER_SECONDS", 0.3)
    patience.setattr(connection, "KEEP_ALIVE_SECONDS", 0.3)
    patience.setattr(connection, "TAKING_SECONDS", 0.4)
    with listen(make_service(max_queue=1000)) as server:
        yield server
    patience.undo()


def num_connections(running: Running) -> int:
    return len(running.server.server_state.connections)


@pytest.mark.parametrize("name", PRIVATE_PARTS)
def test_the_parts_of_uvicorn_that_it_may_change_are_still_there(name: str) -> None:
    module, _, owner = name.rpartition(".")
    source = inspect.getsource(getattr(importlib.import_module(module), owner))
    missing = [part for part in PRIVATE_PARTS[name] if part not in source]
    assert not missing, (
        f"uvicorn {uvicorn.__version__} has changed {name}: no {missing}. Read serve/connection.py beside it, run the "
        "tests of serve/, and only then widen the range in pyproject.toml"
    )


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_http_is_refused_and_nothing_behind_it_is_read(process: Process, name: str) -> None:
    with connect(process.port) as wire:
        with suppress(ConnectionError):
            wire.sendall(NO_HTTP[name])
        found = statuses(listen_to(wire, 0.3))
    assert all(400 <= status < 500 for status in found) and len(found) <= 2, found
    assert process.is_well() and "Traceback" not in process.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NO_REQUEST)
def test_what_is_no_request_is_told_so(process: Process, name: str) -> None:
    with connect(process.port) as wire:
        with suppress(ConnectionError):
            wire.sendall(request(NO_REQUEST[name], "/v1/completions", "Connection: close"))
        answer = listen_to(wire, 5)
    assert statuses(answer) in ([400], [404], [413]), answer
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) == {"message", "type", "param", "code"}


def test_what_comes_behind_a_good_request_is_answered_in_order(process: Process) -> None:
    with connect(process.port) as wire:
        wire.sendall(GOOD + HEAD + b"\r\n" + GOOD + b"no more\r\n\r\n")
        assert statuses(listen_to(wire, 2)) == [200, 200, 200, 400]


def test_a_body_that_breaks_after_its_answer_is_no_error_of_the_server(process: Process) -> None:
    with connect(process.port) as wire:
        wire.sendall(POST.replace(b"localhost", b"elsewhere") + b"Transfer-Encoding: chunked\r\n\r\n")
        assert statuses(listen_to(wire, 0.2)) == [400]
        wire.settimeout(20)
        wire.sendall(b"zz\r\n")
        assert listen_to(wire, 5) == b""
    assert process.is_well() and "Traceback" not in process.log.read_text(encoding="utf-8")


def damaged(good: bytes, chance: random.Random) -> bytes:
    """Bytes changed, left out, said twice, put elsewhere or cut off."""
    data = bytearray(good)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] = chance.randrange(256)
        elif kind == 1:
            data[at:at] = chance.choice([b"\r\n", b"\0", b"\r\n\r\n", b"\xff", b":", b" ", chance.randbytes(9)])
        elif kind == 2:
            del data[at : min(end, at + 20)]
        elif kind == 3:
            data[at:at] = data[at:end]
        elif kind == 4:
            data[0:0] = data[at:end]
        else:
            del data[end:]
    return bytes(data)


def fuzz_bytes(process: Process, count: int, *, seed: int) -> Counter[object]:
    """What damaged requests were answered, status by status; "" where the server only hung up or waited."""
    found: Counter[object] = Counter()
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        good = chance.choice([LAST, LAST, LAST, GOOD + LAST])
        with connect(process.port) as wire:
            with suppress(OSError):
                wire.sendall(damaged(good, chance))
            # Who stops in the middle is waited for.
            found.update(statuses(listen_to(wire, 0.05)) or [""])
    return found


def test_damaged_requests_are_answered_or_dropped(process: Process) -> None:
    before = process.figures()
    found = fuzz_bytes(process, 300, seed=1)
    assert not [status for status in found if status and not 200 <= status < 500], found
    assert found[200] > 10 and found[400] > 50
    process.require_rest(before, megabytes=128)


@pytest.mark.slow
def test_twenty_thousand_damaged_requests_are_answered_or_dropped(process: Process) -> None:
    fuzz_bytes(process, 500, seed=2)
    before, begin = process.figures(), time.monotonic()
    found = fuzz_bytes(process, 20_000, seed=3)
    after = process.require_rest(before, megabytes=64)
    print(f"{dict(found)} in {time.monotonic() - begin:.0f} s; {before} -> {after}")
    assert not [status for status in found if status and not 200 <= status < 500], found


@pytest.mark.parametrize(
    ("head", "behind"),
    [
        (b"", b"POST /v1/completions HTTP/1.1\r\n"),
        (b"", b"\0"),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"PRI"),
        (b"Connection: close\r\n", b"more"),
    ],
)
def test_who_leaves_is_noticed_whatever_was_sent_behind_the_request(
    hurried: Running, head: bytes, behind: bytes
) -> None:
    """uvicorn stops reading then, and would let the answer go on for nobody."""
    engine = hurried.service.runner.engines["tiny"]
    cancelled = engine.counters.ends["cancelled"]
    wire = connect(hurried.port)
    wire.sendall(request(LONG).replace(b"Host", head + b"Host", 1))
    wait_for(lambda: engine.num_running == 1)
    try:
        wire.sendall(behind)
        time.sleep(0.05)
    except ConnectionError:
        pass
    wire.close()
    wait_for(lambda: engine.is_idle)
    assert engine.counters.ends["cancelled"] == cancelled + 1
    wait_for(lambda: num_connections(hurried) == 0)


def test_who_sends_on_and_on_behind_a_request_is_dropped(hurried: Running) -> None:
    with connect(hurried.port) as wire:
        wire.sendall(request(LONG) + b"a" * 70_000)
        assert listen_to(wire, 5) == b""
    wait_for(lambda: hurried.service.runner.engines["tiny"].is_idle)


@pytest.mark.parametrize("streamed", [False, True])
def test_who_never_reads_is_dropped(hurried: Running, streamed: bool) -> None:
    with connect(hurried.port, receive_bytes=4096) as wire:
        wire.sendall(request({**HUGE, "stream": streamed}))
        wait_for(lambda: num_connections(hurried) == 1)
        wait_for(lambda: num_connections(hurried) == 0)
    wait_for(lambda: hurried.service.runner.num_open == 0)


def test_who_reads_steadily_gets_all_of_a_long_answer(hurried: Running) -> None:
    """However often the server's patience would have ended meanwhile."""
    with connect(hurried.port, receive_bytes=2**16) as wire:
        wire.sendall(request(HUGE, "/v1/completions", "Connection: close"))
        found, begin = bytearray(), time.monotonic()
        while part := wire.recv(2**16):
            found += part
            time.sleep(0.01)
    assert time.monotonic() - begin > 1.0
    choices = json.loads(found.partition(b"\r\n\r\n")[2])["choices"]
    assert len(choices) == 40 and len(found) > 7_000_000


async def crowd_with_slow_clients(running: Running, num_slow: int) -> float:
    """Streams beside clients that never read, or a byte at a time. The seconds that the streams took."""
    body = {**LONG, "max_tokens": 100}
    alone = await stream(running.port, body)
    slow = [connect(running.port, receive_bytes=4096) for _ in range(num_slow)]
    for wire in slow:
        wire.sendall(request({**HUGE, "prompt": [[5] * 300] * 4, "stream": True}))

    async def sip() -> None:
        while True:
            await asyncio.sleep(0.1)
            for wire in slow[::2]:
                wire.settimeout(0)
                with suppress(OSError):
                    wire.recv(1)

    sipping, begin = asyncio.create_task(sip()), time.monotonic()
    others = await asyncio.gather(*(stream(running.port, body) for _ in range(8)))
    took = time.monotonic() - begin
    assert all(one == alone and one.is_whole for one in others)
    await asyncio.to_thread(wait_for, lambda: num_connections(running) == 0, 60)
    sipping.cancel()
    for wire in slow:
        hang_up(wire, reset=True)
    return took


def test_slow_clients_are_dropped_and_hold_up_nobody(hurried: Running) -> None:
    asyncio.run(crowd_with_slow_clients(hurried, 8))
    wait_for(lambda: hurried.service.runner.num_open == 0)


@pytest.mark.slow
def test_a_hundred_slow_clients_are_dropped_and_hold_up_nobody(hurried: Running) -> None:
    took = asyncio.run(crowd_with_slow_clients(hurried, 100))
    wait_for(lambda: hurried.service.runner.num_open == 0)
    print(f"8 streams beside 100 slow clients took {took:.1f} s")
