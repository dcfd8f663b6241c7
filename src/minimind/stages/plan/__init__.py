"""The verb `plan`: read `plan.py` first."""

from minimind.stages.plan.plan import PlanConfig, run

__all__ = ["PlanConfig", "run"]
