"""Text as tokens in a real browser, of one tokenizer and of two side by side."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from tests.serve.browser import Site, Visit, serve
from tests.tiny import TOKENIZER

from minimind.text.tokenizer import Tokenizer

OTHER = Tokenizer.train(["tokens and other words " * 3], 300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runs = tmp_path_factory.mktemp("runs")
    TOKENIZER.save(runs / "same/checkpoints/step-000001")
    OTHER.save(runs / "other/tokenizer")
    (runs / "bad").mkdir()
    (runs / "bad/tokenizer.json").write_text("{}")
    with serve(runs) as site:
        yield site


def look(visit: Visit, text: str) -> None:
    visit.tab.get_by_role("link", name="Tokenizer").click()
    expect(visit.tab.locator(".piece").first).to_be_visible()
    visit.tab.get_by_role("textbox", name="Text").fill(text)
    expect(visit.tab.locator(".pair > section").first.locator(".figures")).to_contain_text(f"{len(text)} characters")


def test_pieces_ids_and_bytes_are_shown(visit: Visit) -> None:
    text = "hello there\n你!"
    look(visit, text)
    pieces = visit.tab.locator(".piece")
    ids = TOKENIZER.encode(text)
    expect(pieces.locator("b")).to_have_text([str(index) for index in ids])
    expect(pieces.locator("small")).to_have_text([TOKENIZER.decode_bytes([index]).hex(" ") for index in ids])
    spelled = "".join(pieces.locator("code").all_inner_texts())
    assert spelled.startswith("hello␣there↵")
    expect(visit.tab.locator(".figures").first).to_contain_text(f"{len(ids)} tokens")
    expect(visit.tab.locator(".figures").first).to_contain_text(f"{len(text.encode())} bytes")


def test_another_tokenizer_reads_the_same_text_beside_it(visit: Visit) -> None:
    look(visit, "hello other words")
    visit.tab.get_by_label("Compare with").select_option("run:other/tokenizer")
    left, right = visit.tab.locator(".pair > section").all()
    expect(right.locator(".piece b")).to_have_text([str(index) for index in OTHER.encode("hello other words")])
    assert left.locator(".piece").count() != right.locator(".piece").count()
    visit.tab.get_by_role("textbox", name="Text").fill("words")
    expect(right.locator(".piece b")).to_have_text([str(index) for index in OTHER.encode("words")])
    visit.tab.get_by_label("Compare with").select_option("run:same")
    expect(visit.tab.get_by_text("Both are the same tokenizer.")).to_be_visible()
    visit.tab.reload()
    expect(visit.tab.get_by_label("Compare with")).to_have_value("run:same")


def test_a_damaged_tokenizer_says_so(visit: Visit) -> None:
    look(visit, "hello")
    visit.tab.get_by_label("Compare with").select_option("run:bad")
    expect(visit.tab.get_by_role("alert")).to_have_text("this tokenizer cannot be read")
    visit.wrong = [line for line in visit.wrong if "400 (Bad Request)" not in line]
    visit.tab.get_by_label("Compare with").select_option("")
    expect(visit.tab.get_by_role("alert")).to_have_count(0)


def test_no_text_has_no_tokens(visit: Visit) -> None:
    look(visit, "")
    expect(visit.tab.locator(".piece")).to_have_count(0)
    expect(visit.tab.locator(".figures").first).to_contain_text("0 tokens")
