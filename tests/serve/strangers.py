"""Clients that do as they like: bytes on a socket, a crowd of streams, and a server's process to watch from outside."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.serve.tiny_server import wait_for

RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
# Biases that leave no end of a text but its length.
ENDLESS = {"0": -100, "2": -100}


def request(body: Any, path: str = "/v1/completions", *headers: str) -> bytes:
    """A good request, as bytes; of a body that is bytes already nothing is changed."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


def connect(port: int, *, receive_bytes: int | None = None) -> socket.socket:
    wire = socket.socket()
    wire.settimeout(20)
    if receive_bytes is not None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    wire.connect(("127.0.0.1", port))
    return wire


def hang_up(wire: socket.socket, *, reset: bool) -> None:
    if reset:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wire.close()


def listen_to(wire: socket.socket, seconds: float) -> bytes:
    """What comes until the server hangs up, or nothing more comes for so long."""
    found = b""
    wire.settimeout(seconds)
    try:
        while part := wire.recv(2**16):
            found += part
    except (TimeoutError, ConnectionError):
        pass
    return found


def statuses(answer: bytes) -> list[int]:
    """Of all replies in what came over a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@dataclass
class Told:
    """What a client of a streamed completion was told."""

    status: int
    text: str
    is_whole: bool
    error: str


async def stream(port: int, body: dict[str, Any]) -> Told:
    """A streamed completion, read as fast as it comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request({**body, "stream": True}, "/v1/completions", "Connection: close"))
        content = await reader.read()
    finally:
        writer.close()
    chunks = [json.loads(line[6:]) for line in re.findall(rb"data: \{.*\}", content)]
    texts = [choice["text"] for one in chunks for choice in one.get("choices", ())]
    errors = [one["error"]["message"] for one in chunks if "error" in one]
    is_whole = b"data: [DONE]\n\n" in content and content.endswith(b"\r\n0\r\n\r\n") and not errors
    return Told(statuses(content)[0], "".join(texts), is_whole, "".join(errors))


@dataclass
class Figures:
    """What a server's process holds; requests that its engine has to answer; what it did since it started."""

    megabytes: int
    num_threads: int
    num_files: int
    num_open: int
    num_cancelled: int
    num_generated: int


@dataclass
class Process:
    """A server in a process of its own."""

    port: int
    popen: subprocess.Popen[str]
    log: Path

    def figures(self) -> Figures:
        process = psutil.Process(self.popen.pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as reply:
            words = reply.read().decode()

        def told(name: str) -> int:
            return sum(int(value) for value in re.findall(rf"minimind_{name} (\d+)", words))

        return Figures(
            round(process.memory_info().rss / 2**20),
            process.num_threads(),
            process.num_fds(),
            told("requests_(?:waiting|running){.*}"),
            told('requests_total{.*reason="cancelled"}'),
            told("generated_tokens_total{.*}"),
        )

    def is_well(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as reply:
            return reply.status == 200 and self.popen.poll() is None

    def require_rest(self, before: Figures, *, megabytes: int) -> Figures:
        """Everything is as before but for some memory; and nothing went wrong that only the log tells."""
        wait_for(lambda: self.figures().num_open == 0, 60)
        wait_for(lambda: self.figures().num_files <= before.num_files + 2, 60)
        now = self.figures()
        # The pool in which bodies are read has a thread for each core and four more, once there was much to do.
        assert now.num_threads <= before.num_threads + 4 + (os.cpu_count() or 1), (before, now)
        assert now.megabytes <= before.megabytes + megabytes, (before, now)
        assert self.is_well() and "Traceback" not in self.log.read_text(encoding="utf-8")
        return now


@contextmanager
def serve(folder: Path, log: Path, *words: str) -> Iterator[Process]:
    """`minimind serve FOLDER` on a free port, until SIGTERM."""
    command = [sys.executable, "-m", "minimind", "serve", str(folder), "--port", "0", *words]
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as popen:
        assert popen.stdout is not None
        line = popen.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, log.read_text(encoding="utf-8")
        process = Process(int(found[1]), popen, log)
        wait_for(lambda: _listens(process.port), 60)
        try:
            yield process
        finally:
            popen.send_signal(signal.SIGTERM)
            try:
                popen.wait(60)
            finally:
                popen.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
