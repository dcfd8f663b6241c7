"""Runs in a real browser: what they log appears while they train, damaged or not, one beside the other."""

import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect
from tests.serve.browser import Site, Visit, lines, losses, serve, write_run

SAMPLES = [{"step": step, "prompt": "Once", "text": f"upon a time {step}"} for step in (1, 2)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    runs = tmp_path_factory.mktemp("runs")
    write_run(runs / "first/pretrain", losses(1, 5, scale=2), SAMPLES, is_finished=True)
    write_run(runs / "second/sft", losses(1, 4), stage="sft", is_finished=True)
    with serve(runs) as site:
        yield site


def look(visit: Visit, *names: str) -> None:
    """Pick these runs and no others."""
    visit.tab.get_by_role("link", name="Training").click()
    expect(visit.tab.locator(".training .side input[type=checkbox]").first).to_be_visible()
    shown = visit.tab.locator(".training .side input:checked").evaluate_all("boxes => boxes.map((box) => box.value)")
    for name in set(shown) - set(names):
        visit.tab.locator(f'.training .side input[value="{name}"]').uncheck()
    for name in names:
        visit.tab.locator(f'.training .side input[value="{name}"]').check()


def chart(visit: Visit, title: str) -> Locator:
    return visit.tab.locator(".chart").filter(has=visit.tab.get_by_role("heading", name=title, exact=True))


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def test_the_charts_of_a_run_are_drawn(visit: Visit) -> None:
    look(visit, "first/pretrain")
    for title, last in (("Loss", "4"), ("Learning rate", "0.01"), ("Gradient norm", "1")):
        expect(chart(visit, title).locator("figcaption b")).to_have_text(last)
        expect(chart(visit, title).locator("path.line")).to_have_count(1)
    row = visit.tab.locator(".latest tbody tr")
    expect(row).to_contain_text("first/pretrain")
    expect(row).to_contain_text("finished")
    expect(row.locator("td").first).to_have_text("5")


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_an_axis_has_at_least_two_numbers_and_they_do_not_touch(site: Site, visit: Visit, width: int) -> None:
    visit.tab.set_viewport_size({"width": width, "height": 800})
    for first, last in ((1, 867), (600, 1400), (1, 3), (990, 1010)):
        name = f"ticks-{width}-{first}-{last}"
        write_run(site.runs / name, losses(first, last), is_finished=True)
        look(visit, name)
        numbers = chart(visit, "Loss").locator("text[text-anchor=middle]")
        expect(numbers.nth(1)).to_be_visible()
        boxes = [box for number in numbers.all() if (box := number.bounding_box())]
        assert all(one["x"] + one["width"] + 8 < other["x"] for one, other in pairwise(boxes)), (first, last)


def test_several_runs_share_a_chart(visit: Visit) -> None:
    look(visit, "first/pretrain", "second/sft")
    loss = chart(visit, "Loss")
    expect(loss.locator("path.line")).to_have_count(2)
    expect(loss.locator("figcaption b")).to_have_text(["4", "2.5"])
    colours = loss.locator("path.line").evaluate_all("lines => lines.map((line) => getComputedStyle(line).stroke)")
    assert len(set(colours)) == 2
    loss.locator("svg").focus()
    for _ in range(4):
        loss.locator("svg").press("ArrowLeft")
    # The last step is where it stood, so four presses lead from 5 to 2.
    expect(loss.locator(".head small")).to_have_text("step 2")
    expect(loss.locator("figcaption b")).to_have_text(["10", "5"])


def test_the_axis_may_be_tokens_and_the_choice_is_kept(visit: Visit) -> None:
    look(visit, "first/pretrain")
    visit.tab.get_by_label("Horizontal axis").select_option("tokens")
    visit.tab.get_by_label("Logarithmic").check()
    visit.tab.mouse.move(0, 0)
    visit.tab.reload()
    loss = chart(visit, "Loss")
    loss.locator("svg").focus()
    loss.locator("svg").press("ArrowLeft")
    expect(loss.locator(".head small")).to_have_text("500 tokens")
    expect(visit.tab.get_by_label("Logarithmic")).to_be_checked()


def test_what_a_run_logs_appears_while_it_trains(site: Site, visit: Visit) -> None:
    folder = write_run(site.runs / "live/pretrain", losses(1, 2))
    look(visit, "live/pretrain")
    shown = chart(visit, "Loss").locator("figcaption b")
    expect(shown).to_have_text("5")
    expect(visit.tab.locator(".latest tbody")).to_contain_text("training")
    stop = threading.Event()

    def train() -> None:
        for row in losses(3, 400):
            if stop.is_set():
                return
            line = lines([row])
            append(folder / "metrics.jsonl", line[:15])
            time.sleep(0.02)
            append(folder / "metrics.jsonl", line[15:])
            time.sleep(0.02)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        expect(shown).not_to_have_text("5")
    finally:
        stop.set()
        thread.join()
    append(folder / "metrics.jsonl", lines(losses(500, 500)) + '{"step": 501, "lo')
    append(folder / "samples.jsonl", lines([{"step": 500, "prompt": "p", "text": "said at last"}]))
    (folder / "finished.json").write_text("{}")
    expect(shown).to_have_text("0.02")
    expect(visit.tab.get_by_text("said at last")).to_be_visible()
    expect(visit.tab.get_by_text("could not be read")).to_have_count(0)
    expect(visit.tab.locator(".latest tbody")).to_contain_text("finished")


def test_only_what_is_new_is_asked_for(site: Site, visit: Visit) -> None:
    asked: list[str] = []
    visit.tab.on("request", lambda request: asked.append(request.url) if "/page/rows" in request.url else None)
    look(visit, "first/pretrain")
    expect(chart(visit, "Loss").locator("figcaption b")).to_have_text("4")
    size = (site.runs / "first/pretrain/metrics.jsonl").stat().st_size
    with visit.tab.expect_response(lambda reply: f"start={size}&" in reply.url) as reply:
        pass
    assert reply.value.json()["rows"] == []
    assert sum("start=0&" in url and "metrics" in url and "first" in url for url in asked) == 1


def test_a_run_that_is_resumed_is_drawn_anew(site: Site, visit: Visit) -> None:
    folder = write_run(site.runs / "resumed", losses(1, 100))
    look(visit, "resumed")
    cell = visit.tab.locator(".latest tbody td").first
    expect(cell).to_have_text("100")
    (folder / "new").write_text(lines(losses(1, 20)))
    os.replace(folder / "new", folder / "metrics.jsonl")
    expect(cell).to_have_text("20")


def test_damaged_and_empty_runs_do_not_disturb_others(site: Site, visit: Visit) -> None:
    folder = write_run(site.runs / "damaged", losses(1, 3))
    append(folder / "metrics.jsonl", '\n{"step": }\n\x00\n' + lines([{"step": 4, "loss": 7}]))
    (folder / "environment.json").write_text("{")
    (folder / "samples.jsonl").unlink()
    empty = write_run(site.runs / "empty", [])
    (empty / "metrics.jsonl").unlink()
    look(visit, "damaged", "empty", "second/sft")
    expect(chart(visit, "Loss").locator("figcaption b")).to_have_text(["7", "2.5"])
    expect(visit.tab.get_by_text("Lines that could not be read: 2")).to_be_visible()
    look(visit, "empty")
    expect(visit.tab.get_by_text("Nothing is logged yet.")).to_be_visible()


def test_thousands_of_rows_are_drawn_with_their_spikes(site: Site, visit: Visit) -> None:
    rows = [{"step": n, "loss": 1.0 if n != 12_345 else 99.0} for n in range(20_000)]
    write_run(site.runs / "long", rows, is_finished=True)
    look(visit, "long")
    expect(visit.tab.locator(".latest tbody td").first).to_have_text("20k")
    line = chart(visit, "Loss").locator("path.line")
    assert len(line.get_attribute("d") or "") < 30_000
    heights = line.evaluate("line => line.getBBox().height")
    assert heights > 100


def test_the_slider_shows_samples_by_step(visit: Visit) -> None:
    look(visit, "first/pretrain")
    expect(visit.tab.get_by_text("upon a time 2")).to_be_visible()
    visit.tab.get_by_role("slider").press("ArrowLeft")
    expect(visit.tab.locator("output")).to_have_text("step 1")
    expect(visit.tab.get_by_text("upon a time 1")).to_be_visible()


def test_measures_of_other_stages_are_one_click_away(site: Site, visit: Visit) -> None:
    write_run(site.runs / "rl", [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.75}], stage="grpo")
    look(visit, "rl")
    visit.tab.get_by_text("More measures").click()
    expect(chart(visit, "reward").locator("figcaption b")).to_have_text("0.75")


def test_runs_are_found_by_name(visit: Visit) -> None:
    look(visit)
    expect(visit.tab.get_by_text("Choose one or more runs.")).to_be_visible()
    visit.tab.get_by_label("Filter").fill("SECOND")
    expect(visit.tab.locator(".training .side li")).to_have_count(1)
