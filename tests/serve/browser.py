"""A real browser and somebody at it: opens the page, and notes whatever should not happen there."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.serve.tiny_server import Running, listen
from tests.tiny import TOKENIZER, random_model

from minimind.generation.engine import Engine
from minimind.generation.sampling import Sampling
from minimind.serve.api import Service
from minimind.serve.guard import Policy
from minimind.serve.runner import Runner

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Room for the schemas of all tools in bytes, of which this tokenizer's tokens are.
CONTEXT = 16384


@dataclass(frozen=True)
class Site:
    """A server and the folder of runs that it shows."""

    server: Running
    runs: Path

    @property
    def url(self) -> str:
        return self.server.url


@dataclass
class Visit:
    """tab:      the browser's page
    wrong:    errors of the console, exceptions, dialogs, requests to elsewhere
    bodies:   what was posted, by path
    """

    tab: "Page"
    wrong: list[str] = field(default_factory=list)
    bodies: list[tuple[str, Any]] = field(default_factory=list)

    def ask(self, text: str) -> None:
        """Type it and press Enter."""
        self.tab.locator(".question").fill(text)
        self.tab.locator(".question").press("Enter")

    def answers(self) -> list[str]:
        """What the model has said, once nothing more comes."""
        self.wait_idle()
        return self.tab.locator(".assistant > .body:visible").all_inner_texts()

    def wait_idle(self) -> None:
        self.tab.get_by_role("button", name="Send", exact=True).wait_for()

    def posted(self, path: str) -> list[Any]:
        return [body for where, body in self.bodies if where == path]


@contextmanager
def launch() -> Iterator["Browser"]:
    """Chromium, without a window; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # A machine may be busy; what never comes is waited for longer, and nothing else.
    sync_api.expect.set_options(timeout=15_000)
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of {', '.join(names)} is on PATH")
    with sync_api.sync_playwright() as playwright:
        # The sandbox needs rights that a container may not give.
        chrome = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chrome
        chrome.close()


@contextmanager
def serve(runs: Path, policy: Policy | None = None, names: Sequence[str] = ("scripted",)) -> Iterator[Site]:
    engines = {
        name: Engine(random_model(max_position_embeddings=CONTEXT), TOKENIZER, capacity=CONTEXT, max_rows=2)
        for name in names
    }
    service = Service(Runner(engines), Sampling(temperature=1.0, top_p=1.0, max_tokens=4000))
    with listen(service, policy, runs=runs) as server:
        yield Site(server, runs)


@contextmanager
def visit(chrome: "Browser", url: str, *, allowed: Sequence[str] = (), **options: Any) -> Iterator[Visit]:
    """allowed: what may be part of a message in the console; options: as `Browser.new_context` takes them"""
    context = chrome.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options})
    context.set_default_timeout(15_000)
    tab = context.new_page()
    found = Visit(tab)

    def on_request(request: Any) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            found.wrong.append(f"request: {request.url}")
        if request.method == "POST":
            found.bodies.append((request.url.removeprefix(url), request.post_data_json))

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in allowed):
            found.wrong.append(f"console: {message.text}")

    def on_dialog(dialog: Any) -> None:
        # The page asks before it deletes; nothing else may open one.
        if not dialog.message.startswith("Delete"):
            found.wrong.append(f"dialog: {dialog.message}")
        dialog.accept()

    tab.on("request", on_request)
    tab.on("console", on_console)
    tab.on("dialog", on_dialog)
    tab.on("pageerror", lambda error: found.wrong.append(f"exception: {error}"))
    tab.goto(url)
    yield found
    context.close()
    assert found.wrong == []


def write_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]] = (),
    *,
    stage: str = "pretrain",
    is_finished: bool = False,
) -> Path:
    """The files of a run, as far as a reader needs them."""
    folder.mkdir(parents=True)
    files = {"recipe.toml": "", "config.json": "{}", "environment.json": json.dumps({"stage": stage})}
    files |= {"metrics.jsonl": lines(rows), "samples.jsonl": lines(samples)}
    for name, text in (files | ({"finished.json": "{}"} if is_finished else {})).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def losses(first: int, last: int, scale: float = 1.0) -> list[dict[str, Any]]:
    """Rows of a training, a row a step; the loss of step n is `scale` times 10 / n."""
    return [
        {
            "step": n,
            "loss": scale * 10 / n,
            "learning_rate": 0.01,
            "gradient_norm": 1.0,
            "tokens": n * 100,
            "seconds": n,
        }
        for n in range(first, last + 1)
    ]
