"""The page's files are open and its other paths are not; each takes what is bounded and known, and nothing else."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.serve.browser import Site, losses, serve, write_run
from tests.tiny import TOKENIZER

from minimind.serve import page
from minimind.serve.guard import Policy
from minimind.serve.page import page_files
from minimind.text.tokenizer import Tokenizer
from minimind.tools.builtin import TOOLS

KEY = "0123456789abcdef0123456789abcdef"
FILES = sorted(page.WEB.iterdir())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runs = tmp_path_factory.mktemp("runs")
    write_run(runs / "a/pretrain", losses(1, 3))
    TOKENIZER.save(runs / "a/pretrain/checkpoints/step-000003")
    with serve(runs, Policy(key=KEY)) as site:
        yield site


def ask(site: Site, method: str, path: str, body: Any = None, *, key: str = KEY) -> tuple[int, bytes, dict[str, str]]:
    """The path goes out as it is, with dots and escapes."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=10)
    connection.request(method, path, content, headers)
    reply = connection.getresponse()
    found = reply.status, reply.read(), {name.lower(): value for name, value in reply.getheaders()}
    connection.close()
    return found


def get(site: Site, path: str) -> Any:
    status, content, _ = ask(site, "GET", path)
    return json.loads(content) | {"status": status}


def post(site: Site, path: str, body: Any) -> Any:
    status, content, _ = ask(site, "POST", path, body)
    return json.loads(content) | {"status": status}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_the_page_is_open(site: Site, path: Path) -> None:
    status, content, headers = ask(site, "GET", f"/{path.name}", key="")
    assert (status, content) == (200, path.read_bytes())
    assert headers["content-type"].startswith(page.TYPES[path.suffix])
    assert "script-src 'self'" in headers["content-security-policy"]


def test_the_address_alone_is_the_page(site: Site) -> None:
    assert ask(site, "GET", "/", key="")[1] == (page.WEB / "index.html").read_bytes()
    assert ask(site, "HEAD", "/", key="")[:2] == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/page/tools"),
        ("POST", "/page/tool"),
        ("GET", "/page/tokenizers"),
        ("POST", "/page/tokenize"),
        ("GET", "/page/runs"),
        ("GET", "/page/rows?run=a/pretrain&kind=metrics"),
        ("GET", "/page"),
        ("GET", "/web/index.html"),
        ("GET", "/App.js"),
    ],
)
def test_all_else_needs_the_key(site: Site, method: str, path: str) -> None:
    assert ask(site, method, path, {}, key="")[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/page.py",
        "//page.py",
        "/../page.py",
        "/./../page.py",
        "/..%2fpage.py",
        "/..%5cpage.py",
        "/%2e%2e/page.py",
        "/%2e%2e%2fpage.py",
        "/%252e%252e/page.py",
        "/..;/page.py",
        "/app.js/../../page.py",
        "/app.js%00.py",
        "/web/../../page.py",
    ],
)
def test_no_path_leads_out_of_the_page(site: Site, path: str) -> None:
    status, content, _ = ask(site, "GET", path)
    assert status == 404 and b"make_page_router" not in content


def test_links_and_files_of_other_kinds_are_not_served(tmp_path: Path) -> None:
    (tmp_path / "secret.js").write_text("secret")
    web = tmp_path / "web"
    web.mkdir()
    (web / "index.html").write_text("page")
    (web / "notes.txt").write_text("notes")
    (web / "link.js").symlink_to(tmp_path / "secret.js")
    assert set(page_files(web)) == {"/", "/index.html"}


def test_the_tools_on_offer_are_the_safe_ones(site: Site) -> None:
    assert get(site, "/page/tools")["tools"] == [tool.schema for tool in TOOLS.values()]


def test_a_tool_computes(site: Site) -> None:
    body = {"name": "calculate_math", "arguments": {"expression": "6 * 7"}}
    assert post(site, "/page/tool", body) == {"status": 200, "content": '{"result": 42}'}


def test_what_a_tool_cannot_do_is_its_answer(site: Site) -> None:
    found = post(site, "/page/tool", {"name": "calculate_math", "arguments": {"expression": "__import__('os')"}})
    assert found["status"] == 200 and "error" in json.loads(found["content"])
    found = post(site, "/page/tool", {"name": "look_up", "arguments": {"topic": "\ud800"}})
    assert found["status"] == 200 and "error" in json.loads(found["content"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "python", "arguments": {"code": "1"}}, 404),
        ({"name": "run_tool", "arguments": {}}, 404),
        ({"name": "", "arguments": {}}, 400),
        ({"name": "x" * 65, "arguments": {}}, 400),
        ({"name": ["calculate_math"], "arguments": {}}, 400),
        ({"name": "calculate_math", "arguments": "{}"}, 400),
        ({"name": "calculate_math", "arguments": {str(n): n for n in range(17)}}, 400),
        ({"name": "calculate_math"}, 400),
        ({"name": "calculate_math", "arguments": {}, "tools": {}}, 400),
        ([], 400),
        (b'{"name": "convert_unit", "arguments": {"value": NaN}}', 400),
        (b'{"name": "convert_unit", "arguments": {"value": ' + b"9" * 5000 + b"}}", 400),
        (b"{", 400),
    ],
)
def test_a_tool_that_is_not_there_or_not_asked_for_rightly_is_refused(site: Site, body: Any, status: int) -> None:
    assert post(site, "/page/tool", body)["status"] == status


def test_text_comes_as_tokens(site: Site) -> None:
    text = "hello 你\n"
    for name in ("model:scripted", "run:a/pretrain"):
        found = post(site, "/page/tokenize", {"tokenizer": name, "text": text})
        assert [index for index, _, _ in found["tokens"]] == TOKENIZER.encode(text)
        assert bytes(byte for _, _, data in found["tokens"] for byte in data).decode() == text
        assert (found["count"], found["fingerprint"]) == (len(found["tokens"]), TOKENIZER.fingerprint)
    assert get(site, "/page/tokenizers") == {"status": 200, "models": ["scripted"], "runs": ["a/pretrain"]}


def test_a_long_text_is_counted_whole_and_shown_in_part(site: Site) -> None:
    found = post(site, "/page/tokenize", {"tokenizer": "model:scripted", "text": "\u3042" * page.MAX_TEXT})
    assert (len(found["tokens"]), found["count"]) == (page.MAX_TOKENS, len(TOKENIZER.encode("\u3042" * page.MAX_TEXT)))


@pytest.mark.parametrize(
    ("tokenizer", "text", "status"),
    [
        ("model:other", "a", 404),
        ("run:../a", "a", 404),
        ("run:a", "a", 404),
        ("scripted", "a", 404),
        ("other:scripted", "a", 404),
        ("", "a", 400),
        ("model:scripted", "a" * (page.MAX_TEXT + 1), 400),
        ("model:scripted", 3, 400),
        ("model:scripted", "\ud800", 400),
    ],
)
def test_other_tokenizers_and_texts_are_refused(site: Site, tokenizer: str, text: Any, status: int) -> None:
    assert post(site, "/page/tokenize", {"tokenizer": tokenizer, "text": text})["status"] == status


def test_a_damaged_tokenizer_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site.runs / "damaged"
    TOKENIZER.save(folder)
    ask_for = {"tokenizer": "run:damaged", "text": "hello"}
    assert post(site, "/page/tokenize", ask_for)["status"] == 200
    monkeypatch.setattr(page, "MAX_TOKENIZER_BYTES", 100)
    assert post(site, "/page/tokenize", ask_for)["status"] == 400
    monkeypatch.undo()
    (folder / "tokenizer.json").write_text("{")
    found = post(site, "/page/tokenize", ask_for)
    assert (found["status"], found["error"]["code"]) == (400, "tokenizer_damaged")
    # A mended one is read anew.
    Tokenizer.train(["other text"], 300).save(folder)
    assert post(site, "/page/tokenize", ask_for)["vocabulary"] == 300


def test_a_run_is_read_from_where_its_reader_was(site: Site) -> None:
    first = get(site, "/page/rows?run=a/pretrain&kind=metrics")
    assert [row["step"] for row in first["rows"]] == [1, 2, 3]
    again = get(site, f"/page/rows?run=a%2Fpretrain&kind=metrics&start={first['next']}&file={first['file']}")
    assert again["rows"] == []
    found = get(site, "/page/runs")
    assert found["shown"] and [run["name"] for run in found["runs"]] == ["a/pretrain"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("run=a&kind=metrics", 404),
        ("run=../a/pretrain&kind=metrics", 404),
        (f"run={quote('a/pretrain/../../..')}&kind=metrics", 404),
        ("run=/etc&kind=metrics", 404),
        ("run=%00&kind=metrics", 404),
        ("run=&kind=metrics", 400),
        ("kind=metrics", 400),
        (f"run={'a' * 1025}&kind=metrics", 400),
        ("run=a/pretrain&kind=config", 400),
        ("run=a/pretrain&kind=../metrics", 400),
        ("run=a/pretrain&kind=metrics&start=-1", 400),
        ("run=a/pretrain&kind=metrics&start=99999999999999999999", 400),
        (f"run=a/pretrain&kind=metrics&file={'1' * 33}", 400),
    ],
)
def test_what_is_no_run_or_no_place_in_it_is_refused(site: Site, query: str, status: int) -> None:
    assert get(site, f"/page/rows?{query}")["status"] == status


def test_the_page_makes_no_html_of_text_and_asks_nobody_else() -> None:
    """What a browser cannot show to be absent: other ways to write HTML or run text, and addresses elsewhere."""
    ways = (
        r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|createContextualFragment|srcdoc|"
        r"eval\(|Function\("
    )
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert re.findall(ways, text) == [], path.name
        addresses = re.findall(r"(?:https?:)?//\w[\w.]+[^\s\"']*", text)
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name
        assert len(text.splitlines()) <= 300, path.name
