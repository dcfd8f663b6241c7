"""The frame of the page in a real browser: language, theme, key, small screens, what a screen reader is told."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from tests.serve import browser
from tests.serve.browser import Site, Visit, losses, write_run

from minimind.serve.guard import Policy
from minimind.serve.page import WEB

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KEY = "0123456789abcdef0123456789abcdef"
VIEWS = ("chat", "training", "tokenizer")
LONG = "averylongwordwithoutanyspaces" * 12

# The ratio of the luminances (WCAG 2.2, 1.4.3) of each text that is seen and its ground, where it is below 4.5.
CONTRAST = """() => {
  const parse = (color) => {
    const pixel = new OffscreenCanvas(1, 1).getContext("2d");
    pixel.fillStyle = color;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => color.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility({ opacityProperty: true })) continue;
    if (node.closest(":disabled, noscript, .unseen")) continue;
    const style = getComputedStyle(node);
    const ink = parse(node instanceof SVGElement ? style.fill : style.color);
    const [one, other] = [ink, behind(node)].map(luminance);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push(`${text.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""

# What has no name for a screen reader.
NAMELESS = """() => [...document.querySelectorAll("a, button, input:not([hidden]), select, svg[role], textarea")]
  .filter((node) => !node.ariaLabel && !node.textContent.trim() && !node.labels?.length)
  .map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runs = tmp_path_factory.mktemp("runs")
    samples = [{"step": 5, "prompt": LONG, "text": LONG}]
    write_run(runs / "a-run-with-quite-a-long-name" / "and-a-stage-with-a-long-name", losses(1, 5), samples)
    write_run(runs / "b", losses(1, 5), is_finished=True)
    with browser.serve(runs) as site:
        yield site


def go(visit: Visit, view: str) -> None:
    visit.tab.evaluate("view => { location.hash = view; }", view)
    expect(visit.tab.locator(f"main > .{view}")).to_be_visible()
    if view != "chat":
        expect(visit.tab.locator({"training": ".chart", "tokenizer": ".piece"}[view]).first).to_be_visible()


def test_the_language_is_the_browsers_until_another_is_chosen(chrome: "Browser", site: Site) -> None:
    with browser.visit(chrome, site.url, locale="zh-CN") as visit:
        expect(visit.tab.get_by_role("link", name="对话")).to_be_visible()
        assert visit.tab.evaluate("document.documentElement.lang") == "zh"
        visit.tab.get_by_role("button", name="EN").click()
        expect(visit.tab.get_by_role("link", name="Chat")).to_be_visible()
        visit.tab.reload()
        expect(visit.tab.get_by_role("link", name="Chat")).to_be_visible()


def test_every_word_is_there_in_both_languages(visit: Visit) -> None:
    """Words that are asked for and not there are shown by their keys."""
    script = """async (names) => {
      const texts = await Promise.all(names.map((name) => fetch(name).then((reply) => reply.text())));
      const { t } = await import("/words.js");
      const uses = [...texts.join().matchAll(/\\bt\\("(\\w+)"|data-t="(\\w+)"/g)].map((found) => found[1] ?? found[2]);
      return [uses.length, uses.filter((key) => t(key, 0) === key)];
    }"""
    number, missing = visit.tab.evaluate(script, [path.name for path in WEB.iterdir()])
    assert number > 70
    assert missing == []


def test_the_theme_follows_the_system_until_one_is_chosen(chrome: "Browser", site: Site) -> None:
    def is_dark(visit: Visit) -> bool:
        return visit.tab.evaluate("getComputedStyle(document.body).backgroundColor").startswith("rgb(23,")

    with browser.visit(chrome, site.url, color_scheme="dark") as visit:
        assert is_dark(visit)
        visit.tab.emulate_media(color_scheme="light")
        expect(visit.tab.get_by_role("button", name="Dark")).to_be_visible()
        assert not is_dark(visit)
        visit.tab.get_by_role("button", name="Dark").click()
        visit.tab.reload()
        expect(visit.tab.get_by_role("button", name="Light")).to_be_visible()
        assert is_dark(visit)


def test_a_key_is_asked_for_once_and_kept_for_the_tab(chrome: "Browser", site: Site) -> None:
    refused = "401 (Unauthorized)"
    with (
        browser.serve(site.runs, Policy(key=KEY)) as closed,
        browser.visit(chrome, closed.url, allowed=[refused]) as visit,
    ):
        dialog = visit.tab.get_by_role("dialog", name="This server wants a key")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Key", exact=True).fill("wrong")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.get_by_text("That key was not accepted.")).to_be_visible()
        dialog.get_by_label("Key", exact=True).fill(KEY)
        dialog.get_by_label("Key", exact=True).press("Enter")
        expect(dialog).to_be_hidden()
        expect(visit.tab.get_by_label("Model")).to_have_value("scripted")
        visit.tab.reload()
        expect(visit.tab.get_by_label("Model")).to_have_value("scripted")
        closed.server.say("open now")
        visit.ask("hi")
        assert visit.answers() == ["open now"]
        assert KEY not in visit.tab.evaluate("JSON.stringify(localStorage)")


@pytest.mark.parametrize(("locale", "word"), [("en-US", "That key was not accepted."), ("zh-CN", "密钥不正确。")])
def test_a_key_that_no_header_can_hold_is_a_wrong_one(chrome: "Browser", site: Site, locale: str, word: str) -> None:
    with (
        browser.serve(site.runs, Policy(key=KEY)) as closed,
        browser.visit(chrome, closed.url, locale=locale, allowed=["401 (Unauthorized)"]) as visit,
    ):
        visit.tab.locator("#key").fill("密钥")
        visit.tab.locator("#key").press("Enter")
        expect(visit.tab.get_by_role("dialog").get_by_role("alert")).to_have_text(word)
        assert visit.tab.evaluate("sessionStorage.length") == 0
        visit.tab.locator("#key").fill(KEY)
        visit.tab.locator("#key-save").click()
        expect(visit.tab.get_by_role("dialog")).to_be_hidden()
        expect(visit.tab.locator(".composer select")).to_have_value("scripted")


def test_without_the_key_the_page_says_so_and_does_not_ask_again(chrome: "Browser", site: Site) -> None:
    refused = "401 (Unauthorized)"
    with (
        browser.serve(site.runs, Policy(key=KEY)) as closed,
        browser.visit(chrome, closed.url, allowed=[refused]) as visit,
    ):
        visit.tab.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(visit.tab.get_by_role("alert")).to_have_text("This server wants a key")
        visit.tab.get_by_role("link", name="Training").click()
        visit.tab.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        visit.tab.wait_for_timeout(2500)
        expect(visit.tab.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_does_not_scroll_sideways(chrome: "Browser", site: Site, width: int, locale: str) -> None:
    size = {"width": width, "height": 844}
    with browser.visit(chrome, site.url, viewport=size, locale=locale, is_mobile=True, has_touch=True) as visit:
        site.server.say(f"{LONG}\n```\n{LONG}\n```\n`{LONG}`")
        visit.ask(LONG) if locale == "en-US" else visit.tab.locator(".question").fill(LONG)
        visit.tab.locator(".send").wait_for()
        for view in VIEWS:
            go(visit, view)
            # The window, and the part of it that scrolls up and down.
            script = """() => [...document.querySelectorAll("html, main, .view:not([hidden]), .thread, .page")]
              .filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.className)"""
            assert visit.tab.evaluate(script) == [], view
            assert visit.tab.evaluate("innerWidth") == width
            header = visit.tab.locator("header").bounding_box()
            for node in visit.tab.locator("header > *, header a, header button").all():
                box = node.bounding_box()
                assert header and box and box["x"] >= 0 and box["x"] + box["width"] <= width
            brand, first = (visit.tab.locator(f"header {name}").bounding_box() for name in (".brand", "nav"))
            assert brand and first and first["x"] - brand["x"] - brand["width"] >= 4


def test_on_a_phone_the_conversations_open_and_close(chrome: "Browser", site: Site) -> None:
    size = {"width": 390, "height": 844}
    with browser.visit(chrome, site.url, viewport=size, is_mobile=True, has_touch=True) as visit:
        site.server.say("one")
        visit.ask("hi")
        visit.wait_idle()
        expect(visit.tab.locator(".chat .side")).to_be_hidden()
        visit.tab.get_by_role("button", name="Conversations").tap()
        visit.tab.touchscreen.tap(380, 300)
        expect(visit.tab.locator(".chat .side")).to_be_hidden()
        visit.tab.get_by_role("button", name="Conversations").tap()
        visit.tab.get_by_role("button", name="New chat").tap()
        expect(visit.tab.locator(".chat .side")).to_be_hidden()
        expect(visit.tab.get_by_role("heading", name="What would you like to ask?")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_told_from_its_ground_and_all_controls_have_names(
    chrome: "Browser", site: Site, scheme: str
) -> None:
    with browser.visit(chrome, site.url, color_scheme=scheme) as visit:
        assert visit.tab.evaluate(CONTRAST) == []
        visit.tab.get_by_role("button", name="Tokens", exact=True).click()
        visit.tab.get_by_role("button", name="Settings").click()
        site.server.say("reasons</think>hello **there** `code`", "more")
        visit.ask("hi")
        visit.wait_idle()
        visit.tab.get_by_role("button", name="Tokens", exact=True).click()
        visit.tab.locator(".user").hover()
        for view in VIEWS:
            go(visit, view)
            visit.tab.wait_for_timeout(200)
            assert visit.tab.evaluate(CONTRAST) == [], view
            assert visit.tab.evaluate(NAMELESS) == [], view


def test_motion_is_left_out_where_it_is_not_wanted(chrome: "Browser", site: Site) -> None:
    with browser.visit(chrome, site.url, reduced_motion="reduce") as visit:
        go(visit, "training")
        script = "getComputedStyle(document.querySelector('.running'), '::before').animationName"
        assert visit.tab.evaluate(script) == "none"


def test_a_server_that_is_gone_is_said(chrome: "Browser", site: Site) -> None:
    with browser.visit(chrome, site.url, allowed=["ERR_FAILED"]) as visit:
        expect(visit.tab.get_by_label("Model")).to_have_value("scripted")
        visit.tab.route("**/v1/chat/completions", lambda route: route.abort())
        visit.ask("hi")
        visit.wait_idle()
        expect(visit.tab.locator(".assistant .error")).to_have_text("The server cannot be reached.")
        assert json.loads(visit.tab.evaluate("localStorage['minimind.open']"))


def test_a_server_that_is_gone_leaves_no_tools_over_nothing(chrome: "Browser", site: Site) -> None:
    with browser.visit(chrome, site.url, allowed=["ERR_FAILED"]) as visit:
        visit.tab.route("**/page/runs", lambda route: route.abort())
        visit.tab.get_by_role("link", name="Training").click()
        expect(visit.tab.get_by_role("alert")).to_have_text("The server cannot be reached.")
        expect(visit.tab.get_by_label("Logarithmic")).to_be_hidden()
        expect(visit.tab.get_by_label("Filter")).to_be_hidden()
        visit.tab.unroute("**/page/runs")
        expect(visit.tab.get_by_label("Logarithmic")).to_be_visible()
        expect(visit.tab.get_by_label("Filter")).to_be_visible()


def test_blocked_storage_does_not_break_the_page(chrome: "Browser", site: Site) -> None:
    with browser.visit(chrome, site.url) as visit:
        refuse = "{ get() { throw new DOMException('no', 'SecurityError'); } }"
        for name in ("localStorage", "sessionStorage"):
            visit.tab.add_init_script(f"Object.defineProperty(window, '{name}', {refuse});")
        visit.tab.reload()
        site.server.say("one")
        visit.ask("hi")
        assert visit.answers() == ["one"]
        expect(visit.tab.get_by_role("alert")).to_contain_text("storage is full")
