"""The verb `evaluate`: read `evaluate.py` first."""

from minimind.stages.evaluate.evaluate import EvaluateConfig, run

__all__ = ["EvaluateConfig", "run"]
