"""How often a policy is right: samples per prompt, counted. An estimator of pass@k takes it from there."""

from collections.abc import Sequence
from typing import NamedTuple

from minimind.data.prompts import Prompt
from minimind.rl.rewards import Rewards
from minimind.rl.rollouts import Sampler, is_right, score_rollouts

__all__ = ["Passes", "measure_pass"]


class Passes(NamedTuple):
    """right: of the answers to each prompt, how many are; scores: of all answers that could be scored"""

    right: list[int]
    scores: list[float]


def measure_pass(
    sampler: Sampler, prompts: Sequence[Prompt], places: Sequence[int], rewards: Rewards, *, samples: int
) -> Passes:
    """The answers to each prompt, counted and scored.

    places:  of the prompts among all that are measured: with the seed of `sampler` they decide what is drawn, whatever
             is asked here or by another process, before or after training
    """
    rollouts = score_rollouts(sampler(prompts, places, samples), rewards)
    right = dict.fromkeys(places, 0)
    scores = []
    for rollout in rollouts:
        assert rollout.scored is not None
        right[rollout.place] += is_right(rollout.scored, rewards.names[0])
        if not rollout.scored.is_dropped:
            scores.append(rollout.scored.total)
    return Passes([right[place] for place in places], scores)
