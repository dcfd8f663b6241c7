"""The verb `generate`: read `generate.py` first."""

from minimind.stages.generate.generate import GenerateConfig, run

__all__ = ["GenerateConfig", "run"]
