"""pass@k: how likely at least one of k answers to a prompt is right.

    pass@k = 1 − C(n − c, k) / C(n, k)

of n sampled answers, c of them right: the share of all choices of k answers that hold a right one. Unlike
1 − (1 − c/n)^k it is unbiased. Source: Chen et al. 2021, arXiv:2107.03374, eq. 1. How to read it: training that raises
pass@1 and lowers pass@8 has made the policy surer of what it knew, and has cost it what it could have learnt.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import ConfigError

__all__ = ["PassAtK", "estimate", "pass_at_k", "pass_table"]


@dataclass(frozen=True)
class PassAtK:
    """Over prompts: the mean of their estimates, and the standard error of that mean as prompts vary.

    standard_error:  None for a single prompt, which does not tell
    """

    k: int
    share: float
    standard_error: float | None


def estimate(num_samples: int, num_right: int, k: int) -> float:
    """pass@k of one prompt. Errors: ConfigError where k answers cannot be chosen from so many samples."""
    assert 0 <= num_right <= num_samples, (num_right, num_samples)
    if not 1 <= k <= num_samples:
        raise ConfigError(f"pass@{k} cannot be estimated from {num_samples} samples; expected k from 1 to that many")
    # Exact whole numbers: the product of ratios in the paper's program only avoids overflow, which Python has none of.
    return 1 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def pass_at_k(num_right: Sequence[int], num_samples: int, ks: Iterable[int]) -> list[PassAtK]:
    """For each k. num_right: of the samples of each prompt, how many are right. Errors: ConfigError"""
    if not num_right:
        raise ConfigError("pass@k needs at least one prompt; got none")
    return [_over_prompts([estimate(num_samples, right, k) for right in num_right], k) for k in ks]


def pass_table(title: str, results: Iterable[PassAtK]) -> dict[str, Any]:
    """A table as `evaluation.json` has them."""
    rows = [[f"pass@{result.k}", result.share, result.standard_error] for result in results]
    return {"title": title, "columns": ["measure", "share", "standard error"], "rows": rows}


def _over_prompts(estimates: Sequence[float], k: int) -> PassAtK:
    count = len(estimates)
    mean = math.fsum(estimates) / count
    squares = math.fsum((value - mean) ** 2 for value in estimates)
    return PassAtK(k, mean, math.sqrt(squares / (count - 1) / count) if count > 1 else None)
