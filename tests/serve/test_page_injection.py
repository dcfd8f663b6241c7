"""Text that would like to be HTML, in every place where the page shows text of others: it stays text.

The browser is told to ignore the server's content policy, so that the page alone has to hold; `test_page_frame.py` and
the others visit it with the policy, and fail where the console tells of a violation.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from tests.serve import browser
from tests.serve.browser import Site, Visit, write_run
from tests.tiny import TOKENIZER

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# `!` stands for what tells that something ran; the address is one that no server has.
ALARM = "window.hacked=1;alert(1)"
VECTORS = [
    vector.replace("!", ALARM)
    for vector in (
        "<img src=x onerror='!'>",
        "<img src='//evil.test/a.png'>",
        "<svg onload='!'>",
        "<svg><script>!</script></svg>",
        "<svg><a xlink:href='javascript:!'><text y=9>x</text></a></svg>",
        "<svg><animate onbegin='!' attributeName=x dur=1s>",
        "<svg><use href='data:image/svg+xml,<svg id=x onload=!>#x'>",
        "<script>!</script>",
        "<ScRiPt>!</sCrIpT>",
        "<script src='//evil.test/a.js'></script>",
        "<script type=module>!</script>",
        "</script><script>!</script>",
        "</textarea><img src=x onerror='!'>",
        "</title><script>!</script>",
        "</code></pre><img src=x onerror='!'>",
        "\"><img src=x onerror='!'>",
        "'><svg onload='!'>",
        "--><img src=x onerror='!'><!--",
        "<iframe src='javascript:!'></iframe>",
        "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
        "<object data='//evil.test/a'></object>",
        "<embed src='//evil.test/a'>",
        "<link rel=stylesheet href='//evil.test/a.css'>",
        "<style>@import '//evil.test/a.css';</style>",
        "<style>*{background:url(//evil.test/b)}</style>",
        "<div style='background:url(//evil.test/c)'>x</div>",
        "<base href='//evil.test/'>",
        "<meta http-equiv=refresh content='0;url=//evil.test/'>",
        "<form action='//evil.test/'><input autofocus onfocus='!'></form>",
        "<body onload='!'>",
        "<details open ontoggle='!'>x</details>",
        "<marquee onstart='!'>x</marquee>",
        "<video src=x onerror='!'></video>",
        "<audio src='//evil.test/a.mp3' autoplay></audio>",
        "<input autofocus onfocus='!'>",
        "<math><mtext><img src=x onerror='!'></mtext></math>",
        "<a href='javascript:!'>click</a>",
        "[click](javascript:!)",
        "![x](//evil.test/d.png)",
        "${window.hacked=1}{{constructor.constructor('!')()}}",
    )
]
MADE_BY_PAGE = (
    "A ARTICLE ASIDE B BODY BUTTON CODE DETAILS DIALOG DIV FIELDSET FIGCAPTION FIGURE FORM H1 H2 H3 HEAD HEADER HTML "
    "INPUT LABEL LEGEND LI LINK MAIN META NAV NOSCRIPT OPTGROUP OPTION OUTPUT P PRE SCRIPT SECTION SELECT SMALL SPAN "
    "STRONG SUMMARY TABLE TBODY TD TEXTAREA TH THEAD TITLE TR UL circle line path rect svg text"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runs = tmp_path_factory.mktemp("runs")
    sample = [{"step": 1, "prompt": vector, "text": vector} for vector in VECTORS]
    row = {"step": 1} | {vector[:64]: 1.0 for vector in VECTORS}
    for number, vector in enumerate(VECTORS):
        # A slash in it makes folders in folders, and the page shows the whole path.
        folder = runs / f"{number}{vector}"
        write_run(folder, [row, row | {"step": 2}], sample, stage=vector)
        if number % 4 == 0:
            TOKENIZER.save(folder)
    with browser.serve(runs, names=("scripted", *VECTORS)) as site:
        yield site


@pytest.fixture
def visit(chrome: "Browser", site: Site) -> Iterator[Visit]:
    with browser.visit(chrome, site.url, bypass_csp=True) as visit:
        own = (site.url, "data:", "blob:")
        visit.tab.context.route(lambda url: not url.startswith(own), lambda route: route.abort())
        yield visit
        harmless(visit)


def harmless(visit: Visit) -> None:
    """Nothing ran, and there is no element and no attribute but the page's own. Requests are watched by the visit."""
    script = """() => [...document.querySelectorAll("*")].flatMap((node) => [
      node.tagName, ...node.getAttributeNames().filter((name) => name.startsWith("on") || name === "xlink:href")])"""
    assert set(visit.tab.evaluate(script)) <= set(MADE_BY_PAGE.split())
    assert visit.tab.evaluate("window.hacked") is None
    assert (visit.tab.locator("script").count(), visit.tab.locator("link[rel=stylesheet]").count()) == (1, 2)
    assert visit.tab.locator("style, base, form:not(dialog form), meta[http-equiv]").count() == 0
    hrefs = visit.tab.locator("a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
    assert set(hrefs) == {"#chat", "#training", "#tokenizer"}


def shows_all(visit: Visit, within: str, texts: list[str]) -> None:
    shown = "\n".join(visit.tab.locator(within).all_text_contents())
    assert [text for text in texts if text not in shown] == []


def import_chat(visit: Visit, folder: Path, row: dict) -> None:
    path = folder / "chats.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    visit.tab.locator("input[type=file]").set_input_files(path)


def test_there_are_hundreds_of_payloads() -> None:
    places = 11
    assert len(VECTORS) == len(set(VECTORS)) == 40
    assert len(VECTORS) * places > 300


def test_as_a_users_text(site: Site, visit: Visit) -> None:
    site.server.say("yes")
    text = "\n".join(VECTORS)
    visit.ask(text)
    visit.wait_idle()
    assert visit.tab.locator(".user > .body").text_content() == text
    assert visit.tab.locator(".title").first.text_content() in " ".join(VECTORS)
    visit.tab.locator(".user").hover()
    visit.tab.get_by_role("button", name="Edit").click()
    assert visit.tab.get_by_role("textbox", name="Edit").input_value() == text


@pytest.mark.parametrize("form", ["{}", "`{}`", "**{}**", "```\n{}\n```"])
def test_as_a_models_answer(site: Site, visit: Visit, form: str) -> None:
    """As text, as code, in bold and in a block."""
    site.server.say("\n".join(form.replace("{}", vector) for vector in VECTORS))
    visit.ask("say it")
    visit.wait_idle()
    shows_all(visit, ".assistant > .body", VECTORS)


def test_as_thinking_and_as_tokens(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Think", exact=True).click()
    text = "\n".join(VECTORS)
    site.server.say(f"{text}</think>done", "".join(VECTORS[:10]))
    visit.ask("think it")
    visit.wait_idle()
    assert visit.tab.locator(".assistant .thinking > div").text_content() == text
    visit.tab.get_by_role("button", name="Think", exact=True).click()
    visit.tab.get_by_role("button", name="Tokens", exact=True).click()
    visit.ask("say it")
    visit.wait_idle()
    visit.tab.locator(".token").first.hover()
    assert visit.tab.locator(".tokens").text_content().startswith(VECTORS[0])  # type: ignore[union-attr]


def test_as_an_imported_conversation_with_calls_and_results(visit: Visit, tmp_path: Path) -> None:
    rows: list[dict] = [{"role": "system", "content": "\n".join(VECTORS)}]
    for vector in VECTORS:
        calls = [{"type": "function", "function": {"name": vector, "arguments": json.dumps({vector: vector})}}] * 2
        answer = {"role": "assistant", "content": vector, "reasoning_content": vector, "tool_calls": calls}
        rows += [{"role": "user", "content": vector}, answer]
        rows += [{"role": "tool", "content": vector}, {"role": "tool", "content": json.dumps({"result": vector})}]
    import_chat(visit, tmp_path, {"title": VECTORS[0], "messages": [*rows, rows[1], rows[2]]})
    assert visit.tab.locator(".message").count() == 2 * len(VECTORS) + 2
    assert visit.tab.locator(".call .head code").all_text_contents()[::2] == [*VECTORS, VECTORS[0]]
    shows_all(visit, ".call .result pre", VECTORS)
    shows_all(visit, ".thread > details", VECTORS)
    visit.tab.reload()
    shows_all(visit, ".thinking > div", VECTORS)
    for switch in ("Tools", "Tokens"):
        visit.tab.get_by_role("button", name=switch, exact=True).click()


def test_as_the_result_of_a_tool(site: Site, visit: Visit) -> None:
    visit.tab.get_by_role("button", name="Tools", exact=True).click()
    visit.tab.get_by_role("checkbox", name="look_up").check()
    topic = json.dumps({"name": "look_up", "arguments": {"topic": "".join(VECTORS[:3])}})
    site.server.say(f"<tool_call>\n{topic}\n</tool_call>", "so")
    visit.ask("look it up")
    visit.tab.get_by_role("button", name="Run").click()
    expect(visit.tab.locator(".call .result pre")).to_contain_text("<img src=x")
    visit.wait_idle()


def test_as_a_models_name(site: Site, visit: Visit) -> None:
    names = visit.tab.get_by_label("Model").locator("option")
    expect(names).to_have_count(len(VECTORS) + 1)
    assert names.all_text_contents()[1:] == VECTORS
    visit.tab.get_by_label("Model").select_option(VECTORS[0])
    # An error that names all models.
    visit.tab.route("**/v1/chat/completions", lambda route: route.continue_(post_data=json.dumps(
        {"model": "none", "messages": [{"role": "user", "content": "x"}]})))  # fmt: skip
    visit.ask("hi")
    visit.wait_idle()
    visit.wrong = [line for line in visit.wrong if "404 (Not Found)" not in line]
    shows_all(visit, ".assistant .error", VECTORS)


def test_as_runs_stages_measures_and_samples(visit: Visit) -> None:
    visit.tab.get_by_role("link", name="Training").click()
    boxes = visit.tab.locator(".training .side input[type=checkbox]")
    expect(boxes).to_have_count(len(VECTORS))
    names = visit.tab.locator(".training .side .name").evaluate_all("nodes => nodes.map((node) => node.title)")
    assert sorted(name.lstrip("0123456789") for name in names) == sorted(str(Path(vector)) for vector in VECTORS)
    boxes.nth(0).check()
    boxes.nth(1).check()
    visit.tab.get_by_text("More measures").click()
    expect(visit.tab.locator(".more .chart")).to_have_count(len({vector[:64] for vector in VECTORS}))
    for part in (".more .chart h3", ".samples"):
        shows_all(visit, part, [vector[:64] for vector in VECTORS])
    visit.tab.locator(".more .chart svg").first.hover()


def test_as_text_and_names_of_tokenizers(visit: Visit) -> None:
    visit.tab.get_by_role("link", name="Tokenizer").click()
    text = "\n".join(VECTORS)
    visit.tab.get_by_role("textbox", name="Text").fill(text)
    expect(visit.tab.locator(".pair > section").first.locator(".figures")).to_contain_text(f"{len(text)} characters")
    shown = "".join(visit.tab.locator(".piece code").all_text_contents())
    assert VECTORS[0].replace(" ", "␣") in shown
    visit.tab.get_by_label("Compare with").select_option(index=len(VECTORS) + 2)
    expect(visit.tab.get_by_text("Both are the same tokenizer.")).to_be_visible()


@pytest.mark.parametrize("make", [lambda vector: vector, lambda vector: {"toString": vector}, lambda vector: [vector]])
def test_as_what_the_browser_has_kept(visit: Visit, make: Callable[[str], object]) -> None:
    """As another page on this address, or a fault, may have left it."""
    kept: dict[str, object] = {}
    for number, vector in enumerate(VECTORS):
        odd = make(vector)
        call = {"name": odd, "arguments": odd, "result": odd, "declined": odd}
        message = {"role": "assistant", "content": odd, "reasoning": odd, "error": odd, "note": odd}
        message |= {"calls": [call, odd], "tokens": [[odd, odd, [[odd, odd]]], odd]}
        message |= {"figures": {"tokens": odd, "seconds": odd}}
        chat = {"id": odd, "title": odd, "updated": odd, "system": odd, "hasOwnSystem": True}
        kept[f"chat.{number}"] = chat | {"messages": [message, odd]}
    odd = make(VECTORS[0])
    kept |= {name: odd for name in ("language", "theme", "open", "runs", "charts", "tokenizers")}
    kept["settings"] = dict.fromkeys(("model", "think", "tokens", "system", "tools", "temperature", "seed"), odd)
    pairs = [(f"minimind.{name}", json.dumps(value)) for name, value in kept.items()]
    visit.tab.evaluate("pairs => pairs.forEach((pair) => localStorage.setItem(...pair))", pairs)
    visit.tab.reload()
    expect(visit.tab.locator(".title")).to_have_count(len(VECTORS))
    for view in ("training", "tokenizer", "chat"):
        visit.tab.evaluate("view => { location.hash = view; }", view)
        expect(visit.tab.locator(f"main > .{view}")).to_be_visible()
        harmless(visit)
    for title in visit.tab.locator(".title").all()[:5]:
        title.click()
        harmless(visit)
