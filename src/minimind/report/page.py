"""One or several run folders -> one self-contained HTML page that a newcomer can read.

A folder that is a run is one section; a folder of runs, such as `runs/quickstart` with tokenizer, pretrain and sft in
it, is one section per stage, in the order of the pipeline. Several folders are drawn over one another, stage by stage.

The page loads nothing: its policy allows one style sheet and one script, named by their hashes, and all text passes
through the template's escaping, because prompts and model output are the words of strangers. The script draws the
curves, as in the server's page; where none runs, they are there in words. `page.html` says where everything goes.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from minimind.errors import RunError, printable
from minimind.report.chart import Chart, Curve, draw, short
from minimind.report.summary import Defaults, Summary, title_of
from minimind.terminal.figures import duration

__all__ = ["STAGES", "Section", "gather", "write_report"]

# The pipeline's order, and each stage in a sentence.
STAGES = {
    "tokenizer": "Learns which pieces of text become one token, from how often they occur.",
    "prepare": "Reads, cleans and splits the text, and stores it as token ids.",
    "pretrain": "Learns to continue plain text by predicting every next token.",
    "sft": "Learns to answer, from example conversations; only the answers count.",
    "lora": "Learns a small correction beside frozen weights.",
    "distill": "Learns from the probabilities of a larger teacher.",
    "dpo": "Learns to prefer the better of two answers.",
    "ppo": "Learns from rewards for its own answers, with a critic that predicts them.",
    "grpo": "Learns from rewards for its own answers, each compared with others to the same prompt.",
    "agent": "Learns from rewards to call tools and to use what they return.",
    "evaluate": "Measures the result on held-out data.",
}
# Title, metric, a sentence, noisy, from zero. What an objective adds is drawn between the two groups.
LOSS_CURVES = [
    ("Reward", "reward", "Mean score of the answers that are learnt from; it should rise.", True, False),
    ("Loss", "loss", "What training makes smaller. Thin: as logged; thick: smoothed.", True, False),
    ("Bits per byte", "bits_per_byte", "Cost of held-out text; less is better.", False, False),
]
MACHINE_CURVES = [
    ("Tokens per second", "tokens_per_second", "How fast the machine works.", True, True),
    ("Learning rate", "learning_rate", "How far an update may go: up, then down to rest.", False, True),
    ("Gradient norm", "gradient_norm", "How hard each batch pulls; lasting growth is a warning.", True, True),
]
RUN_FILES = ("metrics.jsonl", "recipe.toml", "environment.json", "evaluation.json")
NUM_COLORS = 8
MAX_PROMPTS = 12


def write_report(runs: Sequence[Path], out: Path, *, defaults: Defaults = lambda _: {}) -> Path:
    """Write the page about these run folders to `out`, and return `out`. The same runs give the same bytes.

    defaults:  stage -> each option's default by dotted name; what differs from it is shown before all the rest
    Errors:    RunError when a folder is missing or damaged, or when `out` cannot be written
    """
    text = _render(gather(runs, defaults), _labels(runs))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{out}: cannot write the report: {error.strerror}; choose another file with --out") from error
    return out


@dataclass(frozen=True)
class Section:
    """The runs of one stage, drawn together; `name` is "" for folders that are runs themselves."""

    name: str
    runs: list[Summary]

    @property
    def title(self) -> str:
        return self.name or (self.runs[0].label if len(self.runs) == 1 else "Runs")

    @property
    def about(self) -> str:
        """The stage in a sentence, when it is one that is known."""
        stages = {self.name or run.stage for run in self.runs}
        return STAGES.get(_stage(stages.pop()), "") if len(stages) == 1 else ""

    @property
    def headline(self) -> str:
        """A few words for the table of contents: what came of it, and in what time."""
        if len(self.runs) > 1:
            return f"{len(self.runs)} runs"
        run = self.runs[0]
        found = [run.best or next((f"{name.lower()} {value}" for name, value in run.results), "done")]
        return " · ".join(found + [run.figures[name] for name in ("Time",) if name in run.figures])

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.figures))

    @property
    def differences(self) -> list[tuple[str, list[str]]]:
        """The settings that are not the same in all runs: name -> a value per run."""
        settings = [dict(run.settings) for run in self.runs]
        # Where a run is kept differs always and explains nothing.
        names = dict.fromkeys(name for values in settings for name in values if name not in ("run", "out"))
        rows = [(name, [values.get(name, "–") for values in settings]) for name in names]
        return [(name, values) for name, values in rows if len(set(values)) > 1]

    @cached_property
    def charts(self) -> list[Chart]:
        others = dict.fromkeys(name for run in self.runs for name in run.others)
        between = [(title_of(name), name, "", True, False) for name in others]
        charts = [self._chart(*curve) for curve in [*LOSS_CURVES, *between, *MACHINE_CURVES]]
        return [chart for chart in charts if chart]

    def _chart(self, title: str, metric: str, note: str, noisy: bool, from_zero: bool) -> Chart | None:
        """A metric and its value in validation. Alone, a run has a color for either; beside others, one for both."""
        curves = []
        is_alone = len(self.runs) == 1
        is_validated = any(f"valid_{metric}" in run.metrics for run in self.runs)
        for run in self.runs:
            label = run.label if not is_alone else "training" if is_validated else ""
            curves.append(Curve(label, run.metrics.get(metric, []), run.color, smooth=noisy))
            label, color = ("validation", 1) if is_alone else (f"{run.label}, validation", run.color)
            curves.append(Curve(label, run.metrics.get(f"valid_{metric}", []), color, dashed=not is_alone))
        return draw(title, curves, note=note, from_zero=from_zero)


def gather(runs: Sequence[Path], defaults: Defaults = lambda _: {}) -> list[Section]:
    """The runs of these folders, by stage, in the order of the pipeline."""
    sections: dict[str, list[Summary]] = {}
    for number, (folder, label) in enumerate(zip(runs, _labels(runs), strict=True)):
        for name, part in _parts(folder):
            run = Summary(part, label, number % NUM_COLORS, defaults=defaults)
            sections.setdefault(name, []).append(run)
    return [Section(name, sections[name]) for name in sorted(sections, key=_place)]


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """A run as itself, under the name ""; a folder of runs as those, under their own names."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected a run, or a folder of runs such as runs/quickstart")
    if not (folder / "metrics.jsonl").is_file():
        parts = [(path.name, path) for path in folder.iterdir() if any((path / name).is_file() for name in RUN_FILES)]
        if parts:
            return parts
    return [("", folder)]


def _stage(name: str) -> str:
    """The stage that a folder such as `sft-2` or `4-sft` is named after, or ""."""
    words = re.split("[^a-z]+", name.lower())
    return next((stage for stage in STAGES if stage in words), "")


def _place(name: str) -> tuple[int, str]:
    """Where a section stands: by the pipeline, and what is unknown at the end."""
    order = ["", *STAGES]
    return order.index(_stage(name)) if _stage(name) or not name else len(order), name


def _labels(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a stage's name alone would not say whose it is."""
    parts = [folder.resolve().parts for folder in runs]
    labels = []
    for own in parts:
        least = 2 if _stage(own[-1]) and len(own) > 2 else 1
        lengths = range(least, len(own) + 1)
        enough = (n for n in lengths if sum(own[-n:] == other[-n:] for other in parts) == 1)
        labels.append("/".join(own[-next(enough, least) :]))
    return labels


def _outcome(sections: Sequence[Section]) -> str:
    """The page in one sentence."""
    if len(sections) == len(sections[0].runs) == 1:
        return sections[0].runs[0].outcome
    if max(len(section.runs) for section in sections) > 1:
        return _comparison(sections)
    runs = [section.runs[0] for section in sections]
    tokens, seconds = sum(run.tokens for run in runs), sum(run.seconds for run in runs)
    work = f"{len(runs)} runs" + (f", {short(tokens)} tokens" if tokens else "")
    work += f", {duration(seconds)} of training" if seconds else ""
    named = [(section.title, section.runs[0]) for section in sections if section.runs[0].best]
    ends = [f"{name} to {run.best}{'' if run.is_finished else ' so far'}" for name, run in named]
    return f"{work} brought {', '.join(ends)}." if ends else f"{work}."


def _comparison(sections: Sequence[Section]) -> str:
    """Who did best at the last stage that tells."""
    count = max(len(section.runs) for section in sections)
    for section in reversed(sections):
        for metric, words in (("bits_per_byte", "bits per byte of held-out text"), ("valid_loss", "validation loss")):
            ends = [(end, run.label) for run in section.runs if (end := run.measured(metric)) is not None]
            if len(ends) > 1:
                value, label = min(ends)
                stage = f" in {section.name}" if section.name else ""
                return f"{count} runs side by side; {label} ends lowest{stage}, at {short(value)} {words}."
    return f"{count} runs side by side."


def _render(sections: Sequence[Section], labels: Sequence[str]) -> str:
    # Imported here: the command line must start without it.
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    runs = [run for section in sections for run in section.runs]
    here = files("minimind.report")
    web = files("minimind").joinpath("serve", "web")
    style = _joined(web.joinpath("chart.css"), here.joinpath("page.css"))
    script = _joined(web.joinpath("elements.js"), web.joinpath("chart.js"), here.joinpath("charts.js"))
    policy = "; ".join(
        [
            f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:",
            "base-uri 'none'; form-action 'none'",
        ]
    )
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=_printable
    )
    return environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8")).render(
        title=", ".join(labels) if len(labels) <= 3 else f"{len(labels)} runs",
        outcome=_outcome(sections),
        sections=sections,
        # Of several runs each has its own; of several stages the last one is the one to talk with.
        use=next((run.use for run in reversed(runs) if run.use), []) if len(labels) == 1 else [],
        max_prompts=MAX_PROMPTS,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
    )


def _joined(*parts: Traversable) -> str:
    """Style sheets, or scripts that import one another, as one; a single file has no other to import from."""
    texts = (part.read_text(encoding="utf-8") for part in parts)
    return re.sub("^import .*\n|^export ", "", "\n".join(texts), flags=re.MULTILINE)


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls a text that is in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _printable(value: Any) -> Any:
    """What the template is about to write, with every character that a page can hold and show."""
    # The style sheet is ours, and its hash is that of exactly these characters.
    return printable(value) if type(value) is str else value
