"""`minimind compare A B`: two runs or models side by side: settings, curves, bits per byte by source, samples."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from minimind.config import REQUIRED, Config, option
from minimind.errors import ConfigError
from minimind.terminal.notes import say

if TYPE_CHECKING:
    from minimind.evals.measured import Measured
    from minimind.report.inspection import InspectionTable

__all__ = ["CompareConfig", "run"]


class CompareConfig(Config):
    """What differs between two runs or models, and which of them is better beyond noise."""

    positional: ClassVar[str] = "models"

    models: list[Path] = option(REQUIRED, "Two runs, checkpoints or model folders.", min_length=2, max_length=2)
    text: list[str] = option(
        [], "Held-out text to score both on, by its column `source`: files, folders, globs, hf://owner/name."
    )
    prompts: list[str] = option([], "Texts to let both continue, greedily.")
    max_documents: int = option(1000, "Score at most this many documents.", ge=1)
    max_tokens: int = option(1024, "Score at most this many tokens of a document.", ge=2)
    sample_tokens: int = option(64, "Tokens of each sample.", ge=1)
    out: Path | None = option(None, "Of two runs: a page with both curves, too, as one HTML file.", kind="free")


def run(config: CompareConfig) -> None:
    """Print the tables, and write the page where one is asked for."""
    from minimind.report.comparison import is_run
    from minimind.terminal.tables import show_table

    are_runs = all(map(is_run, config.models))
    if config.out is not None and not are_runs:
        alone = next(folder for folder in config.models if not is_run(folder))
        raise ConfigError(f"{alone}: is no run and has no curves to draw; leave out --out, or compare two runs")
    for table in _tables(config, are_runs=are_runs):
        if table.rows:
            show_table(table.title, table.columns, table.rows)
        else:
            say(f"\n{table.title}: none")
    if config.out is not None:
        from minimind.report import write_report

        say(f"\nreport: {write_report(config.models, config.out)} (one file, open it in any browser)")


def _tables(config: CompareConfig, *, are_runs: bool) -> "list[InspectionTable]":
    from minimind.report.comparison import figures_table, samples_table, scores_table, settings_table

    labels = _labels(config.models)
    tables = [settings_table(config.models, labels)]
    if are_runs:
        tables.append(figures_table(config.models, labels))
    scores, texts = _scores_and_texts(config)
    if config.text:
        tables.append(scores_table(scores, labels))
    if config.prompts:
        tables.append(_samples(config.prompts, texts, labels))
    elif are_runs:
        tables.append(samples_table(config.models, labels))
    return tables


def _labels(folders: list[Path]) -> list[str]:
    """Short names that differ."""
    names = [folder.resolve().name for folder in folders]
    return names if names[0] != names[1] else [str(folder) for folder in folders]


def _scores_and_texts(config: CompareConfig) -> "tuple[list[dict[str, Measured]], list[list[str]]]":
    """Of each model, loaded one after the other: bits per byte by source, and what it writes for the prompts."""
    if not config.text and not config.prompts:
        return [], []
    from minimind.evals.bits_per_byte import bits_per_byte
    from minimind.generation.completions import complete_texts
    from minimind.generation.sampling import Sampling
    from minimind.report.comparison import parts_by_source
    from minimind.stages.evaluate.text import text_rows
    from minimind.storage.checkpoint import load_model

    rows = text_rows(config.text, config.max_documents) if config.text else []
    scores, texts = [], []
    for folder in config.models:
        model, tokenizer = load_model(folder)
        if rows:
            measured = bits_per_byte(model, tokenizer, rows, config.max_tokens).measured
            scores.append(parts_by_source(measured, [str(row.get("source", "text")) for row in rows if row["text"]]))
        if config.prompts:
            greedy = Sampling(max_tokens=config.sample_tokens, temperature=0.0)
            texts.append(complete_texts(model, tokenizer, config.prompts, greedy))
    return scores, texts


def _samples(prompts: list[str], texts: list[list[str]], labels: list[str]) -> "InspectionTable":
    from minimind.report.inspection import InspectionTable

    rows = [[prompt, *(some[place] for some in texts)] for place, prompt in enumerate(prompts)]
    return InspectionTable("What they write", ["prompt", *labels], rows)
