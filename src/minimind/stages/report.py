"""`minimind report`: run folders -> one HTML page with curves, figures, tables, samples and settings."""

from pathlib import Path
from typing import Any, ClassVar

from minimind.config import REQUIRED, Config, option, options
from minimind.stages import VERBS, load_stage
from minimind.terminal.notes import say

__all__ = ["ReportConfig", "run"]


class ReportConfig(Config):
    """One page about one run, about the stages of a run, or about several runs side by side."""

    positional: ClassVar[str] = "runs"

    runs: list[Path] = option(REQUIRED, "Run folders, or folders of runs such as runs/quickstart.", min_length=1)
    out: Path | None = option(
        None, "The file to write; by default report.html in the run, or here when there are several.", kind="free"
    )


def run(config: ReportConfig) -> None:
    """Write the page and say where it is."""
    from minimind.report import write_report

    only = config.runs[0] if len(config.runs) == 1 else Path()
    out = write_report(config.runs, config.out or only / "report.html", defaults=_defaults)
    say(f"report: {out} (one file, open it in any browser)")


def _defaults(stage: str) -> dict[str, Any]:
    """A stage's options that have a default, by dotted name, as config.json spells their values."""
    from pydantic_core import to_jsonable_python

    known = options(load_stage(stage)[0]) if stage in VERBS else ()
    return {option.name: to_jsonable_python(option.default) for option in known if option.default is not REQUIRED}
