"""One page: complete, self-contained, the same each time, and deaf to what a model writes into it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.serve.browser import launch, visit
from tests.tiny import write_rows

from minimind.errors import RunError
from minimind.report import write_report
from minimind.report.page import gather

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></textarea></pre><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "' onmouseover='alert(1)",
    "\ud800 \x00\x1b[31m \u202e\ufffe javascript:alert(1)",
    "<!-- --!><iframe src=//example.org></iframe>&lt;b&gt;",
]


def write_stage(folder: Path, stage: str, *, bits: float = 1.5, text: str = "a star", **row: Any) -> Path:
    rows: list[dict[str, Any]] = [{"step": 0, "valid_loss": 8.8, "bits_per_byte": 3.4}]
    rows += [
        {"step": s, "loss": 3.0 + 1 / s, "learning_rate": 0.02, "tokens": 64 * s, "seconds": s} | row
        for s in range(1, 99)
    ]
    rows += [{"step": 99, "loss": 3.0, "valid_loss": 3.1, "bits_per_byte": bits, "tokens": 6400, "seconds": 100}]
    write_rows(folder / "metrics.jsonl", rows)
    (folder / "samples.jsonl").write_text(json.dumps({"step": 99, "prompt": text, "text": text}) + "\n")
    (folder / "config.json").write_text(json.dumps({"train": {"seed": 0, "note": text}, "run": str(folder)}))
    (folder / "environment.json").write_text(json.dumps({"stage": stage, "cpu": text}))
    (folder / "finished.json").write_text("{}")
    return folder


class Reader(HTMLParser):
    """Collects what a browser would build: tags, attributes and text."""

    def __init__(self, page: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_stages_of_a_run_are_sections_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    for name in ("sft", "other", "pretrain"):
        write_stage(tmp_path / "quick" / name, name)
    (tmp_path / "quick" / "tokenizer").mkdir()
    (tmp_path / "quick" / "tokenizer" / "recipe.toml").write_text("vocab_size = 6400\n")
    (tmp_path / "quick" / "export").mkdir()
    sections = gather([tmp_path / "quick"])
    assert [section.name for section in sections] == ["tokenizer", "pretrain", "sft", "other"]
    page = Reader(write_report([tmp_path / "quick"], tmp_path / "report.html"))
    assert "4 runs, 19,200 tokens, 5 min 00 s of training brought pretrain to 1.5 bits per byte," in page.text
    assert [value for name, value in page.attributes if name == "href" and value.startswith("#")] == [
        f"#stage-{number}" for number in (1, 2, 3, 4)
    ]


def test_several_runs_share_their_charts_and_are_compared(tmp_path: Path) -> None:
    folders = [write_stage(tmp_path / name / "pretrain", "pretrain", bits=b) for name, b in (("a", 1.7), ("b", 1.4))]
    (section,) = gather(folders)
    assert [one["name"] for one in section.charts[1].series] == ["a/pretrain", "b/pretrain"]
    assert len({one["color"] for one in section.charts[1].series}) == 2
    page = Reader(write_report(folders, tmp_path / "report.html"))
    assert "2 runs side by side; b/pretrain ends lowest, at 1.4 bits per byte of held-out text." in page.text


def test_only_settings_that_explain_a_difference_are_listed_as_such(tmp_path: Path) -> None:
    a, b = write_stage(tmp_path / "a", "pretrain"), write_stage(tmp_path / "b", "pretrain", text="other")
    assert gather([a, b])[0].differences == [("train.note", ["a star", "other"])]


def test_what_an_objective_adds_is_drawn_with_its_validation(tmp_path: Path) -> None:
    run = write_stage(tmp_path / "run", "grpo", reward=0.4, valid_reward=0.3, margin=0.2, valid_margin=0.1, skipped=0)
    titles = {chart.title: [one["name"] for one in chart.series] for chart in gather([run])[0].charts}
    assert titles["Reward"] == titles["Margin"] == ["training", "validation"]
    assert "Skipped" not in titles and list(titles)[:2] == ["Reward", "Loss"]


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path: Path) -> None:
    page = Reader(write_report([tmp_path], tmp_path / "out" / "report.html"))
    assert f"Nothing has been recorded in {tmp_path} yet" in page.text
    assert "figure" not in page.tags


def page_about(folder: Path, text: str) -> Reader:
    """A page with `text` wherever a run can put one: prompt, sample, setting, metric, environment, evaluation."""
    run = write_stage(folder / "run", "pretrain", text=text, **{text: 0.5})
    table = {"title": text, "columns": [text], "rows": [[text]]}
    (run / "evaluation.json").write_text(json.dumps({"tables": [table], "figures": {text: text}}))
    return Reader(write_report([run], folder / "report.html"))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_strangers_adds_no_tag_and_no_attribute(tmp_path: Path, text: str) -> None:
    calm, wild = page_about(tmp_path / "calm", "calm"), page_about(tmp_path / "wild", text)
    assert wild.tags == calm.tags
    assert [name for name, _ in wild.attributes] == [name for name, _ in calm.attributes]
    assert text in wild.text or not text.isprintable()


def test_the_page_asks_for_nothing_and_allows_one_style_sheet_and_one_script(tmp_path: Path) -> None:
    out = write_report([write_stage(tmp_path / "run", "pretrain")], tmp_path / "report.html")
    page = Reader(out)
    assert not {"iframe", "object", "embed", "base", "form", "img"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "xlink:href")]
    assert links == ["data:,"]
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    text = out.read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"fetch|import|innerHTML|eval|XMLHttpRequest", script)
    (policy,) = (value for _, value in page.attributes if value.startswith("default-src"))
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    allowed = "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:;"
    assert policy.startswith(allowed.format(*digests))
    assert "unsafe" not in policy


def test_a_browser_draws_the_charts_and_runs_nothing_of_what_strangers_wrote(tmp_path: Path) -> None:
    texts = [text for text in HOSTILE if "\ud800" not in text]
    runs = [write_stage(tmp_path / str(n), "pretrain", text=text, **{text: 0.5}) for n, text in enumerate(texts)]
    report = write_report(runs, tmp_path / "report.html")
    with launch() as chrome, visit(chrome, report.as_uri()) as found:
        loss = found.tab.locator(".chart").filter(has=found.tab.get_by_role("heading", name="Loss", exact=True))
        assert loss.locator("path.line").count() == 2 * len(runs)
        assert loss.locator("path.raw").count() == len(runs)
        loss.locator("svg").focus()
        loss.locator("svg").press("ArrowLeft")
        assert loss.locator(".head small").inner_text() == "step 99"
        assert found.tab.locator("figure script").count() == 0
        headings = found.tab.get_by_role("heading").all_inner_texts()
    assert all(any(text[1:9] in heading for heading in headings) for text in texts)


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("pretrain", "sft"):
        write_stage(tmp_path / "quick" / name, name)
    pages = [write_report([tmp_path / "quick"], tmp_path / f"{n}.html").read_bytes() for n in range(2)]
    assert pages[0] == pages[1]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gone: no such folder; expected a run"):
        write_report([tmp_path / "gone"], tmp_path / "report.html")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write the report: Is a directory; choose another file with --out"):
        write_report([write_stage(tmp_path / "run", "pretrain")], tmp_path)
