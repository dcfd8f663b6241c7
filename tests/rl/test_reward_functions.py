"""Rewards of the user's own: found where they are, or refused with the reason."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import ClassVar

import pytest

from minimind.data.prompts import Prompt
from minimind.errors import ConfigError
from minimind.rl.reward_functions import http_reward, import_reward
from minimind.rl.rollouts import Outcome
from minimind.text.conversation import Message

OUTCOME = Outcome(Prompt((Message("user", "1+1?"),), gt=("2",)), (Message("assistant", "二"),), "stop", 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_a_function_is_found_in_the_working_directory_and_among_installed_packages(folder: Path) -> None:
    (folder / "scores_of_mine.py").write_text(
        "def late(outcome):\n    import more_of_mine\n    return more_of_mine.SCORE\n", encoding="utf-8"
    )
    (folder / "more_of_mine.py").write_text("SCORE = 0.5\n", encoding="utf-8")

    assert import_reward("scores_of_mine:late")(OUTCOME) == 0.5
    assert import_reward("os.path:basename")("a/b") == "b"  # type: ignore[arg-type]


def test_a_function_that_cannot_be_had_says_why(folder: Path) -> None:
    (folder / "broken_of_mine.py").write_text("1/0\n", encoding="utf-8")
    (folder / "empty_of_mine.py").write_text("score = 3\n", encoding="utf-8")
    (folder / "needy_of_mine.py").write_text("import not_there_at_all\n", encoding="utf-8")

    for name, problem in (
        ("missing_of_mine:score", f"No module named 'missing_of_mine'.*working directory, {folder}"),
        ("needy_of_mine:score", "No module named 'not_there_at_all'"),
        ("broken_of_mine:score", "fails on import: ZeroDivisionError"),
        ("empty_of_mine:other", "other is not there in .*empty_of_mine.py"),
        ("empty_of_mine:score", "score is a int, not a function in .*empty_of_mine.py"),
    ):
        with pytest.raises(ConfigError, match=problem):
            import_reward(name)


def test_a_function_of_other_arguments_is_refused_at_the_start(folder: Path) -> None:
    (folder / "other_of_mine.py").write_text(
        "def trl(completions, answer): return [1.0]\ndef none(): return 1.0\ndef more(outcome, scale=2): return scale\n"
    )
    with pytest.raises(
        ConfigError, match=r"is trl\(completions, answer\); expected a function of one argument, the Outc"
    ):
        import_reward("other_of_mine:trl")
    with pytest.raises(ConfigError, match=r"is none\(\); expected"):
        import_reward("other_of_mine:none")
    assert import_reward("other_of_mine:more")(OUTCOME) == 2


class Endpoint(BaseHTTPRequestHandler):
    """Replies what the last part of the address asks for."""

    replies: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/good": (200, b'{"reward": 0.25}'),
        "/list": (200, b"[0.25]"),
        "/empty": (200, b""),
        "/error": (500, b"no model is loaded"),
    }
    seen: ClassVar[list[dict[str, object]]] = []
    release: ClassVar[Event] = Event()

    def do_POST(self) -> None:
        self.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.path == "/silent":
            self.release.wait(30)
            return
        status, body = self.replies[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        Endpoint.release.clear()
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Endpoint.release.set()
        server.shutdown()


def test_an_endpoint_is_told_the_conversation_and_gives_a_number(address: str) -> None:
    assert http_reward(f"{address}/good", 5)(OUTCOME) == 0.25
    assert Endpoint.seen[-1] == OUTCOME.to_dict()


def test_an_endpoint_that_fails_raises_what_it_said(address: str) -> None:
    for path, problem in (("/list", "got '\\[0.25\\]'"), ("/empty", "expected"), ("/error", "500: no model is loaded")):
        with pytest.raises(ValueError, match=problem):
            http_reward(address + path, 5)(OUTCOME)


def test_a_silent_endpoint_times_out_and_an_absent_one_is_refused(address: str) -> None:
    with pytest.raises(TimeoutError):
        http_reward(f"{address}/silent", 0.2)(OUTCOME)
    with pytest.raises(OSError, match="refused"):
        http_reward("http://127.0.0.1:9/score", 5)(OUTCOME)


@pytest.mark.parametrize("url", ["ftp://host/score", "file:///etc/passwd", "http://", "https:///score"])
def test_only_web_addresses_are_asked(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        http_reward(url, 5)
