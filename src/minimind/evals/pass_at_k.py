"""pass@k: how likely at least one of k answers to a prompt is right.

    pass@k = 1 − C(n − c, k) / C(n, k)

of n sampled answers, c of them right: the share of all choices of k answers that hold a right one. Unlike
1 − (1 − c/n)^k it is unbiased. Source: Chen et al. 2021, arXiv:2107.03374, eq. 1. How to read it: training that raises
pass@1 and lowers pass@8 has made the policy surer of what it knew, and has cost it what it could have learnt.
"""

import math

from minimind.errors import ConfigError

__all__ = ["pass_at_k"]


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Of one prompt. Errors: ConfigError where k answers cannot be chosen from so many samples."""
    assert 0 <= num_right <= num_samples, (num_right, num_samples)
    if not 1 <= k <= num_samples:
        raise ConfigError(f"pass@{k} cannot be estimated from {num_samples} samples; expected k from 1 to that many")
    # Exact whole numbers: the product of ratios in the paper's program only avoids overflow, which Python has none of.
    return 1 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)
