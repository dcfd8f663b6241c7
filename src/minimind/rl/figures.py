"""What a run reports of its rollouts, and which rollouts it cannot learn from.

Each figure of a rollout is a (total, weight) that is added up over rollouts, micro-batches and ranks, so the same
rollouts give the same figures however they are spread. To read them:

    reward, reward_NAME  mean score, and of each reward by itself, without its weight
    pass_rate            share with the full mark of the reward that says "right"
    answer_tokens        sampled per rollout;  ended: share that closed its last turn;  tool_calls: per rollout
    equal_groups         share of groups whose rewards are all the same: their rollouts teach a group loss nothing
    dropped              share left out, and dropped_REASON of each reason
    sampling_gap         mean |old − sampled| log-probability: what training and sampling compute differently, in nats;
                         below 1e-4 in float32, some thousandths in bfloat16 or where a server samples
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minimind.data.prompts import Prompt
from minimind.interfaces import Mean
from minimind.rl.rewards import Rewards
from minimind.rl.rollouts import Rollout, RolloutSettings
from minimind.rl.sampler import RolloutSampler

__all__ = ["Passes", "complaints", "drop_reason", "figure_names", "figures_of", "gap_of", "measure_pass", "sum_figures"]

Figures = Mapping[str, tuple[float, float]]

NAMES = ("reward", "pass_rate", "answer_tokens", "ended", "tool_calls", "equal_groups", "dropped", "sampling_gap")
# Where most answers are cut, their length decides the rewards and not what they say.
MANY_CUT = 0.5
# no_room: the prompt fills the context; unfinished: cut at max_tokens; the others are `Score.failure`.
DROP_REASONS = ("no_room", "unfinished", "reward_raised", "reward_timed_out", "reward_not_finite")


def drop_reason(rollout: Rollout, settings: RolloutSettings) -> str:
    """Why nothing can be learnt from a scored rollout; "" when something can."""
    if not rollout.num_sampled:
        return "no_room"
    if rollout.score.failure:
        return rollout.score.failure
    return "unfinished" if settings.drop_unfinished and rollout.outcome.finish_reason != "stop" else ""


def figure_names(rewards: Iterable[str]) -> list[str]:
    """All of them, for rewards of these names: the same on each rank at each step."""
    return [
        *NAMES,
        *(f"reward_{name}" for name in rewards),
        *(f"dropped_{reason}" for reason in DROP_REASONS),
    ]


def figures_of(rollout: Rollout, reason: str) -> dict[str, tuple[float, float]]:
    """The figures of one scored rollout; of one that was dropped, no score and no length.

    reason: why it was dropped, or ""
    """
    score, outcome = rollout.score, rollout.outcome
    assert reason in ("", *DROP_REASONS), reason
    figures = {f"dropped_{name}": (float(name == reason), 1.0) for name in DROP_REASONS}
    figures["dropped"] = (float(bool(reason)), 1.0)
    if reason:
        return figures
    parts = {f"reward_{name}": (part, 1.0) for name, part in score.parts.items() if math.isfinite(part)}
    return {
        **figures,
        **parts,
        "reward": (score.total, 1.0),
        "pass_rate": (float(score.is_right), 1.0),
        "answer_tokens": (float(outcome.num_tokens), 1.0),
        "ended": (float(outcome.finish_reason == "stop"), 1.0),
        "tool_calls": (float(len(outcome.tool_results)), 1.0),
    }


def complaints(figures: Mapping[str, float]) -> dict[str, str]:
    """What a person should be told about a set of rollouts, by the name of the figure that shows it.

    figures: the means over all ranks
    """
    found = {}
    if figures.get("equal_groups") == 1:
        found["equal_groups"] = (
            f"all answers to each prompt have the same reward ({figures['reward']:g} on average), so they teach "
            "nothing; it takes prompts that are right at times, or a reward that tells answers apart"
        )
    is_cut = 1 - figures.get("ended", 1.0) + figures.get("dropped_unfinished", 0.0)
    if is_cut >= MANY_CUT:
        found["ended"] = (
            f"{is_cut:.0%} of the answers were cut before their end; a larger rollout.max_tokens or data.context lets "
            "the model finish, the reward length(max_tokens=...) makes it brief"
        )
    return found


def gap_of(old_logprobs: Tensor, rollout: Rollout) -> tuple[float, float]:
    """Σ |old − sampled| over the sampled ids of a rollout, and their number. old_logprobs: [ids − 1]"""
    is_sampled = torch.tensor(rollout.weights[1:]) != 0
    sampled = torch.tensor(rollout.logprobs[1:], dtype=torch.float64)
    return float((old_logprobs.double() - sampled)[is_sampled].abs().sum()), float(is_sampled.sum())


def sum_figures(figures: Sequence[Figures], names: Iterable[str]) -> dict[str, Mean]:
    """Their sums under all `names`, in the order given; 0 of 0 where nobody has the figure."""
    sums = {}
    for name in names:
        found = [figure[name] for figure in figures if name in figure]
        total, weight = (
            torch.tensor(sum(column), dtype=torch.float64) for column in zip((0.0, 0.0), *found, strict=True)
        )
        sums[name] = Mean(total, weight)
    return sums


class Passes(NamedTuple):
    """right: of the answers to each prompt, how many are; scores: of all answers that could be scored"""

    right: list[int]
    scores: list[float]


def measure_pass(
    sampler: RolloutSampler, prompts: Sequence[Prompt], places: Sequence[int], rewards: Rewards, *, samples: int
) -> Passes:
    """The answers to each prompt, counted and scored.

    places:  of the prompts among all that are measured: with the seed of `sampler` they decide what is drawn, whatever
             is asked here or by another process, before or after training
    """
    rollouts = rewards.score(sampler(prompts, places, samples))
    right = dict.fromkeys(places, 0)
    for rollout in rollouts:
        right[rollout.place] += rollout.score.is_right
    return Passes(list(right.values()), [rollout.score.total for rollout in rollouts if not rollout.score.failure])
