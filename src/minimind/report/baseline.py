"""An evaluation.json to compare with: what changed since, and whether that is more than noise."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimind.errors import RunError
from minimind.evals.measured import NOISE_ERRORS, Difference, Measured
from minimind.report.inspection import InspectionTable

__all__ = ["comparison_table", "read_baseline"]

# Figures that are better when they fall; of all the others more is better.
FALLING = ("bits_per_byte", "loss", "perplexity", "false_calls")


def read_baseline(path: Path) -> tuple[dict[str, float], dict[str, Measured]]:
    """The figures of an evaluation, and what is known of the items behind them. Errors: RunError"""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = {str(name): float(value) for name, value in content["figures"].items()}
        known = {str(name): Measured.from_json(value) for name, value in content.get("measured", {}).items()}
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; expected what `evaluate --out` wrote") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise RunError(f"{path}: is no evaluation ({problem}); expected what `evaluate --out` wrote") from error
    return figures, known


def comparison_table(
    title: str,
    figures: Mapping[str, float],
    measured: Mapping[str, Measured],
    old_figures: Mapping[str, float],
    old_measured: Mapping[str, Measured],
) -> InspectionTable:
    """Each figure that was measured now and then, old and new. Errors: RunError when there is none"""
    names = [name for name in measured if name in old_figures]
    if not names:
        raise RunError(
            f"the baseline has {', '.join(old_figures) or 'no figures'} and this evaluation "
            f"{', '.join(measured) or 'none'}; nothing to compare, measure the same things"
        )
    rows: list[list[Any]] = []
    for name in names:
        new, old = measured[name], old_measured.get(name)
        change = new.minus(old) if old else Difference(figures[name] - old_figures[name], None, is_paired=False)
        noise = None if change.standard_error is None else NOISE_ERRORS * change.standard_error
        rows.append([name, old_figures[name], figures[name], change.value, noise, _verdict(name, change)])
    return InspectionTable(title, ["figure", "baseline", "now", "difference", "noise", "verdict"], rows)


def _verdict(name: str, change: Difference) -> str:
    if change.exceeds_noise is None:
        return "cannot tell: the baseline does not keep its items"
    is_better = (change.value < 0) == name.startswith(FALLING)
    verdict = ("better" if is_better else "worse") if change.exceeds_noise else "within noise"
    return verdict if change.is_paired else f"{verdict} (on other items)"
