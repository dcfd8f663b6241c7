"""The verb serves a run's folder, and refuses at once what would be unsafe or cannot work."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from minimind.cli import main
from minimind.config import load
from minimind.errors import ConfigError
from minimind.serve.guard import Policy
from minimind.stages.serve import ServeConfig, _models, _welcome
from minimind.storage.checkpoint import load_model


def test_a_folder_is_served_until_sigterm(tiny: Path) -> None:
    command = [sys.executable, "-m", "minimind", "serve", str(tiny), "--port", "0", "--sampling.max_tokens", "5"]
    command += ["--runs", str(tiny.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split(" at ")[1].split(";")[0]
        assert line.startswith("serving model at http://127.0.0.1:")
        body = json.dumps({"model": "model", "messages": [{"role": "user", "content": "1 2"}]}).encode()
        request = urllib.request.Request(f"{address}/chat/completions", body, {"Content-Type": "application/json"})
        for attempt in range(100):
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    assert json.load(reply)["usage"]["completion_tokens"] <= 5
                with urllib.request.urlopen(f"{address.removesuffix('v1')}page/runs", timeout=30) as reply:
                    assert json.load(reply)["shown"]
                break
            except urllib.error.URLError:
                assert attempt < 99
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "needs a key: export MINIMIND_API_KEY="),
        (["--host", "example.org"], "needs a key"),
        (["--key_env", "SHORT_KEY"], "SHORT_KEY has 5 characters; expected at least 16"),
        (["--key_env", "FOREIGN_KEY"], "FOREIGN_KEY has characters other than ASCII's letters, digits and signs"),
        (["--key_env", "SPACED_KEY"], "SPACED_KEY has characters other than ASCII's letters, digits and signs"),
        (["--key_env", "LONG_KEY", "--host", "nosuch.invalid"], "choose another --host"),
        (["--precision", "int4"], "precision"),
        (["--adapters", "nowhere"], "nowhere: not there"),
        (["--runs", "nowhere"], "runs: nowhere is no folder"),
    ],
)
def test_what_is_unsafe_or_wrong_is_said_in_a_line(
    tiny: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHORT_KEY", "12345")
    monkeypatch.setenv("FOREIGN_KEY", "schlüssel" * 4)
    monkeypatch.setenv("SPACED_KEY", "open sesame" * 2)
    monkeypatch.setenv("LONG_KEY", "a" * 32)
    monkeypatch.delenv("MINIMIND_API_KEY", raising=False)
    assert main(["serve", str(tiny), "--port", "0", *words]) == 2
    assert message in capsys.readouterr().err


def test_no_other_thread_computes_beside_the_engine(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads of OpenMP than cores wait asleep, and the engine writes half as fast."""
    loaders, alive = list[threading.Thread](), list[bool]()

    def load_here(folder: Path, **options: Any) -> Any:
        loaders.append(threading.current_thread())
        return load_model(folder, **options)

    monkeypatch.setattr("minimind.stages.serve.load_model", load_here)
    monkeypatch.setattr("minimind.serve.app.run_server", lambda *_: alive.extend(one.is_alive() for one in loaders))
    assert main(["serve", str(tiny), "--port", "0"]) == 0
    assert alive == [False]


def test_a_port_in_use_is_said_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "nowhere", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}" in said and "choose another --port" in said


def test_models_are_called_by_their_folders(tmp_path: Path) -> None:
    for name in ("base", "a/lora", "b/lora"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    words = {"model": str(tmp_path / "base"), "adapters": [str(tmp_path / name / "lora") for name in "ab"]}
    models = _models(load(ServeConfig, None, words))
    assert list(models) == ["base", "lora", str(tmp_path / "b/lora")]
    assert models["lora"] == (tmp_path / "base", tmp_path / "a/lora")


def test_a_folder_of_runs_is_answered_with_the_runs_in_it(tmp_path: Path) -> None:
    for name in ("sft", "pretrain"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"the runs below it are {tmp_path}/pretrain, {tmp_path}/sft$"):
        _models(load(ServeConfig, None, {"model": str(tmp_path)}))


@pytest.mark.parametrize(("host", "family"), [("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])
def test_a_server_that_listens_everywhere_is_called_by_an_address_that_works(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, host: str, family: socket.AddressFamily
) -> None:
    monkeypatch.setenv("MINIMIND_API_KEY", "a" * 32)
    policies = list[Policy]()
    monkeypatch.setattr("minimind.serve.app.build_app", lambda _, policy, **__: policies.append(policy))
    monkeypatch.setattr("minimind.serve.app.run_server", lambda *_: None)
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        shown = _welcome(load(ServeConfig, None, {"model": "m", "host": host}), port, ["m"], has_key=True)
        address = urlsplit(shown.split()[3].rstrip(";")).hostname
        assert address not in (None, host)
        socket.create_connection((address, port), timeout=5).close()
    assert main(["serve", str(tiny), "--port", "0", "--host", host]) == 0
    assert main(["serve", str(tiny), "--port", "0"]) == 0
    assert [policy.by_address for policy in policies] == [True, False]


def test_the_example_shows_how_to_give_a_key_and_not_the_key() -> None:
    config = load(ServeConfig, None, {"model": "m", "host": "::1"})
    shown = _welcome(config, 8000, ["m"], has_key=True)
    assert "http://[::1]:8000/v1/chat/completions" in shown and '"$MINIMIND_API_KEY"' in shown
    assert "open http://[::1]:8000/ in a browser" in shown
