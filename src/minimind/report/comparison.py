"""Two runs or models side by side, as tables: what was set otherwise, what came of it, what each says."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minimind.evals.measured import NOISE_ERRORS, Measured
from minimind.report.inspection import InspectionTable
from minimind.report.summary import Summary
from minimind.storage.checkpoint import find_checkpoint
from minimind.storage.verify import model_files

__all__ = ["figures_table", "is_run", "parts_by_source", "samples_table", "scores_table", "settings_table"]

# Where things lie differs always and explains nothing.
PLACES = ("run", "out")


def is_run(folder: Path) -> bool:
    """Is this a run's folder, with settings and curves, or a model alone?"""
    return (folder / "recipe.toml").is_file() and (folder / "config.json").is_file()


def settings_table(folders: Sequence[Path], labels: Sequence[str]) -> InspectionTable:
    """The settings of two runs, or where one is no run the shapes of the models, that differ."""
    if all(is_run(folder) for folder in folders):
        settings = [dict(Summary(folder, folder.name).settings) for folder in folders]
    else:
        shapes = [asdict(model_files(find_checkpoint(folder)).config) for folder in folders]
        settings = [{name: str(value) for name, value in shape.items()} for shape in shapes]
    names = dict.fromkeys(name for values in settings for name in values if name not in PLACES)
    rows = [[name, *(values.get(name, "–") for values in settings)] for name in names]
    return InspectionTable("Settings that differ", ["", *labels], [row for row in rows if row[1] != row[2]])


def figures_table(folders: Sequence[Path], labels: Sequence[str]) -> InspectionTable:
    """Where each curve of the two runs ended."""
    figures = [Summary(folder, folder.name).figures for folder in folders]
    names = dict.fromkeys(name for values in figures for name in values)
    rows = [[name, *(values.get(name) for values in figures)] for name in names]
    return InspectionTable("Where the curves ended", ["", *labels], rows)


def parts_by_source(measured: Measured, sources: Sequence[str]) -> dict[str, Measured]:
    """What was measured of each document, taken apart by where the documents are from; "all" is last."""
    assert len(sources) == len(measured.amounts), (len(sources), len(measured.amounts))
    parts = {}
    for source in sorted(set(sources)):
        chosen = [number for number, its in enumerate(sources) if its == source]
        amounts, sizes = ([values[number] for number in chosen] for values in (measured.amounts, measured.sizes))
        parts[source] = Measured(amounts, sizes, f"{measured.items}/{source}")
    return (parts if len(parts) > 1 else {}) | {"all": measured}


def scores_table(parts: Sequence[Mapping[str, Measured]], labels: Sequence[str]) -> InspectionTable:
    """Bits per byte of both on each source, and whether the second differs from the first beyond noise."""
    rows: list[list[Any]] = []
    for source, first in parts[0].items():
        change = parts[1][source].minus(first)
        noise = None if change.standard_error is None else NOISE_ERRORS * change.standard_error
        better = labels[1] if change.value < 0 else labels[0]
        verdict = {None: "cannot tell", False: "within noise", True: f"{better} is better"}[change.exceeds_noise]
        rows.append([source, first.value, parts[1][source].value, change.value, noise, verdict])
    columns = ["source", *labels, "difference", "noise", "verdict"]
    return InspectionTable("Bits per byte; lower is better", columns, rows)


def samples_table(folders: Sequence[Path], labels: Sequence[str]) -> InspectionTable:
    """What two runs wrote last for the prompts that both were given."""
    texts = [
        {prompt.text: (prompt.shown or prompt.folded)[-1].text for prompt in Summary(folder, folder.name).prompts}
        for folder in folders
    ]
    rows = [[prompt, text, texts[1][prompt]] for prompt, text in texts[0].items() if prompt in texts[1]]
    return InspectionTable("What they wrote last", ["prompt", *labels], rows)
