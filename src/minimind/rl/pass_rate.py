"""How often a policy is right: samples per prompt, counted. An estimator of pass@k takes it from there."""

from collections.abc import Sequence

from minimind.rl.prompts import Prompt
from minimind.rl.rewards import Rewards
from minimind.rl.rollouts import Sampler, is_right, score_rollouts

__all__ = ["measure_pass"]


def measure_pass(
    sampler: Sampler, prompts: Sequence[Prompt], rewards: Rewards, *, samples: int, reward: str = ""
) -> list[int]:
    """Of `samples` answers to each prompt, how many are right; one that could not be scored is not.

    reward:  the name of the reward whose full mark, 1, means right; the first one's unless given
    The seed of `sampler` decides what is drawn, so that before and after training can be compared.
    """
    name = reward or rewards.names[0]
    rollouts = score_rollouts(sampler(prompts, range(len(prompts)), samples), rewards)
    counts = [0] * len(prompts)
    for rollout in rollouts:
        assert rollout.scored is not None
        counts[rollout.place] += is_right(rollout.scored, name)
    return counts
