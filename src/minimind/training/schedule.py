"""The learning rate's way through a run: up, level, down. A pure function of the step."""

import math

from minimind.training.settings import UpdateConfig

__all__ = ["default_warmup", "rate_scale"]

MOST_WARMUP = 40


def default_warmup(total_steps: int) -> int:
    """Updates of a warm-up that was not given: a run must not end while its rates still rise."""
    return min(MOST_WARMUP, total_steps // 10)


def rate_scale(step: int, total_steps: int, settings: UpdateConfig) -> float:
    """The share of the peak rate for the update that leads from `step` to `step` + 1.

    A linear rise over `warmup_steps`, then level, then over the last `cooldown` of the run down to `final_scale`, as a
    line or half a cosine. Cool-down 1 with "cosine" is the usual cosine schedule.
    """
    warmup = default_warmup(total_steps) if settings.warmup_steps is None else settings.warmup_steps
    rise = min(1.0, (step + 1) / (warmup + 1))
    down = total_steps * settings.cooldown
    left = total_steps - step
    if down == 0 or left >= down:
        return rise
    remaining = left / down
    if settings.schedule == "cosine":
        remaining = 0.5 - 0.5 * math.cos(math.pi * remaining)
    return min(rise, settings.final_scale + (1 - settings.final_scale) * remaining)
