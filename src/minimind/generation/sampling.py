"""The next id from logits: temperature, top-k, top-p, min-p, repetition penalty, and a draw from what is left.

Everything works on rows at once. The random numbers come from outside, one per row, so that the same numbers give the
same ids in any batch and on any device. `generate.py` is the loop around this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from minimind.errors import ConfigError

__all__ = ["LEAST_PENALTY", "Sampling", "draw", "penalise"]

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256
# Scores divided by next to nothing are no numbers, and then no mask holds: an id that a grammar forbids may be drawn.
LEAST_PENALTY = 0.01
# Enough candidates for nearly every top-p or min-p; to sort a whole vocabulary costs as much as a small model's layer.
USUAL_CANDIDATES = 256
# Below this, sampling is greedy but for scores within a thousandth of the best, and quotients would soon overflow.
GREEDY_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop.

    The candidates are cut by top_k, then top_p, then min_p, each after the temperature, as in transformers and vLLM.
    Errors:  ConfigError for a value out of bounds.
    """

    temperature: Annotated[float, "0 always takes the likeliest token; 1 samples as the model predicts."] = 0.7
    top_k: Annotated[int, "Keep the k likeliest tokens; 0 keeps all."] = 0
    top_p: Annotated[float, "Keep the likeliest tokens that together reach this probability."] = 0.9
    min_p: Annotated[float, "Keep tokens at least this likely compared with the likeliest."] = 0.0
    repetition_penalty: Annotated[float, "Above 1 makes tokens that occurred, in the prompt too, less likely."] = 1.0
    seed: Annotated[int, "The same seed gives the same text."] = 0
    max_tokens: Annotated[int, "Stop after this many tokens."] = 256
    stop: Annotated[tuple[str, ...], "Stop before any of these texts."] = ()

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (0 <= self.temperature <= 100, "from 0 to 100"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (LEAST_PENALTY <= self.repetition_penalty <= 100, f"from {LEAST_PENALTY} to 100"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "stop": (
                len(self.stop) <= MAX_STOP_STRINGS and all(0 < len(text) <= MAX_STOP_LENGTH for text in self.stop),
                f"at most {MAX_STOP_STRINGS} texts of 1 to {MAX_STOP_LENGTH} characters",
            ),
        }
        for name, (holds, expected) in bounds.items():
            if not holds:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected {expected}")


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make ids that occurred less likely for a penalty above 1. logits [B, V], seen [B, V] bool -> [B, V].

    Source:  Keskar et al. 2019, arXiv:1909.05858, section 4.1; the sign rule, without which a negative score would
             rise, is the usual correction.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(logits: Tensor, sampling: Sampling, uniforms: Sequence[float]) -> tuple[Tensor, Tensor]:
    """One id per row, and its log-probability under the distribution it was drawn from: logits [B, V] -> [B], [B].

    uniforms:  [B] numbers from 0 to below 1, one per row; row b takes the id at which the cumulative probability passes
               uniforms[b]
    """
    best, greedy = logits.max(-1)
    if sampling.temperature < GREEDY_TEMPERATURE:
        return greedy, torch.zeros_like(best)
    # Relative to the best score no quotient is too large for a float, however low the temperature.
    scores, ids = _candidates((logits - best[:, None]) / sampling.temperature, sampling)
    logprobs = scores.log_softmax(-1)
    # Summed in float64: the float32 sum of many thousands of small probabilities is short of 1. A number below 1 times
    # the total stays below it, rounded too, so a place with some probability is always found.
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)  # [B, n]
    targets = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
    # Logits that are not numbers give no place; the caller finds out from the log-probability.
    place = torch.searchsorted(cumulative, targets, right=True).clamp(max=scores.shape[-1] - 1)
    chosen = place if ids is None else ids.gather(1, place)
    return chosen[:, 0], logprobs.gather(1, place)[:, 0]


def _candidates(scores: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """The scores of the ids that may be drawn, -inf for the others, and the ids: [B, n], [B, n].

    Likeliest first; with nothing to leave out the scores as they are, and None for ids 0, 1, ...
    """
    size = scores.shape[-1]
    top_k = min(sampling.top_k or size, size)
    if top_k == size and sampling.top_p == 1 and sampling.min_p == 0:
        return scores, None
    widths = (top_k,) if top_k < size else (min(USUAL_CANDIDATES, size), size)
    for width in widths:
        values, ids = scores.topk(width)
        total = (values if top_k < size else scores).logsumexp(-1, keepdim=True)
        probabilities = (values - total).exp()
        dropped = probabilities < sampling.min_p * probabilities[:, :1]
        if sampling.top_p < 1:
            # A token stays when those before it have not reached top_p yet; so the first always stays.
            dropped |= probabilities.cumsum(-1) - probabilities >= sampling.top_p
        # Once the last candidate of each row is dropped, those beyond would be, too.
        if bool(dropped[:, -1].all()):
            break
    return values.masked_fill(dropped, -torch.inf), ids
