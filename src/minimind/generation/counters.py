"""What a running engine counts of its work."""

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["STEP_BOUNDS", "Counters"]

# Seconds of a step; a token takes as long as a step.
STEP_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass
class Counters:
    """What an engine did since it was made. Written by its thread alone; a reader may be a step behind."""

    num_prompt: int = 0
    num_reused: int = 0
    num_generated: int = 0
    num_computed: int = 0
    step_seconds: float = 0.0
    steps: Counter[float] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    def note_prompt(self, size: int, reused: int) -> None:
        self.num_prompt += size
        self.num_reused += reused

    def note_step(self, seconds: float, num_tokens: int) -> None:
        self.num_computed += num_tokens
        self.step_seconds += seconds
        self.steps[next((bound for bound in STEP_BOUNDS if seconds <= bound), float("inf"))] += 1

    def note_end(self, reason: str) -> None:
        self.ends[reason] += 1
